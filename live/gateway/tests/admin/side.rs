//! Metrics, state, events, and who may ask.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;

use crate::client::{HEAD, Stand, backend, engine, exchange, get, open, post};

#[tokio::test(flavor = "multi_thread")]
async fn metrics_read_as_prometheus_wants_them() {
    let engine = engine(50.0);
    let log = "[gateway.log]\nfolder = \"decisions\"\n";
    let stand = Stand::start(&format!("{HEAD}{log}{}", backend("gpu0", engine.addr, 4))).await;
    for _ in 0..3 {
        assert!(stand.chat(5, "").await.expect("it ends").is_done());
    }
    stand.until("all have ended", |state| state["backends"][0]["requests"]["used"] == 0).await;
    let reply = get(stand.admin(), "/metrics").await;
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("content-type: text/plain; version=0.0.4"), "{}", reply.head);
    lint(&reply.body);
    let wanted = [
        "plimsoll_queued{class=\"chat\"} 0\n",
        "plimsoll_outstanding{class=\"batch\"} 0\n",
        "plimsoll_share_error{class=\"chat\"} 0\n",
        "plimsoll_backend_up{backend=\"gpu0\"} 1\n",
        "plimsoll_backend_running{backend=\"gpu0\"} ",
        "plimsoll_backend_kv_used{backend=\"gpu0\"} ",
        "plimsoll_policy_decision_seconds_bucket{le=\"0.000001\"} ",
        "plimsoll_decision_log_broken 0\n",
        "plimsoll_http_responses_total{status=\"2xx\"} 3\n",
        "plimsoll_requests_total{class=\"chat\",outcome=\"finished\"} 3\n",
        "plimsoll_queue_wait_seconds_count{class=\"chat\"} 3\n",
        "gen_ai_server_time_to_first_token_seconds_count{class=\"chat\",\
         gen_ai_operation_name=\"chat\"} 3\n",
        "gen_ai_client_token_usage_sum{class=\"chat\",gen_ai_operation_name=\"chat\",\
         gen_ai_token_type=\"output\"} 15\n",
        "# TYPE plimsoll_starved_seconds_total counter\n",
        "# TYPE gen_ai_server_time_to_first_token_seconds histogram\n",
    ];
    for line in wanted {
        assert!(reply.body.contains(line), "{line} is missing in\n{}", reply.body);
    }
    assert!(!reply.body.contains("anonymous"), "tenants are no labels");
    stand.gateway.stop().await;
}

/// Each metric is described once, before its samples, which stand together; no sample comes twice.
fn lint(page: &str) {
    let (mut named, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut current = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            current = rest.split(' ').next().expect("a name").to_owned();
            assert!(named.insert(current.clone()), "{line} comes twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(rest.starts_with(&format!("{current} ")), "{line}");
        } else {
            assert!(line.starts_with(&current), "{line} stands under {current}");
            let (sample, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(seen.insert(sample.to_owned()), "{line} comes twice");
        }
    }
    assert!(page.ends_with('\n'));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_says_who_waits_on_whom() {
    let engine = engine(1.0);
    let stand = Stand::start(&format!("{HEAD}{}", backend("gpu0", engine.addr, 1))).await;
    let holding = stand.chat(60, "x-work: batch\r\n");
    stand.until("it runs", |state| state["classes"][1]["outstanding"]["requests"] == 1).await;
    let waiting = stand.chat(1, "");
    let state = stand.until("one waits", |state| state["classes"][0]["queued"] == 1).await;
    let chat = &state["classes"][0];
    assert_eq!(chat["stopped_by"], "seats");
    assert!(chat["oldest_wait_seconds"].as_f64().is_some_and(|age| age < 2.0));
    let holder = &chat["waits_on"][0];
    assert_eq!((&holder["class"], &holder["requests"]), (&json!("batch"), &json!(1)));
    assert_eq!(state["classes"][1]["waits_on"], json!([]));
    let gpu = &state["backends"][0];
    assert_eq!(gpu["requests"], json!({ "used": 1, "limit": 1 }));
    assert!(gpu["report"]["age_seconds"].as_f64().is_some_and(|age| age < 2.0), "{gpu}");
    assert_eq!((&state["version"], &state["draining"]), (&json!(1), &json!(false)));
    assert_eq!(state["log"]["state"], "off");
    assert_eq!(state["policy"]["sha256"].as_str().map(str::len), Some(64));
    assert_eq!(state["connections"]["open"], 2);
    assert!(holding.await.expect("it ends").is_done());
    assert!(waiting.await.expect("it ends").is_done());
    stand.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_peoples_pages_are_kept_out() {
    let engine = engine(50.0);
    let stand = Stand::start(&format!("{HEAD}{}", backend("gpu0", engine.addr, 1))).await;
    let json = "content-type: application/json\r\n";
    let cases = [
        ("GET /state", "host: evil.example\r\n", 403),
        ("GET /state", "host: localhost:1\r\n", 200),
        ("GET /state", "origin: http://evil.example\r\n", 403),
        ("POST /drain", "", 403),
        ("POST /drain", "content-type: text/plain\r\n", 403),
        ("POST /reload", "content-type: application/x-www-form-urlencoded\r\n", 403),
        ("POST /reload", "x-plimsoll: 1\r\n", 200),
        ("GET /reload", "", 405),
        ("POST /state", json, 405),
        ("GET /nothing", "", 404),
    ];
    for (start, headers, wanted) in cases {
        let reply = exchange(stand.admin(), (start, headers), "").await;
        assert_eq!(reply.status, wanted, "{start} {headers}: {}", reply.body);
        assert!(!reply.head.contains("access-control"), "{}", reply.head);
    }
    assert_eq!(stand.state().await["draining"], false);
    stand.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_of_the_log_is_the_commands() {
    let engine = engine(50.0);
    let stand = Stand::start(&format!("{HEAD}{}", backend("gpu0", engine.addr, 1))).await;
    let set = |body: &'static str| post(stand.admin(), "/log-level", body);
    assert_eq!(set(r#"{"level":"debug"}"#).await.json(), json!({ "level": "debug" }));
    for wrong in [r#"{"level":"loud"}"#, "{}", "", "nothing", r#"{"level":1}"#] {
        assert_eq!(set(wrong).await.status, 400, "{wrong}");
    }
    assert_eq!(stand.levels(), ["debug"]);
    stand.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_takes_nothing_new_in() {
    let engine = engine(2.0);
    let stand = Stand::start(&format!("{HEAD}{}", backend("gpu0", engine.addr, 1))).await;
    let running = stand.chat(60, "");
    stand.until("it runs", |state| state["classes"][0]["outstanding"]["requests"] == 1).await;
    assert_eq!(post(stand.admin(), "/drain", "").await.status, 202);
    timeout(Duration::from_secs(1), stand.gateway.drain_asked()).await.expect("it is told");
    assert_eq!(stand.state().await["draining"], true);
    assert_eq!(stand.chat(1, "").await.expect("it ends").status, 503);
    let page = get(stand.admin(), "/metrics").await.body;
    assert!(page.contains("plimsoll_draining 1\n"));
    assert!(stand.gateway.drain(Duration::from_secs(3)).await, "all ended");
    let reply = running.await.expect("it ends");
    assert!(reply.is_done() && reply.tokens() == 60, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_lives_on_events_for_a_few() {
    let engine = engine(50.0);
    let stand = Stand::start(&format!("{HEAD}{}", backend("gpu0", engine.addr, 1))).await;
    let page = get(stand.admin(), "/").await;
    assert!(page.head.contains("content-security-policy: default-src 'none'; style-src 'sha256-"));
    assert!(page.body.starts_with("<!doctype html>"));
    let mut listeners = Vec::new();
    for _ in 0..8 {
        let stream = open(stand.admin(), ("GET /events", ""), "").await;
        let mut lines = BufReader::new(stream).lines();
        let head = lines.next_line().await.expect("it answers").expect("a line");
        assert!(head.contains("200"), "{head}");
        listeners.push(lines);
    }
    assert_eq!(get(stand.admin(), "/events").await.status, 503, "a ninth");
    let mut events = 0;
    let first = &mut listeners[0];
    while events < 2 {
        let line = timeout(Duration::from_secs(2), first.next_line()).await.expect("in time");
        let line = line.expect("it goes on").expect("a line");
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let state: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(state["classes"][0]["name"], "chat");
        events += 1;
    }
    listeners.clear();
    let began = std::time::Instant::now();
    loop {
        let again = open(stand.admin(), ("GET /events", ""), "").await;
        let head = BufReader::new(again).lines().next_line().await.expect("it answers");
        if head.is_some_and(|head| head.contains("200")) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(2), "those who left make room");
    }
    stand.gateway.stop().await;
}
