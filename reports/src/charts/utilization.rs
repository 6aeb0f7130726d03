//! Chart 6: who used the engines.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{
    BAD, DRAWN, anchored, bar, class_color, fitting, line, mesh, svg, text_style, write,
};
use super::scale::{Scale, upward};
use super::{Chart, Subject};
use crate::bins::PoolBin;
use crate::words;

const HEIGHT: u32 = 300;
/// The panel of the seats.
const SEATS: u32 = 150;
/// Between the lines of a hatching, in pixels.
const HATCH: i32 = 6;
/// Of the hatching, over colours that are the same dark and light.
const HATCHED: RGBColor = RGBColor(0x11, 0x11, 0x11);
/// Of a stretch, what is hatched at least.
const WASTED_LEAST: f64 = 0.002;
/// Bars over time at most.
const BARS: usize = 120;

/// Shares of the engines' time within one stretch of the run, one a class.
struct Stretch {
    from: f64,
    to: f64,
    shares: Vec<f64>,
    /// Of the engines' time, what was computed again.
    wasted: f64,
    /// Of the seats: taken, and free while requests waited for KV memory.
    taken: f64,
    blocked: f64,
}

const FORMULA: &str = "busy = time computing ÷ time there is; of a step, prefill goes by marginal cost, the rest in equal parts to the sequences that decode; work done twice = busy × recomputed tokens ÷ computed tokens; blocked by memory = seats that stand free while requests wait for KV memory ÷ seats";

pub(super) fn draw(subject: &Subject<'_>) -> Chart {
    let stretches = stretches(subject);
    let title = title(subject);
    let how = format!(
        "Above: height is the share of all replicas' time that each class used; what is empty was \
         idle, what is hatched was computed a second time. A replica is busy while it holds any \
         request: busy is not full. Below: of the seats of all replicas, blue those taken, orange \
         those blocked by memory: free, while requests waited for KV memory.{}",
        subject.which_replication()
    );
    let drawing = svg(HEIGHT + SEATS, &title, &how, |area| {
        let (time, seats) = area.split_vertically(HEIGHT);
        paint(&time, subject, &stretches);
        paint_seats(&seats, subject, &stretches);
    });
    Chart {
        name: "utilization",
        svg: drawing,
        data: data(subject, &stretches),
        title,
        how,
        formula: FORMULA,
    }
}

fn stretches(subject: &Subject<'_>) -> Vec<Stretch> {
    let series = subject.ledger().series();
    let end = subject.ledger().now().secs_f64();
    let bins = series.class_bins(0).len();
    let step = bins.div_ceil(BARS).max(1);
    let replicas = f64::from(subject.plan.replicas().max(1));
    let stretch = |first: usize| {
        let last = (first + step).min(bins);
        let (from, to) = (series.start(first).secs_f64(), series.start(last).secs_f64().min(end));
        let busy = |row: usize| -> f64 {
            series.class_bins(row)[first..last].iter().map(|bin| bin.busy.secs_f64()).sum()
        };
        let length = (to - from).max(1e-9) * replicas;
        let shares = subject.classes().map(|(row, _)| busy(row) / length).collect();
        let pools =
            (0..subject.plan.pools.len()).flat_map(|pool| &series.pool_bins(pool)[first..last]);
        let sum = |of: fn(&PoolBin) -> f64| pools.clone().map(of).sum::<f64>();
        let seats = sum(|bin| bin.seats as f64).max(1.0);
        Stretch {
            from,
            to,
            shares,
            wasted: sum(|bin| bin.wasted.secs_f64()) / length,
            taken: sum(|bin| bin.running as f64) / seats,
            blocked: sum(|bin| bin.blocked as f64) / seats,
        }
    };
    let drawn = (0..bins).step_by(step).map(stretch);
    drawn.filter(|stretch| stretch.to > stretch.from).collect()
}

fn title(subject: &Subject<'_>) -> String {
    let summary = subject.summary;
    let Some(busy) = summary.utilization.busy.value else {
        return "The engines were not sampled".to_owned();
    };
    let share = |class: &crate::summary::ClassSummary| {
        Some((class.name.clone(), class.waiting.engine_share?, class.waiting.entitlement))
    };
    let most =
        summary.classes.iter().filter_map(share).max_by(|a, b| (a.1 - a.2).total_cmp(&(b.1 - b.2)));
    let wasted = summary.utilization.useful.value.map_or(0.0, |useful| busy - useful);
    let wasted = if wasted >= 0.001 {
        format!("; {} of the time was work done twice", words::percent(wasted))
    } else {
        String::new()
    };
    match most {
        Some((name, share, entitlement)) if summary.classes.len() > 1 => format!(
            "The engines were busy {} of the time; {name} took {} of that, by weight it has {}{wasted}",
            words::percent(busy),
            words::percent(share),
            words::percent(entitlement),
        ),
        _ => format!("The engines were busy {} of the time{wasted}", words::percent(busy)),
    }
}

fn paint(area: &super::canvas::Area<'_>, subject: &Subject<'_>, stretches: &[Stretch]) {
    let (unit, scale, end) = subject.time_axis();
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_top(26)
        .margin_right(24)
        .x_label_area_size(30)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..1.0)
        .expect(DRAWN);
    mesh(&mut chart, (0.1, 13))
        .x_labels(8)
        .y_labels(5)
        .x_label_formatter(&|at| words::tick(*at, unit))
        .y_label_formatter(&|share| words::percent(*share))
        .draw()
        .expect(DRAWN);
    let mut labels = Vec::new();
    for (row, name) in subject.classes() {
        // A class is one shape: along the top of its layer, and back along the bottom.
        let below = |stretch: &Stretch| stretch.shares[..row].iter().sum::<f64>().min(1.0);
        let above = |stretch: &Stretch| stretch.shares[..=row].iter().sum::<f64>().min(1.0);
        let edge = |height: &dyn Fn(&Stretch) -> f64| -> Vec<(f64, f64)> {
            let corners = |s: &Stretch| [(s.from / scale, height(s)), (s.to / scale, height(s))];
            stretches.iter().flat_map(corners).collect()
        };
        let (top, mut bottom) = (edge(&above), edge(&below));
        bottom.reverse();
        let outline: Vec<(f64, f64)> = top.into_iter().chain(bottom).collect();
        let color = class_color(row);
        chart.draw_series([Polygon::new(outline, color.mix(0.85))]).expect(DRAWN);
        if let Some(at) = label_place(stretches, row) {
            let height = (below(&stretches[at]) + above(&stretches[at])) / 2.0;
            let middle = (stretches[at].from + stretches[at].to) / 2.0 / scale;
            labels.push((name.to_owned(), chart.backend_coord(&(middle, height))));
        }
    }
    for stretch in stretches.iter().filter(|stretch| stretch.wasted > WASTED_LEAST) {
        let top = stretch.shares.iter().sum::<f64>().min(1.0);
        let corner = |at: f64, height: f64| chart.backend_coord(&(at / scale, height));
        let (from, to) =
            (corner(stretch.from, top), corner(stretch.to, (top - stretch.wasted).max(0.0)));
        hatch(area, from, to);
    }
    for (name, at) in labels {
        let style = ("sans-serif", 15).into_font().color(&RGBColor(0x11, 0x11, 0x11));
        write(area, &name, at, anchored(style, HPos::Center));
    }
    let mut x = 72;
    for (row, name) in subject.classes() {
        bar(area, (x, 4), (x + 14, 16), &class_color(row).to_rgba());
        let name = fitting(name, 160, 14);
        write(area, &name, (x + 20, 10), anchored(text_style(14), HPos::Left));
        x += 40 + 8 * name.chars().count() as i32;
    }
    let work_done_twice = stretches.iter().any(|stretch| stretch.wasted > WASTED_LEAST);
    if work_done_twice && x < super::canvas::WIDTH as i32 - 150 {
        bar(area, (x, 4), (x + 14, 16), &RGBColor(0xB8, 0xBE, 0xC4).to_rgba());
        hatch(area, (x, 4), (x + 14, 16));
        write(area, "computed twice", (x + 20, 10), anchored(text_style(14), HPos::Left));
    }
}

/// Slanted lines over what was done twice; they meet those of the stretch beside it.
fn hatch(area: &super::canvas::Area<'_>, (left, top): (i32, i32), (right, bottom): (i32, i32)) {
    let ink = HATCHED.stroke_width(1);
    let first = (left + top).div_euclid(HATCH) * HATCH;
    for sum in (first..=right + bottom).step_by(HATCH as usize) {
        // Points whose x and y add up to `sum`, within the corners.
        let (start, end) = ((sum - bottom).max(left), (sum - top).min(right));
        if end > start {
            line(area, (start, sum - start), (end, sum - end), ink);
        }
    }
}

fn paint_seats(area: &super::canvas::Area<'_>, subject: &Subject<'_>, stretches: &[Stretch]) {
    let (_, scale, end) = subject.time_axis();
    let across = Scale::linear((0.0, end), (72, super::canvas::WIDTH as i32 - 24));
    let floor = SEATS as i32 - 14;
    let up = Scale::linear((0.0, 1.0), (floor, 26));
    upward(area, &up, (72, super::canvas::WIDTH as i32 - 24), &words::percent);
    let blue = RGBColor(0x56, 0xB4, 0xE9).mix(0.55);
    for stretch in stretches {
        let (left, right) = (across.at(stretch.from / scale), across.at(stretch.to / scale));
        let (taken, blocked) = (up.at(stretch.taken), up.at(stretch.taken + stretch.blocked));
        bar(area, (left, taken), (right, floor), &blue);
        bar(area, (left, blocked), (right, taken), &BAD.mix(0.9));
    }
    line(
        area,
        (72, floor),
        (super::canvas::WIDTH as i32 - 24, floor),
        BLACK.mix(0.5).stroke_width(1),
    );
    let keys = [(72, "seats taken", blue), (190, "blocked by memory", BAD.mix(0.9))];
    for (x, name, color) in keys {
        bar(area, (x, 4), (x + 14, 16), &color);
        write(area, name, (x + 20, 10), anchored(text_style(14), HPos::Left));
    }
}

/// Where a label fits into the layer of a class: the first place around which the layer stays
/// thickest. `None` if it is thin everywhere; the legend names it all the same.
fn label_place(stretches: &[Stretch], row: usize) -> Option<usize> {
    let reach = stretches.len() / 20 + 1;
    let around = |at: usize| {
        let near = &stretches[at - reach..=at + reach];
        near.iter().map(|stretch| stretch.shares[row]).fold(f64::MAX, f64::min)
    };
    let places = (reach..stretches.len().saturating_sub(reach)).rev();
    let best = places.map(|at| (at, around(at))).max_by(|a, b| a.1.total_cmp(&b.1))?;
    (best.1 >= 0.1).then_some(best.0)
}

fn data(subject: &Subject<'_>, stretches: &[Stretch]) -> Vec<Vec<String>> {
    const ROWS: usize = 40;
    let mut head = vec!["from".to_owned()];
    head.extend(subject.classes().map(|(_, name)| name.to_owned()));
    head.extend(["idle", "done twice", "seats taken", "blocked by memory"].map(str::to_owned));
    let mut rows = vec![head];
    for stretch in stretches.iter().step_by(stretches.len().div_ceil(ROWS).max(1)) {
        let mut row = vec![words::secs(stretch.from)];
        row.extend(stretch.shares.iter().map(|share| words::percent(*share)));
        let idle = (1.0 - stretch.shares.iter().sum::<f64>()).max(0.0);
        let more = [idle, stretch.wasted, stretch.taken, stretch.blocked];
        row.extend(more.map(words::percent));
        rows.push(row);
    }
    rows
}
