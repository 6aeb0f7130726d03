//! Macro against single stepping: the same requests and the same results, at mean outputs of 20,
//! 210 and 2,000 tokens and 80 % load each.
//!
//! `cargo bench --bench stepping`; "elem/s" are requests a second.

mod scenario;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scenario::{Run, pipeline};

/// Mean output tokens, and the rate a second that is 80 % of what the replica can take then,
/// found as in `benches/pipeline.toml`.
const OUTPUTS: [(u32, f64); 3] = [(20, 17.1), (210, 9.9), (2000, 0.85)];
const REQUESTS: f64 = 2_000.0;

fn stepping(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stepping");
    for (output, rate) in OUTPUTS {
        for stepping in ["macro", "single"] {
            let overrides = [
                format!("workload.chat.output_tokens.mean={output}"),
                format!("workload.chat.output_tokens.max={}", output * 10),
                format!("class.chat.intensity.output_tokens={output}"),
                format!("workload.chat.arrivals.rate=\"{rate}/s\""),
                format!("run.duration=\"{:.0}s\"", REQUESTS / rate),
                "run.warm_up=\"0s\"".to_owned(),
                format!("run.stepping=\"{stepping}\""),
            ];
            let run = Run::load(&pipeline(), &overrides);
            group.throughput(Throughput::Elements(run.requests()));
            group.bench_function(format!("output-{output}/{stepping}"), |bencher| {
                bencher.iter(|| run.simulate());
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = scenario::short();
    targets = stepping
}
criterion_main!(benches);
