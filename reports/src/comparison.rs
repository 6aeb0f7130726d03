//! Policies compared: differences, which of them are evidence, and the answer in a sentence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::charts::{self, Chart};
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::summarise::summarise;
use crate::summary::{Estimate, Summary};
use crate::words;

/// The version of the layout of `comparison.json`.
pub const COMPARISON_VERSION: u32 = 1;

/// Several candidates on one workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// The version of this layout.
    pub comparison_version: u32,
    /// The version of the program.
    pub plimsoll: String,
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Replications of every candidate.
    pub replications: u32,
    /// How the intervals were made and what they promise together.
    pub method: String,
    /// The answer, a sentence a candidate.
    pub sentences: Vec<String>,
    /// The candidates; the first is the one that the others are compared with.
    pub candidates: Vec<CandidateSummary>,
    /// Each other candidate against the first, the largest difference first.
    pub differences: Vec<Difference>,
    /// Which candidate is best; absent with two candidates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Best>,
    /// Sentences that a reader must know.
    pub notes: Vec<String>,
    /// Whether each interval holds with 95 % by itself, instead of all together.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub separate: bool,
    /// Objectives, tails and blame of the candidates side by side, for the page alone.
    #[serde(skip)]
    pub beside: Vec<Chart>,
}

/// A candidate whose runs were kept, to be drawn beside others.
#[derive(Clone, Copy, Debug)]
pub struct Exhibit<'a> {
    /// The candidate.
    pub name: &'a str,
    /// What was planned.
    pub plan: &'a Plan,
    /// Its first replications.
    pub ledgers: &'a [Ledger],
}

/// Objectives, tails and blame of candidates side by side, on the same axes (charts 1, 2 and 8).
pub fn beside(exhibits: &[Exhibit<'_>]) -> Vec<Chart> {
    let summaries: Vec<Summary> =
        exhibits.iter().map(|one| summarise(one.plan, one.ledgers, false)).collect();
    let candidates: Vec<_> = (exhibits.iter().zip(&summaries))
        .map(|(one, summary)| (one.name, one.plan, summary, one.ledgers))
        .collect();
    charts::beside(&candidates)
}

/// One of those compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CandidateSummary {
    /// Its name.
    pub name: String,
    /// Its policy in one sentence.
    pub policy: String,
    /// The digest of its scenario.
    pub hash: String,
    /// Classes whose queue grew in most of its replications.
    pub overloaded: Vec<String>,
    /// What was measured.
    pub values: Vec<MeasuredValue>,
}

/// A number of a candidate: the mean over its replications.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MeasuredValue {
    /// The class; null for all requests.
    pub class: Option<String>,
    /// Such as `p99 TTFT`.
    pub measure: String,
    /// Seconds, or a share.
    pub unit: Unit,
    /// Its value with a 95 % Student-t interval of its own.
    pub estimate: Estimate,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Seconds; less is better.
    Seconds,
    /// A share of requests; more is better.
    Share,
}

/// A candidate less the first, in one number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// The candidate.
    pub candidate: String,
    /// The class.
    pub class: String,
    /// Such as `p99 TTFT`.
    pub measure: String,
    /// Of the difference.
    pub unit: Unit,
    /// The first candidate's value.
    pub reference: Option<f64>,
    /// The candidate's value less the first's, the mean over pairs of replications; null where one
    /// of them measured nothing.
    pub difference: Option<f64>,
    /// Its interval; all of them hold together with 95 %.
    pub interval: Option<[f64; 2]>,
    /// Difference ÷ reference.
    pub relative: Option<f64>,
    /// What it says.
    pub evidence: Evidence,
}

/// What a difference says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The candidate is better.
    Better,
    /// The candidate is worse.
    Worse,
    /// No evidence of a difference: the interval holds 0.
    None,
    /// One of the two measured nothing in some replication.
    Unmeasured,
}

impl Evidence {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Evidence::Better => "better",
            Evidence::Worse => "worse",
            Evidence::None => "no evidence",
            Evidence::Unmeasured => "not measured",
        }
    }
}

/// The best of several candidates by one score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Best {
    /// What they were scored by.
    pub score: String,
    /// The best; null if the replications did not suffice.
    pub candidate: Option<String>,
    /// With what probability, if it is better than all others by the indifference zone.
    pub confidence: f64,
    /// A smaller difference of the score was taken not to matter.
    pub indifference: f64,
    /// Replications of those that were left.
    pub replications: u32,
    /// Who was left.
    pub left: Vec<String>,
    /// Who was screened out, after how many replications.
    pub out: Vec<ScreenedOut>,
    /// In words.
    pub sentence: String,
}

/// A candidate that was screened out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScreenedOut {
    /// Its name.
    pub candidate: String,
    /// After how many replications.
    pub after: u32,
}

impl Difference {
    /// Half the interval.
    fn half(&self) -> f64 {
        self.interval.map_or(0.0, |[low, high]| (high - low) / 2.0)
    }
    /// `412 ± 31 ms`, without its sign; `4.1 ± 0.8 points` of a share.
    pub fn amount(&self) -> String {
        match self.unit {
            Unit::Seconds => span(self.difference.unwrap_or(0.0).abs(), self.half()),
            Unit::Share => points(self.difference.unwrap_or(0.0).abs(), self.half()),
        }
    }
    /// `chat p99 TTFT`.
    pub fn name(&self) -> String {
        format!("{} {}", self.class, self.measure)
    }
}

/// `412 ± 31 ms`: both in the unit of the larger, with as many decimals as the half width needs.
pub fn span(value: f64, half: f64) -> String {
    let (unit, scale) = match value.abs().max(half) {
        x if x >= 1.0 => ("s", 1.0),
        x if x >= 1e-3 => ("ms", 1e3),
        _ => ("µs", 1e6),
    };
    format!("{} {unit}", plus_minus(value * scale, half * scale))
}

/// `4.1 ± 0.8 points` of per cent.
pub fn points(value: f64, half: f64) -> String {
    format!("{} points", plus_minus(value * 100.0, half * 100.0))
}

/// Two digits of the half width; three of the value where there is none.
fn plus_minus(value: f64, half: f64) -> String {
    let decimals = |x: f64, digits: i32| {
        (digits - 1 - if x > 0.0 { x.log10().floor() as i32 } else { 0 }).clamp(0, 4) as usize
    };
    match half > 0.0 {
        true => {
            let places = decimals(half, 2);
            format!("{value:.places$} ± {half:.places$}")
        }
        false => format!("{value:.*}", decimals(value.abs(), 3)),
    }
}

/// A sentence on a candidate against the first: what it wins, what it costs, and where there is no
/// evidence.
pub fn sentence(candidate: &str, reference: &str, differences: &[Difference]) -> String {
    let own: Vec<&Difference> =
        differences.iter().filter(|difference| difference.candidate == candidate).collect();
    let of = |evidence: Evidence| own.iter().filter(move |one| one.evidence == evidence);
    // A class is spoken of by its largest difference of each direction.
    let lead = |evidence: Evidence| -> Vec<&Difference> {
        let mut leads: Vec<&Difference> = Vec::new();
        for one in of(evidence) {
            if leads.iter().all(|lead| lead.class != one.class) {
                leads.push(one);
            }
        }
        leads
    };
    let (wins, costs) = (lead(Evidence::Better), lead(Evidence::Worse));
    let classes = |picked: &dyn Fn(&str) -> bool| -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for one in &own {
            if picked(&one.class) && !names.contains(&one.class) {
                names.push(one.class.clone());
            }
        }
        names
    };
    let all = |class: &str, wanted: Evidence| {
        own.iter().filter(|one| one.class == class).all(|one| one.evidence == wanted)
    };
    let silent = classes(&|class| all(class, Evidence::None));
    let unmeasured = classes(&|class| all(class, Evidence::Unmeasured));
    let amounts = |leads: &[&Difference], costs: bool| {
        let one = |lead: &&Difference| match costs {
            false => format!("for {} by {}", lead.name(), lead.amount()),
            true => format!("{} {}", lead.name(), lead.amount()),
        };
        words::list(&leads.iter().map(one).collect::<Vec<_>>())
    };
    let mut text = match (wins.is_empty(), costs.is_empty()) {
        (false, true) => format!("{candidate} beats {reference} {}", amounts(&wins, false)),
        (false, false) => format!(
            "{candidate} beats {reference} {} and costs {}",
            amounts(&wins, false),
            amounts(&costs, true)
        ),
        (true, false) => format!("{reference} beats {candidate} {}", amounts(&costs, false)),
        (true, true) => format!("no evidence of a difference between {candidate} and {reference}"),
    };
    let differs = !wins.is_empty() || !costs.is_empty();
    if differs && !silent.is_empty() {
        text.push_str(&format!("; no evidence of a difference for {}", words::list(&silent)));
    }
    if !unmeasured.is_empty() {
        text.push_str(&format!("; nothing was measured for {}", words::list(&unmeasured)));
    }
    text.push('.');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_the_digits_of_their_uncertainty() {
        for (got, expected) in [
            (span(0.412_3, 0.031), "412 ± 31 ms"),
            (span(0.0, 0.000_02), "0 ± 20 µs"),
            (span(75.31, 4.2), "75.3 ± 4.2 s"),
            (span(0.005, 0.0), "5.00 ms"),
            (points(0.041, 0.008), "4.10 ± 0.80 points"),
            (points(0.4, 0.12), "40 ± 12 points"),
        ] {
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn the_answer_is_one_sentence() {
        let one = |class: &str, difference, evidence| Difference {
            candidate: "vtc".to_owned(),
            class: class.to_owned(),
            measure: "p99 TTFT".to_owned(),
            unit: Unit::Seconds,
            reference: Some(1.0),
            difference: Some(difference),
            interval: Some([difference - 0.031, difference + 0.031]),
            relative: Some(difference),
            evidence,
        };
        let chat = one("chat", -0.412, Evidence::Better);
        let batch = one("batch", 0.1, Evidence::Worse);
        let agents = one("agents", 0.01, Evidence::None);
        let check = |differences: &[&Difference], expected: &str| {
            let differences: Vec<Difference> =
                differences.iter().map(|&difference| difference.clone()).collect();
            assert_eq!(sentence("vtc", "fcfs", &differences), expected);
        };
        check(
            &[&chat, &batch, &agents],
            "vtc beats fcfs for chat p99 TTFT by 412 ± 31 ms and costs batch p99 TTFT 100 ± 31 ms; \
             no evidence of a difference for agents.",
        );
        check(&[&batch], "fcfs beats vtc for batch p99 TTFT by 100 ± 31 ms.");
        check(&[&agents], "no evidence of a difference between vtc and fcfs.");
    }
}
