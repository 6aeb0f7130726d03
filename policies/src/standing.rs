//! What stops each class, for those who want to know when it changes.

use plimsoll_base::{Bound, ClassId};

use crate::caps::Stops;
use crate::class_set::ClassSet;

/// Which classes wait in the allocator, and what stops each: true when dispatching last came to
/// rest. Equal values stop every class alike, so a driver compares two words and looks no further
/// while nothing has changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    pub(crate) waiting: ClassSet,
    pub(crate) stops: Stops,
}

impl Standing {
    /// What stops the requests of `class`; `None` if none of it waits.
    pub fn bound(&self, class: ClassId) -> Option<Bound> {
        if self.waiting.contains(class) { self.stops.bound(class) } else { None }
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
