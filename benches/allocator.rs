//! The allocator alone, on one core: requests of 1,000 tenants in three classes arrive and end,
//! with free seats and with 10,000 waiting.
//!
//! `cargo bench --bench allocator`; "elem/s" are inputs a second: an arrival and an end a request.

mod scenario;

use std::collections::VecDeque;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use plimsoll_base::{BackendId, ClassId, End, RequestId, TenantId, Time};
use plimsoll_policy::config::{Class, Per, Share, TokenCost};
use plimsoll_policy::{Allocator, BackendInfo, Config, Input, RequestInfo, Used};

const PRICE: TokenCost = TokenCost { prompt: 1, output: 2 };
/// Requests an iteration.
const REQUESTS: u64 = 100_000;

fn config(share: Share) -> Config {
    let class = |priority, weight| Class { priority, weight, ..Class::default() };
    Config::plain(share, vec![class(10, 4), class(5, 2), class(0, 1)])
}

/// An allocator in motion: request after request arrives, and the oldest dispatched ends.
struct Traffic {
    allocator: Allocator,
    running: VecDeque<RequestId>,
    next: u64,
}

const SEATS: u32 = 64;

impl Traffic {
    /// With so many requests waiting, or with a few seats free where that is 0.
    fn start(share: Share, waiting: u64) -> Traffic {
        let allocator = Allocator::new(config(share)).expect("the policy is sound");
        let mut traffic = Traffic { allocator, running: VecDeque::new(), next: 0 };
        let backend = BackendInfo {
            seats: SEATS,
            kv_tokens: 200_000,
            context_max: 100_000,
            ..BackendInfo::default()
        };
        traffic.allocator.handle(Time::ZERO, Input::Joined(BackendId::first(0), backend));
        let first = if waiting == 0 { u64::from(SEATS) - 14 } else { u64::from(SEATS) + waiting };
        (0..first).for_each(|_| traffic.arrive());
        assert_eq!(traffic.running.len() < SEATS as usize, waiting == 0, "seats are free or not");
        traffic
    }

    fn now(&self) -> Time {
        Time::from_nanos(self.next * 1_000)
    }

    fn arrive(&mut self) {
        let id = self.next;
        self.next += 1;
        let info = RequestInfo {
            tenant: TenantId((id * 31 % 1000) as u32),
            claims: Some(ClassId((id % 3) as u16)),
            prompt_tokens: prompt(id),
            output_cap: 200,
            ..RequestInfo::default()
        };
        self.allocator.handle(self.now(), Input::Arrived(RequestId(id), info));
        self.follow();
    }

    fn end(&mut self) {
        let id = self.running.pop_front().expect("some run");
        let used = Used { prompt_tokens: prompt(id.0), output_tokens: 150 };
        self.allocator.handle(self.now(), Input::Ended(id, End::Finished, used));
        self.follow();
    }

    fn follow(&mut self) {
        while let Some(decision) = self.allocator.poll() {
            self.running.push_back(decision.id);
        }
        std::hint::black_box(self.allocator.next_deadline());
    }
}

fn prompt(id: u64) -> u32 {
    100 + (id * 7919 % 900) as u32
}

fn inputs(criterion: &mut Criterion) {
    let rules = [
        ("fcfs", Share::Fcfs),
        ("drr", Share::DeficitRoundRobin { per: Per::Tenant, quantum: 2_000, cost: PRICE }),
        ("vtc", Share::VirtualTokenCounter { per: Per::Tenant, cost: PRICE }),
    ];
    let mut group = criterion.benchmark_group("allocator");
    group.throughput(Throughput::Elements(2 * REQUESTS));
    for (name, share) in rules {
        for (load, waiting) in [("free-seats", 0), ("10000-queued", 10_000)] {
            let mut traffic = Traffic::start(share.clone(), waiting);
            group.bench_function(format!("{name}/{load}"), |bencher| {
                bencher.iter(|| {
                    for _ in 0..REQUESTS {
                        traffic.arrive();
                        traffic.end();
                    }
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = scenario::short();
    targets = inputs
}
criterion_main!(benches);
