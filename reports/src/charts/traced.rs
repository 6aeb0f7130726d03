//! The charts of a trace: arrivals over time, how bursty at which time scale, lengths.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::Chart;
use super::canvas::{
    Area, WIDTH, anchored, bar, class_color, dashed, line, svg, text_style, write,
};
use super::scale::{Scale, plain, tried, upward};
use crate::traced::{Lengths, TraceDescription};
use crate::words;

const HEIGHT: i32 = 240;
const PLOT: (i32, i32) = (72, WIDTH as i32 - 24);
const TOP: i32 = 30;

pub(crate) fn draw(trace: &TraceDescription) -> Vec<Chart> {
    let mut charts = vec![arrivals(trace)];
    charts.extend(dispersion(trace));
    charts.push(lengths(trace));
    charts
}

fn arrivals(trace: &TraceDescription) -> Chart {
    let (width, counts) = (trace.arrivals.seconds, &trace.arrivals.counts);
    let rates: Vec<f64> = counts.iter().map(|count| *count as f64 / width).collect();
    let peak = rates.iter().copied().enumerate().reduce(|a, b| if b.1 > a.1 { b } else { a });
    let title = match (peak, trace.rate) {
        (Some((at, peak)), Some(mean)) if peak > 1.3 * mean => format!(
            "{} requests a second on average, at most {} at {}",
            words::number(mean),
            words::number(peak),
            words::round_secs((at as f64 * width).round())
        ),
        (_, Some(mean)) => format!("A steady load of {} requests a second", words::number(mean)),
        (_, None) => "All requests arrive at once".to_owned(),
    };
    let how = format!(
        "Requests a second over time, in stretches of {}, since the first arrival.",
        words::round_secs(width)
    );
    let drawing = svg(HEIGHT as u32, &title, &how, |area| {
        let (unit, scale) = words::axis_unit(trace.seconds);
        let end = (counts.len() as f64 * width / scale).max(1e-9);
        let across = Scale::linear((0.0, end), PLOT);
        let floor = HEIGHT - 28;
        let high = rates.iter().copied().fold(1e-9, f64::max) * 1.06;
        let up = Scale::linear((0.0, high), (floor, TOP));
        write(area, "requests a second", (PLOT.0, 12), anchored(text_style(13), HPos::Left));
        upward(area, &up, PLOT, &plain);
        line(area, (PLOT.0, floor), (PLOT.1, floor), BLACK.mix(0.5).stroke_width(1));
        let ticks = across.ticks(7).into_iter();
        let ticks: Vec<(i32, String)> =
            ticks.map(|at| (across.at(at), words::tick(at, unit))).collect();
        tried(area, &ticks, floor);
        let at = |number: usize| across.at(number as f64 * width / scale);
        let corners = rates.iter().enumerate().flat_map(|(number, rate)| {
            let y = up.at(*rate);
            [(at(number), y), (at(number + 1), y)]
        });
        dashed(area, corners.collect(), class_color(0).stroke_width(2));
    });
    let step = counts.len().div_ceil(40).max(1);
    let mut data = vec![["from", "requests", "requests/s"].map(str::to_owned).to_vec()];
    data.extend(counts.chunks(step).enumerate().map(|(number, chunk)| {
        let count: u64 = chunk.iter().sum();
        let rate = count as f64 / (width * chunk.len() as f64);
        let from = words::secs(number as f64 * step as f64 * width);
        vec![from, words::count(count), words::number(rate)]
    }));
    let formula = "requests that arrived in the stretch ÷ its length";
    Chart { name: "arrivals", svg: drawing, data, title, how, formula }
}

fn dispersion(trace: &TraceDescription) -> Option<Chart> {
    let most = trace.scales.iter().max_by(|a, b| a.dispersion.total_cmp(&b.dispersion))?;
    let title = format!(
        "Variance ÷ mean of the arrivals is {} in windows of {}; of a Poisson process it is 1",
        words::number(most.dispersion),
        words::round_secs(most.seconds)
    );
    let how = "Left to right: the length of the windows in which arrivals are counted; upwards: how \
               much the counts vary. The line is a Poisson process. What rises to the right comes in \
               bursts that last: look where your policy or autoscaler acts."
        .to_owned();
    let drawing = svg(HEIGHT as u32, &title, &how, |area| {
        let floor = HEIGHT - 28;
        let scales = || trace.scales.iter().map(|scale| scale.seconds);
        let across = Scale::fitting(scales(), PLOT);
        let values = || trace.scales.iter().map(|scale| scale.dispersion.max(1e-3));
        let (low, high) = (values().fold(0.5, f64::min), values().fold(2.0, f64::max));
        let up = Scale::logarithmic((low, high), (floor, TOP));
        write(area, "variance ÷ mean", (PLOT.0, 12), anchored(text_style(13), HPos::Left));
        upward(area, &up, PLOT, &plain);
        line(area, (PLOT.0, floor), (PLOT.1, floor), BLACK.mix(0.5).stroke_width(1));
        line(area, (PLOT.0, up.at(1.0)), (PLOT.1, up.at(1.0)), BLACK.stroke_width(2));
        let style = anchored(text_style(12), HPos::Right);
        write(area, "Poisson", (PLOT.1, up.at(1.0) - 10), style);
        let ticks = scales().map(|at| (across.at(at), words::round_secs(at)));
        tried(area, &ticks.collect::<Vec<_>>(), floor);
        let places: Vec<(i32, i32)> = (trace.scales.iter())
            .map(|scale| (across.at(scale.seconds), up.at(scale.dispersion)))
            .collect();
        for (x, y) in &places {
            bar(area, (x - 4, y - 4), (x + 4, y + 4), &class_color(0).to_rgba());
        }
        dashed(area, places, class_color(0).stroke_width(2));
    });
    let mut data = vec![["windows of", "windows", "variance ÷ mean"].map(str::to_owned).to_vec()];
    data.extend(trace.scales.iter().map(|scale| {
        vec![
            words::round_secs(scale.seconds),
            words::count(scale.windows),
            words::number(scale.dispersion),
        ]
    }));
    let formula = "sample variance of the counts of whole windows ÷ their mean";
    Some(Chart { name: "dispersion", svg: drawing, data, title, how, formula })
}

fn lengths(trace: &TraceDescription) -> Chart {
    let told = |of: &Lengths| of.p50.map_or("–".to_owned(), words::count);
    let title = format!(
        "Half of the prompts have up to {} tokens, half of the outputs up to {}",
        told(&trace.prompt),
        told(&trace.output)
    );
    let how =
        "The share of rows by length, each bar twice as long as the one before; the line is the \
               median, the dashed one the 99th percentile."
            .to_owned();
    let all = [("prompt tokens", &trace.prompt), ("output tokens", &trace.output)];
    let used = |of: &Lengths| of.doublings.iter().rposition(|count| *count > 0);
    let last = all.iter().filter_map(|(_, of)| used(of)).max().unwrap_or(0);
    let drawing = svg(2 * HEIGHT as u32 - 60, &title, &how, |area| {
        for (number, (name, of)) in all.iter().enumerate() {
            histogram(area, (HEIGHT - 30) * number as i32, (name, of), (last, number));
        }
    });
    let mut data = vec![["tokens from", "prompts", "outputs"].map(str::to_owned).to_vec()];
    data.extend((0..=last).map(|power| {
        let count = |of: &Lengths| words::count(of.doublings[power]);
        vec![words::count(1 << power), count(&trace.prompt), count(&trace.output)]
    }));
    let formula = "rows of 2ⁿ up to below 2ⁿ⁺¹ tokens ÷ rows that have any";
    Chart { name: "lengths", svg: drawing, data, title, how, formula }
}

fn histogram(
    area: &Area<'_>,
    top: i32,
    (name, of): (&str, &Lengths),
    (last, number): (usize, usize),
) {
    let floor = top + HEIGHT - 60;
    let share = |power: usize| of.doublings[power] as f64 / of.count.max(1) as f64;
    let high = (0..=last).map(share).fold(0.01, f64::max) * 1.1;
    let up = Scale::linear((0.0, high), (floor, top + TOP));
    write(area, name, (PLOT.0, top + 12), anchored(text_style(13), HPos::Left));
    upward(area, &up, PLOT, &words::percent);
    line(area, (PLOT.0, floor), (PLOT.1, floor), BLACK.mix(0.5).stroke_width(1));
    let room = f64::from(PLOT.1 - PLOT.0);
    let x = |doublings: f64| PLOT.0 + (room * doublings / (last + 1) as f64).round() as i32;
    for power in 0..=last {
        let (left, right) = (x(power as f64), x(power as f64 + 1.0));
        let color = class_color(number).mix(0.85);
        bar(area, (left + 1, up.at(share(power))), (right - 1, floor), &color);
    }
    let ticks = (0..=last).map(|power| (x(power as f64), words::count(1 << power)));
    tried(area, &ticks.collect::<Vec<_>>(), floor);
    for (length, dash) in [(of.p50, false), (of.p99, true)] {
        let Some(at) = length.map(|length| x((length.max(1) as f64).log2())) else { continue };
        let pieces = if dash { (top + TOP..floor).step_by(8).collect() } else { vec![top + TOP] };
        for from in pieces {
            let to = if dash { (from + 4).min(floor) } else { floor };
            line(area, (at, from), (at, to), BLACK.stroke_width(2));
        }
    }
}
