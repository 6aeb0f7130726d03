//! Chart 2: time to first token by percentile, on an axis of nines.

use plotters::prelude::*;

use super::canvas::{DRAWN, WIDTH, class_color, end_labels, mesh, svg, text_style};
use super::{Chart, Subject};
use crate::estimate::{View, percentile};
use crate::tally::Tally;
use crate::words;

const HEIGHT: u32 = 340;
/// From the median's side to four nines, in nines: `-log10(1 - p)`.
pub(super) const NINES_MAX: f64 = 4.0;
const STEPS: usize = 80;

/// A curve: (nines, seconds).
pub(super) type Curve = Vec<(f64, f64)>;

pub(super) const FORMULA: &str = "ttft = first token − intended arrival, the queue included; nearest rank over pooled requests; x = −log10(1 − p)";

pub(super) fn draw(subject: &Subject<'_>) -> Chart {
    let curves: Vec<(usize, &str, Curve)> = (subject.classes())
        .map(|(row, name)| (row, name, curve(&subject.pooled[row])))
        .filter(|(_, _, curve)| !curve.is_empty())
        .collect();
    let title = title(subject);
    let how = format!(
        "Each line is a class: half of its requests got their first token faster than where p50 \
         stands, 99 % faster than p99; flat is even, a rise to the right is a tail.{}",
        match subject.ledgers.len() {
            1 => String::new(),
            n => format!(" The band spans the {n} replications."),
        }
    );
    let drawing = svg(HEIGHT, &title, &how, |area| {
        if curves.is_empty() {
            let style = text_style(15);
            super::canvas::write(area, "no request got a first token", (20, 30), style);
        } else {
            paint(area, subject, &curves);
        }
    });
    Chart { name: "percentiles", svg: drawing, data: data(subject), title, how, formula: FORMULA }
}

fn title(subject: &Subject<'_>) -> String {
    let ttft = |class: &crate::summary::ClassSummary| {
        let ttft = &class.numbers.latency.ttft;
        Some((class.name.clone(), ttft.p50.value?, ttft.p99.value?))
    };
    let stretched = (subject.summary.classes.iter().filter_map(ttft))
        .max_by(|a, b| (a.2 / a.1.max(1e-9)).total_cmp(&(b.2 / b.1.max(1e-9))));
    match stretched {
        None => "No first token was delivered".to_owned(),
        Some((_, p50, p99)) if subject.summary.classes.len() == 1 => format!(
            "The p99 of TTFT, {}, is {} times the median, {}",
            words::secs(p99),
            words::number(p99 / p50.max(1e-9)),
            words::secs(p50),
        ),
        Some((name, p50, p99)) => format!(
            "{} tail is the longest: p99 TTFT {}, {} times the median {}",
            words::possessive(&name),
            words::secs(p99),
            words::number(p99 / p50.max(1e-9)),
            words::secs(p50),
        ),
    }
}

/// As far as at least one request lies beyond.
pub(super) fn curve(tally: &Tally) -> Curve {
    let view = View::from(&tally.ttft);
    let count = (tally.ttft.observed.count() + tally.ttft.censored.count()) as f64;
    let far = count.log10().min(NINES_MAX);
    let at = |step: usize| {
        let nines = far * step as f64 / STEPS as f64;
        let p = 100.0 * (1.0 - 10f64.powf(-nines));
        percentile(view, p).map(|(nanos, _)| (nines, (nanos as f64 / 1e9).max(1e-6)))
    };
    if count < 2.0 { Vec::new() } else { (0..=STEPS).filter_map(at).collect() }
}

fn paint(area: &super::canvas::Area<'_>, subject: &Subject<'_>, curves: &[(usize, &str, Curve)]) {
    let all = || curves.iter().flat_map(|(_, _, curve)| curve.iter());
    let low = all().map(|point| point.1).fold(f64::MAX, f64::min) * 0.8;
    let high = all().map(|point| point.1).fold(0.0, f64::max) * 1.25;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(130)
        .x_label_area_size(30)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..NINES_MAX, (low..high).log_scale())
        .expect(DRAWN);
    mesh(&mut chart, (0.12, 14))
        .x_labels(5)
        .y_labels(6)
        .x_label_formatter(&|nines| match nines.round() as u32 {
            0 => "fastest".to_owned(),
            1 => "p90".to_owned(),
            2 => "p99".to_owned(),
            3 => "p99.9".to_owned(),
            _ => "p99.99".to_owned(),
        })
        .y_label_formatter(&|seconds| words::round_secs(*seconds))
        .draw()
        .expect(DRAWN);
    let median = 2f64.log10();
    chart
        .draw_series([PathElement::new(vec![(median, low), (median, high)], BLACK.mix(0.12))])
        .expect(DRAWN);
    let (x, y) = chart.backend_coord(&(median, low));
    super::canvas::write(area, "p50", (x - 10, y + 12), text_style(14));
    let floor = y;
    let mut labels = Vec::new();
    for (row, name, curve) in curves {
        let color = class_color(*row);
        if subject.ledgers.len() > 1 {
            let band = band(subject, *row, curve);
            chart.draw_series([Polygon::new(band, color.mix(0.18))]).expect(DRAWN);
        }
        chart.draw_series(LineSeries::new(curve.clone(), color.stroke_width(2))).expect(DRAWN);
        let end = curve.last().expect("an empty curve is not drawn");
        let (_, y) = chart.backend_coord(end);
        labels.push((y, (*name).to_owned(), *row));
    }
    end_labels(area, (WIDTH as i32 - 122, floor), labels);
}

/// From the lowest to the highest of the replications along the curve, around.
fn band(subject: &Subject<'_>, row: usize, curve: &Curve) -> Curve {
    let spread = |nines: f64| {
        let p = 100.0 * (1.0 - 10f64.powf(-nines));
        let of = |rows: &Vec<Tally>| {
            percentile(View::from(&rows[row].ttft), p)
                .map(|(nanos, _)| (nanos as f64 / 1e9).max(1e-6))
        };
        let values: Vec<f64> = subject.tallies.iter().filter_map(of).collect();
        let low = values.iter().copied().fold(f64::MAX, f64::min);
        (nines, low, values.iter().copied().fold(0.0, f64::max))
    };
    let edges: Vec<(f64, f64, f64)> = curve.iter().map(|point| spread(point.0)).collect();
    let up = edges.iter().map(|&(nines, low, _)| (nines, low));
    up.chain(edges.iter().rev().map(|&(nines, _, high)| (nines, high))).collect()
}

pub(super) fn data(subject: &Subject<'_>) -> Vec<Vec<String>> {
    let head = ["class", "requests", "p50", "p75", "p90", "p95", "p99", "p99.9", "max"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for class in &subject.summary.classes {
        let ttft = &class.numbers.latency.ttft;
        let mut row = vec![class.name.clone(), words::count(ttft.count)];
        row.extend(
            [ttft.p50, ttft.p75, ttft.p90, ttft.p95, ttft.p99, ttft.p999, ttft.max]
                .map(|estimate| words::latency(&estimate)),
        );
        rows.push(row);
    }
    rows
}
