//! What reports must know of a scenario.

use plimsoll_base::{ClassObjectives, PoolId};
use plimsoll_policy::config::{Class, Share, TokenCost};
use plimsoll_policy::{Charge, Config, gap_bound, gap_bound_void};
use plimsoll_report::{ClassPlan, Errors, Plan, PoolPlan, Price, Promise};
use plimsoll_scenario::Scenario;

/// The report's view of a scenario that runs with `seed`.
pub fn plan(scenario: &Scenario, seed: u64) -> Plan {
    let model = &scenario.model;
    let pools = model.pools.iter();
    let backends = pools
        .clone()
        .enumerate()
        .flat_map(|(pool, spec)| std::iter::repeat_n(PoolId(pool as u16), spec.replicas as usize));
    Plan {
        scenario: scenario.name.clone(),
        description: scenario.description.clone(),
        scenario_hash: scenario.hash.clone(),
        policy: model.policy.to_string(),
        one_queue: model.policy.share == Share::Fcfs,
        owes_others: !model.policy.share.owes_classes(),
        promise: promise(&model.policy),
        seed,
        warm_up: model.plan.warm_up,
        duration: model.plan.duration,
        attribution: model.plan.attribution,
        names: model.names.clone(),
        classes: classes(&model.policy, &scenario.objectives),
        pools: pools
            .map(|pool| PoolPlan {
                replicas: pool.replicas,
                seats: pool.seats(),
                kv_tokens: pool.kv_tokens(),
                provenance: pool.provenance.clone(),
            })
            .collect(),
        backends: backends.collect(),
        assumptions: scenario.assumptions.clone(),
        has_trace: scenario.traces.iter().any(Option::is_some),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        recorded: None,
    }
}

/// What the share rule promises about the service of two classes.
pub(crate) fn promise(policy: &Config) -> Option<Promise> {
    let bound = gap_bound(policy)?;
    Some(Promise {
        rule: rule(&policy.share).to_owned(),
        formula: bound.formula.to_owned(),
        price: match bound.charge {
            Charge::Tokens(TokenCost { prompt, output }) => Price::Tokens { prompt, output },
            Charge::Request => Price::Request,
            Charge::Dominant { prompt_token, output_token, held_token } => {
                Price::Dominant { prompt_token, output_token, held_token }
            }
        },
        quantum: bound.quantum,
        errors: if bound.counts_all { Errors::OfAll } else { Errors::OfBoth },
        void: gap_bound_void(policy).map(str::to_owned),
    })
}

fn rule(share: &Share) -> &'static str {
    match share {
        Share::Fcfs => "first come, first served",
        Share::Priority => "strict priority",
        Share::DeficitRoundRobin { .. } => "deficit round robin",
        Share::VirtualTokenCounter { .. } => "the virtual token counter",
        Share::StartTimeFair { .. } => "start-time fair queueing",
        Share::Stride { .. } => "stride scheduling",
        Share::DominantResource { .. } => "dominant resource fairness",
        Share::DeficitLongestPrefix { .. } => "deficit longest prefix",
    }
}

/// What each class was promised, and what the policy says of it.
pub(crate) fn classes(policy: &Config, objectives: &[ClassObjectives]) -> Vec<ClassPlan> {
    let plan = |(index, class): (usize, &Class)| {
        let own = objectives.iter().filter(|promised| promised.class.index() == index);
        ClassPlan {
            priority: class.priority,
            weight: class.weight,
            wait_max: class.wait_max,
            guarded: policy.guard.is_some() && class.wait_max.is_some(),
            objectives: own.flat_map(|promised| promised.objectives.clone()).collect(),
        }
    };
    policy.classes.iter().enumerate().map(plan).collect()
}
