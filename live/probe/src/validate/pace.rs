//! How fast the device is beside the runs, against when it was calibrated: machines become slower
//! and faster by a tenth within minutes, as they heat and as neighbours come and go, and what comes
//! of that says nothing about the model.
//!
//! Before each live run, and behind the last, the device serves a little traffic like that which it
//! was calibrated with, of as many requests at a time as the run's: machines also run faster or slower
//! with how much they rest, and large batches drift in another way than small ones. Its steps against
//! the profile are its pace.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_base::Span;
use plimsoll_base::math::normal_quantile;
use plimsoll_report::validation::{DRIFT_MAX, StepPace};
use plimsoll_sim::engine::StepCost;
use plimsoll_sim::model::{EngineModel, StepCostSpec, StepNoise};

use super::ValidateError;
use super::steps::{by_profile, nanos};
use crate::calibrate::{CalibrateError, Room, Watch, median, nonnegative, traffic_steps};
use crate::device::{Device, Step};

/// Which part of a run's time a reference takes, and its bounds.
const PART: f64 = 0.3;
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(10);
/// So many times as many lanes as requests at a time, as long as there are seats: each rests in between.
const LANES: f64 = 2.0;
/// A device is not left at rest for longer: it is to have some steps.
const AT_A_TIME_MIN: f64 = 1.0;
/// The part of it that does not count: the device has rested, and its memory is cold.
const WARM_UP: f64 = 0.2;
/// Fewer steps say too little.
const STEPS_MIN: usize = 40;
/// How many steps that are of one part it weighs against those seen that this part is as far off as all.
const LIKE_ALL: f64 = 3.0;
/// A step that took so many times what it should have was interrupted.
const RATIO_MAX: f64 = 3.0;
/// A mean of fewer measurements says nothing.
const MEASURED_MIN: usize = 3;
/// How what is measured beside a run and what is so within it are correlated: among 148 runs of OpenVINO on
/// a machine with neighbours 0.84 where measurements differed by 2 to 7 %, 0.47 where by more.
const NEAR: f64 = 0.8;
/// A run's pace is no further from what is expected, in standard deviations: the rest is the model's.
const FAR: f64 = 2.0;

/// Measures the pace.
pub(super) struct Pacer<'a> {
    device: &'a Arc<dyn Device>,
    pub usual: Usual,
    room: Room,
    time: Duration,
}

impl<'a> Pacer<'a> {
    /// Beside runs of so many requests at a time in which arrivals go on for so long.
    pub fn new(
        device: &'a Arc<dyn Device>,
        engine: &EngineModel,
        (at_a_time, window): (f64, Span),
    ) -> Pacer<'a> {
        let at_a_time = at_a_time.max(AT_A_TIME_MIN);
        let lanes = (at_a_time * LANES).min(engine.seats.into()).ceil();
        let rest = (lanes / at_a_time - 1.0).max(0.0);
        let time = Duration::from_secs_f64(window.secs_f64() * PART);
        Pacer {
            device,
            usual: Usual::new(engine.step_cost, engine.step_noise.as_ref()),
            room: Room {
                seats: engine.seats,
                lanes: lanes as u32,
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
        Ok(self.usual.of(steps.iter().filter(|step| step.start >= from)))
    }
}

/// Parts of a step: fixed, of further sequences, of prompts, behind those, behind rests.
pub(super) const PARTS: usize = 5;

/// A part without the others.
fn one_part(part: usize) -> [f64; PARTS] {
    std::array::from_fn(|other| f64::from(u8::from(other == part)))
}

/// How long steps take by the profile.
pub(super) struct Usual {
    /// What each part of it says.
    parts: [StepCost; PARTS],
    /// Mean ratios of steps that only decode and of those with prompts, where steps are drawn.
    means: Option<[f64; 2]>,
}

impl Usual {
    pub fn new(cost: StepCostSpec, noise: Option<&StepNoise>) -> Usual {
        let part = |part| StepCost::new(cost.at_pace(one_part(part)));
        Usual { parts: std::array::from_fn(part), means: noise.map(StepNoise::means) }
    }

    /// How many times as long as by the profile steps took; `None` where there are too few.
    pub fn of<'s>(&self, steps: impl Iterator<Item = &'s Step>) -> Option<StepPace> {
        let known = steps.filter(|step| step.shape.is_known());
        let seen: Vec<Seen> = known.map(|step| self.seen(step)).collect();
        if seen.len() < STEPS_MIN {
            return None;
        }
        let usual = seen.iter().map(|step| step.usual).sum::<f64>();
        let all = match self.means {
            Some(_) => seen.iter().map(|step| step.took).sum::<f64>() / usual,
            None => median(&seen.iter().map(|it| it.took / it.usual).collect::<Vec<f64>>()),
        };
        // By least squares; what these steps do not tell of a part is that it is as far off as all.
        let row = |step: &Seen| (step.parts.map(|part| part / step.usual), step.took / step.usual);
        let like_all = (0..PARTS).map(|part| (one_part(part), all));
        let weights = seen.iter().map(|step| step.usual * seen.len() as f64 / usual);
        let weights: Vec<f64> = weights.chain([LIKE_ALL; PARTS]).collect();
        let rows: Vec<([f64; PARTS], f64)> = seen.iter().map(row).chain(like_all).collect();
        let [fixed, decode, prompt, behind, rested] = nonnegative(&rows, &weights)[..] else {
            return None;
        };
        Some(StepPace { all, fixed, decode, prompt, behind, rested })
    }

    fn seen(&self, step: &Step) -> Seen {
        let mean = self.means.map_or(1.0, |means| means[usize::from(step.shape.prefill > 0)]);
        let parts = self.parts.each_ref().map(|part| by_profile(part, step.shape) * mean);
        let usual = parts.iter().sum::<f64>();
        Seen { took: nanos(step).min(RATIO_MAX * usual), usual, parts }
    }
}

/// A step, in ns.
struct Seen {
    took: f64,
    /// By the profile.
    usual: f64,
    /// What that is made of.
    parts: [f64; PARTS],
}

/// How many times as long the steps of a run are, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Drift {
    pub mean: StepPace,
    /// Standard deviation of all.
    pub deviation: f64,
}

impl Drift {
    /// What of a pace may be drift: no further from the mean than [`FAR`] deviations.
    pub fn nearest(self, pace: StepPace) -> [f64; PARTS] {
        let far = FAR * self.deviation;
        let (mean, pace) = (self.parts(), parts(pace));
        std::array::from_fn(|part| pace[part].clamp(mean[part] - far, mean[part] + far))
    }

    /// Of so many equally probable parts of its distribution, which is taken to be normal, the middle
    /// of one.
    pub fn draw(self, which: u32, of: u32) -> [f64; PARTS] {
        let score = normal_quantile((f64::from(which) + 0.5) / f64::from(of));
        let all = self.mean.all;
        let times = (all + self.deviation * score).max(1.0 - 2.0 * DRIFT_MAX) / all;
        self.parts().map(|part| part * times)
    }

    /// Part by part.
    pub fn parts(self) -> [f64; PARTS] {
        parts(self.mean)
    }
}

fn parts(pace: StepPace) -> [f64; PARTS] {
    [pace.fixed, pace.decode, pace.prompt, pace.behind, pace.rested]
}

/// How many times as long the steps of a run are simulated: part by part what is clear of all that was
/// measured beside the runs (neighbours that take memory's bandwidth slow down what sequences add and
/// not what a step costs), and [`NEAR`] of what all steps before and behind this run differ from
/// that. A run, which is longer, varies as the mean of two measurements; what those beside it do not
/// tell of that stays unknown (of two normal variables the conditional distribution of one). `None`
/// where that is no drift.
pub(super) fn drift(measured: &[StepPace], around: [Option<StepPace>; 2]) -> Option<Drift> {
    if measured.len() < MEASURED_MIN {
        return None;
    }
    let of = |number: fn(&StepPace) -> f64| measured.iter().map(number).collect::<Vec<f64>>();
    let all = of(|pace| pace.all);
    let near: Vec<f64> = around.iter().flatten().map(|pace| pace.all).collect();
    let away = if near.is_empty() { 0.0 } else { NEAR * (mean(&near) - mean(&all)) };
    let (_, deviation) = clear(&all);
    let is_drift = (mean(&all) - 1.0).abs() <= DRIFT_MAX;
    is_drift.then(|| Drift {
        mean: StepPace::each(|number| clear(&of(number)).0 + away),
        deviation: (deviation * deviation / 2.0 * (1.0 - NEAR * NEAR)).sqrt(),
    })
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
        StepPace::each(|_| pace)
    }

    #[test]
    fn drift_is_clear_and_small() {
        let drift = |measured: &[f64]| {
            let measured: Vec<StepPace> = measured.iter().copied().map(alike).collect();
            let drift = super::drift(&measured, [None, None])?;
            assert_eq!(drift.parts(), [drift.mean.all; PARTS]);
            Some(drift.mean.all)
        };
        assert_eq!(drift(&[1.05, 1.06]), None, "too few to know");
        assert_eq!(drift(&[1.0625, 1.0625, 1.0625]), Some(1.0625));
        assert_eq!(drift(&[1.2, 0.9, 0.9, 1.02]), Some(1.0), "it comes and goes");
        let shrunk = drift(&[1.05, 1.0, 1.1]).expect("most of it is clear");
        // The mean is off by 5 %, its standard error is 2.9 %.
        assert!((shrunk - (1.05 - 0.05 / 3.0)).abs() < 1e-9, "{shrunk}");
        assert_eq!(drift(&[1.3, 1.3, 1.3]), None, "it is another device");
        assert_eq!(drift(&[1.0; 5]), Some(1.0));
        let beside = |measured: &[f64], near: [Option<f64>; 2]| {
            let measured: Vec<StepPace> = measured.iter().copied().map(alike).collect();
            super::drift(&measured, near.map(|near| near.map(alike))).expect("it is small")
        };
        let slower = beside(&[0.875, 1.0, 1.125], [Some(1.0), Some(1.125)]);
        let wanted = 1.0 + NEAR * 0.0625;
        assert_eq!(slower.mean, alike(wanted), "most of what it was slower beside this run");
        // 36 % of the variance, which is a half of one's, are not told by what is beside.
        assert!((slower.deviation - 0.125 * 0.18f64.sqrt()).abs() < 1e-12, "{slower:?}");
        let same = beside(&[1.0; 3], [None, Some(1.0)]);
        assert_eq!(same, Drift { mean: alike(1.0), deviation: 0.0 });
    }

    #[test]
    fn a_part_that_became_slower_is_told_from_the_others() {
        use plimsoll_base::Time;
        use plimsoll_sim::engine::{BatchShape, Behind};
        use plimsoll_sim::model::Affine;

        let step_cost = StepCostSpec::affine(Affine {
            base: 3e6,
            prefill: 40e3,
            sequence: 250e3,
            context: 1e3,
            after_prefill: 2e6,
            ..Affine::default()
        });
        let usual = Usual::new(step_cost, None);
        let slower = StepCost::new(step_cost.at_pace([1.0, 1.5, 1.125, 0.75, 1.0]));
        let steps: Vec<Step> = (0..2_000)
            .map(|step| {
                let prefill = if step % 10 == 0 { 20 + step % 100 } else { 0 };
                let (sequences, context) = (1 + step % 7, 100 + step % 900);
                let behind = Behind { steps: (step % 10) as u32, cold: 0 };
                let shape =
                    BatchShape { prefill, sequences, context, behind, ..BatchShape::default() };
                let end = Time::from_nanos(by_profile(&slower, shape) as u64);
                Step { start: Time::ZERO, end, delivered: end, shape }
            })
            .collect();
        let pace = usual.of(steps.iter()).expect("there are enough");
        let near = |found: f64, wanted: f64| (found / wanted - 1.0).abs() < 0.04;
        assert!(near(pace.fixed, 1.0) && near(pace.decode, 1.5), "{pace:?}");
        assert!(near(pace.prompt, 1.125) && (1.05..1.15).contains(&pace.all), "{pace:?}");
        assert!((0.72..0.82).contains(&pace.behind), "{pace:?}");
        assert!(near(pace.rested, pace.all), "nothing tells of rests: {pace:?}");
        assert_eq!(usual.of(steps[..STEPS_MIN - 1].iter()), None);
    }

    #[test]
    fn draws_of_a_drift_are_of_its_distribution() {
        let mean = StepPace {
            all: 1.02,
            fixed: 1.0,
            decode: 1.25,
            prompt: 0.96875,
            behind: 1.125,
            rested: 0.875,
        };
        let drift = Drift { mean, deviation: 0.03 };
        let draws: Vec<f64> = (0..64).map(|which| drift.draw(which, 64)[1] / 1.25 * 1.02).collect();
        let mean = super::mean(&draws);
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / 64.0;
        assert!((mean - 1.02).abs() < 1e-9 && (variance.sqrt() / 0.03 - 1.0).abs() < 0.03);
        let steady = Drift { deviation: 0.0, ..drift };
        assert_eq!(steady.draw(3, 4), [1.0, 1.25, 0.96875, 1.125, 0.875]);
        assert_eq!(drift.nearest(alike(1.0)), [1.0, 1.19, 1.0, 1.065, 0.935]);
    }
}
