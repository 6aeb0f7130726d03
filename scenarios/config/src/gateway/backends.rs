//! From `[[backend]]` to [`Backend`].

use plimsoll_base::{PoolId, SiteId, Span};
use plimsoll_policy::BackendInfo;

use super::backend::{Backend, BackendSpec};
use super::key::variable;
use super::range::{Quantity, count};
use super::url::{Url, is_path_character};
use crate::policy::find;
use crate::{At, Code, Diagnostic, SpanValue};

const SEATS_MAX: u32 = 1_000_000;
const KV_TOKENS_MAX: u64 = 1_000_000_000_000;
/// Metrics are read no more often than this.
pub(super) const SCRAPE_LEAST: Span = Span::from_millis(10);
const SCRAPE: Quantity =
    Quantity { key: "scrape_every", default: "1s", least: "10ms", most: "1min" };

/// What a backend is read against.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    /// Indexed by `PoolId`.
    pub pools: &'a [String],
    /// Indexed by `SiteId`.
    pub sites: &'a [String],
    /// The policy's models, or the one that stands for all.
    pub models: &'a [String],
    /// Whether that one stands for all.
    pub any_model: bool,
    /// Whether there are models that are resources.
    pub has_resources: bool,
}

/// One backend; `None` if a part of it cannot be read at all.
pub(super) fn backend(
    written: &At<BackendSpec>,
    around: Around<'_>,
    found: &mut Vec<Diagnostic>,
) -> Option<Backend> {
    let spec = &written.value;
    let Some(kind) = spec.kind else {
        found.push(
            Diagnostic::new(Code::Missing, Some(written.place), "`kind` is missing")
                .label("this table needs `kind`")
                .help("add `kind = \"vllm\"`, or \"sglang\", \"llama-cpp\" or \"openai\""),
        );
        return None;
    };
    if let Some(name) = &spec.key_env {
        variable(name, found);
    }
    let url = url(&spec.url, found);
    let models = models(spec, around, found);
    let info = info(spec, models, around, found);
    let model_names = model_names(spec, models, around, found);
    let health = path("health", spec.health.as_ref(), found);
    let metrics = match &spec.metrics {
        None => kind.metrics().map(str::to_owned),
        Some(none) if none.value == "none" => None,
        Some(written) => path("metrics", Some(written), found),
    };
    let scrape_every = SCRAPE.span(spec.scrape_every, found);
    Some(Backend {
        name: spec.name.value.clone(),
        url: url?,
        kind,
        info,
        model_names,
        key_env: spec.key_env.as_ref().map(|name| name.value.clone()),
        priority: spec.priority.unwrap_or(kind.priority()),
        health: health.unwrap_or_else(|| kind.health().to_owned()),
        metrics,
        scrape_every,
    })
}

fn url(written: &At<String>, found: &mut Vec<Diagnostic>) -> Option<Url> {
    Url::parse(&written.value)
        .map_err(|why| {
            let message = format!("the URL {why}");
            found.push(
                Diagnostic::new(Code::Address, Some(written.place), message)
                    .help("write for example \"http://10.0.0.1:8000\""),
            );
        })
        .ok()
}

fn path(key: &str, written: Option<&At<String>>, found: &mut Vec<Diagnostic>) -> Option<String> {
    let written = written?;
    if !written.value.starts_with('/') || !written.value.chars().all(is_path_character) {
        let message = format!("`{key}` is not a path");
        found.push(
            Diagnostic::new(Code::Address, Some(written.place), message)
                .help(format!("write for example `{key} = \"/{key}\"`")),
        );
    }
    Some(written.value.clone())
}

fn info(
    spec: &BackendSpec,
    models: u64,
    around: Around<'_>,
    found: &mut Vec<Diagnostic>,
) -> BackendInfo {
    let pool = spec.pool.as_ref().map_or(super::POOL_DEFAULT, |pool| &pool.value);
    let pool = around.pools.iter().position(|known| known == pool).unwrap_or(0);
    let seats = count("seats", Some(spec.seats), (1, 1..=SEATS_MAX), found);
    let kv_tokens = count("kv_tokens", Some(spec.kv_tokens), (100_000, 1..=KV_TOKENS_MAX), found);
    let context_max = match spec.context_max {
        None => u32::try_from(kv_tokens).unwrap_or(u32::MAX),
        Some(written) => {
            if !(1..=kv_tokens).contains(&u64::from(written.value)) {
                let message = format!("contexts of {} tokens do not fit", written.value);
                found.push(
                    Diagnostic::new(Code::Engine, Some(written.place), message)
                        .label(format!("the KV memory holds {kv_tokens} tokens"))
                        .help(format!("write a number from 1 to {kv_tokens}")),
                );
            }
            written.value
        }
    };
    BackendInfo {
        pool: PoolId(u16::try_from(pool).unwrap_or(u16::MAX)),
        seats,
        kv_tokens,
        context_max,
        site: site(spec.site.as_ref(), around.sites, found),
        models,
    }
}

/// Where something stands: the first site if it does not say.
pub(super) fn site(
    written: Option<&At<String>>,
    sites: &[String],
    found: &mut Vec<Diagnostic>,
) -> SiteId {
    let index = written.and_then(|name| find(name, sites, "site", found)).unwrap_or(0);
    SiteId(u16::try_from(index).unwrap_or(u16::MAX))
}

/// What it serves, a bit a model. All bits are set where it serves all and nothing is lent: the
/// allocator then knows that models make no difference.
fn models(spec: &BackendSpec, around: Around<'_>, found: &mut Vec<Diagnostic>) -> u64 {
    let bit = |index: usize| 1u64.checked_shl(index as u32).unwrap_or(0);
    let all = (0..around.models.len()).fold(0, |set, index| set | bit(index));
    let served = match &spec.models {
        None => all,
        Some(written) => {
            if written.value.0.is_empty() {
                found.push(
                    Diagnostic::new(
                        Code::Range,
                        Some(written.place),
                        "a backend without a model serves nothing",
                    )
                    .help("name the models it serves, or leave `models` out to serve all"),
                );
            }
            let known = if around.any_model { &[] } else { around.models };
            let named = written.value.0.iter().filter_map(|name| find(name, known, "model", found));
            named.fold(0, |set, index| set | bit(index))
        }
    };
    if served == all && !around.has_resources { u64::MAX } else { served }
}

fn model_names(
    spec: &BackendSpec,
    served: u64,
    around: Around<'_>,
    found: &mut Vec<Diagnostic>,
) -> Vec<String> {
    let mut names = around.models.to_vec();
    let known = if around.any_model { &[] } else { around.models };
    for (model, name) in &spec.rename {
        let model = At { value: model.clone(), place: name.place };
        let Some(index) = find(&model, known, "model", found) else { continue };
        if served.checked_shr(index as u32).unwrap_or(0) & 1 == 0 {
            let message = format!("`rename` has a name for `{}`, which is not served", model.value);
            found.push(
                Diagnostic::new(Code::Conflict, Some(name.place), message)
                    .help(format!("add \"{}\" to `models`, or remove its name", model.value)),
            );
        }
        if name.value.is_empty() || name.value.chars().any(char::is_control) {
            found.push(
                Diagnostic::new(Code::BadName, Some(name.place), "no model is called so")
                    .help("write what the backend lists at /v1/models"),
            );
        }
        names[index].clone_from(&name.value);
    }
    names
}

/// Keeps a backend's reports as frequent as the rules of the policy need them.
pub(super) fn pace(
    backend: &mut Backend,
    written: Option<At<SpanValue>>,
    needed: Option<Span>,
    found: &mut Vec<Diagnostic>,
) {
    let Some(needed) = needed.filter(|needed| *needed < backend.scrape_every) else { return };
    backend.scrape_every = needed;
    if let Some(written) = written {
        let message = format!("a rule of the policy needs reports every {needed}");
        found.push(
            Diagnostic::new(Code::Conflict, Some(written.place), message)
                .label("less often than that")
                .help("shorten `scrape_every`, or leave it out: it then follows the rules"),
        );
    }
}
