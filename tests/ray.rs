//! The same sweep on Ray and on threads: identical bytes, whoever is killed on the way.
//!
//! Opt-in, because it installs Ray (0.3 GB, from the Python package index) into `target/ray` and
//! starts a cluster on loopback: `PLIMSOLL_RAY=1 cargo test --test ray`.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{plimsoll, scenario};

/// What the test was last run with.
const RAY: &str = "ray==2.60.0";
const SHARDS: usize = 4;
/// 80 cells.
const SWEEP: [&str; 8] = [
    "--vary",
    "pool.gpu.replicas=1,2",
    "--vary",
    "workload.chat.arrivals.rate=1/s,2/s,4/s,8/s",
    "--vary",
    "seed=1,2,3,4,5,6,7,8,9,10",
    "--set",
    "run.duration=30m",
];

/// A Python that has Ray; `None`, and a word about it, where nobody asked.
fn python() -> Option<PathBuf> {
    if std::env::var_os("PLIMSOLL_RAY").is_none() {
        println!("skipped: PLIMSOLL_RAY is not set, so nothing is run on Ray");
        return None;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let folder = target.join("ray");
    let python = folder.join("bin/python");
    if !python.exists() {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&folder).status();
        assert!(made.expect("python3 is there").success());
    }
    let has = |python: &Path| Command::new(python).args(["-c", "import ray"]).status();
    if !has(&python).expect("it starts").success() {
        let installed =
            Command::new(&python).args(["-m", "pip", "install", "--quiet", RAY]).status();
        assert!(installed.expect("pip starts").success(), "{RAY} can be installed");
    }
    Some(python)
}

fn emit(out: &Path) -> PathBuf {
    let mut command = plimsoll();
    command.arg("sweep").arg(scenario("small")).args(SWEEP).arg("--out").arg(out);
    command.args(["--emit", "ray", "--shards", &SHARDS.to_string()]).assert().success();
    out.join("sweep_ray.py")
}

/// Starts the driver with a home, a token and a folder of its own; on loopback alone.
fn start(python: &Path, driver: &Path, scratch: &Path) -> Child {
    let mut command = Command::new(python);
    command.arg(driver).env_remove("RAY_ADDRESS").env_remove("RAY_AUTH_MODE");
    command.env("HOME", scratch).env("RAY_TMPDIR", scratch).env("RAY_USAGE_STATS_ENABLED", "0");
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the driver starts")
}

fn finish(driver: Child) -> String {
    let output = driver.wait_with_output().expect("the driver ends");
    assert!(output.status.success(), "{}", output.status);
    String::from_utf8(output.stdout).expect("what it prints is UTF-8")
}

fn results(out: &Path) -> [Vec<u8>; 2] {
    ["sweep.json", "cells.csv"]
        .map(|file| std::fs::read(out.join(file)).expect("a sweep leaves its results"))
}

/// The processes that run a shard of `out`, and the Ray workers that started them.
fn at_work(out: &Path) -> Vec<(u32, u32)> {
    let marked = out.to_str().expect("paths are UTF-8");
    let entries = std::fs::read_dir("/proc").expect("this runs on Linux");
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| {
        let line = std::fs::read_to_string(format!("/proc/{id}/cmdline")).ok()?;
        let is_shard = line.contains(marked) && line.contains("--shard");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        is_shard.then(|| Some((id, parent.trim().parse().ok()?)))?
    })
    .collect()
}

fn kill(id: u32) {
    let status = Command::new("kill").args(["-9", &id.to_string()]).status();
    let _ = status.expect("kill is there");
}

/// Cells that are done, over all shards.
fn done(out: &Path) -> usize {
    let journal = |number: usize| out.join(format!("shard-{number}-of-{SHARDS}/sweep.journal"));
    let lines = |path: PathBuf| {
        let text = std::fs::read(path).unwrap_or_default();
        text.iter().filter(|byte| **byte == b'\n').count().saturating_sub(1)
    };
    (1..=SHARDS).map(journal).map(lines).sum()
}

#[test]
fn ray_gives_the_bytes_of_threads_and_a_killed_worker_loses_nothing() {
    let Some(python) = python() else { return };
    let folder = tempfile::Builder::new().prefix("ray").tempdir().expect("a scratch folder");
    let threads = folder.path().join("threads");
    let mut command = plimsoll();
    command.arg("sweep").arg(scenario("small")).args(SWEEP).args(["--quiet", "--out"]);
    command.arg(&threads).assert().success();

    let undisturbed = folder.path().join("undisturbed");
    let driver = start(&python, &emit(&undisturbed), folder.path());
    let said = finish(driver);
    assert_eq!(said.matches(" is done, ").count(), SHARDS, "{said}");
    assert!(results(&threads) == results(&undisturbed), "Ray gives other bytes");
    assert!(folder.path().join(".ray/auth_token").exists(), "the cluster has a token");

    // Once a Ray worker dies and leaves its shard's process behind, once both die.
    let disturbed = folder.path().join("disturbed");
    let driver = start(&python, &emit(&disturbed), folder.path());
    let began = Instant::now();
    let mut kills = Vec::new();
    for (cells, victims) in [(4, 1), (24, 2), (44, 2)] {
        while done(&disturbed) < cells && began.elapsed() < Duration::from_secs(240) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some((shard, worker)) = at_work(&disturbed).first() {
            let before = done(&disturbed);
            [*worker, *shard].into_iter().take(victims).for_each(kill);
            kills.push((before, done(&disturbed)));
        }
    }
    assert!(!kills.is_empty(), "nobody could be killed in mid-sweep");
    assert!(kills.iter().all(|(before, after)| after >= before), "what was done stays: {kills:?}");
    finish(driver);
    assert!(results(&threads) == results(&disturbed), "after {kills:?} the bytes differ");
    println!("killed with so many cells done: {kills:?}");
}
