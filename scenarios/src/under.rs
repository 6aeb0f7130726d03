//! A scenario under another policy: one of its own tables, a baseline, or that of another file.

use std::path::Path;

use plimsoll_config::tree::{Entry, Node, Value};
use plimsoll_config::{Code, Diagnostic, Diagnostics, Layered, nearest};

use crate::scenario::scenario;
use crate::{Scenario, shipped};

/// What `[policy]` itself may hold; a table of any other name is another policy.
const KEYS: [&str; 16] = [
    "models",
    "stages",
    "classify",
    "admit",
    "share",
    "order",
    "sites",
    "partition",
    "place",
    "window",
    "bypass_max",
    "feedback",
    "guard",
    "predict",
    "requests_max",
    "accounts_max",
];

/// The file's own policy, as a name.
pub const OWN: &str = "own";

/// Policies that any scenario can be put under: name, what they do, and what is laid over
/// `[policy]`.
const BASELINES: [(&str, &str, &str); 6] = [
    ("fcfs", "first come, first served", "share = \"fcfs\"\norder = \"fcfs\""),
    ("priority", "strict priority by class", "share = \"priority\"\norder = \"fcfs\""),
    (
        "drr",
        "deficit round robin by class",
        "share = { rule = \"deficit-round-robin\", per = \"class\" }\norder = \"fcfs\"",
    ),
    (
        "vtc",
        "virtual token counters by class",
        "share = { rule = \"virtual-token-counter\", per = \"class\" }\norder = \"fcfs\"",
    ),
    (
        "sfq",
        "start-time fair queueing by class",
        "share = { rule = \"start-time-fair\", per = \"class\" }\norder = \"fcfs\"",
    ),
    ("aging", "one queue by age and boost", "share = \"fcfs\"\norder = \"aging\""),
];

/// The names of the baselines and what each does.
pub fn baselines() -> impl Iterator<Item = (&'static str, &'static str)> {
    BASELINES.iter().map(|(name, about, _)| (*name, *about))
}

/// Reads a scenario (the path may be `shipped:NAME`) and puts it under another policy: `own`, a
/// `[policy.NAME]` of the file, a baseline, or the policy of another file or shipped scenario,
/// sought in this order. The first three are laid over the file's `[policy]`; that of another file
/// takes its place, together with what that file says of the classes, their objectives excepted.
/// The overrides come last.
///
/// # Errors
/// What is wrong with the file, the policy or the overrides.
pub fn load_under(
    path: &Path,
    policy: &str,
    overrides: &[String],
) -> Result<Scenario, Diagnostics> {
    let mut layered = plimsoll_config::read(path, &[], shipped())?;
    let alternatives = take_alternatives(&mut layered.root);
    let put = put_under(&mut layered, policy, alternatives);
    match put.and_then(|()| layered.set(overrides)) {
        Ok(()) => scenario(layered),
        Err(list) => Err(Diagnostics { sources: layered.sources, list }),
    }
}

/// Like [`load_under`], on the pools of another file: a profile as `plimsoll calibrate` writes it.
/// They take the place of the file's.
///
/// # Errors
/// What is wrong with the file, the policy, the profile or the overrides.
pub fn load_on(
    path: &Path,
    (policy, profile): (&str, &Path),
    overrides: &[String],
) -> Result<Scenario, Diagnostics> {
    let mut layered = plimsoll_config::read(path, &[], shipped())?;
    let alternatives = take_alternatives(&mut layered.root);
    let other = layered.adopt(plimsoll_config::read(profile, &[], shipped())?);
    let put = put_on(&mut layered, other, profile)
        .and_then(|()| put_under(&mut layered, policy, alternatives))
        .and_then(|()| layered.set(overrides));
    match put {
        Ok(()) => scenario(layered),
        Err(list) => Err(Diagnostics { sources: layered.sources, list }),
    }
}

/// Puts the pools of `other` in the place of ours.
fn put_on(layered: &mut Layered, other: Node, profile: &Path) -> Result<(), Vec<Diagnostic>> {
    let Some(pools) = other.entries().iter().find(|entry| entry.key == "pool").cloned() else {
        let message = format!("`{}` has no `[[pool]]`: it is no profile", profile.display());
        let diagnostic = Diagnostic::new(Code::Empty, Some(other.place), message)
            .help("`plimsoll calibrate` writes one");
        return Err(vec![diagnostic]);
    };
    if let Value::Table(entries) = &mut layered.root.value {
        entries.retain(|entry| entry.key != "pool");
        entries.push(pools);
    }
    Ok(())
}

/// Takes the tables `[policy.NAME]` out of a scenario.
pub(crate) fn take_alternatives(root: &mut Node) -> Vec<Entry> {
    let Value::Table(entries) = &mut root.value else { return Vec::new() };
    let policy = entries.iter_mut().find(|entry| entry.key == "policy");
    let Some(Value::Table(keys)) = policy.map(|entry| &mut entry.node.value) else {
        return Vec::new();
    };
    let other = |entry: &mut Entry| {
        !KEYS.contains(&entry.key.as_str()) && matches!(entry.node.value, Value::Table(_))
    };
    keys.extract_if(.., other).collect()
}

fn put_under(
    layered: &mut Layered,
    policy: &str,
    alternatives: Vec<Entry>,
) -> Result<(), Vec<Diagnostic>> {
    if policy == OWN {
        return Ok(());
    }
    let names: Vec<String> = alternatives.iter().map(|entry| entry.key.clone()).collect();
    if let Some(entry) = alternatives.into_iter().find(|entry| entry.key == policy) {
        layered.lay("policy", entry.node);
        return Ok(());
    }
    if let Some((name, _, text)) = BASELINES.iter().find(|(name, ..)| *name == policy) {
        let node = layered.text(&format!("baseline {name}"), text)?;
        layered.lay("policy", node);
        return Ok(());
    }
    let known = shipped().iter().any(|(name, _)| *name == policy);
    if !known && !Path::new(policy).exists() {
        return Err(vec![unknown(policy, &names)]);
    }
    let path = if known { format!("shipped:{policy}") } else { policy.to_owned() };
    let other = plimsoll_config::read(Path::new(&path), &[], shipped());
    let other = other
        .map_err(|found| vec![Diagnostic::new(Code::Unreadable, None, found.render(false))])?;
    let mut other = layered.adopt(other);
    take_alternatives(&mut other);
    replace(layered, other, policy)
}

fn unknown(policy: &str, own: &[String]) -> Diagnostic {
    let message = format!("no policy, baseline or file is called `{policy}`");
    let baselines = BASELINES.iter().map(|(name, ..)| *name);
    let names = [OWN].into_iter().chain(own.iter().map(String::as_str)).chain(baselines);
    let near = nearest::nearest(policy, shipped().iter().map(|(name, _)| *name));
    let help = match near {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None => nearest::suggest(policy, names),
    };
    Diagnostic::new(Code::UnknownName, None, message).help_maybe(help)
}

/// Puts the policy of `other` in the place of ours, and its classes over ours.
fn replace(layered: &mut Layered, other: Node, name: &str) -> Result<(), Vec<Diagnostic>> {
    let take = |key: &str| other.entries().iter().find(|entry| entry.key == key).cloned();
    let classes = take("class").map_or(Vec::new(), |entry| elements(entry.node));
    let Value::Table(entries) = &mut layered.root.value else { return Ok(()) };
    entries.retain(|entry| entry.key != "policy");
    entries.extend(take("policy"));
    let ours = entries.iter_mut().find(|entry| entry.key == "class");
    let Some(Value::Array(ours)) = ours.map(|entry| &mut entry.node.value) else {
        return Ok(());
    };
    let mut found = Vec::new();
    for class in ours {
        let Some(own) = class.name().map(str::to_owned) else { continue };
        match classes.iter().find(|other| other.name() == Some(&own)) {
            Some(theirs) => *class = with_objectives(theirs.clone(), class),
            None => {
                let message = format!("`{name}` has no class `{own}`: its policy does not fit");
                let names = classes.iter().filter_map(Node::name);
                found.push(
                    Diagnostic::new(Code::UnknownName, Some(class.place), message)
                        .help_maybe(nearest::suggest(&own, names)),
                );
            }
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// Their class with the objectives of ours: what is promised does not follow from the policy.
fn with_objectives(mut theirs: Node, ours: &Node) -> Node {
    if let Value::Table(entries) = &mut theirs.value {
        entries.retain(|entry| entry.key != "slo");
        entries.extend(ours.entries().iter().filter(|entry| entry.key == "slo").cloned());
    }
    theirs
}

fn elements(node: Node) -> Vec<Node> {
    match node.value {
        Value::Array(nodes) => nodes,
        Value::Text(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Table(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_policy_are_those_of_the_schema() {
        let schema = crate::schema();
        let properties = schema["$defs"]["PolicySpec"]["properties"].as_object();
        let mut known: Vec<&str> =
            properties.expect("a policy is a table").keys().map(String::as_str).collect();
        let mut keys = KEYS.to_vec();
        known.sort_unstable();
        keys.sort_unstable();
        assert_eq!(known, keys);
    }

    #[test]
    fn every_baseline_fits_a_shipped_scenario() {
        let path = Path::new("shipped:noisy-neighbour");
        let own = load_under(path, OWN, &[]).expect("the file's own policy");
        for (name, _) in baselines() {
            let other =
                load_under(path, name, &[]).unwrap_or_else(|d| panic!("{}", d.render(false)));
            assert_eq!(other.model.workloads, own.model.workloads, "{name} changes no workload");
            assert_eq!(other.model.pools, own.model.pools, "{name} changes no pool");
            let same = other.model.policy == own.model.policy;
            assert_eq!(same, name == "fcfs", "{name}");
        }
    }

    #[test]
    fn the_policy_of_another_file_brings_its_classes_and_no_objectives() {
        let path = Path::new("shipped:noisy-neighbour");
        let own = load_under(path, OWN, &[]).expect("the file's own policy");
        let caps = load_under(path, "noisy-neighbour-caps", &[]).expect("a shipped scenario");
        assert_eq!(caps.model.policy.classes[2].requests_max, Some(16));
        assert_eq!(caps.objectives, own.objectives);
        assert_eq!(caps.name, own.name);
        let strange = load_under(path, "quickstart", &[]).expect_err("it has other classes");
        assert!(strange.render(false).contains("has no class `agents`"), "{strange:?}");
    }

    #[test]
    fn an_unknown_policy_is_told_with_the_nearest_name() {
        let check = |name: &str, expected: &str| {
            let found = load_under(Path::new("shipped:noisy-neighbour"), name, &[]);
            let text = found.expect_err("there is none").render(false);
            assert!(text.contains(expected), "{text}");
        };
        check("vtcc", "did you mean `vtc`?");
        check("noisy-neighbour-vtx", "did you mean `noisy-neighbour-vtc`?");
        check("nonsense-of-mine", "`fcfs`");
    }
}
