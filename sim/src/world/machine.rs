//! What takes a request: an engine, or a disaggregated unit of several.

use plimsoll_base::{BackendSample, ClassId, Observer, Span, Time};

use super::{Event, World};
use crate::engine::{Batch, Engine, Job, Listener};
use crate::kernel::Agenda;
use crate::model::Pool;
use crate::unit::Unit;

/// A machine without a clock. Most are whole, and are found without a further look into memory.
#[expect(clippy::large_enum_variant)]
pub(super) enum Machine<B> {
    /// One engine computes prompts and decodes.
    Whole(Engine<B>),
    /// Engines for either.
    Split(Box<Unit<B>>),
}

/// The same words for both: see [`Engine`].
impl<B: Batch> Machine<B> {
    pub fn new(pool: &Pool, classes: usize) -> Machine<B> {
        match &pool.split {
            None => Machine::Whole(Engine::new(&pool.engine, classes)),
            Some(split) => Machine::Split(Box::new(Unit::new(&pool.engine, split, classes))),
        }
    }
    /// Which backend of which run this is: where steps are drawn, each engine has its own stream.
    pub fn draw_noise(&mut self, drawn: (u64, u32), backend: u64) {
        match self {
            Machine::Whole(engine) => engine.draw_noise(drawn, backend),
            Machine::Split(unit) => unit.draw_noise(drawn, backend),
        }
    }
    #[inline(always)]
    pub fn submit(&mut self, job: Job) {
        match self {
            Machine::Whole(engine) => engine.submit(job),
            Machine::Split(unit) => unit.submit(job),
        }
    }
    pub fn cancel(&mut self, key: u32, now: Time) {
        match self {
            Machine::Whole(engine) => engine.cancel(key, now),
            Machine::Split(unit) => unit.cancel(key, now),
        }
    }
    #[inline(always)]
    pub fn begin(&mut self, now: Time, ear: &mut impl Listener) -> Option<Time> {
        match self {
            Machine::Whole(engine) => engine.begin(now, ear),
            Machine::Split(unit) => unit.begin(now, ear),
        }
    }
    #[inline(always)]
    pub fn complete(&mut self, now: Time, ear: &mut impl Listener) {
        match self {
            Machine::Whole(engine) => engine.complete(now, ear),
            Machine::Split(unit) => unit.complete(now, ear),
        }
    }
    pub fn settle(&mut self, now: Time, ear: &mut impl Listener) {
        match self {
            Machine::Whole(engine) => engine.settle(now, ear),
            Machine::Split(unit) => unit.settle(now, ear),
        }
    }
    #[inline]
    pub fn alone(&self, prompt_tokens: u32, output_tokens: u32) -> Span {
        match self {
            Machine::Whole(engine) => engine.alone(prompt_tokens, output_tokens),
            Machine::Split(unit) => unit.alone(prompt_tokens, output_tokens),
        }
    }
    pub fn sample(&self) -> BackendSample {
        match self {
            Machine::Whole(engine) => engine.sample(),
            Machine::Split(unit) => unit.sample(),
        }
    }
    pub fn class_busy(&self, class: ClassId) -> u128 {
        match self {
            Machine::Whole(engine) => engine.class_busy(class),
            Machine::Split(unit) => unit.class_busy(class),
        }
    }
    /// Keys and classes of the requests that wait inside, in no stated order.
    pub fn waiting(&self) -> Box<dyn Iterator<Item = (u32, ClassId)> + '_> {
        match self {
            Machine::Whole(engine) => {
                Box::new(engine.waiting().map(|sequence| (sequence.key, sequence.class)))
            }
            Machine::Split(unit) => Box::new(unit.waiting()),
        }
    }
    pub fn count_running(&self, by_class: &mut [u32]) {
        match self {
            Machine::Whole(engine) => engine.count_running(by_class),
            Machine::Split(unit) => unit.count_running(by_class),
        }
    }
}

impl<B: Batch, O: Observer> World<B, O> {
    /// An event of a unit has come: all units for which it is time reach it, in the order of their
    /// slots. A unit's event is scheduled anew whenever one of its engines ends a step, so the order
    /// of scheduling would depend on the stepping.
    #[inline(never)]
    pub(super) fn reach_units(&mut self, unit: u32, now: Time, agenda: &mut Agenda<Event>) {
        for slot in 0..self.backends.len() as u32 {
            let (backend, mut ear) = self.listen(slot, now);
            let Machine::Split(unit) = &mut backend.engine else { continue };
            if !unit.is_due(now) {
                continue;
            }
            unit.complete(now, &mut ear);
            self.follow_begun(now, agenda);
            self.follow_finished(now, agenda);
            self.touch(slot);
        }
        // Its event is gone, even if it came with the event of another.
        self.touch(unit);
    }
}
