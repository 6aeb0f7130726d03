//! The load over time: what arrived, by class.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{
    DRAWN, WIDTH, anchored, class_color, end_labels, mesh, svg, text_style, write,
};
use super::{Chart, Subject};
use crate::words;

const HEIGHT: u32 = 230;
const POINTS: usize = 128;

/// (from, to, requests a second).
type Steps = Vec<(f64, f64, f64)>;

pub(super) fn draw(subject: &Subject<'_>) -> Chart {
    let lines: Vec<(usize, Steps)> =
        subject.classes().map(|(row, _)| (row, steps(subject, row))).collect();
    let title = title(subject, &lines);
    let how = format!(
        "Requests that arrived a second, by class, refused ones included: what the machine was \
         asked for.{}",
        subject.which_replication()
    );
    let drawing = svg(HEIGHT, &title, &how, |area| {
        let (unit, scale, end) = subject.time_axis();
        let rates = lines.iter().flat_map(|(_, steps)| steps).map(|step| step.2);
        let high = rates.fold(1e-9, f64::max) * 1.08;
        let mut chart = ChartBuilder::on(area)
            .margin_top(24)
            .margin_left(6)
            .margin_right(130)
            .x_label_area_size(26)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..end, 0.0..high)
            .expect(DRAWN);
        mesh(&mut chart, (0.1, 13))
            .x_labels(8)
            .y_labels(4)
            .x_label_formatter(&|at| words::tick(*at, unit))
            .y_label_formatter(&|rate| {
                if *rate == 0.0 { "0".to_owned() } else { format!("{}/s", words::number(*rate)) }
            })
            .draw()
            .expect(DRAWN);
        let mut labels = Vec::new();
        for (row, steps) in &lines {
            let path = steps.iter().flat_map(|s| [(s.0 / scale, s.2), (s.1 / scale, s.2)]);
            let style = class_color(*row).stroke_width(2);
            chart.draw_series(LineSeries::new(path, style)).expect(DRAWN);
            let last = steps.last().map_or(0.0, |step| step.2);
            let (_, y) = chart.backend_coord(&(end, last));
            labels.push((y, subject.plan.names.classes[*row].clone(), *row));
        }
        let (_, floor) = chart.backend_coord(&(0.0, 0.0));
        end_labels(area, (WIDTH as i32 - 122, floor), labels);
        write(area, "requests a second", (72, 12), anchored(text_style(13), HPos::Left));
    });
    let formula = "requests that arrived in the stretch ÷ its length";
    Chart { name: "load", svg: drawing, data: data(subject, &lines), title, how, formula }
}

fn steps(subject: &Subject<'_>, row: usize) -> Steps {
    let series = subject.ledger().series();
    let (_, until) = crate::verdict::arrivals_window(subject.ledger());
    let bins = series.class_bins(row);
    let step = bins.len().div_ceil(POINTS).max(1);
    let chunks = bins.chunks(step).enumerate().map(|(number, chunk)| {
        let from = series.start(number * step);
        let to = series.start(number * step + chunk.len()).min(until.max(from));
        let arrived: u64 = chunk.iter().map(|bin| bin.arrived).sum();
        let width = to.saturating_since(from).secs_f64();
        let rate = if width > 0.0 { arrived as f64 / width } else { 0.0 };
        (from.secs_f64(), to.secs_f64(), rate)
    });
    chunks.filter(|(from, to, _)| to > from).collect()
}

fn title(subject: &Subject<'_>, lines: &[(usize, Steps)]) -> String {
    let total: Vec<(f64, f64)> = (0..lines.first().map_or(0, |(_, steps)| steps.len()))
        .map(|at| (lines[0].1[at].0, lines.iter().map(|(_, steps)| steps[at].2).sum()))
        .collect();
    let mean = total.iter().map(|(_, rate)| rate).sum::<f64>() / total.len().max(1) as f64;
    let peak = total.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a });
    match peak {
        Some((at, rate)) if rate > 1.5 * mean => format!(
            "{} requests a second on average, at most {} at {}",
            words::number(mean),
            words::number(rate),
            words::round_secs(at)
        ),
        Some(_) => format!(
            "A steady load of {} requests a second by {} classes",
            words::number(mean),
            subject.plan.classes.len()
        ),
        None => "Nothing arrived".to_owned(),
    }
}

fn data(subject: &Subject<'_>, lines: &[(usize, Steps)]) -> Vec<Vec<String>> {
    const ROWS: usize = 40;
    let mut head = vec!["from".to_owned()];
    head.extend(subject.classes().map(|(_, name)| format!("{name}, requests/s")));
    let mut rows = vec![head];
    let length = lines.first().map_or(0, |(_, steps)| steps.len());
    for at in (0..length).step_by(length.div_ceil(ROWS).max(1)) {
        let mut row = vec![words::secs(lines[0].1[at].0)];
        row.extend(lines.iter().map(|(_, steps)| words::number(steps[at].2)));
        rows.push(row);
    }
    rows
}
