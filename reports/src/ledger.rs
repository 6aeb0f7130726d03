//! The fold: facts of one replication in, counts out, in memory that does not grow with the run.

use plimsoll_base::{
    Alarm, BackendSample, ClassId, ClassSample, Fact, Observer, Outcome, RequestRecord, Scale,
    Span, TenantId, Time,
};

use crate::advice::ADVICE_MAX;
use crate::alarms::ALARMS_MAX;
use crate::bins::{Series, first_width};
use crate::blame::{Blame, Blamed};
use crate::count::{ClassCount, GroupCount};
use crate::fairness::Fairness;
use crate::flow::Flow;
use crate::plan::{Limits, Plan};
use crate::scene::Scene;
use crate::tally::{Outcomes, Tally, TenantTally, measured};

/// What the facts of one replication add up to.
#[derive(Clone, Debug)]
pub struct Ledger {
    warm_up: Span,
    /// Whether engine time is told.
    sees_engines: bool,
    /// Set by [`Fact::WarmedUp`]; from the start where there is no warm-up.
    pub(crate) warm: bool,
    pub(crate) classes: Vec<ClassLedger>,
    /// By tenant, then class row; those that a measured request arrived in.
    groups: Vec<Option<Box<GroupCount>>>,
    pub(crate) backends: Vec<BackendLedger>,
    pub(crate) series: Series,
    /// Whether it keeps what only a page shows.
    for_page: bool,
    /// Where attribution is on.
    pub(crate) blame: Option<Box<Blame>>,
    pub(crate) fairness: Fairness,
    /// The first alarms.
    pub(crate) alarms: Vec<(Time, Alarm)>,
    /// The first pieces of advice.
    pub(crate) advice: Vec<(Time, Scale)>,
    /// Tokens of the largest finished request.
    pub(crate) largest: u64,
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
    /// Measured requests, but for what is counted by group.
    pub count: ClassCount,
    /// Requests that arrived in the warm-up.
    early: Outcomes,
    pub flow: Flow,
    /// What only the page shows of measured requests.
    pub scene: Scene,
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
        let limits = plan.classes.iter().map(|class| Limits::of(plan, class)).chain([Limits::NONE]);
        let class = |limits| ClassLedger {
            limits,
            count: ClassCount::default(),
            early: Outcomes::default(),
            flow: Flow::default(),
            scene: Scene::default(),
            at_end: None,
        };
        let backend = |pool: usize| BackendLedger { pool, ..BackendLedger::default() };
        Ledger {
            warm_up: plan.warm_up,
            sees_engines: plan.sees_engines(),
            warm: plan.warm_up == Span::ZERO,
            classes: limits.map(class).collect(),
            groups: Vec::new(),
            backends: plan.backends.iter().map(|pool| backend(pool.index())).collect(),
            series: Series::new(first_width(plan.duration), plan.class_rows(), plan.pools.len()),
            for_page: true,
            blame: plan.attribution.is_on().then(|| Box::new(Blame::new(plan))),
            fairness: Fairness::new(&plan.weights()),
            largest: 0,
            alarms: Vec::new(),
            advice: Vec::new(),
            dispatched: 0,
            busy: Span::ZERO,
            now: Time::ZERO,
            arrivals_ended: None,
            ended: false,
        }
    }

    /// The same for whoever reads numbers only: what a page alone shows is not kept.
    #[must_use]
    pub fn without_page(self) -> Ledger {
        Ledger { for_page: false, ..self }
    }

    /// The time series.
    pub fn series(&self) -> &Series {
        &self.series
    }
    /// What the waiting time of a class's measured requests falls on; the parts sum to it exactly.
    /// None without attribution.
    pub fn blamed(&self, class: ClassId) -> Vec<Blamed> {
        self.blame.as_ref().map_or(Vec::new(), |blame| blame.parts(class.index()))
    }
    /// The latest instant seen.
    pub fn now(&self) -> Time {
        self.now
    }
    /// When the measured time began.
    pub(crate) fn measured_from(&self) -> Time {
        (Time::ZERO + self.warm_up).min(self.now)
    }
    /// Engine seconds of all backends as last sampled, the warm-up included.
    pub(crate) fn engine_seconds(&self) -> f64 {
        self.backends.iter().map(|backend| backend.last.1.busy.secs_f64()).sum()
    }
    /// From the end of the warm-up to the end of the run.
    pub(crate) fn measured_span(&self) -> Span {
        self.now - self.measured_from()
    }

    /// The groups of one class.
    fn groups_of(&self, row: usize) -> impl Iterator<Item = &GroupCount> {
        self.groups.iter().skip(row).step_by(self.classes.len()).filter_map(Option::as_deref)
    }
    /// All requests of a class, warm-up included.
    pub(crate) fn all(&self, row: usize) -> Outcomes {
        let mut all = self.classes[row].early;
        self.groups_of(row).for_each(|group| all.merge(&group.outcomes));
        all
    }
    /// The measured requests of each class.
    pub(crate) fn tallies(&self) -> Vec<Tally> {
        (0..self.classes.len()).map(|row| self.tally(row)).collect()
    }
    fn tally(&self, row: usize) -> Tally {
        let mut tally = Tally::default();
        self.groups_of(row).for_each(|group| group.add_to_class(&mut tally));
        self.classes[row].count.add_to(&mut tally);
        if let Some(blame) = &self.blame {
            tally.overtakes = blame.overtaken(row);
        }
        tally
    }
    /// The measured requests of each tenant.
    pub(crate) fn tenants(&self) -> Vec<TenantTally> {
        let tenant = |groups: &[Option<Box<GroupCount>>]| {
            let mut tally = TenantTally::default();
            groups.iter().flatten().for_each(|group| group.add_to_tenant(&mut tally));
            tally
        };
        self.groups.chunks(self.classes.len()).map(tenant).collect()
    }

    fn row(&self, class: Option<ClassId>) -> usize {
        class.map_or(self.classes.len() - 1, ClassId::index)
    }

    #[inline(always)]
    fn arrive(&mut self, now: Time, tenant: TenantId, (row, arrived): (usize, Time)) {
        let class = &mut self.classes[row];
        class.flow.arrive(now, self.dispatched - class.flow.dispatched);
        self.series.class(row).arrived += 1;
        let outcomes = if measured(arrived, self.warm_up) {
            &mut self.group(tenant, row).outcomes
        } else {
            &mut class.early
        };
        outcomes.arrived += 1;
    }

    /// The group that a measured request arrives in.
    #[inline]
    fn group(&mut self, tenant: TenantId, row: usize) -> &mut GroupCount {
        let rows = self.classes.len();
        let index = tenant.index() * rows + row;
        if self.groups.get(index).is_none_or(Option::is_none) {
            self.open_group(tenant, index);
        }
        self.groups[index].as_mut().expect("it was just opened")
    }
    #[cold]
    fn open_group(&mut self, tenant: TenantId, index: usize) {
        let needed = (tenant.index() + 1) * self.classes.len();
        self.groups.resize_with(needed.max(self.groups.len()), || None);
        self.groups[index] = Some(Box::default());
    }

    #[inline(always)]
    fn dispatch(&mut self, now: Time, row: usize) {
        let flow = &mut self.classes[row].flow;
        flow.dispatch(now, self.dispatched - flow.dispatched);
        self.dispatched += 1;
        self.series.class(row).dispatched += 1;
    }

    #[inline(never)]
    fn count_close(&mut self, now: Time, record: &RequestRecord) {
        let row = self.row(record.class);
        let rows = self.classes.len();
        let class = &mut self.classes[row];
        let finished = record.finished();
        if finished {
            let tokens = u64::from(record.prompt_tokens) + u64::from(record.output_tokens);
            self.largest = self.largest.max(tokens);
        }
        if finished || record.outcome != Outcome::Unfinished {
            if record.dispatched.is_none() {
                class.flow.leave(now, self.dispatched - class.flow.dispatched);
            }
            let bin = self.series.class(row);
            bin.closed += 1;
            bin.finished += u64::from(finished);
        }
        if measured(record.arrived, self.warm_up) {
            let group = self.groups[record.tenant.index() * rows + row].as_mut();
            let group = group.expect("what closes has arrived");
            class.count.close(group, record, &class.limits);
            if self.for_page {
                class.scene.close(record);
            }
        } else {
            class.early.close(record.outcome);
        }
    }

    #[cold]
    fn advise(&mut self, now: Time, scale: &Scale) {
        if self.advice.len() < ADVICE_MAX {
            self.advice.push((now, *scale));
        }
    }

    #[cold]
    fn alarm(&mut self, now: Time, alarm: &Alarm) {
        if self.alarms.len() < ALARMS_MAX {
            self.alarms.push((now, *alarm));
        }
    }

    #[inline(never)]
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
        if used.recomputed_tokens > 0 {
            let part = used.recomputed_tokens as f64 / used.computed_tokens.max(1) as f64;
            let wasted = Span::from_secs_f64(used.busy.secs_f64() * part.min(1.0));
            self.series.spread(between, wasted.nanos(), |series, bin, nanos| {
                series.pool_bin(pool, bin).wasted += Span::from_nanos(nanos);
            });
        }
        // An engine lets nobody wait who has a seat and memory; the allocator says what it waits for.
        let held_back = self.blame.as_ref().is_some_and(|blame| blame.waits_for_memory());
        let free = sample.seats.saturating_sub(sample.running);
        let bin = self.series.pool(pool);
        bin.seats += u64::from(sample.seats);
        if sample.waiting > 0 || held_back {
            bin.blocked += u64::from(free);
        }
        bin.preemptions += sample.preemptions - before.preemptions;
        bin.samples += 1;
        bin.waiting += u64::from(sample.waiting);
        bin.running += u64::from(sample.running);
    }

    #[inline(never)]
    fn sample_class(&mut self, now: Time, row: usize, sample: &ClassSample) {
        if self.sees_engines {
            self.fairness.sample(now, row, sample);
            self.count_busy(now, row, sample);
        }
        let bin = self.series.class(row);
        bin.samples += 1;
        bin.queued += u64::from(sample.queued);
        bin.engine_waiting += u64::from(sample.engine_waiting);
        bin.running += u64::from(sample.running);
        bin.oldest_wait = bin.oldest_wait.max(sample.oldest_wait);
    }

    /// Engine time that a class used since its sample before.
    fn count_busy(&mut self, now: Time, row: usize, sample: &ClassSample) {
        let flow = &mut self.classes[row].flow;
        let others = self.busy - flow.busy_so_far();
        let (from, used) = flow.sample(now, sample, others);
        self.busy += used;
        flow.busy += MeasuredPart::of((from, now), self.warm_up).span(used);
        self.series.spread((from, now), used.nanos(), |series, bin, nanos| {
            series.class_bin(row, bin).busy += Span::from_nanos(nanos);
        });
    }

    #[inline(never)]
    fn end_arrivals(&mut self, now: Time) {
        self.arrivals_ended = Some(now);
        for row in 0..self.classes.len() {
            let all = self.all(row);
            let class = &mut self.classes[row];
            class.at_end = Some((all, class.flow.waiting_everywhere()));
        }
    }

    #[inline(never)]
    fn end(&mut self, now: Time) {
        self.ended = true;
        self.fairness.end();
        for row in 0..self.classes.len() {
            let flow = &mut self.classes[row].flow;
            flow.end(now, self.dispatched - flow.dispatched);
            let all = self.all(row);
            let closed = all.settled() + all.unfinished;
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
    // Where a fact is told its kind is known, and only its arm remains.
    #[inline(always)]
    fn observe(&mut self, now: Time, fact: &Fact) {
        if let Some(blame) = &mut self.blame {
            blame.observe(now, fact);
        }
        // These concern the attribution alone.
        if matches!(
            fact,
            Fact::Bound { .. }
                | Fact::Started { .. }
                | Fact::Preempted { .. }
                | Fact::Handed { .. }
        ) {
            return;
        }
        self.now = now;
        self.series.advance(now);
        match fact {
            Fact::Arrived { tenant, class, arrived, .. } => {
                self.arrive(now, *tenant, (self.row(*class), *arrived));
            }
            Fact::Dispatched { class, .. } => self.dispatch(now, class.index()),
            Fact::Bound { .. }
            | Fact::Started { .. }
            | Fact::Preempted { .. }
            | Fact::Handed { .. } => {}
            Fact::Gaps { class, first, increment, count, sequences } => {
                if self.warm {
                    let gaps = &mut self.classes[class.index()].count.gaps;
                    gaps.record_series(*first, *increment, *count, *sequences);
                }
            }
            Fact::Closed(record) => self.count_close(now, record),
            Fact::BackendSampled { backend, sample } => {
                self.sample_backend(now, backend.index(), sample);
            }
            Fact::ClassSampled { class, sample } => self.sample_class(now, class.index(), sample),
            Fact::Alarmed(alarm) => self.alarm(now, alarm),
            Fact::Advised(scale) => self.advise(now, scale),
            Fact::WarmedUp => {
                self.warm = true;
                self.fairness.warm();
                self.classes.iter_mut().for_each(|class| class.flow.warm(now));
            }
            Fact::ArrivalsEnded => self.end_arrivals(now),
            Fact::RunEnded => self.end(now),
        }
    }
    #[inline(always)]
    fn close(&mut self, now: Time, record: &RequestRecord) {
        self.now = now;
        self.series.advance(now);
        if let Some(blame) = &mut self.blame {
            blame.close(now, record);
        }
        self.count_close(now, record);
    }
}
