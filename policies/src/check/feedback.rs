//! What must hold of the rules of feedback.

use std::mem::discriminant;

use super::admit::exist;
use super::{Field, Problem, within};
use crate::config::{Adapt, Autoscale, Class, Feedback, SloCaps};

/// Looks that autoscaling remembers at most.
const LOOKS_MAX: u64 = 10_000;

/// Whether a rule of feedback makes sense after these and over these classes.
pub(super) fn check(
    rule: &Feedback,
    before: &[Feedback],
    classes: &[Class],
) -> Result<(), (Field, Problem)> {
    if before.iter().any(|other| discriminant(other) == discriminant(rule)) {
        return Err((Field::Rule, Problem::SecondOfItsKind));
    }
    match rule {
        Feedback::AdaptiveConcurrency { by, min } => {
            within(Field::Min, (*min).into(), 1, u64::MAX)?;
            match by {
                Adapt::Aimd { target } => within(Field::Target, target.nanos(), 1, u64::MAX),
                Adapt::Gradient { base } => within(Field::Base, base.nanos(), 1, u64::MAX),
            }
        }
        Feedback::CircuitBreaker { failures, open_for } => {
            within(Field::Failures, (*failures).into(), 1, u64::MAX)?;
            within(Field::OpenFor, open_for.nanos(), 1, u64::MAX)
        }
        Feedback::SloCaps(rule) => slo_caps(rule, classes),
        Feedback::Autoscale(rule) => autoscale(rule),
        Feedback::EvictSheddable { after, every } => {
            within(Field::After, after.nanos(), 1, u64::MAX)?;
            within(Field::Every, every.nanos(), 1, u64::MAX)?;
            let sheddable = classes.iter().filter(|class| class.sheddable).count();
            match sheddable == 0 || sheddable == classes.len() {
                true => Err((Field::Rule, Problem::ShedsNothing)),
                false => Ok(()),
            }
        }
    }
}

fn autoscale(rule: &Autoscale) -> Result<(), (Field, Problem)> {
    within(Field::Target, rule.target_ppm.into(), 1, 1_000_000)?;
    within(Field::Tolerance, rule.tolerance_ppm.into(), 0, 999_999)?;
    within(Field::Every, rule.every.nanos(), 1, u64::MAX)?;
    within(Field::CoolDown, rule.cool_down.nanos(), 1, u64::MAX)?;
    let longest = rule.every.nanos().saturating_mul(LOOKS_MAX);
    within(Field::DownAfter, rule.down_after.nanos(), 0, longest)?;
    within(Field::Min, rule.min.into(), 1, u64::MAX)?;
    within(Field::Max, rule.max.into(), rule.min.into(), u64::MAX)
}

fn slo_caps(rule: &SloCaps, classes: &[Class]) -> Result<(), (Field, Problem)> {
    exist(Field::Class, &[rule.class], classes.len())?;
    if classes[rule.class.index()].deadline.is_none() {
        return Err((Field::Class, Problem::HasNoDeadline(rule.class)));
    }
    within(Field::Lesser, rule.lesser.len() as u64, 1, u64::MAX)?;
    exist(Field::Lesser, &rule.lesser, classes.len())?;
    within(Field::Window, rule.window.into(), 1, u64::MAX)?;
    within(Field::MissesMax, rule.misses_max_ppm.into(), 0, 999_999)?;
    within(Field::Step, rule.step.into(), 1, u64::MAX)?;
    for &lesser in &rule.lesser {
        match classes[lesser.index()].requests_max {
            Some(cap) => within(Field::Min, rule.min.into(), 1, cap.into())?,
            None => return Err((Field::Lesser, Problem::NoCap(lesser))),
        }
        if lesser == rule.class {
            return Err((Field::Lesser, Problem::NamedTwice(lesser)));
        }
    }
    Ok(())
}
