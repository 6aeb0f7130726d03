//! Each request has exactly one outcome, every decision replays, a reload is atomic and a drain
//! loses nothing: batteries G1, G2, G9 and G10.

mod gateway;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use gateway::{
    CHAT, Client, End, Fixture, Plan, TWO_CLASSES, backend, chat, engine, eventually, faults, post,
    probe, run, whole,
};
use plimsoll_base::{Refusal, Stream, StreamKey};
use plimsoll_probe::backend::{Backend, Fault, Limits, Settings};

const MS: Duration = Duration::from_millis(1);

/// Short deadlines, so that faults do not hold the test up.
const SHORT: &str = r#"
[gateway.deadlines]
connect = "1s"
first_token = "600ms"
idle = "600ms"
total = "5s"
"#;

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// It waits for the end.
    Stays,
    /// It leaves in the middle of its head, or of its body.
    LeavesInHead,
    LeavesInBody,
    /// It leaves after so long, whatever has come.
    LeavesAfter(Duration),
    /// It leaves after so many chunks.
    LeavesAfterChunks(u32),
}

/// What clients have seen.
#[derive(Debug, Default)]
struct Seen {
    stayed: AtomicU64,
    succeeded: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
    left: AtomicU64,
    left_early: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn behaviour(number: u64) -> (Patience, String) {
    let key = StreamKey { seed: 7, replication: 0, name: "clients", entity: number };
    let mut draw = Stream::new(key);
    let tokens = 1 + (draw.uniform() * 12.0) as u32;
    let body = if draw.uniform() < 0.7 { chat(tokens, "") } else { whole(tokens, "") };
    let millis = |draw: &mut Stream| Duration::from_micros((draw.uniform() * 20_000.0) as u64);
    let patience = match draw.uniform() {
        part if part < 0.80 => Patience::Stays,
        part if part < 0.82 => Patience::LeavesInHead,
        part if part < 0.84 => Patience::LeavesInBody,
        part if part < 0.94 => Patience::LeavesAfter(millis(&mut draw)),
        _ => Patience::LeavesAfterChunks(1 + (draw.uniform() * 3.0) as u32),
    };
    (patience, body)
}

/// One client's doings, on a connection that is kept if all goes well.
async fn client(kept: &mut Option<Client>, fixture: &Fixture, number: u64, seen: &Seen) {
    let (patience, body) = behaviour(number);
    let mut client = match kept.take() {
        Some(client) => client,
        None => Client::open(fixture.address).await,
    };
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: t\r\nx-request-id: client-{number}\r\ncontent-length: \
         {}\r\n\r\n",
        body.len()
    );
    match patience {
        Patience::LeavesInHead => {
            client.send_raw(&head.as_bytes()[..head.len() / 2]).await;
            return add(&seen.left_early);
        }
        Patience::LeavesInBody => {
            client.send_raw(format!("{head}{}", &body[..body.len() / 2]).as_bytes()).await;
            return add(&seen.left_early);
        }
        _ => client.send_raw(format!("{head}{body}").as_bytes()).await,
    }
    match patience {
        Patience::LeavesAfter(span) => {
            let _ = tokio::time::timeout(span, client.reply()).await;
            return add(&seen.left);
        }
        Patience::LeavesAfterChunks(count) => {
            if client.head().await.is_ok_and(|head| head.header("transfer-encoding") == "chunked") {
                for _ in 0..count {
                    let _ = client.chunk().await;
                }
            }
            return add(&seen.left);
        }
        _ => {}
    }
    let reply = client.reply().await;
    let text = reply.text();
    assert_eq!(reply.end, End::Whole, "client {number}: {} {text}", reply.status());
    add(&seen.stayed);
    if reply.is_success() {
        add(&seen.succeeded);
        assert!(!text.contains("\"error\""), "{text}");
    } else if reply.json()["error"]["plimsoll"].is_object() {
        assert!([429, 503].contains(&reply.status()), "{text}");
        assert!(!reply.head.header("retry-after").is_empty(), "{text}");
        add(&seen.refused);
    } else {
        let is_told = [502, 504].contains(&reply.status()) || reply.error_event().is_some();
        assert!(is_told && reply.finish_reason().is_none(), "{} {text}", reply.status());
        add(&seen.broken);
    }
    *kept = Some(client);
}

#[test]
fn each_request_has_exactly_one_outcome_on_all_three_sides() {
    // A tenth of the battery's figure; all of it with PLIMSOLL_SOAK set.
    let count: u64 = if std::env::var_os("PLIMSOLL_SOAK").is_some() { 100_000 } else { 10_000 };
    let shares: Vec<(Fault, f64)> = Fault::ALL.iter().map(|&fault| (fault, 0.3 / 12.0)).collect();
    run(async {
        let start = |seed| {
            let limits = Limits { slow_headers: 100 * MS, ..Limits::default() };
            let settings = Settings {
                speed: 20.0,
                faults: faults(&shares, seed),
                limits,
                ..Settings::default()
            };
            Backend::start(engine(64), settings).expect("the backend starts")
        };
        let probes = [start(1), start(2), start(3)];
        let backends: Vec<String> = (0..)
            .zip(&probes)
            .map(|(at, probe)| backend(&format!("b{at}"), probe.addr, "seats = 64"))
            .collect();
        let folder = tempfile::tempdir().expect("a folder");
        let text = Plan { more: SHORT, ..Plan::default() }.text(&backends);
        // The log is small: its files are made smaller still, so that there are several.
        let fixture = Fixture::start_with(folder, &text, 3, |file| {
            let log = file.log.as_mut().expect("there is one");
            (log.file_bytes_max, log.files_max) = (16 << 10, 1_000);
        })
        .await;
        let (seen, next, began) = (Seen::default(), AtomicU64::new(0), Instant::now());
        let clients = (0..128).map(|_| async {
            let mut kept = None;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    break;
                }
                client(&mut kept, &fixture, number, &seen).await;
            }
        });
        join_all(clients).await;
        let took = began.elapsed();
        let freed = fixture.is_empty_within(Duration::from_secs(10)).await;
        eventually(Duration::from_secs(2), "the backends hold nothing", async || {
            probes.iter().all(|probe| probe.counts().running == 0)
        })
        .await;
        let books = fixture.finish().await;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [stayed, succeeded, refused, broken, left, early] = [
            &seen.stayed,
            &seen.succeeded,
            &seen.refused,
            &seen.broken,
            &seen.left,
            &seen.left_early,
        ]
        .map(get);
        println!(
            "G2: {count} requests in {took:?}; clients: {succeeded} well, {broken} broken, {refused} refused, \
             {left} left, {early} left before they had asked; books back to zero after {freed:?}"
        );
        // The clients' books.
        assert_eq!(stayed + left + early, count);
        assert_eq!(succeeded + refused + broken, stayed);
        // The gateway's: each request that was read came to one end, and so did each that was tried again.
        let ended = |end| books.ended(end);
        let [finished, failed, cancelled, expired] = [
            ended(plimsoll_base::End::Finished),
            ended(plimsoll_base::End::Failed),
            ended(plimsoll_base::End::Cancelled),
            ended(plimsoll_base::End::Expired),
        ];
        println!(
            "G2: gateway: {} arrived ({} again), {} dispatched: {finished} finished, {failed} failed, {expired} \
             expired, {cancelled} cancelled; {} refused, {} withdrawn, {} waited too long",
            books.arrived,
            books.retried,
            books.dispatched,
            books.refused(),
            books.withdrawn,
            books.waited_too_long
        );
        println!(
            "G1: {} decisions of {} inputs in {} files replay",
            books.decisions, books.inputs, books.files
        );
        assert!(books.files > 1, "the log is rotated on the way");
        assert_eq!(books.dispatched, finished + failed + cancelled + expired);
        assert_eq!(
            books.arrived,
            books.dispatched + books.refused() + books.withdrawn + books.waited_too_long
        );
        let arrived = books.arrived - books.retried;
        assert!((stayed..=stayed + left).contains(&arrived), "{arrived} arrived");
        // Both: what a client was told is what is written down; of those that left, either may be.
        assert!(
            (succeeded..=succeeded + left).contains(&finished),
            "{finished} finished, {succeeded} well"
        );
        let told = books.refused() + books.waited_too_long;
        assert!((refused..=refused + left).contains(&told), "{told} refused, {refused} told so");
        assert!(
            (broken..=broken + left).contains(&(failed + expired - books.retried)),
            "{broken} broken"
        );
        assert!(cancelled + books.withdrawn <= left, "only who left is cancelled");
        // The backends': nothing was doubled, nothing still runs, and nobody finished unheard.
        let counts: Vec<_> = probes.into_iter().map(|probe| probe.shutdown()).collect();
        let sum =
            |of: fn(&plimsoll_probe::backend::Counts) -> u64| counts.iter().map(of).sum::<u64>();
        let (accepted, done) = (sum(|counts| counts.accepted), sum(|counts| counts.finished));
        println!(
            "G2: backends: {accepted} accepted, {done} finished, {} failed, {} cancelled",
            sum(|c| c.failed),
            sum(|c| c.cancelled)
        );
        assert_eq!(
            (
                sum(|counts| counts.running),
                sum(|counts| counts.doubled),
                sum(|counts| counts.refused)
            ),
            (0, 0, 0)
        );
        assert_eq!(accepted, done + sum(|counts| counts.failed) + sum(|counts| counts.cancelled));
        assert!(
            accepted <= books.dispatched
                && books.dispatched - accepted <= left + sum(|c| c.connections_refused),
            "{accepted}"
        );
        assert!((finished..=finished + left).contains(&done), "{done} done, {finished} finished");
        assert!(sum(|counts| counts.failed) * 10 > 2 * accepted, "there were faults");
    });
}

#[test]
fn a_reload_under_load_fails_nothing_and_an_invalid_one_changes_nothing() {
    run(async {
        let steady = probe(16, 10.0);
        let backends = [backend("b", steady.addr, "seats = 8")];
        let plan = Plan { more: "files_max = 100", ..Plan::default() };
        let fixture = Arc::new(Fixture::start(plan, &backends).await);
        let stop = Arc::new(AtomicU64::new(0));
        let load = join_all((0..16).map(|_| {
            let (fixture, stop) = (Arc::clone(&fixture), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut answers = 0;
                while stop.load(Ordering::Relaxed) == 0 {
                    let reply = post(fixture.address, &chat(8, "")).await;
                    assert!(reply.is_success(), "{} {}", reply.status(), reply.text());
                    answers += 1;
                }
                answers
            })
        }));
        let policies = [
            TWO_CLASSES.replace("fcfs", "virtual-token-counter"),
            TWO_CLASSES.replace("weight = 1", "weight = 9"),
            TWO_CLASSES.replace("fcfs", "priority"),
            TWO_CLASSES.to_owned(),
        ];
        let reloads = async {
            for round in 0..20 {
                tokio::time::sleep(50 * MS).await;
                let text = Plan { policy: &policies[round % 4], ..Plan::default() }.text(&backends);
                let file = gateway::read(&text, fixture.folder());
                fixture.reload(file.config.clone()).await.expect("it is valid");
                let mut broken = file.config.clone();
                broken.classes[0].weight = 0;
                fixture.reload(broken).await.expect_err("a weight of 0");
                let mut fewer = file.config;
                fewer.classes.truncate(1);
                fixture.reload(fewer).await.expect_err("a class less");
            }
            stop.store(1, Ordering::Relaxed);
        };
        let (answers, ()) = tokio::join!(load, reloads);
        let answers: u64 = answers.into_iter().map(|answers| answers.expect("no failure")).sum();
        let fixture = Arc::into_inner(fixture).expect("nobody else has it");
        let books = fixture.finish().await;
        println!(
            "G9: {answers} answers over 20 reloads and 40 invalid ones, none failed; {} files replay",
            books.files
        );
        assert_eq!(books.ended(plimsoll_base::End::Finished), answers);
        assert_eq!(books.arrived, answers);
        assert_eq!(books.peak, 8, "who runs is counted over every reload");
        assert_eq!(books.files, 21, "an invalid policy begins no file");
    });
}

#[test]
fn a_drain_loses_nothing() {
    run(async {
        let steady = probe(16, 1.0);
        let fixture =
            Fixture::start(Plan::default(), &[backend("b", steady.addr, "seats = 4")]).await;
        let address = fixture.address;
        // Four run and four wait: all of them were let in before.
        let held: Vec<_> = (0..8)
            .map(|at| {
                let body = if at % 2 == 0 { chat(40, "") } else { whole(40, "") };
                tokio::spawn(async move { post(address, &body).await })
            })
            .collect();
        eventually(2_000 * MS, "they are held", async || fixture.held().await == (4, 4)).await;
        let mut kept = Client::open(address).await;
        kept.send_raw(b"GET /readyz HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(kept.reply().await.status(), 200);
        let drain = tokio::spawn(fixture.drain(Duration::from_secs(10)));
        tokio::time::sleep(100 * MS).await;
        kept.send_raw(b"GET /readyz HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(kept.reply().await.status(), 503, "nobody should send more here");
        for _ in 0..4 {
            let reply = post(address, &chat(4, "")).await;
            assert_eq!((reply.status(), reply.code().as_str()), (503, "draining"));
            assert!(!reply.head.header("retry-after").is_empty());
        }
        let replies: Vec<_> =
            join_all(held).await.into_iter().map(|reply| reply.expect("a reply")).collect();
        for reply in &replies {
            assert!(reply.is_success(), "{} {:?} {}", reply.status(), reply.end, reply.text());
        }
        let last = replies.iter().map(|reply| reply.took).max();
        let (all_ended, books) = drain.await.expect("it ends");
        assert!(all_ended);
        kept.patience = 100 * MS;
        assert_eq!(kept.closed().await, End::Closed, "an idle connection is closed");
        assert!(Client::try_open(address).await.is_err(), "nobody listens");
        println!(
            "G10: 8 held requests ended well, the last after {last:?}; 4 new ones were refused"
        );
        assert_eq!(books.ended(plimsoll_base::End::Finished), 8);
        assert_eq!(books.rejected[&Refusal::Draining], 4);
    });
}

#[test]
fn a_drain_ends_with_its_grace() {
    run(async {
        let steady = probe(16, 1.0);
        let fixture =
            Fixture::start(Plan::default(), &[backend("b", steady.addr, "seats = 4")]).await;
        let address = fixture.address;
        let endless = tokio::spawn(async move { post(address, &chat(4_000, "")).await });
        eventually(2_000 * MS, "it runs", async || fixture.held().await == (0, 1)).await;
        let began = Instant::now();
        let (all_ended, _) = fixture.drain(500 * MS).await;
        assert!(!all_ended && began.elapsed() < 1_500 * MS, "{:?}", began.elapsed());
        let reply = endless.await.expect("a reply");
        assert!(!reply.is_done() && reply.finish_reason().is_none(), "{}", reply.text());
        eventually(1_000 * MS, "its backend is free", async || steady.counts().running == 0).await;
    });
}
