//! The chronicle under random storms: every request that arrives closes once, time is conserved,
//! and the facts are those of the decisions.

#[path = "support/inputs.rs"]
#[allow(dead_code, reason = "only the inputs are used here")]
mod inputs;
#[path = "support/naive.rs"]
#[allow(dead_code, reason = "the storm names it")]
mod naive;
#[path = "support/storm.rs"]
#[allow(dead_code, reason = "only its policies and acts are used here")]
mod storm;

use std::collections::BTreeMap;

use plimsoll_base::{
    BackendId, ClassId, End, Fact, Outcome, Reason, RequestId, RequestRecord, Span, Time,
};
use plimsoll_policy::config::{Class, Share};
use plimsoll_policy::{
    Action, Allocator, BackendInfo, Chronicle, Config, Decision, Held, Input, Load, RequestInfo,
    Signal, Used,
};
use proptest::prelude::*;

const EVERY: Span = Span::from_nanos(50);

/// An allocator and its chronicle.
struct Pair {
    allocator: Allocator,
    chronicle: Chronicle,
    facts: Vec<(Time, Fact)>,
    decisions: Vec<Decision>,
    now: Time,
}

impl Pair {
    fn new(config: &Config) -> Pair {
        Pair {
            allocator: Allocator::new(config.clone()).expect("a valid policy"),
            chronicle: Chronicle::new(config, EVERY),
            facts: Vec::new(),
            decisions: Vec::new(),
            now: Time::ZERO,
        }
    }

    fn tell(&mut self, now: Time, input: &Input) {
        let Pair { allocator, chronicle, facts, .. } = self;
        self.now = now;
        allocator.handle(now, input.clone());
        chronicle.input(now, input, allocator, facts);
        while let Some(decision) = allocator.poll() {
            chronicle.decision(now, &decision, allocator, facts);
            self.decisions.push(decision);
        }
        while let Some(signal) = allocator.poll_signal() {
            chronicle.signal(now, &signal, facts);
            assert!(matches!(signal, Signal::Scale(_)));
        }
        let before = facts.len();
        chronicle.rest(now, allocator, facts);
        self.gauges(before);
    }

    /// Samples told from there on are what the allocator holds.
    fn gauges(&self, from: usize) {
        let running = self.facts[from..].iter().filter_map(|(_, fact)| match fact {
            Fact::ClassSampled { class, sample } => {
                assert_eq!(sample.queued, self.allocator.queued(*class));
                Some(sample.running)
            }
            _ => None,
        });
        let running: Vec<u32> = running.collect();
        if running.len() == self.allocator.snapshot().classes.len() {
            assert_eq!(running.iter().sum::<u32>(), self.allocator.in_flight());
        }
    }

    fn finish(&mut self) -> Facts {
        self.chronicle.finish(self.now, &mut self.facts);
        assert_eq!(self.facts.last(), Some(&(self.now, Fact::RunEnded)));
        let facts = Facts::of(&self.facts);
        let dispatched = self.decisions.iter().filter(|d| matches!(d.action, Action::Dispatch(..)));
        assert_eq!(facts.dispatched, dispatched.count());
        let turned_away = |action| matches!(action, Action::Reject(..) | Action::Close(_));
        let turned_away = self.decisions.iter().filter(|d| turned_away(d.action)).count();
        let never_in = facts.closed.values().filter(|record| record.dispatched.is_none());
        let never_in = never_in.filter(|record| record.outcome != Outcome::Unfinished);
        assert_eq!(never_in.count(), turned_away);
        facts
    }
}

/// What the facts say, checked on the way.
#[derive(Default)]
struct Facts {
    open: BTreeMap<RequestId, (Option<ClassId>, Time)>,
    /// The latest record of each id: an id of a request that closed may come again.
    closed: BTreeMap<(RequestId, usize), RequestRecord>,
    dispatched: usize,
}

impl Facts {
    fn of(told: &[(Time, Fact)]) -> Facts {
        let mut facts = Facts::default();
        let mut latest = Time::ZERO;
        for (now, fact) in told {
            assert!(*now >= latest, "facts are told in order");
            latest = *now;
            facts.note(*now, fact);
        }
        assert!(facts.open.is_empty(), "every request closes: {:?}", facts.open);
        facts
    }

    fn note(&mut self, now: Time, fact: &Fact) {
        match fact {
            Fact::Arrived { id, class, arrived, .. } => {
                assert!(*arrived <= now);
                assert!(self.open.insert(*id, (*class, *arrived)).is_none(), "{id:?} is new");
            }
            Fact::Dispatched { id, class, arrived, .. } => {
                assert_eq!(self.open[id], (Some(*class), *arrived));
                self.dispatched += 1;
            }
            Fact::Closed(record) => {
                assert_eq!(self.open.remove(&record.id), Some((record.class, record.arrived)));
                assert_eq!(record.closed, now);
                assert_eq!(record.phases.total(), now - record.arrived, "time is conserved");
                assert_eq!(record.dispatched, record.started);
                let number = self.closed.len();
                self.closed.insert((record.id, number), *record);
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_storm_is_conserved(
        config in storm::config(), acts in storm::acts(), part in 0.0f64..1.0,
    ) {
        let inputs = inputs::inputs(acts);
        let (before, after) = inputs.split_at((inputs.len() as f64 * part) as usize);
        let mut first = Pair::new(&config);
        before.iter().for_each(|(now, input)| first.tell(*now, input));
        // Another takes over: the same backends, who is held, then the rest of the storm.
        let mut second = Pair::new(&config);
        let joined = before.iter().filter(|(_, input)| matches!(input, Input::Joined(..)));
        joined.for_each(|(_, input)| second.tell(first.now, input));
        for input in first.allocator.handover() {
            second.tell(first.now, &input);
        }
        after.iter().for_each(|(now, input)| second.tell(*now, input));
        first.finish();
        second.finish();
    }
}

fn at(secs: u64) -> Time {
    Time::ZERO + Span::from_secs(secs)
}

fn one_backend() -> (Pair, RequestInfo) {
    let mut pair = Pair::new(&Config::plain(Share::Fcfs, vec![Class::default()]));
    let info = BackendInfo { seats: 1, kv_tokens: 1000, context_max: 1000, ..Default::default() };
    pair.tell(at(0), &Input::Joined(BackendId::first(0), info));
    let claims = Some(ClassId(0));
    (pair, RequestInfo { claims, prompt_tokens: 10, output_cap: 20, ..RequestInfo::default() })
}

fn ended(id: u64, output_tokens: u32) -> Input {
    Input::Ended(RequestId(id), End::Finished, Used { prompt_tokens: 10, output_tokens })
}

fn closed(facts: &Facts) -> Vec<RequestRecord> {
    facts.closed.values().copied().collect()
}

#[test]
fn streamed_and_not_streamed() {
    let (mut pair, info) = one_backend();
    pair.tell(at(1), &Input::Arrived(RequestId(0), info));
    pair.tell(at(2), &Input::Arrived(RequestId(1), info));
    pair.tell(at(4), &Input::FirstToken(RequestId(0)));
    pair.tell(at(8), &ended(0, 5));
    pair.tell(at(10), &ended(1, 5));
    let records = closed(&pair.finish());
    let secs = Span::from_secs;
    let [streamed, whole] = records[..] else { panic!("two requests") };
    assert_eq!((streamed.ttft(), streamed.tpot_secs()), (Some(secs(3)), Some(1.0)));
    let phases = streamed.phases;
    assert_eq!((phases.queue, phases.prefill, phases.decode), (secs(0), secs(3), secs(4)));
    // What its client saw first it saw at the end.
    assert_eq!((whole.ttft(), whole.tpot_secs()), (Some(secs(8)), None));
    let phases = whole.phases;
    assert_eq!((phases.queue, phases.prefill, phases.decode), (secs(6), secs(2), secs(0)));
    assert_eq!((whole.reason, whole.tokens), (Some(Reason::ArrivalOrder), 30));
}

#[test]
fn what_was_taken_over_has_its_own_arrival() {
    let (mut pair, info) = one_backend();
    let backend = Some(BackendId::first(0));
    let held = |arrived, backend| Held { class: ClassId(0), arrived: at(arrived), backend };
    pair.tell(at(50), &Input::Resumed(RequestId(3), info, held(20, backend)));
    pair.tell(at(50), &Input::Resumed(RequestId(4), info, held(30, None)));
    // Told again, it changes nothing; of a class that is not there, neither.
    pair.tell(at(50), &Input::Resumed(RequestId(3), info, held(21, None)));
    let stranger = Held { class: ClassId(9), ..held(20, None) };
    pair.tell(at(50), &Input::Resumed(RequestId(5), info, stranger));
    pair.tell(at(60), &ended(3, 5));
    pair.tell(at(70), &ended(4, 5));
    let records = closed(&pair.finish());
    let [ran, waited] = records[..] else { panic!("two requests") };
    assert_eq!((ran.arrived, ran.reason), (at(20), Some(Reason::Resumed)));
    assert_eq!((waited.arrived, waited.dispatched), (at(30), Some(at(60))));
    assert_eq!(waited.phases.queue, Span::from_secs(30));
}

#[test]
fn backends_are_sampled_by_their_reports() {
    let (mut pair, _) = one_backend();
    let backend = BackendId::first(0);
    let load = Load { running: 3, waiting: 1, kv_used_ppm: 500_000, ..Load::default() };
    pair.tell(at(1), &Input::Reported(backend, load, at(1)));
    pair.tell(at(3), &Input::Reported(backend, Load::default(), at(3)));
    pair.tell(at(5), &Input::Left(backend));
    // A new one in the same slot: counters go on.
    let info = BackendInfo { seats: 1, kv_tokens: 10, context_max: 1000, ..Default::default() };
    let next = BackendId { slot: 0, generation: 1 };
    pair.tell(at(6), &Input::Joined(next, info));
    pair.tell(at(7), &Input::Reported(next, load, at(7)));
    let sampled = pair.facts.iter().filter_map(|(now, fact)| match fact {
        Fact::BackendSampled { sample, .. } => {
            Some((*now, sample.running, sample.kv_blocks_used, sample.kv_token_millis))
        }
        _ => None,
    });
    let sampled: Vec<_> = sampled.collect();
    let held = 2_000 * 500;
    assert_eq!(sampled, [(at(1), 3, 500, 0), (at(3), 0, 0, held), (at(7), 3, 5, held)]);
}
