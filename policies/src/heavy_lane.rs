//! The heavy lane: a cap on how many heavy requests are outstanding at once.
//!
//! **What it does.** A request is heavy if it is estimated to compute more than `over_tokens`
//! tokens: prompt − what is cached of it anywhere + predicted output. At most `max` heavy requests
//! of all classes together are at backends at once. Heavy requests queue apart from the light ones
//! of their class, so that a heavy one that may not go blocks nobody light behind it.
//!
//! **Source.** Keeping long jobs from the servers of short ones: Harchol-Balter, Crovella and
//! Murta, "On Choosing a Task Assignment Policy for a Distributed Server System" (JPDC 59, 1999);
//! as a limit on long partial prefills: vLLM's `max_long_partial_prefills`.
//!
//! **Promise.** Never more than `max` heavy requests are outstanding. A light request never waits
//! for a heavy one that waits for the heavy lane.
//!
//! **Failure.** When there is only heavy work, capacity stays idle. Whoever cuts one heavy request
//! into many light ones gets past it.
//!
//! **How.** A *queue* is a class, or the heavy twin of one. Where requests queue (the book, the
//! share's turns, the guard, times to live) queues stand in the place of classes: the twin of
//! class `c` of `n` is numbered `n + c`. What is owed to and counted of a class (caps, bounds on
//! its queue, gauges) is the class's as a whole. Without the rule there are no twins and a queue
//! is a class.

use plimsoll_base::ClassId;

use crate::class_set::ClassSet;
use crate::config::{Class, Partition};

/// Classes that a policy with a heavy lane may have: each has a twin.
pub(crate) const CLASSES_MAX: usize = crate::class_set::CLASSES_MAX / 2;

/// Which queues there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queues {
    classes: u16,
    /// [`u64::MAX`] without the rule: nothing is heavier.
    over_tokens: u64,
}

/// None at all.
impl Default for Queues {
    fn default() -> Queues {
        Queues { classes: 0, over_tokens: u64::MAX }
    }
}

impl Queues {
    pub fn new(rules: &[Partition], classes: usize) -> Queues {
        let over_tokens = rule(rules).map_or(u64::MAX, |(over_tokens, _)| over_tokens);
        Queues { classes: classes as u16, over_tokens }
    }

    fn has_twins(self) -> bool {
        self.over_tokens != u64::MAX
    }
    fn is_heavy(self, queue: ClassId) -> bool {
        queue.0 >= self.classes
    }
    /// Whether it matters how much of a prompt is cached.
    pub fn needs_matches(self) -> bool {
        self.has_twins()
    }
    /// How many there are.
    pub fn count(self) -> usize {
        usize::from(self.classes) * (1 + usize::from(self.has_twins()))
    }
    /// What each is owed: the classes, then their twins.
    pub fn owed(self, classes: &[Class]) -> Vec<Class> {
        classes.iter().cycle().take(self.count()).cloned().collect()
    }

    /// Where a request of the class queues that is estimated to compute `tokens`.
    #[inline]
    pub fn queue(self, class: ClassId, tokens: u64) -> ClassId {
        if tokens > self.over_tokens { ClassId(class.0 + self.classes) } else { class }
    }
    pub fn class(self, queue: ClassId) -> ClassId {
        if self.is_heavy(queue) { ClassId(queue.0 - self.classes) } else { queue }
    }
    /// The queues of these classes.
    #[inline]
    pub fn of(self, classes: ClassSet) -> ClassSet {
        if !self.has_twins() {
            return classes;
        }
        let known = classes.without(ClassSet::from_number(self.classes));
        known.or(known.shifted_up(self.classes))
    }
    /// The classes of these queues.
    #[inline]
    pub fn classes(self, queues: ClassSet) -> ClassSet {
        let light = queues.without(ClassSet::from_number(self.classes));
        light.or(queues.shifted_down(self.classes))
    }
}

/// How many heavy requests are outstanding, and may be.
#[derive(Debug)]
pub(crate) struct HeavyLane {
    queues: Queues,
    running: u32,
    max: u32,
}

impl HeavyLane {
    pub fn new(rules: &[Partition], queues: Queues) -> HeavyLane {
        let max = rule(rules).map_or(u32::MAX, |(_, max)| max);
        HeavyLane { queues, running: 0, max }
    }
    /// Queues that may send nothing because as many heavy requests run as may.
    #[inline]
    pub fn full(&self) -> ClassSet {
        if self.running < self.max {
            ClassSet::EMPTY
        } else {
            ClassSet::from_number(self.queues.classes)
        }
    }
    /// A request of the queue is dispatched; whether the lane is full from now on.
    #[inline]
    pub fn take(&mut self, queue: ClassId) -> bool {
        let is_heavy = self.queues.is_heavy(queue);
        assert!(!is_heavy || self.running < self.max, "a full heavy lane sends nothing");
        self.hold(queue);
        is_heavy && self.running == self.max
    }
    /// Counts a request of the queue that runs, however many do.
    pub fn hold(&mut self, queue: ClassId) {
        self.running += u32::from(self.queues.is_heavy(queue));
    }
    /// A request of the queue has ended; whether the lane was full up to now.
    #[inline]
    pub fn release(&mut self, queue: ClassId) -> bool {
        let is_heavy = self.queues.is_heavy(queue);
        let was_full = is_heavy && self.running >= self.max;
        if is_heavy {
            assert!(self.running > 0, "what ends was outstanding");
            self.running -= 1;
        }
        was_full
    }
}

/// The rule's threshold and its cap.
fn rule(rules: &[Partition]) -> Option<(u64, u32)> {
    rules.iter().find_map(|rule| match rule {
        Partition::HeavyLane { over_tokens, max } => Some((*over_tokens, *max)),
        Partition::Dedicated(_) | Partition::Quota(_) | Partition::Concurrency(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_and_classes_lead_to_each_other() {
        for classes in [1, 3, 32] {
            let rule = Partition::HeavyLane { over_tokens: 10, max: 1 };
            let queues = Queues::new(&[rule], classes);
            for class in (0..classes as u16).map(ClassId) {
                let (light, heavy) = (queues.queue(class, 10), queues.queue(class, 11));
                assert_ne!(light, heavy);
                assert_eq!((queues.class(light), queues.class(heavy)), (class, class));
                let both: ClassSet = [light, heavy].into_iter().collect();
                let one: ClassSet = [class].into_iter().collect();
                assert_eq!(queues.of(one), both);
                for queue in [light, heavy] {
                    assert_eq!(queues.classes([queue].into_iter().collect()), one);
                }
            }
            let unknown: ClassSet = [ClassId(classes as u16)].into_iter().collect();
            assert!(queues.of(unknown).is_empty());
            assert_eq!(queues.owed(&vec![Class::default(); classes]).len(), queues.count());
        }
    }
}
