//! What a device's steps cost is found again: the engine model behind HTTP has known coefficients.

mod support;

use std::sync::Mutex;
use std::time::Duration;

use plimsoll_probe::backend::{Backend, Running, Settings as BackendSettings};
use plimsoll_probe::calibrate::{CalibrateError, Method, Profile, Settings, Watch, calibrate};
use plimsoll_probe::device::{Ask, Device, DeviceError, Limits, Prompt, Remote, RemoteOptions};
use plimsoll_sim::model::{Admission, Affine, EngineModel, StepCostSpec};

struct Quiet;
impl Watch for Quiet {
    fn stop(&self) -> bool {
        false
    }
    fn progress(&self, _what: &str, _part: f64) {}
}

fn model() -> EngineModel {
    EngineModel {
        seats: 16,
        step_tokens_max: 512,
        kv_blocks: 1_024,
        block_tokens: 16,
        context_max: 2_048,
        chunked_prefill: true,
        admission: Admission::Fcfs,
        step_noise: None,
        step_cost: StepCostSpec::affine(Affine {
            base: 3e6,
            prefill_step: 4e6,
            prefill: 40e3,
            sequence: 250e3,
            context: 800.0,
            pair: 60.0,
            after_prefill: 1e6,
            after_long_prefill: 4e6,
            ..Affine::default()
        }),
    }
}

fn started(model: &EngineModel) -> (Running, Remote) {
    let backend = Backend::start(model.clone(), BackendSettings::default()).expect("it starts");
    let url = format!("http://{}", backend.addr);
    let device = Remote::open(&RemoteOptions { url, ..RemoteOptions::default() });
    (backend, device.expect("it is a device"))
}

fn settings(seconds: u64) -> Settings {
    let known = Limits { seats: Some(16), step_tokens_max: Some(512), ..Limits::default() };
    Settings { budget: Duration::from_secs(seconds), known, ..Settings::quick() }
}

/// How long a request takes alone by a profile, by the part of the true one.
fn alone(profile: &Profile, (prompt, output): (u32, u32)) -> f64 {
    use plimsoll_sim::engine::{Engine, Explicit};
    let span = |model: &EngineModel| {
        let engine: Engine<Explicit> = Engine::new(model, 1);
        engine.alone(prompt, output).nanos() as f64
    };
    span(&profile.engine()) / span(&model()) - 1.0
}

/// What is wrong with the coefficients that were found.
fn faults(profile: &Profile) -> Vec<String> {
    let StepCostSpec::Affine { terms, .. } = profile.fit.step_cost() else {
        return vec![format!("{:?}", profile.fit)];
    };
    let mut found = Vec::new();
    let mut check = |name: &str, value: f64, truth: f64, within: f64| {
        let error = value / truth - 1.0;
        if error.abs() > within {
            found.push(format!("{name}: {value} for {truth}, {:.1} % off", error * 100.0));
        }
    };
    check("base", terms.base, 3e6, 0.05);
    for prompt in [16.0, 100.0, 500.0] {
        let part = prompt / (prompt + 128.0);
        let after = |terms: Affine<f64>| terms.after_prefill + part * terms.after_long_prefill;
        let StepCostSpec::Affine { terms: truth, .. } = model().step_cost else { unreachable!() };
        check(&format!("after {prompt}"), after(terms), after(truth), 0.15);
    }
    // To wake up, and HTTP, take a millisecond or two for real.
    check("after idle", 1e7 + terms.after_idle, 1e7, 0.2);
    check("after a long rest", 1e7 + terms.after_long_idle, 1e7, 0.1);
    check("sequence", terms.sequence, 250e3, 0.05);
    check("context", terms.context, 800.0, 0.1);
    check("pair", terms.pair, 60.0, 0.2);
    // KV memory is known from the part of it that is used.
    let kv = profile.engine().kv_tokens() as f64;
    check("kv_tokens", kv, model().kv_tokens() as f64, 0.05);
    // Prompts cost what they cost, with coefficients or with a curve.
    for lengths in [(64, 1), (256, 1), (512, 1), (16, 100), (400, 50), (1_500, 20)] {
        check(&format!("{lengths:?} alone"), 1.0 + alone(profile, lengths), 1.0, 0.05);
    }
    check("held-out error", 1.0 + profile.fit.held_out, 1.0, 0.05);
    check("request", 1e7 + profile.overheads.request, 1e7, 0.1);
    check(
        "busy",
        1e7 + profile.overheads.busy.map_or(f64::INFINITY, |busy| busy.whole()),
        1e7,
        0.2,
    );
    check("first byte", 1e7 + profile.overheads.first_byte, 1e7, 0.1);
    found
}

#[test]
fn known_coefficients_are_found_again_through_http() {
    let (_backend, device) = started(&model());
    let mut tries = Vec::new();
    // What a machine that is busy with something else adds to every time is not the device's: it
    // has other chances.
    for _ in 0..6 {
        match calibrate(&device, &settings(15), &Quiet) {
            Ok(profile) => {
                let found = faults(&profile);
                if found.is_empty() {
                    assert_eq!(profile.method, Method::Tokens);
                    return a_scenario_extends(&profile);
                }
                tries.push((profile.noise, found));
            }
            Err(CalibrateError::TooNoisy(_) | CalibrateError::TooLittle(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("six times: {tries:#?}");
}

/// A scenario that extends the file of a profile runs the same engine, and is told where it may
/// leave what was measured.
fn a_scenario_extends(profile: &Profile) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    std::fs::write(folder.path().join("profile.toml"), profile.to_toml()).expect("it is written");
    let text = "schema_version = 1\nextends = \"profile.toml\"\nname = \"live\"\n\
        [run]\nduration = \"1m\"\n[[class]]\nname = \"chat\"\n\
        [[workload]]\nname = \"chat\"\nclass = \"chat\"\n\
        arrivals = { process = \"poisson\", rate = \"3/s\" }\n\
        prompt_tokens = { distribution = \"fixed\", tokens = 100 }\n\
        output_tokens = { distribution = \"fixed\", tokens = 10 }\n";
    let path = folder.path().join("live.toml");
    std::fs::write(&path, text).expect("it is written");
    let scenario = plimsoll_scenario::load(&path, &[]);
    let scenario = scenario.unwrap_or_else(|found| panic!("{}", found.render(false)));
    let (read, fitted) = (scenario.model.pools[0].engine.clone(), profile.engine());
    let terms = |model: &EngineModel| {
        let StepCostSpec::Affine { terms, .. } = model.step_cost else { panic!("{model:?}") };
        let mut all = Vec::new();
        terms.map(|term| all.push(term));
        all
    };
    for (read, fitted) in terms(&read).into_iter().zip(terms(&fitted)) {
        assert!((read - fitted).abs() <= 1e-4 * fitted, "{read} is read, {fitted} was fitted");
    }
    assert_eq!(EngineModel { step_cost: fitted.step_cost, ..read }, fitted);
    let calibration = scenario.calibrations[0].as_ref().expect("the pool was measured");
    assert_eq!(calibration.range.sequences, 16);
    let told = scenario.assumptions.iter().find(|told| told.contains("extrapolated"));
    assert!(told.is_some_and(|told| told.contains("context tokens of 16")), "{told:?}");
}

#[test]
fn who_waits_for_the_only_seat_does_not_cost_more() {
    let step_cost = StepCostSpec::affine(Affine { base: 500e3, ..Affine::default() });
    let (_backend, device) = started(&EngineModel { seats: 1, step_cost, ..model() });
    // Nobody says how many seats there are.
    let settings = Settings { known: Limits::default(), ..settings(8) };
    let profile = calibrate(&device, &settings, &Quiet).expect("it is measured");
    assert_eq!(profile.engine().seats, 1);
    let busy = profile.overheads.busy.map_or(0.0, |busy| busy.whole());
    assert!(busy < 20e6, "a request costs {busy} ns while another is computed");
}

#[test]
fn a_device_in_use_is_not_measured() {
    let (_backend, device) = started(&model());
    let ask = Ask { prompt: Prompt::Random { tokens: 10 }, output_tokens: 1_000, priority: 0 };
    let _other = device.submit(&ask);
    support::eventually("it runs", || device.require_idle().is_err());
    match calibrate(&device, &settings(1), &Quiet) {
        Err(CalibrateError::Device(DeviceError::Loaded { running: 1, waiting: 0 })) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_asks_to_stop_is_heard() {
    struct Stop(Mutex<Vec<String>>);
    impl Watch for Stop {
        fn stop(&self) -> bool {
            self.0.lock().expect("nobody panics").len() > 2
        }
        fn progress(&self, what: &str, _part: f64) {
            self.0.lock().expect("nobody panics").push(what.to_owned());
        }
    }
    let (_backend, device) = started(&model());
    let stop = Stop(Mutex::default());
    let result = calibrate(&device, &settings(60), &stop);
    assert!(matches!(result, Err(CalibrateError::Interrupted)), "{result:?}");
    let said = stop.0.into_inner().expect("nobody panics");
    assert!(said.iter().any(|what| what.contains("round 1")), "{said:?}");
}
