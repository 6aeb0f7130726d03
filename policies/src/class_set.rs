//! Sets of classes. A policy has at most 64 classes, so a set is one word.

use plimsoll_base::ClassId;

/// Classes a policy may have.
pub(crate) const CLASSES_MAX: usize = 64;

/// A set of classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClassSet(u64);

impl ClassSet {
    pub const EMPTY: ClassSet = ClassSet(0);
    /// All classes there may be.
    pub const ALL: ClassSet = ClassSet(u64::MAX);

    pub fn insert(&mut self, class: ClassId) {
        self.0 |= 1 << class.0;
    }
    pub fn remove(&mut self, class: ClassId) {
        self.0 &= !(1 << class.0);
    }
    pub fn contains(self, class: ClassId) -> bool {
        self.0 >> class.0 & 1 == 1
    }
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    pub fn and(self, other: ClassSet) -> ClassSet {
        ClassSet(self.0 & other.0)
    }
    pub fn without(self, other: ClassSet) -> ClassSet {
        ClassSet(self.0 & !other.0)
    }
    pub fn or(self, other: ClassSet) -> ClassSet {
        ClassSet(self.0 | other.0)
    }
    /// Each member's number raised by `by`; those past the last are gone.
    pub fn shifted_up(self, by: u16) -> ClassSet {
        ClassSet(self.0.checked_shl(by.into()).unwrap_or(0))
    }
    /// Each member's number lowered by `by`; those before the first are gone.
    pub fn shifted_down(self, by: u16) -> ClassSet {
        ClassSet(self.0.checked_shr(by.into()).unwrap_or(0))
    }
    /// All from this number on.
    pub fn from_number(number: u16) -> ClassSet {
        ClassSet(u64::MAX).shifted_up(number)
    }
    pub fn meets(self, other: ClassSet) -> bool {
        self.0 & other.0 != 0
    }
}

/// The members in ascending order.
impl Iterator for ClassSet {
    type Item = ClassId;

    fn next(&mut self) -> Option<ClassId> {
        if self.0 == 0 {
            return None;
        }
        let class = ClassId(self.0.trailing_zeros() as u16);
        self.0 &= self.0 - 1;
        Some(class)
    }
}

impl FromIterator<ClassId> for ClassSet {
    fn from_iter<I: IntoIterator<Item = ClassId>>(classes: I) -> ClassSet {
        let mut set = ClassSet::EMPTY;
        classes.into_iter().for_each(|class| set.insert(class));
        set
    }
}
