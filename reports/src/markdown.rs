//! A result as a comment of a pull request: under 40 lines whatever the number of classes.

use crate::comparison::{Comparison, Difference, Evidence};
use crate::summary::{ClassSummary, Fate, Summary};
use crate::{fate, words};

const CLASSES_MAX: usize = 10;
const DIFFERENCES_MAX: usize = 10;
const SENTENCES_MAX: usize = 3;
const NEXT_MAX: usize = 2;

/// The verdict, a row a class, who starved, what differs from a baseline, what to do.
pub(crate) fn markdown(summary: &Summary, baseline: Option<&Comparison>) -> String {
    let mut lines = vec![
        format!("**{}**", cell(&summary.verdict_line)),
        String::new(),
        "| class | offered | good | TTFT p50 | TTFT p99 | E2E p99 | worst wait | verdict |"
            .to_owned(),
        "|---|--:|--:|--:|--:|--:|--:|---|".to_owned(),
    ];
    let mut classes: Vec<&ClassSummary> = summary.classes.iter().collect();
    // Those that suffered come first where not all have room.
    if classes.len() > CLASSES_MAX {
        classes.sort_by_key(|class| is_fine(class));
    }
    lines.extend(classes.iter().take(CLASSES_MAX).map(|class| row(summary, class)));
    left_out(&mut lines, classes.len(), CLASSES_MAX, "classes");
    lines.push(String::new());
    let hurt: Vec<&&ClassSummary> = classes.iter().filter(|class| !is_fine(class)).collect();
    let told = hurt.iter().take(SENTENCES_MAX);
    lines.extend(told.map(|class| format!("- {}", cell(&class.waiting.sentence))));
    left_out(&mut lines, hurt.len(), SENTENCES_MAX, "classes that waited too long");
    lines.extend(baseline.iter().flat_map(|comparison| against(comparison)));
    let next = summary.next.iter().take(NEXT_MAX).map(|next| format!("- → {}", advice(next)));
    lines.extend(next);
    lines.push(String::new());
    let hash: String = summary.scenario.hash.chars().take(12).collect();
    lines.push(format!(
        "{}; scenario {hash}, seed {}, {}",
        cell(&crate::table::conservation(summary)),
        summary.scenario.seed,
        cell(&summary.interval_note)
    ));
    debug_assert!(lines.len() < 40, "a comment is short");
    lines.join("\n") + "\n"
}

fn is_fine(class: &ClassSummary) -> bool {
    match class.waiting.fate {
        Fate::Fine => true,
        Fate::Starved | Fate::Overload | Fate::Unlucky => false,
    }
}

fn row(summary: &Summary, class: &ClassSummary) -> String {
    let (numbers, latency) = (&class.numbers, &class.numbers.latency);
    let worst = class.waiting.worst_wait.as_ref().map_or("0 s".to_owned(), |worst| {
        format!("{}{}", if worst.at_least { "≥ " } else { "" }, words::secs(worst.seconds))
    });
    let cells = [
        cell(&class.name),
        words::count(numbers.counts.offered),
        numbers.slo_attainment.value.map_or("–".to_owned(), words::percent),
        words::latency(&latency.ttft.p50),
        words::latency(&latency.ttft.p99),
        words::latency(&latency.e2e.p99),
        worst,
        fate::status(summary, class).1,
    ];
    format!("| {} |", cells.join(" | "))
}

/// What differs from the baseline, evidence first.
fn against(comparison: &Comparison) -> Vec<String> {
    let reference = comparison.candidates.first().map_or("", |first| &first.name);
    let mut lines = vec![String::new()];
    lines.extend(comparison.sentences.iter().map(|sentence| cell(sentence)));
    lines.extend([
        String::new(),
        format!("| class | number | {} | difference, 95 % | |", cell(reference)),
        "|---|---|--:|--:|---|".to_owned(),
    ]);
    let row = |one: &Difference| {
        let [_, class, measure, first, difference, _, evidence] =
            <[String; 7]>::try_from(crate::study::difference_row(one)).expect("seven cells");
        let mark = match one.evidence {
            Evidence::Better => "✓ ",
            Evidence::Worse => "✗ ",
            Evidence::None | Evidence::Unmeasured => "",
        };
        format!("| {} | {measure} | {first} | {difference} | {mark}{evidence} |", cell(&class))
    };
    lines.extend(comparison.differences.iter().take(DIFFERENCES_MAX).map(row));
    left_out(&mut lines, comparison.differences.len(), DIFFERENCES_MAX, "numbers");
    lines.push(String::new());
    lines
}

fn left_out(lines: &mut Vec<String>, all: usize, most: usize, what: &str) {
    if all > most {
        lines.push(String::new());
        lines.push(format!("{} more {what} are in the report.", all - most));
    }
}

/// Nothing that a name holds is markup, code or a link, or ends a cell.
pub(crate) fn cell(text: &str) -> String {
    let text = advice(text).replace('`', "\\`").replace('[', "\\[");
    text.replace('*', "\\*")
}

/// The same of a sentence of ours, which may quote commands.
fn advice(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('|', "\\|");
    words::harmless(&text.replace(['\n', '\r'], " "))
}
