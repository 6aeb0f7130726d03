//! How far the steps of traffic are from the model that was fitted to them.

use plimsoll_base::math::normal_quantile;
use plimsoll_sim::model::StepNoise;

/// Fewer steps say too little about their spread.
const STEPS_MIN: usize = 200;
/// Fewer of a kind have no quantiles of their own.
const KIND_MIN: usize = 50;
/// Quantiles that are kept.
const QUANTILES: usize = 50;
/// What a scenario takes for a ratio; tokens of two steps that came at once give less.
const RATIOS: [f64; 2] = [0.01, 100.0];
/// How far apart steps are looked at.
const LAGS: usize = 30;
/// How long, in steps, a deviation may last.
const LASTS: [f64; 10] = [1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 50.0, 100.0];
/// The most of the variance that may last: a step has something of its own.
const LASTING_MAX: f64 = 0.95;

/// A step of traffic.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrafficStep {
    /// How long it took.
    pub took: f64,
    /// How long it takes by the model, above 0.
    pub model: f64,
    /// Whether it computed prompt tokens.
    pub computes_prompts: bool,
}

/// The spread of steps, in the order in which they were taken; `None` where they are too few. Steps
/// that compute prompts are ranked apart, where there are enough of them: what makes short steps
/// waver, or the model miss them, may be nothing beside a prompt.
pub(super) fn step_noise(steps: &[TrafficStep]) -> Option<StepNoise> {
    if steps.len() < STEPS_MIN {
        return None;
    }
    let (prompts, decodes): (Vec<usize>, Vec<usize>) =
        (0..steps.len()).partition(|index| steps[*index].computes_prompts);
    let mut scores = vec![0.0; steps.len()];
    let [ratios, prefill_ratios] = match prompts.len().min(decodes.len()) >= KIND_MIN {
        true => [decodes, prompts].map(|kind| Some(quantiles(steps, kind, &mut scores))),
        false => [Some(quantiles(steps, (0..steps.len()).collect(), &mut scores)), None],
    };
    let (lasting, lasting_steps) = lasting(&scores);
    Some(StepNoise { ratios: ratios?, prefill_ratios, lasting: rounded(lasting), lasting_steps })
}

/// The quantiles of the ratios of a kind of steps, whose normal scores are written down.
///
/// The ratios of short steps are the widest, and those of all are drawn for long ones too: they are
/// scaled so that all steps together take as long as they took.
fn quantiles(steps: &[TrafficStep], mut kind: Vec<usize>, scores: &mut [f64]) -> Vec<f64> {
    let ratio = |index: usize| steps[index].took / steps[index].model;
    kind.sort_by(|a, b| ratio(*a).total_cmp(&ratio(*b)));
    let n = kind.len() as f64;
    for (rank, index) in kind.iter().enumerate() {
        scores[*index] = normal_quantile((rank as f64 + 0.5) / n);
    }
    let quantile = |index: usize| {
        let part = (index as f64 + 0.5) / QUANTILES as f64;
        ratio(kind[(part * n) as usize])
    };
    let quantiles: Vec<f64> = (0..QUANTILES).map(quantile).collect();
    let sum = |value: fn(&TrafficStep) -> f64| {
        kind.iter().map(|index| value(&steps[*index])).sum::<f64>()
    };
    let all = sum(|step| step.took) / sum(|step| step.model);
    let scale = all * QUANTILES as f64 / quantiles.iter().sum::<f64>();
    quantiles.into_iter().map(|ratio| rounded(ratio * scale).clamp(RATIOS[0], RATIOS[1])).collect()
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

    fn decode(took: f64, model: f64) -> TrafficStep {
        TrafficStep { took, model, computes_prompts: false }
    }

    fn prompt(took: f64, model: f64) -> TrafficStep {
        TrafficStep { computes_prompts: true, ..decode(took, model) }
    }

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
            // Prompts take longer, and waver half as much.
            let step = |(index, ratio): (usize, &f64)| match index % 5 {
                0 => prompt(25e6 * (1.0 + (ratio - 1.0) / 2.0), 25e6),
                _ => decode(ratio * 5e6, 5e6),
            };
            let all: Vec<TrafficStep> = ratios.iter().enumerate().map(step).collect();
            let noise = step_noise(&all).expect("there are enough");
            assert!((noise.lasting - part).abs() < 0.1, "{noise:?}");
            if part > 0.0 {
                assert!((0.6..1.7).contains(&(noise.lasting_steps / steps)), "{noise:?}");
            }
            let [low, high] = [5, 44].map(|index| noise.ratios[index]);
            assert!((low - 0.88).abs() < 0.02 && (high - 1.13).abs() < 0.03, "{low} {high}");
            let of_prompts = noise.prefill_ratios.expect("there are enough");
            let [low, high] = [5, 44].map(|index| of_prompts[index]);
            assert!((low - 0.94).abs() < 0.02 && (high - 1.065).abs() < 0.03, "{low} {high}");
        }
        assert_eq!(step_noise(&[decode(1.0, 1.0); 199]), None);
        let nothing = (0..200).map(|step| decode(if step < 9 { 1e-6 } else { 1.0 }, 1.0));
        let nothing = step_noise(&nothing.collect::<Vec<_>>()).expect("there are enough");
        assert_eq!(nothing.ratios[0], 0.01, "a scenario takes it");
        let equal = step_noise(&[decode(1.0, 1.0); 200]).expect("there are enough");
        assert_eq!((equal.means(), equal.prefill_ratios), ([1.0; 2], None));
    }

    #[test]
    fn all_steps_together_take_as_long_as_they_took() {
        // Short steps waver, long ones do not: the mean ratio is 1.25, and all take 1.025 times.
        let steps: Vec<TrafficStep> = (0..400)
            .map(|step| match step % 4 {
                0 => decode(2.0, 1.0),
                1 => decode(1.0, 1.0),
                _ => decode(18.5, 18.5),
            })
            .collect();
        let [took, model] = [39.0 + 1.0, 39.0];
        let noise = step_noise(&steps).expect("there are enough");
        assert!((noise.means()[0] - took / model).abs() < 1e-3, "{noise:?}");
    }
}
