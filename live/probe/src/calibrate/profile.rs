//! What was found, as a file that scenarios extend.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use plimsoll_scenario::calibration::NEEDED_AT;
use plimsoll_sim::model::{Admission, Curve, EngineModel, StepCostSpec, StepNoise};

use super::Noise;
use super::fit::Fit;
use super::measure::Measured;
use super::noise::{TrafficStep, step_noise};
use super::observation::{Feature, Observation};
use super::plan::Plan;
use super::statistics::{half_width, median};
use crate::device::{Description, Limits, Priorities};

/// The limits of the engine, and which of them nobody told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assumed {
    /// All of them; `None` is left nowhere but in `priorities`.
    pub limits: Limits,
    /// What was assumed, and why.
    pub notes: Vec<String>,
}

/// What a request costs beside steps, in ns, at the median.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overheads {
    /// From sending it to its first token, beside the steps, where it is alone.
    pub request: f64,
    /// How much more that is behind rests, short and long ones, where steps are told.
    pub after_idle: Option<[f64; 2]>,
    /// Of one that comes while others are computed, if enough such were seen.
    pub busy: Option<Busy>,
    /// From sending it to the head of the answer.
    pub accepted: f64,
    /// From sending it to the first byte of the answer's body, beside the steps.
    pub first_byte: f64,
    /// By how much each further token of one step comes later.
    pub chunk: f64,
    /// From when a step's tokens went out to when they come, where the engine tells its steps.
    pub delivery: Option<f64>,
}

/// What requests cost beside steps of an engine that is busy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Busy {
    /// How long before a step begins one has to be sent to be in it, in ns: so many parts of all need
    /// no longer, [`NEEDED_AT`].
    pub needed: [f64; NEEDED_AT.len()],
    /// Which part is in the very next step of those that are sent when another has just left its seat,
    /// if enough were.
    pub at_once: Option<f64>,
    /// How much later than its step ends its first token comes, in ns at the median.
    pub behind: f64,
}

impl Busy {
    /// Both together, at the median.
    pub fn whole(&self) -> f64 {
        self.needed[NEEDED_AT.len() / 2] + self.behind
    }
}

/// How a cell was met.
#[derive(Clone, Debug, PartialEq)]
pub struct CellResult {
    /// Which.
    pub name: String,
    /// What was measured, at the median: the time to the first token, of a decode step, or of the
    /// steps with the prompt. In ns.
    pub measured: f64,
    /// The half-width of its 95 % interval, as a part of it.
    pub half_width: f64,
    /// How far off the model is: positive where it is slow.
    pub error: f64,
    /// Times that it was measured.
    pub runs: usize,
}

/// Where the times that were fitted come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The engine told its steps.
    Steps,
    /// A client saw the times of tokens.
    Tokens,
    /// A log of requests that others sent.
    Log,
}

impl Method {
    /// As a profile says it.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Steps => "steps",
            Method::Tokens => "tokens",
            Method::Log => "log",
        }
    }
}

/// A device, as measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// What was measured.
    pub description: Description,
    /// The engine's limits.
    pub assumed: Assumed,
    /// The model of its steps.
    pub fit: Fit,
    /// How much equal measurements differ.
    pub noise: Noise,
    /// How far steps of traffic are from the model; `None` where too few were seen.
    pub step_noise: Option<StepNoise>,
    /// What a request costs beside steps.
    pub overheads: Overheads,
    /// Where the times come from.
    pub method: Method,
    /// How many times were fitted to.
    pub observations: usize,
    /// The largest steps that were seen: prompt tokens, sequences, context.
    pub range: [u64; 3],
    /// Cell by cell.
    pub cells: Vec<CellResult>,
    /// The day, in UTC.
    pub date: String,
}

impl Profile {
    pub(super) fn new(
        description: Description,
        plan: &Plan,
        (fit, noise, assumed): (Fit, Noise, Assumed),
        measured: &Measured<'_>,
    ) -> Profile {
        let observations = measured.observations();
        let cell = |(index, cell): (usize, &super::plan::Cell)| {
            let values = measured.values(index);
            (!values.is_empty()).then(|| CellResult {
                name: cell.to_string(),
                measured: median(values),
                half_width: half_width(values),
                error: fit.error_of(observations, index),
                runs: values.len(),
            })
        };
        let without_request = |one: &Observation| {
            let mut steps = *one;
            steps.sums[Feature::Requests as usize] = 0.0;
            fit.predict(&steps)
        };
        let traffic = observations.iter().filter(|one| one.traffic);
        let steps: Vec<TrafficStep> = traffic
            .map(|one| TrafficStep {
                took: one.nanos,
                model: fit.predict(one).max(1.0),
                computes_prompts: one.sums[Feature::PrefillSteps as usize] > 0.0,
            })
            .collect();
        Profile {
            description,
            assumed,
            noise,
            overheads: measured.overheads(without_request),
            method: if measured.tells_steps() { Method::Steps } else { Method::Tokens },
            observations: observations.len(),
            range: range(observations),
            cells: plan.cells.iter().enumerate().filter_map(cell).collect(),
            date: today(),
            step_noise: step_noise(&steps),
            fit,
        }
    }

    /// The engine, as the simulator takes it.
    pub fn engine(&self) -> EngineModel {
        let limits = &self.assumed.limits;
        let block_tokens = limits.block_tokens.unwrap_or(16);
        let kv = limits.kv_tokens.unwrap_or(0) / u64::from(block_tokens);
        let kv_blocks = u32::try_from(kv).unwrap_or(u32::MAX).max(1);
        let kv_tokens = u64::from(kv_blocks) * u64::from(block_tokens);
        let context = limits.context_max.unwrap_or(u32::MAX);
        EngineModel {
            seats: limits.seats.unwrap_or(1),
            step_tokens_max: limits.step_tokens_max.unwrap_or(1),
            kv_blocks,
            block_tokens,
            context_max: context.min(u32::try_from(kv_tokens).unwrap_or(u32::MAX)),
            chunked_prefill: true,
            admission: match limits.priorities {
                Some(Priorities::Obeyed) => Admission::Priority,
                Some(Priorities::Ignored) | None => Admission::Fcfs,
            },
            step_cost: self.fit.step_cost(),
            step_noise: self.step_noise.clone(),
        }
    }

    /// In one sentence, for reports.
    pub fn provenance(&self) -> String {
        let Description { engine, version, model, place, .. } = &self.description;
        let version = version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
        if self.method == Method::Log {
            return format!(
                "Fitted by plimsoll calibrate on {} to the times of requests in {place}: held-out \
                 error {:.1} % of an interval.",
                self.date,
                self.fit.held_out * 100.0
            );
        }
        format!(
            "{model} on {engine}{version} at {place}, measured by plimsoll calibrate on {}: \
             held-out error {:.1} %, noise floor {:.1} %.",
            self.date,
            self.fit.held_out * 100.0,
            self.noise.floor * 100.0
        )
    }

    /// The file: one pool, `device`, for a scenario to extend.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        // A string takes everything.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let engine = self.engine();
        let admission = match engine.admission {
            Admission::Fcfs => "fcfs",
            Admission::Priority => "priority",
        };
        writeln!(out, "# Written by plimsoll calibrate. A scenario that begins with")?;
        writeln!(out, "#     extends = \"this file\"")?;
        writeln!(
            out,
            "# has the pool `device`; it may change `replicas` and whatever else it likes."
        )?;
        writeln!(out, "\nschema_version = 1\n\n[[pool]]\nname = \"device\"\nreplicas = 1")?;
        let kv_tokens = engine.kv_tokens();
        writeln!(
            out,
            "engine = {{ seats = {}, step_tokens_max = {}, kv_tokens = {kv_tokens}, block_tokens = \
             {}, context_max = {}, admission = \"{admission}\" }}",
            engine.seats, engine.step_tokens_max, engine.block_tokens, engine.context_max
        )?;
        writeln!(out, "step_time = {}", step_time(&engine.step_cost))?;
        if let Some(noise) = &engine.step_noise {
            let StepNoise { ratios, prefill_ratios, lasting, lasting_steps } = noise;
            let list = |name: &str, ratios: &[f64]| {
                let ratios: Vec<String> =
                    ratios.iter().map(|ratio| format!("{ratio:.4}")).collect();
                format!("{name} = [{}], ", ratios.join(", "))
            };
            let of_prompts = prefill_ratios.as_ref().map(|them| list("prefill_ratios", them));
            writeln!(
                out,
                "step_noise = {{ {}{}lasting = {lasting:.4}, lasting_steps = {lasting_steps:.1} }}",
                list("ratios", ratios),
                of_prompts.unwrap_or_default()
            )?;
        }
        writeln!(out, "provenance = {}", quoted(&self.provenance()))?;
        self.write_calibration(out)
    }

    fn write_calibration(&self, out: &mut String) -> std::fmt::Result {
        let Description { engine, version, flags, model, place, .. } = &self.description;
        let list = |texts: &[String]| {
            let quoted: Vec<String> = texts.iter().map(|text| self::quoted(text)).collect();
            format!("[{}]", quoted.join(", "))
        };
        writeln!(out, "\n[pool.calibration]")?;
        writeln!(out, "date = {}", quoted(&self.date))?;
        writeln!(out, "engine = {}", quoted(engine))?;
        if let Some(version) = version {
            writeln!(out, "version = {}", quoted(version))?;
        }
        writeln!(out, "flags = {}", list(flags))?;
        writeln!(out, "model = {}", quoted(model))?;
        writeln!(out, "place = {}", quoted(place))?;
        writeln!(out, "method = {}", quoted(self.method.name()))?;
        writeln!(out, "observations = {}", self.observations)?;
        let parts = [
            ("residual", self.fit.residual),
            ("held_out", self.fit.held_out),
            ("noise_floor", self.noise.floor),
        ];
        for (name, part) in parts {
            writeln!(out, "{name} = {}", percent(part))?;
        }
        writeln!(out, "drift = {:.4}", self.noise.drift)?;
        let [prefill, sequences, context] = self.range;
        writeln!(
            out,
            "range = {{ prefill_tokens = {prefill}, sequences = {sequences}, context_tokens = \
             {context} }}"
        )?;
        let Overheads { request, after_idle, busy, accepted, first_byte, chunk, delivery } =
            self.overheads;
        let mut parts = vec![("request", span(request))];
        if let Some([short, long]) = after_idle {
            parts.extend([("after_idle", span(short)), ("after_long_idle", span(long))]);
        }
        if let Some(busy) = busy {
            let needed = format!("[{}]", busy.needed.map(span).join(", "));
            parts.extend([("busy", span(busy.whole())), ("needed", needed)]);
            parts.extend(busy.at_once.map(|part| ("at_once", percent(part))));
            parts.push(("first_token", span(busy.behind)));
        }
        parts.extend([("accepted", span(accepted)), ("first_byte", span(first_byte))]);
        parts.push(("chunk", span(chunk)));
        parts.extend(delivery.map(|delivery| ("delivery", span(delivery))));
        let parts: Vec<String> =
            parts.into_iter().map(|(name, value)| format!("{name} = {value}")).collect();
        writeln!(out, "overhead = {{ {} }}", parts.join(", "))?;
        writeln!(out, "assumed = {}", list(&self.assumed.notes))?;
        let tried = |(kind, error): &(super::Kind, f64)| {
            format!("{}: held-out error {:.1} %", kind.name(), error * 100.0)
        };
        writeln!(out, "tried = {}", list(&self.fit.tried.iter().map(tried).collect::<Vec<_>>()))?;
        writeln!(out, "cells = [")?;
        for cell in &self.cells {
            writeln!(
                out,
                "    {{ cell = {}, measured = {}, half_width = {}, error = {:.4}, runs = {} }},",
                quoted(&cell.name),
                span(cell.measured),
                percent(cell.half_width),
                cell.error,
                cell.runs
            )?;
        }
        writeln!(out, "]")
    }
}

/// The largest steps seen.
pub(super) fn range(observations: &[Observation]) -> [u64; 3] {
    let most = |feature: Feature, square: Feature| {
        // Where an observation is of several steps: no step is larger than the root of the sum of
        // squares by the sum, which is exact where steps are equal.
        let largest = |one: &Observation| {
            let (sum, squares) = (one.sums[feature as usize], one.sums[square as usize]);
            if sum > 0.0 { squares / sum } else { 0.0 }
        };
        observations.iter().map(largest).fold(0.0, f64::max).round() as u64
    };
    [
        most(Feature::Prefill, Feature::PrefillSquare),
        most(Feature::Sequences, Feature::SequencesSquare),
        most(Feature::Context, Feature::ContextSquare),
    ]
}

/// As a scenario file writes it.
fn step_time(cost: &StepCostSpec) -> String {
    match cost {
        StepCostSpec::Affine { terms, prefill_curve, sequence_curve } => {
            let terms = terms.map(coefficient);
            format!(
                "{{ kind = \"affine\", base = {}, prefill_step = {}, mixed_step = {}, prefill_token \
                 = {}, sequence = {}, context_token = {}, attention_pair = {}, after_prefill = {}, \
                 after_long_prefill = {}, after_idle = {}, \
                 after_long_idle = {}{}{} }}",
                terms.base,
                terms.prefill_step,
                terms.mixed_step,
                terms.prefill,
                terms.sequence,
                terms.context,
                terms.pair,
                terms.after_prefill,
                terms.after_long_prefill,
                terms.after_idle,
                terms.after_long_idle,
                curve("prefill_curve", prefill_curve),
                curve("sequence_curve", sequence_curve)
            )
        }
        StepCostSpec::Polynomial { base, prefill, sequence, context } => {
            let pair = |[linear, square]: &[f64; 2]| format!("[{linear:.6}, {square:.9}]");
            format!(
                "{{ kind = \"polynomial\", base = {base:.3}, prefill = {}, sequence = {}, context \
                 = {} }}",
                pair(prefill),
                pair(sequence),
                pair(context)
            )
        }
    }
}

fn curve(name: &str, curve: &Curve) -> String {
    let point = |(tokens, nanos)| format!("[{tokens}, {}]", coefficient(nanos));
    let points: Vec<String> = curve.points().map(point).collect();
    match points.is_empty() {
        true => String::new(),
        false => format!(", {name} = [{}]", points.join(", ")),
    }
}

/// Nanoseconds with the unit that suits them, to five digits.
fn coefficient(nanos: f64) -> String {
    let (value, unit) = match nanos {
        _ if nanos >= 1e6 => (nanos / 1e6, "ms"),
        _ if nanos >= 1e3 => (nanos / 1e3, "us"),
        _ if nanos >= 1.0 || nanos == 0.0 => (nanos, "ns"),
        _ => (nanos * 1e3, "ps"),
    };
    format!("\"{value:.5}{unit}\"")
}

/// A time, to the microsecond where it is as long as that.
fn span(nanos: f64) -> String {
    if nanos >= 1e3 {
        return format!("\"{:.0}us\"", nanos / 1e3);
    }
    format!("\"{nanos:.0}ns\"")
}

fn percent(part: f64) -> String {
    format!("\"{:.2}%\"", part.clamp(0.0, 1.0) * 100.0)
}

/// A JSON string is a TOML string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The day in UTC, by the civil calendar (Howard Hinnant, chrono-compatible date algorithms).
pub(crate) fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
