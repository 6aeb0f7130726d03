//! A scenario, valid by construction: what the simulator runs.

use plimsoll_base::{Attribution, Names, SiteId, Span};
use plimsoll_policy::Config;

use crate::workload::Workload;

/// Everything a run needs but its seed.
#[derive(Clone, Debug)]
pub struct Model {
    /// The names behind the ids.
    pub names: Names,
    /// Groups of equal replicas, indexed by `PoolId`.
    pub pools: Vec<Pool>,
    /// What is offered, indexed by `SourceId`. A workload that replays a file is handed over
    /// as a source of its own when the run starts.
    pub workloads: Vec<Workload>,
    /// The policy.
    pub policy: Config,
    /// How long, and how.
    pub plan: RunPlan,
}

/// How long a run lasts and how it steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunPlan {
    /// Arrivals stop here; `None` runs every source to its end.
    pub duration: Option<Span>,
    /// Requests that arrive earlier are simulated but not measured.
    pub warm_up: Span,
    /// How long after the last arrival the run may go on; what is then in flight is censored.
    pub drain_max: Span,
    /// How engines step.
    pub stepping: Stepping,
    /// Whether facts tell what stops whom.
    pub attribution: Attribution,
}

/// How engines step. Both give the same results to the byte; `Single` is the slow witness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stepping {
    /// Counters, and many steps at once where nothing happens in between.
    #[default]
    Macro,
    /// Explicit sequences, one step at a time.
    Single,
}

/// A group of equal replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// How many.
    pub replicas: u32,
    /// What each is.
    pub engine: EngineModel,
    /// Where they stand.
    pub site: SiteId,
    /// The models they serve, a bit an id; 0 serves all.
    pub models: u64,
    /// Where its step-time numbers come from: one sentence with source, for reports.
    pub provenance: String,
}

/// An engine instance.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineModel {
    /// Sequences in a batch at most (vLLM `max_num_seqs`).
    pub seats: u32,
    /// Tokens computed a step at most (vLLM `max_num_batched_tokens`); at least `seats`.
    pub step_tokens_max: u32,
    /// KV blocks in all.
    pub kv_blocks: u32,
    /// Tokens a block; a power of two, at most 256.
    pub block_tokens: u32,
    /// The longest context (prompt + output) it takes; fits the KV memory.
    pub context_max: u32,
    /// Whether a prompt may be computed over several steps.
    pub chunked_prefill: bool,
    /// Who enters the batch first, and who leaves it last.
    pub admission: Admission,
    /// How long a step takes.
    pub step_cost: StepCostSpec,
}

impl EngineModel {
    /// KV memory in tokens.
    pub fn kv_tokens(&self) -> u64 {
        u64::from(self.kv_blocks) * u64::from(self.block_tokens)
    }

    /// A time that no step exceeds: a full budget of prompt tokens behind the longest context,
    /// every seat decoding, and the KV memory full.
    pub fn step_max(&self) -> Span {
        let prefill = f64::from(self.step_tokens_max);
        let sequences = f64::from(self.seats);
        let context = self.kv_tokens() as f64;
        // A negative term is taken as nothing: the sum stays an upper bound.
        let most =
            |[linear, square]: [f64; 2], x: f64| linear.max(0.0) * x + square.max(0.0) * x * x;
        let nanos = match self.step_cost {
            StepCostSpec::Affine { base, prefill: token, sequence, context: kv, pair } => {
                let pairs = prefill * f64::from(self.context_max);
                base + token * prefill + sequence * sequences + kv * context + pair * pairs
            }
            StepCostSpec::Polynomial { base, prefill: p, sequence: s, context: c } => {
                base.max(0.0) + most(p, prefill) + most(s, sequences) + most(c, context)
            }
        };
        // A nanosecond more than rounding can take away.
        Span::from_secs_f64(nanos / 1e9).saturating_add(Span::from_nanos(2))
    }
}

/// Who enters the batch first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// By arrival at the engine.
    #[default]
    Fcfs,
    /// By engine priority (higher first), then by arrival at the engine.
    Priority,
}

/// How long a step takes, as written: nanoseconds in floats, quantised when the engine is built.
///
/// A step computes `prefill` prompt tokens that attend to `pairs` (query, key) pairs, and one
/// token each for `sequences` decoding sequences whose contexts sum to `context` tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepCostSpec {
    /// `base + prefill·p + sequence·n + context·c + pair·q`, all in ns.
    Affine {
        /// Every step.
        base: f64,
        /// A prompt token.
        prefill: f64,
        /// A decoding sequence.
        sequence: f64,
        /// A token of context of a decoding sequence.
        context: f64,
        /// A (query, key) pair of prompt attention.
        pair: f64,
    },
    /// `base + prefill·p + prefill2·p² + sequence·n + sequence2·n² + context·c + context2·c²`,
    /// in ns; terms may be negative, the whole is floored at 1 ns.
    Polynomial {
        /// Every step.
        base: f64,
        /// Linear and quadratic in prompt tokens.
        prefill: [f64; 2],
        /// Linear and quadratic in decoding sequences.
        sequence: [f64; 2],
        /// Linear and quadratic in context tokens of decoding sequences.
        context: [f64; 2],
    },
}
