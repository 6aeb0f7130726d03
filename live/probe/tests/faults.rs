//! Each fault, as a client sees it.

mod support;

use std::time::Duration;

use plimsoll_probe::backend::{Backend, Fault, Limits, Running, Settings};
use support::{CHAT, Connection, End, Reply, chat, engine, faults, post, start};

/// Longer than anything that comes, far shorter than what never comes.
const PATIENCE: Duration = Duration::from_millis(300);

fn meet(backend: &Running, fault: &str, body: &str) -> Reply {
    let mut connection = Connection::open(backend.addr);
    connection.patience(PATIENCE);
    connection.send(&format!("POST {CHAT}"), &[("x-fault", fault)], body);
    connection.reply()
}

/// A stream of 10 tokens that meets this fault, and that the books say so.
fn stream(fault: &str) -> Reply {
    let backend = start(2, 10.0);
    let reply = meet(&backend, fault, &chat(10));
    let counts = backend.shutdown();
    assert_eq!((counts.accepted, counts.failed, counts.running), (1, 1, 0), "{fault}");
    reply
}

fn never_ends(reply: &Reply) {
    assert!(!reply.is_done(), "{:?}", reply.events());
    assert_eq!(reply.finish_reason(), None);
}

#[test]
fn before_headers() {
    assert_eq!(stream("refuse").end, End::Reset);
    let hang = stream("hang");
    assert_eq!((hang.status, hang.end), (0, End::Silent));
}

#[test]
fn in_place_of_an_answer() {
    for (fault, status) in [("status-500", 500), ("status-503", 503)] {
        let reply = stream(fault);
        assert_eq!((reply.status, reply.end), (status, End::Whole));
        assert_eq!(reply.json()["error"]["type"], "server_error");
    }
    let page = stream("wrong-type");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html"));
    assert!(page.text().starts_with("<html>"));
}

#[test]
fn stalls() {
    let first = stream("stall-first");
    assert_eq!((first.status, first.end, first.tokens().len()), (200, End::Silent, 0));
    let later = stream("stall");
    assert_eq!((later.status, later.end, later.tokens().len()), (200, End::Silent, 3));
    never_ends(&later);
}

#[test]
fn ends_before_the_end() {
    for (fault, end) in [("reset", End::Reset), ("cut", End::Closed), ("truncate", End::Whole)] {
        let reply = stream(fault);
        assert_eq!((reply.status, reply.end), (200, end), "{fault}");
        assert!(reply.tokens().len() >= 3, "{fault}: {:?}", reply.events());
        never_ends(&reply);
        let last = reply.chunks.last().expect("something came").1.clone();
        assert_eq!(last.ends_with(b"\n\n"), fault != "cut", "{fault}");
    }
}

#[test]
fn a_frame_that_is_no_json() {
    let reply = stream("malformed");
    assert_eq!((reply.tokens().len(), reply.end, reply.is_done()), (10, End::Whole, true));
    let bad = |event: &str| serde_json::from_str::<serde_json::Value>(event).is_err();
    let events = reply.events();
    let bad: Vec<_> = events.iter().filter(|(_, event)| bad(event) && event != "[DONE]").collect();
    assert_eq!((bad.len(), &bad[0].1), (1, &events[3].1));
}

#[test]
fn headers_that_come_late_are_followed_by_all_the_rest() {
    let slow_headers = Duration::from_millis(200);
    let limits = Limits { slow_headers, ..Limits::default() };
    let settings = Settings { limits, speed: 10.0, ..Settings::default() };
    let backend = Backend::start(engine(2), settings).expect("the backend starts");
    let reply = meet(&backend, "slow-headers", &chat(4));
    assert!(reply.is_done() && reply.tokens()[0] >= slow_headers);
    assert_eq!(backend.counts().finished, 1);
}

#[test]
fn whole_answers_break_too() {
    let backend = start(2, 10.0);
    let body = chat(10).replace("true", "false");
    for (fault, end) in [
        ("stall-first", End::Silent),
        ("stall", End::Silent),
        ("reset", End::Reset),
        ("cut", End::Closed),
        ("truncate", End::Whole),
        ("malformed", End::Whole),
    ] {
        let reply = meet(&backend, fault, &body);
        assert_eq!((reply.status, reply.end), (200, end), "{fault}");
        let is_json = serde_json::from_str::<serde_json::Value>(&reply.text()).is_ok();
        assert!(!is_json, "{fault}: {}", reply.text());
        assert_eq!(reply.text().is_empty(), fault == "stall-first", "{fault}");
    }
    let counts = backend.shutdown();
    assert_eq!((counts.accepted, counts.failed), (6, 6));
}

#[test]
fn an_answer_of_one_token_breaks_before_it() {
    let backend = start(2, 10.0);
    let reply = meet(&backend, "truncate", &chat(1));
    assert_eq!((reply.tokens().len(), reply.end), (0, End::Whole));
}

#[test]
fn a_word_of_the_prompt_is_as_good_as_a_header() {
    let backend = start(2, 10.0);
    let body = chat(10).replace("a b c", "please x-fault:status-503 now");
    assert_eq!(post(backend.addr, CHAT, &[], &body).status, 503);
}

#[test]
fn faults_strike_a_stated_part_of_all_requests() {
    let backend = start(8, 1_000.0);
    let struck = || -> Vec<u16> {
        let replies = (0..60).map(|_| post(backend.addr, CHAT, &[], &chat(1)));
        replies.map(|reply| reply.status).collect()
    };
    assert!(struck().iter().all(|status| *status == 200));
    backend.set_faults(faults(Fault::Status500, 0.3));
    let statuses = struck();
    let failed = statuses.iter().filter(|status| **status == 500).count();
    assert!((8..=30).contains(&failed), "{failed} of 60");
    assert_eq!(backend.counts().failed, failed as u64);
    backend.set_faults(faults(Fault::Refuse, 1.0));
    assert!(struck().iter().all(|status| *status == 0));
    backend.set_faults(faults(Fault::Refuse, 0.0));
    let counts = backend.shutdown();
    assert_eq!((counts.accepted, counts.connections_refused), (120, 60));
}

#[test]
fn the_same_seed_strikes_the_same_requests() {
    let struck = || -> Vec<u16> {
        let settings = Settings {
            faults: faults(Fault::Status503, 0.5),
            speed: 1_000.0,
            ..Settings::default()
        };
        let backend = Backend::start(engine(2), settings).expect("the backend starts");
        (0..20).map(|_| post(backend.addr, CHAT, &[], &chat(1)).status).collect()
    };
    assert_eq!(struck(), struck());
}
