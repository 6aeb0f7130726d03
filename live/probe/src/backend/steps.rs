//! The steps that an engine took, kept until they are asked for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use plimsoll_base::Time;
use plimsoll_sim::engine::BatchShape;
use plimsoll_sim::model::{Admission, EngineModel};
use serde_json::{Value, json};

use super::wall::WallClock;

/// Steps that are kept.
const KEPT: usize = 200_000;

/// A step: when it began, when it was over, and what it computed.
pub(super) type Step = (Time, Time, BatchShape);

/// Steps, in the order in which they ended.
#[derive(Clone, Debug, Default)]
pub(super) struct StepBook(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    steps: VecDeque<Step>,
    /// The number of the first.
    first: u64,
}

impl StepBook {
    /// Writes a step down.
    pub fn add(&self, step: Step) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.steps.len() == KEPT {
            kept.steps.pop_front();
            kept.first += 1;
        }
        kept.steps.push_back(step);
    }

    /// The steps from a number on, in the wall's nanoseconds.
    pub fn told(&self, after: u64, clock: WallClock) -> Value {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = after.max(kept.first);
        let skipped = usize::try_from(first - kept.first).unwrap_or(usize::MAX);
        let nanos = |time: Time| clock.nanos(time);
        let row = |&(start, end, shape): &Step| {
            let BatchShape { prefill, pairs, sequences, context, .. } = shape;
            json!([nanos(start), nanos(end), prefill, pairs, sequences, context])
        };
        let steps: Vec<Value> = kept.steps.iter().skip(skipped).map(row).collect();
        json!({"now_ns": nanos(clock.now()), "first": first, "steps": steps})
    }
}

/// What the engine is.
pub(super) fn described(engine: &EngineModel) -> Value {
    json!({
        "engine": "plimsoll-backend",
        "version": env!("CARGO_PKG_VERSION"),
        "flags": {},
        "seats": engine.seats,
        "step_tokens_max": engine.step_tokens_max,
        "kv_tokens": engine.kv_tokens(),
        "block_tokens": engine.block_tokens,
        "context_max": engine.context_max,
        "priorities": engine.admission == Admission::Priority,
        "steps": true,
    })
}
