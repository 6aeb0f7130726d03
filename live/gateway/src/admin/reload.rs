//! The gateway file, read again: all of it is in force at once, or nothing changes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use plimsoll_config::gateway::GatewayFile;
use plimsoll_policy::{Allocator, Input};
use serde::Serialize;

use crate::keys::Keys;
use crate::places::{Moves, Place, Places};
use crate::server::{policy, reports_every};
use crate::state::{Current, Shared};

/// What a reload has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// What tells the policy in force from every other: SHA-256 of its JSON.
    pub policy_sha256: String,
    /// Whether it is another than before.
    pub policy_changed: bool,
    /// Backends that are new; each joins once it is well.
    pub added: Vec<String>,
    /// Backends that get nothing new any more; what runs there goes on.
    pub removed: Vec<String>,
    /// Backends and resources of which something else has changed.
    pub changed: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.policy_changed { "another" } else { "the same" };
        write!(f, "{word} policy ({:.12})", self.policy_sha256)?;
        let lists =
            [("added", &self.added), ("removed", &self.removed), ("changed", &self.changed)];
        for (what, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
            write!(f, "; {what}: {}", names.join(", "))?;
        }
        Ok(())
    }
}

/// Puts a file in force.
///
/// # Errors
/// In words, and then nothing has changed.
pub(crate) async fn reload(
    shared: &Shared,
    file: GatewayFile,
    keys: Keys,
) -> Result<(Summary, Arc<Current>), String> {
    let before = shared.current();
    fits(&before.file, &file)?;
    crate::server::supported(&file)?;
    Allocator::new(file.config.clone())
        .map_err(|error| format!("the policy contradicts itself: {error}"))?;
    let held = shared.gate.ask(|inside| held(inside.allocator)).await;
    let held = held.map_err(|gone| gone.to_string())?;
    shared.tenants.adopt(&file.names.tenants)?;

    let (places, moves) = before.places.after(&before.file, (&file, &keys), &held);
    let next = Current::new(file, keys, places);
    let is_same = before.fingerprint == next.fingerprint
        && before.file.names == next.file.names
        && moves.offers.is_empty();
    let mut policy = policy(&next.file);
    policy.header.names.tenants = shared.tenants.names();
    // First what requests are carried out by, so that whatever the new policy decides is known.
    let current = Arc::new(next);
    shared.replace(Arc::clone(&current));
    // A policy that stays keeps its accounts.
    if !is_same && let Err(error) = shared.gate.reload(policy, moves.offers.clone()).await {
        shared.replace(before);
        return Err(error.to_string());
    }
    carry_out(shared, &current, &moves).await;
    Ok((summary(&before, &current, &moves), current))
}

/// The slots where something runs.
fn held(allocator: &Allocator) -> BTreeSet<u32> {
    let slot = |input: Input| match input {
        Input::Resumed(_, _, held) => held.backend.map(|backend| backend.slot),
        _ => None,
    };
    allocator.handover().into_iter().filter_map(slot).collect()
}

async fn carry_out(shared: &Shared, current: &Current, moves: &Moves) {
    for &slot in &moves.leaving {
        shared.watchers.stop(slot);
        shared.gate.leave(slot).await;
    }
    for &slot in &moves.lent {
        if let Some(Place::Resource(index)) = current.places.get(slot) {
            shared.gate.join(slot, current.file.resources[*index].info).await;
        }
    }
    let every = reports_every(shared).await;
    for (slot, place) in current.places.iter() {
        let Place::Backend(upstream) = place else { continue };
        if !moves.joining.contains(&slot) && !moves.changing.contains(&slot) {
            continue;
        }
        // Nobody may have it join or leave meanwhile.
        shared.watchers.stop(slot);
        let here = shared.gate.ask(move |inside| {
            let backend = inside.backends.get(slot as usize).copied().flatten();
            backend.is_some_and(|backend| backend.is_here)
        });
        let is_here = here.await.unwrap_or(false);
        shared.watchers.start((shared.gate.clone(), slot), upstream, (is_here, every));
    }
}

fn summary(before: &Current, after: &Current, moves: &Moves) -> Summary {
    let name = |places: &Places, file: &GatewayFile, slot: u32| match places.get(slot) {
        Some(Place::Backend(upstream) | Place::Removed(upstream)) => upstream.backend.name.clone(),
        Some(Place::Resource(index)) => file.resources[*index].name.clone(),
        None => format!("#{slot}"),
    };
    let was_here = |slot: u32| matches!(before.places.get(slot), Some(Place::Backend(_)));
    let goes = |slot: u32| matches!(after.places.get(slot), Some(Place::Removed(_)));
    let mut changed: BTreeSet<u32> = moves.changing.iter().copied().collect();
    changed.extend(moves.offers.iter().map(|(slot, _)| *slot));
    let names = |slots: &mut dyn Iterator<Item = u32>| {
        slots.map(|slot| name(&after.places, &after.file, slot)).collect()
    };
    let joining = || moves.joining.iter().chain(&moves.lent).copied();
    changed.extend(joining().filter(|&slot| was_here(slot) && moves.leaving.contains(&slot)));
    Summary {
        policy_sha256: after.fingerprint.clone(),
        policy_changed: before.fingerprint != after.fingerprint,
        added: names(&mut joining().filter(|slot| !changed.contains(slot))),
        removed: names(&mut moves.leaving.iter().copied().filter(|&slot| goes(slot))),
        changed: names(&mut changed.iter().copied()),
    }
}

/// Whether what cannot change while the gateway runs has stayed.
fn fits(before: &GatewayFile, after: &GatewayFile) -> Result<(), String> {
    let (old, new) = (&before.limits, &after.limits);
    let fixed = [
        ("listen", before.listen == after.listen),
        ("admin", before.admin == after.admin),
        ("tls", before.tls == after.tls),
        ("log", before.log == after.log),
        ("connections_max", old.connections_max == new.connections_max),
        ("bodies_bytes_max", old.bodies_bytes_max == new.bodies_bytes_max),
        ("tenants_max", old.tenants_max == new.tenants_max),
        ("tokens_per_byte", old.tokens_per_byte == new.tokens_per_byte),
    ];
    if let Some((key, _)) = fixed.into_iter().find(|(_, same)| !same) {
        return Err(format!("`{key}` cannot change while the gateway runs; restart it"));
    }
    if before.any_model != after.any_model {
        return Err("whether the file names models cannot change while the gateway runs; \
                    restart it"
            .to_owned());
    }
    let resources = |file: &GatewayFile| -> Vec<String> {
        file.resources.iter().map(|resource| resource.name.clone()).collect()
    };
    // Resources first: they are models and pools, too.
    stay("resources", &resources(before), &resources(after))?;
    let lists = [
        ("classes", &before.names.classes, &after.names.classes),
        ("tenants", &before.names.tenants, &after.names.tenants),
        ("models (with resources behind them)", &before.config.models, &after.config.models),
        ("pools (with resources behind them)", &before.names.pools, &after.names.pools),
        ("stages", &before.stages, &after.stages),
        ("sites", &before.config.sites, &after.config.sites),
    ];
    lists.into_iter().try_for_each(|(what, before, after)| stay(what, before, after))
}

/// Names keep their places; new ones come at the end.
fn stay(what: &str, before: &[String], after: &[String]) -> Result<(), String> {
    for (index, name) in before.iter().enumerate() {
        match after.get(index) {
            Some(other) if other == name => {}
            Some(other) => {
                return Err(format!(
                    "{what}: `{other}` stands where `{name}` stood; names keep their order while \
                     the gateway runs, and new ones come at the end"
                ));
            }
            None => {
                return Err(format!(
                    "{what}: `{name}` cannot go while the gateway runs; restart it"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, file_with};
    use super::*;

    fn refusal(settings: &[&str]) -> Option<String> {
        let after = file_with(settings).unwrap_or_else(|wrong| panic!("{settings:?}: {wrong}"));
        fits(&file(), &after).err()
    }

    #[test]
    fn what_cannot_change_is_refused_in_words() {
        let cases: [(&[&str], &str); 5] = [
            (&["gateway.listen=127.0.0.1:1"], "`listen` cannot change"),
            (&["gateway.admin=127.0.0.1:1"], "`admin` cannot change"),
            (&["gateway.connections_max=5"], "`connections_max` cannot change"),
            (&["gateway.tokens_per_byte=0.5"], "`tokens_per_byte` cannot change"),
            (&["policy.models=[\"other\"]"], "models (with resources behind them): `other` stands"),
        ];
        for (settings, wanted) in cases {
            let why = refusal(settings).unwrap_or_default();
            assert!(why.contains(wanted), "{settings:?}: {why}");
        }
        assert_eq!(refusal(&["policy.models=[\"llama\", \"qwen\"]"]), None);
        assert_eq!(refusal(&["gateway.drain=1s"]), None);
    }

    #[test]
    fn names_keep_their_places() {
        let names = |names: &str| names.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(stay("x", &names("a b"), &names("a b c")), Ok(()));
        let why = stay("x", &names("a b"), &names("b a")).expect_err("they moved");
        assert!(why.starts_with("x: `b` stands where `a` stood"), "{why}");
        let why = stay("x", &names("a b"), &names("a")).expect_err("one is gone");
        assert!(why.starts_with("x: `b` cannot go"), "{why}");
    }
}
