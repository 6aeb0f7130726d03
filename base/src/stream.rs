//! Named random streams: common random numbers by construction.
//!
//! A stream belongs to one consumer and is keyed by (seed, replication, name, entity). Adding a
//! consumer, or changing a policy, changes no number of any other stream.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::math;

/// What keys a [`Stream`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamKey<'a> {
    /// The run's seed.
    pub seed: u64,
    /// The replication, from 0.
    pub replication: u32,
    /// Who draws, for example `"workload.chat.arrivals"`.
    pub name: &'a str,
    /// Which of several equal consumers (a user, a replica), from 0.
    pub entity: u64,
}

/// A stream of random numbers: xoshiro256++ and the few distributions that are needed, each
/// through [`math`], so that the same key gives the same numbers on every platform.
#[derive(Clone, Debug)]
pub struct Stream(Xoshiro256PlusPlus);

impl Stream {
    /// The stream for `key`. Equal keys give equal streams.
    pub fn new(key: StreamKey<'_>) -> Stream {
        let mut hash = Mix(0x9e37_79b9_7f4a_7c15);
        hash.absorb(key.seed);
        hash.absorb(u64::from(key.replication));
        for chunk in key.name.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash.absorb(u64::from_le_bytes(word));
        }
        hash.absorb(key.name.len() as u64);
        hash.absorb(key.entity);
        // `seed_from_u64` expands through SplitMix64, as xoshiro's authors advise.
        Stream(Xoshiro256PlusPlus::seed_from_u64(hash.0))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in (0, 1): never 0 and never 1, so that every quantile function may take it.
    pub fn uniform(&mut self) -> f64 {
        ((self.bits() >> 12) as f64 + 0.5) * (1.0 / (1u64 << 52) as f64)
    }

    /// A uniform integer below `bound` (Lemire's multiply-and-reject). `bound` must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "an integer below 0 does not exist");
        loop {
            let product = u128::from(self.bits()) * u128::from(bound);
            if product as u64 >= bound.wrapping_neg() % bound {
                return (product >> 64) as u64;
            }
        }
    }

    /// Exponential with mean 1, by inversion.
    pub fn exponential(&mut self) -> f64 {
        -math::ln(self.uniform())
    }

    /// Standard normal, by inversion: one uniform a draw.
    pub fn normal(&mut self) -> f64 {
        math::normal_quantile(self.uniform())
    }

    /// Gamma with the given shape and mean `shape`.
    ///
    /// Source: G. Marsaglia and W. W. Tsang, "A Simple Method for Generating Gamma Variables",
    /// ACM TOMS 26 (2000); shapes below 1 by their boost U^(1/shape).
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = math::pow(self.uniform(), 1.0 / shape);
            return boost * self.gamma(shape + 1.0);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / math::sqrt(9.0 * d);
        loop {
            let x = self.normal();
            let v = 1.0 + c * x;
            if v <= 0.0 {
                continue;
            }
            let v = v * v * v;
            let u = self.uniform();
            if math::ln(u) < 0.5 * x * x + d - d * v + d * math::ln(v) {
                return d * v;
            }
        }
    }
}

/// A 64-bit mixing state (the finaliser of SplitMix64 over each absorbed word).
struct Mix(u64);

impl Mix {
    fn absorb(&mut self, word: u64) {
        let mut z = self.0 ^ word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = (z ^ (z >> 31)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str, entity: u64) -> Stream {
        Stream::new(StreamKey { seed: 1, replication: 0, name, entity })
    }

    #[test]
    fn equal_keys_give_equal_streams_and_others_do_not() {
        assert_eq!(stream("a", 0).bits(), stream("a", 0).bits());
        let mut seen = std::collections::BTreeSet::new();
        for name in ["a", "b", "ab", "a\0"] {
            for entity in 0..100 {
                assert!(seen.insert(stream(name, entity).bits()), "{name} {entity}");
            }
        }
    }

    #[test]
    fn numbers_are_pinned() {
        let mut s = stream("pinned", 7);
        let drawn: Vec<u64> = (0..3).map(|_| s.bits()).collect();
        assert_eq!(drawn, PINNED, "the generator must never change silently");
    }
    const PINNED: [u64; 3] =
        [12_578_649_996_353_778_013, 13_681_551_750_213_975_813, 18_143_144_103_778_361_356];

    #[test]
    fn moments_are_right() {
        let check = |name: &str, mean: f64, variance: f64, draw: &dyn Fn(&mut Stream) -> f64| {
            let mut s = stream(name, 0);
            let n = 200_000;
            let xs: Vec<f64> = (0..n).map(|_| draw(&mut s)).collect();
            let m = xs.iter().sum::<f64>() / f64::from(n);
            let v = xs.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / f64::from(n);
            assert!((m - mean).abs() < 0.02 * mean.max(1.0), "{name} mean {m}");
            assert!((v - variance).abs() < 0.05 * variance, "{name} variance {v}");
        };
        check("uniform", 0.5, 1.0 / 12.0, &|s| s.uniform());
        check("exponential", 1.0, 1.0, &|s| s.exponential());
        check("normal", 0.0, 1.0, &|s| s.normal());
        check("gamma 3", 3.0, 3.0, &|s| s.gamma(3.0));
        check("gamma 0.3", 0.3, 0.3, &|s| s.gamma(0.3));
        check("below", 4.5, 8.25, &|s| s.below(10) as f64);
    }
}
