//! Each rule on a script: inputs at instants, and the decisions that must follow from each.

#[path = "support/script.rs"]
mod script;
mod support;

use plimsoll_base::{BackendId, ClassId, RequestId, Span, TenantId};
use plimsoll_policy::config::{
    Becomes, Class, ClassifyRule, Guard, Order, Per, Place, Predict, Share, TokenCost, Window,
};
use plimsoll_policy::{
    Allocator, BackendInfo, Config, ConfigError, Field, Input, Problem, RequestInfo,
};
use script::{Line, end, new, play, seats, tell};
use support::{arrive, backend, class, config, join, request, step};

const SEC: u64 = 1_000_000_000;

fn check(policy: Config, script: Vec<Line>) {
    play(policy, script, tell);
}

fn two(change: impl Fn(&mut Class, &mut Class)) -> Vec<Class> {
    let (mut first, mut second) = (class(), class());
    change(&mut first, &mut second);
    vec![first, second]
}
fn plain() -> Vec<Class> {
    two(|_, _| {})
}
const PROMPT: TokenCost = TokenCost { prompt: 1, output: 1 };

#[test]
fn first_come_first_served() {
    check(
        config(Share::Fcfs, plain()),
        vec![
            (0, seats(1), ""),
            (1, new(0, 0, 10), "0>0 arrival_order"),
            (2, new(1, 1, 10), ""),
            (3, new(2, 0, 10), ""),
            (4, end(0, 10), "1>0 arrival_order seats"),
            (5, end(1, 10), "2>0 arrival_order seats"),
            (6, end(2, 10), ""),
        ],
    );
}

#[test]
fn a_large_request_is_waited_for() {
    check(
        config(Share::Fcfs, plain()),
        vec![
            (0, join(0, 9, 100), ""),
            (1, new(0, 0, 60), "0>0 arrival_order"),
            (2, new(1, 0, 60), ""),
            (3, new(2, 1, 10), ""),
            (4, end(0, 60), "1>0 arrival_order kv_memory; 2>0 arrival_order kv_memory"),
        ],
    );
    // Without a window it queues in the engine instead.
    let open = Config { window: Window::None, ..config(Share::Fcfs, plain()) };
    check(
        open,
        vec![
            (0, join(0, 1, 100), ""),
            (1, new(0, 0, 60), "0>0 arrival_order"),
            (2, new(1, 0, 60), "1>0 arrival_order"),
        ],
    );
}

#[test]
fn strict_priority_serves_the_highest_band() {
    let classes = two(|low, high| (low.priority, high.priority) = (0, 5));
    check(
        config(Share::Priority, classes),
        vec![
            (0, seats(1), ""),
            (1, new(0, 0, 10), "0>0 priority"),
            (2, new(1, 0, 10), ""),
            (3, new(2, 1, 10), ""),
            (4, new(3, 1, 10), ""),
            (5, end(0, 10), "2>0 priority seats"),
            (6, end(2, 10), "3>0 priority seats"),
            (7, end(3, 10), "1>0 priority seats"),
        ],
    );
}

#[test]
fn deficit_round_robin_shares_cost() {
    // Class 0 sends requests of 100, class 1 of 50, quantum 100: one to two.
    let share = Share::DeficitRoundRobin { per: Per::Class, quantum: 100, cost: PROMPT };
    check(
        config(share, plain()),
        vec![
            (0, new(0, 0, 100), ""),
            (0, new(1, 0, 100), ""),
            (0, new(2, 1, 50), ""),
            (0, new(3, 1, 50), ""),
            (0, new(4, 1, 50), ""),
            (1, seats(1), "0>0 deficit no_backend"),
            (2, end(0, 100), "2>0 deficit seats"),
            (3, end(2, 50), "3>0 deficit seats"),
            (4, end(3, 50), "1>0 deficit seats"),
            (5, end(1, 100), "4>0 deficit seats"),
        ],
    );
    // Request 0 uses 300 instead of the 100 it was charged. Its flow runs empty and keeps the
    // debt of 200, so three visits pass before it is served again.
    let share = Share::DeficitRoundRobin { per: Per::Class, quantum: 100, cost: PROMPT };
    check(
        config(share, plain()),
        vec![
            (0, seats(1), ""),
            (0, new(0, 0, 100), "0>0 deficit"),
            (1, end(0, 300), ""),
            (2, new(1, 1, 100), "1>0 deficit"),
            (2, new(2, 0, 100), ""),
            (2, new(3, 1, 100), ""),
            (2, new(4, 1, 100), ""),
            (2, new(5, 1, 100), ""),
            (3, end(1, 100), "3>0 deficit seats"),
            (4, end(3, 100), "4>0 deficit seats"),
            (5, end(4, 100), "2>0 deficit seats"),
            (6, end(2, 100), "5>0 deficit seats"),
        ],
    );
}

#[test]
fn virtual_counter_serves_the_least_served() {
    let share = |per| Share::VirtualTokenCounter { per, cost: PROMPT };
    let classes = two(|heavy, _| heavy.weight = 2);
    check(
        config(share(Per::Class), classes),
        vec![
            (0, new(0, 0, 60), ""),
            (0, new(1, 0, 60), ""),
            (0, new(2, 0, 60), ""),
            (0, new(3, 1, 40), ""),
            (0, new(4, 1, 40), ""),
            // Counters (0, 0), then (30, 0), (30, 40), (60, 40), (60, 80).
            (1, seats(1), "0>0 virtual_counter no_backend"),
            (2, end(0, 60), "3>0 virtual_counter seats"),
            (3, end(3, 40), "1>0 virtual_counter seats"),
            (4, end(1, 60), "4>0 virtual_counter seats"),
            (5, end(4, 40), "2>0 virtual_counter seats"),
        ],
    );
    // Settlement: request 0 used 10 of the 60 it was charged, so its tenant is next again.
    let by = |tenant, tokens| RequestInfo { tenant: TenantId(tenant), ..request(0, tokens, 0) };
    check(
        config(share(Per::Tenant), plain()),
        vec![
            (0, seats(1), ""),
            (0, arrive(0, by(7, 60)), "0>0 virtual_counter"),
            (1, arrive(1, by(3, 30)), ""),
            (1, arrive(2, by(3, 30)), ""),
            (1, arrive(3, by(7, 30)), ""),
            // Tenant 3 came when no one waited: it starts at tenant 7's 60, which then falls to 10.
            (2, end(0, 10), "3>0 virtual_counter seats"),
            (3, end(3, 30), "1>0 virtual_counter seats"),
            (4, end(1, 30), "2>0 virtual_counter seats"),
        ],
    );
}

#[test]
fn aging_overtakes_within_the_boost_difference() {
    let classes = two(|_, high| high.boost = Span::from_nanos(10));
    check(
        Config { order: Order::Aging, ..config(Share::Fcfs, classes) },
        vec![
            (0, new(0, 0, 1), ""),
            (9, new(1, 1, 1), ""),
            (10, new(2, 1, 1), ""),
            (11, new(3, 1, 1), ""),
            (12, seats(1), "1>0 arrival_order no_backend"),
            (13, end(1, 1), "0>0 arrival_order seats"),
            (14, end(0, 1), "2>0 arrival_order seats"),
        ],
    );
}

#[test]
fn a_capped_class_steps_aside() {
    let classes = two(|capped, _| capped.requests_max = Some(1));
    check(
        config(Share::Fcfs, classes),
        vec![
            (0, seats(3), ""),
            (1, new(0, 0, 10), "0>0 arrival_order"),
            (2, new(1, 0, 10), ""),
            (3, new(2, 1, 10), "2>0 arrival_order"),
            (4, end(0, 10), "1>0 arrival_order class_requests"),
        ],
    );
    let classes = two(|capped, _| capped.tokens_max = Some(50));
    check(
        config(Share::Fcfs, classes),
        vec![
            (0, seats(9), ""),
            // Larger than the cap: alone.
            (1, new(0, 0, 80), "0>0 arrival_order"),
            (2, new(1, 0, 30), ""),
            (3, new(2, 1, 30), "2>0 arrival_order"),
            (4, new(3, 0, 20), ""),
            (5, end(0, 80), "1>0 arrival_order class_tokens; 3>0 arrival_order class_tokens"),
        ],
    );
}

/// What runs alone because it exceeds the cap was joined by what asked for nothing.
#[test]
fn an_empty_request_does_not_join_one_that_runs_alone() {
    let classes = two(|capped, _| capped.tokens_max = Some(1));
    check(
        config(Share::Fcfs, classes),
        vec![
            (0, seats(2), ""),
            (0, new(0, 0, 2), "0>0 arrival_order"),
            (0, new(1, 0, 0), ""),
            (1, end(0, 2), "1>0 arrival_order class_tokens"),
        ],
    );
}

#[test]
fn a_full_queue_refuses_what_would_wait() {
    let classes = two(|none, one| (none.queue_max, one.queue_max) = (Some(0), Some(1)));
    check(
        config(Share::Fcfs, classes),
        vec![
            (0, seats(1), ""),
            (SEC, new(0, 0, 10), "0>0 arrival_order"),
            (SEC, new(1, 0, 10), "1 queue_full in 1.00 s: queue_bound"),
            (SEC, new(2, 1, 10), ""),
            (4 * SEC, new(3, 1, 10), "3 queue_full in 3.00 s: queue_bound"),
            (5 * SEC, end(0, 10), "2>0 arrival_order seats"),
        ],
    );
    let held = Config { requests_max: 2, ..config(Share::Fcfs, plain()) };
    check(
        held,
        vec![
            (0, seats(9), ""),
            (1, new(0, 0, 10), "0>0 arrival_order"),
            (1, new(1, 0, 10), "1>0 arrival_order"),
            (1, new(2, 0, 10), "2 queue_full in 1.00 s: queue_bound"),
            (2, end(0, 10), ""),
            (2, new(3, 0, 10), "3>0 arrival_order"),
        ],
    );
}

#[test]
fn a_refused_request_stops_no_one() {
    let classes = two(|high, low| {
        (high.priority, high.queue_max) = (1, Some(0));
        low.time_to_live = Some(Span::from_nanos(10));
    });
    check(
        config(Share::Priority, classes),
        vec![
            (0, join(0, 9, 100), ""),
            (0, new(0, 1, 60), "0>0 priority"),
            (1, new(1, 1, 60), ""),
            (2, new(2, 1, 10), ""),
            // 1 expires; 3 would be next, is too large and may not wait; 2 goes.
            (
                11,
                new(3, 0, 60),
                "1 Expired: time_to_live kv_memory; 3 queue_full in 1.00 s: queue_bound; \
                 2>0 priority kv_memory",
            ),
        ],
    );
}

#[test]
fn waiting_ends_by_time_and_by_withdrawal() {
    let classes = two(|mortal, _| mortal.time_to_live = Some(Span::from_nanos(10)));
    check(
        config(Share::Fcfs, classes),
        vec![
            (0, seats(1), ""),
            (0, new(0, 1, 10), "0>0 arrival_order"),
            (1, new(1, 0, 10), ""),
            (2, new(2, 1, 10), ""),
            (3, new(3, 0, 10), ""),
            (10, Input::Deadline, ""),
            (11, Input::Deadline, "1 Expired: time_to_live seats"),
            (12, Input::Withdrawn(RequestId(2)), "2 Cancelled: withdrawn seats"),
            // A dispatched one ends at its backend; an unknown one is no one.
            (12, Input::Withdrawn(RequestId(0)), ""),
            (12, Input::Withdrawn(RequestId(77)), ""),
            (13, end(0, 10), "3 Expired: time_to_live seats"),
        ],
    );
}

#[test]
fn a_backend_that_rejoins_is_a_new_one() {
    let again = BackendId { slot: 0, generation: 1 };
    check(
        config(Share::Fcfs, plain()),
        vec![
            (0, new(0, 0, 10), ""),
            (1, seats(1), "0>0 arrival_order no_backend"),
            (2, new(1, 0, 10), ""),
            (3, Input::Left(BackendId::first(0)), ""),
            // Too old to be true.
            (4, seats(1), ""),
            (5, Input::Joined(again, backend(1, 1_000)), "1>0.1 arrival_order no_backend"),
            // The old one's leaving and its request's end free nothing on the new one.
            (6, Input::Left(BackendId::first(0)), ""),
            (6, new(2, 0, 10), ""),
            (7, end(0, 10), ""),
            (8, end(1, 10), "2>0.1 arrival_order seats"),
        ],
    );
}

#[test]
fn what_cannot_be_served_is_refused() {
    let small = BackendInfo { context_max: 50, ..backend(1, 1_000) };
    let stated = two(|stated, _| stated.output_tokens_expected = Some(5));
    check(
        Config { predict: Predict::ClassIntensity, ..config(Share::Fcfs, stated) },
        vec![
            (0, Input::Joined(BackendId::first(1), small), ""),
            (0, arrive(0, request(0, 40, 11)), "0 infeasible in 0 s: too_large"),
            (0, arrive(1, request(9, 1, 1)), "1 unclassified in 0 s: no_rule"),
            (1, join(0, 1, 60), ""),
            // 40 + 5 predicted fit the memory of 60; the cap of 100 fits the context of backend 0.
            (1, arrive(2, request(0, 40, 100)), "2>0 arrival_order"),
            (1, arrive(3, request(1, 40, 100)), "3 infeasible in 0 s: too_large"),
            (2, arrive(4, request(0, 40, 100)), ""),
            (3, Input::Left(BackendId::first(0)), "4 infeasible in 0 s: too_large seats"),
            (4, Input::Draining, ""),
            (4, arrive(5, request(0, 1, 1)), "5 draining in 1.00 s: draining"),
        ],
    );
}

#[test]
fn placement_takes_turns_or_the_least_loaded() {
    let script = |third, fourth| {
        vec![
            (0, join(0, 2, 1_000), ""),
            (0, join(1, 2, 1_000), ""),
            (1, new(0, 0, 30), "0>0 arrival_order"),
            (1, new(1, 0, 10), "1>1 arrival_order"),
            (1, new(2, 0, 10), third),
            (1, new(3, 0, 10), fourth),
        ]
    };
    let round_robin = Config { place: vec![Place::RoundRobin], ..config(Share::Fcfs, plain()) };
    check(round_robin, script("2>0 arrival_order", "3>1 arrival_order"));
    // Backend 1 is the less loaded, then it is full.
    check(config(Share::Fcfs, plain()), script("2>1 arrival_order", "3>0 arrival_order"));
}

#[test]
fn the_guard_gives_due_work_its_share() {
    let classes = two(|low, high| {
        low.wait_max = Some(Span::from_nanos(10));
        high.priority = 1;
    });
    let guard = Some(Guard { due_share_ppm: 500_000 });
    let mut script = vec![(0, seats(1), ""), (0, new(0, 1, 1), "0>0 priority")];
    script.extend((1..7).map(|id| (0, new(id, u16::from(id > 3), 1), "")));
    // 1, 2 and 3 are low and due from 10 on: every second dispatch is theirs.
    script.extend([
        (9, end(0, 1), "4>0 priority seats"),
        (10, end(4, 1), "5>0 priority seats"),
        (11, end(5, 1), "1>0 due seats"),
        (12, end(1, 1), "6>0 priority seats"),
        (13, end(6, 1), "2>0 due seats"),
        (14, end(2, 1), "3>0 priority seats"),
    ]);
    check(Config { guard, ..config(Share::Priority, classes) }, script);
}

#[test]
fn deadlines_are_when_time_changes_something() {
    let classes = two(|first, second| {
        first.time_to_live = Some(Span::from_nanos(50));
        second.wait_max = Some(Span::from_nanos(10));
        second.priority = -1;
    });
    let guard = Some(Guard { due_share_ppm: 1_000_000 });
    let mut allocator =
        Allocator::new(Config { guard, ..config(Share::Priority, classes) }).expect("valid");
    let lines = [
        (0, join(0, 2, 100), None),
        (0, new(0, 0, 60), None),
        // It waits for memory and will expire.
        (5, new(1, 0, 60), Some(55)),
        // It would fit, but is of a lower band until it falls due.
        (6, new(2, 1, 10), Some(16)),
        (16, Input::Deadline, Some(55)),
        // No seat is left: falling due would not help.
        (17, new(3, 1, 10), Some(55)),
        (55, Input::Deadline, None),
    ];
    for (at, input, expected) in lines {
        let told = format!("{at}: {input:?}");
        step(&mut allocator, at, input);
        assert_eq!(allocator.next_deadline().map(|time| time.nanos()), expected, "{told}");
    }
}

#[test]
fn falling_due_passes_a_request_too_large_for_its_class() {
    let capped = Class { tokens_max: Some(50), wait_max: Some(Span::from_nanos(10)), ..class() };
    let share = Share::VirtualTokenCounter { per: Per::Tenant, cost: PROMPT };
    let guard = Some(Guard { due_share_ppm: 1_000_000 });
    let mut allocator =
        Allocator::new(Config { guard, ..config(share, vec![capped]) }).expect("valid");
    let by = |id, tenant, tokens| {
        arrive(id, RequestInfo { tenant: TenantId(tenant), ..request(0, tokens, 0) })
    };
    let lines = [
        (0, seats(9), None, ""),
        (0, by(0, 1, 30), None, "0>0 virtual_counter"),
        (0, by(1, 1, 20), None, "1>0 virtual_counter"),
        (1, by(2, 1, 10), Some(11), ""),
        (2, by(3, 2, 40), Some(11), ""),
        // Tenant 1 has used more than thought: tenant 2 is next, and does not fit the cap.
        (3, end(1, 120), Some(11), ""),
        (11, Input::Deadline, Some(12), "2>0 due class_tokens"),
    ];
    for (at, input, deadline, expected) in lines {
        let told = format!("{at}: {input:?}");
        let found: Vec<String> = step(&mut allocator, at, input).iter().map(tell).collect();
        assert_eq!(found.join("; "), expected, "{told}");
        assert_eq!(allocator.next_deadline().map(|time| time.nanos()), deadline, "{told}");
    }
}

#[test]
fn the_first_rule_that_matches_names_the_class() {
    let rules = vec![
        ClassifyRule { tenant: Some(TenantId(9)), claims: Some(ClassId(1)), ..long(0, 1) },
        long(100, 1),
        ClassifyRule { claims: Some(ClassId(0)), ..ClassifyRule::default() },
    ];
    let policy = Config { classify: rules, ..config(Share::Fcfs, plain()) };
    let allocator = Allocator::new(policy).expect("valid");
    let by = |tenant, class, tokens| RequestInfo {
        tenant: TenantId(tenant),
        ..request(class, tokens, 0)
    };
    for (info, expected) in [
        (by(9, 1, 5), Some(1)),
        (by(8, 1, 5), None),
        (by(8, 1, 100), Some(1)),
        (by(8, 0, 99), Some(0)),
        (by(9, 0, 101), Some(1)),
        (RequestInfo { claims: None, ..by(9, 0, 5) }, None),
    ] {
        assert_eq!(allocator.classify(&info), expected.map(ClassId), "{info:?}");
    }
}

fn long(prompt_tokens_min: u32, class: u16) -> ClassifyRule {
    ClassifyRule {
        prompt_tokens_min: Some(prompt_tokens_min),
        class: Becomes::Class(ClassId(class)),
        ..ClassifyRule::default()
    }
}

#[test]
fn a_policy_whose_parts_do_not_fit_is_an_error() {
    let good = || {
        let classes = two(|first, _| first.wait_max = Some(Span::from_secs(1)));
        let guard = Some(Guard { due_share_ppm: 1_000_000 });
        Config { guard, ..config(Share::Fcfs, classes) }
    };
    good().check().expect("the good one is good");
    let free = TokenCost { prompt: 0, output: 0 };
    let deficit = |quantum, cost| Share::DeficitRoundRobin { per: Per::Class, quantum, cost };
    let ttl = Some(Span::from_secs(1));
    type Case = (fn(&mut Config), ConfigError);
    let cases: [Case; 10] = [
        (|c| c.classes.clear(), ConfigError::Policy(Field::Classes, Problem::Below(1))),
        (
            |c| c.classes = vec![class(); 65],
            ConfigError::Policy(Field::Classes, Problem::Above(64)),
        ),
        (|c| c.classify.clear(), ConfigError::Policy(Field::Classify, Problem::Below(1))),
        (|c| c.requests_max = 0, ConfigError::Policy(Field::RequestsMax, Problem::Below(1))),
        (|c| c.classes[1].weight = 0, ConfigError::Class(1, Field::Weight, Problem::Below(1))),
        (
            |c| c.classes[0].requests_max = Some(0),
            ConfigError::Class(0, Field::RequestsMax, Problem::Below(1)),
        ),
        (
            |c| c.classify.push(long(0, 2)),
            ConfigError::Rule(1, Field::Class, Problem::NoSuchClass(ClassId(2))),
        ),
        (
            |c| c.classify[0].claims = Some(ClassId(7)),
            ConfigError::Rule(0, Field::Claims, Problem::NoSuchClass(ClassId(7))),
        ),
        (
            |c| c.classes[0].wait_max = None,
            ConfigError::Policy(Field::Guard, Problem::GuardsNothing),
        ),
        (
            |c| c.guard = Some(Guard { due_share_ppm: 1_000_001 }),
            ConfigError::Policy(Field::DueShare, Problem::Above(1_000_000)),
        ),
    ];
    for (spoil, expected) in cases {
        let mut policy = good();
        spoil(&mut policy);
        assert_eq!(policy.check(), Err(expected), "{expected}");
    }
    for (share, problem) in [
        (deficit(9, free), (Field::Cost, Problem::CostsNothing)),
        (deficit(0, PROMPT), (Field::Quantum, Problem::Below(1))),
    ] {
        let found = Config { share, ..good() }.check();
        assert_eq!(found, Err(ConfigError::Policy(problem.0, problem.1)));
    }
    let mut policy = good();
    policy.classes[0].time_to_live = ttl;
    let found = policy.check().expect_err("nothing would live to fall due");
    assert_eq!(found.to_string(), "class 0, wait_max: must be less than time_to_live");
}
