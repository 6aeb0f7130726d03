//! The book: every request the allocator holds, and who waits behind whom.
//!
//! Waiting requests stand in two lists at once: the *lane* of their (flow, class), first in first
//! out, which is what the share and the order look at; and the *age list* of their class over all
//! flows, in order of arrival, which time-to-live, the guard and gauges look at.

use plimsoll_base::{BackendId, ClassId, RequestId, Time};

use crate::admit::Candidate;
use crate::class_set::ClassSet;
use crate::hints::Match;
use crate::index::{Found, Index};
use crate::list::{Linked, Links, List};
use crate::message::RequestInfo;

/// A request the allocator holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub id: RequestId,
    pub class: ClassId,
    /// The share's queue owner it belongs to and is charged to.
    pub flow: u32,
    pub arrived: Time,
    /// Order among all requests the allocator took in; breaks ties.
    pub sequence: u64,
    /// Who goes first within a flow: the least.
    pub key: u64,
    pub info: RequestInfo,
    pub output_predicted: u32,
    /// Where most of its prompt is cached, as was known when it arrived.
    pub matched: Match,
    /// Whether its first token was delivered.
    pub has_begun: bool,
    pub state: State,
}

/// Who waits next to a request.
#[derive(Clone, Copy, Debug)]
struct Neighbours {
    lane: Links,
    age: Links,
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
        Candidate { class: self.class, tenant: self.info.tenant, tokens: self.tokens() }
    }
    /// The longest context it may grow to: prompt + cap.
    pub fn context(&self) -> u64 {
        u64::from(self.info.prompt_tokens) + u64::from(self.info.output_cap)
    }
}

/// Whether a lane, and its flow, went from empty to waiting or back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turned {
    pub lane: bool,
    pub flow: bool,
}

/// All requests held, by slot.
#[derive(Debug)]
pub(crate) struct Book {
    entries: Vec<Entry>,
    /// Indexed by slot; means something while the request waits.
    neighbours: Vec<Neighbours>,
    free: Vec<u32>,
    by_id: Index,
    classes: usize,
    /// Indexed by flow · classes + class.
    lanes: Vec<List>,
    /// Indexed by flow: its classes with something waiting.
    flows: Vec<ClassSet>,
    /// Indexed by class.
    ages: Vec<List>,
    /// Indexed by class.
    queued: Vec<u32>,
    waiting: ClassSet,
}

struct Lanes<'a>(&'a mut [Neighbours]);
struct Ages<'a>(&'a mut [Neighbours]);

impl Linked for Lanes<'_> {
    fn links(&self, member: u32) -> &Links {
        &self.0[member as usize].lane
    }
    fn links_mut(&mut self, member: u32) -> &mut Links {
        &mut self.0[member as usize].lane
    }
}
impl Linked for Ages<'_> {
    fn links(&self, member: u32) -> &Links {
        &self.0[member as usize].age
    }
    fn links_mut(&mut self, member: u32) -> &mut Links {
        &mut self.0[member as usize].age
    }
}

impl Book {
    pub fn new(classes: usize) -> Book {
        Book {
            entries: Vec::new(),
            neighbours: Vec::new(),
            free: Vec::new(),
            by_id: Index::new(),
            classes,
            lanes: Vec::new(),
            flows: Vec::new(),
            ages: vec![List::EMPTY; classes],
            queued: vec![0; classes],
            waiting: ClassSet::EMPTY,
        }
    }

    /// Requests held, waiting or dispatched.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
    pub fn find(&self, id: RequestId) -> Option<Found> {
        self.by_id.find(id)
    }
    pub fn entry(&self, slot: u32) -> &Entry {
        &self.entries[slot as usize]
    }
    pub fn entry_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.entries[slot as usize]
    }
    pub fn queued(&self, class: ClassId) -> u32 {
        self.queued.get(class.index()).copied().unwrap_or(0)
    }
    /// Classes with something waiting.
    pub fn waiting(&self) -> ClassSet {
        self.waiting
    }
    /// A flow's classes with something waiting.
    pub fn waiting_in(&self, flow: u32) -> ClassSet {
        self.flows[flow as usize]
    }
    /// The waiting request of the class that arrived first. It is the head of its lane.
    pub fn oldest(&self, class: ClassId) -> Option<&Entry> {
        Some(self.entry(self.oldest_slot(class)?))
    }
    pub fn oldest_slot(&self, class: ClassId) -> Option<u32> {
        self.ages.get(class.index())?.head()
    }

    /// The head that goes first in `flow`, of the classes in `open`: the least (key, sequence).
    pub fn head(&self, flow: u32, open: ClassSet) -> Option<u32> {
        let lanes = &self.lanes[flow as usize * self.classes..][..self.classes];
        let heads = self.waiting_in(flow).and(open).filter_map(|class| lanes[class.index()].head());
        heads.min_by_key(|&slot| {
            let entry = self.entry(slot);
            (entry.key, entry.sequence)
        })
    }

    /// Takes in a request; `None` if one with this id is held already.
    #[inline]
    pub fn insert(&mut self, id: RequestId, entry: impl FnOnce() -> Entry) -> Option<u32> {
        let next = self.entries.len() as u32;
        let slot = self.free.last().copied().unwrap_or(next);
        if !self.by_id.insert(id, slot) {
            return None;
        }
        if slot != next {
            self.free.pop();
            self.entries[slot as usize] = entry();
        } else {
            self.entries.push(entry());
            self.neighbours.push(Neighbours { lane: Links::UNLINKED, age: Links::UNLINKED });
        }
        Some(slot)
    }

    /// Forgets a request that neither waits nor runs any more.
    pub fn forget(&mut self, found: Found) {
        self.by_id.remove(found);
        self.free.push(found.slot);
    }
    pub fn forget_id(&mut self, id: RequestId) {
        self.forget(self.find(id).expect("a request is forgotten once"));
    }

    /// Puts the request last in its lane.
    pub fn enqueue(&mut self, slot: u32) -> Turned {
        let Entry { class, flow, .. } = *self.entry(slot);
        if self.flows.len() <= flow as usize {
            self.flows.resize(flow as usize + 1, ClassSet::EMPTY);
            self.lanes.resize((flow as usize + 1) * self.classes, List::EMPTY);
        }
        let lane = &mut self.lanes[flow as usize * self.classes + class.index()];
        let waiting = &mut self.flows[flow as usize];
        let turned = Turned { lane: lane.is_empty(), flow: waiting.is_empty() };
        lane.push(&mut Lanes(&mut self.neighbours), slot);
        self.ages[class.index()].push(&mut Ages(&mut self.neighbours), slot);
        waiting.insert(class);
        self.waiting.insert(class);
        self.queued[class.index()] += 1;
        turned
    }

    /// Takes the request out of its lane, wherever it stands.
    pub fn unqueue(&mut self, slot: u32) -> Turned {
        let Entry { class, flow, .. } = *self.entry(slot);
        let lane = &mut self.lanes[flow as usize * self.classes + class.index()];
        lane.remove(&mut Lanes(&mut self.neighbours), slot);
        let ages = &mut self.ages[class.index()];
        ages.remove(&mut Ages(&mut self.neighbours), slot);
        self.queued[class.index()] -= 1;
        if ages.is_empty() {
            self.waiting.remove(class);
        }
        let waiting = &mut self.flows[flow as usize];
        if lane.is_empty() {
            waiting.remove(class);
        }
        Turned { lane: lane.is_empty(), flow: waiting.is_empty() }
    }
}
