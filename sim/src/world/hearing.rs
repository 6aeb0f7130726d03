//! What an engine does, heard by the world.

use plimsoll_base::{BackendId, Fact, Observer, Time};

use super::flight::Flights;
use crate::engine::{Listener, Note};

/// Writes what one engine does to the flights and tells the facts of it. What has finished is
/// kept for when the engine is done: others act on it.
pub(super) struct Hearing<'a, O> {
    pub engine: u32,
    pub now: Time,
    pub flights: &'a mut Flights,
    pub finished: &'a mut Vec<u32>,
    pub observer: &'a mut O,
}

impl<O: Observer> Listener for Hearing<'_, O> {
    // Where a note is made its kind is known, and only its arm remains.
    #[inline(always)]
    fn hear(&mut self, note: Note) {
        let now = self.now;
        match note {
            Note::Started { key } => self.flights[key].start(now),
            Note::Token { key } => self.flights[key].token(now),
            Note::Preempted { key, lost_tokens, delivered } => {
                let flight = &mut self.flights[key];
                flight.preempt(lost_tokens, delivered, now);
                let class = flight.record.class.expect("what runs has a class");
                let (id, backend) = (flight.record.id, BackendId::first(self.engine));
                self.observer.observe(now, &Fact::Preempted { id, class, backend, lost_tokens });
            }
            Note::Gaps { class, first, increment, count, sequences } => {
                let gaps = Fact::Gaps { class, first, increment, count, sequences };
                self.observer.observe(now, &gaps);
            }
            Note::Finished { key, gap_max } => {
                self.flights[key].finish(gap_max, now);
                self.finished.push(key);
            }
        }
    }
}
