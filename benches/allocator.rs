//! The allocator alone, on one core: requests of 1,000 tenants in three classes arrive and end,
//! with free seats and with 10,000 waiting; under the policies of the main job and its variants
//! (`noisy-neighbour…`), under each rule with an account for every tenant or workflow, and under
//! rules of every stage at once (`everything`).
//!
//! `cargo bench --bench allocator`; "elem/s" are inputs a second: an arrival and an end a request
//! (and what is cached of it, where a rule asks). At the end the 99th percentile of the time that
//! one input takes, clock included.

#[path = "../policies/tests/support/traffic.rs"]
mod traffic;

mod scenario;

use std::time::Instant;

use criterion::{Criterion, Throughput};
use plimsoll_policy::Config;
use plimsoll_report::histogram::Histogram;
use traffic::{Traffic, all_rules, main_rules, other_rules};

/// Requests an iteration.
const REQUESTS: u64 = 100_000;
/// Requests that wait.
const QUEUED: u64 = 10_000;

/// The policies of the main job as its files say, then rules one by one with an account for each
/// tenant or workflow, then rules of every stage at once.
fn rules() -> Vec<(String, Config)> {
    let rules = main_rules().into_iter().chain(other_rules()).chain([all_rules()]);
    let rules = rules.map(|(name, policy)| (name.to_owned(), policy));
    scenario::main_job().into_iter().chain(rules).collect()
}

fn inputs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("allocator");
    group.throughput(Throughput::Elements(2 * REQUESTS));
    for (name, policy) in rules() {
        for (load, waiting) in [("free-seats", 0), ("10000-queued", QUEUED)] {
            let mut traffic = Traffic::start(policy.clone(), waiting);
            group.bench_function(format!("{name}/{load}"), |bencher| {
                bencher.iter(|| {
                    for _ in 0..REQUESTS {
                        traffic.arrive();
                        traffic.end();
                    }
                });
            });
        }
    }
    group.finish();
}

/// Prints the 99th percentile of an arrival and of an end.
fn latencies() {
    for (name, policy) in rules() {
        let mut traffic = Traffic::start(policy, QUEUED);
        let (mut arrivals, mut ends) = (Histogram::default(), Histogram::default());
        for _ in 0..3 * REQUESTS {
            timed(&mut arrivals, || traffic.arrive());
            timed(&mut ends, || traffic.end());
        }
        let p99 = |times: &Histogram| times.at_rank(times.count() * 99 / 100).unwrap_or(0);
        let (arrival, end) = (p99(&arrivals), p99(&ends));
        println!("allocator/{name}/10000-queued p99 arrival {arrival} ns, end {end} ns");
    }
}

fn timed(times: &mut Histogram, input: impl FnOnce()) {
    let from = Instant::now();
    input();
    times.record(from.elapsed().as_nanos() as u64);
}

fn main() {
    let mut criterion = scenario::short().configure_from_args();
    inputs(&mut criterion);
    criterion.final_summary();
    // Cargo's tests run benches once, to see that they still work.
    if std::env::args().any(|argument| argument == "--bench") {
        latencies();
    }
}
