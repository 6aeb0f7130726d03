//! Random policies and random storms of inputs.

use plimsoll_base::{
    BackendId, ClassId, End, ModelId, PoolId, RequestId, SessionId, SiteId, SourceId, Span,
    TenantId, Time, WorkflowId,
};
use plimsoll_policy::config::{
    Admit, Becomes, Capacity, Class, ClassifyRule, Concurrency, Dedicated, EarlyRefusal, Guard,
    LoadBreak, LocalFirst, Order, Partition, Per, Place, Quota, QuotaGroup, QuotaUnit, Share,
    TokenCost, Window,
};
use plimsoll_policy::{
    Allocator, BackendInfo, Config, Decision, Input, Load, RequestInfo, Signal, Used,
};
use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;

use crate::naive::Naive;

#[path = "storm_admit.rs"]
mod storm_admit;
#[path = "storm_feedback.rs"]
mod storm_feedback;

/// What happens next, told without knowing who is there.
#[derive(Clone, Debug)]
pub enum Act {
    Arrive(RequestInfo),
    /// The next to arrive, or an older one, has so many tokens cached there.
    Match(u64, BackendId, u32),
    /// An arrival whose number is already taken.
    ArriveAgain(usize, RequestInfo),
    /// The n-th request held ends, or is withdrawn.
    End(usize, End, Used),
    Withdraw(usize),
    Join(u32, u32, BackendInfo),
    Leave(u32, u32),
    /// The n-th request held begins to stream, if it runs.
    Begin(usize),
    /// A backend's report, so many nanoseconds old.
    Report(u32, u32, Load, u64),
    /// A prediction for the next arrival, or for another.
    Predict(bool, u32),
    Drain,
    /// Nothing, for so many nanoseconds; deadlines are kept or missed.
    Wait(u64, bool),
}

/// Storms over backends that serve every model, and over such as do not.
pub fn acts() -> impl Strategy<Value = Vec<Act>> {
    prop_oneof![2 => Just(0u64), 1 => Just(7)].prop_flat_map(acts_over)
}

fn acts_over(models: u64) -> impl Strategy<Value = Vec<Act>> {
    let workflow = weighted(0.5, 1u64..6).prop_map(Option::unwrap_or_default);
    let attempt = prop_oneof![2 => Just(0u8), 1 => 1u8..4];
    let owner = (0u32..4, workflow, attempt);
    let of_what = (owner, 0u16..2, of(0u16..5), 0u16..3, 0u64..6);
    let info = (of_what, 0u32..60, 0u32..60).prop_map(
        |(
            ((tenant, workflow, attempt), source, claims, model, session),
            prompt_tokens,
            output_cap,
        )| {
            RequestInfo {
                attempt,
                workflow: WorkflowId(workflow),
                tenant: TenantId(tenant),
                source: SourceId(source),
                claims: claims.map(ClassId),
                model: ModelId(model),
                session: SessionId(session),
                prompt_tokens,
                output_cap,
                ..RequestInfo::default()
            }
        },
    );
    let place = (0u16..3, 0u16..4, 0u64..8);
    let backend = (0u32..5, 20u64..260, 30u32..160, place).prop_map(
        move |(seats, kv_tokens, context_max, (pool, site, served))| BackendInfo {
            pool: PoolId(pool),
            site: SiteId(site),
            models: served & models,
            seats,
            kv_tokens,
            context_max,
        },
    );
    let used = (0u32..60, 0u32..60)
        .prop_map(|(prompt_tokens, output_tokens)| Used { prompt_tokens, output_tokens });
    let end = prop_oneof![
        6 => Just(End::Finished),
        3 => Just(End::Failed),
        1 => Just(End::Cancelled),
        1 => Just(End::Evicted)
    ];
    let place = (0u32..4, prop_oneof![2 => Just(0u32), 1 => 1u32..3])
        .prop_map(|(slot, generation)| BackendId { slot, generation });
    // Few tokens, so that several backends have as many.
    let cached = prop_oneof![1 => 0u32..3, 2 => 0u32..80];
    let act = prop_oneof![
        40 => info.clone().prop_map(Act::Arrive),
        25 => (prop_oneof![9 => Just(0u64), 1 => Just(1)], place, cached)
            .prop_map(|(back, backend, tokens)| Act::Match(back, backend, tokens)),
        1 => (any::<usize>(), info).prop_map(|(n, info)| Act::ArriveAgain(n, info)),
        30 => (any::<usize>(), end, used).prop_map(|(n, end, used)| Act::End(n, end, used)),
        4 => any::<usize>().prop_map(Act::Withdraw),
        12 => any::<usize>().prop_map(Act::Begin),
        5 => (0u32..4, 0u32..4, backend).prop_map(|(s, g, info)| Act::Join(s, g, info)),
        2 => (0u32..4, 0u32..4).prop_map(|(slot, generation)| Act::Leave(slot, generation)),
        10 => (0u32..4, 0u32..4, storm_admit::load(), 0u64..30)
            .prop_map(|(slot, generation, load, age)| Act::Report(slot, generation, load, age)),
        8 => (any::<bool>(), 0u32..80).prop_map(|(next, tokens)| Act::Predict(next, tokens)),
        25 => (0u64..40, any::<bool>()).prop_map(|(nanos, keep)| Act::Wait(nanos, keep)),
    ];
    // Draining comes near the end if at all, or nothing else would be seen.
    let tail = prop_oneof![3 => Just(vec![]), 1 => Just(vec![Act::Drain])];
    (vec(act.clone(), 40..200), tail, vec(act, 0..30))
        .prop_map(|(head, tail, rest)| [head, tail, rest].concat())
}

fn class() -> impl Strategy<Value = Class> {
    let first = (0i32..3, prop_oneof![Just(1u32), Just(2), Just(4), Just(8)], of(0u64..30));
    let second = (weighted(0.3, 0u32..6), weighted(0.3, 40u64..200), weighted(0.4, 1u32..5));
    let sites = prop_oneof![4 => Just(0u64), 1 => 1u64..16];
    let last = (weighted(0.7, 1u64..100), sites);
    let third = (weighted(0.4, 1u64..150), 0u64..60, weighted(0.5, 0u32..60), last);
    (first, second, third).prop_map(|(first, second, third)| Class {
        priority: first.0,
        weight: first.1,
        wait_max: first.2.map(Span::from_nanos),
        queue_max: second.0,
        time_to_live: second.1.map(Span::from_nanos),
        requests_max: second.2,
        tokens_max: third.0,
        boost: Span::from_nanos(third.1),
        output_tokens_expected: third.2,
        deadline: third.3.0.map(Span::from_nanos),
        sites: third.3.1,
        ..Class::default()
    })
}

fn share() -> impl Strategy<Value = Share> {
    let cost = (0u32..3, 1u32..3).prop_map(|(prompt, output)| TokenCost { prompt, output });
    let per = prop_oneof![Just(Per::Class), Just(Per::Tenant), Just(Per::Workflow)];
    // Capacities of which every time is a whole number, so that both sides round alike.
    let capacity = (prop_oneof![Just(1u64), Just(4)], prop_oneof![Just(1u64), Just(5)], 1u64..40);
    let capacity = capacity.prop_map(|(prefill, decode, nanos)| Capacity {
        prefill_tokens: prefill * 10_000_000,
        decode_tokens: decode * 10_000_000,
        kv_tokens: 8,
        output_token: Span::from_nanos(nanos * 8),
    });
    prop_oneof![
        2 => Just(Share::Fcfs),
        2 => Just(Share::Priority),
        2 => (per.clone(), 2u64..150, cost.clone())
            .prop_map(|(per, quantum, cost)| Share::DeficitRoundRobin { per, quantum, cost }),
        2 => (per.clone(), cost.clone())
            .prop_map(|(per, cost)| Share::VirtualTokenCounter { per, cost }),
        2 => (per.clone(), cost.clone())
            .prop_map(|(per, cost)| Share::StartTimeFair { per, cost }),
        1 => per.clone().prop_map(|per| Share::Stride { per }),
        2 => (per.clone(), capacity)
            .prop_map(|(per, capacity)| Share::DominantResource { per, capacity }),
        2 => (per, 2u64..150, cost)
            .prop_map(|(per, quantum, cost)| Share::DeficitLongestPrefix { per, quantum, cost }),
    ]
}

fn order() -> impl Strategy<Value = Order> {
    let cost = (0u32..3, 1u32..3).prop_map(|(prompt, output)| TokenCost { prompt, output });
    let a_token = || (1u64..3).prop_map(Span::from_nanos);
    prop_oneof![
        2 => Just(Order::Fcfs),
        2 => Just(Order::Aging),
        2 => Just(Order::EarliestDeadline),
        2 => of(a_token()).prop_map(|aging| Order::ShortestPredicted { aging }),
        2 => (cost, 1u32..6)
            .prop_map(|(cost, workflows_max)| Order::LeastAttained { cost, workflows_max }),
        2 => a_token().prop_map(|token| Order::LongestPrefix { token }),
    ]
}

fn classify(classes: u16) -> impl Strategy<Value = Vec<ClassifyRule>> {
    let becomes = prop_oneof![
        Just(Becomes::Claimed),
        (0..classes).prop_map(|c| { Becomes::Class(ClassId(c)) })
    ];
    let rule = (of(0u32..4), of(0u16..2), weighted(0.3, 0..classes), of(0u32..40), becomes)
        .prop_map(|(tenant, source, claims, least, class)| ClassifyRule {
            tenant: tenant.map(TenantId),
            source: source.map(SourceId),
            claims: claims.map(ClassId),
            prompt_tokens_min: least,
            prompt_tokens_max: least.map(|least| least + 30),
            class,
            ..ClassifyRule::default()
        });
    // Most requests shall get somewhere.
    let last = ClassifyRule { class: Becomes::Claimed, ..ClassifyRule::default() };
    vec(rule, 0..3).prop_map(move |mut rules| {
        rules.push(last.clone());
        rules
    })
}

fn place() -> impl Strategy<Value = Vec<Place>> {
    let load = (1_000_000u32..3_000_000, 0u64..60)
        .prop_map(|(factor_ppm, tokens)| LoadBreak { factor_ppm, tokens });
    let sites = prop_oneof![Just(vec![1, 0, 2]), Just(vec![2, 1])];
    let local = (sites, 0u64..30, 0u64..60).prop_map(|(sites, spill_wait, return_after)| {
        Place::LocalFirst(LocalFirst {
            sites: sites.into_iter().map(SiteId).collect(),
            spill_wait: Span::from_nanos(spill_wait),
            return_after: Span::from_nanos(return_after),
        })
    });
    let prefix = load.clone().prop_map(Place::PrefixAffinity);
    let session = (1u32..4, load)
        .prop_map(|(sessions_max, load)| Place::SessionAffinity { sessions_max, load });
    let last = prop_oneof![
        Just(Place::RoundRobin),
        Just(Place::LeastTokens),
        any::<u64>().prop_map(|seed| Place::PowerOfTwo { seed }),
    ];
    let rules = (weighted(0.4, local), weighted(0.2, prefix), weighted(0.2, session), of(last));
    rules.prop_map(|(local, prefix, session, last)| {
        [local, session, prefix, last].into_iter().flatten().collect()
    })
}

fn partition(classes: u16) -> impl Strategy<Value = Vec<Partition>> {
    let dedicated =
        (0..classes, vec(0u16..3, 1..3), any::<bool>()).prop_map(|(class, pools, exclusive)| {
            let pools = pools.into_iter().map(PoolId).collect();
            Partition::Dedicated(Dedicated { class: ClassId(class), pools, exclusive })
        });
    let concurrency = (0..classes, 1u32..1_000_000).prop_map(|(class, share)| {
        Partition::Concurrency(Concurrency { shares_ppm: vec![(ClassId(class), share)] })
    });
    let rules = (
        weighted(0.2, vec(dedicated, 1..3)),
        weighted(0.3, quota(classes, 25)),
        weighted(0.2, concurrency),
    );
    rules.prop_map(|(dedicated, quota, concurrency)| {
        let mut rules = dedicated.unwrap_or_default();
        rules.extend(quota);
        rules.extend(concurrency);
        rules
    })
}

/// Root, two groups below it, and below these the leaves; a leaf may be directly below the root.
/// A unit of quota is one request, or so many tokens.
fn quota(classes: u16, tokens: u64) -> impl Strategy<Value = Partition> {
    let unit = prop_oneof![Just((QuotaUnit::Requests, 1u64)), Just((QuotaUnit::Tokens, tokens))];
    let leaf = (0u16..3, 0u64..4, of(0u64..4), of(0u64..3));
    let leaves = vec(leaf, usize::from(classes));
    let middle = (0u64..3, of(0u64..3), of(0u64..2));
    (unit, leaves, vec(middle, 2), 0u64..3).prop_map(|((unit, times), leaves, middles, spare)| {
        let make = |parent, nominal: u64, borrow_max: Option<u64>, lend_max: Option<u64>| {
            let amount = |n: u64| n * times;
            QuotaGroup {
                parent,
                nominal: amount(nominal),
                borrow_max: borrow_max.map(amount),
                lend_max: lend_max.map(|lent| amount(lent.min(nominal))),
                classes: Vec::new(),
            }
        };
        let below = |parent: u16| {
            leaves.iter().filter(|leaf| leaf.0 == parent).map(|leaf| leaf.1).sum::<u64>()
        };
        let middle = |at: usize| below(at as u16 + 1) + middles[at].0 + 1;
        let mut groups = vec![make(None, below(0) + middle(0) + middle(1) + spare, None, None)];
        for (at, (_, borrow_max, lend_max)) in middles.iter().enumerate() {
            groups.push(make(Some(0), middle(at), *borrow_max, *lend_max));
        }
        for (class, (parent, nominal, borrow_max, lend_max)) in (0..).zip(&leaves) {
            let borrow_max = if *nominal == 0 { None } else { *borrow_max };
            let leaf = make(Some(*parent), *nominal, borrow_max, *lend_max);
            groups.push(QuotaGroup { classes: vec![ClassId(class)], ..leaf });
        }
        Partition::Quota(Quota { unit, groups })
    })
}

/// Policies in which little but quotas keeps anyone waiting.
pub fn quota_config() -> impl Strategy<Value = Config> {
    (config(), (20u64..120).prop_flat_map(|tokens| quota(4, tokens))).prop_map(|(config, quota)| {
        let free = |class: &Class| Class {
            requests_max: None,
            tokens_max: None,
            time_to_live: None,
            queue_max: None,
            ..class.clone()
        };
        let mut classes: Vec<Class> = config.classes.iter().map(free).collect();
        classes.resize(4, Class::default());
        let last = ClassifyRule { class: Becomes::Class(ClassId(3)), ..ClassifyRule::default() };
        Config {
            classify: vec![ClassifyRule::default(), last],
            classes,
            partition: vec![quota],
            feedback: vec![],
            window: Window::None,
            bypass_max: 0,
            requests_max: 1_000,
            ..config
        }
    })
}

/// Storms over a backend that takes everything and stays.
pub fn roomy_acts() -> impl Strategy<Value = Vec<Act>> {
    let (seats, kv_tokens, context_max) = (10_000, 1_000_000, 1_000);
    let info = BackendInfo { seats, kv_tokens, context_max, ..BackendInfo::default() };
    acts_over(0).prop_map(move |acts| [vec![Act::Join(9, 0, info)], acts].concat())
}

pub fn config() -> impl Strategy<Value = Config> {
    let plain = prop_oneof![Just(vec![Place::RoundRobin]), Just(vec![Place::LeastTokens])];
    let place = prop_oneof![1 => plain, 1 => place()];
    let window = prop_oneof![4 => Just(Window::Seats), 1 => Just(Window::None)];
    let predict = storm_admit::predict();
    let accounts_max = prop_oneof![Just(3u32), Just(100)];
    let guard = of(prop_oneof![1u32..1_000_001, Just(1_000_000)]);
    let classes = vec(class(), 1..5);
    let rules = classes.prop_flat_map(|classes| {
        let count = classes.len() as u16;
        let partition = prop_oneof![Just(vec![]), partition(count)];
        (classify(count), partition, Just(classes), storm_admit::admit(count))
    });
    let bypass_max = prop_oneof![3 => Just(0u32), 1 => 1u32..4, 1 => Just(100)];
    let order = (order(), bypass_max, weighted(0.4, (0u64..80, 1u32..3)));
    let rest = (guard, predict, 5u32..60, accounts_max, storm_feedback::feedback());
    (rules, share(), order, place, window, rest).prop_map(
        |((classify, mut partition, mut classes, admit), share, order, mut place, window, rest)| {
            let (guard, predict, requests_max, accounts_max, feedback) = rest;
            let (order, bypass_max, heavy_lane) = order;
            if bypass_max > 0 {
                // Where classes step aside there is no bypass.
                classes.iter_mut().for_each(|class| class.sites = 0);
                place.retain(|rule| !matches!(rule, Place::LocalFirst(_)));
                partition.retain(|rule| matches!(rule, Partition::Concurrency(_)));
            }
            let heavy_lane =
                heavy_lane.map(|(over_tokens, max)| Partition::HeavyLane { over_tokens, max });
            partition.extend(heavy_lane);
            let prefixes = matches!(share, Share::DeficitLongestPrefix { .. });
            let order = match order {
                Order::Fcfs | Order::Aging => order,
                other if !prefixes => other,
                _ => Order::Fcfs,
            };
            if order == Order::EarliestDeadline {
                classes[0].deadline.get_or_insert(Span::from_nanos(30));
            }
            if guard.is_some() {
                classes[0].wait_max.get_or_insert(Span::from_nanos(20));
            }
            let feedback = storm_feedback::fit(feedback, &mut classes);
            let guard = guard.map(|due_share_ppm| Guard { due_share_ppm });
            Config {
                classify,
                admit,
                order,
                partition,
                bypass_max,
                place,
                window,
                feedback,
                guard,
                predict,
                requests_max,
                accounts_max,
                ..Config::plain(share, classes)
            }
        },
    )
}

/// Policies under which queues grow and all of admission is early refusal.
pub fn queueing_config() -> impl Strategy<Value = Config> {
    (config(), 0u64..8).prop_map(|(mut config, limit)| {
        for class in &mut config.classes {
            class.queue_max = None;
            class.time_to_live = None;
        }
        let wait_limit = Some(Span::from_nanos(limit));
        config.admit = vec![Admit::EarlyRefusal(EarlyRefusal { wait_limit, classes: vec![] })];
        config.feedback.clear();
        config.requests_max = 1_000;
        config
    })
}

/// Policies that advise and refuse retries, and do little else.
pub fn advised_config() -> impl Strategy<Value = Config> {
    let rules = storm_admit::retry_budget(1)
        .prop_flat_map(|admit| (Just(admit), storm_feedback::autoscale()));
    (config(), rules).prop_map(|(mut config, (admit, autoscale))| {
        config.admit = vec![admit];
        config.feedback = vec![autoscale];
        config
    })
}

/// Runs the storm through the allocator and the naive one, and calls `after` with every input.
pub fn run(
    config: Config,
    acts: Vec<Act>,
    mut after: impl FnMut(&Allocator, &Naive, Option<RequestId>, &[Decision]),
) {
    let mut allocator = Allocator::new(config.clone()).expect("the storm's policies are valid");
    let mut naive = Naive::new(config);
    let (mut now, mut next_id) = (0u64, 0);
    for act in acts {
        let offered = matches!(act, Act::Arrive(_)).then_some(RequestId(next_id));
        let nth = |n: usize, naive: &Naive| match naive.held.len() {
            0 => RequestId(u64::MAX),
            held => naive.held[n % held].id,
        };
        let input = match act {
            Act::Arrive(info) => {
                next_id += 1;
                Input::Arrived(RequestId(next_id - 1), info)
            }
            Act::Match(back, backend, tokens) => {
                Input::Matched(RequestId(next_id.saturating_sub(back)), backend, tokens)
            }
            Act::ArriveAgain(n, info) if !naive.held.is_empty() => {
                Input::Arrived(nth(n, &naive), info)
            }
            Act::ArriveAgain(..) => Input::Deadline,
            Act::End(n, end, used) => Input::Ended(nth(n, &naive), end, used),
            Act::Begin(n) => Input::FirstToken(nth(n, &naive)),
            Act::Withdraw(n) => Input::Withdrawn(nth(n, &naive)),
            Act::Join(slot, generation, info) => {
                Input::Joined(BackendId { slot, generation }, info)
            }
            Act::Leave(slot, generation) => Input::Left(BackendId { slot, generation }),
            Act::Report(slot, generation, load, age) => {
                let as_of = Time::from_nanos(now.saturating_sub(age));
                Input::Reported(BackendId { slot, generation }, load, as_of)
            }
            Act::Predict(next, tokens) => {
                Input::Predicted(RequestId(if next { next_id } else { u64::MAX }), tokens)
            }
            Act::Drain => Input::Draining,
            Act::Wait(nanos, keep) => {
                let until = now + nanos;
                while let Some(at) = allocator.next_deadline().map(Time::nanos)
                    && keep
                    && at <= until
                {
                    assert!(at > now, "a deadline lies ahead");
                    silence(&mut allocator, &mut naive, at - 1);
                    now = at;
                    let found = both(&mut allocator, &mut naive, now, Input::Deadline);
                    after(&allocator, &naive, None, &found);
                }
                if keep {
                    silence(&mut allocator, &mut naive, until);
                }
                now = until;
                Input::Deadline
            }
        };
        let found = both(&mut allocator, &mut naive, now, input);
        after(&allocator, &naive, offered, &found);
    }
}

/// Before the next deadline time alone changes nothing.
fn silence(allocator: &mut Allocator, naive: &mut Naive, at: u64) {
    let found = both(allocator, naive, at, Input::Deadline);
    assert_eq!(found, [], "something was decided before the deadline");
}

fn both(allocator: &mut Allocator, naive: &mut Naive, at: u64, input: Input) -> Vec<Decision> {
    allocator.handle(Time::from_nanos(at), input.clone());
    let found: Vec<Decision> = std::iter::from_fn(|| allocator.poll()).collect();
    let expected = naive.handle(Time::from_nanos(at), input.clone());
    assert_eq!(found, expected, "at {at} after {input:?}");
    let advice: Vec<Signal> = std::iter::from_fn(|| allocator.poll_signal()).collect();
    assert_eq!(advice, naive.take_signals(), "at {at} after {input:?}");
    found
}
