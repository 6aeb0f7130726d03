//! From a gateway file as written to a [`GatewayFile`].

use plimsoll_base::{ModelId, Names, PoolId};

use super::backends::{Around, backend};
use super::deadlines::deadlines;
use super::listen::{addresses, log, no_loop, tls};
use super::names::{anonymous, names, with_resources};
use super::spec::GatewayFileSpec;
use super::{GatewayFile, check, headers, key, limits, resource};
use crate::classify::Declared;
use crate::policy::{Known, build, find};
use crate::spec::ClassifySpec;
use crate::{At, Code, Diagnostic, Effective, Items, Sources, place};

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
    let Some((listen, admin)) = addresses else { return Err(found) };
    no_loop((listen, admin), &spec.backend, &backends, &mut found);
    let gateway = &spec.gateway;
    let mut file = GatewayFile {
        name: spec.name.value.clone(),
        description: spec.description.clone(),
        stages: Declared::stages(&spec.policy.value).into_names(),
        any_model: own.any_model,
        objectives,
        listen,
        admin,
        tls: gateway.tls.as_ref().map(|written| tls(written, sources)),
        anonymous: anonymous(&spec, &names, &mut found),
        limits: limits::limits(gateway, &mut found),
        headers: headers::headers(&gateway.headers, &mut found),
        log: gateway.log.as_ref().map(|written| log(written, sources, &mut found)),
        deadlines: deadlines(&gateway.deadlines, &spec.deadlines, &names.classes, &mut found),
        keys: key::keys(&spec.key, &names.tenants, sources, &mut found),
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
