//! Chart 5: how many wait, and how long the oldest has, by class.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{self, Area, DRAWN, anchored, class_color, mesh, svg, text_style, write};
use super::{Chart, Subject};
use crate::bins::ClassBin;
use crate::words;

const HEIGHT: u32 = 420;

/// A line over time: (seconds, value).
type Line = Vec<(f64, f64)>;

const FORMULA: &str = "waiting: mean of the samples in a stretch, allocator and engines; oldest: the largest age sampled";

pub(super) fn draw(subject: &Subject<'_>) -> Chart {
    let waiting = |bin: &ClassBin| (bin.queued + bin.engine_waiting) as f64 / bin.samples as f64;
    let oldest = |bin: &ClassBin| bin.oldest_wait.secs_f64();
    let depth: Vec<(usize, Line)> =
        subject.classes().map(|(row, _)| (row, line(subject, row, waiting))).collect();
    let ages: Vec<(usize, Line)> =
        subject.classes().map(|(row, _)| (row, line(subject, row, oldest))).collect();
    let title = title(subject, &depth, &ages);
    let how = format!(
        "Above: requests that wait, in the allocator or inside engines. Below: how long the oldest \
         of them has waited; a straight rise is a class that gets nothing. The bar at the foot \
         marks the warm-up, which is not measured; the thin line the end of the arrivals.{}",
        subject.which_replication()
    );
    let drawing = svg(HEIGHT, &title, &how, |area| {
        let (upper, lower) = area.split_vertically(HEIGHT / 2);
        paint(&upper, subject, &depth, ("waiting", &|value| waiting_tick(*value)));
        let longest = ages.iter().filter_map(|(_, line)| Some(peak(line)?.1)).fold(0.0, f64::max);
        let (unit, scale) = words::axis_unit(longest);
        let scaled: Vec<(usize, Line)> = (ages.iter())
            .map(|(row, line)| (*row, line.iter().map(|&(at, age)| (at, age / scale)).collect()))
            .collect();
        paint(&lower, subject, &scaled, ("oldest", &|value| words::tick(*value, unit)));
    });
    Chart {
        name: "queue",
        svg: drawing,
        data: data(subject, &depth, &ages),
        title,
        how,
        formula: FORMULA,
    }
}

/// Means over a bin: below a few, whole numbers would repeat.
fn waiting_tick(value: f64) -> String {
    match value {
        v if v == 0.0 || v >= 3.0 => words::count(v.round() as u64),
        v => format!("{v:.1}"),
    }
}

fn line(subject: &Subject<'_>, row: usize, value: impl Fn(&ClassBin) -> f64) -> Line {
    let series = subject.ledger().series();
    let sampled = series.class_bins(row).iter().enumerate().filter(|(_, bin)| bin.samples > 0);
    sampled.map(|(number, bin)| (series.start(number).secs_f64(), value(bin))).collect()
}

fn peak(line: &Line) -> Option<(f64, f64)> {
    line.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a })
}

fn title(subject: &Subject<'_>, depth: &[(usize, Line)], ages: &[(usize, Line)]) -> String {
    let most = ages
        .iter()
        .filter_map(|(row, line)| Some((*row, peak(line)?)))
        .max_by(|a, b| a.1.1.total_cmp(&b.1.1));
    match most {
        Some((row, (at, age))) if age > 0.0 => {
            let waiting = depth.iter().find(|(other, _)| *other == row);
            let (_, most) = waiting.and_then(|(_, line)| peak(line)).unwrap_or_default();
            format!(
                "{} oldest request had waited {} at {} into the run; at most {} of the class waited",
                words::possessive(&subject.plan.names.classes[row]),
                words::secs(age),
                words::round_secs(at),
                words::count(most.round() as u64),
            )
        }
        _ => "Nobody waited at any sampling instant".to_owned(),
    }
}

fn paint(
    area: &Area<'_>,
    subject: &Subject<'_>,
    lines: &[(usize, Line)],
    (what, format): (&str, &dyn Fn(&f64) -> String),
) {
    let ledger = subject.ledger();
    let (unit, scale, end) = subject.time_axis();
    let most = lines.iter().filter_map(|(_, line)| Some(peak(line)?.1)).fold(0.0, f64::max);
    let high = if most > 0.0 { most * 1.1 } else { 1.0 };
    let mut chart = ChartBuilder::on(area)
        .margin(6)
        .margin_top(20)
        .margin_right(24)
        .x_label_area_size(28)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..high)
        .expect(DRAWN);
    mesh(&mut chart, (0.1, 13))
        .x_labels(8)
        .y_labels(4)
        .x_label_formatter(&|at| words::tick(*at, unit))
        .y_label_formatter(&|value| format(value))
        .draw()
        .expect(DRAWN);
    let (from, arrivals) = crate::verdict::arrivals_window(ledger);
    let warm = [(0.0, 0.0), (from.secs_f64() / scale, high * 0.02)];
    chart.draw_series([Rectangle::new(warm, BLACK.mix(0.4).filled())]).expect(DRAWN);
    let arrivals = arrivals.secs_f64() / scale;
    chart
        .draw_series([PathElement::new(vec![(arrivals, 0.0), (arrivals, high)], BLACK.mix(0.4))])
        .expect(DRAWN);
    for (row, line) in lines {
        let style = class_color(*row).stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.iter().map(|&(at, y)| (at / scale, y)), style))
            .expect(DRAWN);
    }
    write(area, what, (70, 4), text_style(13));
    legend(area, subject, (150, 10));
}

/// Lines that end at nought cannot be labelled at their ends.
fn legend(area: &Area<'_>, subject: &Subject<'_>, (mut x, y): (i32, i32)) {
    for (row, name) in subject.classes() {
        canvas::line(area, (x, y), (x + 28, y), class_color(row).stroke_width(2));
        write(area, name, (x + 34, y), anchored(text_style(13), HPos::Left));
        x += 54 + 8 * name.chars().count() as i32;
    }
}

fn data(
    subject: &Subject<'_>,
    depth: &[(usize, Line)],
    ages: &[(usize, Line)],
) -> Vec<Vec<String>> {
    const ROWS: usize = 40;
    let mut head = vec!["from".to_owned()];
    for (_, name) in subject.classes() {
        head.push(format!("{name} waiting"));
        head.push(format!("{name} oldest"));
    }
    let mut rows = vec![head];
    let length = depth.first().map_or(0, |(_, line)| line.len());
    for index in (0..length).step_by(length.div_ceil(ROWS).max(1)) {
        let mut row = vec![words::secs(depth[0].1[index].0)];
        for ((_, waiting), (_, age)) in depth.iter().zip(ages) {
            row.push(
                waiting.get(index).map_or(String::new(), |v| words::count(v.1.round() as u64)),
            );
            row.push(age.get(index).map_or(String::new(), |v| words::secs(v.1)));
        }
        rows.push(row);
    }
    rows
}
