//! Simulated against measured: how far apart, how sure that is, and what is at fault.
//!
//! A *setting* is a policy at a load. Each of its repetitions has arrivals of its own, is run on the
//! device twice (so that it is known how much the device differs from itself) and simulated, eight
//! times where steps are drawn. Where the device tells its steps, the same repetition is simulated a second time with the steps
//! as long as they were measured: what then still differs is the scheduler's, and what the two
//! simulations differ by is the step-time model's.

mod judge;
mod measure;
mod numbers;
mod study;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::telemetry::Telemetry;
use crate::words;

pub use judge::{DRIFT_MAX, pace, validation};
pub use measure::{Repetition, RunSample, SettingSample};
pub use numbers::Timed;

/// The version of the layout of `validation.json`.
pub const VALIDATION_VERSION: u32 = 1;

/// A simulation held against a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Validation {
    /// The version of this layout.
    pub validation_version: u32,
    /// The version of the program.
    pub plimsoll: String,
    /// The day, in UTC.
    pub date: String,
    /// The scenario's name.
    pub scenario: String,
    /// The hash of the effective scenario.
    pub scenario_hash: String,
    /// The seed.
    pub seed: u64,
    /// The device, in words.
    pub device: String,
    /// Where the profile's numbers come from.
    pub profile: String,
    /// What was found.
    pub verdict: ValidationVerdict,
    /// What is at fault, where something is and it can be told.
    pub cause: Option<Fault>,
    /// The error that is allowed, as a part.
    pub within: f64,
    /// The finding in sentences.
    pub sentences: Vec<String>,
    /// Each policy at each load.
    pub settings: Vec<Setting>,
    /// Whether policies rank the same.
    pub rankings: Vec<Ranking>,
    /// The decision log of each live run.
    pub logs: Vec<LogCheck>,
    /// What the device's GPUs said of themselves meanwhile.
    pub telemetry: Telemetry,
    /// What to know.
    pub notes: Vec<String>,
    /// How it was found.
    pub method: Vec<String>,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ValidationVerdict {
    /// Every judged number is within the limit, interval included.
    Agrees,
    /// One is outside.
    Disagrees,
    /// More was offered than the device can do: its latencies only say how long that went on.
    DeviceSaturated,
    /// Requests went out late, by more than what is measured allows.
    ClientTooSlow,
    /// The device differs too much from itself.
    TooNoisy,
    /// Numbers are outside, and much of the time was spent in steps that the profile was not
    /// fitted to, or the device is no longer the one that was calibrated.
    ProfileOutOfRange,
    /// An interval reaches over its limit.
    Unclear,
    /// Too few requests to judge any number.
    TooFew,
}

impl ValidationVerdict {
    /// As a headline.
    pub const fn word(self) -> &'static str {
        match self {
            ValidationVerdict::Agrees => "AGREES",
            ValidationVerdict::Disagrees => "DISAGREES",
            ValidationVerdict::DeviceSaturated => "DEVICE SATURATED",
            ValidationVerdict::ClientTooSlow => "CLIENT TOO SLOW",
            ValidationVerdict::TooNoisy => "TOO NOISY TO TELL",
            ValidationVerdict::ProfileOutOfRange => "PROFILE OUT OF RANGE",
            ValidationVerdict::Unclear => "INCONCLUSIVE",
            ValidationVerdict::TooFew => "TOO FEW REQUESTS",
        }
    }
    /// What the command exits with.
    pub const fn exit_code(self) -> u8 {
        match self {
            ValidationVerdict::Agrees => 0,
            ValidationVerdict::Disagrees => 3,
            ValidationVerdict::DeviceSaturated
            | ValidationVerdict::ClientTooSlow
            | ValidationVerdict::TooNoisy
            | ValidationVerdict::ProfileOutOfRange
            | ValidationVerdict::Unclear
            | ValidationVerdict::TooFew => 4,
        }
    }
}

/// What is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Which requests share a step, and when they enter: limits of the engine, or its rules.
    Scheduler,
    /// The step-time model of the profile.
    StepTimes,
    /// What lies between the engine and whoever asks.
    Client,
    /// How fast the device was in the runs, against beside them.
    Pace,
}

impl Fault {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Fault::Scheduler => "the scheduler",
            Fault::StepTimes => "the step times",
            Fault::Client => "the client",
            Fault::Pace => "the device's pace",
        }
    }
}

/// A policy at a load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Setting {
    /// The policy.
    pub policy: String,
    /// The load as a part of the capacity of the device when it was offered.
    pub load: f64,
    /// Requests a second that were offered.
    pub offered: f64,
    /// What was found.
    pub verdict: ValidationVerdict,
    /// Requests of all live runs that count, and how many of them were answered in full.
    pub requests: u64,
    /// Of them, those that ended.
    pub finished: u64,
    /// The same, simulated.
    pub simulated_finished: u64,
    /// How late requests went out: p50, p90, p99 and the most, in seconds.
    pub send_lag: [f64; 4],
    /// What the device told of its steps.
    pub steps: Option<StepCheck>,
    /// How fast the device was beside the runs.
    pub pace: Option<Pace>,
    /// Each class.
    pub classes: Vec<ClassAgreement>,
}

impl Setting {
    /// Its name in a report.
    pub fn name(&self) -> String {
        format!("{} at {:.0} %", self.policy, self.load * 100.0)
    }
}

/// How fast the device was beside a setting's live runs, against when it was calibrated: its
/// steps, with traffic like that of the calibration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pace {
    /// How many times as long they took, on average.
    pub mean: StepPace,
    /// The least and the most of what was measured of all together.
    pub range: [f64; 2],
    /// Each live run.
    pub runs: Vec<RunPace>,
}

/// How many times as long as by the profile steps took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepPace {
    /// All of them.
    pub all: f64,
    /// What each costs, whatever it computes, with one sequence that decodes.
    pub fixed: f64,
    /// What further sequences that decode add, and contexts.
    pub decode: f64,
    /// What prompt tokens add.
    pub prompt: f64,
    /// What is felt of prompts in the steps behind them.
    pub behind: f64,
    /// What is felt of rests.
    pub rested: f64,
}

impl StepPace {
    /// What comes of each of its numbers.
    pub fn each(number: impl Fn(fn(&StepPace) -> f64) -> f64) -> StepPace {
        StepPace {
            all: number(|pace| pace.all),
            fixed: number(|pace| pace.fixed),
            decode: number(|pace| pace.decode),
            prompt: number(|pace| pace.prompt),
            behind: number(|pace| pace.behind),
            rested: number(|pace| pace.rested),
        }
    }
}

/// How many times as long as by the profile steps are simulated, as nobody knows it better.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SimulatedPace {
    /// On average.
    pub mean: StepPace,
    /// The standard deviation of all.
    pub deviation: f64,
}

/// How fast the device was around one live run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunPace {
    /// Before and behind it, with traffic like that of the calibration.
    pub beside: [Option<StepPace>; 2],
    /// In the run itself, if the device tells its steps. It only tells the pace's part of an error.
    pub within: Option<StepPace>,
    /// What is simulated; absent where that is what was calibrated.
    pub simulated: Option<SimulatedPace>,
}

impl Pace {
    /// Whether it is not the device that was calibrated.
    pub(crate) fn is_another(&self) -> bool {
        (self.mean.all - 1.0).abs() > DRIFT_MAX
    }

    /// In a sentence.
    pub fn sentence(&self) -> String {
        let range = words::signed_between(self.range.map(|part| part - 1.0));
        let StepPace { all, fixed, decode, prompt, behind, rested } = self.mean;
        let [mean, fixed, decode, prompt, behind, rested] =
            [all, fixed, decode, prompt, behind, rested].map(|part| words::signed(part - 1.0));
        let then = match self.runs.iter().any(|run| run.simulated.is_some()) {
            true => "and its steps are simulated longer or shorter by what of that is clear",
            false => "and its steps are simulated as they were then",
        };
        format!(
            "steps of like traffic took {mean} ({range}) beside the runs against when the \
             device was calibrated (what each costs {fixed}, what further sequences add {decode}, prompts \
             {prompt}, what is felt behind those {behind}, and behind rests {rested}), {then}"
        )
    }
}

/// The steps of a setting's live runs against the profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepCheck {
    /// Steps.
    pub count: u64,
    /// The part of the time in which one ran; `None` where steps are read from tokens, which do not
    /// show all.
    pub busy: Option<f64>,
    /// By which part all of them together would be longer by the profile.
    pub error: f64,
    /// The same of steps that decode only.
    pub decode: Option<f64>,
    /// The same of steps with prompt tokens.
    pub prompt: Option<f64>,
    /// The part of the time in steps that are larger than what was calibrated.
    pub outside: f64,
}

/// A class in a setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClassAgreement {
    /// Its name.
    pub class: String,
    /// TTFT, ITL, TPOT, E2E.
    pub metrics: Vec<MetricAgreement>,
}

/// A metric of a class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricAgreement {
    /// `ttft`, `itl`, `tpot` or `e2e`.
    pub metric: String,
    /// Values of all live runs.
    pub count: u64,
    /// p50, p90, p99 and mean.
    pub points: Vec<Point>,
    /// Kolmogorov and Smirnov's distance of simulated and live.
    pub ks: Option<f64>,
    /// The same of one live run and its repetition.
    pub ks_floor: Option<f64>,
    /// Percentiles 1 to 99, live and simulated, in seconds.
    pub quantiles: Vec<[f64; 2]>,
}

/// A number, live and simulated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    /// `p50`, `p90`, `p99` or `mean`.
    pub at: String,
    /// In seconds, over all live runs.
    pub live: f64,
    /// In seconds.
    pub simulated: f64,
    /// simulated ÷ live − 1.
    pub error: f64,
    /// Its 95 % interval.
    pub interval: Option<[f64; 2]>,
    /// How much two live runs with the same arrivals differ, as a part: on average over the
    /// policies of the load.
    pub floor: Option<f64>,
    /// Whether it rests on fewer than ten values beyond it.
    pub few: bool,
    /// Where the error comes from; the parts sum to it.
    pub parts: Option<Parts>,
    /// Whether it was judged, and how.
    pub result: Option<Agreement>,
}

/// Where an error comes from, each as a part of the live number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Parts {
    /// Between the engine and whoever asks, beside what the profile allows for it.
    pub client: f64,
    /// With steps as long as they were measured.
    pub scheduler: f64,
    /// What the fitted step times change.
    pub step_times: f64,
    /// What it changes that the device's pace in the runs was not as it was expected beside them.
    pub pace: f64,
    /// The scheduler's error alone, as a part of what the engine did.
    pub scheduler_alone: f64,
}

/// How a number was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// Its interval is within the limit.
    Agrees,
    /// Its interval is outside.
    Disagrees,
    /// Its interval reaches over the limit.
    Unclear,
    /// The device differs from itself by more than twice the limit.
    Noisy,
}

impl Agreement {
    /// In a word.
    pub const fn word(self) -> &'static str {
        match self {
            Agreement::Agrees => "agrees",
            Agreement::Disagrees => "disagrees",
            Agreement::Unclear => "unclear",
            Agreement::Noisy => "noisy",
        }
    }
}

/// How policies rank for a class at a load, by p90 TTFT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ranking {
    /// The load.
    pub load: f64,
    /// The class.
    pub class: String,
    /// Policies and their p90 TTFT in seconds, best first.
    pub live: Vec<(String, f64)>,
    /// The same, simulated.
    pub simulated: Vec<(String, f64)>,
    /// Pairs that rank the other way round, and differ by more than the live noise floor.
    pub reversed: Vec<(String, String)>,
}

/// The decision log of a live run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogCheck {
    /// Within the output folder.
    pub file: String,
    /// Inputs.
    pub inputs: u64,
    /// Decisions.
    pub decisions: u64,
    /// `None`: a fresh allocator decides the same. Else the first difference.
    pub difference: Option<String>,
}
