//! Invents a plausible run and writes its whole report: what the pages look like can be seen
//! without a simulator. `cargo run -p plimsoll-report --example page -- FOLDER [REPLICATIONS [hostile]]`;
//! with `hostile` its names hold markup, quotes, controls, and more than fits anywhere.
//!
//! Three classes share 48 seats first come, first served; batch arrives all at once. The queue is
//! real, the engine is not: each request computes for a time of its own.

use std::collections::VecDeque;
use std::io::Write;

use plimsoll_base::{
    BackendId, BackendSample, Bound, ClassId, ClassSample, End, Fact, Names, Observer, Outcome,
    Phases, PoolId, Reason, RequestId, RequestRecord, SourceId, Span, Stream, StreamKey, TenantId,
    Ticks, Time,
};
use plimsoll_report::{
    ClassPlan, Format, Ledger, Metric, Objective, OutputFolder, Plan, PoolPlan, RequestRows,
    charts, page, summarise, table, write_timeseries,
};

const TICK: Span = Span::from_millis(10);
const TICKS_OF_ARRIVALS: u64 = 90_000;
const SEATS: usize = 48;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: page FOLDER [REPLICATIONS]")?;
    let replications: u32 = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let mut plan = plan();
    if arguments.next().is_some_and(|names| names == "hostile") {
        plan.names.classes = hostile();
        plan.names.tenants[1] = hostile()[0].clone();
        plan.scenario = hostile()[0].clone();
    }
    let out = OutputFolder::create(folder)?;
    let mut ledgers = Vec::new();
    let mut rows_file = out.begin("requests.csv")?;
    for replication in 0..replications {
        let rows = RequestRows::new(&mut rows_file, &plan, replication);
        let mut watched = (Ledger::new(&plan), rows);
        run(replication, &mut watched);
        watched.1.finish()?;
        ledgers.push(watched.0);
    }
    rows_file.keep()?;
    let summary = summarise(&plan, &ledgers, false);
    out.write("summary.json", summary.to_json().as_bytes())?;
    let mut series = out.begin("timeseries.csv")?;
    write_timeseries(&plan, &ledgers, &mut series)?;
    series.keep()?;
    for (name, svg) in charts(&plan, &ledgers, &summary) {
        out.write(&format!("charts/{name}"), svg.as_bytes())?;
    }
    out.write("report.html", page(&plan, &summary, &ledgers, None)?.as_bytes())?;
    for format in [Format::Human, Format::Csv, Format::Md] {
        writeln!(std::io::stdout(), "{}", table(&summary, format, 100))?;
    }
    std::process::exit(summary.exit_code().into());
}

/// Names of classes that no file may have, but a log or another program could.
fn hostile() -> Vec<String> {
    vec![
        "</script><script>alert(1)</script>\"'&".to_owned(),
        "\u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{202e}a|b `c`\u{1b}[31m".to_owned(),
        "a-name-that-goes-on-".repeat(20),
    ]
}

fn plan() -> Plan {
    let objective = |metric, percentile, limit, text: &str| Objective {
        metric,
        percentile,
        limit,
        text: text.to_owned(),
    };
    let class = |priority, weight, wait_max, objectives| ClassPlan {
        priority,
        weight,
        wait_max,
        guarded: false,
        objectives,
    };
    Plan {
        attribution: plimsoll_base::Attribution::On,
        one_queue: true,
        owes_others: false,
        promise: None,
        scenario: "noisy-neighbour (invented)".to_owned(),
        description: "Interactive chat, an agent team and a nightly batch on one pool.".to_owned(),
        scenario_hash: "0000000000000000".to_owned(),
        policy: "first come, first served, no guard".to_owned(),
        seed: 7,
        warm_up: Span::from_secs(60),
        duration: Some(Span::from_secs(900)),
        names: Names {
            tenants: ["web", "team-a", "team-b", "nightly"].map(str::to_owned).to_vec(),
            classes: ["chat", "agents", "batch"].map(str::to_owned).to_vec(),
            pools: vec!["gpu".to_owned()],
            sources: ["chat", "agents", "batch"].map(str::to_owned).to_vec(),
        },
        classes: vec![
            class(
                10,
                8,
                Some(Span::from_secs(2)),
                vec![
                    objective(Metric::Ttft, 99.0, 0.5, "ttft_p99 = 500ms"),
                    objective(Metric::Tpot, 99.0, 0.04, "tpot_p99 = 40ms"),
                ],
            ),
            class(
                5,
                4,
                None,
                vec![
                    objective(Metric::E2e, 95.0, 120.0, "e2e_p95 = 120s"),
                    objective(Metric::Attainment, 0.0, 0.8, "attainment = 0.8"),
                ],
            ),
            class(0, 1, Some(Span::from_secs(900)), vec![]),
        ],
        pools: vec![PoolPlan {
            replicas: 2,
            seats: SEATS as u32 / 2,
            kv_tokens: 60_000,
            provenance: "invented".to_owned(),
        }],
        backends: vec![PoolId(0), PoolId(0)],
        assumptions: vec!["every number on this page is invented".to_owned()],
        has_trace: false,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        recorded: None,
    }
}

struct Running {
    record: RequestRecord,
    first: u64,
    end: u64,
}

struct State {
    queue: VecDeque<RequestRecord>,
    running: Vec<Running>,
    busy: [Span; 3],
    backend: BackendSample,
    arrived: u64,
    bounds: [Option<Bound>; 3],
}

fn run(replication: u32, facts: &mut impl Observer) {
    let stream = |name| Stream::new(StreamKey { seed: 7, replication, name, entity: 0 });
    let (mut arrivals, mut lengths) = (stream("arrivals"), stream("lengths"));
    let mut state = State {
        queue: VecDeque::new(),
        running: Vec::new(),
        busy: [Span::ZERO; 3],
        bounds: [None; 3],
        backend: BackendSample { seats: SEATS as u32 / 2, ..BackendSample::default() },
        arrived: 0,
    };
    let mut tick = 0;
    loop {
        let now = Time::ZERO + TICK.saturating_mul(tick);
        if tick == 6_000 {
            facts.observe(now, &Fact::WarmedUp);
        }
        if tick < TICKS_OF_ARRIVALS {
            for (class, rate) in [(0u16, 0.03), (1, 0.008)] {
                if arrivals.uniform() < rate {
                    arrive(now, class, &mut lengths, (&mut state, facts));
                }
            }
            if tick == 30_000 {
                for _ in 0..700 {
                    arrive(now, 2, &mut lengths, (&mut state, facts));
                }
            }
        } else if tick == TICKS_OF_ARRIVALS {
            facts.observe(now, &Fact::ArrivalsEnded);
        }
        step(now, tick, &mut state, facts);
        let over = tick > TICKS_OF_ARRIVALS + 12_000;
        if tick.is_multiple_of(100) || over {
            sample(now, &state, facts);
        }
        if over {
            break end(now, state, facts);
        }
        tick += 1;
    }
}

fn arrive(
    now: Time,
    class: u16,
    lengths: &mut Stream,
    (state, facts): (&mut State, &mut impl Observer),
) {
    let mean = [(600.0, 220.0), (2500.0, 350.0), (1500.0, 900.0)][usize::from(class)];
    let prompt = (mean.0 * lengths.gamma(2.0) / 2.0) as u32 + 1;
    let output = (mean.1 * lengths.gamma(2.0) / 2.0) as u32 + 1;
    let tenant = match class {
        0 => 0,
        1 => 1 + (lengths.below(2) as u32),
        _ => 3,
    };
    let id = RequestId(state.arrived);
    state.arrived += 1;
    let class = ClassId(class);
    let tenant = TenantId(tenant);
    facts.observe(
        now,
        &Fact::Arrived { id, tenant, class: Some(class), arrived: now, prompt_tokens: prompt },
    );
    state.queue.push_back(RequestRecord {
        source: SourceId(class.0),
        tenant,
        class: Some(class),
        tokens: u64::from(prompt) + 1024,
        prompt_tokens: prompt,
        output_tokens: output,
        output_cap: 4096,
        alone: Span::from_millis(u64::from(prompt) / 6 + u64::from(output) * 20),
        ..RequestRecord::new(id, now)
    });
}

fn step(now: Time, tick: u64, state: &mut State, facts: &mut impl Observer) {
    let (done, rest): (Vec<_>, Vec<_>) =
        std::mem::take(&mut state.running).into_iter().partition(|running| running.end <= tick);
    state.running = rest;
    for running in done {
        close(now, running, facts);
    }
    while state.running.len() < SEATS
        && let Some(mut record) = state.queue.pop_front()
    {
        let slot = (state.running.len() % 2) as u32;
        let class = record.class.expect("every request has a class");
        record.dispatched = Some(now);
        record.started = Some(now);
        record.backend = Some(BackendId::first(slot));
        record.reason = Some(Reason::ArrivalOrder);
        record.bound = (record.arrived < now).then_some(Bound::Seats);
        let (id, tenant, arrived) = (record.id, record.tenant, record.arrived);
        let (backend, reason) = (BackendId::first(slot), Reason::ArrivalOrder);
        let bound = record.bound;
        let (prompt_tokens, tokens) = (record.prompt_tokens, record.tokens);
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
        facts.observe(now, &fact);
        facts.observe(now, &Fact::Started { id, class, backend, arrived });
        let first = tick + 5 + u64::from(record.prompt_tokens) / 60;
        let end = first + u64::from(record.output_tokens - 1) * 2;
        state.running.push(Running { record, first, end: end.max(first) });
    }
    for (class, told) in (0..).map(ClassId).zip(&mut state.bounds) {
        let waits = state.queue.iter().any(|record| record.class == Some(class));
        let bound = waits.then_some(Bound::Seats);
        if std::mem::replace(told, bound) != bound {
            facts.observe(now, &Fact::Bound { class, bound });
        }
    }
    let batch = state.running.len();
    if batch > 0 {
        for running in &state.running {
            let class = running.record.class.expect("every request has a class");
            state.busy[class.index()] += Span::from_nanos(2 * TICK.nanos() / batch as u64);
        }
        state.backend.busy = Span::from_nanos(state.busy.iter().copied().sum::<Span>().nanos() / 2);
        state.backend.output_tokens += batch as u64 / 4;
        state.backend.prefill_tokens += batch as u64;
        state.backend.recomputed_tokens += u64::from(batch == SEATS);
        state.backend.kv_token_millis += batch as u64 / 2 * 10 * 1_500;
    }
}

fn close(now: Time, running: Running, facts: &mut impl Observer) {
    let Running { mut record, first, .. } = running;
    let at = Time::ZERO + TICK.saturating_mul(first);
    let started = record.started.expect("what runs was started");
    record.outcome = Outcome::Ended(End::Finished);
    record.first_token = Some(at);
    record.last_token = Some(now);
    record.closed = now;
    record.gap_max = Span::from_millis(20);
    record.phases = Phases {
        queue: started - record.arrived,
        prefill: at - started,
        decode: now - at,
        preempted: Span::ZERO,
    };
    let class = record.class.expect("every request has a class");
    if record.output_tokens > 1 {
        let count = u64::from(record.output_tokens - 1);
        let first = Ticks(Span::from_millis(20).nanos() << Ticks::FRACTION_BITS);
        let increment = Ticks(3_000 << Ticks::FRACTION_BITS);
        facts.observe(now, &Fact::Gaps { class, first, increment, count, sequences: 1 });
    }
    facts.observe(now, &Fact::Closed(record));
}

fn sample(now: Time, state: &State, facts: &mut impl Observer) {
    let half = |count: usize| (count / 2) as u32;
    for slot in 0..2 {
        let sample = BackendSample { running: half(state.running.len()), ..state.backend };
        facts.observe(now, &Fact::BackendSampled { backend: BackendId::first(slot), sample });
    }
    for class in 0..3 {
        let own = |record: &&RequestRecord| record.class == Some(ClassId(class));
        let oldest = state.queue.iter().find(own).map(|record| now - record.arrived);
        let running = state.running.iter().filter(|running| own(&&running.record)).count();
        let sample = ClassSample {
            queued: state.queue.iter().filter(own).count() as u32,
            engine_waiting: 0,
            running: running as u32,
            oldest_wait: oldest.unwrap_or_default(),
            busy: state.busy[usize::from(class)],
        };
        facts.observe(now, &Fact::ClassSampled { class: ClassId(class), sample });
    }
}

fn end(now: Time, state: State, facts: &mut impl Observer) {
    let running = state.running.into_iter().map(|running| running.record);
    for mut record in running.chain(state.queue) {
        record.closed = now;
        record.output_tokens = 0;
        record.phases.queue = record.started.unwrap_or(now) - record.arrived;
        record.phases.prefill = now - record.started.unwrap_or(now);
        facts.observe(now, &Fact::Closed(record));
    }
    facts.observe(now, &Fact::RunEnded);
}
