//! Charts 1, 2 and 8 of several candidates on one load: side by side, on the same axes.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{
    WIDTH, anchored, class_color, dashed, end_labels, fitting, line, svg, text_style, write,
};
use super::scale::{Scale, tried, upward};
use super::{Chart, Subject, blame, percentiles, scoreboard, subject};
use crate::summary::{ClassSummary, Summary};
use crate::words;

const PANEL: i32 = 210;
const PLOT: (i32, i32) = (74, 690);
/// Classes with a panel of their own at most.
const PANELS_MAX: usize = 4;

/// A candidate: its name and what its charts are drawn from.
pub(super) struct Beside<'a> {
    pub name: &'a str,
    pub subject: Subject<'a>,
}

/// The charts of candidates, of which there are at least two; a candidate is its name, and the plan,
/// the summary and the ledgers of its runs.
pub(crate) fn draw(
    candidates: &[(&str, &crate::plan::Plan, &Summary, &[crate::ledger::Ledger])],
) -> Vec<Chart> {
    let beside: Vec<Beside<'_>> = (candidates.iter())
        .map(|(name, plan, summary, ledgers)| Beside {
            name,
            subject: subject(plan, ledgers, summary),
        })
        .collect();
    let Some(first) = beside.first() else { return Vec::new() };
    let mut charts = vec![board(&beside)];
    if first.subject.plan.sees_first_tokens() {
        charts.push(tails(&beside));
    }
    if first.subject.plan.attribution.is_on() {
        charts.push(culprits(&beside));
    }
    charts
}

/// "of the first 4 replications".
fn runs(beside: &[Beside<'_>]) -> String {
    match beside.first().map_or(0, |one| one.subject.ledgers.len()) {
        1 => "the first replication".to_owned(),
        more => format!("the first {more} replications"),
    }
}

/// What is drawn as a table: that of each candidate under its name.
fn together(
    beside: &[Beside<'_>],
    data: &dyn Fn(&Subject<'_>) -> Vec<Vec<String>>,
) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for one in beside {
        let own = data(&one.subject).into_iter().enumerate();
        rows.extend(own.filter(|(at, _)| *at > 0 || one.name == beside[0].name).map(
            |(at, row)| {
                let lead = if at == 0 { "candidate" } else { one.name };
                [vec![lead.to_owned()], row].concat()
            },
        ));
    }
    rows
}

const BOARD_TOP: i32 = 34;
const BOARD_ROW: i32 = 26;

/// Chart 1: a class, and under it a row a candidate and objective.
fn board(beside: &[Beside<'_>]) -> Chart {
    let objectives = |class: &ClassSummary, one: &Beside<'_>| {
        scoreboard::own(&one.subject, class).len().max(1) as i32
    };
    let classes = || beside[0].subject.summary.classes.iter();
    let rows: i32 = classes()
        .map(|class| 1 + beside.iter().map(|one| objectives(class, one)).sum::<i32>())
        .sum();
    let missed = |one: &Beside<'_>| {
        let all = &one.subject.summary.objectives;
        let missed = all.iter().filter(|o| o.result == crate::summary::ObjectiveVerdict::Fail);
        (missed.count(), all.len())
    };
    let told: Vec<String> = (beside.iter())
        .map(|one| format!("{} of {} under {}", missed(one).0, missed(one).1, one.name))
        .collect();
    let title = match missed(&beside[0]).1 {
        0 => "No objective was stated; good means finished".to_owned(),
        _ => format!("Objectives missed: {}", words::list(&told)),
    };
    let how = format!(
        "By class, a row a candidate. Left: share of the offered requests that were good, with its \
         95 % Wilson interval. Right: what was measured over its limit; left of the tick is met. Of {}.",
        runs(beside)
    );
    let height = BOARD_TOP + BOARD_ROW * rows + 34;
    let drawing = svg(height as u32, &title, &how, |area| {
        scoreboard::heads(area, height - 30);
        let mut y = BOARD_TOP + BOARD_ROW / 2;
        for class in classes() {
            write(area, &class.name, (8, y), anchored(text_style(15), HPos::Left));
            y += BOARD_ROW;
            for one in beside {
                let own = one.subject.summary.classes.iter().find(|other| other.name == class.name);
                let Some(own) = own else { continue };
                scoreboard::row(
                    area,
                    &one.subject,
                    (own, &fitting(one.name, 106, 15)),
                    (y, BOARD_ROW),
                );
                y += BOARD_ROW * objectives(own, one);
            }
        }
    });
    let data = together(beside, &scoreboard::data);
    Chart { name: "scoreboard", svg: drawing, data, title, how, formula: scoreboard::FORMULA }
}

/// Chart 2: a panel a class, a line a candidate.
fn tails(beside: &[Beside<'_>]) -> Chart {
    let first = &beside[0].subject;
    let shown: Vec<(usize, &str)> = first.classes().take(PANELS_MAX).collect();
    let curve = |one: &Beside<'_>, row: usize| percentiles::curve(&one.subject.pooled[row]);
    let points = || {
        let rows = shown.iter().flat_map(|(row, _)| beside.iter().map(move |one| (one, *row)));
        rows.flat_map(|(one, row)| curve(one, row)).map(|point| point.1)
    };
    let (low, high) = (points().fold(f64::MAX, f64::min), points().fold(0.0, f64::max));
    let title = tails_title(beside);
    let how = format!(
        "A panel is a class, a line a candidate, all on the same axes: half of the requests got their \
         first token faster than where p50 stands, 99 % faster than p99. Of {}.",
        runs(beside)
    );
    let drawing = svg((PANEL * shown.len().max(1) as i32 + 8) as u32, &title, &how, |area| {
        for (number, (row, name)) in shown.iter().enumerate() {
            let top = PANEL * number as i32;
            let floor = top + PANEL - 26;
            let up = Scale::logarithmic((low.min(high), high), (floor, top + 28));
            let across = Scale::linear((0.0, percentiles::NINES_MAX), PLOT);
            write(area, name, (8, top + 12), anchored(text_style(15), HPos::Left));
            upward(area, &up, PLOT, &words::round_secs);
            line(area, (PLOT.0, floor), (PLOT.1, floor), BLACK.mix(0.5).stroke_width(1));
            let ticks = [
                (2f64.log10(), "p50"),
                (1.0, "p90"),
                (2.0, "p99"),
                (3.0, "p99.9"),
                (4.0, "p99.99"),
            ];
            let ticks = ticks.map(|(nines, name)| (across.at(nines), name.to_owned()));
            for (x, _) in &ticks {
                line(area, (*x, top + 28), (*x, floor), BLACK.mix(0.1).stroke_width(1));
            }
            tried(area, &ticks, floor);
            let mut labels = Vec::new();
            for (candidate, one) in beside.iter().enumerate() {
                let path: Vec<(i32, i32)> = (curve(one, *row).iter())
                    .map(|(nines, seconds)| (across.at(*nines), up.at(*seconds)))
                    .collect();
                let Some(end) = path.last().copied() else { continue };
                dashed(area, path, class_color(candidate).stroke_width(2));
                labels.push((end.1, fitting(one.name, WIDTH as i32 - PLOT.1 - 36, 14), candidate));
            }
            end_labels(area, (PLOT.1 + 10, floor), labels);
        }
    });
    let data = together(beside, &percentiles::data);
    Chart { name: "percentiles", svg: drawing, data, title, how, formula: percentiles::FORMULA }
}

/// The class whose p99 differs most, and how.
fn tails_title(beside: &[Beside<'_>]) -> String {
    let p99 = |one: &Beside<'_>, name: &str| {
        let class = one.subject.summary.classes.iter().find(|class| class.name == name)?;
        class.numbers.latency.ttft.p99.value
    };
    let spread = |class: &ClassSummary| {
        let all: Vec<(f64, &str)> =
            beside.iter().filter_map(|one| Some((p99(one, &class.name)?, one.name))).collect();
        let least = all.iter().copied().reduce(|a, b| if b.0 < a.0 { b } else { a })?;
        let most = all.iter().copied().reduce(|a, b| if b.0 > a.0 { b } else { a })?;
        Some((most.0 / least.0.max(1e-9), class.name.clone(), least, most))
    };
    let widest = beside[0].subject.summary.classes.iter().filter_map(spread);
    match widest.max_by(|a, b| a.0.total_cmp(&b.0)) {
        None => "No first token was delivered".to_owned(),
        Some((ratio, class, least, _)) if ratio < 1.01 => format!(
            "Every candidate has the same tail: p99 TTFT of {class} is {}",
            words::secs(least.0)
        ),
        Some((_, class, least, most)) => format!(
            "p99 TTFT of {class} goes from {} under {} to {} under {}",
            words::secs(least.0),
            least.1,
            words::secs(most.0),
            most.1
        ),
    }
}

/// Chart 8: a matrix a candidate, all with the same columns.
fn culprits(beside: &[Beside<'_>]) -> Chart {
    let victims: Vec<Vec<&ClassSummary>> =
        beside.iter().map(|one| blame::victims(one.subject.summary)).collect();
    let all: Vec<&ClassSummary> = victims.iter().flatten().copied().collect();
    let columns = blame::columns(&beside[0].subject, &all);
    let title = culprits_title(beside);
    let how = format!(
        "A block is a candidate, a row a class that waited, a column what its waiting falls on. {} \
         Each row sums to all waiting of its class, which stands at the left. Of {}.{}",
        blame::COLOURS,
        runs(beside),
        beside[0].subject.estimated()
    );
    let heights: Vec<i32> = victims.iter().map(|victims| blame::height(victims) + HEAD).collect();
    let drawing = svg(heights.iter().sum::<i32>() as u32, &title, &how, |area| {
        let mut rest = area.clone();
        for ((one, victims), height) in beside.iter().zip(&victims).zip(&heights) {
            let (own, below) = rest.split_vertically(*height);
            let (head, matrix) = own.split_vertically(HEAD);
            write(&head, one.name, (8, HEAD / 2 + 4), anchored(text_style(16), HPos::Left));
            blame::paint(&matrix, victims, &columns);
            rest = below;
        }
    });
    let data = together(beside, &|subject| blame::data(&blame::victims(subject.summary)));
    Chart { name: "blame", svg: drawing, data, title, how, formula: blame::FORMULA }
}

const HEAD: i32 = 30;

/// How much of all waiting falls on what somebody held above its share.
fn culprits_title(beside: &[Beside<'_>]) -> String {
    let part = |one: &Beside<'_>| {
        let parts = one.subject.summary.classes.iter().flat_map(|class| &class.waiting.blame);
        let (mut above, mut all) = (0.0, 0.0);
        for part in parts {
            all += part.seconds;
            if part.kind == crate::summary::BlameKind::AboveShare {
                above += part.seconds;
            }
        }
        match all > 0.0 {
            true => format!("{} of it under {}", words::percent(above / all), one.name),
            false => format!("nobody waits under {}", one.name),
        }
    };
    let told: Vec<String> = beside.iter().map(part).collect();
    format!("Waiting because another class held more than its share: {}", words::list(&told))
}
