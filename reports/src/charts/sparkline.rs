//! A small line without axes, for the row of a class.

use crate::bins::ClassBin;
use crate::ledger::Ledger;

/// How many requests of a class waited over time: the most of each of so many stretches.
fn waiting(ledger: &Ledger, row: usize, points: usize) -> Vec<f64> {
    let waiting = |bin: &ClassBin| {
        (bin.samples > 0).then(|| (bin.queued + bin.engine_waiting) as f64 / bin.samples as f64)
    };
    let bins = ledger.series().class_bins(row);
    let mut last = 0.0;
    let most = |chunk: &[ClassBin]| {
        last = chunk.iter().filter_map(waiting).reduce(f64::max).unwrap_or(last);
        last
    };
    bins.chunks(bins.len().div_ceil(points).max(1)).map(most).collect()
}

/// As characters for a terminal.
pub(crate) fn spark(ledger: &Ledger, row: usize) -> String {
    const POINTS: usize = 20;
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let values = waiting(ledger, row, POINTS);
    let most = values.iter().copied().fold(1.0, f64::max);
    let block = |value: &f64| BLOCKS[((value / most * 7.0).ceil() as usize).min(7)];
    values.iter().map(block).collect()
}

/// As a path of 120 × 24 pixels.
pub(crate) fn sparkline(ledger: &Ledger, row: usize) -> String {
    const POINTS: usize = 60;
    let values = waiting(ledger, row, POINTS);
    let most = values.iter().copied().fold(1.0, f64::max);
    let step = 120.0 / (values.len().max(2) - 1) as f64;
    let mut path = String::new();
    for (index, value) in values.iter().enumerate() {
        let verb = if index == 0 { 'M' } else { 'L' };
        path.push_str(&format!(
            "{verb}{:.1} {:.1}",
            index as f64 * step,
            22.0 - 20.0 * value / most
        ));
    }
    format!(
        "<svg class=\"spark\" width=\"120\" height=\"24\" viewBox=\"0 0 120 24\" role=\"img\">\
         <title>Requests waiting over time, at most {most:.0}</title>\
         <path d=\"{path}\" fill=\"none\" stroke=\"var(--fg)\" stroke-width=\"1.2\"/></svg>"
    )
}
