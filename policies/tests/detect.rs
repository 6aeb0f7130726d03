//! The detector: each injected pathology raises its alarm in time, names whom it hurts, who does
//! it and on what; and fair overload, however long, raises none.

use plimsoll_base::{
    BackendId, Bound, ClassId, End, Reason, RequestId, Span, Stream, StreamKey, TenantId, Time,
};
use plimsoll_policy::config::{Capacity, Class, Guard, Per, Share, TokenCost};
use plimsoll_policy::detect::Limits;
use plimsoll_policy::{
    Action, Alarm, AlarmKind, Allocator, BackendInfo, Config, Decision, Detector, EnginePriority,
    Input, Load, RequestInfo, Signal, Used,
};

const MILLI: Span = Span::from_millis(1);

/// A class's demand: a request so often, of so many output tokens at a millisecond each.
#[derive(Clone, Copy)]
struct Demand {
    class: u16,
    every_ms: u64,
    from_ms: u64,
    until_ms: u64,
    output: u32,
}

fn demand(class: u16, every_ms: u64, output: u32) -> Demand {
    Demand { class, every_ms, from_ms: 0, until_ms: u64::MAX, output }
}

/// An allocator with a detector beside it, and backends of so many seats that deliver a token a
/// millisecond to each request.
struct Bench {
    allocator: Allocator,
    detector: Detector,
    now: Time,
    running: Vec<(Time, RequestId, u32)>,
    ids: u64,
    alarms: Vec<(Time, Alarm)>,
    /// Ends that are lost on their way.
    loses_ends: bool,
    reports: bool,
}

const PROMPT: u32 = 10;

impl Bench {
    fn new(config: Config, seats: u32) -> Bench {
        let mut bench = Bench {
            detector: Detector::new(&config, Limits::default()),
            allocator: Allocator::new(config).expect("the policy holds together"),
            now: Time::ZERO,
            running: Vec::new(),
            ids: 0,
            alarms: Vec::new(),
            loses_ends: false,
            reports: false,
        };
        let info = BackendInfo {
            seats,
            kv_tokens: 1_000_000,
            context_max: 1_000_000,
            ..BackendInfo::default()
        };
        bench.tell(Input::Joined(BackendId::first(0), info));
        bench
    }

    fn tell(&mut self, input: Input) {
        self.detector.input(self.now, &input, &self.allocator);
        self.allocator.handle(self.now, input);
        while let Some(decision) = self.allocator.poll() {
            self.detector.decision(self.now, &decision, &self.allocator);
            let at = self.running.iter().position(|(_, id, _)| *id == decision.id);
            let at = at.expect("it was written down");
            match decision.action {
                Action::Dispatch(..) => {
                    let run = &mut self.running[at];
                    run.0 = self.now + MILLI.saturating_mul(run.2.into());
                }
                Action::Reject(..) | Action::Close(_) => {
                    self.running.swap_remove(at);
                }
                Action::Preempt(_) | Action::Cancel(_) => unreachable!("no rule does"),
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        self.detector.settle(self.now, &self.allocator);
        while let Some(Signal::Alarm(alarm)) = self.detector.poll() {
            self.alarms.push((self.now, alarm));
        }
    }

    fn arrive(&mut self, class: u16, output: u32) {
        self.arrive_from(u32::from(class), class, output);
    }

    fn arrive_from(&mut self, tenant: u32, class: u16, output: u32) {
        let id = RequestId(self.ids);
        self.ids += 1;
        self.running.push((Time::MAX, id, output));
        let info = RequestInfo {
            tenant: TenantId(tenant),
            claims: Some(ClassId(class)),
            prompt_tokens: PROMPT,
            output_cap: output,
            ..RequestInfo::default()
        };
        self.tell(Input::Arrived(id, info));
    }

    /// Plays the demands for so many milliseconds.
    fn play(&mut self, demands: &[Demand], millis: u64) {
        for _ in 0..millis {
            let at = self.now.nanos() / 1_000_000;
            while let Some(index) = self.running.iter().position(|run| run.0 <= self.now) {
                let (_, id, output) = self.running.swap_remove(index);
                if !self.loses_ends {
                    let used = Used { prompt_tokens: PROMPT, output_tokens: output };
                    self.tell(Input::Ended(id, End::Finished, used));
                }
            }
            for demand in demands.iter().filter(|d| d.from_ms <= at && at < d.until_ms) {
                if (at - demand.from_ms).is_multiple_of(demand.every_ms) {
                    self.arrive(demand.class, demand.output);
                }
            }
            if self.reports && at.is_multiple_of(100) {
                let running = self.running.iter().filter(|run| run.0 < Time::MAX).count() as u32;
                let load = Load { running, ..Load::default() };
                self.tell(Input::Reported(BackendId::first(0), load, self.now));
            }
            if self.allocator.next_deadline().is_some_and(|at| at <= self.now) {
                self.tell(Input::Deadline);
            }
            if self.detector.next_check().is_some_and(|at| at <= self.now) {
                self.settle();
            }
            self.now += MILLI;
        }
    }

    /// The first alarm of a kind for a class.
    fn first(&self, kind: AlarmKind, victim: u16) -> Option<(Time, Alarm)> {
        let of = |(_, alarm): &&(Time, Alarm)| alarm.kind == kind && alarm.victim.0 == victim;
        self.alarms.iter().find(of).copied()
    }
}

fn class(weight: u32, priority: i32) -> Class {
    Class { weight, priority, ..Class::default() }
}

fn waits(class: Class, millis: u64) -> Class {
    Class { wait_max: Some(Span::from_millis(millis)), ..class }
}

fn counter(classes: Vec<Class>) -> Config {
    let cost = TokenCost { prompt: 1, output: 2 };
    Config::plain(Share::VirtualTokenCounter { per: Per::Class, cost }, classes)
}

/// Plays a pathology from the start; the alarm must come within `within_ms`, and say so.
fn check(
    name: &str,
    (mut bench, demands): (Bench, &[Demand]),
    (kind, victim, culprit, resource): (AlarmKind, u16, Option<u16>, Option<Bound>),
    within_ms: u64,
) -> Bench {
    bench.play(demands, within_ms);
    let found = bench.first(kind, victim);
    let (_, alarm) = found.unwrap_or_else(|| panic!("{name}: {:?}", bench.alarms));
    assert_eq!(alarm.culprit, culprit.map(ClassId), "{name}: {alarm:?}");
    assert_eq!(alarm.resource, resource, "{name}: {alarm:?}");
    bench
}

const SEATS: Option<Bound> = Some(Bound::Seats);

#[test]
fn strict_bands_starve_the_lower_one() {
    let config = Config::plain(Share::Priority, vec![waits(class(1, 0), 2_000), class(1, 5)]);
    let bench = Bench::new(config, 4);
    // The upper band alone asks for more than there is.
    let demands = [demand(0, 500, 200), demand(1, 40, 200)];
    let alarm = (AlarmKind::NoService, 0, Some(1), SEATS);
    check("strict bands", (bench, &demands), alarm, 5_000);
}

#[test]
fn strict_bands_let_the_lower_one_lag() {
    let config = Config::plain(Share::Priority, vec![class(1, 0), class(1, 5)]);
    let demands = [demand(0, 100, 200), demand(1, 40, 200)];
    let alarm = (AlarmKind::Lag, 0, Some(1), SEATS);
    check("strict bands", (Bench::new(config, 4), &demands), alarm, 10_000);
}

#[test]
fn a_stuck_request_under_a_cap_starves_its_own_class() {
    let capped = Class { requests_max: Some(1), ..waits(class(1, 0), 2_000) };
    let bench = Bench::new(counter(vec![capped, class(1, 0)]), 4);
    let demands = [demand(0, 1_000, 60_000), demand(1, 100, 200)];
    let alarm = (AlarmKind::NoService, 0, Some(0), Some(Bound::ClassRequests));
    check("a cap of requests", (bench, &demands), alarm, 6_000);
}

#[test]
fn a_cap_of_tokens_starves_its_own_class() {
    let capped = Class { tokens_max: Some(300), ..waits(class(1, 0), 2_000) };
    let bench = Bench::new(counter(vec![capped, class(1, 0)]), 4);
    let demands = [demand(0, 1_000, 9_000), demand(1, 100, 200)];
    let alarm = (AlarmKind::NoService, 0, Some(0), Some(Bound::ClassTokens));
    check("a cap of tokens", (bench, &demands), alarm, 6_000);
}

#[test]
fn a_flood_in_one_queue_starves_the_light_class() {
    let config = Config::plain(Share::Fcfs, vec![class(4, 1), class(1, 1)]);
    // The light class asks for a quarter of what there is, and has a right to four fifths.
    let demands = [demand(0, 200, 200), demand(1, 20, 200)];
    let alarm = (AlarmKind::Lag, 0, Some(1), SEATS);
    check("a flood", (Bench::new(config, 4), &demands), alarm, 15_000);
}

#[test]
fn a_burst_of_long_requests_starves_whoever_comes_behind() {
    let config = Config::plain(Share::Fcfs, vec![waits(class(1, 0), 3_000), class(1, 0)]);
    let mut bench = Bench::new(config, 4);
    (0..40).for_each(|_| bench.arrive(1, 1_500));
    let alarm = (AlarmKind::NoService, 0, Some(1), SEATS);
    check("a burst", (bench, &[demand(0, 400, 50)]), alarm, 6_000);
}

#[test]
fn less_important_work_holds_the_seats() {
    let config = Config::plain(Share::Fcfs, vec![class(4, 9), class(1, 0)]);
    let demands = [demand(0, 100, 200), demand(1, 20, 200)];
    let alarm = (AlarmKind::Inversion, 0, Some(1), SEATS);
    check("inversion", (Bench::new(config, 4), &demands), alarm, 30_000);
}

#[test]
fn a_queue_too_long_for_its_deadline_is_seen_before_it_misses() {
    let urgent = Class { deadline: Some(Span::from_secs(5)), ..class(1, 0) };
    let bench = Bench::new(counter(vec![urgent, class(1, 0)]), 4);
    // Half of the seats let ten a second in; twenty come.
    let demands = [demand(0, 50, 200), demand(1, 50, 200)];
    let alarm = (AlarmKind::Deadline, 0, Some(1), SEATS);
    let bench = check("a deadline", (bench, &demands), alarm, 20_000);
    let (_, alarm) = bench.first(AlarmKind::Deadline, 0).expect("it was just found");
    assert!(alarm.since < Time::ZERO + Span::from_secs(15), "{alarm:?}");
}

#[test]
fn a_class_that_is_preempted_for_ever_is_a_livelock() {
    let mut bench = Bench::new(counter(vec![class(1, 0), class(1, 5)]), 2);
    bench.arrive(1, 5_000);
    bench.arrive(0, 5_000);
    for _ in 0..20 {
        let decision = |action| Decision {
            id: RequestId(1),
            class: Some(ClassId(0)),
            action,
            reason: Reason::Priority,
            bound: None,
        };
        let preempt = decision(Action::Preempt(BackendId::first(0)));
        bench.detector.decision(bench.now, &preempt, &bench.allocator);
        bench.play(&[demand(0, 100, 5_000), demand(1, 100, 5_000)], 100);
        let again = decision(Action::Dispatch(BackendId::first(0), EnginePriority(0)));
        bench.detector.decision(bench.now, &again, &bench.allocator);
    }
    let (at, alarm) = bench.first(AlarmKind::Livelock, 0).expect("a livelock");
    assert!(at < Time::ZERO + Span::from_secs(3), "{at}");
    assert_eq!((alarm.culprit, alarm.resource), (Some(ClassId(1)), SEATS));
    assert!(bench.first(AlarmKind::Livelock, 1).is_none());
}

#[test]
fn ends_that_are_lost_leave_seats_idle() {
    let mut bench = Bench::new(counter(vec![class(1, 0), class(1, 0)]), 4);
    bench.reports = true;
    bench.loses_ends = true;
    let demands = [demand(0, 100, 200), demand(1, 100, 200)];
    let alarm = (AlarmKind::Idle, 0, None, SEATS);
    check("lost ends", (bench, &demands), alarm, 4_000);
}

#[test]
fn a_guard_that_is_too_small_does_not_help() {
    let classes = vec![waits(class(1, 0), 1_000), waits(class(1, 5), 60_000)];
    let mut config = Config::plain(Share::Priority, classes);
    config.guard = Some(Guard { due_share_ppm: 5_000 });
    let demands = [demand(0, 200, 200), demand(1, 40, 200)];
    let alarm = (AlarmKind::NoService, 0, Some(1), SEATS);
    check("a small guard", (Bench::new(config, 4), &demands), alarm, 15_000);
}

#[test]
fn an_alarm_is_raised_once_an_episode() {
    let config = Config::plain(Share::Priority, vec![waits(class(1, 0), 2_000), class(1, 5)]);
    let mut bench = Bench::new(config, 4);
    let flood = |from_ms, until_ms| Demand { from_ms, until_ms, ..demand(1, 40, 200) };
    // Two floods with a minute of quiet between them.
    let demands = [demand(0, 500, 200), flood(0, 20_000), flood(100_000, 120_000)];
    bench.play(&demands, 150_000);
    let raised: Vec<u64> = (bench.alarms.iter())
        .filter(|(_, alarm)| alarm.kind == AlarmKind::NoService)
        .map(|(at, _)| at.nanos() / 1_000_000_000)
        .collect();
    assert_eq!(raised.len(), 2, "{raised:?}");
    assert!(raised[0] < 10 && (100..110).contains(&raised[1]), "{raised:?}");
    assert_eq!(bench.detector.dropped(), 0);
}

/// A class of one tenant beside one of nine, each tenant with an account: by classes the first is
/// far behind its half, by tenants it has its tenth. Its importance changes nothing.
#[test]
fn shares_of_tenants_are_not_judged_by_class() {
    let cost = TokenCost { prompt: 1, output: 2 };
    let play = |per| {
        let share = Share::VirtualTokenCounter { per, cost };
        let mut bench = Bench::new(Config::plain(share, vec![class(1, 9), class(1, 0)]), 10);
        for millis in 0..120_000u64 {
            if millis.is_multiple_of(20) {
                let tenant = (millis / 20 % 10) as u32;
                bench.arrive_from(tenant, u16::from(tenant > 0), 1_000);
                bench.arrive_from(tenant, u16::from(tenant > 0), 1_000);
            }
            bench.play(&[], 1);
        }
        let waits = [0, 1].map(|class| bench.allocator.queued(ClassId(class)));
        assert!(waits.iter().all(|&waiting| waiting > 100), "both wait: {waits:?}");
        bench
    };
    let bench = play(Per::Tenant);
    for kind in [AlarmKind::Lag, AlarmKind::Inversion] {
        assert_eq!(bench.first(kind, 0), None, "{kind:?}");
    }
}

const CAPACITY: Capacity = Capacity {
    prefill_tokens: 10_000,
    decode_tokens: 16_000,
    kv_tokens: 1_000_000,
    output_token: MILLI,
};

/// Random requests, twice what there is, for five minutes under each rule that keeps shares: all
/// wait, all the time, and each gets its share.
#[test]
fn fair_overload_raises_no_alarm() {
    let cost = TokenCost { prompt: 1, output: 2 };
    let per = Per::Class;
    for (number, share) in [
        Share::VirtualTokenCounter { per, cost },
        Share::DeficitRoundRobin { per, quantum: 500, cost },
        Share::StartTimeFair { per, cost },
        Share::Stride { per },
        Share::DominantResource { per, capacity: CAPACITY },
        Share::DeficitLongestPrefix { per, quantum: 500, cost },
    ]
    .into_iter()
    .enumerate()
    {
        let classes = [(1, 0), (2, 3), (4, 9)].map(|(weight, priority)| Class {
            time_to_live: Some(Span::from_secs(20)),
            ..waits(class(weight, priority), 15_000)
        });
        let mut bench = Bench::new(Config::plain(share, classes.to_vec()), 16);
        bench.reports = true;
        let key = StreamKey { seed: 1, replication: 0, name: "fair", entity: number as u64 };
        let mut stream = Stream::new(key);
        for _ in 0..300_000u64 {
            for class in 0..3 {
                // Each offers some 55 requests a second of 200 tokens: 16 seats deliver 80.
                if stream.below(1_000) < 55 {
                    bench.arrive(class, 20 + stream.below(360) as u32);
                }
            }
            bench.play(&[], 1);
        }
        assert_eq!(bench.alarms, [], "{}", bench.now);
        let queued: u32 = (0..3).map(|class| bench.allocator.queued(ClassId(class))).sum();
        assert!(queued > 500, "they wait: {queued}");
    }
}
