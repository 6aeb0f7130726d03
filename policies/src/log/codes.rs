//! The numbers that stand for reasons, bounds, refusals and ends in a log. A number once given
//! is never given to another: old logs stay readable.

use plimsoll_base::{Bound, End, Reason, Refusal};

use super::bytes::Malformed;
use crate::detect::AlarmKind;

/// A closed set of kinds, each with a number of its own. A kind without a number does not
/// compile.
pub(super) trait Coded: Sized {
    const WHAT: &'static str;
    fn code(self) -> u8;
    fn of(code: u8) -> Option<Self>;

    fn decoded(code: u8) -> Result<Self, Malformed> {
        Self::of(code).ok_or(Malformed::Unknown(Self::WHAT, code))
    }
}

macro_rules! coded {
    ($what:literal, $kind:ident { $($variant:ident = $code:literal),+ $(,)? }) => {
        impl Coded for $kind {
            const WHAT: &'static str = $what;
            fn code(self) -> u8 {
                match self {
                    $($kind::$variant => $code,)+
                }
            }
            fn of(code: u8) -> Option<$kind> {
                match code {
                    $($code => Some($kind::$variant),)+
                    0..=255 => None,
                }
            }
        }
    };
}

coded!("reason", Reason {
    ArrivalOrder = 1,
    Priority = 2,
    Deficit = 3,
    VirtualCounter = 4,
    StartTime = 5,
    Stride = 6,
    DominantShare = 7,
    DeficitPrefix = 8,
    Bypass = 9,
    Due = 10,
    QueueBound = 11,
    TimeToLive = 12,
    Withdrawn = 13,
    NoRule = 14,
    RateLimit = 15,
    Saturated = 16,
    StaleSignal = 17,
    Hopeless = 18,
    Evicted = 19,
    RetryBudget = 20,
    TooLarge = 21,
    Draining = 22,
    NoBackend = 23,
    Resumed = 24,
});

coded!("bound", Bound {
    Seats = 1,
    KvMemory = 2,
    ClassRequests = 3,
    ClassTokens = 4,
    Quota = 5,
    HeavyLane = 6,
    Adaptive = 7,
    Breaker = 8,
    StaleSignal = 9,
    Site = 10,
    NoBackend = 11,
});

coded!("refusal", Refusal {
    QueueFull = 1,
    RateLimited = 2,
    OverQuota = 3,
    Infeasible = 4,
    Saturated = 5,
    Unclassified = 6,
    NoBackend = 7,
    Draining = 8,
});

coded!("end", End {
    Finished = 1,
    Failed = 2,
    Cancelled = 3,
    Expired = 4,
    Evicted = 5,
});

coded!("kind of alarm", AlarmKind {
    NoService = 1,
    Lag = 2,
    Deadline = 3,
    Livelock = 4,
    Idle = 5,
    Inversion = 6,
});

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Coded + Copy + PartialEq + std::fmt::Debug>(kinds: usize) {
        let known: Vec<T> = (0..=255).filter_map(T::of).collect();
        assert_eq!(known.len(), kinds, "a number for each {}", T::WHAT);
        for kind in known {
            assert_eq!(T::of(kind.code()), Some(kind));
        }
        assert_eq!(T::decoded(0), Err(Malformed::Unknown(T::WHAT, 0)));
    }

    #[test]
    fn every_kind_has_one_number() {
        check::<Reason>(24);
        check::<Bound>(Bound::ALL.len());
        check::<Refusal>(Refusal::ALL.len());
        check::<End>(5);
        check::<AlarmKind>(AlarmKind::ALL.len());
    }
}
