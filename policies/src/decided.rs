//! Decisions on their way out.

use crate::message::Decision;

/// Decisions made and not polled yet, in order. As a rule all are polled before the next input,
/// so room is not reused one by one but all at once, when they run out.
#[derive(Debug, Default)]
pub(crate) struct Decided {
    made: Vec<Decision>,
    polled: usize,
}

impl Decided {
    pub fn push(&mut self, decision: Decision) {
        self.made.push(decision);
    }
    #[inline]
    pub fn poll(&mut self) -> Option<Decision> {
        let decision = *self.made.get(self.polled)?;
        self.polled += 1;
        if self.polled == self.made.len() {
            self.made.clear();
            self.polled = 0;
        }
        Some(decision)
    }
}
