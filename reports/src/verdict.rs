//! Objectives met or missed, queues that grow.

use plimsoll_base::{Metric, Objective, Time};

use crate::estimate::{View, estimate, percentile, proportion};
use crate::interval::wilson;
use crate::ledger::Ledger;
use crate::summary::{Estimate, ObjectiveResult, ObjectiveVerdict, Overload, Verdict};
use crate::tally::Tally;

/// A percentile is the middle of a bucket, at most 0.049 % from the true value: one that lies that
/// close to its limit may be the limit itself, and meets it.
const SAME: f64 = 1.000_5;

/// Arrivals and closes within the second half of the measured arrivals of one replication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Half {
    arrived: u64,
    closed: u64,
    /// How many more waited at its end than at its middle; `None` if nothing was sampled.
    waiting: Option<i64>,
}

impl Half {
    /// The rule: fewer than 95 % of the arrived closed, the backlog grew by more than three
    /// standard deviations of a Poisson count, and at least half of the growth waits (a run
    /// shorter than its requests fills seats and is not overloaded).
    fn grows(&self) -> bool {
        let growth = self.arrived as f64 - self.closed as f64;
        (self.closed as f64) < 0.95 * self.arrived as f64
            && growth > 3.0 * (self.arrived as f64).sqrt()
            && self.waiting.is_none_or(|waiting| waiting as f64 >= growth / 2.0)
    }
}

fn second_half(ledger: &Ledger, row: usize) -> Option<Half> {
    let end = ledger.arrivals_ended?;
    let from = ledger.measured_from();
    let (at_end, waiting) = ledger.classes[row].at_end?;
    let middle =
        (from + plimsoll_base::Span::from_nanos(end.saturating_since(from).nanos() / 2)).nanos();
    let series = ledger.series();
    let width = series.width().nanos();
    // The nearest edge of a bin: there are more than a hundred in the window.
    let edge = ((middle + width / 2) / width) as usize;
    let bins = series.class_bins(row);
    let before = &bins[..edge.min(bins.len())];
    let arrived: u64 = before.iter().map(|bin| bin.arrived).sum();
    let closed: u64 = before.iter().map(|bin| bin.closed).sum();
    let gauge = before.iter().rev().find(|bin| bin.samples > 0);
    Some(Half {
        arrived: at_end.arrived - arrived,
        closed: at_end.settled().saturating_sub(closed),
        waiting: gauge
            .map(|bin| waiting as i64 - ((bin.queued + bin.engine_waiting) / bin.samples) as i64),
    })
}

/// Whether the queue of a class, or of all (`None`), grew in most of the replications.
pub(crate) fn overload(ledgers: &[Ledger], row: Option<usize>) -> Option<Overload> {
    let half = |ledger: &Ledger| match row {
        Some(row) => second_half(ledger, row),
        None => {
            let rows = (0..ledger.classes.len()).map(|row| second_half(ledger, row));
            rows.reduce(|a, b| {
                let (a, b) = (a?, b?);
                Some(Half {
                    arrived: a.arrived + b.arrived,
                    closed: a.closed + b.closed,
                    waiting: match (a.waiting, b.waiting) {
                        (Some(a), Some(b)) => Some(a + b),
                        (one, other) => one.or(other),
                    },
                })
            })?
        }
    };
    let growing: Vec<Half> = ledgers.iter().filter_map(half).filter(Half::grows).collect();
    (growing.len() * 2 > ledgers.len()).then(|| Overload {
        arrived: growing[0].arrived,
        closed: growing[0].closed,
        replications: growing.len() as u32,
    })
}

/// The instants of a ledger's measured arrivals, for charts.
pub(crate) fn arrivals_window(ledger: &Ledger) -> (Time, Time) {
    (ledger.measured_from(), ledger.arrivals_ended.unwrap_or(ledger.now()))
}

/// Judges one objective of one class.
pub(crate) fn judge(
    class: &str,
    objective: &Objective,
    (pooled, each): (&Tally, &[&Tally]),
) -> ObjectiveResult {
    let limit = objective.limit;
    let (value, result, note) = match objective.metric {
        Metric::Attainment => {
            let pairs: Vec<(u64, u64)> =
                each.iter().map(|tally| (tally.good, tally.outcomes.arrived)).collect();
            let share = proportion(&pairs);
            let value =
                Estimate { value: share.value, interval: share.interval, ..Estimate::default() };
            let (result, note) =
                decide(&value, |x| x >= limit, share.wilson.filter(|_| share.of < 30), limit);
            (value, result, note)
        }
        Metric::Ttft | Metric::Tpot | Metric::E2e | Metric::Queue => {
            judge_percentile(objective, pooled, each)
        }
    };
    ObjectiveResult {
        class: class.to_owned(),
        text: objective.text.clone(),
        metric: objective.metric,
        percentile: (objective.metric != Metric::Attainment).then_some(objective.percentile),
        limit,
        value,
        result,
        note,
    }
}

/// An objective on what the facts do not tell.
pub(crate) fn unobserved(class: &str, objective: &Objective) -> ObjectiveResult {
    ObjectiveResult {
        class: class.to_owned(),
        text: objective.text.clone(),
        metric: objective.metric,
        percentile: Some(objective.percentile),
        limit: objective.limit,
        value: Estimate::default(),
        result: ObjectiveVerdict::Inconclusive,
        note: Some("not observed: the log tells no first tokens".to_owned()),
    }
}

pub(crate) fn view(metric: Metric, tally: &Tally) -> View<'_> {
    match metric {
        Metric::Ttft => View::from(&tally.ttft),
        Metric::Tpot => View::from(&tally.tpot),
        Metric::E2e => View::from(&tally.e2e),
        Metric::Queue => View::from(&tally.queue),
        Metric::Attainment => unreachable!("attainment is a share, not a percentile"),
    }
}

fn judge_percentile(
    objective: &Objective,
    pooled: &Tally,
    each: &[&Tally],
) -> (Estimate, ObjectiveVerdict, Option<String>) {
    let at = |tally| percentile(view(objective.metric, tally), objective.percentile);
    let secs = |(nanos, _): (u64, bool)| nanos as f64 / 1e9;
    let found = at(pooled);
    let values: Vec<Option<f64>> = each.iter().map(|tally| at(tally).map(secs)).collect();
    let all = view(objective.metric, pooled);
    let count = all.observed.count() + all.censored.map_or(0, |spans| spans.count());
    let beyond = 1.0 - objective.percentile / 100.0;
    let few = (count as f64) * beyond < 10.0 - 1e-6;
    let value = Estimate {
        at_least: found.is_some_and(|(_, more)| more),
        few_samples: count > 0 && few,
        ..estimate(found.map(secs), &values)
    };
    if found.is_none() {
        // A class that was refused or never produced two tokens has nothing to measure; where it
        // finished requests with an undefined TPOT, those keep their limit.
        let undefined = objective.metric == Metric::Tpot && pooled.tpot_undefined > 0;
        return if undefined {
            (value, ObjectiveVerdict::Pass, Some("no request had two tokens".to_owned()))
        } else {
            (value, ObjectiveVerdict::Inconclusive, Some("never measured".to_owned()))
        };
    }
    // With few samples beyond the percentile it is itself uncertain; how many lie above the
    // limit decides, if it can.
    let limit = plimsoll_base::Span::from_secs_f64(objective.limit).nanos();
    let above = all.observed.count_above(limit) + all.censored.map_or(0, |s| s.count_above(limit));
    let share_within = wilson(count - above, count).filter(|_| few);
    let (result, note) =
        decide(&value, |x| x <= objective.limit * SAME, share_within, objective.percentile / 100.0);
    (value, result, note)
}

/// Decides by the interval across replications, or by the value where there is one replication.
/// `share` is the interval of the share of requests within the limit, given where samples are
/// few, and `wanted` the share that is promised.
fn decide(
    value: &Estimate,
    met: impl Fn(f64) -> bool,
    share: Option<[f64; 2]>,
    wanted: f64,
) -> (ObjectiveVerdict, Option<String>) {
    use ObjectiveVerdict::{Fail, Inconclusive, Pass};
    let Some(point) = value.value else {
        return (Inconclusive, Some("never measured".to_owned()));
    };
    if share.is_some_and(|[low, high]| low < wanted && wanted <= high) {
        return (Inconclusive, Some("too few samples to tell".to_owned()));
    }
    if let Some([low, high]) = value.interval
        && met(low) != met(high)
    {
        return (Inconclusive, Some("the interval straddles the limit".to_owned()));
    }
    match (met(point), value.at_least) {
        (false, _) => (Fail, one(value)),
        (true, true) => {
            (Inconclusive, Some("requests that the run cut off could still miss it".to_owned()))
        }
        (true, false) => (Pass, one(value)),
    }
}

fn one(value: &Estimate) -> Option<String> {
    value
        .interval
        .is_none()
        .then(|| "one replication: the value decides, without interval".to_owned())
}

/// The verdict on the run.
pub(crate) fn verdict(objectives: &[ObjectiveResult], overloaded: bool) -> Verdict {
    let any = |wanted| objectives.iter().any(|objective| objective.result == wanted);
    if any(ObjectiveVerdict::Fail) {
        Verdict::Fail
    } else if overloaded {
        Verdict::Overloaded
    } else if any(ObjectiveVerdict::Inconclusive) {
        Verdict::Inconclusive
    } else if objectives.is_empty() {
        Verdict::Done
    } else {
        Verdict::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_follows_the_objectives() {
        use ObjectiveVerdict::{Fail, Inconclusive, Pass};
        let check = |results: &[ObjectiveVerdict], overloaded, expected: Verdict, code| {
            let objectives: Vec<ObjectiveResult> = (results.iter())
                .map(|&result| ObjectiveResult {
                    class: "chat".to_owned(),
                    text: String::new(),
                    metric: Metric::Ttft,
                    percentile: Some(99.0),
                    limit: 1.0,
                    value: Estimate::default(),
                    result,
                    note: None,
                })
                .collect();
            let got = verdict(&objectives, overloaded);
            assert_eq!((got, got.exit_code()), (expected, code), "{results:?} {overloaded}");
        };
        check(&[], false, Verdict::Done, 0);
        check(&[Pass, Pass], false, Verdict::Pass, 0);
        check(&[Pass, Fail], false, Verdict::Fail, 3);
        check(&[Inconclusive, Fail], false, Verdict::Fail, 3);
        check(&[Fail], true, Verdict::Fail, 3);
        check(&[Inconclusive, Pass], false, Verdict::Inconclusive, 4);
        check(&[], true, Verdict::Overloaded, 4);
        check(&[Pass], true, Verdict::Overloaded, 4);
    }

    #[test]
    fn an_objective_is_decided_by_the_interval_or_says_why_not() {
        use ObjectiveVerdict::{Fail, Inconclusive, Pass};
        let check = |value, interval, at_least, share: Option<[f64; 2]>, expected| {
            let value = Estimate { value, interval, at_least, few_samples: share.is_some() };
            let (got, note) = decide(&value, |x| x <= 0.5, share, 0.99);
            assert_eq!(got, expected, "{value:?} {note:?}");
        };
        check(None, None, false, None, Inconclusive);
        check(Some(0.4), None, false, None, Pass);
        check(Some(0.5), None, false, None, Pass);
        check(Some(0.6), None, false, None, Fail);
        check(Some(0.4), Some([0.3, 0.45]), false, None, Pass);
        check(Some(0.4), Some([0.3, 0.55]), false, None, Inconclusive);
        check(Some(0.7), Some([0.6, 0.8]), false, None, Fail);
        check(Some(0.4), None, true, None, Inconclusive);
        check(Some(0.6), None, true, None, Fail);
        check(Some(0.4), None, false, wilson(100, 100), Inconclusive);
        check(Some(0.4), None, false, wilson(500, 500), Pass);
        check(Some(0.6), None, false, wilson(90, 100), Fail);
    }

    #[test]
    fn a_queue_grows_or_does_not() {
        for (arrived, closed, waiting, expected) in [
            (1000, 990, Some(10), false),
            (1000, 800, Some(190), true),
            (1000, 800, None, true),
            // The seats fill up, nothing waits.
            (1000, 800, Some(20), false),
            // Too few to tell from chance.
            (20, 10, Some(10), false),
            (0, 0, Some(0), false),
        ] {
            let half = Half { arrived, closed, waiting };
            assert_eq!(half.grows(), expected, "{half:?}");
        }
    }
}
