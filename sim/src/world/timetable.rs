//! The instants that a run is planned around, on the agenda as one event: the next of them.

use plimsoll_base::{Span, Time};

use crate::model::RunPlan;

/// When the run warms up, is sampled, stops arrivals and stops draining.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timetable {
    /// Not yet warmed up.
    pub warm_up: Option<Time>,
    /// Arrivals still to be ended at this instant.
    pub arrivals_end: Option<Time>,
    /// Known once arrivals have ended.
    pub drain_end: Option<Time>,
    pub sample: Time,
    interval: Span,
    samples: u32,
}

/// Samples before the interval first doubles, and between two doublings.
const ROUND: u32 = 512;

impl Timetable {
    /// The timetable of a planned run. The sampling interval starts fine and doubles every
    /// [`ROUND`] samples, so that their number grows with the logarithm of the run only.
    pub fn new(plan: &RunPlan) -> Timetable {
        let duration = plan.duration;
        let fine = duration.map(|d| Span::from_nanos(d.nanos() / u64::from(ROUND)));
        Timetable {
            warm_up: Some(Time::ZERO + plan.warm_up),
            arrivals_end: duration.map(|d| Time::ZERO + d),
            drain_end: None,
            sample: Time::ZERO,
            interval: fine.unwrap_or(Span::from_millis(250)).max(Span::from_millis(1)),
            samples: 0,
        }
    }

    /// The next instant.
    pub fn next(&self) -> Time {
        let others = [self.warm_up, self.arrivals_end, self.drain_end];
        others.into_iter().flatten().fold(self.sample, Time::min)
    }

    /// The sample of this instant was taken.
    pub fn sampled(&mut self, now: Time) {
        self.samples += 1;
        if self.samples > ROUND && self.samples % ROUND == 1 {
            self.interval = self.interval.saturating_mul(2);
        }
        self.sample = now.saturating_add(self.interval);
    }
}
