//! Random rules of feedback.

use plimsoll_base::Span;
use plimsoll_policy::config::{Adapt, Feedback};
use proptest::option::weighted;
use proptest::prelude::*;

pub fn feedback() -> impl Strategy<Value = Vec<Feedback>> {
    let span = (1u64..40).prop_map(Span::from_nanos);
    let by = prop_oneof![
        span.clone().prop_map(|target| Adapt::Aimd { target }),
        span.clone().prop_map(|base| Adapt::Gradient { base }),
    ];
    let concurrency = (by, 1u32..4).prop_map(|(by, min)| Feedback::AdaptiveConcurrency { by, min });
    let breaker = (1u32..4, span)
        .prop_map(|(failures, open_for)| Feedback::CircuitBreaker { failures, open_for });
    (weighted(0.35, concurrency), weighted(0.35, breaker))
        .prop_map(|(concurrency, breaker)| concurrency.into_iter().chain(breaker).collect())
}
