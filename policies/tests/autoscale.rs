//! Advice on the number of backends: scripts, and what it promises under random loads.
//!
//! The rule was broken by hand, one change at a time, and each change made a test here fail:
//!
//! - look at every report; forget the cool-down; forget `min`; advise inside the tolerance; fewer at
//!   once; `down_after` a nanosecond too short; fewer at the first look;
//! - round down; forget what waits; forget tokens; count what has ended as held;
//! - keep advice that is out of date; let advice stand though the backends have changed.

#[allow(dead_code, reason = "no test uses all of it")]
mod support;

use plimsoll_base::{BackendId, End, PoolId, RequestId, Scale, Span, Time};
use plimsoll_policy::config::{Autoscale, Feedback, Share};
use plimsoll_policy::{
    Allocator, BackendInfo, Config, ConfigError, Field, Input, Load, Problem, Signal, Used,
};
use proptest::collection::vec;
use proptest::prelude::*;
use support::{arrive, class, config, request};

/// A load of a half is aimed at, a tenth more or less will do; looks every 10, a hundred from one
/// piece of advice to the next, fewer only if none wanted more for 50; one to eight.
fn rule() -> Autoscale {
    Autoscale {
        target_ppm: 500_000,
        tolerance_ppm: 100_000,
        every: Span::from_nanos(10),
        cool_down: Span::from_nanos(100),
        down_after: Span::from_nanos(50),
        min: 1,
        max: 8,
    }
}

fn with(rule: Autoscale) -> Config {
    Config { feedback: vec![Feedback::Autoscale(rule)], ..config(Share::Fcfs, vec![class()]) }
}

/// An allocator and the numbers of those who are out or wait in it.
struct Stage {
    allocator: Allocator,
    held: Vec<u64>,
    next: u64,
}

impl Stage {
    fn new(rule: Autoscale) -> Stage {
        let allocator = Allocator::new(with(rule)).expect("valid");
        Stage { allocator, held: Vec::new(), next: 0 }
    }
    fn hand(&mut self, at: u64, input: Input) -> Vec<Scale> {
        self.allocator.handle(Time::from_nanos(at), input);
        while self.allocator.poll().is_some() {}
        let signals = std::iter::from_fn(|| self.allocator.poll_signal());
        let scales = signals.map(|signal| match signal {
            Signal::Scale(scale) => scale,
            Signal::Alarm(alarm) => panic!("{alarm:?} is no word of an allocator"),
        });
        scales.collect()
    }
    fn join(&mut self, at: u64, slot: u32, pool: u16, (seats, kv_tokens): (u32, u64)) {
        let pool = PoolId(pool);
        let info = BackendInfo { pool, seats, kv_tokens, context_max: 9_999, ..Default::default() };
        assert_eq!(self.hand(at, Input::Joined(BackendId::first(slot), info)), []);
    }
    /// Has as many requests of so many tokens held as that.
    fn hold(&mut self, at: u64, count: usize, tokens: u32) {
        while self.held.len() < count {
            self.held.push(self.next);
            let said = self.hand(at, arrive(self.next, request(0, tokens, 0)));
            assert_eq!(said, [], "only reports are looked at");
            self.next += 1;
        }
        while self.held.len() > count {
            // Those that run, since they came first.
            let ended =
                Input::Ended(RequestId(self.held.remove(0)), End::Finished, Used::default());
            assert_eq!(self.hand(at, ended), []);
        }
    }
    fn look(&mut self, at: u64) -> Vec<(u32, u32)> {
        let report = Input::Reported(BackendId::first(0), Load::default(), Time::from_nanos(at));
        self.hand(at, report).iter().map(|scale| (scale.present, scale.wanted)).collect()
    }
}

#[test]
fn more_at_once_and_fewer_only_after_a_while() {
    let mut stage = Stage::new(rule());
    assert_eq!(stage.allocator.needs().reports, Some(Span::from_nanos(10)));
    (0..2).for_each(|slot| stage.join(0, slot, 0, (10, 10_000)));
    // Ten of twenty seats: as it should be.
    stage.hold(0, 10, 1);
    assert_eq!(stage.look(0), []);
    // Eleven, and then nine, are within a tenth of it.
    stage.hold(1, 11, 1);
    assert_eq!(stage.look(10), []);
    stage.hold(11, 9, 1);
    assert_eq!(stage.look(20), []);
    // Thirteen of twenty: ⌈2 · 0.65 / 0.5⌉ = 3. The look before it is due sees nothing.
    stage.hold(21, 13, 1);
    assert_eq!(stage.look(29), []);
    assert_eq!(stage.look(30), [(2, 3)]);
    // Twice as many, but the third has not had the time to come.
    stage.hold(31, 26, 1);
    for at in (40..130).step_by(10) {
        assert_eq!(stage.look(at), [], "at {at}");
    }
    // It has not come. 26 of 20: ⌈2 · 1.3 / 0.5⌉ = 6.
    assert_eq!(stage.look(130), [(2, 6)]);
    // Now they have come: 28 of 60 are within a tenth of the half.
    (2..6).for_each(|slot| stage.join(131, slot, 0, (10, 10_000)));
    stage.hold(131, 28, 1);
    (140..200).step_by(10).for_each(|at| assert_eq!(stage.look(at), [], "at {at}"));
    // Six of 60: ⌈6 · 0.1 / 0.5⌉ = 2, but six were right until 190.
    stage.hold(191, 6, 1);
    (200..250).step_by(10).for_each(|at| assert_eq!(stage.look(at), [], "at {at}"));
    assert_eq!(stage.look(250), [(6, 2)]);
    // Four left as advised, and nothing else is to say.
    (2..6).for_each(|slot| drop(stage.hand(251, Input::Left(BackendId::first(slot)))));
    stage.hold(251, 10, 1);
    assert_eq!(stage.look(400), []);
}

/// Before the first look what is there counts as desired.
#[test]
fn a_first_look_takes_nothing_away() {
    let mut stage = Stage::new(rule());
    (0..4).for_each(|slot| stage.join(0, slot, 0, (10, 10_000)));
    stage.hold(0, 4, 1);
    (0..60).step_by(10).for_each(|at| assert_eq!(stage.look(at), [], "at {at}"));
    assert_eq!(stage.look(60), [(4, 1)]);
}

#[test]
fn tokens_count_where_they_are_scarcer() {
    let mut stage = Stage::new(rule());
    stage.join(0, 0, 0, (100, 1_000));
    // Eight requests of a hundred tokens: a twelfth of the seats, four fifths of the memory.
    stage.hold(0, 8, 100);
    assert_eq!(stage.look(10), [(1, 2)]);
    // Three of them wait, as there is no memory for them.
    stage.hold(11, 13, 100);
    assert_eq!(stage.allocator.in_flight(), 10);
    assert_eq!(stage.look(110), [(1, 3)]);
}

#[test]
fn each_pool_is_advised_by_itself() {
    let mut stage = Stage::new(rule());
    stage.join(0, 0, 7, (10, 10_000));
    stage.join(0, 1, 3, (30, 10_000));
    // All forty seats are taken, and twenty wait: a load of 1.5 in each.
    stage.hold(0, 60, 1);
    let report = Input::Reported(BackendId::first(1), Load::default(), Time::ZERO);
    let of = |pool| Scale { pool: PoolId(pool), present: 1, wanted: 3, load_ppm: 1_500_000 };
    assert_eq!(stage.hand(0, report), [of(7), of(3)]);
}

#[test]
fn what_is_not_heard_is_replaced() {
    let mut stage = Stage::new(rule());
    stage.join(0, 0, 0, (10, 10_000));
    for (at, count) in [(0, 10), (100, 15), (200, 20)] {
        while stage.held.len() < count {
            stage.held.push(stage.next);
            let new = arrive(stage.next, request(0, 1, 0));
            stage.allocator.handle(Time::from_nanos(at), new);
            stage.next += 1;
        }
        let report = Input::Reported(BackendId::first(0), Load::default(), Time::from_nanos(at));
        stage.allocator.handle(Time::from_nanos(at), report);
    }
    let heard: Vec<Signal> = std::iter::from_fn(|| stage.allocator.poll_signal()).collect();
    let scale = Scale { pool: PoolId(0), present: 1, wanted: 4, load_ppm: 2_000_000 };
    assert_eq!(heard, [Signal::Scale(scale)]);
}

#[test]
fn bounds_hold_whatever_comes() {
    let mut stage = Stage::new(Autoscale { min: 2, max: 3, ..rule() });
    stage.join(0, 0, 0, (10, 10_000));
    // Within the tolerance, but fewer than there may be.
    stage.hold(0, 5, 1);
    assert_eq!(stage.look(0), [(1, 2)]);
    stage.hold(1, 500, 1);
    assert_eq!(stage.look(100), [(1, 3)]);
    // More than there may be.
    (1..5).for_each(|slot| stage.join(101, slot, 0, (10, 10_000)));
    stage.hold(101, 25, 1);
    assert_eq!(stage.look(200), [(5, 3)]);
    // All are gone, and a stranger's report is none.
    (0..5).for_each(|slot| drop(stage.hand(201, Input::Left(BackendId::first(slot)))));
    assert_eq!(stage.look(300), []);
    // Of a pool that is empty the least is wanted.
    stage.join(301, 7, 1, (10, 10_000));
    let report = Input::Reported(BackendId::first(7), Load::default(), Time::ZERO);
    let said = stage.hand(400, report);
    let said: Vec<_> = said.iter().map(|s| (s.pool.0, s.present, s.wanted)).collect();
    assert_eq!(said, [(0, 0, 2), (1, 1, 3)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Under any load, with backends that come and go as they like: never twice within the
    /// cool-down, never outside the bounds, never inside the tolerance, and fewer only if no look
    /// wanted more for as long as stated.
    #[test]
    fn advice_keeps_its_promises(
        acts in vec((0u64..30, 0usize..60, 0u32..5, 1u32..80), 20..150),
        spans in (1u64..30, 1u64..120, 0u64..120),
        (target_ppm, tolerance_ppm) in (100_000u32..1_000_001, 0u32..500_000),
        (min, more) in (1u32..3, 0u32..6),
    ) {
        let rule = Autoscale {
            target_ppm,
            tolerance_ppm,
            every: Span::from_nanos(spans.0),
            cool_down: Span::from_nanos(spans.1),
            down_after: Span::from_nanos(spans.2),
            min,
            max: min + more,
        };
        let mut stage = Stage::new(rule.clone());
        stage.join(0, 0, 0, (6, 400));
        let (mut now, mut latest, mut generations) = (0, None, [0u32; 5]);
        let mut wants: Vec<(u64, u32)> = Vec::new();
        for (gap, count, slot, tokens) in acts {
            now += gap;
            // The first stays, so that somebody reports.
            if slot > 0 && tokens % 4 == 0 {
                let generation = &mut generations[slot as usize];
                let backend = BackendId { slot, generation: *generation };
                let info = BackendInfo { seats: 6, kv_tokens: 400, context_max: 999, ..Default::default() };
                if tokens % 8 == 0 {
                    stage.hand(now, Input::Left(backend));
                    *generation += 1;
                } else {
                    stage.hand(now, Input::Joined(backend, info));
                }
            }
            stage.hold(now, count, tokens);
            let states = stage.allocator.snapshot();
            let present = states.backends.len() as f64;
            let said = stage.look(now);
            // The load from the outside, in floating point: seats and memory, queue and all.
            let held: u32 = states.classes[0].queued + states.classes[0].outstanding;
            let all_tokens: u64 = stage.held.iter().filter_map(|&id| stage.allocator.tokens(RequestId(id))).sum();
            let load = (f64::from(held) / (6.0 * present)).max(all_tokens as f64 / (400.0 * present));
            let (target, tolerance) = (f64::from(target_ppm) / 1e6, f64::from(tolerance_ppm) / 1e6);
            let off = (load / target - 1.0).abs();
            let bounded = |n: f64| n.max(f64::from(min)).min(f64::from(min + more));
            let desired = if off <= tolerance { present } else { (present * load / target).ceil() };
            wants.push((now, bounded(desired) as u32));
            prop_assert!(said.len() <= 1);
            for (there, wanted) in said {
                prop_assert_eq!(f64::from(there), present);
                prop_assert!((min..=min + more).contains(&wanted), "{} wanted", wanted);
                prop_assert!(latest.is_none_or(|at| now >= at + spans.1), "{:?} and {}", latest, now);
                prop_assert!(off >= tolerance - 1e-4 || bounded(present) != present, "{load} at {target}");
                if f64::from(wanted) < present {
                    // A millionth of load may round to one backend more or less.
                    let lately = wants.iter().filter(|(at, _)| at + spans.2 >= now);
                    let least = lately.map(|&(_, n)| n).min().unwrap_or(0);
                    prop_assert!(wanted + 1 >= least, "{wanted}, and never fewer than {least}");
                }
                latest = Some(now);
            }
        }
    }
}

#[test]
fn rules_that_make_no_sense_are_errors() {
    type Case = (fn(&mut Autoscale), Field, Problem);
    let zero = Span::ZERO;
    assert_eq!(with(rule()).check(), Ok(()));
    let cases: [Case; 9] = [
        (|r| r.target_ppm = 0, Field::Target, Problem::Below(1)),
        (|r| r.target_ppm = 1_000_001, Field::Target, Problem::Above(1_000_000)),
        (|r| r.tolerance_ppm = 1_000_000, Field::Tolerance, Problem::Above(999_999)),
        (|r| r.every = Span::ZERO, Field::Every, Problem::Below(1)),
        (|r| r.cool_down = Span::ZERO, Field::CoolDown, Problem::Below(1)),
        (|r| r.down_after = Span::from_nanos(100_001), Field::DownAfter, Problem::Above(100_000)),
        (|r| r.min = 0, Field::Min, Problem::Below(1)),
        (|r| r.max = 0, Field::Max, Problem::Below(1)),
        (|r| (r.min, r.max) = (3, 2), Field::Max, Problem::Below(3)),
    ];
    for (spoil, field, problem) in cases {
        let mut spoilt = rule();
        spoil(&mut spoilt);
        assert_eq!(with(spoilt).check(), Err(ConfigError::Feedback(0, field, problem)));
    }
    assert_eq!(with(Autoscale { down_after: zero, ..rule() }).check(), Ok(()));
}
