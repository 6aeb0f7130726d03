//! How long steps really take beside what the step-time model says.

use plimsoll_base::{Stream, StreamKey, math};

use crate::model::StepNoise;

/// No step is longer than this many ticks (19 hours), so that sums fit 64 bits.
const STEP_MAX: u64 = 1 << 62;

/// Draws a ratio a step. Those of each kind of step have the stated quantiles; their normal scores
/// are the sum of an independent part and of one that lasts, an autoregression of order 1 (the normal
/// copula of Cario and Nelson 1996, "Autoregressive to Anything").
#[derive(Debug)]
pub(super) struct Noise {
    /// Normal scores and ratios, ascending, of steps that only decode and of those that compute
    /// prompt tokens.
    points: [Vec<[f64; 2]>; 2],
    /// Mean ratios.
    means: [f64; 2],
    /// The standard deviations of the part that lasts, and of the other.
    parts: [f64; 2],
    /// What is left of the lasting part a step later.
    decay: f64,
    stream: Stream,
    lasting: f64,
}

impl Noise {
    /// With the stream of this key.
    pub fn new(spec: &StepNoise, key: StreamKey<'_>) -> Noise {
        let points = |ratios: &[f64]| {
            let part = |index: usize| (index as f64 + 0.5) / ratios.len() as f64;
            let scores = (0..ratios.len()).map(|index| math::normal_quantile(part(index)));
            scores.zip(ratios).map(|(score, ratio)| [score, *ratio]).collect()
        };
        let mut stream = Stream::new(key);
        Noise {
            points: spec.by_kind().map(points),
            means: spec.means(),
            parts: [spec.lasting, 1.0 - spec.lasting].map(math::sqrt),
            decay: math::exp(-1.0 / spec.lasting_steps),
            lasting: stream.normal(),
            stream,
        }
    }

    /// The mean ratio of steps that only decode, and of those that compute prompt tokens.
    pub fn means(&self) -> [f64; 2] {
        self.means
    }

    /// How long a step takes that would take so many ticks.
    pub fn stretch(&mut self, ticks: u64, computes_prompts: bool) -> u64 {
        let [lasting, passing] = self.parts;
        let score = lasting * self.lasting + passing * self.stream.normal();
        let fresh = math::sqrt(1.0 - self.decay * self.decay);
        self.lasting = self.decay * self.lasting + fresh * self.stream.normal();
        ((ticks as f64 * ratio(&self.points[usize::from(computes_prompts)], score)) as u64)
            .clamp(1, STEP_MAX)
    }
}

fn ratio(points: &[[f64; 2]], score: f64) -> f64 {
    let at = points.partition_point(|point| point[0] <= score);
    let (Some(&[left, low]), Some(&[right, high])) =
        (points.get(at.wrapping_sub(1)), points.get(at))
    else {
        let end = if at == 0 { points.first() } else { points.last() };
        return end.map_or(1.0, |point| point[1]);
    };
    low + (high - low) * (score - left) / (right - left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(spec: &StepNoise, entity: u64) -> Vec<f64> {
        let key = StreamKey { seed: 1, replication: 0, name: "step noise", entity };
        let mut noise = Noise::new(spec, key);
        let ratio = |_| noise.stretch(1 << 40, false) as f64 / (1u64 << 40) as f64;
        (0..40_000).map(ratio).collect()
    }

    fn correlation(values: &[f64], lag: usize) -> f64 {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let covariance = |lag: usize| {
            let pairs = values.iter().zip(&values[lag..]);
            pairs.map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>() / (values.len() - lag) as f64
        };
        covariance(lag) / covariance(0)
    }

    #[test]
    fn ratios_have_their_quantiles_and_last_as_stated() {
        // The quantiles of 1 + 0.1·normal: what correlates is the score itself.
        let score = |index: usize| math::normal_quantile((index as f64 + 0.5) / 64.0);
        let ratios: Vec<f64> = (0..64).map(|index| 1.0 + 0.1 * score(index)).collect();
        let spec = StepNoise { ratios, prefill_ratios: None, lasting: 0.6, lasting_steps: 10.0 };
        let mut values = drawn(&spec, 0);
        for lag in [1, 5, 10, 20] {
            let wanted = 0.6 * math::exp(-(lag as f64) / 10.0);
            let found = correlation(&values, lag);
            assert!((found - wanted).abs() < 0.03, "lag {lag}: {found} {wanted}");
        }
        assert_ne!(values, drawn(&spec, 1), "each engine has its own");
        values.sort_by(f64::total_cmp);
        for part in [0.1, 0.5, 0.9] {
            let wanted = 1.0 + 0.1 * math::normal_quantile(part);
            let found = values[(part * values.len() as f64) as usize];
            assert!((found - wanted).abs() < 0.005, "{part}: {found} {wanted}");
        }
        assert!(values.iter().all(|value| (spec.ratios[0] - 1e-9..).contains(value)));
        let same = StepNoise { ratios: vec![1.25], lasting: 0.0, ..spec };
        assert!(drawn(&same, 0).iter().all(|ratio| *ratio == 1.25));
    }

    #[test]
    fn one_score_drives_both_kinds_of_steps() {
        let spec = StepNoise {
            ratios: vec![0.5, 1.0, 1.5],
            prefill_ratios: Some(vec![0.9, 1.0, 1.1]),
            lasting: 0.99,
            lasting_steps: 1e6,
        };
        let key = StreamKey { seed: 1, replication: 0, name: "step noise", entity: 0 };
        let (mut decodes, mut computes) = (Noise::new(&spec, key), Noise::new(&spec, key));
        for _ in 0..1_000 {
            let [of_decode, of_prompt] =
                [decodes.stretch(1_000_000, false), computes.stretch(1_000_000, true)];
            let off = of_decode.abs_diff(1_000_000);
            assert!(
                (off / 5).abs_diff(of_prompt.abs_diff(1_000_000)) <= 1,
                "{of_decode} {of_prompt}"
            );
        }
        assert_eq!(spec.means().map(|mean| (mean * 1e6) as u64), [1_000_000; 2]);
    }
}
