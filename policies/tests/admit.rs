//! The rules of admission and of prediction: scripts, and what each promises under random loads.
//!
//! The rules of admission were broken by hand, one change at a time, and each change made a test
//! here fail:
//!
//! - token bucket: take nothing on arrival; come back a nanosecond too early; no debt; save up
//!   without bound; give nothing back after a refusal, or for what never ran;
//! - saturation gate: believe the older report; stale a nanosecond too early, or never; let one that
//!   drowns count as more than full; `open` believes what is stale;
//! - early refusal: refuse at the limit;
//! - retry budget: refuse first attempts too; one retry too many; nothing leaves the window; a slice
//!   stays in it; come back a slice too late; forget which classes; first attempts earn nothing.
//!
//! One change is none: a bucket that is given back more than it holds is cut to its size when it is
//! looked at next, so that the bound at the giving back is for the reader.

#[path = "support/script.rs"]
mod script;
mod support;

use plimsoll_base::{BackendId, ClassId, End, RequestId, Span, TenantId, Time};
use plimsoll_policy::config::{
    Admit, BucketPer, BucketUnit, Class, EarlyRefusal, Per, Predict, RetryBudget, SaturationGate,
    Share, Stale, TokenBucket, TokenCost,
};
use plimsoll_policy::{
    Action, Allocator, Config, ConfigError, Decision, Field, Input, Load, Problem, RequestInfo,
    Used,
};
use proptest::collection::vec;
use proptest::prelude::*;
use script::{Line, end, new, play, tell};
use support::{arrive, class, config, join, request, step};

const SEC: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
/// A token in what a bucket counts: millionths a second · nanoseconds.
const UNIT: i128 = 1_000_000_000_000_000;

fn check(policy: Config, script: Vec<Line>) {
    play(policy, script, tell);
}

fn bucket(unit: BucketUnit, per: BucketPer, rate: u64, burst: u64) -> Admit {
    Admit::TokenBucket(TokenBucket { unit, per, rate_micros: rate, burst, classes: vec![] })
}
/// Ten tokens a second, a hundred at once.
fn tokens(per: BucketPer) -> Admit {
    bucket(BucketUnit::Tokens, per, 10_000_000, 100)
}
fn admitting(admit: Vec<Admit>, classes: Vec<Class>) -> Config {
    Config { admit, ..config(Share::Fcfs, classes) }
}
fn plain() -> Vec<Class> {
    vec![class(), class()]
}
fn reported(slot: u32, waiting: u32, kv_used_ppm: u32, as_of: u64) -> Input {
    let load = Load { waiting, kv_used_ppm, ..Load::default() };
    Input::Reported(BackendId::first(slot), load, Time::from_nanos(as_of))
}

#[test]
fn a_token_bucket_reserves_and_settles() {
    check(
        admitting(vec![tokens(BucketPer::All)], plain()),
        vec![
            (0, join(0, 9, 10_000), ""),
            (0, new(0, 0, 60), "0>0 arrival_order"),
            // 40 are left, 20 are missing: two seconds.
            (0, new(1, 0, 60), "1 rate_limited in 2.00 s: rate_limit"),
            (2 * SEC - 1, new(2, 0, 60), "2 rate_limited in 1.00 ns: rate_limit"),
            (2 * SEC, new(3, 0, 60), "3>0 arrival_order"),
            // It used 10 of the 60: 50 are back at once.
            (2 * SEC, end(3, 10), ""),
            (2 * SEC, new(4, 1, 50), "4>0 arrival_order"),
            // It used 80 more than thought: debt of 80, and 10 are wanted: nine seconds.
            (2 * SEC, end(4, 130), ""),
            (2 * SEC, new(5, 0, 10), "5 rate_limited in 9.00 s: rate_limit"),
            (11 * SEC, new(6, 0, 10), "6>0 arrival_order"),
            // Larger than the bucket: never.
            (90 * SEC, new(7, 0, 101), "7 infeasible in 0 s: rate_limit"),
            (90 * SEC, new(8, 0, 100), "8>0 arrival_order"),
        ],
    );
}

#[test]
fn requests_are_counted_one_by_one() {
    let limit = bucket(BucketUnit::Requests, BucketPer::All, 500_000, 2);
    check(
        admitting(vec![limit], plain()),
        vec![
            (0, join(0, 9, 10_000), ""),
            (0, new(0, 0, 60), "0>0 arrival_order"),
            (0, new(1, 0, 60), "1>0 arrival_order"),
            // What it used is of no interest.
            (0, end(1, 0), ""),
            (0, new(2, 0, 60), "2 rate_limited in 2.00 s: rate_limit"),
            (2 * SEC, new(3, 0, 60), "3>0 arrival_order"),
        ],
    );
}

#[test]
fn each_tenant_or_class_has_a_bucket() {
    let by = |id, tenant, class| {
        arrive(id, RequestInfo { tenant: TenantId(tenant), ..request(class, 80, 0) })
    };
    check(
        admitting(vec![tokens(BucketPer::Tenant)], plain()),
        vec![
            (0, join(0, 9, 10_000), ""),
            (0, by(0, 7, 0), "0>0 arrival_order"),
            (0, by(1, 7, 1), "1 rate_limited in 6.00 s: rate_limit"),
            (0, by(2, 8, 1), "2>0 arrival_order"),
            // As many tenants as there may be.
            (0, by(3, 1 << 20, 0), "3 rate_limited in 1.00 s: rate_limit"),
        ],
    );
    check(
        admitting(vec![tokens(BucketPer::Class)], plain()),
        vec![
            (0, join(0, 9, 10_000), ""),
            (0, by(0, 7, 0), "0>0 arrival_order"),
            (0, by(1, 8, 0), "1 rate_limited in 6.00 s: rate_limit"),
            (0, by(2, 7, 1), "2>0 arrival_order"),
        ],
    );
    let only = match tokens(BucketPer::All) {
        Admit::TokenBucket(rule) => TokenBucket { classes: vec![ClassId(1)], ..rule },
        other => panic!("{other:?}"),
    };
    check(
        admitting(vec![Admit::TokenBucket(only)], plain()),
        vec![
            (0, join(0, 9, 10_000), ""),
            (0, by(0, 7, 1), "0>0 arrival_order"),
            (0, by(1, 8, 0), "1>0 arrival_order"),
            (0, end(1, 900), ""),
            (0, by(2, 8, 1), "2 rate_limited in 6.00 s: rate_limit"),
        ],
    );
}

#[test]
fn what_never_ran_gives_everything_back() {
    let mortal = Class { time_to_live: Some(Span::from_nanos(5)), ..class() };
    check(
        admitting(vec![tokens(BucketPer::All)], vec![mortal, class()]),
        vec![
            (0, new(0, 1, 90), ""),
            (1, Input::Withdrawn(RequestId(0)), "0 Cancelled: withdrawn no_backend"),
            (1, new(1, 0, 90), ""),
            (6, new(2, 1, 90), "1 Expired: time_to_live no_backend"),
            // It fits nowhere and is refused when the backend comes.
            (7, join(0, 9, 20), "2 infeasible in 0 s: too_large no_backend"),
            (7, join(1, 1, 1_000), ""),
            (8, new(3, 1, 100), "3>1 arrival_order"),
        ],
    );
    // A later rule, the queue bound and an id that is held already.
    let rules =
        vec![tokens(BucketPer::All), bucket(BucketUnit::Requests, BucketPer::Class, 1_000_000, 1)];
    let bounded = Class { queue_max: Some(0), ..class() };
    check(
        admitting(rules, vec![bounded, class()]),
        vec![
            (0, join(0, 1, 1_000), ""),
            (0, new(0, 1, 50), "0>0 arrival_order"),
            (0, new(0, 1, 50), ""),
            (0, new(1, 1, 50), "1 rate_limited in 1.00 s: rate_limit"),
            (0, new(2, 0, 50), "2 queue_full in 1.00 s: queue_bound"),
            (0, new(3, 0, 50), "3 queue_full in 1.00 s: queue_bound"),
            (0, end(0, 50), ""),
            (0, new(4, 0, 50), "4>0 arrival_order"),
        ],
    );
}

/// The known failure: a limiter that counts tokens only when a request ends sees a full bucket as
/// long as nothing has ended, and lets the whole burst in.
#[test]
fn without_reservation_a_burst_overruns() {
    let (burst, need, arrivals) = (1_000, 400, 50);
    let counted_at_the_end = |booked: u64| booked < burst;
    let overrun: u64 = (0..arrivals).filter(|_| counted_at_the_end(0)).map(|_| need).sum();
    assert_eq!(overrun, 20_000, "twenty times what the bucket holds");

    let limit = bucket(BucketUnit::Tokens, BucketPer::All, 1_000_000, burst);
    let mut allocator = Allocator::new(admitting(vec![limit], plain())).expect("valid");
    step(&mut allocator, 0, join(0, 100, 1_000_000));
    let went = |id| step(&mut allocator, 0, new(id, 0, need as u32));
    let dispatched: Vec<Decision> = (0..arrivals)
        .flat_map(went)
        .filter(|decision| matches!(decision.action, Action::Dispatch(..)))
        .collect();
    assert_eq!(dispatched.len() as u64 * need, 800, "never more than the bucket holds");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// In any interval: admitted as predicted, less what came back, plus debt ≤ burst + rate · T.
    #[test]
    fn a_token_bucket_keeps_its_rate(
        acts in vec((0u64..3 * SEC, 1u32..90, 0u32..120, any::<bool>()), 20..120),
        rate in 1u64..40_000_000, burst in 50u64..200,
    ) {
        let limit = bucket(BucketUnit::Tokens, BucketPer::All, rate, burst);
        let mut allocator = Allocator::new(admitting(vec![limit], plain())).expect("valid");
        step(&mut allocator, 0, join(0, 1_000, 1_000_000));
        let (mut now, mut running) = (0, std::collections::VecDeque::new());
        // What was taken out of the bucket (negative: came back), when, and whether by admission.
        let mut taken: Vec<(u64, i128, bool)> = Vec::new();
        for (id, (after, predicted, used, ends)) in (0..).zip(acts) {
            now += after;
            for decision in step(&mut allocator, now, new(id, 0, predicted)) {
                match decision.action {
                    Action::Dispatch(..) => {
                        taken.push((now, predicted.into(), true));
                        running.push_back((id, predicted));
                    }
                    Action::Reject(_, retry_after) => {
                        let possible = u64::from(predicted) <= burst;
                        prop_assert_eq!(possible, retry_after > Span::ZERO);
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            if ends && let Some((id, predicted)) = running.pop_front() {
                step(&mut allocator, now, end(id, used));
                taken.push((now, i128::from(used) - i128::from(predicted), false));
            }
        }
        for from in 0..taken.len() {
            let mut sum = 0;
            for &(at, tokens, admitted) in &taken[from..] {
                sum += tokens * UNIT;
                let flowed = i128::from(rate) * i128::from(at - taken[from].0);
                prop_assert!(!admitted || sum <= i128::from(burst) * UNIT + flowed);
            }
        }
    }

    /// The span given to a refused client is exact: it comes in then, and a nanosecond before not.
    #[test]
    fn retry_after_is_when_the_bucket_holds_enough(
        rate in 1u64..5_000_000, need in 1u32..100, drained in 1u32..100,
    ) {
        let limit = bucket(BucketUnit::Tokens, BucketPer::All, rate, 100);
        let policy = admitting(vec![limit], plain());
        let start = || {
            let mut allocator = Allocator::new(policy.clone()).expect("valid");
            step(&mut allocator, 0, join(0, 9, 1_000_000));
            step(&mut allocator, 0, new(0, 0, drained));
            allocator
        };
        let refused = |decisions: Vec<Decision>| match decisions[0].action {
            Action::Reject(_, span) => Some(span.nanos()),
            _ => None,
        };
        if let Some(span) = refused(step(&mut start(), 0, new(1, 0, need))) {
            prop_assert_eq!(refused(step(&mut start(), span, new(1, 0, need))), None);
            prop_assert_eq!(refused(step(&mut start(), span - 1, new(1, 0, need))), Some(1));
        }
    }
}

/// Batch may find the pool 60 % full, chat 100 %.
fn gate(stale: Stale) -> Config {
    let rule = SaturationGate {
        waiting_full: 10,
        kv_full_ppm: 800_000,
        ceilings: vec![(ClassId(0), 1_000_000), (ClassId(1), 600_000)],
        stale_after: Span::from_millis(500),
        stale,
    };
    admitting(vec![Admit::SaturationGate(rule)], vec![class(), class(), class()])
}

#[test]
fn each_class_has_its_ceiling() {
    let refused = |id| -> &'static str {
        ["", "1 saturated in 1.00 s: saturated", "2 saturated in 1.00 s: saturated"][id]
    };
    check(
        gate(Stale::Open),
        vec![
            (0, join(0, 9, 10_000), ""),
            (0, join(1, 9, 10_000), ""),
            // 0.9 by requests and 0.3 by memory (0.24 of 0.8): 0.6 in the mean.
            (1, reported(0, 9, 0, 1), ""),
            (1, reported(1, 0, 240_000, 1), ""),
            (2, new(1, 1, 10), refused(1)),
            (2, new(0, 0, 10), "0>0 arrival_order"),
            // A class without a ceiling is not asked.
            (2, new(3, 2, 10), "3>1 arrival_order"),
            // A hair less, and batch comes in.
            (3, reported(1, 0, 239_999, 3), ""),
            (4, new(4, 1, 10), "4>0 arrival_order"),
            // One that drowns counts as full and no more.
            (5, reported(0, 1_000_000, 0, 5), ""),
            (5, reported(1, 0, 0, 5), ""),
            (6, new(5, 1, 10), "5>1 arrival_order"),
            (7, reported(1, 0, 800_000, 7), ""),
            (8, new(2, 0, 10), refused(2)),
            // An older report than the one that is known does not count, nor does that of a
            // backend that is not there.
            (9, reported(1, 0, 0, 6), ""),
            (9, reported(2, 0, 0, 9), ""),
            (10, new(2, 0, 10), refused(2)),
            (11, Input::Left(BackendId::first(0)), ""),
            (11, new(2, 0, 10), refused(2)),
            (12, Input::Left(BackendId::first(1)), ""),
            (12, new(2, 0, 10), ""),
        ],
    );
}

/// llm-d-router #2408: reports that no longer came halted a healthy pool.
#[test]
fn stale_reports_do_not_halt_a_healthy_pool() {
    let script =
        |open: &'static str, closed: &'static str, last: &'static str, one: [&'static str; 3]| {
            let lines = |stale: &'static str, fresh: &'static str| {
                let mut lines = vec![(0, join(0, 9, 10_000), "")];
                lines.extend((1..4).map(|slot| (0, join(slot, 9, 10_000), "")));
                lines.extend((0..4).map(|slot| (1, reported(slot, 7, 0, 1), "")));
                lines.extend([
                    (500 * MS + 1, new(0, 1, 10), "0 saturated in 1.00 s: saturated"),
                    (500 * MS + 2, new(0, 1, 10), stale),
                    // One of four speaks again, and it is idle.
                    (501 * MS, reported(3, 0, 0, 501 * MS), ""),
                    (501 * MS, new(1, 1, 20), fresh),
                ]);
                lines
            };
            check(gate(Stale::Open), lines(open, one[0]));
            check(gate(Stale::Closed), lines(closed, one[1]));
            check(gate(Stale::Last), lines(last, one[2]));
        };
    script(
        "0>0 arrival_order",
        "0 saturated in 1.00 s: stale_signal",
        "0 saturated in 1.00 s: saturated",
        // The mean of nothing but 0; of three full ones and 0; of three at 0.7 and 0.
        ["1>1 arrival_order", "1 saturated in 1.00 s: stale_signal", "1>0 arrival_order"],
    );
}

#[test]
fn reports_are_asked_for() {
    let needs = |policy| Allocator::new(policy).expect("valid").needs();
    assert_eq!(needs(gate(Stale::Open)).reports, Some(Span::from_millis(100)));
    let mut hasty = gate(Stale::Open);
    if let Admit::SaturationGate(rule) = &mut hasty.admit[0] {
        rule.stale_after = Span::from_millis(80);
    }
    assert_eq!(needs(hasty).reports, Some(Span::from_millis(40)));
    assert_eq!(needs(admitting(vec![tokens(BucketPer::All)], plain())).reports, None);
}

/// One seat, a request a hundred nanoseconds: ten go before anything is refused.
fn paced(queue_max: Option<u32>, admit: Vec<Admit>) -> (Allocator, u64) {
    let deadline = Some(Span::from_nanos(450));
    let classes = vec![Class { queue_max, deadline, ..class() }];
    let mut allocator = Allocator::new(admitting(admit, classes)).expect("valid");
    step(&mut allocator, 0, join(0, 1, 1_000));
    for id in 0..11 {
        let expected = if id == 0 { 1 } else { 0 };
        assert_eq!(step(&mut allocator, 0, new(id, 0, 1)).len(), expected, "{id} waits");
    }
    for id in 0..9 {
        assert_eq!(step(&mut allocator, 100 * (id + 1), end(id, 1)).len(), 1, "{id} ends");
    }
    // 9 runs since 900, 10 waits, and eight gaps of 100 were measured.
    assert_eq!(allocator.queued(ClassId(0)), 1);
    (allocator, 900)
}

#[test]
fn what_cannot_be_in_time_is_refused_early() {
    let early = |wait_limit| Admit::EarlyRefusal(EarlyRefusal { wait_limit, classes: vec![] });
    let (mut allocator, now) = paced(None, vec![early(None)]);
    let mut arrive = |id, at| {
        let decided: Vec<String> =
            step(&mut allocator, at, new(id, 0, 1)).iter().map(tell).collect();
        decided.join("")
    };
    // Behind one, two, three and four: 400 at most. Behind five: 500, and 450 are allowed.
    for id in 20..24 {
        assert_eq!(arrive(id, now), "");
    }
    assert_eq!(arrive(24, now), "24 infeasible in 50.0 ns: hopeless");
    // The gap that is open lasts longer than the mean: 100 + (260 - 100) / 8 = 120 a request.
    assert_eq!(arrive(25, now + 260), "25 infeasible in 150 ns: hopeless");
    let (mut allocator, now) = paced(None, vec![early(Some(Span::from_nanos(100)))]);
    assert_eq!(step(&mut allocator, now, new(20, 0, 1)), []);
    let decided: Vec<String> = step(&mut allocator, now, new(21, 0, 1)).iter().map(tell).collect();
    assert_eq!(decided, ["21 infeasible in 100 ns: hopeless"]);
}

/// When the queue runs dry the time until it has work again is no gap.
#[test]
fn an_idle_queue_is_not_a_slow_one() {
    let rule = EarlyRefusal { wait_limit: Some(Span::from_nanos(150)), classes: vec![] };
    let (mut allocator, now) = paced(None, vec![Admit::EarlyRefusal(rule)]);
    step(&mut allocator, now + 100, end(9, 1));
    step(&mut allocator, now + 200, end(10, 1));
    let later = now + SEC;
    for id in 20..23 {
        step(&mut allocator, later, new(id, 0, 1));
    }
    // 20 runs, 21 and 22 wait: 100 each, as before.
    let decided: Vec<String> =
        step(&mut allocator, later, new(23, 0, 1)).iter().map(tell).collect();
    assert_eq!(decided, ["23 infeasible in 50.0 ns: hopeless"]);
}

/// A full queue says when it will have drained, at the pace measured.
#[test]
fn a_full_queue_computes_when_to_come_back() {
    let policy = admitting(vec![], vec![Class { queue_max: Some(12), ..class() }]);
    let mut allocator = Allocator::new(policy).expect("valid");
    step(&mut allocator, 0, join(0, 1, 1_000));
    (0..13).for_each(|id| assert!(step(&mut allocator, 0, new(id, 0, 1)).len() <= 1));
    let mut refused = |at| {
        let decided: Vec<String> =
            step(&mut allocator, at, new(90, 0, 1)).iter().map(tell).collect();
        decided.join("")
    };
    // Nothing is measured yet: the age of the oldest, at least a second.
    assert_eq!(refused(0), "90 queue_full in 1.00 s: queue_bound");
    assert_eq!(refused(5 * SEC), "90 queue_full in 5.00 s: queue_bound");
    for id in 0..9 {
        step(&mut allocator, (5 + id) * SEC, end(id, 1));
        step(&mut allocator, (5 + id) * SEC, new(20 + id, 0, 1));
    }
    // Twelve wait, one goes a second.
    let decided: Vec<String> =
        step(&mut allocator, 13 * SEC, new(91, 0, 1)).iter().map(tell).collect();
    assert_eq!(decided, ["91 queue_full in 12.0 s: queue_bound"]);
}

#[test]
fn a_quantile_is_learned_from_what_finished() {
    let predict = Predict::ClassQuantile { quantile_ppm: 500_000, samples_min: 3 };
    let policy = Config { predict, ..config(Share::Fcfs, plain()) };
    let mut allocator = Allocator::new(policy).expect("valid");
    // The prompt is nothing, so the prediction is what fits the memory: 100.
    step(&mut allocator, 0, join(0, 9, 100));
    let mut now = 0;
    let mut run = |id, class, cap, end: Option<(End, u32)>| {
        now += 1;
        let decided = step(&mut allocator, now, arrive(id, request(class, 0, cap)));
        if let Some((end, output_tokens)) = end {
            let used = Used { prompt_tokens: 0, output_tokens };
            step(&mut allocator, now, Input::Ended(RequestId(id), end, used));
        }
        decided.len() == 1 && matches!(decided[0].action, Action::Dispatch(..))
    };
    for id in 0..3 {
        // Cut off: not counted, so the cap of 101 goes on to count and fits nowhere.
        assert!(run(id, 0, 100, Some((End::Cancelled, 1))));
        assert!(!run(10 + id, 0, 101, None));
    }
    for (id, output) in [(20, 9), (21, 12), (22, 90)] {
        assert!(!run(id + 10, 0, 101, None), "fewer than three have finished");
        assert!(run(id, 0, 100, Some((End::Finished, output))));
    }
    // Now it is 12: eight of them fit, and the ninth waits.
    for id in 40..48 {
        assert!(run(id, 0, 1_000, None), "{id}");
    }
    assert!(!run(48, 0, 1_000, None));
    // Never above the cap; and another class has learned nothing.
    assert!(!run(49, 1, 101, None));
}

#[test]
fn a_hint_is_the_prediction() {
    let predict = Predict::NoisyOracle { error_ppm: 300_000 };
    let policy = Config { predict, ..config(Share::Fcfs, plain()) };
    assert!(policy.uses_oracle() && policy.to_string().contains("ORACLE"));
    assert!(!config(Share::Fcfs, plain()).uses_oracle());
    let mut allocator = Allocator::new(policy).expect("valid");
    assert!(allocator.needs().predictions);
    step(&mut allocator, 0, join(0, 9, 100));
    let mut went = |id, cap, hint: Option<u32>| {
        if let Some(hint) = hint {
            step(&mut allocator, 1, Input::Predicted(RequestId(id), hint));
        }
        !step(&mut allocator, 1, arrive(id, request(0, 0, cap))).is_empty()
    };
    assert!(went(0, 1_000, Some(60)));
    assert!(!went(1, 1_000, Some(41)));
    step(&mut allocator, 1, Input::Withdrawn(RequestId(1)));
    let mut went = |id, cap, hint: Option<u32>| {
        if let Some(hint) = hint {
            step(&mut allocator, 2, Input::Predicted(RequestId(id), hint));
        }
        !step(&mut allocator, 2, arrive(id, request(0, 0, cap))).is_empty()
    };
    // Never above the cap, and the cap without a hint.
    assert!(went(2, 30, Some(90)));
    assert!(went(3, 10, None));
    assert!(!went(4, 1, None));
}

/// A prediction is what the virtual counter charges, whatever made it.
#[test]
fn shares_are_charged_what_is_predicted() {
    let predict = Predict::NoisyOracle { error_ppm: 0 };
    let cost = TokenCost { prompt: 1, output: 1 };
    let share = Share::VirtualTokenCounter { per: Per::Class, cost };
    let policy = Config { predict, ..config(share, plain()) };
    let mut allocator = Allocator::new(policy).expect("valid");
    for (id, class, hint) in [(0, 0, 50), (1, 0, 1), (2, 1, 10), (3, 1, 10), (4, 1, 10)] {
        step(&mut allocator, 0, Input::Predicted(RequestId(id), hint));
        step(&mut allocator, 0, arrive(id, request(class, 0, 1_000)));
    }
    let first = step(&mut allocator, 1, join(0, 4, 10_000));
    let order: Vec<u64> = first.iter().map(|decision| decision.id.0).collect();
    assert_eq!(order, [0, 2, 3, 4], "class 1 has three turns for class 0's fifty tokens");
}

/// Half of the first attempts, and one, of the last second.
fn budget(ratio_ppm: u32, min: u32) -> Admit {
    let window = Span::from_secs(1);
    Admit::RetryBudget(RetryBudget { ratio_ppm, window, min, classes: vec![ClassId(0)] })
}
fn again(id: u64, class: u16) -> Input {
    arrive(id, RequestInfo { attempt: 2, ..request(class, 1, 0) })
}

#[test]
fn retries_come_in_by_the_first_attempts() {
    check(
        admitting(vec![budget(500_000, 1)], plain()),
        vec![
            (0, join(0, 99, 10_000), ""),
            (250 * MS, again(0, 0), "0>0 arrival_order"),
            // It leaves the window when the eleventh slice after its own begins: at 1.2 s.
            (250 * MS, again(1, 0), "1 rate_limited in 950 ms: retry_budget"),
            (260 * MS, new(2, 0, 1), "2>0 arrival_order"),
            (399 * MS, again(3, 0), "3 rate_limited in 801 ms: retry_budget"),
            // Two first attempts are worth one more.
            (399 * MS, new(4, 0, 1), "4>0 arrival_order"),
            (399 * MS, again(5, 0), "5>0 arrival_order"),
            // The other class is not asked.
            (400 * MS, again(6, 1), "6>0 arrival_order"),
            // At 1.2 s the first retry leaves, and so does the first attempt of 260 ms; at 1.3 s all.
            (400 * MS, again(7, 0), "7 rate_limited in 900 ms: retry_budget"),
            (1_299 * MS, again(8, 0), "8 rate_limited in 1.00 ms: retry_budget"),
            (1_300 * MS, again(9, 0), "9>0 arrival_order"),
            // A first attempt is never refused.
            (1_300 * MS, new(10, 0, 1), "10>0 arrival_order"),
            // Long after.
            (9 * SEC, again(11, 0), "11>0 arrival_order"),
            (9 * SEC, again(12, 0), "12 rate_limited in 1.00 s: retry_budget"),
        ],
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whenever a retry is let in, those of the window are within the budget; over a whole run
    /// they are within it for each window; first attempts are never refused; and who comes back
    /// when told, if nobody else did, comes in.
    #[test]
    fn retries_stay_within_their_budget(
        acts in vec((0u64..400, any::<bool>()), 20..300), ratio in 0u32..1_000_001, min in 1u32..5,
    ) {
        let policy = admitting(vec![budget(ratio, min)], plain());
        let mut allocator = Allocator::new(policy).expect("valid");
        step(&mut allocator, 0, join(0, 1_000, 10_000));
        let (mut now, mut firsts, mut retries) = (0, Vec::new(), Vec::new());
        let mut back = None;
        for (id, (gap, is_retry)) in (0..).zip(acts) {
            // Sometimes somebody comes back to the nanosecond.
            let (at, is_retry) = match back.take() {
                Some(at) if gap % 3 == 0 => (at, true),
                _ => (now + gap * MS, is_retry),
            };
            let told = at != now + gap * MS;
            now = at;
            let input = if is_retry { again(id, 0) } else { new(id, 0, 1) };
            let action = step(&mut allocator, now, input)[0].action;
            match action {
                Action::Dispatch(..) if is_retry => retries.push(now),
                Action::Dispatch(..) => firsts.push(now),
                Action::Reject(_, after) => {
                    prop_assert!(is_retry && !told, "{id} at {now}");
                    prop_assert!(after > Span::ZERO && after <= Span::from_secs(1));
                    back = Some(now + after.nanos());
                    continue;
                }
                other => panic!("{other:?}"),
            }
            if is_retry {
                // The window is nine slices and what has passed of the tenth.
                let start = (now / (100 * MS) * 100 * MS).saturating_sub(900 * MS);
                let lately = |times: &[u64]| times.iter().filter(|&&at| at >= start).count() as u64;
                let budget = u64::from(min) * 1_000_000 + lately(&firsts) * u64::from(ratio);
                prop_assert!(lately(&retries) * 1_000_000 <= budget, "at {now}");
            }
        }
        // Every first attempt counts in two windows that follow each other, at most.
        let windows = now / SEC + 2;
        let most = windows * u64::from(min) * 1_000_000 + 2 * firsts.len() as u64 * u64::from(ratio);
        prop_assert!(retries.len() as u64 * 1_000_000 <= most);
    }
}

#[test]
fn rules_that_make_no_sense_are_errors() {
    let rate = |rate, burst| bucket(BucketUnit::Tokens, BucketPer::All, rate, burst);
    let early = |wait_limit, classes| Admit::EarlyRefusal(EarlyRefusal { wait_limit, classes });
    let ceilings = |ceilings: Vec<(ClassId, u32)>| match &gate(Stale::Open).admit[0] {
        Admit::SaturationGate(rule) => {
            Admit::SaturationGate(SaturationGate { ceilings, ..rule.clone() })
        }
        other => panic!("{other:?}"),
    };
    let in_window = |nanos| {
        let (window, classes) = (Span::from_nanos(nanos), vec![]);
        Admit::RetryBudget(RetryBudget { ratio_ppm: 0, window, min: 1, classes })
    };
    for (rule, field, problem) in [
        (rate(0, 1), Field::Rate, Problem::Below(1)),
        (rate(1, 0), Field::Burst, Problem::Below(1)),
        (rate(u64::MAX, 1), Field::Rate, Problem::Above(1_000_000_000_000_000_000)),
        (early(None, vec![]), Field::WaitLimit, Problem::NoLimit),
        (
            early(Some(Span::ZERO), vec![ClassId(2)]),
            Field::Classes,
            Problem::NoSuchClass(ClassId(2)),
        ),
        (ceilings(vec![]), Field::Ceilings, Problem::Below(1)),
        (ceilings(vec![(ClassId(0), 0)]), Field::Ceilings, Problem::Below(1)),
        (
            ceilings(vec![(ClassId(0), 1), (ClassId(0), 2)]),
            Field::Ceilings,
            Problem::NamedTwice(ClassId(0)),
        ),
        (budget(1_000_001, 1), Field::Ratio, Problem::Above(1_000_000)),
        (budget(0, 0), Field::Min, Problem::Below(1)),
        (in_window(9), Field::Window, Problem::Below(10)),
    ] {
        let found = admitting(vec![rate(1, 1), rule], plain()).check();
        assert_eq!(found, Err(ConfigError::Admit(1, field, problem)));
    }
    for (quantile_ppm, samples_min, field) in [(0, 1, Field::Quantile), (1, 0, Field::SamplesMin)] {
        let predict = Predict::ClassQuantile { quantile_ppm, samples_min };
        let found = Config { predict, ..config(Share::Fcfs, plain()) }.check();
        assert_eq!(found, Err(ConfigError::Policy(field, Problem::Below(1))));
    }
}
