//! What the rules promise, over random loads: bounds of fairness, of overtaking and of waiting.

mod support;

use std::collections::VecDeque;

use plimsoll_base::{ClassId, End, Reason, RequestId, Span, Time};
use plimsoll_policy::config::{Class, Guard, Order, Per, Share, TokenCost};
use plimsoll_policy::{Action, Allocator, Config, Decision, Input, RequestInfo, Used};
use proptest::collection::vec;
use proptest::prelude::*;
use support::{arrive, class, config, join, request, step};

const PRICE: TokenCost = TokenCost { prompt: 1, output: 2 };

/// A request of a class with a prompt, a predicted output and what it really puts out.
#[derive(Clone, Copy, Debug)]
struct Load {
    class: u16,
    prompt: u32,
    cap: u32,
    output: u32,
}

impl Load {
    fn info(self) -> RequestInfo {
        request(self.class, self.prompt, self.cap)
    }
    fn predicted(self) -> f64 {
        f64::from(self.prompt) + 2.0 * f64::from(self.cap)
    }
    fn error(self) -> f64 {
        2.0 * (f64::from(self.output) - f64::from(self.cap))
    }
}

fn loads(classes: u16) -> impl Strategy<Value = Vec<Load>> {
    let load = (0..classes, 1u32..200, 0u32..100, any::<prop::sample::Index>());
    vec(load, 60..240).prop_map(|loads| {
        let make = |(class, prompt, cap, output): (u16, u32, u32, prop::sample::Index)| Load {
            class,
            prompt,
            cap,
            output: output.index(cap as usize + 1) as u32,
        };
        loads.into_iter().map(make).collect()
    })
}

fn weighted(weights: &[u32]) -> Vec<Class> {
    weights.iter().map(|&weight| Class { weight, ..class() }).collect()
}

/// All requests wait before `seats` open. Returns the service booked by class, per weight, after
/// each event, for as long as all classes have work.
fn booked(share: Share, weights: &[u32], loads: &[Load], seats: u32) -> Vec<Vec<f64>> {
    let mut allocator = Allocator::new(config(share, weighted(weights))).expect("valid");
    for (id, load) in (0..).zip(loads) {
        assert_eq!(step(&mut allocator, 0, arrive(id, load.info())), []);
    }
    let mut decisions = step(&mut allocator, 1, join(0, seats, 1_000_000_000));
    let mut service = vec![0.0; weights.len()];
    let mut waiting: Vec<usize> = (0..weights.len())
        .map(|class| loads.iter().filter(|load| load.class as usize == class).count())
        .collect();
    let mut history = vec![service.clone()];
    let mut running = VecDeque::new();
    loop {
        for decision in decisions {
            let load = loads[decision.id.0 as usize];
            assert!(matches!(decision.action, Action::Dispatch(..)));
            service[load.class as usize] +=
                load.predicted() / f64::from(weights[load.class as usize]);
            waiting[load.class as usize] -= 1;
            if waiting.contains(&0) {
                return history;
            }
            history.push(service.clone());
            running.push_back(decision.id);
        }
        let id = running.pop_front().expect("a seat is free only if something runs");
        let load = loads[id.0 as usize];
        let used = Used { prompt_tokens: load.prompt, output_tokens: load.output };
        service[load.class as usize] += load.error() / f64::from(weights[load.class as usize]);
        history.push(service.clone());
        decisions = step(&mut allocator, 1, Input::Ended(id, End::Finished, used));
    }
}

/// The largest difference of two classes' service per weight over any interval.
fn gap(history: &[Vec<f64>], f: usize, g: usize) -> f64 {
    let lead = history.iter().map(|service| service[f] - service[g]);
    lead.clone().fold(f64::MIN, f64::max) - lead.fold(f64::MAX, f64::min)
}

fn largest(loads: &[Load], class: usize, of: impl Fn(&Load) -> f64) -> f64 {
    loads.iter().filter(|load| load.class as usize == class).map(of).fold(0.0, f64::max)
}

fn weights() -> impl Strategy<Value = Vec<u32>> {
    vec(1u32..10, 3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Virtual counter, true predictions: gap ≤ 2 · C / w.
    #[test]
    fn counter_bounds_the_gap(loads in loads(3), weights in weights(), seats in 1u32..6) {
        let loads: Vec<_> = loads.into_iter().map(|l| Load { output: l.cap, ..l }).collect();
        let share = Share::VirtualTokenCounter { per: Per::Class, cost: PRICE };
        let history = booked(share, &weights, &loads, seats);
        let most = |class| largest(&loads, class, |l| l.predicted()) / f64::from(weights[class]);
        for (f, g) in [(0, 1), (0, 2), (1, 2)] {
            let bound = 2.0 * most(f).max(most(g));
            prop_assert!(gap(&history, f, g) <= bound + 1e-3, "{f} {g} {bound}");
        }
    }

    /// Virtual counter, wrong predictions: what is in flight adds its error.
    #[test]
    fn counter_bounds_the_gap_with_errors(loads in loads(2), weights in weights(), seats in 1u32..6) {
        let weights = &weights[..2];
        let share = Share::VirtualTokenCounter { per: Per::Class, cost: PRICE };
        let history = booked(share, weights, &loads, seats);
        let per_weight = |class: usize, cost: f64| cost / f64::from(weights[class]);
        let most = |class| per_weight(class, largest(&loads, class, |l| l.predicted()));
        let error = |class| per_weight(class, largest(&loads, class, |l| l.error().abs()));
        let in_flight = f64::from(seats) * error(0).max(error(1));
        let bound = 2.0 * (most(0).max(most(1)) + in_flight);
        prop_assert!(gap(&history, 0, 1) <= bound + 1e-3, "{bound}");
    }

    /// Deficit round robin: gap ≤ quantum + max_f / w_f + max_g / w_g.
    #[test]
    fn deficit_bounds_the_gap(
        loads in loads(3), weights in weights(), seats in 1u32..6, quantum in 2u64..600,
    ) {
        let loads: Vec<_> = loads.into_iter().map(|l| Load { output: l.cap, ..l }).collect();
        let share = Share::DeficitRoundRobin { per: Per::Class, quantum, cost: PRICE };
        let history = booked(share, &weights, &loads, seats);
        let most = |class| largest(&loads, class, |l| l.predicted()) / f64::from(weights[class]);
        for (f, g) in [(0, 1), (0, 2), (1, 2)] {
            let bound = quantum as f64 + most(f) + most(g);
            prop_assert!(gap(&history, f, g) <= bound + 1e-6, "{f} {g} {bound}");
        }
    }

    /// Aging: who is overtaken arrived less earlier than the boosts differ.
    #[test]
    fn aging_bounds_overtaking(arrivals in arrivals(3), boosts in vec(0u64..60, 3)) {
        let boosted = |&boost: &u64| Class { boost: Span::from_nanos(boost), ..class() };
        let classes = boosts.iter().map(boosted).collect();
        let policy = Config { order: Order::Aging, ..config(Share::Fcfs, classes) };
        let order = serve(policy, &arrivals);
        for (place, late) in order.iter().enumerate() {
            for early in order[place..].iter().filter(|early| early.id < late.id) {
                let apart = late.arrived - early.arrived;
                let allowed = boosts[late.class].saturating_sub(boosts[early.class]);
                prop_assert!(apart <= allowed, "{late:?} overtook {early:?}");
            }
        }
    }

    /// Guard: n due requests ahead, then within ceil((n + 1) / due share) dispatches.
    #[test]
    fn guard_bounds_the_wait(
        arrivals in arrivals(3), wait_max in vec(1u64..40, 2), due_share_ppm in 20_000u32..1_000_001,
    ) {
        let wait = |at: usize| Some(Span::from_nanos(wait_max[at]));
        let classes = vec![
            Class { priority: 2, ..class() },
            Class { priority: 1, wait_max: wait(0), ..class() },
            Class { priority: 0, wait_max: wait(1), ..class() },
        ];
        let guard = Some(Guard { due_share_ppm });
        let order = serve(Config { guard, ..config(Share::Priority, classes) }, &arrivals);
        let due = |served: &Served| {
            (served.class > 0).then(|| served.arrived + wait_max[served.class - 1])
        };
        for (place, served) in order.iter().enumerate() {
            let Some(due_at) = due(served).filter(|&due_at| due_at <= served.at) else { continue };
            let since = order[..=place].iter().filter(|other| other.at >= due_at).count() as u64;
            let ahead = order[..].iter().filter(|other| {
                other.at >= due_at && due(other).is_some_and(|d| (d, other.id) < (due_at, served.id))
            });
            let bound = ((ahead.count() as u64 + 1) * 1_000_000).div_ceil(due_share_ppm.into());
            prop_assert!(since <= bound, "{served:?}: {since} dispatches, bound {bound}");
            prop_assert!(served.reason == Reason::Due || served.reason == Reason::Priority);
        }
    }
}

/// Gaps between arrivals, classes, and how long each runs; the load is above what one seat takes.
fn arrivals(classes: usize) -> impl Strategy<Value = Vec<(u64, usize, u64)>> {
    vec((0u64..6, 0..classes, 1u64..8), 100..200)
}

#[derive(Clone, Copy, Debug)]
struct Served {
    id: RequestId,
    class: usize,
    arrived: u64,
    at: u64,
    reason: Reason,
}

/// Serves the arrivals at one seat; the order of dispatch. Deadlines are kept.
fn serve(policy: Config, arrivals: &[(u64, usize, u64)]) -> Vec<Served> {
    let mut allocator = Allocator::new(policy).expect("valid");
    step(&mut allocator, 0, join(0, 1, 1_000));
    let mut instants = vec![0; arrivals.len()];
    let (mut order, mut next, mut clock) = (Vec::new(), 0, 0);
    let mut ends: Option<(u64, RequestId)> = None;
    let mut take = |decisions: Vec<Decision>, now: u64, instants: &[u64]| {
        let mut ends = None;
        for Decision { id, class, reason, .. } in decisions {
            let class = class.map_or(0, ClassId::index);
            let arrived = instants[id.0 as usize];
            order.push(Served { id, class, arrived, at: now, reason });
            ends = Some((now + arrivals[id.0 as usize].2, id));
        }
        ends
    };
    loop {
        let arrival = arrivals.get(next).map(|(after, class, _)| (clock + after, *class));
        let (now, input) = match (ends, arrival) {
            (Some((at, id)), arrival) if arrival.is_none_or(|(other, _)| at <= other) => {
                ends = None;
                (at, Input::Ended(id, End::Finished, Used::default()))
            }
            (_, Some((at, class))) => {
                (clock, instants[next]) = (at, at);
                next += 1;
                (at, arrive(next as u64 - 1, request(class as u16, 1, 1)))
            }
            (_, None) => break,
        };
        ends = take(step(&mut allocator, now, input), now, &instants).or(ends);
        assert!(allocator.next_deadline().is_none_or(|at| at > Time::from_nanos(now)));
    }
    assert_eq!(order.len(), arrivals.len());
    order
}
