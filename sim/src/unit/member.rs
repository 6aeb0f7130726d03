//! The engines of a unit, and what is heard of them.

use plimsoll_base::Time;

use crate::engine::{Batch, Engine, Listener, Note};

/// An engine of a unit.
#[derive(Debug)]
pub(super) struct Member<B> {
    pub engine: Engine<B>,
    /// Its next boundary at which something ends.
    pub due: Option<Time>,
    /// Whether it has something to begin at this instant.
    pub dirty: bool,
    /// Prompt tokens of the requests that it was given and that have not left it.
    pub outstanding: u64,
}

impl<B: Batch> Member<B> {
    pub fn new(engine: Engine<B>) -> Member<B> {
        Member { engine, due: None, dirty: false, outstanding: 0 }
    }

    /// Reaches the boundary of this instant, if there is one.
    pub fn complete(&mut self, now: Time, ear: &mut impl Listener) {
        if self.due.take_if(|due| *due == now).is_some() {
            self.dirty = true;
            self.engine.complete(now, ear);
        }
    }

    /// Begins what there is to do.
    pub fn begin(&mut self, now: Time, ear: &mut impl Listener) {
        if std::mem::take(&mut self.dirty) {
            self.due = self.engine.begin(now, ear).or(self.due);
        }
    }
}

/// The one with the fewest outstanding prompt tokens, of equals the first.
pub(super) fn least<B>(members: &[Member<B>]) -> usize {
    let outstanding = members.iter().enumerate().map(|(place, member)| (member.outstanding, place));
    outstanding.min().expect("a unit has engines of both kinds").1
}

/// Hears the engines that compute prompts: their one token is nobody's, and their end is not the
/// request's.
pub(super) struct PrefillEar<'a, L> {
    pub ear: &'a mut L,
    /// Whose prompts are computed.
    pub computed: &'a mut Vec<u32>,
    pub cancelled: &'a mut Vec<u32>,
}

impl<L: Listener> Listener for PrefillEar<'_, L> {
    fn hear(&mut self, note: Note) {
        match note {
            Note::Token { .. } => {}
            Note::Finished { key, .. } => self.computed.push(key),
            Note::Cancelled { key, .. } => {
                self.cancelled.push(key);
                self.ear.hear(note);
            }
            Note::Started { .. }
            | Note::Preempted { .. }
            | Note::Handed { .. }
            | Note::Gaps { .. } => self.ear.hear(note),
        }
    }
}

/// Hears the engines that decode.
pub(super) struct DecodeEar<'a, L> {
    pub ear: &'a mut L,
    pub started: &'a mut Vec<u32>,
    pub ended: &'a mut Vec<u32>,
}

impl<L: Listener> Listener for DecodeEar<'_, L> {
    fn hear(&mut self, note: Note) {
        match note {
            Note::Started { key } => self.started.push(key),
            Note::Finished { key, .. } | Note::Cancelled { key, .. } => self.ended.push(key),
            Note::Token { .. }
            | Note::Preempted { .. }
            | Note::Handed { .. }
            | Note::Gaps { .. } => {}
        }
        self.ear.hear(note);
    }
}
