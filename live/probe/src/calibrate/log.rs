//! Fitting to a log of requests that others sent: no step is told, only when each request was
//! scheduled, gave its first token, and its last.
//!
//! Between its first and its last token a request was in as many steps as it has further tokens.
//! What else those steps computed follows from the others' times, where each is taken to decode
//! evenly over its own interval, and each prompt to be computed evenly between `scheduled` and the
//! first token. So an interval is a sum over steps ([`Observation`]) like any other. How good
//! that is shows when the log is replayed through the fitted engine ([`replayed`]).

use plimsoll_base::{ClassId, Span, Time};
use plimsoll_sim::engine::{Counters, Engine, Job, Note};
use plimsoll_sim::model::EngineModel;
use serde::Deserialize;
use thiserror::Error;

use super::observation::{Feature, Observation};
use super::profile::{Assumed, CellResult, Method, Overheads, Profile, range, today};
use super::{CalibrateError, Noise, fit};
use crate::device::{Description, Limits};

/// What a line holds.
const NAMED: &str =
    "input_toks, output_toks, queued_ts, scheduled_ts, first_token_ts, last_token_ts";

/// A request of a log. Times in seconds, of one clock.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
pub struct LoggedRequest {
    /// Of its prompt.
    #[serde(rename = "input_toks", alias = "prompt_tokens", alias = "input_tokens")]
    pub prompt_tokens: u32,
    /// Of its answer.
    #[serde(rename = "output_toks", alias = "output_tokens", alias = "completion_tokens")]
    pub output_tokens: u32,
    /// When the engine had it.
    #[serde(rename = "queued_ts", alias = "queued")]
    pub queued: f64,
    /// When it first was in a step.
    #[serde(rename = "scheduled_ts", alias = "scheduled")]
    pub scheduled: f64,
    /// When its first token was there.
    #[serde(rename = "first_token_ts", alias = "first_token")]
    pub first: f64,
    /// When its last token was there.
    #[serde(rename = "last_token_ts", alias = "last_token")]
    pub last: f64,
}

/// A log that cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}: {what}; write a JSON object a line with {NAMED}")]
pub struct BadLog {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// Reads a log, one JSON object a line.
///
/// # Errors
/// The first line that is none, or whose times are not in their order.
pub fn parse_log(text: &str) -> Result<Vec<LoggedRequest>, BadLog> {
    let mut requests = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let bad = |what: String| BadLog { line: index + 1, what };
        let one: LoggedRequest =
            serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
        let times = [one.queued, one.scheduled, one.first, one.last];
        if !times.is_sorted() || times.iter().any(|time| !time.is_finite()) {
            return Err(bad("queued, scheduled, first and last are not in this order".into()));
        }
        if one.prompt_tokens == 0 || one.output_tokens == 0 {
            return Err(bad("a request has at least one token of prompt and of output".into()));
        }
        requests.push(one);
    }
    requests.sort_by(|a, b| a.queued.total_cmp(&b.queued));
    Ok(requests)
}

/// Fits a profile to a log of an engine with these limits, all of which must be known.
///
/// # Errors
/// If the log holds too little.
pub fn from_log(
    requests: &[LoggedRequest],
    limits: Limits,
    place: &str,
) -> Result<Profile, CalibrateError> {
    let budget = f64::from(limits.step_tokens_max.unwrap_or(u32::MAX));
    let observations = observations(requests, budget);
    let fitted = fit(&observations).map_err(CalibrateError::TooLittle)?;
    let description = Description {
        engine: "a log".into(),
        model: "the model".into(),
        place: place.to_owned(),
        limits,
        ..Description::default()
    };
    let mut profile = Profile {
        description,
        assumed: Assumed { limits, notes: Vec::new() },
        noise: Noise::default(),
        step_noise: None,
        overheads: Overheads::default(),
        method: Method::Log,
        observations: observations.len(),
        range: range(&observations),
        cells: Vec::new(),
        date: today(),
        fit: fitted,
    };
    profile.cells = replayed(requests, &profile.engine());
    Ok(profile)
}

/// Two intervals a request, of a cell of its own.
fn observations(requests: &[LoggedRequest], budget: f64) -> Vec<Observation> {
    let mut found = Vec::new();
    for (cell, one) in requests.iter().enumerate() {
        let further = f64::from(one.output_tokens - 1);
        let decode = summed(requests, (one.first, one.last), further, cell);
        let beside = pace(requests, (one.scheduled, one.first));
        let chunks = (f64::from(one.prompt_tokens) / budget).ceil().max(beside);
        let prefill = summed(requests, (one.scheduled, one.first), chunks, cell);
        found.extend([decode, prefill].into_iter().filter(|it| it.nanos > 0.0));
    }
    found
}

/// How many steps an interval has by those who decode all through it; 0 if nobody does.
fn pace(requests: &[LoggedRequest], (from, to): (f64, f64)) -> f64 {
    let through = requests.iter().filter(|one| one.first <= from && one.last >= to);
    let rates = through
        .filter(|one| one.last > one.first)
        .map(|one| f64::from(one.output_tokens - 1) * (to - from) / (one.last - one.first));
    super::statistics::median(&rates.collect::<Vec<_>>())
}

/// What all requests computed in an interval of so many steps.
fn summed(
    requests: &[LoggedRequest],
    (from, to): (f64, f64),
    steps: f64,
    cell: usize,
) -> Observation {
    let mut sums = [0.0; Feature::COUNT];
    let mut add = |feature: Feature, amount: f64| sums[feature as usize] += amount;
    add(Feature::Steps, steps);
    for one in requests {
        let prompt = f64::from(one.prompt_tokens);
        let part = overlap((from, to), (one.scheduled, one.first));
        add(Feature::Prefill, prompt * part);
        add(Feature::Pairs, prompt * (prompt + 1.0) / 2.0 * part);
        let further = f64::from(one.output_tokens - 1);
        let part = overlap((from, to), (one.first, one.last));
        if part > 0.0 {
            let middle = (from.max(one.first) + to.min(one.last)) / 2.0;
            let done = (middle - one.first) / (one.last - one.first);
            add(Feature::Sequences, further * part);
            add(Feature::Context, further * part * (prompt + further * done));
        }
    }
    // Squares as if all steps of the interval were alike.
    for (sum, square) in [
        (Feature::Prefill, Feature::PrefillSquare),
        (Feature::Sequences, Feature::SequencesSquare),
        (Feature::Context, Feature::ContextSquare),
    ] {
        let sum = sums[sum as usize];
        sums[square as usize] = if steps > 0.0 { sum * sum / steps } else { 0.0 };
    }
    let nanos = if steps > 0.0 { (to - from) * 1e9 } else { 0.0 };
    Observation { sums, nanos, ..Observation::of(cell) }
}

/// Which part of the second interval lies within the first.
fn overlap((from, to): (f64, f64), (begin, end): (f64, f64)) -> f64 {
    if end <= begin {
        return 0.0;
    }
    (to.min(end) - from.max(begin)).max(0.0) / (end - begin)
}

/// Runs the requests of a log through an engine, each arriving when it was queued, and compares
/// means: measured, and by which part the engine is off.
pub fn replayed(requests: &[LoggedRequest], model: &EngineModel) -> Vec<CellResult> {
    let start = requests.first().map_or(0.0, |one| one.queued);
    let instant = |seconds: f64| Time::ZERO + Span::from_secs_f64(seconds - start);
    let mut times = vec![[Time::ZERO; 2]; requests.len()];
    let mut engine: Engine<Counters> = Engine::new(model, 1);
    let mut notes: Vec<Note> = Vec::new();
    let mut arrivals = requests.iter().enumerate().peekable();
    let mut due: Option<Time> = None;
    while due.is_some() || arrivals.peek().is_some() {
        let arrival = arrivals.peek().map(|(_, one)| instant(one.queued));
        let now = arrival.into_iter().chain(due).min().expect("one of them is there");
        if due.take_if(|at| *at == now).is_some() {
            engine.complete(now, &mut notes);
        }
        while let Some((key, one)) = arrivals.next_if(|(_, one)| instant(one.queued) == now) {
            let room = model.context_max.saturating_sub(one.output_tokens).max(1);
            engine.submit(Job {
                key: key as u32,
                class: ClassId(0),
                priority: 0,
                prompt_tokens: one.prompt_tokens.min(room),
                output_tokens: one.output_tokens.min(model.context_max - 1),
            });
        }
        due = engine.begin(now, &mut notes).or(due);
        for note in notes.drain(..) {
            match note {
                Note::Token { key } if times[key as usize][0] == Time::ZERO => {
                    times[key as usize][0] = now;
                }
                Note::Finished { key, .. } => times[key as usize][1] = now,
                Note::Started { .. }
                | Note::Token { .. }
                | Note::Preempted { .. }
                | Note::Handed { .. }
                | Note::Cancelled { .. }
                | Note::Gaps { .. } => {}
            }
        }
    }
    compared(requests, &times, instant)
}

fn compared(
    requests: &[LoggedRequest],
    times: &[[Time; 2]],
    instant: impl Fn(f64) -> Time,
) -> Vec<CellResult> {
    type Measure = fn([f64; 3], f64) -> f64;
    let measures: [(&str, Measure); 3] = [
        ("mean time to first token", |[queued, first, _], _| first - queued),
        ("mean time per output token", |[_, first, last], further| (last - first) / further),
        ("mean time to last token", |[queued, _, last], _| last - queued),
    ];
    let result = |(name, measure): (&str, Measure)| {
        let (mut measured, mut simulated, mut runs) = (0.0, 0.0, 0);
        for (one, [first, last]) in requests.iter().zip(times) {
            if one.output_tokens < 2 {
                continue;
            }
            let further = f64::from(one.output_tokens - 1);
            let queued = instant(one.queued).secs_f64();
            measured += measure([one.queued, one.first, one.last], further);
            simulated += measure([queued, first.secs_f64(), last.secs_f64()], further);
            runs += 1;
        }
        CellResult {
            name: name.to_owned(),
            measured: measured / f64::from(runs.max(1)) * 1e9,
            half_width: f64::INFINITY,
            error: if measured > 0.0 { simulated / measured - 1.0 } else { 0.0 },
            runs: runs as usize,
        }
    };
    measures.into_iter().map(result).collect()
}
