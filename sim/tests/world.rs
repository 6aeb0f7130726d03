//! Whole runs over random scenarios: macro and single stepping tell the same facts, nothing is
//! lost or made, no limit is exceeded, and the same seed tells the same story.

mod random;

use std::collections::BTreeMap;

use plimsoll_base::{ClassId, End, Fact, Outcome, Span, Stage, Time};
use plimsoll_policy::config::Window;
use plimsoll_sim::Model;
use plimsoll_sim::model::Stepping;
use random::{facts, random_model, random_split_model};

/// Gaps, pooled by (class, ticks).
type Pooled = BTreeMap<(ClassId, u64), u64>;

/// All facts of a run; gaps apart.
fn tell(model: &Model, portion: u64) -> (Vec<(Time, Fact)>, Pooled) {
    let mut pooled = BTreeMap::new();
    let mut others = Vec::new();
    for (now, fact) in facts(model, portion) {
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

/// The facts of a run, gaps apart, which are the same however it is stepped.
fn told_both_ways(mut model: Model, seed: u64) -> Vec<(Time, Fact)> {
    let fast = tell(&model, u64::MAX);
    model.plan.stepping = Stepping::Single;
    let slow = tell(&model, u64::MAX);
    for (a, b) in fast.0.iter().zip(&slow.0) {
        assert_eq!(a, b, "seed {seed}");
    }
    assert_eq!(fast, slow, "seed {seed}");
    fast.0
}

#[test]
fn macro_and_single_stepping_tell_the_same_facts() {
    for seed in 0..SEEDS {
        told_both_ways(random_model(seed), seed);
    }
}

#[test]
fn macro_and_single_stepping_tell_the_same_facts_of_disaggregated_pools() {
    let (mut preempted, mut stages) = (0, BTreeMap::<Stage, u64>::new());
    for seed in 0..SEEDS {
        let fast = told_both_ways(random_split_model(seed), seed);
        for (_, fact) in &fast {
            match fact {
                Fact::Preempted { .. } => preempted += 1,
                Fact::Handed { stage, .. } => *stages.entry(*stage).or_default() += 1,
                _ => {}
            }
        }
    }
    println!("{preempted} preemptions, {stages:?}");
    assert!(preempted > 1000 && stages.values().all(|&count| count > 1000));
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
        for model in [random_model(seed), random_split_model(seed)] {
            let (facts, _) = tell(&model, u64::MAX);
            check_conservation(&model, &facts, &mut outcomes);
        }
    }
    println!("{outcomes:?}");
    let refused = ["refused:queue_full", "refused:rate_limited", "refused:saturated"];
    for outcome in ["finished", "expired", "evicted", "unfinished"].into_iter().chain(refused) {
        assert!(outcomes.get(outcome) > Some(&50), "the runs must show {outcome}: {outcomes:?}");
    }
}

fn check_conservation(
    model: &Model,
    facts: &[(Time, Fact)],
    outcomes: &mut BTreeMap<&'static str, u64>,
) {
    let seats = model.pools.iter().map(|pool| pool.seats()).max().expect("there is a pool");
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
                assert!(!bounded || *count <= seats, "the window holds");
            }
            Fact::Closed(record) => {
                assert!(open.remove(&record.id).is_some(), "{} was open", record.id);
                assert_eq!(record.phases.total(), record.closed - record.arrived);
                *outcomes.entry(record.outcome.name()).or_default() += 1;
                delivered += u64::from(record.output_tokens);
                if let (Some(backend), Outcome::Ended(End::Finished | End::Evicted)) =
                    (record.backend, record.outcome)
                {
                    *outstanding.get_mut(&backend.slot).expect("it was dispatched") -= 1;
                }
            }
            Fact::BackendSampled { backend, sample } => {
                assert!(sample.running <= seats, "seats hold");
                assert!(sample.kv_blocks_used <= sample.kv_blocks, "memory holds");
                assert!(sample.busy <= *now - Time::ZERO, "an engine works one second a second");
                sampled.insert(backend.slot, sample.output_tokens);
            }
            Fact::Bound { .. }
            | Fact::Started { .. }
            | Fact::Preempted { .. }
            | Fact::Handed { .. }
            | Fact::Gaps { .. }
            | Fact::ClassSampled { .. }
            | Fact::Alarmed(_)
            | Fact::Advised(_)
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
