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
    pub fn measure(&self, watch: &dyn Watch) -> Result<Option<f64>, ValidateError> {
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
    pub fn of<'s>(&self, steps: impl Iterator<Item = &'s Step>) -> Option<f64> {
        let means = self.engine.step_noise.as_ref().map(StepNoise::means);
        // How long each took, and how long it takes by the profile.
        let usual = |step: &Step| {
            let mean = means.map_or(1.0, |means| means[usize::from(step.shape.prefill > 0)]);
            by_profile(&self.cost, step.shape) * mean
        };
        let known = steps.filter(|step| step.shape.is_known());
        let pairs = known.map(|step| (nanos(step), usual(step)));
        let pairs: Vec<(f64, f64)> =
            pairs.map(|(took, usual)| (took.min(RATIO_MAX * usual), usual)).collect();
        if pairs.len() < STEPS_MIN {
            return None;
        }
        let (took, usual) =
            pairs.iter().fold((0.0, 0.0), |sums, pair| (sums.0 + pair.0, sums.1 + pair.1));
        Some(match means {
            Some(_) => took / usual,
            None => median(&pairs.iter().map(|(took, usual)| took / usual).collect::<Vec<f64>>()),
        })
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

/// How many times as long the steps of a run are simulated: what is clear of all that was measured
/// beside the runs, and [`NEAR`] of what was measured before and behind this one differs from that.
/// A run, which is longer, varies as the mean of two measurements; what those beside it do not tell of
/// that stays unknown (of two normal variables the conditional distribution of one). `None` where
/// that is no drift.
pub(super) fn drift(measured: &[f64], around: [Option<f64>; 2]) -> Option<Drift> {
    let (clear, deviation) = clear(measured)?;
    let near: Vec<f64> = around.into_iter().flatten().collect();
    let away = if near.is_empty() { 0.0 } else { mean(&near) - mean(measured) };
    let deviation = (deviation * deviation / 2.0 * (1.0 - NEAR * NEAR)).sqrt();
    Some(Drift { mean: clear + NEAR * away, deviation })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Of what was measured beside the runs the mean, shrunk by the part of its square that is its own
/// error (James and Stein 1961, of one mean towards 1): 1 where it cannot be told from how the
/// device's speed comes and goes; and the standard deviation of one measurement. `None` where it is
/// not the device that was calibrated.
fn clear(measured: &[f64]) -> Option<(f64, f64)> {
    let n = measured.len() as f64;
    if measured.len() < MEASURED_MIN {
        return None;
    }
    let mean = mean(measured);
    let squares = measured.iter().map(|pace| (pace - mean).powi(2)).sum::<f64>();
    let variance = squares / (n - 1.0);
    let (error, away) = (variance / n, mean - 1.0);
    let clear = match away * away > error {
        true => 1.0 + away * (1.0 - error / (away * away)),
        false => 1.0,
    };
    (away.abs() <= DRIFT_MAX).then_some((clear, variance.sqrt()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn drift_is_clear_and_small() {
        let drift = |measured: &[f64]| Some(super::drift(measured, [None, None])?.mean);
        assert_eq!(drift(&[1.05, 1.06]), None, "too few to know");
        assert_eq!(drift(&[1.0625, 1.0625, 1.0625]), Some(1.0625));
        assert_eq!(drift(&[1.2, 0.9, 0.9, 1.02]), Some(1.0), "it comes and goes");
        let shrunk = drift(&[1.05, 1.0, 1.1]).expect("most of it is clear");
        // The mean is off by 5 %, its standard error is 2.9 %.
        assert!((shrunk - (1.05 - 0.05 / 3.0)).abs() < 1e-9, "{shrunk}");
        assert_eq!(drift(&[1.3, 1.3, 1.3]), None, "it is another device");
        assert_eq!(drift(&[1.0; 5]), Some(1.0));
        let beside = super::drift(&[0.875, 1.0, 1.125], [Some(1.0), Some(1.125)]);
        let beside = beside.expect("it is small");
        assert_eq!(beside.mean, 1.03125, "a half of what it was slower beside this run");
        // Three quarters of the variance, which is a half of one's, are not told by what is beside.
        assert!((beside.deviation - 0.125 * 0.375f64.sqrt()).abs() < 1e-12, "{beside:?}");
        let same = super::drift(&[1.0; 3], [None, Some(1.0)]).expect("it is none");
        assert_eq!(same, super::Drift { mean: 1.0, deviation: 0.0 });
    }

    #[test]
    fn parts_of_a_drift_are_those_of_its_distribution() {
        let drift = super::Drift { mean: 1.02, deviation: 0.03 };
        let parts: Vec<f64> = (0..64).map(|which| drift.part(which, 64)).collect();
        let mean = super::mean(&parts);
        let variance = parts.iter().map(|part| (part - mean).powi(2)).sum::<f64>() / 64.0;
        assert!((mean - 1.02).abs() < 1e-9 && (variance.sqrt() / 0.03 - 1.0).abs() < 0.03);
        assert_eq!(super::Drift { deviation: 0.0, ..drift }.part(3, 4), 1.02);
    }
}
