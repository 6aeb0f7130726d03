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
    /// Its flow has the earliest start tag (start-time fair queueing).
    StartTime,
    /// Its flow has the least pass (stride scheduling).
    Stride,
    /// Its flow has the least dominant share of the resources.
    DominantShare,
    /// Its prompt is cached best among the flows whose deficit covers them.
    DeficitPrefix,
    /// It fits where an earlier request did not, which few may overtake.
    Bypass,
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
    /// A token bucket has too little left for it.
    RateLimit,
    /// The pool is fuller than its class may find it.
    Saturated,
    /// What is known of the backends is too old to let its class in.
    StaleSignal,
    /// Its objective cannot be met any more.
    Hopeless,
    /// It may be shed, and work that is worth more waits for what it holds.
    Evicted,
    /// Its backend failed it, and no retry is left.
    RetryBudget,
    /// It asks for more than any backend has.
    TooLarge,
    /// The allocator is draining.
    Draining,
    /// No backend has joined.
    NoBackend,
    /// It ran already when this allocator took over from another: nothing is to be done.
    Resumed,
}

impl Reason {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::ArrivalOrder => "arrival_order",
            Reason::Priority => "priority",
            Reason::Deficit => "deficit",
            Reason::VirtualCounter => "virtual_counter",
            Reason::StartTime => "start_time",
            Reason::Stride => "stride",
            Reason::DominantShare => "dominant_share",
            Reason::DeficitPrefix => "deficit_prefix",
            Reason::Bypass => "bypass",
            Reason::RateLimit => "rate_limit",
            Reason::Saturated => "saturated",
            Reason::StaleSignal => "stale_signal",
            Reason::Hopeless => "hopeless",
            Reason::Evicted => "evicted",
            Reason::RetryBudget => "retry_budget",
            Reason::Due => "due",
            Reason::QueueBound => "queue_bound",
            Reason::TimeToLive => "time_to_live",
            Reason::Withdrawn => "withdrawn",
            Reason::NoRule => "no_rule",
            Reason::TooLarge => "too_large",
            Reason::Draining => "draining",
            Reason::NoBackend => "no_backend",
            Reason::Resumed => "resumed",
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
    /// The quota of its class, or of a group above it, is used up and nothing may be borrowed.
    Quota,
    /// It is heavy, and as many heavy requests run as may.
    HeavyLane,
    /// Feedback has lowered how much may be outstanding.
    Adaptive,
    /// Backends with room have failed lately and are not tried yet.
    Breaker,
    /// What is known of the backends is too old.
    StaleSignal,
    /// Backends with room stand where it may not go, or not yet.
    Site,
    /// No backend had joined.
    NoBackend,
}

impl Bound {
    /// All bounds, in report order.
    pub const ALL: [Bound; 11] = [
        Bound::Seats,
        Bound::KvMemory,
        Bound::ClassRequests,
        Bound::ClassTokens,
        Bound::Quota,
        Bound::HeavyLane,
        Bound::Adaptive,
        Bound::Breaker,
        Bound::StaleSignal,
        Bound::Site,
        Bound::NoBackend,
    ];
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Bound::Seats => "seats",
            Bound::KvMemory => "kv_memory",
            Bound::ClassRequests => "class_requests",
            Bound::ClassTokens => "class_tokens",
            Bound::Quota => "quota",
            Bound::HeavyLane => "heavy_lane",
            Bound::Adaptive => "adaptive",
            Bound::Breaker => "breaker",
            Bound::StaleSignal => "stale_signal",
            Bound::Site => "site",
            Bound::NoBackend => "no_backend",
        }
    }
}
