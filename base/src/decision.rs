//! What a decision says of itself: which rule made it, and which resource had held it back.

use serde::{Deserialize, Serialize};

/// The rule that picked this request, or declined it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// First come, first served.
    ArrivalOrder,
    /// Its band is the highest with work.
    Priority,
    /// Its flow's deficit covers it (deficit round robin).
    Deficit,
    /// Its flow has the least virtual service.
    VirtualCounter,
    /// It was older than its class's `wait_max`: the guard's due lane.
    Due,
    /// The queue of its class is at its bound.
    QueueBound,
    /// It waited longer than its class's time-to-live.
    TimeToLive,
    /// The client withdrew it.
    Withdrawn,
    /// Classification found no rule for it.
    NoRule,
    /// It asks for more than any backend has.
    TooLarge,
    /// The allocator is draining.
    Draining,
    /// No backend has joined.
    NoBackend,
}

impl Reason {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::ArrivalOrder => "arrival_order",
            Reason::Priority => "priority",
            Reason::Deficit => "deficit",
            Reason::VirtualCounter => "virtual_counter",
            Reason::Due => "due",
            Reason::QueueBound => "queue_bound",
            Reason::TimeToLive => "time_to_live",
            Reason::Withdrawn => "withdrawn",
            Reason::NoRule => "no_rule",
            Reason::TooLarge => "too_large",
            Reason::Draining => "draining",
            Reason::NoBackend => "no_backend",
        }
    }
}

/// The resource a request waited for last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// No backend had a free seat.
    Seats,
    /// No backend with a free seat had KV memory for it.
    KvMemory,
    /// Its class was at its cap of concurrent requests.
    ClassRequests,
    /// Its class was at its cap of concurrent tokens.
    ClassTokens,
    /// No backend had joined.
    NoBackend,
}

impl Bound {
    /// All bounds, in report order.
    pub const ALL: [Bound; 5] =
        [Bound::Seats, Bound::KvMemory, Bound::ClassRequests, Bound::ClassTokens, Bound::NoBackend];
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Bound::Seats => "seats",
            Bound::KvMemory => "kv_memory",
            Bound::ClassRequests => "class_requests",
            Bound::ClassTokens => "class_tokens",
            Bound::NoBackend => "no_backend",
        }
    }
}
