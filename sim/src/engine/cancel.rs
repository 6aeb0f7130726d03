//! Cutting requests off.
//!
//! An engine drops a request between two steps, as vLLM aborts one: at the first boundary that is
//! later than the instant at which it was told. A step that runs is finished; a request that has
//! delivered everything by then has won the race and ends as if nothing had been said.

use plimsoll_base::{Span, Ticks, Time};

use super::batch::{Batch, Sequence};
use super::{Engine, Listener, Note};

/// A request to be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cancel {
    /// Its order of arrival at the engine: keys are used again.
    serial: u64,
    /// Not before this instant.
    pub due: Time,
}

impl<B: Batch> Engine<B> {
    /// Cuts off the request with this key at the first boundary after `now`. Unless it has
    /// delivered everything by then, or has at this instant, a [`Note::Cancelled`] follows.
    pub fn cancel(&mut self, key: u32, now: Time) {
        let computing = self.prefills.iter().map(|prefill| &prefill.sequence);
        let waiting = self.waiting.iter().chain(self.received.iter());
        let here = self.batch.sequences().chain(computing).chain(waiting);
        let sought = here.into_iter().find(|sequence| sequence.key == key);
        if let Some(&Sequence { serial, .. }) = sought {
            self.cancels.push(Cancel { serial, due: now + Span::from_nanos(1) });
        }
    }

    /// A boundary has come: cuts off what is due.
    #[inline(never)]
    pub(super) fn leave_cancelled(&mut self, now: Time, ear: &mut impl Listener) {
        let mut cancels = std::mem::take(&mut self.cancels);
        cancels.retain(|cancel| {
            let is_due = cancel.due <= now;
            if is_due && let Some(sequence) = self.take_out(cancel.serial) {
                self.blocks_free += self.blocks_for(sequence.context);
                let Sequence { key, context: lost_tokens, delivered, .. } = sequence;
                let gap_max = Ticks(sequence.gap_max).span_floor();
                ear.hear(Note::Cancelled { key, lost_tokens, delivered, gap_max });
            }
            !is_due
        });
        self.cancels = cancels;
    }

    /// Takes out a sequence wherever it is; `None` if it has left.
    fn take_out(&mut self, serial: u64) -> Option<Sequence> {
        let is_sought = |sequence: &Sequence| sequence.serial == serial;
        let decoding = self.batch.sequences().find(|sequence| is_sought(sequence));
        if let Some(entry) = decoding.map(|sequence| sequence.entry) {
            self.divide_shared();
            return Some(self.batch.remove(entry));
        }
        if let Some(at) = self.prefills.iter().position(|prefill| is_sought(&prefill.sequence)) {
            return Some(self.prefills.remove(at).sequence);
        }
        // One that was received holds the block of the token that was to be computed here.
        let received = |sequence: Sequence| Sequence { context: sequence.prompt, ..sequence };
        self.waiting.remove(serial).or_else(|| self.received.remove(serial).map(received))
    }
}
