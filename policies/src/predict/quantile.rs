//! A running quantile of output tokens: a log-linear histogram that forgets.
//!
//! **What it does.** Each finished request is counted in a bucket: numbers below 16 exactly, then
//! 16 buckets an octave. The quantile is the upper end of the bucket in which it lies, so it is
//! never below the measured quantile and at most 1/16 above it. When [`SAMPLES_MAX`] are counted
//! all buckets are halved, so that what is old weighs half, then a quarter, and so on.
//!
//! **Source.** The log-linear buckets of HdrHistogram, with decay by halving instead of a sliding
//! window; the bucket of the quantile is moved along with each sample, so no input scans all.
//!
//! **Promise.** After `samples_min` the prediction is at most 1/16 above the quantile of the counts
//! kept, and never above the client's cap. State a 0.9 quantile and about one in ten requests
//! delivers more than predicted, if the class goes on as it was.
//!
//! **How it fails.** A class that mixes short and long work has no typical length, and its
//! quantile is that of the mixture. After a sudden change it needs about a thousand requests to
//! believe it. Only those that finish are counted: where long requests are cancelled more often
//! than short ones it predicts too little.

/// The counts are halved when there are so many.
const SAMPLES_MAX: u32 = 1_024;
/// Buckets an octave, as a power of two; below two octaves of them every number has its own.
const BITS: u32 = 4;
const LINEAR: u32 = 1 << BITS;
const BUCKETS: usize = ((32 - BITS as usize) << BITS) + LINEAR as usize;

/// The quantile of one class.
#[derive(Debug)]
pub(crate) struct Quantile {
    quantile_ppm: u64,
    samples_min: u32,
    /// Samples ever counted, as far as anybody asks.
    seen: u32,
    counts: Box<[u32]>,
    total: u32,
    /// The bucket the quantile lies in, and how many samples lie in lower ones.
    at: usize,
    below: u32,
}

impl Quantile {
    pub fn new(quantile_ppm: u32, samples_min: u32) -> Quantile {
        Quantile {
            quantile_ppm: quantile_ppm.into(),
            samples_min,
            seen: 0,
            counts: vec![0; BUCKETS].into_boxed_slice(),
            total: 0,
            at: 0,
            below: 0,
        }
    }

    /// The quantile; `None` before enough samples.
    pub fn value(&self) -> Option<u32> {
        (self.seen >= self.samples_min).then(|| upper_end(self.at))
    }

    pub fn learn(&mut self, value: u32) {
        let bucket = bucket_of(value);
        self.counts[bucket] += 1;
        self.total += 1;
        self.seen = self.seen.saturating_add(1);
        self.below += u32::from(bucket < self.at);
        if self.total >= SAMPLES_MAX {
            self.halve();
        }
        self.follow();
    }

    fn halve(&mut self) {
        for count in &mut self.counts {
            *count /= 2;
        }
        self.total = self.counts.iter().sum();
        self.below = self.counts[..self.at].iter().sum();
    }

    /// Moves to the bucket that holds the sample of the quantile's rank.
    fn follow(&mut self) {
        let rank = (u64::from(self.total) * self.quantile_ppm).div_ceil(1_000_000).max(1) as u32;
        while self.below >= rank {
            self.at -= 1;
            self.below -= self.counts[self.at];
        }
        while self.below + self.counts[self.at] < rank {
            self.below += self.counts[self.at];
            self.at += 1;
        }
    }
}

fn bucket_of(value: u32) -> usize {
    if value < LINEAR {
        return value as usize;
    }
    let octave = value.ilog2() - BITS;
    // The leading digit is at 2^BITS after the shift, which adds one octave of buckets.
    ((octave << BITS) + (value >> octave)) as usize
}

/// The largest number of a bucket.
fn upper_end(bucket: usize) -> u32 {
    let bucket = bucket as u32;
    if bucket < 2 * LINEAR {
        return bucket;
    }
    let octave = (bucket >> BITS) - 1;
    let digits = u64::from(bucket - (octave << BITS));
    (((digits + 1) << octave) - 1) as u32
}

#[cfg(test)]
mod tests {
    use plimsoll_base::{Stream, StreamKey};

    use super::*;

    #[test]
    fn buckets_cover_all_numbers_in_order() {
        let mut last = None;
        for bucket in 0..BUCKETS {
            let end = upper_end(bucket);
            let start = last.map_or(0, |last: u32| last + 1);
            assert_eq!((bucket_of(start), bucket_of(end)), (bucket, bucket), "{start}..={end}");
            assert!(end - start <= start / LINEAR, "{start}..={end} is too wide");
            last = Some(end);
        }
        assert_eq!(last, Some(u32::MAX));
    }

    /// Against sorting, as long as nothing is forgotten.
    #[test]
    fn is_the_quantile_of_what_was_seen() {
        for seed in 0..40 {
            let key = StreamKey { seed, replication: 0, name: "quantile", entity: 0 };
            let mut stream = Stream::new(key);
            let ppm = [1, 500_000, 900_000, 1_000_000][seed as usize % 4];
            let (mut quantile, mut all) = (Quantile::new(ppm, 3), Vec::new());
            let most = [20, 400, 100_000, u64::from(u32::MAX)][seed as usize / 4 % 4];
            for step in 1..SAMPLES_MAX {
                let value = stream.below(most) as u32;
                quantile.learn(value);
                all.push(value);
                all.sort_unstable();
                let rank = (u64::from(step) * u64::from(ppm)).div_ceil(1_000_000).max(1);
                let exact = all[rank as usize - 1];
                let expected = (step >= 3).then(|| upper_end(bucket_of(exact)));
                assert_eq!(quantile.value(), expected, "{seed} {step}");
            }
        }
    }

    #[test]
    fn forgets_what_is_long_ago() {
        let mut quantile = Quantile::new(900_000, 1);
        (0..100_000).for_each(|_| quantile.learn(1_000));
        assert_eq!(quantile.value(), Some(upper_end(bucket_of(1_000))));
        (0..2_500).for_each(|_| quantile.learn(10));
        assert_eq!(quantile.value(), Some(10));
        assert!(quantile.total < SAMPLES_MAX);
    }
}
