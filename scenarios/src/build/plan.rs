//! `[plan]`: what hardware may be chosen.

use plimsoll_config::{Code, Diagnostic};

use crate::spec::{PlanOptionSpec, PlanSpec, PlanSplitSpec};

/// What hardware may be chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanSection {
    /// The pools whose replicas are sought; empty for all.
    pub pools: Vec<String>,
    /// Replicas of each at least.
    pub replicas_min: Option<u32>,
    /// Replicas of each at most.
    pub replicas_max: Option<u32>,
    /// What replicas can be; empty for what the pools say.
    pub options: Vec<PlanOption>,
}

/// What a replica can be.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanOption {
    /// Its name.
    pub name: String,
    /// The pool that it is for; `None` for every one.
    pub pool: Option<String>,
    /// The device of the price table that it is made of.
    pub device: Option<String>,
    /// So many of them, at least 1.
    pub devices: u32,
    /// What a device costs an hour, where the table is not to be asked.
    pub price: Option<f64>,
    /// What changes in the pool: `engine.seats=64`.
    pub set: Vec<String>,
}

pub(crate) fn section(
    spec: Option<&PlanSpec>,
    (pools, disaggregated): (&[String], &[&str]),
    found: &mut Vec<Diagnostic>,
) -> PlanSection {
    let Some(spec) = spec else { return PlanSection::default() };
    let mut known = |name| plimsoll_config::policy::find(name, pools, "pool", found).is_some();
    let named = spec.pools.0.iter().filter(|name| known(name)).map(|name| name.value.clone());
    let named = named.collect();
    for option in &spec.option.0 {
        option.pool.iter().for_each(|name| {
            known(name);
        });
    }
    let names: Vec<_> = spec.option.0.iter().map(|option| &option.name).collect();
    plimsoll_config::policy::check_names(&names, "plan option", found);
    let (min, max) = (spec.replicas_min, spec.replicas_max);
    for (key, value) in [("replicas_min", min), ("replicas_max", max)] {
        if let Some(value) = value.filter(|at| !(1..=10_000).contains(&at.value)) {
            let message = format!("`{key}` is from 1 to 10,000");
            found.push(Diagnostic::new(Code::Range, Some(value.place), message));
        }
    }
    if let (Some(min), Some(max)) = (min, max)
        && min.value > max.value
    {
        let message = format!("no number is from {} to {}", min.value, max.value);
        found.push(
            Diagnostic::new(Code::Range, Some(max.place), message)
                .help("make `replicas_max` at least `replicas_min`"),
        );
    }
    let mut options: Vec<PlanOption> = spec.option.0.iter().map(|one| option(one, found)).collect();
    if let Some(split) = &spec.split {
        if !options.is_empty() {
            let message = "`[plan]` has options and a split";
            found.push(
                Diagnostic::new(Code::Conflict, Some(split.devices.place), message)
                    .help("leave out one of them: an option may set `disaggregated.prefill` too"),
            );
        }
        options = divisions(split, disaggregated, found);
    }
    PlanSection {
        pools: named,
        replicas_min: min.map(|at| at.value),
        replicas_max: max.map(|at| at.value),
        options,
    }
}

/// Every division of a unit's devices, and a device that does both, for each disaggregated pool.
fn divisions(
    spec: &PlanSplitSpec,
    disaggregated: &[&str],
    found: &mut Vec<Diagnostic>,
) -> Vec<PlanOption> {
    let devices = spec.devices.value;
    if !(2..=16).contains(&devices) {
        let message = "a unit has from 2 to 16 devices";
        found.push(Diagnostic::new(Code::Range, Some(spec.devices.place), message));
        return Vec::new();
    }
    if disaggregated.is_empty() {
        found.push(
            Diagnostic::new(Code::Conflict, Some(spec.devices.place), "no pool is disaggregated")
                .help(
                    "say in a pool what would carry KV: `disaggregated = { prefill = 1, decode = 1, \
                     link = { bandwidth_per_s = \"50GB\" } }`",
                ),
        );
    }
    if let Some(at) = spec.price.filter(|at| !at.value.is_finite() || at.value < 0.0) {
        let message = "`price` is a number of at least 0";
        found.push(Diagnostic::new(Code::Range, Some(at.place), message));
    }
    let of = |pool: &str, (name, devices): (String, u32), set: Vec<String>| PlanOption {
        name,
        pool: Some(pool.to_owned()),
        device: spec.device.clone(),
        devices,
        price: spec.price.map(|at| at.value),
        set,
    };
    let of_pool = |pool: &&str| {
        let whole = ("colocated".to_owned(), 1);
        let mut all = vec![of(pool, whole, vec!["disaggregated.on=false".to_owned()])];
        for prefill in 1..devices {
            let decode = devices - prefill;
            let set = vec![
                "disaggregated.on=true".to_owned(),
                format!("disaggregated.prefill={prefill}"),
                format!("disaggregated.decode={decode}"),
            ];
            all.push(of(pool, (format!("{prefill}P:{decode}D"), devices), set));
        }
        all
    };
    disaggregated.iter().flat_map(of_pool).collect()
}

fn option(spec: &PlanOptionSpec, found: &mut Vec<Diagnostic>) -> PlanOption {
    let devices = spec.devices.map_or(1, |at| at.value);
    if let Some(at) = spec.devices.filter(|at| at.value == 0) {
        let message = "a replica takes at least one device";
        found.push(Diagnostic::new(Code::Range, Some(at.place), message));
    }
    if let Some(at) = spec.price.filter(|at| !at.value.is_finite() || at.value < 0.0) {
        let message = "`price` is a number of at least 0";
        found.push(Diagnostic::new(Code::Range, Some(at.place), message));
    }
    PlanOption {
        name: spec.name.value.clone(),
        pool: spec.pool.as_ref().map(|pool| pool.value.clone()),
        device: spec.device.clone(),
        devices,
        price: spec.price.map(|at| at.value),
        set: spec.set.0.iter().map(|text| text.value.clone()).collect(),
    }
}
