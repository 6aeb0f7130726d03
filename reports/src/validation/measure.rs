//! The numbers of a setting.

use super::numbers::{Blocks, Place, Timed, ks, percentile, relative, sorted};
use super::{Agreement, ClassAgreement, MetricAgreement, Parts, Point, RunPace, StepCheck};

/// What is compared, and whether it is judged.
pub(super) const METRICS: [(&str, bool); 4] =
    [("ttft", true), ("itl", true), ("tpot", false), ("e2e", true)];

/// What was seen of one run: by class, the values of TTFT, ITL, TPOT and E2E.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunSample {
    /// By class, then metric.
    pub classes: Vec<[Vec<Timed>; 4]>,
}

/// The same arrivals, live and simulated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Repetition {
    /// Each live run.
    pub live: Vec<RunSample>,
    /// The same runs as the engine's own steps show them, with what the profile says that lies
    /// between. Empty where the device tells no steps.
    pub engine: Vec<RunSample>,
    /// Simulated with the steps of each live run as long as they were measured. Empty likewise.
    pub replayed: Vec<RunSample>,
    /// Simulated at the pace that the device had in each live run, as far as what is known of it
    /// beside the runs allows for that. Empty likewise.
    pub at_pace: Vec<RunSample>,
    /// Simulated, once for each time that its steps and the pace were drawn.
    pub simulated: Vec<RunSample>,
}

/// All that was seen of a setting.
#[derive(Clone, Debug, PartialEq)]
pub struct SettingSample {
    /// The policy.
    pub policy: String,
    /// As a part of capacity.
    pub load: f64,
    /// Requests a second.
    pub offered: f64,
    /// How long arrivals went on, in seconds.
    pub duration: f64,
    /// Each with its own arrivals.
    pub repetitions: Vec<Repetition>,
    /// How late each request went out, in seconds.
    pub lags: Vec<f64>,
    /// Live requests that count, and those that were answered; simulated ones that were.
    pub counts: [u64; 3],
    /// What the device told of its steps.
    pub steps: Option<StepCheck>,
    /// Whether requests waited for a seat for a third of a run or longer on end.
    pub saturated: bool,
    /// How fast the device was around each live run.
    pub paces: Vec<RunPace>,
}

impl SettingSample {
    /// A class, metric by metric.
    pub(super) fn class(&self, (row, name): (usize, &str), within: f64) -> ClassAgreement {
        let metric = |(column, &(name, judged)): (usize, &(&str, bool))| {
            self.metric((row, column), (name, judged.then_some(within)))
        };
        let metrics = METRICS.iter().enumerate().map(metric).collect();
        ClassAgreement { class: name.to_owned(), metrics }
    }

    fn metric(
        &self,
        (row, column): (usize, usize),
        (name, judged): (&str, Option<f64>),
    ) -> MetricAgreement {
        let cell = |run: &RunSample| sorted(&run.classes[row][column]);
        let pool = |runs: &dyn Fn(&Repetition) -> Vec<&RunSample>| {
            let runs = self.repetitions.iter().flat_map(runs);
            sorted(runs.flat_map(|run| &run.classes[row][column]))
        };
        let live = pool(&|it| it.live.iter().collect());
        let simulated = pool(&|it| it.simulated.iter().collect());
        let engine = pool(&|it| it.engine.iter().collect());
        let replayed = pool(&|it| it.replayed.iter().collect());
        let at_pace = pool(&|it| it.at_pace.iter().collect());
        let blocks = Blocks::new(
            self.repetitions.iter().map(|it| {
                [&it.live, &it.simulated]
                    .map(|runs| runs.iter().map(|run| &run.classes[row][column][..]).collect())
            }),
            self.duration,
        );
        let intervals = blocks.intervals(&Place::ALL);
        let pairs: Vec<[Vec<f64>; 2]> = (self.repetitions.iter())
            .filter_map(|it| Some([cell(it.live.first()?), cell(it.live.get(1)?)]))
            .collect();
        let point = |(place, interval): (&Place, Option<[f64; 2]>)| {
            let (seen, told) = place.of(&live).zip(place.of(&simulated))?;
            let error = relative(seen, told)?;
            let parts = place.of(&engine).zip(place.of(&replayed)).zip(place.of(&at_pace));
            let point = Point {
                at: place.name(),
                live: seen,
                simulated: told,
                error,
                interval,
                floor: floor(*place, &pairs),
                few: place.is_thin(live.len()),
                parts: parts.map(|((engine, replayed), at_pace)| Parts {
                    client: (engine - seen) / seen,
                    scheduler: (replayed - engine) / seen,
                    step_times: (at_pace - replayed) / seen,
                    pace: (told - at_pace) / seen,
                    scheduler_alone: replayed / engine - 1.0,
                }),
                result: None,
            };
            let is_judged = matches!(place, Place::Percentile(part) if *part < 0.95);
            let result = judged.filter(|_| is_judged && !point.few);
            Some(Point { result: result.map(|within| judge(&point, within)), ..point })
        };
        let floors: Vec<f64> = pairs.iter().filter_map(|[a, b]| ks(a, b)).collect();
        MetricAgreement {
            metric: name.to_owned(),
            count: live.len() as u64,
            points: Place::ALL.iter().zip(intervals).filter_map(point).collect(),
            ks: ks(&live, &simulated),
            ks_floor: mean(&floors),
            quantiles: (1..100)
                .filter_map(|part| {
                    let part = f64::from(part) / 100.0;
                    Some([percentile(&live, part)?, percentile(&simulated, part)?])
                })
                .collect(),
        }
    }
}

/// How much two runs with the same arrivals differ, as a part of their mean: on average over the
/// repetitions.
fn floor(place: Place, pairs: &[[Vec<f64>; 2]]) -> Option<f64> {
    let differ = |[a, b]: &[Vec<f64>; 2]| {
        let (a, b) = place.of(a).zip(place.of(b))?;
        (a + b > 0.0).then(|| 2.0 * (a - b).abs() / (a + b))
    };
    mean(&pairs.iter().filter_map(differ).collect::<Vec<_>>())
}

pub(super) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// A number against its limit: what is allowed, or the live noise floor where that is wider.
pub(super) fn judge(point: &Point, within: f64) -> Agreement {
    let floor = point.floor.unwrap_or(0.0);
    if floor > 2.0 * within {
        return Agreement::Noisy;
    }
    let limit = within.max(floor);
    let [low, high] = point.interval.unwrap_or([f64::NEG_INFINITY, f64::INFINITY]);
    match () {
        () if low > limit || high < -limit => Agreement::Disagrees,
        () if -limit <= low && high <= limit => Agreement::Agrees,
        () => Agreement::Unclear,
    }
}
