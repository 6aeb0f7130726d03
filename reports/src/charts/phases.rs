//! Chart 4: where time went.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Area, BAD, anchored, bar, svg, text_style, write};
use super::{Chart, Subject};
use crate::{recorded, words};

const ROW: i32 = 24;
const GAP: i32 = 12;
const TOP: i32 = 40;
const BAR: (i32, i32) = (170, 740);
/// A shade off the class colour, so that it stays dark on a dark page.
const DECODE: RGBColor = RGBColor(0x00, 0x72, 0xB3);
const PHASES: [(&str, RGBColor); 4] = [
    ("queue", BAD),
    ("prefill", RGBColor(0x56, 0xB4, 0xE9)),
    ("decode", DECODE),
    ("recompute", RGBColor(0xCC, 0x79, 0xA7)),
];

/// A bar: class, which percentile, seconds in all, share of each phase.
struct Bar {
    class: String,
    at: &'static str,
    seconds: f64,
    shares: [f64; 4],
}

const FORMULA: &str = "queue + prefill + decode + recompute = e2e, request by request";

pub(super) fn draw(subject: &Subject<'_>) -> Chart {
    let bars: Vec<Vec<Bar>> =
        subject.classes().map(|(row, name)| bars(subject, row, name)).collect();
    // Nobody sees what an opaque engine computes again.
    let shown = if subject.plan.sees_engines() { PHASES.len() } else { PHASES.len() - 1 };
    let title = title(&bars);
    let how = format!(
        "Each bar is the mean request about as slow as that percentile of end-to-end latency \
               (within a tenth); its parts are where its time went.{}",
        if subject.plan.sees_engines() { "" } else { recorded::PREFILL }
    );
    let rows = bars.iter().map(Vec::len).sum::<usize>() as i32;
    let height = TOP + rows * ROW + bars.len() as i32 * GAP + 4;
    let drawing = svg(height as u32, &title, &how, |area| paint(area, &bars, shown));
    Chart { name: "phases", svg: drawing, data: data(&bars, shown), title, how, formula: FORMULA }
}

fn bars(subject: &Subject<'_>, row: usize, name: &str) -> Vec<Bar> {
    let tally = &subject.pooled[row];
    let e2e = &tally.e2e.observed;
    let at = |(label, p): (&'static str, f64)| {
        let nanos = if p >= 100.0 {
            (e2e.count() > 0).then(|| e2e.max())?
        } else {
            e2e.at_rank(crate::histogram::rank(p, e2e.count()))?
        };
        let phases = tally.phases.near(nanos)?;
        let all: f64 = phases.iter().sum();
        (all > 0.0).then(|| Bar {
            class: name.to_owned(),
            at: label,
            seconds: nanos as f64 / 1e9,
            shares: phases.map(|nanos| nanos / all),
        })
    };
    [("p50", 50.0), ("p95", 95.0), ("p99", 99.0), ("max", 100.0)]
        .into_iter()
        .filter_map(at)
        .collect()
}

fn title(bars: &[Vec<Bar>]) -> String {
    let p99 = || bars.iter().flatten().filter(|bar| bar.at == "p99");
    match p99().max_by(|a, b| a.shares[0].total_cmp(&b.shares[0])) {
        None => "No request finished".to_owned(),
        Some(bar) if bar.shares[0] >= 0.3 => format!(
            "{} slow requests waited: {} of the {} at p99 was queue",
            words::possessive(&bar.class),
            words::percent(bar.shares[0]),
            words::secs(bar.seconds),
        ),
        Some(bar) => format!(
            "Computing, not queueing, takes the time: at p99 at most {} is queue ({})",
            words::percent(bar.shares[0]),
            bar.class,
        ),
    }
}

fn paint(area: &Area<'_>, bars: &[Vec<Bar>], shown: usize) {
    let mut x = BAR.0;
    for (name, color) in PHASES.into_iter().take(shown) {
        bar(area, (x, 10), (x + 14, 22), &color.to_rgba());
        write(area, name, (x + 20, 16), anchored(text_style(14), HPos::Left));
        x += 110;
    }
    let mut y = TOP;
    for class in bars {
        if let Some(first) = class.first() {
            write(area, &first.class, (110, y + ROW / 2), anchored(text_style(15), HPos::Right));
        }
        for row in class {
            paint_bar(area, row, y);
            y += ROW;
        }
        y += GAP;
    }
}

fn paint_bar(area: &Area<'_>, row: &Bar, y: i32) {
    let middle = y + ROW / 2;
    write(area, row.at, (BAR.0 - 10, middle), anchored(text_style(13), HPos::Right));
    let mut share = 0.0;
    let x = |share: f64| BAR.0 + (share * f64::from(BAR.1 - BAR.0)).round() as i32;
    for ((_, color), part) in PHASES.iter().zip(row.shares) {
        let (from, to) = (x(share), x(share + part));
        bar(area, (from, y + 2), (to, y + ROW - 2), &color.to_rgba());
        if to - from > 44 {
            let style = ("sans-serif", 12).into_font().color(&RGBColor(0xFE, 0xFE, 0xFE));
            let dark = ("sans-serif", 12).into_font().color(&RGBColor(0x11, 0x11, 0x11));
            let light_bar = *color != DECODE;
            let style = if light_bar { dark } else { style };
            write(
                area,
                &words::percent(part),
                ((from + to) / 2, middle),
                anchored(style, HPos::Center),
            );
        }
        share += part;
    }
    write(
        area,
        &words::secs(row.seconds),
        (BAR.1 + 10, middle),
        anchored(text_style(14), HPos::Left),
    );
}

fn data(bars: &[Vec<Bar>], shown: usize) -> Vec<Vec<String>> {
    let phases = PHASES.iter().map(|(name, _)| *name).take(shown);
    let head = ["class", "at", "end to end"].into_iter().chain(phases);
    let mut rows = vec![head.map(str::to_owned).collect::<Vec<_>>()];
    for bar in bars.iter().flatten() {
        let mut row = vec![bar.class.clone(), bar.at.to_owned(), words::secs(bar.seconds)];
        row.extend(bar.shares.into_iter().take(shown).map(words::percent));
        rows.push(row);
    }
    rows
}
