//! A request in flight: its record so far, and the phase it is in.

use plimsoll_base::{Outcome, RequestId, RequestRecord, SourceId, Span, Stage, Time};

use crate::workload::Request;

/// What a request is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting: in the allocator, in an engine's queue, or after a preemption.
    Queue,
    /// Its prompt is being computed for the first time.
    Prefill,
    /// It delivers tokens.
    Decode,
    /// What a preemption threw away is being computed again.
    Recompute,
}

/// A request in flight.
#[derive(Clone, Copy, Debug)]
pub struct Flight {
    /// What is known of it.
    pub record: RequestRecord,
    /// True output length in tokens.
    pub output_tokens: u32,
    /// Its source's key for it.
    pub source_key: u32,
    phase: Phase,
    since: Time,
    live: bool,
    /// Its prompt was computed elsewhere, and it has not been computed for since.
    is_handed: bool,
}

/// All requests in flight. A closed one's place is reused, the latest first.
#[derive(Debug, Default)]
pub struct Flights {
    flights: Vec<Flight>,
    free: Vec<u32>,
}

impl Flights {
    /// Takes in a request; returns its key.
    pub fn insert(&mut self, flight: impl Fn() -> Flight) -> u32 {
        match self.free.pop() {
            Some(key) => {
                let place = &mut self.flights[key as usize];
                *place = flight();
                key
            }
            None => {
                self.flights.push(flight());
                u32::try_from(self.flights.len() - 1).expect("requests in flight fit 32 bits")
            }
        }
    }
    /// The key of a request. Looks through all: for what happens seldom.
    pub fn find(&self, id: RequestId) -> Option<u32> {
        let is_sought = |flight: &Flight| flight.live && flight.record.id == id;
        self.flights.iter().position(is_sought).map(|key| key as u32)
    }
    /// Takes out a request to close it: it stands where it stood until its place is reused.
    pub fn remove(&mut self, key: u32) -> &mut Flight {
        self.free.push(key);
        let flight = &mut self.flights[key as usize];
        assert!(std::mem::take(&mut flight.live), "a request closes once");
        flight
    }
    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.free.len() == self.flights.len()
    }
    /// The keys of all requests in flight, in order of arrival.
    pub fn keys(&self) -> Vec<u32> {
        let live = self.flights.iter().enumerate().filter(|(_, flight)| flight.live);
        let mut keys: Vec<u32> = live.map(|(key, _)| key as u32).collect();
        keys.sort_by_key(|&key| self[key].record.id);
        keys
    }
}

impl std::ops::Index<u32> for Flights {
    type Output = Flight;
    fn index(&self, key: u32) -> &Flight {
        &self.flights[key as usize]
    }
}
impl std::ops::IndexMut<u32> for Flights {
    fn index_mut(&mut self, key: u32) -> &mut Flight {
        &mut self.flights[key as usize]
    }
}

impl Flight {
    /// A request that has just arrived, not yet classified.
    pub fn new(id: RequestId, request: &Request, source: SourceId, now: Time) -> Flight {
        let record = RequestRecord {
            source,
            tenant: request.tenant,
            prompt_tokens: request.prompt_tokens,
            output_cap: request.output_cap,
            ..RequestRecord::new(id, now)
        };
        let (output_tokens, source_key) = (request.output_tokens, request.key);
        Flight {
            record,
            output_tokens,
            source_key,
            phase: Phase::Queue,
            since: now,
            live: true,
            is_handed: false,
        }
    }

    /// Ends the phase at `now` and begins another.
    pub fn enter(&mut self, phase: Phase, now: Time) {
        let span = now - self.since;
        let phases = &mut self.record.phases;
        let total: &mut Span = match self.phase {
            Phase::Queue => &mut phases.queue,
            Phase::Prefill => &mut phases.prefill,
            Phase::Decode => &mut phases.decode,
            Phase::Recompute => &mut phases.preempted,
        };
        *total += span;
        self.phase = phase;
        self.since = now;
    }

    /// It entered the batch.
    pub fn start(&mut self, now: Time) {
        let first = self.record.started.is_none() || std::mem::take(&mut self.is_handed);
        self.record.started.get_or_insert(now);
        self.enter(if first { Phase::Prefill } else { Phase::Recompute }, now);
    }

    /// It has come a step further between the engine that computed its prompt and the one that
    /// decodes: it waits, but for while its KV moves.
    pub fn hand(&mut self, stage: Stage, now: Time) {
        self.is_handed = true;
        self.enter(if stage == Stage::Moves { Phase::Prefill } else { Phase::Queue }, now);
    }

    /// Its prefill is done and a token was delivered.
    pub fn token(&mut self, now: Time) {
        self.record.first_token.get_or_insert(now);
        self.record.last_token = Some(now);
        self.record.output_tokens += 1;
        self.enter(Phase::Decode, now);
    }

    /// It was thrown out of the batch.
    pub fn preempt(&mut self, lost_tokens: u32, delivered: u32, now: Time) {
        self.record.preemptions += 1;
        self.record.recomputed_tokens += lost_tokens;
        if delivered > self.record.output_tokens {
            self.record.output_tokens = delivered;
            self.record.last_token = Some(now);
        }
        self.enter(Phase::Queue, now);
    }

    /// It was cut off: what had been computed for it, or had to be computed again, is lost.
    pub fn evict(&mut self, lost_tokens: u32, (delivered, gap_max): (u32, Span), now: Time) {
        if delivered > self.record.output_tokens {
            self.record.output_tokens = delivered;
            self.record.last_token = Some(now);
        }
        self.record.wasted_tokens = lost_tokens;
        self.record.gap_max = gap_max;
    }

    /// It delivered everything.
    pub fn finish(&mut self, gap_max: Span, now: Time) {
        self.record.output_tokens = self.output_tokens;
        self.record.last_token = Some(now);
        self.record.gap_max = gap_max;
    }

    /// Its life is over: closes the phase and asserts that its parts sum to the whole.
    #[inline(always)]
    pub fn close(&mut self, outcome: Outcome, now: Time) {
        self.enter(self.phase, now);
        let record = &mut self.record;
        (record.outcome, record.closed) = (outcome, now);
        assert!(record.phases.total() == now - record.arrived, "time is conserved");
    }
}
