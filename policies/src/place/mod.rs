//! Which backend: the dispatch window and the placement rules over it.
//!
//! First the filter ([`reach`]), then preferences ([`local_first`], [`affinity`]), then a last rule
//! that breaks ties. One dense row a backend, so that the scan over them reads memory in order; what
//! only some rules look at stands in rows of its own ([`choice`]).

mod affinity;
mod check;
mod choice;
mod local_first;
mod power_of_two;
mod reach;

use plimsoll_base::{BackendId, Bound, ClassId, ModelId, SessionId, Time};

use crate::allocator::BackendState;
use crate::book::Entry;
use crate::class_set::ClassSet;
use crate::config::{Config, Place, Window};
use crate::hints::Match;
use crate::message::BackendInfo;
use choice::Choice;

pub(crate) use check::{MODELS_MAX, SITES_MAX, check};

/// Backend slots the allocator knows at most; a slot at or past this is ignored.
pub(crate) const SLOTS_MAX: usize = 1 << 16;

/// What placing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    At(BackendId),
    /// Not now, because of this resource.
    Stopped(Bound),
    /// No backend that is there could take it even when empty.
    Never,
}

/// What the rules of placement look at in a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Estimated tokens.
    pub tokens: u64,
    /// The longest context it may grow to.
    pub context: u64,
    pub class: ClassId,
    pub model: ModelId,
    pub session: SessionId,
    pub matched: Match,
    pub now: Time,
    /// When the oldest waiting request of its class arrived.
    pub oldest: Time,
}

impl Asked {
    /// What counts of a request that is the oldest of its class.
    pub fn of(entry: &Entry, now: Time) -> Asked {
        Asked {
            tokens: entry.tokens(),
            context: entry.context(),
            class: entry.class,
            model: entry.info.model,
            session: entry.info.session,
            matched: entry.matched,
            now,
            oldest: entry.arrived,
        }
    }
}

/// A slot: the backend in it, or the traces of the latest one. Without one it has no seats.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// The newest generation seen.
    seen: Option<u32>,
    joined: bool,
    /// What the window would allow if it counted seats.
    seats: u32,
    /// Outstanding requests, and how many the window allows.
    requests: u32,
    requests_max: u32,
    /// How many the window alone allows; feedback may allow fewer.
    window_max: u32,
    /// How many feedback allows.
    limit: u32,
    /// Whether the breaker lets nothing in.
    is_shut: bool,
    /// The most requests outstanding since that was last asked.
    peak: u32,
    /// Outstanding estimated tokens, and how many the window allows.
    tokens: u64,
    tokens_max: u64,
    /// What it can hold of one request.
    kv_tokens: u64,
    context_max: u64,
}

impl Slot {
    fn id(&self, at: usize) -> BackendId {
        let generation = self.seen.expect("a backend that is placed on has joined");
        BackendId { slot: at as u32, generation }
    }
    fn holds(&self, backend: BackendId) -> bool {
        self.joined && self.seen == Some(backend.generation)
    }
    /// What stops one more request.
    fn stop(&self) -> Bound {
        if self.requests < self.window_max.min(self.limit) {
            Bound::Breaker
        } else if self.requests < self.window_max {
            Bound::Adaptive
        } else {
            Bound::Seats
        }
    }
    fn is_open(&self) -> bool {
        self.requests < self.requests_max
    }
    fn is_capable(&self, tokens: u64, context: u64) -> bool {
        self.joined && tokens <= self.kv_tokens && context <= self.context_max
    }
    fn has_room(&self, tokens: u64, context: u64) -> bool {
        self.is_open()
            & (self.tokens.saturating_add(tokens) <= self.tokens_max)
            & (tokens <= self.kv_tokens)
            & (context <= self.context_max)
    }
}

/// All backends, by slot.
#[derive(Debug)]
pub(crate) struct Backends {
    takes_turns: bool,
    window: Window,
    slots: Vec<Slot>,
    joined_count: usize,
    /// Backends whose window has room for one more request.
    open_count: usize,
    /// Seats of all backends.
    seats: u64,
    /// Where round robin goes on.
    turn: usize,
    /// What the rules need beside the slots.
    choice: Choice,
    /// Whether loads and turns are all that counts.
    is_plain: bool,
    /// Whether feedback has ever held one of them back.
    is_held_back: bool,
}

impl Backends {
    pub fn new(config: &Config) -> Backends {
        let choice = Choice::new(config);
        Backends {
            is_plain: choice.is_plain(),
            takes_turns: config.place.last() == Some(&Place::RoundRobin),
            window: config.window,
            slots: Vec::new(),
            joined_count: 0,
            open_count: 0,
            seats: 0,
            turn: 0,
            choice,
            is_held_back: false,
        }
    }

    /// Seats of all backends that are there.
    pub fn seats(&self) -> u64 {
        self.seats
    }

    /// The backends that are there, to be looked at.
    pub fn states(&self) -> impl Iterator<Item = BackendState> {
        let joined = self.slots.iter().enumerate().filter(|(_, slot)| slot.joined);
        joined.map(|(at, slot)| BackendState {
            backend: slot.id(at),
            requests: (slot.requests, slot.requests_max),
            tokens: (slot.tokens, slot.tokens_max),
        })
    }

    /// What stops every request alike, if anything.
    #[inline]
    pub fn closed(&self) -> Option<Bound> {
        if self.open_count > 0 {
            None
        } else if self.joined_count > 0 && !self.is_held_back {
            Some(Bound::Seats)
        } else {
            Some(self.why_closed())
        }
    }

    /// Which resource it is if no backend has room for one more request. What feedback holds back
    /// counts before seats that are taken: it is what could be let go.
    fn why_closed(&self) -> Bound {
        if self.joined_count == 0 {
            return Bound::NoBackend;
        }
        let joined = self.slots.iter().filter(|slot| slot.joined);
        shortage(joined).unwrap_or(Bound::Seats)
    }

    /// Whether some backend that is there could take such a request when empty. True while none
    /// is there to which it may go: the one to come might.
    #[inline]
    pub fn could_take(&self, tokens: u64, context: u64, asked: impl FnOnce() -> Asked) -> bool {
        if !self.is_plain {
            return self.choice.could_take(&self.slots, &asked());
        }
        self.joined_count == 0 || self.slots.iter().any(|slot| slot.is_capable(tokens, context))
    }

    /// A backend for a request of `tokens` estimated tokens that may grow to `context` and waits.
    #[inline]
    pub fn place(&mut self, tokens: u64, context: u64, asked: impl FnOnce() -> Asked) -> Placed {
        if !self.is_plain {
            return self.choice.place(&self.slots, self.turn, &asked());
        }
        match self.find_plainly(tokens, context) {
            Some(at) => Placed::At(self.slots[at].id(at)),
            None => self.why_not(tokens, context),
        }
    }

    /// Where a request that does not wait can go now, by the rules of placement.
    #[inline]
    pub fn find_room(
        &self,
        tokens: u64,
        context: u64,
        asked: impl FnOnce() -> Asked,
    ) -> Option<BackendId> {
        let at = match self.is_plain {
            true => self.find_plainly(tokens, context),
            false => self.choice.find_room(&self.slots, self.turn, &asked()),
        };
        at.map(|at| self.slots[at].id(at))
    }

    #[inline(always)]
    fn find_plainly(&self, tokens: u64, context: u64) -> Option<usize> {
        match &self.slots[..] {
            [only] => only.has_room(tokens, context).then_some(0),
            _ if self.takes_turns => self.next_in_turn(tokens, context),
            _ => self.least_loaded(tokens, context),
        }
    }

    /// Whether some rule keeps track of who waits and who goes where.
    #[inline]
    pub fn remembers(&self) -> bool {
        !self.is_plain
    }
    /// A request is about to go there.
    pub fn went(&mut self, backend: BackendId, asked: &Asked) {
        self.choice.went(&self.slots, backend, asked);
    }

    pub fn take(&mut self, backend: BackendId, tokens: u64) {
        let slot = &mut self.slots[backend.index()];
        assert!(slot.is_open(), "a full backend is not placed on");
        slot.requests += 1;
        slot.tokens += tokens;
        slot.peak = slot.peak.max(slot.requests);
        self.open_count -= usize::from(!slot.is_open());
        self.turn = backend.index() + 1;
    }
    /// Counts a request that runs, however many its backend may have. On one that is not there it
    /// holds nothing.
    pub fn hold(&mut self, backend: BackendId, tokens: u64) {
        if self.is_here(backend) {
            self.change(backend, |slot| {
                slot.requests += 1;
                slot.tokens += tokens;
                slot.peak = slot.peak.max(slot.requests);
            });
        }
    }

    /// Whether some request may go where another may not, so that one that waits for room does not
    /// stop everyone.
    #[inline]
    pub fn reaches_differ(&self) -> bool {
        !self.is_plain && self.choice.reaches_differ()
    }
    /// The classes that wait with `class` when a request of it fits nowhere.
    pub fn stopped_with(&self, class: ClassId) -> ClassSet {
        self.choice.stopped_with(class)
    }
    /// Classes that wait for room which is not for others meanwhile.
    #[inline]
    pub fn holding(&self) -> ClassSet {
        if self.is_plain { ClassSet::EMPTY } else { self.choice.holding() }
    }
    /// These classes are asked for anew.
    #[inline]
    pub fn ask_anew(&mut self, classes: ClassSet, now: Time) {
        if !self.is_plain {
            self.choice.ask_anew(classes, now);
        }
    }
    /// Classes that may go farther now, given when the oldest request of each arrived.
    #[inline]
    pub fn spilling(&self, now: Time, oldest: impl Fn(ClassId) -> Option<Time>) -> ClassSet {
        if self.is_plain { ClassSet::EMPTY } else { self.choice.spilling(now, oldest) }
    }
    /// Nobody of the class waits any more.
    pub fn rest(&mut self, class: ClassId, now: Time) {
        self.choice.rest(class, now);
    }
    /// There is no room anywhere for these classes.
    #[inline]
    pub fn close(&mut self, classes: ClassSet) {
        if !self.is_plain {
            self.choice.close(classes);
        }
    }
    /// When time alone next lets a class go farther, given when its oldest request arrived.
    #[inline]
    pub fn next_spill(&self, oldest: impl Fn(ClassId) -> Option<Time>) -> Option<Time> {
        if self.is_plain { None } else { self.choice.next_spill(oldest) }
    }
    /// Whether placement looks at where prompts are cached.
    pub fn needs_matches(&self) -> bool {
        self.choice.needs_matches()
    }

    /// Gives back what a request held. One that ran on a backend that left holds nothing.
    pub fn release(&mut self, backend: BackendId, tokens: u64) {
        let Some(slot) = self.slots.get_mut(backend.index()) else { return };
        if !slot.holds(backend) {
            return;
        }
        assert!(slot.requests > 0 && slot.tokens >= tokens, "what ends was outstanding");
        let was_open = slot.is_open();
        slot.requests -= 1;
        slot.tokens -= tokens;
        self.open_count += usize::from(slot.is_open() && !was_open);
    }

    /// Feedback allows so many outstanding requests at a backend that is there.
    pub fn limit(&mut self, backend: BackendId, limit: u32) {
        self.change(backend, |slot| slot.limit = limit);
    }

    /// Nothing more goes to a backend that is there.
    pub fn shut(&mut self, backend: BackendId) {
        self.change(backend, |slot| slot.is_shut = true);
    }

    /// What [`Backends::shut`] did is undone.
    pub fn unshut(&mut self, backend: BackendId) {
        self.change(backend, |slot| slot.is_shut = false);
    }

    /// The most requests that were outstanding at a backend since this was last asked, and how
    /// many its window allows.
    pub fn take_peak(&mut self, backend: BackendId) -> (u32, u32) {
        let slot = &mut self.slots[backend.index()];
        let peak = std::mem::replace(&mut slot.peak, slot.requests);
        (peak, slot.window_max)
    }

    fn change(&mut self, backend: BackendId, change: impl Fn(&mut Slot)) {
        self.is_held_back = true;
        let slot = &mut self.slots[backend.index()];
        let was_open = slot.is_open();
        change(slot);
        slot.requests_max = if slot.is_shut { 0 } else { slot.window_max.min(slot.limit) };
        self.open_count += usize::from(slot.is_open());
        self.open_count -= usize::from(was_open);
    }

    /// A backend is there. One that is not newer than what the slot has seen is ignored; a newer
    /// one takes the slot over. Whether it was taken in.
    pub fn join(&mut self, backend: BackendId, info: &BackendInfo) -> bool {
        let at = backend.index();
        if at >= SLOTS_MAX {
            return false;
        }
        if at >= self.slots.len() {
            self.slots.resize(at + 1, Slot::default());
        }
        if self.slots[at].seen.is_some_and(|generation| backend.generation <= generation) {
            return false;
        }
        self.vacate(at);
        let (requests_max, tokens_max) = match self.window {
            Window::Seats => (info.seats, info.kv_tokens),
            Window::None => (u32::MAX, u64::MAX),
        };
        self.slots[at] = Slot {
            seen: Some(backend.generation),
            joined: true,
            seats: info.seats,
            requests: 0,
            requests_max,
            window_max: requests_max,
            limit: u32::MAX,
            is_shut: false,
            peak: 0,
            tokens: 0,
            tokens_max,
            kv_tokens: info.kv_tokens,
            context_max: u64::from(info.context_max),
        };
        self.joined_count += 1;
        self.seats += u64::from(info.seats);
        self.open_count += usize::from(requests_max > 0);
        self.choice.join(at, info);
        self.is_plain = self.choice.is_plain();
        true
    }

    /// A backend is gone and takes no more. An unknown or older one is ignored. Whether it was
    /// there.
    pub fn leave(&mut self, backend: BackendId) -> bool {
        let was_here = self.is_here(backend);
        if was_here {
            self.vacate(backend.index());
        }
        was_here
    }

    /// Whether a request that waits could go to a backend if a request that runs there made room.
    /// More than one may have to.
    pub fn could_make_room(&self, backend: BackendId, asked: &Asked) -> bool {
        let slot = self.slots.get(backend.index()).filter(|slot| slot.holds(backend));
        slot.is_some_and(|slot| {
            slot.is_capable(asked.tokens, asked.context)
                && slot.requests <= slot.requests_max
                && self.choice.allows(backend.index(), asked)
        })
    }

    /// What keeps a request from the backends it may use; `None` if one of them has room.
    pub fn lacks(&self, asked: &Asked) -> Option<Bound> {
        let may = |(at, slot): &(usize, &Slot)| {
            slot.is_capable(asked.tokens, asked.context) && self.choice.allows(*at, asked)
        };
        let capable = || self.slots.iter().enumerate().filter(may).map(|(_, slot)| slot);
        let is_room = capable().any(|slot| slot.has_room(asked.tokens, asked.context));
        if is_room { None } else { shortage(capable()) }
    }

    pub fn is_here(&self, backend: BackendId) -> bool {
        self.slots.get(backend.index()).is_some_and(|slot| slot.holds(backend))
    }

    fn vacate(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        self.joined_count -= usize::from(slot.joined);
        self.seats -= u64::from(slot.seats);
        self.open_count -= usize::from(slot.is_open());
        if slot.joined {
            self.choice.leave(at);
            self.is_plain = self.choice.is_plain();
        }
        *slot = Slot { seen: slot.seen, ..Slot::default() };
    }

    fn next_in_turn(&self, tokens: u64, context: u64) -> Option<usize> {
        let slots = self.slots.len();
        let turn = self.turn.min(slots);
        (turn..slots).chain(0..turn).find(|&at| self.slots[at].has_room(tokens, context))
    }

    /// The fewest outstanding tokens, ties by slot.
    fn least_loaded(&self, tokens: u64, context: u64) -> Option<usize> {
        let mut least = u64::MAX;
        let mut best = None;
        for (at, slot) in self.slots.iter().enumerate() {
            let load = if slot.has_room(tokens, context) { slot.tokens } else { u64::MAX };
            if load < least {
                least = load;
                best = Some(at);
            }
        }
        best
    }

    /// Why no backend has room, among those that could take the request when empty.
    fn why_not(&self, tokens: u64, context: u64) -> Placed {
        if self.joined_count == 0 {
            return Placed::Stopped(Bound::NoBackend);
        }
        let capable = self.slots.iter().filter(|slot| slot.is_capable(tokens, context));
        shortage(capable).map_or(Placed::Never, Placed::Stopped)
    }
}

/// What these backends, none of which has room for a request, lack: memory if one of them has a
/// seat. `None` if there are none.
fn shortage<'a>(slots: impl Iterator<Item = &'a Slot>) -> Option<Bound> {
    let mut why = None;
    for slot in slots {
        if slot.is_open() {
            return Some(Bound::KvMemory);
        }
        why = Some(lesser(why, slot.stop()));
    }
    why
}

/// What is named of two things that stop a request at two backends.
fn lesser(one: Option<Bound>, other: Bound) -> Bound {
    one.filter(|&one| weight(one) <= weight(other)).unwrap_or(other)
}

/// Of several things that stop a request at several backends the least is named.
fn weight(bound: Bound) -> u8 {
    match bound {
        Bound::Breaker => 0,
        Bound::Adaptive => 1,
        Bound::Seats
        | Bound::KvMemory
        | Bound::ClassRequests
        | Bound::ClassTokens
        | Bound::Quota
        | Bound::HeavyLane
        | Bound::StaleSignal
        | Bound::Site
        | Bound::NoBackend => 2,
    }
}
