//! A measured time, as a sum over steps whose shapes are known.

use plimsoll_base::Time;
use plimsoll_sim::engine::BatchShape;

use crate::device::Step;

/// What a step-time model may be linear in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Steps.
    Steps,
    /// Steps that compute prompt tokens.
    PrefillSteps,
    /// Those that decode too.
    MixedSteps,
    /// Prompt tokens.
    Prefill,
    /// Their squares, step by step.
    PrefillSquare,
    /// Decoding sequences.
    Sequences,
    /// Their squares, step by step.
    SequencesSquare,
    /// Tokens of context.
    Context,
    /// Their squares, step by step.
    ContextSquare,
    /// (query, key) pairs of prompt attention.
    Pairs,
    /// What is left of prompts in the steps behind them.
    AfterPrefill,
    /// Of long ones, and of those behind rests.
    AfterLongPrefill,
    /// Of rests in the steps behind them.
    AfterIdle,
    /// Of long rests.
    AfterLongIdle,
    /// Requests that came in: what a request costs beside steps.
    Requests,
}

/// Points of a curve of prompt tokens: close where prompts are short, since kernels compute tokens by
/// tiles; beyond 512 there are few measurements, each of which would have a point to itself.
pub(super) const PREFILL_KNOTS: [u32; 10] = [16, 32, 48, 64, 80, 96, 128, 256, 512, 2_048];
/// Points of a curve of decoding sequences: those of which there are few, each.
pub(super) const SEQUENCE_KNOTS: [u32; 11] = [1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128];

impl Feature {
    /// How many there are, without the knots.
    pub const NAMED: usize = 15;
    /// How many there are, with the knots behind those that have names.
    pub const COUNT: usize = Feature::NAMED + PREFILL_KNOTS.len() + SEQUENCE_KNOTS.len();
}

/// Places of the knots of each curve among the features.
pub(super) const KNOTS: [std::ops::Range<usize>; 2] = [
    Feature::NAMED..Feature::NAMED + PREFILL_KNOTS.len(),
    Feature::NAMED + PREFILL_KNOTS.len()..Feature::COUNT,
];

/// What a curve through knots is made of at so many: which knots, and how much of each.
fn between_knots(knots: &[u32], tokens: f64) -> [(usize, f64); 2] {
    let above = knots.partition_point(|knot| f64::from(*knot) < tokens).min(knots.len() - 1);
    let to = f64::from(knots[above]);
    match above.checked_sub(1) {
        None => [(0, tokens / to), (0, 0.0)],
        Some(below) => {
            let from = f64::from(knots[below]);
            let part = (tokens - from) / (to - from);
            [(below, 1.0 - part), (above, part)]
        }
    }
}

/// A time that was measured, and what was computed in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// Which cell of the plan it is of, or which size of traffic.
    pub cell: usize,
    /// Whether it is a step of traffic, which comes as often as it comes, and not of a cell that was
    /// laid out.
    pub traffic: bool,
    /// Sums over the steps in it, indexed by [`Feature`], and of the knots.
    pub sums: [f64; Feature::COUNT],
    /// How long it took, in ns.
    pub nanos: f64,
}

/// From one instant to another, in ns.
pub(super) fn nanos(from: Time, to: Time) -> f64 {
    to.saturating_since(from).nanos() as f64
}

/// Which steps of traffic are of about the same size: those that decode by half octaves of their
/// sequences, those that compute prompts by octaves of prompt tokens.
fn size_class(shape: BatchShape) -> usize {
    match shape.prefill {
        0 => (2.0 * (shape.sequences.max(1) as f64).log2()) as usize,
        prefill => 48 + prefill.ilog2() as usize,
    }
}

impl Observation {
    /// A step of traffic; cells of its sizes are those from `cells` on. `None` as of
    /// [`of_step`](Observation::of_step).
    pub fn of_traffic(cells: usize, step: &Step) -> Option<Observation> {
        let one = Observation::of_step(cells + size_class(step.shape), step)?;
        Some(Observation { traffic: true, ..one })
    }

    /// A step; `None` where it takes no time or the engine does not know what it computed.
    pub fn of_step(cell: usize, step: &Step) -> Option<Observation> {
        let nanos = nanos(step.start, step.end);
        let mut one = Observation { nanos, ..Observation::of(cell) };
        one.add(step.shape);
        (nanos > 0.0 && step.shape.is_known()).then_some(one)
    }

    /// Nothing yet, of a cell.
    pub fn of(cell: usize) -> Observation {
        Observation { cell, traffic: false, sums: [0.0; Feature::COUNT], nanos: 0.0 }
    }

    /// Adds a step.
    pub fn add(&mut self, shape: BatchShape) {
        let [prefill, sequences, context, pairs] =
            [shape.prefill, shape.sequences, shape.context, shape.pairs].map(|count| count as f64);
        let [after_idle, after_long_idle] = shape.after_idle();
        let [after_prefill, after_long_prefill] = shape.after_prefill();
        let one_if = |holds: bool| f64::from(u8::from(holds));
        for (feature, value) in [
            (Feature::Steps, 1.0),
            (Feature::PrefillSteps, one_if(shape.prefill > 0)),
            (Feature::MixedSteps, one_if(shape.prefill > 0 && shape.sequences > 0)),
            (Feature::Prefill, prefill),
            (Feature::PrefillSquare, prefill * prefill),
            (Feature::Sequences, sequences),
            (Feature::SequencesSquare, sequences * sequences),
            (Feature::Context, context),
            (Feature::ContextSquare, context * context),
            (Feature::Pairs, pairs),
            (Feature::AfterPrefill, after_prefill),
            (Feature::AfterLongPrefill, after_long_prefill),
            (Feature::AfterIdle, after_idle),
            (Feature::AfterLongIdle, after_long_idle),
        ] {
            self.sums[feature as usize] += value;
        }
        let [of_prefill, of_sequences] = KNOTS;
        for (knot, part) in between_knots(&PREFILL_KNOTS, prefill) {
            self.sums[of_prefill.start + knot] += part;
        }
        for (knot, part) in between_knots(&SEQUENCE_KNOTS, sequences) {
            self.sums[of_sequences.start + knot] += part;
        }
    }

    /// Adds the steps of a prompt that is computed in chunks; `first` tells what else its first step
    /// computes and what it follows.
    pub fn add_prompt(&mut self, tokens: u64, chunk_max: u64, first: BatchShape) {
        let mut computed = 0;
        let mut shape = first;
        while computed < tokens {
            shape.prefill = chunk_max.max(1).min(tokens - computed);
            shape.pairs = shape.prefill * computed + shape.prefill * (shape.prefill + 1) / 2;
            self.add(shape);
            computed += shape.prefill;
            shape.context += shape.sequences;
            (shape.behind, shape.idle) = (shape.leaves(1), 0);
        }
    }
}
