//! What a scenario's hardware does at its worst: what bounds on waiting are stated for.

use plimsoll_base::Span;
use plimsoll_policy::Machine;
use plimsoll_policy::config::Predict;
use plimsoll_sim::Model;
use plimsoll_sim::model::{EngineModel, Pool, Split};

/// The longest requests of a model, in tokens: prompt, and output that is allowed.
#[derive(Clone, Copy, Debug)]
struct Longest {
    prompt: u32,
    output: u32,
}

/// The worst that the model's pools do with its longest requests; `longest` stands for those of a
/// replayed trace, in tokens.
pub(crate) fn machine(model: &Model, longest: Option<u32>) -> Machine {
    let workloads = || model.workloads.iter();
    let longest = Longest {
        prompt: workloads().map(|w| w.prompt.max()).chain(longest).max().unwrap_or(1),
        output: workloads()
            .map(|w| w.output.max().max(w.output_cap))
            .chain(longest)
            .max()
            .unwrap_or(1),
    };
    let mut machine = Machine {
        parallel: 0,
        seats: 0,
        residence: Span::ZERO,
        step: Span::ZERO,
        prompt_tokens_max: longest.prompt,
        output_tokens_max: longest.output,
        models_differ: model.pools.iter().any(|pool| pool.models != 0),
    };
    let declared = model.policy.predict == Predict::DeclaredCap;
    for pool in &model.pools {
        let engine = &pool.engine;
        let replicas = u64::from(pool.replicas);
        let decodes = pool.split.as_ref().map_or(1, |split| u64::from(split.decodes));
        machine.parallel += replicas * decodes * together(engine, longest);
        machine.seats += replicas * u64::from(pool.seats());
        machine.step = machine.step.max(engine.step_max());
        let stays = residence(engine, longest, declared);
        let stays = pool.split.as_ref().map_or(stays, |split| {
            machine.step = machine.step.max(split.engine.step_max());
            apart(pool, split, longest, stays)
        });
        machine.residence = machine.residence.max(stays);
    }
    machine.parallel = machine.parallel.max(1);
    machine
}

/// The longest that a request stays in a disaggregated unit whose decoding engines keep one for
/// `decodes`: where everything waits for everything, all whom the unit holds go one by one.
fn apart(pool: &Pool, split: &Split, longest: Longest, decodes: Span) -> Span {
    let computes = residence(&split.engine, longest, false);
    let moves = split.link.taken(longest.prompt).saturating_add(split.link.latency);
    let one = computes.saturating_add(moves).saturating_add(decodes);
    one.saturating_mul(pool.seats().into())
}

/// The longest requests that fit a replica together; 0 if none does.
fn together(engine: &EngineModel, longest: Longest) -> u64 {
    let tokens = u64::from(longest.prompt) + u64::from(longest.output);
    (engine.kv_tokens() / tokens.max(1)).min(engine.seats.into())
}

/// The longest that a request stays in a replica.
///
/// The prompts of all seats share what the decoding sequences leave of a step's budget; then each
/// output token takes a step. Where KV memory can run out the latest to enter is thrown out and
/// computed again, but never the earliest: at worst they run one after the other.
fn residence(engine: &EngineModel, longest: Longest, declared: bool) -> Span {
    let seats = u64::from(engine.seats);
    let budget = u64::from(engine.step_tokens_max) - seats + 1;
    let prompts = match engine.chunked_prefill {
        true => (seats * u64::from(longest.prompt)).div_ceil(budget) + 1,
        false => seats,
    };
    let steps = prompts + u64::from(longest.output);
    let blocks = (u64::from(longest.prompt) + u64::from(longest.output))
        .div_ceil(u64::from(engine.block_tokens));
    let always_fits = declared && seats * blocks <= u64::from(engine.kv_blocks);
    let one_by_one = if always_fits { 1 } else { seats };
    engine.step_max().saturating_mul(steps).saturating_mul(one_by_one)
}
