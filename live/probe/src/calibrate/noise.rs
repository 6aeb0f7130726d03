//! How far the steps of traffic are from the model that was fitted to them.

use plimsoll_base::math::normal_quantile;
use plimsoll_sim::model::StepNoise;

/// Fewer steps say too little about their spread.
const STEPS_MIN: usize = 200;
/// Quantiles that are kept.
const QUANTILES: usize = 50;
/// How far apart steps are looked at.
const LAGS: usize = 30;
/// How long, in steps, a deviation may last.
const LASTS: [f64; 10] = [1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 50.0, 100.0];
/// The most of the variance that may last: a step has something of its own.
const LASTING_MAX: f64 = 0.95;

/// The spread of steps, of which each is told how long it took and how long it takes by the model,
/// in the order in which they were taken; `None` where they are too few.
///
/// The ratios of short steps are the widest, and those of all are drawn for long ones too: they are
/// scaled so that all steps together take as long as they took.
pub(super) fn step_noise(steps: &[(f64, f64)]) -> Option<StepNoise> {
    if steps.len() < STEPS_MIN {
        return None;
    }
    let ratios: Vec<f64> = steps.iter().map(|(took, model)| took / model).collect();
    let took: f64 = steps.iter().map(|(took, _)| took).sum();
    let model: f64 = steps.iter().map(|(_, model)| model).sum();
    let mut order: Vec<usize> = (0..ratios.len()).collect();
    order.sort_by(|a, b| ratios[*a].total_cmp(&ratios[*b]));
    let mut scores = vec![0.0; ratios.len()];
    for (rank, index) in order.iter().enumerate() {
        scores[*index] = normal_quantile((rank as f64 + 0.5) / ratios.len() as f64);
    }
    let quantile = |index: usize| {
        let part = (index as f64 + 0.5) / QUANTILES as f64;
        ratios[order[(part * ratios.len() as f64) as usize]]
    };
    let quantiles: Vec<f64> = (0..QUANTILES).map(quantile).collect();
    let scale = took / model * QUANTILES as f64 / quantiles.iter().sum::<f64>();
    let quantiles = quantiles.into_iter().map(|ratio| rounded(ratio * scale)).collect();
    let (lasting, lasting_steps) = lasting(&scores);
    Some(StepNoise { ratios: quantiles, lasting: rounded(lasting), lasting_steps })
}

/// To the four digits that a profile's file has.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Which part of the variance lasts, and for how many steps: least squares of
/// `part · exp(−lag/steps)` to the autocorrelation of the scores.
fn lasting(scores: &[f64]) -> (f64, f64) {
    let power: f64 = scores.iter().map(|score| score * score).sum();
    let correlation = |lag: usize| {
        let products = scores.iter().zip(&scores[lag..]).map(|(a, b)| a * b);
        products.sum::<f64>() / power
    };
    let found: Vec<f64> = (1..=LAGS).map(correlation).collect();
    let fitted = LASTS.map(|steps| {
        let decays = (1..=LAGS).map(|lag| (-(lag as f64) / steps).exp());
        let decays: Vec<f64> = decays.collect();
        let dot = |other: &[f64]| decays.iter().zip(other).map(|(a, b)| a * b).sum::<f64>();
        let part = (dot(&found) / dot(&decays)).clamp(0.0, LASTING_MAX);
        let squares =
            found.iter().zip(&decays).map(|(found, decay)| (found - part * decay).powi(2));
        (squares.sum::<f64>(), part, steps)
    });
    let best = fitted.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or((0.0, 1.0), |(_, part, steps)| (part, steps))
}

#[cfg(test)]
mod tests {
    use plimsoll_base::{Stream, StreamKey};

    use super::*;

    #[test]
    fn what_was_drawn_is_found_again() {
        let mut stream =
            Stream::new(StreamKey { seed: 1, replication: 0, name: "steps", entity: 0 });
        for (part, steps) in [(0.5, 8.0_f64), (0.9, 20.0), (0.0, 1.0)] {
            let decay = (-1.0 / steps).exp();
            let mut lasting = stream.normal();
            let ratios: Vec<f64> = (0..6_000)
                .map(|_| {
                    let fresh = (1.0 - decay * decay).sqrt() * stream.normal();
                    lasting = decay * lasting + fresh;
                    let score = f64::sqrt(part) * lasting + f64::sqrt(1.0 - part) * stream.normal();
                    (0.1 * score).exp()
                })
                .collect();
            let all: Vec<(f64, f64)> = ratios.iter().map(|ratio| (ratio * 5e6, 5e6)).collect();
            let noise = step_noise(&all).expect("there are enough");
            assert!((noise.lasting - part).abs() < 0.1, "{noise:?}");
            if part > 0.0 {
                assert!((0.6..1.7).contains(&(noise.lasting_steps / steps)), "{noise:?}");
            }
            let [low, high] = [5, 44].map(|index| noise.ratios[index]);
            assert!((low - 0.88).abs() < 0.02 && (high - 1.13).abs() < 0.03, "{low} {high}");
        }
        assert_eq!(step_noise(&[(1.0, 1.0); 199]), None);
        let equal = step_noise(&[(1.0, 1.0); 200]).expect("there are enough");
        assert_eq!(equal.mean(), 1.0);
    }

    #[test]
    fn all_steps_together_take_as_long_as_they_took() {
        // Short steps waver, long ones do not: the mean ratio is 1.25, and all take 1.025 times.
        let steps: Vec<(f64, f64)> = (0..400)
            .map(|step| match step % 4 {
                0 => (2.0, 1.0),
                1 => (1.0, 1.0),
                _ => (18.5, 18.5),
            })
            .collect();
        let [took, model] = [39.0 + 1.0, 39.0];
        let noise = step_noise(&steps).expect("there are enough");
        assert!((noise.mean() - took / model).abs() < 1e-3, "{noise:?}");
    }
}
