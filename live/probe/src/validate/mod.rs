//! A simulation held against a device.
//!
//! The scenario's own requests go to the device open loop, on the wall clock and through the policy
//! ([`live`]); the same requests are simulated with the device's profile. Each repetition has
//! arrivals of its own and is run live twice. Where the device tells its steps, each live run is
//! simulated once more with steps as long as they were measured ([`steps`]), so that an error names
//! its cause. What comes of it is judged by [`plimsoll_report::validation`].

mod arrivals;
mod check;
mod gpus;
mod live;
mod pace;
mod sample;
mod simulated;
mod steps;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use plimsoll_base::{Span, Time};
use plimsoll_policy::log::Header;
use plimsoll_report::validation::{
    DRIFT_MAX, LogCheck, Repetition, RunPace, SettingSample, SimulatedPace, StepPace,
    VALIDATION_VERSION, Validation, ValidationVerdict, pace, validation,
};
use plimsoll_scenario::Scenario;
use plimsoll_scenario::calibration::CalibrationSpec;
use plimsoll_sim::Model;
use plimsoll_sim::engine::StepCost;
use plimsoll_sim::model::EngineModel;
use thiserror::Error;

use crate::calibrate::{Watch, today};
use crate::device::{Device, DeviceError};
use crate::telemetry::{Absent, Gauge};
use arrivals::{Arrival, capacity, draw};
use gpus::Gpus;
use live::{LiveRequest, LiveRun};
use pace::{Drift, PARTS, Pacer, drift};
use sample::{Lens, Origin};
use simulated::{Simulated, simulate};
use steps::{Check, Fitted, Measured, Way};

/// How often a repetition is run live.
const TAKES: u32 = 2;
/// How often the device's pace is measured before a load is offered.
const LOOKS: u32 = 3;
/// The pace of a device as fast as it was.
const AS_CALIBRATED: [f64; PARTS] = [1.0; PARTS];
/// How often it is simulated where steps or the device's pace are drawn.
const DRAWS: u32 = 8;

/// What is to be held against each other.
#[derive(Debug)]
pub struct Study<'a> {
    /// The scenario under each policy; all have the same workloads and the same profile.
    pub policies: Vec<(String, Scenario)>,
    /// As parts of capacity; empty for what the scenario offers.
    pub loads: Vec<f64>,
    /// Each with arrivals of its own, at least 1.
    pub repetitions: u32,
    /// Of arrivals and lengths.
    pub seed: u64,
    /// The error that is allowed, as a part.
    pub within: f64,
    /// Whether the simulation's steps are as much longer as the device became slower since it was
    /// calibrated, which is measured beside the runs.
    pub paced: bool,
    /// Where decision logs go.
    pub logs: &'a Path,
    /// What is read beside the live runs, or why nothing is.
    pub gauge: Result<&'a dyn Gauge, Absent>,
}

/// What came of it.
#[derive(Debug)]
pub struct Validated {
    /// The finding.
    pub validation: Validation,
    /// How late each request went out, in seconds.
    pub lags: Vec<f64>,
    /// A row a request, as CSV.
    pub requests: String,
    /// A row a step, as CSV; `None` where neither the device nor its tokens tell any.
    pub steps: Option<String>,
    /// A row a sample of a GPU, as CSV; `None` where none was looked at.
    pub gpus: Option<String>,
    /// Why it broke off, if it did: what is here is of the loads before.
    pub broke_off: Option<ValidateError>,
}

/// Why nothing was found.
#[derive(Debug, Error)]
pub enum ValidateError {
    /// The device cannot be used, or has failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The scenario cannot be run on a device.
    #[error("{0}")]
    Scenario(String),
    /// A decision log cannot be read.
    #[error("the decision log {}: {}", .0.display(), .1)]
    Log(PathBuf, String),
    /// The system gives no threads.
    #[error("the threads could not be started: {0}")]
    Threads(std::io::Error),
    /// The task of the allocator broke.
    #[error("the task that owns the allocator broke off")]
    Driver,
    /// Somebody asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// Runs all of it. What was found at whole loads is kept if it breaks off at a later one.
///
/// # Errors
/// If the device is not the one of the profile, is in use or fails; if the scenario cannot be run on
/// a device; or if stopped.
pub fn validate(
    device: &Arc<dyn Device>,
    study: &Study<'_>,
    watch: &dyn Watch,
) -> Result<Validated, ValidateError> {
    let first = &study.policies[0].1;
    let calibration = check::calibration(first)?;
    let mut notes = check::device(device.as_ref(), first, calibration)?;
    for (name, scenario) in &study.policies {
        check::scenario(name, scenario, device.as_ref())?;
    }
    let mut bench = Bench::new(device, study, calibration, watch)?;
    bench.run()?;
    notes.append(&mut bench.notes);
    let (telemetry, gpus) = bench.gpus.end();
    let description = device.description();
    let version = description.version.as_ref().map(|it| format!(" {it}")).unwrap_or_default();
    let open = Validation {
        validation_version: VALIDATION_VERSION,
        plimsoll: env!("CARGO_PKG_VERSION").to_owned(),
        date: today(),
        scenario: first.name.clone(),
        scenario_hash: first.hash.clone(),
        seed: study.seed,
        device: format!(
            "{} on {}{version} at {}",
            description.model, description.engine, description.place
        ),
        profile: first.model.pools[0].provenance.clone(),
        verdict: ValidationVerdict::TooFew,
        cause: None,
        within: study.within,
        sentences: Vec::new(),
        settings: Vec::new(),
        rankings: Vec::new(),
        logs: bench.logs,
        telemetry,
        notes,
        method: method(study, bench.capacity, first),
    };
    let classes = &first.model.names.classes[..first.model.policy.classes.len()];
    let lags = bench.settings.iter().flat_map(|setting| setting.lags.iter().copied()).collect();
    Ok(Validated {
        validation: validation(open, classes, &bench.settings),
        lags,
        requests: bench.requests,
        steps: bench.shows_steps.then_some(bench.steps),
        gpus,
        broke_off: bench.broke_off,
    })
}

fn method(study: &Study<'_>, capacity: f64, scenario: &Scenario) -> Vec<String> {
    let each = match study.repetitions {
        1 => "1 repetition".to_owned(),
        n => format!("{n} repetitions"),
    };
    vec![
        format!(
            "{each} with arrivals of their own, each run live {TAKES} times and simulated with the \
             same arrivals, lengths and policy as often, {DRAWS} times where steps, ways or paces are drawn; seed {}",
            study.seed
        ),
        format!(
            "intervals: 95 %, by resampling tenths of runs, live and simulated together; live noise: \
             how much two live runs with the same arrivals differ, on average over policies; a number agrees if its interval is \
             within {:.0} %, or within the live noise where that is wider",
            study.within * 100.0
        ),
        format!(
            "before each live run and behind the last the device served a little traffic like that which it \
             was calibrated with, of as many requests at a time: where its steps were clearly and by at most {:.0} % off \
             what they were then, the simulated ones are as much longer or shorter (what each costs, what \
             further sequences add, what prompts add, what is felt behind prompts and what behind rests, each by \
             its own part), and by most of what they \
             were more or less beside the run, in each simulated run by a little more or less, as that is \
             only known to some extent (`--as-calibrated` leaves all of it)",
            DRIFT_MAX * 100.0
        ),
        format!("capacity by the profile: {capacity:.2} requests/s of this mix, at any latency"),
        "parts of an error: client is what the engine's own steps do not show; scheduler what is left \
         when steps are as long as they were measured; step times what the fitted ones change; pace what it \
         changes that the device was faster or slower in the runs than expected from beside them"
            .to_owned(),
        format!("profile: {}", scenario.model.pools[0].provenance),
    ]
}

/// All that is run, and what has come of it so far.
struct Bench<'a> {
    device: &'a Arc<dyn Device>,
    study: &'a Study<'a>,
    watch: &'a dyn Watch,
    calibration: &'a CalibrationSpec,
    way: Way,
    lens: Lens,
    cost: StepCost,
    /// What the scenario offers.
    mix: Vec<Arrival>,
    /// Requests of it a second by the profile.
    capacity: f64,
    settings: Vec<SettingSample>,
    checks: Vec<Check>,
    logs: Vec<LogCheck>,
    gpus: Gpus<'a>,
    notes: Vec<String>,
    requests: String,
    steps: String,
    /// Whether the device tells its steps, and whether those or tokens show any.
    tells_steps: bool,
    shows_steps: bool,
    done: u32,
    broke_off: Option<ValidateError>,
}

impl<'a> Bench<'a> {
    fn new(
        device: &'a Arc<dyn Device>,
        study: &'a Study<'a>,
        calibration: &'a CalibrationSpec,
        watch: &'a dyn Watch,
    ) -> Result<Bench<'a>, ValidateError> {
        let model = &study.policies[0].1.model;
        let mix = draw(&study.policies[0].1, (study.seed, 0), 1.0)?;
        if mix.is_empty() {
            let what = "the scenario offers no request within its duration";
            return Err(ValidateError::Scenario(what.to_owned()));
        }
        let way = Way::new(&calibration.overhead);
        let lens = Lens {
            classes: model.policy.classes.len(),
            warm_up: Time::ZERO + model.plan.warm_up,
            first: way.first,
        };
        Ok(Bench {
            device,
            study,
            watch,
            calibration,
            way,
            lens,
            cost: StepCost::new(model.pools[0].engine.step_cost),
            capacity: capacity(&model.pools[0].engine, &mix),
            mix,
            settings: Vec::new(),
            checks: Vec::new(),
            logs: Vec::new(),
            gpus: Gpus::new(study.gauge.clone()),
            notes: Vec::new(),
            requests: sample::REQUESTS_HEAD.to_owned(),
            steps: sample::STEPS_HEAD.to_owned(),
            tells_steps: false,
            shows_steps: false,
            done: 0,
            broke_off: None,
        })
    }

    fn run(&mut self) -> Result<(), ValidateError> {
        let study = self.study;
        let offered = self.rate(&self.mix);
        let loads = match study.loads.is_empty() {
            true => vec![(offered / self.capacity, false)],
            false => study.loads.iter().map(|load| (*load, true)).collect(),
        };
        for (load, is_stated) in loads {
            let whole = self.settings.len();
            let looked =
                if is_stated { self.look(load, offered) } else { Ok((1.0, AS_CALIBRATED)) };
            if let Err(error) = looked.and_then(|looked| self.load(load, looked)) {
                if whole == 0 {
                    return Err(error);
                }
                self.settings.truncate(whole);
                self.checks.truncate(whole);
                self.notes.push(format!("it broke off at {:.0} %: {error}", load * 100.0));
                self.broke_off = Some(error);
                break;
            }
        }
        self.end();
        Ok(())
    }

    /// How long arrivals go on.
    fn window(&self, arrivals: &[Arrival]) -> Span {
        let last = arrivals.last().map_or(Time::ZERO, |arrival| arrival.at);
        let stated = self.study.policies[0].1.model.plan.duration;
        stated.unwrap_or(last.saturating_since(Time::ZERO)).max(Span::from_millis(1))
    }

    fn rate(&self, arrivals: &[Arrival]) -> f64 {
        arrivals.len() as f64 / self.window(arrivals).secs_f64()
    }

    /// How many times as fast requests have to come to be such a part of what the device can do now, and
    /// the pace of that.
    fn look(&mut self, load: f64, offered: f64) -> Result<(f64, [f64; PARTS]), ValidateError> {
        let scenario = &self.study.policies[0].1;
        let calibrated = load * self.capacity / offered;
        if !self.study.paced {
            return Ok((calibrated, AS_CALIBRATED));
        }
        let arrivals = draw(scenario, (self.study.seed, 0), calibrated)?;
        let engine = &scenario.model.pools[0].engine;
        let pacer = self.pacer(&arrivals, AS_CALIBRATED)?;
        let mut measured = Vec::new();
        for _ in 0..LOOKS {
            measured.extend(pacer.measure(self.watch)?);
        }
        let Some(drift) = drift(&measured, [None; 2]) else {
            return Ok((calibrated, AS_CALIBRATED));
        };
        let step_cost = engine.step_cost.at_pace(drift.parts());
        let capacity = capacity(&EngineModel { step_cost, ..engine.clone() }, &self.mix);
        self.notes.push(format!(
            "{:.0} % is of {capacity:.2} requests/s, the capacity of the device as fast as it was before \
             these runs",
            load * 100.0
        ));
        Ok((load * capacity / offered, drift.parts()))
    }

    /// Every policy at a load. They take turns, there and back, so that what the device does over time
    /// befalls all alike.
    fn load(&mut self, load: f64, (pace, parts): (f64, [f64; PARTS])) -> Result<(), ValidateError> {
        let from = self.settings.len();
        for repetition in 0..self.study.repetitions {
            let first = &self.study.policies[0].1;
            let arrivals = draw(first, (self.study.seed, repetition), pace)?;
            check::lengths(first, &arrivals)?;
            if repetition == 0 {
                self.open_settings(load, &arrivals);
            }
            let mut runs: Vec<Vec<LiveRun>> =
                self.study.policies.iter().map(|_| Vec::new()).collect();
            let pacer = self.pacer(&arrivals, parts)?;
            let mut paces = Vec::new();
            for take in 0..TAKES {
                for turn in 0..runs.len() {
                    let policy = there_and_back(take, turn, runs.len());
                    paces.push(pacer.measure(self.watch)?);
                    runs[policy].push(self.live((load, repetition, take), policy, &arrivals)?);
                }
            }
            paces.push(pacer.measure(self.watch)?);
            for (policy, runs) in runs.into_iter().enumerate() {
                let at = (from + policy, policy);
                self.compare(at, (repetition, &pacer, &paces), (&arrivals, runs))?;
            }
        }
        Ok(())
    }

    /// Measures the pace beside runs with these arrivals, of as many requests at a time as they have on
    /// a device of such a pace.
    fn pacer(&self, arrivals: &[Arrival], parts: [f64; PARTS]) -> Result<Pacer<'a>, ValidateError> {
        let scenario = &self.study.policies[0].1;
        let engine = &scenario.model.pools[0].engine;
        let (fitted, _) = Fitted::new(engine.step_cost, self.calibration.range, self.way);
        let model = paced(scenario, parts);
        let run = simulate(&model, (arrivals, (self.study.seed, 0)), Box::new(fitted))?;
        let window = self.window(arrivals);
        Ok(Pacer::new(self.device, engine, (run.at_a_time(window), window)))
    }

    fn open_settings(&mut self, load: f64, arrivals: &[Arrival]) {
        for (name, _) in &self.study.policies {
            self.settings.push(SettingSample {
                policy: name.clone(),
                load,
                offered: self.rate(arrivals),
                duration: self.window(arrivals).secs_f64(),
                repetitions: Vec::new(),
                lags: Vec::new(),
                counts: [0; 3],
                steps: None,
                saturated: false,
                paces: Vec::new(),
            });
            self.checks.push(Check::default());
        }
    }

    fn live(
        &mut self,
        (load, repetition, take): (f64, u32, u32),
        policy: usize,
        arrivals: &[Arrival],
    ) -> Result<LiveRun, ValidateError> {
        let (name, scenario) = &self.study.policies[policy];
        let loads = self.study.loads.len().max(1) as u32;
        let all = loads * self.study.repetitions * TAKES * self.study.policies.len() as u32;
        let part = f64::from(self.done) / f64::from(all);
        self.watch.progress(&format!("{name} at {:.0} %", load * 100.0), part);
        self.done += 1;
        if self.watch.stop() {
            return Err(ValidateError::Interrupted);
        }
        let file = name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "-");
        let folder = format!("{file}-{:.0}-{repetition}-{take}", load * 100.0);
        let plan = live::Plan {
            scenario,
            arrivals,
            header: self.header(scenario, repetition),
            log: &self.study.logs.join(&folder),
        };
        let live = || live::run(self.device, &plan, self.watch);
        let (run, taken) = self.gpus.beside(live);
        let run = run.inspect_err(|_| {
            // A log without its end is no log. Where it is not there nothing is to be done.
            let _ = std::fs::remove_dir_all(plan.log);
        })?;
        let zero = self.device.clock().instant(run.zero);
        let origin = Origin { policy: name.clone(), load, repetition, take };
        self.gpus.take_down(&origin, (&taken, zero));
        let (inputs, decisions, difference) = live::replays(&run.log)?;
        let name = run.log.file_name().unwrap_or_default().to_string_lossy();
        let file = format!("decisions/{folder}/{name}");
        self.logs.push(LogCheck { file, inputs, decisions, difference });
        Ok(run)
    }

    fn header(&self, scenario: &Scenario, replication: u32) -> Header {
        Header {
            build: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: scenario.name.clone(),
            scenario_hash: scenario.hash.clone(),
            seed: self.study.seed,
            replication,
            names: scenario.model.names.clone(),
            policy: scenario.model.policy.clone(),
            objectives: scenario.objectives.clone(),
        }
    }

    /// Simulates what was run, and takes down both.
    fn compare(
        &mut self,
        (at, policy): (usize, usize),
        (repetition, pacer, paces): (u32, &Pacer<'_>, &[Option<StepPace>]),
        (arrivals, runs): (&[Arrival], Vec<LiveRun>),
    ) -> Result<(), ValidateError> {
        let study = self.study;
        let (name, scenario) = &study.policies[policy];
        let engine = &scenario.model.pools[0].engine;
        let measured: Vec<StepPace> = paces.iter().copied().flatten().collect();
        let beside = |take: u32| {
            let policies = study.policies.len();
            let place = take as usize * policies + there_and_back(take, policy, policies);
            [paces[place], paces[place + 1]]
        };
        let drift = |take: u32| drift(&measured, beside(take)).filter(|_| study.paced);
        let paced = |parts: [f64; PARTS]| paced(scenario, parts);
        let names = &scenario.model.names;
        let lived = self.as_lived(name, arrivals, &runs[0]);
        let load = self.settings[at].load;
        let origin = |take: u32| Origin { policy: name.clone(), load, repetition, take };
        let way = self.way;
        let (fitted, seen) = Fitted::new(engine.step_cost, self.calibration.range, way);
        let is_drawn = engine.step_noise.is_some() || drift(0).is_some() || way.is_drawn();
        let draws = if is_drawn { DRAWS } else { TAKES };
        let drawn = |draw: u32| (study.seed, repetition * draws + draw);
        let simulated = (0..draws).map(|draw| {
            let drawn_pace = |drift: Drift| drift.draw(draw / TAKES, draws / TAKES);
            let model = paced(drift(draw % TAKES).map_or(AS_CALIBRATED, drawn_pace));
            let drawn = drawn(draw);
            let run = simulate(&model, (&lived, drawn), fitted.drawn(drawn))?;
            let kind = (&origin(draw), "simulated");
            sample::simulated_rows(&mut self.requests, kind, (&run, names));
            Ok(run)
        });
        let simulated: Vec<Simulated> = simulated.collect::<Result<_, ValidateError>>()?;
        let mut compared = Repetition {
            simulated: simulated.iter().map(|run| self.lens.simulated(run)).collect(),
            ..Repetition::default()
        };
        let window = self.window(arrivals);
        for (take, run) in (0..).zip(&runs) {
            let live = origin(take);
            sample::live_rows(&mut self.requests, &live, (run, names));
            compared.live.push(self.lens.live(run));
            let drift = drift(take);
            let within = pacer.usual.of(run.steps.iter());
            self.settings[at].paces.push(RunPace {
                beside: beside(take),
                within,
                simulated: drift.map(|Drift { mean, deviation }| SimulatedPace { mean, deviation }),
            });
            if !run.steps.is_empty() {
                self.shows_steps = true;
                self.tells_steps |= run.tells_steps;
                let cost = &self.cost;
                self.checks[at].add((run, window.secs_f64()), cost, self.calibration.range);
                sample::step_rows(&mut self.steps, &live, (&run.steps, cost));
            }
            // Tokens show fewer of the long steps than of the short ones.
            if run.tells_steps
                && let Some(measured) = Measured::new(&run.steps, engine.step_cost, way)
            {
                let sent = as_sent(&lived, run);
                compared.engine.extend(self.lens.engine(run));
                let own = drift.zip(within).map(|(drift, within)| drift.nearest(within));
                let model = paced(own.or(drift.map(Drift::parts)).unwrap_or(AS_CALIBRATED));
                for draw in (take..draws).step_by(TAKES as usize) {
                    let drawn = drawn(draw);
                    let replayed = simulate(&model, (&sent, drawn), measured.drawn(drawn))?;
                    let kind = (&origin(draw), "replayed");
                    sample::simulated_rows(&mut self.requests, kind, (&replayed, names));
                    compared.replayed.push(self.lens.simulated(&replayed));
                    let at_pace = simulate(&model, (&lived, drawn), fitted.drawn(drawn))?;
                    compared.at_pace.push(self.lens.simulated(&at_pace));
                }
            }
        }
        self.take_down(at, (&runs, window), &simulated);
        let seen = *seen.lock().expect("nobody panics while it is held");
        self.note_range(&self.settings[at].policy.clone(), load, seen);
        self.settings[at].repetitions.push(compared);
        Ok(())
    }

    fn take_down(
        &mut self,
        at: usize,
        (runs, window): (&[LiveRun], Span),
        simulated: &[Simulated],
    ) {
        let warm_up = self.lens.warm_up;
        let seats = self.study.policies[0].1.model.pools[0].engine.seats;
        let setting = &mut self.settings[at];
        for run in runs {
            let counted = run.requests.iter().filter(|request| request.at >= warm_up);
            let [all, finished] = sample::counts(counted.map(|request| request.outcome));
            setting.counts[0] += all;
            setting.counts[1] += finished;
            setting.lags.extend(run.requests.iter().filter_map(|it| Some(it.lag?.secs_f64())));
            setting.saturated |= sample::is_saturated(run, Time::ZERO + window, seats);
        }
        let counted = simulated.iter().flat_map(|run| &run.requests);
        let counted = counted.filter(|record| record.arrived >= warm_up);
        let [_, finished] = sample::counts(counted.map(|record| record.outcome));
        setting.counts[2] += finished * runs.len() as u64 / simulated.len() as u64;
    }

    fn note_range(&mut self, policy: &str, load: f64, seen: steps::Seen) {
        let part = seen.beyond / seen.all.max(1.0);
        if part > 0.01 {
            let [prefill, sequences, context] = seen.largest;
            let range = self.calibration.range;
            self.notes.push(format!(
                "{policy} at {:.0} %: {:.0} % of the simulated time is in steps larger than what was \
                 calibrated (up to {prefill} prompt tokens, {sequences} sequences and {context} tokens \
                 of context, of {}, {} and {})",
                load * 100.0,
                part * 100.0,
                range.prefill_tokens,
                range.sequences,
                range.context_tokens
            ));
        }
    }

    /// The requests with the lengths that the device counted, which it was told and may not have
    /// kept to.
    fn as_lived(&mut self, policy: &str, arrivals: &[Arrival], run: &LiveRun) -> Vec<Arrival> {
        let mut lived = arrivals.to_vec();
        let (mut answered, mut other, mut untold) = (0, 0, 0);
        for (arrival, request) in lived.iter_mut().zip(&run.requests) {
            let Some(answer) = &request.answer else { continue };
            answered += 1;
            untold += u32::from(request.tokens.is_none());
            let (prompt, output) = (answer.usage.prompt_tokens, answer.usage.output_tokens);
            let request = &mut arrival.request;
            if (prompt, output) != (request.prompt_tokens, request.output_tokens) && output > 0 {
                other += 1;
                (request.prompt_tokens, request.output_tokens) = (prompt.max(1), output);
                request.output_cap = request.output_cap.max(output);
            }
        }
        if other > 0 {
            self.notes.push(format!(
                "{policy}: {other} of {answered} answers or prompts had other lengths than asked for, as \
                 the device counts them; they are simulated as they were"
            ));
        }
        if untold > 0 {
            self.notes.push(format!(
                "{policy}: pieces of {untold} of {answered} answers are not tokens, and when those were \
                 there is not known: they count for E2E only"
            ));
        }
        lived
    }

    fn end(&mut self) {
        for (setting, check) in self.settings.iter_mut().zip(&self.checks) {
            setting.steps = check.result();
            if let Some(pace) = pace(setting) {
                let (policy, load) = (&setting.policy, setting.load * 100.0);
                self.notes.push(format!("{policy} at {load:.0} %: {}", pace.sentence()));
            }
            let [all, finished, simulated] = setting.counts;
            if finished < all || simulated < all {
                self.notes.push(format!(
                    "{} at {:.0} %: of {all} requests {finished} were answered in full live and \
                     {simulated} simulated; the others are in no percentile",
                    setting.policy,
                    setting.load * 100.0
                ));
            }
        }
        if !self.tells_steps {
            let text = match self.shows_steps {
                true => {
                    "the device tells no steps: they are read from its tokens as far as those show \
                     them, and errors cannot be told apart by scheduler, step times and client"
                }
                false => {
                    "the device tells no steps, and its tokens show none: errors cannot be told apart \
                     by scheduler, step times and client"
                }
            };
            self.notes.push(text.to_owned());
        }
        self.notes.dedup();
    }
}

/// What is simulated of a scenario on a device of such a pace.
fn paced(scenario: &Scenario, parts: [f64; PARTS]) -> Model {
    let mut model = scenario.model.clone();
    let cost = &mut model.pools[0].engine.step_cost;
    *cost = cost.at_pace(parts);
    model
}

/// Whose turn it is of so many, and when it is somebody's turn: in every other take they are taken from
/// the last to the first.
fn there_and_back(take: u32, turn: usize, of: usize) -> usize {
    if take.is_multiple_of(2) { turn } else { of - 1 - turn }
}

/// The requests at the instants at which they went out: one that comes a moment too late for a step
/// enters the next, and the runs part there.
fn as_sent(arrivals: &[Arrival], run: &LiveRun) -> Vec<Arrival> {
    let late = |(arrival, request): (&Arrival, &LiveRequest)| Arrival {
        at: arrival.at.saturating_add(request.lag.unwrap_or(Span::ZERO)),
        ..*arrival
    };
    let mut sent: Vec<Arrival> = arrivals.iter().zip(&run.requests).map(late).collect();
    sent.sort_by_key(|arrival| (arrival.at, arrival.source.0));
    sent
}
