//! The online detector: says while it happens that a class is starved, by whom and on what.
//!
//! It stands beside the allocator, in the simulator and in production alike, and reads what goes
//! in, what comes out and where the allocator stands:
//!
//! ```text
//! detector.input(now, &input, &allocator);
//! allocator.handle(now, input);
//! while let Some(decision) = allocator.poll() {
//!     detector.decision(now, &decision, &allocator);
//! }
//! detector.settle(now, &allocator);
//! while let Some(Signal::Alarm(alarm)) = detector.poll() { … }
//! ```
//!
//! and `settle` again at [`Detector::next_check`], because some conditions come about by time
//! alone. State is constant a class and a backend; nothing is allocated once every backend has
//! joined; work is constant an input but for a look at every class that waits, at most once every
//! [`Limits::every`].
//!
//! # What raises an alarm
//!
//! | kind | condition, while some of the class waits |
//! |---|---|
//! | no service | none of it let in for its `wait_max` (without one [`Limits::patience`]) while others were |
//! | lag | its fluid share minus what it got is more than the bound below |
//! | deadline | its queue ÷ the rate at which it was let in lately is more than its deadline |
//! | livelock | preempted [`Limits::livelock`] times and not one of it finished in between |
//! | idle | nobody is let in for [`Limits::idle`] though a tenth of the seats is free |
//! | inversion | less important classes held more than [`Limits::inversion`] × all seats in seat-seconds while its lag was more than half the bound |
//!
//! A condition must hold for [`Limits::confirm`] to raise its alarm, and must be gone for
//! [`Limits::clear`] before the same alarm of the same class can be raised again: one alarm an
//! episode.
//!
//! # Lag
//!
//! Service is counted at the share rule's prices (1 and 2 a token where it has none), charged when a
//! request is let in and settled when it ends. A virtual time `V` grows by cost ÷ the weights of
//! all classes that wait or hold something (as in self-clocked fair queueing, Golestani 1994).
//! While a class waits for what others hold, its lag is `weight · ΔV − its own cost`, never below
//! nought: the most by which it fell behind its fluid share over any stretch of its backlog that
//! ends now. A class that waits for its own cap has no claim. A fair share keeps the lag within
//! two of the largest requests, and a round of deficits where the rule is one; the bound is twice
//! that and [`Limits::lag_requests`] of the largest requests beside, because ends are settled late.
//! Where the share rule keeps accounts of tenants or workflows no class is owed a share, and neither
//! lag nor inversion, which rests on it, is judged.
//!
//! # How it fails
//!
//! It sees what the allocator sees: waiting inside engines (`window = "none"`) and preemptions by
//! engines are beyond it. Free seats are those that were neither let out to requests nor, where
//! backends report, in use by their own word, so that an end that was lost shows as idleness.

pub use plimsoll_base::{Alarm, AlarmKind};
use plimsoll_base::{BackendId, Bound, ClassId, End, RequestId, Span, Time};

use crate::allocator::Allocator;
use crate::config::{Class, Config, Share, TokenCost};
use crate::message::{Action, Decision, Input, Signal};
use crate::share::{Price, Times};

/// Alarms kept until they are polled; what comes on top is dropped, and counted.
const ALARMS_MAX: usize = 64;
/// Binary digits of virtual time below one cost unit.
const VIRTUAL_BITS: u32 = 20;

/// When an alarm is raised. The defaults suit requests of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The conditions are looked at so often at most.
    pub every: Span,
    /// So long a condition must hold.
    pub confirm: Span,
    /// So long it must be gone before it can be raised again.
    pub clear: Span,
    /// How long a class without a `wait_max` may go without service.
    pub patience: Span,
    /// How many of the largest requests the lag may be beside what the share rule allows.
    pub lag_requests: u32,
    /// How many preemptions without an end are a livelock.
    pub livelock: u32,
    /// How long seats may stay free while somebody waits for them.
    pub idle: Span,
    /// How long less important classes may hold all seats, or twice as long half of them.
    pub inversion: Span,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            every: Span::from_millis(10),
            confirm: Span::from_secs(1),
            clear: Span::from_secs(10),
            patience: Span::from_secs(60),
            lag_requests: 12,
            livelock: 8,
            idle: Span::from_secs(1),
            inversion: Span::from_secs(10),
        }
    }
}

/// Watches an allocator.
#[derive(Clone, Debug)]
pub struct Detector {
    limits: Limits,
    /// Whether shares are owed to classes, so that a class can fall behind its own.
    owes_classes: bool,
    price: Price,
    /// What a share rule may owe a class beside the largest requests, a unit of weight.
    round: u64,
    classes: Vec<Watch>,
    backends: Vec<Option<Backend>>,
    /// Requests let in that have not ended.
    held: u64,
    /// The weights of the classes that wait or hold something, as of the last look.
    weights: u64,
    virtual_time: u128,
    cost_max: u64,
    let_in: u64,
    /// When somebody was let in last, or nobody waited for seats.
    quiet_since: Time,
    looked: Time,
    next: Option<Time>,
    alarms: Vec<Alarm>,
    polled: usize,
    dropped: u64,
}

/// What is known of a class.
#[derive(Clone, Copy, Debug)]
struct Watch {
    weight: u64,
    priority: i32,
    wait_max: Option<Span>,
    deadline: Option<Span>,
    held: u64,
    let_in: u64,
    /// When it was let in last, or began to wait; and what others had been let in by then.
    since: Time,
    others: u64,
    waits: bool,
    /// `weight · V` at which its lag is nought; `None` while it has no claim.
    paid: Option<u128>,
    /// Let in within the current window and in the one before, for its rate.
    rate: Rate,
    preempted: u32,
    /// Seat-nanoseconds that less important classes held while it lagged.
    inversion: u128,
    episodes: [Episode; AlarmKind::ALL.len()],
}

#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    from: Time,
    count: u64,
    before: u64,
}

#[derive(Clone, Copy, Debug)]
struct Backend {
    id: BackendId,
    seats: u32,
    /// What it last said it ran and queued.
    reported: Option<u32>,
}

/// One alarm of one class: raised once while its condition lasts.
#[derive(Clone, Copy, Debug, Default)]
struct Episode {
    since: Option<Time>,
    gone: Option<Time>,
    is_raised: bool,
}

impl Episode {
    /// Since when the condition has held, if that is long enough and was not told yet.
    fn step(&mut self, now: Time, holds: bool, limits: &Limits) -> Option<Time> {
        if holds {
            self.gone = None;
            let since = *self.since.get_or_insert(now);
            let is_new = !self.is_raised && now - since >= limits.confirm;
            self.is_raised |= is_new;
            return is_new.then_some(since);
        }
        self.since = None;
        if self.is_raised && now - *self.gone.get_or_insert(now) >= limits.clear {
            *self = Episode::default();
        }
        None
    }
}

/// The window over which a class's rate is counted.
const RATE_WINDOW: Span = Span::from_secs(2);

impl Rate {
    fn turn(&mut self, now: Time) {
        let passed = (now - self.from).nanos() / RATE_WINDOW.nanos();
        if passed > 0 {
            self.before = if passed == 1 { self.count } else { 0 };
            self.count = 0;
            self.from += RATE_WINDOW.saturating_mul(passed);
        }
    }
    /// How long a queue of so many takes, at the rate of the last whole window and what came of
    /// this one; [`Span::MAX`] if nothing was let in.
    fn time_for(&self, now: Time, queued: u32) -> Span {
        let seen = RATE_WINDOW + (now - self.from);
        match self.before + self.count {
            0 => Span::MAX,
            count => Span::from_nanos(seen.nanos().saturating_mul(u64::from(queued)) / count),
        }
    }
}

impl Detector {
    /// A detector for an allocator with this policy, before its first input.
    pub fn new(config: &Config, limits: Limits) -> Detector {
        let watch = |class: &Class| Watch {
            weight: u64::from(class.weight),
            priority: class.priority,
            wait_max: class.wait_max,
            deadline: class.deadline,
            held: 0,
            let_in: 0,
            since: Time::ZERO,
            others: 0,
            waits: false,
            paid: None,
            rate: Rate::default(),
            preempted: 0,
            inversion: 0,
            episodes: Default::default(),
        };
        let (price, round) = prices(&config.share);
        Detector {
            limits,
            owes_classes: config.share.owes_classes(),
            price,
            round,
            classes: config.classes.iter().map(watch).collect(),
            backends: Vec::new(),
            held: 0,
            weights: 0,
            virtual_time: 0,
            cost_max: 0,
            let_in: 0,
            quiet_since: Time::ZERO,
            looked: Time::ZERO,
            next: None,
            alarms: Vec::with_capacity(ALARMS_MAX),
            polled: 0,
            dropped: 0,
        }
    }

    /// Takes an input in, before the allocator does.
    #[inline]
    pub fn input(&mut self, now: Time, input: &Input, allocator: &Allocator) {
        match input {
            Input::Ended(id, end, used) => {
                let used = (used.prompt_tokens, used.output_tokens);
                self.ended(now, *id, (*end, used), allocator);
            }
            Input::Joined(id, info) => self.joined(*id, info.seats),
            Input::Left(id) => self.left(*id),
            Input::Reported(id, load, _) => {
                if let Some(backend) = self.backend(*id) {
                    backend.reported = Some(load.running.saturating_add(load.waiting));
                }
            }
            Input::Arrived(..)
            | Input::Resumed(..)
            | Input::Withdrawn(_)
            | Input::Accepted(_)
            | Input::FirstToken(_)
            | Input::Progressed(..)
            | Input::Matched(..)
            | Input::Predicted(..)
            | Input::Draining
            | Input::Deadline => {}
        }
    }

    /// Takes a decision in, after the allocator made it.
    pub fn decision(&mut self, now: Time, decision: &Decision, allocator: &Allocator) {
        let Some(class) = decision.class else { return };
        match decision.action {
            Action::Dispatch(..) => {
                let cost = allocator.expected(decision.id).map_or(0, |(_, p, o)| self.price(p, o));
                self.dispatched(now, class, cost);
            }
            Action::Preempt(_) => {
                let watch = &mut self.classes[class.index()];
                watch.preempted = watch.preempted.saturating_add(1);
                self.give_back(class);
            }
            Action::Reject(..) | Action::Close(_) | Action::Cancel(_) => {}
        }
    }

    /// Looks at the conditions, if it is time to.
    #[inline]
    pub fn settle(&mut self, now: Time, allocator: &Allocator) {
        if now >= self.looked.saturating_add(self.limits.every) || self.looked == Time::ZERO {
            self.look(now, allocator);
        }
    }

    /// When to call [`settle`](Detector::settle) though nothing happens; `None` while nobody waits.
    pub fn next_check(&self) -> Option<Time> {
        self.next
    }

    /// Whether an alarm of a class has been raised and its condition still holds.
    pub fn stands(&self, class: ClassId, kind: AlarmKind) -> bool {
        let episode = self.classes.get(class.index()).map(|watch| watch.episodes[kind as usize]);
        episode.is_some_and(|episode| episode.is_raised && episode.since.is_some())
    }

    /// Whether alarms wait to be polled.
    #[inline]
    pub fn has_alarms(&self) -> bool {
        !self.alarms.is_empty()
    }

    /// The next alarm, in the order in which they were raised.
    pub fn poll(&mut self) -> Option<Signal> {
        let alarm = self.alarms.get(self.polled).copied();
        match alarm {
            Some(_) => self.polled += 1,
            None => {
                self.alarms.clear();
                self.polled = 0;
            }
        }
        alarm.map(Signal::Alarm)
    }

    /// Alarms that were lost because nobody polled.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn price(&self, prompt_tokens: u32, output_tokens: u32) -> u64 {
        u64::try_from(self.price.of(prompt_tokens, output_tokens)).unwrap_or(u64::MAX)
    }

    fn dispatched(&mut self, now: Time, class: ClassId, cost: u64) {
        self.let_in += 1;
        self.held += 1;
        self.quiet_since = now;
        self.cost_max = self.cost_max.max(cost);
        self.charge(class, i128::from(cost));
        let others = self.let_in;
        let watch = &mut self.classes[class.index()];
        watch.held += 1;
        watch.let_in += 1;
        watch.rate.turn(now);
        watch.rate.count += 1;
        watch.since = now;
        watch.others = others - watch.let_in;
    }

    /// Books service of a class: virtual time grows, and its own lag shrinks by the cost.
    fn charge(&mut self, class: ClassId, cost: i128) {
        let grown = divide(cost << VIRTUAL_BITS, self.weights.max(1));
        self.virtual_time = self.virtual_time.saturating_add_signed(grown);
        let virtual_time = self.virtual_time;
        let watch = &mut self.classes[class.index()];
        if let Some(paid) = &mut watch.paid {
            let now = virtual_time * u128::from(watch.weight);
            // It never has a claim on what it got too much.
            *paid = paid.saturating_add_signed(cost << VIRTUAL_BITS).min(now);
        }
    }

    fn ended(
        &mut self,
        now: Time,
        id: RequestId,
        (end, used): (End, (u32, u32)),
        allocator: &Allocator,
    ) {
        let Some((class, prompt, output)) = allocator.expected(id) else { return };
        self.classes[class.index()].rate.turn(now);
        let more = i128::from(self.price(used.0, used.1)) - i128::from(self.price(prompt, output));
        self.charge(class, more);
        self.give_back(class);
        match end {
            End::Finished => self.classes[class.index()].preempted = 0,
            End::Failed | End::Cancelled | End::Expired | End::Evicted => {}
        }
    }

    fn give_back(&mut self, class: ClassId) {
        let watch = &mut self.classes[class.index()];
        watch.held = watch.held.saturating_sub(1);
        self.held = self.held.saturating_sub(1);
    }

    fn joined(&mut self, id: BackendId, seats: u32) {
        let slot = id.index();
        if slot >= crate::place::SLOTS_MAX {
            return;
        }
        if slot >= self.backends.len() {
            self.backends.resize(slot + 1, None);
        }
        let is_newer = self.backends[slot].is_none_or(|old| old.id.generation < id.generation);
        if is_newer {
            self.backends[slot] = Some(Backend { id, seats, reported: None });
        }
    }

    fn left(&mut self, id: BackendId) {
        if let Some(backend) = self.backend(id) {
            (backend.seats, backend.reported) = (0, None);
        }
    }

    fn backend(&mut self, id: BackendId) -> Option<&mut Backend> {
        self.backends.get_mut(id.index())?.as_mut().filter(|backend| backend.id == id)
    }

    #[inline(never)]
    fn look(&mut self, now: Time, allocator: &Allocator) {
        let passed = now - self.looked;
        self.looked = now;
        let standing = allocator.standing();
        self.next = standing.is_anyone_waiting().then(|| now.saturating_add(self.limits.every));
        self.weigh(allocator);
        let waits_for_seats = self.ids().any(|class| standing.bound(class) == Some(Bound::Seats));
        if !waits_for_seats {
            self.quiet_since = now;
        }
        let idle =
            waits_for_seats && now - self.quiet_since >= self.limits.idle && self.a_tenth_is_free();
        for class in self.ids() {
            let bound = standing.bound(class);
            self.follow_backlog(now, class, bound);
            self.watch_inversion(class, bound, passed);
            for kind in AlarmKind::ALL {
                let queued = allocator.queued(class);
                let holds = bound.is_some() && self.holds(now, kind, class, (queued, idle, bound));
                self.step(now, kind, class, (holds, bound));
            }
        }
    }

    fn ids(&self) -> impl Iterator<Item = ClassId> + use<> {
        (0..self.classes.len() as u16).map(ClassId)
    }

    /// Adds up the weights of those that wait or hold something.
    fn weigh(&mut self, allocator: &Allocator) {
        let standing = allocator.standing();
        let active = |class: &ClassId| {
            self.classes[class.index()].held > 0 || standing.bound(*class).is_some()
        };
        let weight = |class: ClassId| self.classes[class.index()].weight;
        self.weights = self.ids().filter(active).map(weight).sum();
    }

    /// A class has a claim while it waits for what others hold too.
    fn follow_backlog(&mut self, now: Time, class: ClassId, bound: Option<Bound>) {
        let (virtual_time, others) = (self.virtual_time, self.let_in);
        let watch = &mut self.classes[class.index()];
        if bound.is_none() {
            watch.since = now;
            watch.others = others - watch.let_in;
            watch.preempted = if watch.waits { watch.preempted } else { 0 };
        }
        watch.waits = bound.is_some();
        match bound {
            Some(bound) if self.owes_classes && !is_own_limit(bound) => {
                watch.paid.get_or_insert(virtual_time * u128::from(watch.weight));
            }
            Some(_) | None => {
                watch.paid = None;
                watch.inversion = 0;
            }
        }
    }

    /// By how much the class fell behind its fluid share, in cost units.
    fn lag(&self, class: ClassId) -> u64 {
        let watch = &self.classes[class.index()];
        let due = self.virtual_time * u128::from(watch.weight);
        let lag = watch.paid.map_or(0, |paid| due.saturating_sub(paid) >> VIRTUAL_BITS);
        u64::try_from(lag).unwrap_or(u64::MAX)
    }

    fn lag_max(&self, class: ClassId) -> u64 {
        let requests = u64::from(self.limits.lag_requests) + 4;
        let round = self.round.saturating_mul(2 * self.classes[class.index()].weight);
        self.cost_max.saturating_mul(requests).saturating_add(round)
    }

    fn watch_inversion(&mut self, class: ClassId, bound: Option<Bound>, passed: Span) {
        let lagging = bound.is_some() && self.lag(class) > self.lag_max(class) / 2;
        let priority = self.classes[class.index()].priority;
        let lesser = self.classes.iter().filter(|other| other.priority < priority);
        let held: u64 = lesser.map(|other| other.held).sum();
        let watch = &mut self.classes[class.index()];
        watch.inversion = match lagging {
            true => watch.inversion + u128::from(held) * u128::from(passed.nanos()),
            false => 0,
        };
    }

    fn seats(&self) -> u64 {
        self.backends.iter().flatten().map(|backend| u64::from(backend.seats)).sum()
    }

    /// Whether a tenth of the seats is free, by the reports where there are any.
    fn a_tenth_is_free(&self) -> bool {
        let here = || self.backends.iter().flatten().filter(|backend| backend.seats > 0);
        let reported: Option<u64> = here().map(|b| b.reported.map(u64::from)).sum();
        let used = reported.map_or(self.held, |reported| reported.min(self.held));
        let seats = self.seats();
        seats > 0 && used * 10 <= seats * 9
    }

    fn holds(
        &self,
        now: Time,
        kind: AlarmKind,
        class: ClassId,
        (queued, idle, bound): (u32, bool, Option<Bound>),
    ) -> bool {
        let watch = &self.classes[class.index()];
        match kind {
            AlarmKind::NoService => {
                let patience = watch.wait_max.unwrap_or(self.limits.patience);
                now - watch.since > patience && self.let_in - watch.let_in > watch.others
            }
            AlarmKind::Lag => self.lag(class) > self.lag_max(class),
            AlarmKind::Deadline => watch.deadline.is_some_and(|deadline| {
                // At first there is no rate: a queue that has just begun says nothing.
                let known =
                    watch.rate.before + watch.rate.count > 0 || now - watch.since > deadline;
                known && watch.rate.time_for(now.max(watch.rate.from), queued) > deadline
            }),
            AlarmKind::Livelock => watch.preempted >= self.limits.livelock,
            AlarmKind::Idle => idle && bound == Some(Bound::Seats),
            AlarmKind::Inversion => {
                let budget = u128::from(self.limits.inversion.nanos()) * u128::from(self.seats());
                watch.inversion > budget
            }
        }
    }

    fn step(
        &mut self,
        now: Time,
        kind: AlarmKind,
        class: ClassId,
        (holds, bound): (bool, Option<Bound>),
    ) {
        let limits = self.limits;
        let episode = &mut self.classes[class.index()].episodes[kind as usize];
        let Some(since) = episode.step(now, holds, &limits) else { return };
        let culprit = match (kind, bound) {
            (AlarmKind::Idle, _) => None,
            (_, Some(bound)) if is_own_limit(bound) => Some(class),
            (AlarmKind::Inversion, _) => self.holder(class, Some(self.priority(class))),
            (_, _) => self.holder(class, None),
        };
        if self.alarms.len() == ALARMS_MAX {
            self.dropped += 1;
            return;
        }
        self.alarms.push(Alarm { kind, victim: class, culprit, resource: bound, since });
    }

    fn priority(&self, class: ClassId) -> i32 {
        self.classes[class.index()].priority
    }

    /// Of the other classes (of those below a priority) the one that holds most for its weight.
    fn holder(&self, victim: ClassId, below: Option<i32>) -> Option<ClassId> {
        let others = self.ids().filter(|&other| {
            other != victim
                && self.classes[other.index()].held > 0
                && below.is_none_or(|below| self.priority(other) < below)
        });
        // The first of those with the largest held ÷ weight, compared crosswise.
        others.reduce(|best, other| {
            let (a, b) = (&self.classes[best.index()], &self.classes[other.index()]);
            if b.held * a.weight > a.held * b.weight { other } else { best }
        })
    }
}

/// Whether what stops a class is its own.
fn is_own_limit(bound: Bound) -> bool {
    match bound {
        Bound::ClassRequests | Bound::ClassTokens | Bound::Quota => true,
        Bound::Seats
        | Bound::KvMemory
        | Bound::HeavyLane
        | Bound::Adaptive
        | Bound::Breaker
        | Bound::StaleSignal
        | Bound::Site
        | Bound::NoBackend => false,
    }
}

/// A quotient, rounded towards nought; mostly of numbers that a machine divides in one go.
fn divide(number: i128, by: u64) -> i128 {
    match (i64::try_from(number), i64::try_from(by)) {
        (Ok(number), Ok(by)) => i128::from(number / by),
        (Err(_), _) | (_, Err(_)) => number / i128::from(by),
    }
}

/// What service costs by the share rule, and what a round of it gives a unit of weight.
fn prices(share: &Share) -> (Price, u64) {
    match share {
        Share::Fcfs | Share::Priority => (Price::Tokens(TokenCost { prompt: 1, output: 2 }), 0),
        Share::Stride { .. } => (Price::Requests, 0),
        Share::DominantResource { capacity, .. } => (Price::Dominant(Times::new(capacity)), 0),
        Share::DeficitRoundRobin { cost, quantum, .. }
        | Share::DeficitLongestPrefix { cost, quantum, .. } => (Price::Tokens(*cost), *quantum),
        Share::VirtualTokenCounter { cost, .. } | Share::StartTimeFair { cost, .. } => {
            (Price::Tokens(*cost), 0)
        }
    }
}
