//! `[[pool]]`.

use plimsoll_base::{SiteId, Span};
use plimsoll_config::policy::find;
use plimsoll_config::{At, Code, CoefficientValue, Diagnostic, Items};
use plimsoll_policy::Config;
use plimsoll_sim::model::{
    Admission, Affine, Curve, EngineModel, LinkModel, Pool, Split, StepCostSpec, StepNoise,
};

use crate::spec::{
    AdmissionSpec, DisaggregatedSpec, EngineSpec, LinkSpec, PoolSpec, StepNoiseSpec, StepTimeSpec,
};

const BLOCK_TOKENS_DEFAULT: u32 = 16;
const BLOCK_TOKENS_MAX: u32 = 256;
/// The most that a step may be longer or shorter than the model.
const RATIO_MAX: f64 = 100.0;
/// For how many steps a deviation may last.
const STEPS_LEAST: f64 = 0.1;
const STEPS_MOST: f64 = 1e6;

/// One pool, of sites and models that the policy names.
pub(crate) fn pool(spec: &PoolSpec, policy: &Config, found: &mut Vec<Diagnostic>) -> Pool {
    at_least_one("replicas", spec.replicas, found);
    if spec.provenance.value.trim().is_empty() {
        found.push(
            Diagnostic::new(Code::Missing, Some(spec.provenance.place), "`provenance` is empty")
                .help("say in one sentence where the step-time numbers come from"),
        );
    }
    let step_noise = spec.step_noise.as_ref().and_then(|noise| step_noise(noise, found));
    let own = engine(&spec.engine, &spec.step_time, found);
    let split = spec.disaggregated.as_ref().and_then(|split| disaggregated(spec, split, found));
    let split = split.map(|split| Split {
        engine: EngineModel { step_noise: step_noise.clone(), ..split.engine },
        ..split
    });
    Pool {
        replicas: spec.replicas.value,
        engine: EngineModel { step_noise, ..own },
        split,
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

/// The engines that compute prompts, and the link; `None` where the file says that it is not so.
fn disaggregated(
    pool: &PoolSpec,
    at: &At<DisaggregatedSpec>,
    found: &mut Vec<Diagnostic>,
) -> Option<Split> {
    let spec = &at.value;
    at_least_one("prefill", spec.prefill, found);
    at_least_one("decode", spec.decode, found);
    let written = spec.engine.as_ref().unwrap_or(&pool.engine);
    let step_time = spec.step_time.as_ref().unwrap_or(&pool.step_time);
    // What is wrong with the pool's own engine is said once.
    let mut said = Vec::new();
    let wrong = if spec.engine.is_some() { &mut *found } else { &mut said };
    let engine = engine(written, step_time, wrong);
    exchange(&pool.engine, written, found);
    let split = Split {
        prefills: spec.prefill.value,
        decodes: spec.decode.value,
        engine,
        link: link(&spec.link, &pool.engine.value, found),
    };
    spec.on.unwrap_or(true).then_some(split)
}

/// Both sides must keep KV in the same form.
fn exchange(decode: &At<EngineSpec>, prefill: &At<EngineSpec>, found: &mut Vec<Diagnostic>) {
    let block = |spec: &EngineSpec| spec.block_tokens.map_or(BLOCK_TOKENS_DEFAULT, |at| at.value);
    let (own, others) = (block(&prefill.value), block(&decode.value));
    if own != others {
        let place = prefill.value.block_tokens.map_or(prefill.place, |at| at.place);
        let message = format!("blocks of {own} tokens cannot be moved into blocks of {others}");
        found.push(
            Diagnostic::new(Code::Conflict, Some(place), message)
                .label("of the engines that compute prompts")
                .help(format!("write `block_tokens = {others}` on both sides")),
        );
    }
    if let (Some(own), Some(others)) = (prefill.value.kv_token_memory, decode.value.kv_token_memory)
        && own.value.0 != others.value.0
    {
        let (own_bytes, bytes) = (own.value.0, others.value.0);
        let message = format!(
            "a token's KV takes {own_bytes} bytes where prompts are computed and {bytes} where it is \
             decoded: one cannot read the other's"
        );
        found.push(
            Diagnostic::new(Code::Conflict, Some(own.place), message)
                .help("both sides run the same model with the same type of KV cache"),
        );
    }
}

fn link(at: &At<LinkSpec>, engine: &EngineSpec, found: &mut Vec<Diagnostic>) -> LinkModel {
    let spec = &at.value;
    if spec.bandwidth_per_s.value.0 == 0 {
        found.push(
            Diagnostic::new(
                Code::Range,
                Some(spec.bandwidth_per_s.place),
                "a link without bandwidth carries nothing",
            )
            .help("write what it carries in a second, for example `bandwidth_per_s = \"50GB\"`"),
        );
    }
    let token = spec.kv_token_memory.or(engine.kv_token_memory);
    if token.is_none_or(|token| token.value.0 == 0) {
        found.push(
            Diagnostic::new(
                Code::Missing,
                Some(at.place),
                "how much KV a token has to be moved is not stated",
            )
            .help("write `kv_token_memory = \"128KiB\"` in the link or in the engine"),
        );
    }
    LinkModel {
        latency: spec.latency.map_or(Span::ZERO, |latency| latency.0),
        bandwidth: spec.bandwidth_per_s.value.0,
        token_bytes: token.map_or(1, |token| token.value.0),
    }
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
        step_cost: step_cost(step_time, found),
        step_noise: None,
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

fn step_cost(spec: &StepTimeSpec, found: &mut Vec<Diagnostic>) -> StepCostSpec {
    let nanos = |coefficient: &Option<CoefficientValue>| coefficient.map_or(0.0, |value| value.0);
    match spec {
        StepTimeSpec::Affine {
            base,
            prefill_step,
            mixed_step,
            prefill_token,
            sequence,
            context_token,
            attention_pair,
            after_prefill,
            after_long_prefill,
            after_idle,
            after_long_idle,
            prefill_curve,
            sequence_curve,
        } => StepCostSpec::Affine {
            terms: Affine {
                base: base.0,
                prefill_step: nanos(prefill_step),
                mixed_step: nanos(mixed_step),
                prefill: nanos(prefill_token),
                sequence: nanos(sequence),
                context: nanos(context_token),
                pair: nanos(attention_pair),
                after_prefill: nanos(after_prefill),
                after_long_prefill: nanos(after_long_prefill),
                after_idle: nanos(after_idle),
                after_long_idle: nanos(after_long_idle),
            },
            prefill_curve: curve("prefill_curve", prefill_curve.as_ref(), found),
            sequence_curve: curve("sequence_curve", sequence_curve.as_ref(), found),
        },
        StepTimeSpec::Polynomial { base, prefill, sequence, context } => StepCostSpec::Polynomial {
            base: *base,
            prefill: prefill.unwrap_or_default(),
            sequence: sequence.unwrap_or_default(),
            context: context.unwrap_or_default(),
        },
    }
}

fn curve(
    name: &str,
    spec: Option<&At<Items<(u32, CoefficientValue)>>>,
    found: &mut Vec<Diagnostic>,
) -> Curve {
    let Some(spec) = spec else { return Curve::NONE };
    let points: Vec<(u32, f64)> =
        spec.value.0.iter().map(|(tokens, time)| (*tokens, time.0)).collect();
    Curve::through(&points).unwrap_or_else(|| {
        let most = Curve::POINTS_MAX;
        let message =
            format!("the first numbers rise, from 1, and there are at most {most} points");
        found.push(Diagnostic::new(Code::Range, Some(spec.place), message).help(format!(
            "write numbers and times, such as `{name} = [[16, \"3ms\"], [64, \"9ms\"]]`"
        )));
        Curve::NONE
    })
}

fn step_noise(spec: &StepNoiseSpec, found: &mut Vec<Diagnostic>) -> Option<StepNoise> {
    let before = found.len();
    let within = |ratio: &f64| (1.0 / RATIO_MAX..=RATIO_MAX).contains(ratio);
    let named = [("ratios", Some(&spec.ratios)), ("prefill_ratios", spec.prefill_ratios.as_ref())];
    for (name, stated) in named {
        let Some(At { value: Items(ratios), place }) = stated else { continue };
        if ratios.is_empty() || !ratios.iter().all(within) || !ratios.is_sorted() {
            let message =
                format!("quantiles rise, from 0.01 to {RATIO_MAX}, and there is at least one");
            let help =
                format!("write multiples of the step time, such as `{name} = [0.9, 1.0, 1.2]`");
            found.push(Diagnostic::new(Code::Range, Some(*place), message).help(help));
        }
    }
    if let Some(part) = spec.lasting.filter(|part| !(0.0..1.0).contains(&part.value)) {
        let message = format!("{} is not a part that may last", part.value);
        found.push(
            Diagnostic::new(Code::Range, Some(part.place), message)
                .help("write a number from 0 to below 1, such as `lasting = 0.5`"),
        );
    }
    let steps = spec.lasting_steps.filter(|at| !(STEPS_LEAST..=STEPS_MOST).contains(&at.value));
    if let Some(steps) = steps {
        let message = format!("a deviation cannot last {} steps", steps.value);
        found.push(
            Diagnostic::new(Code::Range, Some(steps.place), message)
                .help("write a number from 0.1 to 1e6, such as `lasting_steps = 20`"),
        );
    }
    (found.len() == before).then(|| StepNoise {
        ratios: spec.ratios.value.0.clone(),
        prefill_ratios: spec.prefill_ratios.as_ref().map(|stated| stated.value.0.clone()),
        lasting: spec.lasting.map_or(0.0, |part| part.value),
        lasting_steps: spec.lasting_steps.map_or(1.0, |steps| steps.value),
    })
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
