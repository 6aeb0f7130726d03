//! What must hold among the rules of partition.

use plimsoll_base::ClassId;

use super::LEVELS_MAX;
use crate::check::{ConfigError, Field, Problem, within};
use crate::class_set::ClassSet;
use crate::config::{Concurrency, Config, Dedicated, Partition, Quota, QuotaGroup};

/// The largest quota: sums and loans stay inside 64 bits.
const QUOTA_MAX: u64 = 1 << 48;
/// Groups that a quota may have.
const GROUPS_MAX: u64 = 1_000;
/// A whole in millionths.
const ONE: u64 = 1_000_000;

/// The first thing that is wrong.
pub(crate) fn check(config: &Config) -> Result<(), ConfigError> {
    let classes = config.classes.len();
    for (index, rule) in config.partition.iter().enumerate() {
        let problem = |(field, problem)| ConfigError::Partition(index, field, problem);
        let is_same =
            |earlier: &Partition| std::mem::discriminant(earlier) == std::mem::discriminant(rule);
        let is_second = config.partition[..index].iter().any(is_same);
        match rule {
            // What holds of it holds of the policy as a whole.
            Partition::HeavyLane { .. } => {}
            Partition::Dedicated(rule) => check_dedicated(rule, classes).map_err(problem)?,
            Partition::Quota(_) | Partition::Concurrency(_) if is_second => {
                return Err(problem((Field::Partition, Problem::Twice)));
            }
            Partition::Quota(rule) => {
                within(Field::Groups, rule.groups.len() as u64, 1, GROUPS_MAX).map_err(problem)?;
                check_groups(rule, classes).map_err(|(group, field, problem)| {
                    ConfigError::Group(index, group, field, problem)
                })?;
            }
            Partition::Concurrency(rule) => check_shares(rule, classes).map_err(problem)?,
        }
    }
    Ok(())
}

fn exists(class: ClassId, classes: usize) -> Result<(), (Field, Problem)> {
    match class.index() < classes {
        true => Ok(()),
        false => Err((Field::Class, Problem::NoSuchClass(class))),
    }
}

fn check_dedicated(rule: &Dedicated, classes: usize) -> Result<(), (Field, Problem)> {
    exists(rule.class, classes)?;
    within(Field::Pools, rule.pools.len() as u64, 1, u64::MAX)
}

fn check_shares(rule: &Concurrency, classes: usize) -> Result<(), (Field, Problem)> {
    let mut seen = ClassSet::EMPTY;
    let mut sum = 0;
    for &(class, share) in &rule.shares_ppm {
        exists(class, classes)?;
        within(Field::Shares, share.into(), 1, ONE)?;
        if seen.contains(class) {
            return Err((Field::Class, Problem::Twice));
        }
        seen.insert(class);
        sum += u64::from(share);
    }
    within(Field::Shares, rule.shares_ppm.len() as u64, 1, u64::MAX)?;
    within(Field::Shares, sum, 0, ONE)
}

fn check_groups(rule: &Quota, classes: usize) -> Result<(), (usize, Field, Problem)> {
    let mut seen = ClassSet::EMPTY;
    let mut depths = Vec::new();
    for (index, group) in rule.groups.iter().enumerate() {
        let problem = |(field, problem)| (index, field, problem);
        let depth = depth(group, &depths).map_err(problem)?;
        depths.push(depth);
        check_amounts(group).map_err(problem)?;
        let children = || rule.groups.iter().filter(|other| other.parent == Some(index as u16));
        let sum = children().fold(0u64, |sum, child| sum.saturating_add(child.nominal));
        if sum > group.nominal {
            return Err(problem((Field::Nominal, Problem::ChildrenExceed(sum))));
        }
        for &class in &group.classes {
            exists(class, classes).map_err(problem)?;
            if seen.contains(class) {
                return Err(problem((Field::Class, Problem::Twice)));
            }
            if children().next().is_some() {
                return Err(problem((Field::Class, Problem::IsNoLeaf)));
            }
            seen.insert(class);
        }
    }
    Ok(())
}

fn depth(group: &QuotaGroup, depths: &[u64]) -> Result<u64, (Field, Problem)> {
    let Some(parent) = group.parent else { return Ok(0) };
    let above = depths.get(usize::from(parent)).ok_or((Field::Parent, Problem::NoSuchGroup))?;
    match above + 2 > LEVELS_MAX as u64 {
        true => Err((Field::Parent, Problem::TooDeep(LEVELS_MAX as u64))),
        false => Ok(above + 1),
    }
}

fn check_amounts(group: &QuotaGroup) -> Result<(), (Field, Problem)> {
    within(Field::Nominal, group.nominal, 0, QUOTA_MAX)?;
    within(Field::LendMax, group.lend_max.unwrap_or(0), 0, group.nominal)?;
    let is_root = group.parent.is_none();
    match (group.borrow_max, group.lend_max) {
        (Some(_), _) if is_root => return Err((Field::BorrowMax, Problem::IsRoot)),
        (_, Some(_)) if is_root => return Err((Field::LendMax, Problem::IsRoot)),
        (_, _) => {}
    }
    let borrows = !is_root && group.borrow_max != Some(0);
    match group.nominal == 0 && !borrows {
        true => Err((Field::Nominal, Problem::AdmitsNothing)),
        false => Ok(()),
    }
}
