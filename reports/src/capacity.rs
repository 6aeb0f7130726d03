//! The least hardware that keeps what is promised, and how sure that is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::summary::Estimate;
use crate::words;

/// The version of the layout of `plan.json`.
pub const PLAN_VERSION: u32 = 1;

/// An answer to the question how much hardware a load needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CapacityPlan {
    /// The version of this layout.
    pub plan_version: u32,
    /// The version of the program.
    pub plimsoll: String,
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// What is least: `fewest` devices or `cheapest`.
    pub goal: String,
    /// With what confidence the answer keeps every objective.
    pub confidence: f64,
    /// What was searched and how, in sentences.
    pub method: Vec<String>,
    /// Whether something was found.
    pub verdict: PlanVerdict,
    /// The answer in sentences: what, with what margin, what the next cheaper lacks, how much more
    /// load it bears; or what to relax.
    pub sentences: Vec<String>,
    /// The answer; null if nothing fits.
    pub answer: Option<Tried>,
    /// The least of each policy; empty with one.
    pub policies: Vec<PolicyAnswer>,
    /// Everything that was judged, the least first.
    pub tried: Vec<Tried>,
    /// What each of several searches found; empty with one.
    pub searches: Vec<String>,
    /// How much load the answer bears: a multiple of what it was planned for.
    pub safe_load: Option<SafeLoad>,
    /// Goodput and attainment against load, a curve a policy.
    pub curves: Vec<Curve>,
    /// What is needed as the load grows.
    pub growth: Vec<Grown>,
    /// What the price of the answer is made of.
    pub prices: Option<PricesUsed>,
    /// What a reader must know, such as what was not searched.
    pub notes: Vec<String>,
}

/// Whether something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlanVerdict {
    /// The answer keeps every objective.
    Found,
    /// Nothing in the range keeps them all.
    NothingFits,
    /// The most of the range is too close to a limit to tell.
    Undecided,
}

impl PlanVerdict {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            PlanVerdict::Found => "FOUND",
            PlanVerdict::NothingFits => "NOTHING FITS",
            PlanVerdict::Undecided => "UNDECIDED",
        }
    }
    /// The process's exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            PlanVerdict::Found => 0,
            PlanVerdict::NothingFits => 3,
            PlanVerdict::Undecided => 4,
        }
    }
}

/// Equal replicas of one pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Group {
    /// The pool.
    pub pool: String,
    /// What its replicas are, where there is a choice.
    pub option: Option<String>,
    /// How many.
    pub replicas: u32,
}

/// Hardware that was judged under a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tried {
    /// The policy.
    pub policy: String,
    /// The hardware.
    pub hardware: Vec<Group>,
    /// In words: `5 × gpu`.
    pub label: String,
    /// Devices in all.
    pub devices: u32,
    /// What it costs an hour; null without prices.
    pub price_an_hour: Option<f64>,
    /// What it draws at most, in watts; null where it is not known.
    pub power_w: Option<f64>,
    /// What was found.
    pub result: Judged,
    /// Replications it took.
    pub replications: u32,
    /// The objective that is nearest to being missed, or missed by most.
    pub binding: Option<Binding>,
    /// Good ÷ offered: the mean over replications with its interval.
    pub attainment: Estimate,
    /// The 5th and 95th percentile of the attainment of single replications: the risk of one day.
    pub attainment_p5_p95: Option<[f64; 2]>,
}

/// What is found of hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Judged {
    /// Every objective is kept, at the stated confidence.
    Met,
    /// At least one is missed, at the stated confidence.
    Missed,
    /// Too close to a limit to tell with the replications allowed.
    Undecided,
}

impl Judged {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Judged::Met => "met",
            Judged::Missed => "missed",
            Judged::Undecided => "undecided",
        }
    }
}

/// How an objective is kept: the share of the requests within its limit against the share that is
/// promised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Binding {
    /// The class.
    pub class: String,
    /// The objective as written.
    pub objective: String,
    /// Within the limit.
    pub share: f64,
    /// Half of its 95 % interval across replications.
    pub half_width: f64,
    /// What is promised.
    pub wanted: f64,
    /// The value of what the objective limits, the mean over replications.
    pub value: Option<f64>,
}

impl Binding {
    /// `chat ttft_p99 <= 1s: 99.41 ± 0.06 % within, 99 % wanted`.
    pub fn words(&self) -> String {
        format!(
            "{} {}: {} within, {} wanted",
            self.class,
            self.objective,
            share(self.share, self.half_width),
            whole(self.wanted)
        )
    }
}

/// `99.41 ± 0.06 %`, or without its half width where that is nought.
pub fn share(share: f64, half: f64) -> String {
    if half <= 0.0 {
        return whole((share * 1e4).round() / 1e4);
    }
    let digits = (1.0 - (half * 100.0).log10().floor()).clamp(0.0, 4.0);
    let places = digits as usize;
    format!("{:.places$} ± {:.places$} %", share * 100.0, half * 100.0)
}

/// `99 %`, `99.9 %`: without digits that say nothing.
pub fn whole(share: f64) -> String {
    format!("{} %", (share * 1e6).round() / 1e4)
}

/// The least hardware of one policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyAnswer {
    /// The policy.
    pub policy: String,
    /// Its least hardware; null if nothing fits.
    pub label: Option<String>,
    /// Its devices.
    pub devices: Option<u32>,
    /// Its price an hour.
    pub price_an_hour: Option<f64>,
}

/// How much load hardware bears.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SafeLoad {
    /// The largest multiple of the load that was found to be kept.
    pub kept: f64,
    /// The least that was not; null if all that were tried are kept.
    pub not_kept: Option<f64>,
}

/// Goodput and attainment against load, of one policy on one hardware.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Curve {
    /// The policy.
    pub policy: String,
    /// The hardware in words.
    pub label: String,
    /// Rising in load.
    pub points: Vec<CurvePoint>,
    /// Where the goodput stops growing with the load: the load of its maximum, if it was reached.
    pub knee: Option<f64>,
    /// How much load it bears.
    pub safe_load: Option<SafeLoad>,
}

/// A point of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CurvePoint {
    /// A multiple of the load.
    pub load: f64,
    /// Requests offered a second.
    pub offered: f64,
    /// Good requests a second.
    pub goodput: Estimate,
    /// Good ÷ offered.
    pub attainment: Estimate,
}

/// What a grown load needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Grown {
    /// Months from now.
    pub months: u32,
    /// The multiple of the load by then.
    pub load: f64,
    /// The least hardware; null if nothing fits.
    pub label: Option<String>,
    /// Its devices.
    pub devices: Option<u32>,
    /// Its price an hour.
    pub price_an_hour: Option<f64>,
}

/// The table that prices come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PricesUsed {
    /// The table.
    pub table: String,
    /// Its date.
    pub date: String,
    /// Its currency.
    pub currency: String,
}

/// `3.00 USD/h`.
pub fn price(amount: f64, prices: Option<&PricesUsed>) -> String {
    let currency = prices.map_or("", |prices| prices.currency.as_str());
    format!("{amount:.2} {currency}/h")
}

impl Tried {
    /// `5 × gpu (5 devices, 15.00 USD/h)`.
    pub fn words(&self, prices: Option<&PricesUsed>) -> String {
        let devices = match self.devices {
            1 => "1 device".to_owned(),
            more => format!("{} devices", words::count(u64::from(more))),
        };
        match self.price_an_hour {
            Some(amount) => format!("{} ({devices}, {})", self.label, price(amount, prices)),
            None => format!("{} ({devices})", self.label),
        }
    }
}
