//! How a request's life can end.

use serde::{Deserialize, Serialize};

/// Every end but a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// All its tokens were delivered.
    Finished,
    /// The backend or the network broke it.
    Failed,
    /// The client left.
    Cancelled,
    /// Its time-to-live or deadline passed.
    Expired,
    /// It ran, and the policy cut it off to make room for work that is worth more.
    Evicted,
}

/// The allocator declined to queue the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The queue of its class, or the whole allocator, is at its bound.
    QueueFull,
    /// A rate limit has no tokens left.
    RateLimited,
    /// Its tenant is over quota.
    OverQuota,
    /// No backend could ever hold it, or its objective cannot be met any more.
    Infeasible,
    /// The backends are fuller than its class may find them.
    Saturated,
    /// No classification rule matches it.
    Unclassified,
    /// No backend has joined.
    NoBackend,
    /// The allocator is shutting down.
    Draining,
}

impl Refusal {
    /// All refusals, in report order.
    pub const ALL: [Refusal; 8] = [
        Refusal::QueueFull,
        Refusal::RateLimited,
        Refusal::OverQuota,
        Refusal::Infeasible,
        Refusal::Saturated,
        Refusal::Unclassified,
        Refusal::NoBackend,
        Refusal::Draining,
    ];
    /// The name in reports: `queue_full`.
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::QueueFull => "queue_full",
            Refusal::RateLimited => "rate_limited",
            Refusal::OverQuota => "over_quota",
            Refusal::Infeasible => "infeasible",
            Refusal::Saturated => "saturated",
            Refusal::Unclassified => "unclassified",
            Refusal::NoBackend => "no_backend",
            Refusal::Draining => "draining",
        }
    }
}

/// The last thing known of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was taken in and ended.
    Ended(End),
    /// It was declined.
    Refused(Refusal),
    /// The run ended first; what it waited so far is a lower bound (censored).
    Unfinished,
}

impl Outcome {
    /// The name in reports: `finished`, `refused:queue_full`, `unfinished`.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Ended(End::Finished) => "finished",
            Outcome::Ended(End::Failed) => "failed",
            Outcome::Ended(End::Cancelled) => "cancelled",
            Outcome::Ended(End::Expired) => "expired",
            Outcome::Ended(End::Evicted) => "evicted",
            Outcome::Refused(refusal) => match refusal {
                Refusal::QueueFull => "refused:queue_full",
                Refusal::RateLimited => "refused:rate_limited",
                Refusal::OverQuota => "refused:over_quota",
                Refusal::Infeasible => "refused:infeasible",
                Refusal::Saturated => "refused:saturated",
                Refusal::Unclassified => "refused:unclassified",
                Refusal::NoBackend => "refused:no_backend",
                Refusal::Draining => "refused:draining",
            },
            Outcome::Unfinished => "unfinished",
        }
    }
}
