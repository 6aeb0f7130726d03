//! How fast the device is beside the runs, against when it was calibrated: machines become slower
//! and faster by a tenth within minutes, as they heat and as neighbours come and go, and what comes
//! of that says nothing about the model.
//!
//! Before each live run, and behind the last, the device serves a little traffic like that which it
//! was calibrated with, as dense as the run's: machines also run faster or slower with how much they
//! rest. Its steps against the profile are its pace.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_base::Span;
use plimsoll_base::math::normal_quantile;
use plimsoll_report::validation::StepPace;
use plimsoll_sim::engine::StepCost;
use plimsoll_sim::model::{EngineModel, StepNoise};

use super::ValidateError;
use super::steps::{by_profile, nanos};
use crate::calibrate::{CalibrateError, Room, Watch, median, traffic_steps};
use crate::device::{Device, Step};

/// Which part of a run's time a reference takes, and its bounds.
const PART: f64 = 0.2;
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(6);
/// A lane rests so many times as long as its request took at most: it is to have some steps.
const REST_MAX: f64 = 3.0;
/// The part of it that does not count: the device has rested, and its memory is cold.
const WARM_UP: f64 = 0.2;
/// Fewer steps say too little.
const STEPS_MIN: usize = 40;
/// Fewer of a kind are taken to be as far off as all.
const KIND_MIN: usize = 10;
/// A step that took so many times what it should have was interrupted.
const RATIO_MAX: f64 = 3.0;
/// A mean of fewer measurements says nothing.
const MEASURED_MIN: usize = 3;
/// How what is measured beside a run and what is so within it are correlated.
const NEAR: f64 = 0.5;
/// A run's pace is no further from what is expected, in standard deviations: the rest is the model's.
const FAR: f64 = 2.0;
/// What is further off is no drift: it is not the device that was calibrated.
const DRIFT_MAX: f64 = 0.15;

/// Measures the pace.
pub(super) struct Pacer<'a> {
    device: &'a Arc<dyn Device>,
    engine: EngineModel,
    cost: StepCost,
    room: Room,
    time: Duration,
}

impl<'a> Pacer<'a> {
    /// Beside runs at such a part of capacity in which arrivals go on for so long.
    pub fn new(
        device: &'a Arc<dyn Device>,
        engine: &EngineModel,
        (load, window): (f64, Span),
    ) -> Pacer<'a> {
        let rest = (1.0 / load - 1.0).clamp(0.0, REST_MAX);
        let time = Duration::from_secs_f64(window.secs_f64() * PART);
        Pacer {
            device,
            engine: engine.clone(),
            cost: StepCost::new(engine.step_cost),
            room: Room {
                seats: engine.seats,
                context_max: engine.context_max,
                kv_tokens: Some(engine.kv_tokens()),
                step_tokens_max: engine.step_tokens_max,
                rests: [rest; 4],
                seed: 0,
            },
            time: time.clamp(LEAST, MOST),
        }
    }

    /// How many times as long as when it was calibrated the device takes now; `None` where too few
    /// steps are seen.
    pub fn measure(&self, watch: &dyn Watch) -> Result<Option<StepPace>, ValidateError> {
        let steps = traffic_steps(self.device.as_ref(), self.room, self.time, watch);
        let (steps, _) = steps.map_err(|error| match error {
            CalibrateError::Device(error) => ValidateError::Device(error),
            // It measures, and fits nothing.
            CalibrateError::Interrupted
            | CalibrateError::TooNoisy(_)
            | CalibrateError::TooLittle(_) => ValidateError::Interrupted,
        })?;
        let from = steps.iter().map(|step| step.start).min().unwrap_or_default();
        let from = from + Span::from_secs_f64(self.time.as_secs_f64() * WARM_UP);
        Ok(self.of(steps.iter().filter(|step| step.start >= from)))
    }

    /// How many times as long as by the profile steps took; `None` where there are too few.
    pub fn of<'s>(&self, steps: impl Iterator<Item = &'s Step>) -> Option<StepPace> {
        let means = self.engine.step_noise.as_ref().map(StepNoise::means);
        // How long each took, and how long it takes by the profile.
        let mut kinds = [Vec::new(), Vec::new()];
        for step in steps.filter(|step| step.shape.is_known()) {
            let kind = usize::from(step.shape.prefill > 0);
            let usual = by_profile(&self.cost, step.shape) * means.map_or(1.0, |means| means[kind]);
            kinds[kind].push((nanos(step).min(RATIO_MAX * usual), usual));
        }
        let pace = |pairs: &[(f64, f64)]| match means {
            Some(_) => {
                let sums = pairs.iter().fold((0.0, 0.0), |sums, it| (sums.0 + it.0, sums.1 + it.1));
                sums.0 / sums.1
            }
            None => median(&pairs.iter().map(|(took, usual)| took / usual).collect::<Vec<f64>>()),
        };
        let all = kinds.concat();
        if all.len() < STEPS_MIN {
            return None;
        }
        let all = pace(&all);
        let [decode, prompt] =
            kinds.map(|kind| if kind.len() < KIND_MIN { all } else { pace(&kind) });
        Some(StepPace { all, decode, prompt })
    }
}

/// How many times as long the steps of a run are, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Drift {
    pub mean: f64,
    /// Standard deviation.
    pub deviation: f64,
}

impl Drift {
    /// What of a pace may be drift: no further from the mean than [`FAR`] deviations.
    pub fn nearest(self, pace: f64) -> f64 {
        let far = FAR * self.deviation;
        pace.clamp(self.mean - far, self.mean + far)
    }

    /// Of so many equally probable parts of its distribution, which is taken to be normal, the middle
    /// of one.
    pub fn part(self, which: u32, of: u32) -> f64 {
        let score = normal_quantile((f64::from(which) + 0.5) / f64::from(of));
        (self.mean + self.deviation * score).max(1.0 - 2.0 * DRIFT_MAX)
    }
}

/// How many times as long the steps of a run are simulated, those that only decode and those with
/// prompts, by all that was measured and what was so before and behind this run: neighbours that take
/// memory's bandwidth slow the one down and not the other. `None` where that is no drift.
pub(super) fn drift(measured: &[StepPace], around: [Option<StepPace>; 2]) -> Option<[Drift; 2]> {
    if measured.len() < MEASURED_MIN {
        return None;
    }
    let all: Vec<f64> = measured.iter().map(|pace| pace.all).collect();
    let kinds: [fn(&StepPace) -> f64; 2] = [|pace| pace.decode, |pace| pace.prompt];
    let of = |kind: fn(&StepPace) -> f64| {
        let measured: Vec<f64> = measured.iter().map(kind).collect();
        let near: Vec<f64> = around.iter().flatten().map(kind).collect();
        drift_of(&measured, &near)
    };
    ((mean(&all) - 1.0).abs() <= DRIFT_MAX).then(|| kinds.map(of))
}

/// Of one kind of steps: what is clear of all that was measured beside the runs, and [`NEAR`] of what
/// was measured before and behind this one differs from that. A run, which is longer, varies as the
/// mean of two measurements; what those beside it do not tell of that stays unknown (of two normal
/// variables the conditional distribution of one).
fn drift_of(measured: &[f64], near: &[f64]) -> Drift {
    let (clear, deviation) = clear(measured);
    let away = if near.is_empty() { 0.0 } else { mean(near) - mean(measured) };
    let deviation = (deviation * deviation / 2.0 * (1.0 - NEAR * NEAR)).sqrt();
    Drift { mean: clear + NEAR * away, deviation }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Of what was measured beside the runs the mean, shrunk by the part of its square that is its own
/// error (James and Stein 1961, of one mean towards 1): 1 where it cannot be told from how the
/// device's speed comes and goes; and the standard deviation of one measurement.
fn clear(measured: &[f64]) -> (f64, f64) {
    let n = measured.len() as f64;
    let mean = mean(measured);
    let squares = measured.iter().map(|pace| (pace - mean).powi(2)).sum::<f64>();
    let variance = squares / (n - 1.0);
    let (error, away) = (variance / n, mean - 1.0);
    let clear = match away * away > error {
        true => 1.0 + away * (1.0 - error / (away * away)),
        false => 1.0,
    };
    (clear, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alike(pace: f64) -> StepPace {
        StepPace { all: pace, decode: pace, prompt: pace }
    }

    #[test]
    fn drift_is_clear_and_small() {
        let drift = |measured: &[f64]| {
            let measured: Vec<StepPace> = measured.iter().copied().map(alike).collect();
            let [decode, prompt] = super::drift(&measured, [None, None])?;
            assert_eq!(decode, prompt);
            Some(decode.mean)
        };
        assert_eq!(drift(&[1.05, 1.06]), None, "too few to know");
        assert_eq!(drift(&[1.0625, 1.0625, 1.0625]), Some(1.0625));
        assert_eq!(drift(&[1.2, 0.9, 0.9, 1.02]), Some(1.0), "it comes and goes");
        let shrunk = drift(&[1.05, 1.0, 1.1]).expect("most of it is clear");
        // The mean is off by 5 %, its standard error is 2.9 %.
        assert!((shrunk - (1.05 - 0.05 / 3.0)).abs() < 1e-9, "{shrunk}");
        assert_eq!(drift(&[1.3, 1.3, 1.3]), None, "it is another device");
        assert_eq!(drift(&[1.0; 5]), Some(1.0));
        let beside = drift_of(&[0.875, 1.0, 1.125], &[1.0, 1.125]);
        assert_eq!(beside.mean, 1.03125, "a half of what it was slower beside this run");
        // Three quarters of the variance, which is a half of one's, are not told by what is beside.
        assert!((beside.deviation - 0.125 * 0.375f64.sqrt()).abs() < 1e-12, "{beside:?}");
        assert_eq!(drift_of(&[1.0; 3], &[1.0]), Drift { mean: 1.0, deviation: 0.0 });
    }

    #[test]
    fn steps_that_decode_drift_apart_from_those_with_prompts() {
        let slower = StepPace { all: 1.1, decode: 1.1875, prompt: 1.0625 };
        let drift = drift(&[slower; 4], [Some(slower), None]).expect("it is clear");
        assert_eq!(drift.map(|it| (it.mean, it.deviation)), [(1.1875, 0.0), (1.0625, 0.0)]);
    }

    #[test]
    fn parts_of_a_drift_are_those_of_its_distribution() {
        let drift = Drift { mean: 1.02, deviation: 0.03 };
        let parts: Vec<f64> = (0..64).map(|which| drift.part(which, 64)).collect();
        let mean = mean(&parts);
        let variance = parts.iter().map(|part| (part - mean).powi(2)).sum::<f64>() / 64.0;
        assert!((mean - 1.02).abs() < 1e-9 && (variance.sqrt() / 0.03 - 1.0).abs() < 0.03);
        assert_eq!(Drift { deviation: 0.0, ..drift }.part(3, 4), 1.02);
    }
}
