//! What an engine does, heard by the world.

use plimsoll_base::{BackendId, End, Fact, Observer, Time};

use super::flight::Flights;
use super::telling::Telling;
use crate::engine::{Listener, Note};

/// What is written down of a run: in one place, so that who hears an engine holds one reference.
pub(super) struct Records<O> {
    pub flights: Flights,
    /// Keys of the requests that an engine has just ended, and how; nobody else was told of it.
    pub finished: Vec<(u32, End)>,
    pub telling: Telling,
    pub observer: O,
}

/// Writes what one engine does to the flights and tells the facts of it. What has ended is
/// kept for when the engine is done: others act on it.
pub(super) struct Hearing<'a, O> {
    pub engine: u32,
    pub now: Time,
    pub records: &'a mut Records<O>,
}

impl<O: Observer> Listener for Hearing<'_, O> {
    // Where a note is made its kind is known, and only its arm remains.
    #[inline(always)]
    fn hear(&mut self, note: Note) {
        let now = self.now;
        let Records { flights, finished, telling, observer } = &mut *self.records;
        match note {
            Note::Started { key } => {
                let flight = &mut flights[key];
                telling.started(self.engine, flight, now);
                flight.start(now);
                let record = &flight.record;
                let (id, arrived) = (record.id, record.arrived);
                let class = record.class.expect("what runs has a class");
                let backend = BackendId::first(self.engine);
                observer.observe(now, &Fact::Started { id, class, backend, arrived });
            }
            Note::Token { key } => {
                let flight = &mut flights[key];
                telling.token(flight);
                flight.token(now);
            }
            Note::Preempted { key, lost_tokens, delivered } => {
                let flight = &mut flights[key];
                flight.preempt(lost_tokens, delivered, now);
                let class = flight.record.class.expect("what runs has a class");
                let (id, arrived) = (flight.record.id, flight.record.arrived);
                let backend = BackendId::first(self.engine);
                let fact = Fact::Preempted { id, class, backend, arrived, lost_tokens };
                observer.observe(now, &fact);
            }
            Note::Handed { key, stage } => {
                let flight = &mut flights[key];
                flight.hand(stage, now);
                let record = &flight.record;
                let (id, arrived, tokens) = (record.id, record.arrived, record.prompt_tokens);
                let class = record.class.expect("what runs has a class");
                let backend = BackendId::first(self.engine);
                let fact = Fact::Handed { id, class, backend, arrived, tokens, stage };
                observer.observe(now, &fact);
            }
            Note::Gaps { class, first, increment, count, sequences } => {
                let gaps = Fact::Gaps { class, first, increment, count, sequences };
                observer.observe(now, &gaps);
            }
            Note::Cancelled { key, lost_tokens, delivered, gap_max } => {
                flights[key].evict(lost_tokens, (delivered, gap_max), now);
                finished.push((key, End::Evicted));
            }
            Note::Finished { key, gap_max } => {
                flights[key].finish(gap_max, now);
                finished.push((key, End::Finished));
            }
        }
    }
}
