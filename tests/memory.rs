//! Memory is bounded by what is in flight, not by the length of the run. The peak is that of this
//! process, which holds no other test; Linux tells it, elsewhere this is skipped.
//! `cargo bench --bench memory` shows the same over millions of requests.

mod support;

use plimsoll_planner::{Replications, plan, replicate};
use plimsoll_report::{Ledger, summarise};
use support::scenario;

/// Runs so long, from the scenario file to the summary, and returns the requests offered.
fn run(duration: &str) -> u64 {
    let overrides =
        [format!("run.duration=\"{duration}\""), "workload.chat.arrivals.rate=\"12/s\"".to_owned()];
    let scenario = plimsoll_scenario::load(&scenario("small"), &overrides);
    let scenario = scenario.unwrap_or_else(|wrong| panic!("{}", wrong.render(false)));
    let plan = plan(&scenario, scenario.seed);
    let once = Replications { count: 1, seed: scenario.seed, threads: 1 };
    let run = replicate(&scenario, once, |_| Ledger::new(&plan), &()).expect("the run ends well");
    summarise(&plan, &run.observers, false).conservation.offered
}

/// The peak of this process's resident memory in KiB; `None` where the system does not tell.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[test]
fn peak_memory_does_not_grow_with_the_run() {
    let short = run("6800s");
    let Some(before) = peak() else {
        println!("skipped: this system does not tell the peak of resident memory");
        return;
    };
    let long = run("54400s");
    let after = peak().expect("it was told before");
    println!("{short} requests: {before} KiB; {long} requests: {after} KiB");
    assert!(short > 60_000 && long > 7 * short, "{short} and {long} requests");
    // Two bytes for each of the further requests would show.
    assert!(after < before + 1024, "{before} KiB grow to {after} KiB");
}
