//! Rules of partition in a file.

use std::collections::BTreeMap;

use plimsoll_base::{ClassId, PoolId};
use plimsoll_policy::config::{Concurrency, Dedicated, Partition, Quota, QuotaGroup, QuotaUnit};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::{Known, at_least_one, check_names, find};
use crate::{At, Code, Diagnostic, FractionValue, Items};

/// Classes beside a heavy lane: each has a second queue.
const CLASSES_MAX: usize = 32;

/// What classes and groups of classes may hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "rule", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "PartitionSpec", tag = "rule")]
pub enum PartitionSpec {
    /// At most so many heavy requests at once; they queue apart from the light ones.
    HeavyLane {
        /// Heavy is what is estimated to compute more tokens: prompt - cached + predicted output.
        over_tokens: u64,
        /// How many, at least 1.
        max: At<u32>,
    },
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

/// The rules that a file states.
pub(crate) fn rules(
    specs: &[At<PartitionSpec>],
    known: Known<'_>,
    found: &mut Vec<Diagnostic>,
) -> Vec<Partition> {
    check_heavy_lanes(specs, known.classes.len(), found);
    specs.iter().filter_map(|rule| self::rule(&rule.value, known, found)).collect()
}

fn check_heavy_lanes(specs: &[At<PartitionSpec>], classes: usize, found: &mut Vec<Diagnostic>) {
    let is_lane = |rule: &&At<PartitionSpec>| matches!(rule.value, PartitionSpec::HeavyLane { .. });
    let mut lanes = specs.iter().filter(is_lane);
    if let Some(rule) = lanes.next()
        && classes > CLASSES_MAX
    {
        let message = format!(
            "there are {classes} classes, at most {CLASSES_MAX} are supported beside a heavy lane"
        );
        found.push(Diagnostic::new(Code::TooMany, Some(rule.place), message));
    }
    for second in lanes {
        found.push(
            Diagnostic::new(Code::Conflict, Some(second.place), "there is a heavy lane already")
                .label("the second")
                .help("keep one `heavy-lane`"),
        );
    }
}

fn rule(spec: &PartitionSpec, known: Known<'_>, found: &mut Vec<Diagnostic>) -> Option<Partition> {
    Some(match spec {
        PartitionSpec::HeavyLane { over_tokens, max } => Partition::HeavyLane {
            over_tokens: *over_tokens,
            max: at_least_one("max", Some(*max), found).unwrap_or(1),
        },
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
