//! The partition rules the plain way: everything is counted anew from the requests held.

use plimsoll_base::ClassId;
use plimsoll_policy::Config;
use plimsoll_policy::config::{Partition, Quota, QuotaUnit};

use super::Held;

/// What the classes' groups would use, from scratch.
pub struct Use {
    pub before: Vec<u64>,
    pub after: Vec<u64>,
}

pub fn quota(config: &Config) -> Option<&Quota> {
    config.partition.iter().find_map(|rule| match rule {
        Partition::Quota(quota) => Some(quota),
        Partition::HeavyLane { .. } | Partition::Dedicated(_) | Partition::Concurrency(_) => None,
    })
}

/// What each group uses, given what is outstanding.
pub fn used(rule: &Quota, outstanding: &[(ClassId, u64)]) -> Vec<u64> {
    let mut used = vec![0; rule.groups.len()];
    for at in (0..rule.groups.len()).rev() {
        let own = outstanding.iter().filter(|(class, _)| rule.groups[at].classes.contains(class));
        used[at] += own.map(|(_, amount)| amount).sum::<u64>();
        let kept = rule.groups[at].lend_max.map_or(0, |lent| rule.groups[at].nominal - lent);
        if let Some(parent) = rule.groups[at].parent {
            used[usize::from(parent)] += used[at].max(kept);
        }
    }
    used
}

pub fn most(rule: &Quota, at: usize) -> u64 {
    let group = &rule.groups[at];
    match (group.parent, group.borrow_max) {
        (None, _) => group.nominal,
        (Some(_), None) => u64::MAX,
        (Some(_), Some(most)) => group.nominal + most,
    }
}

pub fn amounts(rule: &Quota, held: &[Held]) -> Vec<(ClassId, u64)> {
    held.iter().filter(|h| h.at.is_some()).map(|h| (h.class, amount(rule, h.tokens()))).collect()
}

fn amount(rule: &Quota, tokens: u64) -> u64 {
    match rule.unit {
        QuotaUnit::Requests => 1,
        QuotaUnit::Tokens => tokens,
    }
}

/// What the groups use, and would if such a request went.
pub fn with(rule: &Quota, held: &[Held], (class, tokens): (ClassId, u64)) -> Use {
    let mut outstanding = amounts(rule, held);
    let before = used(rule, &outstanding);
    outstanding.push((class, amount(rule, tokens)));
    Use { before, after: used(rule, &outstanding) }
}

/// The groups that would use more.
pub fn changed(usage: &Use) -> impl Iterator<Item = usize> {
    (0..usage.after.len()).filter(|&at| usage.after[at] > usage.before[at])
}

pub fn has_room(rule: &Quota, usage: &Use) -> bool {
    changed(usage).all(|at| usage.after[at] <= most(rule, at))
}

pub fn depth(rule: &Quota, at: usize) -> usize {
    rule.groups[at].parent.map_or(0, |parent| depth(rule, parent.into()) + 1)
}

/// The depth of the deepest group that would borrow.
pub fn borrows_at(rule: &Quota, usage: &Use) -> usize {
    let borrow = changed(usage).filter(|&at| usage.after[at] > rule.groups[at].nominal);
    borrow.map(|at| depth(rule, at)).max().unwrap_or(0)
}

/// Whether a class is in a group or below it.
pub fn is_under(rule: &Quota, class: ClassId, at: usize) -> bool {
    let leaf = rule.groups.iter().position(|group| group.classes.contains(&class));
    let mut next = leaf;
    while let Some(group) = next {
        if group == at {
            return true;
        }
        next = rule.groups[group].parent.map(usize::from);
    }
    false
}

/// Whether a class that was denied at its depth claims what such a request would borrow.
pub fn is_claimed(rule: &Quota, usage: &Use, denied: &[(ClassId, usize)]) -> bool {
    changed(usage).filter(|&at| usage.after[at] > rule.groups[at].nominal).any(|at| {
        let Some(parent) = rule.groups[at].parent.map(usize::from) else { return false };
        denied.iter().any(|&(class, depth_denied)| {
            depth_denied < depth(rule, at)
                && is_under(rule, class, parent)
                && !is_under(rule, class, at)
        })
    })
}

/// How many requests of the class the partitioned concurrency lets run on so many seats.
pub fn concurrency_max(config: &Config, class: ClassId, seats: u64) -> Option<u64> {
    config.partition.iter().find_map(|rule| match rule {
        Partition::Concurrency(rule) => {
            let share = rule.shares_ppm.iter().find(|(other, _)| *other == class)?.1;
            Some((u64::from(share) * seats / 1_000_000).max(1))
        }
        Partition::HeavyLane { .. } | Partition::Dedicated(_) | Partition::Quota(_) => None,
    })
}
