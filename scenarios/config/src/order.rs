//! Who goes first within a turn: from files to rules.

use plimsoll_base::{Metric, Span};
use plimsoll_policy::config::Order;

use crate::objectives::objectives;
use crate::policy::at_least_one;
use crate::share::price;
use crate::spec::{ClassSpec, OrderSpec};
use crate::{At, Code, Diagnostic, SpanValue};

const WORKFLOWS_MAX_DEFAULT: u32 = 65_536;

/// The order within a turn.
pub(crate) fn order(
    spec: Option<At<OrderSpec>>,
    classes: &[ClassSpec],
    found: &mut Vec<Diagnostic>,
) -> Order {
    let Some(At { value, place }) = spec else { return Order::Fcfs };
    match value {
        OrderSpec::Fcfs => Order::Fcfs,
        OrderSpec::Aging => Order::Aging,
        OrderSpec::Edf => {
            // Objectives that cannot be read are reported where the class is.
            if classes.iter().all(|class| deadline(class, &mut Vec::new()).is_none()) {
                let message = "no class has a deadline to order by";
                found.push(
                    Diagnostic::new(Code::Conflict, Some(place), message)
                        .label("orders by deadline")
                        .help("give a class a `deadline`, for example \"500ms\", or a limit on `ttft` in its `slo`"),
                );
            }
            Order::EarliestDeadline
        }
        OrderSpec::ShortestPredicted { aging } => {
            Order::ShortestPredicted { aging: aging.map(|aging| worth("aging", aging, found)) }
        }
        OrderSpec::LeastAttained { cost, workflows_max } => Order::LeastAttained {
            cost: price(cost),
            workflows_max: at_least_one("workflows_max", workflows_max, found)
                .unwrap_or(WORKFLOWS_MAX_DEFAULT),
        },
        OrderSpec::LongestPrefix { token } => match token {
            Some(token) => Order::LongestPrefix { token: worth("token", token, found) },
            None => {
                let message = "`longest-prefix` does not say what a cached token is worth";
                found.push(
                    Diagnostic::new(Code::Missing, Some(place), message)
                        .label("prompts that are cached nowhere would wait for ever")
                        .help("write order = { rule = \"longest-prefix\", token = \"1ms\" }: a request is then overtaken only by what arrives within 1 ms for each cached token it has less"),
                );
                Order::Fcfs
            }
        },
    }
}

/// How much waiting a token is worth; never nothing.
fn worth(key: &str, span: At<SpanValue>, found: &mut Vec<Diagnostic>) -> Span {
    if span.value.0 == Span::ZERO {
        found.push(
            Diagnostic::new(
                Code::Range,
                Some(span.place),
                format!("`{key}` must be more than nothing"),
            )
            .help(format!("write `{key} = \"1ms\"`, or `order = \"fcfs\"` to order by arrival")),
        );
    }
    span.value.0
}

/// The longest a request of the class may take to its first token: as stated, or as its
/// objectives promise at the highest percentile.
pub(crate) fn deadline(spec: &ClassSpec, found: &mut Vec<Diagnostic>) -> Option<Span> {
    if let Some(deadline) = spec.deadline {
        if deadline.value.0 == Span::ZERO {
            let message = "nothing can be done within no time";
            found.push(
                Diagnostic::new(Code::Range, Some(deadline.place), message)
                    .help("write `deadline = \"500ms\"`, or leave it out"),
            );
        }
        return Some(deadline.value.0);
    }
    // What is wrong with them is reported by whoever reads them as promises.
    let owed = objectives(&spec.slo, &mut Vec::new());
    let first_tokens = owed.iter().filter(|owed| owed.metric == Metric::Ttft);
    let highest = first_tokens.max_by(|a, b| a.percentile.total_cmp(&b.percentile))?;
    let deadline = Span::from_secs_f64(highest.limit);
    (deadline > Span::ZERO).then_some(deadline)
}
