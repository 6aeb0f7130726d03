//! The generators, seen from outside.

use std::collections::BTreeMap;

use plimsoll_base::{ClassId, Span, TenantId, Time};

use super::{Arrivals, Lengths, Marks, Request, Source, Think, Workload, source};

fn workload(arrivals: Arrivals) -> Workload {
    Workload {
        arrivals,
        prompt: Lengths::Lognormal { mu: 6.0, sigma: 1.0, max: 8_000 },
        output: Lengths::Uniform { min: 1, max: 500 },
        output_cap: 300,
        tenants: vec![(TenantId(4), 3), (TenantId(2), 1)],
        claims: Some(ClassId(1)),
        marks: Marks::default(),
        start: Time::ZERO,
        stop: None,
    }
}

fn next_at(source: &mut dyn Source) -> Option<Time> {
    source.next_at().expect("a generator has no bad rows")
}

/// The first `count` requests, fewer if the source ends.
fn first(workload: &Workload, count: usize) -> Vec<(Time, Request)> {
    let mut source = source(workload, "test", 7, 0);
    let next = || next_at(source.as_mut()).map(|at| (at, source.take()));
    std::iter::from_fn(next).take(count).collect()
}

fn times(requests: &[(Time, Request)]) -> Vec<Time> {
    requests.iter().map(|(at, _)| *at).collect()
}

/// Everything but the instants.
fn shapes(requests: &[(Time, Request)]) -> Vec<Request> {
    requests.iter().map(|(_, request)| *request).collect()
}

const MINUTES_30: Span = Span::from_secs(1_800);

#[test]
fn renewal_gaps_have_their_mean_and_variation() {
    let check = |arrivals: Arrivals, rate: f64, cv: f64| {
        let n = 100_000;
        let times = times(&first(&workload(arrivals.clone()), n));
        let gaps: Vec<f64> = std::iter::once(Time::ZERO)
            .chain(times.iter().copied())
            .zip(&times)
            .map(|(before, at)| (*at - before).secs_f64())
            .collect();
        let mean = gaps.iter().sum::<f64>() / n as f64;
        let variance = gaps.iter().map(|gap| (gap - mean) * (gap - mean)).sum::<f64>() / n as f64;
        let standard_error = cv / rate / (n as f64).sqrt();
        assert!((mean - 1.0 / rate).abs() < 3.3 * standard_error, "{arrivals:?}: mean {mean}");
        let found = variance.sqrt() / mean;
        assert!((found / cv - 1.0).abs() < 0.04, "{arrivals:?}: cv {found}");
    };
    check(Arrivals::Poisson { rate: 3.0 }, 3.0, 1.0);
    check(Arrivals::Gamma { rate: 3.0, cv: 1.0 }, 3.0, 1.0);
    check(Arrivals::Gamma { rate: 200.0, cv: 0.3 }, 200.0, 0.3);
    check(Arrivals::Gamma { rate: 0.01, cv: 2.5 }, 0.01, 2.5);
}

#[test]
fn piecewise_counts_are_poisson_with_the_rate_of_their_piece() {
    const ROUNDS: u64 = 60;
    let pieces: Vec<(Span, f64)> =
        [(10, 50.0), (20, 0.0), (5, 400.0), (1, 3.0)].map(|(s, r)| (Span::from_secs(s), r)).into();
    let round: Span = pieces.iter().map(|(length, _)| *length).sum();
    let mut offered = workload(Arrivals::Piecewise { pieces: pieces.clone(), repeat: true });
    offered.start = Time::from_nanos(123_456_789);
    offered.stop = Some(offered.start + round.saturating_mul(ROUNDS));

    let mut counts: BTreeMap<(usize, u64), u64> = BTreeMap::new();
    for at in times(&first(&offered, usize::MAX)) {
        let mut into = (at - offered.start).nanos();
        let in_round = into / round.nanos();
        into %= round.nanos();
        let piece = pieces.iter().position(|(length, _)| {
            let inside = into < length.nanos();
            into = into.saturating_sub(length.nanos());
            inside
        });
        *counts.entry((piece.expect("it lies in the round"), in_round)).or_default() += 1;
    }
    for (piece, (length, rate)) in pieces.iter().enumerate() {
        let expected = length.secs_f64() * rate;
        let count = |in_round| counts.get(&(piece, in_round)).copied().unwrap_or(0) as f64;
        let total: f64 = (0..ROUNDS).map(count).sum();
        let mean = expected * ROUNDS as f64;
        // 99.9 % of a normal distribution lies inside 3.29 standard deviations.
        assert!((total - mean).abs() <= 3.29 * mean.sqrt(), "piece {piece}: {total} for {mean}");
        if expected > 0.0 {
            let term = |off: f64| off * off / expected;
            let chi2: f64 = (0..ROUNDS).map(|round| term(count(round) - expected)).sum();
            // The 0.05 % and 99.95 % points of chi squared with 60 degrees of freedom.
            assert!((30.3..102.7).contains(&chi2), "piece {piece}: chi squared {chi2}");
        }
    }
}

#[test]
fn piecewise_ends_with_its_pieces_unless_it_repeats() {
    let check = |pieces: &[(u64, f64)], repeat: bool, ends: bool| {
        let pieces: Vec<_> = pieces.iter().map(|(s, rate)| (Span::from_secs(*s), *rate)).collect();
        let arrivals = Arrivals::Piecewise { pieces, repeat };
        let found = first(&workload(arrivals.clone()), 2_000);
        assert_eq!(found.len() < 2_000, ends, "{arrivals:?}");
        found
    };
    let found = check(&[(1, 0.0), (1, 100.0)], false, true);
    assert!(times(&found).iter().all(|at| (1.0..=2.0).contains(&at.secs_f64())));
    check(&[(1, 0.0), (1, 100.0)], true, false);
    check(&[(1, 0.0)], true, true);
    check(&[(0, 100.0)], true, true);
    // Very rare arrivals come at once, not after a walk through 10⁹ rounds; 584 years end it.
    let found = check(&[(1, 1e-9), (1, 0.0)], true, true);
    assert!((1..30).contains(&found.len()), "{}", found.len());
}

#[test]
fn arrivals_lie_between_start_and_stop() {
    let [start, stop] = [5, 25].map(|secs| Time::ZERO + Span::from_secs(secs));
    for arrivals in [
        Arrivals::Poisson { rate: 50.0 },
        Arrivals::Gamma { rate: 50.0, cv: 2.0 },
        Arrivals::Piecewise { pieces: vec![(Span::from_secs(1), 50.0)], repeat: true },
    ] {
        let offered = Workload { start, stop: Some(stop), ..workload(arrivals) };
        let found = times(&first(&offered, usize::MAX));
        assert!(found.len() > 500, "{}", found.len());
        assert!(found.is_sorted() && found[0] >= start && found[found.len() - 1] < stop);
    }
}

#[test]
fn requests_carry_what_their_workload_says() {
    let found = shapes(&first(&workload(Arrivals::Poisson { rate: 1.0 }), 10_000));
    assert!(found.iter().all(|r| r.claims == Some(ClassId(1)) && r.prompt_tokens <= 8_000));
    assert!(found.iter().all(|r| r.output_cap == r.output_tokens.max(300)));
    assert!(found.iter().any(|r| r.output_cap > 300), "a longer output raises its own cap");
    let heavy = found.iter().filter(|r| r.tenant == TenantId(4)).count() as f64;
    assert!(found.iter().all(|r| [TenantId(4), TenantId(2)].contains(&r.tenant)));
    assert!((heavy - 7_500.0).abs() < 3.29 * (10_000.0 * 0.75 * 0.25f64).sqrt(), "{heavy}");
}

#[test]
fn a_change_reaches_no_other_stream() {
    let base = workload(Arrivals::Poisson { rate: 5.0 });
    let before = first(&base, 5_000);
    let changed = |change: &dyn Fn(&mut Workload)| {
        let mut offered = base.clone();
        change(&mut offered);
        first(&offered, 5_000)
    };
    let arrivals = changed(&|w| w.arrivals = Arrivals::Gamma { rate: 9.0, cv: 3.0 });
    assert_ne!(times(&arrivals), times(&before));
    assert_eq!(shapes(&arrivals), shapes(&before));

    let outputs = |found: &[(Time, Request)]| -> Vec<(u32, TenantId)> {
        found.iter().map(|(_, r)| (r.output_tokens, r.tenant)).collect()
    };
    let prompts = changed(&|w| w.prompt = Lengths::Fixed(9));
    assert_eq!((times(&prompts), outputs(&prompts)), (times(&before), outputs(&before)));

    let tenants = changed(&|w| w.tenants = vec![(TenantId(0), 1)]);
    let untold = |found: &[(Time, Request)]| -> Vec<(Time, Request)> {
        found.iter().map(|(at, r)| (*at, Request { tenant: TenantId(0), ..*r })).collect()
    };
    assert_eq!(untold(&tenants), untold(&before));
}

#[test]
fn name_seed_and_replication_change_everything() {
    let offered = workload(Arrivals::Poisson { rate: 5.0 });
    let take = |name, seed, replication| {
        let mut source = source(&offered, name, seed, replication);
        (next_at(source.as_mut()), source.take().prompt_tokens)
    };
    assert_eq!(take("a", 1, 0), take("a", 1, 0));
    for (name, seed, replication) in [("b", 1, 0), ("a", 2, 0), ("a", 1, 1)] {
        let ((at, prompt), (other_at, other)) = (take("a", 1, 0), take(name, seed, replication));
        assert!(at != other_at && prompt != other, "{name} {seed} {replication}");
    }
}

#[test]
fn twice_the_rate_is_half_the_time_even_after_a_million_arrivals() {
    let n = 1_000_000;
    let last = |rate: f64| {
        let mut source = source(&workload(Arrivals::Poisson { rate }), "test", 7, 0);
        for _ in 1..n {
            source.take();
        }
        next_at(source.as_mut()).expect("a Poisson process goes on").nanos()
    };
    // Each gap is rounded by at most half a nanosecond, up as often as down: the difference walks
    // like √n, about 0.6 µs, where an error that accumulated would reach 500 µs.
    let [slow, fast] = [last(10.0), last(20.0)];
    assert!(slow.abs_diff(2 * fast) < 4_000, "{slow} {fast}");
}

#[test]
fn next_at_only_looks() {
    let closed = Arrivals::Closed { users: 3, think: Think::Exponential(Span::from_secs(1)) };
    for arrivals in [Arrivals::Poisson { rate: 5.0 }, closed] {
        let offered = workload(arrivals);
        let [mut looked, mut other] = [0, 1].map(|_| source(&offered, "test", 7, 0));
        while let Some(at) = next_at(looked.as_mut()).filter(|at| *at < Time::ZERO + MINUTES_30) {
            assert_eq!((next_at(looked.as_mut()), next_at(looked.as_mut())), (Some(at), Some(at)));
            assert_eq!(next_at(other.as_mut()), Some(at));
            let request = looked.take();
            assert_eq!(request, other.take());
            assert_eq!(looked.ended(at, request.key), other.ended(at, request.key));
        }
    }
}

/// Serves a closed loop, every request for `service` and all at once; what each user asked, when.
fn serve(offered: &Workload, service: Span) -> BTreeMap<u32, Vec<(Time, Request)>> {
    let mut source = source(offered, "test", 7, 0);
    let mut asked: BTreeMap<u32, Vec<(Time, Request)>> = BTreeMap::new();
    let mut in_flight = std::collections::VecDeque::new();
    loop {
        let next = next_at(source.as_mut());
        let ends = in_flight.front().copied();
        match (next, ends) {
            (None, None) => return asked,
            (Some(at), ends) if ends.is_none_or(|(end, _)| at < end) => {
                let request = source.take();
                in_flight.push_back((at + service, request.key));
                asked.entry(request.key).or_default().push((at, request));
                let keys: std::collections::BTreeSet<u32> =
                    in_flight.iter().map(|(_, key)| *key).collect();
                assert_eq!(keys.len(), in_flight.len(), "a user waits for its answer");
            }
            (_, Some((end, key))) => {
                in_flight.pop_front();
                let changed = source.ended(end, key);
                assert_eq!(changed, next_at(source.as_mut()) != next, "it says what changed");
            }
            (Some(_), None) => unreachable!("an arrival comes first where nothing is in flight"),
        }
    }
}

#[test]
fn a_closed_loop_user_thinks_asks_and_waits() {
    let [think, service] = [Span::from_secs(2), Span::from_millis(500)];
    let mut offered = workload(Arrivals::Closed { users: 5, think: Think::Fixed(think) });
    offered.start = Time::ZERO + Span::from_secs(1);
    offered.stop = Some(Time::ZERO + Span::from_secs(60));
    let asked = serve(&offered, service);
    assert_eq!(asked.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    for requests in asked.values() {
        let expected: Vec<Time> = (0..)
            .map(|k| Time::from_nanos(3_000_000_000 + k * 2_500_000_000))
            .take_while(|at| *at < Time::ZERO + Span::from_secs(60))
            .collect();
        assert_eq!(times(requests), expected);
        assert!(requests.iter().all(|(_, r)| r.tenant == requests[0].1.tenant));
    }
}

#[test]
fn a_closed_loop_users_requests_do_not_depend_on_the_service() {
    let think = Think::Exponential(Span::from_secs(1));
    let mut offered = workload(Arrivals::Closed { users: 20, think });
    offered.stop = Some(Time::ZERO + MINUTES_30);
    let [fast, slow] = [10, 3_000].map(|millis| serve(&offered, Span::from_millis(millis)));
    assert_eq!(fast.keys().collect::<Vec<_>>(), slow.keys().collect::<Vec<_>>());
    for (user, slow) in &slow {
        let fast = &fast[user];
        assert!(slow.len() < fast.len(), "a slow server is asked less");
        assert_eq!(shapes(slow), shapes(&fast[..slow.len()]));
    }
    // The mean cycle is think plus service.
    let count: usize = fast.values().map(Vec::len).sum();
    let expected = 20.0 * 1_800.0 / 1.01;
    assert!((count as f64 / expected - 1.0).abs() < 0.02, "{count} for {expected}");
}
