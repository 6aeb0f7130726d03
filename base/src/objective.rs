//! Objectives: what a class is promised.

use serde::{Deserialize, Serialize};

use crate::ClassId;

/// What a class is promised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassObjectives {
    /// The class.
    pub class: ClassId,
    /// Its objectives in the order of their names; empty if none are stated.
    pub objectives: Vec<Objective>,
}

/// One promise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// What is measured.
    pub metric: Metric,
    /// Which percentile of it, such as 99 or 99.9; 0 for [`Metric::Attainment`].
    pub percentile: f64,
    /// The limit: seconds, or a fraction for [`Metric::Attainment`].
    pub limit: f64,
    /// The promise as written: `ttft_p99 <= 500ms`.
    pub text: String,
}

/// What an objective measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// The share of offered requests that meet every latency objective of their class.
    Attainment,
}

impl Metric {
    /// All, in report order.
    pub const ALL: [Metric; 5] =
        [Metric::Ttft, Metric::Tpot, Metric::E2e, Metric::Queue, Metric::Attainment];

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
