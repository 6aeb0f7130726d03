//! The allocator against one written the plain way, decision by decision, and what must hold of
//! any policy under any storm of inputs.

#[path = "support/handover.rs"]
mod handover;
#[path = "support/naive.rs"]
mod naive;
#[path = "support/storm.rs"]
mod storm;

use plimsoll_base::ClassId;
use plimsoll_policy::config::{Partition, Window};
use plimsoll_policy::{Action, Allocator, Config};
use proptest::prelude::*;

use naive::{Held, Naive};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Decisions, gauges and deadlines are those of the plain allocator.
    #[test]
    fn agrees_with_the_plain_allocator(config in storm::config(), acts in storm::acts()) {
        storm::run(config, acts, |allocator, naive, _, _| {
            for class in (0..5).map(ClassId) {
                let arrivals = || naive.waiting().filter(|h| h.class == class).map(|h| h.arrived);
                assert_eq!(allocator.queued(class) as usize, arrivals().count());
                assert_eq!(allocator.oldest_arrival(class), arrivals().min());
            }
        });
    }

    /// Where queues last long enough for their pace to be known.
    #[test]
    fn agrees_on_early_refusals(config in storm::queueing_config(), acts in storm::acts()) {
        storm::run(config, acts, |_, _, _, _| {});
    }

    /// Where advice is given again and again.
    #[test]
    fn agrees_on_advice(config in storm::advised_config(), acts in storm::acts()) {
        storm::run(config, acts, |_, _, _, _| {});
    }

    /// The same where quotas are what stops requests: borrowing, claims and reclaim.
    #[test]
    fn quotas_agree_with_the_plain_allocator(
        config in storm::quota_config(), acts in storm::roomy_acts(),
    ) {
        storm::run(config.clone(), acts, |_, naive, _, _| quotas_hold(&config, naive));
    }

    /// Arrived = dispatched + closed + refused + queued; each is decided once, and what was
    /// dispatched is evicted once at most, one at a time.
    #[test]
    fn conserves_requests(config in storm::config(), acts in storm::acts()) {
        let (mut arrived, mut decided) = (0, std::collections::BTreeSet::new());
        let (mut evicted, mut latest) = (std::collections::BTreeSet::new(), None);
        storm::run(config, acts, |allocator, naive, offered, decisions| {
            arrived += usize::from(offered.is_some());
            for decision in decisions {
                if let Action::Cancel(backend) = decision.action {
                    let runs = |id| naive.held.iter().any(|h| h.id == id && h.at.is_some());
                    assert!(decided.contains(&decision.id) && evicted.insert(decision.id));
                    assert!(latest.is_none_or(|id| !runs(id)), "the one before has let go");
                    let at = naive.held.iter().find(|h| h.id == decision.id).and_then(|h| h.at);
                    assert_eq!(at, Some(backend));
                    latest = Some(decision.id);
                    continue;
                }
                assert!(decided.insert(decision.id), "{decision:?} is the second");
            }
            let queued: u32 = (0..5).map(|class| allocator.queued(ClassId(class))).sum();
            assert_eq!(arrived, decided.len() + queued as usize);
            let dispatched = naive.held.iter().filter(|h| h.at.is_some()).count();
            assert_eq!(allocator.in_flight() as usize, dispatched);
        });
    }

    /// No limit of the policy or of a backend is ever exceeded.
    #[test]
    fn keeps_every_limit(config in storm::config(), acts in storm::acts()) {
        storm::run(config.clone(), acts, |allocator, naive, _, _| limits_hold(&config, allocator, naive));
    }

    /// If everyone who waits would fit a backend and the caps of its class, no one waits.
    #[test]
    fn leaves_nothing_to_do(config in storm::config(), acts in storm::acts()) {
        storm::run(config, acts, |_, naive, _, _| {
            let could_go = |h: &Held| naive.finds_room(h) && naive.may_go(h);
            assert!(naive.waiting().next().is_none() || !naive.waiting().all(could_go));
        });
    }
}

fn limits_hold(config: &Config, allocator: &Allocator, naive: &Naive) {
    assert!(naive.held.len() <= config.requests_max as usize);
    for (class, rule) in (0..).map(ClassId).zip(&config.classes) {
        let running = naive.outstanding(class).count();
        assert!(rule.requests_max.is_none_or(|max| running <= max as usize));
        let tokens: u64 = naive.outstanding(class).map(Held::tokens).sum();
        assert!(running <= 1 || rule.tokens_max.is_none_or(|max| tokens <= max));
        assert!(rule.queue_max.is_none_or(|max| allocator.queued(class) <= max));
    }
    for rule in &config.partition {
        if let Partition::HeavyLane { max, .. } = rule {
            let heavy = naive.held.iter().filter(|h| h.at.is_some() && naive.is_heavy(h));
            assert!(heavy.count() <= *max as usize);
        }
    }
    quotas_hold(config, naive);
    for (&id, info) in &naive.backends {
        let on = || naive.held.iter().filter(|h| h.at == Some(id));
        if config.window == Window::Seats {
            assert!(on().count() <= info.seats as usize);
            assert!(on().map(Held::tokens).sum::<u64>() <= info.kv_tokens);
        }
    }
}

/// No group uses more than it may, and everything runs where it may.
fn quotas_hold(config: &Config, naive: &Naive) {
    for held in naive.held.iter().filter(|h| h.at.is_some()) {
        let info = held.at.and_then(|backend| naive.backends.get(&backend));
        assert!(info.is_none_or(|info| naive.may(info, held)));
    }
    let Some(rule) = naive::quota::quota(config) else { return };
    let used = naive::quota::used(rule, &naive::quota::amounts(rule, &naive.held));
    for (at, used) in used.into_iter().enumerate() {
        assert!(used <= naive::quota::most(rule, at));
    }
}

/// The storms are worth something only if they reach every kind of decision.
#[test]
fn storms_reach_every_decision() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = std::collections::BTreeSet::new();
    let (mut ups, mut downs) = (0, 0);
    for number in 0..1_200 {
        let config = match number % 4 {
            0 => storm::queueing_config().new_tree(&mut runner).expect("a policy").current(),
            _ => storm::config().new_tree(&mut runner).expect("a policy").current(),
        };
        let acts = storm::acts().new_tree(&mut runner).expect("a storm").current();
        let mut advice = Vec::new();
        storm::run(config, acts, |_, naive, _, decisions| {
            advice.clear();
            advice.extend(naive.advice());
            for decision in decisions {
                let action = match decision.action {
                    Action::Dispatch(..) => "dispatch".to_owned(),
                    Action::Reject(refusal, _) => refusal.name().to_owned(),
                    Action::Close(end) => format!("{end:?}"),
                    Action::Preempt(_) => "preempt".to_owned(),
                    Action::Cancel(_) => "cancel".to_owned(),
                };
                seen.insert((action, decision.reason.name(), decision.bound.map(|b| b.name())));
            }
        });
        ups += advice.iter().filter(|scale| scale.wanted > scale.present).count();
        downs += advice.iter().filter(|scale| scale.wanted < scale.present).count();
    }
    let all = |rule: &str| seen.iter().filter(|(_, reason, _)| *reason == rule).count();
    // At least six kinds of bound (none included) for each rule that picks; five for what waited.
    let rules = [
        "arrival_order",
        "priority",
        "deficit",
        "virtual_counter",
        "start_time",
        "stride",
        "dominant_share",
        "deficit_prefix",
    ];
    for rule in rules {
        assert!(all(rule) >= 6, "{rule}: {seen:?}");
    }
    for (rule, least) in
        [("bypass", 5), ("due", 5), ("time_to_live", 5), ("withdrawn", 5), ("too_large", 4)]
    {
        assert!(all(rule) >= least, "{rule}: {seen:?}");
    }
    assert!(ups > 60 && downs > 5, "advice: {ups} up and {downs} down");
    for bound in ["adaptive", "breaker"] {
        let stopped = seen.iter().filter(|(_, _, found)| *found == Some(bound)).count();
        assert!(stopped >= 4, "{bound}: {seen:?}");
    }
    let admission =
        ["retry_budget", "rate_limit", "saturated", "stale_signal", "hopeless", "evicted"];
    for rule in ["queue_bound", "no_rule", "draining"].into_iter().chain(admission) {
        assert!(all(rule) > 0, "{rule}: {seen:?}");
    }
}
