//! A scenario file, as written.

use std::collections::BTreeMap;

use plimsoll_config::spec::{ClassSpec, PolicySpec};
use plimsoll_config::{
    At, BytesValue, CoefficientValue, FractionValue, Items, RateValue, SpanValue, TenantSpec,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::calibration::CalibrationSpec;
use crate::sweep::spec::SweepSpec;

/// A Plimsoll scenario: what load, on what hardware, under which policy.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The version of this format: 1.
    pub schema_version: u32,
    /// A path, or `shipped:NAME`: this file is laid over that one. Tables merge, lists are
    /// replaced, lists of named tables merge by name.
    #[serde(default)]
    pub extends: Option<String>,
    /// A short name for reports.
    pub name: At<String>,
    /// What the scenario is about.
    #[serde(default)]
    pub description: String,
    /// Seed of all random streams. Default 1.
    pub seed: Option<u64>,
    /// How long the run lasts.
    #[serde(default)]
    pub run: RunSpec,
    /// What latency is owed to whom.
    #[serde(default)]
    pub class: Items<ClassSpec>,
    /// Who pays; only needed for tenants that no workload names.
    #[serde(default)]
    pub tenant: Items<TenantSpec>,
    /// What is offered.
    #[serde(default)]
    pub workload: Items<At<WorkloadSpec>>,
    /// What serves it.
    #[serde(default)]
    pub pool: Items<At<PoolSpec>>,
    /// Who goes first.
    #[serde(default)]
    pub policy: At<PolicySpec>,
    /// What `plimsoll sweep` varies; a run reads nothing of it.
    pub sweep: Option<SweepSpec>,
    /// What hardware `plimsoll plan` may choose.
    pub plan: Option<PlanSpec>,
}

/// `[plan]`: what hardware `plimsoll plan` may choose.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanSpec {
    /// The pools whose replicas are sought, one or two. Default: all.
    #[serde(default)]
    pub pools: Items<At<String>>,
    /// Replicas of each at least. Default 1.
    pub replicas_min: Option<At<u32>>,
    /// Replicas of each at most. Default 64.
    pub replicas_max: Option<At<u32>>,
    /// What a replica can be. Default: what its pool says.
    #[serde(default)]
    pub option: Items<PlanOptionSpec>,
    /// How the devices of disaggregated pools may be divided, in place of options.
    pub split: Option<PlanSplitSpec>,
}

/// `[plan.split]`: every division of a unit's devices, one an engine, into those that compute
/// prompts and those that decode, and one device that does both.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanSplitSpec {
    /// Devices of a unit, from 2 to 16.
    pub devices: At<u32>,
    /// The device of the price table that they are.
    pub device: Option<String>,
    /// What one costs an hour, in place of the table.
    pub price: Option<At<f64>>,
}

/// `[[plan.option]]`: what a replica can be: another device, or several with their own step times.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanOptionSpec {
    /// Letters, digits, `-`, `_`.
    pub name: At<String>,
    /// The pool that it is for. Default: every one.
    pub pool: Option<At<String>>,
    /// The device of the price table that it is made of. Default: its name, if the table has it.
    pub device: Option<String>,
    /// Devices a replica takes. Default 1.
    pub devices: Option<At<u32>>,
    /// What a device costs an hour, in place of the table.
    pub price: Option<At<f64>>,
    /// What changes in the pool: `["engine.kv_memory=40GiB", "step_time.base=9ms"]`.
    #[serde(default)]
    pub set: Items<At<String>>,
}

/// `[run]`: how long the run lasts.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// Arrivals stop here. Absent: every workload runs to its end (a trace to its last row).
    pub duration: Option<At<SpanValue>>,
    /// Requests that arrive earlier are simulated and not measured. Default "0s".
    pub warm_up: Option<At<SpanValue>>,
    /// How long after the last arrival the run may go on. Default "1h".
    pub drain_max: Option<SpanValue>,
    /// How engines step; both give the same results. Default "macro".
    pub stepping: Option<SteppingSpec>,
    /// Whether the report says who held what others waited for. Default "on".
    pub attribution: Option<AttributionSpec>,
}

/// Whether waiting is attributed to whoever held what was waited for.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename = "attribution", rename_all = "kebab-case")]
#[schemars(rename = "AttributionSpec")]
pub enum AttributionSpec {
    /// Every nanosecond of waiting is split over what it falls on, and alarms are raised.
    On,
    /// Faster; the report says for what each class waited, not who held it.
    Off,
}

/// How engines step.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename = "stepping", rename_all = "kebab-case")]
#[schemars(rename = "SteppingSpec")]
pub enum SteppingSpec {
    /// Many steps at once where nothing happens in between.
    Macro,
    /// One step at a time: slow, for checking.
    Single,
}

/// `[[workload]]`: requests of one kind, generated or replayed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    /// Letters, digits, `-`, `_`.
    pub name: At<String>,
    /// Who pays. Default: the workload's name.
    pub tenant: Option<At<String>>,
    /// Who pays, drawn with these weights: `{ search = 3, support = 1 }`.
    pub tenants: Option<At<BTreeMap<String, At<u32>>>>,
    /// The class its requests claim.
    pub class: Option<At<String>>,
    /// The model they ask for, one of the policy's `models`. Default: the first.
    pub model: Option<At<String>>,
    /// What they do in their workflow, one of the policy's `stages`.
    pub stage: Option<At<String>>,
    /// Headers they carry: `{ x-team = "search" }`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The name of the API key they come with.
    pub key: Option<String>,
    /// The service tier they ask for.
    pub service_tier: Option<String>,
    /// How often they were tried before: 0 (default) are first attempts, others are retries.
    pub attempt: Option<u8>,
    /// What the requests of one user of a closed loop are together. Default "session".
    pub users_are: Option<At<UsersSpec>>,
    /// When requests arrive. Needed unless `trace` is given.
    pub arrivals: Option<At<ArrivalsSpec>>,
    /// Prompt lengths. Needed unless `trace` is given.
    pub prompt_tokens: Option<At<LengthsSpec>>,
    /// Output lengths. Needed unless `trace` is given.
    pub output_tokens: Option<At<LengthsSpec>>,
    /// Output tokens the client allows (`max_tokens`). Default: the longest output that can be
    /// drawn; for a trace the row's output rounded up to a power of two.
    pub output_cap: Option<At<u32>>,
    /// Arrivals begin here. Default "0s".
    pub start: Option<At<SpanValue>>,
    /// No arrival at or after this.
    pub stop: Option<At<SpanValue>>,
    /// A trace file to replay in place of `arrivals` and lengths.
    pub trace: Option<At<TraceSpec>>,
}

/// What the requests of one user of a closed loop are together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "users_are", rename_all = "kebab-case")]
#[schemars(rename = "UsersSpec")]
pub enum UsersSpec {
    /// A session.
    Sessions,
    /// A session and one workflow.
    Workflows,
}

/// When requests arrive.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "process", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "ArrivalsSpec", tag = "process")]
pub enum ArrivalsSpec {
    /// Independent exponential gaps.
    Poisson {
        /// Requests a time.
        rate: At<RateValue>,
    },
    /// Independent gamma gaps.
    Gamma {
        /// Requests a time.
        rate: At<RateValue>,
        /// Coefficient of variation of the gaps; 1 is Poisson, above is burstier.
        cv: At<f64>,
    },
    /// A Poisson process whose rate is constant on each piece.
    Piecewise {
        /// The pieces in order.
        pieces: Items<PieceSpec>,
        /// Whether the pieces start over after the last. Default false.
        #[serde(default)]
        repeat: bool,
    },
    /// Users that wait for their answer, think, and ask again.
    Closed {
        /// How many.
        users: At<u32>,
        /// How long they think.
        think: At<SpanValue>,
        /// How that varies. Default "exponential".
        think_distribution: Option<ThinkSpec>,
    },
}

/// A stretch of constant rate.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PieceSpec {
    /// How long.
    #[serde(rename = "for")]
    pub length: At<SpanValue>,
    /// Requests a time; "0/s" is allowed.
    pub rate: At<RateValue>,
}

/// How think time varies.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename = "think_distribution", rename_all = "kebab-case")]
#[schemars(rename = "ThinkSpec")]
pub enum ThinkSpec {
    /// Exponentially with the stated mean.
    Exponential,
    /// Not at all.
    Fixed,
}

/// A distribution of lengths in tokens.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "distribution", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "LengthsSpec", tag = "distribution")]
pub enum LengthsSpec {
    /// Always the same.
    Fixed {
        /// Tokens, at least 1.
        tokens: At<u32>,
    },
    /// Every length from `min` to `max` equally often.
    Uniform {
        /// The least, at least 1.
        min: At<u32>,
        /// The greatest.
        max: At<u32>,
    },
    /// exp(N(mu, sigma²)), clamped to 1..=max.
    Lognormal {
        /// Mean of the lengths before clamping; or give `mu`.
        mean: Option<At<f64>>,
        /// Mean of the logarithm; or give `mean`.
        mu: Option<At<f64>>,
        /// Standard deviation of the logarithm.
        sigma: At<f64>,
        /// Longer draws are clamped to it.
        max: At<u32>,
    },
    /// Linear interpolation between quantiles.
    Quantiles {
        /// `[probability, tokens]`, probabilities rising from 0 to 1, tokens not falling.
        points: At<Vec<(f64, u32)>>,
    },
}

/// A trace file to replay.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceSpec {
    /// The file, relative to this one; plain, .zst or .gz.
    pub path: At<String>,
    /// What it is. Default: detected from its beginning.
    pub format: Option<FormatSpec>,
    /// 2.0 replays twice as fast. Default 1.0.
    pub rate_scale: Option<At<f64>>,
    /// Rows earlier than this after the first row are left out.
    pub from: Option<At<SpanValue>>,
    /// Rows at or after this after the first row are left out.
    pub until: Option<At<SpanValue>>,
    /// At most this many rows are replayed.
    pub rows_max: Option<At<u64>>,
    /// Kinds of rows to leave out and count; otherwise such a row is an error.
    #[serde(default)]
    pub drop: Vec<DropSpec>,
    /// Who pays and which class, row by row; the first match wins, and without one the
    /// workload's own tenant and class.
    #[serde(default)]
    pub assign: Items<AssignSpec>,
}

/// The format of a trace file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "format", rename_all = "kebab-case")]
#[schemars(rename = "FormatSpec")]
pub enum FormatSpec {
    /// Azure LLM inference trace, 2023 or 2024.
    AzureCsv,
    /// Mooncake JSON lines.
    MooncakeJsonl,
}

/// Rows that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "drop", rename_all = "kebab-case")]
#[schemars(rename = "DropSpec")]
pub enum DropSpec {
    /// Rows without prompt or output tokens.
    ZeroTokens,
    /// Rows that no pool can hold.
    TooLarge,
}

/// Who pays for a row and which class it claims.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignSpec {
    /// Only prompts of at least this many tokens.
    pub prompt_tokens_min: Option<u32>,
    /// Only prompts of at most this many tokens.
    pub prompt_tokens_max: Option<u32>,
    /// Only this random fraction of the rows that get here and match the rest.
    pub share: Option<FractionValue>,
    /// Who pays. Default: the workload's tenant.
    pub tenant: Option<At<String>>,
    /// The class it claims. Default: the workload's class.
    pub class: Option<At<String>>,
}

/// `[[pool]]`: equal replicas.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolSpec {
    /// Letters, digits, `-`, `_`.
    pub name: At<String>,
    /// How many.
    pub replicas: At<u32>,
    /// What each is; of a disaggregated one, the engines that decode.
    pub engine: At<EngineSpec>,
    /// Whether prompts are computed by other engines than those that decode. Default: by the same.
    pub disaggregated: Option<At<DisaggregatedSpec>>,
    /// Where they stand, one of the policy's `sites`. Default: the first.
    pub site: Option<At<String>>,
    /// What they serve, of the policy's `models`. Default: all of them.
    pub models: Option<At<Items<At<String>>>>,
    /// How long a step takes.
    pub step_time: StepTimeSpec,
    /// How far steps really are from that. Default: not at all.
    pub step_noise: Option<StepNoiseSpec>,
    /// Where the step-time numbers come from, one sentence for reports.
    pub provenance: At<String>,
    /// What `plimsoll calibrate` says of them.
    pub calibration: Option<CalibrationSpec>,
}

/// `disaggregated`: each replica is a unit of engines that compute prompts and engines that decode,
/// and to whoever sends requests it is one backend.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DisaggregatedSpec {
    /// Engines of a unit that compute prompts.
    pub prefill: At<u32>,
    /// Engines of a unit that decode.
    pub decode: At<u32>,
    /// What carries KV from these to those, one transfer after the other.
    pub link: At<LinkSpec>,
    /// What those that compute prompts are. Default: as those that decode.
    pub engine: Option<At<EngineSpec>>,
    /// How long a step of theirs takes. Default: as long as of those that decode.
    pub step_time: Option<StepTimeSpec>,
    /// Whether it is so; `false` makes each replica one engine that does both. Default true.
    pub on: Option<bool>,
}

/// A link that carries KV.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkSpec {
    /// What it carries in a second, for example "50GB".
    pub bandwidth_per_s: At<BytesValue>,
    /// From the last byte sent to the last byte there. Default "0s".
    pub latency: Option<SpanValue>,
    /// KV of a token, for example "128KiB". Default: the engine's `kv_token_memory`.
    pub kv_token_memory: Option<At<BytesValue>>,
}

/// The limits of an engine.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EngineSpec {
    /// Sequences in a batch at most (vLLM `max_num_seqs`).
    pub seats: At<u32>,
    /// Tokens computed a step at most (vLLM `max_num_batched_tokens`).
    pub step_tokens_max: At<u32>,
    /// KV memory in tokens, rounded down to blocks. One of `kv_tokens`, `kv_blocks`, `kv_memory`.
    pub kv_tokens: Option<At<u64>>,
    /// KV memory in blocks.
    pub kv_blocks: Option<At<u32>>,
    /// KV memory; needs `kv_token_memory`.
    pub kv_memory: Option<At<BytesValue>>,
    /// Memory a token takes, for example "128KiB".
    pub kv_token_memory: Option<At<BytesValue>>,
    /// Tokens a block, a power of two up to 256. Default 16.
    pub block_tokens: Option<At<u32>>,
    /// The longest context (prompt + output). Default: what fits the KV memory.
    pub context_max: Option<At<u32>>,
    /// Whether a prompt may be computed over several steps. Default true.
    pub chunked_prefill: Option<bool>,
    /// Who enters the batch first. Default "fcfs".
    pub admission: Option<AdmissionSpec>,
}

/// Who enters the batch first.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename = "admission", rename_all = "kebab-case")]
#[schemars(rename = "AdmissionSpec")]
pub enum AdmissionSpec {
    /// By arrival at the engine.
    Fcfs,
    /// By priority, then by arrival at the engine.
    Priority,
}

/// How far steps are from `step_time`: each takes a multiple of it that is drawn. A pool with this is
/// simulated step by step.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepNoiseSpec {
    /// Quantiles of the multiple, ascending: of n, the i-th is at (i − ½)/n.
    pub ratios: At<Items<f64>>,
    /// The same for steps that compute prompt tokens. Default: `ratios`.
    pub prefill_ratios: Option<At<Items<f64>>>,
    /// The part of the variance that lasts from step to step, from 0 to below 1. Default 0.
    pub lasting: Option<At<f64>>,
    /// Steps until that has decayed to 1/e. Default 1.
    pub lasting_steps: Option<At<f64>>,
}

/// How long a step takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "StepTimeSpec", tag = "kind")]
pub enum StepTimeSpec {
    /// `base + prefill_token·p + sequence·n + context_token·c + attention_pair·q`, and
    /// `prefill_step` where the step computes prompt tokens, and `mixed_step` where it does so beside
    /// sequences that decode, and what is left of `after_prefill`,
    /// `after_long_prefill`, `after_idle` and `after_long_idle`; and `prefill_curve` at `p` and
    /// `sequence_curve` at `n`.
    Affine {
        /// Every step.
        base: CoefficientValue,
        /// A step that computes prompt tokens, beside the base.
        prefill_step: Option<CoefficientValue>,
        /// A step that computes prompt tokens beside sequences that decode.
        mixed_step: Option<CoefficientValue>,
        /// A prompt token.
        prefill_token: Option<CoefficientValue>,
        /// A decoding sequence.
        sequence: Option<CoefficientValue>,
        /// A token of context of a decoding sequence.
        context_token: Option<CoefficientValue>,
        /// A (query, key) pair of prompt attention.
        attention_pair: Option<CoefficientValue>,
        /// A step that follows one with prompt tokens, which emptied its caches; the next a half of
        /// it, and so on for seven steps.
        after_prefill: Option<CoefficientValue>,
        /// The same behind many prompt tokens: behind `p` of them `p/(p + 128)` of it, and no less than
        /// `t/(t + 60 ms)` of it where they came behind a rest of `t`.
        after_long_prefill: Option<CoefficientValue>,
        /// A step of an engine that has rested for `t`: `t/(t + 60 ms)` of it.
        after_idle: Option<CoefficientValue>,
        /// The same for long rests: `t/(t + 4 s)` of it.
        after_long_idle: Option<CoefficientValue>,
        /// What prompt tokens cost where no line fits them: up to 12 points of tokens and time, such
        /// as `[[16, "3ms"], [64, "9ms"]]`; straight between them, from nothing at no tokens, and
        /// beyond the last as between the two before.
        prefill_curve: Option<At<Items<(u32, CoefficientValue)>>>,
        /// The same for decoding sequences, such as `[[1, "1ms"], [8, "2ms"], [9, "4ms"]]`.
        sequence_curve: Option<At<Items<(u32, CoefficientValue)>>>,
    },
    /// Linear and quadratic terms in nanoseconds; terms may be negative.
    Polynomial {
        /// Every step, ns.
        base: f64,
        /// Linear and quadratic in prompt tokens, ns.
        prefill: Option<[f64; 2]>,
        /// Linear and quadratic in decoding sequences, ns.
        sequence: Option<[f64; 2]>,
        /// Linear and quadratic in context tokens, ns.
        context: Option<[f64; 2]>,
    },
}
