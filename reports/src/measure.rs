//! Single numbers of single replications: what studies compare and judge.

use plimsoll_base::{Metric, Objective, Span};

use crate::estimate::{View, percentile};
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::summarise::merged;
use crate::tally::{Outcomes, Tally};
use crate::verdict::{overload, view};
use crate::words;

/// Nine significant digits: what lies beyond is rounding, and differs between platforms.
pub fn tidy(x: f64) -> f64 {
    crate::estimate::tidy(x)
}

/// One number of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measure {
    /// The class that it is of; `None` for all requests.
    pub class: Option<usize>,
    /// What of it.
    pub kind: Kind,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A percentile of a latency, in seconds.
    Percentile(Metric, f64),
    /// The mean end-to-end latency, in seconds.
    MeanE2e,
    /// Good ÷ offered.
    Attainment,
}

impl Kind {
    /// Whether a smaller value is better.
    pub fn less_is_better(self) -> bool {
        match self {
            Kind::Percentile(..) | Kind::MeanE2e => true,
            Kind::Attainment => false,
        }
    }
    /// Whether it is a share, not a time.
    pub fn is_share(self) -> bool {
        self == Kind::Attainment
    }
    /// `p99 TTFT`.
    pub fn name(self) -> String {
        match self {
            Kind::Percentile(metric, p) => format!("{} {}", words::percentile(p), metric.name()),
            Kind::MeanE2e => "mean E2E".to_owned(),
            Kind::Attainment => "attainment".to_owned(),
        }
    }
}

impl Measure {
    /// `chat p99 TTFT`.
    pub fn name(&self, plan: &Plan) -> String {
        match self.class {
            Some(row) => format!("{} {}", plan.names.classes[row], self.kind.name()),
            None => format!("{} of all requests", self.kind.name()),
        }
    }
}

/// What is looked at where runs are compared: each class's objectives, and its attainment where it
/// has any; the p99 of TTFT and the mean latency where it has none.
pub fn measures(plan: &Plan) -> Vec<Measure> {
    let mut measures: Vec<Measure> = Vec::new();
    for (row, class) in plan.classes.iter().enumerate() {
        let mut add = |kind| {
            let measure = Measure { class: Some(row), kind };
            if !measures.contains(&measure) {
                measures.push(measure);
            }
        };
        for objective in &class.objectives {
            match objective.metric {
                Metric::Attainment => add(Kind::Attainment),
                Metric::Ttft | Metric::Tpot | Metric::E2e | Metric::Queue => {
                    add(Kind::Percentile(objective.metric, objective.percentile));
                }
            }
        }
        match class.objectives.is_empty() {
            true => {
                add(Kind::Percentile(Metric::Ttft, 99.0));
                add(Kind::MeanE2e);
            }
            false => add(Kind::Attainment),
        }
    }
    measures
}

/// What a whole run is scored by: the share of all requests that were good, or where nothing is
/// promised the mean latency of all.
pub fn score(plan: &Plan) -> Measure {
    let promised = plan.classes.iter().any(|class| !class.objectives.is_empty());
    let kind = if promised { Kind::Attainment } else { Kind::MeanE2e };
    Measure { class: None, kind }
}

/// The values of these measures in one replication; `None` where nothing was measured. What was
/// cut off by the end of the run weighs in with what it had waited.
pub fn values(measures: &[Measure], ledger: &Ledger) -> Vec<Option<f64>> {
    let tallies = ledger.tallies();
    let all = measures.iter().any(|measure| measure.class.is_none()).then(|| merged(&tallies));
    let of = |measure: &Measure| {
        let tally = match measure.class {
            Some(row) => &tallies[row],
            None => all.as_ref().expect("it was merged"),
        };
        value(measure.kind, tally)
    };
    measures.iter().map(of).collect()
}

fn value(kind: Kind, tally: &Tally) -> Option<f64> {
    match kind {
        Kind::Percentile(metric, p) => {
            percentile(view(metric, tally), p).map(|(nanos, _)| nanos as f64 / 1e9)
        }
        Kind::MeanE2e => {
            let (seen, cut) = (&tally.e2e.observed, &tally.e2e.censored);
            let count = seen.count() + cut.count();
            (count > 0).then(|| (seen.sum_nanos() + cut.sum_nanos()) / count as f64 / 1e9)
        }
        Kind::Attainment => {
            let offered = tally.outcomes.arrived;
            (offered > 0).then(|| tally.good as f64 / offered as f64)
        }
    }
}

/// How one objective was kept in one replication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Requests that certainly were within the limit.
    pub within: u64,
    /// Requests that it speaks of.
    pub of: u64,
}

/// An objective of a class, with the class's row.
pub fn promises(plan: &Plan) -> Vec<(usize, &Objective)> {
    let of = |(row, class)| {
        let class: &crate::plan::ClassPlan = class;
        class.objectives.iter().map(move |objective| (row, objective))
    };
    plan.classes.iter().enumerate().flat_map(of).collect()
}

/// The part of the requests that must be within the limit of an objective.
pub fn wanted(objective: &Objective) -> f64 {
    match objective.metric {
        Metric::Attainment => objective.limit,
        Metric::Ttft | Metric::Tpot | Metric::E2e | Metric::Queue => objective.percentile / 100.0,
    }
}

/// How each of [`promises`] was kept in one replication. A percentile keeps its limit if the part
/// of the requests within the limit reaches it. Of a request that the end of the run cut off nobody
/// knows: it counts as one that was not within.
pub fn kept(plan: &Plan, ledger: &Ledger) -> Vec<Kept> {
    let tallies = ledger.tallies();
    promises(plan).iter().map(|&(row, objective)| keeps(objective, &tallies[row])).collect()
}

fn keeps(objective: &Objective, tally: &Tally) -> Kept {
    if objective.metric == Metric::Attainment {
        return Kept { within: tally.good, of: tally.outcomes.arrived };
    }
    let view: View<'_> = view(objective.metric, tally);
    let seen = view.observed.count();
    let limit = Span::from_secs_f64(objective.limit).nanos();
    let cut = view.censored.map_or(0, |censored| censored.count());
    Kept { within: seen - view.observed.count_above(limit), of: seen + cut }
}

/// Classes whose queue grew for as long as requests arrived, in one replication.
pub fn overloaded(plan: &Plan, ledger: &Ledger) -> Vec<usize> {
    let one = std::slice::from_ref(ledger);
    (0..plan.classes.len()).filter(|&row| overload(one, Some(row)).is_some()).collect()
}

/// How a run did as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Served {
    /// Offered, finished within all limits, refused.
    pub offered: u64,
    /// Finished within every limit.
    pub good: u64,
    /// Declined by the policy.
    pub refused: u64,
    /// Measured seconds of arrivals.
    pub seconds: f64,
}

/// What was offered in one replication and how much of it was good.
pub fn served(ledger: &Ledger) -> Served {
    let mut all = Outcomes::default();
    let tallies = ledger.tallies();
    tallies.iter().for_each(|tally| all.merge(&tally.outcomes));
    let (from, to) = crate::verdict::arrivals_window(ledger);
    Served {
        offered: all.arrived,
        good: tallies.iter().map(|tally| tally.good).sum(),
        refused: all.refused.iter().sum(),
        seconds: (to - from).secs_f64(),
    }
}
