//! The future event list.

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
/// One slot an event; slots are reused, last freed first, and doubled when they run out, so that
/// memory follows the most events that were ever pending at once. While there are few slots the
/// events' keys are a sorted list. Then they are a winner tree over the slots: every operation
/// replays one path from a leaf to the root, and `pop` replays none: it leaves a hole that the
/// next `schedule` refills, so that an event that schedules its successor costs one path.
#[derive(Clone, Debug)]
pub struct Agenda<E> {
    /// Of at most [`LISTED_SLOTS`] slots: the keys, the earliest last, behind one that is
    /// [`VACANT`]; and how many they are.
    list: [Key; LISTED_SLOTS + 1],
    listed: usize,
    /// Of more slots: a complete binary tree of keys, the root at 1 and the leaf of slot `s` at
    /// `slots.len() + s`: [`VACANT`] where the slot holds no event. Each node is the lesser of
    /// the two below it; right everywhere but above `hole`.
    tree: Vec<Key>,
    /// As many as the tree has leaves, a power of two.
    slots: Vec<Slot<E>>,
    /// The slot just vacated, or [`NONE`]: its leaf is `VACANT`, the nodes above still hold the
    /// past.
    hole: u32,
    free: Vec<u32>,
    sequence: u64,
    /// The instant of the last popped event.
    now: Time,
}

/// From the top: 64 bits of time, 3 of rank, 39 of sequence, 22 of slot. Sequences differ, so
/// that slots decide nothing.
pub(super) type Key = u128;
pub(super) const VACANT: Key = Key::MAX;
const SLOT_BITS: u32 = 22;
const RANK_SHIFT: u32 = 61;
const SEQUENCE_MAX: u64 = (1 << (RANK_SHIFT - SLOT_BITS)) - 1;
const SLOTS_MAX: usize = 1 << SLOT_BITS;
const SLOTS_MIN: usize = 4;
/// No slot.
const NONE: u32 = u32::MAX;
/// So many keys are kept sorted faster than a path is replayed.
const LISTED_SLOTS: usize = 16;

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
            list: [VACANT; LISTED_SLOTS + 1],
            listed: 0,
            tree: Vec::new(),
            slots: Vec::new(),
            hole: NONE,
            free: Vec::new(),
            sequence: 0,
            now: Time::ZERO,
        };
        agenda.grow(SLOTS_MIN);
        agenda
    }

    /// Schedules `event` at `at`, after every event with the same instant and rank.
    ///
    /// # Panics
    /// If `at` lies before the instant of the last popped event, if 4 million (2²²) events are
    /// pending already, or at the 550 billionth (2³⁹) call in the life of the agenda.
    #[inline(always)]
    pub fn schedule(&mut self, at: Time, rank: Rank, event: E) -> EventId {
        let slot = match std::mem::replace(&mut self.hole, NONE) {
            NONE => self.take_free(),
            hole => hole,
        };
        let key = self.key(at, rank, slot);
        let place = &mut self.slots[slot as usize];
        place.event = Some(event);
        let id = EventId { slot, generation: place.generation };
        if self.is_listed() {
            self.enlist(key);
        } else {
            self.replay(slot, key);
        }
        id
    }

    /// Takes the event off the agenda; `None` if it was popped or cancelled before.
    pub fn cancel(&mut self, id: EventId) -> Option<E> {
        if !self.is_pending(id) {
            return None;
        }
        if self.is_listed() {
            self.strike(id.slot);
        }
        Some(self.vacate(id.slot))
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
        let key = self.key(at, rank, id.slot);
        if self.is_listed() {
            self.strike(id.slot);
            self.enlist(key);
        } else {
            // A hole elsewhere stays: its repair recomputes every node the two paths share.
            self.replay(id.slot, key);
        }
        true
    }

    /// The instant of the earliest event.
    pub fn next_at(&self) -> Option<Time> {
        self.peek().map(|(at, _)| at)
    }

    /// Instant and rank of the earliest event.
    pub fn peek(&self) -> Option<(Time, Rank)> {
        let key = self.least();
        (key != VACANT).then(|| (time_of(key), rank_of(key)))
    }

    /// Takes the earliest event off the agenda.
    pub fn pop(&mut self) -> Option<(Time, E)> {
        let key = self.least();
        (key != VACANT).then(|| (time_of(key), self.take(key)))
    }

    /// The key of the earliest event, [`VACANT`] if there is none.
    #[inline]
    pub(super) fn least(&self) -> Key {
        if self.is_listed() {
            return self.list[self.listed];
        }
        match self.hole {
            NONE => self.tree[1],
            hole => self.least_beside(hole),
        }
    }

    /// Takes off the earliest event, whose key is `least`.
    #[inline(always)]
    pub(super) fn take(&mut self, least: Key) -> E {
        self.now = time_of(least);
        if self.is_listed() {
            self.listed -= 1;
        }
        self.vacate(slot_of(least))
    }

    /// How many events are pending.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len() - usize::from(self.hole != NONE)
    }

    /// Whether no event is pending.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_listed(&self) -> bool {
        self.slots.len() <= LISTED_SLOTS
    }

    /// Takes a slot's key out of the list.
    fn strike(&mut self, slot: u32) {
        let list = &mut self.list[..=self.listed];
        let place = list.iter().position(|&key| slot_of(key) == slot);
        let place = place.expect("an event of few is in the list");
        list.copy_within(place + 1.., place);
        self.listed -= 1;
    }

    /// Adds a key to the list, where it belongs.
    fn enlist(&mut self, key: Key) {
        self.listed += 1;
        let mut places = self.list[..=self.listed].iter_mut().rev();
        let mut gap = places.next().expect("the list has room for all slots");
        for earlier in places.take_while(|earlier| **earlier < key) {
            *gap = *earlier;
            gap = earlier;
        }
        *gap = key;
    }

    fn key(&mut self, at: Time, rank: Rank, slot: u32) -> Key {
        assert!(
            at >= self.now,
            "no event lies before the last popped one: {at:?} < {:?}",
            self.now
        );
        assert!(self.sequence < SEQUENCE_MAX, "a run schedules fewer than 2^39 events");
        self.sequence += 1;
        let order = (rank as u64) << RANK_SHIFT | self.sequence << SLOT_BITS | u64::from(slot);
        Key::from(at.nanos()) << 64 | Key::from(order)
    }

    /// Whoever vacates a slot begins a new generation, in which no id was given yet.
    fn is_pending(&self, id: EventId) -> bool {
        self.slots[id.slot as usize].generation == id.generation
    }

    #[inline(always)]
    fn vacate(&mut self, slot: u32) -> E {
        let hole = std::mem::replace(&mut self.hole, slot);
        if hole != NONE {
            self.close(hole);
        }
        if !self.is_listed() {
            let leaf = self.slots.len() + slot as usize;
            self.tree[leaf] = VACANT;
        }
        let place = &mut self.slots[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        place.event.take().expect("a slot with a key holds an event")
    }

    /// Nothing was scheduled into a hole before the next one came about.
    #[inline(never)]
    fn close(&mut self, hole: u32) {
        if !self.is_listed() {
            self.replay(hole, VACANT);
        }
        self.free.push(hole);
    }

    #[inline(never)]
    fn take_free(&mut self) -> u32 {
        if self.free.is_empty() {
            self.grow(self.slots.len() * 2);
        }
        self.free.pop().expect("growing frees slots")
    }

    /// Gives the slot its key and puts the path from its leaf to the root right. Which of two
    /// events is earlier is a coin toss to the processor: the lesser is chosen by its index,
    /// because every form of selection is compiled to a branch.
    fn replay(&mut self, slot: u32, key: Key) {
        let mut node = self.slots.len() + slot as usize;
        let tree = &mut self.tree[..];
        tree[node] = key;
        while node > 1 {
            let rival = node ^ 1;
            let least = tree[node ^ usize::from(tree[rival] < tree[node])];
            node >>= 1;
            tree[node] = least;
        }
    }

    /// The least key but that of `slot`, whose path may be out of date.
    fn least_beside(&self, slot: u32) -> Key {
        let mut node = self.slots.len() + slot as usize;
        let mut least = VACANT;
        while node > 1 {
            least = least.min(self.tree[node ^ 1]);
            node >>= 1;
        }
        least
    }

    fn grow(&mut self, slots: usize) {
        assert!(slots <= SLOTS_MAX, "fewer than 2^22 events are pending at once");
        let old = self.slots.len();
        self.slots.resize_with(slots, || Slot { generation: 0, event: None });
        self.free.extend((old as u32..slots as u32).rev());
        if self.is_listed() {
            return;
        }
        let mut tree = vec![VACANT; 2 * slots];
        let leaves = self.tree.get(old..).unwrap_or_default();
        tree[slots..slots + leaves.len()].copy_from_slice(leaves);
        for &key in &self.list[1..=std::mem::take(&mut self.listed)] {
            tree[slots + slot_of(key) as usize] = key;
        }
        for node in (1..slots).rev() {
            tree[node] = tree[2 * node].min(tree[2 * node + 1]);
        }
        self.tree = tree;
    }
}

/// The key from which on events at `at` are of `rank` or later.
pub(super) fn floor(at: Time, rank: Rank) -> Key {
    Key::from(at.nanos()) << 64 | Key::from((rank as u64) << RANK_SHIFT)
}

pub(super) fn time_of(key: Key) -> Time {
    Time::from_nanos((key >> 64) as u64)
}

fn rank_of(key: Key) -> Rank {
    RANKS[(key as u64 >> RANK_SHIFT) as usize]
}

fn slot_of(key: Key) -> u32 {
    key as u32 & (SLOTS_MAX as u32 - 1)
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
        assert_eq!(agenda.slots.len(), 8, "five pending events need eight slots");
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
