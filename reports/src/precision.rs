//! How many replications a stated precision takes.

use crate::estimate::tidy;
use crate::summary::{Estimate, PrecisionSummary, Summary};

/// A relative precision: every 95 % interval that counts is to reach at most so far from its
/// value, as a part of the value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Precision {
    /// The part, above 0; 0.02 for 2 %.
    pub relative: f64,
    /// Replications at most.
    pub most: u32,
}

impl Precision {
    /// Replications that are always run: fewer say too little of their own variance to stop by.
    pub const PILOT: u32 = 10;

    /// How many replications are wanted after those of `summary`; as many as it has if no more
    /// are. The number follows from the results alone, so that any number of threads stops at the
    /// same one. Rounds at most double, so that an early large variance costs little.
    ///
    /// Source: A. M. Law, "Simulation Modeling and Analysis", 5th edition (2015), section 9.4.1.
    pub fn wanted(&self, summary: &Summary) -> u32 {
        let done = summary.scenario.replications;
        let Some((_, widest)) = widest(summary) else { return done };
        if widest <= self.relative || done >= self.most {
            return done;
        }
        let ratio = widest / self.relative;
        let needed = (f64::from(done) * ratio * ratio).ceil();
        (needed.min(f64::from(done * 2)) as u32).clamp(done + 2, self.most.max(done))
    }

    /// What was reached.
    pub fn outcome(&self, summary: &Summary) -> PrecisionSummary {
        let widest = widest(summary);
        let reached = widest.as_ref().is_some_and(|(_, widest)| *widest <= self.relative);
        let done = summary.scenario.replications;
        let note = match &widest {
            None => "nothing was measured whose precision could be judged".to_owned(),
            Some((name, width)) => format!(
                "after {done} replications the widest interval, of {name}, is ± {:.2} %{}",
                width * 100.0,
                if reached { "" } else { ": the precision was not reached" }
            ),
        };
        PrecisionSummary {
            relative: self.relative,
            reached,
            widest: widest.map(|(_, width)| tidy(width)),
            note,
        }
    }
}

/// The number with the widest interval for its size: of each objective, and of the mean latency of
/// each class without one.
fn widest(summary: &Summary) -> Option<(String, f64)> {
    let of = |name: String, estimate: &Estimate| {
        let (value, [low, high]) = (estimate.value?, estimate.interval?);
        let half = (high - low) / 2.0;
        (half > 0.0 || value > 0.0).then(|| (name, if half == 0.0 { 0.0 } else { half / value }))
    };
    let objectives = summary.objectives.iter().filter_map(|objective| {
        let name = format!("{} {}", objective.class, crate::words::metric(objective));
        of(name, &objective.value)
    });
    let without = summary
        .classes
        .iter()
        .filter(|class| summary.objectives.iter().all(|objective| objective.class != class.name));
    let means = without.filter_map(|class| {
        of(format!("{} mean E2E", class.name), &class.numbers.latency.e2e.mean)
    });
    objectives.chain(means).max_by(|a, b| a.1.total_cmp(&b.1))
}
