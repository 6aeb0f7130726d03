//! The attribution as a reader sees it: pooled over replications, named, and in a sentence.

use std::collections::BTreeMap;

use plimsoll_base::{Bound, ClassId};

use super::{Cause, Resource};
use crate::estimate::{seconds, tidy};
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::summary::{BlameKind, BlamedPart};
use crate::words;

/// Parts that a sentence names at most.
const NAMED_MAX: usize = 4;
/// A smaller part of the waiting time is not worth a clause.
const NAMED_MIN: f64 = 0.05;

/// The parts of a class's waiting time over all replications, the largest first.
pub(crate) fn parts(plan: &Plan, ledgers: &[Ledger], row: usize) -> Vec<BlamedPart> {
    let mut nanos = BTreeMap::<Cause, u128>::new();
    for part in ledgers.iter().filter_map(|l| l.blame.as_ref()).flat_map(|blame| blame.parts(row)) {
        *nanos.entry(part.cause).or_default() += part.nanos;
    }
    let all: u128 = nanos.values().sum();
    let on: BTreeMap<Resource, u128> = nanos.iter().fold(BTreeMap::new(), |mut on, (cause, n)| {
        if let Cause::Within(resource, _) | Cause::Above(resource, _) = cause {
            *on.entry(*resource).or_default() += n;
        }
        on
    });
    let own = (row < plan.classes.len()).then_some(ClassId(row as u16));
    let mut parts: Vec<BlamedPart> = Vec::new();
    for (&cause, &part) in &nanos {
        let (kind, culprit) = kind(cause, own);
        let held = |resource, class| {
            let of = |cause| nanos.get(&cause).copied().unwrap_or(0);
            let held = of(Cause::Within(resource, class)) + of(Cause::Above(resource, class));
            tidy(held as f64 / on[&resource] as f64)
        };
        let told = BlamedPart {
            kind,
            resource: resource_name(cause).to_owned(),
            culprit: culprit.map(|class| class_name(plan, class)),
            seconds: seconds(part as f64),
            nanos: u64::try_from(part).unwrap_or(u64::MAX),
            share: tidy(part as f64 / all as f64),
            held: match cause {
                Cause::Within(resource, class) | Cause::Above(resource, class) => {
                    Some(held(resource, class))
                }
                Cause::Idle(_) | Cause::Line(_) | Cause::Untold => None,
            },
        };
        // Within its own class it does not matter whether the class held more than its share.
        let same = |other: &&mut BlamedPart| {
            kind == BlameKind::OwnClass
                && other.kind == BlameKind::OwnClass
                && other.resource == told.resource
        };
        match parts.iter_mut().find(same) {
            Some(other) => {
                other.nanos += told.nanos;
                other.seconds = seconds(other.nanos as f64);
                other.share = tidy(other.share + told.share);
            }
            None => parts.push(told),
        }
    }
    parts.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    parts
}

/// What kind of cause it is for a victim, and which class (`None` inside: none of the plan) it
/// names.
fn kind(cause: Cause, victim: Option<ClassId>) -> (BlameKind, Option<Option<ClassId>>) {
    match cause {
        Cause::Within(_, class) | Cause::Above(_, class) if class == victim => {
            (BlameKind::OwnClass, Some(class))
        }
        Cause::Within(_, class) => (BlameKind::WithinShare, Some(class)),
        Cause::Above(_, class) => (BlameKind::AboveShare, Some(class)),
        Cause::Idle(_) => (BlameKind::Idle, None),
        Cause::Line(bound) => (line_kind(bound), None),
        Cause::Untold => (BlameKind::Untold, None),
    }
}

fn line_kind(bound: Bound) -> BlameKind {
    match bound {
        Bound::ClassRequests | Bound::ClassTokens | Bound::Quota => BlameKind::OwnLimit,
        Bound::HeavyLane | Bound::Adaptive | Bound::Breaker | Bound::Site => BlameKind::PolicyLine,
        Bound::StaleSignal => BlameKind::Signal,
        Bound::NoBackend => BlameKind::NoBackend,
        Bound::Seats | Bound::KvMemory => BlameKind::Idle,
    }
}

fn resource_name(cause: Cause) -> &'static str {
    match cause {
        Cause::Within(resource, _) | Cause::Above(resource, _) | Cause::Idle(resource) => {
            resource.name()
        }
        Cause::Line(bound) => bound.name(),
        Cause::Untold => "untold",
    }
}

/// Whether a cause is the victim's own class.
pub(crate) fn is_own(cause: Cause, victim: usize) -> bool {
    matches!(cause, Cause::Within(_, Some(class)) | Cause::Above(_, Some(class))
        if class.index() == victim)
}

/// What kind of cause it is, who held what was waited for, and what that was.
pub(crate) fn named(
    plan: &Plan,
    cause: Cause,
    own: Option<usize>,
) -> (BlameKind, Option<String>, &'static str) {
    let (kind, culprit) = kind(cause, own.map(|row| ClassId(row as u16)));
    (kind, culprit.map(|class| class_name(plan, class)), resource_words(resource_name(cause)))
}

fn class_name(plan: &Plan, class: Option<ClassId>) -> String {
    class.map_or("unclassified".to_owned(), |class| plan.names.class(class))
}

/// "it waited 41 min in all: 29 min because agents held 87 % of the seats, above its share (weight
/// 1 of 4), and 8 min behind its own requests"
pub(crate) fn clause(plan: &Plan, parts: &[BlamedPart]) -> Option<String> {
    let all: f64 = parts.iter().map(|part| part.seconds).sum();
    if parts.iter().any(|part| part.kind == BlameKind::Untold && part.share > 0.5) {
        return None;
    }
    let named = parts.iter().filter(|part| part.share >= NAMED_MIN).take(NAMED_MAX);
    let named: Vec<String> = named
        .filter(|part| part.kind != BlameKind::Untold)
        .map(|part| format!("{} {}", words::secs(part.seconds), because(plan, part)))
        .collect();
    let estimated = if plan.sees_engines() { "" } else { ", by estimate" };
    (!named.is_empty()).then(|| {
        format!("it waited {} in all{estimated}: {}", words::secs(all), words::list(&named))
    })
}

/// The largest part for which another class is to blame, if it is a tenth of the whole.
pub(crate) fn culprit(parts: &[BlamedPart]) -> Option<&BlamedPart> {
    parts.iter().find(|part| part.kind == BlameKind::AboveShare && part.share >= 0.1)
}

/// Why, for one part.
pub(crate) fn because(plan: &Plan, part: &BlamedPart) -> String {
    let who = part.culprit.as_deref().unwrap_or("nobody");
    let resource = resource_words(&part.resource);
    let held = part.held.map_or(String::new(), words::percent);
    match part.kind {
        BlameKind::AboveShare => {
            let weights: u32 = plan.classes.iter().map(|class| class.weight).sum();
            let own = plan.names.classes.iter().position(|name| name == who);
            let own = own.and_then(|row| plan.classes.get(row)).map_or(1, |class| class.weight);
            format!(
                "because {who} held {held} of {resource}, above its share (weight {own} of {weights})"
            )
        }
        BlameKind::WithinShare => format!("because {who} used {resource} within its share"),
        BlameKind::OwnClass => format!("behind its own requests, which held {held} of {resource}"),
        BlameKind::OwnLimit => format!("at {resource}"),
        BlameKind::PolicyLine => format!("because of {resource}"),
        BlameKind::Signal => "because what is known of the backends was too old".to_owned(),
        BlameKind::NoBackend => "for a backend to be there".to_owned(),
        BlameKind::Idle => format!("while nobody held {resource}"),
        BlameKind::Untold => "for reasons that were not told".to_owned(),
    }
}

/// A resource or a line of the policy, in plain words.
pub(crate) fn resource_words(name: &str) -> &str {
    match name {
        "seats" => "the seats",
        "kv_memory" => "the KV memory",
        "engine" => "the engine's batch",
        "decode_memory" => "the decode side's KV memory",
        "link" => "the link for KV",
        "class_requests" => "its class's cap of requests",
        "class_tokens" => "its class's cap of tokens",
        "quota" => "its quota",
        "heavy_lane" => "the lane for heavy requests",
        "adaptive" => "the limit that feedback has lowered",
        "breaker" => "backends that failed lately",
        "site" => "backends where it may not go",
        "stale_signal" => "stale signals",
        "no_backend" => "no backend",
        other => other,
    }
}
