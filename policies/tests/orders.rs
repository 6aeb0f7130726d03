//! Orders within a turn, the heavy lane and bounded bypass: each on a script, and what each
//! promises over random loads.

#[path = "support/script.rs"]
mod script;
mod support;

use plimsoll_base::{Reason, Span, TenantId, WorkflowId};
use plimsoll_policy::config::{Class, Guard, Order, Partition, Per, Share, TokenCost};
use plimsoll_policy::{
    Action, Allocator, Config, ConfigError, Decision, Field, Input, Problem, RequestInfo,
};
use proptest::collection::vec;
use proptest::prelude::*;
use script::{Line, end as used, matched, new, over as end, play, seats};
use support::{arrive, class, config, join, request, step};

fn check(policy: Config, script: Vec<Line>) {
    play(policy, script, tell);
}

/// `3 priority seats`: request 3 was dispatched by priority and had waited for a seat.
fn tell(decision: &Decision) -> String {
    let Decision { id, action, reason, bound, .. } = decision;
    let bound = bound.map(|bound| format!(" {}", bound.name())).unwrap_or_default();
    let ended = match action {
        Action::Dispatch(..) => String::new(),
        Action::Reject(..) | Action::Close(_) | Action::Preempt(_) | Action::Cancel(_) => {
            format!(" {action:?}")
        }
    };
    format!("{id}{ended} {}{bound}", reason.name())
}

fn ordered(order: Order, classes: Vec<Class>) -> Config {
    Config { order, ..config(Share::Fcfs, classes) }
}
fn owed(deadline: u64) -> Class {
    Class { deadline: Some(Span::from_nanos(deadline)), ..class() }
}
const PROMPT: TokenCost = TokenCost { prompt: 1, output: 1 };

#[test]
fn the_earliest_deadline_goes_first_and_missed_ones_go_last() {
    check(
        ordered(Order::EarliestDeadline, vec![owed(100), owed(20), class()]),
        vec![
            (0, seats(1), ""),
            (0, new(0, 0, 1), "0 arrival_order"),
            (1, new(1, 2, 1), ""),
            (2, new(2, 0, 1), ""),
            (3, new(3, 1, 1), ""),
            (4, new(4, 1, 1), ""),
            (5, new(5, 1, 1), ""),
            // 3 has until 23, 4 until 24, 5 until 25, 2 until 102.
            (6, end(0), "3 arrival_order seats"),
            // 4 has missed its own, by an instant, and goes behind all that can make it.
            (24, end(3), "5 arrival_order seats"),
            (26, end(5), "2 arrival_order seats"),
            (27, new(6, 0, 1), ""),
            (28, end(2), "6 arrival_order seats"),
            (29, end(6), "4 arrival_order seats"),
            // What has no deadline is last.
            (30, end(4), "1 arrival_order seats"),
        ],
    );
}

#[test]
fn missed_deadlines_go_by_arrival() {
    let mut script = vec![(0, seats(1), ""), (0, new(0, 0, 1), "0 arrival_order")];
    script.extend([(1, new(1, 0, 1), ""), (2, new(2, 1, 1), ""), (3, new(3, 0, 1), "")]);
    script.extend([
        (500, end(0), "1 arrival_order seats"),
        (501, end(1), "2 arrival_order seats"),
        (502, end(2), "3 arrival_order seats"),
    ]);
    check(ordered(Order::EarliestDeadline, vec![owed(100), owed(20)]), script);
}

/// A request too large for what is free holds the others up until its deadline has come.
#[test]
fn a_deadline_that_comes_lets_others_go() {
    let policy = ordered(Order::EarliestDeadline, vec![owed(20), owed(100)]);
    let mut allocator = Allocator::new(policy).expect("valid");
    let lines = [
        (0, join(0, 9, 100), None, ""),
        (0, new(0, 1, 60), None, "0 arrival_order"),
        (1, new(1, 0, 60), Some(21), ""),
        (2, new(2, 1, 10), Some(21), ""),
        (20, Input::Deadline, Some(21), ""),
        (21, Input::Deadline, None, "2 arrival_order kv_memory"),
        (22, end(0), None, "1 arrival_order kv_memory"),
    ];
    for (at, input, deadline, expected) in lines {
        let found: Vec<String> = step(&mut allocator, at, input).iter().map(tell).collect();
        assert_eq!(found.join("; "), expected, "at {at}");
        assert_eq!(allocator.next_deadline().map(|time| time.nanos()), deadline, "at {at}");
    }
}

/// 10 ns of work every 8 ns: a quarter too much. Aging by `most − deadline` is earliest deadline
/// first without relegation: once the backlog is as long as the deadlines, all are missed.
#[test]
fn plain_earliest_deadline_collapses_in_overload_and_relegation_does_not() {
    let jobs: Vec<Job> = (0..1000).map(|n| Job::new(8, n % 2, 1, 10)).collect();
    let mut classes = vec![owed(100), owed(200)];
    classes[0].boost = Span::from_nanos(100);
    let made = |order| {
        let served = serve(ordered(order, classes.clone()), (1, 1_000), &jobs);
        let late = jobs.len() / 2..;
        let in_time = served.iter().filter(|s| {
            let deadline = classes[s.job.class].deadline.expect("stated").nanos();
            late.contains(&s.index) && s.at < s.arrived + deadline
        });
        in_time.count()
    };
    assert_eq!(made(Order::Aging), 0, "of the later half none is met");
    let met = made(Order::EarliestDeadline);
    assert!(met >= 390, "the machine can serve 400 of the later 500 in time: {met}");
}

#[test]
fn the_shortest_predicted_goes_first() {
    let script = |last: [&'static str; 3]| {
        let [a, b, c] = last;
        vec![
            (0, seats(1), ""),
            (0, new(0, 0, 1), "0 arrival_order"),
            (1, arrive(1, request(0, 40, 10)), ""),
            (50, arrive(2, request(0, 5, 5)), ""),
            (82, arrive(3, request(0, 10, 0)), ""),
            (90, used(0, 1), a),
            (91, end(a.as_bytes()[0].wrapping_sub(b'0').into()), b),
            (92, end(b.as_bytes()[0].wrapping_sub(b'0').into()), c),
        ]
    };
    let order = |aging| ordered(Order::ShortestPredicted { aging }, vec![class()]);
    let go = ["2 arrival_order seats", "3 arrival_order seats", "1 arrival_order seats"];
    check(order(None), script(go));
    // Forty tokens fewer let a request pass what came at most 80 ns before it: 2 does, 3 does not.
    let go = ["2 arrival_order seats", "1 arrival_order seats", "3 arrival_order seats"];
    check(order(Some(Span::from_nanos(2))), script(go));
}

#[test]
fn the_workflow_that_was_given_least_goes_first() {
    let of = |id, workflow, tokens| {
        let workflow = WorkflowId(workflow);
        arrive(id, RequestInfo { workflow, ..request(0, tokens, 0) })
    };
    let attained = |workflows_max| {
        ordered(Order::LeastAttained { cost: PROMPT, workflows_max }, vec![class()])
    };
    let mut script = vec![
        (0, seats(1), ""),
        (0, of(0, 7, 50), "0 arrival_order"),
        (1, of(1, 8, 10), ""),
        // Charged 50, used 30.
        (2, used(0, 30), "1 arrival_order seats"),
        (3, of(2, 7, 1), ""),
        (4, of(3, 8, 1), ""),
        (5, of(4, 0, 99), ""),
        (6, of(5, 9, 99), ""),
    ];
    // Attained on arrival: 30, 10, 0 and 0.
    let known = [
        (7, used(1, 10), "4 arrival_order seats"),
        (8, used(4, 99), "5 arrival_order seats"),
        (9, used(5, 99), "3 arrival_order seats"),
        (10, used(3, 1), "2 arrival_order seats"),
    ];
    check(attained(2), [script.clone(), known.to_vec()].concat());
    // With one account that of 8 took the place of that of 7, which starts as if new.
    script.extend([
        (7, used(1, 10), "2 arrival_order seats"),
        (8, used(2, 1), "4 arrival_order seats"),
        (9, used(4, 99), "5 arrival_order seats"),
        (10, used(5, 99), "3 arrival_order seats"),
    ]);
    check(attained(1), script);
}

/// Without the bound cold prompts starve (sglang #31954).
#[test]
fn the_longest_cached_prefix_goes_first_within_a_bound() {
    let policy = ordered(Order::LongestPrefix { token: Span::from_nanos(2) }, vec![class()]);
    let allocator = Allocator::new(policy.clone()).expect("valid");
    assert!(allocator.needs().matches);
    check(
        policy,
        vec![
            (0, seats(1), ""),
            (0, new(0, 0, 1), "0 arrival_order"),
            (10, new(1, 0, 50), ""),
            (49, matched(2, 20), ""),
            (49, new(2, 0, 50), ""),
            (51, matched(3, 20), ""),
            (51, new(3, 0, 50), ""),
            // No more than the prompt can be cached.
            (52, matched(4, 900), ""),
            (52, new(4, 0, 5), ""),
            // Keys: 10, 9, 11 and 42.
            (60, end(0), "2 arrival_order seats"),
            (61, end(2), "1 arrival_order seats"),
            (62, end(1), "3 arrival_order seats"),
            (63, end(3), "4 arrival_order seats"),
        ],
    );
}

fn heavy_lane(over_tokens: u64, max: u32, policy: Config) -> Config {
    Config { partition: vec![Partition::HeavyLane { over_tokens, max }], ..policy }
}

#[test]
fn a_heavy_request_at_its_cap_blocks_nobody_light() {
    let policy = heavy_lane(50, 1, config(Share::Fcfs, vec![class(), class()]));
    let allocator = Allocator::new(policy.clone()).expect("valid");
    assert!(allocator.needs().matches);
    check(
        policy,
        vec![
            (0, seats(9), ""),
            (0, new(0, 0, 51), "0 arrival_order"),
            (1, new(1, 0, 60), ""),
            (2, new(2, 1, 70), ""),
            (3, new(3, 0, 50), "3 arrival_order"),
            // What is cached is not computed.
            (4, matched(4, 20), ""),
            (4, new(4, 0, 70), "4 arrival_order"),
            // What is put out is.
            (5, arrive(5, request(0, 25, 26)), ""),
            (6, end(3), ""),
            (7, end(0), "1 arrival_order heavy_lane"),
            (8, end(1), "2 arrival_order heavy_lane"),
            (9, end(2), "5 arrival_order heavy_lane"),
        ],
    );
}

#[test]
fn a_class_is_one_with_its_heavy_requests() {
    let capped = Class {
        requests_max: Some(1),
        queue_max: Some(2),
        time_to_live: Some(Span::from_nanos(100)),
        ..class()
    };
    let share = Share::VirtualTokenCounter { per: Per::Class, cost: PROMPT };
    let mut allocator =
        Allocator::new(heavy_lane(50, 1, config(share, vec![capped]))).expect("valid");
    let class = plimsoll_base::ClassId(0);
    let mut told = |at, input| {
        let found: Vec<String> = step(&mut allocator, at, input).iter().map(tell).collect();
        (found.join("; "), allocator.queued(class), allocator.oldest_arrival(class))
    };
    let at = plimsoll_base::Time::from_nanos;
    told(0, seats(9));
    assert_eq!(told(0, new(0, 0, 10)), ("0 virtual_counter".into(), 0, None));
    assert_eq!(told(1, new(1, 0, 60)), (String::new(), 1, Some(at(1))));
    assert_eq!(told(2, new(2, 0, 10)), (String::new(), 2, Some(at(1))));
    let (refused, queued, _) = told(3, new(3, 0, 10));
    assert!(refused.contains("QueueFull") && queued == 2, "{refused}");
    // 2 could go as far as the heavy lane goes, but its class is at its cap; 1 is before it.
    assert_eq!(told(4, end(0)), ("1 virtual_counter class_requests".into(), 1, Some(at(2))));
    assert_eq!(told(102, Input::Deadline).1, 0, "it lived 100 ns");
}

/// The heavy one was too large for its class, then the heavy lane filled up: the light one was
/// forgotten until something changed.
#[test]
fn a_light_request_is_next_once_the_heavy_lane_is_full() {
    let mut classes = vec![class(), class()];
    classes[0].tokens_max = Some(100);
    check(
        heavy_lane(50, 1, config(Share::Fcfs, classes)),
        vec![
            (0, new(0, 0, 40), ""),
            (1, new(1, 0, 70), ""),
            (2, new(2, 0, 20), ""),
            (3, new(3, 1, 70), ""),
            // 0 goes, 1 does not fit beside it and closes its class, 3 fills the heavy lane.
            (
                4,
                seats(9),
                "0 arrival_order no_backend; 3 arrival_order no_backend; 2 arrival_order no_backend",
            ),
            (5, end(0), ""),
            (6, end(3), "1 arrival_order heavy_lane"),
        ],
    );
}

/// The other way round: the light one was too large for its class while the heavy lane was full.
#[test]
fn a_heavy_request_is_next_once_the_heavy_lane_is_free() {
    let mut classes = vec![class(), class()];
    classes[0].tokens_max = Some(100);
    check(
        heavy_lane(50, 1, config(Share::Fcfs, classes)),
        vec![
            (0, seats(9), ""),
            (0, new(0, 0, 40), "0 arrival_order"),
            (0, new(1, 1, 60), "1 arrival_order"),
            (1, new(2, 0, 55), ""),
            // Light, because half of it is cached, and too large to fit beside 0.
            (2, matched(3, 40), ""),
            (2, new(3, 0, 80), ""),
            (3, end(1), "2 arrival_order heavy_lane"),
        ],
    );
}

#[test]
fn what_fits_goes_past_what_does_not_so_many_times() {
    let policy = |bypass_max| Config { bypass_max, ..config(Share::Fcfs, vec![class()]) };
    let script = |two: &'static str, three: &'static str| {
        vec![
            (0, join(0, 9, 100), ""),
            (0, new(0, 0, 60), "0 arrival_order"),
            (1, new(1, 0, 60), ""),
            (2, new(2, 0, 50), ""),
            (3, new(3, 0, 10), two),
            (4, new(4, 0, 10), three),
            (5, new(5, 0, 10), ""),
        ]
    };
    check(policy(0), script("", ""));
    check(policy(1), script("3 bypass", ""));
    check(policy(2), script("3 bypass", "4 bypass"));
    // 3 and 4 went past 2 as well, so that 5 may not, though it would fit beside 1.
    let mut waited_for = script("3 bypass", "4 bypass");
    waited_for.push((6, end(0), "1 arrival_order kv_memory"));
    waited_for.push((7, end(1), "2 arrival_order kv_memory; 5 arrival_order kv_memory"));
    check(policy(2), waited_for);
}

#[test]
fn a_bypass_is_charged_and_takes_the_next_turn() {
    let share = Share::VirtualTokenCounter { per: Per::Tenant, cost: PROMPT };
    let by = |id, tenant, tokens| {
        arrive(id, RequestInfo { tenant: TenantId(tenant), ..request(0, tokens, 0) })
    };
    check(
        Config { bypass_max: 9, ..config(share, vec![class()]) },
        vec![
            (0, join(0, 9, 100), ""),
            (0, by(0, 1, 60), "0 virtual_counter"),
            // Both start at the counter of tenant 1.
            (1, by(1, 2, 60), ""),
            (2, by(2, 3, 50), ""),
            (3, by(3, 3, 20), "3 bypass"),
            (4, by(4, 2, 20), "4 bypass"),
            (5, used(3, 20), ""),
            // Both have been given 20 more; without the charge it would be the turn of tenant 3.
            (6, end(0), "1 virtual_counter kv_memory"),
        ],
    );
}

#[test]
fn what_the_guard_sends_is_never_passed() {
    let mut classes = vec![class(), class()];
    classes[0].wait_max = Some(Span::from_nanos(10));
    let guard = Some(Guard { due_share_ppm: 1_000_000 });
    check(
        Config { guard, bypass_max: 99, ..config(Share::Fcfs, classes) },
        vec![
            (0, join(0, 9, 100), ""),
            (0, new(0, 0, 60), "0 arrival_order"),
            (1, new(1, 0, 60), ""),
            (2, new(2, 1, 10), "2 bypass"),
            (11, new(3, 1, 10), ""),
            (12, end(0), "1 due kv_memory; 3 arrival_order kv_memory"),
        ],
    );
}

#[test]
fn orders_and_partitions_that_do_not_fit_are_errors() {
    let none = Span::ZERO;
    let free = TokenCost { prompt: 0, output: 0 };
    let attained = |cost, workflows_max| Order::LeastAttained { cost, workflows_max };
    for (order, field, problem) in [
        (Order::EarliestDeadline, Field::Order, Problem::NoDeadline),
        (Order::ShortestPredicted { aging: Some(none) }, Field::Aging, Problem::Below(1)),
        (Order::LongestPrefix { token: none }, Field::Token, Problem::Below(1)),
        (attained(free, 1), Field::Cost, Problem::CostsNothing),
        (attained(PROMPT, 0), Field::WorkflowsMax, Problem::Below(1)),
    ] {
        let found = ordered(order, vec![class()]).check();
        assert_eq!(found, Err(ConfigError::Policy(field, problem)), "{order:?}");
    }
    let found = ordered(Order::Fcfs, vec![owed(0)]).check();
    assert_eq!(found, Err(ConfigError::Class(0, Field::Deadline, Problem::Below(1))));
    let lane = |classes: usize, maxima: &[u32]| {
        let lane = |&max: &u32| Partition::HeavyLane { over_tokens: 1, max };
        let partition = maxima.iter().map(lane).collect();
        Config { partition, ..config(Share::Fcfs, vec![class(); classes]) }.check()
    };
    assert_eq!(lane(32, &[1]), Ok(()));
    for (found, field, problem) in [
        (lane(33, &[1]), Field::Classes, Problem::TooManyBesideHeavyLane),
        (lane(1, &[0]), Field::HeavyMax, Problem::Below(1)),
        (lane(1, &[1, 1]), Field::Partition, Problem::TwoHeavyLanes),
    ] {
        assert_eq!(found, Err(ConfigError::Policy(field, problem)));
    }
}

/// A request of a load: how long after the one before it comes, and what it is.
#[derive(Clone, Copy, Debug)]
struct Job {
    after: u64,
    class: usize,
    prompt: u32,
    matched: u32,
    runs: u64,
}

impl Job {
    fn new(after: u64, class: usize, prompt: u32, runs: u64) -> Job {
        Job { after, class, prompt, matched: 0, runs }
    }
}

fn jobs(classes: usize) -> impl Strategy<Value = Vec<Job>> {
    let job = (0u64..6, 0..classes, 1u32..60, 0u32..60, 1u64..9);
    vec(job, 60..150).prop_map(|jobs| {
        let make = |(after, class, prompt, matched, runs)| {
            let matched = if matched < prompt { matched } else { 0 };
            Job { after, class, prompt, matched, runs }
        };
        jobs.into_iter().map(make).collect()
    })
}

#[derive(Clone, Copy, Debug)]
struct Served {
    index: usize,
    job: Job,
    arrived: u64,
    at: u64,
    reason: Reason,
    /// How many had arrived by then.
    offered: usize,
}

/// Serves the load at one backend of so many seats and so much memory; the order of dispatch.
fn serve(policy: Config, (seats, kv_tokens): (u32, u64), jobs: &[Job]) -> Vec<Served> {
    let mut allocator = Allocator::new(policy).expect("valid");
    step(&mut allocator, 0, join(0, seats, kv_tokens));
    let arrivals: Vec<u64> = jobs
        .iter()
        .scan(0, |clock, job| {
            *clock += job.after;
            Some(*clock)
        })
        .collect();
    let (mut order, mut offered) = (Vec::new(), 0);
    let mut running: Vec<(u64, usize)> = Vec::new();
    loop {
        let first = running.iter().copied().min();
        let deadline = allocator.next_deadline().map(|time| time.nanos());
        let arrival = arrivals.get(offered).copied();
        let Some(now) = [first.map(|(at, _)| at), arrival, deadline].into_iter().flatten().min()
        else {
            break;
        };
        let input = match first {
            Some((at, index)) if at == now => {
                running.retain(|&(_, other)| other != index);
                end(index as u64)
            }
            Some(_) | None if arrival == Some(now) => {
                let (id, job) = (offered as u64, jobs[offered]);
                step(&mut allocator, now, matched(id, job.matched));
                offered += 1;
                new(id, job.class as u16, job.prompt)
            }
            Some(_) | None => Input::Deadline,
        };
        for decision in step(&mut allocator, now, input) {
            assert!(matches!(decision.action, Action::Dispatch(..)));
            let (index, reason) = (decision.id.0 as usize, decision.reason);
            let (job, arrived) = (jobs[index], arrivals[index]);
            order.push(Served { index, job, arrived, at: now, reason, offered });
            running.push((now + job.runs, index));
        }
    }
    assert_eq!(order.len(), jobs.len(), "everyone is served");
    order
}

/// Pairs of one that waited and one that was dispatched before it meanwhile.
fn passed(order: &[Served]) -> impl Iterator<Item = (&Served, &Served)> {
    let behind = |place: usize| order[place + 1..].iter();
    order.iter().enumerate().flat_map(move |(place, first)| {
        behind(place).filter(|other| other.index < first.offered).map(move |other| (other, first))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whoever is overtaken came less earlier than aging × the difference in tokens.
    #[test]
    fn shortest_predicted_bounds_overtaking(jobs in jobs(2), aging in 1u64..4) {
        let order = Order::ShortestPredicted { aging: Some(Span::from_nanos(aging)) };
        for (waited, first) in passed(&serve(ordered(order, vec![class(); 2]), (1, 100), &jobs)) {
            let fewer = u64::from(waited.job.prompt.saturating_sub(first.job.prompt));
            let apart = first.arrived.saturating_sub(waited.arrived);
            prop_assert!(apart <= aging * fewer, "{first:?} overtook {waited:?}");
        }
    }

    /// Whoever is overtaken came less earlier than token × the difference in cached tokens.
    #[test]
    fn longest_prefix_bounds_overtaking(jobs in jobs(2), token in 1u64..4) {
        let order = Order::LongestPrefix { token: Span::from_nanos(token) };
        for (waited, first) in passed(&serve(ordered(order, vec![class(); 2]), (1, 100), &jobs)) {
            let more = u64::from(first.job.matched.saturating_sub(waited.job.matched));
            let apart = first.arrived.saturating_sub(waited.arrived);
            prop_assert!(apart <= token * more, "{first:?} overtook {waited:?}");
        }
    }

    /// Nothing late goes while something can make it; of those the earliest deadline goes.
    #[test]
    fn earliest_deadline_goes_first(jobs in jobs(3), deadlines in vec(1u64..80, 2)) {
        let classes = vec![owed(deadlines[0]), owed(deadlines[1]), class()];
        let policy = ordered(Order::EarliestDeadline, classes);
        for (waited, first) in passed(&serve(policy, (1, 100), &jobs)) {
            let place = |served: &Served| match deadlines.get(served.job.class) {
                Some(deadline) if served.arrived + deadline > first.at => {
                    (0, served.arrived + deadline, served.index)
                }
                Some(_) => (1, 0, served.index),
                None => (2, 0, served.index),
            };
            prop_assert!(place(first) < place(waited), "{first:?} overtook {waited:?}");
        }
    }

    /// No request is passed more often than `bypass_max` by what is behind it in the order, and
    /// with 0 by nothing.
    #[test]
    fn bypass_is_bounded(jobs in jobs(1), bypass_max in 0u32..6, shortest in any::<bool>()) {
        let order = match shortest {
            true => Order::ShortestPredicted { aging: None },
            false => Order::Fcfs,
        };
        let policy = Config { bypass_max, ..ordered(order, vec![class()]) };
        let order = serve(policy, (9, 90), &jobs);
        let place = |served: &Served| {
            (if shortest { served.job.prompt } else { 0 }, served.index)
        };
        let mut times = vec![0; jobs.len()];
        for (waited, first) in passed(&order) {
            if place(waited) < place(first) {
                prop_assert_eq!(first.reason, Reason::Bypass);
                times[waited.index] += 1;
            }
        }
        prop_assert!(times.iter().all(|&times| times <= bypass_max), "{times:?}");
        let bypasses = order.iter().filter(|served| served.reason == Reason::Bypass).count();
        prop_assert!(bypass_max > 0 || bypasses == 0);
    }

    /// A light request is dispatched as if there were no heavy ones, while there are seats.
    #[test]
    fn light_requests_never_wait_for_the_heavy_lane(jobs in jobs(2), max in 1u32..3) {
        let policy = heavy_lane(30, max, config(Share::Priority, vec![class(); 2]));
        let order = serve(policy, (1_000, 1_000_000), &jobs);
        let is_heavy = |served: &&Served| served.job.prompt - served.job.matched > 30;
        for served in order.iter().filter(|served| !is_heavy(served)) {
            prop_assert_eq!(served.at, served.arrived, "{:?}", served);
        }
        for served in &order {
            let runs = |other: &&Served| {
                other.at <= served.at && served.at < other.at + other.job.runs
            };
            prop_assert!(order.iter().filter(runs).filter(is_heavy).count() <= max as usize);
        }
    }
}
