//! Requests whose prompts are computed apart from their decoding: what they wait for and hold
//! between the two, and where they decode.

use std::collections::BTreeMap;

use plimsoll_base::{BackendId, RequestId, Stage, Time};

use super::{Blame, Holding, Resource};
use crate::tally::measured;

/// Such requests, and what they hold by backend.
#[derive(Clone, Debug, Default)]
pub(super) struct Handed {
    requests: BTreeMap<RequestId, Place>,
    backends: BTreeMap<u32, Held>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    tokens: u64,
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Stage(Stage),
    Decodes,
    /// Thrown out where it decoded: it holds nothing.
    ThrownOut,
}

#[derive(Clone, Debug)]
struct Held {
    memory: Holding,
    link: Holding,
    batch: Holding,
}

impl Held {
    /// What a request waits for at a place, and what it holds there.
    fn waits(&mut self, at: At) -> Option<(Resource, &mut Holding)> {
        match at {
            At::Stage(Stage::AwaitsMemory) => Some((Resource::DecodeMemory, &mut self.memory)),
            At::Stage(Stage::AwaitsLink) => Some((Resource::Link, &mut self.link)),
            At::Stage(Stage::AwaitsSeat) | At::ThrownOut => {
                Some((Resource::Engine, &mut self.batch))
            }
            At::Stage(Stage::Moves) | At::Decodes => None,
        }
    }
    const fn has_memory(at: At) -> bool {
        match at {
            At::Stage(Stage::AwaitsMemory) | At::ThrownOut => false,
            At::Stage(Stage::AwaitsLink | Stage::Moves | Stage::AwaitsSeat) | At::Decodes => true,
        }
    }
    fn seat(&mut self, at: At) -> Option<&mut Holding> {
        match at {
            At::Stage(Stage::Moves) => Some(&mut self.link),
            At::Decodes => Some(&mut self.batch),
            At::Stage(Stage::AwaitsMemory | Stage::AwaitsLink | Stage::AwaitsSeat)
            | At::ThrownOut => None,
        }
    }
}

impl Handed {
    /// Whether the request has been handed on.
    #[inline]
    pub fn has(&self, id: RequestId) -> bool {
        !self.requests.is_empty() && self.requests.contains_key(&id)
    }

    /// What measured requests of a row wait for at `now`.
    pub fn add_waits(&self, row: usize, now: Time, mut add: impl FnMut(Resource, &[u128], u64)) {
        for held in self.backends.values() {
            let resources = [
                (Resource::DecodeMemory, &held.memory),
                (Resource::Link, &held.link),
                (Resource::Engine, &held.batch),
            ];
            for (resource, holding) in resources {
                if holding.measured(row) > 0 {
                    add(resource, &holding.integral_at(now), holding.measured(row));
                }
            }
        }
    }
}

type Whose = (usize, RequestId, Time);

impl Blame {
    /// A request has come a step further.
    #[inline(never)]
    pub(super) fn hand(&mut self, whose: Whose, backend: BackendId, (tokens, stage): (u32, Stage)) {
        let (row, id, _) = whose;
        let from = self.handed.requests.get(&id).copied();
        match from {
            Some(place) => self.quit(whose, backend, place),
            None => {
                let now = self.now;
                self.engine(backend).release(now, row, 1);
            }
        }
        let place = Place { tokens: tokens.into(), at: At::Stage(stage) };
        self.join(whose, backend, place);
    }

    pub(super) fn start_handed(&mut self, whose: Whose, backend: BackendId) {
        self.go(whose, backend, At::Decodes);
    }

    pub(super) fn preempt_handed(&mut self, whose: Whose, backend: BackendId) {
        self.go(whose, backend, At::ThrownOut);
    }

    pub(super) fn leave_handed(&mut self, whose: Whose, backend: BackendId) {
        let place = self.handed.requests.remove(&whose.1).expect("it was handed on");
        self.quit(whose, backend, place);
    }

    fn go(&mut self, whose: Whose, backend: BackendId, at: At) {
        let place = self.handed.requests[&whose.1];
        self.quit(whose, backend, place);
        self.join(whose, backend, Place { at, ..place });
    }

    /// It gives back what it holds at a place and stops to wait there.
    fn quit(&mut self, (row, _, arrived): Whose, backend: BackendId, place: Place) {
        let (now, is_measured) = (self.now, u64::from(measured(arrived, self.warm_up)));
        let Blame { handed, victims, layout, .. } = self;
        let held = handed.backends.get_mut(&backend.slot).expect("somebody was handed on there");
        if let Some((resource, holding)) = held.waits(place.at) {
            holding.stop_waiting(now, row, (1, is_measured));
            victims[row].add(layout.of(resource), holding.integral(now), is_measured);
        }
        if Held::has_memory(place.at) {
            held.memory.release(now, row, place.tokens);
        }
        if let Some(holding) = held.seat(place.at) {
            holding.release(now, row, 1);
        }
    }

    fn join(&mut self, (row, id, arrived): Whose, backend: BackendId, place: Place) {
        let (now, is_measured) = (self.now, u64::from(measured(arrived, self.warm_up)));
        let Blame { handed, victims, layout, weights, .. } = self;
        let new = || Holding::new(weights);
        let held = handed.backends.entry(backend.slot);
        let held = held.or_insert_with(|| Held { memory: new(), link: new(), batch: new() });
        if Held::has_memory(place.at) {
            held.memory.hold(now, row, place.tokens);
        }
        if let Some(holding) = held.seat(place.at) {
            holding.hold(now, row, 1);
        }
        if let Some((resource, holding)) = held.waits(place.at) {
            holding.wait(now, row, (1, is_measured));
            victims[row].take_off(layout.of(resource), holding.integral(now), is_measured);
        }
        handed.requests.insert(id, place);
    }
}
