//! A resource that serves: customers queue for one of several equal servers.

use std::collections::VecDeque;

use plimsoll_base::{Span, Time};

use super::statistics::{Level, Tally};

/// Equal servers behind one first-come-first-served queue, with an optional limit on how many
/// customers are inside (waiting or in service). The station knows no service times: whoever
/// owns it schedules the completion of each customer that begins, and tells it with
/// [`leave`](Station::leave).
///
/// An M/M/1 queue, whose theory says 1 / (1 − 0.5) = 2 seconds in the system at half load:
///
/// ```
/// use plimsoll_base::{Span, Stream, StreamKey, Time};
/// use plimsoll_sim::kernel::{Agenda, Entry, Rank, Station, World, advance};
///
/// enum Event { Arrival, Completion }
/// struct Queue { station: Station<()>, random: Stream }
///
/// impl World for Queue {
///     type Event = Event;
///     fn handle(&mut self, now: Time, event: Event, agenda: &mut Agenda<Event>) {
///         let begins = match event {
///             Event::Arrival => {
///                 let gap = Span::from_secs_f64(self.random.exponential() / 0.5);
///                 agenda.schedule(now + gap, Rank::Arrival, Event::Arrival);
///                 matches!(self.station.enter(now, ()), Entry::Begins(()))
///             }
///             Event::Completion => self.station.leave(now).is_some(),
///         };
///         if begins {
///             let service = Span::from_secs_f64(self.random.exponential());
///             agenda.schedule(now + service, Rank::Completion, Event::Completion);
///         }
///     }
/// }
///
/// let random = Stream::new(StreamKey { seed: 1, replication: 0, name: "doc", entity: 0 });
/// let mut queue = Queue { station: Station::new(1), random };
/// let mut agenda = Agenda::new();
/// agenda.schedule(Time::ZERO, Rank::Arrival, Event::Arrival);
/// let end = advance(&mut queue, &mut agenda, 400_000).now;
/// let inside = queue.station.inside().mean(end).expect("time has passed");
/// assert!((inside / 0.5 - 2.0).abs() < 0.1, "Little's law: L / λ = W, here {}", inside / 0.5);
/// ```
#[derive(Clone, Debug)]
pub struct Station<C> {
    servers: u64,
    capacity: u64,
    /// Who waits, and since when.
    queue: VecDeque<(Time, C)>,
    inside: Level,
    busy: Level,
    waits: Tally,
    refused: u64,
}

/// What becomes of a customer that wants to enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<C> {
    /// A server is free: service begins now.
    Begins(C),
    /// It waits; some [`Station::leave`] will hand it back when its service begins.
    Waits,
    /// The station is full.
    Refused(C),
}

impl<C> Station<C> {
    /// A station with `servers` servers (at least one) and room for everybody.
    pub fn new(servers: u32) -> Self {
        assert!(servers > 0, "a station has a server");
        Station {
            servers: servers.into(),
            capacity: u64::MAX,
            queue: VecDeque::new(),
            inside: Level::default(),
            busy: Level::default(),
            waits: Tally::default(),
            refused: 0,
        }
    }

    /// The same with room for `capacity` customers, those in service included.
    pub fn with_capacity(mut self, capacity: u32) -> Self {
        assert!(u64::from(capacity) >= self.servers, "every server can be used");
        self.capacity = capacity.into();
        self
    }

    /// A customer comes. If it [begins](Entry::Begins), the caller schedules its completion.
    pub fn enter(&mut self, now: Time, customer: C) -> Entry<C> {
        if self.inside.value() == self.capacity {
            self.refused += 1;
            return Entry::Refused(customer);
        }
        self.inside.set(now, self.inside.value() + 1);
        if self.busy.value() == self.servers {
            self.queue.push_back((now, customer));
            return Entry::Waits;
        }
        self.busy.set(now, self.busy.value() + 1);
        self.waits.record(Span::ZERO);
        Entry::Begins(customer)
    }

    /// A customer in service is done and leaves. Returns who begins in its place: the caller
    /// schedules that one's completion.
    pub fn leave(&mut self, now: Time) -> Option<C> {
        assert!(self.busy.value() > 0, "only a customer in service leaves");
        self.inside.set(now, self.inside.value() - 1);
        let Some((came, next)) = self.queue.pop_front() else {
            self.busy.set(now, self.busy.value() - 1);
            return None;
        };
        self.waits.record(now - came);
        Some(next)
    }

    /// Customers inside, waiting or in service.
    pub fn inside(&self) -> &Level {
        &self.inside
    }

    /// Servers at work; its mean over the number of servers is the utilization.
    pub fn busy(&self) -> &Level {
        &self.busy
    }

    /// From coming to beginning, one entry a customer that began.
    pub fn waits(&self) -> &Tally {
        &self.waits
    }

    /// How many were refused.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Statistics begin at `now`; customers stay. The wait of one that came earlier and begins
    /// later counts whole.
    pub fn restart_statistics(&mut self, now: Time) {
        self.inside.restart(now);
        self.busy.restart(now);
        self.waits = Tally::default();
        self.refused = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served_up_to_its_capacity() {
        let at = Time::from_nanos;
        let mut station = Station::new(2).with_capacity(4);
        assert_eq!(station.enter(at(0), 'a'), Entry::Begins('a'));
        assert_eq!(station.enter(at(0), 'b'), Entry::Begins('b'));
        assert_eq!(station.enter(at(1), 'c'), Entry::Waits);
        assert_eq!(station.enter(at(2), 'd'), Entry::Waits);
        assert_eq!(station.enter(at(3), 'e'), Entry::Refused('e'));
        assert_eq!(station.leave(at(5)), Some('c'));
        assert_eq!(station.enter(at(5), 'f'), Entry::Waits);
        assert_eq!(station.leave(at(7)), Some('d'));
        assert_eq!(station.leave(at(9)), Some('f'));
        assert_eq!((station.leave(at(10)), station.leave(at(10))), (None, None));
        assert_eq!((station.inside().value(), station.busy().value()), (0, 0));
        assert_eq!((station.refused(), station.inside().peak()), (1, 4));
        // Waits: a 0, b 0, c 4, d 5, f 4. Each second a server worked is one customer served.
        assert_eq!((station.waits().count(), station.waits().nanos()), (5, 13));
        assert_eq!(station.waits().longest(), Span::from_nanos(5));
        assert_eq!(station.busy().area(at(10)), 2 * 10);
        // Little's law holds to the nanosecond: waits and services, summed over customers.
        assert_eq!(station.inside().area(at(10)), 13 + 2 * 10);
    }

    #[test]
    #[should_panic(expected = "only a customer in service leaves")]
    fn nobody_leaves_an_empty_station() {
        Station::<()>::new(1).leave(Time::ZERO);
    }
}
