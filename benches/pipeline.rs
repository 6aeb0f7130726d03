//! Requests a second of the whole pipeline: scenario file, sources, allocator, engines, facts and
//! the ledger that every report is made of. No per-request file, one core.
//!
//! `cargo bench --bench pipeline`; "elem/s" are requests a second.

mod scenario;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scenario::{Run, pipeline};

fn pipeline_throughput(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    for replicas in [1, 8] {
        let run = Run::load(&pipeline(), &scenario::sized(replicas, 100_000));
        group.throughput(Throughput::Elements(run.requests()));
        group.bench_function(format!("replicas-{replicas}"), |bencher| {
            bencher.iter(|| run.simulate());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = scenario::short();
    targets = pipeline_throughput
}
criterion_main!(benches);
