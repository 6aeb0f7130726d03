//! Requests that arrive and end in a long run, and the policies it is run under: what the tests of
//! memory and the benches of speed drive the allocator with.

#![allow(dead_code, reason = "no user needs all of it")]

use std::collections::VecDeque;

use plimsoll_base::{
    BackendId, ClassId, End, RequestId, SessionId, SiteId, Span, TenantId, Time, WorkflowId,
};
use plimsoll_policy::config::{
    Adapt, Admit, BucketPer, BucketUnit, Capacity, Class, EarlyRefusal, Feedback, Guard, LoadBreak,
    LocalFirst, Order, Partition, Per, Place, Predict, Quota, QuotaGroup, QuotaUnit,
    SaturationGate, Share, SloCaps, Stale, TokenBucket, TokenCost,
};
use plimsoll_policy::{
    Action, Allocator, BackendInfo, Config, Input, Load, Needs, RequestInfo, Used,
};

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
        ("bypass", Config { bypass_max: 4, ..plain(Share::Fcfs) }),
    ]
}

/// Rules of every stage at once. Their limits are wide, so that the queue is what is waited in.
pub fn all_rules() -> (&'static str, Config) {
    let mut policy = plain(Share::VirtualTokenCounter { per: Per::Workflow, cost: PRICE });
    for class in &mut policy.classes {
        class.wait_max = Some(Span::from_nanos(5_000_000));
        class.time_to_live = Some(Span::from_secs(60));
        class.queue_max = Some(100_000);
        class.requests_max = Some(60);
        class.tokens_max = Some(60_000);
        class.output_tokens_expected = Some(150);
    }
    policy.classes[2].sheddable = true;
    policy.admit = admission();
    policy.order = Order::ShortestPredicted { aging: Some(Span::from_nanos(2_000)) };
    policy.partition = vec![
        Partition::HeavyLane { over_tokens: 1_000, max: 40 },
        Partition::Quota(Quota { unit: QuotaUnit::Requests, groups: groups() }),
    ];
    let load = LoadBreak { factor_ppm: 1_500_000, tokens: 10_000 };
    policy.place = vec![
        Place::LocalFirst(LocalFirst {
            sites: vec![SiteId(0)],
            spill_wait: Span::from_millis(1),
            return_after: Span::from_millis(1),
        }),
        Place::PrefixAffinity(load),
        Place::SessionAffinity { sessions_max: 1_000, load },
        Place::LeastTokens,
    ];
    policy.feedback = feedback();
    policy.guard = Some(Guard { due_share_ppm: 100_000 });
    policy.predict = Predict::ClassQuantile { quantile_ppm: 900_000, samples_min: 20 };
    ("everything", policy)
}

fn admission() -> Vec<Admit> {
    vec![
        Admit::TokenBucket(TokenBucket {
            unit: BucketUnit::Tokens,
            per: BucketPer::Tenant,
            rate_micros: 1_000_000_000_000,
            burst: 1_000_000_000,
            classes: Vec::new(),
        }),
        Admit::SaturationGate(SaturationGate {
            waiting_full: 1_000,
            kv_full_ppm: 1_000_000,
            ceilings: vec![(ClassId(2), 1_000_000)],
            stale_after: Span::from_secs(1),
            stale: Stale::Open,
        }),
        Admit::EarlyRefusal(EarlyRefusal {
            wait_limit: Some(Span::from_secs(60)),
            classes: Vec::new(),
        }),
    ]
}

fn groups() -> Vec<QuotaGroup> {
    let leaf = |nominal, class| QuotaGroup {
        parent: Some(0),
        nominal,
        classes: vec![ClassId(class)],
        ..QuotaGroup::default()
    };
    let root = QuotaGroup { nominal: 200, ..QuotaGroup::default() };
    vec![root, leaf(40, 0), leaf(20, 1), leaf(10, 2)]
}

fn feedback() -> Vec<Feedback> {
    vec![
        Feedback::AdaptiveConcurrency { by: Adapt::Aimd { target: Span::from_millis(1) }, min: 32 },
        Feedback::CircuitBreaker { failures: 5, open_for: Span::from_secs(1) },
        Feedback::SloCaps(SloCaps {
            class: ClassId(0),
            lesser: vec![ClassId(2)],
            window: 100,
            misses_max_ppm: 900_000,
            step: 1,
            min: 30,
        }),
        Feedback::EvictSheddable { after: Span::from_secs(1), every: Span::from_secs(1) },
    ]
}

/// An allocator in motion: request after request arrives, and the oldest dispatched ends.
pub struct Traffic {
    allocator: Allocator,
    running: VecDeque<RequestId>,
    next: u64,
    needs: Needs,
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
        let needs = allocator.needs();
        let mut traffic = Traffic { allocator, running: VecDeque::new(), next: 0, needs };
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
            session: SessionId(id * 17 % 500 + 1),
            ..RequestInfo::default()
        };
        if self.needs.reports.is_some() && id.is_multiple_of(100) {
            self.tell(Input::Reported(BackendId::first(0), Load::default(), self.now()));
        }
        if self.needs.matches {
            let cached = (id * 101 % 900) as u32;
            self.tell(Input::Matched(RequestId(id), BackendId::first(0), cached));
        }
        self.tell(Input::Arrived(RequestId(id), info));
    }

    /// The request that was dispatched first of those that run ends.
    pub fn end(&mut self) {
        let id = self.running.pop_front().expect("some run");
        if self.needs.first_tokens {
            self.tell(Input::FirstToken(id));
        }
        let used = Used { prompt_tokens: prompt(id.0), output_tokens: 150 };
        self.tell(Input::Ended(id, End::Finished, used));
    }

    fn tell(&mut self, input: Input) {
        self.allocator.handle(self.now(), input);
        while let Some(decision) = self.allocator.poll() {
            match decision.action {
                Action::Dispatch(..) => self.running.push_back(decision.id),
                other => panic!("limits are wide: {other:?}"),
            }
        }
        std::hint::black_box(self.allocator.next_deadline());
    }
}

fn prompt(id: u64) -> u32 {
    100 + (id * 7919 % 900) as u32
}
