//! Running a scenario from its first event to its last, in portions.

use plimsoll_base::{Observer, Time};
use plimsoll_policy::log::Writer;

use crate::engine::{Batch, Counters, Explicit, StepTimes};
use crate::kernel::{Agenda, advance};
use crate::model::{Model, Stepping};
use crate::workload::{Source, SourceError};
use crate::world::{Event, StartError, World};

/// One replication, from its first event to its last. Facts go to the observer.
///
/// ```no_run
/// # fn model() -> plimsoll_sim::Model { unimplemented!() }
/// use plimsoll_sim::{Run, workload};
/// let model = model();
/// let sources = model.workloads.iter().map(|w| workload::source(w, "chat", 1, 0)).collect();
/// let mut run = Run::start(&model, sources, Vec::new()).expect("the policy is valid");
/// while !run.advance(100_000).done {}
/// let facts = run.finish().expect("generators do not break");
/// ```
pub struct Run<O>(Stepped<O>);

enum Stepped<O> {
    Macro(Portions<Counters, O>),
    Single(Portions<Explicit, O>),
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunProgress {
    /// The instant of the latest event.
    pub now: Time,
    /// Requests offered so far.
    pub offered: u64,
    /// Events handled so far.
    pub events: u64,
    /// Whether nothing is left to happen.
    pub done: bool,
}

impl<O: Observer> Run<O> {
    /// Prepares a run; `sources` are the model's workloads, in order. Where steps are drawn it is
    /// replication 0 of seed 1.
    ///
    /// # Errors
    /// If the policy contradicts itself, or a source breaks at its first request.
    pub fn start(
        model: &Model,
        sources: Vec<Box<dyn Source>>,
        observer: O,
    ) -> Result<Run<O>, StartError> {
        Run::start_logged(model, (sources, (1, 0)), (observer, None))
    }

    /// Like [`start`](Run::start); what the allocator is told and decides is written down too. The
    /// seed and the replication are of the engines' steps, where those are drawn.
    ///
    /// # Errors
    /// If the policy contradicts itself, or a source breaks at its first request.
    pub fn start_logged(
        model: &Model,
        (sources, drawn): (Vec<Box<dyn Source>>, (u64, u32)),
        listeners: (O, Option<Box<Writer>>),
    ) -> Result<Run<O>, StartError> {
        let sources = (sources, drawn);
        Ok(Run(match model.plan.stepping {
            Stepping::Macro => Stepped::Macro(Portions::start(model, sources, listeners)?),
            Stepping::Single => Stepped::Single(Portions::start(model, sources, listeners)?),
        }))
    }

    /// Like [`start_logged`](Run::start_logged), without a log; steps take as long as somebody says,
    /// one at a time.
    ///
    /// # Errors
    /// If the policy contradicts itself, or a source breaks at its first request.
    pub fn start_timed(
        model: &Model,
        sources: (Vec<Box<dyn Source>>, (u64, u32)),
        (observer, steps): (O, Box<dyn StepTimes>),
    ) -> Result<Run<O>, StartError> {
        let mut portions = Portions::start(model, sources, (observer, None))?;
        portions.world.time_steps(steps);
        Ok(Run(Stepped::Single(portions)))
    }

    /// The log, if one is written: to carry its bytes away between portions.
    pub fn writer(&mut self) -> Option<&mut Writer> {
        match &mut self.0 {
            Stepped::Macro(portions) => portions.world.writer(),
            Stepped::Single(portions) => portions.world.writer(),
        }
    }

    /// Ends the log, if one is written. To be called before [`finish`](Run::finish).
    pub fn take_writer(&mut self) -> Option<Box<Writer>> {
        match &mut self.0 {
            Stepped::Macro(portions) => portions.world.take_writer(),
            Stepped::Single(portions) => portions.world.take_writer(),
        }
    }

    /// Handles about `events_max` events.
    pub fn advance(&mut self, events_max: u64) -> RunProgress {
        match &mut self.0 {
            Stepped::Macro(portions) => portions.advance(events_max),
            Stepped::Single(portions) => portions.advance(events_max),
        }
    }

    /// Ends the run where it stands: what is in flight is closed as unfinished.
    ///
    /// # Errors
    /// If a source broke on the way.
    pub fn finish(self) -> Result<O, SourceError> {
        match self.0 {
            Stepped::Macro(portions) => portions.world.finish(portions.now),
            Stepped::Single(portions) => portions.world.finish(portions.now),
        }
    }
}

struct Portions<B, O> {
    world: World<B, O>,
    agenda: Agenda<Event>,
    now: Time,
    events: u64,
}

impl<B: Batch, O: Observer> Portions<B, O> {
    fn start(
        model: &Model,
        sources: (Vec<Box<dyn Source>>, (u64, u32)),
        listeners: (O, Option<Box<Writer>>),
    ) -> Result<Portions<B, O>, StartError> {
        let mut agenda = Agenda::new();
        let world = World::new(model, sources, listeners, &mut agenda)?;
        Ok(Portions { world, agenda, now: Time::ZERO, events: 0 })
    }

    fn advance(&mut self, events_max: u64) -> RunProgress {
        let progress = advance(&mut self.world, &mut self.agenda, events_max);
        self.now = self.now.max(progress.now);
        self.events += progress.events;
        let (now, events) = (self.now, self.events);
        RunProgress { now, offered: self.world.offered(), events, done: progress.done }
    }
}
