//! Facts in, numbers out: hand-made runs whose results were worked out on paper.

use plimsoll_base::{
    BackendId, BackendSample, Bound, ClassId, ClassSample, End, Fact, Names, Observer, Outcome,
    Phases, PoolId, Reason, Refusal, RequestId, RequestRecord, SourceId, Span, TenantId, Ticks,
    Time,
};
use plimsoll_report::summary::{Fate, Summary};
use plimsoll_report::{
    ClassPlan, Format, Ledger, Metric, Objective, Plan, PoolPlan, REQUEST_COLUMNS, RequestRows,
    Verdict, charts, page, summarise, summary_schema, table, write_timeseries,
};

fn plan(ttft_limit: Option<f64>) -> Plan {
    let objective = |limit| Objective {
        metric: Metric::Ttft,
        percentile: 50.0,
        limit,
        text: format!("ttft_p50 = {limit}s"),
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Plan {
        scenario: "by hand".to_owned(),
        seed: 1,
        warm_up: Span::from_secs(10),
        names: Names {
            tenants: names(&["a,b", "night"]),
            classes: names(&["chat & <b>talk</b>", "batch"]),
            pools: names(&["gpu"]),
            sources: names(&["web"]),
        },
        classes: vec![
            ClassPlan {
                priority: 1,
                weight: 3,
                wait_max: Some(Span::from_secs(2)),
                objectives: ttft_limit.into_iter().map(objective).collect(),
                ..ClassPlan::default()
            },
            ClassPlan { weight: 1, ..ClassPlan::default() },
        ],
        pools: vec![PoolPlan { replicas: 1, seats: 2, kv_tokens: 1000, provenance: String::new() }],
        backends: vec![PoolId(0)],
        ..Plan::default()
    }
}

fn at(seconds: f64) -> Time {
    Time::ZERO + Span::from_secs_f64(seconds)
}

/// A request by its milestones; what it has not reached is `None`.
struct Life {
    id: u64,
    class: u16,
    arrived: f64,
    dispatched: Option<f64>,
    started: Option<f64>,
    first: Option<f64>,
    last: Option<f64>,
    closed: f64,
    tokens: u32,
    outcome: Outcome,
}

impl Life {
    fn record(&self) -> RequestRecord {
        let span = |from: f64, to: f64| at(to) - at(from);
        let started = self.started.unwrap_or(self.closed);
        let waited = self.dispatched.is_none_or(|let_in| let_in > self.arrived);
        RequestRecord {
            id: RequestId(self.id),
            source: SourceId(0),
            tenant: TenantId(u32::from(self.class)),
            class: Some(ClassId(self.class)),
            backend: self.dispatched.map(|_| BackendId::first(0)),
            outcome: self.outcome,
            arrived: at(self.arrived),
            dispatched: self.dispatched.map(at),
            started: self.started.map(at),
            first_token: self.first.map(at),
            last_token: self.last.map(at),
            closed: at(self.closed),
            tokens: u64::from(self.dispatched.is_some()) * 164,
            prompt_tokens: 100,
            output_tokens: self.tokens,
            output_cap: 64,
            phases: Phases {
                queue: span(self.arrived, started),
                prefill: self.first.map_or(Span::ZERO, |first| span(started, first)),
                decode: self.first.map_or(Span::ZERO, |first| span(first, self.closed)),
                preempted: Span::ZERO,
            },
            preemptions: 0,
            recomputed_tokens: 0,
            wasted_tokens: 0,
            alone: Span::ZERO,
            gap_max: Span::from_millis(300),
            reason: Some(Reason::ArrivalOrder),
            bound: waited.then_some(Bound::Seats),
        }
    }
}

const FINISHED: Outcome = Outcome::Ended(End::Finished);

fn lives(second_first_token: f64) -> Vec<Life> {
    let life = |id, class, arrived| Life {
        id,
        class,
        arrived,
        dispatched: Some(arrived),
        started: Some(arrived),
        first: None,
        last: None,
        closed: 0.0,
        tokens: 0,
        outcome: FINISHED,
    };
    vec![
        // Arrives in the warm-up: conserved, not measured.
        Life { first: Some(6.0), last: Some(8.0), closed: 8.0, tokens: 3, ..life(0, 0, 5.0) },
        Life { first: Some(10.4), last: Some(11.4), closed: 11.4, tokens: 11, ..life(1, 0, 10.0) },
        // Waits 3 s for a seat and half a second in the engine.
        Life {
            dispatched: Some(14.0),
            started: Some(14.5),
            first: Some(second_first_token),
            last: Some(17.0),
            closed: 17.0,
            tokens: 5,
            ..life(2, 0, 11.0)
        },
        Life {
            dispatched: None,
            started: None,
            closed: 12.0,
            outcome: Outcome::Refused(Refusal::QueueFull),
            ..life(3, 0, 12.0)
        },
        // One token: its time per output token is undefined.
        Life { first: Some(12.5), last: Some(12.5), closed: 12.5, tokens: 1, ..life(4, 1, 12.0) },
        // Still waits when the run ends.
        Life {
            dispatched: None,
            started: None,
            closed: 20.0,
            outcome: Outcome::Unfinished,
            ..life(5, 1, 13.0)
        },
    ]
}

/// The facts of some lives and two samples, in order.
fn facts(lives: &[Life]) -> Vec<(Time, Fact)> {
    let mut facts = vec![
        (at(10.0), 2, Fact::WarmedUp),
        (at(13.5), 2, Fact::ArrivalsEnded),
        (at(20.0), 5, Fact::RunEnded),
    ];
    for life in lives {
        let record = life.record();
        let (id, tenant, arrived) = (record.id, record.tenant, record.arrived);
        let class = ClassId(life.class);
        let arrival = Fact::Arrived { id, tenant, class: Some(class), arrived, prompt_tokens: 100 };
        facts.push((arrived, 3, arrival));
        if let Some(dispatched) = record.dispatched {
            let (backend, reason) = (BackendId::first(0), Reason::ArrivalOrder);
            let (bound, tokens) = (record.bound, record.tokens);
            let prompt_tokens = record.prompt_tokens;
            let fact = Fact::Dispatched {
                id,
                tenant,
                class,
                backend,
                reason,
                bound,
                arrived,
                prompt_tokens,
                tokens,
            };
            facts.push((dispatched, 4, fact));
        }
        if let Some(started) = record.started {
            let backend = BackendId::first(0);
            facts.push((started, 4, Fact::Started { id, class, backend, arrived }));
        }
        facts.push((record.closed, 4, Fact::Closed(record)));
    }
    for (when, busy, tokens, shares) in [(10.0, 4, 300, [4, 0]), (20.0, 11, 1_000, [7, 4])] {
        let sample = BackendSample {
            busy: Span::from_secs(busy),
            prefill_tokens: tokens,
            recomputed_tokens: tokens / 10,
            kv_token_millis: tokens * 10_000,
            ..BackendSample::default()
        };
        facts.push((at(when), 1, Fact::BackendSampled { backend: BackendId::first(0), sample }));
        for (class, busy) in (0..).zip(shares) {
            let sample = ClassSample { busy: Span::from_secs(busy), ..ClassSample::default() };
            facts.push((at(when), 1, Fact::ClassSampled { class: ClassId(class), sample }));
        }
    }
    // While request 3 waits, the other class holds every seat.
    let gauges = [ClassSample { queued: 1, busy: Span::from_secs(5), ..ClassSample::default() }, {
        ClassSample { running: 2, busy: Span::from_secs(2), ..ClassSample::default() }
    }];
    for (class, sample) in (0..).zip(gauges) {
        facts.push((at(12.0), 1, Fact::ClassSampled { class: ClassId(class), sample }));
    }
    for (when, weight) in [(9.0, 1_000), (11.4, 1)] {
        let first = Ticks(Span::from_millis(100).nanos() << Ticks::FRACTION_BITS);
        let increment = Ticks(Span::from_millis(10).nanos() << Ticks::FRACTION_BITS);
        let class = ClassId(0);
        let gaps = Fact::Gaps { class, first, increment, count: 3, sequences: weight };
        facts.push((at(when), 2, gaps));
    }
    facts.sort_by_key(|(when, rank, _)| (*when, *rank));
    facts.into_iter().map(|(when, _, fact)| (when, fact)).collect()
}

fn fold(plan: &Plan, facts: &[(Time, Fact)]) -> Ledger {
    let mut ledger = Ledger::new(plan);
    facts.iter().for_each(|(now, fact)| ledger.observe(*now, fact));
    ledger
}

fn by_hand(ttft_limit: Option<f64>) -> (Plan, Vec<Ledger>, Summary) {
    let plan = plan(ttft_limit);
    let ledgers = vec![fold(&plan, &facts(&lives(15.0)))];
    let summary = summarise(&plan, &ledgers, false);
    (plan, ledgers, summary)
}

/// To a tenth of a percent, as percentiles are.
fn near(got: Option<f64>, expected: f64) {
    let got = got.expect("a value");
    assert!((got - expected).abs() <= expected * 0.001 + 1e-12, "{got} for {expected}");
}

#[test]
fn a_run_by_hand_gives_the_numbers_worked_out_on_paper() {
    let (_, _, summary) = by_hand(Some(0.5));
    assert_eq!(
        summary.conservation_line,
        "offered 6 = finished 4 + failed 0 + cancelled 0 + expired 0 + refused 1 (queue_full 1) + \
         in flight 1"
    );
    let run = &summary.run;
    assert_eq!((run.counts.offered, run.counts.finished, run.counts.in_flight), (5, 3, 1));
    // Request 1 kept 500 ms, request 4 promised nothing; 10 s were measured.
    assert_eq!((run.slo_attainment.count, run.slo_attainment.of), (2, 5));
    assert_eq!(run.goodput.value, Some(0.2));
    assert_eq!(run.output_tps.value, Some(1.7));
    assert_eq!(run.input_tps.value, Some(30.0));
    assert_eq!(run.tpot_undefined, 1);
    // 17 output tokens in 1.4 + 6 + 0.5 seconds.
    near(run.tps_per_user.value, 17.0 / 7.9);
    near(summary.utilization.busy.value, 0.7);
    near(summary.utilization.useful.value, 0.7 * 0.9);
    near(summary.utilization.kv_occupancy.value, 0.7);
    let [chat, batch] = &summary.classes[..] else { panic!("two classes") };
    let latency = &chat.numbers.latency;
    near(latency.ttft.p50.value, 0.4);
    near(latency.ttft.max.value, 4.0);
    near(latency.ttft.mean.value, 2.2);
    near(latency.ttft_service.max.value, 0.5);
    near(latency.queue_time.max.value, 3.5);
    near(latency.tpot.p50.value, 0.1);
    near(latency.tpot.max.value, 0.5);
    near(latency.e2e.max.value, 6.0);
    near(latency.ntpot.p50.value, 1.4 / 11.0);
    near(latency.itl_max.max.value, 0.3);
    // The gaps of the warm-up do not count: 100, 110 and 120 ms are left.
    assert_eq!(latency.itl.count, 3);
    near(latency.itl.mean.value, 0.11);
    near(latency.itl.max.value, 0.12);
    assert!(latency.ttft.p99.few_samples && latency.ttft.p50.interval.is_none());
    // The request that still waits is in the percentiles with what it waited.
    let batch_ttft = &batch.numbers.latency.ttft;
    assert_eq!((batch_ttft.count, batch_ttft.censored), (2, 1));
    near(batch_ttft.p99.value, 7.0);
    assert!(batch_ttft.p99.at_least && !batch_ttft.p50.at_least);
    assert_eq!(summary.interval_note, "no interval: one replication");
}

#[test]
fn who_waited_for_what_is_told_in_words() {
    let (_, _, summary) = by_hand(Some(0.5));
    let chat = &summary.classes[0].waiting;
    let causes: Vec<_> = (chat.waited_for.iter())
        .map(|cause| (cause.what.as_str(), cause.requests, cause.seconds))
        .collect();
    assert_eq!(causes, [("seats", 1, 3.0), ("engine_queue", 1, 0.5)]);
    let gap = chat.longest_without_service.as_ref().expect("it waited");
    // From 11 s to 14 s, while request 4 of the other class was let in.
    assert_eq!((gap.seconds, gap.from_s, gap.waiting), (3.0, 11.0, 1));
    assert_eq!(gap.served_meanwhile, ["batch"]);
    assert_eq!(chat.fate, Fate::Starved);
    assert_eq!((chat.engine_share, chat.entitlement), (Some(nine(3.0 / 7.0)), 0.75));
    let batch = &summary.classes[1].waiting;
    let worst = batch.worst_wait.as_ref().expect("it waited");
    assert_eq!((worst.seconds, worst.at_least, worst.request), (7.0, true, 5));
    assert!(chat.sentence.contains("no request was let in for 3.00 s while 1 waited"));
    let meanwhile = &chat.meanwhile[0];
    assert_eq!((meanwhile.class.as_str(), meanwhile.seat_share), ("batch", 1.0));
    assert_eq!((chat.meanwhile.len(), meanwhile.entitlement), (1, 0.25));
    for part in ["meanwhile batch held 100 % of the taken seats", "(weight 1 of 4)"] {
        assert!(chat.sentence.contains(part), "{}", chat.sentence);
    }
}

fn nine(x: f64) -> f64 {
    format!("{x:.8e}").parse().expect("a float")
}

#[test]
fn the_verdict_and_the_exit_code_follow_the_objective() {
    let check = |limit, expected, code| {
        let (_, _, summary) = by_hand(limit);
        assert_eq!((summary.verdict(), summary.exit_code()), (expected, code), "{limit:?}");
    };
    check(None, Verdict::Done, 0);
    check(Some(0.3), Verdict::Inconclusive, 4);
    check(Some(0.5), Verdict::Inconclusive, 4);
    // With both requests within, or both beyond, it still rests on two samples.
    check(Some(9.0), Verdict::Inconclusive, 4);
}

#[test]
fn replications_give_intervals() {
    let plan = plan(None);
    let ledgers = [15.0, 15.2].map(|first| fold(&plan, &facts(&lives(first))));
    let summary = summarise(&plan, &ledgers, false);
    let ttft = &summary.classes[0].numbers.latency.ttft;
    // Replications with 4.0 and 4.2, pooled 4.2: 4.2 ± 12.7062 · 0.2 ÷ √2, but for the histogram.
    let [low, high] = ttft.p99.interval.expect("two replications");
    assert!((low - 2.403_07).abs() < 0.03 && (high - 5.996_93).abs() < 0.03, "{low} {high}");
    assert_eq!((ttft.max.value, ttft.max.interval), (Some(4.2), None));
    assert_eq!(summary.scenario.replications, 2);
    assert_eq!(summary.conservation.offered, 12);
}

/// A thousand requests, ten a second; each is let in and closes `hold(n)` seconds later.
fn stream(plan: &Plan, let_in: impl Fn(u64) -> f64) -> Summary {
    let mut facts = Vec::new();
    let end = 200.0;
    for id in 0..1_000u64 {
        let arrived = 10.0 + id as f64 / 10.0;
        let begin = arrived + let_in(id);
        let over = begin + 0.4 > end;
        let life = Life {
            id,
            class: 1,
            arrived,
            dispatched: (begin < end).then_some(begin),
            started: (begin < end).then_some(begin),
            first: (!over).then_some(begin + 0.1),
            last: (!over).then_some(begin + 0.4),
            closed: if over { end } else { begin + 0.4 },
            tokens: if over { 0 } else { 4 },
            outcome: if over { Outcome::Unfinished } else { FINISHED },
        };
        let record = life.record();
        let (tenant, class) = (record.tenant, ClassId(1));
        let (id, arrived) = (record.id, record.arrived);
        let arrival = Fact::Arrived { id, tenant, class: Some(class), arrived, prompt_tokens: 100 };
        facts.push((record.arrived, 0, arrival));
        if let Some(when) = record.dispatched {
            let fact = Fact::Dispatched {
                id: record.id,
                tenant,
                class,
                backend: BackendId::first(0),
                reason: Reason::ArrivalOrder,
                bound: None,
                arrived: record.arrived,
                prompt_tokens: record.prompt_tokens,
                tokens: record.tokens,
            };
            facts.push((when, 1, fact));
            let (id, backend, arrived) = (record.id, BackendId::first(0), record.arrived);
            facts.push((when, 1, Fact::Started { id, class, backend, arrived }));
        }
        facts.push((record.closed, 2, Fact::Closed(record)));
    }
    facts.push((at(10.0), 0, Fact::WarmedUp));
    facts.push((at(110.0), 9, Fact::ArrivalsEnded));
    facts.push((at(end), 9, Fact::RunEnded));
    facts.sort_by_key(|(when, rank, _)| (*when, *rank));
    let facts: Vec<_> = facts.into_iter().map(|(when, _, fact)| (when, fact)).collect();
    summarise(plan, &[fold(plan, &facts)], false)
}

#[test]
fn a_queue_that_grows_is_called_overloaded() {
    let promised = |limit| {
        let mut plan = plan(None);
        plan.classes[1].objectives =
            vec![Objective { metric: Metric::Ttft, percentile: 50.0, limit, text: String::new() }];
        plan
    };
    let steady = |_| 0.0;
    // Half as fast as they come.
    let growing = |id: u64| id as f64 / 10.0;
    let check = |plan: &Plan, growing_queue, expected: Verdict, code| {
        let summary = if growing_queue { stream(plan, growing) } else { stream(plan, steady) };
        assert_eq!((summary.verdict(), summary.exit_code()), (expected, code));
        let class = &summary.classes[1];
        assert_eq!(class.overload.is_some(), growing_queue, "{:?}", class.overload);
        assert_eq!(class.interval_note.is_some(), growing_queue);
        assert_eq!(summary.verdict_line.contains("OVERLOADED"), growing_queue);
    };
    check(&plan(None), false, Verdict::Done, 0);
    check(&plan(None), true, Verdict::Overloaded, 4);
    check(&promised(1.0), false, Verdict::Pass, 0);
    check(&promised(0.05), false, Verdict::Fail, 3);
    check(&promised(1.0), true, Verdict::Fail, 3);
    // Met so far, but the queue grows: it will not stay so.
    check(&promised(500.0), true, Verdict::Fail, 3);
}

#[test]
fn a_row_of_requests_csv_is_as_documented() {
    let plan = plan(None);
    let mut rows = RequestRows::new(Vec::new(), &plan, 0);
    facts(&lives(15.0)).iter().for_each(|(now, fact)| rows.observe(*now, fact));
    let text = String::from_utf8(rows.finish().expect("room")).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], REQUEST_COLUMNS);
    let columns = REQUEST_COLUMNS.split(',').count();
    assert!(lines[1..].iter().all(|line| line.split(',').count() >= columns));
    assert_eq!(
        lines[3],
        "3,0,web,\"a,b\",chat & <b>talk</b>,,refused:queue_full,12.000000000,,,,,12.000000000,100,\
         0,64,0.000000000,0.000000000,0.000000000,0.000000000,,,,0,0,arrival_order,seats"
    );
    assert_eq!(
        lines[5],
        "2,0,web,\"a,b\",chat & <b>talk</b>,0,finished,11.000000000,14.000000000,14.500000000,\
         15.000000000,17.000000000,17.000000000,100,5,64,3.500000000,0.500000000,2.000000000,\
         0.000000000,4.000000000,0.500000000,0.300000000,0,0,arrival_order,seats"
    );
    let later = RequestRows::new(Vec::new(), &plan, 1).finish().expect("room");
    assert!(later.is_empty(), "only the first replication writes the header");
}

#[test]
fn everything_written_is_the_same_bytes_twice_and_reads_back() {
    let write = || {
        let (plan, ledgers, summary) = by_hand(Some(0.5));
        let mut series = Vec::new();
        write_timeseries(&plan, &ledgers, &mut series).expect("room");
        let page = page(&plan, &summary, &ledgers, None).expect("the template renders");
        (summary, series, page, charts(&plan, &ledgers, &summarise(&plan, &ledgers, false)))
    };
    let (one, two) = (write(), write());
    assert_eq!(one, two);
    let json = one.0.to_json();
    let back: Summary = serde_json::from_str(&json).expect("the summary reads back");
    assert_eq!(back.to_json(), json);
    assert!(json.starts_with("{\n  \"schema_version\": 1,"));
    let schema = summary_schema();
    let properties = schema["properties"].as_object().expect("an object has properties");
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert!(value.as_object().expect("an object").keys().all(|key| properties.contains_key(key)));
}

#[test]
fn the_page_needs_nothing_from_outside() {
    let (plan, ledgers, summary) = by_hand(Some(0.5));
    let page = page(&plan, &summary, &ledgers, None).expect("the template renders");
    let outside = page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "");
    for forbidden in ["http", "<script src", "<b>talk", "url(", "@import", "NaN", "inf "] {
        assert!(!outside.contains(forbidden), "{forbidden}");
    }
    assert!(page.contains("default-src 'none'") && page.contains("chat &amp; &lt;b&gt;talk"));
    assert_eq!(page.matches("<figure").count(), 11);
    let charts = charts(&plan, &ledgers, &summary);
    for (name, svg) in &charts {
        assert!(name.ends_with(".svg") && svg.contains("<title>") && svg.contains("<desc>"));
        assert!(!svg.contains("<b>talk"), "{name}");
    }
}

#[test]
fn tables_fit_and_say_the_same() {
    let (_, _, summary) = by_hand(Some(0.5));
    for width in [40, 60, 80, 100, 200] {
        let text = table(&summary, Format::Human, width);
        let unbroken = text.replace("\n  ", " ");
        assert!(unbroken.starts_with(&summary.verdict_line), "{text}");
        assert!(unbroken.contains(&summary.conservation_line), "{text}");
        assert!(width < 80 || text.lines().all(|line| line.chars().count() <= width), "{text}");
        let rows =
            text.lines().filter(|line| line.starts_with(" batch") || line.starts_with(" class"));
        assert!(width < 80 || rows.clone().all(|row| row.chars().count() <= width), "{text}");
        assert_eq!(rows.count(), 2);
    }
    let csv = table(&summary, Format::Csv, 80);
    assert_eq!(csv.lines().count(), 3);
    assert!(csv.lines().nth(2).is_some_and(|row| row.starts_with("batch,2,1,1,0.5,")), "{csv}");
    assert!(table(&summary, Format::Md, 80).contains("\n| batch "));
}
