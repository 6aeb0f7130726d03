//! Chart 14: the GPUs of a device beside a live run, and when they were throttled.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::Chart;
use super::canvas::{
    Area, BAD, DRAWN, anchored, class_color, fitting, line, mesh, svg, text_style, write,
};
use crate::telemetry::{Gpu, HEAD, Sampled, Stretch, Telemetry, row, throttled_words};
use crate::words;

const PANEL: u32 = 130;
/// Above the panels.
const LEGEND: u32 = 26;
/// Where an axis ends at least.
const TOP_MIN: f64 = 1.0;
/// GPUs drawn at most: the busiest.
const GPUS_MAX: usize = 4;

/// A panel: what it shows, of a stretch, and how a value is labelled.
struct Panel {
    label: &'static str,
    value: fn(&Stretch) -> Option<f64>,
    tick: fn(f64) -> String,
}

const PANELS: [Panel; 3] = [
    Panel {
        label: "utilization",
        value: |stretch| stretch.utilization,
        tick: |value| words::percent(value),
    },
    Panel {
        label: "power",
        value: |stretch| stretch.power_w,
        tick: |value| format!("{value:.0} W"),
    },
    Panel {
        label: "clock",
        value: |stretch| stretch.clock_mhz,
        tick: |value| format!("{value:.0} MHz"),
    },
];

/// A GPU that is drawn: its place, itself, and its stretches.
type Line<'a> = (usize, &'a Gpu, &'a [Stretch]);

/// `None` where nothing was read.
pub(crate) fn draw(telemetry: &Telemetry) -> Option<Chart> {
    let Telemetry::Sampled(sampled) = telemetry else { return None };
    let run = sampled.runs.get(sampled.drawn)?;
    let lines = lines(sampled);
    let told = |panel: &&Panel| {
        let values = lines.iter().flat_map(|(.., stretches)| stretches.iter());
        values.filter_map(panel.value).next().is_some()
    };
    let panels: Vec<&Panel> = PANELS.iter().filter(told).collect();
    if panels.is_empty() {
        return None;
    }
    let title = title(sampled);
    let which = match sampled.runs.len() {
        1 => format!("Drawn: {}.", run.name),
        n => format!("Drawn: {}, of {n} runs the one throttled the most.", run.name),
    };
    let of_gpus = match (lines.len(), sampled.gpus.len()) {
        (drawn, all) if drawn < all => format!(" The {drawn} busiest of {all} GPUs."),
        _ => String::new(),
    };
    let how = format!(
        "What the driver told of the GPUs while the run went on; utilization is the part of the time \
         in which any kernel ran, however little of the GPU it took. Where the ground is orange one \
         of them was throttled. {which}{of_gpus}"
    );
    let height = LEGEND + PANEL * panels.len() as u32 + 8;
    let drawing = svg(height, &title, &how, |area| {
        let (legend, below) = area.split_vertically(LEGEND);
        name(&legend, &lines);
        for (panel, area) in panels.iter().zip(below.split_evenly((panels.len(), 1))) {
            paint(&area, panel, &lines);
        }
    });
    let data = data(sampled);
    let formula = "mean over time, each sample for the time to the next; throttled = time with a reason ÷ time";
    Some(Chart { name: "gpus", svg: drawing, data, title, how, formula })
}

fn lines(sampled: &Sampled) -> Vec<Line<'_>> {
    let busy = |gpu: usize| {
        let summary = sampled.runs.get(sampled.drawn).and_then(|run| run.gpus.get(gpu));
        summary.and_then(|it| it.utilization).map_or(0.0, |level| level.mean)
    };
    let mut lines: Vec<Line<'_>> = (sampled.gpus.iter().zip(&sampled.stretches).enumerate())
        .map(|(index, (gpu, stretches))| (index, gpu, &stretches[..]))
        .collect();
    lines.sort_by(|a, b| busy(b.0).total_cmp(&busy(a.0)));
    lines.truncate(GPUS_MAX);
    lines.sort_by_key(|(index, ..)| *index);
    lines
}

fn title(sampled: &Sampled) -> String {
    let run = &sampled.runs[sampled.drawn];
    let each = || sampled.gpus.iter().zip(&run.gpus);
    let worst =
        each().max_by(|a, b| a.1.throttled.unwrap_or(0.0).total_cmp(&b.1.throttled.unwrap_or(0.0)));
    let said = worst.and_then(|(gpu, summary)| throttled_words(gpu, summary));
    said.unwrap_or_else(|| match each().all(|(_, summary)| summary.throttled.is_none()) {
        true => "The GPUs do not say whether they were throttled".to_owned(),
        false => "No GPU was throttled in any run".to_owned(),
    })
}

/// Whose line is which.
fn name(area: &Area<'_>, lines: &[Line<'_>]) {
    let width = 780 / lines.len().max(1) as i32;
    for (place, (index, gpu, _)) in (0..).zip(lines) {
        let x = 72 + place * width;
        line(area, (x, 14), (x + 16, 14), class_color(*index).stroke_width(3));
        let text = fitting(&format!("{} {}", gpu.index, gpu.name), width - 30, 14);
        write(area, &text, (x + 22, 14), anchored(text_style(14), HPos::Left));
    }
}

fn paint(area: &Area<'_>, panel: &Panel, lines: &[Line<'_>]) {
    let all = || lines.iter().flat_map(|(.., stretches)| stretches.iter());
    let end = all().map(|stretch| stretch.to).fold(0.1, f64::max);
    let top = all().filter_map(panel.value).fold(TOP_MIN / 1.05, f64::max) * 1.05;
    let (unit, scale) = words::axis_unit(end);
    let mut chart = ChartBuilder::on(area)
        .margin_top(20)
        .margin_left(6)
        .margin_right(24)
        .x_label_area_size(22)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end / scale, 0.0..top)
        .expect(DRAWN);
    let ground = all().filter(|stretch| stretch.throttled).map(|stretch| {
        let corners = [(stretch.from / scale, 0.0), (stretch.to / scale, top)];
        Rectangle::new(corners, BAD.mix(0.2).filled())
    });
    chart.draw_series(ground).expect(DRAWN);
    mesh(&mut chart, (0.1, 13))
        .x_labels(8)
        .y_labels(3)
        .x_label_formatter(&|at| words::tick(*at, unit))
        .y_label_formatter(&|value| (panel.tick)(*value))
        .draw()
        .expect(DRAWN);
    for (index, _, stretches) in lines {
        let style = class_color(*index).stroke_width(2);
        // A line breaks where the GPU did not say.
        for piece in stretches.split(|stretch| (panel.value)(stretch).is_none()) {
            let level = |stretch: &Stretch| {
                let value = (panel.value)(stretch).unwrap_or_default();
                [(stretch.from / scale, value), (stretch.to / scale, value)]
            };
            chart.draw_series(LineSeries::new(piece.iter().flat_map(level), style)).expect(DRAWN);
        }
    }
    write(area, panel.label, (72, 10), anchored(text_style(14), HPos::Left));
}

fn data(sampled: &Sampled) -> Vec<Vec<String>> {
    let run = &sampled.runs[sampled.drawn];
    let each = sampled.gpus.iter().zip(&run.gpus);
    let rows = each.map(|(gpu, summary)| row(&run.name, gpu, summary));
    std::iter::once(HEAD.map(str::to_owned).to_vec()).chain(rows).collect()
}
