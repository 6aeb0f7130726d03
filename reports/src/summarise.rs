//! From ledgers to a summary.

use std::borrow::Cow;

use plimsoll_base::{Metric, Span, TenantId};

use crate::definitions::definitions;
use crate::estimate::{
    Group, View, counts, distribution, estimate, proportion, quotient, utilization,
};
use crate::fate::{Bench, REPLAY, policy_hint, wait_words};
use crate::ledger::{Ledger, Used};
use crate::plan::Plan;
use crate::recorded::{self, Recorded};
use crate::summary::{
    ClassSummary, Distribution, Fate, ObjectiveResult, ObjectiveVerdict, PoolSummary,
    SCHEMA_VERSION, Scenario, Summary, TenantSummary, Utilization, Verdict,
};
use crate::tally::{Outcomes, Tally, TenantTally};
use crate::verdict::{judge, overload, unobserved, verdict};
use crate::words;

/// Adds up the ledgers of all replications. `partial` says that the run was interrupted.
///
/// # Panics
/// If there is no ledger, or if a request was lost or made: the conservation of requests is
/// asserted in every build.
pub fn summarise(plan: &Plan, ledgers: &[Ledger], partial: bool) -> Summary {
    assert!(!ledgers.is_empty(), "a run has at least one replication");
    let tallies: Vec<Vec<Tally>> = ledgers.iter().map(Ledger::tallies).collect();
    let pooled = pooled(&tallies, plan.class_rows());
    let each_run: Vec<Cow<'_, Tally>> = tallies.iter().map(merged).collect();
    let run = merged(pooled.iter().map(|tally| &**tally));
    let measured: Vec<f64> =
        ledgers.iter().map(|ledger| ledger.measured_span().secs_f64()).collect();
    let numbers = |pooled: &Tally, each: &[&Tally]| {
        let group = Group { pooled, each, seconds: &measured, replicas: plan.replicas() };
        recorded::known(plan, group.numbers())
    };
    let objectives = objectives(plan, ledgers, (&pooled, &tallies));
    let bench = Bench { plan, ledgers, pooled: &pooled, run: &run };
    let classes: Vec<ClassSummary> = (0..plan.class_rows())
        .filter(|&row| row < plan.classes.len() || pooled[row].outcomes.arrived > 0)
        .map(|row| {
            class_summary(&bench, row, &objectives, numbers(&pooled[row], &of_row(&tallies, row)))
        })
        .collect();
    let overloaded =
        overload(ledgers, None).is_some() || classes.iter().any(|class| class.overload.is_some());
    let verdict = verdict(&objectives, overloaded);
    let conservation = counts(&conserved(ledgers));
    let each_run: Vec<&Tally> = each_run.iter().map(|tally| &**tally).collect();
    let mut summary = Summary {
        schema_version: SCHEMA_VERSION,
        plimsoll: plan.version.clone(),
        partial,
        scenario: scenario(plan, ledgers),
        verdict,
        verdict_line: String::new(),
        objectives,
        interval_note: interval_note(plan, ledgers.len()),
        conservation_line: words::conservation(&conservation),
        conservation,
        measured_s: mean_of(&measured),
        run: numbers(&run, &each_run),
        utilization: used(plan, ledgers, None),
        fairness: crate::fate::fairness(plan, ledgers),
        classes,
        tenants: tenants(plan, ledgers, &measured),
        pools: pools(plan, ledgers),
        alarms: crate::alarms::alarms(plan, ledgers),
        advice: crate::advice::advice(plan, ledgers),
        next: Vec::new(),
        assumptions: plan.assumptions.clone(),
        definitions: definitions(),
        recorded: plan.recorded.as_ref().map(Recorded::summary),
        precision: None,
        warm_up: None,
        batch_means: Vec::new(),
    };
    summary.verdict_line = verdict_line(&summary);
    summary.next = next(plan, &summary);
    summary
}

/// One class in each replication.
fn of_row(tallies: &[Vec<Tally>], row: usize) -> Vec<&Tally> {
    tallies.iter().map(|rows| &rows[row]).collect()
}

/// Several tallies as one. Most often there is but one.
pub(crate) fn merged<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> Cow<'a, Tally> {
    let mut tallies = tallies.into_iter();
    let Some(first) = tallies.next() else { return Cow::Owned(Tally::default()) };
    tallies.fold(Cow::Borrowed(first), |mut merged, tally| {
        merged.to_mut().merge(tally);
        merged
    })
}

/// Each class over all replications.
pub(crate) fn pooled(tallies: &[Vec<Tally>], rows: usize) -> Vec<Cow<'_, Tally>> {
    (0..rows).map(|row| merged(of_row(tallies, row))).collect()
}

fn mean_of(values: &[f64]) -> crate::summary::Estimate {
    let each: Vec<Option<f64>> = values.iter().copied().map(Some).collect();
    estimate(Some(values.iter().sum::<f64>() / values.len() as f64), &each)
}

/// Every request of every replication, warm-up included; none is lost or made.
fn conserved(ledgers: &[Ledger]) -> Outcomes {
    let mut all = Outcomes::default();
    for ledger in ledgers {
        (0..ledger.classes.len()).for_each(|row| all.merge(&ledger.all(row)));
    }
    assert_eq!(
        all.arrived,
        all.settled() + all.in_flight(),
        "offered = finished + failed + cancelled + expired + evicted + refused + in flight"
    );
    if ledgers.iter().all(|ledger| ledger.ended) {
        assert_eq!(all.in_flight(), all.unfinished, "what is in flight at the end was cut off");
    }
    all
}

fn scenario(plan: &Plan, ledgers: &[Ledger]) -> Scenario {
    Scenario {
        name: plan.scenario.clone(),
        description: plan.description.clone(),
        hash: plan.scenario_hash.clone(),
        policy: plan.policy.clone(),
        seed: plan.seed,
        replications: ledgers.len() as u32,
        has_trace: plan.has_trace,
        warm_up_s: plan.warm_up.secs_f64(),
        duration_s: plan.duration.map(Span::secs_f64),
    }
}

fn interval_note(plan: &Plan, replications: usize) -> String {
    if plan.recorded.is_some() {
        return "no interval: one log".to_owned();
    }
    match (replications, plan.has_trace) {
        (1, false) => "no interval: one replication".to_owned(),
        (1, true) => "no interval: one trace, one replication".to_owned(),
        (n, false) => format!(
            "95 % Student-t intervals across {n} replications, percentiles by sectioning; a \
             maximum has none, it grows with the run"
        ),
        (n, true) => format!(
            "95 % Student-t intervals across {n} replications, percentiles by sectioning; the \
             replayed trace is the same in each and does not vary"
        ),
    }
}

fn objectives(
    plan: &Plan,
    ledgers: &[Ledger],
    (pooled, tallies): (&[Cow<'_, Tally>], &[Vec<Tally>]),
) -> Vec<ObjectiveResult> {
    let of_class = |(row, class): (usize, &crate::plan::ClassPlan)| {
        let each = of_row(tallies, row);
        let judged = class.objectives.iter().map(|objective| {
            let name = &plan.names.classes[row];
            if !plan.sees(objective.metric) {
                return unobserved(name, objective);
            }
            let mut result = judge(name, objective, (&pooled[row], &each));
            if result.result != ObjectiveVerdict::Fail && overload(ledgers, Some(row)).is_some() {
                result.result = ObjectiveVerdict::Fail;
                result.note = Some("the class is overloaded: it misses this in the end".to_owned());
            }
            result
        });
        judged.collect::<Vec<_>>()
    };
    plan.classes.iter().enumerate().flat_map(of_class).collect()
}

fn class_summary(
    bench: &Bench<'_>,
    row: usize,
    objectives: &[ObjectiveResult],
    numbers: crate::summary::Numbers,
) -> ClassSummary {
    let plan = bench.plan;
    let name = plan.names.classes.get(row).map_or("unclassified", String::as_str);
    let class = plan.classes.get(row).cloned().unwrap_or_default();
    let overload = overload(bench.ledgers, Some(row));
    let own: Vec<ObjectiveResult> =
        objectives.iter().filter(|objective| objective.class == name).cloned().collect();
    ClassSummary {
        name: name.to_owned(),
        priority: class.priority,
        weight: class.weight,
        wait_max_s: class.wait_max.map(Span::secs_f64),
        interval_note: overload.map(|_| {
            "overloaded: a queue that grows has no steady-state mean; these numbers describe this \
             run and its length"
                .to_owned()
        }),
        waiting: bench.waiting(row, overload.as_ref(), &own),
        overload,
        numbers,
    }
}

fn tenants(plan: &Plan, ledgers: &[Ledger], measured: &[f64]) -> Vec<TenantSummary> {
    let tallies: Vec<Vec<TenantTally>> = ledgers.iter().map(Ledger::tenants).collect();
    let count = tallies.iter().map(Vec::len).max().unwrap_or(0);
    let empty = TenantTally::default();
    let summarise = |tenant: usize| {
        let each: Vec<&TenantTally> =
            tallies.iter().map(|tenants| tenants.get(tenant).unwrap_or(&empty)).collect();
        let mut pooled = TenantTally::default();
        each.iter().for_each(|tally| pooled.merge(tally));
        if pooled.outcomes.arrived == 0 {
            return None;
        }
        let rate = |count: fn(&TenantTally) -> u64| {
            let pairs = each.iter().zip(measured).map(|(tally, &s)| (count(tally) as f64, s));
            quotient(&pairs.collect::<Vec<_>>())
        };
        let latency = |pick: fn(&TenantTally) -> View<'_>| {
            distribution(pick(&pooled), each.iter().map(|tally| pick(tally)))
        };
        let pairs: Vec<(u64, u64)> =
            each.iter().map(|tally| (tally.good, tally.outcomes.arrived)).collect();
        Some(TenantSummary {
            name: plan.names.tenant(TenantId(tenant as u32)),
            counts: counts(&pooled.outcomes),
            slo_attainment: proportion(&pairs),
            goodput: rate(|tally| tally.good),
            goodput_tokens: rate(|tally| tally.good_tokens),
            output_tps: rate(|tally| tally.output_tokens),
            queue_time: latency(|tally| View::from(&tally.queue)),
            ttft: match plan.sees_first_tokens() {
                true => latency(|tally| View::from(&tally.ttft)),
                false => Distribution::default(),
            },
            e2e: latency(|tally| View::from(&tally.e2e)),
            slowdown: latency(|tally| View::from(&tally.slowdown)),
        })
    };
    (0..count).filter_map(summarise).collect()
}

/// The use of one pool, or of all (`None`).
fn used(plan: &Plan, ledgers: &[Ledger], pool: Option<usize>) -> Utilization {
    let of = |ledger: &Ledger| {
        let (mut used, mut capacity) = (Used::default(), 0.0);
        for (slot, backend) in ledger.backends.iter().enumerate() {
            let home = plan.backends[slot].index();
            if pool.is_none_or(|pool| pool == home) {
                used.add(&backend.used);
                capacity += plan.pools[home].kv_tokens as f64 * backend.used.observed.millis_f64();
            }
        }
        (used, capacity)
    };
    let used = utilization(&ledgers.iter().map(of).collect::<Vec<_>>());
    recorded::known_use(plan, used)
}

fn pools(plan: &Plan, ledgers: &[Ledger]) -> Vec<PoolSummary> {
    let summarise = |(index, pool): (usize, &crate::plan::PoolPlan)| PoolSummary {
        name: plan.names.pools[index].clone(),
        replicas: pool.replicas,
        seats: pool.seats,
        kv_tokens: pool.kv_tokens,
        provenance: pool.provenance.clone(),
        utilization: used(plan, ledgers, Some(index)),
    };
    plan.pools.iter().enumerate().map(summarise).collect()
}

fn verdict_line(summary: &Summary) -> String {
    let mut parts = Vec::new();
    for objective in &summary.objectives {
        match objective.result {
            ObjectiveVerdict::Fail => {
                let sign = if objective.metric == Metric::Attainment { "<" } else { ">" };
                let overloaded = objective.note.as_ref().is_some_and(|n| n.contains("overloaded"));
                let sign = if overloaded { "so far against" } else { sign };
                parts.push(format!("{} {}", objective.class, words::against(objective, sign)));
            }
            ObjectiveVerdict::Inconclusive => {
                let note = objective.note.as_deref().unwrap_or("undecided");
                parts.push(format!(
                    "{} {} undecided: {note}",
                    objective.class,
                    words::metric(objective)
                ));
            }
            ObjectiveVerdict::Pass => {}
        }
    }
    for class in &summary.classes {
        if class.overload.is_some() {
            parts.push(format!("{} OVERLOADED", class.name));
        }
        if class.waiting.fate == Fate::Starved {
            parts.push(crate::fate::starved(class));
        }
        let own = || summary.objectives.iter().filter(|o| o.class == class.name);
        if own().count() > 0 && own().all(|o| o.result == ObjectiveVerdict::Pass) {
            parts.push(format!("{} OK", class.name));
        }
    }
    if summary.verdict == Verdict::Done {
        parts.push("no objective was stated".to_owned());
    }
    let partial = match (summary.partial, &summary.recorded) {
        (false, _) => "",
        (true, None) => "PARTIAL, interrupted: ",
        (true, Some(_)) => "PARTIAL, the log was cut off: ",
    };
    let verdict = summary.verdict;
    if parts.is_empty() {
        parts.push("the queue grows for as long as requests arrive".to_owned());
    }
    format!("{partial}{} {} {}", verdict.symbol(), verdict.word(), parts.join("; "))
}

/// What to try: the resource that the missed requests waited for. What it would bring is not
/// claimed, because it was not simulated.
fn next(plan: &Plan, summary: &Summary) -> Vec<String> {
    let mut lines = Vec::new();
    let mut waited: Vec<(&str, f64)> = Vec::new();
    for cause in summary.classes.iter().flat_map(|class| &class.waiting.waited_for) {
        match waited.iter_mut().find(|(what, _)| *what == cause.what) {
            Some((_, seconds)) => *seconds += cause.seconds_of_missed,
            None => waited.push((&cause.what, cause.seconds_of_missed)),
        }
    }
    let all: f64 = waited.iter().map(|(_, seconds)| seconds).sum();
    let missed = summary.run.slo_attainment.of - summary.run.slo_attainment.count;
    let most = waited.iter().max_by(|a, b| a.1.total_cmp(&b.1)).filter(|_| all > 0.0);
    if let (Some(&(what, seconds)), true) = (most, missed > 0) {
        lines.push(format!(
            "{} requests were not good; {} of the time they waited was for {}. {}",
            words::count(missed),
            words::percent(seconds / all),
            wait_words(what),
            remedy(plan, what),
        ));
    } else if missed > 0 {
        lines.push(format!(
            "{} requests were not good although they did not wait: the step time itself, or a \
             refusal, decided.",
            words::count(missed)
        ));
    }
    lines.extend(policy_hint(plan, summary));
    let unguarded = |class: &&ClassSummary| {
        class.waiting.fate == Fate::Starved
            && plan
                .classes
                .iter()
                .zip(&plan.names.classes)
                .any(|(p, n)| *n == class.name && !p.guarded)
    };
    let starved: Vec<String> =
        summary.classes.iter().filter(unguarded).map(|class| class.name.clone()).collect();
    if !starved.is_empty() {
        lines.push(format!(
            "To bound the wait of {}, give the policy a guard and the class a wait_max, or a share \
             rule with weights.",
            words::list(&starved)
        ));
    }
    lines.extend(undecided(plan, summary));
    if lines.is_empty() {
        let line = match plan.recorded {
            None => "Nothing needs doing at this load; raise it to see where the limit lies.",
            Some(_) => "Nothing needs doing at this load.",
        };
        lines.push(line.to_owned());
    }
    lines
}

/// What would decide the objectives that are undecided; the verdict names them.
fn undecided(plan: &Plan, summary: &Summary) -> Vec<String> {
    let undecided = summary.objectives.iter();
    let undecided = undecided.filter(|one| one.result == ObjectiveVerdict::Inconclusive);
    // A log that does not tell what an objective is about never will.
    let is_untold = |one: &&ObjectiveResult| plan.recorded.is_some() && one.value.value.is_none();
    let (untold, open): (Vec<_>, Vec<_>) = undecided.partition(is_untold);
    let how = match plan.recorded {
        None => "Run longer, or with more replications",
        Some(_) => "Record for longer",
    };
    [
        (open.len(), format!("{how}, to decide what is undecided.")),
        (untold.len(), "What is not observed no log like this can decide.".to_owned()),
    ]
    .into_iter()
    .filter_map(|(count, line)| (count > 0).then_some(line))
    .collect()
}

fn remedy(plan: &Plan, what: &str) -> String {
    let replicas = || {
        if plan.recorded.is_some() {
            return format!("One backend more would help.{REPLAY}");
        }
        let pool = plan.names.pools.first().map_or("gpu", String::as_str);
        let count = plan.pools.first().map_or(1, |pool| pool.replicas);
        format!("Try one replica more: `plimsoll run … --set pool.{pool}.replicas={}`.", count + 1)
    };
    match what {
        "class_requests" | "class_tokens" => {
            "The cap is the policy's own: try a larger one.".to_owned()
        }
        "turn" => "The order decided, not a resource: try another share or order rule.".to_owned(),
        "engine_queue" => format!(
            "Waiting inside the engine is beyond the policy's reach: try window = \"seats\". {}",
            replicas()
        ),
        _ => replicas(),
    }
}
