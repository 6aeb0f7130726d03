//! One allocator takes over from another: nothing that is held is lost, and it goes on to its end.

use std::collections::BTreeMap;

use plimsoll_base::{BackendId, ClassId, End, Reason, RequestId, Span, Time};
use plimsoll_policy::{Action, Allocator, BackendInfo, Config, Decision, Held, Input, Used};
use proptest::prelude::*;

use crate::naive::Naive;
use crate::storm;

/// Classes of every policy here.
const CLASSES: usize = 5;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// In the middle of any storm, under any policy, the same or another.
    #[test]
    fn nothing_is_lost(
        config in storm::config(), other in storm::config(), same in any::<bool>(),
        acts in storm::acts(),
    ) {
        let other = if same { config.clone() } else { other };
        let mut last = None;
        let mut now = Time::ZERO;
        storm::run(config, acts, |allocator, naive, _, _| {
            now = allocator.snapshot().now;
            last = Some((allocator.handover(), backends(naive), held(naive)));
        });
        let Some((handover, backends, held)) = last else { return Ok(()) };
        prop_assume!(held.values().all(|(class, _)| class.index() < other.classes.len()));
        take_over(other, now, &handover, (&backends, held));
    }
}

fn backends(naive: &Naive) -> BTreeMap<BackendId, BackendInfo> {
    naive.backends.iter().map(|(&id, &info)| (id, info)).collect()
}

/// Every request held: its class, and where it runs.
fn held(naive: &Naive) -> BTreeMap<RequestId, (ClassId, Option<BackendId>)> {
    naive.held.iter().map(|held| (held.id, (held.class, held.at))).collect()
}

type Sums = BTreeMap<RequestId, (ClassId, Option<BackendId>)>;

/// Tells it all to a fresh allocator, then lets everything end.
fn take_over(
    config: Config,
    now: Time,
    handover: &[Input],
    (backends, mut held): (&BTreeMap<BackendId, BackendInfo>, Sums),
) {
    assert!(config.classes.len() <= CLASSES);
    let mut allocator = Allocator::new(config.clone()).expect("a policy");
    for (&id, &info) in backends {
        assert_eq!(tell(&mut allocator, now, Input::Joined(id, info)), []);
    }
    let told = handover.iter().map(|input| match *input {
        Input::Resumed(id, _, Held { class, backend, .. }) => (id, (class, backend)),
        ref other => panic!("{other:?} resumes nothing"),
    });
    assert_eq!(told.collect::<Sums>(), held);
    for input in handover {
        let decisions = tell(&mut allocator, now, input.clone());
        follow(&mut held, input, &decisions);
    }
    agree(&allocator, &held);
    drain(&mut allocator, now, held);
}

fn tell(allocator: &mut Allocator, now: Time, input: Input) -> Vec<Decision> {
    allocator.handle(now, input);
    let decisions = std::iter::from_fn(|| allocator.poll()).collect();
    while allocator.poll_signal().is_some() {}
    decisions
}

fn follow(held: &mut Sums, input: &Input, decisions: &[Decision]) {
    for decision in decisions {
        let entry = held.get_mut(&decision.id).expect("decisions are about what is held");
        match (decision.action, decision.reason) {
            (Action::Dispatch(backend, _), Reason::Resumed) => {
                assert!(matches!(input, Input::Resumed(id, ..) if *id == decision.id));
                assert_eq!(entry.1, Some(backend), "what runs is left where it is");
            }
            (Action::Dispatch(backend, _), _) => {
                assert_eq!(entry.1, None, "nothing is dispatched twice");
                entry.1 = Some(backend);
            }
            (Action::Reject(..) | Action::Close(_), _) => {
                assert_eq!(entry.1, None, "what runs is not turned away");
                held.remove(&decision.id);
            }
            (Action::Cancel(backend), _) => assert_eq!(entry.1, Some(backend)),
            (Action::Preempt(_), _) => panic!("no rule preempts"),
        }
    }
}

fn agree(allocator: &Allocator, held: &Sums) {
    for class in (0..CLASSES as u16).map(ClassId) {
        let waiting = held.values().filter(|&&(of, at)| of == class && at.is_none());
        assert_eq!(allocator.queued(class) as usize, waiting.count());
    }
    let running = held.values().filter(|(_, at)| at.is_some()).count();
    assert_eq!(allocator.in_flight() as usize, running);
    let snapshot = allocator.snapshot();
    for state in &snapshot.backends {
        let on = held.values().filter(|(_, at)| *at == Some(state.backend)).count();
        assert_eq!(state.requests.0 as usize, on);
    }
}

/// Everything that runs ends, again and again; what waits goes or lives out its time.
fn drain(allocator: &mut Allocator, mut now: Time, mut held: Sums) {
    while let Some((&id, &(_, at))) = held.iter().max_by_key(|(_, (_, at))| at.is_some()) {
        now += Span::from_nanos(1);
        let input = match at {
            Some(_) => Input::Ended(id, End::Finished, Used::default()),
            None => Input::Withdrawn(id),
        };
        if at.is_some() {
            held.remove(&id);
        }
        let decisions = tell(allocator, now, input.clone());
        follow(&mut held, &input, &decisions);
        agree(allocator, &held);
    }
    let snapshot = allocator.snapshot();
    assert!(snapshot.backends.iter().all(|state| state.requests.0 == 0 && state.tokens.0 == 0));
}

/// Who waits keeps its place and its age.
#[test]
fn order_and_age_are_kept() {
    use plimsoll_policy::RequestInfo;
    use plimsoll_policy::config::{Class, Share};
    let config = Config::plain(Share::Fcfs, vec![Class::default()]);
    let at = Time::from_nanos;
    let one = BackendId::first(0);
    let info = BackendInfo { seats: 1, kv_tokens: 1000, context_max: 1000, ..Default::default() };
    let mut before = Allocator::new(config.clone()).expect("a policy");
    tell(&mut before, at(0), Input::Joined(one, info));
    let claims = Some(ClassId(0));
    let request = RequestInfo { claims, prompt_tokens: 1, output_cap: 1, ..Default::default() };
    for id in 0..3 {
        tell(&mut before, at(10 + id), Input::Arrived(RequestId(id), request));
    }
    let mut after = Allocator::new(config).expect("a policy");
    tell(&mut after, at(50), Input::Joined(one, info));
    for input in before.handover() {
        let decisions = tell(&mut after, at(50), input);
        assert!(decisions.iter().all(|decision| decision.reason == Reason::Resumed));
    }
    assert_eq!(after.oldest_arrival(ClassId(0)), Some(at(11)));
    let ended = |id| Input::Ended(RequestId(id), End::Finished, Used::default());
    assert_eq!(tell(&mut after, at(60), ended(0))[0].id, RequestId(1));
    assert_eq!(tell(&mut after, at(61), ended(1))[0].id, RequestId(2));
}
