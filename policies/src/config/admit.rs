//! Whether a request may come in.

use plimsoll_base::{ClassId, Span};
use serde::{Deserialize, Serialize};

/// A rule of admission. What each does is told in [`crate::rules`] and in its leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Admit {
    /// Refuses what comes faster than a rate.
    TokenBucket(TokenBucket),
    /// Refuses while the backends say that they are full.
    SaturationGate(SaturationGate),
    /// Refuses what would wait longer than its objective allows.
    EarlyRefusal(EarlyRefusal),
    /// Refuses retries beyond a part of first attempts.
    RetryBudget(RetryBudget),
}

/// A rate limit with reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenBucket {
    /// What is counted.
    pub unit: BucketUnit,
    /// Who has a bucket of its own.
    pub per: BucketPer,
    /// What flows into a bucket, in millionths of a unit a second.
    pub rate_micros: u64,
    /// What a bucket holds when full, in units.
    pub burst: u64,
    /// The classes it counts; none named: all.
    pub classes: Vec<ClassId>,
}

/// What a token bucket counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum BucketUnit {
    /// One a request.
    #[default]
    Requests,
    /// Prompt and output tokens: as predicted on arrival, corrected by what was used.
    Tokens,
}

/// Who has a token bucket of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum BucketPer {
    /// One for all.
    #[default]
    All,
    /// One a class.
    Class,
    /// One a tenant.
    Tenant,
}

/// A ceiling a class on how full the backends may say they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaturationGate {
    /// Requests in a backend's own queue at which it counts as full.
    pub waiting_full: u32,
    /// The part of its KV memory, in millionths, at which it counts as full.
    pub kv_full_ppm: u32,
    /// The saturation, in millionths, at which a class is refused. Classes that are not named are
    /// not asked.
    pub ceilings: Vec<(ClassId, u32)>,
    /// The age past which a report is stale.
    pub stale_after: Span,
    /// What a backend without a fresh report counts as.
    pub stale: Stale,
}

/// What a backend whose report is stale counts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Stale {
    /// As nothing: the others decide, and if there are none, everyone may come in.
    #[default]
    Open,
    /// As full.
    Closed,
    /// As its last report said, however old; as nothing before the first.
    Last,
}

/// A bound on the predicted wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyRefusal {
    /// The longest predicted wait that is let in; `None`: each class's `deadline`.
    pub wait_limit: Option<Span>,
    /// The classes it asks; none named: all (of those with a deadline, without a limit).
    pub classes: Vec<ClassId>,
}

/// A bound on retries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryBudget {
    /// Retries let in for each first attempt, in millionths.
    pub ratio_ppm: u32,
    /// Over how long; at least 10 ns.
    pub window: Span,
    /// Retries of a window that are let in however few first attempts there are; at least 1.
    pub min: u32,
    /// The classes it counts; none named: all.
    pub classes: Vec<ClassId>,
}
