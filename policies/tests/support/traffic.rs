//! Requests that arrive and end in a long run, and the policies it is run under: what the tests of
//! memory and the benches of speed drive the allocator with.

#![allow(dead_code, reason = "no user needs all of it")]

use std::collections::VecDeque;

use plimsoll_base::{BackendId, ClassId, End, RequestId, Span, TenantId, Time, WorkflowId};
use plimsoll_policy::config::{
    Capacity, Class, Guard, Order, Partition, Per, Predict, Share, TokenCost,
};
use plimsoll_policy::{Allocator, BackendInfo, Config, Input, RequestInfo, Used};

/// After so many requests they are the same again.
pub const PERIOD: u64 = 9_000;

const PRICE: TokenCost = TokenCost { prompt: 1, output: 2 };
const SEATS: u32 = 64;
const KV_TOKENS: u64 = 200_000;

fn plain(share: Share) -> Config {
    let deadline = Some(Span::from_nanos(20_000_000));
    let class = |priority, weight| Class { priority, weight, deadline, ..Class::default() };
    Config::plain(share, vec![class(10, 4), class(5, 2), class(0, 1)])
}

fn ordered(order: Order) -> Config {
    Config { order, ..plain(Share::Fcfs) }
}

/// The rules of the main job: shares by tenant, and the orders that need no observations.
pub fn main_rules() -> Vec<(&'static str, Config)> {
    let per = Per::Tenant;
    vec![
        ("fcfs", plain(Share::Fcfs)),
        ("priority", plain(Share::Priority)),
        ("drr", plain(Share::DeficitRoundRobin { per, quantum: 2_000, cost: PRICE })),
        ("vtc", plain(Share::VirtualTokenCounter { per, cost: PRICE })),
        ("aging", ordered(Order::Aging)),
    ]
}

/// Every other share and order.
pub fn other_rules() -> Vec<(&'static str, Config)> {
    let per = Per::Workflow;
    let capacity = Capacity {
        prefill_tokens: 20_000,
        decode_tokens: 4_000,
        kv_tokens: KV_TOKENS,
        output_token: Span::from_nanos(40_000_000),
    };
    vec![
        ("sfq", plain(Share::StartTimeFair { per, cost: PRICE })),
        ("stride", plain(Share::Stride { per })),
        ("drf", plain(Share::DominantResource { per, capacity })),
        ("dlpm", plain(Share::DeficitLongestPrefix { per, quantum: 2_000, cost: PRICE })),
        ("edf", ordered(Order::EarliestDeadline)),
        ("shortest", ordered(Order::ShortestPredicted { aging: Some(Span::from_nanos(2_000)) })),
        ("attained", ordered(Order::LeastAttained { cost: PRICE, workflows_max: 1_000 })),
        ("longest-prefix", ordered(Order::LongestPrefix { token: Span::from_nanos(1_000) })),
    ]
}

/// Many rules at once: an order with keys, a share by workflow, the guard, limits of every kind.
pub fn all_rules() -> (&'static str, Config) {
    let mut policy = plain(Share::VirtualTokenCounter { per: Per::Workflow, cost: PRICE });
    policy.order = Order::ShortestPredicted { aging: Some(Span::from_nanos(2_000)) };
    policy.partition = vec![Partition::HeavyLane { over_tokens: 1_000, max: 40 }];
    policy.bypass_max = 4;
    policy.guard = Some(Guard { due_share_ppm: 100_000 });
    policy.predict = Predict::ClassIntensity;
    for class in &mut policy.classes {
        class.wait_max = Some(Span::from_nanos(5_000_000));
        class.time_to_live = Some(Span::from_nanos(60_000_000_000));
        class.queue_max = Some(100_000);
        class.requests_max = Some(60);
        class.tokens_max = Some(60_000);
        class.output_tokens_expected = Some(150);
    }
    ("everything", policy)
}

/// An allocator in motion: request after request arrives, and the oldest dispatched ends.
pub struct Traffic {
    allocator: Allocator,
    running: VecDeque<RequestId>,
    next: u64,
    /// Told of the next request: how much of its prompt is cached.
    matches: bool,
}

impl Traffic {
    /// With so many requests waiting, or with a few seats free where that is 0.
    pub fn start(policy: Config, waiting: u64) -> Traffic {
        let mut allocator = Allocator::new(policy).expect("the policy is sound");
        let backend = BackendInfo {
            seats: SEATS,
            kv_tokens: KV_TOKENS,
            context_max: 100_000,
            ..BackendInfo::default()
        };
        allocator.handle(Time::ZERO, Input::Joined(BackendId::first(0), backend));
        let matches = allocator.needs().matches;
        let mut traffic = Traffic { allocator, running: VecDeque::new(), next: 0, matches };
        let first = if waiting == 0 { u64::from(SEATS) - 14 } else { u64::from(SEATS) + waiting };
        (0..first).for_each(|_| traffic.arrive());
        traffic
    }

    /// Requests that wait.
    pub fn waiting(&self) -> u32 {
        (0..3).map(|class| self.allocator.queued(ClassId(class))).sum()
    }

    fn now(&self) -> Time {
        Time::from_nanos(self.next * 1_000)
    }

    /// A request arrives.
    pub fn arrive(&mut self) {
        let id = self.next;
        self.next += 1;
        let info = RequestInfo {
            tenant: TenantId((id * 31 % 1000) as u32),
            claims: Some(ClassId((id % 3) as u16)),
            prompt_tokens: prompt(id),
            output_cap: 200,
            workflow: WorkflowId(id * 17 % 500 + 1),
            ..RequestInfo::default()
        };
        if self.matches {
            let cached = (id * 101 % 900) as u32;
            self.tell(Input::Matched(RequestId(id), BackendId::first(0), cached));
        }
        self.tell(Input::Arrived(RequestId(id), info));
    }

    /// The request that was dispatched first of those that run ends.
    pub fn end(&mut self) {
        let id = self.running.pop_front().expect("some run");
        let used = Used { prompt_tokens: prompt(id.0), output_tokens: 150 };
        self.tell(Input::Ended(id, End::Finished, used));
    }

    fn tell(&mut self, input: Input) {
        self.allocator.handle(self.now(), input);
        while let Some(decision) = self.allocator.poll() {
            self.running.push_back(decision.id);
        }
        std::hint::black_box(self.allocator.next_deadline());
    }
}

fn prompt(id: u64) -> u32 {
    100 + (id * 7919 % 900) as u32
}
