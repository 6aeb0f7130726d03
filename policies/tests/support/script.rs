//! Scripts: inputs at instants, and the decisions that must follow from each.

#![allow(dead_code, reason = "no test uses all of it")]

use plimsoll_base::{BackendId, End, RequestId};
use plimsoll_policy::{Action, Allocator, Config, Decision, Input, Used};

use crate::support::{arrive, join, request, step};

/// One line of a script: at these nanoseconds, this input, these decisions.
pub type Line = (u64, Input, &'static str);

/// Hands in the inputs one after the other; `tell` writes down what is decided.
pub fn play(policy: Config, script: Vec<Line>, tell: fn(&Decision) -> String) {
    let mut allocator = Allocator::new(policy).expect("a valid policy");
    for (number, (at, input, expected)) in script.into_iter().enumerate() {
        let told = format!("line {number}: {input:?}");
        let found: Vec<String> = step(&mut allocator, at, input).iter().map(tell).collect();
        assert_eq!(found.join("; "), expected, "{told}");
    }
}

/// `3>0 priority seats`: request 3 to backend 0, picked by priority, had waited for a seat;
/// `4 rate_limited in 1.00 s: rate_limit`.
pub fn tell(decision: &Decision) -> String {
    let action = match decision.action {
        Action::Dispatch(backend, _) => format!(">{backend}"),
        Action::Reject(refusal, span) => format!(" {} in {span}:", refusal.name()),
        Action::Close(end) => format!(" {end:?}:"),
        Action::Preempt(backend) => format!("<{backend}"),
        Action::Cancel(backend) => format!("x{backend}"),
    };
    let bound = decision.bound.map(|bound| format!(" {}", bound.name())).unwrap_or_default();
    format!("{}{action} {}{bound}", decision.id, decision.reason.name())
}

/// Arrival of a request that costs its `tokens` of prompt and has no output.
pub fn new(id: u64, class: u16, tokens: u32) -> Input {
    arrive(id, request(class, tokens, 0))
}
/// Its end, having used so many.
pub fn end(id: u64, prompt_tokens: u32) -> Input {
    Input::Ended(RequestId(id), End::Finished, Used { prompt_tokens, output_tokens: 0 })
}
/// Its end, having used nothing.
pub fn over(id: u64) -> Input {
    Input::Ended(RequestId(id), End::Finished, Used::default())
}
/// So much of the prompt of the request that comes next is cached.
pub fn matched(id: u64, tokens: u32) -> Input {
    Input::Matched(RequestId(id), BackendId::first(0), tokens)
}
/// A backend of so many seats.
pub fn seats(seats: u32) -> Input {
    join(0, seats, 1_000)
}
