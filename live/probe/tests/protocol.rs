//! It speaks as OpenAI's API does.

mod support;

use std::time::Duration;

use plimsoll_probe::backend::{Backend, Kind, Limits, Running, Settings};
use serde_json::{Value, json};
use support::{CHAT, Connection, End, chat, engine, eventually, get, post, start};

fn with(change: impl FnOnce(&mut Settings)) -> Running {
    let mut settings = Settings { speed: 100.0, ..Settings::default() };
    change(&mut settings);
    Backend::start(engine(4), settings).expect("the backend starts")
}

fn parsed(events: &[(Duration, String)]) -> Vec<Value> {
    events.iter().filter_map(|(_, event)| serde_json::from_str(event).ok()).collect()
}

#[test]
fn a_chat_streams_token_by_token() {
    let backend = start(4, 100.0);
    let body = json!({
        "model": "any", "stream": true, "max_tokens": 9, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "four words in all"}],
    });
    let reply = post(backend.addr, CHAT, &[("x-output-tokens", "5")], &body.to_string());
    assert_eq!((reply.status, reply.end), (200, End::Whole));
    assert!(reply.header("content-type").starts_with("text/event-stream"));
    let events = parsed(&reply.events());
    assert_eq!(events.len(), 7, "5 tokens, the reason, the usage: {events:?}");
    assert!(events.iter().all(|event| event["model"] == "any" && event["id"] == "chatcmpl-0"));
    let first = json!({"role": "assistant", "content": " tok"});
    assert_eq!(events[0]["choices"][0]["delta"], first);
    assert_eq!(events[4]["choices"][0]["delta"], json!({"content": " tok"}));
    assert_eq!(events[5]["choices"][0]["finish_reason"], "stop");
    let usage = json!({"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9});
    assert_eq!((&events[6]["choices"], &events[6]["usage"]), (&json!([]), &usage));
    assert!(reply.is_done());
    let cut = post(backend.addr, CHAT, &[("x-output-tokens", "50")], &chat(7));
    assert_eq!((cut.tokens().len(), cut.finish_reason().as_deref()), (7, Some("length")));
    assert_eq!(parsed(&cut.events()).len(), 8, "no usage unless it is asked for");
}

#[test]
fn completions_stream_too() {
    let backend = start(4, 100.0);
    let body = r#"{"prompt":"a b","max_tokens":2,"stream":true}"#;
    let events = parsed(&post(backend.addr, "/v1/completions", &[], body).events());
    let texts: Vec<_> = events.iter().map(|event| &event["choices"][0]["text"]).collect();
    assert_eq!(texts, [" tok", " tok", ""]);
    assert_eq!(events[2]["choices"][0]["finish_reason"], "length");
    assert_eq!(events[0]["object"], "text_completion");
}

#[test]
fn whole_answers_carry_their_usage() {
    let backend = start(4, 100.0);
    let body = r#"{"messages":[{"content":"a b c"}],"max_tokens":3}"#;
    let answer = post(backend.addr, CHAT, &[], body).json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"]["content"], " tok tok tok");
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6});
    assert_eq!(answer["usage"], usage);
    let answer = post(backend.addr, "/v1/completions", &[], r#"{"prompt":"a"}"#).json();
    assert_eq!(answer["usage"]["completion_tokens"], 16);
    let answer = post(backend.addr, "/v1/embeddings", &[], r#"{"input":["a b","c"]}"#).json();
    assert_eq!(answer["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
    assert_eq!(answer["data"][1]["index"], 1);
    assert!(answer["data"][1]["embedding"][0].is_number());
    let sample = backend.sample();
    assert_eq!((sample.prefill_tokens, sample.output_tokens), (3 + 1 + 3, 3 + 16 + 1));
}

#[test]
fn a_connection_serves_many_requests() {
    let backend = start(4, 100.0);
    let mut connection = Connection::open(backend.addr);
    for _ in 0..3 {
        connection.send(&format!("POST {CHAT}"), &[], &chat(2));
        assert!(connection.reply().is_done());
        connection.send("GET /health", &[], "");
        assert_eq!(connection.reply().status, 200);
    }
}

#[test]
fn what_is_wrong_is_refused_in_openais_shape() {
    let backend = with(|settings| {
        settings.model = Some("one".into());
        settings.limits = Limits { body_max: 10_000, ..Limits::default() };
    });
    let check = |path: &str, body: &str, status: u16, code: &str| {
        let reply = post(backend.addr, path, &[], body);
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
        let error = &reply.json()["error"];
        assert_eq!(error["code"], code);
        assert!(error["message"].is_string() && error["type"] == "invalid_request_error");
    };
    check(CHAT, "{", 400, "invalid_request");
    check(CHAT, &chat(20_000), 400, "context_length_exceeded");
    check(CHAT, &"x".repeat(10_001), 413, "body_too_long");
    check(CHAT, r#"{"model":"two","messages":[{}]}"#, 404, "model_not_found");
    check("/v1/nowhere", "{}", 404, "not_found");
    check("/health", "{}", 405, "method_not_allowed");
    assert_eq!(get(backend.addr, CHAT).status, 405);
    let right = r#"{"model":"one","messages":[{}]}"#;
    assert_eq!(post(backend.addr, CHAT, &[], right).status, 200);
    let unknown = post(backend.addr, CHAT, &[("x-fault", "sink")], right);
    assert_eq!(unknown.status, 400);
    let counts = backend.shutdown();
    assert_eq!((counts.accepted, counts.finished, counts.refused), (1, 1, 5));
}

#[test]
fn slow_requests_are_cut_off() {
    let read_max = Duration::from_millis(100);
    let backend = with(|settings| settings.limits.read_max = read_max);
    let mut headers = Connection::open(backend.addr);
    headers.send_raw(b"POST /v1/chat/completions HTTP/1.1\r\nhost:");
    let mut body = Connection::open(backend.addr);
    body.send_raw(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{");
    assert!(matches!(headers.reply().end, End::Closed | End::Whole));
    assert_eq!(body.reply().status, 408);
}

#[test]
fn models_and_metrics_are_told() {
    let backend = with(|settings| {
        settings.model = Some("m".into());
        settings.speed = 1.0;
    });
    let models = get(backend.addr, "/v1/models").json();
    assert_eq!((&models["data"][0]["id"], &models["object"]), (&json!("m"), &json!("list")));
    assert_eq!(models["data"][0]["max_model_len"], 20_000);
    let mut calls: Vec<_> = (0..6).map(|_| Connection::open(backend.addr)).collect();
    for call in &mut calls {
        call.send(&format!("POST {CHAT}"), &[("x-prompt-tokens", "100")], &chat(2_000));
    }
    eventually("all are in", || {
        let sample = backend.sample();
        sample.running == 4 && sample.waiting == 2 && sample.output_tokens > 8
    });
    let reply = get(backend.addr, "/metrics");
    assert!(reply.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = reply.text();
    let value = |name: &str| -> f64 {
        let prefix = format!("vllm:{name}{{engine=\"0\",model_name=\"m\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().expect("a number")
    };
    assert_eq!((value("num_requests_running"), value("num_requests_waiting")), (4.0, 2.0));
    assert_eq!(value("prompt_tokens_total"), 400.0);
    assert!(value("generation_tokens_total") > 8.0);
    let used = value("kv_cache_usage_perc");
    assert!(used > 27.0 / 4_096.0 && used < 0.1 && used == value("gpu_cache_usage_perc"), "{used}");
}

#[test]
fn other_kinds_have_other_metrics() {
    for (kind, name) in [
        (Kind::Sglang, "sglang:num_running_reqs{model_name=\"plimsoll\"} 0\n"),
        (Kind::LlamaCpp, "llamacpp:requests_processing 0\n"),
    ] {
        let backend = with(|settings| settings.kind = kind);
        assert!(get(backend.addr, "/metrics").text().contains(name), "{kind:?}");
    }
}
