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

use plimsoll_base::{ClassId, End, RequestId};

use crate::config::{Class, Predict};
use quantile::Quantile;

/// The rule and what it has learned.
#[derive(Debug)]
pub(crate) enum Predictions {
    /// Indexed by class; [`u32::MAX`] where only the cap counts.
    Stated(Vec<u32>),
    /// Indexed by class.
    Learned(Vec<Quantile>),
    /// The prediction for the request that is about to arrive.
    Told(Option<(RequestId, u32)>),
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
            Predict::NoisyOracle { error_ppm: _ } => Predictions::Told(None),
        }
    }

    /// The request that is about to arrive is predicted to deliver so much.
    pub fn told(&mut self, id: RequestId, output_tokens: u32) {
        match self {
            Predictions::Told(hint) => *hint = Some((id, output_tokens)),
            Predictions::Stated(_) | Predictions::Learned(_) => {}
        }
    }

    /// The request that was about to arrive gets no class.
    pub fn forget(&mut self) {
        match self {
            Predictions::Told(hint) => *hint = None,
            Predictions::Stated(_) | Predictions::Learned(_) => {}
        }
    }

    /// Output tokens predicted for the request that arrives, from what a gateway can see; never
    /// above the client's cap. What was told is forgotten.
    #[inline]
    pub fn output(&mut self, id: RequestId, class: ClassId, output_cap: u32) -> u32 {
        let predicted = match self {
            Predictions::Stated(stated) => stated[class.index()],
            Predictions::Learned(learned) => learned[class.index()].value().unwrap_or(u32::MAX),
            Predictions::Told(hint) => {
                let told = hint.take().filter(|(of, _)| *of == id);
                told.map_or(u32::MAX, |(_, output_tokens)| output_tokens)
            }
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
            (
                Predictions::Learned(_),
                End::Failed | End::Cancelled | End::Expired | End::Evicted,
            ) => {}
            (Predictions::Stated(_) | Predictions::Told(_), _) => {}
        }
    }

    /// Whether what ends changes no prediction.
    pub fn learn_nothing(&self) -> bool {
        !matches!(self, Predictions::Learned(_))
    }

    /// Whether predictions come from the driver.
    pub fn needs_hints(&self) -> bool {
        match self {
            Predictions::Told(_) => true,
            Predictions::Stated(_) | Predictions::Learned(_) => false,
        }
    }
}
