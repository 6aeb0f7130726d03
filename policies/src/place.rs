//! Which backend: the dispatch window and the placement rules over it.
//!
//! One dense column a property, so that the scan over backends runs on plain arrays.

use plimsoll_base::{BackendId, Bound};

use crate::config::{Place, Window};
use crate::message::BackendInfo;

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

/// All backends, by slot. A slot without a backend has no seats.
#[derive(Debug)]
pub(crate) struct Backends {
    place: Place,
    window: Window,
    /// The newest generation seen in the slot.
    seen: Vec<Option<u32>>,
    joined: Vec<bool>,
    /// Outstanding requests, and how many the window allows.
    requests: Vec<u32>,
    requests_max: Vec<u32>,
    /// Outstanding estimated tokens, and how many the window allows.
    tokens: Vec<u64>,
    tokens_max: Vec<u64>,
    /// What it can hold of one request.
    kv_tokens: Vec<u64>,
    context_max: Vec<u64>,
    joined_count: usize,
    /// Backends whose window has room for one more request.
    open_count: usize,
    /// Where round robin goes on.
    turn: usize,
}

impl Backends {
    pub fn new(place: Place, window: Window) -> Backends {
        Backends {
            place,
            window,
            seen: Vec::new(),
            joined: Vec::new(),
            requests: Vec::new(),
            requests_max: Vec::new(),
            tokens: Vec::new(),
            tokens_max: Vec::new(),
            kv_tokens: Vec::new(),
            context_max: Vec::new(),
            joined_count: 0,
            open_count: 0,
            turn: 0,
        }
    }

    /// What stops every request alike, if anything.
    pub fn closed(&self) -> Option<Bound> {
        match (self.joined_count, self.open_count) {
            (0, _) => Some(Bound::NoBackend),
            (_, 0) => Some(Bound::Seats),
            (_, _) => None,
        }
    }

    /// Whether some backend that is there could take such a request when empty. True while none
    /// is there: the one to come might.
    pub fn could_take(&self, tokens: u64, context: u64) -> bool {
        self.joined_count == 0
            || (0..self.joined.len()).any(|at| self.is_capable(at, tokens, context))
    }

    /// A backend for a request of `tokens` estimated tokens that may grow to `context`.
    pub fn place(&self, tokens: u64, context: u64) -> Placed {
        let at = match self.place {
            Place::RoundRobin => self.next_in_turn(tokens, context),
            Place::LeastTokens => self.least_loaded(tokens, context),
        };
        match at {
            Some(at) => Placed::At(self.id(at)),
            None => self.why_not(tokens, context),
        }
    }

    pub fn take(&mut self, backend: BackendId, tokens: u64) {
        let at = backend.index();
        assert!(self.requests[at] < self.requests_max[at], "a full backend is not placed on");
        self.requests[at] += 1;
        self.tokens[at] += tokens;
        self.open_count -= usize::from(self.requests[at] == self.requests_max[at]);
        self.turn = at + 1;
    }

    /// Gives back what a request held. One that ran on a backend that left holds nothing.
    pub fn release(&mut self, backend: BackendId, tokens: u64) {
        let at = backend.index();
        if !self.is_here(backend) {
            return;
        }
        assert!(self.requests[at] > 0 && self.tokens[at] >= tokens, "what ends was outstanding");
        self.open_count += usize::from(self.requests[at] == self.requests_max[at]);
        self.requests[at] -= 1;
        self.tokens[at] -= tokens;
    }

    /// A backend is there. One that is not newer than what the slot has seen is ignored; a newer
    /// one takes the slot over.
    pub fn join(&mut self, backend: BackendId, info: &BackendInfo) {
        let at = backend.index();
        if at >= SLOTS_MAX {
            return;
        }
        if at >= self.joined.len() {
            self.grow(at + 1);
        }
        if self.seen[at].is_some_and(|generation| backend.generation <= generation) {
            return;
        }
        self.vacate(at);
        self.seen[at] = Some(backend.generation);
        self.joined[at] = true;
        (self.requests_max[at], self.tokens_max[at]) = match self.window {
            Window::Seats => (info.seats, info.kv_tokens),
            Window::None => (u32::MAX, u64::MAX),
        };
        self.kv_tokens[at] = info.kv_tokens;
        self.context_max[at] = u64::from(info.context_max);
        self.joined_count += 1;
        self.open_count += usize::from(self.requests_max[at] > 0);
    }

    /// A backend is gone and takes no more. An unknown or older one is ignored.
    pub fn leave(&mut self, backend: BackendId) {
        if self.is_here(backend) {
            self.vacate(backend.index());
        }
    }

    fn is_here(&self, backend: BackendId) -> bool {
        let at = backend.index();
        at < self.joined.len() && self.joined[at] && self.seen[at] == Some(backend.generation)
    }

    fn vacate(&mut self, at: usize) {
        self.joined_count -= usize::from(self.joined[at]);
        self.open_count -= usize::from(self.requests[at] < self.requests_max[at]);
        self.joined[at] = false;
        self.requests[at] = 0;
        self.requests_max[at] = 0;
        self.tokens[at] = 0;
        self.tokens_max[at] = 0;
    }

    fn grow(&mut self, slots: usize) {
        self.seen.resize(slots, None);
        self.joined.resize(slots, false);
        self.requests.resize(slots, 0);
        self.requests_max.resize(slots, 0);
        self.tokens.resize(slots, 0);
        self.tokens_max.resize(slots, 0);
        self.kv_tokens.resize(slots, 0);
        self.context_max.resize(slots, 0);
    }

    fn id(&self, at: usize) -> BackendId {
        let generation = self.seen[at].expect("a backend that is placed on has joined");
        BackendId { slot: at as u32, generation }
    }

    fn next_in_turn(&self, tokens: u64, context: u64) -> Option<usize> {
        let slots = self.joined.len();
        let turn = self.turn.min(slots);
        (turn..slots).chain(0..turn).find(|&at| self.has_room(at, tokens, context))
    }

    /// The fewest outstanding tokens, ties by slot: one pass without branches.
    fn least_loaded(&self, tokens: u64, context: u64) -> Option<usize> {
        let mut least = u64::MAX;
        let mut best = None;
        for at in 0..self.joined.len() {
            let load = if self.has_room(at, tokens, context) { self.tokens[at] } else { u64::MAX };
            if load < least {
                least = load;
                best = Some(at);
            }
        }
        best
    }

    fn has_room(&self, at: usize, tokens: u64, context: u64) -> bool {
        (self.requests[at] < self.requests_max[at])
            & (self.tokens[at].saturating_add(tokens) <= self.tokens_max[at])
            & (tokens <= self.kv_tokens[at])
            & (context <= self.context_max[at])
    }

    fn is_capable(&self, at: usize, tokens: u64, context: u64) -> bool {
        self.joined[at] && tokens <= self.kv_tokens[at] && context <= self.context_max[at]
    }

    /// Why no backend has room, among those that could take the request when empty.
    fn why_not(&self, tokens: u64, context: u64) -> Placed {
        if self.joined_count == 0 {
            return Placed::Stopped(Bound::NoBackend);
        }
        let mut why = Placed::Never;
        for at in (0..self.joined.len()).filter(|&at| self.is_capable(at, tokens, context)) {
            if self.requests[at] < self.requests_max[at] {
                return Placed::Stopped(Bound::KvMemory);
            }
            why = Placed::Stopped(Bound::Seats);
        }
        why
    }
}
