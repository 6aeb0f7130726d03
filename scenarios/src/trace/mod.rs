//! Traces: streamed from a file, plain or compressed, into requests.

mod azure;
mod lines;
mod mooncake;
mod open;
mod reader;
mod rows;
mod timestamp;

use std::path::PathBuf;

use plimsoll_base::{ClassId, SourceId, Span, TenantId, Time};

pub use reader::{TraceCounts, TraceSource, TraceTotals};
pub use rows::{TraceRow, TraceRows};

/// What to replay, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The file.
    pub path: PathBuf,
    /// The workload that replays it.
    pub source: SourceId,
    /// What the file is; `None` detects it from its beginning.
    pub format: Option<Format>,
    /// 2.0 halves the gaps.
    pub rate_scale: f64,
    /// Rows earlier than this after the first are left out.
    pub from: Span,
    /// Rows at or after this after the first are left out.
    pub until: Option<Span>,
    /// Rows replayed at most.
    pub rows_max: Option<u64>,
    /// Leave out rows without prompt or output tokens; else they are errors.
    pub drop_zero: bool,
    /// Leave out rows that no pool can hold; else they are errors.
    pub drop_too_large: bool,
    /// Who pays and which class, row by row; the first match wins.
    pub assign: Vec<Assign>,
    /// Who pays where no rule says so: tenants with weights.
    pub tenants: Vec<(TenantId, u32)>,
    /// The class that requests claim where no rule says so.
    pub claims: Option<ClassId>,
    /// Output tokens the client allows; `None` is the row's own output rounded up to a power of
    /// two.
    pub output_cap: Option<u32>,
    /// The first replayed row arrives here.
    pub start: Time,
    /// No arrival at or after this.
    pub stop: Option<Time>,
    /// The longest request that some pool holds.
    pub limit: Limit,
}

/// What a trace file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Azure LLM inference trace, 2023 or 2024: CSV with TIMESTAMP, ContextTokens and
    /// GeneratedTokens.
    AzureCsv,
    /// Mooncake JSON lines: timestamp in milliseconds, input_length, output_length.
    MooncakeJsonl,
}

/// Tokens of a block of Mooncake's `hash_ids`: see the trace's own README.
const MOONCAKE_BLOCK: u32 = 512;

impl Format {
    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Format::AzureCsv => "Azure CSV",
            Format::MooncakeJsonl => "Mooncake JSON lines",
        }
    }
    /// Tokens of a block of prompt whose hash it states; `None` if it states none.
    pub const fn block_tokens(self) -> Option<u32> {
        match self {
            Format::AzureCsv => None,
            Format::MooncakeJsonl => Some(MOONCAKE_BLOCK),
        }
    }
}

/// Who pays for a row and which class it claims.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assign {
    /// Only prompts of at least this many tokens.
    pub prompt_tokens_min: Option<u32>,
    /// Only prompts of at most this many tokens.
    pub prompt_tokens_max: Option<u32>,
    /// Only this random fraction of the rows that get here and match the rest.
    pub share: Option<f64>,
    /// Who pays; `None` is the workload's tenant.
    pub tenant: Option<TenantId>,
    /// The class it claims; `None` is the workload's class.
    pub class: Option<ClassId>,
}

impl Assign {
    /// Whether it matches every row.
    pub fn is_catch_all(&self) -> bool {
        self.prompt_tokens_min.is_none_or(|min| min <= 1)
            && self.prompt_tokens_max.is_none()
            && self.share.is_none()
    }
}

/// The longest request that some pool holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Longest context in tokens.
    pub context_max: u32,
    /// KV memory in tokens.
    pub kv_tokens: u64,
}

impl Limit {
    /// Prompt and output tokens together.
    pub fn tokens(self) -> u64 {
        self.kv_tokens.min(u64::from(self.context_max))
    }
    /// The limit in words: "the KV memory of the largest pool holds 4096".
    pub fn describe(self) -> String {
        if self.kv_tokens <= u64::from(self.context_max) {
            format!("the KV memory of the largest pool holds {}", self.kv_tokens)
        } else {
            format!("the longest context of any pool is {}", self.context_max)
        }
    }
}
