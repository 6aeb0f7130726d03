//! An engine whose steps really happen: the scheduler decides what each computes, somebody
//! computes it, and it takes as long as that took.

use plimsoll_base::{Span, Time};

use super::batch::{Batch, Sequence};
use super::{BatchShape, Engine};

/// What a step computes of one sequence: `tokens` tokens behind `sequence.context` computed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// As it is before the step.
    pub sequence: Sequence,
    /// Tokens of its prompt, or one that it has delivered.
    pub tokens: u32,
    /// Whether it decodes: it delivers a token when the step is over.
    pub decodes: bool,
}

/// What a request meets that is let go to an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meets {
    /// An engine with nothing to do, for so long.
    Rest(Span),
    /// A step that runs.
    Step,
    /// An engine between two steps: somebody has just left a seat, and others are computed on.
    Boundary,
}

/// Says how long steps take, in place of the step-time model: what a real device took, for example.
pub trait StepTimes: Send {
    /// How long a step of a backend takes that begins at `start` and computes `shape`; `None` for
    /// what the model says.
    fn span(&mut self, backend: u32, start: Time, shape: BatchShape) -> Option<Span>;

    /// How long a request is on its way to the engine that meets this: the client sends it, the server
    /// reads it. A seat that became free is taken that much later.
    fn way(&mut self, meets: Meets) -> Span {
        let _ = meets;
        Span::ZERO
    }
}

impl<B: Batch> Engine<B> {
    /// What the step that runs computes: prompt chunks, then the sequences that decode; nothing
    /// between steps. For a batch that takes one step at a time.
    pub fn computing(&self) -> Vec<Part> {
        if self.segment.is_none() {
            return Vec::new();
        }
        let chunks = self.prefills.iter().map(|prefill| Part {
            sequence: prefill.sequence,
            tokens: prefill.chunk,
            decodes: false,
        });
        let decoding =
            self.batch.sequences().map(|&sequence| Part { sequence, tokens: 1, decodes: true });
        chunks.chain(decoding).collect()
    }

    /// The shape of the step that runs. For a batch that takes one step at a time.
    pub fn shape(&self) -> BatchShape {
        let (behind, idle) = (self.behind, self.idle);
        BatchShape { behind, idle, ..shape_of(&self.computing()) }
    }

    /// The step that runs took so long, whatever the step-time model says: at least a nanosecond.
    /// Returns when it was over, which is when [`complete`](Engine::complete) is due. For a batch
    /// that takes one step at a time.
    pub fn took(&mut self, span: Span) -> Option<Time> {
        assert!(B::STEPS_MAX == 1, "a step that is measured is one step");
        let clock = self.clock;
        let segment = self.segment.as_mut()?;
        let ticks = span.max(Span::from_nanos(1)).ticks().expect("a step takes less than a day").0;
        // By the model's proportions: nobody has measured its parts.
        segment.retime(ticks);
        Some(segment.end(clock))
    }
}

/// The shape of a step, part by part; what was behind it the parts do not say.
fn shape_of(parts: &[Part]) -> BatchShape {
    let mut shape = BatchShape::default();
    for Part { sequence, tokens, decodes } in parts {
        let (tokens, computed) = (u64::from(*tokens), u64::from(sequence.context));
        if *decodes {
            shape.sequences += 1;
            shape.context += computed;
        } else {
            shape.prefill += tokens;
            shape.pairs += tokens * computed + tokens * (tokens + 1) / 2;
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use plimsoll_base::ClassId;

    use super::super::{Explicit, Job, Note};
    use super::*;
    use crate::model::{Admission, Affine, EngineModel, StepCostSpec};

    #[test]
    fn steps_take_as_long_as_they_took() {
        let step_cost =
            StepCostSpec::affine(Affine { base: 1e6, prefill: 1e3, ..Affine::default() });
        let model = EngineModel {
            seats: 4,
            step_tokens_max: 8,
            kv_blocks: 64,
            block_tokens: 4,
            context_max: 64,
            chunked_prefill: true,
            admission: Admission::Fcfs,
            step_cost,
            step_noise: None,
        };
        let mut engine: Engine<Explicit> = Engine::new(&model, 1);
        let mut notes: Vec<Note> = Vec::new();
        let job = |key, prompt_tokens| Job {
            key,
            class: ClassId(0),
            priority: 0,
            prompt_tokens,
            output_tokens: 3,
        };
        engine.submit(job(1, 4));
        engine.submit(job(2, 7));
        let mut now = Time::ZERO;
        let mut shapes = Vec::new();
        // Two prompts share a budget of eight, then decode; steps take 7, 8, 9, ... us.
        for micros in 7.. {
            if engine.begin(now, &mut notes).is_none() {
                break;
            }
            let shape = shape_of(&engine.computing());
            shapes.push((shape.prefill, shape.pairs, shape.sequences, shape.context));
            assert_eq!(engine.meets(now), Meets::Step);
            let due = engine.took(Span::from_nanos(micros * 1_000)).expect("a step runs");
            assert_eq!(due, now + Span::from_nanos(micros * 1_000));
            engine.complete(due, &mut notes);
            now = due;
            // Where one that ends leaves its seat to another, others are computed on.
            let is_last = shapes.len() == 4;
            let wanted = if is_last { Meets::Rest(Span::ZERO) } else { Meets::Boundary };
            assert_eq!(engine.meets(now), wanted);
        }
        let millis = Span::from_millis(3);
        assert_eq!(engine.meets(now + millis), Meets::Rest(millis));
        let wanted = [(8, 10 + 10, 0, 0), (3, 12 + 6, 1, 4), (0, 0, 2, 5 + 7), (0, 0, 1, 8)];
        assert_eq!(shapes, wanted);
        assert_eq!(now, Time::from_nanos((7 + 8 + 9 + 10) * 1_000));
        let ends = notes.iter().filter(|note| matches!(note, Note::Finished { .. }));
        assert_eq!(ends.count(), 2);
        assert!(engine.computing().is_empty());
    }
}
