//! Tokens come when the engine model says.

mod support;

use std::thread;
use std::time::Duration;

use plimsoll_probe::backend::{Backend, Kind, Settings};
use plimsoll_sim::engine::{Engine, Explicit};
use plimsoll_sim::model::{Admission, EngineModel};
use support::{CHAT, Connection, chat, engine, eventually, post, start};

/// What timers, threads and a busy machine may add.
const SLACK: Duration = Duration::from_millis(100);

fn alone(model: &EngineModel, prompt: u32, output: u32) -> Duration {
    let engine: Engine<Explicit> = Engine::new(model, 1);
    Duration::from_nanos(engine.alone(prompt, output).nanos())
}

/// Asks for a stream; returns when its tokens came at the latest, measured from when the model says.
/// None comes before that.
fn lateness(speed: f64, (prompt, output): (u32, u32)) -> Duration {
    let backend = start(4, speed);
    let headers = [("x-prompt-tokens", &*prompt.to_string())];
    let tokens = post(backend.addr, CHAT, &headers, &chat(output)).tokens();
    assert_eq!(tokens.len(), output as usize);
    let late = (1..).zip(&tokens).map(|(count, at)| {
        let expected = alone(&engine(4), prompt, count).div_f64(speed);
        // The model's clock begins when the request is in, a moment after it was sent.
        assert!(*at >= expected, "token {count} comes at {at:?}, before {expected:?}");
        *at - expected
    });
    late.max().expect("there are tokens")
}

#[test]
fn a_request_alone_takes_as_long_as_the_closed_form_says() {
    for (speed, lengths) in [(1.0, (1, 20)), (1.0, (2_000, 1)), (10.0, (5_000, 200)), (0.5, (9, 8))]
    {
        // A machine that is busy with something else has other chances.
        let late = (0..5).map(|_| lateness(speed, lengths)).find(|late| *late < SLACK);
        assert!(late.is_some(), "speed {speed}, {lengths:?}: later than {SLACK:?}, five times");
    }
}

#[test]
fn two_streams_share_their_steps() {
    for (seats, steps) in [(2, 100), (1, 130)] {
        let backend = start(seats, 1.0);
        let mut long = Connection::open(backend.addr);
        long.send(&format!("POST {CHAT}"), &[], &chat(100));
        eventually("it runs", || backend.sample().running == 1);
        let short = post(backend.addr, CHAT, &[], &chat(30));
        assert_eq!((short.tokens().len(), long.reply().tokens().len()), (30, 100));
        eventually("the engine is idle", || backend.sample().running == 0);
        assert_eq!(backend.sample().steps, steps, "of {seats} seats");
    }
}

#[test]
fn memory_that_runs_out_delays_tokens_and_loses_none() {
    // Two sequences of 300 tokens do not fit 400: one of them is thrown out and computed again.
    let model = EngineModel { kv_blocks: 25, context_max: 400, ..engine(2) };
    let settings = Settings { speed: 20.0, ..Settings::default() };
    let backend = Backend::start(model, settings).expect("the backend starts");
    let addr = backend.addr;
    let calls = [0, 1].map(|_| thread::spawn(move || post(addr, CHAT, &[], &chat(297))));
    for call in calls {
        let reply = call.join().expect("a client ends");
        assert_eq!(reply.tokens().len(), 297);
        assert!(reply.is_done());
    }
    assert!(backend.sample().preemptions > 0);
    assert_eq!(backend.shutdown().finished, 2);
}

#[test]
fn more_important_requests_enter_first_where_the_engine_knows_priorities() {
    for (kind, important) in [(Kind::Vllm, -1), (Kind::Sglang, 1)] {
        let model = EngineModel { admission: Admission::Priority, ..engine(1) };
        let settings = Settings { kind, speed: 2.0, ..Settings::default() };
        let backend = Backend::start(model, settings).expect("the backend starts");
        let ask = |priority: i32, waiting| {
            let body = chat(20).replacen('{', &format!(r#"{{"priority":{priority},"#), 1);
            let mut connection = Connection::open(backend.addr);
            connection.send(&format!("POST {CHAT}"), &[], &body);
            eventually("the engine has it", || {
                let sample = backend.sample();
                sample.running == 1 && sample.waiting == waiting
            });
            connection
        };
        let mut calls = [ask(0, 0), ask(0, 1), ask(important, 2)];
        // Reading the last to come first shows that it did not wait for the second.
        assert!(calls[2].reply().is_done());
        assert_eq!(backend.counts().finished, 2, "{kind:?}");
        assert!(calls[1].reply().is_done());
    }
}
