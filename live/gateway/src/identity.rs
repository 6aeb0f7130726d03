//! Who asks, and for what: what a policy may look at, from the key, the headers and the body.
//!
//! A client could write any header. Those that say who pays, what class the request claims and how
//! often it was tried before are believed of holders of a trusted key only. Sessions, workflows and
//! stages only group a client's own requests, and are believed of everyone.

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use plimsoll_base::{ClassId, ModelId, SessionId, SourceId, StageId, TenantId, WorkflowId};
use plimsoll_config::Metric;
use plimsoll_config::gateway::GatewayFile;
use plimsoll_policy::config::Label;
use plimsoll_policy::{Labels, RequestInfo};
use twox_hash::XxHash3_128;

use crate::answer::Problem;
use crate::body::{Asked, Route};
use crate::keys::Holder;
use crate::state::{Current, Shared};

/// Who comes in.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub tenant: TenantId,
    /// What rules call the key.
    pub key: Option<String>,
    pub is_trusted: bool,
}

impl Caller {
    /// Who comes in with these headers.
    ///
    /// # Errors
    /// If a key is needed and there is none, or nobody holds it.
    pub fn of(headers: &HeaderMap, shared: &Shared, current: &Current) -> Result<Caller, Problem> {
        let unknown = |message: &str| {
            Problem::new(hyper::StatusCode::UNAUTHORIZED, "invalid_api_key", message)
        };
        let file = &current.file;
        let holder = match bearer(headers) {
            // Where nobody needs a key, what clients send as one means nothing.
            Some(key) if !current.keys.is_empty() => {
                Some(current.keys.holder(key).ok_or_else(|| unknown("nobody holds this key"))?)
            }
            Some(_) | None => None,
        };
        let (tenant, key, is_trusted) = match (holder, file.anonymous) {
            (Some(Holder { name, tenant, trusted }), _) => (*tenant, Some(name.clone()), *trusted),
            (None, Some(tenant)) => (tenant, None, false),
            (None, None) => {
                return Err(unknown("a key is needed: `Authorization: Bearer KEY`"));
            }
        };
        let named = if is_trusted { first(headers, &file.headers.tenant) } else { None };
        let tenant = match named {
            Some(name) if name.len() <= 128 => shared.tenants.id(name).ok_or_else(|| {
                let message = "so many tenants were named that there is no room for one more";
                Problem::new(hyper::StatusCode::TOO_MANY_REQUESTS, "too_many_tenants", message)
            })?,
            Some(_) => return Err(Problem::bad("invalid_header", "a tenant's name is too long")),
            None => tenant,
        };
        Ok(Caller { tenant, key, is_trusted })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key.trim())
}

/// The first of these headers that is there.
fn first<'a>(headers: &'a HeaderMap, names: &[String]) -> Option<&'a str> {
    let mut values = names.iter().filter_map(|name| headers.get(name.as_str()));
    values.find_map(|value| value.to_str().ok()).filter(|value| !value.is_empty())
}

/// What the allocator is told of a request for inference, and the name of its model.
///
/// # Errors
/// If nobody serves the model, or a header makes no sense.
pub(crate) fn inference(
    headers: &HeaderMap,
    asked: &Asked,
    caller: &Caller,
    (shared, current): (&Shared, &Current),
) -> Result<RequestInfo, Problem> {
    let file = &current.file;
    let output_cap = match asked.route {
        Route::Embeddings => 1,
        Route::Chat | Route::Completions => {
            asked.output_cap.unwrap_or(file.limits.output_tokens_default)
        }
    };
    Ok(RequestInfo {
        source: SourceId(asked.route as u16),
        model: model(&asked.model, file)?,
        prompt_tokens: shared.ratios.tokens(&asked.model, asked.prompt_bytes),
        output_cap,
        labels: labels(headers, caller, asked.service_tier.as_deref(), file),
        ..common(headers, caller, file)?
    })
}

/// What is alike for all kinds of work.
///
/// # Errors
/// If a header makes no sense.
pub(crate) fn common(
    headers: &HeaderMap,
    caller: &Caller,
    file: &GatewayFile,
) -> Result<RequestInfo, Problem> {
    let attempt = match first(headers, &file.headers.attempt) {
        // The header counts attempts from 1.
        Some(text) if caller.is_trusted => text
            .parse::<u8>()
            .map_err(|_| Problem::bad("invalid_header", "the attempt is not a number"))?
            .saturating_sub(1),
        Some(_) | None => 0,
    };
    Ok(RequestInfo {
        tenant: caller.tenant,
        claims: if caller.is_trusted { claims(headers, file)? } else { None },
        stage: stage(headers, file)?,
        session: SessionId(first(headers, &file.headers.session).map_or(0, number)),
        workflow: WorkflowId(workflow(headers, file).map_or(0, number)),
        attempt,
        ..RequestInfo::default()
    })
}

/// The class that a request claims: by its name, or by the first token that it wants in time.
fn claims(headers: &HeaderMap, file: &GatewayFile) -> Result<Option<ClassId>, Problem> {
    if let Some(name) = first(headers, &file.headers.class) {
        let class = file.names.classes.iter().position(|class| class == name);
        let unknown = || Problem::bad("unknown_class", format!("no class is named `{name}`"));
        return class.ok_or_else(unknown).map(|index| Some(ClassId(index as u16)));
    }
    for (names, metric) in
        [(&file.headers.ttft_ms, Metric::Ttft), (&file.headers.tpot_ms, Metric::Tpot)]
    {
        let Some(text) = first(headers, names) else { continue };
        let millis = text.parse::<f64>().ok().filter(|millis| *millis > 0.0);
        let nonsense = || Problem::bad("invalid_header", "an objective is milliseconds above 0");
        return Ok(promising(metric, millis.ok_or_else(nonsense)? / 1000.0, file));
    }
    Ok(None)
}

/// The class that promises no more than is wanted; the one that promises most if none promises
/// enough; `None` if no class says anything of the metric.
fn promising(metric: Metric, seconds: f64, file: &GatewayFile) -> Option<ClassId> {
    let promises: Vec<(ClassId, f64)> = file
        .objectives
        .iter()
        .filter_map(|of| {
            let about = of.objectives.iter().filter(|promise| promise.metric == metric);
            let limit = about.map(|promise| promise.limit).min_by(f64::total_cmp)?;
            Some((of.class, limit))
        })
        .collect();
    let enough = promises.iter().filter(|(_, limit)| *limit <= seconds);
    let loosest = enough.max_by(|a, b| a.1.total_cmp(&b.1));
    let tightest = promises.iter().min_by(|a, b| a.1.total_cmp(&b.1));
    loosest.or(tightest).map(|(class, _)| *class)
}

fn stage(headers: &HeaderMap, file: &GatewayFile) -> Result<StageId, Problem> {
    let Some(name) = first(headers, &file.headers.stage) else { return Ok(StageId(0)) };
    stage_named(name, file)
}

/// The id of a stage.
///
/// # Errors
/// If the policy has none of this name.
pub(crate) fn stage_named(name: &str, file: &GatewayFile) -> Result<StageId, Problem> {
    let index = file.stages.iter().position(|stage| stage == name);
    let unknown = || Problem::bad("unknown_stage", format!("no stage is named `{name}`"));
    index.ok_or_else(unknown).map(|index| StageId(index as u16))
}

/// The name of a workflow: as it is, or the trace that the request is a part of.
fn workflow<'a>(headers: &'a HeaderMap, file: &GatewayFile) -> Option<&'a str> {
    file.headers.workflow.iter().find_map(|name| {
        let value = headers.get(name.as_str())?.to_str().ok()?;
        match name.as_str() {
            // version-trace-parent-flags, W3C Trace Context.
            "traceparent" => value.split('-').nth(1).filter(|trace| trace.len() == 32),
            _ => Some(value).filter(|value| !value.is_empty()),
        }
    })
}

/// A name as a number that is not 0.
pub(crate) fn number(name: &str) -> u64 {
    (XxHash3_128::oneshot(name.as_bytes()) as u64).max(1)
}

/// Which of the policy's labels a request bears.
pub(crate) fn labels(
    headers: &HeaderMap,
    caller: &Caller,
    tier: Option<&str>,
    file: &GatewayFile,
) -> Labels {
    let holds = |label: &Label| match label {
        Label::Header { name, value } => {
            headers.get_all(name.as_str()).iter().any(|found| found.as_bytes() == value.as_bytes())
        }
        Label::Key(name) => caller.key.as_deref() == Some(name),
        Label::ServiceTier(wanted) => tier == Some(wanted),
    };
    let labels = file.config.labels.iter().enumerate();
    Labels(labels.filter(|(_, label)| holds(label)).fold(0, |bits, (at, _)| bits | 1 << at))
}

/// The model's id.
fn model(name: &str, file: &GatewayFile) -> Result<ModelId, Problem> {
    if file.any_model {
        return Ok(ModelId(0));
    }
    let models = &file.config.models[..file.config.models.len() - file.resources.len()];
    let index = models.iter().position(|model| model == name);
    let unknown = || {
        let message = format!("no model is named `{name}`; GET /v1/models lists them");
        Problem::new(hyper::StatusCode::NOT_FOUND, "model_not_found", message)
    };
    index.ok_or_else(unknown).map(|index| ModelId(index as u16))
}
