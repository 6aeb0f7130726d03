//! The loop: a world and its agenda, advanced.

use plimsoll_base::Time;

use super::agenda::{VACANT, floor, time_of};
use super::{Agenda, Rank};

/// All state of a simulation, changed by one event at a time.
pub trait World {
    /// What can happen.
    type Event;

    /// `event` happens at `now`. What follows from it is scheduled on `agenda`.
    fn handle(&mut self, now: Time, event: Self::Event, agenda: &mut Agenda<Self::Event>);

    /// Everything but telemetry has happened at `now`. If this schedules such events at `now`,
    /// they happen and `settle` is called again; telemetry of this instant comes after.
    fn settle(&mut self, _now: Time, _agenda: &mut Agenda<Self::Event>) {}
}

/// How far [`advance`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Events handled by this call.
    pub events: u64,
    /// The instant of the last of them; [`Time::ZERO`] if there was none.
    pub now: Time,
    /// Whether the agenda is empty.
    pub done: bool,
}

/// Events at one instant at most: beyond, the world is taken to be caught in a loop.
const INSTANT_EVENTS_MAX: u64 = 1 << 32;

/// Runs about `events_max` events, then returns, so that the caller can show progress or stop.
/// It runs over where an instant has begun: the events of an instant and their
/// [`settle`](World::settle) are never split.
///
/// # Panics
/// If 2³² events happen at one instant.
pub fn advance<W: World>(
    world: &mut W,
    agenda: &mut Agenda<W::Event>,
    events_max: u64,
) -> Progress {
    let mut now = Time::ZERO;
    // Handled so far, and before this instant.
    let (mut events, mut events_before) = (0, 0);
    let mut next = agenda.least();
    while next != VACANT && events < events_max {
        if time_of(next) > now {
            (now, events_before) = (time_of(next), events);
        } else {
            assert_in_time(now, events - events_before);
        }
        // Keys below happen at this instant, before its telemetry.
        let telemetry = floor(now, Rank::Telemetry);
        loop {
            let unsettled = next < telemetry;
            let event = agenda.take(next);
            world.handle(now, event, agenda);
            events += 1;
            // The hole that `take` left stays for what handling or settling schedules.
            next = agenda.least();
            if unsettled && next >= telemetry {
                world.settle(now, agenda);
                next = agenda.least();
            }
            if next >= telemetry {
                break;
            }
            assert_in_time(now, events - events_before);
        }
    }
    Progress { events, now, done: next == VACANT }
}

/// Few instants have more than one event: only those pay for this.
fn assert_in_time(now: Time, events: u64) {
    assert!(events < INSTANT_EVENTS_MAX, "time moves on past {now:?}");
}

#[cfg(test)]
mod tests {
    use plimsoll_base::Span;

    use super::*;

    /// Writes down what happens; its first settling at an instant starts something there.
    #[derive(Default)]
    struct Diary {
        lines: Vec<(u64, &'static str)>,
        begun_at: Option<Time>,
    }

    impl World for Diary {
        type Event = &'static str;

        fn handle(&mut self, now: Time, event: &'static str, agenda: &mut Agenda<&'static str>) {
            self.lines.push((now.nanos(), event));
            if event == "arrive" && now < Time::from_nanos(2) {
                agenda.schedule(now + Span::from_nanos(1), Rank::Arrival, "arrive");
            }
        }

        fn settle(&mut self, now: Time, agenda: &mut Agenda<&'static str>) {
            self.lines.push((now.nanos(), "settle"));
            if self.begun_at != Some(now) {
                self.begun_at = Some(now);
                agenda.schedule(now, Rank::Begin, "begin");
            }
        }
    }

    fn start() -> (Diary, Agenda<&'static str>) {
        let mut agenda = Agenda::new();
        for (nanos, rank, event) in [
            (1, Rank::Telemetry, "look"),
            (1, Rank::Arrival, "arrive"),
            (1, Rank::Completion, "complete"),
            (5, Rank::Telemetry, "look"),
        ] {
            agenda.schedule(Time::from_nanos(nanos), rank, event);
        }
        (Diary::default(), agenda)
    }

    const EXPECTED: [(u64, &str); 11] = [
        (1, "complete"),
        (1, "arrive"),
        (1, "settle"),
        (1, "begin"),
        (1, "settle"),
        (1, "look"),
        (2, "arrive"),
        (2, "settle"),
        (2, "begin"),
        (2, "settle"),
        (5, "look"),
    ];

    #[test]
    fn an_instant_settles_before_its_telemetry() {
        let (mut diary, mut agenda) = start();
        let progress = advance(&mut diary, &mut agenda, u64::MAX);
        assert_eq!(diary.lines, EXPECTED);
        assert_eq!(progress, Progress { events: 7, now: Time::from_nanos(5), done: true });
    }

    #[test]
    fn stopping_anywhere_changes_nothing() {
        let (mut diary, mut agenda) = start();
        let mut stops = Vec::new();
        while !advance(&mut diary, &mut agenda, 1).done {
            let last = diary.lines.last().expect("an event was handled").1;
            assert!(["settle", "look"].contains(&last), "split after {last}");
            stops.push(diary.lines.len());
        }
        assert_eq!(diary.lines, EXPECTED);
        assert_eq!(stops, [5, 6, 10]);
    }
}
