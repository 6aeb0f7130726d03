//! Measuring a device, and fitting the simulator's step-time model to it.
//!
//! A [`Plan`] is a list of cells: prompts alone, batches that decode, and prompts that arrive
//! while a batch decodes. Cells are measured in rounds, until the interval of each is narrow or
//! the time is up; a reference cell in every round shows noise and drift. Every measurement is a
//! sum over steps whose shapes are known ([`Observation`]). Behind the rounds traffic is measured:
//! requests of all lengths that come and go ([`traffic`]). One non-negative robust least
//! squares ([`fit`]) finds the coefficients, whether steps are told one by one or only the times
//! of tokens are seen. The kind of model is chosen by its error on cells that it was not fitted to.

mod fit;
mod log;
mod measure;
mod noise;
mod observation;
mod plan;
mod profile;
mod statistics;
mod timeline;
mod traffic;

use std::time::{Duration, Instant};

use thiserror::Error;

use crate::device::{Device, DeviceError, Limits};

pub(crate) use fit::nonnegative;
pub use fit::{Fit, Kind, fit};
pub use log::{BadLog, LoggedRequest, from_log, parse_log, replayed};
pub use observation::{Feature, Observation};
pub use plan::{Cell, Plan};
pub(crate) use profile::today;
pub use profile::{Assumed, Busy, CellResult, Method, Overheads, Profile};
pub(crate) use statistics::median;
pub(crate) use timeline::{steps_of, token_times};
pub(crate) use traffic::{Room, traffic_steps};

use measure::Measured;
use statistics::relative_spread;

/// A device whose equal measurements spread by more than this is too noisy to fit: the part of the
/// median that the normalised median deviation is.
const NOISE_MAX: f64 = 0.25;
/// Rounds before intervals are believed.
const ROUNDS_MIN: usize = 3;
/// The part of the time that is given to traffic.
const TRAFFIC: f64 = 0.3;

/// How to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long measuring may go on.
    pub budget: Duration,
    /// The half-width of a cell's 95 % interval, as a part of its median, at which it is left.
    pub narrow: f64,
    /// Of the lengths of traffic.
    pub seed: u64,
    /// Limits that the device does not tell, or that are known better.
    pub known: Limits,
}

impl Settings {
    /// In less than two minutes.
    pub fn quick() -> Settings {
        Settings {
            budget: Duration::from_secs(90),
            narrow: 0.03,
            seed: 1,
            known: Limits::default(),
        }
    }
    /// In less than fifteen.
    pub fn full() -> Settings {
        Settings { budget: Duration::from_secs(720), narrow: 0.01, ..Settings::quick() }
    }

    /// The part of the budget that is for rounds.
    fn rounds(&self) -> Duration {
        self.budget.mul_f64(1.0 - TRAFFIC)
    }
}

/// Why there is no profile.
#[derive(Debug, Error)]
pub enum CalibrateError {
    /// The device cannot be measured.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device gives other times for the same work.
    #[error(
        "the device is too noisy to fit: the same work takes times that spread by {:.0} % \
         (at most {:.0} % can be fitted); stop what else runs there, hold the engine and the \
         client on cores of their own, and try again", .0 * 100.0, NOISE_MAX * 100.0
    )]
    TooNoisy(f64),
    /// Too little could be seen.
    #[error("too little could be measured to fit a model: {0}")]
    TooLittle(String),
    /// Somebody asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// Follows the measuring.
pub trait Watch: Sync {
    /// Whether to stop now.
    fn stop(&self) -> bool;
    /// What is done: a sentence, and which part of the time is over.
    fn progress(&self, what: &str, part: f64);
}

/// Measures a device and fits a profile to it.
///
/// # Errors
/// If the device fails, is in use, or is too noisy; if too little was seen; or if stopped.
pub fn calibrate(
    device: &dyn Device,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Profile, CalibrateError> {
    device.require_idle()?;
    let began = Instant::now();
    watch.progress("warming up", 0.0);
    let mut measured = Measured::new(device, settings);
    measured.warm_up()?;
    let plan = measured.plan()?;
    let rounds = rounds(&mut measured, &plan, (began, settings, watch))?;
    measured.traffic(settings.budget.mul_f64(TRAFFIC), watch)?;
    let noise = noise(&rounds, measured.spread())?;
    let kv_tokens = measured.kv_tokens(&plan)?;
    let fitted = fit(measured.observations()).map_err(CalibrateError::TooLittle)?;
    let assumed = measured.assumed(kv_tokens);
    Ok(Profile::new(device.description().clone(), &plan, (fitted, noise, assumed), &measured))
}

/// How much equal measurements differ.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Noise {
    /// The spread of equal measurements, as a part of their median (normalised median deviation):
    /// that of the reference cell, or the median cell's where that is more.
    pub floor: f64,
    /// By which part the reference cell became slower from the first third to the last.
    pub drift: f64,
}

impl Noise {
    /// What is amiss, if anything is.
    pub fn warning(&self) -> Option<String> {
        let percent = self.drift * 100.0;
        (self.drift.abs() > 0.1 && self.drift.abs() > 2.0 * self.floor).then(|| {
            let way = if percent > 0.0 { "slower" } else { "faster" };
            format!(
                "the device became {way} by {:.0} % while it was measured: it throttles, or a \
                 neighbour came or went",
                percent.abs()
            )
        })
    }
}

/// Measures cells in rounds until all are narrow or the time is up; returns the values of the
/// reference cell, in order.
fn rounds(
    measured: &mut Measured<'_>,
    plan: &Plan,
    (began, settings, watch): (Instant, &Settings, &dyn Watch),
) -> Result<Vec<f64>, CalibrateError> {
    let mut reference = Vec::new();
    // How long each cell took last, and whether it is measured again.
    let mut took = vec![Duration::ZERO; plan.cells.len()];
    let mut kept = vec![true; plan.cells.len()];
    for round in 0.. {
        if round == 1 {
            let left = settings.rounds().saturating_sub(began.elapsed());
            keep_affordable(&mut kept, &took, left / (ROUNDS_MIN as u32 - 1));
        }
        let is_open = |index: &usize| {
            kept[*index] && (round < ROUNDS_MIN || measured.half_width(*index) > settings.narrow)
        };
        // How long cells take is not known in the first round: the shortest come first, and those
        // for which there is no time to be measured again are not measured.
        let mut open = match round {
            0 => plan.shortest_first.clone(),
            _ => (0..plan.cells.len()).collect(),
        };
        open.retain(is_open);
        if open.is_empty() {
            break;
        }
        for (place, index) in open.iter().copied().enumerate() {
            if watch.stop() {
                return Err(CalibrateError::Interrupted);
            }
            let part = began.elapsed().as_secs_f64() / settings.rounds().as_secs_f64();
            if part >= 1.0 && round > 0 {
                return Ok(reference);
            }
            if part * ROUNDS_MIN as f64 >= 1.0 && round == 0 && place > 0 {
                open[place..].iter().for_each(|left_out| kept[*left_out] = false);
                break;
            }
            let cell = &plan.cells[index];
            watch.progress(&format!("round {}, {cell}", round + 1), part.min(1.0));
            let since = Instant::now();
            measured.run(index, cell)?;
            took[index] = since.elapsed();
        }
        reference.extend(measured.reference()?);
    }
    Ok(reference)
}

/// A device that is slower than it seemed has its longest cells measured once only, so that there
/// is time to measure the others again.
fn keep_affordable(kept: &mut [bool], took: &[Duration], round: Duration) {
    let time = |kept: &[bool]| {
        let times = took.iter().zip(kept).filter(|(_, kept)| **kept);
        times.map(|(took, _)| *took).sum::<Duration>()
    };
    while time(kept) > round {
        let longest = (0..kept.len()).filter(|at| kept[*at]).max_by_key(|at| took[*at]);
        kept[longest.expect("no cells take no time")] = false;
    }
}

fn noise(reference: &[f64], spread: Option<f64>) -> Result<Noise, CalibrateError> {
    if reference.is_empty() {
        let what = "the tokens of a single request could not be told apart";
        return Err(CalibrateError::TooLittle(what.into()));
    }
    let Some(spread) = spread else {
        let what = format!("no cell could be measured {ROUNDS_MIN} times within the time there is");
        return Err(CalibrateError::TooLittle(what));
    };
    let floor = relative_spread(reference).max(spread);
    if floor > NOISE_MAX {
        return Err(CalibrateError::TooNoisy(floor));
    }
    let third = reference.len().div_ceil(3);
    let (first, last) = (&reference[..third], &reference[reference.len() - third..]);
    let drift = median(last) / median(first) - 1.0;
    Ok(Noise { floor, drift: if reference.len() < 6 { 0.0 } else { drift } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_cells_are_given_up_first() {
        let took = [1, 9, 2, 4].map(Duration::from_secs);
        for (round, wanted) in [
            (20, [true, true, true, true]),
            (7, [true, false, true, true]),
            (3, [true, false, true, false]),
            (0, [false; 4]),
        ] {
            let mut kept = [true; 4];
            keep_affordable(&mut kept, &took, Duration::from_secs(round));
            assert_eq!(kept, wanted, "{round} s");
        }
    }
}
