//! `plimsoll check`.

use std::process::ExitCode;

use plimsoll_base::{ClassId, Names, Span};
use plimsoll_config::gateway::GatewayFile;
use plimsoll_policy::{Because, Config, Machine, WaitBound, WhyNot, wait_bounds};
use plimsoll_scenario::{ClassObjectives, Effective, Loaded, PolicyFile, Scenario};

use crate::Failure;
use crate::arguments::CheckOptions;
use crate::run::open_either;
use crate::sweep;

/// Reads a scenario, a policy or a gateway file and says what it is and what follows from it; with
/// `--explain`, each value and its origin.
pub fn check(options: &CheckOptions) -> Result<ExitCode, Failure> {
    match open_either(&options.file, &options.overrides)? {
        Loaded::Scenario(scenario) if options.explain => explain(&scenario.effective),
        Loaded::Scenario(scenario) => {
            let sweep = sweep::of(options)?;
            outline(&scenario);
            sweep.iter().try_for_each(sweep::outline)?;
        }
        Loaded::Policy(policy) if options.explain => explain(&policy.effective),
        Loaded::Policy(policy) => outline_policy(&policy),
        Loaded::Gateway(gateway) if options.explain => explain(&gateway.effective),
        Loaded::Gateway(gateway) => outline_gateway(&gateway),
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(effective: &Effective) {
    let rows = &effective.rows;
    let width = rows.iter().map(|row| row.path.len() + row.value.len() + 3).max().unwrap_or(0);
    for row in rows {
        let setting = format!("{} = {}", row.path, row.value);
        println!("{setting:width$}  # {}", row.origin);
    }
}

fn outline(scenario: &Scenario) {
    let model = &scenario.model;
    println!("{} is a valid scenario (hash {}).", scenario.name, scenario.hash);
    println!("policy: {}", model.policy);
    for (pool, name) in model.pools.iter().zip(&model.names.pools) {
        let (tokens, contexts) = (pool.kv_tokens(), pool.context_max());
        println!(
            "pool {name}: replicas {}, each {} seats, {tokens} KV tokens, contexts up to {}",
            pool.replicas,
            pool.seats(),
            contexts
        );
        if let Some(split) = &pool.split {
            println!(
                "  each of {} that compute prompts and {} that decode, as one backend",
                engines(split.prefills),
                engines(split.decodes)
            );
        }
    }
    promises(&scenario.objectives, &model.names);
    let machine = scenario.machine();
    println!(
        "longest waits, at worst: {} of {} seats hold the largest requests at once, a step takes at \
         most {}",
        machine.parallel, machine.seats, machine.step
    );
    bounds(&wait_bounds(&model.policy, &machine), &model.names, |most, because| {
        if most < YEAR {
            return format!("at most {most}: {because}");
        }
        format!(
            "bounded, but by more than a year: {because} (a `queue_max` and a `time_to_live` make \
             bounds of use)"
        )
    });
    for assumption in &scenario.assumptions {
        println!("assumed: {assumption}");
    }
}

fn engines(count: u32) -> String {
    format!("{count} engine{}", if count == 1 { "" } else { "s" })
}

fn outline_policy(policy: &PolicyFile) {
    println!("{} is a valid policy.", policy.name);
    println!("policy: {}", policy.config);
    promises(&policy.objectives, &policy.names);
    timeless(&policy.config, &policy.names);
}

fn outline_gateway(file: &GatewayFile) {
    let scheme = if file.tls.is_some() { "https" } else { "http" };
    println!("{} is a valid gateway (hash {}).", file.name, file.effective.hash());
    println!("policy: {}", file.config);
    println!("listens at {scheme}://{}, for administration at http://{}", file.listen, file.admin);
    for backend in &file.backends {
        let info = &backend.info;
        println!(
            "backend {}: {} at {}, pool {}, {} seats, {} KV tokens, contexts up to {}",
            backend.name,
            backend.kind.name(),
            backend.url,
            file.names.pool(info.pool),
            info.seats,
            info.kv_tokens,
            info.context_max
        );
    }
    for resource in &file.resources {
        let (seats, most) = (resource.info.seats, resource.lease_max);
        println!("resource {}: {seats} leases at once, each up to {most}", resource.name);
    }
    promises(&file.objectives, &file.names);
    timeless(&file.config, &file.names);
    for assumption in &file.assumptions {
        println!("assumed: {assumption}");
    }
}

/// How long classes wait as far as the policy alone can say.
fn timeless(policy: &Config, names: &Names) {
    println!("longest waits (in time only within a scenario, which says what serves):");
    bounds(&wait_bounds(policy, &Machine::UNKNOWN), names, |most, because| match because {
        Because::TimeToLive => format!("at most {most}: {because}"),
        Because::Guard | Because::Share => format!("bounded: {because}"),
    });
}

fn promises(objectives: &[ClassObjectives], names: &Names) {
    for owed in objectives {
        let promised: Vec<&str> =
            owed.objectives.iter().map(|objective| objective.text.as_str()).collect();
        let promised = if promised.is_empty() { "nothing" } else { &promised.join(", ") };
        println!("class {}: promised {promised}", names.class(owed.class));
    }
}

/// Beyond this a bound says only that there is one.
const YEAR: Span = Span::from_secs(365 * 86_400);

/// A line a class; `within` puts a bound into words.
fn bounds(bounds: &[WaitBound], names: &Names, within: fn(Span, Because) -> String) {
    for (index, bound) in (0..).zip(bounds) {
        let waits = match *bound {
            WaitBound::Within(most, because) => within(most, because),
            WaitBound::Unbounded(why) => unbounded(why, names),
        };
        println!("  {}: {waits}", names.class(ClassId(index)));
    }
}

fn unbounded(why: WhyNot, names: &Names) -> String {
    let why = match why {
        WhyNot::Higher(class) => {
            format!("`{}`, of a higher priority, may always have work", names.class(class))
        }
        other => other.to_string(),
    };
    format!("unbounded, because {why}")
}
