//! Drawing lengths.

use plimsoll_base::{Stream, math};

use super::Lengths;

/// Draws from a [`Lengths`]: one uniform number a draw at most, so that the k-th length of a
/// stream stays the k-th whatever else changes.
#[derive(Clone, Debug)]
pub(super) enum Draw {
    Fixed(u32),
    Uniform { min: u32, count: u64 },
    Lognormal { mu: f64, sigma: f64, max: f64 },
    Quantiles(Vec<Segment>),
}

/// Between two quantiles of a table: `tokens` at probability `from`, rising by `slope`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    from: f64,
    tokens: f64,
    slope: f64,
}

impl Draw {
    pub(super) fn new(lengths: &Lengths) -> Draw {
        match lengths {
            Lengths::Fixed(tokens) => Draw::Fixed((*tokens).max(1)),
            Lengths::Uniform { min, max } => {
                assert!(min <= max, "a range of lengths is not empty");
                Draw::Uniform { min: *min, count: u64::from(max - min) + 1 }
            }
            Lengths::Lognormal { mu, sigma, max } => {
                Draw::Lognormal { mu: *mu, sigma: *sigma, max: f64::from((*max).max(1)) }
            }
            Lengths::Quantiles(points) => Draw::Quantiles(segments(points)),
        }
    }

    /// A length in tokens, at least 1.
    #[inline]
    pub(super) fn tokens(&self, stream: &mut Stream) -> u32 {
        match self {
            Draw::Fixed(tokens) => *tokens,
            Draw::Uniform { min, count } => (min + stream.below(*count) as u32).max(1),
            Draw::Lognormal { mu, sigma, max } => {
                let tokens = math::exp(mu + sigma * stream.normal());
                (tokens.clamp(1.0, *max) + 0.5) as u32
            }
            Draw::Quantiles(segments) => {
                let p = stream.uniform();
                let above = segments.partition_point(|segment| segment.from <= p);
                let Segment { from, tokens, slope } = segments[above - 1];
                ((tokens + (p - from) * slope + 0.5) as u32).max(1)
            }
        }
    }
}

fn segments(points: &[(f64, u32)]) -> Vec<Segment> {
    assert!(points.first().is_some_and(|(p, _)| *p == 0.0), "a quantile table begins at 0");
    assert!(points.last().is_some_and(|(p, _)| *p == 1.0), "a quantile table ends at 1");
    let segment = |pair: &[(f64, u32)]| {
        let [(from, low), (to, high)] = [pair[0], pair[1]];
        assert!(from < to && low <= high, "a quantile table rises");
        Segment {
            from,
            tokens: f64::from(low),
            slope: (f64::from(high) - f64::from(low)) / (to - from),
        }
    };
    points.windows(2).map(segment).collect()
}

#[cfg(test)]
mod tests {
    use plimsoll_base::StreamKey;
    use statrs::distribution::{ContinuousCDF, Normal};

    use super::*;

    const DRAWS: usize = 100_000;

    fn sorted_draws(lengths: &Lengths) -> Vec<u32> {
        let mut stream = Stream::new(StreamKey { seed: 3, replication: 0, name: "len", entity: 0 });
        let draw = Draw::new(lengths);
        let mut drawn: Vec<u32> = (0..DRAWS).map(|_| draw.tokens(&mut stream)).collect();
        drawn.sort_unstable();
        drawn
    }

    /// Kolmogorov and Smirnov's distance between what is drawn and `cdf` (the probability of at
    /// most so many tokens). For a discrete distribution their bound is conservative.
    fn distance(lengths: &Lengths, cdf: &dyn Fn(u32) -> f64) -> f64 {
        let drawn = sorted_draws(lengths);
        let values: std::collections::BTreeSet<u32> =
            drawn.iter().flat_map(|tokens| [tokens - 1, *tokens]).collect();
        values
            .into_iter()
            .map(|value| {
                let at_most = drawn.partition_point(|tokens| *tokens <= value);
                (at_most as f64 / DRAWS as f64 - cdf(value)).abs()
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn draws_follow_their_distribution() {
        // P(distance > 1.95 / √n) = 0.001.
        let bound = 1.95 / (DRAWS as f64).sqrt();
        let check = |lengths: Lengths, cdf: &dyn Fn(u32) -> f64| {
            let distance = distance(&lengths, cdf);
            assert!(distance < bound, "{lengths:?}: {distance} ≥ {bound}");
        };
        let normal = Normal::new(0.0, 1.0).expect("the standard normal exists");
        for (mu, sigma, max) in [(5.0, 1.2, 4_000), (0.3, 1.0, 50), (7.0, 0.1, 1_100)] {
            check(Lengths::Lognormal { mu, sigma, max }, &|tokens| match tokens {
                0 => 0.0,
                tokens if tokens >= max => 1.0,
                tokens => normal.cdf((math::ln(f64::from(tokens) + 0.5) - mu) / sigma),
            });
        }
        check(Lengths::Uniform { min: 10, max: 29 }, &|tokens| {
            (f64::from(tokens + 1) - 10.0).clamp(0.0, 20.0) / 20.0
        });
        // Rounded to the nearest, so that at most k tokens means below k + 1/2.
        let table = vec![(0.0, 10), (0.5, 100), (0.5 + 0.25, 100), (1.0, 1_000)];
        check(Lengths::Quantiles(table), &|tokens| {
            let x = f64::from(tokens) + 0.5;
            match tokens {
                ..10 => 0.0,
                10..100 => 0.5 * (x - 10.0) / 90.0,
                100..1_000 => 0.75 + 0.25 * (x - 100.0) / 900.0,
                1_000.. => 1.0,
            }
        });
    }

    #[test]
    fn a_wrong_distribution_is_noticed() {
        let uniform = Lengths::Uniform { min: 10, max: 29 };
        let wrong = |tokens| (f64::from(tokens + 1) - 10.0).clamp(0.0, 21.0) / 21.0;
        assert!(distance(&uniform, &wrong) > 1.95 / (DRAWS as f64).sqrt());
    }

    #[test]
    fn draws_stay_in_range() {
        for (lengths, range) in [
            (Lengths::Fixed(7), 7..=7),
            (Lengths::Fixed(0), 1..=1),
            (Lengths::Uniform { min: 3, max: 3 }, 3..=3),
            (Lengths::Uniform { min: 0, max: u32::MAX }, 1..=u32::MAX),
            (Lengths::Lognormal { mu: -9.0, sigma: 0.5, max: 9 }, 1..=1),
            (Lengths::Lognormal { mu: 90.0, sigma: 0.5, max: u32::MAX }, u32::MAX..=u32::MAX),
            (Lengths::Quantiles(vec![(0.0, 0), (1.0, 8)]), 1..=8),
        ] {
            let drawn = sorted_draws(&lengths);
            let [first, last] = [drawn[0], drawn[DRAWS - 1]];
            assert!(range.contains(&first) && range.contains(&last), "{lengths:?}: {first} {last}");
            assert!(last <= lengths.max().max(1), "{lengths:?} knows its greatest");
        }
    }
}
