//! The other half of chart 8: engine time used against the share by weight, over time.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Area, BAD, DRAWN, anchored, class_color, svg, text_style, write};
use super::{Chart, Subject};
use crate::words;

const PANEL: u32 = 110;
/// Points over time at most.
const POINTS: usize = 120;

/// A class within one stretch of the run.
#[derive(Clone, Copy, Default)]
struct Point {
    at: f64,
    to: f64,
    used: f64,
    share: f64,
    waits: bool,
}

const FORMULA: &str = "used = engine time of the class ÷ engine time of all; share = weight ÷ weights of classes that used some or waited";

pub(super) fn draw(subject: &Subject<'_>) -> Chart {
    let points = points(subject);
    let title = title(subject);
    let how = format!(
        "The line is the part of all engine time used that went to the class, the pale area its \
         share: its weight among the classes that used engine time or waited in that stretch. Orange \
         is what a class that waited got less than its share.{}",
        subject.which_replication()
    );
    let height = PANEL * subject.plan.classes.len().max(1) as u32 + 30;
    let drawing = svg(height, &title, &how, |area| {
        let panels = area.margin(0, 30, 0, 0).split_evenly((points.len().max(1), 1));
        for (row, panel) in panels.iter().enumerate().take(points.len()) {
            paint(panel, subject, (row, &points[row]));
        }
        axis(area, subject, height as i32);
    });
    Chart {
        name: "shares",
        svg: drawing,
        data: data(subject, &points),
        title,
        how,
        formula: FORMULA,
    }
}

fn points(subject: &Subject<'_>) -> Vec<Vec<Point>> {
    let series = subject.ledger().series();
    let end = subject.ledger().now().secs_f64();
    let bins = series.class_bins(0).len();
    let step = bins.div_ceil(POINTS).max(1);
    let rows: Vec<usize> = subject.classes().map(|(row, _)| row).collect();
    let mut points = vec![Vec::new(); rows.len()];
    for first in (0..bins).step_by(step) {
        let last = (first + step).min(bins);
        let (at, to) = (series.start(first).secs_f64(), series.start(last).secs_f64().min(end));
        let busy = |row: usize| -> f64 {
            series.class_bins(row)[first..last].iter().map(|bin| bin.busy.secs_f64()).sum()
        };
        let waits = |row: usize| {
            series.class_bins(row)[first..last]
                .iter()
                .any(|bin| bin.queued + bin.engine_waiting > 0)
        };
        let weight = |row: usize| f64::from(subject.plan.classes[row].weight);
        let active = |row: usize| waits(row) || busy(row) > 0.0;
        let all: f64 = rows.iter().map(|&row| busy(row)).sum();
        let weights: f64 = rows.iter().filter(|&&row| active(row)).map(|&row| weight(row)).sum();
        for &row in rows.iter().filter(|_| to > at && all > 0.0) {
            let share = if active(row) { weight(row) / weights } else { 0.0 };
            points[row].push(Point { at, to, used: busy(row) / all, share, waits: waits(row) });
        }
    }
    points
}

fn title(subject: &Subject<'_>) -> String {
    let lag = |class: &crate::summary::ClassSummary| {
        Some((class.name.clone(), class.waiting.lag.clone()?))
    };
    let worst = subject.summary.classes.iter().filter_map(lag);
    match worst.max_by(|a, b| a.1.seconds.total_cmp(&b.1.seconds)) {
        Some((name, lag)) if lag.seconds > 2.0 * lag.largest_request_s => format!(
            "{name} fell {} of engine time behind its share between {} and {}",
            words::secs(lag.seconds),
            words::secs(lag.from_s),
            words::secs(lag.to_s),
        ),
        _ => "No class that waited fell far behind its share".to_owned(),
    }
}

fn paint(panel: &Area<'_>, subject: &Subject<'_>, (row, points): (usize, &[Point])) {
    let end = subject.ledger().now().secs_f64().max(1e-3);
    let mut chart = ChartBuilder::on(panel)
        .margin_top(22)
        .margin_right(24)
        .margin_left(6)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..end, 0.0..1.0)
        .expect(DRAWN);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(BLACK.mix(0.1))
        .light_line_style(TRANSPARENT)
        .axis_style(BLACK.mix(0.4))
        .y_labels(3)
        .y_label_formatter(&|share| words::percent(*share))
        .label_style(text_style(12))
        .draw()
        .expect(DRAWN);
    let color = class_color(row);
    let block = |p: &Point, low: f64, high: f64, fill: RGBAColor| {
        Rectangle::new([(p.at, low), (p.to, high)], fill.filled())
    };
    let is_short = |p: &Point| p.waits && p.used < p.share;
    let granted = |p: &Point| if is_short(p) { p.used } else { p.share };
    chart
        .draw_series(points.iter().map(|p| block(p, 0.0, granted(p), color.mix(0.2))))
        .expect(DRAWN);
    let short = points.iter().filter(|p| is_short(p));
    chart.draw_series(short.map(|p| block(p, p.used, p.share, BAD.mix(0.5)))).expect(DRAWN);
    let steps = points.iter().flat_map(|p| [(p.at, p.used), (p.to, p.used)]);
    chart.draw_series(LineSeries::new(steps, color.stroke_width(2))).expect(DRAWN);
    let name = &subject.plan.names.classes[row];
    write(panel, name, (64, 12), anchored(text_style(14), HPos::Left));
}

/// One axis for all panels, at the foot.
fn axis(area: &Area<'_>, subject: &Subject<'_>, height: i32) {
    let end = subject.ledger().now().secs_f64().max(1e-3);
    let (unit, scale) = words::axis_unit(end);
    let (left, right) = (58, super::canvas::WIDTH as i32 - 24);
    for part in 0..=4 {
        let at = end * f64::from(part) / 4.0;
        let x = left + (right - left) * part / 4;
        let text = words::tick((at / scale * 10.0).round() / 10.0, unit);
        let side = if part == 4 { HPos::Right } else { HPos::Center };
        write(area, &text, (x, height - 14), anchored(text_style(12), side));
    }
}

fn data(subject: &Subject<'_>, points: &[Vec<Point>]) -> Vec<Vec<String>> {
    const ROWS: usize = 40;
    let mut head = vec!["from".to_owned()];
    for (_, name) in subject.classes() {
        head.push(format!("{name} used"));
        head.push(format!("{name} share"));
    }
    let mut rows = vec![head];
    let length = points.first().map_or(0, Vec::len);
    for index in (0..length).step_by(length.div_ceil(ROWS).max(1)) {
        let mut row = vec![words::secs(points[0][index].at)];
        for point in points.iter().map(|points| points[index]) {
            row.push(words::percent(point.used));
            row.push(words::percent(point.share));
        }
        rows.push(row);
    }
    rows
}
