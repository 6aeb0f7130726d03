//! `[pool.calibration]`: what a profile that was measured says of itself.

use plimsoll_config::{FractionValue, Items, SpanValue};
use plimsoll_sim::model::EngineModel;
use schemars::JsonSchema;
use serde::Deserialize;

/// What `plimsoll calibrate` measured, on what, and how well the step times fit. Nothing of it
/// changes a run, but a pool that leaves the measured range is told so in every report.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CalibrationSpec {
    /// The day, in UTC, such as "2026-11-26".
    pub date: String,
    /// What computed.
    pub engine: String,
    /// Its version, if it said so.
    pub version: Option<String>,
    /// The settings it was started with, as far as it told them.
    #[serde(default)]
    pub flags: Items<String>,
    /// The model that it served.
    pub model: String,
    /// Where it was.
    pub place: String,
    /// Where the times come from: "steps" that the engine told, "tokens" that a client saw, or a
    /// "log".
    pub method: String,
    /// Times that were fitted to.
    pub observations: u64,
    /// The mean error over cells of the plan.
    pub residual: FractionValue,
    /// The same, each cell predicted by a fit to others.
    pub held_out: FractionValue,
    /// By how much equal measurements differ.
    pub noise_floor: FractionValue,
    /// By which part the device became slower while it was measured.
    pub drift: f64,
    /// The largest steps that were measured.
    pub range: CalibrationRangeSpec,
    /// What a request costs beside steps.
    pub overhead: OverheadSpec,
    /// Limits of the engine that nobody told, and what was taken for them.
    #[serde(default)]
    pub assumed: Items<String>,
    /// The kinds of step-time model that were tried, and how each did.
    #[serde(default)]
    pub tried: Items<String>,
    /// What was measured, cell by cell.
    #[serde(default)]
    pub cells: Items<CalibrationCellSpec>,
}

/// The largest steps that were measured.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CalibrationRangeSpec {
    /// Prompt tokens of a step.
    pub prefill_tokens: u64,
    /// Decoding sequences.
    pub sequences: u64,
    /// Their tokens of context.
    pub context_tokens: u64,
}

/// Parts of requests that need no more time than `needed` says, one by one.
pub const NEEDED_AT: [f64; 5] = [0.1, 0.3, 0.5, 0.7, 0.9];

/// What a request costs beside steps, at the median.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OverheadSpec {
    /// From sending it to its first token, where it is alone.
    pub request: SpanValue,
    /// How much more that is where the engine has rested: a half of it behind 60 ms. Where the engine
    /// tells no steps, those behind rests are as much longer.
    pub after_idle: Option<SpanValue>,
    /// The same, a half of it behind 4 s.
    pub after_long_idle: Option<SpanValue>,
    /// From sending it to its first token where others are computed, if enough such were seen.
    pub busy: Option<SpanValue>,
    /// How long before a step of others it has to be sent to be in it: 10, 30, 50, 70 and 90 % of
    /// requests need no longer.
    pub needed: Option<[SpanValue; 5]>,
    /// How many are in the very next step that are sent when another has just left its seat.
    pub at_once: Option<FractionValue>,
    /// How much later than its step ends its first token comes; where the engine tells no steps, than
    /// those of others in that step.
    pub first_token: Option<SpanValue>,
    /// From sending it to the head of the answer.
    pub accepted: SpanValue,
    /// From sending it to the first byte of the answer's body.
    pub first_byte: SpanValue,
    /// By how much each further token of one step comes later.
    pub chunk: SpanValue,
    /// From when a step's tokens went out to when they come, where the engine tells its steps.
    pub delivery: Option<SpanValue>,
}

/// One cell of the plan.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CalibrationCellSpec {
    /// Which.
    pub cell: String,
    /// What was measured, at the median.
    pub measured: SpanValue,
    /// The half-width of its 95 % interval.
    pub half_width: FractionValue,
    /// How far off the model is: positive where it is slow.
    pub error: f64,
    /// How often it was measured.
    pub runs: u64,
}

/// Where an engine may leave what was measured, in a sentence; `None` if it cannot.
pub(crate) fn beyond(
    pool: &str,
    calibration: &CalibrationSpec,
    engine: &EngineModel,
) -> Option<String> {
    let range = calibration.range;
    let left: Vec<String> = [
        ("sequences", u64::from(engine.seats), range.sequences),
        ("prompt tokens a step", u64::from(engine.step_tokens_max), range.prefill_tokens),
        ("context tokens", engine.kv_tokens(), range.context_tokens),
    ]
    .into_iter()
    .filter(|(_, possible, measured)| possible > measured)
    .map(|(what, possible, measured)| format!("{measured} {what} of {possible}"))
    .collect();
    (!left.is_empty()).then(|| {
        format!(
            "Step times of pool {pool} were measured up to {}; beyond that the fit is extrapolated.",
            left.join(", ")
        )
    })
}
