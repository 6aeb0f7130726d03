//! Inputs and decisions as JSON, with names in place of ids where there are names.

use plimsoll_base::{BackendId, ClassId, Names, Scale, Span, Time};
use plimsoll_policy::log::Record;
use plimsoll_policy::{
    Action, BackendInfo, Decision, Held, Input, Load, RequestInfo, Signal, Used,
};
use serde_json::{Value, json};

/// One record: number, time, input, decisions, and signals if there are any.
pub fn record(record: &Record, names: &Names) -> Value {
    let mut shown = json!({
        "number": record.number,
        "time_s": seconds(record.now),
        "input": input(&record.input, names),
        "decisions": decisions(&record.decisions, names),
    });
    if !record.signals.is_empty() {
        shown["signals"] = signals(&record.signals, names);
    }
    shown
}

/// Decisions, in order.
pub fn decisions(list: &[Decision], names: &Names) -> Value {
    list.iter().map(|made| decision(made, names)).collect()
}

/// Signals, in order.
pub fn signals(list: &[Signal], names: &Names) -> Value {
    let one = |signal: &Signal| match *signal {
        Signal::Scale(Scale { pool, present, wanted, load_ppm }) => json!({
            "kind": "scale", "pool": names.pool(pool),
            "present": present, "wanted": wanted, "load_ppm": load_ppm,
        }),
        Signal::Alarm(alarm) => json!({
            "kind": "alarm", "alarm": alarm.kind.name(),
            "victim": names.class(alarm.victim),
            "culprit": alarm.culprit.map(|class| names.class(class)),
            "resource": alarm.resource,
            "since_s": seconds(alarm.since),
        }),
    };
    list.iter().map(one).collect()
}

/// An instant in seconds, exactly.
pub fn seconds(time: Time) -> String {
    nine_decimals(time.nanos())
}

/// A span in seconds, exactly.
pub fn span_seconds(span: Span) -> String {
    nine_decimals(span.nanos())
}

fn nine_decimals(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

/// An input.
pub fn input(input: &Input, names: &Names) -> Value {
    match *input {
        Input::Arrived(id, ref info) => arrived_as("arrived", id.0, info, names),
        Input::Resumed(id, ref info, Held { class, arrived, backend }) => {
            let mut value = arrived_as("resumed", id.0, info, names);
            value["class"] = json!(names.class(class));
            value["arrived_s"] = json!(seconds(arrived));
            value["backend"] = json!(backend.map(at));
            value
        }
        Input::Withdrawn(id) => json!({ "kind": "withdrawn", "id": id }),
        Input::Accepted(id) => json!({ "kind": "accepted", "id": id }),
        Input::FirstToken(id) => json!({ "kind": "first_token", "id": id }),
        Input::Progressed(id, tokens) => {
            json!({ "kind": "progressed", "id": id, "output_tokens": tokens })
        }
        Input::Ended(id, end, Used { prompt_tokens, output_tokens }) => json!({
            "kind": "ended", "id": id, "end": end,
            "prompt_tokens": prompt_tokens, "output_tokens": output_tokens,
        }),
        Input::Matched(id, backend, tokens) => {
            json!({ "kind": "matched", "id": id, "backend": at(backend), "tokens": tokens })
        }
        Input::Predicted(id, tokens) => {
            json!({ "kind": "predicted", "id": id, "output_tokens": tokens })
        }
        Input::Joined(backend, ref info) => joined(backend, info, names),
        Input::Reported(backend, ref load, as_of) => {
            let Load { running, waiting, kv_used_ppm, queue_wait } = *load;
            json!({
                "kind": "reported", "backend": at(backend), "as_of_s": seconds(as_of),
                "running": running, "waiting": waiting, "kv_used_ppm": kv_used_ppm,
                "queue_wait_ns": queue_wait.nanos(),
            })
        }
        Input::Left(backend) => json!({ "kind": "left", "backend": at(backend) }),
        Input::Draining => json!({ "kind": "draining" }),
        Input::Deadline => json!({ "kind": "deadline" }),
    }
}

fn arrived_as(kind: &str, id: u64, info: &RequestInfo, names: &Names) -> Value {
    json!({
        "kind": kind, "id": id,
        "tenant": names.tenant(info.tenant), "source": names.source(info.source),
        "claims": info.claims.map(|class| names.class(class)),
        "prompt_tokens": info.prompt_tokens, "output_cap": info.output_cap,
        "model": info.model, "stage": info.stage, "labels": info.labels,
        "session": info.session, "workflow": info.workflow,
        "attempt": info.attempt,
    })
}

fn joined(backend: BackendId, info: &BackendInfo, names: &Names) -> Value {
    json!({
        "kind": "joined", "backend": at(backend), "pool": names.pool(info.pool),
        "seats": info.seats, "kv_tokens": info.kv_tokens, "context_max": info.context_max,
        "site": info.site, "models": info.models,
    })
}

fn decision(decision: &Decision, names: &Names) -> Value {
    let mut shown = match decision.action {
        Action::Dispatch(backend, priority) => {
            json!({ "kind": "dispatch", "backend": at(backend), "priority": priority.0 })
        }
        Action::Reject(refusal, wait) => {
            json!({ "kind": "reject", "refusal": refusal, "retry_after_ns": wait.nanos() })
        }
        Action::Close(end) => json!({ "kind": "close", "end": end }),
        Action::Preempt(backend) => json!({ "kind": "preempt", "backend": at(backend) }),
        Action::Cancel(backend) => json!({ "kind": "cancel", "backend": at(backend) }),
    };
    shown["id"] = json!(decision.id);
    shown["class"] = json!(decision.class.map(|class: ClassId| names.class(class)));
    shown["reason"] = json!(decision.reason);
    shown["bound"] = json!(decision.bound);
    shown
}

fn at(backend: BackendId) -> String {
    backend.to_string()
}
