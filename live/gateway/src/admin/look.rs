//! One look at everything, and what it says as JSON.

use plimsoll_base::{AlarmKind, Bound, ClassId, Span, Time};
use plimsoll_config::gateway::GatewayFile;
use plimsoll_driver::{Backend, Gone, Inside, LogState, Timing};
use plimsoll_policy::{Alarm, BackendState, Snapshot};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::shares::{Part, is_own_limit};
use crate::places::Place;
use crate::state::{Current, Shared};

/// What `/state` says it is; rises when a field changes its meaning or goes.
pub(crate) const VERSION: u32 = 1;
/// Alarms that are shown.
const ALARMS_MAX: usize = 32;

/// What the driver's task holds, between two inputs.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// Since the gateway started.
    pub now: Time,
    pub snapshot: Snapshot,
    /// By slot.
    pub backends: Vec<Option<Backend>>,
    /// Latest first, and whether each still stands.
    pub alarms: Vec<(Time, Alarm, bool)>,
    pub timing: Timing,
    pub log: LogState,
}

impl Look {
    /// Looks.
    ///
    /// # Errors
    /// If the driver has stopped.
    pub async fn at(shared: &Shared) -> Result<Look, Gone> {
        shared.gate.ask(Look::inside).await
    }

    fn inside(inside: &Inside<'_>) -> Look {
        let alarms = inside.alarms.iter().rev().take(ALARMS_MAX);
        let stands = |alarm: &Alarm| inside.detector.stands(alarm.victim, alarm.kind);
        let mut told = Vec::new();
        let mut alarm = |(at, alarm): &(Time, Alarm)| {
            // Only the latest of its kind can be the one that stands.
            let is_latest = !told.contains(&(alarm.victim, alarm.kind));
            told.push((alarm.victim, alarm.kind));
            (*at, *alarm, is_latest && stands(alarm))
        };
        Look {
            now: inside.now,
            snapshot: inside.allocator.snapshot(),
            backends: inside.backends.to_vec(),
            alarms: alarms.map(&mut alarm).collect(),
            timing: inside.timing.clone(),
            log: inside.log.clone(),
        }
    }

    /// A backend as the allocator sees it, if it is there.
    pub fn held(&self, slot: u32) -> Option<&BackendState> {
        self.snapshot.backends.iter().find(|state| state.backend.slot == slot)
    }

    /// A backend as it was told of.
    pub fn backend(&self, slot: u32) -> Option<&Backend> {
        self.backends.get(slot as usize)?.as_ref()
    }
}

/// A policy's name and what tells it from every other.
pub(crate) fn fingerprint(file: &GatewayFile) -> String {
    let json = serde_json::to_vec(&file.config).expect("a policy is JSON");
    Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Everything, for people and programs. `parts` is indexed by class.
pub(crate) fn state(look: &Look, (shared, current): (&Shared, &Current), parts: &[Part]) -> Value {
    let file = &current.file;
    let ids = (0..look.snapshot.classes.len() as u16).map(ClassId);
    json!({
        "version": VERSION,
        "gateway": { "name": file.name, "build": env!("CARGO_PKG_VERSION") },
        "policy": { "name": file.name, "sha256": current.fingerprint },
        "up_seconds": seconds(look.now),
        "draining": look.snapshot.draining || shared.is_draining(),
        "connections": {
            "open": shared.connections(),
            "max": file.limits.connections_max,
        },
        "classes": ids.map(|id| class(look, file, (id, parts))).collect::<Vec<_>>(),
        "backends": backends(look, current),
        "alarms": look.alarms.iter().map(|told| alarm(told, file)).collect::<Vec<_>>(),
        "log": log(&look.log),
    })
}

fn seconds(at: Time) -> f64 {
    at.secs_f64()
}

fn class(look: &Look, file: &GatewayFile, (id, parts): (ClassId, &[Part])) -> Value {
    let class = &look.snapshot.classes[id.index()];
    let config = file.config.classes.get(id.index());
    let part = parts.get(id.index()).copied().unwrap_or_default();
    let age = |oldest: Time| look.now.saturating_since(oldest).secs_f64();
    let bound = class.stopped_by.filter(|_| class.queued > 0);
    json!({
        "name": file.names.class(id),
        "priority": config.map(|class| class.priority),
        "weight": config.map(|class| class.weight),
        "wait_max_seconds": config.and_then(|class| class.wait_max).map(Span::secs_f64),
        "queued": class.queued,
        "oldest_wait_seconds": class.oldest.map(age),
        "stopped_by": bound.map(Bound::name),
        "waits_on": if class.queued > 0 { holders(look, file, (id, bound)) } else { Vec::new() },
        "outstanding": { "requests": class.outstanding, "tokens": class.outstanding_tokens },
        "share": {
            "received": part.received,
            "entitled": part.entitled,
            "error": part.error(),
        },
    })
}

/// Who holds what a class waits for: itself where its own limit stops it, otherwise all who have
/// something outstanding; who holds most comes first.
fn holders(look: &Look, file: &GatewayFile, (id, bound): (ClassId, Option<Bound>)) -> Vec<Value> {
    let is_own = bound.is_some_and(is_own_limit);
    let classes = (0..).map(ClassId).zip(&look.snapshot.classes);
    let mut holding: Vec<_> = classes
        .filter(|(other, class)| class.outstanding > 0 && (!is_own || *other == id))
        .collect();
    holding.sort_by_key(|(_, class)| std::cmp::Reverse(class.outstanding_tokens));
    let holder = |(other, class): (ClassId, &plimsoll_policy::ClassState)| {
        json!({
            "class": file.names.class(other),
            "requests": class.outstanding,
            "tokens": class.outstanding_tokens,
        })
    };
    holding.into_iter().map(holder).collect()
}

fn backends(look: &Look, current: &Current) -> Vec<Value> {
    let one = |(slot, place): (u32, &Place)| {
        let (name, kind, removed) = match place {
            Place::Backend(upstream) => {
                (&upstream.backend.name, upstream.backend.kind.name(), false)
            }
            Place::Removed(upstream) => {
                (&upstream.backend.name, upstream.backend.kind.name(), true)
            }
            Place::Resource(index) => (&current.file.resources[*index].name, "resource", false),
        };
        let backend = look.backend(slot);
        let held = look.held(slot);
        let report = backend.and_then(|backend| backend.load).map(|(as_of, load)| {
            json!({
                "age_seconds": look.now.saturating_since(as_of).secs_f64(),
                "running": load.running,
                "waiting": load.waiting,
                "kv_used": f64::from(load.kv_used_ppm) / 1e6,
            })
        });
        let used = |(used, limit): (u64, u64)| {
            let limit = Some(limit).filter(|limit| *limit < u64::from(u32::MAX));
            json!({ "used": used, "limit": limit })
        };
        json!({
            "name": name,
            "slot": slot,
            "kind": kind,
            "removed": removed,
            "up": backend.is_some_and(|backend| backend.is_here),
            "requests": held.map(|held| used((held.requests.0.into(), held.requests.1.into()))),
            "tokens": held.map(|held| used(held.tokens)),
            "report": report,
        })
    };
    current.places.iter().map(one).collect()
}

fn alarm((at, alarm, stands): &(Time, Alarm, bool), file: &GatewayFile) -> Value {
    json!({
        "at_seconds": seconds(*at),
        "since_seconds": seconds(alarm.since),
        "kind": alarm.kind.name(),
        "class": file.names.class(alarm.victim),
        "culprit": alarm.culprit.map(|class| file.names.class(class)),
        "resource": alarm.resource.map(Bound::name),
        "stands": stands,
    })
}

fn log(log: &LogState) -> Value {
    match log {
        LogState::Off => json!({ "state": "off" }),
        LogState::Written(bytes) => json!({ "state": "written", "bytes": bytes }),
        LogState::Broken(error) => json!({ "state": "broken", "error": error }),
    }
}

/// Whether an alarm says that a class is starved. A class whose deadline will be missed may get all
/// there is, and seats that are idle are nobody's doing.
pub(crate) fn is_starvation(kind: AlarmKind) -> bool {
    match kind {
        AlarmKind::NoService | AlarmKind::Lag | AlarmKind::Livelock | AlarmKind::Inversion => true,
        AlarmKind::Deadline | AlarmKind::Idle => false,
    }
}
