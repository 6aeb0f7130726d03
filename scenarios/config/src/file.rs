//! Policy files: classes and rules alone, without workloads and hardware.

use plimsoll_base::Names;
use plimsoll_policy::Config;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::{Known, build, check_names};
use crate::spec::{ClassSpec, PolicySpec};
use crate::{
    At, ClassObjectives, Code, Diagnostic, Diagnostics, Effective, Items, Layered, decode,
};

/// A policy file, as written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyFileSpec {
    /// The version of this format: 1.
    pub schema_version: u32,
    /// A path, or `shipped:NAME`: this file is laid over that one.
    #[serde(default)]
    pub extends: Option<String>,
    /// A short name for reports.
    pub name: At<String>,
    /// What the policy is about.
    #[serde(default)]
    pub description: String,
    /// What latency is owed to whom.
    #[serde(default)]
    pub class: Items<ClassSpec>,
    /// Who pays: the tenants that rules name.
    #[serde(default)]
    pub tenant: Items<TenantSpec>,
    /// Who goes first.
    #[serde(default)]
    pub policy: At<PolicySpec>,
}

/// `[[tenant]]`: who pays.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantSpec {
    /// Letters, digits, `-`, `_`.
    pub name: At<String>,
}

/// A policy, valid by construction.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    /// A short name for reports.
    pub name: String,
    /// The names behind the ids: classes and tenants.
    pub names: Names,
    /// The policy.
    pub config: Config,
    /// What each class is promised, indexed by `ClassId`.
    pub objectives: Vec<ClassObjectives>,
    /// Every value, and where it came from.
    pub effective: Effective,
}

impl Layered {
    /// Whether it states a policy and nothing that a run would need.
    pub fn is_policy_file(&self) -> bool {
        let has = |key: &str| self.root.get(key).is_some();
        !has("workload") && !has("pool")
    }

    /// The policy of a policy file.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn policy_file(self) -> Result<PolicyFile, Diagnostics> {
        let effective = Effective::of(&self);
        match decode(&self.root).and_then(|spec| policy(spec, effective)) {
            Ok(policy) => Ok(policy),
            Err(list) => Err(Diagnostics { sources: self.sources, list }),
        }
    }
}

fn policy(spec: PolicyFileSpec, effective: Effective) -> Result<PolicyFile, Vec<Diagnostic>> {
    let mut found = Vec::new();
    if spec.class.0.is_empty() {
        found.push(
            Diagnostic::new(Code::Empty, Some(spec.name.place), "the policy has no class")
                .label("this policy needs a class")
                .help("add a table `[[class]]` with name = \"realtime\""),
        );
    }
    let classes: Vec<_> = spec.class.0.iter().map(|class| &class.name).collect();
    let tenants: Vec<_> = spec.tenant.0.iter().map(|tenant| &tenant.name).collect();
    for (names, what) in [(&classes, "class"), (&tenants, "tenant")] {
        check_names(names, what, &mut found);
    }
    let owned = |names: &[&At<String>]| names.iter().map(|name| name.value.clone()).collect();
    let names = Names { classes: owned(&classes), tenants: owned(&tenants), ..Names::default() };
    let Names { classes, tenants, sources, pools, .. } = &names;
    let known = Known { classes, tenants, sources, pools };
    let (config, objectives) = build(&spec.class.0, &spec.policy, known, &mut found);
    if !found.is_empty() {
        return Err(found);
    }
    Ok(PolicyFile { name: spec.name.value, names, config, objectives, effective })
}
