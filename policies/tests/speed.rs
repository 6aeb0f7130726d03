//! How many inputs a second the allocator takes on one core. Not run by default; in release:
//! `cargo test --release -p plimsoll-policy --test speed -- --ignored --nocapture`.

mod support;

use std::collections::VecDeque;
use std::time::Instant;

use plimsoll_base::{End, RequestId, Span, TenantId, Time};
use plimsoll_policy::config::{Class, Guard, Order, Per, Share, TokenCost};
use plimsoll_policy::{Action, Allocator, Config, Input, Used};
use support::{arrive, class, config, join, request, step};

const REQUESTS: u64 = 3_000_000;
const PRICE: TokenCost = TokenCost { prompt: 1, output: 2 };

/// Requests arrive one by one on `backends` of 64 seats; the oldest dispatched ends once
/// `in_flight` are out, and `backlog` requests wait all the time.
fn check(name: &str, policy: Config, backends: u32, (in_flight, backlog): (usize, u64)) {
    let mut allocator = Allocator::new(policy).expect("a valid policy");
    for slot in 0..backends {
        step(&mut allocator, 0, join(slot, 64, 200_000));
    }
    let mut running = VecDeque::new();
    let (mut inputs, mut now) = (0u64, 0);
    let mut dispatched = 0;
    let started = Instant::now();
    for id in 0..REQUESTS {
        now += 1_000;
        let mut info = request((id % 3) as u16, prompt(id), 200);
        info.tenant = TenantId((id * 31 % 1000) as u32);
        allocator.handle(Time::from_nanos(now), arrive(id, info));
        inputs += 1;
        loop {
            while let Some(decision) = allocator.poll() {
                assert!(matches!(decision.action, Action::Dispatch(..)), "{decision:?}");
                running.push_back(decision.id);
                dispatched += 1;
            }
            if running.len() < in_flight || id - dispatched.min(id) < backlog {
                break;
            }
            let ended: RequestId = running.pop_front().expect("some run");
            let used = Used { prompt_tokens: prompt(ended.0), output_tokens: 150 };
            allocator.handle(Time::from_nanos(now), Input::Ended(ended, End::Finished, used));
            std::hint::black_box(allocator.next_deadline());
            inputs += 1;
        }
    }
    let rate = inputs as f64 / started.elapsed().as_secs_f64() / 1e6;
    println!("{name:<44} {rate:6.1} million inputs/s ({dispatched} dispatched)");
}

fn prompt(id: u64) -> u32 {
    100 + (id * 7919 % 900) as u32
}

fn three() -> Vec<Class> {
    let make = |weight, priority| Class { weight, priority, ..class() };
    vec![make(4, 10), make(2, 5), make(1, 0)]
}

#[test]
#[ignore = "a measurement, not a check"]
fn inputs_a_second() {
    let share = |per, drr| match drr {
        true => Share::DeficitRoundRobin { per, quantum: 2_000, cost: PRICE },
        false => Share::VirtualTokenCounter { per, cost: PRICE },
    };
    let rules = [
        ("fcfs", Share::Fcfs),
        ("priority", Share::Priority),
        ("deficit per class", share(Per::Class, true)),
        ("counter per class", share(Per::Class, false)),
        ("deficit per tenant", share(Per::Tenant, true)),
        ("counter per tenant", share(Per::Tenant, false)),
    ];
    for (name, rule) in rules {
        let plain = config(rule, three());
        check(&format!("{name}, free seats"), plain.clone(), 1, (50, 0));
        check(&format!("{name}, 8 backends"), plain.clone(), 8, (400, 0));
        check(&format!("{name}, 10,000 waiting"), plain.clone(), 1, (60, 10_000));
        let mut full = Config { guard: Some(Guard { due_share_ppm: 100_000 }), ..plain };
        full.order = Order::Aging;
        for class in &mut full.classes {
            class.wait_max = Some(Span::from_secs(1));
            class.time_to_live = Some(Span::from_secs(600));
            class.requests_max = Some(60);
            class.tokens_max = Some(60_000);
        }
        check(&format!("{name}, every rule on, 10,000 waiting"), full, 1, (55, 10_000));
    }
}
