//! The world: sources, the allocator and the engines, and the facts of what happens to requests.
//!
//! One request: source → agenda → [`RequestInfo`] → [`Allocator`] → dispatch → engine → end →
//! facts. The allocator is told what a gateway would be told, input by input, and its decisions
//! are carried out at once; engines begin their steps when everything else of the instant has
//! happened ([`kernel::World::settle`]).

mod arrivals;
mod audience;
mod detection;
mod flight;
mod hearing;
mod machine;
mod sampling;
mod telling;
mod timetable;

use plimsoll_base::{
    BackendId, Bound, ClassId, End, Fact, Observer, Outcome, PoolId, Reason, RequestId, SourceId,
    Span, Time,
};
use plimsoll_policy::log::Writer;
use plimsoll_policy::{Action, Allocator, BackendInfo, ConfigError, Decision, Input, Used};
use rustc_hash::FxHashMap;

use crate::engine::{Batch, Engine, Job, StepTimes};
use crate::kernel::{self, Agenda, EventId, Rank};
use crate::model::{Model, RunPlan};
use crate::workload::{Marks, Request, Source, SourceError};
use arrivals::Arrivals;
pub use arrivals::visible;
use audience::Audience;
use flight::{Flight, Flights};
use hearing::{Hearing, Records};
use machine::Machine;
use sampling::Sampling;
use telling::Telling;
use timetable::Timetable;

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A source's next request arrives.
    Arrival(u16),
    /// An engine reaches a step boundary at which something ends.
    Boundary(u32),
    /// A request reaches its engine: its key.
    Landing(u32),
    /// The allocator asked to be woken.
    Deadline,
    /// The timetable has something for this instant.
    Planned,
    /// The detector asked to be woken.
    Watch,
    /// The backends write down how full they are.
    Gather,
    /// The allocator hears what they wrote down.
    Report,
}

/// A machine and its next instant at which something ends, where that is on the agenda.
struct Backend<B> {
    engine: Machine<B>,
    boundary: Option<EventId>,
}

/// All state of a simulated run; facts go to `observer`.
pub struct World<B, O> {
    plan: RunPlan,
    allocator: Allocator,
    backends: Vec<Backend<B>>,
    /// The first backend of each pool.
    pools: Vec<usize>,
    /// Engines that have something to begin at this instant.
    dirty: Vec<u32>,
    /// Whether there are disaggregated units.
    has_units: bool,
    arrivals: Arrivals,
    /// Indexed by source.
    marks: Vec<Marks>,
    /// Keys of the requests that wait in the allocator.
    queued: FxHashMap<RequestId, u32>,
    offered: u64,
    deadline: Option<(Time, EventId)>,
    /// Whether the allocator was told something since its deadline was looked at.
    consulted: bool,
    timetable: Timetable,
    planned: Option<EventId>,
    sampling: Sampling,
    /// Who says how long steps take, where it is not the step-time model.
    steps: Option<Box<dyn StepTimes>>,
    /// What is on its way to an engine, and when it is there.
    on_way: FxHashMap<u32, (Time, BackendId, Job)>,
    /// Who listens to the allocator, if anybody does.
    audience: Option<Box<Audience>>,
    /// Whether anything follows an instant beside engines and the allocator's deadline: somebody
    /// listens, or arrivals have ended.
    is_attended: bool,
    records: Records<O>,
}

impl<B: Batch, O: Observer> World<B, O> {
    /// A world before its first event. Facts go to the observer, what the allocator is told and
    /// decides goes to the log, if there is one. Steps, where they are drawn, are those of a seed
    /// and a replication.
    ///
    /// # Errors
    /// If the policy contradicts itself, or a source breaks at its first request.
    pub fn new(
        model: &Model,
        (sources, drawn): (Vec<Box<dyn Source>>, (u64, u32)),
        (observer, log): (O, Option<Box<Writer>>),
        agenda: &mut Agenda<Event>,
    ) -> Result<World<B, O>, StartError> {
        let plan = model.plan;
        let classes = model.policy.classes.len();
        let attributed = plan.attribution.is_on().then_some(&model.policy);
        let mut world = World {
            plan,
            allocator: Allocator::new(model.policy.clone()).map_err(StartError::Policy)?,
            backends: Vec::new(),
            pools: Vec::new(),
            dirty: Vec::new(),
            has_units: model.pools.iter().any(|pool| pool.split.is_some()),
            arrivals: Arrivals::new(sources, plan.duration),
            marks: model.workloads.iter().map(|workload| workload.marks).collect(),
            queued: FxHashMap::default(),
            offered: 0,
            deadline: None,
            consulted: false,
            timetable: Timetable::new(&plan),
            planned: None,
            sampling: Sampling::new(classes),
            steps: None,
            on_way: FxHashMap::default(),
            audience: Audience::new(log, attributed),
            is_attended: false,
            records: Records {
                flights: Flights::default(),
                finished: Vec::new(),
                telling: Telling::default(),
                observer,
            },
        };
        world.is_attended = world.audience.is_some();
        world.join_backends(model, classes, drawn);
        let needs = world.allocator.needs();
        world.records.telling = Telling::new(needs, &model.policy, world.backends.len());
        world.keep_timetable(agenda);
        world.plan_report(Time::ZERO, agenda);
        world.arrivals.start(agenda).map_err(StartError::Source)?;
        Ok(world)
    }

    fn join_backends(&mut self, model: &Model, classes: usize, drawn: (u64, u32)) {
        for (pool, spec) in model.pools.iter().enumerate() {
            self.pools.extend((spec.replicas > 0).then_some(self.backends.len()));
            for _ in 0..spec.replicas {
                let id = BackendId::first(self.backends.len() as u32);
                let info = BackendInfo {
                    pool: PoolId(pool as u16),
                    seats: spec.seats(),
                    kv_tokens: spec.kv_tokens(),
                    context_max: spec.context_max(),
                    site: spec.site,
                    models: spec.models,
                };
                self.tell(Time::ZERO, Input::Joined(id, info));
                assert!(self.heed(Time::ZERO).is_none(), "nobody waits before the run begins");
                let mut engine = Machine::new(spec, classes);
                engine.draw_noise(drawn, self.backends.len() as u64);
                self.backends.push(Backend { engine, boundary: None });
            }
        }
    }

    /// Keeps the next instant of the timetable on the agenda.
    fn keep_timetable(&mut self, agenda: &mut Agenda<Event>) {
        let at = self.timetable.next();
        match self.planned {
            Some(event) => {
                agenda.reschedule(event, at, Rank::Telemetry);
            }
            None => {
                self.planned = Some(agenda.schedule(at, Rank::Telemetry, Event::Planned));
            }
        }
    }

    /// Does what the timetable has for this instant.
    #[inline(never)]
    fn follow_timetable(&mut self, now: Time, agenda: &mut Agenda<Event>) {
        self.planned = None;
        self.sample(now);
        if self.timetable.warm_up.take_if(|at| *at <= now).is_some() {
            self.records.observer.observe(now, &Fact::WarmedUp);
        }
        if self.timetable.sample <= now {
            self.timetable.sampled(now);
        }
        if self.timetable.arrivals_end.take_if(|at| *at <= now).is_some() {
            self.end_arrivals(now, agenda);
        }
        match self.timetable.drain_end {
            Some(at) if at <= now || self.records.flights.is_empty() => self.end(agenda),
            Some(_) | None => self.keep_timetable(agenda),
        }
    }

    /// Ends the run at `now`: what is in flight is closed as unfinished (censored).
    /// Called once by the runner, also when it was interrupted.
    pub fn finish(mut self, now: Time) -> Result<O, SourceError> {
        self.sample(now);
        for key in self.records.flights.keys() {
            self.imagine_alone(key);
            self.close(key, Outcome::Unfinished, now);
        }
        self.records.observer.observe(now, &Fact::RunEnded);
        match self.arrivals.take_error() {
            Some(error) => Err(error),
            None => Ok(self.records.observer),
        }
    }

    /// From now on steps take as long as somebody says. For batches that take one step at a time.
    pub fn time_steps(&mut self, steps: Box<dyn StepTimes>) {
        assert!(B::STEPS_MAX == 1, "a step that is timed is one step");
        self.steps = Some(steps);
    }

    /// The log, if one is written: to carry its bytes away.
    pub fn writer(&mut self) -> Option<&mut Writer> {
        self.audience.as_mut()?.log.as_deref_mut()
    }

    /// Ends the log, if one is written.
    pub fn take_writer(&mut self) -> Option<Box<Writer>> {
        self.audience.as_mut()?.log.take()
    }

    /// Requests offered so far.
    pub fn offered(&self) -> u64 {
        self.offered
    }

    #[inline(always)]
    fn arrive(&mut self, source: u16, now: Time, agenda: &mut Agenda<Event>) {
        let request = self.arrivals.take(source);
        let id = RequestId(self.offered);
        self.offered += 1;
        let source_id = SourceId(source);
        let key = self.records.flights.insert(|| Flight::new(id, &request, source_id, now));
        self.consulted = true;
        if let Some(tokens) = self.records.telling.oracle(&request, source, now) {
            self.decide(now, Input::Predicted(id, tokens), agenda);
        }
        let info = arrivals::visible(&request, source_id, &self.marks[usize::from(source)]);
        self.tell(now, Input::Arrived(id, info));
        let class = self.allocator.latest_class();
        self.records.flights[key].record.class = class;
        let Request { tenant, prompt_tokens, .. } = request;
        let arrived = Fact::Arrived { id, tenant, class, arrived: now, prompt_tokens };
        self.records.observer.observe(now, &arrived);
        let mut decided = false;
        while let Some(decision) = self.heed(now) {
            if decision.id == id && !decided {
                decided = true;
                self.carry_out(key, decision, now, agenda);
            } else {
                self.carry_out_queued(decision, now, agenda);
            }
        }
        if !decided {
            self.queued.insert(id, key);
        }
        self.rest(now);
        self.arrivals.announce(source, now, agenda);
        self.end_arrivals_when_dry(now, agenda);
    }

    #[inline(always)]
    fn decide(&mut self, now: Time, input: Input, agenda: &mut Agenda<Event>) {
        self.consulted = true;
        self.tell(now, input);
        while let Some(decision) = self.heed(now) {
            self.carry_out_queued(decision, now, agenda);
        }
        self.rest(now);
    }

    // The usual way of a request, dispatched as it arrives, is one piece of code; the others are
    // apart.
    #[inline(never)]
    fn carry_out_queued(&mut self, decision: Decision, now: Time, agenda: &mut Agenda<Event>) {
        if let Action::Cancel(backend) = decision.action {
            return self.cut_off(decision.id, backend, now);
        }
        let key = self.queued.remove(&decision.id).expect("a decision is for a waiting request");
        self.carry_out(key, decision, now, agenda);
    }

    #[inline(always)]
    fn carry_out(&mut self, key: u32, decision: Decision, now: Time, agenda: &mut Agenda<Event>) {
        let Decision { reason, bound, .. } = decision;
        let outcome = match decision.action {
            Action::Dispatch(backend, priority) => {
                let class = decision.class.expect("what is dispatched has a class");
                let job = self.dispatch(key, (backend, class, priority.0), (reason, bound), now);
                return self.send(backend, job, now, agenda);
            }
            Action::Reject(refusal, _) => Outcome::Refused(refusal),
            Action::Close(end) => Outcome::Ended(end),
            Action::Cancel(_) => unreachable!("what is cut off was let in before"),
            Action::Preempt(_) => unreachable!("no rule takes back what runs"),
        };
        let record = &mut self.records.flights[key].record;
        (record.reason, record.bound) = (Some(reason), bound);
        self.turn_away(key, outcome, now, agenda);
    }

    /// Has a backend drop a request; it ends when the backend has let go.
    fn cut_off(&mut self, id: RequestId, backend: BackendId, now: Time) {
        let key = self.records.flights.find(id).expect("what is cut off is in flight");
        self.land(key, Time::MAX);
        self.backends[backend.index()].engine.cancel(key, now);
        self.touch(backend.slot);
    }

    /// Ends the life of a request that was not let in.
    #[inline(never)]
    fn turn_away(&mut self, key: u32, outcome: Outcome, now: Time, agenda: &mut Agenda<Event>) {
        self.imagine_alone(key);
        let from = self.close(key, outcome, now);
        self.arrivals.ended(from, now, agenda);
    }

    /// What was never let in would have taken as long as on the slowest backend, or less.
    fn imagine_alone(&mut self, key: u32) {
        let Flight { record, output_tokens, .. } = &mut self.records.flights[key];
        if self.plan.attribution.is_on() && record.dispatched.is_none() {
            let firsts = self.pools.iter().map(|&slot| &self.backends[slot].engine);
            let alone = firsts.map(|engine| engine.alone(record.prompt_tokens, *output_tokens));
            record.alone = alone.max().unwrap_or_default();
        }
    }

    #[inline(always)]
    fn dispatch(
        &mut self,
        key: u32,
        (backend, class, priority): (BackendId, ClassId, i32),
        (reason, bound): (Reason, Option<Bound>),
        now: Time,
    ) -> Job {
        let flight = &mut self.records.flights[key];
        (flight.record.reason, flight.record.bound) = (Some(reason), bound);
        flight.record.dispatched = Some(now);
        flight.record.backend = Some(backend);
        if self.plan.attribution.is_on() {
            let tokens = self.allocator.tokens(flight.record.id);
            flight.record.tokens = tokens.expect("what is dispatched is held until it ends");
            let engine = &self.backends[backend.index()].engine;
            flight.record.alone = engine.alone(flight.record.prompt_tokens, flight.output_tokens);
        }
        let record = &flight.record;
        let fact = Fact::Dispatched {
            id: record.id,
            tenant: record.tenant,
            class,
            backend,
            reason,
            bound,
            arrived: record.arrived,
            prompt_tokens: record.prompt_tokens,
            tokens: record.tokens,
        };
        let job = Job {
            key,
            class,
            priority,
            prompt_tokens: record.prompt_tokens,
            output_tokens: flight.output_tokens,
        };
        self.records.observer.observe(now, &fact);
        job
    }

    /// Hands a request to its engine, which is at once unless somebody says how long it is on its way.
    #[inline(always)]
    fn send(&mut self, backend: BackendId, job: Job, now: Time, agenda: &mut Agenda<Event>) {
        if B::STEPS_MAX == 1
            && let Some(steps) = &mut self.steps
            && let Machine::Whole(engine) = &self.backends[backend.index()].engine
        {
            let way = steps.way(engine.meets(now));
            if way > Span::ZERO {
                self.on_way.insert(job.key, (now + way, backend, job));
                agenda.schedule(now + way, Rank::Arrival, Event::Landing(job.key));
                return;
            }
        }
        self.backends[backend.index()].engine.submit(job);
        self.touch(backend.slot);
    }

    /// A request that was on its way until then is there. (One that was cut off is so at once, and its
    /// key may be another's when it would have been.)
    #[inline(never)]
    fn land(&mut self, key: u32, until: Time) {
        if self.on_way.get(&key).is_some_and(|(at, ..)| *at <= until)
            && let Some((_, backend, job)) = self.on_way.remove(&key)
        {
            self.backends[backend.index()].engine.submit(job);
            self.touch(backend.slot);
        }
    }

    fn touch(&mut self, engine: u32) {
        if self.dirty.last() != Some(&engine) {
            self.dirty.push(engine);
        }
    }

    /// Ends a request's life; returns whom to tell.
    #[inline(always)]
    fn close(&mut self, key: u32, outcome: Outcome, now: Time) -> (SourceId, u32) {
        let flight = self.records.flights.remove(key);
        flight.close(outcome, now);
        self.records.observer.close(now, &flight.record);
        (flight.record.source, flight.source_key)
    }

    #[inline(always)]
    fn reach_boundary(&mut self, engine: u32, now: Time, agenda: &mut Agenda<Event>) {
        let (backend, mut ear) = self.listen(engine, now);
        backend.boundary = None;
        if matches!(backend.engine, Machine::Split(_)) {
            return self.reach_units(engine, now, agenda);
        }
        backend.engine.complete(now, &mut ear);
        self.follow_begun(now, agenda);
        self.follow_finished(now, agenda);
        self.touch(engine);
    }

    /// A backend, and an ear for what its engine does at `now`.
    fn listen(&mut self, engine: u32, now: Time) -> (&mut Backend<B>, Hearing<'_, O>) {
        let World { backends, records, .. } = self;
        (&mut backends[engine as usize], Hearing { engine, now, records })
    }

    /// Carries what an engine has finished to the sources and the allocator. Nothing adds to it
    /// meanwhile: what is dispatched begins when the instant settles.
    fn follow_finished(&mut self, now: Time, agenda: &mut Agenda<Event>) {
        for index in 0..self.records.finished.len() {
            let (key, end) = self.records.finished[index];
            let record = &self.records.flights[key].record;
            let prompt_tokens = match end {
                End::Evicted => record.prompt_tokens.min(record.wasted_tokens),
                End::Finished | End::Failed | End::Cancelled | End::Expired => record.prompt_tokens,
            };
            let used = Used { prompt_tokens, output_tokens: record.output_tokens };
            let id = record.id;
            let from = self.close(key, Outcome::Ended(end), now);
            self.arrivals.ended(from, now, agenda);
            self.decide(now, Input::Ended(id, end, used), agenda);
        }
        self.records.finished.clear();
    }

    fn begin_engines(&mut self, now: Time, agenda: &mut Agenda<Event>) {
        if self.has_units {
            // In the order of their slots, whatever boundaries within them came at this instant.
            self.dirty.sort_unstable();
        }
        let World { backends, dirty, records, steps, .. } = self;
        for &engine in dirty.iter() {
            let backend = &mut backends[engine as usize];
            let mut ear = Hearing { engine, now, records };
            let Some(mut at) = backend.engine.begin(now, &mut ear) else { continue };
            if B::STEPS_MAX == 1
                && let Some(steps) = steps
                && let Machine::Whole(one) = &mut backend.engine
            {
                at = retime(one, (engine, now), steps.as_mut()).unwrap_or(at);
            }
            match backend.boundary {
                Some(event) => {
                    agenda.reschedule(event, at, Rank::Completion);
                }
                None => {
                    let event = Event::Boundary(engine);
                    backend.boundary = Some(agenda.schedule(at, Rank::Completion, event));
                }
            }
        }
        dirty.clear();
    }

    /// Keeps one wake-up on the agenda that is not later than what the allocator asks for.
    fn keep_deadline(&mut self, now: Time, agenda: &mut Agenda<Event>) {
        if !std::mem::take(&mut self.consulted) {
            return;
        }
        let Some(wanted) = self.allocator.next_deadline() else { return };
        let at = wanted.max(now + Span::from_nanos(1));
        match self.deadline {
            Some((planned, _)) if planned <= at => {}
            Some((_, event)) => {
                agenda.reschedule(event, at, Rank::Decision);
                self.deadline = Some((at, event));
            }
            None => {
                let event = agenda.schedule(at, Rank::Decision, Event::Deadline);
                self.deadline = Some((at, event));
            }
        }
    }

    /// The allocator is woken, as it asked to be.
    #[inline(never)]
    fn wake(&mut self, now: Time, agenda: &mut Agenda<Event>) {
        self.deadline = None;
        self.decide(now, Input::Deadline, agenda);
    }

    fn end_arrivals_when_dry(&mut self, now: Time, agenda: &mut Agenda<Event>) {
        if self.plan.duration.is_none() && self.arrivals.are_dry() {
            self.end_arrivals(now, agenda);
        }
    }

    #[inline(never)]
    fn end_arrivals(&mut self, now: Time, agenda: &mut Agenda<Event>) {
        if self.timetable.drain_end.is_none() {
            self.arrivals.stop(agenda);
            self.records.observer.observe(now, &Fact::ArrivalsEnded);
            self.timetable.drain_end = Some(now.saturating_add(self.plan.drain_max));
            self.is_attended = true;
            self.keep_timetable(agenda);
        }
    }

    /// Once arrivals have ended and nothing is in flight, nothing can happen any more.
    fn end_when_drained(&mut self, agenda: &mut Agenda<Event>) {
        if self.timetable.drain_end.is_some() && self.records.flights.is_empty() {
            self.end(agenda);
        }
    }

    #[inline(never)]
    fn end(&mut self, agenda: &mut Agenda<Event>) {
        while agenda.pop().is_some() {}
        self.dirty.clear();
        self.consulted = false;
    }
}

impl<B: Batch, O: Observer> kernel::World for World<B, O> {
    type Event = Event;

    // Part of the loop that runs the world: arrivals and boundaries are, all else is apart.
    #[inline(always)]
    fn handle(&mut self, now: Time, event: Event, agenda: &mut Agenda<Event>) {
        match event {
            Event::Boundary(engine) => self.reach_boundary(engine, now, agenda),
            Event::Arrival(source) => self.arrive(source, now, agenda),
            Event::Landing(key) => self.land(key, now),
            Event::Deadline => self.wake(now, agenda),
            Event::Planned => self.follow_timetable(now, agenda),
            Event::Watch => self.watch(now),
            Event::Gather => self.gather(now, agenda),
            Event::Report => self.report(now, agenda),
        }
        if self.arrivals.is_broken() {
            self.end(agenda);
        }
    }

    #[inline(always)]
    fn settle(&mut self, now: Time, agenda: &mut Agenda<Event>) {
        self.begin_engines(now, agenda);
        self.keep_deadline(now, agenda);
        if self.is_attended {
            self.keep_watch(now, agenda);
            self.end_when_drained(agenda);
        }
    }
}

/// A step that has just begun takes as long as `steps` say, if they do. Returns when it is over then.
#[inline(never)]
fn retime<B: Batch>(
    engine: &mut Engine<B>,
    (backend, now): (u32, Time),
    steps: &mut dyn StepTimes,
) -> Option<Time> {
    let span = steps.span(backend, now, engine.shape())?;
    engine.took(span)
}

/// Why a run could not start.
#[derive(Debug)]
pub enum StartError {
    /// The policy contradicts itself.
    Policy(ConfigError),
    /// A source broke at its first request.
    Source(SourceError),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Policy(error) => write!(f, "the policy contradicts itself: {error}"),
            StartError::Source(error) => error.fmt(f),
        }
    }
}
impl std::error::Error for StartError {}
