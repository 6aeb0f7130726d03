//! A request in flight: its record so far, and the phase it is in.

use plimsoll_base::{RequestRecord, Span, Time};

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
}

impl Flight {
    /// A request that has just arrived.
    pub fn new(record: RequestRecord, output_tokens: u32, source_key: u32) -> Flight {
        Flight { since: record.arrived, record, output_tokens, source_key, phase: Phase::Queue }
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
        let first = self.record.started.is_none();
        self.record.started.get_or_insert(now);
        self.enter(if first { Phase::Prefill } else { Phase::Recompute }, now);
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

    /// It delivered everything.
    pub fn finish(&mut self, gap_max: Span, now: Time) {
        self.record.output_tokens = self.output_tokens;
        self.record.last_token = Some(now);
        self.record.gap_max = gap_max;
    }

    /// Its life is over: closes the phase and asserts that its parts sum to the whole.
    pub fn close(&mut self, now: Time) -> RequestRecord {
        self.enter(self.phase, now);
        self.record.closed = now;
        assert!(self.record.phases.total() == now - self.record.arrived, "time is conserved");
        self.record
    }
}
