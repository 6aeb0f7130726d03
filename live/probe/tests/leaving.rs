//! A client that leaves frees its seat.

mod support;

use std::time::Duration;

use plimsoll_probe::backend::{Backend, Counts, Limits, Settings};
use support::{CHAT, Connection, End, chat, engine, eventually, get, post, start};

fn leave(whole: bool, wait_for_chunk: bool) {
    let backend = start(1, 1.0);
    let body = if whole { chat(5_000).replace("true", "false") } else { chat(5_000) };
    let mut first = Connection::open(backend.addr);
    first.send(&format!("POST {CHAT}"), &[("x-request-id", "one")], &body);
    eventually("the first runs", || backend.sample().running == 1);
    if wait_for_chunk {
        assert!(first.head().is_ok() && first.chunk().is_ok());
    }
    let mut second = Connection::open(backend.addr);
    second.send(&format!("POST {CHAT}"), &[("x-request-id", "two")], &chat(2));
    eventually("the second waits", || backend.sample().waiting == 1);
    drop(first);
    let freed = eventually("the first is gone", || backend.sample().waiting == 0);
    assert!(freed < Duration::from_millis(250), "{freed:?}");
    assert_eq!(second.reply().tokens().len(), 2);
    eventually("the engine is idle", || backend.sample().running == 0);
    let expected = Counts { accepted: 2, finished: 1, cancelled: 1, ..Counts::default() };
    assert_eq!(backend.shutdown(), expected);
}

#[test]
fn leaving_a_stream_frees_the_seat() {
    leave(false, true);
}

#[test]
fn leaving_before_the_first_token_frees_the_seat() {
    leave(false, false);
}

#[test]
fn leaving_a_whole_answer_frees_the_seat() {
    leave(true, false);
}

#[test]
fn whoever_leaves_while_waiting_leaves_the_queue() {
    let backend = start(1, 1.0);
    let mut first = Connection::open(backend.addr);
    first.send(&format!("POST {CHAT}"), &[], &chat(30));
    eventually("the first runs", || backend.sample().running == 1);
    let mut second = Connection::open(backend.addr);
    second.send(&format!("POST {CHAT}"), &[], &chat(30));
    eventually("the second waits", || backend.sample().waiting == 1);
    drop(second);
    eventually("the second is gone", || backend.sample().waiting == 0);
    assert_eq!(backend.sample().running, 1);
    assert!(first.reply().is_done());
    let Counts { finished, cancelled, running, .. } = backend.counts();
    assert_eq!((finished, cancelled, running), (1, 1, 0));
}

#[test]
fn the_books_show_ids_that_come_twice() {
    let backend = start(4, 100.0);
    for id in ["one", "two", "one"] {
        let reply = post(backend.addr, CHAT, &[("x-request-id", id)], &chat(2));
        assert_eq!(reply.header("x-request-id"), id);
    }
    post(backend.addr, CHAT, &[], "nonsense");
    let books = get(backend.addr, "/requests").json();
    let expected = serde_json::json!({
        "accepted": 3, "finished": 3, "cancelled": 0, "failed": 0, "running": 0, "refused": 1,
        "connections_refused": 0, "doubled": 1, "doubled_ids": ["one"], "ids_forgotten": false,
    });
    assert_eq!(books, expected);
}

#[test]
fn a_stop_cuts_everybody_off() {
    let backend = start(1, 1.0);
    let mut connection = Connection::open(backend.addr);
    connection.send(&format!("POST {CHAT}"), &[], &chat(5_000));
    assert!(connection.head().is_ok() && connection.chunk().is_ok());
    let counts = backend.shutdown();
    assert!(matches!(connection.reply().end, End::Closed | End::Reset));
    assert_eq!((counts.cancelled, counts.running), (1, 0));
}

#[test]
fn more_connections_than_the_limit_wait() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let settings = Settings { limits, ..Settings::default() };
    let backend = Backend::start(engine(4), settings).expect("the backend starts");
    let mut first = Connection::open(backend.addr);
    first.send("GET /health", &[], "");
    assert_eq!(first.reply().status, 200);
    let mut second = Connection::open(backend.addr);
    second.patience(Duration::from_millis(100));
    second.send("GET /health", &[], "");
    assert_eq!(second.reply().end, End::Silent);
    drop(first);
    second.patience(Duration::from_secs(5));
    assert_eq!(second.reply().status, 200);
}
