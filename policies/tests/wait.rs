//! The bounds that `wait_bounds` states, attacked: everybody else always has work, costs are
//! predicted wrongly by a factor of four either way, and the machine is as slow as it may be.

mod support;

use std::collections::BTreeMap;

use plimsoll_base::{BackendId, End, RequestId, Span, Stream, StreamKey, Time};
use plimsoll_policy::config::{
    Adapt, Class, Config, Feedback, Guard, Order, Per, Share, TokenCost,
};
use plimsoll_policy::{
    Action, Allocator, Because, Decision, Input, Load, Machine, Used, WaitBound, WhyNot,
    wait_bounds,
};
use support::{arrive, class, config, join, request, step};

const PRICE: TokenCost = TokenCost { prompt: 1, output: 2 };
const PROMPT_MAX: u32 = 40;
const OUTPUT_MAX: u32 = 40;
const QUEUE_MAX: u32 = 6;
/// How long a token takes, in nanoseconds: the longest step.
const TOKEN: u64 = 100;

/// Draws numbers below a bound.
struct Dice(Stream);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(Stream::new(StreamKey { seed, replication: 0, name: "attack", entity: 0 }))
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }
}

fn machine(seats: u32) -> Machine {
    Machine {
        parallel: seats.into(),
        seats: seats.into(),
        residence: Span::from_nanos(TOKEN * u64::from(PROMPT_MAX + OUTPUT_MAX)),
        step: Span::from_nanos(TOKEN),
        prompt_tokens_max: PROMPT_MAX,
        output_tokens_max: OUTPUT_MAX,
        models_differ: false,
    }
}

/// Runs the policy under attack; the longest wait of each class, of those still waiting too.
fn attack(policy: &Config, seats: u32, seed: u64) -> Vec<Span> {
    let mut dice = Dice::new(seed);
    let mut allocator = Allocator::new(policy.clone()).expect("a valid policy");
    step(&mut allocator, 0, join(0, seats, 1_000_000));
    let classes = policy.classes.len() as u64;
    // Every class but one floods; the victim comes now and then, with its largest requests.
    let victim = dice.below(classes);
    let (mut arrived, mut waits) = (BTreeMap::new(), vec![Span::ZERO; classes as usize]);
    let mut ends: BTreeMap<(u64, u64), u32> = BTreeMap::new();
    let (mut now, mut next) = (0, 0);
    let of_kind = |is: fn(&Feedback) -> bool| policy.feedback.iter().any(is);
    let fails = of_kind(|rule| matches!(rule, Feedback::CircuitBreaker { .. }));
    let chokes = of_kind(|rule| matches!(rule, Feedback::AdaptiveConcurrency { .. }));
    for _ in 0..6_000 {
        now += dice.below(2 * TOKEN);
        let mut decided = Vec::new();
        loop {
            let deadline = allocator.next_deadline().map(Time::nanos);
            let end = ends.first_key_value().map(|(&(at, id), &tokens)| (at, id, tokens));
            let (at, input) = match (deadline, end) {
                (Some(at), _) if end.is_none_or(|end| at < end.0) => (at, Input::Deadline),
                (_, Some((at, id, _))) if fails && id % 3 > 0 => (at, failed(id)),
                (_, Some((at, id, tokens))) => (at, ended(id, tokens)),
                (_, None) => break,
            };
            if at > now {
                break;
            }
            if let Input::Ended(..) = input {
                ends.pop_first();
            }
            let found = step(&mut allocator, at, input);
            for decision in found {
                start(&mut ends, at, &decision, &arrived, &mut dice);
                decided.push((at, decision));
            }
        }
        let of = if dice.below(10) == 0 { victim } else { dice.below(classes) };
        let predicted =
            if of == victim { OUTPUT_MAX } else { 1 + dice.below(OUTPUT_MAX.into()) as u32 };
        let prompt =
            if of == victim { PROMPT_MAX } else { 1 + dice.below(PROMPT_MAX.into()) as u32 };
        arrived.insert(next, (of as usize, now, prompt + predicted));
        let input = arrive(next, request(of as u16, prompt, predicted));
        next += 1;
        let mut found = step(&mut allocator, now, input);
        if chokes {
            found.extend(step(&mut allocator, now, choking(now)));
        }
        for decision in found {
            start(&mut ends, now, &decision, &arrived, &mut dice);
            decided.push((now, decision));
        }
        for (at, decision) in decided {
            let (class, since, _) = arrived.remove(&decision.id.0).expect("decided once");
            waits[class] = waits[class].max(Span::from_nanos(at - since));
        }
    }
    for (class, since, _) in arrived.into_values() {
        waits[class] = waits[class].max(Span::from_nanos(now - since));
    }
    waits
}

fn ended(id: u64, tokens: u32) -> Input {
    let used = Used { prompt_tokens: tokens / 2, output_tokens: tokens - tokens / 2 };
    Input::Ended(RequestId(id), End::Finished, used)
}

fn failed(id: u64) -> Input {
    Input::Ended(RequestId(id), End::Failed, Used::default())
}

/// The backend says that who was let in has waited very long.
fn choking(now: u64) -> Input {
    let load = Load { queue_wait: Span::from_secs(1), ..Load::default() };
    Input::Reported(BackendId::first(0), load, Time::from_nanos(now))
}

/// A dispatched request runs, for a quarter to four times as long as was predicted.
fn start(
    ends: &mut BTreeMap<(u64, u64), u32>,
    at: u64,
    decision: &Decision,
    arrived: &BTreeMap<u64, (usize, u64, u32)>,
    dice: &mut Dice,
) {
    if let Action::Dispatch(..) = decision.action {
        let predicted = arrived[&decision.id.0].2;
        let used = predicted * (1 + dice.below(16) as u32) / 4;
        let used = used.clamp(1, PROMPT_MAX + OUTPUT_MAX);
        ends.insert((at + u64::from(used) * TOKEN, decision.id.0), used);
    }
}

fn classes(dice: &mut Dice) -> Vec<Class> {
    let some = |dice: &mut Dice| dice.below(3) == 0;
    let make = |dice: &mut Dice| Class {
        weight: 1 << dice.below(4),
        priority: dice.below(3) as i32,
        queue_max: Some(QUEUE_MAX),
        boost: Span::from_nanos(dice.below(20_000)),
        wait_max: Some(Span::from_nanos(1 + dice.below(20_000))),
        time_to_live: some(dice).then_some(Span::from_nanos(30_000 + dice.below(300_000))),
        requests_max: some(dice).then_some(1 + dice.below(3) as u32),
        ..class()
    };
    (0..3).map(|_| make(dice)).collect()
}

fn policies(dice: &mut Dice) -> Vec<Config> {
    let per = Per::Class;
    let shares = [
        Share::Fcfs,
        Share::Priority,
        Share::DeficitRoundRobin { per, quantum: 20 + dice.below(200), cost: PRICE },
        Share::VirtualTokenCounter { per, cost: PRICE },
    ];
    let make = |share| {
        let guard = (dice.below(2) == 0)
            .then(|| Guard { due_share_ppm: 50_000 + dice.below(500_000) as u32 });
        let order = if dice.below(2) == 0 { Order::Fcfs } else { Order::Aging };
        Config { guard, order, ..config(share, classes(dice)) }
    };
    shares.into_iter().map(make).collect()
}

#[test]
fn no_attack_exceeds_a_bound() {
    let tightest = attack_all(200, |_| vec![]);
    // An attack that never came near would prove nothing.
    assert!(tightest < 2.0, "the nearest attack stayed {tightest} times below its bound");
}

/// Every limit falls as low as it may, and two of three requests fail and cost nothing.
#[test]
fn no_attack_on_feedback_exceeds_a_bound() {
    let tightest = attack_all(100, |dice| {
        let by = Adapt::Aimd { target: Span::from_nanos(1) };
        let limit = Feedback::AdaptiveConcurrency { by, min: 1 + dice.below(2) as u32 };
        let failures = 1 + dice.below(2) as u32;
        let open_for = Span::from_nanos(1 + dice.below(20_000));
        let breaker = Feedback::CircuitBreaker { failures, open_for };
        vec![if dice.below(2) == 0 { limit } else { breaker }]
    });
    assert!(tightest < 2.0, "the nearest attack stayed {tightest} times below its bound");
}

/// How near the nearest attack came to its bound.
fn attack_all(seeds: u64, feedback: fn(&mut Dice) -> Vec<Feedback>) -> f64 {
    let mut tightest = f64::INFINITY;
    for seed in 0..seeds {
        let mut dice = Dice::new(1_000 + seed);
        for policy in policies(&mut dice) {
            let policy = Config { feedback: feedback(&mut dice), ..policy };
            let seats = 1 + dice.below(4) as u32;
            let bounds = wait_bounds(&policy, &machine(seats));
            let waits = attack(&policy, seats, seed);
            for (index, (bound, wait)) in bounds.iter().zip(&waits).enumerate() {
                if let WaitBound::Within(most, because) = bound {
                    assert!(
                        wait <= most,
                        "seed {seed}, class {index}: {wait} > {most} ({because:?}) {policy:?}"
                    );
                    if *wait > Span::ZERO {
                        tightest = tightest.min(most.secs_f64() / wait.secs_f64());
                    }
                }
            }
        }
    }
    tightest
}

#[test]
fn what_has_no_bound_is_called_so_and_starves() {
    let higher = Class { priority: 1, queue_max: Some(QUEUE_MAX), ..class() };
    let lower = Class { queue_max: Some(QUEUE_MAX), ..class() };
    let policy = config(Share::Priority, vec![higher, lower]);
    let bounds = wait_bounds(&policy, &machine(1));
    assert_eq!(bounds[1], WaitBound::Unbounded(WhyNot::Higher(plimsoll_base::ClassId(0))));
    assert!(matches!(bounds[0], WaitBound::Within(_, Because::Share)));
    let wait = (0..20).map(|seed| attack(&policy, 1, seed)[1]).max();
    assert!(wait > Some(Span::from_nanos(100_000)), "the lower class waited {wait:?} only");
}
