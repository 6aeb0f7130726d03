//! The book: every request the allocator holds, and who waits behind whom.
//!
//! Waiting requests stand in two lists at once: the *lane* of their (flow, queue), which is what
//! the share and the order look at; and the *age list* of their queue over all flows, in order of
//! arrival, which time-to-live, the guard and gauges look at. A queue is a class, or the heavy
//! requests of one (see [`crate::heavy_lane`]).
//!
//! A lane is first in first out where the order's keys rise with arrival, and a heap by key where
//! they do not. What is looked at of many to find one (who goes first in each lane, who is the
//! oldest in each queue) stands in dense rows beside the lists: of ten thousand requests that wait,
//! only the one that goes is fetched from memory. While the allocator looks for one that may go past those who are next, these are
//! *aside*: they wait, but stand in no lane.

use std::collections::BTreeSet;

use plimsoll_base::{BackendId, ClassId, RequestId, Time};

use crate::admit::Candidate;
use crate::class_set::ClassSet;
use crate::heap::{Heaps, Key};
use crate::heavy_lane::Queues;
use crate::hints::Match;
use crate::index::{Found, Index};
use crate::list::{Linked, Links, List, NONE};
use crate::message::RequestInfo;
use crate::order::LATE;

/// A request the allocator holds. It fills two cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Entry {
    pub id: RequestId,
    pub class: ClassId,
    /// Where it queues: its class, or its class's heavy twin.
    pub queue: ClassId,
    /// The share's queue owner it belongs to and is charged to.
    pub flow: u32,
    pub arrived: Time,
    /// Order among all requests the allocator took in; breaks ties.
    pub sequence: u64,
    /// Who goes first within a flow: the least. Means something once it waits.
    pub key: u64,
    pub info: RequestInfo,
    pub output_predicted: u32,
    /// Where most of its prompt is cached, as was known when it arrived.
    pub matched: Match,
    /// How many went past it because they fitted where it did not.
    pub passed: u32,
    /// Whether its first token was delivered.
    pub has_begun: bool,
    pub state: State,
}

/// Where a request waits: who is next to it, and what counts of it once it comes first. It lies
/// within a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Place {
    lane: Links,
    age: Links,
    key: u64,
    sequence: u64,
}

impl Place {
    const NONE: Place = Place { lane: Links::UNLINKED, age: Links::UNLINKED, key: 0, sequence: 0 };
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Dispatched(BackendId),
}

impl Entry {
    /// Estimated tokens: prompt + predicted output.
    pub fn tokens(&self) -> u64 {
        u64::from(self.info.prompt_tokens) + u64::from(self.output_predicted)
    }
    /// What the rules of admission see of it.
    pub fn candidate(&self) -> Candidate {
        let is_retry = self.info.attempt > 0;
        Candidate { class: self.class, tenant: self.info.tenant, tokens: self.tokens(), is_retry }
    }
    /// The longest context it may grow to: prompt + cap.
    pub fn context(&self) -> u64 {
        u64::from(self.info.prompt_tokens) + u64::from(self.info.output_cap)
    }
}

/// Whether a lane, and its flow, went from empty to waiting or back. A flow with someone aside is
/// not empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turned {
    pub lane: bool,
    pub flow: bool,
}

/// A waiting request in a lane with keys. The least goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standing {
    key: u64,
    sequence: u64,
    slot: u32,
}

impl Standing {
    /// Behind everybody.
    const NOBODY: Standing = Standing { key: u64::MAX, sequence: u64::MAX, slot: NONE };

    fn is_nobody(self) -> bool {
        self.slot == NONE
    }
}

/// The request of a queue that arrived first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Oldest {
    pub arrived: Time,
    pub sequence: u64,
    pub slot: u32,
}

impl Oldest {
    /// Of a queue in which nobody waits.
    const NOBODY: Oldest = Oldest { arrived: Time::MAX, sequence: u64::MAX, slot: NONE };
}

/// Those of a queue that wait, by arrival.
#[derive(Clone, Copy, Debug)]
struct Ages {
    list: List,
    oldest: Oldest,
    count: u32,
}

impl Ages {
    const EMPTY: Ages = Ages { list: List::EMPTY, oldest: Oldest::NOBODY, count: 0 };
}

impl Key for Standing {
    fn member(self) -> u32 {
        self.slot
    }
}

/// All requests held, by slot.
#[derive(Debug)]
pub(crate) struct Book {
    entries: Vec<Entry>,
    /// Indexed by slot; means something while the request waits.
    places: Vec<Place>,
    free: Vec<u32>,
    by_id: Index,
    /// Which queues there are, and how many.
    kinds: Queues,
    queues: usize,
    lanes: Lanes,
    /// Indexed by lane: who goes first in it.
    heads: Vec<Standing>,
    /// Indexed by flow: its queues with something in a lane.
    flows: Vec<ClassSet>,
    /// Indexed by queue.
    ages: Vec<Ages>,
    /// Queues with something waiting.
    waiting: ClassSet,
    /// Those who wait and stand in no lane, in the order in which they were set aside.
    aside: Vec<u32>,
}

/// Indexed by flow · queues + queue.
#[derive(Debug)]
pub(crate) enum Lanes {
    /// By arrival.
    Fifo(Vec<List>),
    /// By key. `fresh` is, for each queue, the oldest that is not relegated, or [`NONE`].
    Keyed { heaps: Heaps<Standing>, fresh: Vec<u32> },
}

impl Lanes {
    /// Lanes that keep the order of arrival.
    pub fn by_arrival() -> Lanes {
        Lanes::Fifo(Vec::new())
    }
    /// Lanes in the order of keys.
    pub fn by_key(queues: Queues) -> Lanes {
        Lanes::Keyed { heaps: Heaps::EMPTY, fresh: vec![NONE; queues.count()] }
    }
    fn grow(&mut self, lanes: usize) {
        match self {
            Lanes::Fifo(lists) => lists.resize(lanes, List::EMPTY),
            Lanes::Keyed { heaps, .. } => heaps.grow(lanes),
        }
    }
}

struct InLane<'a>(&'a mut [Place]);
struct InAge<'a>(&'a mut [Place]);

impl Linked for InLane<'_> {
    fn links(&self, member: u32) -> &Links {
        &self.0[member as usize].lane
    }
    fn links_mut(&mut self, member: u32) -> &mut Links {
        &mut self.0[member as usize].lane
    }
}
impl Linked for InAge<'_> {
    fn links(&self, member: u32) -> &Links {
        &self.0[member as usize].age
    }
    fn links_mut(&mut self, member: u32) -> &mut Links {
        &mut self.0[member as usize].age
    }
}

impl Book {
    /// An empty book whose lanes are such.
    pub fn new(kinds: Queues, lanes: Lanes) -> Book {
        let queues = kinds.count();
        Book {
            entries: Vec::new(),
            places: Vec::new(),
            free: Vec::new(),
            by_id: Index::new(),
            kinds,
            queues,
            lanes,
            heads: Vec::new(),
            flows: Vec::new(),
            ages: vec![Ages::EMPTY; queues],
            waiting: ClassSet::EMPTY,
            aside: Vec::new(),
        }
    }

    /// Requests held, waiting or dispatched.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
    pub fn find(&self, id: RequestId) -> Option<Found> {
        self.by_id.find(id.0)
    }
    pub fn entry(&self, slot: u32) -> &Entry {
        &self.entries[slot as usize]
    }
    pub fn entry_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.entries[slot as usize]
    }
    /// Every request held, in no order. Slow: to be looked at, not to decide by.
    pub fn held(&self) -> impl Iterator<Item = &Entry> {
        let free: BTreeSet<u32> = self.free.iter().copied().collect();
        let slots = (0..).zip(&self.entries);
        slots.filter(move |(slot, _)| !free.contains(slot)).map(|(_, entry)| entry)
    }
    /// Requests of the class that wait.
    pub fn queued(&self, class: ClassId) -> u32 {
        self.queues_of(class).map(|queue| self.ages[queue.index()].count).sum()
    }
    /// Queues with something waiting.
    pub fn waiting(&self) -> ClassSet {
        self.waiting
    }
    /// A flow's queues with something in a lane.
    pub fn waiting_in(&self, flow: u32) -> ClassSet {
        self.flows[flow as usize]
    }
    /// Queues with something in a lane.
    pub fn standing(&self) -> ClassSet {
        if self.aside.is_empty() { self.waiting } else { self.waiting_beside_those_aside() }
    }
    fn waiting_beside_those_aside(&self) -> ClassSet {
        let stands = |&queue: &ClassId| {
            let aside = self.aside.iter().filter(|&&slot| self.entry(slot).queue == queue);
            aside.count() < self.ages[queue.index()].count as usize
        };
        self.waiting.filter(stands).collect()
    }
    fn queues_of(&self, class: ClassId) -> ClassSet {
        let is_known = class.index() < self.queues;
        self.kinds.of(is_known.then_some(class).into_iter().collect())
    }
    /// The waiting request of the class that arrived first.
    pub fn oldest(&self, class: ClassId) -> Option<&Entry> {
        let oldest = self.queues_of(class).filter_map(|queue| self.oldest_in(queue));
        let oldest = oldest.min_by_key(|oldest| oldest.sequence)?;
        Some(self.entry(oldest.slot))
    }
    /// When it arrived.
    pub fn oldest_arrival(&self, class: ClassId) -> Option<Time> {
        let oldest = self.queues_of(class).map(|queue| self.ages[queue.index()].oldest);
        let oldest = oldest.min_by_key(|oldest| oldest.sequence)?;
        (oldest.slot != NONE).then_some(oldest.arrived)
    }
    /// The waiting request of the queue that arrived first.
    pub fn oldest_in(&self, queue: ClassId) -> Option<Oldest> {
        let oldest = self.ages[queue.index()].oldest;
        (oldest.slot != NONE).then_some(oldest)
    }
    /// The waiting request of the queue that arrived last.
    pub fn youngest_in(&self, queue: ClassId) -> Option<&Entry> {
        Some(self.entry(self.ages.get(queue.index())?.list.tail()?))
    }

    /// The head that goes first in `flow`, of the queues in `open`: the least (key, sequence).
    pub fn head(&self, flow: u32, open: ClassSet) -> Option<u32> {
        let heads = &self.heads[flow as usize * self.queues..][..self.queues];
        let queues = self.waiting_in(flow).and(open);
        let heads = queues.map(|queue| heads[queue.index()]);
        heads.min().map(|standing| standing.slot)
    }

    /// Takes in a request; `None` if one with this id is held already.
    #[inline]
    pub fn insert(&mut self, id: RequestId, entry: impl FnOnce() -> Entry) -> Option<u32> {
        let next = self.entries.len() as u32;
        let slot = self.free.last().copied().unwrap_or(next);
        if !self.by_id.insert(id.0, slot) {
            return None;
        }
        if slot != next {
            self.free.pop();
            self.entries[slot as usize] = entry();
        } else {
            self.entries.push(entry());
            self.places.push(Place::NONE);
        }
        Some(slot)
    }

    /// Forgets a request that neither waits nor runs any more.
    #[inline(always)]
    pub fn forget(&mut self, found: Found) {
        self.by_id.remove(found);
        self.free.push(found.slot);
    }
    pub fn forget_id(&mut self, id: RequestId) {
        self.forget(self.find(id).expect("a request is forgotten once"));
    }

    /// Has the request wait: last of its age, and by the order in its lane.
    pub fn enqueue(&mut self, slot: u32) -> Turned {
        let Entry { queue, flow, key, sequence, .. } = *self.entry(slot);
        if self.flows.len() <= flow as usize {
            self.open(flow);
        }
        self.places[slot as usize] = Place { key, sequence, ..Place::NONE };
        let lane = self.lane(flow, queue);
        let was_empty = self.heads[lane].is_nobody();
        match &mut self.lanes {
            Lanes::Fifo(lists) => {
                lists[lane].push(&mut InLane(&mut self.places), slot);
                if was_empty {
                    self.heads[lane] = Standing { key, sequence, slot };
                }
            }
            Lanes::Keyed { heaps, fresh } => {
                heaps.push(lane, Standing { key, sequence, slot });
                self.heads[lane] = self.heads[lane].min(Standing { key, sequence, slot });
                if fresh[queue.index()] == NONE && key != LATE {
                    fresh[queue.index()] = slot;
                }
            }
        }
        self.join_age(slot, queue);
        let waiting = &mut self.flows[flow as usize];
        let is_first = waiting.is_empty();
        waiting.insert(queue);
        Turned { lane: was_empty, flow: is_first && !self.is_awaited(flow) }
    }

    /// Makes room for a flow that was never seen.
    #[cold]
    fn open(&mut self, flow: u32) {
        let flows = flow as usize + 1;
        self.flows.resize(flows, ClassSet::EMPTY);
        self.lanes.grow(flows * self.queues);
        self.heads.resize(flows * self.queues, Standing::NOBODY);
    }

    fn lane(&self, flow: u32, queue: ClassId) -> usize {
        flow as usize * self.queues + queue.index()
    }

    fn join_age(&mut self, slot: u32, queue: ClassId) {
        let ages = &mut self.ages[queue.index()];
        ages.list.push(&mut InAge(&mut self.places), slot);
        ages.count += 1;
        if ages.count == 1 {
            let Entry { arrived, sequence, .. } = self.entries[slot as usize];
            ages.oldest = Oldest { arrived, sequence, slot };
            self.waiting.insert(queue);
        }
    }

    fn leave_age(&mut self, slot: u32, queue: ClassId) {
        let ages = &mut self.ages[queue.index()];
        ages.list.remove(&mut InAge(&mut self.places), slot);
        ages.count -= 1;
        if ages.oldest.slot != slot {
            return;
        }
        ages.oldest = Oldest::NOBODY;
        match ages.list.head() {
            Some(slot) => {
                let Entry { arrived, sequence, .. } = self.entries[slot as usize];
                ages.oldest = Oldest { arrived, sequence, slot };
            }
            None => self.waiting.remove(queue),
        }
    }

    /// Has the request wait no longer, wherever it stands. It is not aside.
    pub fn unqueue(&mut self, slot: u32) -> Turned {
        let Entry { queue, flow, .. } = *self.entry(slot);
        if let Lanes::Keyed { .. } = self.lanes {
            self.pass_by(slot);
        }
        self.leave_age(slot, queue);
        self.leave_lane(slot, flow, queue)
    }

    /// Takes the request out of its lane, though it goes on waiting.
    pub fn set_aside(&mut self, slot: u32) -> Turned {
        let Entry { queue, flow, .. } = *self.entry(slot);
        self.aside.push(slot);
        self.leave_lane(slot, flow, queue)
    }

    /// Those who are aside.
    pub fn aside(&self) -> &[u32] {
        &self.aside
    }

    /// Puts the one who was set aside last back where it stood, after which nobody was enqueued.
    pub fn put_back(&mut self) -> Option<(u32, Turned)> {
        let slot = *self.aside.last()?;
        let Entry { queue, flow, key, sequence, .. } = *self.entry(slot);
        let lane = self.lane(flow, queue);
        let was_empty = self.heads[lane].is_nobody();
        match &mut self.lanes {
            Lanes::Fifo(lists) => lists[lane].push_front(&mut InLane(&mut self.places), slot),
            Lanes::Keyed { heaps, .. } => heaps.push(lane, Standing { key, sequence, slot }),
        }
        self.heads[lane] = self.heads[lane].min(Standing { key, sequence, slot });
        self.flows[flow as usize].insert(queue);
        self.aside.pop();
        Some((slot, Turned { lane: was_empty, flow: false }))
    }

    /// The oldest of the queue that is not relegated, if the order has keys to go by.
    pub fn fresh(&self, queue: ClassId) -> Option<u32> {
        match &self.lanes {
            Lanes::Fifo(_) => None,
            Lanes::Keyed { fresh, .. } => {
                let slot = fresh[queue.index()];
                (slot != NONE).then_some(slot)
            }
        }
    }

    /// Puts the request, which is in its lane, behind all that are not relegated.
    pub fn relegate(&mut self, slot: u32) {
        let Entry { queue, flow, sequence, .. } = *self.entry(slot);
        let lane = self.lane(flow, queue);
        self.pass_by(slot);
        self.entry_mut(slot).key = LATE;
        if let Lanes::Keyed { heaps, .. } = &mut self.lanes {
            heaps.change(lane, Standing { key: LATE, sequence, slot });
            self.heads[lane] = heaps.least(lane).unwrap_or(Standing::NOBODY);
        }
    }

    /// The request is no longer the oldest of its queue that is not relegated, if it was.
    fn pass_by(&mut self, slot: u32) {
        let Lanes::Keyed { fresh, .. } = &mut self.lanes else { return };
        let queue = self.entries[slot as usize].queue.index();
        if fresh[queue] != slot {
            return;
        }
        let (list, ages) = (self.ages[queue].list, InAge(&mut self.places));
        let mut next = list.next(&ages, slot);
        while let Some(other) = next
            && self.entries[other as usize].key == LATE
        {
            next = list.next(&ages, other);
        }
        fresh[queue] = next.unwrap_or(NONE);
    }

    /// Whether someone of the flow is aside.
    fn is_awaited(&self, flow: u32) -> bool {
        self.aside.iter().any(|&slot| self.entry(slot).flow == flow)
    }

    #[inline]
    fn leave_lane(&mut self, slot: u32, flow: u32, queue: ClassId) -> Turned {
        let lane = self.lane(flow, queue);
        let is_head = self.heads[lane].slot == slot;
        match &mut self.lanes {
            Lanes::Fifo(lists) => {
                lists[lane].remove(&mut InLane(&mut self.places), slot);
                if is_head {
                    self.heads[lane] = lists[lane].head().map_or(Standing::NOBODY, |slot| {
                        let Place { key, sequence, .. } = self.places[slot as usize];
                        Standing { key, sequence, slot }
                    });
                }
            }
            Lanes::Keyed { heaps, .. } => {
                heaps.remove(lane, slot);
                if is_head {
                    self.heads[lane] = heaps.least(lane).unwrap_or(Standing::NOBODY);
                }
            }
        }
        let is_empty = self.heads[lane].is_nobody();
        let waiting = &mut self.flows[flow as usize];
        if is_empty {
            waiting.remove(queue);
        }
        let flow_is_empty = waiting.is_empty();
        Turned { lane: is_empty, flow: flow_is_empty && !self.is_awaited(flow) }
    }
}
