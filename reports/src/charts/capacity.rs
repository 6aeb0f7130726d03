//! Chart 10: goodput and attainment against load, with the knee and the safe load.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::Chart;
use super::canvas::{
    Area, DRAWN, GOOD, WIDTH, anchored, class_color, end_labels, fitting, mesh, svg, text_style,
    write,
};
use crate::capacity::{CapacityPlan, Curve, CurvePoint};
use crate::summary::Estimate;
use crate::words;

const PANEL: u32 = 230;

const FORMULA: &str = "attainment = good ÷ offered; goodput = good requests ÷ measured seconds; safe load: the largest that was confirmed to keep every objective";

pub(crate) fn draw(plan: &CapacityPlan) -> Option<Chart> {
    let curves = &plan.curves;
    if curves.iter().all(|curve| curve.points.len() < 2) {
        return None;
    }
    let title = title(curves);
    let how = "Left to right: the load, in multiples of the load planned for. Above: the share of \
               the offered requests that were good; below: good requests a second. Bars are 95 % \
               intervals. The green line is the safe load, the dashed one the least load that was \
               not kept; a square is the knee, from which more load gives no more good requests."
        .to_owned();
    let drawing = svg(2 * PANEL + 10, &title, &how, |area| {
        let panels = area.split_evenly((2, 1));
        panel(&panels[0], curves, ("attainment", |point| point.attainment));
        panel(&panels[1], curves, ("good requests a second", |point| point.goodput));
    });
    Some(Chart { name: "capacity", svg: drawing, data: data(curves), title, how, formula: FORMULA })
}

fn title(curves: &[Curve]) -> String {
    let safe = |curve: &Curve| {
        let safe = curve.safe_load?;
        let knee = curve.knee.map_or(String::new(), |knee| format!(", knee at {knee:.2}"));
        Some(format!("{} under {}: {:.2}{knee}", curve.label, curve.policy, safe.kept))
    };
    let told: Vec<String> = curves.iter().filter_map(safe).collect();
    match told.as_slice() {
        [] => "No load that was tried is kept".to_owned(),
        told => format!("Safe load, in multiples: {}", told.join("; ")),
    }
}

fn panel(area: &Area<'_>, curves: &[Curve], (name, of): (&str, fn(&CurvePoint) -> Estimate)) {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let far = points().map(|point| point.load).fold(1.0, f64::max) * 1.02;
    let top = |point: &CurvePoint| {
        let estimate = of(point);
        estimate.interval.map(|[_, high]| high).or(estimate.value).unwrap_or(0.0)
    };
    let share = name == "attainment";
    let high = if share { 1.02 } else { points().map(top).fold(1e-9, f64::max) * 1.06 };
    let mut chart = ChartBuilder::on(area)
        .margin_top(26)
        .margin_right(150)
        .margin_left(6)
        .x_label_area_size(26)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..far, 0.0..high)
        .expect(DRAWN);
    mesh(&mut chart, (0.1, 12))
        .x_labels(8)
        .y_labels(5)
        .x_label_formatter(&|load| format!("{}×", (load * 100.0).round() / 100.0))
        .y_label_formatter(&|y| if share { words::percent(*y) } else { words::number(*y) })
        .draw()
        .expect(DRAWN);
    let mut labels = Vec::new();
    let mut safe: Vec<(i32, String, f64)> = Vec::new();
    for (row, curve) in curves.iter().enumerate() {
        let color = class_color(row);
        if let Some(load) = curve.safe_load {
            let upright = |x: f64| [(x, 0.0), (x, high)];
            let kept = PathElement::new(upright(load.kept), GOOD.stroke_width(2));
            chart.draw_series([kept]).expect(DRAWN);
            if share {
                let (x, _) = chart.backend_coord(&(load.kept, high));
                safe.push((x, curve.policy.clone(), load.kept));
            }
            if let Some(not) = load.not_kept.filter(|&not| not <= far) {
                let style = BLACK.mix(0.5).stroke_width(1);
                let dashed = DashedLineSeries::new(upright(not), 4, 4, style);
                chart.draw_series(dashed).expect(DRAWN);
            }
        }
        for point in &curve.points {
            if let Some([low, up]) = of(point).interval {
                let ends = vec![(point.load, low.max(0.0)), (point.load, up.min(high))];
                let whisker = PathElement::new(ends, color.stroke_width(1));
                chart.draw_series([whisker]).expect(DRAWN);
            }
        }
        let line: Vec<(f64, f64)> =
            curve.points.iter().filter_map(|p| Some((p.load, of(p).value?))).collect();
        chart.draw_series(LineSeries::new(line.clone(), color.stroke_width(2))).expect(DRAWN);
        if let Some(at) = line.iter().find(|point| Some(point.0) == curve.knee) {
            let square = EmptyElement::at(*at) + Rectangle::new([(-5, -5), (5, 5)], color.filled());
            chart.draw_series([square]).expect(DRAWN);
        }
        if let Some(last) = line.last() {
            let (_, y) = chart.backend_coord(last);
            labels.push((y - area.get_base_pixel().1, curve.policy.clone(), row));
        }
    }
    end_labels(area, (area.dim_in_pixel().0 as i32 - 140, PANEL as i32 - 20), labels);
    write(area, name, (64, 14), anchored(text_style(14), HPos::Left));
    label_safe_loads(area, safe);
}

/// Lines at the same load have one name, and names that would overlap stand above each other in one,
/// which keeps off the panel's own.
fn label_safe_loads(area: &Area<'_>, mut safe: Vec<(i32, String, f64)>) {
    safe.sort_by_key(|(x, ..)| *x);
    let mut labels: Vec<(i32, Vec<String>, f64)> = Vec::new();
    for (x, name, load) in safe {
        match labels.last_mut() {
            Some((_, names, same)) if (load - *same).abs() < 0.005 => names.push(name),
            Some(_) | None => labels.push((x, vec![name], load)),
        }
    }
    // Two lines seldom stand far apart: the last one's name is right of it, the others' left.
    let (mut free, last) = (160, labels.len().saturating_sub(1));
    for (number, (x, names, load)) in labels.into_iter().enumerate() {
        let text = fitting(&format!("{} safe: {load:.2}×", words::list(&names)), 400, 12);
        let length = 7 * text.chars().count() as i32;
        let from = if number == last && number > 0 { x } else { x - length };
        let from = from.max(free).min(WIDTH as i32 - length);
        write(area, &text, (from, 14), anchored(text_style(12), HPos::Left));
        free = from + length + 12;
    }
}

fn data(curves: &[Curve]) -> Vec<Vec<String>> {
    let head = ["policy", "hardware", "load", "offered", "goodput", "attainment"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for curve in curves {
        rows.extend(curve.points.iter().map(|point| {
            vec![
                curve.policy.clone(),
                curve.label.clone(),
                format!("{:.2}", point.load),
                format!("{}/s", words::number(point.offered)),
                format!("{}/s", words::number(point.goodput.value.unwrap_or(0.0))),
                point.attainment.value.map_or("–".to_owned(), words::percent),
            ]
        }));
    }
    rows
}
