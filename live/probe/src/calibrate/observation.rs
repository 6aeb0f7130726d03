//! A measured time, as a sum over steps whose shapes are known.

use plimsoll_sim::engine::BatchShape;

/// What a step-time model may be linear in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Steps.
    Steps,
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
    /// Requests that came in: what a request costs beside steps.
    Requests,
}

impl Feature {
    /// How many there are.
    pub const COUNT: usize = 9;
}

/// A time that was measured, and what was computed in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observation {
    /// Which cell of the plan it is of.
    pub cell: usize,
    /// Sums over the steps in it, indexed by [`Feature`].
    pub sums: [f64; Feature::COUNT],
    /// How long it took, in ns.
    pub nanos: f64,
}

impl Observation {
    /// Nothing yet, of a cell.
    pub fn of(cell: usize) -> Observation {
        Observation { cell, ..Observation::default() }
    }

    /// Adds a step.
    pub fn add(&mut self, shape: BatchShape) {
        let [prefill, sequences, context, pairs] =
            [shape.prefill, shape.sequences, shape.context, shape.pairs].map(|count| count as f64);
        for (feature, value) in [
            (Feature::Steps, 1.0),
            (Feature::Prefill, prefill),
            (Feature::PrefillSquare, prefill * prefill),
            (Feature::Sequences, sequences),
            (Feature::SequencesSquare, sequences * sequences),
            (Feature::Context, context),
            (Feature::ContextSquare, context * context),
            (Feature::Pairs, pairs),
        ] {
            self.sums[feature as usize] += value;
        }
    }

    /// Adds the steps of a prompt that is computed in chunks, alone or beside sequences that
    /// decode with so much context when it begins.
    pub fn add_prompt(&mut self, tokens: u64, chunk_max: u64, decoding: (u64, u64)) {
        let (sequences, mut context) = decoding;
        let mut computed = 0;
        while computed < tokens {
            let prefill = chunk_max.max(1).min(tokens - computed);
            let pairs = prefill * computed + prefill * (prefill + 1) / 2;
            self.add(BatchShape { prefill, pairs, sequences, context });
            computed += prefill;
            context += sequences;
        }
    }
}
