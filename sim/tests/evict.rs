//! Paced eviction in a whole run: chat comes into a pool that endless batch work has filled.

use std::collections::BTreeSet;

use plimsoll_base::{
    ClassId, End, Fact, Names, Outcome, RequestRecord, SiteId, Span, TenantId, Time,
};
use plimsoll_policy::config::{Class, Config, Feedback, Share};
use plimsoll_sim::model::{Admission, Affine, EngineModel, Pool, RunPlan, StepCostSpec, Stepping};
use plimsoll_sim::workload::{Arrivals, Lengths, Marks, Think, Workload, source};
use plimsoll_sim::{Model, Run};

const CHAT: ClassId = ClassId(0);
const BATCH: ClassId = ClassId(1);
const EVERY: Span = Span::from_millis(400);

fn model(feedback: Vec<Feedback>, stepping: Stepping) -> Model {
    let engine = EngineModel {
        seats: 4,
        step_tokens_max: 512,
        kv_blocks: 1_024,
        block_tokens: 16,
        context_max: 4_000,
        chunked_prefill: true,
        admission: Admission::Fcfs,
        step_noise: None,
        step_cost: StepCostSpec::affine(Affine {
            base: 5e6,
            prefill: 20_000.0,
            sequence: 30_000.0,
            context: 40.0,
            ..Affine::default()
        }),
    };
    let workload = |class: ClassId, arrivals, output: u32| Workload {
        arrivals,
        prompt: Lengths::Uniform { min: 100, max: 300 },
        output: Lengths::Uniform { min: output, max: output },
        output_cap: output,
        tenants: vec![(TenantId(0), 1)],
        claims: Some(class),
        marks: Marks::default(),
        start: Time::ZERO,
        stop: None,
    };
    let think = Think::Exponential(Span::from_millis(10));
    let workloads = vec![
        workload(CHAT, Arrivals::Poisson { rate: 1.0 }, 50),
        workload(BATCH, Arrivals::Closed { users: 8, think }, 3_000),
    ];
    let classes = vec![
        Class { priority: 1, ..Class::default() },
        Class { sheddable: true, ..Class::default() },
    ];
    let plan = RunPlan {
        attribution: plimsoll_base::Attribution::On,
        duration: Some(Span::from_secs(60)),
        warm_up: Span::ZERO,
        drain_max: Span::from_secs(120),
        stepping,
    };
    let policy = Config { feedback, ..Config::plain(Share::Priority, classes) };
    let (site, models, provenance) = (SiteId(0), 0, "invented".into());
    let pools = vec![Pool { replicas: 2, engine, split: None, site, models, provenance }];
    Model { names: Names::default(), pools, workloads, policy, plan }
}

fn closed(model: &Model) -> Vec<RequestRecord> {
    let sources = model.workloads.iter().zip(["chat", "batch"]);
    let sources = sources.map(|(workload, name)| source(workload, name, 7, 0)).collect();
    let mut run = Run::start(model, sources, Vec::new()).expect("the policy holds together");
    while !run.advance(u64::MAX).done {}
    let facts: Vec<(Time, Fact)> = run.finish().expect("generators do not break");
    let records = facts.into_iter().filter_map(|(_, fact)| match fact {
        Fact::Closed(record) => Some(record),
        _ => None,
    });
    records.collect()
}

fn longest_wait(records: &[RequestRecord]) -> Option<Span> {
    let chat = records.iter().filter(|record| record.class == Some(CHAT));
    chat.filter_map(|record| Some(record.dispatched? - record.arrived)).max()
}

#[test]
fn batch_makes_room_for_chat() {
    let rule = Feedback::EvictSheddable { after: Span::from_millis(200), every: EVERY };
    let records = closed(&model(vec![rule.clone()], Stepping::Macro));
    assert_eq!(records, closed(&model(vec![rule], Stepping::Single)));
    let ids: BTreeSet<_> = records.iter().map(|record| record.id).collect();
    assert_eq!(ids.len(), records.len(), "each is closed once");
    let is_evicted = |record: &&RequestRecord| record.outcome == Outcome::Ended(End::Evicted);
    let evicted: Vec<&RequestRecord> = records.iter().filter(is_evicted).collect();
    assert!(evicted.len() > 10, "{} were evicted", evicted.len());
    for record in &evicted {
        assert_eq!(record.class, Some(BATCH));
        assert!(record.wasted_tokens >= record.output_tokens, "{record:?}");
        assert_eq!(record.phases.total(), record.closed - record.arrived);
    }
    assert!(evicted.iter().any(|record| record.wasted_tokens > record.prompt_tokens));
    // A step takes up to 16 ms, which the one before may have waited longer than the next.
    let mut instants: Vec<Time> = evicted.iter().map(|record| record.closed).collect();
    instants.sort_unstable();
    let closest = instants.windows(2).map(|pair| pair[1] - pair[0]).min();
    assert!(closest > Some(EVERY - Span::from_millis(20)), "{closest:?} lie between two");
    // Without the rule chat waits for batch requests to end.
    let without = longest_wait(&closed(&model(vec![], Stepping::Macro)));
    let with = longest_wait(&records);
    assert!(without > Some(Span::from_secs(5)), "{without:?}");
    assert!(with < Some(Span::from_secs(3)), "{with:?}");
}
