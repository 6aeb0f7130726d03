//! What must hold of the rules of feedback.

use std::mem::discriminant;

use super::{Field, Problem, within};
use crate::config::{Adapt, Feedback};

/// Whether a rule of feedback makes sense after these.
pub(super) fn check(rule: &Feedback, before: &[Feedback]) -> Result<(), (Field, Problem)> {
    if before.iter().any(|other| discriminant(other) == discriminant(rule)) {
        return Err((Field::Rule, Problem::SecondOfItsKind));
    }
    match *rule {
        Feedback::AdaptiveConcurrency { by, min } => {
            within(Field::Min, min.into(), 1, u64::MAX)?;
            match by {
                Adapt::Aimd { target } => within(Field::Target, target.nanos(), 1, u64::MAX),
                Adapt::Gradient { base } => within(Field::Base, base.nanos(), 1, u64::MAX),
            }
        }
        Feedback::CircuitBreaker { failures, open_for } => {
            within(Field::Failures, failures.into(), 1, u64::MAX)?;
            within(Field::OpenFor, open_for.nanos(), 1, u64::MAX)
        }
    }
}
