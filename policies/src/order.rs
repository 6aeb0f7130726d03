//! Who goes first within a flow: a key fixed on arrival, so nothing is re-sorted as time passes.

use plimsoll_base::{ClassId, Time};

use crate::config::{Class, Order};

/// What is added to a class's arrival times, indexed by class.
///
/// Aging orders by arrival − boost. Adding (largest boost − boost) orders the same and stays
/// unsigned. A request is overtaken only by one that arrives within the difference of the two
/// classes' boosts, so no request waits behind an endless stream of later ones; first come, first
/// served is the case where all boosts are equal.
#[derive(Debug)]
pub(crate) struct Lifts(Vec<u64>);

impl Lifts {
    pub fn new(order: Order, classes: &[Class]) -> Lifts {
        let most = classes.iter().map(|class| class.boost).max().unwrap_or_default();
        Lifts(match order {
            Order::Fcfs => vec![0; classes.len()],
            Order::Aging => classes.iter().map(|class| (most - class.boost).nanos()).collect(),
        })
    }
    /// The least goes first; ties by sequence.
    pub fn key(&self, class: ClassId, arrived: Time) -> u64 {
        arrived.nanos().saturating_add(self.0[class.index()])
    }
}
