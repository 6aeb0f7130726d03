//! The fold: facts of one replication in, counts out, in memory that does not grow with the run.

use plimsoll_base::{
    BackendSample, ClassId, ClassSample, Fact, Observer, Outcome, RequestRecord, Span, TenantId,
    Time,
};

use crate::bins::{Series, first_width};
use crate::flow::Flow;
use crate::plan::{Limits, Plan};
use crate::tally::{Outcomes, Tally, TenantTally, measured};

/// What the facts of one replication add up to.
#[derive(Clone, Debug)]
pub struct Ledger {
    warm_up: Span,
    /// Set by [`Fact::WarmedUp`]; from the start where there is no warm-up.
    pub(crate) warm: bool,
    pub(crate) classes: Vec<ClassLedger>,
    pub(crate) tenants: Vec<TenantTally>,
    pub(crate) backends: Vec<BackendLedger>,
    pub(crate) series: Series,
    dispatched: u64,
    busy: Span,
    pub(crate) now: Time,
    pub(crate) arrivals_ended: Option<Time>,
    pub(crate) ended: bool,
}

/// One class, or (the last) all that no rule classified.
#[derive(Clone, Debug)]
pub(crate) struct ClassLedger {
    limits: Limits,
    /// Measured requests.
    pub tally: Tally,
    /// All requests, warm-up included.
    pub all: Outcomes,
    pub flow: Flow,
    /// All requests, when arrivals ended; and how many then waited.
    pub at_end: Option<(Outcomes, u64)>,
}

/// One backend slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackendLedger {
    pool: usize,
    last: (Time, BackendSample),
    /// Since the warm-up.
    pub used: Used,
}

/// What a backend, or several, did in the measured time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Used {
    /// Over how much time it was watched.
    pub observed: Span,
    pub busy: Span,
    pub computed_tokens: u64,
    pub recomputed_tokens: u64,
    pub kv_token_millis: u64,
}

impl Used {
    pub fn add(&mut self, other: &Used) {
        self.observed += other.observed;
        self.busy += other.busy;
        self.computed_tokens += other.computed_tokens;
        self.recomputed_tokens += other.recomputed_tokens;
        self.kv_token_millis += other.kv_token_millis;
    }
}

impl Ledger {
    /// An empty ledger.
    pub fn new(plan: &Plan) -> Ledger {
        let limits = plan.classes.iter().map(Limits::of).chain([Limits::NONE]);
        let class = |limits| ClassLedger {
            limits,
            tally: Tally::default(),
            all: Outcomes::default(),
            flow: Flow::default(),
            at_end: None,
        };
        let backend = |pool: usize| BackendLedger { pool, ..BackendLedger::default() };
        Ledger {
            warm_up: plan.warm_up,
            warm: plan.warm_up == Span::ZERO,
            classes: limits.map(class).collect(),
            tenants: Vec::new(),
            backends: plan.backends.iter().map(|pool| backend(pool.index())).collect(),
            series: Series::new(first_width(plan.duration), plan.class_rows(), plan.pools.len()),
            dispatched: 0,
            busy: Span::ZERO,
            now: Time::ZERO,
            arrivals_ended: None,
            ended: false,
        }
    }

    /// The time series.
    pub fn series(&self) -> &Series {
        &self.series
    }
    /// The latest instant seen.
    pub fn now(&self) -> Time {
        self.now
    }
    /// When the measured time began.
    pub(crate) fn measured_from(&self) -> Time {
        (Time::ZERO + self.warm_up).min(self.now)
    }
    /// From the end of the warm-up to the end of the run.
    pub(crate) fn measured_span(&self) -> Span {
        self.now - self.measured_from()
    }

    fn row(&self, class: Option<ClassId>) -> usize {
        class.map_or(self.classes.len() - 1, ClassId::index)
    }

    fn arrive(&mut self, now: Time, tenant: TenantId, row: usize) {
        let class = &mut self.classes[row];
        class.all.arrived += 1;
        class.flow.arrive(now, self.dispatched - class.flow.dispatched);
        self.series.class(row).arrived += 1;
        if tenant.index() >= self.tenants.len() {
            self.tenants.resize_with(tenant.index() + 1, TenantTally::default);
        }
        if measured(now, self.warm_up) {
            self.classes[row].tally.outcomes.arrived += 1;
            self.tenants[tenant.index()].outcomes.arrived += 1;
        }
    }

    fn dispatch(&mut self, now: Time, row: usize) {
        let flow = &mut self.classes[row].flow;
        flow.dispatch(now, self.dispatched - flow.dispatched);
        self.dispatched += 1;
        self.series.class(row).dispatched += 1;
    }

    fn close(&mut self, now: Time, record: &RequestRecord) {
        let row = self.row(record.class);
        let class = &mut self.classes[row];
        class.all.close(record.outcome);
        if record.outcome != Outcome::Unfinished {
            if record.dispatched.is_none() {
                class.flow.leave(now, self.dispatched - class.flow.dispatched);
            }
            let bin = self.series.class(row);
            bin.closed += 1;
            bin.finished += u64::from(record.finished());
        }
        if measured(record.arrived, self.warm_up) {
            let good = class.tally.close(record, &class.limits);
            self.tenants[record.tenant.index()].close(record, good);
        }
    }

    fn sample_backend(&mut self, now: Time, slot: usize, sample: &BackendSample) {
        let backend = &mut self.backends[slot];
        let (from, before) = std::mem::replace(&mut backend.last, (now, *sample));
        let pool = backend.pool;
        let used = Used {
            observed: now - from,
            busy: sample.busy - before.busy,
            computed_tokens: (sample.prefill_tokens + sample.output_tokens)
                - (before.prefill_tokens + before.output_tokens),
            recomputed_tokens: sample.recomputed_tokens - before.recomputed_tokens,
            kv_token_millis: sample.kv_token_millis - before.kv_token_millis,
        };
        let part = MeasuredPart::of((from, now), self.warm_up);
        backend.used.add(&Used {
            observed: part.span(used.observed),
            busy: part.span(used.busy),
            computed_tokens: part.count(used.computed_tokens),
            recomputed_tokens: part.count(used.recomputed_tokens),
            kv_token_millis: part.count(used.kv_token_millis),
        });
        let between = (from, now);
        self.series.spread(between, used.busy.nanos(), |series, bin, nanos| {
            series.pool_bin(pool, bin).busy += Span::from_nanos(nanos);
        });
        self.series.spread(between, used.kv_token_millis, |series, bin, part| {
            series.pool_bin(pool, bin).kv_token_millis += part;
        });
        self.series.spread(between, used.observed.nanos(), |series, bin, nanos| {
            series.pool_bin(pool, bin).observed += Span::from_nanos(nanos);
        });
        let bin = self.series.pool(pool);
        bin.samples += 1;
        bin.waiting += u64::from(sample.waiting);
        bin.running += u64::from(sample.running);
    }

    fn sample_class(&mut self, now: Time, row: usize, sample: &ClassSample) {
        let flow = &mut self.classes[row].flow;
        let others = self.busy - flow.busy_so_far();
        let (from, used) = flow.sample(now, sample, others);
        self.busy += used;
        flow.busy += MeasuredPart::of((from, now), self.warm_up).span(used);
        self.series.spread((from, now), used.nanos(), |series, bin, nanos| {
            series.class_bin(row, bin).busy += Span::from_nanos(nanos);
        });
        let bin = self.series.class(row);
        bin.samples += 1;
        bin.queued += u64::from(sample.queued);
        bin.engine_waiting += u64::from(sample.engine_waiting);
        bin.running += u64::from(sample.running);
        bin.oldest_wait = bin.oldest_wait.max(sample.oldest_wait);
    }

    fn end_arrivals(&mut self, now: Time) {
        self.arrivals_ended = Some(now);
        for class in &mut self.classes {
            class.at_end = Some((class.all, class.flow.waiting_everywhere()));
        }
    }

    fn end(&mut self, now: Time) {
        self.ended = true;
        for class in &mut self.classes {
            class.flow.end(now, self.dispatched - class.flow.dispatched);
            let (all, closed) = (&class.all, class.all.settled() + class.all.unfinished);
            assert_eq!(all.arrived, closed, "every request that arrived closes exactly once");
        }
    }
}

/// How much of the time between two samples lies after the warm-up.
#[derive(Clone, Copy)]
struct MeasuredPart {
    covered: u64,
    length: u64,
}

impl MeasuredPart {
    fn of((from, to): (Time, Time), warm_up: Span) -> MeasuredPart {
        let begin = from.max(Time::ZERO + warm_up);
        MeasuredPart {
            covered: to.saturating_since(begin).nanos(),
            length: to.saturating_since(from).nanos(),
        }
    }
    fn count(self, amount: u64) -> u64 {
        if self.covered == self.length {
            return amount;
        }
        (u128::from(amount) * u128::from(self.covered) / u128::from(self.length)) as u64
    }
    fn span(self, amount: Span) -> Span {
        Span::from_nanos(self.count(amount.nanos()))
    }
}

impl Observer for Ledger {
    fn observe(&mut self, now: Time, fact: &Fact) {
        self.now = now;
        self.series.advance(now);
        match fact {
            Fact::Arrived { tenant, class, .. } => self.arrive(now, *tenant, self.row(*class)),
            Fact::Dispatched { class, .. } => self.dispatch(now, class.index()),
            Fact::Preempted { .. } => {}
            Fact::Gaps { class, first, increment, count, sequences } => {
                if self.warm {
                    let gaps = &mut self.classes[class.index()].tally.gaps;
                    gaps.record_series(*first, *increment, *count, *sequences);
                }
            }
            Fact::Closed(record) => self.close(now, record),
            Fact::BackendSampled { backend, sample } => {
                self.sample_backend(now, backend.index(), sample);
            }
            Fact::ClassSampled { class, sample } => {
                self.sample_class(now, class.index(), sample);
            }
            Fact::WarmedUp => {
                self.warm = true;
                self.classes.iter_mut().for_each(|class| class.flow.warm(now));
            }
            Fact::ArrivalsEnded => self.end_arrivals(now),
            Fact::RunEnded => self.end(now),
        }
    }
}
