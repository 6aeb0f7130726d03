//! `report.html`: what happened to each class, because of whom, on which machine under what load.

use minijinja::{Value, context};

use crate::charts::{self, Chart};
use crate::fate;
use crate::ledger::Ledger;
use crate::page::template::{Template, TemplateError, render};
use crate::page::{figure, glossary, island, workload, worst};
use crate::plan::Plan;
use crate::recorded::NOT_OBSERVED;
use crate::summary::{ClassSummary, Distribution, Estimate, Summary, Verdict};
use crate::words;
use plimsoll_base::Metric;

/// Tenants shown on the page at most; all of them are in `summary.json`.
const TENANTS_MAX: usize = 50;

/// The report as a page. `template` replaces our own.
///
/// # Errors
/// If a template of the user's does not parse or render: what is wrong, and where.
pub fn page(
    plan: &Plan,
    summary: &Summary,
    ledgers: &[Ledger],
    template: Option<&Template>,
) -> Result<String, TemplateError> {
    let charts = charts::draw(plan, ledgers, summary);
    let of = |names: &[&str]| -> Vec<Value> {
        let named = |name: &&str| charts.iter().find(|chart: &&Chart| chart.name == *name);
        names.iter().filter_map(named).map(figure).collect()
    };
    let rows: Vec<Value> = (summary.classes.iter().enumerate())
        .map(|(row, class)| class_row(summary, &ledgers[0], row, class))
        .collect();
    let line = &summary.verdict_line;
    let rest = line.split_once(summary.verdict.word()).map_or("", |(_, rest)| rest).trim();
    let context = context! {
        title => &summary.scenario.name,
        version => &summary.plimsoll,
        summary => Value::from(minijinja::value::Serde(summary)),
        verdict => context! {
            class => class_of(summary.verdict),
            symbol => summary.verdict.symbol(),
            word => summary.verdict.word(),
            rest => rest,
        },
        partial => match (summary.partial, &summary.recorded) {
            (false, _) => "",
            (true, None) => "PARTIAL: interrupted",
            (true, Some(_)) => "PARTIAL: the log was cut off",
        },
        not_observed => summary.recorded.as_ref().map(|recorded| &recorded.not_observed),
        cards => cards(summary),
        rows => rows,
        source => source(summary),
        starvation => of(&["blame", "lanes", "queue", "shares"]),
        latency => of(&["scoreboard", "percentiles", "heat", "phases"]),
        workload => of(&["load"]),
        hardware => of(&["utilization", "memory"]),
        intervals => intervals(summary),
        worst => worst::rows(plan, ledgers),
        worst_key => worst::key(),
        worst_note => if ledgers.len() > 1 { " (replication 1)" } else { "" },
        conservation => crate::table::conservation(summary),
        load => workload::load(ledgers, summary),
        machine => workload::machine(summary),
        numbers => numbers(summary),
        tenants => tenants(summary),
        tenants_left_out => summary.tenants.len().saturating_sub(TENANTS_MAX),
        alarms => crate::alarms::lines(&summary.alarms),
        advice => crate::advice::lines(&summary.advice),
        next => summary.next.iter().map(|line| code(line)).collect::<Vec<_>>(),
        provenance => provenance(summary),
        glossary => glossary(),
        island => Value::from_safe_string(island::island(plan, &ledgers[0])),
    };
    render("run.html", template, &context)
}

/// The verdict as the style sheet names it.
fn class_of(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Done => "done",
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Overloaded => "overloaded",
        Verdict::Inconclusive => "inconclusive",
    }
}

/// Where the numbers come from, in one line for the first screen.
fn source(summary: &Summary) -> String {
    let scenario = &summary.scenario;
    let hash: String = scenario.hash.chars().take(12).collect();
    let mut parts = vec![format!("Scenario {hash}")];
    match summary.recorded {
        None => parts.extend([
            format!("seed {}", scenario.seed),
            match scenario.replications {
                1 => "one replication, so no intervals".to_owned(),
                count => format!("{count} replications"),
            },
            match scenario.warm_up_s > 0.0 {
                true => format!("the first {} cut off", words::round_secs(scenario.warm_up_s)),
                false => "no warm-up cut off".to_owned(),
            },
        ]),
        Some(_) => parts.push("a decision log, replayed".to_owned()),
    }
    if summary.recorded.is_none() {
        let steps = summary.pools.iter().map(|pool| format!("{}: {}", pool.name, pool.provenance));
        parts.push(format!("step times of {}", steps.collect::<Vec<_>>().join("; ")));
    }
    parts.join(" · ")
}

/// The longest stretches in which a class waited, got nothing, or fell behind.
fn intervals(summary: &Summary) -> Vec<Vec<String>> {
    let head = ["class", "what", "how long", "from", "to", "meanwhile"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for class in &summary.classes {
        let row = |what: &str, long: String, from: f64, to: f64, meanwhile: String| {
            let name = class.name.clone();
            vec![name, what.to_owned(), long, words::secs(from), words::secs(to), meanwhile]
        };
        let waiting = &class.waiting;
        if let Some(without) = &waiting.longest_without_service {
            let served = match without.served_meanwhile.as_slice() {
                [] => "nobody was served".to_owned(),
                served => format!("{} served", words::list(served)),
            };
            let meanwhile = format!("{} waited, {served}", words::count(without.waiting));
            let (from, to) = (without.from_s, without.from_s + without.seconds);
            rows.push(row("no service", words::secs(without.seconds), from, to, meanwhile));
        }
        if let Some(worst) = &waiting.worst_wait {
            let long =
                format!("{}{}", if worst.at_least { "≥ " } else { "" }, words::secs(worst.seconds));
            let who = format!("request {} of {}", words::count(worst.request), worst.tenant);
            let (from, to) = (worst.arrived_s, worst.arrived_s + worst.seconds);
            rows.push(row("the longest wait", long, from, to, who));
        }
        if let Some(lag) = waiting.lag.as_ref().filter(|lag| lag.seconds > 0.0) {
            let long = format!("{} of engine time", words::secs(lag.seconds));
            let fair = format!(
                "up to {} may be the size of requests",
                words::secs(2.0 * lag.largest_request_s)
            );
            rows.push(row("behind its share", long, lag.from_s, lag.to_s, fair));
        }
    }
    rows
}

/// A sentence as HTML: what stands between backticks is code.
pub(crate) fn code(line: &str) -> Value {
    let mut html = String::new();
    for (index, part) in line.split('`').enumerate() {
        let part = part.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        match index % 2 {
            0 => html.push_str(&part),
            _ => html.push_str(&format!("<code>{part}</code>")),
        }
    }
    Value::from_safe_string(html)
}

fn cards(summary: &Summary) -> Vec<Value> {
    let run = &summary.run;
    let between = |interval: Option<[f64; 2]>, text: fn(f64) -> String| match interval {
        Some([low, high]) => format!("95 %: {} – {}", text(low), text(high)),
        None if summary.recorded.is_some() => "one log, no interval".to_owned(),
        None => "one replication, no interval".to_owned(),
    };
    let goodput = run.goodput.value.map_or("–".to_owned(), |x| format!("{}/s", words::number(x)));
    let attainment = &run.slo_attainment;
    let share = attainment.value.map_or("–".to_owned(), words::percent);
    let good = format!(
        "{} of {} good; {}",
        words::count(attainment.count),
        words::count(attainment.of),
        between(attainment.interval.or(attainment.wilson), words::percent),
    );
    let worst = (summary.classes.iter())
        .filter_map(|class| Some((class, class.waiting.worst_wait.as_ref()?)))
        .max_by(|a, b| a.1.seconds.total_cmp(&b.1.seconds));
    let (wait, who) = match worst {
        None => ("0 s".to_owned(), "nobody waited".to_owned()),
        Some((class, worst)) => (
            format!("{}{}", if worst.at_least { "≥ " } else { "" }, words::secs(worst.seconds)),
            format!(
                "{}, tenant {}, request {}, arrived at {}",
                class.name,
                worst.tenant,
                words::count(worst.request),
                words::secs(worst.arrived_s),
            ),
        ),
    };
    let use_of = |estimate: &Estimate| {
        let unknown = if summary.recorded.is_some() { NOT_OBSERVED } else { "–" };
        estimate.value.map_or(unknown.to_owned(), words::percent)
    };
    let used = &summary.utilization;
    let kv = use_of(&used.kv_occupancy);
    let useful = match (&summary.recorded, used.kv_occupancy.value) {
        (None, _) => format!(
            "{} useful, KV memory {kv} held; {}",
            use_of(&used.useful),
            between(used.busy.interval, words::percent),
        ),
        (Some(_), Some(_)) => format!("engines are opaque; KV memory {kv} held, by their reports"),
        (Some(_), None) => "engines are opaque, and none reported its load".to_owned(),
    };
    [
        ("goodput", "goodput", goodput, between(run.goodput.interval, words::number)),
        ("attainment", "SLO attainment", share, good),
        ("wait", "worst wait", wait, who),
        ("busy", "engines busy", use_of(&used.busy), useful),
    ]
    .into_iter()
    .map(|(id, head, value, note)| {
        // A number and its unit stay on one line.
        context! { id, head, value, note => note.replace(" %", "\u{a0}%") }
    })
    .collect()
}

fn class_row(summary: &Summary, ledger: &Ledger, row: usize, class: &ClassSummary) -> Value {
    let ttft = &class.numbers.latency.ttft;
    let limit = (summary.objectives.iter())
        .find(|o| o.class == class.name && o.metric == Metric::Ttft)
        .map(|objective| objective.limit);
    let longest = (summary.classes.iter())
        .filter_map(|class| class.numbers.latency.ttft.p99.value)
        .chain(limit)
        .fold(1e-3, f64::max);
    let attainment = class.numbers.slo_attainment.value;
    let range = known(summary, "TTFT", || {
        format!("{} – {}", words::latency(&ttft.p50), words::latency(&ttft.p99))
    });
    let range = match limit {
        Some(limit) => format!("{range}, limit {}", words::round_secs(limit)),
        None => range,
    };
    let worst = class.waiting.worst_wait.as_ref().map_or("0 s".to_owned(), |worst| {
        format!("{}{}", if worst.at_least { "≥ " } else { "" }, words::secs(worst.seconds))
    });
    let (fate, fate_word) = fate::status(summary, class);
    context! {
        name => class.name.clone(),
        offered => words::count(class.numbers.counts.offered),
        attainment => attainment.map_or("–".to_owned(), words::percent),
        attainment_bar => Value::from_safe_string(attainment_bar(attainment)),
        range => range,
        range_bar => Value::from_safe_string(range_bar(ttft, limit, longest)),
        worst => worst,
        spark => Value::from_safe_string(charts::sparkline(ledger, row)),
        fate => fate,
        fate_word => fate_word,
        sentence => class.waiting.sentence.clone(),
        note => class.interval_note.clone(),
    }
}

fn attainment_bar(share: Option<f64>) -> String {
    let width = share.unwrap_or(0.0) * 70.0;
    format!(
        "<svg width=\"70\" height=\"10\" viewBox=\"0 0 70 10\" aria-hidden=\"true\">\
         <rect width=\"70\" height=\"10\" fill=\"var(--edge)\"/>\
         <rect width=\"{width:.1}\" height=\"10\" fill=\"#009E73\"/></svg>"
    )
}

/// From p50 to p99 on a logarithmic axis that all classes share, from a thousandth of the longest;
/// the limit is a tick.
fn range_bar(ttft: &Distribution, limit: Option<f64>, longest: f64) -> String {
    const WIDTH: f64 = 170.0;
    let x = |seconds: f64| {
        ((seconds.max(1e-9) / longest).log10() / 3.0 + 1.0).clamp(0.0, 1.0) * (WIDTH - 2.0)
    };
    let mut svg = format!(
        "<svg class=\"range\" width=\"{WIDTH}\" height=\"14\" viewBox=\"0 0 {WIDTH} 14\" \
         aria-hidden=\"true\"><rect y=\"6\" width=\"{WIDTH}\" height=\"2\" fill=\"var(--edge)\"/>"
    );
    if let (Some(low), Some(high)) = (ttft.p50.value, ttft.p99.value) {
        let color = if limit.is_some_and(|limit| high > limit) { "#D55E00" } else { "var(--blue)" };
        let (low, high) = (x(low), x(high));
        svg.push_str(&format!(
            "<rect x=\"{low:.1}\" y=\"3\" width=\"{:.1}\" height=\"8\" fill=\"{color}\"/>",
            (high - low).max(2.0)
        ));
    }
    if let Some(limit) = limit {
        svg.push_str(&format!(
            "<rect x=\"{:.1}\" y=\"0\" width=\"2\" height=\"14\" fill=\"var(--fg)\"/>",
            x(limit)
        ));
    }
    svg.push_str("</svg>");
    svg
}

fn numbers(summary: &Summary) -> Vec<Vec<String>> {
    let mut head = vec![String::new()];
    head.extend(summary.classes.iter().map(|class| class.name.clone()));
    head.push("all".to_owned());
    let mut rows = vec![head];
    let all = || summary.classes.iter().map(|class| &class.numbers).chain([&summary.run]);
    type Pick<T> = fn(&crate::summary::Numbers) -> &T;
    let latencies: [(&str, Pick<Distribution>); 9] = [
        ("TTFT", |n| &n.latency.ttft),
        ("TPOT", |n| &n.latency.tpot),
        ("ITL, pooled", |n| &n.latency.itl),
        ("largest ITL of a request", |n| &n.latency.itl_max),
        ("E2E", |n| &n.latency.e2e),
        ("queue time", |n| &n.latency.queue_time),
        ("prefill", |n| &n.latency.prefill_time),
        ("decode", |n| &n.latency.decode_time),
        ("E2E per token", |n| &n.latency.ntpot),
    ];
    for (name, pick) in latencies {
        for (quantile, estimate) in [
            ("mean", (|d| &d.mean) as fn(&Distribution) -> &Estimate),
            ("p50", |d| &d.p50),
            ("p99", |d| &d.p99),
        ] {
            let mut row = vec![format!("{name} {quantile}")];
            let cell = |numbers| {
                let pick = pick(numbers);
                known(summary, name, || with_interval(estimate(pick), words::secs))
            };
            row.extend(all().map(cell));
            rows.push(row);
        }
    }
    let rates: [(&str, Pick<Estimate>); 7] = [
        ("good requests/s", |n| &n.goodput),
        ("good output tokens/s", |n| &n.goodput_tokens),
        ("prompt tokens/s", |n| &n.input_tps),
        ("output tokens/s", |n| &n.output_tps),
        ("tokens/s, both", |n| &n.total_tps),
        ("output tokens/s a replica", |n| &n.tps_per_gpu),
        ("output tokens/s a user", |n| &n.tps_per_user),
    ];
    for (name, pick) in rates {
        let mut row = vec![name.to_owned()];
        row.extend(all().map(|numbers| with_interval(pick(numbers), words::number)));
        rows.push(row);
    }
    rows.extend(measures(summary));
    rows
}

/// What tells of starvation and waste, class by class.
fn measures(summary: &Summary) -> Vec<Vec<String>> {
    let of = |name: &str, cell: &dyn Fn(&crate::summary::Numbers) -> String| {
        let all = summary.classes.iter().map(|class| &class.numbers).chain([&summary.run]);
        [name.to_owned()].into_iter().chain(all.map(cell)).collect::<Vec<String>>()
    };
    let times = |ratio: f64| format!("{} ×", words::number(ratio));
    let share = words::percent;
    let idle = summary.classes.iter().map(|class| &class.waiting.unfair_idle_s);
    let idle = idle.map(|seconds| with_interval(seconds, words::secs));
    let no_class = String::new();
    let slowdown =
        |estimate: &Estimate| known(summary, "slowdown", || with_interval(estimate, times));
    let preempted = |text: Option<String>| text.unwrap_or(NOT_OBSERVED.to_owned());
    vec![
        of("slowdown mean", &|n| slowdown(&n.slowdown.mean)),
        of("slowdown p50", &|n| slowdown(&n.slowdown.p50)),
        of("slowdown p99", &|n| slowdown(&n.slowdown.p99)),
        of("overtakes mean", &|n| with_interval(&n.overtakes.mean, words::number)),
        of("overtakes p99", &|n| with_interval(&n.overtakes.p99, words::number)),
        of("overtakes max", &|n| with_interval(&n.overtakes.max, words::number)),
        ["unfair idle".to_owned()].into_iter().chain(idle).chain([no_class]).collect(),
        of("computed again ÷ useful", &|n| {
            preempted(n.preemptions.map(|_| with_interval(&n.preemption_waste, share)))
        }),
        of("preemptions of one request, most", &|n| {
            preempted(n.preemptions_max.map(|most| words::count(most.into())))
        }),
        of("tokens wasted by evictions", &|n| words::count(n.wasted_tokens)),
        of("wasted ÷ useful", &|n| with_interval(&n.eviction_waste, share)),
    ]
}

/// A measure by its name in the table, where it was observed.
fn known(summary: &Summary, name: &str, text: impl FnOnce() -> String) -> String {
    let Some(recorded) = &summary.recorded else { return text() };
    match name {
        "ITL, pooled" | "largest ITL of a request" | "slowdown" => NOT_OBSERVED.to_owned(),
        "TTFT" | "TPOT" | "prefill" | "decode" if !recorded.first_tokens => NOT_OBSERVED.to_owned(),
        _ => text(),
    }
}

fn with_interval(estimate: &Estimate, text: fn(f64) -> String) -> String {
    let Some(value) = estimate.value else {
        return "–".to_owned();
    };
    let at_least = if estimate.at_least { "≥ " } else { "" };
    let few = if estimate.few_samples { "*" } else { "" };
    let interval = estimate
        .interval
        .map_or(String::new(), |[low, high]| format!(" ({} – {})", text(low.max(0.0)), text(high)));
    format!("{at_least}{}{few}{interval}", text(value))
}

fn tenants(summary: &Summary) -> Vec<Vec<String>> {
    let head = [
        "tenant",
        "offered",
        "good",
        "TTFT p50",
        "TTFT p99",
        "E2E p99",
        "queue p99",
        "slowdown p99",
        "good/s",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let shown = summary.tenants.iter().take(TENANTS_MAX);
    rows.extend(shown.map(|tenant| {
        vec![
            tenant.name.clone(),
            words::count(tenant.counts.offered),
            tenant.slo_attainment.value.map_or("–".to_owned(), words::percent),
            known(summary, "TTFT", || words::latency(&tenant.ttft.p50)),
            known(summary, "TTFT", || words::latency(&tenant.ttft.p99)),
            words::latency(&tenant.e2e.p99),
            words::latency(&tenant.queue_time.p99),
            known(summary, "slowdown", || {
                with_interval(&tenant.slowdown.p99, |ratio| format!("{} ×", words::number(ratio)))
            }),
            with_interval(&tenant.goodput, words::number),
        ]
    }));
    rows
}

fn provenance(summary: &Summary) -> Vec<(String, String)> {
    let scenario = &summary.scenario;
    let measured = summary.measured_s.value.map_or("–".to_owned(), words::secs);
    let mut rows = vec![
        (
            "scenario".to_owned(),
            match scenario.description.as_str() {
                "" => scenario.name.clone(),
                said => format!("{}: {said}", scenario.name),
            },
        ),
        ("scenario hash".to_owned(), scenario.hash.clone()),
        ("policy".to_owned(), scenario.policy.clone()),
    ];
    match summary.recorded {
        None => rows.extend(simulation(summary, &measured)),
        Some(_) => rows.push(("measured".to_owned(), format!("{measured}, as the log tells it"))),
    }
    rows.extend(summary.pools.iter().map(|pool| {
        let steps = match summary.recorded {
            None => format!("; step times: {}", pool.provenance),
            Some(_) => String::new(),
        };
        let words = format!(
            "{} replicas of {} seats and {} tokens of KV memory{steps}",
            pool.replicas,
            words::count(pool.seats.into()),
            words::count(pool.kv_tokens),
        );
        (format!("pool {}", pool.name), words)
    }));
    rows.extend(summary.assumptions.iter().map(|text| ("assumed".to_owned(), text.clone())));
    rows
}

/// How a simulated run was made.
fn simulation(summary: &Summary, measured: &str) -> Vec<(String, String)> {
    let scenario = &summary.scenario;
    let mut rows = vec![
        ("seed".to_owned(), scenario.seed.to_string()),
        (
            "replications".to_owned(),
            format!("{}; {}", scenario.replications, summary.interval_note),
        ),
        (
            "warm-up".to_owned(),
            format!(
                "{} cut off; {measured} measured a replication",
                words::round_secs(scenario.warm_up_s),
            ),
        ),
        (
            "load".to_owned(),
            match scenario.has_trace {
                true => "replayed from a recorded trace".to_owned(),
                false => "generated (assumed)".to_owned(),
            },
        ),
    ];
    let certainty = crate::table::certainty(summary);
    if !certainty.is_empty() {
        rows.push(("certainty".to_owned(), certainty.join("; ")));
    }
    rows
}
