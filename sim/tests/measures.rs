//! Measures of starvation against ones that look at every request at every fact, over random whole
//! runs: overtakes, capacity that was free while the policy held somebody back, slowdown, and the
//! gap of service in the share rule's book.

mod random;

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_base::{Bound, ClassId, End, Fact, Observer, Outcome, RequestId, Span, Time};
use plimsoll_policy::config::{Capacity, Per, Place, Share, TokenCost, Window};
use plimsoll_policy::{Charge, gap_bound, gap_bound_void};
use plimsoll_report::{Errors, Ledger, Plan, Price, Promise, Summary};
use plimsoll_sim::Model;
use plimsoll_sim::model::Pool;
use random::{CLASSES, facts, random_model};

/// Each resource is dominant for some requests.
const CAPACITY: Capacity = Capacity {
    prefill_tokens: 20_000,
    decode_tokens: 4_000,
    kv_tokens: 20_000,
    output_token: Span::from_millis(40),
};

fn plan(model: &Model) -> Plan {
    let promise = gap_bound(&model.policy).map(|bound| Promise {
        rule: "the rule".to_owned(),
        formula: bound.formula.to_owned(),
        price: match bound.charge {
            Charge::Tokens(TokenCost { prompt, output }) => Price::Tokens { prompt, output },
            Charge::Request => Price::Request,
            Charge::Dominant { prompt_token, output_token, held_token } => {
                Price::Dominant { prompt_token, output_token, held_token }
            }
        },
        quantum: bound.quantum,
        errors: if bound.counts_all { Errors::OfAll } else { Errors::OfBoth },
        void: gap_bound_void(&model.policy).map(str::to_owned),
    });
    Plan { promise, ..random::plan(model) }
}

fn fold(plan: &Plan, facts: &[(Time, Fact)]) -> Summary {
    let mut ledger = Ledger::new(plan);
    facts.iter().for_each(|(now, fact)| ledger.observe(*now, fact));
    plimsoll_report::summarise(plan, &[ledger], false)
}

fn short_model(seed: u64) -> Model {
    let mut model = random_model(seed);
    model.plan.duration = Some(Span::from_secs(20));
    model.plan.drain_max = Span::from_secs(seed % 3 * 5);
    model
}

/// Nothing but memory and seats holds anybody back, and nobody goes out of turn.
fn make_plain(model: &mut Model) {
    let policy = &mut model.policy;
    (policy.window, policy.guard, policy.bypass_max) = (Window::Seats, None, 0);
    (policy.feedback, policy.admit, policy.partition) = (vec![], vec![], vec![]);
    (policy.sites, policy.place) = (vec![], vec![Place::LeastTokens]);
    for class in &mut policy.classes {
        (class.requests_max, class.tokens_max, class.sites) = (None, None, 0);
    }
}

/// Overtakes of each measured request that was let in, and of those that left the queue otherwise
/// or waited to the end, by class; counted by looking at all that wait at each dispatch.
fn overtakes(model: &Model, facts: &[(Time, Fact)]) -> [[Vec<u64>; 2]; CLASSES] {
    let priority = |class: ClassId| model.policy.classes[class.index()].priority;
    let mut waiting = BTreeMap::<RequestId, (ClassId, u64)>::new();
    let mut counts: [[Vec<u64>; 2]; CLASSES] = Default::default();
    let is_measured = |arrived: Time| arrived >= Time::ZERO + model.plan.warm_up;
    for (_, fact) in facts {
        match fact {
            Fact::Arrived { id, class, .. } => {
                waiting.insert(*id, (class.expect("it claims one"), 0));
            }
            Fact::Dispatched { id, class, arrived, .. } => {
                let (_, overtaken) = waiting.remove(id).expect("it waited");
                if is_measured(*arrived) {
                    counts[class.index()][0].push(overtaken);
                }
                for (other, (its_class, overtaken)) in &mut waiting {
                    *overtaken += u64::from(other < id && priority(*class) <= priority(*its_class));
                }
            }
            Fact::Closed(record) => {
                if let Some((class, overtaken)) = waiting.remove(&record.id)
                    && is_measured(record.arrived)
                    && !matches!(record.outcome, Outcome::Refused(_))
                {
                    counts[class.index()][1].push(overtaken);
                }
            }
            _ => {}
        }
    }
    counts
}

#[test]
fn overtakes_are_those_of_a_look_at_all_who_wait() {
    let (mut most, mut cut_off) = (0, 0);
    for seed in 0..60 {
        let model = short_model(seed);
        let facts = facts(&model, u64::MAX);
        let summary = fold(&plan(&model), &facts);
        for (class, [let_in, others]) in overtakes(&model, &facts).iter().enumerate() {
            let told = &summary.classes[class].numbers.overtakes;
            let all: Vec<u64> = let_in.iter().chain(others).copied().collect();
            assert_eq!((told.count, told.censored), (all.len() as u64, others.len() as u64));
            if all.is_empty() {
                continue;
            }
            let mean = all.iter().sum::<u64>() as f64 / all.len() as f64;
            assert!((told.mean.value.expect("some") - mean).abs() <= 1e-8 * mean, "seed {seed}");
            let max = *all.iter().max().expect("some");
            assert_eq!(told.max.value, Some(max as f64), "seed {seed}");
            let mut sorted = all;
            sorted.sort_unstable();
            let p99 = sorted[(sorted.len() * 99).div_ceil(100) - 1] as f64;
            assert_eq!(told.p99.value, Some(p99), "seed {seed}, exact below 2,048");
            most = most.max(max);
            cut_off += others.len();
        }
    }
    assert!(most > 100 && cut_off > 100, "{most} {cut_off}");
}

/// Nanoseconds of the measured time in which a class waited at a line of the policy while a backend
/// had a free seat.
fn idle(model: &Model, facts: &[(Time, Fact)]) -> [u64; CLASSES] {
    let of_each = |of: fn(&Pool) -> u64| -> Vec<u64> {
        let pools = model.pools.iter();
        pools.flat_map(|pool| (0..pool.replicas).map(move |_| of(pool))).collect()
    };
    let seats = of_each(|pool| pool.seats().into());
    let mut waiting: [BTreeSet<RequestId>; CLASSES] = Default::default();
    let mut bounds = [None; CLASSES];
    let mut taken = vec![0; seats.len()];
    let mut tokens_taken = 0;
    let mut idle = [0; CLASSES];
    let tokens: u64 = of_each(|pool| pool.kv_tokens()).iter().sum();
    for (index, (now, fact)) in facts.iter().enumerate() {
        match fact {
            Fact::Arrived { id, class, .. } => {
                waiting[class.expect("it claims one").index()].insert(*id);
            }
            Fact::Dispatched { id, class, backend, tokens, .. } => {
                waiting[class.index()].remove(id);
                taken[backend.index()] += 1;
                tokens_taken += tokens;
            }
            Fact::Closed(record) => match record.backend {
                Some(backend) => {
                    taken[backend.index()] -= 1;
                    tokens_taken -= record.tokens;
                }
                None => {
                    waiting[record.class.expect("it claims one").index()].remove(&record.id);
                }
            },
            Fact::Bound { class, bound } => bounds[class.index()] = *bound,
            _ => {}
        }
        let Some((next, _)) = facts.get(index + 1) else { continue };
        let from = (*now).max(Time::ZERO + model.plan.warm_up);
        let is_full = |(taken, seats): (&u64, &u64)| taken >= seats;
        if taken.iter().zip(&seats).all(is_full) || tokens_taken >= tokens {
            continue;
        }
        for class in 0..CLASSES {
            let others = [None, Some(Bound::Seats), Some(Bound::KvMemory), Some(Bound::NoBackend)];
            if !waiting[class].is_empty() && !others.contains(&bounds[class]) {
                idle[class] += next.saturating_since(from).nanos();
            }
        }
    }
    idle
}

#[test]
fn unfair_idle_is_that_of_a_look_at_every_interval() {
    let mut all = 0;
    for seed in 0..60 {
        let model = short_model(seed);
        let facts = facts(&model, u64::MAX);
        let summary = fold(&plan(&model), &facts);
        let capped = |class: usize| {
            let class = &model.policy.classes[class];
            class.requests_max.is_some() || class.tokens_max.is_some()
        };
        for (class, nanos) in idle(&model, &facts).into_iter().enumerate() {
            let told =
                summary.classes[class].waiting.unfair_idle_s.value.expect("attribution is on");
            assert!((told - nanos as f64 / 1e9).abs() < 1e-6, "seed {seed}: {told} {nanos}");
            let rules = &model.policy;
            let others = [rules.feedback.len(), rules.partition.len(), rules.sites.len()];
            assert!(nanos == 0 || capped(class) || others != [0; 3], "seed {seed}");
            all += nanos;
        }
    }
    assert!(all > 60_000_000_000, "caps leave capacity free: {all}");
}

/// Nothing is held back where a free seat is filled while anybody waits.
#[test]
fn without_caps_nothing_is_idle_and_with_them_something_is() {
    let (mut with_caps, mut waited) = (0.0, 0.0);
    for seed in 0..20 {
        let mut model = short_model(seed);
        make_plain(&mut model);
        let sum = |model: &Model| -> (f64, f64) {
            let summary = fold(&plan(model), &facts(model, u64::MAX));
            let waiting = || summary.classes.iter().map(|class| &class.waiting);
            let idle = waiting().map(|w| w.unfair_idle_s.value.expect("attribution is on")).sum();
            (idle, waiting().map(|w| w.waited_nanos as f64 / 1e9).sum())
        };
        let (idle, waits) = sum(&model);
        assert_eq!(idle, 0.0, "seed {seed}");
        waited += waits;
        model.policy.classes[0].requests_max = Some(1);
        with_caps += sum(&model).0;
    }
    assert!(waited > 100.0 && with_caps > 100.0, "{waited} {with_caps}");
}

/// A request that never met another takes what it is said to take alone; no other takes less.
#[test]
fn nobody_is_faster_than_alone() {
    let mut alone = 0;
    for seed in 0..40 {
        let model = short_model(seed);
        let mut open = BTreeMap::<RequestId, bool>::new();
        for (_, fact) in facts(&model, u64::MAX) {
            match fact {
                Fact::Arrived { id, .. } => {
                    open.values_mut().for_each(|met| *met = true);
                    open.insert(id, !open.is_empty());
                }
                Fact::Closed(record) => {
                    let met = open.remove(&record.id).expect("it arrived");
                    let is_refused = matches!(record.outcome, Outcome::Refused(_));
                    assert!(record.alone > Span::ZERO || is_refused, "{record:?}");
                    if record.outcome == Outcome::Ended(End::Finished) {
                        assert!(record.e2e() >= record.alone, "seed {seed}: {record:?}");
                        if !met && record.dispatched == Some(record.arrived) {
                            // An engine counts fractions of nanoseconds on.
                            let more = record.e2e() - record.alone;
                            assert!(more <= Span::from_nanos(1), "seed {seed}: {record:?}");
                            alone += 1;
                        }
                    }
                }
                _ => {}
            }
        }
    }
    assert!(alone > 20, "{alone}");
}

/// Under each rule that states a bound, with nothing in the policy that voids it.
#[test]
fn gaps_of_service_keep_the_bounds_of_their_rules() {
    let cost = TokenCost { prompt: 1, output: 2 };
    let per = Per::Class;
    for share in [
        Share::VirtualTokenCounter { per, cost },
        Share::DeficitRoundRobin { per, quantum: 300, cost },
        Share::StartTimeFair { per, cost },
        Share::Stride { per },
        Share::DominantResource { per, capacity: CAPACITY },
    ] {
        let mut near = 0;
        for seed in 0..40 {
            let mut model = short_model(seed);
            model.policy.share = share.clone();
            make_plain(&mut model);
            assert_eq!(gap_bound_void(&model.policy), None);
            if seed % 2 == 0 {
                model.policy.predict =
                    plimsoll_policy::config::Predict::NoisyOracle { error_ppm: 0 };
            }
            let summary = fold(&plan(&model), &facts(&model, u64::MAX));
            let Some(gap) = summary.fairness.booked_gap else { continue };
            let bound = gap.bound_cost.expect("nothing voids it");
            assert!(gap.cost <= bound + 1e-3, "seed {seed}, {share:?}: {gap:?}");
            if seed % 2 == 0 {
                assert_eq!(gap.bound_of_errors_seconds, Some(0.0), "{gap:?}");
                near += u32::from(gap.cost > 0.4 * bound);
            }
        }
        assert!(near > 4, "{share:?}: only {near} came near the bound");
    }
}
