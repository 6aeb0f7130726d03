//! How many output tokens a request is expected to deliver: never more than its client allows.
//!
//! | rule | it predicts | how it fails |
//! |---|---|---|
//! | `declared-cap` | the cap (`max_tokens`) | most requests end far below it: windows and shares see work that never comes |
//! | `class-intensity` | what the class states | as wrong as the statement |
//! | `class-quantile` | a running quantile of what the class delivered (`quantile.rs`) | classes of mixed work; sudden changes |
//! | `noisy-oracle` | the truth with a stated error | exists in studies only |
//!
//! `noisy-oracle` exists to ask what a better predictor would be worth. The truth is not in this
//! crate: the driver hands in a hint before the arrival
//! ([`Input::Predicted`](crate::Input::Predicted)), and without one the cap counts.

mod quantile;

use plimsoll_base::{ClassId, End};

use crate::config::{Class, Predict};
use quantile::Quantile;

/// The rule and what it has learned.
#[derive(Debug)]
pub(crate) enum Predictions {
    /// Indexed by class; [`u32::MAX`] where only the cap counts.
    Stated(Vec<u32>),
    /// Indexed by class.
    Learned(Vec<Quantile>),
    Told,
}

impl Predictions {
    pub fn new(predict: Predict, classes: &[Class]) -> Predictions {
        match predict {
            Predict::DeclaredCap => Predictions::Stated(vec![u32::MAX; classes.len()]),
            Predict::ClassIntensity => {
                let stated = |class: &Class| class.output_tokens_expected.unwrap_or(u32::MAX);
                Predictions::Stated(classes.iter().map(stated).collect())
            }
            Predict::ClassQuantile { quantile_ppm, samples_min } => {
                let make = |_| Quantile::new(quantile_ppm, samples_min);
                Predictions::Learned(classes.iter().map(make).collect())
            }
            Predict::NoisyOracle { error_ppm: _ } => Predictions::Told,
        }
    }

    /// Output tokens predicted from what a gateway can see; never above the client's cap.
    #[inline]
    pub fn output(&self, class: ClassId, output_cap: u32, hint: Option<u32>) -> u32 {
        let predicted = match self {
            Predictions::Stated(stated) => stated[class.index()],
            Predictions::Learned(learned) => learned[class.index()].value().unwrap_or(u32::MAX),
            Predictions::Told => hint.unwrap_or(u32::MAX),
        };
        predicted.min(output_cap)
    }

    /// A request of the class ended after so many output tokens. Only what finished says how long
    /// its kind is; what was cut off says only that it is longer.
    #[inline]
    pub fn ended(&mut self, class: ClassId, end: End, output_tokens: u32) {
        match (self, end) {
            (Predictions::Learned(learned), End::Finished) => {
                learned[class.index()].learn(output_tokens);
            }
            (Predictions::Learned(_), End::Failed | End::Cancelled | End::Expired) => {}
            (Predictions::Stated(_) | Predictions::Told, _) => {}
        }
    }

    /// Whether predictions come from the driver.
    pub fn needs_hints(&self) -> bool {
        match self {
            Predictions::Told => true,
            Predictions::Stated(_) | Predictions::Learned(_) => false,
        }
    }
}
