//! `latency.hgrm`: end-to-end latency as HdrHistogram writes percentile distributions.
//!
//! Format: `outputPercentileDistribution` of HdrHistogram (Gil Tene), five ticks a half distance,
//! which its plotter and its ports read; values in milliseconds.

use std::io::{self, Write};

use crate::histogram::{Histogram, bucket_range};
use crate::ledger::Ledger;

/// Ticks until half of what is left is passed.
const TICKS: f64 = 5.0;

/// Writes the latency of all finished requests of all classes and replications.
///
/// # Errors
/// Those of `out`.
pub fn write_latency(ledgers: &[Ledger], out: &mut impl Write) -> io::Result<()> {
    let mut all = Histogram::default();
    for tally in ledgers.iter().flat_map(Ledger::tallies) {
        all.merge(&tally.e2e.observed);
    }
    write_histogram(&all, out)
}

fn write_histogram(all: &Histogram, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let total = all.count();
    let (mut seen, mut level) = (0, 0.0);
    for (bucket, count) in all.buckets() {
        seen += count;
        let value = highest(all, bucket) as f64 / 1e6;
        while 100.0 * seen as f64 / total as f64 >= level {
            let part = level / 100.0;
            writeln!(out, "{value:>12.3} {part:>2.12} {seen:>10} {:>14.2}", 1.0 / (1.0 - part))?;
            let halves = (100.0 / (100.0 - level)).log2().floor() + 1.0;
            level += 100.0 / (TICKS * halves.exp2());
            if seen == total {
                break;
            }
        }
    }
    let max = all.max() as f64 / 1e6;
    if total > 0 {
        writeln!(out, "{max:>12.3} {:>2.12} {total:>10}", 1.0)?;
    }
    let mean = all.mean().unwrap_or(0.0);
    let squares: f64 = all
        .buckets()
        .map(|(bucket, count)| {
            let (first, length) = bucket_range(bucket);
            let middle = first as f64 + (length - 1) as f64 / 2.0;
            count as f64 * (middle - mean).powi(2)
        })
        .sum();
    let deviation = (squares / total.max(1) as f64).sqrt() / 1e6;
    writeln!(out, "#[Mean    = {:>12.3}, StdDeviation   = {deviation:>12.3}]", mean / 1e6)?;
    writeln!(out, "#[Max     = {max:>12.3}, Total count    = {total:>12}]")?;
    writeln!(out, "#[Buckets = {:>12}, SubBuckets     = {:>12}]", all.buckets().count(), 2048)
}

/// The largest value that a bucket stands for.
fn highest(all: &Histogram, bucket: usize) -> u64 {
    let (first, length) = bucket_range(bucket);
    (first + length - 1).min(all.max())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_hdrhistogram_and_every_value_is_counted() {
        let mut all = Histogram::default();
        (1..=10_000u64).for_each(|millis| all.record(millis * 1_000_000));
        let mut text = Vec::new();
        write_histogram(&all, &mut text).expect("room");
        let text = String::from_utf8(text).expect("text");
        let rows: Vec<Vec<f64>> = (text.lines().skip(2))
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|x| x.parse().expect("a number")).collect())
            .collect();
        let levels: Vec<f64> = rows.iter().take(8).map(|row| row[1]).collect();
        assert_eq!(levels, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6]);
        for row in &rows {
            assert!((row[2] / 10_000.0 - row[1]).abs() < 0.002, "{row:?}");
            assert!((row[0] / 10_000.0 / (row[2] / 10_000.0) - 1.0).abs() < 0.002, "{row:?}");
        }
        assert_eq!(
            rows.last().map(|row| (row[0], row[1], row[2])),
            Some((10_000.0, 1.0, 10_000.0))
        );
        assert!(
            text.contains("#[Max     =    10000.000, Total count    =        10000]"),
            "{text}"
        );
        let mut nothing = Vec::new();
        write_histogram(&Histogram::default(), &mut nothing).expect("room");
        assert!(!String::from_utf8_lossy(&nothing).contains("NaN"));
    }
}
