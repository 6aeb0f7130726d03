//! What backends do wrong is told truthfully and in time, and a client that leaves frees its
//! backend: batteries G6, G7 and G8.

mod gateway;

use std::time::{Duration, Instant};

use gateway::{
    Client, End, Fixture, Plan, Probe, Reply, Scripted, backend, chat, eventually, post, probe,
    quantile, run, whole,
};
use tokio::net::{TcpSocket, TcpStream};

const MS: Duration = Duration::from_millis(1);
/// What a loaded machine of two cores may add to a deadline.
const NOISE: Duration = Duration::from_millis(250);

const SHORT: &str = r#"
[gateway.deadlines]
connect = "200ms"
first_token = "400ms"
idle = "300ms"
total = "2s"
"#;

fn bad_and_good(bad: &Probe, good: &Probe) -> [String; 2] {
    [
        backend("bad", bad.addr, "models = [\"bad\"]"),
        backend("good", good.addr, "models = [\"good\"]"),
    ]
}

const TWO_MODELS: &str = r#"
[[class]]
name = "chat"
[policy]
models = ["bad", "good"]
share = "fcfs"
classify = [{ rule = "match", class = "chat" }]
"#;

fn named(model: &str, body: &str) -> String {
    body.replace("\"any\"", &format!("\"{model}\""))
}

/// A status and a code.
type Told = (u16, &'static str);

/// A fault, what a client of a stream is told, and what one that does not stream is told: a status
/// and a code, and after the first token the code of an event.
const FAULTS: [(&str, Told, Told); 11] = [
    ("refuse", (502, "backend_failed"), (502, "backend_failed")),
    ("hang", (504, "deadline_missed"), (504, "deadline_missed")),
    ("status-500", (502, "backend_failed"), (502, "backend_failed")),
    ("status-503", (502, "backend_failed"), (502, "backend_failed")),
    ("wrong-type", (502, "backend_failed"), (502, "backend_failed")),
    ("stall-first", (504, "deadline_missed"), (504, "deadline_missed")),
    ("stall", (200, "deadline_missed"), (504, "deadline_missed")),
    ("reset", (200, "backend_failed"), (502, "backend_failed")),
    ("cut", (200, "backend_failed"), (502, "backend_failed")),
    ("truncate", (200, "backend_failed"), (502, "backend_failed")),
    ("malformed", (200, "backend_failed"), (502, "backend_failed")),
];

fn check(fault: &str, (status, code): (u16, &str), reply: &Reply) {
    let text = reply.text();
    assert_eq!(reply.status(), status, "{fault}: {text}");
    assert_eq!(reply.end, End::Whole, "{fault}: {text}");
    assert!(!text.contains("[DONE]") && reply.finish_reason().is_none(), "{fault}: {text}");
    if status == 200 {
        assert_eq!(reply.tokens(), 3, "{fault}: what had come before is passed on: {text}");
        assert_eq!(reply.error_event().as_deref(), Some(code), "{fault}: {text}");
    } else {
        assert_eq!(reply.code(), code, "{fault}: {text}");
    }
    let limit = if code == "deadline_missed" { 2_000 * MS } else { Duration::ZERO };
    assert!(reply.took < limit + 1_000 * MS, "{fault}: {:?}", reply.took);
}

#[test]
fn each_fault_in_each_phase_is_told_truthfully_and_disturbs_no_other_backend() {
    run(async {
        let (bad, good) = (probe(8, 10.0), probe(8, 10.0));
        let plan = Plan { policy: TWO_MODELS, more: SHORT, ..Plan::default() };
        let fixture = Fixture::start(plan, &bad_and_good(&bad, &good)).await;
        let address = fixture.address;
        let healthy = |count: usize| async move {
            let mut took = Vec::new();
            for _ in 0..count {
                let reply = post(address, &named("good", &chat(8, ""))).await;
                assert!(reply.is_success(), "{}", reply.text());
                took.push(reply.took);
            }
            took
        };
        let mut quiet = healthy(40).await;
        let meet = async {
            for (fault, streamed, at_once) in FAULTS {
                let wish = format!("x-fault:{fault}");
                let reply = post(address, &named("bad", &chat(10, &wish))).await;
                check(fault, streamed, &reply);
                let reply = post(address, &named("bad", &whole(10, &wish))).await;
                check(fault, at_once, &reply);
            }
        };
        let (mut beside, ()) = tokio::join!(healthy(100), meet);
        let (quiet, beside) = (quantile(&mut quiet, 0.95), quantile(&mut beside, 0.95));
        println!("G6: p95 of a healthy backend {quiet:?}, beside one with faults {beside:?}");
        assert!(beside < 2 * quiet + NOISE, "{beside:?} beside faults, {quiet:?} without");
        let books = fixture.finish().await;
        assert_eq!(books.arrived, 140 + 22, "{books:?}");
        assert_eq!(books.ended(plimsoll_base::End::Finished), 140, "{books:?}");
        let counts = bad.shutdown();
        assert_eq!((counts.failed, counts.running), (22, 0), "{counts:?}");
    });
}

#[test]
fn truncated_streams_are_not_passed_off_as_done() {
    let frame = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"tok\"}}]}\n\n";
    let stop = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    // What a backend says, with or without chunks, and then closes.
    let endings = [
        ("nothing", String::new()),
        ("a token", frame.to_owned()),
        ("half an event", format!("{frame}data: {{\"choi")),
        ("[DONE] without a reason", format!("{frame}data: [DONE]\n\n")),
        ("a reason without [DONE]", format!("{frame}{stop}")),
        ("[DONE] without its end", format!("{frame}{stop}data: [DONE]")),
        ("an error", format!("{frame}data: {{\"error\":{{\"message\":\"CUDA\"}}}}\n\n")),
    ];
    run(async {
        for (name, text) in endings {
            for framing in ["chunked", "until closed"] {
                let said = text.clone();
                let scripted = Scripted::start(move |_| {
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
                    let bytes = match framing {
                        "chunked" if said.is_empty() => {
                            format!("{head}transfer-encoding: chunked\r\n\r\n0\r\n\r\n")
                        }
                        "chunked" => format!(
                            "{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{said}\r\n0\r\n\r\n",
                            said.len()
                        ),
                        _ => format!("{head}\r\n{said}"),
                    };
                    vec![(Duration::ZERO, bytes.into_bytes()), (5 * MS, Vec::new())]
                })
                .await;
                let fixture =
                    Fixture::start(Plan::default(), &[backend("b", scripted.addr, "")]).await;
                let reply = post(fixture.address, &chat(10, "")).await;
                let told = reply.text();
                assert!(!told.contains("[DONE]"), "{name}, {framing}: {told}");
                if text.contains(stop) {
                    assert!(reply.error_event().is_some(), "{name}, {framing}: {told}");
                } else {
                    assert_eq!(reply.finish_reason(), None, "{name}, {framing}: {told}");
                }
                match text.contains(frame) {
                    true => assert_eq!(reply.error_event().as_deref(), Some("backend_failed")),
                    false => {
                        assert_eq!((reply.status(), reply.code().as_str()), (502, "backend_failed"))
                    }
                }
                let books = fixture.finish().await;
                assert_eq!(books.ended(plimsoll_base::End::Failed), 1, "{name}: {books:?}");
            }
        }
    });
}

#[test]
fn what_a_backend_declines_is_not_the_clients_fault() {
    // The status of the backend, and that of the client.
    let cases = [
        ("401 Unauthorized", 502),
        ("403 Forbidden", 502),
        ("407 Proxy Authentication Required", 502),
        ("302 Found", 502),
        ("400 Bad Request", 400),
        ("404 Not Found", 404),
        ("429 Too Many Requests", 503),
    ];
    run(async {
        for (status, told) in cases {
            let body = r#"{"error":{"message":"wrong key sk-upstream-planted","code":"x"}}"#;
            let scripted =
                Scripted::saying(status, "content-type: application/json\r\n", body).await;
            let fixture = Fixture::start(Plan::default(), &[backend("b", scripted.addr, "")]).await;
            for body in [chat(4, ""), whole(4, "")] {
                let reply = post(fixture.address, &body).await;
                assert_eq!(reply.status(), told, "{status}: {}", reply.text());
                if told >= 500 {
                    assert!(!reply.text().contains("planted"), "{status}: {}", reply.text());
                }
                if told == 503 {
                    assert!(!reply.head.header("retry-after").is_empty(), "{status}");
                }
            }
            fixture.finish().await;
        }
    });
}

/// Two classes with deadlines of their own: batch has all of them later by 400 ms.
const PER_CLASS: &str = r#"
[gateway.deadlines]
connect = "300ms"
first_token = "500ms"
idle = "400ms"
total = "1200ms"
[[deadlines]]
class = "batch"
connect = "700ms"
first_token = "900ms"
idle = "800ms"
total = "1600ms"
"#;

fn flex(body: &str) -> String {
    body.replacen('{', "{\"service_tier\":\"flex\",", 1)
}

async fn fires(address: std::net::SocketAddr, what: &str, body: String, millis: u32) -> Reply {
    let mut worst = Duration::ZERO;
    let mut last = None;
    for (body, due) in [(body.clone(), millis * MS), (flex(&body), (millis + 400) * MS)] {
        let reply = post(address, &body).await;
        let late = reply.took.saturating_sub(due);
        assert!(reply.took + 5 * MS >= due, "{what}: {:?} is before {due:?}", reply.took);
        assert!(late < NOISE, "{what}: {late:?} late");
        worst = worst.max(late);
        last = Some(reply);
    }
    println!("G7: {what} fires {worst:?} late at most");
    last.expect("there were two")
}

#[test]
fn each_deadline_fires_in_time_for_each_class() {
    run(async {
        let slow = probe(8, 1.0);
        let plan = Plan { more: PER_CLASS, ..Plan::default() };
        let fixture = Fixture::start(plan, &[backend("b", slow.addr, "")]).await;
        let address = fixture.address;
        let missed = |reply: &Reply, which: &str| {
            let text = reply.text();
            assert!(text.contains(&format!("deadline `{which}`")), "{text}");
        };
        missed(&fires(address, "first token", chat(10, "x-fault:hang"), 500).await, "first token");
        let reply = fires(address, "first token", chat(10, "x-fault:stall-first"), 500).await;
        missed(&reply, "first token");
        missed(&fires(address, "total", whole(10, "x-fault:hang"), 1200).await, "total");
        let reply = fires(address, "total", chat(1000, ""), 1200).await;
        missed(&reply, "total");
        assert_eq!(reply.error_event().as_deref(), Some("deadline_missed"));
        missed(&fires(address, "total", whole(1000, ""), 1200).await, "total");
        // Three tokens come first: some 12 ms each, and what the machine adds.
        let reply = fires(address, "idle", chat(10, "x-fault:stall"), 430).await;
        missed(&reply, "idle");
        let books = fixture.finish().await;
        assert_eq!(books.ended(plimsoll_base::End::Expired), 12, "{books:?}");
        assert_eq!(slow.counts().running, 0);
    });
}

/// A backend that is well until it accepts no more connections, and then answers no SYN.
async fn dark() -> (std::net::SocketAddr, impl AsyncFnOnce() -> Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let listener = socket.listen(1).expect("it listens");
    let addr = listener.local_addr().expect("an address");
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => return listener,
                accepted = listener.accept() => {
                    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                    let Ok((mut stream, _)) = accepted else { continue };
                    let mut bytes = [0; 4096];
                    let _ = stream.read(&mut bytes).await;
                    let well = gateway::answer("200 OK", "connection: close\r\n", "");
                    let _ = stream.write_all(&well).await;
                }
            }
        }
    });
    let go = async move || {
        drop(stop);
        let listener = task.await.expect("it listens no more");
        let mut held = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(100 * MS, TcpStream::connect(addr)).await {
            held.push(stream);
        }
        // Never dropped: the backlog stays full.
        std::mem::forget(listener);
        held
    };
    (addr, go)
}

#[test]
fn the_deadline_to_connect_fires_in_time() {
    run(async {
        let (addr, go_dark) = dark().await;
        let backend = backend("b", addr, "metrics = \"none\"\nscrape_every = \"1s\"").replacen(
            "scrape_every = \"50ms\"\n",
            "",
            1,
        );
        let plan = Plan { gateway: "retries = 0", more: PER_CLASS, ..Plan::default() };
        let fixture = Fixture::start(plan, &[backend]).await;
        let held = go_dark().await;
        let reply = fires(fixture.address, "connect", chat(10, ""), 300).await;
        assert_eq!((reply.status(), reply.code().as_str()), (502, "backend_unreachable"));
        drop(held);
        fixture.finish().await;
    });
}

#[test]
fn a_long_answer_is_not_cut_by_a_60s_total() {
    // A scale of 1:100: the first token is due after 600 ms, and the answer takes three times that.
    const SCALED: &str = r#"
[gateway.deadlines]
connect = "20ms"
first_token = "600ms"
idle = "600ms"
total = "10s"
"#;
    run(async {
        let slow = probe(8, 1.0);
        let plan = Plan { more: SCALED, ..Plan::default() };
        let fixture = Fixture::start(plan, &[backend("b", slow.addr, "")]).await;
        let (streamed, at_once) = (chat(150, ""), whole(150, ""));
        let (streamed, at_once) =
            tokio::join!(post(fixture.address, &streamed), post(fixture.address, &at_once));
        for reply in [streamed, at_once] {
            assert!(reply.is_success(), "{}", reply.text());
            assert!(reply.took > 1_500 * MS, "{:?}", reply.took);
        }
        fixture.finish().await;
    });
}

/// Leaves; how long it took until neither the gateway nor the backend hold anything of it.
async fn leave(
    fixture: &Fixture,
    backend: &Probe,
    client: Client,
    (queued, runs): (u32, u32),
) -> Duration {
    drop(client);
    eventually(Duration::from_secs(3), "a client that left is forgotten", async || {
        backend.counts().running == u64::from(runs) && fixture.held().await == (queued, runs)
    })
    .await
}

#[test]
fn in_flight_counters_do_not_leak_when_a_client_hangs_up() {
    run(async {
        let slow = probe(8, 1.0);
        let one_seat = [backend("b", slow.addr, "seats = 1")];
        let fixture = Fixture::start(Plan::default(), &one_seat).await;
        let begin = async |body: String, extra: &[u8]| {
            let mut client = Client::open(fixture.address).await;
            client.send(gateway::CHAT, "", &body).await;
            if !extra.is_empty() {
                client.send_raw(extra).await;
            }
            client
        };
        let are = async |held: (u32, u32)| {
            eventually(Duration::from_secs(3), "it has come so far", async || {
                fixture.held().await == held && slow.counts().running == u64::from(held.1)
            })
            .await;
        };
        // A client may send more than a request before it leaves: a second one, or an empty line.
        let second =
            format!("POST {} HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n", gateway::CHAT);
        for (name, extra) in [
            ("", &b""[..]),
            (" with more sent", second.as_bytes()),
            (" after an empty line", b"\r\n"),
        ] {
            let mut phases = Vec::new();
            for (phase, body) in [
                ("before the first token", chat(10, "x-fault:hang")),
                ("before the first token", chat(10, "x-fault:stall-first")),
                ("mid-stream", chat(2_000, "")),
                ("mid-stream, in silence", chat(10, "x-fault:stall")),
                ("not streamed", whole(2_000, "")),
                ("not streamed, in silence", whole(10, "x-fault:stall")),
            ] {
                let mut client = begin(body, extra).await;
                are((0, 1)).await;
                if phase.starts_with("mid") {
                    assert_eq!(client.head().await.map(|head| head.status), Ok(200));
                    while !matches!(client.chunk().await, Ok(Some(chunk)) if chunk.ends_with(b"\n\n"))
                    {
                    }
                }
                phases.push((phase, leave(&fixture, &slow, client, (0, 0)).await));
            }
            let runs = begin(chat(2_000, ""), b"").await;
            are((0, 1)).await;
            let waits = begin(chat(10, ""), extra).await;
            are((1, 1)).await;
            phases.push(("while queued", leave(&fixture, &slow, waits, (0, 1)).await));
            leave(&fixture, &slow, runs, (0, 0)).await;
            for (phase, took) in phases {
                println!("G8: left {phase}{name}: freed after {took:?}");
                assert!(took < 250 * MS + NOISE, "{phase}{name}: {took:?}");
            }
        }
        let books = fixture.finish().await;
        assert_eq!(
            (books.withdrawn, books.ended(plimsoll_base::End::Cancelled)),
            (3, 21),
            "{books:?}"
        );
        let counts = slow.shutdown();
        assert_eq!(counts.running, 0, "{counts:?}");
    });
}

#[test]
fn in_flight_counters_do_not_leak_when_a_backend_flaps() {
    run(async {
        let mut flapping = Some(probe(8, 1.0));
        let addr = flapping.as_ref().expect("it runs").addr;
        let steady = probe(8, 1.0);
        let backends = [backend("flaps", addr, ""), backend("steady", steady.addr, "")];
        let fixture =
            Fixture::start(Plan { gateway: "retries = 3", ..Plan::default() }, &backends).await;
        let address = fixture.address;
        let load = tokio::spawn(async move {
            let (mut told, began) = ([0; 2], Instant::now());
            while began.elapsed() < Duration::from_secs(5) {
                let body = chat(20, "");
                let wave = (0..8).map(|_| post(address, &body));
                for reply in futures_util::future::join_all(wave).await {
                    assert_eq!(reply.end, End::Whole);
                    let is_told = reply.is_success()
                        || reply.status() >= 500
                        || reply.error_event().is_some();
                    assert!(is_told, "{}: {}", reply.status(), reply.text());
                    told[usize::from(reply.is_success())] += 1;
                }
            }
            told
        });
        for _ in 0..4 {
            tokio::time::sleep(500 * MS).await;
            flapping.take().expect("it runs").shutdown();
            tokio::time::sleep(500 * MS).await;
            let settings = plimsoll_probe::backend::Settings { listen: addr, ..Default::default() };
            flapping = Some(
                plimsoll_probe::backend::Backend::start(gateway::engine(8), settings)
                    .expect("the port is free"),
            );
        }
        let [broken, well] = load.await.expect("the load runs to its end");
        println!("a backend that flaps four times: {well} answers, {broken} told as broken");
        // Only what ran there when it fell can break: what finds it gone goes elsewhere.
        assert!(broken <= 4 * 8, "{broken}");
        fixture.backends_are(2).await;
        let books = fixture.finish().await;
        assert!(books.by_backend[&0] > 0 && books.by_backend[&1] > 0, "{books:?}");
    });
}

#[test]
fn a_backend_that_breaks_everything_is_left_out_where_another_can_serve() {
    run(async {
        let (bad, good) = (probe(8, 20.0), probe(8, 20.0));
        bad.set_faults(gateway::faults(&[(plimsoll_probe::backend::Fault::Status500, 1.0)], 1));
        let backends = [backend("bad", bad.addr, ""), backend("good", good.addr, "")];
        let fixture = Fixture::start(Plan::default(), &backends).await;
        let mut broken = 0;
        for _ in 0..100 {
            let reply = post(fixture.address, &chat(2, "")).await;
            assert!(reply.is_success() || reply.status() == 502, "{}", reply.text());
            broken += u32::from(!reply.is_success());
        }
        println!("of 100 requests {broken} were broken before the backend was left out");
        assert!((5..=10).contains(&broken), "{broken}");
        // It is tried again, and when it is well it stays.
        bad.set_faults(gateway::faults(&[], 1));
        fixture.backends_are(2).await;
        for _ in 0..20 {
            assert!(post(fixture.address, &chat(2, "")).await.is_success());
        }
        assert!(bad.counts().finished > 0);
        // The last one is never left out: what it breaks is told so, and nothing else is refused.
        good.shutdown();
        fixture.backends_are(1).await;
        bad.set_faults(gateway::faults(&[(plimsoll_probe::backend::Fault::Status500, 1.0)], 1));
        for _ in 0..20 {
            assert_eq!(post(fixture.address, &chat(2, "")).await.status(), 502);
        }
        fixture.finish().await;
    });
}

/// Servers close connections that were idle. Who sends at that moment finds the connection closed in
/// order, without a word of an answer: it is sent once more, over a connection of its own.
#[test]
fn a_kept_connection_that_closes_under_a_request_is_replaced_once() {
    run(async {
        let closes = [1, 3, 4];
        let body = "{\"choices\":[{\"finish_reason\":\"stop\"}]}";
        let well = gateway::answer("200 OK", "content-type: application/json\r\n", body);
        let scripted = Scripted::start(move |number| match closes.contains(&number) {
            true => vec![(Duration::ZERO, Vec::new())],
            false => vec![(Duration::ZERO, well.clone())],
        })
        .await;
        let slowly = backend("b", scripted.addr, "").replace("\"50ms\"", "\"1min\"");
        let fixture = Fixture::start(Plan::default(), &[slowly]).await;
        for (status, seen) in [(200, 1), (200, 3), (502, 5)] {
            let reply = post(fixture.address, &gateway::whole(2, "")).await;
            assert_eq!(reply.status(), status, "{}", reply.text());
            assert_eq!(scripted.seen().len(), seen);
        }
        fixture.finish().await;
    });
}

#[test]
fn who_finds_a_backend_gone_goes_elsewhere() {
    run(async {
        let (gone, here) = (probe(8, 20.0), probe(8, 20.0));
        let slowly = |name, probe: &Probe| {
            backend(name, probe.addr, "")
                .replace("scrape_every = \"50ms\"", "scrape_every = \"1min\"")
        };
        let backends = [slowly("gone", &gone), slowly("here", &here)];
        let fixture = Fixture::start(Plan::default(), &backends).await;
        gone.shutdown();
        let body = chat(2, "");
        for _ in 0..5 {
            let wave = (0..8).map(|_| post(fixture.address, &body));
            for reply in futures_util::future::join_all(wave).await {
                assert!(reply.is_success(), "{} {}", reply.status(), reply.text());
            }
        }
        let books = fixture.finish().await;
        assert!(books.retried > 0 && books.retried <= 8, "{books:?}");
    });
}
