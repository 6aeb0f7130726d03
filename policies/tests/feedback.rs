//! The rules of feedback: scripts, and what each promises.
//!
//! They were broken by hand, one change at a time, and each change made a test here fail
//! (autoscaling: `autoscale.rs`):
//!
//! - adaptive concurrency: fall twice on one gauge; believe a report of nothing; fall by a quarter;
//!   look at old reports;
//! - circuit breaker: open one failure late; success forgives nothing; more than one probe; count
//!   what failed at the backend before;
//! - eviction: no pace; evict before the last has let go; ask at once;
//! - caps by objective: caps below `min`, or above what is stated; judge by who came before.

#[path = "support/script.rs"]
mod script;
mod support;

use plimsoll_base::{BackendId, Bound, ClassId, End, RequestId, Span, Time};
use plimsoll_policy::config::{Adapt, Class, Feedback, Share, SloCaps, Window};
use plimsoll_policy::{
    Action, Allocator, Config, ConfigError, Decision, Field, Input, Load, Problem, Used,
};
use proptest::collection::vec;
use proptest::prelude::*;
use script::{Line, play};
use support::{arrive, class, config, join, request, step};

fn with(feedback: Vec<Feedback>) -> Config {
    Config { feedback, ..config(Share::Fcfs, vec![class()]) }
}
fn aimd(target: u64, min: u32) -> Feedback {
    let by = Adapt::Aimd { target: Span::from_nanos(target) };
    Feedback::AdaptiveConcurrency { by, min }
}
fn breaker(failures: u32, open_for: u64) -> Feedback {
    Feedback::CircuitBreaker { failures, open_for: Span::from_nanos(open_for) }
}
fn new(id: u64) -> Input {
    arrive(id, request(0, 1, 0))
}
fn end(id: u64, end: End) -> Input {
    Input::Ended(RequestId(id), end, Used { prompt_tokens: 1, output_tokens: 0 })
}
fn wait(nanos: u64, as_of: u64) -> Input {
    let load = Load { queue_wait: Span::from_nanos(nanos), ..Load::default() };
    Input::Reported(BackendId::first(0), load, Time::from_nanos(as_of))
}

/// Which requests an input let go, and what had stopped them.
fn go(allocator: &mut Allocator, at: u64, input: Input) -> Vec<(u64, Option<Bound>)> {
    let decisions = step(allocator, at, input).into_iter();
    let dispatched = decisions.filter(|d| matches!(d.action, Action::Dispatch(..)));
    dispatched.map(|decision| (decision.id.0, decision.bound)).collect()
}

/// One backend of eight seats that are all taken, and as many waiting.
fn full(rule: Feedback) -> Allocator {
    let mut allocator = Allocator::new(with(vec![rule])).expect("valid");
    step(&mut allocator, 0, join(0, 8, 1_000));
    (0..16).for_each(|id| drop(step(&mut allocator, 0, new(id))));
    allocator
}

#[test]
fn the_limit_falls_by_an_eighth_and_rises_by_one() {
    let mut allocator = full(aimd(10, 2));
    assert_eq!(allocator.needs().reports, Some(Span::from_millis(100)));
    let adaptive = Some(Bound::Adaptive);
    assert_eq!(go(&mut allocator, 100, wait(11, 100)), []);
    // Seven may be out: the first end lets nobody go, the second one.
    assert_eq!(go(&mut allocator, 101, end(0, End::Finished)), []);
    assert_eq!(go(&mut allocator, 102, end(1, End::Finished)), [(8, adaptive)]);
    // At the target the wait is welcome, and the limit was reached: eight again.
    assert_eq!(go(&mut allocator, 200, wait(10, 200)), [(9, adaptive)]);
    // The seats are the end of it.
    assert_eq!(go(&mut allocator, 300, wait(0, 300)), []);
    assert_eq!(go(&mut allocator, 301, end(2, End::Finished)), [(10, Some(Bound::Seats))]);
}

/// A gauge that has not absorbed the last action is not acted on again.
#[test]
fn one_gauge_is_acted_on_once() {
    let mut allocator = full(aimd(10, 2));
    // It falls to seven at 100; the reports at 110 to 130 were true before.
    for (at, as_of) in [(100, 50), (110, 60), (120, 99), (130, 100)] {
        assert_eq!(go(&mut allocator, at, wait(99, as_of)), []);
    }
    step(&mut allocator, 131, end(0, End::Finished));
    assert_eq!(go(&mut allocator, 132, end(1, End::Finished)).len(), 1, "seven may be out");
    // This one is later: six. A report that is not newer than the last does nothing.
    assert_eq!(go(&mut allocator, 140, wait(99, 101)), []);
    assert_eq!(go(&mut allocator, 141, wait(0, 101)), []);
    assert_eq!(go(&mut allocator, 142, end(2, End::Finished)), []);
    assert_eq!(go(&mut allocator, 143, end(3, End::Finished)).len(), 1, "six may be out");
}

#[test]
fn a_report_of_nothing_says_nothing() {
    let mut allocator = full(aimd(10, 2));
    step(&mut allocator, 100, wait(11, 100));
    let load = Load { waiting: 3, ..Load::default() };
    let silent = Input::Reported(BackendId::first(0), load, Time::from_nanos(200));
    assert_eq!(go(&mut allocator, 200, silent), []);
    assert_eq!(go(&mut allocator, 201, end(0, End::Finished)), [], "it is still seven");
}

/// Without a window the limit starts at the seats and grows beyond them.
#[test]
fn without_a_window_the_limit_is_the_only_bound() {
    let policy = Config { window: Window::None, ..with(vec![aimd(10, 2)]) };
    let mut allocator = Allocator::new(policy).expect("valid");
    step(&mut allocator, 0, join(0, 2, 1_000));
    let went: usize = (0..9).map(|id| go(&mut allocator, 0, new(id)).len()).sum();
    assert_eq!(went, 2);
    for at in 1..4 {
        assert_eq!(go(&mut allocator, at, wait(5, at)).len(), 1);
    }
}

#[test]
fn the_gradient_follows_the_usual_wait() {
    let by = Adapt::Gradient { base: Span::from_nanos(100) };
    let mut allocator = full(Feedback::AdaptiveConcurrency { by, min: 2 });
    // As usual: full, and it stays at the seats.
    (1..20).for_each(|at| assert_eq!(go(&mut allocator, at * 10, wait(50, at * 10)), []));
    // The wait is ten times the usual: the gradient is 1/2, so a fifth of the way to 8/2 + 4 a
    // report is none at all, and with eight seats that is where Gradient2 rests.
    assert_eq!(go(&mut allocator, 300, wait(1_500, 300)), []);
    assert_eq!(go(&mut allocator, 301, end(0, End::Finished)), [(8, Some(Bound::Seats))]);
}

/// A hundred seats: the limit falls by a tenth less the room for a queue, and comes back.
#[test]
fn the_gradient_falls_and_recovers() {
    let by = Adapt::Gradient { base: Span::from_nanos(100) };
    let policy = with(vec![Feedback::AdaptiveConcurrency { by, min: 2 }]);
    let mut allocator = Allocator::new(policy).expect("valid");
    step(&mut allocator, 0, join(0, 100, 100_000));
    (0..300).for_each(|id| drop(step(&mut allocator, 0, new(id))));
    (1..20).for_each(|at| drop(step(&mut allocator, at, wait(50, at))));
    // 100 · 4/5 + (100 / 2 + 4) / 5 = 90.8.
    step(&mut allocator, 100, wait(5_000, 100));
    let out = |allocator: &mut Allocator| allocator.in_flight();
    (0..30).for_each(|id| drop(step(&mut allocator, 101, end(id, End::Finished))));
    assert_eq!(out(&mut allocator), 90);
    // Back to the usual: 90.8 + 4/5 = 91.6, 92.4, 93.2.
    for (at, expected) in [(102, 91), (103, 92), (104, 93)] {
        step(&mut allocator, at, wait(50, at));
        assert_eq!(out(&mut allocator), expected);
    }
}

#[test]
fn a_backend_that_fails_gets_a_rest() {
    let mut allocator = Allocator::new(with(vec![breaker(2, 100)])).expect("valid");
    step(&mut allocator, 0, join(0, 2, 1_000));
    (0..8).for_each(|id| drop(step(&mut allocator, 0, new(id))));
    // A failure, a success, a failure: not in a row. A client that leaves says nothing.
    for (at, id, how) in [(1, 0, End::Failed), (2, 1, End::Finished), (3, 2, End::Failed)] {
        assert_eq!(go(&mut allocator, at, end(id, how)).len(), 1);
    }
    assert_eq!(go(&mut allocator, 4, end(3, End::Cancelled)).len(), 1);
    assert_eq!(allocator.next_deadline(), None);
    // The second in a row, at 10: open until 110.
    assert_eq!(go(&mut allocator, 10, end(4, End::Failed)), []);
    assert_eq!(allocator.next_deadline(), Some(Time::from_nanos(110)));
    // What still runs there may end as it likes.
    assert_eq!(go(&mut allocator, 20, end(5, End::Finished)), []);
    assert_eq!(go(&mut allocator, 109, Input::Deadline), []);
    // One probe, not two.
    let breaker = Some(Bound::Breaker);
    assert_eq!(go(&mut allocator, 110, Input::Deadline), [(6, breaker)]);
    assert_eq!(allocator.next_deadline(), None);
    // It fails: another hundred. The next one is cancelled: another probe. That one finishes.
    assert_eq!(go(&mut allocator, 120, end(6, End::Failed)), []);
    assert_eq!(go(&mut allocator, 220, new(8)), [(7, breaker)]);
    assert_eq!(go(&mut allocator, 230, end(7, End::Cancelled)), [(8, breaker)]);
    assert_eq!(go(&mut allocator, 231, new(9)), []);
    assert_eq!(go(&mut allocator, 231, new(10)), []);
    assert_eq!(go(&mut allocator, 240, end(8, End::Finished)), [(9, breaker), (10, breaker)]);
}

#[test]
fn the_others_go_on() {
    let mut allocator = Allocator::new(with(vec![breaker(1, 100)])).expect("valid");
    step(&mut allocator, 0, join(0, 2, 1_000));
    step(&mut allocator, 0, join(1, 2, 1_000));
    step(&mut allocator, 0, new(0));
    step(&mut allocator, 1, end(0, End::Failed));
    let placed = |allocator: &mut Allocator, at, id| match step(allocator, at, new(id))[..] {
        [decision] => match decision.action {
            Action::Dispatch(backend, _) => Some(backend.slot),
            _ => None,
        },
        _ => None,
    };
    assert_eq!(
        (1..4).map(|id| placed(&mut allocator, 2, id)).collect::<Vec<_>>(),
        [Some(1), Some(1), None]
    );
    // A backend that comes back is a new one.
    step(&mut allocator, 3, Input::Left(BackendId::first(0)));
    let again = BackendId { slot: 0, generation: 1 };
    let found = go(&mut allocator, 4, Input::Joined(again, support::backend(1, 100)));
    assert_eq!(found, [(3, Some(Bound::Seats))]);
    assert_eq!(allocator.next_deadline(), None);
}

/// A failure at a backend that is gone is not counted against the one in its slot.
#[test]
fn a_new_backend_does_not_answer_for_the_one_before() {
    let mut allocator = Allocator::new(with(vec![breaker(1, 100)])).expect("valid");
    step(&mut allocator, 0, join(0, 2, 1_000));
    step(&mut allocator, 0, new(0));
    step(&mut allocator, 1, Input::Left(BackendId::first(0)));
    let again = BackendId { slot: 0, generation: 1 };
    step(&mut allocator, 2, Input::Joined(again, support::backend(2, 100)));
    step(&mut allocator, 3, end(0, End::Failed));
    assert_eq!(go(&mut allocator, 4, new(1)), [(1, None)]);
}

/// Chat (0, of priority 2) is not sheddable, batch (1) and trials (2) are.
fn evicting(after: u64, every: u64) -> Config {
    let rule =
        Feedback::EvictSheddable { after: Span::from_nanos(after), every: Span::from_nanos(every) };
    let sheddable = |priority| Class { priority, sheddable: true, ..class() };
    let chat = Class { priority: 2, ..class() };
    let classes = vec![chat, sheddable(1), sheddable(0)];
    Config { feedback: vec![rule], ..config(Share::Priority, classes) }
}

/// `1>` for a dispatch, `1x` for an eviction.
fn told(decision: &Decision) -> String {
    let what = match decision.action {
        Action::Dispatch(..) => ">",
        Action::Cancel(_) => "x",
        Action::Reject(..) | Action::Close(_) | Action::Preempt(_) => "?",
    };
    format!("{}{what}", decision.id)
}

#[test]
fn sheddable_work_makes_room_one_at_a_time() {
    let of = |id, class| arrive(id, request(class, 1, 0));
    let script: Vec<Line> = vec![
        (0, join(0, 3, 1_000), ""),
        (0, of(0, 2), "0>"),
        (1, of(1, 2), "1>"),
        (2, of(2, 1), "2>"),
        // Batch does not make room for its own kind.
        (3, of(3, 1), ""),
        (10, of(4, 0), ""),
        (11, of(5, 0), ""),
        (19, Input::Deadline, ""),
        // Chat has waited ten: the latest of the least important goes.
        (20, Input::Deadline, "1x"),
        // It has not let go: nobody else goes, and nobody is sent.
        (60, Input::Deadline, ""),
        (70, end(1, End::Evicted), "4>; 0x"),
        (71, end(0, End::Evicted), "5>"),
        // Batch makes room too, but not before twenty have passed since the one before.
        (75, of(6, 0), ""),
        (89, Input::Deadline, ""),
        (90, Input::Deadline, "2x"),
        // It was done before it could be cut off.
        (91, end(2, End::Finished), "6>"),
        (200, Input::Deadline, ""),
    ];
    play(evicting(10, 20), script, told);
}

/// Time alone evicts: the instant is a deadline, and only while there is something to evict for.
#[test]
fn an_eviction_is_a_deadline() {
    let mut allocator = Allocator::new(evicting(10, 20)).expect("valid");
    step(&mut allocator, 0, join(0, 1, 1_000));
    step(&mut allocator, 1, arrive(0, request(2, 1, 0)));
    assert_eq!(allocator.next_deadline(), None);
    step(&mut allocator, 5, arrive(1, request(0, 1, 0)));
    assert_eq!(allocator.next_deadline(), Some(Time::from_nanos(15)));
    assert_eq!(step(&mut allocator, 15, Input::Deadline).len(), 1);
    assert_eq!(allocator.next_deadline(), None, "one is out");
    step(&mut allocator, 16, end(0, End::Evicted));
    assert_eq!(allocator.in_flight(), 1);
}

/// Chat should begin within 10; batch has a cap of 4 that may fall to 2.
fn slo_caps(window: u32, misses_max_ppm: u32) -> Config {
    let (class, lesser) = (ClassId(0), vec![ClassId(1)]);
    let rule = SloCaps { class, lesser, window, misses_max_ppm, step: 1, min: 2 };
    let chat = Class { deadline: Some(Span::from_nanos(10)), ..class_of(None) };
    let feedback = vec![Feedback::SloCaps(rule)];
    Config { feedback, ..config(Share::Fcfs, vec![chat, class_of(Some(4)), class_of(None)]) }
}

fn class_of(requests_max: Option<u32>) -> Class {
    Class { requests_max, ..class() }
}

/// A request of chat that arrives and begins to stream so much later.
fn chat(allocator: &mut Allocator, id: u64, at: u64, after: u64) {
    step(allocator, at, arrive(id, request(0, 1, 0)));
    step(allocator, at + after, Input::FirstToken(RequestId(id)));
    // A second first token is none.
    step(allocator, at + after, Input::FirstToken(RequestId(id)));
    step(allocator, at + after, end(id, End::Finished));
}

#[test]
fn lesser_classes_give_way_while_a_deadline_is_missed() {
    let mut allocator = Allocator::new(slo_caps(2, 500_000)).expect("valid");
    assert!(allocator.needs().first_tokens);
    step(&mut allocator, 0, join(0, 50, 1_000));
    (0..9).for_each(|id| drop(step(&mut allocator, 0, arrive(id, request(1, 1, 0)))));
    assert_eq!(allocator.in_flight(), 4);
    // One of two is late: that is half, and half may be.
    chat(&mut allocator, 100, 100, 10);
    chat(&mut allocator, 101, 120, 11);
    assert_eq!(go(&mut allocator, 140, end(0, End::Finished)), [(4, Some(Bound::ClassRequests))]);
    // Both are: three.
    chat(&mut allocator, 102, 150, 11);
    chat(&mut allocator, 103, 170, 11);
    assert_eq!(go(&mut allocator, 190, end(1, End::Finished)), []);
    assert_eq!(go(&mut allocator, 191, end(2, End::Finished)), [(5, Some(Bound::Adaptive))]);
    // What arrived before the cap fell is not held against the new one.
    let early = allocator.next_deadline();
    assert_eq!(early, None, "time alone moves nothing");
    // Late again and again: two, and no fewer.
    (0..6).for_each(|n| chat(&mut allocator, 110 + n, 200 + 20 * n, 15));
    assert_eq!(go(&mut allocator, 400, end(3, End::Finished)), []);
    assert_eq!(go(&mut allocator, 401, end(4, End::Finished)), [(6, Some(Bound::Adaptive))]);
    assert_eq!(allocator.in_flight(), 2);
    // In time again: three, four, and no more.
    (0..6).for_each(|n| chat(&mut allocator, 120 + n, 500 + 20 * n, 5));
    assert_eq!(allocator.in_flight(), 4);
}

#[test]
fn only_requests_that_saw_the_caps_judge_them() {
    let mut allocator = Allocator::new(slo_caps(1, 0)).expect("valid");
    step(&mut allocator, 0, join(0, 50, 1_000));
    (0..9).for_each(|id| drop(step(&mut allocator, 0, arrive(id, request(1, 1, 0)))));
    (100..104).for_each(|id| drop(step(&mut allocator, 1, arrive(id, request(0, 1, 0)))));
    // All four are late, but three of them came before the cap fell for the first.
    (100..104).for_each(|id| drop(step(&mut allocator, 50, Input::FirstToken(RequestId(id)))));
    assert_eq!(go(&mut allocator, 60, end(0, End::Finished)), [], "three of four may run");
    assert_eq!(go(&mut allocator, 61, end(1, End::Finished)).len(), 1);
}

/// What expires in the queue has missed its deadline too.
#[test]
fn who_expires_was_late() {
    let mut policy = slo_caps(1, 0);
    policy.classes[0].time_to_live = Some(Span::from_nanos(30));
    policy.classes[0].requests_max = Some(1);
    let mut allocator = Allocator::new(policy).expect("valid");
    step(&mut allocator, 0, join(0, 50, 1_000));
    (0..9).for_each(|id| drop(step(&mut allocator, 0, arrive(id, request(1, 1, 0)))));
    (100..102).for_each(|id| drop(step(&mut allocator, 1, arrive(id, request(0, 1, 0)))));
    step(&mut allocator, 31, Input::Deadline);
    assert_eq!(go(&mut allocator, 32, end(0, End::Finished)), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A backend that fails everything costs `failures`, what was out when it opened, and one a
    /// rest.
    #[test]
    fn a_failing_backend_costs_a_bounded_number(
        failures in 1u32..6, seats in 1u32..8, gaps in vec(1u64..20, 50..150),
    ) {
        let mut allocator = Allocator::new(with(vec![breaker(failures, 500)])).expect("valid");
        step(&mut allocator, 0, join(0, seats, 1_000));
        let (mut now, mut running, mut lost) = (0, std::collections::VecDeque::new(), 0);
        for (id, gap) in (0..).zip(gaps) {
            now += gap;
            for (id, _) in go(&mut allocator, now, new(id)) {
                running.push_back(id);
            }
            if let Some(id) = running.pop_front() {
                lost += 1;
                running.extend(go(&mut allocator, now, end(id, End::Failed)).iter().map(|went| went.0));
            }
        }
        let rests = (now / 500) as u32;
        prop_assert!(lost <= failures + seats - 1 + rests, "{lost} in {now}");
    }

    /// min ≤ cap ≤ `requests_max`, a cap moves by at most a step, and between two moves lie the
    /// first tokens of `window` requests that arrived after the first.
    #[test]
    fn caps_stay_within_their_bounds(
        results in vec((0u64..30, 0u64..40), 20..120), window in 1u32..5, misses in 0u32..1_000_000,
    ) {
        let mut allocator = Allocator::new(slo_caps(window, misses)).expect("valid");
        step(&mut allocator, 0, join(0, 500, 100_000));
        // Batch always has someone waiting, so that what is out once all have ended is its cap.
        let arrivals = (0..1_000).map(|id| arrive(id, request(1, 1, 0)));
        let mut out: Vec<u64> =
            arrivals.flat_map(|new| go(&mut allocator, 0, new)).map(|went| went.0).collect();
        let (mut cap, mut now, mut moved, mut judged) = (4, 0, 0, 0);
        for (id, (gap, after)) in (5_000..).zip(results) {
            let arrived = now + gap;
            now = arrived + after;
            go(&mut allocator, arrived, arrive(id, request(0, 1, 0)));
            // A cap that rises lets one go at once.
            out.extend(go(&mut allocator, now, Input::FirstToken(RequestId(id))).iter().map(|w| w.0));
            go(&mut allocator, now, end(id, End::Finished));
            judged += u32::from(moved == 0 || arrived > moved);
            let ends = std::mem::take(&mut out).into_iter().map(|id| end(id, End::Finished));
            let went = ends.flat_map(|end| go(&mut allocator, now, end));
            out = went.map(|went| went.0).collect();
            let found = out.len() as u32;
            prop_assert!((2..=4).contains(&found) && found.abs_diff(cap) <= 1, "{cap} to {found}");
            if found != cap {
                prop_assert!(judged >= window, "{judged} results since {moved}");
                (cap, moved, judged) = (found, now, 0);
            }
        }
    }

    /// min ≤ what may be out ≤ the window, whatever is reported.
    #[test]
    fn the_limit_stays_within_its_bounds(
        reports in vec((0u64..200, 0u64..30), 1..80), min in 1u32..9, gradient in any::<bool>(),
    ) {
        let by = match gradient {
            true => Adapt::Gradient { base: Span::from_nanos(20) },
            false => Adapt::Aimd { target: Span::from_nanos(50) },
        };
        let mut allocator = full(Feedback::AdaptiveConcurrency { by, min });
        let mut oldest = 0;
        for (at, (queue_wait, age)) in (1..).zip(reports) {
            let now = at * 10;
            step(&mut allocator, now, wait(queue_wait, now - age.min(now)));
            // Renew one request: what is out never falls below the limit while others wait.
            step(&mut allocator, now, end(oldest, End::Finished));
            step(&mut allocator, now, new(100 + oldest));
            oldest = if oldest < 15 { oldest + 1 } else { 100 };
            let out = allocator.in_flight();
            prop_assert!(out <= 8, "{out} out");
            let waiting = allocator.queued(ClassId(0));
            prop_assert!(waiting == 0 || out >= min.min(8), "{out} out, {waiting} wait");
        }
    }
}

#[test]
fn rules_that_make_no_sense_are_errors() {
    for (rule, field, problem) in [
        (aimd(0, 1), Field::Target, Problem::Below(1)),
        (aimd(1, 0), Field::Min, Problem::Below(1)),
        (breaker(1, 1), Field::Rule, Problem::SecondOfItsKind),
    ] {
        let found = with(vec![breaker(5, 5), rule]).check();
        assert_eq!(found, Err(ConfigError::Feedback(1, field, problem)));
    }
    for (rule, field) in [(breaker(0, 1), Field::Failures), (breaker(1, 0), Field::OpenFor)] {
        let found = with(vec![rule]).check();
        assert_eq!(found, Err(ConfigError::Feedback(0, field, Problem::Below(1))));
    }
    let sheds = |sheddable| {
        let mut policy = evicting(1, 1);
        policy.classes.iter_mut().for_each(|class| class.sheddable = sheddable);
        policy.check()
    };
    for sheddable in [true, false] {
        let nothing = ConfigError::Feedback(0, Field::Rule, Problem::ShedsNothing);
        assert_eq!(sheds(sheddable), Err(nothing));
    }
    type Case = (fn(&mut SloCaps), Field, Problem);
    let cases: [Case; 7] = [
        (|r| r.class = ClassId(2), Field::Class, Problem::HasNoDeadline(ClassId(2))),
        (|r| r.lesser = vec![ClassId(2)], Field::Lesser, Problem::NoCap(ClassId(2))),
        (|r| r.lesser.clear(), Field::Lesser, Problem::Below(1)),
        (|r| r.min = 5, Field::Min, Problem::Above(4)),
        (|r| r.window = 0, Field::Window, Problem::Below(1)),
        (|r| r.step = 0, Field::Step, Problem::Below(1)),
        (|r| r.misses_max_ppm = 1_000_000, Field::MissesMax, Problem::Above(999_999)),
    ];
    for (spoil, field, problem) in cases {
        let mut policy = slo_caps(2, 0);
        match &mut policy.feedback[0] {
            Feedback::SloCaps(rule) => spoil(rule),
            other => panic!("{other:?}"),
        }
        assert_eq!(policy.check(), Err(ConfigError::Feedback(0, field, problem)));
    }
}
