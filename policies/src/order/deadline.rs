//! Earliest deadline first, with relegation of what can no longer make it.
//!
//! **What it does.** A request's deadline is its arrival + the `deadline` of its class (in a file:
//! the class's `deadline`, or its tightest promise on `ttft`). Of the requests of a turn the one
//! with the earliest deadline goes first. One whose deadline has come is *relegated*: it goes only
//! when nothing in its turn can still make its deadline, and among the relegated by arrival. A
//! request of a class without a deadline goes last in its turn, by arrival.
//!
//! **Source.** C. L. Liu and J. W. Layland, "Scheduling Algorithms for Multiprogramming in a
//! Hard-Real-Time Environment", JACM 20 (1973): as long as all deadlines can be met at all,
//! earliest deadline first meets them.
//!
//! **Why it needs relegation.** In overload plain EDF collapses (C. D. Locke, "Best-Effort Decision
//! Making for Real-Time Scheduling", 1986): the earliest deadlines are those that have just been
//! missed, so the machine works on what is worth nothing any more while that which could still be
//! met waits until it is missed too. From the instant at which the backlog is longer than a
//! deadline, *every* request is late, though the machine could serve most of them in time.
//! Relegation takes out what is lost: the machine works on requests in time, and what overload
//! costs is borne by as many as there are too many. `policies/tests/orders.rs` shows both.
//!
//! **Promise.** No relegated request is picked by the share's order while one in the same turn can
//! still make it, and of those that can none is passed over for one with a later deadline.
//!
//! **Failure.** Relegated work and classes without a deadline may wait for ever while fresh work
//! keeps coming; the guard's `wait_max` or a `time_to_live` bounds that. A request is relegated
//! when its deadline has come and not when its prompt can no longer be computed in time: a
//! dispatch just before the deadline is late by its prefill. State a deadline that leaves room.

use plimsoll_base::{ClassId, Span, Time};

use crate::config::Class;

/// The key of everything relegated; ties are broken by arrival.
pub(crate) const LATE: u64 = u64::MAX - 1;
/// The key of everything without a deadline.
const NEVER: u64 = u64::MAX;

/// How long the requests of a class have, indexed by class.
#[derive(Debug)]
pub(crate) struct Deadlines(Vec<Option<Span>>);

impl Deadlines {
    pub fn new(classes: &[Class]) -> Deadlines {
        Deadlines(classes.iter().map(|class| class.deadline).collect())
    }
    /// The deadline itself: the earliest goes first.
    pub fn key(&self, class: ClassId, arrived: Time) -> u64 {
        match self.0[class.index()] {
            Some(deadline) => arrived.saturating_add(deadline).nanos().min(LATE - 1),
            None => NEVER,
        }
    }
}
