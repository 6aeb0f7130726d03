//! Chart 12: what hardware costs against how much of the load it serves well.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::Chart;
use super::canvas::{Area, BAD, DRAWN, GOOD, anchored, mesh, svg, text_style, write};
use crate::capacity::{CapacityPlan, Judged, Tried, price};
use crate::words;

const HEIGHT: u32 = 330;

const FORMULA: &str = "attainment = good ÷ offered; cost = price an hour × devices, where prices are known, else devices";

pub(crate) fn draw(plan: &CapacityPlan) -> Option<Chart> {
    let shown: Vec<(&Tried, f64)> =
        plan.tried.iter().filter_map(|tried| Some((tried, tried.attainment.value?))).collect();
    if shown.len() < 2 {
        return None;
    }
    let priced = shown.iter().all(|(tried, _)| tried.price_an_hour.is_some());
    let title = match &plan.answer {
        Some(answer) => format!("{} is the least that keeps every objective", answer.label),
        None => "Nothing in the range keeps every objective".to_owned(),
    };
    let how = format!(
        "Each mark is hardware that was judged: {} against the share of the offered requests that \
         were good. The bar is the 95 % interval of the mean, the pale box spans the 5th to the 95th \
         percentile of single replications: the risk of one day. Green keeps every objective, \
         orange misses one; what costs more and serves less is grey.",
        if priced { "its price an hour" } else { "its devices" }
    );
    let drawing = svg(HEIGHT, &title, &how, |area| paint(area, &shown, (plan, priced)));
    Some(Chart { name: "frontier", svg: drawing, data: data(plan), title, how, formula: FORMULA })
}

fn cost(tried: &Tried, priced: bool) -> f64 {
    match tried.price_an_hour {
        Some(price) if priced => price,
        Some(_) | None => f64::from(tried.devices),
    }
}

fn paint(area: &Area<'_>, shown: &[(&Tried, f64)], (plan, priced): (&CapacityPlan, bool)) {
    let costs = || shown.iter().map(|(tried, _)| cost(tried, priced));
    let far = costs().fold(0.0, f64::max) * 1.12;
    let low = |(tried, value): &(&Tried, f64)| {
        tried.attainment_p5_p95.map_or(*value, |[low, _]| low.min(*value))
    };
    let bottom = shown.iter().map(low).fold(1.0, f64::min);
    let bottom = (bottom - 0.1 * (1.0 - bottom)).clamp(0.0, 0.99);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_right(40)
        .x_label_area_size(30)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..far, bottom..(1.0 + 0.04 * (1.0 - bottom)))
        .expect(DRAWN);
    mesh(&mut chart, (0.1, 12))
        .x_labels(8)
        .y_labels(6)
        .x_label_formatter(&|cost| match priced {
            true => price(*cost, plan.prices.as_ref()),
            false => format!("{}", (cost * 10.0).round() / 10.0),
        })
        .y_label_formatter(&|share| words::percent(*share))
        .draw()
        .expect(DRAWN);
    let width = far * 0.008;
    for (tried, value) in shown {
        let x = cost(tried, priced);
        let dominated = shown.iter().any(|(other, better)| {
            cost(other, priced) < x && better > value && other.result == tried.result
                || cost(other, priced) < x && other.result == Judged::Met
        });
        let color = match tried.result {
            _ if dominated => BLACK.mix(0.35),
            Judged::Met => GOOD.to_rgba(),
            Judged::Missed => BAD.to_rgba(),
            Judged::Undecided => BLACK.mix(0.6),
        };
        if let Some([low, high]) = tried.attainment_p5_p95 {
            let corners = [(x - width, low.max(bottom)), (x + width, high)];
            let pale = Rectangle::new(corners, color.mix(0.25).filled());
            chart.draw_series([pale]).expect(DRAWN);
        }
        if let Some([low, high]) = tried.attainment.interval {
            let ends = vec![(x, low.max(bottom)), (x, high.min(1.0))];
            chart.draw_series([PathElement::new(ends, color.stroke_width(2))]).expect(DRAWN);
        }
        let dot = EmptyElement::at((x, *value)) + Circle::new((0, 0), 5, color.filled());
        chart.draw_series([dot]).expect(DRAWN);
    }
    // Only the answer is named.
    let is_answer = |tried: &Tried| {
        plan.answer
            .as_ref()
            .is_some_and(|answer| (&answer.label, &answer.policy) == (&tried.label, &tried.policy))
    };
    let marks: Vec<(i32, i32, i32)> = (shown.iter())
        .map(|(tried, value)| {
            let ends = tried.attainment_p5_p95.into_iter().chain(tried.attainment.interval);
            let low = ends.map(|[low, _]| low).fold(*value, f64::min).max(bottom);
            let (x, y) = chart.backend_coord(&(cost(tried, priced), *value));
            (x, y, chart.backend_coord(&(0.0, low)).1)
        })
        .collect();
    for ((tried, _), mark) in shown.iter().zip(&marks).filter(|((tried, _), _)| is_answer(tried)) {
        let (at, side) = free_place(&tried.label, *mark, &marks);
        write(area, &tried.label, at, anchored(text_style(13), side));
    }
}

/// Where a label beside its mark lies on no mark: right of it, left of it, else lower and lower.
/// A mark is its place and how far down its bars reach.
fn free_place(
    label: &str,
    (x, y, low): (i32, i32, i32),
    marks: &[(i32, i32, i32)],
) -> ((i32, i32), HPos) {
    let length = 8 * label.chars().count() as i32;
    let lower = (0..6).map(|step| y + 20 * step).chain([low + 16]);
    let places = lower.flat_map(|at| [((x + 14, at), HPos::Left), ((x - 14, at), HPos::Right)]);
    let is_free = |&((from, at), side): &((i32, i32), HPos)| {
        let (left, right) = match side {
            HPos::Left => (from, from + length),
            HPos::Right | HPos::Center => (from - length, from),
        };
        let is_within = left > 70 && right < super::canvas::WIDTH as i32;
        is_within
            && marks.iter().all(|&(x, y, low)| {
                x + 9 < left || x - 9 > right || low + 8 < at - 8 || y - 8 > at + 8
            })
    };
    places.into_iter().find(is_free).unwrap_or(((x, low + 16), HPos::Center))
}

fn data(plan: &CapacityPlan) -> Vec<Vec<String>> {
    let mut rows = vec![crate::study::TRIED_HEAD.map(str::to_owned).to_vec()];
    rows.extend(plan.tried.iter().map(|tried| crate::study::tried_row(tried, plan)));
    rows
}
