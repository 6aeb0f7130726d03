//! Rules of partition on scripts, and what quotas promise over random loads.

#[path = "support/script.rs"]
mod script;
mod support;

use std::collections::BTreeMap;

use plimsoll_base::{Bound, ClassId, RequestId};
use plimsoll_policy::config::{Class, Concurrency, Partition, Quota, QuotaGroup, QuotaUnit, Share};
use plimsoll_policy::{Action, Allocator, Config, ConfigError, Decision, Field, Input, Problem};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use script::{new, over as end, play};
use support::{class, config, join, step};

/// `3>0 quota`: request 3 to backend 0, had waited for quota.
fn tell(decision: &Decision) -> String {
    let action = match decision.action {
        Action::Dispatch(backend, _) => format!(">{backend}"),
        Action::Reject(refusal, span) => format!(" {} in {span}", refusal.name()),
        Action::Close(end) => format!(" {end:?}"),
        Action::Preempt(backend) | Action::Cancel(backend) => format!("x{backend}"),
    };
    let bound = decision.bound.map(|bound| format!(" {}", bound.name())).unwrap_or_default();
    format!("{}{action}{bound}", decision.id)
}

fn root(nominal: u64) -> QuotaGroup {
    QuotaGroup { nominal, ..QuotaGroup::default() }
}
fn leaf(parent: u16, nominal: u64, class: u16) -> QuotaGroup {
    QuotaGroup {
        parent: Some(parent),
        nominal,
        classes: vec![ClassId(class)],
        ..QuotaGroup::default()
    }
}
fn quota(unit: QuotaUnit, groups: Vec<QuotaGroup>, classes: Vec<Class>) -> Config {
    let partition = vec![Partition::Quota(Quota { unit, groups })];
    Config { partition, ..config(Share::Fcfs, classes) }
}
fn of_requests(groups: Vec<QuotaGroup>, classes: usize) -> Config {
    quota(QuotaUnit::Requests, groups, vec![class(); classes])
}

#[test]
fn a_group_borrows_what_others_leave_and_gives_it_back() {
    let groups = vec![root(4), leaf(0, 2, 0), leaf(0, 2, 1)];
    play(
        of_requests(groups, 2),
        vec![
            (0, join(0, 99, 10_000), ""),
            (1, new(0, 0, 10), "0>0"),
            (1, new(1, 0, 10), "1>0"),
            (1, new(2, 0, 10), "2>0"),
            (1, new(3, 0, 10), "3>0"),
            // All that there is. The borrower waits, and so does the lender.
            (2, new(4, 0, 10), ""),
            (3, new(5, 1, 10), ""),
            (3, new(6, 1, 10), ""),
            // What comes back is the lender's, though the borrower is before it.
            (4, end(0), "5>0 quota"),
            (5, end(1), "6>0 quota"),
            (6, end(2), "4>0 quota"),
        ],
        tell,
    );
}

#[test]
fn borrowing_and_lending_are_limited() {
    let borrower = QuotaGroup { borrow_max: Some(1), ..leaf(0, 2, 0) };
    play(
        of_requests(vec![root(6), borrower, leaf(0, 2, 1)], 2),
        vec![
            (0, join(0, 99, 10_000), ""),
            (1, new(0, 0, 10), "0>0"),
            (1, new(1, 0, 10), "1>0"),
            (1, new(2, 0, 10), "2>0"),
            (1, new(3, 0, 10), ""),
            (2, end(0), "3>0 quota"),
        ],
        tell,
    );
    let lender = QuotaGroup { lend_max: Some(1), ..leaf(0, 3, 1) };
    play(
        of_requests(vec![root(4), leaf(0, 1, 0), lender], 2),
        vec![
            (0, join(0, 99, 10_000), ""),
            (1, new(0, 0, 10), "0>0"),
            (1, new(1, 0, 10), "1>0"),
            (1, new(2, 0, 10), ""),
            // Two of its three are never lent.
            (2, new(3, 1, 10), "3>0"),
            (2, new(4, 1, 10), "4>0"),
            (2, new(5, 1, 10), ""),
            (3, end(0), "5>0 quota"),
        ],
        tell,
    );
}

#[test]
fn a_tree_lends_near_before_far() {
    // Two departments of 2 with two teams of 1 each.
    let middle = || QuotaGroup { parent: Some(0), nominal: 2, ..QuotaGroup::default() };
    let groups = vec![
        root(4),
        middle(),
        middle(),
        leaf(1, 1, 0),
        leaf(1, 1, 1),
        leaf(2, 1, 2),
        leaf(2, 1, 3),
    ];
    play(
        of_requests(groups, 4),
        vec![
            (0, join(0, 99, 10_000), ""),
            (1, new(0, 0, 10), "0>0"),
            (1, new(1, 0, 10), "1>0"),
            (1, new(2, 0, 10), "2>0"),
            (1, new(3, 2, 10), "3>0"),
            // All four are in use. Class 3 claims what the first department borrowed; class 1
            // would borrow for its department, and class 0 for itself as well.
            (2, new(4, 0, 10), ""),
            (2, new(5, 1, 10), ""),
            (2, new(6, 3, 10), ""),
            (3, end(0), "6>0 quota"),
            (4, end(1), "5>0 quota"),
            (5, end(6), "4>0 quota"),
        ],
        tell,
    );
}

#[test]
fn tokens_are_counted_as_estimated() {
    let groups =
        vec![root(100), leaf(0, 60, 0), QuotaGroup { borrow_max: Some(10), ..leaf(0, 40, 1) }];
    play(
        quota(QuotaUnit::Tokens, groups, vec![class(); 2]),
        vec![
            (0, join(0, 99, 10_000), ""),
            (1, new(0, 1, 51), "0 over_quota in 0 s"),
            (1, new(1, 1, 50), "1>0"),
            (2, new(2, 0, 60), ""),
            (2, new(3, 0, 10), ""),
            (3, end(1), "2>0 quota; 3>0 quota"),
            (4, new(4, 1, 40), ""),
            (5, end(3), "4>0 quota"),
        ],
        tell,
    );
}

/// Small requests that borrow do not slip by a large one of the lender, or it would never fit.
#[test]
fn a_lender_with_a_large_request_is_not_starved_by_small_loans() {
    let groups = vec![root(100), leaf(0, 50, 0), leaf(0, 50, 1)];
    play(
        quota(QuotaUnit::Tokens, groups, vec![class(); 2]),
        vec![
            (0, join(0, 99, 10_000), ""),
            (1, new(0, 0, 40), "0>0"),
            (1, new(1, 0, 30), "1>0"),
            (1, new(2, 0, 20), "2>0"),
            // The lender waits for 40, which are its own; 10 are free, and not for borrowers.
            (2, new(3, 1, 40), ""),
            (3, new(4, 0, 10), ""),
            (4, end(2), ""),
            (5, end(1), "3>0 quota; 4>0 quota"),
        ],
        tell,
    );
}

#[test]
fn shares_of_seats_follow_the_backends() {
    let shares_ppm = vec![(ClassId(0), 500_000), (ClassId(1), 300_000)];
    let partition = vec![Partition::Concurrency(Concurrency { shares_ppm })];
    play(
        Config { partition, ..config(Share::Fcfs, vec![class(); 3]) },
        vec![
            (0, join(0, 5, 10_000), ""),
            // 2.5 are 2, 1.5 is 1.
            (1, new(0, 0, 10), "0>0"),
            (1, new(1, 0, 10), "1>0"),
            (1, new(2, 0, 10), ""),
            (1, new(3, 1, 10), "3>0"),
            (1, new(4, 1, 10), ""),
            // A class without a share takes what there is.
            (1, new(5, 2, 10), "5>0"),
            (2, join(1, 3, 10_000), "2>1 class_requests; 4>1 class_requests"),
            (3, Input::Left(plimsoll_base::BackendId::first(1)), ""),
            (4, new(6, 0, 10), ""),
            (5, end(2), ""),
            (6, end(0), "6>0 class_requests"),
            // At least one, of however few.
            (7, Input::Left(plimsoll_base::BackendId::first(0)), ""),
            (7, end(1), ""),
            (7, end(6), ""),
            (8, join(2, 1, 10_000), ""),
            (8, end(3), ""),
            (8, end(4), ""),
            (9, new(7, 1, 10), "7>2"),
        ],
        tell,
    );
}

#[test]
fn quotas_that_do_not_fit_are_an_error() {
    let group = |group, field, problem| Err(ConfigError::Group(0, group, field, problem));
    let lends = QuotaGroup { lend_max: Some(3), ..leaf(0, 2, 0) };
    let poor = QuotaGroup { borrow_max: Some(0), ..leaf(0, 0, 0) };
    let mut tall = vec![root(1)];
    tall.extend((0..8).map(|at| QuotaGroup { parent: Some(at), ..root(1) }));
    for (groups, expected) in [
        (vec![root(3), leaf(0, 2, 0), leaf(0, 1, 1)], Ok(())),
        (
            vec![root(3), leaf(0, 2, 0), leaf(0, 2, 1)],
            group(0, Field::Nominal, Problem::ChildrenExceed(4)),
        ),
        (vec![root(3), leaf(1, 2, 0)], group(1, Field::Parent, Problem::NoSuchGroup)),
        (vec![root(3), lends], group(1, Field::LendMax, Problem::Above(2))),
        (vec![root(3), poor], group(1, Field::Nominal, Problem::AdmitsNothing)),
        (vec![root(3), leaf(0, 1, 0), leaf(0, 1, 0)], group(2, Field::Class, Problem::Twice)),
        (vec![root(3), leaf(0, 1, 9)], group(1, Field::Class, Problem::NoSuchClass(ClassId(9)))),
        (vec![root(3), leaf(0, 1, 0), leaf(1, 1, 1)], group(1, Field::Class, Problem::IsNoLeaf)),
        (
            vec![QuotaGroup { borrow_max: Some(1), ..root(3) }],
            group(0, Field::BorrowMax, Problem::IsRoot),
        ),
        (tall, group(8, Field::Parent, Problem::TooDeep(8))),
    ] {
        assert_eq!(of_requests(groups, 2).check(), expected);
    }
    let shares = |shares_ppm| {
        let rule = Partition::Concurrency(Concurrency { shares_ppm });
        Config { partition: vec![rule], ..config(Share::Fcfs, vec![class()]) }.check()
    };
    let wrong = |field, problem| Err(ConfigError::Partition(0, field, problem));
    assert_eq!(shares(vec![(ClassId(0), 1_000_000)]), Ok(()));
    assert_eq!(shares(vec![(ClassId(0), 0)]), wrong(Field::Shares, Problem::Below(1)));
    assert_eq!(
        shares(vec![(ClassId(0), 1_000_001)]),
        wrong(Field::Shares, Problem::Above(1_000_000))
    );
}

/// What is offered: when, by which class, how large, and how long it runs.
#[derive(Clone, Copy, Debug)]
struct Load {
    at: u64,
    class: usize,
    tokens: u32,
    run: u64,
}

fn loads(classes: usize) -> impl Strategy<Value = Vec<Load>> {
    vec((0u64..3, 0..classes, 1u32..10, 1u64..20), 60..200).prop_map(|loads| {
        let mut at = 0;
        let make = |(gap, class, tokens, run)| {
            at += gap;
            Load { at, class, tokens, run }
        };
        loads.into_iter().map(make).collect()
    })
}

/// Four classes below one root, with limits.
fn flat() -> impl Strategy<Value = Vec<QuotaGroup>> {
    let group = (1u64..4, of(0u64..4), of(0u64..3));
    (vec(group, 4), 0u64..3).prop_map(|(leaves, spare)| {
        let sum: u64 = leaves.iter().map(|leaf| leaf.0).sum();
        let mut groups = vec![root(sum + spare)];
        for (class, (nominal, borrow_max, lend_max)) in (0..).zip(leaves) {
            let lend_max = lend_max.map(|lent: u64| lent.min(nominal));
            groups.push(QuotaGroup { borrow_max, lend_max, ..leaf(0, nominal, class) });
        }
        groups
    })
}

/// A running request: its class, what it counts, and when it ends.
type Running = BTreeMap<RequestId, (usize, u64, u64)>;

/// Runs the loads on more seats than there are requests, and calls `after` each input with the
/// instant, what runs, what waits (arrival order, indices into `loads`) and what was dispatched.
fn serve(policy: Config, loads: &[Load], mut after: impl FnMut(u64, &Running, &[usize], &[usize])) {
    let is_requests = matches!(
        policy.partition.first(),
        Some(Partition::Quota(Quota { unit: QuotaUnit::Requests, .. }))
    );
    let mut allocator = Allocator::new(policy).expect("valid");
    step(&mut allocator, 0, join(0, 10_000, 1_000_000));
    let (mut running, mut waiting, mut next) = (Running::new(), Vec::new(), 0);
    loop {
        let ends = running.iter().map(|(id, (_, _, at))| (*at, *id)).min();
        let arrival = loads.get(next).map(|load| load.at);
        let (now, input) = match (ends, arrival) {
            (Some((at, id)), arrival) if arrival.is_none_or(|other| at <= other) => {
                running.remove(&id);
                (at, end(id.0))
            }
            (_, Some(at)) => {
                waiting.push(next);
                next += 1;
                (at, new(next as u64 - 1, loads[next - 1].class as u16, loads[next - 1].tokens))
            }
            (_, None) => break,
        };
        let mut sent = Vec::new();
        for decision in step(&mut allocator, now, input) {
            let index = decision.id.0 as usize;
            waiting.retain(|other| *other != index);
            assert!(decision.bound.is_none_or(|bound| bound == Bound::Quota), "{decision:?}");
            if let Action::Dispatch(..) = decision.action {
                let Load { class, tokens, run, .. } = loads[index];
                let amount = if is_requests { 1 } else { u64::from(tokens) };
                running.insert(decision.id, (class, amount, now + run));
                sent.push(index);
            }
        }
        after(now, &running, &waiting, &sent);
    }
    assert!(waiting.is_empty(), "{waiting:?} wait for ever");
}

fn used(running: &Running, class: usize) -> u64 {
    running.values().filter(|(other, ..)| *other == class).map(|(_, amount, _)| amount).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Never above nominal + borrow_max, nor the sum above the root's, guarantees included.
    #[test]
    fn usage_keeps_to_its_limits(
        groups in flat(), loads in loads(4), in_tokens in any::<bool>(),
    ) {
        let unit = if in_tokens { QuotaUnit::Tokens } else { QuotaUnit::Requests };
        let times = if in_tokens { 9 } else { 1 };
        let mut groups = groups;
        for group in &mut groups {
            group.nominal *= times;
            group.borrow_max = group.borrow_max.map(|most| most * times);
            group.lend_max = group.lend_max.map(|most| most * times);
        }
        serve(quota(unit, groups.clone(), vec![class(); 4]), &loads, |_, running, _, _| {
            let mut sum = 0;
            for (class, group) in groups[1..].iter().enumerate() {
                let used = used(running, class);
                let most = group.borrow_max.map_or(u64::MAX, |most| group.nominal + most);
                assert!(used <= most, "{class} uses {used}");
                sum += used.max(group.lend_max.map_or(0, |lent| group.nominal - lent));
            }
            assert!(sum <= groups[0].nominal, "{sum}");
        });
    }

    /// While anyone below its nominal quota waits, nothing goes that borrows.
    #[test]
    fn nobody_below_nominal_waits_behind_a_borrower(groups in flat(), loads in loads(4)) {
        let policy = of_requests(groups.clone(), 4);
        let mut lenders: Vec<usize> = Vec::new();
        serve(policy, &loads, |_, running, waiting, sent| {
            let nominal = |class: usize| groups[class + 1].nominal;
            for class in sent.iter().map(|index| loads[*index].class) {
                let borrowed = used(running, class) > nominal(class);
                let others = lenders.iter().filter(|other| **other != class);
                let still = others.filter(|other| waiting.iter().any(|w| loads[*w].class == **other));
                assert!(!borrowed || still.count() == 0, "{class} borrowed before {lenders:?}");
            }
            let below = |class: &usize| {
                used(running, *class) < nominal(*class)
                    && waiting.iter().any(|index| loads[*index].class == *class)
            };
            lenders = (0..4).filter(below).collect();
            // Nominal is denied only while the whole is full.
            let kept = |class: usize| groups[class + 1].lend_max.map_or(0, |l| nominal(class) - l);
            let sum: u64 = (0..4).map(|class| used(running, class).max(kept(class))).sum();
            assert!(lenders.is_empty() || sum >= groups[0].nominal, "{lenders:?}");
        });
    }

    /// What is lent comes back within the longest remaining run of what runs when the lender
    /// begins to wait below its nominal quota.
    #[test]
    fn lent_capacity_returns_in_time(groups in flat(), loads in loads(4)) {
        let mut due: BTreeMap<usize, u64> = BTreeMap::new();
        serve(of_requests(groups.clone(), 4), &loads, |now, running, waiting, _| {
            for class in 0..4 {
                let waits = used(running, class) < groups[class + 1].nominal
                    && waiting.iter().any(|index| loads[*index].class == class);
                let longest = running.values().map(|(_, _, at)| *at).max().unwrap_or(now);
                match (waits, due.get(&class)) {
                    (false, _) => { due.remove(&class); }
                    (true, None) => { due.insert(class, longest); }
                    (true, Some(&at)) => assert!(now <= at, "{class} waits at {now}, due {at}"),
                }
            }
        });
    }

    /// The same in tokens, where small requests could slip by: a head that is within its class's
    /// nominal quota goes once all that ran when it became the head has ended.
    #[test]
    fn lent_tokens_return_in_time(groups in flat(), loads in loads(4)) {
        let groups: Vec<QuotaGroup> = groups
            .into_iter()
            .map(|group| QuotaGroup {
                nominal: group.nominal * 9, borrow_max: None, lend_max: None, ..group
            })
            .collect();
        let policy = quota(QuotaUnit::Tokens, groups.clone(), vec![class(); 4]);
        let mut due: BTreeMap<usize, (usize, u64)> = BTreeMap::new();
        serve(policy, &loads, |now, running, waiting, _| {
            for class in 0..4 {
                let head = waiting.iter().copied().find(|index| loads[*index].class == class);
                let own = head.filter(|head| {
                    used(running, class) + u64::from(loads[*head].tokens) <= groups[class + 1].nominal
                });
                let longest = running.values().map(|(_, _, at)| *at).max().unwrap_or(now);
                match (own, due.get(&class)) {
                    (None, _) => { due.remove(&class); }
                    (Some(head), Some(&(same, at))) if same == head => {
                        assert!(now <= at, "{head} waits at {now}, due {at}");
                    }
                    (Some(head), _) => { due.insert(class, (head, longest)); }
                }
            }
        });
    }

    /// In a tree it returns within one longest run a level, and nobody waits for ever.
    #[test]
    fn a_tree_returns_what_it_lent_level_by_level(
        loads in loads(4), spare in 0u64..2, nominal in vec(1u64..3, 4),
    ) {
        let middle = |a: usize| QuotaGroup {
            parent: Some(0), nominal: nominal[a] + nominal[a + 1], ..QuotaGroup::default()
        };
        let sum: u64 = nominal.iter().sum();
        let mut groups = vec![root(sum + spare), middle(0), middle(2)];
        groups.extend((0..4).map(|class| leaf(1 + class / 2, nominal[usize::from(class)], class)));
        let mut since: BTreeMap<usize, u64> = BTreeMap::new();
        let longest = loads.iter().map(|load| load.run).max().unwrap_or(0);
        serve(of_requests(groups, 4), &loads, |now, running, waiting, _| {
            for (class, nominal) in nominal.iter().enumerate() {
                let waits = used(running, class) < *nominal
                    && waiting.iter().any(|index| loads[*index].class == class);
                if !waits {
                    since.remove(&class);
                    continue;
                }
                let began = *since.entry(class).or_insert(now);
                assert!(now <= began + 2 * longest, "{class} waits at {now} since {began}");
            }
        });
    }
}
