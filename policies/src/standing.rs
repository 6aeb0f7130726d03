//! What stops each class, for those who want to know when it changes.

use plimsoll_base::{Bound, ClassId};

use crate::caps::Stops;
use crate::class_set::ClassSet;
use crate::heavy_lane::Queues;

/// Which classes wait in the allocator, and what stops each: true when dispatching last came to
/// rest. Equal values stop every class alike, so a driver compares two words and looks no further
/// while nothing has changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    pub(crate) queues: Queues,
    pub(crate) waiting: ClassSet,
    pub(crate) stops: Stops,
}

impl Standing {
    /// What stops the requests of `class`, the light ones where some wait; `None` if none of it
    /// waits.
    pub fn bound(&self, class: ClassId) -> Option<Bound> {
        let own = self.queues.of(ClassSet::from_iter([class]));
        let queue = own.and(self.waiting).next()?;
        self.stops.bound(class, queue)
    }

    /// Whether somebody waits.
    pub fn is_anyone_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// While nobody waits, what stopped whoever waited last is of no meaning.
impl PartialEq for Standing {
    #[inline]
    fn eq(&self, other: &Standing) -> bool {
        self.waiting == other.waiting && (self.waiting.is_empty() || self.stops == other.stops)
    }
}
impl Eq for Standing {}
