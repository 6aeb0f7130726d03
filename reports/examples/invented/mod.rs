//! A run without an engine, as long as one likes: three classes stand in one queue before 64 seats, and
//! each request computes for a time of its own. The queue holds a few requests, so that a fact costs
//! little to invent and a report folds it as it would any other.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use plimsoll_base::{
    Attribution, BackendId, Bound, ClassId, ClassSample, End, Fact, Names, Observer, Outcome,
    Phases, PoolId, Reason, RequestId, RequestRecord, Span, Stream, StreamKey, TenantId, Time,
};
use plimsoll_report::{ClassPlan, Metric, Objective, Plan, PoolPlan};

const SEATS: usize = 64;

/// What the report is to hold: three classes, each with an objective.
pub fn plan() -> Plan {
    let objective =
        Objective { metric: Metric::Ttft, percentile: 99.0, limit: 2.0, text: "ttft_p99".into() };
    let class =
        |weight| ClassPlan { weight, objectives: vec![objective.clone()], ..ClassPlan::default() };
    Plan {
        attribution: Attribution::On,
        one_queue: true,
        scenario: "invented".to_owned(),
        names: Names {
            tenants: vec!["all".to_owned()],
            classes: ["chat", "agents", "batch"].map(str::to_owned).to_vec(),
            pools: vec!["gpu".to_owned()],
            sources: vec!["all".to_owned()],
        },
        classes: vec![class(8), class(4), class(1)],
        pools: vec![PoolPlan {
            replicas: 1,
            seats: SEATS as u32,
            kv_tokens: 1 << 20,
            ..PoolPlan::default()
        }],
        backends: vec![PoolId(0)],
        ..Plan::default()
    }
}

/// Tells the facts of so many requests.
pub fn run(requests: u64, facts: &mut impl Observer) {
    let mut draw = Stream::new(StreamKey { seed: 1, replication: 0, name: "speed", entity: 0 });
    let mut queue: VecDeque<RequestRecord> = VecDeque::new();
    let mut running: BinaryHeap<Reverse<(Time, RequestId)>> = BinaryHeap::new();
    let mut records = BTreeMap::<RequestId, RequestRecord>::new();
    let mut told = [false; 3];
    let mut next_sample = Time::ZERO;
    let mut now = Time::ZERO;
    facts.observe(now, &Fact::WarmedUp);
    for number in 0..requests {
        // 64 seats at 5 s each serve 12.8 a second; 12 arrive.
        let arrival = now + Span::from_secs_f64(-(1.0 - draw.uniform()).ln() / 12.0);
        while let Some(Reverse((at, id))) =
            running.peek().copied().filter(|next| next.0.0 <= arrival)
        {
            running.pop();
            let mut record = records.remove(&id).expect("who runs is known");
            record.closed = at;
            record.last_token = Some(at);
            record.phases.decode = at - record.first_token.expect("it has begun");
            facts.close(at, &record);
            if let Some(record) = queue.pop_front() {
                start(at, record, &mut draw, (&mut running, &mut records, facts));
            }
            bounds(at, &queue, &mut told, facts);
        }
        now = arrival;
        let class = ClassId((draw.uniform() * 3.0) as u16);
        let mut record = RequestRecord::new(RequestId(number), now);
        record.class = Some(class);
        record.prompt_tokens = 1 + (draw.uniform() * 2_000.0) as u32;
        let (id, prompt_tokens) = (record.id, record.prompt_tokens);
        let fact = Fact::Arrived {
            id,
            tenant: TenantId(0),
            class: Some(class),
            arrived: now,
            prompt_tokens,
        };
        facts.observe(now, &fact);
        if running.len() < SEATS {
            start(now, record, &mut draw, (&mut running, &mut records, facts));
        } else {
            queue.push_back(record);
        }
        bounds(now, &queue, &mut told, facts);
        if now >= next_sample {
            next_sample = now + Span::from_secs(10);
            sample(now, &queue, facts);
        }
    }
    facts.observe(now, &Fact::ArrivalsEnded);
    for record in records.into_values().chain(queue) {
        let mut record = RequestRecord { outcome: Outcome::Unfinished, closed: now, ..record };
        if record.started.is_none() {
            record.phases.queue = now - record.arrived;
        }
        facts.close(now, &record);
    }
    facts.observe(now, &Fact::RunEnded);
}

type Engine<'a, O> = (
    &'a mut BinaryHeap<Reverse<(Time, RequestId)>>,
    &'a mut BTreeMap<RequestId, RequestRecord>,
    &'a mut O,
);

fn start(
    now: Time,
    mut record: RequestRecord,
    draw: &mut Stream,
    engine: Engine<'_, impl Observer>,
) {
    let (running, records, facts) = engine;
    let class = record.class.expect("every request has a class");
    let backend = BackendId::first(0);
    let (id, arrived, prompt_tokens) = (record.id, record.arrived, record.prompt_tokens);
    record.dispatched = Some(now);
    record.started = Some(now);
    record.backend = Some(backend);
    record.outcome = Outcome::Ended(End::Finished);
    record.output_tokens = 2 + (draw.uniform() * 400.0) as u32;
    record.tokens = u64::from(prompt_tokens) + 400;
    let prefill = Span::from_secs_f64(0.05 + 0.1 * draw.uniform());
    record.first_token = Some(now + prefill);
    record.phases = Phases { queue: now - arrived, prefill, ..Phases::default() };
    facts.observe(
        now,
        &Fact::Dispatched {
            id,
            tenant: TenantId(0),
            class,
            backend,
            reason: Reason::ArrivalOrder,
            bound: (arrived < now).then_some(Bound::Seats),
            arrived,
            prompt_tokens,
            tokens: record.tokens,
        },
    );
    facts.observe(now, &Fact::Started { id, class, backend, arrived });
    let end = now + prefill + Span::from_secs_f64(9.8 * draw.uniform());
    running.push(Reverse((end, id)));
    records.insert(id, record);
}

/// Says who waits for seats where that has changed.
fn bounds(
    now: Time,
    queue: &VecDeque<RequestRecord>,
    told: &mut [bool; 3],
    facts: &mut impl Observer,
) {
    // Whoever waits at all waits for seats; the queue is short but for its bursts.
    for (class, told) in (0..).map(ClassId).zip(told) {
        let waits = queue.iter().any(|record| record.class == Some(class));
        if waits != *told {
            *told = waits;
            facts.observe(now, &Fact::Bound { class, bound: waits.then_some(Bound::Seats) });
        }
    }
}

fn sample(now: Time, queue: &VecDeque<RequestRecord>, facts: &mut impl Observer) {
    for class in (0..3).map(ClassId) {
        let own = || queue.iter().filter(|record| record.class == Some(class));
        let sample = ClassSample {
            queued: own().count() as u32,
            oldest_wait: own().next().map_or(Span::ZERO, |record| now - record.arrived),
            ..ClassSample::default()
        };
        facts.observe(now, &Fact::ClassSampled { class, sample });
    }
}
