//! Rules of partition in a file.

use std::collections::BTreeMap;

use plimsoll_base::{ClassId, PoolId};
use plimsoll_policy::config::{Concurrency, Dedicated, Partition, Quota, QuotaGroup, QuotaUnit};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::{Known, check_names, find};
use crate::{At, Diagnostic, FractionValue, Items};

/// What classes and groups of classes may hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "rule", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "PartitionSpec", tag = "rule")]
pub enum PartitionSpec {
    /// A class uses only certain pools.
    Dedicated {
        /// The class.
        class: At<String>,
        /// The pools.
        pools: At<Items<At<String>>>,
        /// Whether the pools take only classes that are dedicated to them. Default false.
        #[serde(default)]
        exclusive: bool,
    },
    /// Groups of classes have quotas, which they lend each other.
    Quota {
        /// What is counted. Default "requests".
        unit: Option<UnitSpec>,
        /// The groups, parents before their children.
        groups: Items<At<GroupSpec>>,
    },
    /// Classes have fractions of all seats: `{ chat = 0.5, batch = 0.3 }`.
    Concurrency {
        /// Classes and their fractions; in all at most 1.
        shares: BTreeMap<String, At<FractionValue>>,
    },
}

/// What a quota counts of what is outstanding at backends.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename = "unit", rename_all = "kebab-case")]
#[schemars(rename = "QuotaUnitSpec")]
pub enum UnitSpec {
    /// Requests.
    Requests,
    /// Estimated tokens.
    Tokens,
}

/// A group of classes, or of groups.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "QuotaGroupSpec")]
pub struct GroupSpec {
    /// Letters, digits, `-`, `_`.
    pub name: At<String>,
    /// The group it is a part of; absent for a root, which cannot borrow.
    pub parent: Option<At<String>>,
    /// What is its own.
    pub nominal: u64,
    /// What it may use beyond that. Default: whatever there is.
    pub borrow_max: Option<u64>,
    /// What others may use of its own. Default: all of it.
    pub lend_max: Option<u64>,
    /// The classes of a leaf.
    #[serde(default)]
    pub classes: Items<At<String>>,
}

/// The rule that a file states.
pub(crate) fn rule(
    spec: &PartitionSpec,
    known: Known<'_>,
    found: &mut Vec<Diagnostic>,
) -> Option<Partition> {
    Some(match spec {
        PartitionSpec::Dedicated { class, pools, exclusive } => {
            let named = pools.value.0.iter();
            let pools = named.filter_map(|pool| find(pool, known.pools, "pool", found));
            let pools = pools.map(|index| PoolId(u16::try_from(index).unwrap_or(u16::MAX)));
            let pools = pools.collect();
            let class = find(class, known.classes, "class", found).map(class_id)?;
            Partition::Dedicated(Dedicated { class, pools, exclusive: *exclusive })
        }
        PartitionSpec::Quota { unit, groups } => Partition::Quota(Quota {
            unit: match unit {
                None | Some(UnitSpec::Requests) => QuotaUnit::Requests,
                Some(UnitSpec::Tokens) => QuotaUnit::Tokens,
            },
            groups: self::groups(&groups.0, known, found),
        }),
        PartitionSpec::Concurrency { shares } => {
            let share = |(name, share): (&String, &At<FractionValue>)| {
                let name = At { value: name.clone(), place: share.place };
                let class = find(&name, known.classes, "class", found).map(class_id)?;
                Some((class, (share.value.0 * 1e6).round() as u32))
            };
            Partition::Concurrency(Concurrency {
                shares_ppm: shares.iter().filter_map(share).collect(),
            })
        }
    })
}

fn groups(
    specs: &[At<GroupSpec>],
    known: Known<'_>,
    found: &mut Vec<Diagnostic>,
) -> Vec<QuotaGroup> {
    let placed: Vec<&At<String>> = specs.iter().map(|group| &group.value.name).collect();
    check_names(&placed, "group", found);
    let names: Vec<String> = placed.iter().map(|name| name.value.clone()).collect();
    let group = |spec: &At<GroupSpec>| {
        let spec = &spec.value;
        let parent = spec.parent.as_ref().and_then(|name| find(name, &names, "group", found));
        let classes = spec.classes.0.iter();
        let classes = classes.filter_map(|name| find(name, known.classes, "class", found));
        QuotaGroup {
            parent: parent.map(|index| u16::try_from(index).unwrap_or(u16::MAX)),
            nominal: spec.nominal,
            borrow_max: spec.borrow_max,
            lend_max: spec.lend_max,
            classes: classes.map(class_id).collect(),
        }
    };
    specs.iter().map(group).collect()
}

fn class_id(index: usize) -> ClassId {
    ClassId(u16::try_from(index).unwrap_or(u16::MAX))
}
