//! The report of a decision log: the log is replayed, and what happens in it is told as facts.

use plimsoll_base::{
    Alarm, Attribution, BackendId, ClassId, Fact, Observer, PoolId, RequestRecord, Span, Time,
};
use plimsoll_policy::config::Share;
use plimsoll_policy::log::{Difference, Ending, Header, LogError, Reader, Record, Replay};
use plimsoll_policy::{BackendInfo, Chronicle, ConfigError, Input};
use plimsoll_report::{Plan, PoolPlan, Recorded};

use crate::report::{classes, promise};

/// Samples over the length of a log, or a few more.
const SAMPLES: u64 = 512;
/// Ids are below; what is beyond was written by no driver, and tables would not hold it.
const TENANTS_MAX: u32 = 1 << 20;
const SLOTS_MAX: u32 = 1 << 16;
const POOLS_MAX: u16 = 1 << 10;

/// What must be known of a log before its facts can be folded: the first of two readings.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The log's first and latest input.
    first: Option<Time>,
    last: Time,
    /// The latest arrival, by the number of its record.
    last_arrival: Option<(u64, Time)>,
    inputs: u64,
    /// By slot: the first backend that joined there.
    backends: Vec<Option<BackendInfo>>,
    taken_over: u64,
    first_tokens: bool,
    loads: bool,
    cut: Option<u64>,
}

/// Whether the decisions of a log are compared with those that its policy makes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// They are; at the first difference there is no report.
    Yes,
    /// The log is believed; from the first difference on what stops whom is not told.
    No,
}

/// What was folded.
#[derive(Debug)]
pub struct Folded<O> {
    /// The observer.
    pub observer: O,
    /// The number of the first input at which the policy now decides otherwise.
    pub differs_at: Option<u64>,
}

/// Why there is no report of a log.
#[derive(Debug, thiserror::Error)]
pub enum LogReportError {
    /// It is damaged.
    #[error("{0}")]
    Log(#[from] LogError),
    /// Its policy contradicts itself.
    #[error("the policy of the log: {0}")]
    Policy(#[from] ConfigError),
    /// Its policy decides otherwise now.
    #[error("a decision differs")]
    Differs(Box<Difference>),
    /// It holds a number that no driver gives.
    #[error("input {0} names a tenant, a backend or a pool of which there are not so many")]
    Number(u64),
}

impl Survey {
    /// Reads a log to its end.
    ///
    /// # Errors
    /// If it is damaged, or holds what no driver writes.
    pub fn of(mut log: Reader<'_>) -> Result<Survey, LogReportError> {
        let mut survey = Survey::default();
        for record in &mut log {
            survey.note(&record?)?;
        }
        survey.cut = match log.ending() {
            Some(Ending::Cut(at)) => Some(at),
            Some(Ending::Whole) | None => None,
        };
        Ok(survey)
    }

    /// Whether the log was cut off.
    pub fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    fn note(&mut self, record: &Record) -> Result<(), LogReportError> {
        self.inputs = record.number + 1;
        self.first.get_or_insert(record.now);
        self.last = record.now;
        let fine = match record.input {
            Input::Arrived(_, ref info) => {
                self.last_arrival = Some((record.number, record.now));
                info.tenant.0 < TENANTS_MAX
            }
            Input::Resumed(_, ref info, held) => {
                self.taken_over += 1;
                let slot = held.backend.map_or(0, |backend| backend.slot);
                info.tenant.0 < TENANTS_MAX && slot < SLOTS_MAX
            }
            Input::Joined(backend, ref info) => {
                let fine = backend.slot < SLOTS_MAX && info.pool.0 < POOLS_MAX;
                if fine {
                    self.joined(backend, info);
                }
                fine
            }
            Input::FirstToken(_) => {
                self.first_tokens = true;
                true
            }
            Input::Reported(..) => {
                self.loads = true;
                true
            }
            Input::Withdrawn(_)
            | Input::Accepted(_)
            | Input::Progressed(..)
            | Input::Ended(..)
            | Input::Matched(..)
            | Input::Predicted(..)
            | Input::Left(_)
            | Input::Draining
            | Input::Deadline => true,
        };
        if fine { Ok(()) } else { Err(LogReportError::Number(record.number)) }
    }

    fn joined(&mut self, backend: BackendId, info: &BackendInfo) {
        let slot = backend.index();
        if slot >= self.backends.len() {
            self.backends.resize(slot + 1, None);
        }
        self.backends[slot].get_or_insert(*info);
    }

    fn origin(&self) -> Time {
        self.first.unwrap_or_default()
    }

    /// What was taken over arrived before the first input: a nanosecond of warm-up holds it.
    fn lead(&self) -> Span {
        Span::from_nanos(u64::from(self.taken_over > 0))
    }

    fn length(&self) -> Span {
        self.last - self.origin()
    }

    /// Often enough for every bin of a time series.
    fn sample_every(&self) -> Span {
        Span::from_nanos((self.length().nanos() / SAMPLES).max(1_000_000))
    }

    /// The report's view of the log. Its times begin at the log's first input.
    pub fn plan(&self, header: &Header) -> Plan {
        let policy = &header.policy;
        let arrivals = self.last_arrival.map_or(self.last, |(_, at)| at);
        let pools = self.pools();
        let mut names = header.names.clone();
        pad(&mut names.classes, policy.classes.len());
        pad(&mut names.pools, pools.len());
        let pool_of = |slot: &Option<BackendInfo>| slot.map_or(PoolId(0), |info| info.pool);
        Plan {
            scenario: header.scenario.clone(),
            description: format!(
                "a decision log of {} inputs, written by plimsoll {}.",
                self.inputs, header.build
            ),
            scenario_hash: header.scenario_hash.clone(),
            policy: policy.to_string(),
            one_queue: policy.share == Share::Fcfs,
            owes_others: !policy.share.owes_classes(),
            promise: promise(policy),
            seed: header.seed,
            warm_up: self.lead(),
            duration: Some(arrivals - self.origin()),
            attribution: Attribution::On,
            names,
            classes: classes(policy, &header.objectives),
            pools,
            backends: self.backends.iter().map(pool_of).collect(),
            assumptions: Vec::new(),
            has_trace: true,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            recorded: Some(Recorded {
                first_tokens: self.first_tokens,
                loads: self.loads,
                taken_over: self.taken_over,
                notes: self.cut.iter().map(|at| self.cut_off(*at)).collect(),
            }),
        }
    }

    fn cut_off(&self, at: u64) -> String {
        format!(
            "The log was cut off: its last whole block ends at byte {at}, and what came after its \
             input {} is not known.",
            self.inputs
        )
    }

    /// As many replicas as slots that ever held one of the pool; the first says what all are.
    fn pools(&self) -> Vec<PoolPlan> {
        let count = self.backends.iter().flatten().map(|info| info.pool.index() + 1).max();
        let mut pools = vec![PoolPlan::default(); count.unwrap_or(1)];
        for info in self.backends.iter().flatten() {
            let pool = &mut pools[info.pool.index()];
            if pool.replicas == 0 {
                (pool.seats, pool.kv_tokens) = (info.seats, info.kv_tokens);
            }
            pool.replicas += 1;
        }
        for pool in &mut pools {
            "not observed".clone_into(&mut pool.provenance);
        }
        pools
    }
}

/// Numbers where names are missing.
fn pad(names: &mut Vec<String>, count: usize) {
    for index in names.len()..count {
        names.push(format!("#{index}"));
    }
}

/// Replays a log that was surveyed, and tells the observer what happened.
///
/// # Errors
/// If the log is damaged, or its policy decides otherwise now and that was to be checked.
pub fn fold<O: Observer>(
    log: Reader<'_>,
    (survey, checked): (&Survey, Checked),
    observer: O,
) -> Result<Folded<O>, LogReportError> {
    let policy = log.header().policy.clone();
    let mut chronicle = Chronicle::new(&policy, survey.sample_every());
    let mut since = Since { origin: survey.origin(), lead: survey.lead(), observer };
    let classes = policy.classes.len();
    let mut replay = Replay::new(policy)?;
    let mut differs_at = None;
    since.observe(survey.origin(), &Fact::WarmedUp);
    for record in log {
        let record = record?;
        if let Err(difference) = replay.step(&record) {
            if checked == Checked::Yes {
                return Err(LogReportError::Differs(difference));
            }
            if differs_at.replace(differs_at.unwrap_or(record.number)).is_none() {
                forget_bounds(record.now, classes, &mut since);
            }
        }
        let believed = differs_at.is_none();
        tell(&record, believed, (&replay, &mut chronicle), &mut since);
        if survey.last_arrival.is_some_and(|(number, _)| number == record.number) {
            since.observe(record.now, &Fact::ArrivalsEnded);
        }
    }
    if survey.last_arrival.is_none() {
        since.observe(survey.last, &Fact::ArrivalsEnded);
    }
    chronicle.finish(survey.last, &mut since);
    Ok(Folded { observer: since.observer, differs_at })
}

/// Tells a record of the log. What the allocator holds is told as long as it decides as the log
/// says.
fn tell(
    record: &Record,
    believed: bool,
    (replay, chronicle): (&Replay, &mut Chronicle),
    observer: &mut impl Observer,
) {
    let (now, allocator) = (record.now, replay.allocator());
    chronicle.input(now, &record.input, allocator, observer);
    for decision in &record.decisions {
        chronicle.decision(now, decision, allocator, observer);
    }
    for signal in &record.signals {
        chronicle.signal(now, signal, observer);
    }
    if believed {
        chronicle.rest(now, allocator, observer);
    }
}

/// What stops whom is not known any more.
fn forget_bounds(now: Time, classes: usize, observer: &mut impl Observer) {
    for class in (0..classes).map(|index| ClassId(index as u16)) {
        observer.observe(now, &Fact::Bound { class, bound: None });
    }
}

/// Tells facts on, with times since the beginning of the log. What was earlier is at nought, and a
/// wait that began earlier begins there.
struct Since<O> {
    origin: Time,
    lead: Span,
    observer: O,
}

impl<O> Since<O> {
    fn at(&self, time: Time) -> Time {
        match time < self.origin {
            true => Time::ZERO,
            false => Time::ZERO + (time - self.origin) + self.lead,
        }
    }

    fn record(&self, record: &RequestRecord) -> RequestRecord {
        let arrived = self.at(record.arrived);
        let closed = self.at(record.closed);
        let mut phases = record.phases;
        let later = phases.total().saturating_sub(closed - arrived);
        phases.queue = phases.queue.saturating_sub(later);
        RequestRecord {
            arrived,
            dispatched: record.dispatched.map(|at| self.at(at)),
            started: record.started.map(|at| self.at(at)),
            first_token: record.first_token.map(|at| self.at(at)),
            last_token: record.last_token.map(|at| self.at(at)),
            closed,
            phases,
            ..*record
        }
    }

    fn fact(&self, fact: &Fact) -> Fact {
        let mut fact = fact.clone();
        match &mut fact {
            Fact::Arrived { arrived, .. }
            | Fact::Dispatched { arrived, .. }
            | Fact::Started { arrived, .. }
            | Fact::Preempted { arrived, .. }
            | Fact::Handed { arrived, .. } => *arrived = self.at(*arrived),
            Fact::Closed(record) => *record = self.record(record),
            Fact::Alarmed(Alarm { since, .. }) => *since = self.at(*since),
            Fact::Bound { .. }
            | Fact::Gaps { .. }
            | Fact::BackendSampled { .. }
            | Fact::ClassSampled { .. }
            | Fact::Advised(_)
            | Fact::WarmedUp
            | Fact::ArrivalsEnded
            | Fact::RunEnded => {}
        }
        fact
    }
}

impl<O: Observer> Observer for Since<O> {
    fn observe(&mut self, now: Time, fact: &Fact) {
        self.observer.observe(self.at(now), &self.fact(fact));
    }
    fn close(&mut self, now: Time, record: &RequestRecord) {
        self.observer.close(self.at(now), &self.record(record));
    }
}
