//! What stdout shows: the verdict, a row a class, the conservation line, what to do next.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::comparison::Comparison;
use crate::ledger::Ledger;
use crate::markdown::markdown;
use crate::summary::{ClassSummary, Summary};
use crate::{charts, fate, rows, words};

/// How the table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a terminal.
    Human,
    /// The table alone, comma-separated, plain numbers in seconds and fractions.
    Csv,
    /// Markdown.
    Md,
}

/// A column: its head, how much it matters (1 stays longest) and its cell.
struct Column {
    head: &'static str,
    rank: u8,
    cell: fn(&Summary, &ClassSummary) -> String,
}

const COLUMNS: [Column; 11] = [
    Column { head: "class", rank: 1, cell: |_, class| class.name.clone() },
    Column {
        head: "offered",
        rank: 3,
        cell: |_, class| words::count(class.numbers.counts.offered),
    },
    Column { head: "good", rank: 1, cell: attainment },
    Column { head: "TTFT p50", rank: 4, cell: |_, c| words::latency(&c.numbers.latency.ttft.p50) },
    Column { head: "TTFT p99", rank: 1, cell: |_, c| words::latency(&c.numbers.latency.ttft.p99) },
    Column { head: "TPOT p99", rank: 3, cell: |_, c| words::latency(&c.numbers.latency.tpot.p99) },
    Column { head: "E2E p99", rank: 3, cell: |_, c| words::latency(&c.numbers.latency.e2e.p99) },
    Column {
        head: "queue p99",
        rank: 4,
        cell: |_, c| words::latency(&c.numbers.latency.queue_time.p99),
    },
    Column { head: "worst wait", rank: 2, cell: worst_wait },
    Column { head: "engine", rank: 2, cell: engine_share },
    Column { head: "", rank: 1, cell: |summary, class| fate::status(summary, class).1 },
];

fn attainment(_: &Summary, class: &ClassSummary) -> String {
    class.numbers.slo_attainment.value.map_or("–".to_owned(), words::percent)
}
fn worst_wait(_: &Summary, class: &ClassSummary) -> String {
    class.waiting.worst_wait.as_ref().map_or("0 s".to_owned(), |worst| {
        let at_least = if worst.at_least { "≥ " } else { "" };
        format!("{at_least}{}", words::secs(worst.seconds))
    })
}
fn engine_share(_: &Summary, class: &ClassSummary) -> String {
    class.waiting.engine_share.map_or("–".to_owned(), words::percent)
}
/// The results as text. `width` is that of the terminal in characters; columns that do not fit
/// are left out, the least important first.
pub fn table(summary: &Summary, format: Format, width: usize) -> String {
    match format {
        Format::Csv => csv(summary),
        Format::Md => markdown(summary, None),
        Format::Human => human(summary, &[], width),
    }
}

/// The results for a terminal, with how many of each class waited over time.
pub fn table_with_sparklines(summary: &Summary, ledger: &Ledger, width: usize) -> String {
    let of = |row: usize| charts::spark(ledger, row);
    let sparks: Vec<String> = (0..summary.classes.len()).map(of).collect();
    human(summary, &sparks, width)
}

/// The results as Markdown with their difference to a baseline, under 40 lines.
pub fn comment(summary: &Summary, baseline: &Comparison) -> String {
    markdown(summary, Some(baseline))
}

fn human(summary: &Summary, sparks: &[String], width: usize) -> String {
    let format = Format::Human;
    let grid = grid(summary, sparks, width);
    let mut text = wrap(&summary.verdict_line, format, width);
    text.push_str(&format!("\n{grid}\n\n"));
    for class in &summary.classes {
        text.push_str(&wrap(&class.waiting.sentence, format, width));
    }
    if let Some(gap) = &summary.fairness.sentence {
        text.push_str(&wrap(&format!("= {gap}."), format, width));
    }
    text.push('\n');
    for line in crate::alarms::lines(&summary.alarms) {
        text.push_str(&wrap(&format!("! {line}"), format, width));
    }
    for line in crate::advice::lines(&summary.advice) {
        text.push_str(&wrap(&format!("± {line}"), format, width));
    }
    text.push_str(&wrap(&conservation(summary), format, width));
    text.push_str(&wrap(&notes(summary), format, width));
    for line in certainty(summary) {
        text.push_str(&wrap(&format!("± {line}"), format, width));
    }
    for line in summary.recorded.iter().flat_map(|recorded| &recorded.not_observed) {
        text.push_str(&wrap(&format!("? {line}"), format, width));
    }
    for line in &summary.next {
        text.push_str(&wrap(&format!("→ {line}"), format, width));
    }
    words::harmless(&text)
}

/// The conservation line, and why it counts more than the table does.
pub(crate) fn conservation(summary: &Summary) -> String {
    let line = &summary.conservation_line;
    match (&summary.recorded, summary.scenario.warm_up_s > 0.0) {
        (_, false) => line.clone(),
        (None, true) => format!("{line}, the warm-up included"),
        (Some(_), true) => format!("{line}, those that came before the log began included"),
    }
}

/// What is known of warm-up, precision and the means of one trace, where somebody asked.
pub(crate) fn certainty(summary: &Summary) -> Vec<String> {
    let asked = summary.precision.iter().map(|precision| precision.note.clone());
    let warm = summary.warm_up.iter().map(|warm_up| warm_up.note.clone());
    let means = summary.batch_means.iter().map(|mean| {
        let reason = mean.note.clone().unwrap_or_default();
        match (mean.e2e_mean_s, mean.interval) {
            (Some(value), Some([low, high])) => format!(
                "{} mean E2E {}, {} to {} by {} batch means",
                mean.class,
                words::secs(value),
                words::secs(low),
                words::secs(high),
                mean.batches
            ),
            (Some(value), None) => {
                format!("{} mean E2E {}; {reason}", mean.class, words::secs(value))
            }
            (None, _) => format!("{}: {reason}", mean.class),
        }
    });
    asked.chain(warm).chain(means).collect()
}

fn notes(summary: &Summary) -> String {
    let mut notes = summary.interval_note.clone();
    let latencies = summary.classes.iter().flat_map(|class| {
        let latency = &class.numbers.latency;
        [&latency.ttft, &latency.tpot, &latency.e2e, &latency.queue_time]
    });
    let shown = latencies.flat_map(|latency| [&latency.p50, &latency.p99]);
    let (mut few, mut at_least) = (false, false);
    for estimate in shown {
        few |= estimate.few_samples;
        at_least |= estimate.at_least;
    }
    if few {
        notes.push_str("; * fewer than 10 samples lie beyond");
    }
    if at_least {
        notes.push_str("; ≥ requests were cut off, the true value is this or more");
    }
    notes
}

/// A line for a terminal `width` characters wide, broken between words, what goes on indented; a
/// number stays with its unit.
pub(crate) fn wrap(line: &str, format: Format, width: usize) -> String {
    if format != Format::Human {
        return format!("{line}\n");
    }
    let mut text = String::new();
    let mut used = 0;
    let mut quoted = false;
    let mut words = line.split(' ').peekable();
    while let Some(first) = words.next() {
        let mut piece = first.to_owned();
        quoted ^= first.matches('`').count() % 2 == 1;
        while let Some(next) = words.peek()
            && (quoted || is_unit(next) && first.ends_with(|c: char| c.is_ascii_digit()))
        {
            quoted ^= next.matches('`').count() % 2 == 1;
            piece = format!("{piece} {next}");
            words.next();
        }
        let length = piece.chars().count();
        if used > 0 && used + 1 + length > width {
            text.push_str("\n  ");
            used = 2;
        } else if used > 0 {
            text.push(' ');
            used += 1;
        }
        text.push_str(&piece);
        used += length;
    }
    text.push('\n');
    text
}

fn is_unit(word: &str) -> bool {
    let letters = word.trim_end_matches([';', ',', '.', ')']);
    matches!(letters, "%" | "ns" | "us" | "µs" | "ms" | "s" | "min" | "h")
}

/// `sparks` is a line a class, or nothing.
fn grid(summary: &Summary, sparks: &[String], width: usize) -> String {
    for rank in (1..=4).rev() {
        let columns: Vec<&Column> = COLUMNS.iter().filter(|column| column.rank <= rank).collect();
        // What became of a class stands last, the line before it.
        let (fate, measures) = columns.split_last().expect("there are columns");
        let is_drawn = !sparks.is_empty() && rank > 1;
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_content_arrangement(ContentArrangement::Disabled);
        let line = is_drawn.then_some("waiting over time");
        table.set_header(measures.iter().map(|column| column.head).chain(line).chain([fate.head]));
        for (row, class) in summary.classes.iter().enumerate() {
            let line = is_drawn.then(|| sparks[row].clone());
            let cells = measures.iter().map(|column| (column.cell)(summary, class));
            table.add_row(cells.chain(line).chain([(fate.cell)(summary, class)]));
        }
        for (index, column) in measures.iter().enumerate() {
            if column.head != "class"
                && let Some(column) = table.column_mut(index)
            {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let text = table.to_string();
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        if widest <= width || rank == 1 {
            // One rule under the head is enough.
            let lines = text.lines().map(str::trim_end).filter(|line| !line.starts_with('─'));
            return lines.collect::<Vec<_>>().join("\n");
        }
    }
    unreachable!("the narrowest table is always returned")
}

fn csv(summary: &Summary) -> String {
    let mut text = String::from(
        "class,offered,finished,good,slo_attainment,ttft_p50_s,ttft_p99_s,tpot_p99_s,e2e_p99_s,\
         queue_p99_s,worst_wait_s,engine_share,fate,overloaded\n",
    );
    let plain = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    for class in &summary.classes {
        let (numbers, latency) = (&class.numbers, &class.numbers.latency);
        let fields = [
            rows::field(&class.name),
            numbers.counts.offered.to_string(),
            numbers.counts.finished.to_string(),
            numbers.slo_attainment.count.to_string(),
            plain(numbers.slo_attainment.value),
            plain(latency.ttft.p50.value),
            plain(latency.ttft.p99.value),
            plain(latency.tpot.p99.value),
            plain(latency.e2e.p99.value),
            plain(latency.queue_time.p99.value),
            plain(class.waiting.worst_wait.as_ref().map(|worst| worst.seconds)),
            plain(class.waiting.engine_share),
            class.waiting.fate.word().to_owned(),
            class.overload.is_some().to_string(),
        ];
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    text
}
