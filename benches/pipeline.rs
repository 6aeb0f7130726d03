//! Requests a second of the whole pipeline, from the scenario file over sources, allocator,
//! engines, facts and ledger to the summary. No per-request file, one core.
//!
//! `cargo bench --bench pipeline`; "elem/s" are requests a second.

mod scenario;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scenario::{Run, pipeline};

fn pipeline_throughput(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    for replicas in [1, 8] {
        let overrides = scenario::sized(replicas, 100_000);
        let requests = Run::load(&pipeline(), &overrides).requests();
        group.throughput(Throughput::Elements(requests));
        let attributed = scenario::attributed(overrides.clone());
        for (name, overrides) in [("replicas", &overrides), ("attributed", &attributed)] {
            group.bench_function(format!("{name}-{replicas}"), |bencher| {
                bencher.iter(|| Run::load(&pipeline(), overrides).requests());
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = scenario::short();
    targets = pipeline_throughput
}
criterion_main!(benches);
