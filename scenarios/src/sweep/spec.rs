//! `[sweep]`, as written.

use std::collections::BTreeMap;

use plimsoll_config::At;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// Dotted paths and what they are to hold. Paths may be written as tables within tables:
/// `pool.gpu.replicas = [1, 2]` and `"pool.gpu.replicas" = [1, 2]` say the same.
pub type Varied = BTreeMap<String, Value>;

/// `[sweep]`: what `plimsoll sweep` varies. The cells are the combinations of whatever stands in
/// `grid`, `zip`, `list` and `random`; what stands further down here changes fastest.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepSpec {
    /// How often each cell runs. Default 1; `--replications` says otherwise.
    pub replications: Option<At<u32>>,
    /// A list of values a path: every combination.
    pub grid: Option<Varied>,
    /// A list of values a path, all equally long: they advance together.
    pub zip: Option<Varied>,
    /// Cells one by one, each with the values that it sets.
    pub list: Option<Vec<Varied>>,
    /// Cells drawn at random.
    pub random: Option<RandomSpec>,
}

/// `[sweep.random]`: cells drawn at random.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomSpec {
    /// How many.
    pub draws: At<u32>,
    /// Seed of the draw; the runs have their own. Default 1.
    pub seed: Option<u64>,
    /// A path, and a list to choose from or a range `{ min = 1, max = 8, scale = "log" }`.
    pub vary: Varied,
}

/// A range to draw from.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RangeSpec {
    /// The least: a whole number, a number, or a quantity such as "1/s".
    pub min: At<Value>,
    /// The greatest, of the same kind and with the same unit.
    pub max: At<Value>,
    /// Default "linear".
    pub scale: Option<ScaleSpec>,
}

/// How a range is drawn from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "scale", rename_all = "kebab-case")]
#[schemars(rename = "ScaleSpec")]
pub enum ScaleSpec {
    /// Every value equally often.
    #[default]
    Linear,
    /// Every ratio equally often.
    Log,
}
