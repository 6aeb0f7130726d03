//! What may be looked at.

use plimsoll_base::{Span, Time};
use plimsoll_policy::{Alarm, Allocator, BackendInfo, Config, Detector, Load};

/// The allocator and what stands beside it, between two inputs.
pub struct Inside<'a> {
    /// Now.
    pub now: Time,
    /// The policy.
    pub config: &'a Config,
    /// The allocator.
    pub allocator: &'a Allocator,
    /// Who says that a class is starved.
    pub detector: &'a Detector,
    /// By slot; those that are gone included.
    pub backends: &'a [Option<Backend>],
    /// Alarms raised lately, oldest first.
    pub alarms: &'a [(Time, Alarm)],
    /// How long decisions took.
    pub timing: &'a Timing,
    /// The decision log.
    pub log: LogState,
}

/// A backend as it was told of.
#[derive(Clone, Copy, Debug)]
pub struct Backend {
    /// How often it has come back.
    pub generation: u32,
    /// Whether it is there.
    pub is_here: bool,
    /// What it offers.
    pub info: BackendInfo,
    /// What it last said of itself, and when that was true.
    pub load: Option<(Time, Load)>,
}

/// What becomes of the decision log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogState {
    /// None is kept.
    #[default]
    Off,
    /// It is written; so many bytes so far, of all files.
    Written(u64),
    /// It could not be written any more; the gateway goes on without.
    Broken(String),
}

/// How long the allocator took for an input with all decisions, as a histogram whose bounds double.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Inputs of at most [`Timing::bound`] of the index, and more than the one before.
    pub counts: [u64; Timing::BUCKETS],
    /// The sum.
    pub sum: Span,
}

impl Timing {
    /// How many buckets; the last takes everything above.
    pub const BUCKETS: usize = 16;

    /// The upper bound of a bucket: 1 µs for the first.
    pub fn bound(index: usize) -> Span {
        Span::from_micros(1 << index.min(Timing::BUCKETS - 1))
    }

    pub(crate) fn add(&mut self, took: Span) {
        let bucket = (0..Timing::BUCKETS - 1).find(|&index| took <= Timing::bound(index));
        self.counts[bucket.unwrap_or(Timing::BUCKETS - 1)] += 1;
        self.sum += took;
    }
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { counts: [0; Timing::BUCKETS], sum: Span::ZERO }
    }
}
