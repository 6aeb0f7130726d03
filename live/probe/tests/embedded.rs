//! The transformer in this process as a device.

#![cfg(feature = "embedded")]

use std::time::Duration;

use plimsoll_probe::calibrate::{CalibrateError, Method, Settings, Watch, calibrate};
use plimsoll_probe::device::{
    Ask, Device, DeviceError, Embedded, EmbeddedOptions, Place, Prompt, Shape, Step,
};
use plimsoll_sim::engine::BatchShape;
use plimsoll_sim::model::Admission;

fn small() -> EmbeddedOptions {
    EmbeddedOptions {
        shape: Shape { layers: 2, heads: 2, kv_heads: 1, head: 32, hidden: 128, vocabulary: 256 },
        seats: 4,
        step_tokens_max: 32,
        kv_blocks: 16,
        context_max: 200,
        ..EmbeddedOptions::default()
    }
}

fn ask(prompt: u32, output: u32) -> Ask {
    let prompt = Prompt::Random { tokens: prompt };
    Ask { prompt, output_tokens: output, priority: 0 }
}

fn steps(device: &Embedded) -> Vec<Step> {
    device.take_steps().expect("it runs").expect("it tells its steps")
}

#[test]
fn a_request_alone_takes_the_steps_that_the_scheduler_says() {
    let device = Embedded::open(&small()).expect("it opens");
    let answer = device.submit(&ask(70, 5)).wait().expect("it answers");
    let tokens = answer.tokens().expect("a piece is a token");
    assert_eq!((tokens.len(), answer.usage.prompt_tokens), (5, 70));
    let steps = steps(&device);
    let shapes: Vec<(u64, u64, u64, u64)> = steps
        .iter()
        .map(|Step { shape, .. }| {
            let BatchShape { prefill, pairs, sequences, context, .. } = *shape;
            (prefill, pairs, sequences, context)
        })
        .collect();
    let chunk = |m: u64, c: u64| (m, m * c + m * (m + 1) / 2, 0, 0);
    let prefill = [chunk(32, 0), chunk(32, 32), chunk(6, 64)];
    let decode = [70, 71, 72, 73].map(|context| (0, 0, 1, context));
    assert_eq!(shapes, [&prefill[..], &decode].concat());
    // Tokens come at the ends of their steps.
    let ends: Vec<_> = steps[2..].iter().map(|step| step.end).collect();
    assert_eq!(tokens, ends);
    assert!(steps.windows(2).all(|two| two[0].end <= two[1].start));
    assert!(answer.sent <= answer.accepted && answer.accepted <= steps[0].start);
}

#[test]
fn memory_that_runs_out_delays_tokens_and_loses_none() {
    // Four of 100 tokens do not fit 256: some are thrown out and computed again.
    let device = Embedded::open(&small()).expect("it opens");
    let answering: Vec<_> = (0..4).map(|_| device.submit(&ask(20, 80))).collect();
    for one in answering {
        let answer = one.wait().expect("it answers");
        assert_eq!(answer.tokens().map(|tokens| tokens.len()), Some(80));
    }
    let prefill: u64 = steps(&device).iter().map(|step| step.shape.prefill).sum();
    assert!(prefill > 4 * 20, "{prefill} prompt tokens: nothing was computed again");
    assert_eq!(device.require_idle(), Ok(()));
}

#[test]
fn who_leaves_frees_the_device_and_who_does_not_fit_is_refused() {
    // Large enough that it does not end by itself meanwhile.
    let options = EmbeddedOptions { shape: EmbeddedOptions::default().shape, ..small() };
    let device = Embedded::open(&options).expect("it opens");
    let mut long = device.submit(&ask(20, 180));
    while let Some(heard) = long.wait_next() {
        if matches!(heard, plimsoll_probe::device::Heard::Chunk(_)) {
            break;
        }
    }
    assert_eq!(device.require_idle(), Err(DeviceError::Loaded { running: 1, waiting: 0 }));
    drop(long);
    let began = std::time::Instant::now();
    while device.require_idle().is_err() {
        assert!(began.elapsed() < Duration::from_secs(5), "it still computes for nobody");
        std::thread::sleep(Duration::from_millis(1));
    }
    let error = device.submit(&ask(150, 51)).wait().expect_err("it does not fit");
    assert_eq!(error, DeviceError::TooLong { needed: 201, context_max: 200 });
    let unsound = EmbeddedOptions { context_max: 300, ..small() };
    assert!(matches!(Embedded::open(&unsound), Err(DeviceError::Compute(_))));
}

#[test]
fn the_more_important_enter_first() {
    let options = EmbeddedOptions { seats: 1, admission: Admission::Priority, ..small() };
    let device = Embedded::open(&options).expect("it opens");
    let first = device.submit(&ask(10, 60));
    let low = device.submit(&ask(10, 20));
    let high = device.submit(&Ask { priority: 2, ..ask(10, 20) });
    let [_, low, high] = [first, low, high].map(|one| one.wait().expect("it answers").ended);
    assert!(high < low);
}

#[test]
fn it_can_be_calibrated_from_the_steps_that_it_tells() {
    struct Quiet;
    impl Watch for Quiet {
        fn stop(&self) -> bool {
            false
        }
        fn progress(&self, _what: &str, _part: f64) {}
    }
    let options = EmbeddedOptions { kv_blocks: 256, context_max: 1_000, ..small() };
    let device = Embedded::open(&options).expect("it opens");
    let settings = Settings { budget: Duration::from_secs(5), ..Settings::quick() };
    let mut tries = Vec::new();
    // A machine that is busy with something else has other chances.
    for _ in 0..6 {
        match calibrate(&device, &settings, &Quiet) {
            Ok(profile) => {
                assert_eq!(profile.method, Method::Steps);
                assert!(profile.assumed.notes.is_empty(), "{:?}", profile.assumed);
                assert_eq!(profile.engine().seats, 4);
                if profile.fit.held_out < 0.2 {
                    return;
                }
                tries.push((profile.noise, profile.fit));
            }
            Err(CalibrateError::TooNoisy(_) | CalibrateError::TooLittle(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("six times: {tries:#?}");
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_build_without_cuda_says_so() {
    let options = EmbeddedOptions { place: Place::Cuda, ..small() };
    let error = Embedded::open(&options).expect_err("there is none");
    assert!(error.to_string().contains("--features cuda"), "{error}");
}

#[cfg(feature = "cuda")]
#[test]
#[ignore = "needs a CUDA device"]
fn a_cuda_device_answers_and_tells_its_steps() {
    let options = EmbeddedOptions { place: Place::Cuda, ..small() };
    let device = Embedded::open(&options).expect("it opens");
    let answer = device.submit(&ask(70, 5)).wait().expect("it answers");
    assert_eq!(answer.tokens().map(|tokens| tokens.len()), Some(5));
    assert_eq!(steps(&device).len(), 7);
}
