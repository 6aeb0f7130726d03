//! The Azure conversation trace (19,366 requests) from its compressed file to the page and the
//! summary in memory. Needs `$PLIMSOLL_DATA/traces`; without it the bench is skipped.
//!
//! `PLIMSOLL_DATA=… cargo bench --bench replay`; the milestone is 0.3 s.

mod scenario;

use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scenario::Run;

fn replay(criterion: &mut Criterion) {
    let Some(data) = std::env::var_os("PLIMSOLL_DATA") else {
        println!("replay: skipped: PLIMSOLL_DATA is not set");
        return;
    };
    let trace = PathBuf::from(data).join("traces/azure2023/AzureLLMInferenceTrace_conv.csv.zst");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/replay.toml");
    let overrides = [format!("workload.trace.trace.path={:?}", trace.display().to_string())];
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Elements(Run::load(&file, &overrides).requests()));
    group.bench_function("azure-conversation", |bencher| {
        bencher.iter(|| {
            let run = Run::load(&file, &overrides);
            run.report(run.simulate())
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = scenario::short();
    targets = replay
}
criterion_main!(benches);
