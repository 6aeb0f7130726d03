//! From a gateway file as written to a [`GatewayFile`].

use plimsoll_base::{ModelId, Names, PoolId, TenantId};

use super::backends::{Around, backend};
use super::listen::{addresses, log, no_loop, tls};
use super::spec::GatewayFileSpec;
use super::{
    ANONYMOUS, ANY_MODEL, GatewayFile, POOL_DEFAULT, ROUTES, check, deadlines, headers, key,
    limits, resource,
};
use crate::classify::Declared;
use crate::policy::{Known, build, check_names, find, is_name};
use crate::spec::ClassifySpec;
use crate::{At, Code, Diagnostic, Effective, Items, Sources, place};

/// Models and resources together.
const MODELS_MAX: usize = 64;
/// Backends and resources together.
const BACKENDS_MAX: usize = 4_096;

/// The gateway, or all that is wrong with it.
pub(super) fn gateway(
    mut spec: GatewayFileSpec,
    sources: &Sources,
    effective: Effective,
) -> Result<GatewayFile, Vec<Diagnostic>> {
    let mut found = Vec::new();
    let names = names(&spec, &mut found);
    enough(&spec, &mut found);
    let own = with_resources(&mut spec, &mut found);
    let addresses = addresses(&spec.gateway, &mut found);
    let known = Known {
        classes: &names.classes,
        tenants: &names.tenants,
        sources: &names.sources,
        pools: &names.pools,
    };
    let (config, objectives) = build(&spec.class.0, &spec.policy, known, &mut found);
    known_keys(&spec, &mut found);
    let around = Around {
        pools: &names.pools,
        sites: &place::site_names(&spec.policy.value),
        models: &config.models[..own.count],
        any_model: own.any_model,
        has_resources: !spec.resource.0.is_empty(),
    };
    let written = spec.backend.0.iter();
    let backends: Vec<_> =
        written.filter_map(|written| backend(written, around, &mut found)).collect();
    let resources = resources(&spec, (own.count, &names), around.sites, &mut found);
    let keys = key::keys(&spec.key, &names.tenants, sources, &mut found);
    let gateway = &spec.gateway;
    let class_deadlines =
        deadlines::deadlines(&gateway.deadlines, &spec.deadlines, &names.classes, &mut found);
    let anonymous = anonymous(&spec, &names, &mut found);
    let limits = limits::limits(gateway, &mut found);
    let headers = headers::headers(&gateway.headers, &mut found);
    let log = gateway.log.as_ref().map(|written| log(written, sources, &mut found));
    let Some((listen, admin)) = addresses else { return Err(found) };
    no_loop((listen, admin), &spec.backend, &backends, &mut found);
    let mut file = GatewayFile {
        name: spec.name.value.clone(),
        description: spec.description.clone(),
        stages: Declared::stages(&spec.policy.value).into_names(),
        any_model: own.any_model,
        objectives,
        listen,
        admin,
        tls: gateway.tls.as_ref().map(|written| tls(written, sources)),
        anonymous,
        limits,
        headers,
        log,
        deadlines: class_deadlines,
        keys,
        backends,
        resources,
        assumptions: Vec::new(),
        names,
        config,
        effective,
    };
    if found.is_empty() {
        check::check(&spec, &mut file, &mut found);
    }
    file.assumptions = assumptions(&file);
    if found.is_empty() { Ok(file) } else { Err(found) }
}

/// The names behind the ids.
fn names(spec: &GatewayFileSpec, found: &mut Vec<Diagnostic>) -> Names {
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
fn anonymous(
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

/// There is something to serve, and not too much.
fn enough(spec: &GatewayFileSpec, found: &mut Vec<Diagnostic>) {
    let lists = [
        ("class", spec.class.0.is_empty(), "name = \"chat\""),
        ("backend", spec.backend.0.is_empty(), "name, url, kind, seats and kv_tokens"),
    ];
    for (what, empty, write) in lists {
        if empty {
            let message = format!("the gateway has no {what}");
            found.push(
                Diagnostic::new(Code::Empty, Some(spec.name.place), message)
                    .label(format!("this gateway needs a {what}"))
                    .help(format!("add a table `[[{what}]]` with {write}")),
            );
        }
    }
    let backends = spec.backend.0.iter().map(|backend| &backend.value.name);
    let resources = spec.resource.0.iter().map(|resource| &resource.value.name);
    let count = spec.backend.0.len() + spec.resource.0.len();
    if let Some(extra) = backends.chain(resources).nth(BACKENDS_MAX) {
        let message = format!(
            "there are {count} backends and resources, at most {BACKENDS_MAX} are supported"
        );
        found.push(Diagnostic::new(Code::TooMany, Some(extra.place), message));
    }
}

/// How many models the file names before its resources, one that stands for all included.
#[derive(Clone, Copy)]
struct Own {
    count: usize,
    any_model: bool,
}

/// Makes the resources models of the policy, behind its own; where it has none, one that stands
/// for all comes first.
fn with_resources(spec: &mut GatewayFileSpec, found: &mut Vec<Diagnostic>) -> Own {
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

/// Rules name only keys that there are.
fn known_keys(spec: &GatewayFileSpec, found: &mut Vec<Diagnostic>) {
    let keys: Vec<String> = spec.key.0.iter().map(|key| key.value.name.value.clone()).collect();
    let rules = spec.policy.value.classify.iter().flat_map(|rules| &rules.value.0);
    for rule in rules {
        if let ClassifySpec::Match { key: Some(name), .. } = &rule.value {
            find(name, &keys, "key", found);
        }
    }
}

fn resources(
    spec: &GatewayFileSpec,
    (first, names): (usize, &Names),
    sites: &[String],
    found: &mut Vec<Diagnostic>,
) -> Vec<resource::Resource> {
    let Items(written) = &spec.resource;
    let id = |index: usize| u16::try_from(index).unwrap_or(u16::MAX);
    let pools = names.pools.len() - written.len();
    let one = |(index, written): (usize, &At<resource::ResourceSpec>)| {
        let ids = (ModelId(id(first + index)), PoolId(id(pools + index)));
        resource::resource(&written.value, ids, sites, found)
    };
    written.iter().enumerate().map(one).collect()
}

fn assumptions(file: &GatewayFile) -> Vec<String> {
    let mut assumptions = Vec::new();
    let GatewayFile { listen, keys, tls, .. } = file;
    let public = !listen.ip().is_loopback();
    if public && file.anonymous.is_some() {
        assumptions.push(format!("Whoever reaches {listen} may use the models without a key."));
    }
    if public && !keys.is_empty() && tls.is_none() {
        assumptions.push(format!(
            "Keys and prompts cross the network to {listen} in the clear: there is no `tls`."
        ));
    }
    if file.config.looks_at_caches() {
        assumptions.push(
            "Nobody says what is cached: rules that count tokens that are cached nowhere see \
             whole prompts."
                .to_owned(),
        );
    }
    assumptions
}
