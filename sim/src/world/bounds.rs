//! Telling what stops each class whenever it changes.

use plimsoll_base::{Bound, ClassId, Fact, Observer, Time};
use plimsoll_policy::Standing;

use super::World;
use crate::engine::Batch;

/// What was told last.
pub(super) struct Bounds {
    standing: Standing,
    /// Indexed by class.
    told: Vec<Option<Bound>>,
}

impl Bounds {
    pub fn new(classes: usize) -> Bounds {
        Bounds { standing: Standing::default(), told: vec![None; classes] }
    }
}

impl<B: Batch, O: Observer> World<B, O> {
    /// Tells what has changed since it was told last, mostly nothing, and what is wrong.
    #[inline]
    pub(super) fn tell_standing(&mut self, now: Time) {
        if !self.plan.attribution.is_on() {
            return;
        }
        let standing = self.allocator.standing();
        if standing != self.bounds.standing {
            self.bounds.standing = standing;
            self.tell_changed_bounds(now);
        }
        self.detect(now);
    }

    #[inline(never)]
    fn tell_changed_bounds(&mut self, now: Time) {
        let Bounds { standing, told } = &mut self.bounds;
        for (class, told) in (0..).map(ClassId).zip(told) {
            let bound = standing.bound(class);
            if *told != bound {
                *told = bound;
                self.observer.observe(now, &Fact::Bound { class, bound });
            }
        }
    }
}
