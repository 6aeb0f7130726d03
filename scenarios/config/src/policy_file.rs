//! A file that holds a policy and nothing else: classes and `[policy]`.

use plimsoll_policy::Config;
use serde::Deserialize;

use crate::policy::{Known, build, check_names};
use crate::spec::{ClassSpec, PolicySpec};
use crate::{At, Code, Diagnostic, Diagnostics, Items, Layered, decode};

/// A policy file, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFileSpec {
    #[expect(dead_code, reason = "checked when the layers are read")]
    schema_version: u32,
    #[serde(default)]
    #[expect(dead_code, reason = "followed when the layers are read")]
    extends: Option<String>,
    #[serde(default)]
    name: Option<At<String>>,
    #[serde(default)]
    #[expect(dead_code, reason = "for people")]
    description: String,
    #[serde(default)]
    class: Items<ClassSpec>,
    #[serde(default)]
    policy: At<PolicySpec>,
}

/// A policy and the names of its classes.
#[derive(Clone, Debug)]
pub struct NamedPolicy {
    /// The policy.
    pub policy: Config,
    /// Indexed by `ClassId`.
    pub classes: Vec<String>,
}

/// Whether these layers are a scenario rather than a policy alone.
pub fn is_scenario(layered: &Layered) -> bool {
    ["workload", "pool", "run"].iter().any(|key| layered.root.get(key).is_some())
}

/// Reads a policy alone; it may name these tenants and sources.
///
/// # Errors
/// Whatever is wrong with the file.
pub fn named_policy(
    layered: Layered,
    tenants: &[String],
    sources: &[String],
) -> Result<NamedPolicy, Diagnostics> {
    let fail = |sources, list| Err(Diagnostics { sources, list });
    let spec = match decode::<PolicyFileSpec>(&layered.root) {
        Ok(spec) => spec,
        Err(list) => return fail(layered.sources, list),
    };
    let mut found = Vec::new();
    let written: Vec<&At<String>> = spec.class.0.iter().map(|class| &class.name).collect();
    check_names(&written, "class", &mut found);
    if written.is_empty() {
        let place = spec.name.map_or(layered.root.place, |name| name.place);
        found.push(
            Diagnostic::new(Code::Empty, Some(place), "the policy has no class")
                .help("add a table `[[class]]` with name = \"realtime\""),
        );
    }
    let classes: Vec<String> = written.iter().map(|name| name.value.clone()).collect();
    let known = Known { classes: &classes, tenants, sources };
    let (policy, _) = build(&spec.class.0, &spec.policy, known, &mut found);
    if found.is_empty() {
        Ok(NamedPolicy { policy, classes })
    } else {
        fail(layered.sources, found)
    }
}
