//! The verdict, and what is at fault.

use super::measure::{METRICS, SettingSample, judge, mean};
use super::{
    Agreement, ClassAgreement, Fault, MetricAgreement, Pace, Point, Ranking, Setting, StepCheck,
    StepPace, Validation, ValidationVerdict,
};
use crate::words;

/// Requests are late where one in a hundred is by more than this.
const LAG_MAX: f64 = 1e-3;
/// And that matters where one in ten is by more than so much of the error that is allowed of the
/// least median TTFT: percentiles up to the 90th are judged.
const LAG_PART: f64 = 0.25;
/// So much of the time may be spent in steps that the profile was not fitted to.
const OUTSIDE_MAX: f64 = 0.05;

/// A device whose steps take longer or shorter than when it was calibrated by more than this part is
/// not the device that was calibrated.
pub const DRIFT_MAX: f64 = 0.2;

/// Judges what was seen. `open` holds all that needs no judging: verdict, cause, sentences, settings
/// and rankings of it are replaced.
pub fn validation(open: Validation, classes: &[String], samples: &[SettingSample]) -> Validation {
    let within = open.within;
    let mut settings: Vec<Setting> =
        samples.iter().map(|sample| setting(sample, classes, within)).collect();
    share_floors(&mut settings, within);
    for (setting, sample) in settings.iter_mut().zip(samples) {
        setting.verdict = verdict(setting, within, sample.saturated);
    }
    let rankings = rankings(&settings, classes);
    let is_reversed = rankings.iter().any(|ranking| !ranking.reversed.is_empty());
    let differs = open.logs.iter().any(|log| log.difference.is_some());
    let verdict = match settings.iter().map(|setting| setting.verdict).max_by_key(|it| weight(*it))
    {
        _ if is_reversed || differs => ValidationVerdict::Disagrees,
        worst => worst.unwrap_or(ValidationVerdict::TooFew),
    };
    let cause = cause(&settings).filter(|_| {
        matches!(verdict, ValidationVerdict::Disagrees | ValidationVerdict::ProfileOutOfRange)
    });
    let mut judged = Validation { settings, rankings, verdict, cause, ..open };
    judged.sentences = sentences(&judged);
    judged
}

/// What weighs more decides over several settings.
fn weight(verdict: ValidationVerdict) -> u8 {
    match verdict {
        ValidationVerdict::Disagrees => 7,
        ValidationVerdict::ClientTooSlow => 6,
        ValidationVerdict::DeviceSaturated => 5,
        ValidationVerdict::ProfileOutOfRange => 4,
        ValidationVerdict::TooNoisy => 3,
        ValidationVerdict::Unclear => 2,
        ValidationVerdict::TooFew => 1,
        ValidationVerdict::Agrees => 0,
    }
}

fn setting(sample: &SettingSample, names: &[String], within: f64) -> Setting {
    let named = names.iter().enumerate();
    let classes: Vec<ClassAgreement> =
        named.map(|(row, name)| sample.class((row, name), within)).collect();
    let mut lags = sample.lags.clone();
    lags.sort_unstable_by(f64::total_cmp);
    let lag = |part: f64| super::numbers::percentile(&lags, part).unwrap_or(0.0);
    let [requests, finished, simulated_finished] = sample.counts;
    Setting {
        policy: sample.policy.clone(),
        load: sample.load,
        offered: sample.offered,
        verdict: ValidationVerdict::TooFew,
        requests,
        finished,
        simulated_finished,
        send_lag: [lag(0.5), lag(0.9), lag(0.99), lag(1.0)],
        steps: sample.steps,
        pace: pace(sample),
        classes,
    }
}

/// The live noise of a number is the mean over the policies of its load: a device differs from itself
/// whatever the policy, and one pair of runs says little.
fn share_floors(settings: &mut [Setting], within: f64) {
    let known: Vec<Setting> = settings.to_vec();
    for setting in settings {
        let beside: Vec<&Setting> = known.iter().filter(|it| it.load == setting.load).collect();
        for (row, class) in setting.classes.iter_mut().enumerate() {
            for (column, metric) in class.metrics.iter_mut().enumerate() {
                for point in &mut metric.points {
                    let others = beside.iter().filter_map(|it| {
                        let points = &it.classes[row].metrics[column].points;
                        points.iter().find(|other| other.at == point.at)?.floor
                    });
                    point.floor = mean(&others.collect::<Vec<f64>>());
                    point.result = point.result.map(|_| judge(point, within));
                }
            }
        }
    }
}

/// The pace of the device beside a setting.
pub fn pace(sample: &SettingSample) -> Option<Pace> {
    let beside = sample.paces.iter().flat_map(|run| run.beside).flatten();
    let beside: Vec<StepPace> = beside.collect();
    let all = || beside.iter().map(|pace| pace.all);
    let count = beside.len() as f64;
    (!beside.is_empty()).then(|| Pace {
        mean: StepPace::each(|number| beside.iter().map(number).sum::<f64>() / count),
        range: [all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max)],
        runs: sample.paces.clone(),
    })
}

fn verdict(setting: &Setting, within: f64, saturated: bool) -> ValidationVerdict {
    let medians = setting
        .points()
        .filter(|(_, metric, point)| metric.metric == METRICS[0].0 && point.at == "p50");
    let least = medians.map(|(.., point)| point.live).fold(f64::INFINITY, f64::min);
    let [_, p90, p99, _] = setting.send_lag;
    let late = p99 > LAG_MAX && p90 > LAG_PART * within * least;
    let results: Vec<Agreement> = setting.points().filter_map(|(.., point)| point.result).collect();
    let any = |result: Agreement| results.contains(&result);
    let outside = setting.steps.is_some_and(|steps| steps.outside > OUTSIDE_MAX)
        || setting.pace.as_ref().is_some_and(Pace::is_another);
    match () {
        () if late => ValidationVerdict::ClientTooSlow,
        () if saturated => ValidationVerdict::DeviceSaturated,
        () if any(Agreement::Disagrees) && outside => ValidationVerdict::ProfileOutOfRange,
        () if any(Agreement::Disagrees) => ValidationVerdict::Disagrees,
        () if any(Agreement::Noisy) => ValidationVerdict::TooNoisy,
        () if any(Agreement::Unclear) => ValidationVerdict::Unclear,
        () if results.is_empty() => ValidationVerdict::TooFew,
        () => ValidationVerdict::Agrees,
    }
}

impl Setting {
    /// Every number with its class and metric.
    pub(crate) fn points(
        &self,
    ) -> impl Iterator<Item = (&ClassAgreement, &MetricAgreement, &Point)> {
        self.classes.iter().flat_map(|class| {
            let metrics = class.metrics.iter();
            metrics.flat_map(move |metric| {
                metric.points.iter().map(move |point| (class, metric, point))
            })
        })
    }

    /// The judged number that is furthest off.
    pub(crate) fn worst(&self) -> Option<(&ClassAgreement, &MetricAgreement, &Point)> {
        self.worst_of(|_| true)
    }

    /// The number that is furthest off, of those so judged.
    fn worst_of(
        &self,
        so: impl Fn(Agreement) -> bool,
    ) -> Option<(&ClassAgreement, &MetricAgreement, &Point)> {
        let judged = self.points().filter(|(.., point)| point.result.is_some_and(&so));
        judged.max_by(|a, b| a.2.error.abs().total_cmp(&b.2.error.abs()))
    }
}

/// What makes most of the errors that disagree: each part counts by how far it goes in the
/// direction of its error.
fn cause(settings: &[Setting]) -> Option<Fault> {
    let mut sums =
        [Fault::Client, Fault::Scheduler, Fault::StepTimes, Fault::Pace].map(|fault| (fault, 0.0));
    let points = settings.iter().flat_map(Setting::points);
    for (.., point) in points.filter(|(.., it)| it.result == Some(Agreement::Disagrees)) {
        let parts = point.parts?;
        let each = [parts.client, parts.scheduler, parts.step_times, parts.pace];
        for ((_, sum), part) in sums.iter_mut().zip(each) {
            *sum += part * point.error.signum();
        }
    }
    let most = sums.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
    most.filter(|(_, sum)| *sum > 0.0).map(|(fault, _)| fault)
}

fn rankings(settings: &[Setting], classes: &[String]) -> Vec<Ranking> {
    let mut loads: Vec<f64> = settings.iter().map(|setting| setting.load).collect();
    loads.dedup();
    let both = loads.into_iter().flat_map(|load| classes.iter().map(move |class| (load, class)));
    both.filter_map(|(load, class)| {
        let at = settings.iter().filter(|setting| setting.load == load);
        let p90 = |setting: &Setting| {
            let mut points = setting.points();
            let (.., point) = points.find(|(of, metric, point)| {
                of.class == *class && metric.metric == METRICS[0].0 && point.at == "p90"
            })?;
            // Of too few requests nothing tells them apart.
            let floor = if point.few { f64::INFINITY } else { point.floor.unwrap_or(0.0) };
            Some((setting.policy.clone(), point.live, point.simulated, floor))
        };
        ranking(load, class, &at.filter_map(p90).collect::<Vec<_>>())
    })
    .collect()
}

fn ranking(load: f64, class: &str, all: &[(String, f64, f64, f64)]) -> Option<Ranking> {
    if all.len() < 2 {
        return None;
    }
    let mut live: Vec<(String, f64)> = all.iter().map(|it| (it.0.clone(), it.1)).collect();
    let mut simulated: Vec<(String, f64)> = all.iter().map(|it| (it.0.clone(), it.2)).collect();
    for ranked in [&mut live, &mut simulated] {
        ranked.sort_by(|a, b| a.1.total_cmp(&b.1));
    }
    let mut reversed = Vec::new();
    for (index, a) in all.iter().enumerate() {
        for b in &all[index + 1..] {
            let clear = |x: f64, y: f64, floor: f64| (x - y).abs() > floor * (x + y) / 2.0;
            let floor = a.3.max(b.3);
            let told_apart = clear(a.1, b.1, floor) && clear(a.2, b.2, floor);
            if told_apart && (a.1 < b.1) != (a.2 < b.2) {
                reversed.push((a.0.clone(), b.0.clone()));
            }
        }
    }
    Some(Ranking { load, class: class.to_owned(), live, simulated, reversed })
}

fn sentences(it: &Validation) -> Vec<String> {
    let limit = words::percent(it.within);
    let mut sentences = vec![lead(it, &limit)];
    if let Some(cause) = it.cause {
        sentences.push(format!("The error comes from {}.{}", cause.words(), why(it, cause)));
    }
    let is_untold =
        !it.settings.iter().any(|it| it.steps.is_some_and(|steps| steps.busy.is_some()));
    if it.verdict == ValidationVerdict::Disagrees && is_untold {
        let text = "The device tells no steps: which part of the error is the scheduler's and \
                    which the step times' cannot be told.";
        sentences.push(text.to_owned());
    }
    if !it.rankings.is_empty() {
        let wrong: Vec<String> = it.rankings.iter().flat_map(reversed).collect();
        sentences.push(match wrong.is_empty() {
            true => "Policies rank the same by every class's p90 TTFT, live and simulated, as far \
                     as live runs tell them apart."
                .to_owned(),
            false => format!("Policies rank differently: {}.", wrong.join("; ")),
        });
    }
    let same = it.logs.iter().filter(|log| log.difference.is_none()).count();
    let inputs: u64 = it.logs.iter().map(|log| log.inputs).sum();
    sentences.push(match same == it.logs.len() {
        true => format!(
            "The decision logs of all {same} live runs replay to identical decisions ({} inputs).",
            words::count(inputs)
        ),
        false => format!(
            "{} of {} decision logs of live runs do not replay to the same decisions.",
            it.logs.len() - same,
            it.logs.len()
        ),
    });
    sentences
}

fn reversed(ranking: &Ranking) -> Vec<String> {
    let pair = |(a, b): &(String, String)| {
        format!("{a} and {b} for {} at {:.0} %", ranking.class, ranking.load * 100.0)
    };
    ranking.reversed.iter().map(pair).collect()
}

fn lead(it: &Validation, limit: &str) -> String {
    // The setting that made the verdict, and in it the number that did and is furthest off.
    let of_verdict = it.settings.iter().filter(|setting| setting.verdict == it.verdict);
    let decides = |result| match it.verdict {
        ValidationVerdict::Disagrees | ValidationVerdict::ProfileOutOfRange => {
            result == Agreement::Disagrees
        }
        ValidationVerdict::Unclear => result == Agreement::Unclear,
        _ => true,
    };
    let error =
        |setting: &&Setting| setting.worst_of(decides).map_or(0.0, |(.., point)| point.error.abs());
    let deciding = of_verdict.max_by(|a, b| error(a).total_cmp(&error(b)));
    let Some(setting) = deciding else {
        return "live and simulated differ in what they decide or how policies rank.".to_owned();
    };
    let judged = it.settings.iter().flat_map(Setting::points);
    let count = judged.filter(|(.., point)| point.result.is_some()).count();
    let worst = setting.worst_of(decides).map_or(String::new(), |worst| number(setting, worst));
    match it.verdict {
        ValidationVerdict::Agrees => {
            let each = if count == 1 {
                "the one number".to_owned()
            } else {
                format!("each of {count} numbers")
            };
            format!(
                "{each} (p50 and p90 of TTFT, ITL and E2E) is within {limit} of the device, or its \
                 noise floor; the furthest is {worst}."
            )
        }
        ValidationVerdict::Disagrees => format!("{worst}, and {limit} are allowed."),
        ValidationVerdict::DeviceSaturated => format!(
            "at {} requests/s ({:.0} % of capacity) requests waited for a seat for a \
             third of a run or longer on end: latencies say how long that went on. Offer less, or run \
             longer.",
            words::number(setting.offered),
            setting.load * 100.0
        ),
        ValidationVerdict::ClientTooSlow => format!(
            "under {} one request in ten goes out {} late or later: what was measured is the \
             client. Give it a core of its own.",
            setting.name(),
            words::secs(setting.send_lag[1])
        ),
        ValidationVerdict::TooNoisy => format!(
            "under {} two live runs with the same arrivals differ by more than {:.0} %: nothing \
             smaller can be told. Stop what else runs, pin engine and client, or run longer.",
            setting.name(),
            it.within * 200.0
        ),
        ValidationVerdict::ProfileOutOfRange => {
            match setting.pace.as_ref().filter(|pace| pace.is_another()) {
                Some(pace) => format!(
                    "{worst}, and beside the runs steps took {} against when the device was \
                     calibrated: calibrate it again.",
                    words::signed(pace.mean.all - 1.0)
                ),
                None => format!(
                    "{worst}, and {} of the time went into steps larger than the profile was fitted \
                     to: calibrate over what the scenario needs.",
                    words::percent(setting.steps.map_or(0.0, |steps| steps.outside))
                ),
            }
        }
        ValidationVerdict::Unclear => format!(
            "{worst}; intervals reach over the limit of {limit}. More repetitions or a longer run \
             would tell."
        ),
        ValidationVerdict::TooFew => {
            "no percentile has ten values beyond it: run longer, or more repetitions.".to_owned()
        }
    }
}

/// `p90 TTFT of chat under fcfs at 60 %: 312 ms simulated, 290 ms live, +7.6 % (+5.1 to +9.9 %)`.
fn number(
    setting: &Setting,
    (class, metric, point): (&ClassAgreement, &MetricAgreement, &Point),
) -> String {
    let interval =
        point.interval.map_or(String::new(), |it| format!(" ({})", words::signed_between(it)));
    format!(
        "{} {} of {} under {}: {} simulated, {} live, {}{interval}",
        point.at,
        metric.metric.to_uppercase(),
        class.class,
        setting.name(),
        words::secs(point.simulated),
        words::secs(point.live),
        words::signed(point.error)
    )
}

/// What is known beside of a cause.
fn why(it: &Validation, cause: Fault) -> String {
    let told: Vec<StepCheck> = it.settings.iter().filter_map(|setting| setting.steps).collect();
    match cause {
        Fault::StepTimes => {
            let worst = told.into_iter().max_by(|a, b| a.error.abs().total_cmp(&b.error.abs()));
            let kind = |name: &str, error: Option<f64>| {
                error.map(|error| format!("{} on steps that {name}", words::signed(error)))
            };
            worst.map_or(String::new(), |steps| {
                let kinds = [kind("decode", steps.decode), kind("compute prompts", steps.prompt)];
                let kinds: Vec<String> = kinds.into_iter().flatten().collect();
                match kinds.is_empty() {
                    true => String::new(),
                    false => format!(" The profile errs by {}.", kinds.join(", ")),
                }
            })
        }
        Fault::Scheduler => " With every step as long as it was measured it is still there: the \
                             engine's limits or rules are not those of the profile."
            .to_owned(),
        Fault::Client => {
            " The engine's own steps do not show it: it arises between engine and client."
                .to_owned()
        }
        Fault::Pace => {
            let runs = it.settings.iter().filter_map(|setting| setting.pace.as_ref());
            let away = runs
                .flat_map(|pace| &pace.runs)
                .filter_map(|run| Some(run.within?.all / run.simulated?.mean.all - 1.0));
            let most = away.max_by(|a, b| a.abs().total_cmp(&b.abs()));
            most.map_or(String::new(), |most| {
                format!(
                    " Steps took up to {} in a run against what was measured beside it: that is the \
                     device, not the model.",
                    words::signed(most)
                )
            })
        }
    }
}
