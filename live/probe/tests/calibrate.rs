//! What a device's steps cost is found again: the engine model behind HTTP has known coefficients.

mod support;

use std::cell::RefCell;
use std::time::Duration;

use plimsoll_probe::backend::{Backend, Running, Settings as BackendSettings};
use plimsoll_probe::calibrate::{CalibrateError, Method, Profile, Settings, Watch, calibrate};
use plimsoll_probe::device::{Ask, Device, DeviceError, Limits, Prompt, Remote, RemoteOptions};
use plimsoll_sim::model::{Admission, EngineModel, StepCostSpec};

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
        step_cost: StepCostSpec::Affine {
            base: 3e6,
            prefill: 40e3,
            sequence: 250e3,
            context: 800.0,
            pair: 60.0,
        },
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

#[test]
fn known_coefficients_are_found_again_through_http() {
    let (_backend, device) = started(&model());
    let profile = calibrate(&device, &settings(20), &Quiet).expect("it is measured");
    eprintln!("{}", profile.to_toml());
    assert_eq!(profile.method, Method::Tokens);
    // The client's own delays, on a machine that does other things too, are all the error there is.
    assert!(profile.fit.held_out < 0.1, "{:?}", profile.fit);
    let StepCostSpec::Affine { base, prefill, sequence, context, pair } = profile.fit.step_cost()
    else {
        panic!("{:?}", profile.fit)
    };
    let check = |name: &str, found: f64, truth: f64, within: f64| {
        let error = found / truth - 1.0;
        assert!(error.abs() < within, "{name}: {found} for {truth}, {:.1} % off", error * 100.0);
    };
    check("base", base, 3e6, 0.15);
    check("prefill", prefill, 40e3, 0.15);
    check("sequence", sequence, 250e3, 0.15);
    check("context", context, 800.0, 0.25);
    check("pair", pair, 60.0, 0.5);
    for lengths in [(16, 100), (400, 50), (1_500, 20)] {
        let error = alone(&profile, lengths);
        assert!(error.abs() < 0.08, "{lengths:?} alone: {:.1} % off", error * 100.0);
    }
    // KV memory is known from the part of it that is used.
    let kv = profile.engine().kv_tokens() as f64;
    check("kv_tokens", kv, model().kv_tokens() as f64, 0.05);
    assert!(profile.overheads.request < 3e6, "{:?}", profile.overheads);
}

#[test]
fn a_device_in_use_is_not_measured() {
    let (_backend, device) = started(&model());
    let ask =
        Ask { prompt: Prompt::Random { tokens: 10, seed: 1 }, output_tokens: 1_000, priority: 0 };
    let _other = device.submit(&ask);
    support::eventually("it runs", || device.require_idle().is_err());
    match calibrate(&device, &settings(1), &Quiet) {
        Err(CalibrateError::Device(DeviceError::Loaded { running: 1, waiting: 0 })) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_asks_to_stop_is_heard() {
    struct Stop(RefCell<Vec<String>>);
    impl Watch for Stop {
        fn stop(&self) -> bool {
            self.0.borrow().len() > 2
        }
        fn progress(&self, what: &str, _part: f64) {
            self.0.borrow_mut().push(what.to_owned());
        }
    }
    let (_backend, device) = started(&model());
    let stop = Stop(RefCell::default());
    let result = calibrate(&device, &settings(60), &stop);
    assert!(matches!(result, Err(CalibrateError::Interrupted)), "{result:?}");
    assert!(stop.0.borrow().iter().any(|what| what.contains("round 1")), "{:?}", stop.0);
}
