//! What must hold among the rules of placement.

use crate::check::{Field, Problem, within};
use crate::config::{LoadBreak, LocalFirst, Place};

/// Sites that a policy may name.
pub(crate) const SITES_MAX: usize = 32;
/// Models that a policy may name.
pub(crate) const MODELS_MAX: usize = 64;
/// Sessions that a rule may remember.
pub(crate) const SESSIONS_MAX: u32 = 10_000_000;
/// A whole in millionths.
const ONE: u32 = 1_000_000;

/// The first thing that is wrong, and of which rule.
pub(crate) fn check(rules: &[Place]) -> Result<(), (usize, Field, Problem)> {
    for (index, rule) in rules.iter().enumerate() {
        let problem = |(field, problem)| (index, field, problem);
        if rules[..index].iter().any(|earlier| stage(earlier) > stage(rule)) {
            return Err(problem((Field::Place, Problem::TooLate)));
        }
        if rules[..index].iter().any(|earlier| kind(earlier) == kind(rule)) {
            return Err(problem((Field::Place, Problem::Twice)));
        }
        check_rule(rule).map_err(problem)?;
    }
    Ok(())
}

/// Preferences of sites, then affinities, then what decides at last.
fn stage(rule: &Place) -> u8 {
    match rule {
        Place::LocalFirst(_) => 0,
        Place::PrefixAffinity(_) | Place::SessionAffinity { .. } => 1,
        Place::RoundRobin | Place::LeastTokens | Place::PowerOfTwo { .. } => 2,
    }
}

/// Of which there may be one.
fn kind(rule: &Place) -> u8 {
    match rule {
        Place::LocalFirst(_) => 0,
        Place::PrefixAffinity(_) => 1,
        Place::SessionAffinity { .. } => 2,
        Place::RoundRobin | Place::LeastTokens | Place::PowerOfTwo { .. } => 3,
    }
}

fn check_rule(rule: &Place) -> Result<(), (Field, Problem)> {
    match rule {
        Place::RoundRobin | Place::LeastTokens | Place::PowerOfTwo { .. } => Ok(()),
        Place::LocalFirst(rule) => check_sites(rule),
        Place::PrefixAffinity(load) => check_load(*load),
        Place::SessionAffinity { sessions_max, load } => {
            within(Field::SessionsMax, (*sessions_max).into(), 1, SESSIONS_MAX.into())?;
            check_load(*load)
        }
    }
}

fn check_load(load: LoadBreak) -> Result<(), (Field, Problem)> {
    within(Field::BreakFactor, load.factor_ppm.into(), ONE.into(), u64::MAX)
}

fn check_sites(rule: &LocalFirst) -> Result<(), (Field, Problem)> {
    within(Field::Sites, rule.sites.len() as u64, 1, SITES_MAX as u64)?;
    for (at, site) in rule.sites.iter().enumerate() {
        within(Field::Sites, site.0.into(), 0, SITES_MAX as u64 - 1)?;
        if rule.sites[..at].contains(site) {
            return Err((Field::Sites, Problem::Twice));
        }
    }
    Ok(())
}
