//! The attribution over time: what each class's waiting fell on, stretch by stretch.

use plimsoll_base::{Span, Time};

/// Stretches at most; when they are full neighbours merge.
const STRETCHES_MAX: usize = 256;
/// Numbers kept at most, so that many classes get fewer stretches.
const NUMBERS_MAX: usize = 1 << 19;

/// Every class's cells, in nanoseconds, up to an instant.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub at: Time,
    /// By victim row, then cell.
    pub nanos: Vec<u64>,
}

/// Marks along a run, about evenly.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    pub marks: Vec<Mark>,
    next: Time,
    width: Span,
    marks_max: usize,
}

impl Lanes {
    pub fn new(width: Span, numbers: usize) -> Lanes {
        let marks_max = (NUMBERS_MAX / numbers.max(1)).clamp(16, STRETCHES_MAX);
        Lanes { marks: Vec::new(), next: Time::ZERO + width, width, marks_max }
    }

    /// Whether a mark is due.
    #[inline(always)]
    pub fn is_due(&self, now: Time) -> bool {
        now >= self.next
    }

    pub fn push(&mut self, mark: Mark) {
        if self.marks.len() == self.marks_max {
            let mut number = 0;
            self.marks.retain(|_| {
                number += 1;
                number % 2 == 0
            });
            self.width = self.width + self.width;
        }
        self.next = mark.at.saturating_add(self.width);
        self.marks.push(mark);
    }
}
