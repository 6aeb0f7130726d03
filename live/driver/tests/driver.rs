//! The task that owns the allocator: one end for each request, and a log that replays.

use std::path::Path;
use std::time::Duration;

use plimsoll_base::{ClassId, End, Reason, Refusal};
use plimsoll_driver::{Gate, LogSettings, Policy, ReloadError, Settings, start};
use plimsoll_policy::config::{Class, Share};
use plimsoll_policy::log::{Header, Reader, Replay};
use plimsoll_policy::{BackendInfo, Config, RequestInfo};
use tokio::task::JoinHandle;

const SEATS: u32 = 2;

fn policy(classes: Vec<Class>) -> Policy {
    Policy { config: Config::plain(Share::Fcfs, classes), header: Header::default() }
}

async fn begin(policy: Policy, folder: Option<(&Path, u64)>) -> (Gate, JoinHandle<()>) {
    let log = folder.map(|(folder, file_bytes_max)| LogSettings {
        folder: folder.to_owned(),
        file_bytes_max,
        files_max: 3,
    });
    let (gate, task) =
        start(Settings { policy, log, observer: Box::new(()) }).expect("a valid policy");
    let info =
        BackendInfo { seats: SEATS, kv_tokens: 1000, context_max: 1000, ..Default::default() };
    gate.join(0, info).await;
    (gate, task)
}

fn request() -> RequestInfo {
    let claims = Some(ClassId(0));
    RequestInfo { claims, prompt_tokens: 10, output_cap: 10, ..Default::default() }
}

async fn held(gate: &Gate) -> (u32, u32) {
    gate.ask(|inside| (inside.allocator.queued(ClassId(0)), inside.allocator.in_flight()))
        .await
        .expect("it runs")
}

#[tokio::test(start_paused = true)]
async fn whatever_is_dropped_frees_what_it_held() {
    let (gate, _task) = begin(policy(vec![Class::default()]), None).await;
    let mut tickets = Vec::new();
    for _ in 0..SEATS {
        tickets.push(gate.submit(request()).expect("room").admitted().await.expect("a seat"));
    }
    let waiting = gate.submit(request()).expect("room");
    assert_eq!(held(&gate).await, (1, SEATS));
    drop(waiting);
    assert_eq!(held(&gate).await, (0, SEATS), "a client that waits leaves");

    // One that was let go before it knew: dispatched by the end below, dropped unread.
    let unread = gate.submit(request()).expect("room");
    tickets.pop().expect("two").end(End::Finished);
    assert_eq!(held(&gate).await, (0, SEATS));
    drop(unread);
    assert_eq!(held(&gate).await, (0, SEATS - 1));

    drop(tickets);
    assert_eq!(held(&gate).await, (0, 0), "a ticket that is dropped ends");
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_told() {
    let time_to_live = Some(plimsoll_base::Span::from_secs(3));
    let (gate, _task) = begin(policy(vec![Class { time_to_live, ..Class::default() }]), None).await;
    let mut held = Vec::new();
    for _ in 0..SEATS {
        held.push(gate.submit(request()).expect("room").admitted().await.expect("a seat"));
    }
    let began = tokio::time::Instant::now();
    let refused = gate.submit(request()).expect("room").admitted().await.expect_err("no seat");
    assert_eq!((refused.refusal, refused.reason), (None, Some(Reason::TimeToLive)));
    let waited = began.elapsed();
    assert!((3.0..3.1).contains(&waited.as_secs_f64()), "{waited:?}");
    gate.drain().await;
    let refused = gate.submit(request()).expect("room").admitted().await.expect_err("draining");
    assert_eq!(refused.refusal, Some(Refusal::Draining));
}

#[tokio::test(start_paused = true)]
async fn another_policy_takes_over_what_is_held() {
    let (gate, _task) = begin(policy(vec![Class::default(); 2]), None).await;
    let mut tickets = Vec::new();
    for _ in 0..SEATS {
        tickets.push(gate.submit(request()).expect("room").admitted().await.expect("a seat"));
    }
    let waiting = gate.submit(request()).expect("room");
    let fewer = gate.reload(policy(vec![Class::default()]), Vec::new()).await;
    assert_eq!(fewer, Err(ReloadError::Classes { before: 2, after: 1 }));
    let broken = policy(vec![Class { weight: 0, ..Class::default() }; 2]);
    assert!(matches!(gate.reload(broken, Vec::new()).await, Err(ReloadError::Config(_))));
    assert_eq!(held(&gate).await, (1, SEATS));
    gate.reload(policy(vec![Class::default(); 3]), Vec::new()).await.expect("it is valid");
    assert_eq!(held(&gate).await, (1, SEATS));
    tickets.clear();
    waiting.admitted().await.expect("a seat").end(End::Finished);
    assert_eq!(held(&gate).await, (0, 0));
}

/// Every file of the folder by itself; how many decisions.
fn replay(folder: &Path) -> (usize, u64) {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("a file").path()).collect();
    paths.sort();
    let mut decisions = 0;
    for path in &paths {
        let bytes = std::fs::read(path).expect("a file");
        let mut log = Reader::new(&bytes).expect("a log");
        let mut replay = Replay::new(log.header().policy.clone()).expect("a policy");
        for record in &mut log {
            let record = record.expect("whole records");
            replay.step(&record).expect("the same decisions");
        }
        decisions += log.totals().decisions;
    }
    (paths.len(), decisions)
}

/// Real time, so that the log's thread keeps up.
#[tokio::test]
async fn the_log_replays_over_files_and_policies() {
    let folder = tempfile::tempdir().expect("a folder");
    let (gate, task) = begin(policy(vec![Class::default(); 2]), Some((folder.path(), 4000))).await;
    for round in 0..600 {
        let one = gate.submit(request()).expect("room");
        let two = gate.submit(request()).expect("room");
        let three = gate.submit(request()).expect("room");
        let one = one.admitted().await.expect("a seat");
        gate.first_token(&one).await;
        drop(two);
        one.end(End::Finished);
        three.admitted().await.expect("a seat").end(End::Failed);
        if round % 150 == 75 {
            gate.reload(policy(vec![Class::default(); 2]), Vec::new()).await.expect("it is valid");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(held(&gate).await, (0, 0));
    gate.stop().await;
    task.await.expect("it does not panic");
    let (files, decisions) = replay(folder.path());
    assert_eq!(files, 3, "only the latest are kept");
    assert!(decisions > 100, "{decisions}");
}
