//! Chart 1: objectives, met by how much.

use plimsoll_base::Metric;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Area, BAD, GOOD, WIDTH, anchored, bar, line, svg, text_style, write};
use super::{Chart, Subject};
use crate::summary::{ClassSummary, ObjectiveResult, ObjectiveVerdict};
use crate::words;

const ROW: i32 = 30;
const TOP: i32 = 34;
/// The attainment panel, then the panel of measured ÷ limit.
const SHARE: (i32, i32) = (130, 350);
const RATIO: (i32, i32) = (520, 760);
/// The ratio axis: from a tenth of the limit to ten times.
const DECADES: f64 = 1.0;

pub(super) const FORMULA: &str = "good of offered = good ÷ offered; refused, expired, failed and unfinished requests are missed; measured ÷ limit at the objective's percentile";

pub(super) fn draw(subject: &Subject<'_>) -> Chart {
    let summary = subject.summary;
    let missed = summary.objectives.iter().filter(|o| o.result == ObjectiveVerdict::Fail).count();
    let worst = (summary.objectives.iter())
        .filter(|o| o.result == ObjectiveVerdict::Fail)
        .max_by(|a, b| ratio(a).total_cmp(&ratio(b)));
    let is_undecided = |o: &&ObjectiveResult| o.result == ObjectiveVerdict::Inconclusive;
    let undecided = summary.objectives.iter().filter(is_undecided).count();
    let title = match (summary.objectives.len(), worst) {
        (0, _) => "No objective was stated; good means finished".to_owned(),
        (all, None) => match undecided {
            0 => format!("No objective of {all} is missed"),
            some => format!("No objective of {all} is missed, {some} cannot be told"),
        },
        (all, Some(worst)) => format!(
            "{missed} of {all} objectives missed; furthest: {} {}",
            worst.class,
            words::against(worst, "against")
        ),
    };
    let how = "Left: share of the offered requests that were good, with its 95 % Wilson interval. \
               Right: what was measured over its limit; left of the tick is met."
        .to_owned();
    let rows: usize = summary.classes.iter().map(|class| own(subject, class).len().max(1)).sum();
    let height = (TOP + ROW * rows as i32 + 34) as u32;
    Chart {
        name: "scoreboard",
        svg: svg(height, &title, &how, |area| paint(area, subject)),
        data: data(subject),
        title,
        how,
        formula: FORMULA,
    }
}

pub(super) fn own<'a>(subject: &'a Subject<'_>, class: &ClassSummary) -> Vec<&'a ObjectiveResult> {
    subject.summary.objectives.iter().filter(|o| o.class == class.name).collect()
}

/// How far from the limit: above 1 is missed.
fn ratio(objective: &ObjectiveResult) -> f64 {
    let value = objective.value.value.unwrap_or(0.0);
    match objective.metric {
        Metric::Attainment => objective.limit / value.max(1e-9),
        Metric::Ttft | Metric::Tpot | Metric::E2e | Metric::Queue => {
            value / objective.limit.max(1e-9)
        }
    }
}

fn paint(area: &Area<'_>, subject: &Subject<'_>) {
    heads(area, area.dim_in_pixel().1 as i32 - 30);
    let mut y = TOP + ROW / 2;
    for class in &subject.summary.classes {
        row(
            area,
            subject,
            (class, &super::canvas::fitting(&class.name, SHARE.0 - 20, 15)),
            (y, ROW),
        );
        y += ROW * own(subject, class).len().max(1) as i32;
    }
}

/// What stands over the two panels, and the axis of the right one down to `bottom`.
pub(super) fn heads(area: &Area<'_>, bottom: i32) {
    let small = || anchored(text_style(13), HPos::Left);
    write(area, "good of offered", (SHARE.0, 14), small());
    write(area, "measured ÷ limit", (RATIO.0, 14), small());
    ratio_axis(area, bottom);
}

/// A class under a label, and its objectives below each other.
pub(super) fn row(
    area: &Area<'_>,
    subject: &Subject<'_>,
    (class, label): (&ClassSummary, &str),
    (y, apart): (i32, i32),
) {
    write(area, label, (SHARE.0 - 12, y), anchored(text_style(15), HPos::Right));
    attainment(area, class, y);
    let objectives = own(subject, class);
    for (index, objective) in objectives.iter().enumerate() {
        measured(area, objective, y + apart * index as i32);
    }
    if objectives.is_empty() {
        write(area, "no objective", (RATIO.0, y), anchored(text_style(13), HPos::Left));
    }
}

fn attainment(area: &Area<'_>, class: &ClassSummary, y: i32) {
    let x = |share: f64| SHARE.0 + (share * f64::from(SHARE.1 - SHARE.0)).round() as i32;
    let attainment = &class.numbers.slo_attainment;
    bar(area, (SHARE.0, y - 7), (SHARE.1, y + 7), &BLACK.mix(0.08));
    let Some(share) = attainment.value else {
        return write(area, "none offered", (SHARE.1 + 8, y), anchored(text_style(13), HPos::Left));
    };
    bar(area, (SHARE.0, y - 7), (x(share), y + 7), &GOOD.to_rgba());
    if let Some([low, high]) = attainment.wilson {
        let style = BLACK.stroke_width(2);
        line(area, (x(low), y), (x(high), y), style);
        for end in [x(low), x(high)] {
            line(area, (end, y - 5), (end, y + 5), style);
        }
    }
    write(area, &words::percent(share), (SHARE.1 + 8, y), anchored(text_style(14), HPos::Left));
}

fn ratio_x(ratio: f64) -> i32 {
    let position = (ratio.max(1e-9).log10() / DECADES).clamp(-1.0, 1.0) * 0.5 + 0.5;
    RATIO.0 + (position * f64::from(RATIO.1 - RATIO.0)).round() as i32
}

fn ratio_axis(area: &Area<'_>, bottom: i32) {
    for (at, label) in [(0.1, "0.1"), (0.3, "0.3"), (1.0, "limit"), (3.0, "3"), (10.0, "10")] {
        let x = ratio_x(at);
        let style = if at == 1.0 { BLACK.stroke_width(2) } else { BLACK.mix(0.15).stroke_width(1) };
        line(area, (x, TOP - 6), (x, bottom), style);
        write(area, label, (x, bottom + 12), anchored(text_style(12), HPos::Center));
    }
}

fn measured(area: &Area<'_>, objective: &ObjectiveResult, y: i32) {
    let label = words::metric(objective);
    write(area, &label, (RATIO.0 - 10, y), anchored(text_style(13), HPos::Right));
    if objective.value.value.is_none() {
        return write(
            area,
            "never measured",
            (RATIO.1 + 8, y),
            anchored(text_style(13), HPos::Left),
        );
    }
    let color = match objective.result {
        ObjectiveVerdict::Pass => GOOD.to_rgba(),
        ObjectiveVerdict::Fail => BAD.to_rgba(),
        ObjectiveVerdict::Inconclusive => BLACK.mix(0.5),
    };
    let (one, here) = (ratio_x(1.0), ratio_x(ratio(objective)));
    bar(area, (one.min(here), y - 6), (one.max(here), y + 6), &color);
    if let Some([low, high]) = objective.value.interval {
        let at = |value: f64| {
            let value = crate::summary::Estimate { value: Some(value), ..objective.value };
            ratio_x(ratio(&ObjectiveResult { value, ..objective.clone() }))
        };
        line(area, (at(low), y), (at(high), y), BLACK.stroke_width(2));
    }
    let value = match objective.metric {
        Metric::Attainment => objective.value.value.map_or(String::new(), words::percent),
        Metric::Ttft | Metric::Tpot | Metric::E2e | Metric::Queue => {
            words::latency(&objective.value)
        }
    };
    debug_assert!(RATIO.1 + 8 < WIDTH as i32);
    write(area, &value, (RATIO.1 + 8, y), anchored(text_style(14), HPos::Left));
}

pub(super) fn data(subject: &Subject<'_>) -> Vec<Vec<String>> {
    let head = ["class", "metric", "measured", "limit", "interval", "result"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for class in &subject.summary.classes {
        let attainment = &class.numbers.slo_attainment;
        let share = |value: Option<f64>| value.map_or("–".to_owned(), words::percent);
        rows.push(vec![
            class.name.clone(),
            "good of offered".to_owned(),
            share(attainment.value),
            "–".to_owned(),
            attainment.wilson.map_or("–".to_owned(), |[low, high]| {
                format!("{} – {}", words::percent(low), words::percent(high))
            }),
            format!("{} of {}", words::count(attainment.count), words::count(attainment.of)),
        ]);
        for objective in own(subject, class) {
            let value = objective.value.value.map(|value| match objective.metric {
                Metric::Attainment => words::percent(value),
                Metric::Ttft | Metric::Tpot | Metric::E2e | Metric::Queue => {
                    words::latency(&objective.value)
                }
            });
            rows.push(vec![
                class.name.clone(),
                words::metric(objective),
                value.unwrap_or("–".to_owned()),
                words::limit(objective),
                interval(objective),
                match objective.result {
                    ObjectiveVerdict::Pass => "met",
                    ObjectiveVerdict::Fail => "missed",
                    ObjectiveVerdict::Inconclusive => "undecided",
                }
                .to_owned(),
            ]);
        }
    }
    rows
}

fn interval(objective: &ObjectiveResult) -> String {
    let text = |value: f64| match objective.metric {
        Metric::Attainment => words::percent(value),
        Metric::Ttft | Metric::Tpot | Metric::E2e | Metric::Queue => words::secs(value),
    };
    objective
        .value
        .interval
        .map_or("–".to_owned(), |[low, high]| format!("{} – {}", text(low), text(high)))
}
