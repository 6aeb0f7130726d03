//! Whether a run follows what waiting falls on.

/// Whether a run follows who holds what others wait for, so that every nanosecond of waiting is
/// split over what it falls on. Nothing else of a run depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attribution {
    /// It does; a request costs about a third more.
    #[default]
    On,
    /// It does not: reports say for what each class waited, not who held it.
    Off,
}

impl Attribution {
    /// Whether it is on.
    #[inline(always)]
    pub const fn is_on(self) -> bool {
        matches!(self, Attribution::On)
    }
}
