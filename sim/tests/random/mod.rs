//! Random scenarios, and the facts of their runs.

use plimsoll_base::{
    ClassId, Fact, Names, PoolId, SiteId, Span, Stream, StreamKey, TenantId, Time,
};
use plimsoll_policy::config::{
    Adapt, Admit, BucketPer, BucketUnit, Class, Concurrency, Config, EarlyRefusal, Feedback, Guard,
    LocalFirst, Order, Partition, Per, Place, Predict, Quota, QuotaGroup, QuotaUnit,
    SaturationGate, Share, SloCaps, Stale, TokenBucket, TokenCost, Window,
};
use plimsoll_report::{ClassPlan, Plan, PoolPlan};
use plimsoll_sim::model::{
    Admission, Affine, EngineModel, LinkModel, Pool, RunPlan, Split, StepCostSpec, Stepping,
};
use plimsoll_sim::workload::{Arrivals, Lengths, Marks, Think, Workload, source};
use plimsoll_sim::{Model, Run};

pub const CLASSES: usize = 3;

pub fn random_model(seed: u64) -> Model {
    let mut s = Stream::new(StreamKey { seed, replication: 0, name: "model", entity: 0 });
    let mut draw = |low: u64, high: u64| low + s.below(high - low + 1);
    let context_max = draw(200, 600) as u32;
    let seats = draw(1, 10) as u32;
    let engine = EngineModel {
        seats,
        step_tokens_max: seats + draw(10, 200) as u32,
        kv_blocks: context_max.div_ceil(16) * draw(1, u64::from(seats)) as u32,
        block_tokens: 16,
        context_max,
        chunked_prefill: draw(0, 3) > 0,
        admission: if draw(0, 1) == 0 { Admission::Fcfs } else { Admission::Priority },
        step_noise: None,
        step_cost: StepCostSpec::affine(Affine {
            base: 5e6,
            prefill: 20_000.0,
            sequence: 30_000.0,
            context: 40.0,
            pair: 1.0,
            ..Affine::default()
        }),
    };
    let cost = TokenCost { prompt: 1, output: 2 };
    let per = if draw(0, 1) == 0 { Per::Class } else { Per::Tenant };
    let share = match draw(0, 3) {
        0 => Share::Fcfs,
        1 => Share::Priority,
        2 => Share::DeficitRoundRobin { per, quantum: draw(100, 2000), cost },
        _ => Share::VirtualTokenCounter { per, cost },
    };
    let guard = (draw(0, 1) == 0).then_some(Guard { due_share_ppm: draw(1, 500_000) as u32 });
    let mut classes: Vec<Class> = (0..CLASSES)
        .map(|class| Class {
            priority: class as i32,
            weight: draw(1, 8) as u32,
            wait_max: Some(Span::from_millis(draw(100, 2000))),
            queue_max: (draw(0, 2) == 0).then_some(draw(1, 20) as u32),
            time_to_live: (draw(0, 2) == 0).then_some(Span::from_millis(draw(3000, 9000))),
            requests_max: (draw(0, 2) == 0).then_some(draw(1, 6) as u32),
            tokens_max: (draw(0, 2) == 0).then_some(draw(300, 2000)),
            boost: Span::from_millis(draw(0, 3000)),
            output_tokens_expected: Some(draw(10, 100) as u32),
            ..Class::default()
        })
        .collect();
    let workload = |class: u16, arrivals: Arrivals| Workload {
        arrivals,
        prompt: Lengths::Uniform { min: 1, max: context_max / 2 },
        output: Lengths::Lognormal { mu: 3.0, sigma: 1.0, max: context_max / 2 },
        output_cap: context_max / 2,
        tenants: vec![(TenantId(0), 3), (TenantId(1), 1)],
        claims: Some(ClassId(class)),
        marks: Marks::default(),
        start: Time::ZERO,
        stop: None,
    };
    let rate = draw(5, 250) as f64 / 10.0;
    let think = Think::Exponential(Span::from_millis(500));
    let workloads = vec![
        workload(0, Arrivals::Poisson { rate }),
        workload(1, Arrivals::Gamma { rate: rate / 2.0, cv: 2.0 }),
        workload(2, Arrivals::Closed { users: draw(1, 6) as u32, think }),
    ];
    let plan = RunPlan {
        attribution: plimsoll_base::Attribution::On,
        duration: Some(Span::from_secs(60)),
        warm_up: Span::from_secs(5),
        drain_max: Span::from_secs(draw(0, 60)),
        stepping: Stepping::Macro,
    };
    let partition = partition(&mut draw);
    let steps_aside = partition.iter().any(|rule| matches!(rule, Partition::Quota(_)));
    let sites = draw(1, 2) as u16;
    let mut place = vec![if draw(0, 1) == 0 { Place::RoundRobin } else { Place::LeastTokens }];
    if sites > 1 && draw(0, 1) == 0 {
        place.insert(0, Place::LocalFirst(local_first(&mut draw)));
    }
    if sites > 1 && draw(0, 1) == 0 {
        // One that may not leave the first site.
        classes[draw(0, 2) as usize].sites = 1;
    }
    let policy = Config {
        partition,
        bypass_max: if steps_aside || sites > 1 { 0 } else { draw(0, 3) as u32 },
        admit: admit(&mut draw),
        feedback: feedback(&mut draw, &mut classes),
        order: if draw(0, 1) == 0 { Order::Fcfs } else { Order::Aging },
        place,
        window: if draw(0, 3) == 0 { Window::None } else { Window::Seats },
        guard,
        predict: match draw(0, 3) {
            0 => Predict::DeclaredCap,
            1 => Predict::ClassIntensity,
            2 => Predict::ClassQuantile { quantile_ppm: 900_000, samples_min: 5 },
            _ => Predict::NoisyOracle { error_ppm: 300_000 },
        },
        requests_max: 1000,
        ..Config::plain(share, classes)
    };
    let replicas = draw(1, 3) as u32;
    let pool = |site| {
        let (engine, provenance) = (engine.clone(), "invented".into());
        Pool { replicas, engine, split: None, site: SiteId(site), models: 0, provenance }
    };
    let pools = (0..sites).map(pool).collect();
    Model { names: Names::default(), pools, workloads, policy, plan }
}

/// The same with disaggregated pools: decode sides that are short of memory, slow links.
#[allow(dead_code, reason = "not every user of random runs splits them")]
pub fn random_split_model(seed: u64) -> Model {
    let mut model = random_model(seed);
    let mut s = Stream::new(StreamKey { seed, replication: 0, name: "split", entity: 0 });
    let mut draw = |low: u64, high: u64| low + s.below(high - low + 1);
    for pool in &mut model.pools {
        let seats = pool.engine.seats;
        let engine = EngineModel {
            kv_blocks: pool.engine.context_max.div_ceil(16) * draw(1, 3) as u32,
            step_tokens_max: seats + draw(10, 400) as u32,
            chunked_prefill: draw(0, 3) > 0,
            ..pool.engine.clone()
        };
        let link = LinkModel {
            latency: Span::from_nanos(draw(0, 2_000_000)),
            bandwidth: draw(1, 100) * 100_000_000,
            token_bytes: 100_000,
        };
        let (prefills, decodes) = (draw(1, 3) as u32, draw(1, 3) as u32);
        pool.split = Some(Split { prefills, decodes, engine, link });
        pool.replicas = draw(1, 2) as u32;
    }
    if draw(0, 1) == 0 {
        model.policy.window = Window::None;
    }
    model
}

/// What keeps classes apart.
fn partition(draw: &mut impl FnMut(u64, u64) -> u64) -> Vec<Partition> {
    let leaf = |nominal, class| QuotaGroup {
        parent: Some(0),
        nominal,
        classes: vec![ClassId(class)],
        ..QuotaGroup::default()
    };
    match draw(0, 4) {
        0 => vec![Partition::HeavyLane { over_tokens: draw(50, 300), max: draw(1, 3) as u32 }],
        1 => {
            let leaves = [draw(1, 4), draw(1, 4), draw(1, 4)];
            let root = QuotaGroup { nominal: leaves.iter().sum(), ..QuotaGroup::default() };
            let leaves = (0..).zip(leaves).map(|(class, nominal)| leaf(nominal, class));
            let groups = std::iter::once(root).chain(leaves).collect();
            vec![Partition::Quota(Quota { unit: QuotaUnit::Requests, groups })]
        }
        2 => {
            let shares_ppm = vec![(ClassId(0), 300_000), (ClassId(2), draw(1, 700_000) as u32)];
            vec![Partition::Concurrency(Concurrency { shares_ppm })]
        }
        _ => vec![],
    }
}

fn local_first(draw: &mut impl FnMut(u64, u64) -> u64) -> LocalFirst {
    let (spill_wait, return_after) = (draw(1, 1_000), draw(1, 5_000));
    LocalFirst {
        sites: vec![SiteId(1), SiteId(0)],
        spill_wait: Span::from_millis(spill_wait),
        return_after: Span::from_millis(return_after),
    }
}

/// Rules of admission that need reports or learn from what ends.
fn admit(draw: &mut impl FnMut(u64, u64) -> u64) -> Vec<Admit> {
    let gate = Admit::SaturationGate(SaturationGate {
        waiting_full: 2,
        kv_full_ppm: 900_000,
        ceilings: vec![(ClassId(0), 700_000), (ClassId(1), 1_000_000)],
        stale_after: Span::from_millis(draw(10, 400)),
        stale: Stale::Open,
    });
    let bucket = Admit::TokenBucket(TokenBucket {
        unit: BucketUnit::Tokens,
        per: BucketPer::Class,
        rate_micros: draw(500, 5_000) * 1_000_000,
        burst: 3_000,
        classes: vec![],
    });
    let wait_limit = Some(Span::from_millis(draw(100, 2_000)));
    let early = Admit::EarlyRefusal(EarlyRefusal { wait_limit, classes: vec![] });
    match draw(0, 6) {
        0 => vec![gate],
        1 => vec![bucket],
        2 => vec![early, gate],
        _ => vec![],
    }
}

/// Rules of feedback that need reports or first tokens, and the classes changed to fit them.
fn feedback(draw: &mut impl FnMut(u64, u64) -> u64, classes: &mut [Class]) -> Vec<Feedback> {
    let by = match draw(0, 1) {
        0 => Adapt::Aimd { target: Span::from_millis(draw(1, 200)) },
        _ => Adapt::Gradient { base: Span::from_millis(20) },
    };
    match draw(0, 3) {
        0 => vec![Feedback::AdaptiveConcurrency { by, min: 1 }],
        1 => {
            classes[0].requests_max.get_or_insert(4);
            classes[2].deadline = Some(Span::from_millis(draw(50, 1_000)));
            let (class, lesser) = (ClassId(2), vec![ClassId(0)]);
            let rule =
                SloCaps { class, lesser, window: 4, misses_max_ppm: 100_000, step: 1, min: 1 };
            vec![Feedback::SloCaps(rule)]
        }
        2 => {
            classes[0].sheddable = true;
            let (after, every) = (draw(1, 500), draw(1, 500));
            let (after, every) = (Span::from_millis(after), Span::from_millis(every));
            vec![Feedback::EvictSheddable { after, every }]
        }
        _ => vec![],
    }
}

/// What a report needs to know of such a scenario.
#[allow(dead_code, reason = "not every user of random runs folds them")]
pub fn plan(model: &Model) -> Plan {
    let class = |class: &Class| ClassPlan {
        priority: class.priority,
        weight: class.weight,
        wait_max: class.wait_max,
        ..ClassPlan::default()
    };
    let pools = || (0..).map(PoolId).zip(&model.pools);
    let pool_plan = |pool: &Pool| PoolPlan {
        replicas: pool.replicas,
        seats: pool.seats(),
        kv_tokens: pool.kv_tokens(),
        ..PoolPlan::default()
    };
    Plan {
        warm_up: model.plan.warm_up,
        duration: model.plan.duration,
        names: Names {
            tenants: ["a", "b"].map(str::to_owned).to_vec(),
            classes: (0..CLASSES).map(|class| format!("c{class}")).collect(),
            pools: pools().map(|_| "gpu".to_owned()).collect(),
            ..Names::default()
        },
        classes: model.policy.classes.iter().map(class).collect(),
        backends: pools().flat_map(|(id, pool)| (0..pool.replicas).map(move |_| id)).collect(),
        pools: pools().map(|(_, pool)| pool_plan(pool)).collect(),
        ..Plan::default()
    }
}

/// All facts of a run.
pub fn facts(model: &Model, portion: u64) -> Vec<(Time, Fact)> {
    let name = |index: usize| format!("w{index}");
    let sources = model.workloads.iter().enumerate();
    let sources = sources.map(|(index, w)| source(w, &name(index), 7, 0)).collect();
    let mut run = Run::start(model, sources, Vec::new()).expect("the policy holds together");
    while !run.advance(portion).done {}
    run.finish().expect("generators do not break")
}
