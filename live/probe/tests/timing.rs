//! Tokens come when the engine model says.

mod support;

use std::thread;
use std::time::Duration;

use plimsoll_probe::backend::{Backend, Kind, Settings};
use plimsoll_sim::engine::{Engine, Explicit};
use plimsoll_sim::model::{Admission, EngineModel};
use support::{CHAT, Connection, chat, engine, eventually, post, start};

/// What timers, threads and a busy machine may add.
const SLACK: Duration = Duration::from_millis(250);

fn alone(model: &EngineModel, prompt: u32, output: u32) -> Duration {
    let engine: Engine<Explicit> = Engine::new(model, 1);
    Duration::from_nanos(engine.alone(prompt, output).nanos())
}

#[test]
fn a_request_alone_takes_as_long_as_the_closed_form_says() {
    for (speed, prompt, output) in [(1.0, 1, 20), (1.0, 2_000, 1), (10.0, 5_000, 200), (0.5, 9, 8)]
    {
        let backend = start(4, speed);
        let headers = [("x-prompt-tokens", &*prompt.to_string())];
        let reply = post(backend.addr, CHAT, &headers, &chat(output));
        let tokens = reply.tokens();
        assert_eq!(tokens.len(), output as usize);
        for (count, at) in (1..).zip(&tokens) {
            let expected = alone(&engine(4), prompt, count).div_f64(speed);
            // The model's clock begins when the request is in, a moment after it was sent.
            assert!(*at >= expected, "token {count} comes at {at:?}, before {expected:?}");
            assert!(*at < expected + SLACK, "token {count} comes at {at:?}, not at {expected:?}");
        }
    }
}

#[test]
fn two_streams_share_their_steps() {
    let together = |seats| {
        let backend = start(seats, 1.0);
        let addr = backend.addr;
        let calls = [0, 1].map(|_| thread::spawn(move || post(addr, CHAT, &[], &chat(30))));
        let ends = calls.map(|call| {
            let tokens = call.join().expect("a client ends").tokens();
            assert_eq!(tokens.len(), 30);
            tokens[29]
        });
        ends[0].max(ends[1])
    };
    let alone = alone(&engine(2), 3, 30);
    let (batched, queued) = (together(2), together(1));
    assert!(batched >= alone && batched < alone + SLACK, "{batched:?}, alone {alone:?}");
    assert!(queued >= 2 * alone && queued < 2 * alone + SLACK, "{queued:?}, alone {alone:?}");
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
