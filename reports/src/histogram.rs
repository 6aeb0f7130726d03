//! A log-linear histogram of nanoseconds.
//!
//! Values below 2,048 ns have a bucket each; above, each octave has 1,024 buckets, so that a
//! bucket is at most 0.098 % wide and its middle at most 0.049 % from what was recorded. Nothing
//! is clamped: every `u64` has a bucket. Buckets live in pages of 128 that exist once touched, so
//! memory follows the spread of the values and not their number.

use plimsoll_base::Ticks;

const PRECISION_BITS: u32 = 10;
const PAGE_BITS: u32 = 7;
const PAGE: usize = 1 << PAGE_BITS;

/// Counts of nanosecond values.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// As far as the last touched one.
    pages: Vec<Option<Box<[u64; PAGE]>>>,
    /// Of single values, in nanoseconds.
    sum: u128,
    /// Twice that of series, in ticks: it is the same however a series was cut.
    double_ticks: u128,
    max: u64,
}

/// The bucket of a value.
#[inline]
fn bucket(nanos: u64) -> usize {
    // The set bit makes all that needs no shift look 11 bits long.
    let shift = (nanos | 1 << PRECISION_BITS).ilog2() - PRECISION_BITS;
    ((shift as usize) << PRECISION_BITS) + (nanos >> shift) as usize
}

/// The page in which a value is counted.
#[inline]
pub(crate) fn page(nanos: u64) -> usize {
    bucket(nanos) >> PAGE_BITS
}

/// The values of a bucket: the first, and how many there are.
pub(crate) fn bucket_range(bucket: usize) -> (u64, u64) {
    let shift = (bucket >> PRECISION_BITS).saturating_sub(1);
    let mantissa = (bucket - (shift << PRECISION_BITS)) as u64;
    (mantissa << shift, 1 << shift)
}

impl Histogram {
    /// Counts one value.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        self.add(bucket(nanos), 1);
        self.sum += u128::from(nanos);
        self.reach(nanos);
    }

    /// Raises the maximum, which is rare once some values are counted.
    #[inline]
    fn reach(&mut self, nanos: u64) {
        if nanos > self.max {
            self.raise_max(nanos);
        }
    }
    #[cold]
    fn raise_max(&mut self, nanos: u64) {
        self.max = nanos;
    }

    /// Counts the arithmetic series `first`, `first + increment`, … of `count` gaps, each seen by
    /// `weight` sequences and rounded down to nanoseconds. Costs a step per bucket met, not per
    /// gap.
    // Apart: in the engine's loop over classes it would take the registers from all else.
    #[inline(never)]
    pub fn record_series(&mut self, first: Ticks, increment: Ticks, count: u64, weight: u32) {
        let weight = u64::from(weight);
        let last = first.0 + increment.0 * (count - 1);
        let last_bucket = bucket(last >> Ticks::FRACTION_BITS);
        let all = count * weight;
        // The sum is half of count · (first + last).
        self.double_ticks += u128::from(first.0 + last) * u128::from(all);
        self.max = self.max.max(last >> Ticks::FRACTION_BITS);
        // Whatever calls anything comes last, so that the usual way saves no registers.
        if count == 1 || bucket(first.0 >> Ticks::FRACTION_BITS) == last_bucket {
            self.add(last_bucket, all);
        } else {
            self.add_series((first.0, increment.0), count, last_bucket, weight);
        }
    }

    /// Adds `weight` to the buckets of each of `left` values in ticks, up to `last_bucket`.
    #[inline(never)]
    fn add_series(
        &mut self,
        (mut value, increment): (u64, u64),
        mut left: u64,
        last_bucket: usize,
        weight: u64,
    ) {
        loop {
            let here = bucket(value >> Ticks::FRACTION_BITS);
            if here == last_bucket {
                return self.add(here, left * weight);
            }
            let (low, width) = bucket_range(here);
            let end = (low + width) << Ticks::FRACTION_BITS;
            let met = (end - value).div_ceil(increment);
            self.add(here, met * weight);
            left -= met;
            value += increment * met;
        }
    }

    /// Counts one value several times.
    pub(crate) fn record_times(&mut self, nanos: u64, times: u64) {
        if times > 0 {
            self.add(bucket(nanos), times);
            self.sum += u128::from(nanos) * u128::from(times);
            self.reach(nanos);
        }
    }

    #[inline]
    fn add(&mut self, bucket: usize, count: u64) {
        let (number, offset) = (bucket >> PAGE_BITS, bucket & (PAGE - 1));
        match self.pages.get_mut(number) {
            Some(Some(page)) => page[offset] += count,
            Some(None) | None => self.add_first(bucket, count),
        }
    }

    /// Counts something in a page that nothing was counted in before.
    #[cold]
    fn add_first(&mut self, bucket: usize, count: u64) {
        self.touch(bucket >> PAGE_BITS)[bucket & (PAGE - 1)] += count;
    }

    fn touch(&mut self, number: usize) -> &mut [u64; PAGE] {
        if number >= self.pages.len() {
            self.pages.resize(number + 1, None);
        }
        self.pages[number].get_or_insert_with(|| Box::new([0; PAGE]))
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Histogram) {
        for (number, page) in other.pages.iter().enumerate() {
            let Some(source) = page else { continue };
            for (into, count) in self.touch(number).iter_mut().zip(source.iter()) {
                *into += count;
            }
        }
        self.sum += other.sum;
        self.double_ticks += other.double_ticks;
        self.reach(other.max);
    }

    /// How many values were counted: looked up, not kept, which costs a step per bucket.
    pub fn count(&self) -> u64 {
        self.pages().map(|(_, page)| page.iter().sum::<u64>()).sum()
    }
    /// The largest value, exactly, in nanoseconds.
    pub fn max(&self) -> u64 {
        self.max
    }
    /// The sum of single values, exactly, in nanoseconds.
    pub(crate) fn sum_whole_nanos(&self) -> u128 {
        self.sum
    }
    /// The sum in nanoseconds.
    pub fn sum_nanos(&self) -> f64 {
        self.sum as f64 + (self.double_ticks / 2) as f64 / Ticks::PER_NANO as f64
    }
    /// The mean in nanoseconds; `None` if nothing was counted.
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum_nanos() / count as f64)
    }

    /// The value of rank `rank` (from 1, in ascending order) in nanoseconds: the middle of its
    /// bucket, at most the maximum. `None` past the last.
    pub fn at_rank(&self, rank: u64) -> Option<u64> {
        let [bucket] = self.buckets_at([rank]);
        bucket.map(|bucket| self.middle(bucket))
    }

    /// What values of a bucket are taken as: its middle, at most the maximum.
    pub(crate) fn middle(&self, bucket: usize) -> u64 {
        let (low, width) = bucket_range(bucket);
        (low + width / 2).min(self.max)
    }

    /// The buckets of the values of some ranks, which ascend; `None` for those past the last.
    pub(crate) fn buckets_at<const N: usize>(&self, ranks: [u64; N]) -> [Option<usize>; N] {
        let mut found = [None; N];
        let (mut at, mut before) = (0, 0);
        for (number, page) in self.pages() {
            let held: u64 = page.iter().sum();
            let (mut offset, mut passed) = (0, before);
            while at < N && ranks[at] <= before + held {
                while passed + page[offset] < ranks[at] {
                    passed += page[offset];
                    offset += 1;
                }
                found[at] = Some((number << PAGE_BITS) + offset);
                at += 1;
            }
            before += held;
        }
        found
    }

    /// How many values are certainly above `nanos`: those of later buckets.
    pub fn count_above(&self, nanos: u64) -> u64 {
        let limit = bucket(nanos);
        self.buckets().filter(|&(bucket, _)| bucket > limit).map(|(_, count)| count).sum()
    }

    /// The touched pages, with their numbers.
    fn pages(&self) -> impl Iterator<Item = (usize, &[u64; PAGE])> + '_ {
        let pages = self.pages.iter().enumerate();
        pages.filter_map(|(number, page)| Some((number, &**page.as_ref()?)))
    }

    /// The buckets that hold something, in ascending order.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.pages().flat_map(|(number, page)| {
            let held = page.iter().enumerate().filter(|&(_, &count)| count > 0);
            held.map(move |(offset, &count)| ((number << PAGE_BITS) + offset, count))
        })
    }
}

/// The rank (from 1) of a percentile among `count` values: nearest rank, `⌈p/100 · count⌉`.
pub fn rank(percentile: f64, count: u64) -> u64 {
    // A hair below, so that 99.9 % of 1,000 is 999 although 0.999 has no exact binary form.
    let exact = percentile / 100.0 * count as f64;
    ((exact - exact * 1e-12).ceil() as u64).clamp(1, count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_base::{Stream, StreamKey};
    use proptest::prelude::*;

    #[test]
    fn buckets_tile_the_integers() {
        let mut next = 0;
        for number in 0..bucket(u64::MAX) {
            let (low, width) = bucket_range(number);
            assert_eq!(low, next, "bucket {number}");
            assert_eq!((bucket(low), bucket(low + width - 1)), (number, number));
            assert!(width == 1 || width as f64 / low as f64 <= 0.001, "bucket {number}");
            next = low + width;
        }
    }

    proptest! {
        #[test]
        fn a_series_is_its_gaps_one_by_one(
            first in 0u64..1 << 48, increment in 0u64..1 << 32,
            count in 1u64..3_000, weight in 1u32..5, cut in 0u64..3_000,
        ) {
            let cut = cut.min(count - 1);
            let mut whole = Histogram::default();
            whole.record_series(Ticks(first), Ticks(increment), count, weight);
            let mut parts = Histogram::default();
            if cut > 0 {
                parts.record_series(Ticks(first), Ticks(increment), cut, weight);
            }
            let rest = first + increment * cut;
            parts.record_series(Ticks(rest), Ticks(increment), count - cut, weight);
            let mut naive = Histogram::default();
            for gap in 0..count {
                for _ in 0..weight {
                    naive.record((first + gap * increment) >> Ticks::FRACTION_BITS);
                }
            }
            let buckets = |h: &Histogram| h.buckets().collect::<Vec<_>>();
            prop_assert_eq!(buckets(&whole), buckets(&naive));
            prop_assert_eq!(buckets(&whole), buckets(&parts));
            prop_assert_eq!((whole.count(), whole.max), (naive.count(), naive.max));
            prop_assert_eq!((whole.count(), whole.max, whole.double_ticks), (parts.count(), parts.max, parts.double_ticks));
            // The naive loop drops the fraction of a nanosecond of each gap.
            prop_assert!((whole.sum_nanos() - naive.sum_nanos()).abs() <= whole.count() as f64);
        }

        #[test]
        fn percentiles_are_within_a_thousandth(seed in 0u64..1000, count in 1u64..5_000) {
            let mut stream = Stream::new(StreamKey { seed, replication: 0, name: "h", entity: 0 });
            let mut histogram = Histogram::default();
            let mut halves = [Histogram::default(), Histogram::default()];
            let mut values: Vec<u64> = (0..count)
                .map(|_| (plimsoll_base::math::exp(25.0 * stream.uniform())) as u64)
                .collect();
            for (index, &value) in values.iter().enumerate() {
                histogram.record(value);
                halves[index % 2].record(value);
            }
            let [mut merged, other] = halves;
            merged.merge(&other);
            values.sort_unstable();
            for percentile in [0.1, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0] {
                let rank = rank(percentile, count);
                let exact = values[rank as usize - 1] as f64;
                let got = histogram.at_rank(rank).expect("the rank exists");
                prop_assert!((got as f64 - exact).abs() <= exact * 0.001, "{got} for {exact}");
                prop_assert_eq!(merged.at_rank(rank), Some(got));
            }
            prop_assert_eq!(histogram.max(), values[values.len() - 1]);
            prop_assert_eq!(merged.sum, histogram.sum);
        }
    }

    #[test]
    fn ranks_are_nearest_ranks() {
        for (percentile, count, expected) in
            [(50.0, 1, 1), (50.0, 4, 2), (99.0, 100, 99), (99.9, 1000, 999), (99.0, 10, 10)]
        {
            assert_eq!(rank(percentile, count), expected, "p{percentile} of {count}");
        }
    }
}
