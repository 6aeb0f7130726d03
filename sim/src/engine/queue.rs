//! The engine's own queue.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use super::batch::Sequence;
use crate::model::Admission;

/// Sequences that wait for a seat, in the order in which they enter.
#[derive(Debug)]
pub enum Waiting {
    /// By arrival; preempted sequences go to the front.
    Fcfs(VecDeque<Sequence>),
    /// By priority, then by arrival at the engine.
    Priority(BTreeMap<(Reverse<i32>, u64), Sequence>),
}

impl Waiting {
    /// An empty queue.
    pub fn new(admission: Admission) -> Waiting {
        match admission {
            Admission::Fcfs => Waiting::Fcfs(VecDeque::new()),
            Admission::Priority => Waiting::Priority(BTreeMap::new()),
        }
    }
    /// How many wait.
    pub fn len(&self) -> usize {
        match self {
            Waiting::Fcfs(queue) => queue.len(),
            Waiting::Priority(queue) => queue.len(),
        }
    }
    /// Who enters next.
    #[inline(always)]
    pub fn first(&self) -> Option<&Sequence> {
        match self {
            Waiting::Fcfs(queue) => queue.front(),
            Waiting::Priority(queue) => queue.first_key_value().map(|(_, sequence)| sequence),
        }
    }
    /// Takes out who enters next.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<Sequence> {
        match self {
            Waiting::Fcfs(queue) => queue.pop_front(),
            Waiting::Priority(queue) => queue.pop_first().map(|(_, sequence)| sequence),
        }
    }
    /// Adds a new arrival.
    #[inline(always)]
    pub fn push(&mut self, sequence: Sequence) {
        match self {
            Waiting::Fcfs(queue) => queue.push_back(sequence),
            Waiting::Priority(queue) => {
                queue.insert((Reverse(sequence.priority), sequence.serial), sequence);
            }
        }
    }
    /// Adds a preempted sequence: to the front, or where its priority puts it.
    pub fn push_preempted(&mut self, sequence: Sequence) {
        match self {
            Waiting::Fcfs(queue) => queue.push_front(sequence),
            Waiting::Priority(_) => self.push(sequence),
        }
    }
    /// All who wait, in no stated order.
    pub fn iter(&self) -> Box<dyn Iterator<Item = &Sequence> + '_> {
        match self {
            Waiting::Fcfs(queue) => Box::new(queue.iter()),
            Waiting::Priority(queue) => Box::new(queue.values()),
        }
    }
}
