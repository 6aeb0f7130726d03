//! The requests of a decision log under another policy (level L4: a counterfactual, no parity).
//!
//! Inputs depend on decisions: under another policy other requests run, and end, at other times.
//! So only what does not depend on them is taken from the log: arrivals, withdrawals, what was
//! known beforehand, and backends that come and go with the seats and the memory they had. A
//! request that the other policy dispatches runs as long as it ran in the log (the time from its
//! dispatch to its end), whatever runs beside it; one that never ran in the log runs as long as
//! the median of its class. Reports of load are handed in as they were recorded, although the
//! load would be another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use plimsoll_base::{BackendId, ClassId, End, RequestId, Span, Time};
use plimsoll_policy::log::{LogError, Reader, Record};
use plimsoll_policy::{
    Action, Agreement, Allocator, Config, ConfigError, Decision, Input, Used, Verdict,
};

use crate::other::{ClassesDiffer, OtherPolicy, Translation};

/// What came of the requests of a log under two policies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counterfactual {
    /// Indexed by the class of the log.
    pub classes: Vec<ClassOutcomes>,
    /// How often both decided the same: same backend, same refusal, same end in the queue.
    pub agreement: Agreement,
    /// Requests that arrived.
    pub arrived: u64,
    /// Requests that ran under the other policy only: how long is the median of their class.
    pub guessed: u64,
    /// Reports of load handed in although the load would be another.
    pub reports: u64,
}

/// A class under the policy of the log and under the other one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassOutcomes {
    /// As the log says.
    pub recorded: Outcomes,
    /// Under the other policy.
    pub other: Outcomes,
}

/// What came of a class's requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcomes {
    /// Requests that ran.
    pub dispatched: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests that ended while they waited.
    pub closed: u64,
    waits: Vec<u64>,
}

impl Outcomes {
    fn add(&mut self, verdict: Verdict, wait: Span) {
        match verdict {
            Verdict::Dispatched(_) => {
                self.dispatched += 1;
                self.waits.push(wait.nanos());
            }
            Verdict::Refused(_) => self.refused += 1,
            Verdict::Closed(_) => self.closed += 1,
        }
    }
    /// The mean time from arrival to dispatch of those that ran.
    pub fn wait_mean(&self) -> Option<Span> {
        let sum: u128 = self.waits.iter().map(|&wait| u128::from(wait)).sum();
        let mean = sum.checked_div(self.waits.len() as u128)?;
        Some(Span::from_nanos(u64::try_from(mean).expect("a mean is below the largest")))
    }
    /// The wait that 99 % of those that ran did not exceed (nearest rank).
    pub fn wait_p99(&self) -> Option<Span> {
        let rank = (self.waits.len() * 99).div_ceil(100).checked_sub(1)?;
        self.waits.get(rank).copied().map(Span::from_nanos)
    }
}

/// Why there is no counterfactual.
#[derive(Debug, thiserror::Error)]
pub enum CounterfactualError {
    /// The log is damaged.
    #[error("{0}")]
    Log(#[from] LogError),
    /// The other policy contradicts itself.
    #[error("the other policy contradicts itself: {0}")]
    Policy(#[from] ConfigError),
    /// The classes are not those of the log.
    #[error("{0}")]
    Classes(#[from] ClassesDiffer),
}

/// Replays the requests of a log under another policy. `open` reads the log from its beginning.
///
/// # Errors
/// If the log is damaged, or the other policy does not fit it.
pub fn counterfactual<'a>(
    open: impl Fn() -> Result<Reader<'a>, LogError>,
    other: &OtherPolicy,
) -> Result<Counterfactual, CounterfactualError> {
    let mut recorded = Recorded::default();
    for record in open()? {
        recorded.note(&record?);
    }
    let log = open()?;
    let names = log.header().names.clone();
    let translation = Translation::new(&names, &other.names)?;
    let services = recorded.services(names.classes.len());
    let mut stage = Stage::new(other.policy.clone(), &recorded, services)?;
    for record in log {
        let Record { now, input, .. } = record?;
        stage.run_until(now);
        stage.replay(now, &translation.input(input));
    }
    stage.run_out();
    Ok(stage.compare(&recorded, &translation))
}

/// What the log says of each request.
#[derive(Debug, Default)]
struct Recorded {
    requests: BTreeMap<RequestId, Life>,
}

/// A request's life under a policy.
#[derive(Clone, Copy, Debug)]
struct Life {
    arrived: Time,
    class: Option<ClassId>,
    /// First decision, and when.
    verdict: Option<(Verdict, Time)>,
    /// Latest dispatch.
    dispatched: Option<Time>,
    ended: Option<(Time, End, Used)>,
}

impl Life {
    fn new(arrived: Time) -> Life {
        Life { arrived, class: None, verdict: None, dispatched: None, ended: None }
    }
    fn decide(&mut self, decision: &Decision, now: Time) {
        self.class = self.class.or(decision.class);
        let Some(verdict) = Verdict::of(&decision.action) else { return };
        self.verdict.get_or_insert((verdict, now));
        if let Verdict::Dispatched(_) = verdict {
            self.dispatched = Some(now);
        }
    }
    /// How long it ran, how it ended and what it had used, if it did.
    fn service(&self) -> Option<(Span, End, Used)> {
        let (at, end, used) = self.ended?;
        Some((at.saturating_since(self.dispatched?), end, used))
    }
}

impl Recorded {
    fn note(&mut self, record: &Record) {
        match record.input {
            Input::Arrived(id, _) | Input::Resumed(id, ..) => {
                self.requests.entry(id).or_insert_with(|| Life::new(record.now));
            }
            Input::Ended(id, end, used) => {
                if let Some(life) = self.requests.get_mut(&id) {
                    life.ended.get_or_insert((record.now, end, used));
                }
            }
            Input::Withdrawn(_)
            | Input::Accepted(_)
            | Input::FirstToken(_)
            | Input::Progressed(..)
            | Input::Matched(..)
            | Input::Predicted(..)
            | Input::Joined(..)
            | Input::Reported(..)
            | Input::Left(_)
            | Input::Draining
            | Input::Deadline => {}
        }
        for decision in &record.decisions {
            if let Some(life) = self.requests.get_mut(&decision.id) {
                life.decide(decision, record.now);
            }
        }
    }

    /// The median time at a backend, by class; that of all where a class has none.
    fn services(&self, classes: usize) -> Vec<Span> {
        let mut all = Vec::new();
        let mut by_class = vec![Vec::new(); classes];
        for life in self.requests.values() {
            let Some((span, End::Finished, _)) = life.service() else { continue };
            all.push(span);
            if let Some(spans) = life.class.and_then(|class| by_class.get_mut(class.index())) {
                spans.push(span);
            }
        }
        let median = |mut spans: Vec<Span>| {
            spans.sort_unstable();
            spans.get(spans.len() / 2).copied()
        };
        let of_all = median(all).unwrap_or(Span::ZERO);
        by_class.into_iter().map(|spans| median(spans).unwrap_or(of_all)).collect()
    }
}

/// The other policy at work.
struct Stage<'a> {
    allocator: Allocator,
    recorded: &'a Recorded,
    /// How long requests run that never ran in the log, by class of the log.
    services: Vec<Span>,
    lives: BTreeMap<RequestId, Life>,
    /// What runs: where, until when, how it ends.
    running: BTreeMap<RequestId, (BackendId, Time, End, Used)>,
    ends: BTreeSet<(Time, RequestId)>,
    now: Time,
    guessed: u64,
    reports: u64,
}

impl<'a> Stage<'a> {
    fn new(
        policy: Config,
        recorded: &'a Recorded,
        services: Vec<Span>,
    ) -> Result<Stage<'a>, ConfigError> {
        Ok(Stage {
            allocator: Allocator::new(policy)?,
            recorded,
            services,
            lives: BTreeMap::new(),
            running: BTreeMap::new(),
            ends: BTreeSet::new(),
            now: Time::ZERO,
            guessed: 0,
            reports: 0,
        })
    }

    /// Has everything happen that comes before an input at `until`: ends up to that instant, and
    /// deadlines before it (a deadline comes after what else happens at its instant).
    fn run_until(&mut self, until: Time) {
        while let Some((at, end)) = self.next() {
            if at > until || (at == until && end.is_none()) {
                break;
            }
            self.happen(at, end);
        }
    }

    /// After the log: as long as something runs.
    fn run_out(&mut self) {
        while !self.ends.is_empty()
            && let Some((at, end)) = self.next()
        {
            self.happen(at, end);
        }
    }

    /// What happens next by itself: a request ends, or a deadline passes.
    fn next(&self) -> Option<(Time, Option<RequestId>)> {
        let end = self.ends.first().map(|&(at, id)| (at, Some(id)));
        let soon = self.now.saturating_add(Span::from_nanos(1));
        let deadline = self.allocator.next_deadline().map(|at| (at.max(soon), None));
        [end, deadline].into_iter().flatten().min_by_key(|&(at, id)| (at, id.is_none()))
    }

    fn happen(&mut self, at: Time, end: Option<RequestId>) {
        match end {
            Some(id) => {
                let (_, _, end, used) = self.stop(id).expect("what ends runs");
                self.tell(at, Input::Ended(id, end, used));
            }
            None => self.tell(at, Input::Deadline),
        }
    }

    /// An input of the log, as far as it does not depend on decisions.
    fn replay(&mut self, now: Time, input: &Input) {
        match *input {
            Input::Arrived(id, _) | Input::Resumed(id, ..) => {
                self.lives.entry(id).or_insert_with(|| Life::new(now));
                self.tell(now, input.clone());
            }
            Input::Withdrawn(id) => {
                self.tell(now, input.clone());
                self.break_off(now, |running, _| running == id, End::Cancelled);
            }
            Input::Left(backend) => {
                self.tell(now, input.clone());
                self.break_off(now, |_, at| at == backend, End::Failed);
            }
            Input::Reported(..) => {
                self.reports += 1;
                self.tell(now, input.clone());
            }
            Input::Joined(..) | Input::Matched(..) | Input::Predicted(..) | Input::Draining => {
                self.tell(now, input.clone());
            }
            Input::Accepted(_)
            | Input::FirstToken(_)
            | Input::Progressed(..)
            | Input::Ended(..)
            | Input::Deadline => {}
        }
    }

    /// Ends at once what runs and is meant.
    fn break_off(&mut self, now: Time, meant: impl Fn(RequestId, BackendId) -> bool, end: End) {
        let running = self.running.iter().filter(|&(&id, &(backend, ..))| meant(id, backend));
        let broken: Vec<RequestId> = running.map(|(&id, _)| id).collect();
        for id in broken {
            if self.stop(id).is_some() {
                self.tell(now, Input::Ended(id, end, Used::default()));
            }
        }
    }

    fn tell(&mut self, now: Time, input: Input) {
        self.now = now;
        let mut untold = VecDeque::from([input]);
        while let Some(input) = untold.pop_front() {
            self.allocator.handle(now, input);
            while let Some(decision) = self.allocator.poll() {
                untold.extend(self.carry_out(now, &decision));
            }
            while self.allocator.poll_signal().is_some() {}
        }
    }

    /// Carries a decision out; returns what is to be told of it at once.
    fn carry_out(&mut self, now: Time, decision: &Decision) -> Option<Input> {
        let id = decision.id;
        if let Some(life) = self.lives.get_mut(&id) {
            life.decide(decision, now);
        }
        match decision.action {
            Action::Dispatch(backend, _) => {
                let (span, end, used) = self.service(id);
                let until = now.saturating_add(span);
                self.running.insert(id, (backend, until, end, used));
                self.ends.insert((until, id));
                None
            }
            Action::Preempt(_) => {
                self.stop(id);
                None
            }
            Action::Cancel(_) => {
                self.stop(id)?;
                Some(Input::Ended(id, End::Evicted, Used::default()))
            }
            Action::Reject(..) | Action::Close(_) => None,
        }
    }

    fn stop(&mut self, id: RequestId) -> Option<(BackendId, Time, End, Used)> {
        let running = self.running.remove(&id)?;
        self.ends.remove(&(running.1, id));
        Some(running)
    }

    /// How long a request runs.
    fn service(&mut self, id: RequestId) -> (Span, End, Used) {
        let life = self.recorded.requests.get(&id);
        life.and_then(Life::service).unwrap_or_else(|| {
            self.guessed += 1;
            let class = life.and_then(|life| life.class).map_or(0, ClassId::index);
            let span = self.services.get(class).copied().unwrap_or(Span::ZERO);
            (span, End::Finished, Used::default())
        })
    }

    fn compare(self, recorded: &Recorded, translation: &Translation) -> Counterfactual {
        let mut found = Counterfactual {
            classes: vec![ClassOutcomes::default(); translation.classes()],
            arrived: recorded.requests.len() as u64,
            guessed: self.guessed,
            reports: self.reports,
            ..Counterfactual::default()
        };
        for (id, life) in &recorded.requests {
            let other = self.lives.get(id);
            let verdict = life.verdict.map(|(verdict, _)| verdict);
            let others = other.and_then(|other| other.verdict).map(|(verdict, _)| verdict);
            found.agreement.decided += u64::from(verdict.is_some());
            found.agreement.same += u64::from(verdict.is_some() && verdict == others);
            let class = life.class.and_then(|class| found.classes.get_mut(class.index()));
            if let (Some((verdict, at)), Some(class)) = (life.verdict, class) {
                class.recorded.add(verdict, at.saturating_since(life.arrived));
            }
            let class = other.and_then(|other| other.class).and_then(|id| translation.back(id));
            if let (Some(class), Some(other)) = (class, other)
                && let Some((verdict, at)) = other.verdict
            {
                found.classes[class].other.add(verdict, at.saturating_since(other.arrived));
            }
        }
        for class in &mut found.classes {
            class.recorded.waits.sort_unstable();
            class.other.waits.sort_unstable();
        }
        found
    }
}
