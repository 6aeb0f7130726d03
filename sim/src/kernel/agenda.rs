//! The future event list.

use std::hint::select_unpredictable;

use plimsoll_base::Time;

/// Which of several events at one instant comes first. Equal instants order by rank, then by
/// sequence: the order in which they were scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Rank {
    /// Something ends: what it held is free before anything else at this instant asks for it.
    Completion,
    /// Something comes in.
    Arrival,
    /// Somebody decides, knowing all that ended and came in at this instant.
    Decision,
    /// Something starts on what was decided.
    Begin,
    /// Somebody looks, after everything else at this instant has happened.
    Telemetry,
}

const RANKS: [Rank; 5] =
    [Rank::Completion, Rank::Arrival, Rank::Decision, Rank::Begin, Rank::Telemetry];

/// A scheduled event, to cancel or move it. Stale once the event was popped or cancelled: the
/// agenda then knows it no more (until one slot was reused 2³² times).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    slot: u32,
    generation: u32,
}

/// The future event list, ordered by (time, rank, sequence).
///
/// A winner tree over slots, one slot an event. Every operation replays one path from a leaf to
/// the root, and `pop` replays none: it leaves a hole that the next `schedule` refills, so that
/// an event that schedules its successor costs one path. Slots are reused, last freed first, and
/// doubled when they run out; memory follows the most events that were ever pending at once.
#[derive(Clone, Debug)]
pub struct Agenda<E> {
    /// One a slot; [`VACANT`] where it holds no event.
    keys: Vec<Key>,
    slots: Vec<Slot<E>>,
    /// A complete binary tree, the root at 1 and the leaf of slot `s` at `keys.len() + s`. Each
    /// node names the slot with the least key below it; right everywhere but above `hole`.
    winners: Vec<u32>,
    /// A slot just vacated: its key is `VACANT`, the nodes above its leaf still name the past.
    hole: Option<u32>,
    free: Vec<u32>,
    pending: usize,
    sequence: u64,
    /// The instant of the last popped event.
    now: Time,
}

/// Time above, then rank, then sequence.
type Key = u128;
const VACANT: Key = Key::MAX;
const SEQUENCE_BITS: u32 = 56;
const CAPACITY_MIN: usize = 4;

#[derive(Clone, Debug)]
struct Slot<E> {
    generation: u32,
    event: Option<E>,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Agenda::new()
    }
}

impl<E> Agenda<E> {
    /// An agenda without events, before which nothing has happened.
    pub fn new() -> Self {
        let mut agenda = Agenda {
            keys: Vec::new(),
            slots: Vec::new(),
            winners: Vec::new(),
            hole: None,
            free: Vec::new(),
            pending: 0,
            sequence: 0,
            now: Time::ZERO,
        };
        agenda.grow(CAPACITY_MIN);
        agenda
    }

    /// Schedules `event` at `at`, after every event with the same instant and rank.
    ///
    /// # Panics
    /// If `at` lies before the instant of the last popped event.
    pub fn schedule(&mut self, at: Time, rank: Rank, event: E) -> EventId {
        let key = self.key(at, rank);
        let slot = self.hole.take().unwrap_or_else(|| self.take_free());
        let place = &mut self.slots[slot as usize];
        place.event = Some(event);
        let id = EventId { slot, generation: place.generation };
        self.pending += 1;
        self.replay(slot, key);
        id
    }

    /// Takes the event off the agenda; `None` if it was popped or cancelled before.
    pub fn cancel(&mut self, id: EventId) -> Option<E> {
        self.is_pending(id).then(|| self.vacate(id.slot))
    }

    /// Moves the event to `at` and `rank`, after every event there; `false` if it was popped or
    /// cancelled before.
    ///
    /// # Panics
    /// If `at` lies before the instant of the last popped event.
    pub fn reschedule(&mut self, id: EventId, at: Time, rank: Rank) -> bool {
        if !self.is_pending(id) {
            return false;
        }
        let key = self.key(at, rank);
        // A hole elsewhere stays: its repair recomputes every node the two paths share.
        self.replay(id.slot, key);
        true
    }

    /// The instant of the earliest event.
    pub fn next_at(&self) -> Option<Time> {
        self.peek().map(|(at, _)| at)
    }

    /// Instant and rank of the earliest event.
    pub fn peek(&self) -> Option<(Time, Rank)> {
        let key = match self.hole {
            None => self.keys[self.winners[1] as usize],
            Some(hole) => self.least_beside(hole),
        };
        (key != VACANT).then(|| (time_of(key), rank_of(key)))
    }

    /// Takes the earliest event off the agenda.
    pub fn pop(&mut self) -> Option<(Time, E)> {
        self.repair();
        let slot = self.winners[1];
        let key = self.keys[slot as usize];
        if key == VACANT {
            return None;
        }
        self.now = time_of(key);
        Some((self.now, self.vacate(slot)))
    }

    /// How many events are pending.
    pub fn len(&self) -> usize {
        self.pending
    }

    /// Whether no event is pending.
    pub fn is_empty(&self) -> bool {
        self.pending == 0
    }

    /// Gives the hole back, if there is one, so that [`peek`](Self::peek) is one look.
    pub(super) fn repair(&mut self) {
        if let Some(hole) = self.hole.take() {
            self.replay(hole, VACANT);
            self.free.push(hole);
        }
    }

    fn key(&mut self, at: Time, rank: Rank) -> Key {
        assert!(
            at >= self.now,
            "no event lies before the last popped one: {at:?} < {:?}",
            self.now
        );
        self.sequence += 1;
        debug_assert!(self.sequence >> SEQUENCE_BITS == 0, "a run has fewer than 2^56 events");
        let order = (rank as u64) << SEQUENCE_BITS | self.sequence;
        Key::from(at.nanos()) << 64 | Key::from(order)
    }

    fn is_pending(&self, id: EventId) -> bool {
        let place = &self.slots[id.slot as usize];
        place.generation == id.generation && place.event.is_some()
    }

    fn vacate(&mut self, slot: u32) -> E {
        self.repair();
        self.hole = Some(slot);
        self.keys[slot as usize] = VACANT;
        self.pending -= 1;
        let place = &mut self.slots[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        place.event.take().expect("a slot with a key holds an event")
    }

    fn take_free(&mut self) -> u32 {
        if self.free.is_empty() {
            self.grow(self.keys.len() * 2);
        }
        self.free.pop().expect("growing frees slots")
    }

    /// Gives the slot its key and names the winners on the path from its leaf to the root. The
    /// selection has no branch: which of two events is earlier is a coin toss to the processor.
    fn replay(&mut self, slot: u32, key: Key) {
        self.keys[slot as usize] = key;
        let (mut winner, mut least) = (slot, key);
        let mut node = self.keys.len() + slot as usize;
        while node > 1 {
            let rival = self.winners[node ^ 1];
            let rival_key = self.keys[rival as usize];
            let loses = rival_key < least;
            winner = select_unpredictable(loses, rival, winner);
            least = select_unpredictable(loses, rival_key, least);
            node >>= 1;
            self.winners[node] = winner;
        }
    }

    /// The least key but that of `slot`, whose path may be out of date.
    fn least_beside(&self, slot: u32) -> Key {
        let mut node = self.keys.len() + slot as usize;
        let mut least = VACANT;
        while node > 1 {
            least = least.min(self.keys[self.winners[node ^ 1] as usize]);
            node >>= 1;
        }
        least
    }

    fn grow(&mut self, capacity: usize) {
        let old = self.keys.len() as u32;
        let slots = u32::try_from(capacity).expect("fewer than 2^32 events are pending at once");
        self.keys.resize(capacity, VACANT);
        self.slots.resize_with(capacity, || Slot { generation: 0, event: None });
        self.free.extend((old..slots).rev());
        self.winners = vec![0; capacity];
        self.winners.extend(0..slots);
        for node in (1..capacity).rev() {
            let [left, right] = [self.winners[2 * node], self.winners[2 * node + 1]];
            let right_wins = self.keys[right as usize] < self.keys[left as usize];
            self.winners[node] = if right_wins { right } else { left };
        }
    }
}

fn time_of(key: Key) -> Time {
    Time::from_nanos((key >> 64) as u64)
}

fn rank_of(key: Key) -> Rank {
    RANKS[(key as u64 >> SEQUENCE_BITS) as usize]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    #[derive(Clone, Debug)]
    enum Op {
        Schedule(u64, usize),
        Cancel(usize),
        Reschedule(usize, u64, usize),
        Pop,
        Peek,
    }

    fn op() -> impl Strategy<Value = Op> {
        // Few distinct delays, so that many events meet at one instant.
        prop_oneof![
            4 => (0..6u64, 0..5usize).prop_map(|(delay, rank)| Op::Schedule(delay, rank)),
            1 => any::<usize>().prop_map(Op::Cancel),
            1 => (any::<usize>(), 0..6u64, 0..5usize).prop_map(|(i, d, r)| Op::Reschedule(i, d, r)),
            3 => Just(Op::Pop),
            1 => Just(Op::Peek),
        ]
    }

    /// The same promises, kept the obvious way: a list that is sorted after every change.
    #[derive(Default)]
    struct Sorted {
        events: Vec<((Time, Rank, u64), usize)>,
        sequence: u64,
        now: Time,
    }

    impl Sorted {
        fn put(&mut self, delay: u64, rank: usize, event: usize) -> (Time, Rank) {
            let (at, rank) = (Time::from_nanos(self.now.nanos() + delay), RANKS[rank]);
            self.sequence += 1;
            self.events.push(((at, rank, self.sequence), event));
            self.events.sort();
            (at, rank)
        }
        fn remove(&mut self, event: usize) -> bool {
            let before = self.events.len();
            self.events.retain(|(_, e)| *e != event);
            self.events.len() < before
        }
        fn pop(&mut self) -> Option<(Time, usize)> {
            let ((at, _, _), event) = (!self.events.is_empty()).then(|| self.events.remove(0))?;
            self.now = at;
            Some((at, event))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn behaves_like_a_sorted_list(ops in prop::collection::vec(op(), 0..400)) {
            let mut agenda = Agenda::new();
            let mut sorted = Sorted::default();
            // Every id ever given; stale ones are used too.
            let mut ids: Vec<EventId> = Vec::new();
            for op in ops {
                match op {
                    Op::Schedule(delay, rank) => {
                        let (at, rank) = sorted.put(delay, rank, ids.len());
                        ids.push(agenda.schedule(at, rank, ids.len()));
                    }
                    Op::Cancel(i) if !ids.is_empty() => {
                        let i = i % ids.len();
                        prop_assert_eq!(agenda.cancel(ids[i]), sorted.remove(i).then_some(i));
                    }
                    Op::Reschedule(i, delay, rank) if !ids.is_empty() => {
                        let i = i % ids.len();
                        let known = sorted.remove(i);
                        let to = Time::from_nanos(sorted.now.nanos() + delay);
                        if known {
                            sorted.put(delay, rank, i);
                        }
                        prop_assert_eq!(agenda.reschedule(ids[i], to, RANKS[rank]), known);
                    }
                    Op::Cancel(_) | Op::Reschedule(..) => {}
                    Op::Pop => prop_assert_eq!(agenda.pop(), sorted.pop()),
                    Op::Peek => {
                        let first = sorted.events.first().map(|((at, rank, _), _)| (*at, *rank));
                        prop_assert_eq!(agenda.peek(), first);
                        prop_assert_eq!(agenda.next_at(), first.map(|(at, _)| at));
                    }
                }
                prop_assert_eq!(agenda.len(), sorted.events.len());
            }
            while let Some(expected) = sorted.pop() {
                prop_assert_eq!(agenda.pop(), Some(expected));
            }
            prop_assert!(agenda.is_empty() && agenda.pop().is_none() && agenda.peek().is_none());
        }
    }

    #[test]
    fn equal_instants_order_by_rank_then_by_sequence() {
        let mut agenda = Agenda::new();
        for rank in RANKS.into_iter().rev() {
            agenda.schedule(at(7), rank, (rank, 'a'));
            agenda.schedule(at(7), rank, (rank, 'b'));
        }
        let popped: Vec<_> = std::iter::from_fn(|| agenda.pop()).map(|(_, event)| event).collect();
        let expected: Vec<_> = RANKS.iter().flat_map(|rank| [(*rank, 'a'), (*rank, 'b')]).collect();
        assert_eq!(popped, expected);
    }

    #[test]
    fn a_moved_event_goes_behind_its_equals() {
        let mut agenda = Agenda::new();
        let first = agenda.schedule(at(1), Rank::Begin, "first");
        agenda.schedule(at(1), Rank::Begin, "second");
        assert!(agenda.reschedule(first, at(1), Rank::Begin));
        assert_eq!(agenda.pop(), Some((at(1), "second")));
    }

    #[test]
    fn slots_are_reused() {
        let mut agenda = Agenda::new();
        for i in 0..10_000 {
            for delay in 0..5 {
                agenda.schedule(at(10 * i + delay), Rank::Begin, ());
            }
            for _ in 0..5 {
                agenda.pop();
            }
        }
        assert_eq!(agenda.keys.len(), 8, "five pending events need eight slots");
    }

    #[test]
    #[should_panic(expected = "no event lies before the last popped one")]
    fn the_past_is_closed() {
        let mut agenda = Agenda::new();
        agenda.schedule(at(5), Rank::Begin, ());
        agenda.pop();
        agenda.schedule(at(4), Rank::Begin, ());
    }
}
