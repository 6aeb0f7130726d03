//! What adapts to what happens.

use plimsoll_base::{ClassId, Span};
use serde::{Deserialize, Serialize};

/// A rule of feedback; at most one of each kind. What each does is told in [`crate::rules`] and
/// in its leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Feedback {
    /// Adapts how many requests may be outstanding at a backend to the wait in its own queue.
    AdaptiveConcurrency {
        /// How.
        by: Adapt,
        /// The limit never falls below this; at least 1.
        min: u32,
    },
    /// Gives a backend that fails a rest.
    CircuitBreaker {
        /// Failures in a row that open it; at least 1.
        failures: u32,
        /// How long it stays open before one request may try.
        open_for: Span,
    },
    /// Lowers the caps of lesser classes while a class misses its deadline.
    SloCaps(SloCaps),
    /// Advises how many backends each pool should have.
    Autoscale(Autoscale),
    /// Cuts off running requests of sheddable classes, one at a time, while a class that is not
    /// sheddable waits for what they hold.
    EvictSheddable {
        /// How long the oldest request must have waited; above zero.
        after: Span,
        /// The shortest time from one eviction to the next; above zero.
        every: Span,
    },
}

/// Whose deadline moves whose caps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SloCaps {
    /// The class with the objective; it states a `deadline`.
    pub class: ClassId,
    /// The classes that give way; each states `requests_max`, where its cap starts.
    pub lesser: Vec<ClassId>,
    /// Results from one action to the next; at least 1.
    pub window: u32,
    /// The part of them, in millionths, that may be misses.
    pub misses_max_ppm: u32,
    /// By how many requests a cap moves; at least 1.
    pub step: u32,
    /// No cap falls below this; at least 1, and at most the lesser classes' `requests_max`.
    pub min: u32,
}

/// How the limit of [`Feedback::AdaptiveConcurrency`] moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Adapt {
    /// One more a report while the wait is at most this, an eighth less once it is above.
    Aimd {
        /// The longest wait in the backend's queue that is welcome.
        target: Span,
    },
    /// By the ratio of the usual to the present wait (Netflix's Gradient2).
    Gradient {
        /// Added to both waits, so that a wait near zero is not a reference; above zero.
        base: Span,
    },
}

/// When a pool should have more backends, or fewer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Autoscale {
    /// The load that is aimed at, in millionths of what a pool holds.
    pub target_ppm: u32,
    /// By what part of the target, in millionths, the load may differ from it.
    pub tolerance_ppm: u32,
    /// How often it is looked; above zero.
    pub every: Span,
    /// The shortest time from one advice for a pool to the next, in which a new backend comes to
    /// be there; above zero.
    pub cool_down: Span,
    /// For how long none must have wanted more before fewer are advised; at most 10,000 looks.
    pub down_after: Span,
    /// Never fewer of a pool; at least 1.
    pub min: u32,
    /// Never more of a pool.
    pub max: u32,
}
