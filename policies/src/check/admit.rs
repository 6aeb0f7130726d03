//! What must hold of the rules of admission.

use plimsoll_base::ClassId;

use super::{Field, Problem, within};
use crate::admit::SLICES;
use crate::config::{Admit, Class, EarlyRefusal, RetryBudget, SaturationGate, TokenBucket};

/// The greatest rate: 10¹² units a second; keeps 584 years of it inside 127 bits.
const RATE_MAX: u64 = 1_000_000_000_000_000_000;
/// The greatest burst.
const BURST_MAX: u64 = 1 << 60;
/// Millionths of a whole.
const WHOLE: u64 = 1_000_000;

/// Whether a rule of admission makes sense over these classes.
pub(super) fn check(rule: &Admit, classes: &[Class]) -> Result<(), (Field, Problem)> {
    match rule {
        Admit::TokenBucket(rule) => token_bucket(rule, classes.len()),
        Admit::SaturationGate(rule) => saturation_gate(rule, classes.len()),
        Admit::EarlyRefusal(rule) => early_refusal(rule, classes),
        Admit::RetryBudget(rule) => retry_budget(rule, classes.len()),
    }
}

fn retry_budget(rule: &RetryBudget, classes: usize) -> Result<(), (Field, Problem)> {
    within(Field::Ratio, rule.ratio_ppm.into(), 0, WHOLE)?;
    within(Field::Window, rule.window.nanos(), SLICES, u64::MAX)?;
    within(Field::Min, rule.min.into(), 1, u64::MAX)?;
    exist(Field::Classes, &rule.classes, classes)
}

fn token_bucket(rule: &TokenBucket, classes: usize) -> Result<(), (Field, Problem)> {
    within(Field::Rate, rule.rate_micros, 1, RATE_MAX)?;
    within(Field::Burst, rule.burst, 1, BURST_MAX)?;
    exist(Field::Classes, &rule.classes, classes)
}

fn saturation_gate(rule: &SaturationGate, classes: usize) -> Result<(), (Field, Problem)> {
    within(Field::WaitingFull, rule.waiting_full.into(), 1, u64::MAX)?;
    within(Field::KvFull, rule.kv_full_ppm.into(), 1, WHOLE)?;
    within(Field::StaleAfter, rule.stale_after.nanos(), 1, u64::MAX)?;
    within(Field::Ceilings, rule.ceilings.len() as u64, 1, u64::MAX)?;
    for &(_, ceiling) in &rule.ceilings {
        within(Field::Ceilings, ceiling.into(), 1, WHOLE)?;
    }
    let named: Vec<ClassId> = rule.ceilings.iter().map(|&(class, _)| class).collect();
    exist(Field::Ceilings, &named, classes)
}

fn early_refusal(rule: &EarlyRefusal, classes: &[Class]) -> Result<(), (Field, Problem)> {
    exist(Field::Classes, &rule.classes, classes.len())?;
    let asked = |class: &usize| {
        rule.classes.is_empty() || rule.classes.iter().any(|named| named.index() == *class)
    };
    let has_limit = |class: usize| rule.wait_limit.is_some() || classes[class].deadline.is_some();
    match (0..classes.len()).filter(asked).any(has_limit) {
        true => Ok(()),
        false => Err((Field::WaitLimit, Problem::NoLimit)),
    }
}

/// Whether all classes named are there, each once.
pub(super) fn exist(
    field: Field,
    named: &[ClassId],
    classes: usize,
) -> Result<(), (Field, Problem)> {
    for (at, &class) in named.iter().enumerate() {
        if class.index() >= classes {
            return Err((field, Problem::NoSuchClass(class)));
        }
        if named[..at].contains(&class) {
            return Err((field, Problem::NamedTwice(class)));
        }
    }
    Ok(())
}
