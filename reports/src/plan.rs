//! What a report must know of a run beside its facts.

use plimsoll_base::{Attribution, Names, PoolId, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was run and what was promised. The command line builds it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The scenario's name.
    pub scenario: String,
    /// What the scenario shows, in a sentence or two.
    pub description: String,
    /// A digest of the scenario as read.
    pub scenario_hash: String,
    /// The policy in one sentence.
    pub policy: String,
    /// Whether all requests stand in one queue, whoever sends them.
    pub one_queue: bool,
    /// Whether the share rule keeps accounts of others than classes, so that no class is owed a
    /// share.
    pub owes_others: bool,
    /// What the share rule promises about the service of two classes, if it promises something.
    pub promise: Option<Promise>,
    /// The seed of every random stream.
    pub seed: u64,
    /// Requests that arrive earlier are not measured.
    pub warm_up: Span,
    /// When arrivals stop; `None` runs every source to its end.
    pub duration: Option<Span>,
    /// Whether waiting is split over what it falls on.
    pub attribution: Attribution,
    /// The names behind the ids.
    pub names: Names,
    /// What each class was promised, indexed by `ClassId`.
    pub classes: Vec<ClassPlan>,
    /// The hardware, indexed by `PoolId`.
    pub pools: Vec<PoolPlan>,
    /// The pool of each backend slot.
    pub backends: Vec<PoolId>,
    /// What was assumed where nothing was measured, a sentence each.
    pub assumptions: Vec<String>,
    /// Whether a recorded trace was replayed (its arrivals do not vary between replications).
    pub has_trace: bool,
    /// The version of the program.
    pub version: String,
}

/// How far apart a share rule lets the service of two classes with work come, in its cost units a
/// unit of weight: the quantum, the largest charges of the two (or twice the larger), and twice the
/// errors of prediction in flight.
#[derive(Clone, Debug, PartialEq)]
pub struct Promise {
    /// The rule's name.
    pub rule: String,
    /// The bound as a formula.
    pub formula: String,
    /// What a request costs.
    pub price: Price,
    /// Added whatever was served.
    pub quantum: u64,
    /// Whose requests count.
    pub errors: Errors,
    /// Why the bound does not hold under this policy; `None` where it does.
    pub void: Option<String>,
}

/// What a request costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Price {
    /// A prompt token and an output token.
    Tokens {
        /// A prompt token.
        prompt: u32,
        /// An output token.
        output: u32,
    },
    /// One, whatever its tokens.
    Request,
    /// Its time at the resource it needs most of, in nanoseconds rounded down. What each takes is
    /// given in 2⁻³² ns.
    Dominant {
        /// A prompt token at the prefill.
        prompt_token: u64,
        /// An output token at the decode.
        output_token: u64,
        /// A token held for one output token in the KV memory.
        held_token: u64,
    },
}

impl Price {
    /// Of so many tokens.
    pub fn of(self, prompt: u32, output: u64) -> f64 {
        match self {
            Price::Tokens { prompt: each, output: price } => {
                f64::from(each) * f64::from(prompt) + f64::from(price) * output as f64
            }
            Price::Request => 1.0,
            Price::Dominant { prompt_token, output_token, held_token } => {
                let prompt = u64::from(prompt);
                let held = (prompt + output).saturating_mul(output);
                let time = |tokens: u64, each: u64| u128::from(tokens) * u128::from(each);
                let prefill = time(prompt, prompt_token);
                let dominant = prefill.max(time(output, output_token)).max(time(held, held_token));
                ((dominant >> 32).min(1 << 53)) as f64
            }
        }
    }
}

/// Whose largest charges and wrong predictions a bound counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errors {
    /// The charges and the errors of the two.
    OfBoth,
    /// Twice the larger charge of the two, and the errors of all.
    OfAll,
}

/// What a class was promised.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassPlan {
    /// Higher is more important.
    pub priority: i32,
    /// Its part of the engine time where it competes; at least 1.
    pub weight: u32,
    /// The longest a request of it should wait.
    pub wait_max: Option<Span>,
    /// Whether a guard lets in what is older than `wait_max`.
    pub guarded: bool,
    /// Its objectives.
    pub objectives: Vec<Objective>,
}

/// A group of equal replicas.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolPlan {
    /// How many.
    pub replicas: u32,
    /// Seats of each.
    pub seats: u32,
    /// KV memory of each, in tokens.
    pub kv_tokens: u64,
    /// Where its step-time numbers come from.
    pub provenance: String,
}

/// A promise about a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// What is measured.
    pub metric: Metric,
    /// At which percentile, such as 99 or 99.9; of no meaning for [`Metric::Attainment`].
    pub percentile: f64,
    /// The limit: seconds, or a fraction for [`Metric::Attainment`].
    pub limit: f64,
    /// As written in the policy file.
    pub text: String,
}

/// What an objective measures.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Time to first token, queueing included.
    Ttft,
    /// Time per output token after the first.
    Tpot,
    /// End-to-end latency.
    E2e,
    /// Queue time.
    Queue,
    /// Share of offered requests that are good.
    Attainment,
}

impl Metric {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Metric::Ttft => "TTFT",
            Metric::Tpot => "TPOT",
            Metric::E2e => "E2E",
            Metric::Queue => "queue wait",
            Metric::Attainment => "attainment",
        }
    }
}

/// The limits that one request must keep to be good, in nanoseconds; `u64::MAX` where its class
/// promises nothing. Of several objectives on one metric the one at the highest percentile
/// counts: a p50 limit says nothing about a single request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub ttft: u64,
    pub tpot: u64,
    pub e2e: u64,
    pub queue: u64,
}

impl Limits {
    pub const NONE: Limits =
        Limits { ttft: u64::MAX, tpot: u64::MAX, e2e: u64::MAX, queue: u64::MAX };

    pub fn of(class: &ClassPlan) -> Limits {
        let limit = |metric| {
            class
                .objectives
                .iter()
                .filter(|objective| objective.metric == metric)
                .max_by(|a, b| a.percentile.total_cmp(&b.percentile))
                .map_or(u64::MAX, |objective| Span::from_secs_f64(objective.limit).nanos())
        };
        Limits {
            ttft: limit(Metric::Ttft),
            tpot: limit(Metric::Tpot),
            e2e: limit(Metric::E2e),
            queue: limit(Metric::Queue),
        }
    }
}

impl Plan {
    /// Replicas in all.
    pub fn replicas(&self) -> u32 {
        self.pools.iter().map(|pool| pool.replicas).sum()
    }
    /// The weight of each row of a per-class table, at least 1.
    pub(crate) fn weights(&self) -> Vec<u32> {
        self.classes.iter().map(|class| class.weight.max(1)).chain([1]).collect()
    }
    /// The rows of a per-class table: every class, and one for requests that no rule classified.
    pub(crate) fn class_rows(&self) -> usize {
        self.classes.len() + 1
    }
}
