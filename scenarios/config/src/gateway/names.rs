//! The names in a gateway file, and what they stand for.

use plimsoll_base::{Names, TenantId};

use super::spec::GatewayFileSpec;
use super::{ANONYMOUS, ANY_MODEL, POOL_DEFAULT, ROUTES};
use crate::policy::{check_names, find, is_name};
use crate::{At, Code, Diagnostic};

/// Models and resources together.
const MODELS_MAX: usize = 64;

/// The names behind the ids.
pub(super) fn names(spec: &GatewayFileSpec, found: &mut Vec<Diagnostic>) -> Names {
    let classes: Vec<_> = spec.class.0.iter().map(|class| &class.name).collect();
    let tenants: Vec<_> = spec.tenant.0.iter().map(|tenant| &tenant.name).collect();
    let backends: Vec<_> = spec.backend.0.iter().map(|backend| &backend.value.name).collect();
    let resources: Vec<_> = spec.resource.0.iter().map(|resource| &resource.value.name).collect();
    for (names, what) in [
        (&classes, "class"),
        (&tenants, "tenant"),
        (&backends, "backend"),
        (&resources, "resource"),
    ] {
        check_names(names, what, found);
    }
    let mut pools: Vec<String> = Vec::new();
    for backend in &spec.backend.0 {
        let named = backend.value.pool.as_ref();
        if let Some(named) = named {
            check_names(&[named], "pool", found);
        }
        let pool = named.map_or(POOL_DEFAULT, |pool| &pool.value);
        if pools.iter().all(|known| known != pool) {
            pools.push(pool.to_owned());
        }
    }
    let backend_pools = pools.len();
    for name in resources {
        if pools[..backend_pools].contains(&name.value) {
            taken(name, "pool", found);
        }
        pools.push(name.value.clone());
    }
    let owned = |names: Vec<&At<String>>| names.iter().map(|name| name.value.clone()).collect();
    let mut tenants: Vec<String> = owned(tenants);
    if belong_to_nobody(spec) && tenants.iter().all(|tenant| tenant != ANONYMOUS) {
        tenants.push(ANONYMOUS.to_owned());
    }
    let sources = ROUTES.map(str::to_owned).into();
    Names { classes: owned(classes), tenants, sources, pools }
}

/// Whether nothing in the file says whose requests are.
fn belong_to_nobody(spec: &GatewayFileSpec) -> bool {
    spec.key.0.is_empty() && spec.gateway.anonymous.is_none()
}

/// The tenant of requests without a key.
pub(super) fn anonymous(
    spec: &GatewayFileSpec,
    names: &Names,
    found: &mut Vec<Diagnostic>,
) -> Option<TenantId> {
    let index = match &spec.gateway.anonymous {
        Some(name) => find(name, &names.tenants, "tenant", found),
        None if belong_to_nobody(spec) => names.tenants.iter().position(|name| name == ANONYMOUS),
        None => None,
    };
    index.map(|index| TenantId(u32::try_from(index).unwrap_or(u32::MAX)))
}

fn taken(name: &At<String>, what: &str, found: &mut Vec<Diagnostic>) {
    let message = format!("the resource `{}` has the name of a {what}", name.value);
    found.push(
        Diagnostic::new(Code::Duplicate, Some(name.place), message)
            .label(format!("a resource is a {what} of its own"))
            .help("give it a name of its own"),
    );
}

/// How many models the file names before its resources, one that stands for all included.
#[derive(Clone, Copy)]
pub(super) struct Own {
    pub count: usize,
    pub any_model: bool,
}

/// Makes the resources models of the policy, behind its own; where it has none, one that stands
/// for all comes first.
pub(super) fn with_resources(spec: &mut GatewayFileSpec, found: &mut Vec<Diagnostic>) -> Own {
    let models = &mut spec.policy.value.models.get_or_insert_default().0;
    let any_model = models.is_empty();
    if any_model {
        models.push(At { value: ANY_MODEL.to_owned(), place: spec.name.place });
    }
    let own = Own { count: models.len(), any_model };
    for resource in &spec.resource.0 {
        let name = &resource.value.name;
        if models[..own.count].iter().any(|model| model.value == name.value) {
            taken(name, "model", found);
        }
        // What is wrong with the name has been said.
        if is_name(&name.value) && models.iter().all(|model| model.value != name.value) {
            models.push(name.clone());
        }
    }
    if let Some(extra) = models.get(MODELS_MAX) {
        let message = format!(
            "there are {} models and resources, at most {MODELS_MAX} are supported",
            models.len()
        );
        found.push(Diagnostic::new(Code::TooMany, Some(extra.place), message));
    }
    own
}
