//! First come, first served, and aging.
//!
//! **What it does.** Aging orders by arrival − the class's `boost`: a head start that a class has
//! over others, in time. First come, first served is the case where all boosts are equal.
//!
//! **Source.** Linear aging with equal slopes: the priority `boost + (now − arrival)` grows for
//! everyone alike, so the order of two requests never changes and `arrival − boost` is a static
//! key.
//!
//! **Promise.** A request is overtaken only by one that arrives within the difference of the two
//! classes' boosts, so no request waits behind an endless stream of later ones.
//!
//! **Failure.** A boost is blind to size: a small request of a class without boost waits behind
//! all large ones that arrived within the boost.

use plimsoll_base::{ClassId, Time};

use crate::config::Class;

/// What is added to a class's arrival times, indexed by class. Adding (largest boost − boost)
/// orders as subtracting the boost does, and stays unsigned.
#[derive(Debug)]
pub(crate) struct Lifts(Vec<u64>);

impl Lifts {
    /// By arrival.
    pub fn equal(classes: &[Class]) -> Lifts {
        Lifts(vec![0; classes.len()])
    }
    /// By arrival − boost.
    pub fn by_boost(classes: &[Class]) -> Lifts {
        let most = classes.iter().map(|class| class.boost).max().unwrap_or_default();
        Lifts(classes.iter().map(|class| (most - class.boost).nanos()).collect())
    }
    /// The least goes first; ties by sequence.
    pub fn key(&self, class: ClassId, arrived: Time) -> u64 {
        arrived.nanos().saturating_add(self.0[class.index()])
    }
}
