//! An engine: iteration-level continuous batching as vLLM V1 does it.
//!
//! A step computes one token for every decoding sequence, then prompt chunks as far as the token
//! budget goes; new requests enter while seats, budget and KV blocks allow; when blocks run out
//! the least important, latest sequence is thrown out and computed again later. Between two
//! events the engine takes all its steps at once (a *segment*).
//!
//! The engine is a machine without a clock: [`Engine::submit`] and [`Engine::begin`] at an
//! instant, [`Engine::complete`] when the boundary that `begin` announced has come. What happens
//! is told to a [`Listener`] at once.

mod batch;
mod cancel;
mod clock;
mod cost;
mod counters;
mod ends;
mod explicit;
mod handover;
mod measured;
mod meter;
mod noise;
mod queue;
mod segment;

use plimsoll_base::{BackendSample, ClassId, Span, Stage, StreamKey, Ticks, Time};

pub use batch::{Batch, Departed, Sequence};
pub use clock::{Clock, Series};
pub use cost::{AFTER_PREFILL_STEPS, BatchShape, Behind, StepCost, after_rest};
pub use counters::Counters;
pub use explicit::Explicit;
pub use measured::{Meets, Part, StepTimes};
pub use meter::span as span_of;

use crate::model::{Admission, EngineModel};
use cancel::Cancel;
use meter::Meter;
use noise::Noise;
use queue::Waiting;
use segment::{Prefill, Segment};

/// A request for an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The owner's key, handed back in every note.
    pub key: u32,
    /// Whose.
    pub class: ClassId,
    /// Higher is more important.
    pub priority: i32,
    /// Prompt length in tokens, at least 1.
    pub prompt_tokens: u32,
    /// True output length in tokens, at least 1.
    pub output_tokens: u32,
}

/// What happened inside an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A request entered the batch (again, after a preemption).
    Started {
        /// Which.
        key: u32,
    },
    /// A prefill is done: the first token, or the next one after a preemption.
    Token {
        /// Which.
        key: u32,
    },
    /// A request was thrown out of the batch.
    Preempted {
        /// Which.
        key: u32,
        /// Tokens whose computation was lost.
        lost_tokens: u32,
        /// Output tokens it has delivered.
        delivered: u32,
    },
    /// A request was cut off.
    Cancelled {
        /// Which.
        key: u32,
        /// Tokens it had in KV memory: computed for nothing.
        lost_tokens: u32,
        /// Output tokens it has delivered.
        delivered: u32,
        /// The largest gap between two of its tokens.
        gap_max: Span,
    },
    /// A request has delivered everything.
    Finished {
        /// Which.
        key: u32,
        /// The largest gap between two of its tokens.
        gap_max: Span,
    },
    /// Where the prompt is computed apart from the decoding, a request has come one step further,
    /// as in [`Fact::Handed`](plimsoll_base::Fact::Handed).
    Handed {
        /// Which.
        key: u32,
        /// What it does now.
        stage: Stage,
    },
    /// Tokens of a class, as in [`Fact::Gaps`](plimsoll_base::Fact::Gaps).
    Gaps {
        /// Whose.
        class: ClassId,
        /// The first gap.
        first: Ticks,
        /// What each gap adds.
        increment: Ticks,
        /// How many.
        count: u64,
        /// How many sequences saw each.
        sequences: u32,
    },
}

/// Something that listens to notes.
pub trait Listener {
    /// Called once a note, in the order in which things happen.
    fn hear(&mut self, note: Note);
}

/// Writes all down.
impl Listener for Vec<Note> {
    fn hear(&mut self, note: Note) {
        self.push(note);
    }
}

/// What draws the steps of an engine of which nobody has said which one it is.
const NOISE_KEY: StreamKey<'_> =
    StreamKey { seed: 1, replication: 0, name: "step noise", entity: 0 };

fn noise(model: &EngineModel, key: StreamKey<'_>) -> Option<Box<Noise>> {
    model.step_noise.as_ref().map(|spec| Box::new(Noise::new(spec, key)))
}

/// An engine over a batch of kind `B`.
#[derive(Debug)]
pub struct Engine<B> {
    model: EngineModel,
    cost: StepCost,
    /// Where steps are drawn; boxed, since most engines have none.
    noise: Option<Box<Noise>>,
    batch: B,
    /// Sequences that compute prompt chunks in the current step; between steps at most one is
    /// left, whose prompt did not fit the budget.
    prefills: Vec<Prefill>,
    waiting: Waiting,
    /// Whose prompt was computed elsewhere: they hold their memory and enter before all others.
    received: Waiting,
    blocks_free: u32,
    /// Tokens a block, as a power of two.
    block_shift: u32,
    /// The last step boundary that was reached.
    clock: Clock,
    /// As in [`BatchShape`], of the next step, and whether anybody wants to know it.
    behind: Behind,
    looks_behind: bool,
    /// When the last step was over, and how long the engine had rested when that which runs began.
    rests: Time,
    idle: u64,
    segment: Option<Segment>,
    /// Whether the current segment must be cut at the next boundary.
    cut: bool,
    /// What is to be cut off, in the order in which that was said.
    cancels: Vec<Cancel>,
    serials: u64,
    entries: u64,
    meter: Meter,
}

impl<B: Batch> Engine<B> {
    /// An idle engine.
    pub fn new(model: &EngineModel, classes: usize) -> Engine<B> {
        assert!(model.step_tokens_max >= model.seats, "every decoding sequence fits a step");
        assert!(model.seats <= 1 << 16, "an engine has at most 65,536 seats");
        assert!(
            u64::from(model.context_max) <= model.kv_tokens(),
            "the longest context fits the KV memory"
        );
        let cost = StepCost::new(model.step_cost);
        Engine {
            // Single steps tell their shapes.
            looks_behind: B::STEPS_MAX == 1 || cost.looks_behind(),
            cost,
            noise: noise(model, NOISE_KEY),
            batch: B::new(model.block_tokens, classes),
            prefills: Vec::new(),
            waiting: Waiting::new(model.admission),
            received: Waiting::new(model.admission),
            blocks_free: model.kv_blocks,
            block_shift: model.block_tokens.trailing_zeros(),
            clock: Clock::default(),
            behind: Behind::default(),
            rests: Time::ZERO,
            idle: 0,
            segment: None,
            cut: false,
            cancels: Vec::new(),
            serials: 0,
            entries: 0,
            meter: Meter::new(classes),
            model: model.clone(),
        }
    }

    /// Which engine of which run this is: where steps are drawn, each has a stream of its own.
    pub fn draw_noise(&mut self, (seed, replication): (u64, u32), entity: u64) {
        self.noise = noise(&self.model, StreamKey { seed, replication, entity, ..NOISE_KEY });
    }

    /// Takes in a request. It may enter the batch at the next boundary.
    #[inline(always)]
    pub fn submit(&mut self, job: Job) {
        let sequence = self.sequence(job);
        let had_waiting = self.waiting.len() > 0;
        self.waiting.push(sequence);
        let is_first = match self.model.admission {
            Admission::Fcfs => !had_waiting,
            Admission::Priority => {
                self.waiting.first().is_some_and(|first| first.serial == self.serials)
            }
        };
        // Whoever waits already could not enter, and can not before somebody leaves.
        self.cut |= is_first && self.running() < self.model.seats;
    }

    /// A sequence that has just come.
    #[inline(always)]
    fn sequence(&mut self, job: Job) -> Sequence {
        let context = job.prompt_tokens.saturating_add(job.output_tokens);
        assert!(context <= self.model.context_max, "a request fits the engine's context");
        assert!(job.prompt_tokens > 0 && job.output_tokens > 0, "a request has tokens");
        self.serials += 1;
        Sequence {
            key: job.key,
            class: job.class,
            priority: job.priority,
            serial: self.serials,
            entry: 0,
            prompt: job.prompt_tokens,
            output: job.output_tokens,
            delivered: 0,
            context: 0,
            parted: Time::ZERO,
            gap_max: 0,
        }
    }

    /// Starts what there is to do at `now`, after everything else of this instant has happened.
    /// Returns when [`complete`](Engine::complete) is due if that is new or has changed.
    pub fn begin(&mut self, now: Time, ear: &mut impl Listener) -> Option<Time> {
        let cut = std::mem::take(&mut self.cut);
        if let Some(segment) = &mut self.segment {
            let at = if cut { now } else { self.cancels.first()?.due };
            return (segment.steps > 1).then(|| segment.cut(self.clock, at));
        }
        if self.clock.ceil() < now {
            self.clock = Clock::at(now);
        }
        self.idle = now.saturating_since(self.rests).nanos();
        let mut segment = self.compose(now, ear)?;
        if let Some(noise) = &mut self.noise {
            segment.retime(noise.stretch(segment.span, !self.prefills.is_empty()));
        }
        let end = segment.end(self.clock);
        let segment = self.segment.insert(segment);
        match self.cancels.first() {
            Some(cancel) if segment.steps > 1 => Some(segment.cut(self.clock, cancel.due)),
            Some(_) | None => Some(end),
        }
    }

    /// The boundary that `begin` announced has come.
    pub fn complete(&mut self, now: Time, ear: &mut impl Listener) {
        let segment = self.segment.take().expect("a segment was begun");
        self.take_steps(&segment, ear);
        self.rests = now;
        assert!(self.clock.ceil() == now, "a boundary comes when it was announced");
        while let Some(departed) = self.leave_finished() {
            self.release(departed, ear);
        }
        self.finish_prefills(now, ear);
        if !self.cancels.is_empty() {
            self.leave_cancelled(now, ear);
        }
    }

    /// Brings the counters up to the last boundary that is not later than `now`. Changes nothing
    /// that the engine will do.
    pub fn settle(&mut self, now: Time, ear: &mut impl Listener) {
        if self.segment.is_some() {
            self.catch_up(now, ear);
            self.divide_shared();
        }
    }

    /// The same without dividing the time of the steps, whose remainders show how often it is done.
    fn catch_up(&mut self, now: Time, ear: &mut impl Listener) {
        let Some(mut segment) = self.segment.take() else { return };
        let elapsed = self.clock.ticks_until(now) + 1;
        // The greatest number of whole steps within `elapsed`, one less than it takes to pass it.
        let passing = segment.series.steps_to_reach(elapsed, segment.steps);
        let steps = passing - u64::from(segment.series.sum(passing) >= elapsed);
        if segment.steps > 1 && steps > 0 {
            let steps = steps.min(segment.steps - 1);
            let span = segment.series.sum(steps);
            self.take_steps(&Segment { steps, span, ..segment }, ear);
            let upcoming = self.batch.growth(0, 1);
            self.blocks_free -= u32::try_from(upcoming).expect("growth was checked to fit");
            segment.series.first = segment.series.step(steps);
            segment.held += steps * u64::from(self.batch.len());
            segment.steps -= steps;
            segment.span -= span;
        }
        self.segment = Some(segment);
    }

    /// How long a request takes from its arrival to its last token if the engine does nothing else.
    #[inline(never)]
    pub fn alone(&self, prompt_tokens: u32, output_tokens: u32) -> Span {
        let chunk_max = match self.model.chunked_prefill {
            true => self.model.step_tokens_max,
            false => prompt_tokens,
        };
        let alone = |output_tokens| self.cost.alone((prompt_tokens, output_tokens), chunk_max);
        let all = alone(output_tokens);
        match &self.noise {
            None => all,
            Some(noise) => {
                let [decoding, prompt] = noise.means();
                let first = alone(1);
                let later = all.secs_f64() - first.secs_f64();
                Span::from_secs_f64(first.secs_f64() * prompt + later * decoding)
            }
        }
    }

    /// Counters and gauges as of the last `settle` or boundary.
    pub fn sample(&self) -> BackendSample {
        BackendSample {
            running: self.running(),
            waiting: u32::try_from(self.waiting.len() + self.received.len()).unwrap_or(u32::MAX),
            kv_blocks_used: self.model.kv_blocks - self.blocks_free,
            kv_blocks: self.model.kv_blocks,
            seats: self.model.seats,
            ..self.meter.sample()
        }
    }

    /// Engine time used by a class, in ticks, as of the last `settle` or boundary.
    pub fn class_busy(&self, class: ClassId) -> u128 {
        self.meter.class_busy(class)
    }

    /// Keys and classes of the requests in the engine's own queue, in no stated order.
    pub fn waiting(&self) -> impl Iterator<Item = &Sequence> {
        self.waiting.iter().chain(self.received.iter())
    }

    /// Adds the number of sequences in the batch to a table indexed by class.
    pub fn count_running(&self, by_class: &mut [u32]) {
        for (total, count) in by_class.iter_mut().zip(self.batch.by_class()) {
            *total += count;
        }
        for prefill in &self.prefills {
            by_class[prefill.sequence.class.index()] += 1;
        }
    }

    fn running(&self) -> u32 {
        self.batch.len() + self.prefills.len() as u32
    }

    /// What a request meets that is let go to it now.
    pub fn meets(&self, now: Time) -> Meets {
        match self.segment {
            Some(_) => Meets::Step,
            None if self.running() > 0 || self.waiting().next().is_some() => Meets::Boundary,
            None => Meets::Rest(now.saturating_since(self.rests)),
        }
    }

    fn divide_shared(&mut self) {
        self.meter.divide_shared(self.batch.len(), self.batch.by_class());
    }

    fn release(&mut self, departed: Departed, ear: &mut impl Listener) {
        self.blocks_free += self.blocks_for(departed.context);
        let gap_max = Ticks(departed.gap_max).span_floor();
        ear.hear(Note::Finished { key: departed.key, gap_max });
    }

    /// Blocks that a context occupies.
    fn blocks_for(&self, tokens: u32) -> u32 {
        (tokens + self.model.block_tokens - 1) >> self.block_shift
    }

    fn leave_finished(&mut self) -> Option<Departed> {
        if self.batch.steps_to_finish() > 0 {
            return None;
        }
        self.divide_shared();
        self.batch.take_finished()
    }
}
