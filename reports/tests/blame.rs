//! Who starved whom, worked out on paper.

use plimsoll_base::{
    BackendId, Bound, ClassId, ClassSample, End, Fact, Names, Observer, Outcome, PoolId, Reason,
    RequestId, RequestRecord, Span, Time,
};
use plimsoll_report::summary::{BlameKind, Fate, StarvedBy};
use plimsoll_report::{
    Blamed, Cause, ClassPlan, Ledger, Metric, Objective, Plan, PoolPlan, Resource, summarise,
};

const AGENTS: ClassId = ClassId(0);
const BATCH: ClassId = ClassId(1);

fn plan() -> Plan {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let class = |weight| ClassPlan { weight, ..ClassPlan::default() };
    let objective = Objective {
        metric: Metric::Queue,
        percentile: 100.0,
        limit: 1.0,
        text: "queue_p100 = 1s".to_owned(),
    };
    Plan {
        names: Names {
            tenants: names(&["one"]),
            classes: names(&["agents", "batch"]),
            pools: names(&["gpu"]),
            sources: names(&["web"]),
        },
        classes: vec![class(1), ClassPlan { objectives: vec![objective], ..class(1) }],
        pools: vec![PoolPlan { replicas: 1, seats: 8, kv_tokens: 1000, provenance: String::new() }],
        backends: vec![PoolId(0)],
        ..Plan::default()
    }
}

fn at(seconds: u64) -> Time {
    Time::ZERO + Span::from_secs(seconds)
}

fn record(id: u64, class: ClassId, arrived: u64) -> RequestRecord {
    RequestRecord {
        class: Some(class),
        prompt_tokens: 10,
        output_cap: 10,
        ..RequestRecord::new(RequestId(id), at(arrived))
    }
}

/// A run in the making.
struct Facts {
    ledger: Ledger,
    open: Vec<RequestRecord>,
}

impl Facts {
    fn tell(&mut self, when: u64, fact: &Fact) {
        self.ledger.observe(at(when), fact);
    }
    fn arrive(&mut self, when: u64, class: ClassId) {
        let record = record(self.open.len() as u64, class, when);
        self.open.push(record);
        let (id, tenant) = (record.id, record.tenant);
        let (class, arrived) = (Some(class), at(when));
        let arrival = Fact::Arrived { id, tenant, class, arrived, prompt_tokens: 10 };
        self.tell(when, &arrival);
    }
    fn dispatch(&mut self, when: u64, id: usize, tokens: u64) {
        let record = &mut self.open[id];
        (record.dispatched, record.tokens) = (Some(at(when)), tokens);
        record.backend = Some(BackendId::first(0));
        record.phases.queue = at(when) - record.arrived;
        let class = record.class.expect("it has one");
        let (id, tenant, arrived) = (record.id, record.tenant, record.arrived);
        let (backend, reason) = (BackendId::first(0), Reason::ArrivalOrder);
        let prompt_tokens = record.prompt_tokens;
        let fact = Fact::Dispatched {
            id,
            tenant,
            class,
            backend,
            reason,
            bound: None,
            arrived,
            prompt_tokens,
            tokens,
        };
        self.tell(when, &fact);
    }
    fn start(&mut self, when: u64, id: usize) {
        let record = &mut self.open[id];
        record.started = Some(at(when));
        record.phases.queue = at(when) - record.arrived;
        let (id, arrived) = (record.id, record.arrived);
        let class = record.class.expect("it has one");
        self.tell(when, &Fact::Started { id, class, backend: BackendId::first(0), arrived });
    }
    fn bound(&mut self, when: u64, class: ClassId, bound: Option<Bound>) {
        self.tell(when, &Fact::Bound { class, bound });
    }
    fn end(mut self, when: u64) -> Ledger {
        for mut record in std::mem::take(&mut self.open) {
            record.closed = at(when);
            if record.outcome == Outcome::Unfinished {
                record.outcome = Outcome::Ended(End::Finished);
            }
            match record.started {
                Some(started) => record.phases.prefill = at(when) - started,
                None => {
                    record.outcome = Outcome::Unfinished;
                    record.phases.queue = at(when) - record.arrived;
                }
            }
            self.tell(when, &Fact::Closed(record));
        }
        self.tell(when, &Fact::RunEnded);
        self.ledger
    }
}

/// Agents hold seven of eight seats, batch one; then another request of batch comes.
fn run(plan: &Plan, tokens: (u64, u64)) -> Facts {
    let mut facts = Facts { ledger: Ledger::new(plan), open: Vec::new() };
    for id in 0..8 {
        let (class, tokens) = if id < 7 { (AGENTS, tokens.0) } else { (BATCH, tokens.1) };
        facts.arrive(0, class);
        facts.dispatch(0, id, tokens);
        facts.start(0, id);
    }
    facts.arrive(0, BATCH);
    facts
}

fn check(ledger: &Ledger, expected: &[(Cause, u64)]) {
    let parts: Vec<(Cause, u128)> =
        ledger.blamed(BATCH).into_iter().map(|Blamed { cause, nanos }| (cause, nanos)).collect();
    let millis = |ms: u64| u128::from(Span::from_millis(ms).nanos());
    let expected: Vec<(Cause, u128)> =
        expected.iter().map(|&(cause, ms)| (cause, millis(ms))).collect();
    assert_eq!(parts, expected);
}

#[test]
fn a_wait_is_split_over_holders_limits_and_signals() {
    let mut facts = run(&plan(), (1, 1));
    facts.bound(0, BATCH, Some(Bound::Seats));
    facts.bound(40, BATCH, Some(Bound::ClassRequests));
    facts.bound(50, BATCH, Some(Bound::StaleSignal));
    facts.dispatch(60, 8, 1);
    facts.bound(60, BATCH, None);
    facts.start(60, 8);
    let ledger = facts.end(61);
    let agents = Some(AGENTS);
    // Half of the seats is the agents' share; of 40 s they held 7/8.
    let expected = [
        (Cause::Within(Resource::Seats, agents), 20_000),
        (Cause::Within(Resource::Seats, Some(BATCH)), 5_000),
        (Cause::Above(Resource::Seats, agents), 15_000),
        (Cause::Line(Bound::ClassRequests), 10_000),
        (Cause::Line(Bound::StaleSignal), 10_000),
    ];
    check(&ledger, &expected);
    let summary = summarise(&plan(), &[ledger], false);
    let batch = &summary.classes[1].waiting;
    let told: Vec<_> = batch.blame.iter().map(|p| (p.kind, p.seconds, p.held)).collect();
    assert_eq!(
        told,
        [
            (BlameKind::WithinShare, 20.0, Some(0.875)),
            (BlameKind::AboveShare, 15.0, Some(0.875)),
            (BlameKind::OwnLimit, 10.0, None),
            (BlameKind::Signal, 10.0, None),
            (BlameKind::OwnClass, 5.0, Some(0.125)),
        ]
    );
    let sentence = "it waited 60.0 s in all: 20.0 s because agents used the seats within its \
                    share, 15.0 s because agents held 88 % of the seats, above its share (weight 1 \
                    of 2), 10.0 s at its class's cap of requests and 10.0 s because what is known \
                    of the backends was too old";
    assert!(batch.sentence.contains(sentence), "{}", batch.sentence);
    assert_ne!(batch.fate, Fate::Starved);
}

#[test]
fn memory_is_held_by_tokens_and_what_still_waits_counts() {
    // Agents hold 21 tokens of 28, batch 7; the second request of batch never goes.
    let mut facts = run(&plan(), (3, 7));
    facts.bound(0, BATCH, Some(Bound::KvMemory));
    let ledger = facts.end(10);
    let agents = Some(AGENTS);
    let expected = [
        (Cause::Within(Resource::KvMemory, agents), 5_000),
        (Cause::Within(Resource::KvMemory, Some(BATCH)), 2_500),
        (Cause::Above(Resource::KvMemory, agents), 2_500),
    ];
    check(&ledger, &expected);
}

#[test]
fn a_wait_in_the_engine_falls_on_who_runs_there() {
    let mut facts = run(&plan(), (1, 1));
    facts.dispatch(0, 8, 1);
    facts.start(8, 8);
    let ledger = facts.end(10);
    let agents = Some(AGENTS);
    let expected = [
        (Cause::Within(Resource::Engine, agents), 4_000),
        (Cause::Within(Resource::Engine, Some(BATCH)), 1_000),
        (Cause::Above(Resource::Engine, agents), 3_000),
    ];
    check(&ledger, &expected);
}

/// Seats that nobody holds are said to be taken: nobody is to blame.
#[test]
fn what_nobody_holds_is_idle() {
    let mut facts = Facts { ledger: Ledger::new(&plan()), open: Vec::new() };
    facts.arrive(0, BATCH);
    facts.bound(0, BATCH, Some(Bound::Seats));
    check(&facts.end(10), &[(Cause::Idle(Resource::Seats), 10_000)]);
}

#[test]
fn what_less_important_classes_hold_meanwhile_is_inversion() {
    let mut plan = plan();
    plan.classes[1].priority = 5;
    let mut facts = run(&plan, (1, 1));
    facts.bound(0, BATCH, Some(Bound::Seats));
    facts.bound(4, BATCH, Some(Bound::ClassTokens));
    let summary = summarise(&plan, &[facts.end(10)], false);
    // Seven seats for four seconds.
    assert_eq!(summary.classes[1].waiting.inversion_seat_s, Some(28.0));
    assert_eq!(summary.classes[0].waiting.inversion_seat_s, Some(0.0));
    assert_eq!(summary.classes[1].waiting.oldest_at_end_s, Some(10.0));
}

/// Priorities of agents and batch, and how often a request of batch was overtaken by agents.
#[test]
fn who_comes_later_and_is_no_more_important_overtakes() {
    for (priorities, overtakes) in [((0, 0), 2.0), ((1, 2), 2.0), ((2, 1), 0.0)] {
        let mut plan = plan();
        (plan.classes[0].priority, plan.classes[1].priority) = priorities;
        let mut facts = run(&plan, (1, 1));
        facts.bound(0, BATCH, Some(Bound::Seats));
        facts.arrive(1, AGENTS);
        facts.arrive(1, AGENTS);
        facts.bound(1, AGENTS, Some(Bound::Seats));
        for id in 9..11 {
            facts.dispatch(2, id, 1);
            facts.start(2, id);
        }
        facts.dispatch(3, 8, 1);
        facts.start(3, 8);
        // Comes last, and stays behind those that were there before.
        facts.arrive(4, BATCH);
        let summary = summarise(&plan, &[facts.end(10)], false);
        let told = &summary.classes[1].numbers.overtakes;
        // One went at once, one never.
        assert_eq!((told.count, told.censored, told.max.value), (3, 1, Some(overtakes)));
        assert_eq!(told.mean.value, Some((overtakes / 3.0 * 1e9).round() / 1e9));
        assert_eq!(summary.classes[0].numbers.overtakes.max.value, Some(0.0));
    }
}

#[test]
fn a_free_seat_beside_a_cap_is_unfair_idle() {
    let idle = |seats, kv_tokens| {
        let mut plan = plan();
        (plan.pools[0].seats, plan.pools[0].kv_tokens) = (seats, kv_tokens);
        let mut facts = run(&plan, (1, 1));
        facts.bound(0, BATCH, Some(Bound::ClassRequests));
        facts.bound(10, BATCH, Some(Bound::Seats));
        facts.bound(20, BATCH, Some(Bound::Quota));
        let summary = summarise(&plan, &[facts.end(25)], false);
        assert_eq!(summary.classes[0].waiting.unfair_idle_s.value, Some(0.0));
        summary.classes[1].waiting.unfair_idle_s.value
    };
    assert_eq!(idle(9, 1_000), Some(15.0));
    assert_eq!(idle(8, 1_000), Some(0.0), "all seats are taken");
    assert_eq!(idle(9, 8), Some(0.0), "all memory is taken");
}

#[test]
fn slowdown_has_a_floor_and_waste_is_told_of_useful_tokens() {
    let plan = plan();
    let mut facts = run(&plan, (1, 1));
    for (id, alone) in [(0, 2_000), (1, 1), (2, 20_000)] {
        facts.open[id].alone = Span::from_millis(alone);
    }
    // 20 tokens each of six requests; what the seventh computed is lost.
    for record in &mut facts.open[..7] {
        (record.output_tokens, record.first_token) = (10, Some(at(1)));
    }
    (facts.open[3].preemptions, facts.open[3].recomputed_tokens) = (3, 24);
    (facts.open[4].preemptions, facts.open[4].recomputed_tokens) = (2, 12);
    (facts.open[6].outcome, facts.open[6].wasted_tokens) = (Outcome::Ended(End::Evicted), 18);
    facts.open[8].alone = Span::from_secs(1);
    let summary = summarise(&plan, &[facts.end(10)], false);
    let [agents, batch] = [0, 1].map(|class: usize| &summary.classes[class].numbers);
    // 10 s are 5 times 2 s and 100 times the floor; nobody is faster than alone.
    assert_eq!(agents.slowdown.count, 3);
    assert_eq!(agents.slowdown.max.value, Some(100.0));
    assert_eq!(
        agents.slowdown.mean.value,
        Some(((1.0 + 5.0 + 100.0) / 3.0 * 1e7f64).round() / 1e7)
    );
    assert_eq!((batch.slowdown.count, batch.slowdown.censored), (1, 1));
    assert!(batch.slowdown.max.at_least);
    assert_eq!((agents.preemptions, agents.preemptions_max), (Some(5), Some(3)));
    assert_eq!(agents.preemption_waste.value, Some(36.0 / 120.0));
    assert_eq!(agents.wasted_tokens, 18);
    assert_eq!(agents.eviction_waste.value, Some(18.0 / 120.0));
    assert_eq!(summary.run.preemptions_max, Some(3));
}

/// Both classes wait for a hundred seconds and one gets all engine time.
#[test]
fn who_is_owed_no_share_is_not_starved_by_lag() {
    let fate = |owes_others| {
        let plan = Plan { owes_others, ..plan() };
        let mut facts = run(&plan, (1, 1));
        facts.bound(0, BATCH, Some(Bound::Seats));
        for when in [0, 50, 100] {
            for class in [AGENTS, BATCH] {
                let busy = Span::from_secs(if class == AGENTS { when } else { when / 50 });
                let sample = ClassSample { queued: 1, busy, ..ClassSample::default() };
                facts.tell(when, &Fact::ClassSampled { class, sample });
            }
        }
        let summary = summarise(&plan, &[facts.end(100)], false);
        let waiting = &summary.classes[1].waiting;
        assert!(waiting.lag.as_ref().is_some_and(|lag| lag.seconds > 45.0), "{:?}", waiting.lag);
        (waiting.fate, waiting.starved_by)
    };
    assert_eq!(fate(false), (Fate::Starved, Some(StarvedBy::Lag)));
    assert_ne!(fate(true).0, Fate::Starved);
}
