//! The same requests, simulated.

use plimsoll_base::{ClassId, Fact, Observer, RequestRecord, Span, Ticks, Time};
use plimsoll_report::validation::Timed;
use plimsoll_sim::engine::StepTimes;
use plimsoll_sim::{Model, Run};

use super::ValidateError;
use super::arrivals::{Arrival, sources};

/// Events between two looks at whether it is over.
const PORTION: u64 = 1 << 16;

/// What happened.
#[derive(Debug, Default)]
pub(super) struct Simulated {
    pub requests: Vec<RequestRecord>,
    /// Gaps between tokens.
    pub gaps: Vec<(ClassId, Timed)>,
}

impl Observer for Simulated {
    fn observe(&mut self, now: Time, fact: &Fact) {
        match *fact {
            Fact::Closed(record) => self.requests.push(record),
            Fact::Gaps { class, first, increment, count, sequences } => {
                for step in 0..count {
                    let ticks = first.0 + increment.0 * step;
                    let value = ticks as f64 / Ticks::PER_NANO as f64 / 1e9;
                    let gap = (class, Timed { at: now.secs_f64(), value });
                    self.gaps.extend(std::iter::repeat_n(gap, sequences as usize));
                }
            }
            Fact::Arrived { .. }
            | Fact::Dispatched { .. }
            | Fact::Bound { .. }
            | Fact::Started { .. }
            | Fact::Preempted { .. }
            | Fact::Handed { .. }
            | Fact::BackendSampled { .. }
            | Fact::ClassSampled { .. }
            | Fact::Alarmed(_)
            | Fact::Advised(_)
            | Fact::WarmedUp
            | Fact::ArrivalsEnded
            | Fact::RunEnded => {}
        }
    }
}

impl Simulated {
    /// How many requests backends computed at a time, on average over such a time.
    pub fn at_a_time(&self, window: Span) -> f64 {
        let served = |record: &RequestRecord| {
            record.started.map_or(0.0, |started| record.closed.saturating_since(started).secs_f64())
        };
        self.requests.iter().map(served).sum::<f64>() / window.secs_f64()
    }
}

/// Simulates these requests under the scenario's policy, with steps as long as `steps` say.
pub(super) fn simulate(
    model: &Model,
    (arrivals, drawn): (&[Arrival], (u64, u32)),
    steps: Box<dyn StepTimes>,
) -> Result<Simulated, ValidateError> {
    let sources = sources(arrivals, model.workloads.len());
    let run = Run::start_timed(model, (sources, drawn), (Simulated::default(), steps));
    let mut run = run.map_err(|error| ValidateError::Scenario(error.to_string()))?;
    while !run.advance(PORTION).done {}
    run.finish().map_err(|error| ValidateError::Scenario(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use plimsoll_scenario::{Scenario, load};
    use plimsoll_sim::engine::{BatchShape, Meets, StepCost};

    use super::super::arrivals::draw;
    use super::super::steps::{Measured, Way, by_profile};
    use super::*;
    use crate::device::Step;

    /// Writes down which steps there were, by the model.
    struct Recording(StepCost, Arc<Mutex<Vec<Step>>>);

    impl StepTimes for Recording {
        fn span(&mut self, _: u32, start: Time, shape: BatchShape) -> Option<Span> {
            let span = Span::from_nanos(by_profile(&self.0, shape).ceil() as u64);
            let end = start + span;
            let step = Step { start, end, delivered: end, shape };
            self.1.lock().expect("nobody panics while it is held").push(step);
            Some(span)
        }
    }

    fn quick() -> Scenario {
        let set = ["run.duration=60s", "run.warm_up=0s"].map(str::to_owned);
        load(Path::new("shipped:quickstart"), &set).expect("it is shipped")
    }

    /// Arrival, first token and end of each request in ns, and the sum of its gaps.
    fn fates(run: &Simulated) -> (Vec<[u64; 3]>, usize) {
        let fate = |record: &RequestRecord| {
            let first = record.first_token.map_or(0, Time::nanos);
            [record.arrived.nanos(), first, record.closed.nanos()]
        };
        (run.requests.iter().map(fate).collect(), run.gaps.len())
    }

    #[test]
    fn requests_that_were_drawn_are_those_of_the_scenario() {
        struct Model;
        impl StepTimes for Model {
            fn span(&mut self, _: u32, _: Time, _: BatchShape) -> Option<Span> {
                None
            }
        }
        let scenario = quick();
        let sources = scenario.sources(7, 2).expect("they open");
        let mut own = Run::start(&scenario.model, sources, Simulated::default()).expect("it runs");
        while !own.advance(PORTION).done {}
        let own = own.finish().expect("generators do not break");
        let arrivals = draw(&scenario, (7, 2), 1.0).expect("it draws");
        let drawn =
            simulate(&scenario.model, (&arrivals, (1, 0)), Box::new(Model)).expect("it runs");
        assert!(drawn.requests.len() > 100);
        assert_eq!(fates(&drawn), fates(&own));
        // Twice as fast, twice as many in the same time.
        let fast = draw(&scenario, (7, 2), 2.0).expect("it draws").len() as f64;
        assert!((1.7..2.3).contains(&(fast / arrivals.len() as f64)), "{fast}");
    }

    #[test]
    fn a_request_enters_no_step_before_it_is_there() {
        struct Late(u64);
        impl StepTimes for Late {
            fn span(&mut self, _: u32, _: Time, _: BatchShape) -> Option<Span> {
                None
            }
            fn way(&mut self, meets: Meets) -> Span {
                Span::from_millis(if meets == Meets::Step { 3 * self.0 } else { self.0 })
            }
        }
        let scenario = quick();
        let arrivals = draw(&scenario, (1, 0), 1.0).expect("it draws");
        let ttfts = |way: u64| {
            let run = simulate(&scenario.model, (&arrivals, (1, 0)), Box::new(Late(way)));
            let mut requests = run.expect("it runs").requests;
            requests.sort_by_key(|record| record.arrived);
            let ttft = |record: &RequestRecord| record.ttft().expect("it was answered").nanos();
            requests.iter().map(ttft).collect::<Vec<u64>>()
        };
        let (at_once, late) = (ttfts(0), ttfts(2));
        assert_eq!(late[0], at_once[0] + 2_000_000, "the first meets an engine at rest");
        let mean = |all: &[u64]| all.iter().sum::<u64>() as f64 / all.len() as f64 / 1e6;
        // Most meet one that computes; what they miss besides is a part of a step.
        let more = mean(&late) - mean(&at_once);
        assert!((3.0..20.0).contains(&more), "{more} ms");
    }

    #[test]
    fn steps_that_were_measured_give_the_same_run_again() {
        let scenario = quick();
        let cost = scenario.model.pools[0].engine.step_cost;
        let arrivals = draw(&scenario, (1, 0), 1.0).expect("it draws");
        let steps = Arc::<Mutex<Vec<Step>>>::default();
        let recording = Recording(StepCost::new(cost), Arc::clone(&steps));
        let first =
            simulate(&scenario.model, (&arrivals, (1, 0)), Box::new(recording)).expect("it runs");
        let steps = steps.lock().expect("nobody panics while it is held").clone();
        assert!(steps.len() > 1_000);
        let measured = Measured::new(&steps, cost, Way::default()).expect("there are steps");
        let again =
            simulate(&scenario.model, (&arrivals, (1, 0)), Box::new(measured)).expect("it runs");
        assert_eq!(fates(&again), fates(&first));
    }
}
