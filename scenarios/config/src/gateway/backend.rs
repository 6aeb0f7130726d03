//! Backends: the servers that requests go to.
//!
//! | kind | `priority` | `health` | `metrics` |
//! |---|---|---|---|
//! | `vllm` | lower-first | /health | /metrics |
//! | `sglang` | higher-first | /health | /metrics |
//! | `llama-cpp` | none | /health | /metrics |
//! | `openai` | none | /v1/models | none |
//!
//! vLLM heeds priorities only under `--scheduling-policy priority`, SGLang only under
//! `--enable-priority-scheduling`, and there `--schedule-low-priority-values-first` turns them
//! around: then write `priority = "lower-first"`. SGLang and llama.cpp have metrics only under
//! `--enable-metrics` and `--metrics`.
//!
//! `seats` may be 1 to 1000000, `kv_tokens` 1 to 10¹², `context_max` 1 to `kv_tokens`,
//! `scrape_every` 10ms to 1min.

use std::collections::BTreeMap;

use plimsoll_base::{ModelId, Span};
use plimsoll_policy::BackendInfo;
use schemars::JsonSchema;
use serde::Deserialize;

use super::url::Url;
use crate::{At, Items, SpanValue};

/// `[[backend]]`: a server that requests go to.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendSpec {
    /// Letters, digits, `-`, `_`.
    pub name: At<String>,
    /// http or https, host, and if need be port and path prefix, without `/v1`.
    pub url: At<String>,
    /// What runs there.
    #[schemars(required, with = "BackendKind")]
    pub kind: Option<BackendKind>,
    /// The group it belongs to. Default "default".
    pub pool: Option<At<String>>,
    /// Where it stands, one of the policy's `sites`. Default: the first.
    pub site: Option<At<String>>,
    /// Requests it runs at once (vLLM `max_num_seqs`, llama.cpp `--parallel`).
    pub seats: At<u32>,
    /// Its KV memory in tokens.
    pub kv_tokens: At<u64>,
    /// The longest context (prompt + output) it takes. Default: `kv_tokens`.
    pub context_max: Option<At<u32>>,
    /// What it serves, of the policy's `models`. Default: all of them.
    pub models: Option<At<Items<At<String>>>>,
    /// What it calls a model: `{ llama = "meta-llama/Llama-3.1-8B" }`. Default: the same name.
    #[serde(default)]
    pub rename: BTreeMap<String, At<String>>,
    /// The environment variable with the bearer token that it wants. Default: it wants none.
    pub key_env: Option<At<String>>,
    /// What it takes a `priority` for. Default: as its kind.
    pub priority: Option<PriorityOrder>,
    /// The path that answers 200 if it is well. Default: as its kind.
    pub health: Option<At<String>>,
    /// The path of its Prometheus metrics, or "none". Default: as its kind.
    pub metrics: Option<At<String>>,
    /// How often its metrics are read. Default "1s", or more often if a rule of the policy needs
    /// that.
    pub scrape_every: Option<At<SpanValue>>,
}

/// What a backend runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "kind", rename_all = "kebab-case")]
#[schemars(rename = "BackendKind")]
pub enum BackendKind {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// llama.cpp's server.
    LlamaCpp,
    /// Anything else that speaks OpenAI's API.
    #[serde(rename = "openai")]
    OpenAi,
}

impl BackendKind {
    /// As a file says it.
    pub const fn name(self) -> &'static str {
        match self {
            BackendKind::Vllm => "vllm",
            BackendKind::Sglang => "sglang",
            BackendKind::LlamaCpp => "llama-cpp",
            BackendKind::OpenAi => "openai",
        }
    }
    pub(super) const fn priority(self) -> PriorityOrder {
        match self {
            BackendKind::Vllm => PriorityOrder::LowerFirst,
            BackendKind::Sglang => PriorityOrder::HigherFirst,
            BackendKind::LlamaCpp | BackendKind::OpenAi => PriorityOrder::None,
        }
    }
    pub(super) const fn health(self) -> &'static str {
        match self {
            BackendKind::Vllm | BackendKind::Sglang | BackendKind::LlamaCpp => "/health",
            BackendKind::OpenAi => "/v1/models",
        }
    }
    pub(super) const fn metrics(self) -> Option<&'static str> {
        match self {
            BackendKind::Vllm | BackendKind::Sglang | BackendKind::LlamaCpp => Some("/metrics"),
            BackendKind::OpenAi => None,
        }
    }
}

/// What a backend takes a `priority` for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "priority", rename_all = "kebab-case")]
#[schemars(rename = "PriorityOrder")]
pub enum PriorityOrder {
    /// Lower numbers go first.
    LowerFirst,
    /// Higher numbers go first.
    HigherFirst,
    /// It knows no priorities; none is sent.
    None,
}

/// A server that requests go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: Url,
    /// What runs there.
    pub kind: BackendKind,
    /// What the allocator is told when it joins. Every model that it serves has its bit, also
    /// where it serves all, so that nobody takes it for a backend that lends resources.
    pub info: BackendInfo,
    /// What it calls the policy's models, indexed by [`ModelId`]; as long as the policy's list.
    /// Not to be used where the file names no models
    /// ([`GatewayFile::any_model`](super::GatewayFile::any_model)).
    pub model_names: Vec<String>,
    /// The environment variable with the bearer token that it wants.
    pub key_env: Option<String>,
    /// What it takes a `priority` for.
    pub priority: PriorityOrder,
    /// The path that answers 200 if it is well; it goes behind the URL's path.
    pub health: String,
    /// The path of its metrics, if it has any; it goes behind the URL's path.
    pub metrics: Option<String>,
    /// How often its metrics are read.
    pub scrape_every: Span,
}

impl Backend {
    /// Whether it serves a model.
    pub fn serves(&self, model: ModelId) -> bool {
        self.info.models.checked_shr(model.0.into()).unwrap_or(0) & 1 == 1
    }
}
