//! Chart 13: simulated against measured. Quantiles against each other, the error by quantile, how
//! late requests went out; and, of several policies or loads, all that was judged at a glance.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::Chart;
use super::canvas::{
    Area, BAD, DRAWN, GOOD, WIDTH, anchored, bar, beside, class_color, fitting, line, mesh, svg,
    text_style, write,
};
use crate::validation::{Agreement, MetricAgreement, Setting, Validation};
use crate::words;

/// What has a panel of its own.
const PANELS: [(&str, &str); 3] = [("ttft", "TTFT"), ("itl", "ITL"), ("e2e", "E2E")];
/// The height of what says which colour is whose.
const KEY: u32 = 24;
const ROW: i32 = 20;
const TOP: i32 = 30;
/// The axis of all errors, in pixels.
const AXIS: (i32, i32) = (330, 700);
const ROWS_MAX: usize = 120;

/// A policy at a load with a class and one of its metrics.
type Drawn<'a> = (usize, &'a str, &'a MetricAgreement);
/// A class with its errors by percentile.
type Curve<'a> = (usize, &'a str, Vec<(f64, f64)>);

pub(crate) fn draw(validation: &Validation, lags: &[f64]) -> Vec<Chart> {
    let off = |setting: &&Setting| setting.worst().map_or(0.0, |(.., point)| point.error.abs());
    let worst = validation.settings.iter().max_by(|a, b| off(a).total_cmp(&off(b)));
    let mut charts = Vec::new();
    if let Some(worst) = worst {
        charts.extend([qq(validation, worst), by_quantile(validation, worst)]);
    }
    if validation.settings.len() > 1 {
        charts.push(errors(validation));
    }
    charts.push(lag(lags));
    charts
}

/// "under fcfs at 60 %, the furthest of 9" where there are several.
fn which(validation: &Validation, setting: &Setting) -> String {
    match validation.settings.len() {
        1 => String::new(),
        n => format!(" Drawn: {}, the furthest off of {n}.", setting.name()),
    }
}

fn of_metric<'a>(setting: &'a Setting, name: &str) -> Vec<Drawn<'a>> {
    let found = |(row, class): (usize, &'a crate::validation::ClassAgreement)| {
        let metric = class.metrics.iter().find(|metric| metric.metric == name)?;
        (metric.quantiles.len() > 1).then_some((row, class.class.as_str(), metric))
    };
    setting.classes.iter().enumerate().filter_map(found).collect()
}

fn qq(validation: &Validation, setting: &Setting) -> Chart {
    let title = match setting.worst() {
        None => "Too few requests to judge".to_owned(),
        Some((class, metric, point)) => format!(
            "Simulated {} of {} is {} at {}",
            metric.metric.to_uppercase(),
            class.class,
            off(point.error),
            point.at
        ),
    };
    let how = format!(
        "Percentiles 1 to 99, live to the right and simulated upwards, both logarithmic. On the line \
         they are the same; the band is {} to either side.{}",
        words::percent(validation.within),
        which(validation, setting)
    );
    let drawing = svg(KEY + 320, &title, &how, |area| {
        let (head, body) = area.split_vertically(KEY);
        key(&head, setting);
        for (panel, (name, label)) in body.split_evenly((1, PANELS.len())).iter().zip(PANELS) {
            qq_panel(panel, &of_metric(setting, name), (label, validation.within));
        }
    });
    let formula = "percentile q of all simulated requests against percentile q of all live ones";
    Chart { name: "qq", svg: drawing, data: data(validation), title, how, formula }
}

/// Which colour is whose, above the panels, where no curve can pass.
fn key(area: &Area<'_>, setting: &Setting) {
    let mut x = 62;
    for (row, class) in setting.classes.iter().enumerate() {
        let name = fitting(&class.class, 160, 14);
        let length = 24 + 9 * name.chars().count() as i32;
        if x + length > WIDTH as i32 {
            break;
        }
        line(area, (x, 12), (x + 16, 12), class_color(row).stroke_width(3));
        write(area, &name, (x + 20, 12), anchored(text_style(14), HPos::Left));
        x += length + 16;
    }
}

/// "3.1 % too long".
fn off(error: f64) -> String {
    let way = if error < 0.0 { "too short" } else { "too long" };
    format!("{:.1} % {way}", error.abs() * 100.0)
}

fn qq_panel(area: &Area<'_>, drawn: &[Drawn<'_>], (label, within): (&str, f64)) {
    let all = || {
        let quantiles = drawn.iter().flat_map(|(.., metric)| metric.quantiles.iter());
        quantiles.flatten().copied().filter(|value| *value > 0.0)
    };
    let low = all().fold(f64::INFINITY, f64::min) * 0.8;
    let high = all().fold(0.0, f64::max) * 1.25;
    if low >= high {
        write(area, &format!("{label}: nothing measured"), (20, 30), text_style(14));
        return;
    }
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(22)
        .caption(label, text_style(15))
        .x_label_area_size(26)
        .y_label_area_size(54)
        .build_cartesian_2d((low..high).log_scale(), (low..high).log_scale())
        .expect(DRAWN);
    mesh(&mut chart, (0.12, 12))
        .x_labels(3)
        .y_labels(4)
        .x_label_formatter(&|seconds| words::round_secs(*seconds))
        .y_label_formatter(&|seconds| words::round_secs(*seconds))
        .draw()
        .expect(DRAWN);
    let (up, down) = (1.0 + within, 1.0 - within);
    let clamp = |value: f64| value.clamp(low, high);
    let band = [
        (low, clamp(low * up)),
        (high / up, high),
        (high, high),
        (high, clamp(high * down)),
        (low / down, low),
        (low, low),
    ];
    chart.draw_series([Polygon::new(band.to_vec(), BLACK.mix(0.08))]).expect(DRAWN);
    chart
        .draw_series([PathElement::new(vec![(low, low), (high, high)], BLACK.mix(0.5))])
        .expect(DRAWN);
    for (row, _, metric) in drawn {
        let color = class_color(*row);
        let points = metric.quantiles.iter().map(|&[live, simulated]| (live, simulated));
        chart.draw_series(points.map(|at| Circle::new(at, 2, color.filled()))).expect(DRAWN);
    }
}

fn by_quantile(validation: &Validation, setting: &Setting) -> Chart {
    let panels = PANELS.map(|(name, _)| of_metric(setting, name));
    let errors = |metric: &MetricAgreement| -> Vec<(f64, f64)> {
        let error = |(part, [live, simulated]): (u32, &[f64; 2])| {
            (*live > 0.0).then(|| (f64::from(part), simulated / live - 1.0))
        };
        (1..).zip(&metric.quantiles).filter_map(error).collect()
    };
    let inside = panels.iter().flatten().flat_map(|(.., metric)| errors(metric));
    let (inside, all) = inside.fold((0, 0), |(inside, all), (_, error)| {
        (inside + u32::from(error.abs() <= validation.within), all + 1)
    });
    let part = f64::from(inside) / f64::from(all.max(1));
    let title = format!(
        "{} of all percentiles are within {}",
        words::percent(part),
        words::percent(validation.within)
    );
    let how = format!(
        "How far the simulated percentile is from the live one, from the 1st to the 99th; above the \
         line it is too long. The band is the limit.{}",
        which(validation, setting)
    );
    let most = panels.iter().flatten().flat_map(|(.., metric)| errors(metric));
    let most = most.map(|(_, error)| error.abs()).fold(validation.within * 1.5, f64::max).min(1.0);
    let drawing = svg(KEY + 300, &title, &how, |area| {
        let (head, body) = area.split_vertically(KEY);
        key(&head, setting);
        let areas = body.split_evenly((1, PANELS.len()));
        for ((panel, drawn), (_, label)) in areas.iter().zip(&panels).zip(PANELS) {
            let curves: Vec<Curve<'_>> =
                drawn.iter().map(|(row, name, metric)| (*row, *name, errors(metric))).collect();
            error_panel(panel, &curves, (label, validation.within, most * 1.1));
        }
    });
    let formula = "error at q = simulated percentile q ÷ live percentile q − 1";
    Chart { name: "error-by-quantile", svg: drawing, data: data(validation), title, how, formula }
}

fn error_panel(area: &Area<'_>, curves: &[Curve<'_>], (label, within, most): (&str, f64, f64)) {
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(22)
        .caption(label, text_style(15))
        .x_label_area_size(26)
        .y_label_area_size(54)
        .build_cartesian_2d(0.0..100.0, -most..most)
        .expect(DRAWN);
    mesh(&mut chart, (0.12, 12))
        .x_labels(5)
        .y_labels(5)
        .x_label_formatter(&|part| format!("p{part:.0}"))
        .y_label_formatter(&|error| label_of(*error))
        .draw()
        .expect(DRAWN);
    let corners = [(0.0, -within), (100.0, within)];
    chart.draw_series([Rectangle::new(corners, BLACK.mix(0.08).filled())]).expect(DRAWN);
    let zero = vec![(0.0, 0.0), (100.0, 0.0)];
    chart.draw_series([PathElement::new(zero, BLACK.mix(0.5))]).expect(DRAWN);
    for (row, _, curve) in curves {
        let clamped = curve.iter().map(|&(part, error)| (part, error.clamp(-most, most)));
        let style = class_color(*row).stroke_width(2);
        chart.draw_series(LineSeries::new(clamped, style)).expect(DRAWN);
    }
}

/// "+10 %"; nought has no sign.
fn label_of(error: f64) -> String {
    let percent = (error * 100.0).round();
    if percent == 0.0 { "0 %".to_owned() } else { format!("{percent:+} %") }
}

/// All that was judged: a row each, the error with its interval and the limit.
fn errors(validation: &Validation) -> Chart {
    let points = validation.settings.iter().flat_map(|setting| {
        setting.points().map(move |(class, metric, point)| (setting, class, metric, point))
    });
    let mut judged: Vec<_> = points.filter(|(.., point)| point.result.is_some()).collect();
    let good = judged.iter().filter(|it| it.3.result == Some(Agreement::Agrees)).count();
    let title = format!("{good} of {} numbers agree", judged.len());
    let how = "The error of each judged number with its 95 % interval, the furthest first. Green \
               agrees, orange disagrees, grey cannot be told; the band is the limit."
        .to_owned();
    judged.sort_by(|a, b| b.3.error.abs().total_cmp(&a.3.error.abs()));
    judged.truncate(ROWS_MAX);
    let reach = judged.iter().map(|it| it.3.error.abs()).fold(validation.within, f64::max) * 1.4;
    let names: Vec<String> = (judged.iter())
        .map(|(setting, class, metric, point)| {
            let metric = metric.metric.to_uppercase();
            format!("{}: {} {metric} {}", setting.name(), class.class, point.at)
        })
        .collect();
    let axis = (beside(names.iter().cloned(), 12, AXIS.0), AXIS.1);
    let x = |error: f64| {
        let part = (error / reach).clamp(-1.0, 1.0) * 0.5 + 0.5;
        axis.0 + (part * f64::from(axis.1 - axis.0)).round() as i32
    };
    let bottom = TOP + ROW * judged.len() as i32;
    let drawing = svg((bottom + 30) as u32, &title, &how, |area| {
        let within = validation.within;
        bar(area, (x(-within), TOP - 8), (x(within), bottom), &BLACK.mix(0.08));
        line(area, (x(0.0), TOP - 8), (x(0.0), bottom), BLACK.mix(0.6).stroke_width(1));
        for at in [-within, 0.0, within] {
            let label = label_of(at);
            write(area, &label, (x(at), bottom + 12), anchored(text_style(12), HPos::Center));
        }
        for (index, ((.., point), name)) in judged.iter().zip(&names).enumerate() {
            let y = TOP + ROW * index as i32 + ROW / 2 - 4;
            let color = match point.result {
                Some(Agreement::Agrees) => GOOD.to_rgba(),
                Some(Agreement::Disagrees) => BAD.to_rgba(),
                Some(Agreement::Unclear | Agreement::Noisy) | None => BLACK.mix(0.4),
            };
            let name = fitting(name, axis.0 - 20, 12);
            write(area, &name, (axis.0 - 14, y), anchored(text_style(12), HPos::Right));
            let label = words::signed(point.error);
            write(area, &label, (AXIS.1 + 12, y), anchored(text_style(12), HPos::Left));
            if let Some([low, high]) = point.interval {
                line(area, (x(low), y), (x(high), y), color.stroke_width(2));
            }
            let at = x(point.error);
            bar(area, (at - 4, y - 4), (at + 4, y + 4), &color);
        }
    });
    let formula = "error = simulated ÷ live − 1, with its interval";
    Chart { name: "errors", svg: drawing, data: data(validation), title, how, formula }
}

/// How late requests went out.
fn lag(lags: &[f64]) -> Chart {
    let mut sorted = lags.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| {
        let index = (part * (sorted.len().max(1) - 1) as f64).round() as usize;
        sorted.get(index).copied().unwrap_or(0.0)
    };
    let title = match sorted.is_empty() {
        true => "Nothing was sent".to_owned(),
        false => {
            format!("99 of 100 requests went out within {} of their time", words::secs(at(0.99)))
        }
    };
    let how =
        "How much later than its arrival a request was sent, without what the policy held it \
               back for; the upright line is 1 ms."
            .to_owned();
    let drawing = svg(240, &title, &how, |area| lag_curve(area, &sorted));
    let parts = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];
    let row = |(name, part): (&str, f64)| vec![name.to_owned(), words::secs(at(part))];
    let head = vec!["percentile".to_owned(), "send lag".to_owned()];
    let data = std::iter::once(head).chain(parts.into_iter().map(row)).collect();
    let formula = "send lag = sent − arrival − what the policy held it back for";
    Chart { name: "send-lag", svg: drawing, data, title, how, formula }
}

fn lag_curve(area: &Area<'_>, sorted: &[f64]) {
    const LEAST: f64 = 1e-5;
    let most = sorted.last().copied().unwrap_or(0.0).max(2e-3) * 1.25;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(24)
        .x_label_area_size(28)
        .y_label_area_size(60)
        .build_cartesian_2d((LEAST..most).log_scale(), 0.0..1.0)
        .expect(DRAWN);
    mesh(&mut chart, (0.12, 13))
        .x_labels(6)
        .y_labels(5)
        .x_label_formatter(&|seconds| words::round_secs(*seconds))
        .y_label_formatter(&|part| format!("{:.0} %", part * 100.0))
        .draw()
        .expect(DRAWN);
    let limit = vec![(1e-3, 0.0), (1e-3, 1.0)];
    chart.draw_series([PathElement::new(limit, BLACK.mix(0.6).stroke_width(1))]).expect(DRAWN);
    let count = sorted.len() as f64;
    let points = sorted.iter().enumerate();
    let curve = points.map(|(index, lag)| (lag.max(LEAST), (index + 1) as f64 / count));
    chart.draw_series(LineSeries::new(curve, class_color(0).stroke_width(2))).expect(DRAWN);
}

fn data(validation: &Validation) -> Vec<Vec<String>> {
    validation.points(|_| true)
}
