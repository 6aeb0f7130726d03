//! What `validate` says of a device whose truth is known: the engine model behind HTTP.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use plimsoll_policy::Load;
use plimsoll_probe::backend::{Backend, Running, Settings as BackendSettings, Steps};
use plimsoll_probe::calibrate::Watch;
use plimsoll_probe::device::{
    Answering, Ask, Clock, Description, Device, DeviceError, Prompt, Remote, RemoteOptions, Step,
};
use plimsoll_probe::telemetry::{Absent, Gauge};
use plimsoll_probe::validate::{Study, ValidateError, Validated, validate};
use plimsoll_report::telemetry::{Gpu, Reading, Telemetry, Throttle};
use plimsoll_report::validation::{Agreement, Fault, Setting, Validation, ValidationVerdict};
use plimsoll_scenario::Scenario;
use plimsoll_sim::model::{Admission, Affine, EngineModel, StepCostSpec};

struct Quiet;
impl Watch for Quiet {
    fn stop(&self) -> bool {
        false
    }
    fn progress(&self, _what: &str, _part: f64) {}
}

/// Tries that a machine which is busy with something else may spoil.
const TRIES: usize = 5;

fn model() -> EngineModel {
    EngineModel {
        seats: 8,
        step_tokens_max: 64,
        kv_blocks: 1_024,
        block_tokens: 16,
        context_max: 2_048,
        chunked_prefill: true,
        admission: Admission::Fcfs,
        step_noise: None,
        step_cost: StepCostSpec::affine(Affine {
            base: 20e6,
            prefill: 150e3,
            sequence: 1e6,
            context: 800.0,
            ..Affine::default()
        }),
    }
}

/// One test at a time: they measure, and would measure each other.
static TURN: Mutex<()> = Mutex::new(());

/// A backend that runs, while nobody else's does.
struct Started {
    backend: Running,
    _turn: MutexGuard<'static, ()>,
}

fn started(steps: Steps) -> (Started, Arc<dyn Device>) {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let settings = BackendSettings { steps, ..BackendSettings::default() };
    let backend = Backend::start(model(), settings).expect("it starts");
    let url = format!("http://{}", backend.addr);
    let device = Remote::open(&RemoteOptions { url, ..RemoteOptions::default() });
    (Started { backend, _turn: turn }, Arc::new(device.expect("it is a device")))
}

/// A scenario of two classes whose profile is the truth, each `from` replaced by its `to`.
fn scenario(replaced: &[(&str, &str)]) -> Scenario {
    let mut text = String::from(
        r#"
schema_version = 1
name = "live"
run = { duration = "8s", drain_max = "20s" }
class = [{ name = "chat" }, { name = "batch" }]
policy = { share = "priority" }

[[workload]]
name = "chat"
class = "chat"
arrivals = { process = "poisson", rate = "5/s" }
prompt_tokens = { distribution = "uniform", min = 10, max = 60 }
output_tokens = { distribution = "uniform", min = 6, max = 16 }

[[workload]]
name = "batch"
class = "batch"
arrivals = { process = "poisson", rate = "1.5/s" }
prompt_tokens = { distribution = "fixed", tokens = 400 }
output_tokens = { distribution = "fixed", tokens = 12 }

[[pool]]
name = "device"
replicas = 1
engine = { seats = 8, step_tokens_max = 64, kv_tokens = 16384, block_tokens = 16, context_max = 2048, chunked_prefill = true }
step_time = { kind = "affine", base = "20ms", prefill_token = "150us", sequence = "1ms", context_token = "800ns", attention_pair = "0ns" }
provenance = "the truth"

[pool.calibration]
date = "2026-11-26"
engine = "plimsoll-backend"
version = "VERSION"
model = "plimsoll"
place = "here"
method = "steps"
observations = 100
residual = "1%"
held_out = "1%"
noise_floor = "1%"
drift = 0.0
range = { prefill_tokens = 64, sequences = 8, context_tokens = 16384 }
overhead = { request = "500us", accepted = "300us", first_byte = "400us", chunk = "0us", delivery = "300us" }
"#,
    );
    text = text.replace("VERSION", env!("CARGO_PKG_VERSION"));
    for (from, to) in replaced {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("live.toml");
    std::fs::write(&path, text).expect("it is written");
    plimsoll_scenario::load(&path, &[]).unwrap_or_else(|found| panic!("{}", found.render(false)))
}

/// What is allowed where a profile is true, and where one is wrong by more.
const NARROW: f64 = 0.1;
const WIDE: f64 = 0.2;

fn run(
    device: &Arc<dyn Device>,
    policies: Vec<(String, Scenario)>,
    judged: (&[f64], f64),
) -> Result<Validated, ValidateError> {
    run_watched(device, policies, judged, &Quiet)
}

fn run_watched(
    device: &Arc<dyn Device>,
    policies: Vec<(String, Scenario)>,
    (loads, within): (&[f64], f64),
    watch: &dyn Watch,
) -> Result<Validated, ValidateError> {
    let logs = tempfile::tempdir().expect("a folder can be made");
    let study = Study {
        policies,
        loads: loads.to_vec(),
        repetitions: 1,
        seed: 3,
        within,
        logs: logs.path(),
        paced: true,
        gauge: Err(Absent::NoGpu),
    };
    validate(device, &study, watch)
}

fn own(scenario: Scenario) -> Vec<(String, Scenario)> {
    vec![("own".to_owned(), scenario)]
}

/// Runs until what is found is as it should be, a few times at most.
fn until(
    what: &str,
    run: impl Fn() -> Validation,
    holds: impl Fn(&Validation) -> bool,
) -> Validation {
    let mut tries = Vec::new();
    for _ in 0..TRIES {
        let found = run();
        if holds(&found) {
            return found;
        }
        tries.push((found.verdict, found.cause, found.sentences.clone()));
    }
    panic!("{what}: {tries:#?}");
}

/// How every number was judged.
fn results(it: &Validation) -> impl Iterator<Item = Agreement> {
    let metrics = it.settings.iter().flat_map(|it| &it.classes).flat_map(|it| &it.metrics);
    metrics.flat_map(|it| &it.points).filter_map(|it| it.result)
}

fn found(device: &Arc<dyn Device>, scenario: &Scenario, within: f64) -> Validation {
    run(device, own(scenario.clone()), (&[], within)).expect("it runs").validation
}

/// Stops where the second load begins.
struct StopsAt(&'static str, AtomicBool);

impl Watch for StopsAt {
    fn stop(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }

    fn progress(&self, what: &str, _part: f64) {
        self.1.fetch_or(what.ends_with(self.0), Ordering::Relaxed);
    }
}

#[test]
fn what_was_found_before_it_broke_off_is_kept() {
    let (_backend, device) = started(Steps::Told);
    let scenario = scenario(&[("\"8s\"", "\"2s\"")]);
    let run = |loads: &[f64]| {
        let watch = StopsAt(" at 40 %", AtomicBool::new(false));
        run_watched(&device, own(scenario.clone()), (loads, WIDE), &watch)
    };
    let found = run(&[0.3, 0.4]).expect("the first load is whole");
    assert!(matches!(found.broke_off, Some(ValidateError::Interrupted)));
    let loads: Vec<f64> = found.validation.settings.iter().map(|setting| setting.load).collect();
    assert_eq!(loads, [0.3]);
    let told =
        found.validation.notes.iter().any(|note| note == "it broke off at 40 %: interrupted");
    assert!(told, "{:?}", found.validation.notes);
    let part = run(&[0.4]);
    assert!(matches!(part, Err(ValidateError::Interrupted)), "of part of a load nothing is found");
}

#[test]
fn a_true_profile_agrees_and_its_logs_replay() {
    let (_backend, device) = started(Steps::Told);
    let scenario = scenario(&[]);
    // Where timers of the machine are late for minutes, requests are: no more than numbers allow.
    let holds = |it: &Validation| match it.verdict {
        ValidationVerdict::ClientTooSlow => results(it).all(|it| it != Agreement::Disagrees),
        verdict => verdict == ValidationVerdict::Agrees,
    };
    let it = until("agrees", || found(&device, &scenario, NARROW), holds);
    assert_eq!(it.cause, None);
    assert_eq!(it.logs.len(), 2);
    for log in &it.logs {
        assert_eq!(log.difference, None);
        assert!(log.inputs > 100 && log.decisions > 40, "{log:?}");
    }
    let [Setting { classes, steps, requests, finished, pace, .. }] = &it.settings[..] else {
        panic!("one policy at one load")
    };
    let pace = pace.as_ref().expect("it was measured beside the runs");
    assert_eq!(pace.runs.len(), 2);
    for run in &pace.runs {
        let near = |pace: f64| (0.9..1.1).contains(&pace);
        for pace in run.beside.into_iter().chain([run.within]) {
            let pace = pace.expect("there are enough steps");
            assert!(near(pace.all) && near(pace.fixed) && near(pace.prompt), "{pace:?}");
        }
        let simulated = run.simulated.expect("it is no other device");
        assert!(near(simulated.mean.all), "{simulated:?}");
    }
    assert!(it.notes.iter().any(|note| note.contains(&pace.sentence())), "{:?}", it.notes);
    assert_eq!(requests, finished);
    let steps = steps.expect("the device tells steps");
    assert!(steps.error.abs() < 0.02 && steps.busy > Some(0.2), "{steps:?}");
    for class in classes {
        for metric in &class.metrics {
            assert!(metric.ks.expect("there are values") < 0.5, "{} {metric:?}", class.class);
            for point in &metric.points {
                let parts = point.parts.expect("the device tells steps");
                let sum = parts.client + parts.scheduler + parts.step_times + parts.pace;
                assert!((sum - point.error).abs() < 1e-9, "{point:?}");
            }
        }
    }
}

#[test]
fn steps_that_are_not_told_are_read_from_tokens() {
    let (_backend, device) = started(Steps::Hidden);
    let scenario = scenario(&[
        ("\"plimsoll-backend\"", "\"vllm\""),
        (VERSION_LINE, ""),
        ("\"20ms\"", "\"24ms\""),
        ("\"8s\"", "\"4s\""),
    ]);
    let run = || run(&device, own(scenario.clone()), (&[], WIDE)).expect("it runs").validation;
    // By the profile decode steps would be longer by nearly a fifth.
    let longer = |it: &Validation| it.settings[0].steps.and_then(|steps| steps.decode);
    let holds = |it: &Validation| longer(it).is_some_and(|part| (0.1..0.2).contains(&part));
    let it = until("steps are read", run, holds);
    let [Setting { classes, steps, pace, .. }] = &it.settings[..] else { panic!("one setting") };
    assert_eq!(steps.expect("they are read").busy, None, "tokens do not show all of them");
    let runs = &pace.as_ref().expect("it was measured beside the runs").runs;
    assert!(runs.iter().all(|run| run.within.is_some()), "{runs:?}");
    let mut points = classes.iter().flat_map(|class| &class.metrics).flat_map(|it| &it.points);
    assert!(points.all(|point| point.parts.is_none()), "a replay wants all steps");
    assert!(it.notes.iter().any(|note| note.contains("read from its tokens")), "{:?}", it.notes);
}

#[test]
fn a_load_is_a_part_of_what_the_device_can_do_now() {
    let (_backend, device) = started(Steps::Told);
    let short = ("\"8s\"", "\"2s\"");
    // The device is said to have been slower by a seventh when it was calibrated.
    let slower = [
        short,
        ("\"20ms\"", "\"22.8ms\""),
        ("\"150us\"", "\"171us\""),
        ("\"1ms\", context", "\"1.14ms\", context"),
        ("\"800ns\"", "\"912ns\""),
    ];
    let capacity = |scenario: Scenario| {
        let it = run(&device, own(scenario), (&[0.5], WIDE)).expect("it runs").validation;
        let note = it.notes.iter().find_map(|note| note.strip_prefix("50 % is of "));
        let text = note.and_then(|note| note.split(' ').next()).expect("it is told");
        let by_profile =
            it.method.iter().find_map(|it| it.strip_prefix("capacity by the profile: "));
        let number = |text: &str| text.parse::<f64>().expect("a number");
        (number(text), number(by_profile.and_then(|it| it.split(' ').next()).expect("it is told")))
    };
    let close = |(found, wanted): (f64, f64)| (found / wanted - 1.0).abs() < 0.03;
    let found: Vec<[(f64, f64); 2]> = (0..TRIES)
        .map(|_| [capacity(scenario(&[short])), capacity(scenario(&slower))])
        .take_while(|[truth, slow]| !(close(*truth) && close((slow.0, truth.1))))
        .collect();
    assert!(found.len() < TRIES, "{found:?}");
}

#[test]
fn decode_steps_that_are_a_third_too_slow_are_named() {
    let (_backend, device) = started(Steps::Told);
    let slow = scenario(&[("\"20ms\"", "\"26ms\""), ("\"1ms\", context", "\"1.3ms\", context")]);
    // Traffic beside the runs shows it too: it is not the device that was calibrated.
    let holds = |it: &Validation| {
        it.verdict == ValidationVerdict::ProfileOutOfRange && it.cause == Some(Fault::StepTimes)
    };
    let it = until("step times", || found(&device, &slow, WIDE), holds);
    assert!(it.sentences[0].contains("calibrate it again"), "{:?}", it.sentences);
    let decode = it.settings[0].steps.and_then(|steps| steps.decode).expect("there are such steps");
    assert!((0.25..0.35).contains(&decode), "{decode}");
    assert!(it.sentences.iter().any(|it| it.contains("the step times")), "{:?}", it.sentences);
}

#[test]
#[ignore = "takes long on the wall clock; .ci/run has it where time is left"]
fn an_engine_that_chunks_prompts_where_the_profile_does_not_is_named() {
    let (_backend, device) = started(Steps::Told);
    let whole = scenario(&[
        ("chunked_prefill = true", "chunked_prefill = false"),
        ("prefill_tokens = 64", "prefill_tokens = 512"),
    ]);
    let holds = |it: &Validation| {
        it.verdict == ValidationVerdict::Disagrees && it.cause == Some(Fault::Scheduler)
    };
    until("scheduler", || found(&device, &whole, WIDE), holds);
}

#[test]
#[ignore = "takes long on the wall clock; .ci/run has it where time is left"]
fn a_profile_that_was_not_fitted_so_far_is_named() {
    let (_backend, device) = started(Steps::Told);
    let narrow = scenario(&[
        ("\"20ms\"", "\"30ms\""),
        ("prefill_tokens = 64, sequences = 8", "prefill_tokens = 16, sequences = 2"),
    ]);
    let holds = |it: &Validation| it.verdict == ValidationVerdict::ProfileOutOfRange;
    let it = until("out of range", || found(&device, &narrow, WIDE), holds);
    assert!(it.notes.iter().any(|note| note.contains("larger than what was")), "{:?}", it.notes);
}

#[test]
#[ignore = "takes long on the wall clock; .ci/run has it where time is left"]
fn a_device_that_is_offered_too_much_is_named() {
    let (_backend, device) = started(Steps::Hidden);
    let scenario =
        scenario(&[("\"plimsoll-backend\"", "\"vllm\""), (VERSION_LINE, ""), ("\"8s\"", "\"4s\"")]);
    let run = || run(&device, own(scenario.clone()), (&[3.0], NARROW)).expect("it runs").validation;
    let it = until("saturated", run, |it| it.verdict == ValidationVerdict::DeviceSaturated);
    assert!(it.notes.iter().any(|note| note.contains("tells no steps")), "{:?}", it.notes);
    assert_eq!(it.settings[0].steps.expect("tokens show some").busy, None);
}

const VERSION_LINE: &str = concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"\n");

/// A device behind a client that takes its time.
struct Slow(Arc<dyn Device>, Duration);

impl Device for Slow {
    fn description(&self) -> &Description {
        self.0.description()
    }
    fn clock(&self) -> Clock {
        self.0.clock()
    }
    fn submit(&self, ask: &Ask) -> Answering {
        thread::sleep(self.1);
        self.0.submit(ask)
    }
    fn load(&self) -> Result<Option<Load>, DeviceError> {
        self.0.load()
    }
    fn take_steps(&self) -> Result<Option<Vec<Step>>, DeviceError> {
        self.0.take_steps()
    }
}

#[test]
#[ignore = "takes long on the wall clock; .ci/run has it where time is left"]
fn a_client_that_is_too_slow_is_named() {
    let (_backend, device) = started(Steps::Told);
    let slow: Arc<dyn Device> = Arc::new(Slow(device, Duration::from_millis(40)));
    let it = found(&slow, &scenario(&[]), NARROW);
    assert_eq!(it.verdict, ValidationVerdict::ClientTooSlow);
    assert!(it.settings[0].send_lag[0] > 0.04, "{:?}", it.settings[0].send_lag);
}

#[test]
fn two_policies_rank_the_same() {
    let (_backend, device) = started(Steps::Told);
    let both = || {
        let first = scenario(&[]);
        let second = scenario(&[("share = \"priority\"", "share = \"fcfs\"")]);
        let policies = vec![("priority".to_owned(), first), ("fcfs".to_owned(), second)];
        run(&device, policies, (&[0.9], NARROW)).expect("it runs").validation
    };
    let holds = |it: &Validation| it.rankings.iter().all(|it| it.reversed.is_empty());
    let it = until("ranks", both, holds);
    assert_eq!((it.settings.len(), it.rankings.len(), it.logs.len()), (2, 2, 4));
    assert!((it.settings[0].load - 0.9).abs() < 1e-9);
}

fn refused(device: &Arc<dyn Device>, scenario: Scenario) -> String {
    match run(device, own(scenario), (&[], NARROW)) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it was not refused"),
    }
}

#[test]
fn what_stands_against_it_is_named() {
    let (backend, device) = started(Steps::Told);
    for (replaced, expected) in [
        (("model = \"plimsoll\"", "model = \"other\""), "serves `plimsoll` now, not `other`"),
        ((VERSION_LINE, "version = \"0.0.1\"\n"), "plimsoll-backend 0.0.1: calibrate again"),
        (("\"plimsoll-backend\"", "\"vllm\""), "the profile is of vllm"),
        (("place = \"here\"", "place = \"here\"\nflags = [\"speed=2\"]"), "speed=2"),
        (("seats = 8, step", "seats = 7, step"), "`seats` 8, and the profile 7"),
        (("replicas = 1", "replicas = 2"), "there is one device"),
        (
            (
                "process = \"poisson\", rate = \"1.5/s\"",
                "process = \"closed\", users = 3, think = \"1s\"",
            ),
            "`batch` is a closed loop",
        ),
    ] {
        let said = refused(&device, scenario(&[replaced]));
        assert!(said.contains(expected), "{replaced:?}: {said}");
    }
    let mut by_hand = scenario(&[]);
    by_hand.calibrations = vec![None];
    assert!(refused(&device, by_hand).contains("run `plimsoll calibrate"));
    // Somebody else is there.
    let ask = Ask { prompt: Prompt::Random { tokens: 8 }, output_tokens: 400, priority: 0 };
    let other = device.submit(&ask);
    support::eventually("it runs", || backend.backend.sample().running == 1);
    assert!(refused(&device, scenario(&[])).contains("loaded already (1 running"));
    drop(other);
    support::eventually("it has left", || backend.backend.sample().running == 0);
    // And then nobody is.
    drop(backend);
    let error = run(&device, own(scenario(&[])), (&[], NARROW)).expect_err("nobody is there");
    assert!(matches!(error, ValidateError::Device(DeviceError::NotThere { .. })), "{error}");
}

/// A GPU that is throttled at every other reading.
#[derive(Debug, Default)]
struct Scripted {
    gpus: [Gpu; 1],
    reads: AtomicU64,
}

impl Gauge for Scripted {
    fn gpus(&self) -> &[Gpu] {
        &self.gpus
    }
    fn read(&self) -> Vec<Reading> {
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        let throttles = if number.is_multiple_of(2) { vec![Throttle::Thermal] } else { Vec::new() };
        vec![Reading { power_w: Some(100.0), throttles: Some(throttles), ..Reading::default() }]
    }
}

#[test]
fn gpus_are_read_beside_each_live_run() {
    let (_backend, device) = started(Steps::Told);
    let gauge = Scripted::default();
    let logs = tempfile::tempdir().expect("a folder can be made");
    let study = Study {
        policies: own(scenario(&[("\"8s\"", "\"2s\"")])),
        loads: Vec::new(),
        repetitions: 1,
        seed: 3,
        within: NARROW,
        logs: logs.path(),
        paced: true,
        gauge: Ok(&gauge),
    };
    let made = validate(&device, &study, &Quiet).expect("it runs");
    let Telemetry::Sampled(sampled) = &made.validation.telemetry else { panic!("it was sampled") };
    let names: Vec<&str> = sampled.runs.iter().map(|run| &run.name[..]).collect();
    let [first, second] = names[..] else { panic!("two live runs: {names:?}") };
    assert!(first.ends_with("repetition 1, run 1") && second.ends_with("repetition 1, run 2"));
    let rows = made.gpus.expect("they were sampled");
    let times: Vec<f64> = (rows.lines().skip(1))
        .map(|row| row.split(',').nth(4).and_then(|at| at.parse().ok()).expect("a time"))
        .collect();
    let counted: u64 = sampled.runs.iter().map(|run| run.gpus[0].samples).sum();
    assert_eq!(times.len() as u64, counted);
    // Every 100 ms while a run of about 2 s goes on, the first soon after its start.
    assert!((10..400).contains(&counted), "{counted}");
    assert!(times[0] < 1.0 && times.iter().all(|at| *at >= 0.0), "{times:?}");
    for run in &sampled.runs {
        let gpu = &run.gpus[0];
        let throttled = gpu.throttled.expect("it was told");
        assert!((0.05..0.95).contains(&throttled), "{throttled}");
        assert_eq!(gpu.reasons.len(), 1);
    }
    // Nothing is read where there is nothing to read, and the reason stands there.
    let without = run(&device, own(scenario(&[("\"8s\"", "\"1s\"")])), (&[], NARROW));
    let without = without.expect("it runs");
    let why = Telemetry::Absent(Absent::NoGpu.to_string());
    assert_eq!((without.validation.telemetry, without.gpus), (why, None));
}
