//! What must hold between the parts of a scenario.

use plimsoll_base::{ClassId, ModelId, SourceId, TenantId};
use plimsoll_config::signals::cache_readers;
use plimsoll_config::spec::PolicySpec;
use plimsoll_config::{At, Code, Diagnostic, Place};
use plimsoll_policy::RequestInfo;
use plimsoll_policy::config::ClassifyRule;
use plimsoll_sim::Model;
use plimsoll_sim::model::Pool;

use crate::spec::{Spec, WorkloadSpec};
use crate::trace::{Limit, Trace};

/// The longest request that some of the pools can hold.
pub(crate) fn limit<'a>(pools: impl Iterator<Item = &'a Pool>) -> Limit {
    let of = |pool: &Pool| {
        let engine = &pool.engine;
        let kv_tokens = engine.kv_tokens();
        Limit { context_max: pool.context_max(), kv_tokens }
    };
    pools
        .map(of)
        .max_by_key(|limit| limit.tokens())
        .unwrap_or(Limit { context_max: 0, kv_tokens: 0 })
}

/// All checks over the whole.
pub(crate) fn check(
    spec: &Spec,
    model: &Model,
    traces: &[Option<Trace>],
    found: &mut Vec<Diagnostic>,
) {
    signals(&spec.policy, found);
    let largest = limit(model.pools.iter());
    for (index, written) in spec.workload.0.iter().enumerate() {
        let trace = traces[index].as_ref();
        let asked = model.workloads[index].marks.model;
        let mut serving = model.pools.iter().filter(|pool| serves(pool, asked)).peekable();
        if serving.peek().is_none() {
            unserved(&written.value, asked, model, found);
        } else if trace.is_none() {
            fits(written, model, index, limit(serving), found);
        }
        let source = SourceId(u16::try_from(index).unwrap_or(u16::MAX));
        classified(written, spec, model, (source, trace, largest), found);
    }
}

/// Rules that read where prompts are cached, which the simulated engine does not tell.
fn signals(policy: &At<PolicySpec>, found: &mut Vec<Diagnostic>) {
    for (rule, place) in cache_readers(policy) {
        let message =
            format!("`{rule}` needs to know what is cached, and the engine does not tell");
        found.push(
            Diagnostic::new(Code::NoSignal, Some(place), message)
                .label("the simulated engine has no prefix cache")
                .help("choose a rule that does not look at caches"),
        );
    }
}

fn serves(pool: &Pool, model: ModelId) -> bool {
    pool.models == 0 || pool.models.checked_shr(model.0.into()).unwrap_or(0) & 1 == 1
}

/// Nobody can ever run what the workload asks for.
fn unserved(spec: &WorkloadSpec, asked: ModelId, model: &Model, found: &mut Vec<Diagnostic>) {
    let name = model.policy.models.get(asked.index()).map_or("", String::as_str);
    let place = spec.model.as_ref().map_or(spec.name.place, |written| written.place);
    let message = format!("no pool serves the model `{name}`");
    found.push(
        Diagnostic::new(Code::Conflict, Some(place), message)
            .label(format!("`{}` asks for it", spec.name.value))
            .help(format!("add \"{name}\" to the `models` of a pool")),
    );
}

/// The longest request of a generated workload fits some pool.
fn fits(
    written: &At<WorkloadSpec>,
    model: &Model,
    index: usize,
    limit: Limit,
    found: &mut Vec<Diagnostic>,
) {
    let workload = &model.workloads[index];
    let prompt = workload.prompt.max();
    let output = workload.output.max().max(workload.output_cap);
    let needed = u64::from(prompt) + u64::from(output);
    if needed <= limit.tokens() {
        return;
    }
    let spec = &written.value;
    let place = match (&spec.prompt_tokens, spec.output_cap) {
        (_, Some(cap)) if cap.value >= prompt => cap.place,
        (Some(prompt), _) => prompt.place,
        (None, _) => written.place,
    };
    let name = &spec.name.value;
    let message = format!("a request of `{name}` can take {needed} tokens, {}", limit.describe());
    found.push(
        Diagnostic::new(Code::TooLarge, Some(place), message)
            .label(format!("prompt up to {prompt} and output up to {output} tokens"))
            .help(format!(
                "shorten the lengths to {} tokens together, or give a pool more KV memory and \
                 `context_max`",
                limit.tokens()
            )),
    );
}

/// Every request of a workload gets a class.
fn classified(
    written: &At<WorkloadSpec>,
    spec: &Spec,
    model: &Model,
    (source, trace, limit): (SourceId, Option<&Trace>, Limit),
    found: &mut Vec<Diagnostic>,
) {
    let workload = &model.workloads[source.index()];
    let longest = match trace {
        Some(_) => u32::try_from(limit.tokens()).unwrap_or(u32::MAX),
        None => workload.prompt.max(),
    };
    let policy = &model.policy;
    for Kind { tenant, claims, least, most } in kinds(workload, trace) {
        let unmatched = thresholds(&policy.classify, least.max(1), most.min(longest.max(1)))
            .into_iter()
            .find(|&prompt_tokens| {
                let seen = workload.marks.seen(1);
                let info = RequestInfo { tenant, source, claims, prompt_tokens, ..seen };
                policy.class_of(&info).is_none()
            });
        let Some(prompt) = unmatched else { continue };
        let name = &written.value.name.value;
        let who = model.names.tenant(tenant);
        let claimed = match claims {
            Some(class) => format!("claiming `{}`", model.names.class(class)),
            None => "claiming no class".into(),
        };
        let (place, label, help) = advice(written, spec);
        found.push(
            Diagnostic::new(
                Code::Unclassified,
                Some(place),
                format!(
                    "no classify rule matches a request of `{name}` (tenant `{who}`, {claimed}, \
                     {prompt} prompt tokens)"
                ),
            )
            .label(label)
            .help(help),
        );
        return;
    }
}

fn advice(written: &At<WorkloadSpec>, spec: &Spec) -> (Place, &'static str, &'static str) {
    match &spec.policy.value.classify {
        Some(rules) => (
            rules.place,
            "these rules are tried in order",
            "add a last rule without conditions: { rule = \"match\", class = \"…\" }",
        ),
        None => (
            written.value.name.place,
            "claims no class",
            "add `class = \"…\"` to the workload, or write `classify` rules in [policy]",
        ),
    }
}

/// A combination of tenant and claimed class that a workload offers, and its prompt lengths.
#[derive(Clone, Copy)]
struct Kind {
    tenant: TenantId,
    claims: Option<ClassId>,
    least: u32,
    most: u32,
}

fn kinds(workload: &plimsoll_sim::workload::Workload, trace: Option<&Trace>) -> Vec<Kind> {
    let own = workload.tenants.iter().map(|(tenant, _)| Kind {
        tenant: *tenant,
        claims: workload.claims,
        least: 1,
        most: u32::MAX,
    });
    let mut kinds = Vec::new();
    for rule in trace.iter().flat_map(|trace| &trace.assign) {
        let assigned = own.clone().map(|kind| Kind {
            tenant: rule.tenant.unwrap_or(kind.tenant),
            claims: rule.class.or(kind.claims),
            least: rule.prompt_tokens_min.unwrap_or(1),
            most: rule.prompt_tokens_max.unwrap_or(u32::MAX),
        });
        kinds.extend(assigned);
        if rule.is_catch_all() {
            return kinds;
        }
    }
    kinds.extend(own);
    kinds
}

/// Prompt lengths at which the answer can change, within least..=most.
fn thresholds(rules: &[ClassifyRule], least: u32, most: u32) -> Vec<u32> {
    let mut lengths = vec![least, most];
    for rule in rules {
        let least = rule.prompt_tokens_min.iter().chain(&rule.uncached_tokens_min);
        lengths.extend(least.flat_map(|min| [min.saturating_sub(1), *min]));
        let most = rule.prompt_tokens_max.iter().chain(&rule.uncached_tokens_max);
        lengths.extend(most.flat_map(|max| [*max, max.saturating_add(1)]));
    }
    lengths.retain(|length| (least..=most).contains(length));
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}
