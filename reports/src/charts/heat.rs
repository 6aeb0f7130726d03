//! Chart 3: latency over time, as a heat map a class with the median and the 99th percentile.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Area, DRAWN, anchored, svg, text_style, write};
use super::{Chart, Subject};
use crate::scene::Heat;
use crate::words;

const PANEL: u32 = 160;
/// Classes drawn at most: those with the longest p99.
const PANELS_MAX: usize = 4;
/// Cividis, from many to few.
const SHADES: [&str; 6] = ["#00224E", "#35456C", "#666970", "#948E77", "#C8B866", "#FEE838"];

/// A class: its row, its requests, and the least and the largest row of lengths that it has.
struct Panel<'a> {
    row: usize,
    heat: &'a Heat,
}

/// What the latency is.
fn measure(subject: &Subject<'_>) -> &'static str {
    if subject.plan.sees_first_tokens() { "time to first token" } else { "latency" }
}

pub(super) fn draw(subject: &Subject<'_>) -> Option<Chart> {
    let mut panels: Vec<Panel<'_>> = subject
        .classes()
        .map(|(row, _)| Panel { row, heat: &subject.ledger().classes[row].scene.heat })
        .filter(|panel| panel.heat.columns() > 0)
        .collect();
    let p99 =
        |row: usize| subject.summary.classes[row].numbers.latency.ttft.p99.value.unwrap_or(0.0);
    if panels.len() > PANELS_MAX {
        panels.sort_by(|a, b| p99(b.row).total_cmp(&p99(a.row)));
        panels.truncate(PANELS_MAX);
        panels.sort_by_key(|panel| panel.row);
    }
    if panels.is_empty() {
        return None;
    }
    let title = title(subject, &panels);
    let how = format!(
        "Left to right: when requests arrived; upwards, on a logarithmic axis: their {}, of those \
         without a first token the time until they closed. The darker, the more of the requests of \
         that stretch. The solid line is the 99th percentile of each stretch, the dashed one its \
         median.{}{}",
        measure(subject),
        if subject.classes().count() > PANELS_MAX {
            " The classes with the longest p99."
        } else {
            ""
        },
        subject.which_replication()
    );
    let mut cells = String::new();
    let height = PANEL * panels.len() as u32 + 8;
    let drawing = svg(height, &title, &how, |area| {
        let areas = area.split_evenly((panels.len(), 1));
        for (panel, area) in panels.iter().zip(&areas) {
            cells.push_str(&paint(area, subject, panel));
        }
    });
    // Below everything else: what is drawn first.
    let place = drawing.find("</desc>\n").expect("a drawing has a description") + "</desc>\n".len();
    let svg = format!("{}{cells}{}", &drawing[..place], &drawing[place..]);
    let data = data(subject, &panels);
    let formula = "p99 and median: nearest rank within the stretch, at most a ninth off";
    Some(Chart { name: "heat", svg, data, title, how, formula })
}

fn title(subject: &Subject<'_>, panels: &[Panel<'_>]) -> String {
    let peak = |panel: &Panel<'_>| {
        let columns = 0..panel.heat.columns();
        let lasting =
            columns.filter_map(|column| Some((column, panel.heat.quantile(column, 0.99)?)));
        let (column, most) = lasting.reduce(|a, b| if b.1 > a.1 { b } else { a })?;
        Some((panel.row, panel.heat.start(column), most))
    };
    let worst = panels.iter().filter_map(peak).max_by(|a, b| a.2.total_cmp(&b.2));
    worst.map_or("Nothing was measured".to_owned(), |(row, at, most)| {
        format!(
            "It hurt most around {}: p99 of {} was about {} for {}",
            words::round_secs((at * 10.0).round() / 10.0),
            measure(subject),
            words::round_secs(two_digits(most)),
            subject.plan.names.classes[row],
        )
    })
}

/// What a row of lengths can tell.
fn two_digits(seconds: f64) -> f64 {
    format!("{seconds:.1e}").parse().expect("a formatted float parses")
}

/// Paints the axes and lines; returns the cells, which are to lie below them.
fn paint(area: &Area<'_>, subject: &Subject<'_>, panel: &Panel<'_>) -> String {
    let heat = panel.heat;
    let columns = || 0..heat.columns();
    let used = |&row: &usize| columns().any(|c| heat.column(c).get(row).is_some_and(|&n| n > 0));
    let rows: Vec<usize> = (0..heat.column_rows()).filter(used).collect();
    let (low, high) = (rows[0], rows[rows.len() - 1] + 1);
    let (low, high) = (Heat::length(low / 2 * 2), Heat::length(high.next_multiple_of(2)));
    let (unit, scale, end) = subject.time_axis();
    let mut chart = ChartBuilder::on(area)
        .margin_top(24)
        .margin_left(6)
        .margin_right(24)
        .x_label_area_size(24)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, (low..high).log_scale())
        .expect(DRAWN);
    let at = |seconds: f64, length: f64| chart.backend_coord(&(seconds / scale, length));
    let cells = cells(heat, (low, high), &at);
    chart
        .configure_mesh()
        .disable_mesh()
        .axis_style(BLACK.mix(0.5))
        .x_labels(8)
        .y_labels(4)
        .x_label_formatter(&|at| words::tick(*at, unit))
        .y_label_formatter(&|seconds| words::round_secs(*seconds))
        .label_style(text_style(13))
        .draw()
        .expect(DRAWN);
    for (part, dash) in [(0.99, None), (0.5, Some(6))] {
        let line: Vec<(f64, f64)> = columns()
            .filter_map(|column| {
                let middle = (heat.start(column) + heat.start(column + 1)) / 2.0;
                Some((middle / scale, heat.quantile(column, part)?.clamp(low, high)))
            })
            .collect();
        for style in [WHITE.stroke_width(4), BLACK.stroke_width(2)] {
            match dash {
                None => drop(chart.draw_series(LineSeries::new(line.clone(), style)).expect(DRAWN)),
                Some(dash) => drop(
                    chart
                        .draw_series(DashedLineSeries::new(line.clone(), dash, 4, style))
                        .expect(DRAWN),
                ),
            }
        }
    }
    let name = &subject.plan.names.classes[panel.row];
    write(area, name, (72, 12), anchored(text_style(15), HPos::Left));
    cells
}

/// One path a shade: many small rectangles in few bytes.
fn cells(heat: &Heat, (low, high): (f64, f64), at: &dyn Fn(f64, f64) -> (i32, i32)) -> String {
    let mut paths: Vec<String> = vec![String::new(); SHADES.len()];
    for column in (0..heat.columns()).filter(|&column| !heat.column(column).is_empty()) {
        let all: u32 = heat.column(column).iter().sum();
        for (pair, counts) in heat.column(column).chunks(2).enumerate() {
            let count: u32 = counts.iter().sum();
            if count == 0 {
                continue;
            }
            // Each shade stands for half of the one before.
            let part = f64::from(count) / f64::from(all);
            let shade = ((-part.log2()).floor() as usize).min(SHADES.len() - 1);
            let top = Heat::length(2 * pair + 2).clamp(low, high);
            let bottom = Heat::length(2 * pair).clamp(low, high);
            let (left, upper) = at(heat.start(column), top);
            let (right, lower) = at(heat.start(column + 1), bottom);
            let (width, height) = ((right - left).max(1), (lower - upper).max(1));
            paths[shade].push_str(&format!("M{left} {upper}h{width}v{height}h-{width}z"));
        }
    }
    let paths = paths.iter().zip(SHADES).filter(|(path, _)| !path.is_empty());
    paths.map(|(path, shade)| format!("<path d=\"{path}\" fill=\"{shade}\"/>\n")).collect()
}

fn data(subject: &Subject<'_>, panels: &[Panel<'_>]) -> Vec<Vec<String>> {
    const ROWS: usize = 40;
    let head = ["class", "arrived from", "requests", "median", "p99"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for panel in panels {
        let heat = panel.heat;
        for column in (0..heat.columns()).step_by(heat.columns().div_ceil(ROWS).max(1)) {
            let count: u32 = heat.column(column).iter().sum();
            let time = |part| heat.quantile(column, part).map_or("–".to_owned(), words::secs);
            rows.push(vec![
                subject.plan.names.classes[panel.row].clone(),
                words::secs(heat.start(column)),
                words::count(count.into()),
                time(0.5),
                time(0.99),
            ]);
        }
    }
    rows
}
