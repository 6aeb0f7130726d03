//! The chronicle: what an allocator is told and decides, told on as facts.
//!
//! The simulated world tells the facts of its requests because it makes them. A gateway has only
//! what goes into its allocator and what comes out; a decision log has the same. The chronicle
//! stands beside the allocator, live or in a replay, and turns that into the facts that reports
//! are folds over:
//!
//! ```text
//! allocator.handle(now, input.clone());
//! chronicle.input(now, &input, &allocator, &mut observer);
//! while let Some(decision) = allocator.poll() {
//!     chronicle.decision(now, &decision, &allocator, &mut observer);
//! }
//! while let Some(signal) = … { chronicle.signal(now, &signal, &mut observer); }
//! chronicle.rest(now, &allocator, &mut observer);
//! ```
//!
//! Work is constant an input, but for a look at every class and backend when a sample is due, and
//! when what stops a class has changed; memory follows what the allocator holds.
//!
//! # What it cannot know
//!
//! Engines are opaque: a request counts as started when it was dispatched, so that what it waits
//! in its engine's own queue is a part of its prefill. Nobody tells of gaps between tokens, of
//! engine time, of preemptions, and of how long a request would take alone: these facts are
//! absent, and such fields 0. A request of which no first token was told was not streamed: what
//! its client saw first it saw at the end. Samples are taken when something happens, so that an
//! idle time has none.

use plimsoll_base::{
    BackendId, BackendSample, ClassId, ClassSample, End, Fact, Observer, Outcome, Phases,
    RequestId, RequestRecord, Span, Time,
};

use crate::allocator::Allocator;
use crate::bounds::Bounds;
use crate::config::Config;
use crate::index::Index;
use crate::message::{Action, Decision, Input, Load, RequestInfo, Signal, Used};
use crate::place::SLOTS_MAX;

/// Turns what an allocator is told and decides into facts.
#[derive(Debug)]
pub struct Chronicle {
    /// From the ids of the requests that the allocator holds to their slots.
    index: Index,
    /// A closed one's slot is reused, the latest first.
    records: Vec<Option<RequestRecord>>,
    free: Vec<u32>,
    /// Requests that were let in and have not ended; indexed by class.
    running: Vec<u32>,
    /// Indexed by slot.
    backends: Vec<Option<Backend>>,
    bounds: Bounds,
    every: Span,
    /// When the next sample is due.
    due: Time,
}

/// What a backend said of itself.
#[derive(Clone, Copy, Debug)]
struct Backend {
    id: BackendId,
    is_here: bool,
    seats: u32,
    kv_tokens: u64,
    /// Its latest report, if there is one.
    load: Option<Load>,
    /// KV memory held up to `at`, in token-nanoseconds, as if each report held until the next.
    kv_token_nanos: u128,
    at: Time,
}

impl Chronicle {
    /// A chronicle for an allocator with this policy, before its first input; it tells samples as
    /// often as `sample_every`.
    pub fn new(config: &Config, sample_every: Span) -> Chronicle {
        let classes = config.classes.len();
        Chronicle {
            index: Index::new(),
            records: Vec::new(),
            free: Vec::new(),
            running: vec![0; classes],
            backends: Vec::new(),
            bounds: Bounds::new(classes),
            every: sample_every.max(Span::from_nanos(1)),
            due: Time::ZERO,
        }
    }

    /// The allocator was handed this; call it after [`Allocator::handle`] and before its
    /// decisions are told. What changed nothing in the allocator is no fact.
    pub fn input(
        &mut self,
        now: Time,
        input: &Input,
        allocator: &Allocator,
        observer: &mut impl Observer,
    ) {
        match *input {
            Input::Arrived(id, ref info) => {
                let class = allocator.latest_class();
                self.arrived(now, opened(id, info, class, now), observer);
            }
            Input::Resumed(id, ref info, held) => {
                let is_known = held.class.index() < self.running.len();
                let has_place = held.backend.is_none_or(|backend| backend.index() < SLOTS_MAX);
                if is_known && has_place {
                    let arrived = held.arrived.min(now);
                    self.arrived(now, opened(id, info, Some(held.class), arrived), observer);
                }
            }
            Input::FirstToken(id) => self.delivered(now, id, 1),
            Input::Progressed(id, tokens) => self.delivered(now, id, tokens),
            Input::Ended(id, end, used) => self.ended(now, id, (end, used), observer),
            Input::Joined(backend, info) => self.joined(now, backend, (info.seats, info.kv_tokens)),
            Input::Reported(backend, load, _) => self.reported(now, backend, load),
            Input::Left(backend) => self.left(now, backend),
            // Their facts are the decisions that follow.
            Input::Withdrawn(_) | Input::Deadline => {}
            Input::Accepted(_) | Input::Matched(..) | Input::Predicted(..) | Input::Draining => {}
        }
    }

    /// It decided this.
    pub fn decision(
        &mut self,
        now: Time,
        decision: &Decision,
        allocator: &Allocator,
        observer: &mut impl Observer,
    ) {
        let outcome = match decision.action {
            Action::Dispatch(backend, _) => {
                return self.dispatched(now, (decision, backend), allocator, observer);
            }
            Action::Reject(refusal, _) => Outcome::Refused(refusal),
            Action::Close(end) => Outcome::Ended(end),
            // Its end is the fact.
            Action::Cancel(_) => return,
            // No rule takes back what runs.
            Action::Preempt(_) => return,
        };
        let Some(record) = self.record(decision.id) else { return };
        if record.dispatched.is_none() {
            (record.reason, record.bound) = (Some(decision.reason), decision.bound);
            self.close(now, decision.id, outcome, observer);
        }
    }

    /// It advised this, or the detector beside it raised this alarm.
    pub fn signal(&mut self, now: Time, signal: &Signal, observer: &mut impl Observer) {
        let fact = match *signal {
            Signal::Scale(scale) => Fact::Advised(scale),
            Signal::Alarm(alarm) => Fact::Alarmed(alarm),
        };
        observer.observe(now, &fact);
    }

    /// All decisions of the input were told: tells what stops each class, and samples that are
    /// due. It may be called between inputs too, so that idle times have samples.
    #[inline]
    pub fn rest(&mut self, now: Time, allocator: &Allocator, observer: &mut impl Observer) {
        self.bounds.tell(now, allocator.standing(), observer);
        if now >= self.due {
            self.sample(now, allocator, observer);
        }
    }

    /// Ends the run: what is held is closed as unfinished, in order of arrival.
    pub fn finish(&mut self, now: Time, observer: &mut impl Observer) {
        let mut held: Vec<RequestId> = self.records.iter().flatten().map(|r| r.id).collect();
        held.sort_unstable();
        for id in held {
            self.close(now, id, Outcome::Unfinished, observer);
        }
        observer.observe(now, &Fact::RunEnded);
    }

    fn record(&mut self, id: RequestId) -> Option<&mut RequestRecord> {
        let slot = self.index.find(id.0)?.slot;
        self.records[slot as usize].as_mut()
    }

    fn arrived(&mut self, now: Time, record: RequestRecord, observer: &mut impl Observer) {
        let RequestRecord { id, tenant, class, arrived, prompt_tokens, .. } = record;
        if self.index.find(id.0).is_some() {
            return;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.records.push(None);
            u32::try_from(self.records.len() - 1).expect("requests held fit 32 bits")
        });
        self.records[slot as usize] = Some(record);
        self.index.insert(id.0, slot);
        observer.observe(now, &Fact::Arrived { id, tenant, class, arrived, prompt_tokens });
    }

    fn dispatched(
        &mut self,
        now: Time,
        (decision, backend): (&Decision, BackendId),
        allocator: &Allocator,
        observer: &mut impl Observer,
    ) {
        let Some(record) = self.record(decision.id) else { return };
        let (Some(class), None) = (record.class, record.dispatched) else { return };
        (record.dispatched, record.started) = (Some(now), Some(now));
        record.backend = Some(backend);
        (record.reason, record.bound) = (Some(decision.reason), decision.bound);
        let RequestRecord { id, tenant, arrived, prompt_tokens, .. } = *record;
        let tokens = allocator.tokens(id).unwrap_or(prompt_tokens.into());
        record.tokens = tokens;
        let Decision { reason, bound, .. } = *decision;
        self.running[class.index()] += 1;
        let dispatched = Fact::Dispatched {
            id,
            tenant,
            class,
            backend,
            reason,
            bound,
            arrived,
            prompt_tokens,
            tokens,
        };
        observer.observe(now, &dispatched);
        observer.observe(now, &Fact::Started { id, class, backend, arrived });
    }

    /// So many tokens of it have been delivered, or more.
    fn delivered(&mut self, now: Time, id: RequestId, tokens: u32) {
        if let Some(record) = self.record(id)
            && record.dispatched.is_some()
            && tokens > 0
        {
            record.first_token.get_or_insert(now);
            record.last_token = Some(now);
            record.output_tokens = record.output_tokens.max(tokens);
        }
    }

    fn ended(
        &mut self,
        now: Time,
        id: RequestId,
        (end, used): (End, Used),
        observer: &mut impl Observer,
    ) {
        let Some(record) = self.record(id) else { return };
        if record.dispatched.is_none() {
            return;
        }
        record.output_tokens = used.output_tokens;
        match end {
            End::Finished => {
                record.first_token.get_or_insert(now);
                record.last_token = Some(now);
            }
            End::Evicted => {
                record.wasted_tokens = used.prompt_tokens.saturating_add(used.output_tokens);
            }
            End::Failed | End::Cancelled | End::Expired => {}
        }
        self.close(now, id, Outcome::Ended(end), observer);
    }

    /// Ends a request's life. Its phases sum to it.
    fn close(&mut self, now: Time, id: RequestId, outcome: Outcome, observer: &mut impl Observer) {
        let Some(found) = self.index.find(id.0) else { return };
        self.index.remove(found);
        self.free.push(found.slot);
        let taken = self.records[found.slot as usize].take();
        let mut record = taken.expect("what stands in the index is held");
        (record.outcome, record.closed) = (outcome, now);
        let let_in = record.dispatched.unwrap_or(now);
        let first = record.first_token.unwrap_or(now);
        record.phases = Phases {
            queue: let_in - record.arrived,
            prefill: first - let_in,
            decode: now - first,
            preempted: Span::ZERO,
        };
        if let (Some(class), Some(_)) = (record.class, record.dispatched) {
            self.running[class.index()] -= 1;
        }
        observer.close(now, &record);
    }

    fn joined(&mut self, now: Time, id: BackendId, (seats, kv_tokens): (u32, u64)) {
        let slot = id.index();
        if slot >= SLOTS_MAX {
            return;
        }
        if slot >= self.backends.len() {
            self.backends.resize(slot + 1, None);
        }
        let before = self.backends[slot];
        if before.is_some_and(|before| before.id.generation >= id.generation) {
            return;
        }
        // The counter of a slot goes on, whoever stands there.
        let kv_token_nanos = before.map_or(0, |before| before.kv_token_nanos_at(now));
        let at = now;
        let backend =
            Backend { id, is_here: true, seats, kv_tokens, load: None, kv_token_nanos, at };
        self.backends[slot] = Some(backend);
    }

    fn backend(&mut self, id: BackendId) -> Option<&mut Backend> {
        self.backends.get_mut(id.index())?.as_mut().filter(|b| b.id == id && b.is_here)
    }

    fn reported(&mut self, now: Time, id: BackendId, load: Load) {
        if let Some(backend) = self.backend(id) {
            backend.kv_token_nanos = backend.kv_token_nanos_at(now);
            (backend.load, backend.at) = (Some(load), now);
        }
    }

    fn left(&mut self, now: Time, id: BackendId) {
        if let Some(backend) = self.backend(id) {
            backend.kv_token_nanos = backend.kv_token_nanos_at(now);
            (backend.load, backend.at, backend.is_here) = (None, now, false);
        }
    }

    #[inline(never)]
    fn sample(&mut self, now: Time, allocator: &Allocator, observer: &mut impl Observer) {
        let every = self.every.nanos();
        self.due = Time::from_nanos((now.nanos() / every).saturating_add(1).saturating_mul(every));
        for backend in self.backends.iter().flatten() {
            if let Some(sample) = backend.sample(now) {
                observer.observe(now, &Fact::BackendSampled { backend: backend.id, sample });
            }
        }
        for (class, &running) in (0..).map(ClassId).zip(&self.running) {
            let oldest = allocator.oldest_arrival(class);
            let sample = ClassSample {
                queued: allocator.queued(class),
                running,
                oldest_wait: oldest.map_or(Span::ZERO, |at| now - at),
                ..ClassSample::default()
            };
            observer.observe(now, &Fact::ClassSampled { class, sample });
        }
    }
}

/// A request that has just arrived, or was taken over.
fn opened(
    id: RequestId,
    info: &RequestInfo,
    class: Option<ClassId>,
    arrived: Time,
) -> RequestRecord {
    RequestRecord {
        source: info.source,
        tenant: info.tenant,
        class,
        prompt_tokens: info.prompt_tokens,
        output_cap: info.output_cap,
        ..RequestRecord::new(id, arrived)
    }
}

impl Backend {
    /// KV tokens held, by its latest report.
    fn kv_used(&self) -> u64 {
        let parts = self.load.map_or(0, |load| u128::from(load.kv_used_ppm));
        u64::try_from(u128::from(self.kv_tokens) * parts / 1_000_000).unwrap_or(u64::MAX)
    }

    fn kv_token_nanos_at(&self, now: Time) -> u128 {
        let since = u128::from(now.saturating_since(self.at).nanos());
        self.kv_token_nanos.saturating_add(u128::from(self.kv_used()).saturating_mul(since))
    }

    /// `None` if it has not reported.
    fn sample(&self, now: Time) -> Option<BackendSample> {
        let load = self.load?;
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let kv_token_millis = self.kv_token_nanos_at(now) / 1_000_000;
        Some(BackendSample {
            running: load.running,
            waiting: load.waiting,
            kv_blocks_used: narrow(self.kv_used()),
            kv_blocks: narrow(self.kv_tokens),
            seats: self.seats,
            kv_token_millis: u64::try_from(kv_token_millis).unwrap_or(u64::MAX),
            ..BackendSample::default()
        })
    }
}
