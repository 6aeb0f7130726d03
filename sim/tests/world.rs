//! Whole runs over random scenarios: macro and single stepping tell the same facts, nothing is
//! lost or made, no limit is exceeded, and the same seed tells the same story.

use std::collections::BTreeMap;

use plimsoll_base::{
    ClassId, End, Fact, Names, Outcome, SiteId, Span, Stream, StreamKey, TenantId, Time,
};
use plimsoll_policy::config::{
    Class, Config, Guard, Order, Per, Place, Predict, Share, TokenCost, Window,
};
use plimsoll_sim::model::{Admission, EngineModel, Pool, RunPlan, StepCostSpec, Stepping};
use plimsoll_sim::workload::{Arrivals, Lengths, Marks, Think, Workload, source};
use plimsoll_sim::{Model, Run};

const CLASSES: usize = 3;

fn random_model(seed: u64) -> Model {
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
        step_cost: StepCostSpec::Affine {
            base: 5e6,
            prefill: 20_000.0,
            sequence: 30_000.0,
            context: 40.0,
            pair: 1.0,
        },
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
    let classes = (0..CLASSES)
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
        duration: Some(Span::from_secs(60)),
        warm_up: Span::from_secs(5),
        drain_max: Span::from_secs(draw(0, 60)),
        stepping: Stepping::Macro,
    };
    let policy = Config {
        order: if draw(0, 1) == 0 { Order::Fcfs } else { Order::Aging },
        place: vec![if draw(0, 1) == 0 { Place::RoundRobin } else { Place::LeastTokens }],
        window: if draw(0, 3) == 0 { Window::None } else { Window::Seats },
        guard,
        predict: if draw(0, 1) == 0 { Predict::DeclaredCap } else { Predict::ClassIntensity },
        requests_max: 1000,
        ..Config::plain(share, classes)
    };
    let replicas = draw(1, 3) as u32;
    let pools =
        vec![Pool { replicas, engine, site: SiteId(0), models: 0, provenance: "invented".into() }];
    Model { names: Names::default(), pools, workloads, policy, plan }
}

/// Gaps, pooled by (class, ticks).
type Pooled = BTreeMap<(ClassId, u64), u64>;

/// All facts of a run; gaps apart.
fn tell(model: &Model, portion: u64) -> (Vec<(Time, Fact)>, Pooled) {
    let name = |index: usize| format!("w{index}");
    let sources = model.workloads.iter().enumerate();
    let sources = sources.map(|(index, w)| source(w, &name(index), 7, 0)).collect();
    let mut run = Run::start(model, sources, Vec::new()).expect("the policy holds together");
    while !run.advance(portion).done {}
    let facts: Vec<(Time, Fact)> = run.finish().expect("generators do not break");
    let mut pooled = BTreeMap::new();
    let mut others = Vec::new();
    for (now, fact) in facts {
        if let Fact::Gaps { class, first, increment, count, sequences } = fact {
            for index in 0..count {
                *pooled.entry((class, first.0 + increment.0 * index)).or_default() +=
                    u64::from(sequences);
            }
        } else {
            others.push((now, fact));
        }
    }
    (others, pooled)
}

const SEEDS: u64 = 150;

#[test]
fn macro_and_single_stepping_tell_the_same_facts() {
    for seed in 0..SEEDS {
        let mut model = random_model(seed);
        let fast = tell(&model, u64::MAX);
        model.plan.stepping = Stepping::Single;
        let slow = tell(&model, u64::MAX);
        for (a, b) in fast.0.iter().zip(&slow.0) {
            assert_eq!(a, b, "seed {seed}");
        }
        assert_eq!(fast, slow, "seed {seed}");
    }
}

#[test]
fn stopping_to_look_changes_nothing() {
    for seed in 0..20 {
        let model = random_model(seed);
        assert_eq!(tell(&model, u64::MAX), tell(&model, 7), "seed {seed}");
    }
}

#[test]
fn what_arrives_is_closed_exactly_once() {
    let mut outcomes = BTreeMap::<&str, u64>::new();
    for seed in 0..SEEDS {
        let model = random_model(seed);
        let (facts, _) = tell(&model, u64::MAX);
        check_conservation(&model, &facts, &mut outcomes);
    }
    println!("{outcomes:?}");
    for outcome in ["finished", "expired", "refused:queue_full", "unfinished"] {
        assert!(outcomes.get(outcome) > Some(&50), "the runs must show {outcome}: {outcomes:?}");
    }
}

fn check_conservation(
    model: &Model,
    facts: &[(Time, Fact)],
    outcomes: &mut BTreeMap<&'static str, u64>,
) {
    let engine = &model.pools[0].engine;
    let mut open = BTreeMap::new();
    let mut latest = Time::ZERO;
    let mut outstanding = BTreeMap::<u32, u32>::new();
    let (mut delivered, mut sampled) = (0, BTreeMap::new());
    for (now, fact) in facts {
        assert!(*now >= latest, "time runs forward");
        latest = *now;
        match fact {
            Fact::Arrived { id, .. } => assert!(open.insert(*id, ()).is_none(), "{id} is new"),
            Fact::Dispatched { backend, .. } => {
                let count = outstanding.entry(backend.slot).or_default();
                *count += 1;
                let bounded = model.policy.window == Window::Seats;
                assert!(!bounded || *count <= engine.seats, "the window holds");
            }
            Fact::Closed(record) => {
                assert!(open.remove(&record.id).is_some(), "{} was open", record.id);
                assert_eq!(record.phases.total(), record.closed - record.arrived);
                *outcomes.entry(record.outcome.name()).or_default() += 1;
                delivered += u64::from(record.output_tokens);
                if let (Some(backend), Outcome::Ended(End::Finished)) =
                    (record.backend, record.outcome)
                {
                    *outstanding.get_mut(&backend.slot).expect("it was dispatched") -= 1;
                }
            }
            Fact::BackendSampled { backend, sample } => {
                assert!(sample.running <= engine.seats, "seats hold");
                assert!(sample.kv_blocks_used <= sample.kv_blocks, "memory holds");
                assert!(sample.busy <= *now - Time::ZERO, "an engine works one second a second");
                sampled.insert(backend.slot, sample.output_tokens);
            }
            Fact::Preempted { .. }
            | Fact::Gaps { .. }
            | Fact::ClassSampled { .. }
            | Fact::WarmedUp
            | Fact::ArrivalsEnded
            | Fact::RunEnded => {}
        }
    }
    assert!(open.is_empty(), "everything is closed in the end");
    // A request cut off in mid-decode has delivered tokens that its record does not know yet.
    let counted: u64 = sampled.values().sum();
    assert!(delivered <= counted, "tokens delivered {delivered}, counted by engines {counted}");
    if outstanding.values().all(|&count| count == 0) {
        assert_eq!(delivered, counted, "tokens are conserved");
    }
}

#[test]
fn class_time_sums_to_engine_time() {
    for seed in 0..40 {
        let (facts, _) = tell(&random_model(seed), u64::MAX);
        let mut backends = BTreeMap::<u32, Span>::new();
        let mut classes = BTreeMap::<ClassId, Span>::new();
        for (_, fact) in &facts {
            if let Fact::BackendSampled { backend, sample } = fact {
                backends.insert(backend.slot, sample.busy);
            }
            if let Fact::ClassSampled { class, sample } = fact {
                classes.insert(*class, sample.busy);
            }
        }
        let busy: Span = backends.values().copied().sum();
        let shared: Span = classes.values().copied().sum();
        // Each sum is rounded down to the nanosecond once a backend or class.
        assert!(busy.nanos().abs_diff(shared.nanos()) <= 4, "seed {seed}: {busy:?} {shared:?}");
    }
}
