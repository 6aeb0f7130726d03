//! How long steps took, put in the place of how long the profile says.

use std::sync::{Arc, Mutex};

use plimsoll_base::{Span, Stream, StreamKey, Ticks, Time};
use plimsoll_config::SpanValue;
use plimsoll_report::validation::StepCheck;
use plimsoll_scenario::calibration::{CalibrationRangeSpec, NEEDED_AT, OverheadSpec};
use plimsoll_sim::engine::{BatchShape, Meets, StepCost, StepTimes, after_rest};
use plimsoll_sim::model::StepCostSpec;

use super::live::LiveRun;
use crate::calibrate::{Fit, Observation, fit};
use crate::device::Step;

/// Measured steps to either side of an instant among which the most alike is sought.
const NEAR: usize = 16;
/// How much a step's distance, in steps, counts against its likeness.
const DISTANCE: f64 = 1e-3;
/// Steps that a fit is made to.
const FIT_MAX: usize = 1_200;
/// Above by so much of what was calibrated is beyond it.
const BEYOND: f64 = 1.1;

/// How long a step takes by the profile, in ns.
pub(super) fn by_profile(cost: &StepCost, shape: BatchShape) -> f64 {
    cost.series(shape).0.first as f64 / Ticks::PER_NANO as f64
}

/// What a request costs beside steps. A server that computes steps and takes requests on the same cores
/// has less time for the latter.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Way {
    /// On its way to an engine that has just become idle.
    idle: Span,
    /// How much longer behind rests, short and long ones.
    rested: [Span; 2],
    /// On its way to an engine that computes: so many parts of requests are there sooner,
    /// [`NEEDED_AT`].
    busy: [Span; NEEDED_AT.len()],
    /// Which part is there at once of those that are sent when another has left its seat.
    at_once: f64,
    /// How much later than the step its first token comes.
    pub first: Span,
}

impl Way {
    pub fn new(overhead: &OverheadSpec) -> Way {
        let OverheadSpec { request, after_idle, after_long_idle, busy, needed, .. } = overhead;
        let of = |span: Option<SpanValue>| span.map_or(Span::ZERO, |span| span.0);
        let busy = busy.unwrap_or(*request).0;
        let first = of(overhead.first_token).min(request.0.min(busy));
        let needed = needed.map(|needed| needed.map(|span| span.0));
        Way {
            idle: request.0 - first,
            rested: [of(*after_idle), of(*after_long_idle)],
            busy: needed.unwrap_or([busy - first; NEEDED_AT.len()]),
            at_once: overhead.at_once.map_or(0.0, |part| part.0),
            first,
        }
    }

    /// Whether it differs from request to request.
    pub fn is_drawn(&self) -> bool {
        self.busy.iter().any(|busy| *busy != self.busy[0]) || self.at_once > 0.0
    }

    /// The way there behind such a rest.
    fn behind(&self, rest: Span) -> Span {
        let parts = after_rest(rest.nanos());
        let longer = self.rested.iter().zip(parts).map(|(span, part)| span.nanos() as f64 * part);
        self.idle + Span::from_nanos(longer.sum::<f64>().round() as u64)
    }

    /// The way there of a request that is faster than such a part of all, where others are computed:
    /// in proportion between the quantiles that are known, and not beyond them.
    fn beside(&self, part: f64) -> Span {
        let above = NEEDED_AT.partition_point(|at| *at <= part);
        let (Some(below), true) = (above.checked_sub(1), above < NEEDED_AT.len()) else {
            return self.busy[above.min(NEEDED_AT.len() - 1)];
        };
        let share = (part - NEEDED_AT[below]) / (NEEDED_AT[above] - NEEDED_AT[below]);
        let more = (self.busy[above] - self.busy[below]).nanos() as f64 * share;
        self.busy[below] + Span::from_nanos(more.round() as u64)
    }
}

/// The ways of a run's requests.
#[derive(Clone, Debug)]
struct Ways {
    way: Way,
    parts: Stream,
}

impl Ways {
    fn new(way: Way, (seed, replication): (u64, u32)) -> Ways {
        let key = StreamKey { seed, replication, name: "ways", entity: 0 };
        Ways { way, parts: Stream::new(key) }
    }

    fn next(&mut self, meets: Meets) -> Span {
        match meets {
            Meets::Rest(rest) => self.way.behind(rest),
            Meets::Boundary if self.parts.uniform() < self.way.at_once => Span::ZERO,
            // Who is not there at once has missed the step that begins now.
            Meets::Boundary => self.way.beside(self.parts.uniform()).max(Span::from_nanos(1)),
            Meets::Step => self.way.beside(self.parts.uniform()),
        }
    }
}

/// Steps as they were measured. A step that the simulation takes is as long as the one that was
/// most like it about the same time, times what the difference of the two makes.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// Start, length and predicted length in ns, in order.
    steps: Vec<(Time, f64, f64)>,
    model: Model,
    ways: Ways,
}

/// What tells a long step from a short one.
#[derive(Clone, Debug)]
enum Model {
    /// Fitted to these very steps.
    Own(Box<Fit>),
    /// The profile's, where there are too few.
    Profile(StepCost),
}

impl Model {
    fn predict(&self, shape: BatchShape) -> f64 {
        let nanos = match self {
            Model::Own(fit) => fit.predict(&observed(shape)),
            Model::Profile(cost) => by_profile(cost, shape),
        };
        nanos.max(1.0)
    }
}

fn observed(shape: BatchShape) -> Observation {
    let mut one = Observation::of(0);
    one.add(shape);
    one
}

/// How long a step took, in ns.
pub(super) fn nanos(step: &Step) -> f64 {
    step.end.saturating_since(step.start).nanos() as f64
}

impl Measured {
    /// Of steps in order of time; `None` if there are none of known shape.
    pub fn new(steps: &[Step], profile: StepCostSpec, way: Way) -> Option<Measured> {
        let observed =
            steps.iter().filter_map(|step| Some((step, Observation::of_traffic(0, step)?)));
        let (known, sample): (Vec<&Step>, Vec<Observation>) = observed.unzip();
        let every = known.len().div_ceil(FIT_MAX).max(1);
        let sample: Vec<Observation> = sample.into_iter().step_by(every).collect();
        let model = match fit(&sample) {
            Ok(fit) => Model::Own(Box::new(fit)),
            Err(_) => Model::Profile(StepCost::new(profile)),
        };
        let steps: Vec<_> = (known.iter())
            .map(|step| (step.start, nanos(step), model.predict(step.shape)))
            .collect();
        (!steps.is_empty()).then(|| Measured { steps, model, ways: Ways::new(way, (0, 0)) })
    }

    /// The same for a run that is drawn by these.
    pub fn drawn(&self, drawn: (u64, u32)) -> Box<Measured> {
        Box::new(Measured { ways: Ways::new(self.ways.way, drawn), ..self.clone() })
    }
}

impl StepTimes for Measured {
    fn span(&mut self, _: u32, start: Time, shape: BatchShape) -> Option<Span> {
        let wanted = self.model.predict(shape);
        let at = self.steps.partition_point(|(begun, ..)| *begun <= start);
        let from = at.saturating_sub(NEAR);
        let near = &self.steps[from..(at + NEAR).min(self.steps.len())];
        let unlike = |index: usize, predicted: f64| {
            let away = (from + index + 1).abs_diff(at) as f64;
            (predicted / wanted).ln().abs() + DISTANCE * away
        };
        let likes = near.iter().enumerate().map(|(index, &(_, took, predicted))| {
            (unlike(index, predicted), took * wanted / predicted)
        });
        let (_, nanos) = likes.min_by(|a, b| a.0.total_cmp(&b.0))?;
        Some(Span::from_nanos(nanos.round().max(1.0) as u64))
    }

    fn way(&mut self, meets: Meets) -> Span {
        self.ways.next(meets)
    }
}

/// As long as the profile says; watches which steps there are.
#[derive(Clone, Debug)]
pub(super) struct Fitted {
    cost: StepCost,
    range: CalibrationRangeSpec,
    ways: Ways,
    /// Time in steps, in those beyond the range, and the largest step: prompt tokens, sequences,
    /// context.
    seen: Arc<Mutex<Seen>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub all: f64,
    pub beyond: f64,
    pub largest: [u64; 3],
}

impl Fitted {
    pub fn new(
        cost: StepCostSpec,
        range: CalibrationRangeSpec,
        way: Way,
    ) -> (Fitted, Arc<Mutex<Seen>>) {
        let seen = Arc::<Mutex<Seen>>::default();
        let ways = Ways::new(way, (0, 0));
        (Fitted { cost: StepCost::new(cost), range, ways, seen: Arc::clone(&seen) }, seen)
    }

    /// The same for a run that is drawn by these.
    pub fn drawn(&self, drawn: (u64, u32)) -> Box<Fitted> {
        Box::new(Fitted { ways: Ways::new(self.ways.way, drawn), ..self.clone() })
    }
}

impl StepTimes for Fitted {
    fn span(&mut self, _: u32, _: Time, shape: BatchShape) -> Option<Span> {
        let nanos = by_profile(&self.cost, shape);
        let mut seen = self.seen.lock().expect("nobody panics while it is held");
        seen.all += nanos;
        if is_beyond(self.range, shape) {
            seen.beyond += nanos;
        }
        let sizes = [shape.prefill, shape.sequences, shape.context];
        for (largest, size) in seen.largest.iter_mut().zip(sizes) {
            *largest = (*largest).max(size);
        }
        None
    }

    fn way(&mut self, meets: Meets) -> Span {
        self.ways.next(meets)
    }
}

fn is_beyond(range: CalibrationRangeSpec, shape: BatchShape) -> bool {
    let beyond = |size: u64, most: u64| size as f64 > most as f64 * BEYOND;
    beyond(shape.prefill, range.prefill_tokens)
        || beyond(shape.sequences, range.sequences)
        || beyond(shape.context, range.context_tokens)
}

/// Sums over the steps of live runs.
#[derive(Debug, Default)]
pub(super) struct Check {
    count: u64,
    /// Whether any were read from tokens, which do not show all.
    misses_some: bool,
    window: f64,
    measured: [f64; 2],
    predicted: [f64; 2],
    beyond: f64,
}

impl Check {
    /// Adds the steps of a run whose arrivals went on for so many seconds.
    pub fn add(
        &mut self,
        (run, window): (&LiveRun, f64),
        cost: &StepCost,
        range: CalibrationRangeSpec,
    ) {
        let steps = &run.steps;
        self.misses_some |= !run.tells_steps;
        // What is left then is drained, and its steps count as well.
        let end = steps.last().map_or(0.0, |step| step.end.secs_f64());
        self.window += window.max(end);
        for step in steps.iter().filter(|step| step.shape.is_known()) {
            let kind = usize::from(step.shape.prefill > 0);
            self.count += 1;
            self.measured[kind] += nanos(step);
            self.predicted[kind] += by_profile(cost, step.shape);
            if is_beyond(range, step.shape) {
                self.beyond += nanos(step);
            }
        }
    }

    /// What they say; `None` without steps.
    pub fn result(&self) -> Option<StepCheck> {
        let measured: f64 = self.measured.iter().sum();
        let error = |kind: usize| {
            (self.measured[kind] > 0.0).then(|| self.predicted[kind] / self.measured[kind] - 1.0)
        };
        (measured > 0.0).then(|| StepCheck {
            count: self.count,
            busy: (!self.misses_some).then_some(measured / 1e9 / self.window),
            error: self.predicted.iter().sum::<f64>() / measured - 1.0,
            decode: error(0),
            prompt: error(1),
            outside: self.beyond / measured,
        })
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_config::FractionValue;

    use super::*;

    fn micros(micros: u64) -> Span {
        Span::from_nanos(micros * 1_000)
    }

    fn overhead(request: u64, busy: Option<u64>) -> OverheadSpec {
        let [request, none] = [request, 0].map(|it| SpanValue(micros(it)));
        OverheadSpec {
            request,
            after_idle: None,
            after_long_idle: None,
            busy: busy.map(|busy| SpanValue(micros(busy))),
            needed: None,
            at_once: None,
            first_token: None,
            accepted: none,
            first_byte: none,
            chunk: none,
            delivery: None,
        }
    }

    #[test]
    fn what_comes_late_behind_the_step_is_no_part_of_the_way_there() {
        let way = |request, busy, first: u64| {
            let first_token = Some(SpanValue(micros(first)));
            let way = Way::new(&OverheadSpec { first_token, ..overhead(request, busy) });
            [way.behind(Span::ZERO), way.beside(0.5), way.first].map(|it| it.nanos() / 1_000)
        };
        assert_eq!(way(369, Some(635), 0), [369, 635, 0]);
        assert_eq!(way(300, None, 60), [240, 240, 60]);
        assert_eq!(way(40, Some(500), 60), [0, 460, 40]);
    }

    #[test]
    fn the_way_there_depends_on_the_rest_or_is_drawn() {
        let span = |it: u64| Some(SpanValue(micros(it)));
        let way = Way::new(&OverheadSpec {
            after_idle: span(1_000),
            after_long_idle: span(8_000),
            needed: Some([0, 50, 150, 550, 750].map(|it| SpanValue(micros(it)))),
            at_once: Some(FractionValue(0.75)),
            ..overhead(250, Some(300))
        });
        assert_eq!(way.behind(Span::ZERO), micros(250));
        let halves = micros(250 + 500 + 8_000 * 60 / 4_060);
        assert!(way.behind(Span::from_millis(60)).nanos().abs_diff(halves.nanos()) < 1_000);
        let beside = [0.0, 0.1, 0.25, 0.3, 0.6, 0.95].map(|part| way.beside(part).nanos());
        assert_eq!(beside, [0, 0, 37_500, 50_000, 350_000, 750_000]);
        assert!(way.is_drawn() && !Way::new(&overhead(400, Some(300))).is_drawn());
        let mut ways = [1, 1, 2].map(|seed| Ways::new(way, (seed, 0)));
        let drawn = ways.each_mut().map(|ways| [(); 20].map(|()| ways.next(Meets::Step)));
        assert!(drawn[0] == drawn[1] && drawn[0] != drawn[2]);
        let at_once = (0..1_000).filter(|_| ways[0].next(Meets::Boundary) == Span::ZERO);
        assert!((700..800).contains(&at_once.count()));
    }
}
