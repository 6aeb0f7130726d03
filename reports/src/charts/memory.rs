//! Chart 9: KV memory held, and when requests were thrown out for want of it.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Area, BAD, DRAWN, anchored, class_color, mesh, svg, text_style, write};
use super::{Chart, Subject};
use crate::bins::PoolBin;
use crate::words;

const PANEL: u32 = 140;
/// Pools drawn at most: those that held most.
const PANELS_MAX: usize = 6;

/// What a pool held over time: (from, to, share), and when how many were thrown out.
struct Panel {
    row: usize,
    held: Vec<(f64, f64, f64)>,
    thrown_out: Vec<(f64, u64)>,
}

impl Panel {
    fn peak(&self) -> (f64, f64) {
        self.held.iter().fold((0.0, 0.0), |a, b| if b.2 > a.1 { (b.0, b.2) } else { a })
    }
    fn preemptions(&self) -> u64 {
        self.thrown_out.iter().map(|(_, count)| count).sum()
    }
}

pub(super) fn draw(subject: &Subject<'_>) -> Option<Chart> {
    let pools = 0..subject.plan.pools.len();
    let mut panels: Vec<Panel> = pools.map(|row| panel(subject, row)).collect();
    panels.retain(|panel| panel.held.iter().any(|(_, _, share)| *share > 0.0));
    panels.sort_by(|a, b| b.peak().1.total_cmp(&a.peak().1));
    panels.truncate(PANELS_MAX);
    panels.sort_by_key(|panel| panel.row);
    if panels.is_empty() {
        return None;
    }
    let title = title(subject, &panels);
    let how = format!(
        "The line is the part of a pool's KV memory that was held, over all its replicas; at 100 % \
         nothing more fits. A tick at the foot marks requests thrown out of a batch for want of it, \
         the taller the more; what they had computed is computed again.{}",
        subject.which_replication()
    );
    let height = PANEL * panels.len() as u32 + 8;
    let drawing = svg(height, &title, &how, |area| {
        for (panel, area) in panels.iter().zip(area.split_evenly((panels.len(), 1))) {
            paint(&area, subject, panel);
        }
    });
    let formula = "KV held = token-seconds held ÷ token-seconds there are, in each stretch";
    Some(Chart { name: "memory", svg: drawing, data: data(subject, &panels), title, how, formula })
}

fn panel(subject: &Subject<'_>, row: usize) -> Panel {
    let series = subject.ledger().series();
    let tokens = subject.plan.pools[row].kv_tokens as f64;
    let share = |bin: &PoolBin| {
        let there = tokens * bin.observed.millis_f64();
        if there > 0.0 { (bin.kv_token_millis as f64 / there).min(1.0) } else { 0.0 }
    };
    let end = subject.ledger().now().secs_f64();
    let bins = || series.pool_bins(row).iter().enumerate();
    let start = |number: usize| series.start(number).secs_f64();
    Panel {
        row,
        held: bins().map(|(n, bin)| (start(n), start(n + 1).min(end), share(bin))).collect(),
        thrown_out: bins()
            .filter(|(_, bin)| bin.preemptions > 0)
            .map(|(number, bin)| (start(number), bin.preemptions))
            .collect(),
    }
}

fn title(subject: &Subject<'_>, panels: &[Panel]) -> String {
    let fullest = panels.iter().max_by(|a, b| a.peak().1.total_cmp(&b.peak().1));
    let fullest = fullest.expect("no panel, no chart");
    let (at, share) = fullest.peak();
    let preemptions: u64 = panels.iter().map(Panel::preemptions).sum();
    let name = &subject.plan.names.pools[fullest.row];
    let when = words::round_secs(at);
    match (preemptions, share >= 0.97) {
        (0, false) => format!(
            "KV memory does not bind: at most {} of {name}'s was held, at {when}",
            words::percent(share)
        ),
        (0, true) => format!("{name}'s KV memory was full at {when}, and nobody was thrown out"),
        (count, _) => format!(
            "KV memory ran out: {} times a request was thrown out of a batch",
            words::count(count)
        ),
    }
}

fn paint(area: &Area<'_>, subject: &Subject<'_>, panel: &Panel) {
    let (unit, scale, end) = subject.time_axis();
    let mut chart = ChartBuilder::on(area)
        .margin_top(24)
        .margin_left(6)
        .margin_right(24)
        .x_label_area_size(24)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..1.0)
        .expect(DRAWN);
    mesh(&mut chart, (0.1, 13))
        .x_labels(8)
        .y_labels(3)
        .x_label_formatter(&|at| words::tick(*at, unit))
        .y_label_formatter(&|share| words::percent(*share))
        .draw()
        .expect(DRAWN);
    let steps: Vec<(f64, f64)> = (panel.held.iter())
        .flat_map(|&(from, to, share)| [(from / scale, share), (to / scale, share)])
        .collect();
    let color = class_color(0);
    let area_style = color.mix(0.2);
    chart.draw_series(AreaSeries::new(steps.iter().copied(), 0.0, area_style)).expect(DRAWN);
    chart.draw_series(LineSeries::new(steps, color.stroke_width(2))).expect(DRAWN);
    let most = panel.thrown_out.iter().map(|(_, count)| *count).max().unwrap_or(1) as f64;
    let ticks = panel.thrown_out.iter().map(|&(at, count)| {
        let height = 0.06 + 0.3 * count as f64 / most;
        PathElement::new(vec![(at / scale, 0.0), (at / scale, height)], BAD.stroke_width(2))
    });
    chart.draw_series(ticks).expect(DRAWN);
    let name = &subject.plan.names.pools[panel.row];
    let label = match panel.preemptions() {
        0 => format!("{name}: KV memory held"),
        count => format!("{name}: KV memory held; {} thrown out", words::count(count)),
    };
    write(area, &label, (72, 12), anchored(text_style(14), HPos::Left));
}

fn data(subject: &Subject<'_>, panels: &[Panel]) -> Vec<Vec<String>> {
    const ROWS: usize = 40;
    let head = ["pool", "from", "KV held", "thrown out"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for panel in panels {
        for chunk in panel.held.chunks(panel.held.len().div_ceil(ROWS).max(1)) {
            let (from, to) = (chunk[0].0, chunk[chunk.len() - 1].1);
            let mean = chunk.iter().map(|held| held.2).sum::<f64>() / chunk.len() as f64;
            let within = panel.thrown_out.iter().filter(|(at, _)| (from..to).contains(at));
            rows.push(vec![
                subject.plan.names.pools[panel.row].clone(),
                words::secs(from),
                words::percent(mean),
                words::count(within.map(|(_, count)| count).sum()),
            ]);
        }
    }
    rows
}
