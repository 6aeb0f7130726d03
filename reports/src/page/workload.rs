//! What load this was, and on what machine.

use crate::histogram::{Histogram, rank};
use crate::ledger::Ledger;
use crate::recorded::NOT_OBSERVED;
use crate::summary::{Estimate, Summary};
use crate::words;

/// What was offered, a row a class: how much, how evenly, how long.
pub(super) fn load(ledgers: &[Ledger], summary: &Summary) -> Vec<Vec<String>> {
    let head = [
        "class",
        "offered",
        "requests/s",
        "busiest",
        "burstiness",
        "prompt tokens",
        "output tokens",
        "of all tokens",
        "priority",
        "weight",
        "wait_max",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let pooled = |row: usize, of: fn(&crate::scene::Scene) -> &Histogram| {
        let mut all = Histogram::default();
        ledgers.iter().for_each(|ledger| all.merge(of(&ledger.classes[row].scene)));
        all
    };
    let lengths: Vec<(Histogram, Histogram)> = (0..summary.classes.len())
        .map(|row| (pooled(row, |scene| &scene.prompts), pooled(row, |scene| &scene.outputs)))
        .collect();
    let tokens = |(prompts, outputs): &(Histogram, Histogram)| {
        (prompts.sum_whole_nanos() + outputs.sum_whole_nanos()) as f64
    };
    let all: f64 = lengths.iter().map(tokens).sum();
    let seconds = summary.measured_s.value.unwrap_or(0.0) * ledgers.len() as f64;
    for (row, class) in summary.classes.iter().enumerate() {
        let offered = class.numbers.counts.offered;
        let (peak, dispersion) = arrivals(&ledgers[0], row);
        rows.push(vec![
            class.name.clone(),
            words::count(offered),
            if seconds > 0.0 { words::number(offered as f64 / seconds) } else { "–".to_owned() },
            peak.map_or("–".to_owned(), |rate| format!("{}/s", words::number(rate))),
            dispersion.map_or("–".to_owned(), words::number),
            spread(&lengths[row].0),
            spread(&lengths[row].1),
            if all > 0.0 { words::percent(tokens(&lengths[row]) / all) } else { "–".to_owned() },
            class.priority.to_string(),
            class.weight.to_string(),
            class.wait_max_s.map_or("–".to_owned(), words::round_secs),
        ]);
    }
    rows
}

/// The rate of the busiest bin of measured arrivals, and the index of dispersion of counts: 1 of a
/// Poisson process, more of bursts, less of a metronome.
fn arrivals(ledger: &Ledger, row: usize) -> (Option<f64>, Option<f64>) {
    let series = ledger.series();
    let width = series.width().secs_f64();
    let (from, to) = crate::verdict::arrivals_window(ledger);
    let whole = |number: usize| series.start(number) >= from && series.start(number + 1) <= to;
    let bins = series.class_bins(row).iter().enumerate();
    let counts: Vec<f64> =
        bins.filter(|(number, _)| whole(*number)).map(|(_, bin)| bin.arrived as f64).collect();
    if counts.len() < 2 {
        return (None, None);
    }
    let mean = counts.iter().sum::<f64>() / counts.len() as f64;
    let squares: f64 = counts.iter().map(|count| (count - mean).powi(2)).sum();
    let variance = squares / (counts.len() - 1) as f64;
    let peak = counts.iter().copied().fold(0.0, f64::max) / width;
    (Some(peak), (mean > 0.0).then(|| variance / mean))
}

fn spread(lengths: &Histogram) -> String {
    let at = |p: f64| lengths.at_rank(rank(p, lengths.count()));
    match (at(50.0), at(99.0)) {
        (Some(p50), Some(p99)) if lengths.count() > 0 => {
            format!("{}, {}, {}", words::count(p50), words::count(p99), words::count(lengths.max()))
        }
        _ => "–".to_owned(),
    }
}

/// The pools and how they were used.
pub(super) fn machine(summary: &Summary) -> Vec<Vec<String>> {
    let head = ["pool", "replicas", "seats each", "KV tokens each", "busy", "useful", "KV held"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let unknown = if summary.recorded.is_some() { NOT_OBSERVED } else { "–" };
    let share = |estimate: &Estimate| {
        let interval = estimate.interval.map_or(String::new(), |[low, high]| {
            format!(" ({} – {})", words::percent(low), words::percent(high))
        });
        estimate.value.map_or(unknown.to_owned(), |x| format!("{}{interval}", words::percent(x)))
    };
    for pool in &summary.pools {
        let used = &pool.utilization;
        rows.push(vec![
            pool.name.clone(),
            pool.replicas.to_string(),
            words::count(pool.seats.into()),
            words::count(pool.kv_tokens),
            share(&used.busy),
            share(&used.useful),
            share(&used.kv_occupancy),
        ]);
    }
    rows
}
