//! The attribution of waiting time against one that looks at every request in every interval
//! between two facts, over random whole runs.
//!
//! The fold was broken by hand, one change at a time, and each change made a test here, in
//! `measures.rs` or in `reports/tests/blame.rs` fail (a star: one here):
//!
//! - holdings: forget what the rounded parts lack, or give it to the first class *; swap within and
//!   above; count the weights of all classes, or not of those that wait *; keep the parts when
//!   somebody comes to hold more *, or begins to wait *; count the time before a release after it;
//!   forget idle time;
//! - waits: whoever arrived never waits; a new arrival forgets the one of the same instant; a change
//!   of bound moves nobody; waits of the warm-up count *; memory is held by requests; waits for
//!   memory fall on seats; whoever waits when the facts break off is left out *;
//! - engines: the preempted are forgotten *, or go on running *; all wait in the first engine's
//!   queue *; seats are never given back *;
//! - whole nanoseconds: lose the remainder, or give it to the first part *;
//! - inversion: never ends; equals count;
//! - overtakes: the more important count; who came later is passed; clearing away counts twice *;
//! - unfair idle: a full backend, full memory or a wait for seats counts; so does the warm-up;
//! - service: forget the weight; settle nothing; a pause in the backlog does not begin anew.

mod random;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use plimsoll_base::{BackendId, Bound, ClassId, Fact, Observer, RequestId, Span, Stage, Time};
use plimsoll_policy::config::{Place as PlaceRule, Window};
use plimsoll_report::{Blamed, Cause, Ledger, Plan, Resource};
use random::{CLASSES, facts, plan, random_model, random_split_model};

const SEEDS: u64 = 60;

fn fold(plan: &Plan, facts: &[(Time, Fact)]) -> Ledger {
    let mut ledger = Ledger::new(plan);
    facts.iter().for_each(|(now, fact)| ledger.observe(*now, fact));
    ledger
}

/// Where a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Allocator,
    EngineQueue(BackendId),
    Batch(BackendId),
    /// Between the engines of a unit, with the tokens of its prompt.
    Between(BackendId, Stage, u64),
    /// Where it decodes, apart from where its prompt was computed: running, or thrown out.
    Decodes(BackendId, u64),
    ThrownOut(BackendId, u64),
}

#[derive(Clone, Copy, Debug)]
struct Open {
    class: ClassId,
    arrived: Time,
    tokens: u64,
    place: Place,
}

/// Which engines of a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    First,
    Decoding,
}

/// What is waited for: where it belongs to a backend, of which.
type Thing = (Resource, Option<(BackendId, Side)>);

/// Everything that is so at an instant.
#[derive(Default)]
struct State {
    open: BTreeMap<RequestId, Open>,
    bounds: BTreeMap<ClassId, Bound>,
}

impl State {
    fn follow(&mut self, now: Time, fact: &Fact) {
        match fact {
            Fact::Arrived { id, class, .. } => {
                let class = class.expect("every request claims a class");
                let place = Place::Allocator;
                self.open.insert(*id, Open { class, arrived: now, tokens: 0, place });
            }
            Fact::Dispatched { id, backend, tokens, .. } => {
                let open = self.open.get_mut(id).expect("what is dispatched has arrived");
                (open.tokens, open.place) = (*tokens, Place::EngineQueue(*backend));
            }
            Fact::Started { id, backend, .. } => {
                let place = &mut self.open.get_mut(id).expect("it has arrived").place;
                *place = match *place {
                    Place::Between(_, _, tokens) | Place::ThrownOut(_, tokens) => {
                        Place::Decodes(*backend, tokens)
                    }
                    _ => Place::Batch(*backend),
                };
            }
            Fact::Preempted { id, backend, .. } => {
                let place = &mut self.open.get_mut(id).expect("it has arrived").place;
                *place = match *place {
                    Place::Decodes(_, tokens) => Place::ThrownOut(*backend, tokens),
                    _ => Place::EngineQueue(*backend),
                };
            }
            Fact::Handed { id, backend, tokens, stage, .. } => {
                let place = Place::Between(*backend, *stage, u64::from(*tokens));
                self.open.get_mut(id).expect("it has arrived").place = place;
            }
            Fact::Bound { class, bound } => {
                match bound {
                    Some(bound) => self.bounds.insert(*class, *bound),
                    None => self.bounds.remove(class),
                };
            }
            Fact::Closed(record) => {
                self.open.remove(&record.id).expect("what closes has arrived");
            }
            Fact::Gaps { .. }
            | Fact::BackendSampled { .. }
            | Fact::ClassSampled { .. }
            | Fact::Alarmed(_)
            | Fact::Advised(_)
            | Fact::WarmedUp
            | Fact::ArrivalsEnded
            | Fact::RunEnded => {}
        }
    }

    /// What a request waits for, if it waits: the resource or the line.
    fn waits_for(&self, open: &Open) -> Option<Result<Thing, Bound>> {
        let of = |resource, backend, side| Some(Ok((resource, Some((backend, side)))));
        match open.place {
            Place::Batch(_) | Place::Decodes(..) | Place::Between(_, Stage::Moves, _) => None,
            Place::EngineQueue(backend) => of(Resource::Engine, backend, Side::First),
            Place::Between(backend, Stage::AwaitsMemory, _) => {
                of(Resource::DecodeMemory, backend, Side::Decoding)
            }
            Place::Between(backend, Stage::AwaitsLink, _) => {
                of(Resource::Link, backend, Side::Decoding)
            }
            Place::Between(backend, Stage::AwaitsSeat, _) | Place::ThrownOut(backend, _) => {
                of(Resource::Engine, backend, Side::Decoding)
            }
            Place::Allocator => Some(match self.bounds[&open.class] {
                Bound::Seats => Ok((Resource::Seats, None)),
                Bound::KvMemory => Ok((Resource::KvMemory, None)),
                line => Err(line),
            }),
        }
    }

    /// What each class holds of a resource.
    fn held(&self, resource: Thing) -> Vec<u64> {
        let mut held = vec![0; CLASSES];
        for open in self.open.values() {
            held[open.class.index()] += match (resource, open.place) {
                ((Resource::Engine, Some((here, Side::First))), Place::Batch(at)) => {
                    u64::from(here == at)
                }
                ((Resource::Engine, Some((here, Side::Decoding))), Place::Decodes(at, _)) => {
                    u64::from(here == at)
                }
                ((Resource::Link, Some((here, _))), Place::Between(at, Stage::Moves, _)) => {
                    u64::from(here == at)
                }
                (
                    (Resource::DecodeMemory, Some((here, _))),
                    Place::Between(at, _, tokens) | Place::Decodes(at, tokens),
                ) if here == at => {
                    let waits = matches!(open.place, Place::Between(_, Stage::AwaitsMemory, _));
                    if waits { 0 } else { tokens }
                }
                ((Resource::Seats, _), place) if place != Place::Allocator => 1,
                ((Resource::KvMemory, _), place) if place != Place::Allocator => open.tokens,
                _ => 0,
            };
        }
        held
    }
}

/// The parts of one nanosecond of waiting, in 2⁻³² ns, by the rule of the fold's documentation.
fn split(state: &State, weights: &[u32], resource: Thing) -> Vec<(Cause, u128)> {
    let held = state.held(resource);
    let all: u64 = held.iter().sum();
    if all == 0 {
        return vec![(Cause::Idle(resource.0), 1 << 32)];
    }
    let waiting: BTreeSet<ClassId> = (state.open.values())
        .filter(|open| state.waits_for(open) == Some(Ok(resource)))
        .map(|open| open.class)
        .collect();
    let active = |class: usize| held[class] > 0 || waiting.contains(&ClassId(class as u16));
    let weights_active: u128 =
        (0..CLASSES).filter(|&class| active(class)).map(|class| u128::from(weights[class])).sum();
    let mut parts: Vec<u128> =
        held.iter().map(|&held| (u128::from(held) << 32) / u128::from(all)).collect();
    let rest = (1 << 32) - parts.iter().sum::<u128>();
    let most = (0..CLASSES).rev().max_by_key(|&class| held[class]).expect("there are classes");
    parts[most] += rest;
    let mut split = Vec::new();
    for (class, part) in parts.into_iter().enumerate() {
        let share = (u128::from(weights[class]) << 32) / weights_active;
        let id = Some(ClassId(class as u16));
        split.push((Cause::Within(resource.0, id), part.min(share)));
        split.push((Cause::Above(resource.0, id), part.saturating_sub(share)));
    }
    split
}

/// The parts of each class's waiting time in whole nanoseconds.
fn naive(facts: &[(Time, Fact)], weights: &[u32], warm_up: Span) -> Vec<BTreeMap<Cause, u128>> {
    let mut state = State::default();
    let mut cells = vec![BTreeMap::<Cause, u128>::new(); CLASSES];
    for (index, (now, fact)) in facts.iter().enumerate() {
        state.follow(*now, fact);
        let Some((next, _)) = facts.get(index + 1) else { continue };
        let span = u128::from((*next - *now).nanos());
        if span == 0 {
            continue;
        }
        for open in state.open.values().filter(|open| open.arrived >= Time::ZERO + warm_up) {
            let parts = match state.waits_for(open) {
                None => continue,
                Some(Err(line)) => vec![(Cause::Line(line), 1 << 32)],
                Some(Ok(resource)) => split(&state, weights, resource),
            };
            for (cause, part) in parts {
                *cells[open.class.index()].entry(cause).or_default() += part * span;
            }
        }
    }
    cells.into_iter().map(whole).collect()
}

/// Rounded down to whole nanoseconds; what is lacking goes to the largest, of equals to the first
/// by resource, then within before above, then by class.
fn whole(cells: BTreeMap<Cause, u128>) -> BTreeMap<Cause, u128> {
    let all = cells.values().sum::<u128>() >> 32;
    let place = |cause: &Cause| match *cause {
        Cause::Within(resource, class) => (resource as usize, 0, class, *cause),
        Cause::Above(resource, class) => (resource as usize, 1, class, *cause),
        Cause::Idle(resource) => (resource as usize, 2, None, *cause),
        Cause::Line(_) | Cause::Untold => (usize::MAX, 0, None, *cause),
    };
    let largest = cells.iter().max_by_key(|(cause, nanos)| (**nanos, Reverse(place(cause))));
    let largest = largest.map(|(cause, _)| *cause);
    let mut nanos: BTreeMap<Cause, u128> =
        cells.into_iter().map(|(cause, nanos)| (cause, nanos >> 32)).collect();
    let rest = all - nanos.values().sum::<u128>();
    if let Some(largest) = largest {
        *nanos.get_mut(&largest).expect("it is one of them") += rest;
    }
    nanos.retain(|_, nanos| *nanos > 0);
    nanos
}

fn queue_time(facts: &[(Time, Fact)], class: ClassId, warm_up: Span) -> u128 {
    let closed = facts.iter().filter_map(|(_, fact)| match fact {
        Fact::Closed(record) => Some(record),
        _ => None,
    });
    let measured = closed
        .filter(|r| r.class == Some(class) && r.arrived.saturating_since(Time::ZERO) >= warm_up);
    measured.map(|record| u128::from(record.phases.queue.nanos())).sum()
}

#[test]
fn the_parts_are_those_of_every_request_in_every_interval_and_sum_to_the_queue_time() {
    let mut kinds = BTreeMap::<&str, u128>::new();
    for seed in 0..SEEDS {
        // Every third is disaggregated.
        let mut model = match seed % 3 {
            0 => random_split_model(seed),
            _ => random_model(seed),
        };
        // The oracle is slow: shorter runs, with some that are cut off while many wait.
        model.plan.duration = Some(Span::from_secs(20));
        model.plan.drain_max = Span::from_secs(seed % 3 * 5);
        let plan = plan(&model);
        let facts = facts(&model, u64::MAX);
        let ledger = fold(&plan, &facts);
        let weights: Vec<u32> = plan.classes.iter().map(|class| class.weight).collect();
        let expected = naive(&facts, &weights, model.plan.warm_up);
        for class in (0..CLASSES).map(|class| ClassId(class as u16)) {
            let parts = ledger.blamed(class);
            let sum: u128 = parts.iter().map(|part| part.nanos).sum();
            assert_eq!(sum, queue_time(&facts, class, plan.warm_up), "seed {seed} class {class}");
            let parts: BTreeMap<Cause, u128> =
                parts.into_iter().map(|Blamed { cause, nanos }| (cause, nanos)).collect();
            assert_eq!(parts, expected[class.index()], "seed {seed} class {class}");
            parts.iter().for_each(|(cause, nanos)| *kinds.entry(kind(cause)).or_default() += nanos);
        }
        let mut last = facts.len();
        while last > 0 && seed % 10 == 0 {
            last /= 2;
            check_so_far(&plan, &facts[..last]);
        }
    }
    println!("{kinds:?}");
    let handed = ["decode memory", "link"];
    for kind in ["seats within", "seats above", "memory", "engine", "own cap"].iter().chain(&handed)
    {
        assert!(kinds.get(*kind) > Some(&1_000_000_000), "the runs must show {kind}: {kinds:?}");
    }
    assert_eq!(kinds.get("untold"), None, "what stops whoever waits is told");
}

/// Facts may break off anywhere: the parts are those of what has been waited so far.
fn check_so_far(plan: &Plan, facts: &[(Time, Fact)]) {
    let ledger = fold(plan, facts);
    let weights: Vec<u32> = plan.classes.iter().map(|class| class.weight).collect();
    let expected = naive(facts, &weights, plan.warm_up);
    for class in (0..CLASSES).map(|class| ClassId(class as u16)) {
        let parts = ledger.blamed(class).into_iter().map(|part| (part.cause, part.nanos));
        assert_eq!(parts.collect::<BTreeMap<_, _>>(), expected[class.index()]);
    }
}

fn kind(cause: &Cause) -> &'static str {
    match cause {
        Cause::Within(Resource::Seats, _) => "seats within",
        Cause::Above(Resource::Seats, _) => "seats above",
        Cause::Within(Resource::KvMemory, _) | Cause::Above(Resource::KvMemory, _) => "memory",
        Cause::Within(Resource::Engine, _) | Cause::Above(Resource::Engine, _) => "engine",
        Cause::Within(Resource::DecodeMemory, _) | Cause::Above(Resource::DecodeMemory, _) => {
            "decode memory"
        }
        Cause::Within(Resource::Link, _) | Cause::Above(Resource::Link, _) => "link",
        Cause::Idle(_) => "idle",
        Cause::Line(_) => "own cap",
        Cause::Untold => "untold",
    }
}

/// The window is open: all waiting is inside engines.
#[test]
fn waits_inside_engines_are_split_by_who_runs_there() {
    for seed in 0..20 {
        let mut model = random_model(seed);
        model.policy.window = Window::None;
        model.policy.feedback.clear();
        model.policy.partition.clear();
        model.policy.place = vec![PlaceRule::LeastTokens];
        for class in &mut model.policy.classes {
            (class.requests_max, class.tokens_max, class.sites) = (None, None, 0);
        }
        let ledger = fold(&plan(&model), &facts(&model, u64::MAX));
        for class in (0..CLASSES).map(|class| ClassId(class as u16)) {
            let in_engine = |part: &Blamed| {
                matches!(
                    part.cause,
                    Cause::Within(Resource::Engine, _)
                        | Cause::Above(Resource::Engine, _)
                        | Cause::Idle(Resource::Engine)
                )
            };
            assert!(ledger.blamed(class).iter().all(in_engine), "seed {seed}");
        }
    }
}
