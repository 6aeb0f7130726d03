//! `[[pool]]`.

use plimsoll_base::SiteId;
use plimsoll_config::policy::find;
use plimsoll_config::{At, Code, CoefficientValue, Diagnostic, Items};
use plimsoll_policy::Config;
use plimsoll_sim::model::{Admission, EngineModel, Pool, StepCostSpec};

use crate::spec::{AdmissionSpec, EngineSpec, PoolSpec, StepTimeSpec};

const BLOCK_TOKENS_DEFAULT: u32 = 16;
const BLOCK_TOKENS_MAX: u32 = 256;

/// One pool, of sites and models that the policy names.
pub(crate) fn pool(spec: &PoolSpec, policy: &Config, found: &mut Vec<Diagnostic>) -> Pool {
    at_least_one("replicas", spec.replicas, found);
    if spec.provenance.value.trim().is_empty() {
        found.push(
            Diagnostic::new(Code::Missing, Some(spec.provenance.place), "`provenance` is empty")
                .help("say in one sentence where the step-time numbers come from"),
        );
    }
    Pool {
        replicas: spec.replicas.value,
        engine: engine(&spec.engine, &spec.step_time, found),
        site: site(spec.site.as_ref(), &policy.sites, found),
        models: models(spec.models.as_ref(), &policy.models, found),
        provenance: spec.provenance.value.clone(),
    }
}

fn site(written: Option<&At<String>>, known: &[String], found: &mut Vec<Diagnostic>) -> SiteId {
    let index = written.and_then(|site| find(site, known, "site", found));
    SiteId(u16::try_from(index.unwrap_or(0)).unwrap_or(u16::MAX))
}

/// A bit a model; 0, which is all, where the file says nothing.
fn models(
    written: Option<&At<Items<At<String>>>>,
    known: &[String],
    found: &mut Vec<Diagnostic>,
) -> u64 {
    let Some(written) = written else { return 0 };
    if written.value.0.is_empty() {
        found.push(
            Diagnostic::new(
                Code::Range,
                Some(written.place),
                "a pool with no model serves nothing",
            )
            .help("name the models that it serves, or leave `models` out to serve all"),
        );
    }
    let named = written.value.0.iter().filter_map(|model| find(model, known, "model", found));
    named.fold(0, |bits, index| bits | 1u64.checked_shl(index as u32).unwrap_or(0))
}

fn engine(
    at: &At<EngineSpec>,
    step_time: &StepTimeSpec,
    found: &mut Vec<Diagnostic>,
) -> EngineModel {
    let spec = &at.value;
    at_least_one("seats", spec.seats, found);
    if spec.step_tokens_max.value < spec.seats.value {
        let (tokens, seats) = (spec.step_tokens_max.value, spec.seats.value);
        let message = format!("`step_tokens_max` {tokens} is below `seats` {seats}");
        found.push(
            Diagnostic::new(Code::Engine, Some(spec.step_tokens_max.place), message)
                .label("each decoding sequence computes one token a step")
                .help(format!("write `step_tokens_max = {seats}` or more, or fewer seats")),
        );
    }
    let block_tokens = block_tokens(spec, found);
    let kv_blocks = kv_blocks(at, block_tokens, found);
    let kv_tokens = u64::from(kv_blocks) * u64::from(block_tokens);
    let kv_context = u32::try_from(kv_tokens).unwrap_or(u32::MAX);
    if let Some(context) = spec.context_max
        && u64::from(context.value) > kv_tokens
    {
        let message =
            format!("`context_max` {} exceeds the KV memory of {kv_tokens} tokens", context.value);
        found.push(
            Diagnostic::new(Code::Engine, Some(context.place), message)
                .label("a sequence of this length would never fit")
                .help(format!("write `context_max = {kv_tokens}` or less, or more KV memory")),
        );
    }
    EngineModel {
        seats: spec.seats.value,
        step_tokens_max: spec.step_tokens_max.value,
        kv_blocks,
        block_tokens,
        context_max: spec.context_max.map_or(kv_context, |context| context.value),
        chunked_prefill: spec.chunked_prefill.unwrap_or(true),
        admission: match spec.admission {
            None | Some(AdmissionSpec::Fcfs) => Admission::Fcfs,
            Some(AdmissionSpec::Priority) => Admission::Priority,
        },
        step_cost: step_cost(step_time),
    }
}

fn block_tokens(spec: &EngineSpec, found: &mut Vec<Diagnostic>) -> u32 {
    let Some(block) = spec.block_tokens else { return BLOCK_TOKENS_DEFAULT };
    if !block.value.is_power_of_two() || block.value > BLOCK_TOKENS_MAX {
        let message = format!("{} tokens cannot be a block", block.value);
        found.push(
            Diagnostic::new(Code::Engine, Some(block.place), message)
                .help("write a power of two from 1 to 256, for example `block_tokens = 16`"),
        );
        return BLOCK_TOKENS_DEFAULT;
    }
    block.value
}

/// The KV memory in blocks; as large as can be if it is not known, so that nothing else complains.
fn kv_blocks(at: &At<EngineSpec>, block_tokens: u32, found: &mut Vec<Diagnostic>) -> u32 {
    let spec = &at.value;
    let tokens = match (spec.kv_tokens, spec.kv_blocks, spec.kv_memory, spec.kv_token_memory) {
        (Some(tokens), None, None, None) => Some(tokens.value),
        (None, Some(blocks), None, None) => Some(u64::from(blocks.value) * u64::from(block_tokens)),
        (None, None, Some(memory), Some(token)) if token.value.0 > 0 => {
            Some(memory.value.0 / token.value.0)
        }
        _ => None,
    };
    let Some(tokens) = tokens else {
        found.push(
            Diagnostic::new(Code::Conflict, Some(at.place), "the KV memory is not stated once")
                .label("in tokens, in blocks, or in bytes")
                .help(
                    "write one of `kv_tokens = 400000`, `kv_blocks = 25000`, or `kv_memory = \
                     \"50GiB\"` with `kv_token_memory = \"128KiB\"`",
                ),
        );
        return u32::MAX;
    };
    match u32::try_from(tokens / u64::from(block_tokens)) {
        Ok(blocks) if blocks > 0 => blocks,
        Ok(_) | Err(_) => {
            let message = format!("{tokens} tokens of KV memory cannot be cut into blocks");
            found.push(
                Diagnostic::new(Code::Range, Some(at.place), message)
                    .help(format!("give at least one block of {block_tokens} tokens")),
            );
            u32::MAX
        }
    }
}

fn step_cost(spec: &StepTimeSpec) -> StepCostSpec {
    let nanos = |coefficient: &Option<CoefficientValue>| coefficient.map_or(0.0, |value| value.0);
    match spec {
        StepTimeSpec::Affine { base, prefill_token, sequence, context_token, attention_pair } => {
            StepCostSpec::Affine {
                base: base.0,
                prefill: nanos(prefill_token),
                sequence: nanos(sequence),
                context: nanos(context_token),
                pair: nanos(attention_pair),
            }
        }
        StepTimeSpec::Polynomial { base, prefill, sequence, context } => StepCostSpec::Polynomial {
            base: *base,
            prefill: prefill.unwrap_or_default(),
            sequence: sequence.unwrap_or_default(),
            context: context.unwrap_or_default(),
        },
    }
}

fn at_least_one(key: &str, value: At<u32>, found: &mut Vec<Diagnostic>) {
    if value.value == 0 {
        let message = format!("`{key}` must be at least 1");
        found.push(
            Diagnostic::new(Code::Range, Some(value.place), message)
                .help(format!("write `{key} = 1` or more")),
        );
    }
}
