//! The slowest requests of each class, each with its own timeline.

use minijinja::{Value, context};
use plimsoll_base::{Outcome, RequestRecord, Span};

use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::scene::unserved;
use crate::words;

/// Requests shown at most.
const ROWS_MAX: usize = 40;
const WIDTH: f64 = 300.0;
/// What a request goes through, and its pattern: queue in front, queue of the engine, prefill,
/// decode.
const PARTS: [(&str, &str); 4] = [
    ("waits for the allocator", "#D55E00"),
    ("waits inside the engine", "#E69F00"),
    ("prefill", "#56B4E9"),
    ("decode", "var(--blue)"),
];

/// The slowest of the first replication, class by class.
pub(super) fn rows(plan: &Plan, ledgers: &[Ledger]) -> Vec<Value> {
    let ledger = &ledgers[0];
    let classes = ledger.classes.iter().enumerate().take(plan.classes.len());
    let records = || {
        classes.clone().flat_map(|(row, class)| {
            class
                .scene
                .slowest
                .iter()
                .filter(|record| unserved(record) > Span::ZERO)
                .map(move |r| (row, r))
        })
    };
    let records: Vec<(usize, &RequestRecord)> = records().take(ROWS_MAX).collect();
    let longest = records.iter().map(|(_, r)| r.e2e().secs_f64()).fold(1e-9, f64::max);
    records.iter().map(|&(row, record)| one(plan, (row, record), longest)).collect()
}

/// What the colours of the bars say.
pub(super) fn key() -> Value {
    let part = |(name, color): &(&str, &str)| {
        format!(
            "<svg width=\"12\" height=\"10\" aria-hidden=\"true\"><rect width=\"12\" height=\"10\" \
             fill=\"{color}\"/></svg> {name}"
        )
    };
    Value::from_safe_string(PARTS.iter().map(part).collect::<Vec<_>>().join(", ") + ".")
}

fn one(plan: &Plan, (row, record): (usize, &RequestRecord), longest: f64) -> Value {
    let is_open = record.outcome == Outcome::Unfinished;
    let first = match record.ttft() {
        Some(span) => words::secs(span.secs_f64()),
        None => format!("none in {}", words::secs(record.e2e().secs_f64())),
    };
    let end = words::secs(record.e2e().secs_f64());
    context! {
        id => record.id.0,
        number => words::count(record.id.0),
        class => &plan.names.classes[row],
        tenant => plan.names.tenants.get(record.tenant.index()),
        arrived => words::secs(record.arrived.secs_f64()),
        first => first,
        end => if is_open { format!("≥ {end}") } else { end },
        bound => record.bound.map_or("–", |bound| crate::blame::told::resource_words(bound.name())),
        bar => Value::from_safe_string(bar(record, longest)),
        from => record.arrived.secs_f64(),
        to => record.closed.secs_f64(),
    }
}

/// From arrival to close; what was preempted is a part of the decode.
fn bar(record: &RequestRecord, longest: f64) -> String {
    let end = record.closed;
    let dispatched = record.dispatched.unwrap_or(end);
    let started = record.started.unwrap_or(end).max(dispatched);
    let first = record.first_token.unwrap_or(end).max(started);
    let edges = [record.arrived, dispatched, started, first, end];
    let x =
        |at: plimsoll_base::Time| WIDTH * at.saturating_since(record.arrived).secs_f64() / longest;
    let mut told = Vec::new();
    let mut drawn = String::new();
    for (edge, (name, color)) in edges.windows(2).zip(PARTS) {
        let span = edge[1].saturating_since(edge[0]);
        if span > Span::ZERO {
            told.push(format!("{name} {}", words::secs(span.secs_f64())));
            drawn.push_str(&format!(
                "<rect x=\"{:.1}\" width=\"{:.1}\" height=\"12\" fill=\"{color}\"/>",
                x(edge[0]),
                (x(edge[1]) - x(edge[0])).max(0.5)
            ));
        }
    }
    format!(
        "<svg width=\"{WIDTH}\" height=\"12\" viewBox=\"0 0 {WIDTH} 12\" role=\"img\">\
         <title>{}</title>{drawn}</svg>",
        told.join(", ")
    )
}
