//! The policy part of a file, as written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

pub use crate::admit::{AdmitSpec, PredictSpec};
pub use crate::feedback::FeedbackSpec;
use crate::partition::PartitionSpec;
pub use crate::place::PlaceSpec;
use crate::{At, FractionValue, Items, OneOrMany, RateValue, SpanValue};

/// `[[class]]`: what latency is owed, and how much may wait.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassSpec {
    /// Letters, digits, `-`, `_`.
    pub name: At<String>,
    /// Importance: higher is more important. Default 0.
    #[serde(default)]
    pub priority: i32,
    /// Share in proportion to the other classes', at least 1. Default 1.
    pub weight: Option<At<u32>>,
    /// An older head of the queue is due: the guard serves it.
    pub wait_max: Option<At<SpanValue>>,
    /// A request that waited this long leaves the queue and counts as expired.
    pub time_to_live: Option<At<SpanValue>>,
    /// Requests of the class that may wait at once; more is refused.
    pub queue_max: Option<u32>,
    /// Requests of the class outstanding at backends at once.
    pub requests_max: Option<At<u32>>,
    /// Estimated tokens of the class outstanding at backends at once.
    pub tokens_max: Option<At<u64>>,
    /// Head start under `order = "aging"`. Default "0s".
    pub boost: Option<SpanValue>,
    /// The longest a request may take to its first token; used by `order = "edf"`. Default: the
    /// `ttft` limit of `slo` at the highest percentile.
    pub deadline: Option<At<SpanValue>>,
    /// Whether it may be shed first. Default false.
    #[serde(default)]
    pub sheddable: bool,
    /// The sites its requests may go to. Default: all.
    pub sites: Option<At<Items<At<String>>>>,
    /// What a request of the class is stated to need.
    pub intensity: Option<IntensitySpec>,
    /// Objectives: `ttft_p99 = "500ms"`, `tpot_p99 = "40ms"`, `attainment = 0.99`.
    #[serde(default)]
    pub slo: SloSpec,
}

/// What a request of a class is stated to need.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntensitySpec {
    /// Prompt tokens.
    pub prompt_tokens: Option<u32>,
    /// Output tokens; the prediction under `predict = "class-intensity"`.
    pub output_tokens: Option<At<u32>>,
}

/// Objectives as written: `METRIC_pNN = "limit"` and `attainment = fraction`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct SloSpec(pub BTreeMap<String, At<Scalar>>);

impl JsonSchema for SloSpec {
    fn schema_name() -> Cow<'static, str> {
        "SloSpec".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let span = generator.subschema_for::<SpanValue>();
        let fraction = generator.subschema_for::<FractionValue>();
        json_schema!({
            "type": "object",
            "description": "Objectives: ttft_p99 = \"500ms\", tpot_p99, e2e_p95, queue_p99, attainment = 0.99.",
            "properties": { "attainment": fraction },
            "patternProperties": { "^(ttft|tpot|e2e|queue)_p(50|75|90|95|99|999)$": span },
            "additionalProperties": false
        })
    }
}

/// A plain value of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// A string.
    Text(String),
    /// A number.
    Number(f64),
    /// Anything else.
    Other,
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        struct Plain;
        impl<'de> Visitor<'de> for Plain {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.into()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Number(number as f64))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar::Number(number))
            }
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<Scalar, A::Error> {
                Ok(Scalar::Other)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, _: A) -> Result<Scalar, A::Error> {
                Ok(Scalar::Other)
            }
        }
        deserializer.deserialize_any(Plain)
    }
}

/// `[policy]`: one rule list a stage.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// The models that requests may ask for. Absent: one model.
    pub models: Option<Items<At<String>>>,
    /// The stages of workflows that requests may belong to.
    pub stages: Option<Items<At<String>>>,
    /// Tried in order; the first that matches names the class. Absent: the claimed class.
    pub classify: Option<At<Items<At<ClassifySpec>>>>,
    /// Asked in order whether a request may come in. Absent: nothing but the bounds of the queues.
    pub admit: Option<At<Items<At<AdmitSpec>>>>,
    /// Whose turn it is. Default "fcfs".
    pub share: Option<ShareSpec>,
    /// Who goes first within a turn. Default "fcfs".
    pub order: Option<At<OrderSpec>>,
    /// Names of the sites where backends stand; at most 32.
    #[serde(default)]
    pub sites: Items<At<String>>,
    /// What each class may hold, and how many heavy requests may be outstanding; all must agree.
    #[serde(default)]
    pub partition: Items<At<PartitionSpec>>,
    /// Which backend: a rule, or a list of preferences and a last rule. Default "least-tokens".
    pub place: Option<OneOrMany<At<PlaceSpec>>>,
    /// How much may be outstanding at a backend. Default "seats".
    pub window: Option<WindowSpec>,
    /// How many requests that fit may go past one that is next and does not fit. Default 0.
    #[serde(default)]
    pub bypass_max: u32,
    /// What adapts to what happens; at most one rule of each kind.
    pub feedback: Option<At<Items<At<FeedbackSpec>>>>,
    /// The liveness guard; absent leaves waiting without a bound.
    pub guard: Option<GuardSpec>,
    /// How output length is predicted. Default "class-intensity".
    pub predict: Option<PredictSpec>,
    /// Requests the allocator holds at most, queued and dispatched. Default 100000.
    pub requests_max: Option<At<u32>>,
    /// Accounts of tenants or workflows that the share keeps at most; idle ones make room, and if
    /// none is idle a newcomer is refused. Default 65536.
    pub accounts_max: Option<At<u32>>,
}

/// A classification rule.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "rule", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "ClassifySpec", tag = "rule")]
#[expect(clippy::large_enum_variant, reason = "a file holds a handful, read once")]
pub enum ClassifySpec {
    /// Matches if every stated condition holds.
    Match {
        /// Only this tenant.
        tenant: Option<At<String>>,
        /// Only this workload.
        workload: Option<At<String>>,
        /// Only if the request claims this class.
        claims: Option<At<String>>,
        /// Only this model, one of the policy's `models`.
        model: Option<At<String>>,
        /// Only this stage of a workflow, one of the policy's `stages`.
        stage: Option<At<String>>,
        /// Only as a part of a workflow (true), or only alone (false).
        in_workflow: Option<bool>,
        /// Only with this header: `{ name = "x-team", value = "search" }`.
        header: Option<HeaderSpec>,
        /// Only with the API key of this name.
        key: Option<At<String>>,
        /// Only if it asks for this service tier.
        service_tier: Option<String>,
        /// Only if at least this many tokens of its prompt are cached nowhere.
        uncached_tokens_min: Option<u32>,
        /// Only if at most this many tokens of its prompt are cached nowhere.
        uncached_tokens_max: Option<u32>,
        /// Only prompts of at least this many tokens.
        prompt_tokens_min: Option<u32>,
        /// Only prompts of at most this many tokens.
        prompt_tokens_max: Option<u32>,
        /// What a match becomes; absent: the class it claims.
        class: Option<At<String>>,
    },
    /// By the prompt tokens that are cached nowhere: a request below the first edge gets the first
    /// class, and so on; one at or above the last edge gets the last class.
    CostBucket {
        /// Edges in tokens, rising.
        edges_tokens: At<Vec<u32>>,
        /// One class more than edges.
        classes: At<Vec<At<String>>>,
    },
}

/// A header and its value; the name in any case.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderSpec {
    /// Its name.
    pub name: String,
    /// Its value, exactly.
    pub value: String,
}

/// Whose turn it is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "rule", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "ShareSpec", tag = "rule", transform = or_bare_rule)]
pub enum ShareSpec {
    /// One queue for all.
    Fcfs,
    /// The highest priority with work; lower ones may wait for ever.
    Priority,
    /// Deficit round robin on token cost.
    DeficitRoundRobin {
        /// Who owns a queue. Default "class".
        per: Option<PerSpec>,
        /// Cost units a round and weight. Default 4096.
        quantum: Option<At<u64>>,
        /// Token prices. Default { prompt = 1, output = 2 }.
        cost: Option<CostSpec>,
    },
    /// Virtual token counter.
    VirtualTokenCounter {
        /// Who owns a queue. Default "class".
        per: Option<PerSpec>,
        /// Token prices. Default { prompt = 1, output = 2 }.
        cost: Option<CostSpec>,
    },
    /// Start-time fair queueing on token cost.
    StartTimeFair {
        /// Who owns a queue. Default "class".
        per: Option<PerSpec>,
        /// Token prices. Default { prompt = 1, output = 2 }.
        cost: Option<CostSpec>,
    },
    /// Stride scheduling: fair in requests, whatever their tokens.
    Stride {
        /// Who owns a queue. Default "class".
        per: Option<PerSpec>,
    },
    /// Fair in the time of the resource that a request needs most of.
    DominantResource {
        /// Who owns a queue. Default "class".
        per: Option<PerSpec>,
        /// Prompt tokens that all backends together compute, for example "20000/s".
        prefill: At<RateValue>,
        /// Output tokens that all backends together deliver, for example "4000/s".
        decode: At<RateValue>,
        /// KV memory of all backends together, in tokens.
        kv_tokens: At<u64>,
        /// The time an output token of one request takes, for example "40ms".
        output_token: At<SpanValue>,
    },
    /// Deficits, and among those with credit the longest cached prefix first. Only tokens that
    /// are not cached are charged.
    DeficitLongestPrefix {
        /// Who owns a queue. Default "class".
        per: Option<PerSpec>,
        /// Cost units a round and weight. Default 4096.
        quantum: Option<At<u64>>,
        /// Token prices. Default { prompt = 1, output = 2 }.
        cost: Option<CostSpec>,
    },
}

/// Who owns a queue.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename = "per", rename_all = "kebab-case")]
#[schemars(rename = "PerSpec")]
pub enum PerSpec {
    /// One a class.
    Class,
    /// One a tenant.
    Tenant,
    /// One a workflow; a request that is part of none belongs to its tenant's.
    Workflow,
}

/// Token prices in cost units.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CostSpec {
    /// A prompt token.
    pub prompt: u32,
    /// An output token.
    pub output: u32,
}

/// Who goes first within a turn.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename = "rule", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "OrderSpec", tag = "rule", transform = or_bare_rule)]
pub enum OrderSpec {
    /// By arrival.
    Fcfs,
    /// By arrival minus the class's boost.
    Aging,
    /// Earliest deadline first; what has missed its own goes after what can still make it, and
    /// classes without one go last.
    Edf,
    /// The fewest predicted tokens (prompt + output) first.
    ShortestPredicted {
        /// How much waiting a token is worth: "2ms". Absent: long requests may wait for ever.
        aging: Option<At<SpanValue>>,
    },
    /// The workflow that was given least first.
    LeastAttained {
        /// Token prices. Default { prompt = 1, output = 2 }.
        cost: Option<CostSpec>,
        /// Accounts of workflows at most. Default 65536.
        workflows_max: Option<At<u32>>,
    },
    /// The longest cached prompt first.
    LongestPrefix {
        /// How much waiting a cached token is worth: "1ms". Required: without a bound, prompts
        /// that are cached nowhere starve.
        token: Option<At<SpanValue>>,
    },
}

/// How much may be outstanding at a backend.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename = "window", rename_all = "kebab-case")]
#[schemars(rename = "WindowSpec")]
pub enum WindowSpec {
    /// Requests up to its seats, estimated tokens up to its KV memory.
    Seats,
    /// No bound: the engine queues.
    None,
}

/// The liveness guard.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardSpec {
    /// The fraction of dispatches that due heads own.
    pub due_share: At<FractionValue>,
}

/// Allows the bare name of a rule in place of its table.
pub(crate) fn or_bare_rule(schema: &mut Schema) {
    let full = schema.clone().to_value();
    let names: Vec<_> = full
        .get("oneOf")
        .and_then(|variants| variants.as_array())
        .into_iter()
        .flatten()
        .filter_map(|variant| variant.pointer("/properties/rule/const").cloned())
        .collect();
    *schema = json_schema!({ "anyOf": [{ "enum": names }, full] });
}
