//! Who starved whom: the waiting time of each class, split over what it falls on.
//!
//! A request waits in the allocator, where [`Fact::Bound`] says what stops its class, and in the
//! queue of an engine. At every instant its waiting falls
//!
//! - on the classes that hold what it waits for, each by its part and split into within and above
//!   its share (`Holding` states the rule): seats by outstanding requests, KV memory by their
//!   estimated tokens, an engine's own queue by who runs in that engine;
//! - or on a line of the policy (a cap, a quota, a lane), a stale signal or a missing backend.
//!
//! That its own class holds the resource is a matter of order within the class, not of others.
//!
//! Work a fact is constant in the number of requests: what a wait adds to a table is one
//! subtraction of running integrals a cell. Everything is an integer in 2⁻³² ns, so the parts of a
//! class sum to its queue time exactly; this is asserted at the end of every run.

mod capacity;
mod cause;
mod handed;
mod holding;
pub(crate) mod lanes;
mod overtakes;
pub(crate) mod service;
pub(crate) mod told;

use std::collections::BTreeSet;

use plimsoll_base::{
    BackendId, Bound, ClassId, Fact, Outcome, RequestId, RequestRecord, Span, Time,
};

use capacity::Capacity;
use cause::Layout;
pub use cause::{Blamed, Cause, Resource};
use handed::Handed;
use holding::{FRACTION_BITS, Holding};
use lanes::{Lanes, Mark};
use overtakes::Overtakes;
use service::Service;

use crate::bins::first_width;
use crate::plan::Plan;
use crate::tally::{Spans, measured};

/// The attribution of one replication.
#[derive(Clone, Debug)]
pub(crate) struct Blame {
    warm_up: Span,
    now: Time,
    layout: Layout,
    weights: Vec<u32>,
    seats: Holding,
    memory: Holding,
    /// By backend slot.
    engines: Vec<Holding>,
    /// By class row.
    victims: Vec<Victim>,
    /// A request that arrived at this instant and may yet go at once.
    fresh: Option<Fresh>,
    overtakes: Overtakes,
    capacity: Capacity,
    /// Where the share rule promises something.
    pub service: Option<Service>,
    /// Requests that wait in an engine's queue after a preemption.
    preempted: BTreeSet<RequestId>,
    /// Where prompts are computed apart from the decoding.
    handed: Handed,
    pub lanes: Lanes,
}

/// A request of a row that has just arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fresh {
    row: usize,
    id: RequestId,
    arrived: Time,
}

/// When a stretch between two marks ended; row, cause and seconds of waiting.
pub(crate) type Stretch = (Time, Vec<(usize, Cause, f64)>);

/// A class that waits.
#[derive(Clone, Debug)]
struct Victim {
    /// Its requests in the allocator, and how many of them are measured.
    waiting: u64,
    measured: u64,
    bound: Option<Bound>,
    /// In 2⁻³² ns. Whoever begins to wait takes off the integrals of what it waits for, whoever
    /// stops adds them, modulo 2¹²⁸; with what still waits added they are true sums.
    cells: Vec<u128>,
    /// The rows of less important classes.
    lesser: Vec<usize>,
    /// What they held while it waited for seats, in seat-nanoseconds, modulo 2¹²⁸ like the cells.
    inversion: u128,
    /// The queue time of its measured requests that are closed, in nanoseconds.
    closed: u128,
    /// How often its measured requests were overtaken, but for those that went at once.
    overtaken: Spans,
    at_once: u64,
    /// For how long capacity was free while a line of the policy held it back, in nanoseconds; and
    /// for how long it had been free when that began, if it lasts.
    idle: u64,
    idle_from: Option<u64>,
}

impl Blame {
    pub fn new(plan: &Plan) -> Blame {
        let weights = plan.weights();
        let layout = Layout { rows: weights.len() };
        let victim = |row: usize| Victim {
            lesser: lesser(plan, row),
            inversion: 0,
            waiting: 0,
            measured: 0,
            bound: None,
            cells: vec![0; layout.cells()],
            closed: 0,
            overtaken: Spans::default(),
            at_once: 0,
            idle: 0,
            idle_from: None,
        };
        let priorities: Vec<i32> = (0..weights.len())
            .map(|row| plan.classes.get(row).map_or(i32::MIN, |class| class.priority))
            .collect();
        let pool = |pool: &plimsoll_base::PoolId| plan.pools.get(pool.index());
        let seats = plan.backends.iter().map(|p| pool(p).map_or(0, |pool| pool.seats));
        let tokens = plan.backends.iter().filter_map(pool).map(|pool| pool.kv_tokens).sum();
        Blame {
            warm_up: plan.warm_up,
            now: Time::ZERO,
            layout,
            seats: Holding::new(&weights),
            memory: Holding::new(&weights),
            engines: vec![Holding::new(&weights); plan.backends.len()],
            victims: (0..weights.len()).map(victim).collect(),
            lanes: Lanes::new(first_width(plan.duration), layout.cells() * weights.len()),
            weights,
            fresh: None,
            overtakes: Overtakes::new(&priorities),
            capacity: Capacity::new(seats, tokens),
            service: Service::new(plan),
            preempted: BTreeSet::new(),
            handed: Handed::default(),
        }
    }

    /// Takes in what happened.
    #[inline(always)]
    pub fn observe(&mut self, now: Time, fact: &Fact) {
        self.reach(now);
        match fact {
            Fact::Arrived { id, class, arrived, .. } => {
                self.arrive((self.row(*class), *id, *arrived));
            }
            Fact::Dispatched { id, class, backend, arrived, prompt_tokens, tokens, .. } => {
                let tokens = (*prompt_tokens, *tokens);
                self.let_in((class.index(), *id, *arrived), *backend, tokens);
            }
            Fact::Started { id, class, backend, arrived } => {
                self.start((class.index(), *id, *arrived), *backend);
            }
            Fact::Preempted { id, class, backend, arrived, .. } => {
                self.preempt((class.index(), *id, *arrived), *backend);
            }
            Fact::Handed { id, class, backend, arrived, tokens, stage } => {
                self.hand((class.index(), *id, *arrived), *backend, (*tokens, *stage));
            }
            Fact::Bound { class, bound } => self.rebind(class.index(), *bound),
            Fact::Closed(record) => self.leave_everything(record),
            Fact::WarmedUp => self.warm(),
            Fact::RunEnded => self.end(),
            Fact::Gaps { .. }
            | Fact::BackendSampled { .. }
            | Fact::ClassSampled { .. }
            | Fact::Alarmed(_)
            | Fact::Advised(_)
            | Fact::ArrivalsEnded => {}
        }
    }

    // Apart, so that a run without attribution keeps its registers for what it does.
    #[inline(never)]
    fn arrive(&mut self, (row, id, arrived): (usize, RequestId, Time)) {
        self.settle_fresh();
        self.fresh = Some(Fresh { row, id, arrived });
        if let Some(service) = &mut self.service {
            service.arrive(row);
        }
    }

    #[inline(never)]
    fn let_in(
        &mut self,
        (row, id, arrived): (usize, RequestId, Time),
        backend: BackendId,
        (prompt_tokens, tokens): (u32, u64),
    ) {
        let overtaken = self.leave_allocator(row, id, arrived);
        self.count_overtaken(row, arrived, overtaken);
        self.overtakes.pass(row, id);
        self.dispatch(row, backend, arrived, tokens);
        if let Some(service) = &mut self.service {
            service.dispatch(row, (prompt_tokens, tokens));
        }
    }

    #[inline(never)]
    fn start(&mut self, (row, id, arrived): (usize, RequestId, Time), backend: BackendId) {
        let now = self.now;
        if !self.preempted.is_empty() {
            self.preempted.remove(&id);
        }
        if self.handed.has(id) {
            return self.start_handed((row, id, arrived), backend);
        }
        self.leave_engine_queue(row, backend, arrived);
        self.engine(backend).hold(now, row, 1);
    }

    #[inline(never)]
    fn preempt(&mut self, (row, id, arrived): (usize, RequestId, Time), backend: BackendId) {
        let now = self.now;
        if self.handed.has(id) {
            return self.preempt_handed((row, id, arrived), backend);
        }
        self.preempted.insert(id);
        self.engine(backend).release(now, row, 1);
        self.enter_engine_queue(row, backend, arrived);
    }

    /// Takes in that a request's life is over.
    #[inline(always)]
    pub fn close(&mut self, now: Time, record: &RequestRecord) {
        self.reach(now);
        self.leave_everything(record);
    }

    /// The instants before `now` are over.
    #[inline(always)]
    fn reach(&mut self, now: Time) {
        if now > self.now {
            self.pass(now);
        }
    }
    #[inline(never)]
    fn pass(&mut self, now: Time) {
        self.settle_fresh();
        self.now = now;
        if self.lanes.is_due(now) {
            self.mark();
        }
    }

    /// The parts of the waiting time of a class, in a fixed order, without those that are nought.
    /// They sum to the queue time of its measured requests, those included that wait still.
    pub fn parts(&self, row: usize) -> Vec<Blamed> {
        let cells = self.totals(row);
        let all: u128 = cells.iter().sum::<u128>() >> FRACTION_BITS;
        let mut nanos: Vec<u128> = cells.iter().map(|cell| cell >> FRACTION_BITS).collect();
        let rest = all - nanos.iter().sum::<u128>();
        let largest = (0..cells.len()).fold(0, |a, b| if cells[b] > cells[a] { b } else { a });
        nanos[largest] += rest;
        let parts = nanos.into_iter().enumerate().filter(|&(_, nanos)| nanos > 0);
        parts.map(|(cell, nanos)| Blamed { cause: self.layout.cause(cell), nanos }).collect()
    }

    fn row(&self, class: Option<ClassId>) -> usize {
        class.map_or(self.victims.len() - 1, ClassId::index)
    }

    fn engine(&mut self, backend: BackendId) -> &mut Holding {
        let slot = backend.index();
        if slot >= self.engines.len() {
            self.engines.resize_with(slot + 1, || Holding::new(&self.weights));
        }
        &mut self.engines[slot]
    }

    /// Whoever arrived at the instant that is over did not go at once: it waits.
    #[inline]
    fn settle_fresh(&mut self) {
        if let Some(Fresh { row, id, arrived }) = self.fresh.take() {
            let is_measured = u64::from(measured(arrived, self.warm_up));
            self.victims[row].waiting += 1;
            self.victims[row].measured += is_measured;
            self.enter(row, (1, is_measured));
            self.overtakes.wait(row, id);
            self.follow_idle(row);
        }
    }

    /// A request leaves the allocator. Returns how often it was overtaken; `None` if it came at this
    /// instant and had nobody to be overtaken by.
    #[inline]
    fn leave_allocator(&mut self, row: usize, id: RequestId, arrived: Time) -> Option<u64> {
        if self.fresh == Some(Fresh { row, id, arrived }) {
            self.fresh = None;
            return None;
        }
        let is_measured = u64::from(measured(arrived, self.warm_up));
        let victim = &mut self.victims[row];
        victim.waiting = victim.waiting.checked_sub(1).expect("who leaves the queue stood in it");
        victim.measured -= is_measured;
        self.leave(row, (1, is_measured));
        self.follow_idle(row);
        Some(self.overtakes.leave(row, id))
    }

    /// A request of a class was let in.
    #[inline]
    fn count_overtaken(&mut self, row: usize, arrived: Time, overtaken: Option<u64>) {
        if measured(arrived, self.warm_up) {
            let victim = &mut self.victims[row];
            match overtaken {
                Some(times) => victim.overtaken.observed.record(times),
                None => victim.at_once += 1,
            }
        }
    }

    /// Whether a line of the policy holds a class back has perhaps changed.
    #[inline]
    fn follow_idle(&mut self, row: usize) {
        let victim = &mut self.victims[row];
        let is_held_back = victim.waiting > 0 && victim.bound.is_some_and(is_line);
        if is_held_back != victim.idle_from.is_some() {
            let free = self.capacity.free(self.now);
            match victim.idle_from.take() {
                Some(from) => victim.idle += free - from,
                None => victim.idle_from = Some(free),
            }
        }
    }

    /// How often the measured requests of a class that left the allocator were overtaken there.
    pub fn overtaken(&self, row: usize) -> Spans {
        let victim = &self.victims[row];
        let mut overtaken = victim.overtaken.clone();
        overtaken.observed.record_times(0, victim.at_once);
        overtaken
    }

    /// For how long, since the warm-up, capacity was free while a line of the policy held a class
    /// back; in nanoseconds.
    pub fn idle(&self, row: usize) -> u64 {
        let victim = &self.victims[row];
        let free = self.capacity.clone().free(self.now);
        victim.idle + victim.idle_from.map_or(0, |from| free - from)
    }

    /// Whether requests of some class wait in the allocator for KV memory.
    pub fn waits_for_memory(&self) -> bool {
        let waits = |victim: &Victim| victim.waiting > 0 && victim.bound == Some(Bound::KvMemory);
        self.victims.iter().any(waits)
    }

    fn rebind(&mut self, row: usize, bound: Option<Bound>) {
        let Victim { waiting, measured, bound: before, .. } = self.victims[row];
        if bound != before {
            self.leave(row, (waiting, measured));
            self.victims[row].bound = bound;
            self.enter(row, (waiting, measured));
            self.follow_idle(row);
            if let Some(service) = &mut self.service {
                service.bind(row, bound.is_some_and(is_line));
            }
        }
    }

    /// So many requests of a class begin to wait for what binds it.
    fn enter(&mut self, row: usize, counts: (u64, u64)) {
        let now = self.now;
        let victim = &mut self.victims[row];
        match held(victim.bound) {
            Some(resource) => {
                let holding = match resource {
                    Resource::KvMemory => &mut self.memory,
                    Resource::Seats
                    | Resource::Engine
                    | Resource::DecodeMemory
                    | Resource::Link => &mut self.seats,
                };
                holding.wait(now, row, counts);
                if counts.0 > 0 && holding.waiting(row) == counts.0 {
                    victim.begin_inversion(resource, holding);
                }
                victim.take_off(self.layout.of(resource), holding.integral(now), counts.1);
            }
            None => {
                let cell = self.layout.line_of(victim.bound);
                victim.take_off(cell..cell + 1, &[clock(now)], counts.1);
            }
        }
    }

    fn leave(&mut self, row: usize, counts: (u64, u64)) {
        let now = self.now;
        let victim = &mut self.victims[row];
        match held(victim.bound) {
            Some(resource) => {
                let holding = match resource {
                    Resource::KvMemory => &mut self.memory,
                    Resource::Seats
                    | Resource::Engine
                    | Resource::DecodeMemory
                    | Resource::Link => &mut self.seats,
                };
                holding.stop_waiting(now, row, counts);
                if counts.0 > 0 && holding.waiting(row) == 0 {
                    victim.end_inversion(resource, holding);
                }
                victim.add(self.layout.of(resource), holding.integral(now), counts.1);
            }
            None => {
                let cell = self.layout.line_of(victim.bound);
                victim.add(cell..cell + 1, &[clock(now)], counts.1);
            }
        }
    }

    fn dispatch(&mut self, row: usize, backend: BackendId, arrived: Time, tokens: u64) {
        self.seats.hold(self.now, row, 1);
        self.memory.hold(self.now, row, tokens);
        self.capacity.take(self.now, backend.index(), tokens);
        self.enter_engine_queue(row, backend, arrived);
    }

    fn enter_engine_queue(&mut self, row: usize, backend: BackendId, arrived: Time) {
        let (now, is_measured) = (self.now, u64::from(measured(arrived, self.warm_up)));
        self.engine(backend).wait(now, row, (1, is_measured));
        let integral = self.engines[backend.index()].integral(now);
        self.victims[row].take_off(self.layout.of(Resource::Engine), integral, is_measured);
    }

    fn leave_engine_queue(&mut self, row: usize, backend: BackendId, arrived: Time) {
        let (now, is_measured) = (self.now, u64::from(measured(arrived, self.warm_up)));
        self.engine(backend).stop_waiting(now, row, (1, is_measured));
        let integral = self.engines[backend.index()].integral(now);
        self.victims[row].add(self.layout.of(Resource::Engine), integral, is_measured);
    }

    #[inline(never)]
    fn leave_everything(&mut self, record: &RequestRecord) {
        let (now, row) = (self.now, self.row(record.class));
        match record.backend {
            None => {
                let overtaken = self.leave_allocator(row, record.id, record.arrived);
                let is_refused = matches!(record.outcome, Outcome::Refused(_));
                if measured(record.arrived, self.warm_up) && !is_refused {
                    self.victims[row].overtaken.censored.record(overtaken.unwrap_or(0));
                }
            }
            Some(backend) => {
                let waits = record.started.is_none()
                    || (record.preemptions > 0 && self.preempted.remove(&record.id));
                if self.handed.has(record.id) {
                    self.leave_handed((row, record.id, record.arrived), backend);
                } else if waits {
                    self.leave_engine_queue(row, backend, record.arrived);
                } else {
                    self.engine(backend).release(now, row, 1);
                }
                self.seats.release(now, row, 1);
                self.memory.release(now, row, record.tokens);
                self.capacity.give_back(now, backend.index(), record.tokens);
            }
        }
        if let Some(service) = &mut self.service {
            service.close(row, record);
        }
        if measured(record.arrived, self.warm_up) {
            self.victims[row].closed += u128::from(record.phases.queue.nanos());
        }
    }

    /// The true sums of a class at the latest instant: what still waits is added. (Whoever has just
    /// arrived has not waited yet.)
    fn totals(&self, row: usize) -> Vec<u128> {
        let now = self.now;
        let mut victim = self.victims[row].clone();
        let count = victim.measured;
        match held(victim.bound) {
            Some(Resource::KvMemory) => {
                let cells = self.layout.of(Resource::KvMemory);
                victim.add(cells, &self.memory.integral_at(now), count);
            }
            Some(Resource::Seats | Resource::Engine | Resource::DecodeMemory | Resource::Link) => {
                victim.add(self.layout.of(Resource::Seats), &self.seats.integral_at(now), count);
            }
            None => {
                let cell = self.layout.line_of(victim.bound);
                victim.add(cell..cell + 1, &[clock(now)], count);
            }
        }
        for engine in self.engines.iter().filter(|engine| engine.measured(row) > 0) {
            let integral = engine.integral_at(now);
            victim.add(self.layout.of(Resource::Engine), &integral, engine.measured(row));
        }
        self.handed.add_waits(row, now, |resource, integral, count| {
            victim.add(self.layout.of(resource), integral, count);
        });
        victim.cells
    }

    /// Writes down what every class's waiting has come to.
    #[cold]
    fn mark(&mut self) {
        let mut nanos = Vec::with_capacity(self.victims.len() * self.layout.cells());
        for row in 0..self.victims.len() {
            let cells = self.totals(row);
            let whole = |cell: u128| u64::try_from(cell >> FRACTION_BITS).unwrap_or(u64::MAX);
            nanos.extend(cells.into_iter().map(whole));
        }
        self.lanes.push(Mark { at: self.now, nanos });
    }

    /// What a class's waiting fell on between two instants, in no unit: only the parts matter.
    /// Between two marks it is taken as even.
    pub fn between(&self, row: usize, (from, to): (Time, Time)) -> Vec<(Cause, f64)> {
        let mut parts = vec![0.0; self.layout.cells()];
        let nothing = Mark { at: Time::ZERO, nanos: vec![0; self.victims.len() * parts.len()] };
        let marks = &self.lanes.marks;
        for (before, after) in std::iter::once(&nothing).chain(marks).zip(marks) {
            let covered = to.min(after.at).saturating_since(from.max(before.at));
            if covered == Span::ZERO {
                continue;
            }
            let offset = row * parts.len();
            let grown: Vec<f64> = (0..parts.len())
                .map(|cell| (after.nanos[offset + cell] - before.nanos[offset + cell]) as f64)
                .collect();
            let all: f64 = grown.iter().sum();
            if all > 0.0 {
                let part_of = covered.secs_f64() / all;
                parts.iter_mut().zip(grown).for_each(|(part, grown)| *part += part_of * grown);
            }
        }
        let parts = parts.into_iter().enumerate().filter(|(_, part)| *part > 0.0);
        parts.map(|(cell, part)| (self.layout.cause(cell), part)).collect()
    }

    /// What every class's waiting fell on from mark to mark: when the stretch ended; row, cause and
    /// seconds of waiting.
    pub fn stretches(&self) -> Vec<Stretch> {
        let nothing =
            Mark { at: Time::ZERO, nanos: vec![0; self.victims.len() * self.layout.cells()] };
        let marks = &self.lanes.marks;
        let pairs = std::iter::once(&nothing).chain(marks).zip(marks);
        let grown = |(before, after): (&Mark, &Mark)| {
            let cells = before.nanos.iter().zip(&after.nanos).enumerate();
            let grown = cells.filter(|(_, (before, after))| after > before);
            let grown = grown.map(|(number, (before, after))| {
                let (row, cell) = (number / self.layout.cells(), number % self.layout.cells());
                (row, self.layout.cause(cell), (after - before) as f64 / 1e9)
            });
            (after.at, grown.collect())
        };
        pairs.map(grown).collect()
    }

    /// Seat-nanoseconds that less important classes held since the warm-up while a class waited
    /// for seats.
    pub fn inversion(&self, row: usize) -> u128 {
        let mut seats = self.seats.clone();
        seats.integral(self.now);
        let mut victim = self.victims[row].clone();
        if seats.waiting(row) > 0 {
            victim.end_inversion(Resource::Seats, &seats);
        }
        victim.inversion
    }

    /// What happened in the warm-up does not count.
    fn warm(&mut self) {
        self.seats.integral(self.now);
        if let Some(service) = &mut self.service {
            service.warm();
        }
        let free = self.capacity.free(self.now);
        for (row, victim) in self.victims.iter_mut().enumerate() {
            (victim.inversion, victim.idle) = (0, 0);
            victim.idle_from = victim.idle_from.map(|_| free);
            if self.seats.waiting(row) > 0 {
                victim.begin_inversion(Resource::Seats, &self.seats);
            }
        }
    }

    fn end(&mut self) {
        self.mark();
        self.check();
    }

    /// Time is conserved: the parts of each class are its queue time, to the last fraction.
    fn check(&self) {
        for victim in &self.victims {
            let all = victim.cells.iter().fold(0u128, |sum, cell| sum.wrapping_add(*cell));
            assert_eq!(
                all,
                victim.closed << FRACTION_BITS,
                "the parts of the waiting time sum to the queue time"
            );
        }
    }
}

/// The rows of the classes that are less important than a class.
fn lesser(plan: &Plan, row: usize) -> Vec<usize> {
    let Some(own) = plan.classes.get(row) else { return Vec::new() };
    (0..plan.classes.len()).filter(|&other| plan.classes[other].priority < own.priority).collect()
}

impl Victim {
    fn begin_inversion(&mut self, resource: Resource, seats: &Holding) {
        if resource == Resource::Seats {
            self.inversion = self.inversion.wrapping_sub(seats.held_time(&self.lesser));
        }
    }
    fn end_inversion(&mut self, resource: Resource, seats: &Holding) {
        if resource == Resource::Seats {
            self.inversion = self.inversion.wrapping_add(seats.held_time(&self.lesser));
        }
    }
    fn take_off(&mut self, cells: std::ops::Range<usize>, integral: &[u128], count: u64) {
        if count == 1 {
            for (cell, value) in self.cells[cells].iter_mut().zip(integral) {
                *cell = cell.wrapping_sub(*value);
            }
        } else if count > 0 {
            for (cell, value) in self.cells[cells].iter_mut().zip(integral) {
                *cell = cell.wrapping_sub(value.wrapping_mul(u128::from(count)));
            }
        }
    }
    fn add(&mut self, cells: std::ops::Range<usize>, integral: &[u128], count: u64) {
        if count == 1 {
            for (cell, value) in self.cells[cells].iter_mut().zip(integral) {
                *cell = cell.wrapping_add(*value);
            }
        } else if count > 0 {
            for (cell, value) in self.cells[cells].iter_mut().zip(integral) {
                *cell = cell.wrapping_add(value.wrapping_mul(u128::from(count)));
            }
        }
    }
}

impl Layout {
    fn line_of(self, bound: Option<Bound>) -> usize {
        bound.map_or(self.untold(), |bound| self.line(bound))
    }
}

/// The resource that others hold, if it is one.
fn held(bound: Option<Bound>) -> Option<Resource> {
    match bound? {
        Bound::Seats => Some(Resource::Seats),
        Bound::KvMemory => Some(Resource::KvMemory),
        Bound::ClassRequests
        | Bound::ClassTokens
        | Bound::Quota
        | Bound::HeavyLane
        | Bound::Adaptive
        | Bound::Breaker
        | Bound::StaleSignal
        | Bound::Site
        | Bound::NoBackend => None,
    }
}

/// Whether it is the policy that holds back, and not what others hold.
fn is_line(bound: Bound) -> bool {
    bound != Bound::NoBackend && held(Some(bound)).is_none()
}

/// The integral of one over time.
fn clock(now: Time) -> u128 {
    u128::from(now.nanos()) << FRACTION_BITS
}
