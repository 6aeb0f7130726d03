//! What the allocator is told beside arrivals and ends, as far as some rule of its policy reads it
//! ([`Needs`]): reports of the backends, first tokens, and what a noisy oracle predicts. A policy
//! that reads none of it pays a branch.
//!
//! A report says what was true at its instant and is told [`REPORT_LAG`] later, in the order of the
//! backends. The next one is gathered a period after the last.

use plimsoll_base::{BackendId, Fact, Observer, RequestId, Span, Stream, StreamKey, Time};
use plimsoll_policy::config::Predict;
use plimsoll_policy::{Config, Input, Load, Needs, Signal};

use super::flight::Flight;
use super::{Event, World};
use crate::engine::Batch;
use crate::kernel::{Agenda, Rank};
use crate::workload::Request;

/// From the instant at which a report was true to the one at which the allocator hears it: a
/// scrape over a local network and its parsing.
pub(super) const REPORT_LAG: Span = Span::from_millis(20);

/// What is told, and what of it waits to be told.
#[derive(Debug, Default)]
pub(super) struct Telling {
    first_tokens: bool,
    /// Requests whose first token the engine at hand has just delivered.
    begun: Vec<RequestId>,
    /// How often reports are gathered.
    every: Option<Span>,
    /// Indexed by backend: the waits in its own queue that ended since its latest report.
    waits: Vec<Waits>,
    /// Indexed by backend: its latest report; and when they were true.
    loads: Vec<Load>,
    as_of: Time,
    /// The relative standard deviation of what the oracle says.
    error: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    nanos: u128,
    requests: u32,
}

impl Telling {
    pub fn new(needs: Needs, policy: &Config, backends: usize) -> Telling {
        let error = match policy.predict {
            Predict::NoisyOracle { error_ppm } => Some(f64::from(error_ppm) / 1e6),
            Predict::DeclaredCap | Predict::ClassIntensity | Predict::ClassQuantile { .. } => None,
        };
        Telling {
            first_tokens: needs.first_tokens,
            every: needs.reports,
            waits: vec![Waits::default(); backends],
            loads: vec![Load::default(); backends],
            error: error.filter(|_| needs.predictions),
            ..Telling::default()
        }
    }

    /// An engine is about to begin a request.
    #[inline(always)]
    pub fn started(&mut self, engine: u32, flight: &Flight, now: Time) {
        if self.every.is_some() {
            self.count_wait(engine, flight, now);
        }
    }
    #[inline(never)]
    fn count_wait(&mut self, engine: u32, flight: &Flight, now: Time) {
        if let (None, Some(dispatched)) = (flight.record.started, flight.record.dispatched) {
            let waits = &mut self.waits[engine as usize];
            waits.nanos += u128::from((now - dispatched).nanos());
            waits.requests += 1;
        }
    }

    /// An engine is about to deliver the token of a prefill.
    #[inline]
    pub fn token(&mut self, flight: &Flight) {
        if self.first_tokens && flight.record.first_token.is_none() {
            self.begun.push(flight.record.id);
        }
    }

    /// What the oracle says of a request, if the policy listens to one. The error is drawn from
    /// what the request is, so that no policy and no other workload changes it.
    pub fn oracle(&self, request: &Request, source: u16, now: Time) -> Option<u32> {
        let error = self.error?;
        let lengths = u64::from(request.prompt_tokens) << 32 | u64::from(request.output_tokens);
        let (seed, replication, entity) = (now.nanos(), u32::from(source), lengths);
        let key = StreamKey { seed, replication, name: "oracle", entity };
        let told = f64::from(request.output_tokens) * (1.0 + error * Stream::new(key).normal());
        Some(told.round().clamp(1.0, f64::from(u32::MAX)) as u32)
    }

    /// The mean wait since the last report.
    fn take_wait(&mut self, engine: usize) -> Span {
        let Waits { nanos, requests } = std::mem::take(&mut self.waits[engine]);
        let mean = nanos.checked_div(requests.into()).unwrap_or(0);
        Span::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }
}

impl<B: Batch, O: Observer> World<B, O> {
    /// Plans the first report, if any is read.
    pub(super) fn plan_report(&self, now: Time, agenda: &mut Agenda<Event>) {
        if let Some(every) = self.chronicle.telling.every {
            let next =
                self.chronicle.telling.as_of.saturating_add(every).max(now + Span::from_nanos(1));
            agenda.schedule(next, Rank::Telemetry, Event::Gather);
        }
    }

    /// Each backend writes down how full it is.
    #[inline(never)]
    pub(super) fn gather(&mut self, now: Time, agenda: &mut Agenda<Event>) {
        for slot in 0..self.backends.len() {
            let (backend, mut ear) = self.listen(slot as u32, now);
            backend.engine.settle(now, &mut ear);
            let sample = backend.engine.sample();
            let parts = u64::from(sample.kv_blocks_used) * 1_000_000 / u64::from(sample.kv_blocks);
            self.chronicle.telling.loads[slot] = Load {
                running: sample.running,
                waiting: sample.waiting,
                kv_used_ppm: parts as u32,
                queue_wait: self.chronicle.telling.take_wait(slot),
            };
        }
        self.chronicle.telling.as_of = now;
        agenda.schedule(now.saturating_add(REPORT_LAG), Rank::Decision, Event::Report);
    }

    /// The allocator hears what was gathered.
    #[inline(never)]
    pub(super) fn report(&mut self, now: Time, agenda: &mut Agenda<Event>) {
        for slot in 0..self.backends.len() {
            let (load, as_of) = (self.chronicle.telling.loads[slot], self.chronicle.telling.as_of);
            let backend = BackendId::first(slot as u32);
            self.decide(now, Input::Reported(backend, load, as_of), agenda);
            // Advice is given at reports only.
            self.tell_advice(now);
        }
        self.plan_report(now, agenda);
    }

    /// What the allocator advises is told, and written down if anything is. Nobody follows it: the
    /// simulated machine keeps its size.
    #[inline(never)]
    pub(super) fn tell_advice(&mut self, now: Time) {
        while let Some(signal) = self.allocator.poll_signal() {
            let audience = self.audience.as_deref_mut();
            if let Some(log) = audience.and_then(|audience| audience.log.as_mut()) {
                log.signal(&signal);
            }
            match signal {
                Signal::Scale(scale) => self.chronicle.observer.observe(now, &Fact::Advised(scale)),
                // The detector's, who tells them.
                Signal::Alarm(_) => {}
            }
        }
    }

    /// The allocator hears of the first tokens that the engine at hand has delivered.
    #[inline(always)]
    pub(super) fn follow_begun(&mut self, now: Time, agenda: &mut Agenda<Event>) {
        if !self.chronicle.telling.begun.is_empty() {
            self.tell_begun(now, agenda);
        }
    }

    #[inline(never)]
    fn tell_begun(&mut self, now: Time, agenda: &mut Agenda<Event>) {
        for index in 0..self.chronicle.telling.begun.len() {
            let id = self.chronicle.telling.begun[index];
            self.decide(now, Input::FirstToken(id), agenda);
        }
        self.chronicle.telling.begun.clear();
    }
}
