//! Two samples against each other: percentiles, their relative difference, and how sure it is.

use plimsoll_base::{Stream, StreamKey};

/// Resamples of a bootstrap.
const RESAMPLES: usize = 200;
/// Blocks of time in a run: resampled whole, so that what depends on its neighbour keeps it.
pub(super) const BLOCKS: usize = 10;
/// A percentile rests on as many values beyond it at least.
const TAIL_MIN: f64 = 10.0;

/// A value, and when in its run it was seen, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timed {
    /// Since the run began: the request's arrival, or the token that ends a gap.
    pub at: f64,
    /// In seconds.
    pub value: f64,
}

/// Where two distributions are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    Percentile(f64),
    Mean,
}

impl Place {
    pub const ALL: [Place; 4] =
        [Place::Percentile(0.5), Place::Percentile(0.9), Place::Percentile(0.99), Place::Mean];

    pub fn name(self) -> String {
        match self {
            Place::Percentile(part) => format!("p{:.0}", part * 100.0),
            Place::Mean => "mean".to_owned(),
        }
    }

    /// Of values in order; `None` of nothing.
    pub fn of(self, sorted: &[f64]) -> Option<f64> {
        match self {
            Place::Percentile(part) => percentile(sorted, part),
            Place::Mean => {
                let sum: f64 = sorted.iter().sum();
                (!sorted.is_empty()).then(|| sum / sorted.len() as f64)
            }
        }
    }

    /// Whether so many values are too few for it.
    pub fn is_thin(self, count: usize) -> bool {
        match self {
            Place::Percentile(part) => (1.0 - part) * (count as f64) < TAIL_MIN - 1e-9,
            Place::Mean => (count as f64) < TAIL_MIN,
        }
    }
}

/// The percentile of values in order, interpolated between neighbours (Hyndman and Fan's type 7);
/// `None` of nothing.
pub(super) fn percentile(sorted: &[f64], part: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = part * last as f64;
    let (below, within) = (at.floor() as usize, at.fract());
    let above = sorted[(below + 1).min(last)];
    Some(sorted[below] + (above - sorted[below]) * within)
}

/// Values in order.
pub(super) fn sorted<'a>(values: impl IntoIterator<Item = &'a Timed>) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.into_iter().map(|timed| timed.value).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

/// The greatest difference of two empirical distribution functions (Kolmogorov and Smirnov's
/// distance), of values in order; `None` if one is empty.
pub(super) fn ks(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let (mut i, mut j, mut most) = (0, 0, 0.0f64);
    while i < a.len() && j < b.len() {
        let least = a[i].min(b[j]);
        while i < a.len() && a[i] <= least {
            i += 1;
        }
        while j < b.len() && b[j] <= least {
            j += 1;
        }
        most = most.max((i as f64 / a.len() as f64 - j as f64 / b.len() as f64).abs());
    }
    Some(most)
}

/// How far `b` is from `a`, as a part of `a`.
pub(super) fn relative(a: f64, b: f64) -> Option<f64> {
    (a > 0.0).then(|| b / a - 1.0)
}

/// Values of several sources in the same blocks of time; resampled together.
pub(super) struct Blocks {
    /// By unit (a block of a repetition), then source.
    units: Vec<[Vec<f64>; 2]>,
}

impl Blocks {
    /// `repetitions` has, of each repetition, the values of both sources; runs last so long.
    pub fn new<'a>(
        repetitions: impl IntoIterator<Item = [Vec<&'a [Timed]>; 2]>,
        duration: f64,
    ) -> Blocks {
        let mut units = Vec::new();
        for sources in repetitions {
            let first = units.len();
            units.resize_with(first + BLOCKS, || [Vec::new(), Vec::new()]);
            for (source, runs) in sources.into_iter().enumerate() {
                for timed in runs.into_iter().flatten() {
                    let block = (timed.at / duration * BLOCKS as f64).max(0.0) as usize;
                    units[first + block.min(BLOCKS - 1)][source].push(timed.value);
                }
            }
        }
        Blocks { units }
    }

    /// The 95 % interval of the relative difference at each place, by resampling blocks with
    /// replacement, those of both sources together.
    ///
    /// Source: B. Efron, R. Tibshirani, "An Introduction to the Bootstrap" (1993), 13.3
    /// (percentile interval), 8.6 (blocks).
    pub fn intervals(&self, places: &[Place]) -> Vec<Option<[f64; 2]>> {
        let key = StreamKey { seed: 1, replication: 0, name: "validation.bootstrap", entity: 0 };
        let mut stream = Stream::new(key);
        let mut drawn: Vec<Vec<f64>> = vec![Vec::with_capacity(RESAMPLES); places.len()];
        for _ in 0..RESAMPLES {
            let mut pair = [Vec::new(), Vec::new()];
            for _ in 0..self.units.len() {
                let unit = &self.units[stream.below(self.units.len() as u64) as usize];
                for (values, more) in pair.iter_mut().zip(unit) {
                    values.extend_from_slice(more);
                }
            }
            for values in &mut pair {
                values.sort_unstable_by(f64::total_cmp);
            }
            for (errors, place) in drawn.iter_mut().zip(places) {
                let both = place.of(&pair[0]).zip(place.of(&pair[1]));
                errors.extend(both.and_then(|(a, b)| relative(a, b)));
            }
        }
        let interval = |mut errors: Vec<f64>| {
            errors.sort_unstable_by(f64::total_cmp);
            let ends = percentile(&errors, 0.025).zip(percentile(&errors, 0.975));
            ends.filter(|_| errors.len() >= RESAMPLES / 2).map(|(low, high)| [low, high])
        };
        drawn.into_iter().map(interval).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(name: &'static str, count: usize, scale: f64) -> Vec<Timed> {
        let mut stream = Stream::new(StreamKey { seed: 3, replication: 0, name, entity: 0 });
        let value = |at: usize| Timed {
            at: at as f64 * 20.0 / count as f64,
            value: scale * (0.5 + stream.uniform()),
        };
        (0..count).map(value).collect()
    }

    #[test]
    fn percentiles_and_distances_of_known_samples() {
        let values = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(percentile(&values, 0.5), Some(3.0));
        assert_eq!(percentile(&values, 0.9), Some(4.6));
        assert_eq!(percentile(&[], 0.9), None);
        assert_eq!(ks(&values, &values), Some(0.0));
        assert_eq!(ks(&values, &[9.0]), Some(1.0));
        assert_eq!(ks(&[1.0, 2.0], &[2.0, 3.0]), Some(0.5));
        assert_eq!(ks(&[], &values), None);
        assert!(Place::Percentile(0.99).is_thin(999) && !Place::Percentile(0.99).is_thin(1_000));
        assert!(Place::Percentile(0.9).is_thin(99) && !Place::Percentile(0.9).is_thin(100));
    }

    #[test]
    fn an_interval_holds_the_difference_there_is() {
        let (a, b) = (draws("a", 2_000, 1.0), draws("b", 2_000, 1.2));
        let blocks = Blocks::new([[vec![&a[..]], vec![&b[..]]]], 20.0);
        for interval in blocks.intervals(&Place::ALL[..2]) {
            let [low, high] = interval.expect("there are values");
            assert!(low < 0.2 && 0.2 < high && high - low < 0.15, "{low} {high}");
        }
        // The same values, paired, do not differ at all.
        let blocks = Blocks::new([[vec![&a[..]], vec![&a[..]]]], 20.0);
        assert_eq!(blocks.intervals(&[Place::Mean]), [Some([0.0, 0.0])]);
        let nothing = Blocks::new([[vec![], vec![&a[..]]]], 20.0);
        assert_eq!(nothing.intervals(&[Place::Mean]), [None]);
    }
}
