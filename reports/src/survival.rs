//! Waits that were cut off, taken into account: the product-limit estimator.

use crate::histogram::{Histogram, bucket_range, rank};
use crate::tally::Spans;

/// The quantiles that are reported.
pub(crate) const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// Quantiles of a span of which some observations were cut off (Kaplan and Meier, 1958): the least
/// value by which a part `q` is over, where `S(t) = Π (1 - d/n)` over the values up to `t`, `d` of
/// the `n` that had not ended before ending there. `None` where so many were cut off that it is
/// not reached. In nanoseconds, in the middle of a bucket.
pub(crate) fn quantiles(spans: &Spans) -> [Option<u64>; 3] {
    let mut at_risk = spans.observed.count() + spans.censored.count();
    if spans.censored.count() == 0 {
        // Nearest ranks: those are looked up by the page, not by the bucket.
        return QUANTILES.map(|quantile| spans.observed.at_rank(rank(100.0 * quantile, at_risk)));
    }
    let mut censored = spans.censored.buckets().peekable();
    let mut survival = 1.0;
    let mut found = [None; 3];
    for (bucket, ended) in spans.observed.buckets() {
        // Whoever is cut off at the same value is taken to have lasted longer.
        while let Some(&(_, count)) = censored.peek().filter(|(at, _)| *at < bucket) {
            at_risk -= count;
            censored.next();
        }
        survival *= 1.0 - ended as f64 / at_risk as f64;
        at_risk -= ended;
        for (found, quantile) in found.iter_mut().zip(QUANTILES) {
            // Room for the rounding of the products.
            if found.is_none() && survival <= 1.0 - quantile + 1e-9 {
                *found = Some(middle(&spans.observed, bucket));
            }
        }
    }
    found
}

fn middle(observed: &Histogram, bucket: usize) -> u64 {
    let (low, length) = bucket_range(bucket);
    (low + length / 2).min(observed.max())
}

#[cfg(test)]
mod tests {
    use plimsoll_base::Span;

    use super::*;

    fn spans(observed: &[u64], censored: &[u64]) -> Spans {
        let mut spans = Spans::default();
        for &nanos in observed {
            spans.record(Some(Span::from_nanos(nanos)), Span::ZERO);
        }
        for &nanos in censored {
            spans.record(None, Span::from_nanos(nanos));
        }
        spans
    }

    #[test]
    fn without_cut_off_waits_they_are_nearest_ranks() {
        let spans = spans(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], &[]);
        assert_eq!(quantiles(&spans), [Some(5), Some(9), Some(10)]);
    }

    #[test]
    fn what_is_cut_off_moves_them_out() {
        // S: 3/4 after 1; then 2 of 3 at risk are cut off before 9; the last ends at 9.
        let spans = spans(&[1, 9], &[3, 4]);
        assert_eq!(quantiles(&spans), [Some(9), Some(9), Some(9)]);
    }

    #[test]
    fn they_are_unknown_where_too_many_are_cut_off() {
        let spans = spans(&[1, 2, 3], &[4, 5, 6, 7]);
        assert_eq!(quantiles(&spans), [None, None, None]);
    }
}
