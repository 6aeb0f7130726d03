//! Servers as devices: what is seen of them, and what is refused by its name.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use plimsoll_base::Time;
use plimsoll_probe::backend::{Backend, Fault, Kind, Running, Settings};
use plimsoll_probe::device::{
    Ask, Description, Device, DeviceError, Heard, Prompt, Remote, RemoteOptions,
};
use plimsoll_sim::model::{Admission, EngineModel};
use support::{engine, eventually, faults, start};

fn open(addr: SocketAddr) -> Result<Remote, DeviceError> {
    Remote::open(&RemoteOptions { url: format!("http://{addr}"), ..RemoteOptions::default() })
}

fn opened(backend: &Running) -> Remote {
    open(backend.addr).expect("it is a device")
}

fn ask(prompt: u32, output: u32) -> Ask {
    let prompt = Prompt::Random { tokens: prompt };
    Ask { prompt, output_tokens: output, priority: 0 }
}

fn millis(from: Time, to: Time) -> f64 {
    to.saturating_since(from).nanos() as f64 / 1e6
}

#[test]
fn a_server_is_described_and_its_tokens_are_timed() {
    let backend = start(4, 1.0);
    let device = opened(&backend);
    let Description { engine, model, limits, .. } = device.description().clone();
    assert_eq!((engine.as_str(), model.as_str()), ("vllm", "plimsoll"));
    assert_eq!(limits.context_max, Some(20_000));
    let answer = device.submit(&ask(2_000, 20)).wait().expect("it answers");
    assert_eq!((answer.usage.prompt_tokens, answer.usage.output_tokens), (2_000, 20));
    let tokens = answer.tokens().expect("a piece is a token");
    assert_eq!(tokens.len(), 20);
    assert!(answer.sent <= answer.accepted && answer.accepted <= answer.first_byte);
    assert!(answer.first_byte <= tokens[0] && tokens[19] <= answer.ended);
    assert_eq!(answer.first_token(), Some(tokens[0]));
    // 2,000 tokens in four steps of 10 ms, and 10 us a token; then 19 steps of 10.1 ms and more.
    let first = millis(answer.sent, tokens[0]);
    assert!(first >= 59.9, "the first token comes after {first} ms");
    let decode = millis(tokens[0], tokens[19]);
    assert!((185.0..400.0).contains(&decode), "19 steps take {decode} ms");
}

#[test]
fn prompts_go_as_tokens_text_or_words_of_the_wished_length() {
    let backend = start(4, 100.0);
    let device = opened(&backend);
    let prompts = [
        (Prompt::Tokens(vec![5; 77]), 77),
        (Prompt::Text("one two three".into()), 3),
        (Prompt::Random { tokens: 300 }, 300),
    ];
    for (prompt, tokens) in prompts {
        let asked = Ask { prompt, output_tokens: 3, priority: 0 };
        let answer = device.submit(&asked).wait().expect("it answers");
        assert_eq!(answer.usage.prompt_tokens, tokens, "{asked:?}");
    }
    let long = device.submit(&ask(19_999, 2)).wait();
    assert_eq!(long, Err(DeviceError::TooLong { needed: 20_001, context_max: 20_000 }));
}

#[test]
fn a_device_that_computes_for_somebody_else_is_refused() {
    let backend = start(1, 1.0);
    let device = opened(&backend);
    assert_eq!(device.require_idle(), Ok(()));
    let mut others = [0, 1].map(|_| device.submit(&ask(10, 500)));
    eventually("one runs and one waits", || backend.sample().waiting == 1);
    assert_eq!(device.require_idle(), Err(DeviceError::Loaded { running: 1, waiting: 1 }));
    assert!(matches!(others[0].wait_next(), Some(Heard::Sent(_))));
    // Dropped, requests are taken back, and the device is idle again.
    drop(others);
    eventually("it is idle", || device.require_idle() == Ok(()));
    eventually("both were taken back", || backend.counts().cancelled == 2);
}

#[test]
fn more_important_requests_have_the_same_sign_for_every_kind_of_server() {
    for kind in [Kind::Vllm, Kind::Sglang] {
        let model = EngineModel { admission: Admission::Priority, ..engine(1) };
        let settings = Settings { kind, speed: 2.0, ..Settings::default() };
        let backend = Backend::start(model, settings).expect("the backend starts");
        let device = opened(&backend);
        let mut sent = 0;
        let mut submit = |priority| {
            let answering = device.submit(&Ask { priority, ..ask(5, 20) });
            eventually("the engine has it", || {
                let sample = backend.sample();
                (sample.running, sample.waiting) == (1, sent)
            });
            sent += 1;
            answering
        };
        let [first, low, high] = [0, 0, 3].map(&mut submit);
        let [_, low, high] = [first, low, high].map(|it| it.wait().expect("it answers").ended);
        assert!(high < low, "{kind:?}");
    }
}

#[test]
fn what_breaks_off_is_told() {
    let backend = start(4, 20.0);
    let device = opened(&backend);
    let check = |fault, expected: fn(&DeviceError) -> bool| {
        backend.set_faults(faults(fault, 1.0));
        let error = device.submit(&ask(10, 50)).wait().expect_err("it fails");
        assert!(expected(&error), "{fault:?}: {error}");
    };
    check(Fault::Truncate, |error| {
        matches!(error, DeviceError::NoUsage { .. } | DeviceError::BrokeOff(_))
    });
    check(Fault::Reset, |error| matches!(error, DeviceError::BrokeOff(_)));
    check(Fault::Malformed, |error| matches!(error, DeviceError::SpeaksOtherwise { .. }));
    check(Fault::Status500, |error| matches!(error, DeviceError::Refused { status: 500, .. }));
}

#[test]
fn another_model_or_engine_than_before_is_named() {
    let backend = start(1, 100.0);
    let now = opened(&backend).description().clone();
    assert_eq!(now.require_same(&now), Ok(()));
    let was = Description { model: "other".into(), ..now.clone() };
    let error = now.require_same(&was).expect_err("the model differs");
    assert_eq!(error, DeviceError::ModelChanged { was: "other".into(), is: "plimsoll".into() });
    let was = Description { version: Some("0.1".into()), ..now.clone() };
    let error = now.require_same(&was).expect_err("the version differs");
    assert!(error.to_string().contains("vllm now, and the profile is of vllm 0.1"), "{error}");
}

/// A server that answers everything under a path with the same text, and nothing else.
fn scripted(routes: &[(&'static str, &'static str, &'static str)]) -> SocketAddr {
    serving(routes, "close")
}

/// The same, which says of its connections that it keeps or closes them, and takes one request over
/// each: one that it said to keep it closes without a word under the next, of which it has read no
/// more than a byte: the rest is answered by a reset.
fn serving(
    routes: &[(&'static str, &'static str, &'static str)],
    connection: &'static str,
) -> SocketAddr {
    let routes = routes.to_vec();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let routes = routes.clone();
            thread::spawn(move || {
                // A client that says nothing more is not waited for.
                let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
                let mut request = vec![0; 64 << 10];
                let Ok(read) = stream.read(&mut request) else { return };
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or("");
                let route = routes.iter().find(|(known, ..)| path == *known);
                let (status, kind, body) = match route {
                    Some((_, "raw", body)) => return drop(stream.write_all(body.as_bytes())),
                    Some((_, "failing", body)) => ("500 Oops", "text/plain", *body),
                    Some((_, kind, body)) => ("200 OK", *kind, *body),
                    None => ("404 Not Found", "text/plain", "no"),
                };
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\
                     connection: {connection}\r\n\r\n{body}"
                );
                let _ = stream.read(&mut [0; 1]);
            });
        }
    });
    addr
}

const JSON: &str = "application/json";
const SSE: &str = "text/event-stream";
const MODELS: (&str, &str, &str) = ("/v1/models", JSON, r#"{"data":[{"id":"m"}]}"#);
const FAILING: (&str, &str, &str) = ("/v1/models", "failing", "Internal Server Error");
const COMPLETIONS: &str = "/v1/completions";

#[test]
fn who_cannot_be_measured_is_told_so_by_name() {
    let check = |routes: &[(&'static str, &'static str, &'static str)], expected: &str| {
        let error = open(scripted(routes)).expect_err(expected);
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    };
    check(&[("/v1/models", "raw", "220 mail ESMTP\r\n")], "does not speak OpenAI's API");
    check(&[], "there is nothing at /v1/models");
    check(&[FAILING], "answers with status 500 Internal Server Error; a model that is named");
    check(&[("/v1/models", "text/html", "<html>")], "/v1/models is no list of models");
    check(&[("/v1/models", JSON, r#"{"data":[]}"#)], "there is none");
    check(&[("/v1/models", JSON, r#"{"data":[{"id":"a"},{"id":"b"}]}"#)], "there is a, b");
    check(&[MODELS], "refuses a request with status 404");
    let whole = r#"{"choices":[{"text":"a"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    check(
        &[MODELS, (COMPLETIONS, JSON, whole)],
        "does not stream (it answers with application/json)",
    );
    let stream = "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: [DONE]\n\n";
    check(&[MODELS, (COMPLETIONS, SSE, stream)], "tells no `usage`");
    check(
        &[MODELS, (COMPLETIONS, SSE, "data: {\"model\":\"n\",\"choices\":[]}\n\n")],
        "`n` now, not `m`",
    );
    check(&[MODELS, (COMPLETIONS, SSE, "data: oops\n\n")], "an event is no chunk");
}

/// Three tokens in two pieces, of a model that has a longer name here.
const COUNTED: &str = "data: {\"model\":\"m@main\",\"choices\":[{\"text\":\"a\"}],\
    \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n\
    data: {\"model\":\"m@main\",\"choices\":[{\"text\":\"bc\"}],\
    \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":3}}\n\n";

#[test]
fn a_model_that_is_not_listed_is_taken_by_its_name() {
    for models in [("/v1/models", JSON, r#"{"data":[]}"#), FAILING] {
        let addr = scripted(&[models, (COMPLETIONS, SSE, COUNTED)]);
        let model = Some("m".to_owned());
        let options = RemoteOptions { url: format!("http://{addr}"), model, ..Default::default() };
        let device = Remote::open(&options).expect("it answers for the model");
        assert_eq!(device.description().model, "m");
        let answer = device.submit(&ask(3, 3)).wait().expect("it answers");
        let tokens = answer.tokens().map(|tokens| tokens.len());
        assert_eq!((answer.chunks.len(), tokens), (2, Some(3)));
    }
}

#[test]
fn a_connection_that_was_closed_under_a_request_is_no_broken_answer() {
    let device = open(serving(&[MODELS, (COMPLETIONS, SSE, COUNTED)], "keep-alive"));
    let device = device.expect("each request has a connection that serves it");
    for _ in 0..3 {
        device.submit(&ask(3, 3)).wait().expect("it answers");
    }
}

#[test]
fn addresses_that_lead_nowhere_are_told() {
    let url = |url: &str| RemoteOptions { url: url.into(), ..RemoteOptions::default() };
    let check = |address: &str, expected: &str| {
        let error = Remote::open(&url(address)).expect_err(expected);
        assert!(error.to_string().contains(expected), "{address}: {error}");
    };
    check("127.0.0.1:80", "must begin with http://");
    check("https://127.0.0.1:80", "without TLS in between");
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port is free").local_addr();
    check(&format!("http://{}/v1", closed.expect("it was bound")), "no device at http://127.0.0.1");
}

#[test]
fn a_chat_server_is_measured_with_words() {
    // It knows chats only, and two of its tokens are a word.
    let stream = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n\
        data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":2}}\n\n\
        data: [DONE]\n\n";
    let device =
        open(scripted(&[MODELS, ("/v1/chat/completions", SSE, stream)])).expect("it is a device");
    let answer = device.submit(&ask(40, 2)).wait().expect("it answers");
    assert_eq!(answer.tokens().map(|tokens| tokens.len()), Some(2));
    assert_eq!(device.description().engine, "openai");
    assert_eq!(device.load(), Ok(None));
}
