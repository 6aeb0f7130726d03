//! What a server tells of itself.

use hyper::StatusCode;
use plimsoll_config::gateway::BackendKind;
use plimsoll_wire::label;
use serde::Deserialize;
use serde_json::Value;

use super::RemoteOptions;
use super::client::Client;
use crate::device::{Description, DeviceError, Limits, Priorities};

/// A server that was looked at.
pub(super) struct Found {
    pub kind: BackendKind,
    pub description: Description,
    /// Whether it tells its steps.
    pub tells_steps: bool,
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    #[serde(default)]
    owned_by: Option<String>,
    #[serde(default)]
    max_model_len: Option<u32>,
}

/// What the engines of `live/engines` say of themselves at `/plimsoll/engine`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Own {
    engine: String,
    version: Option<String>,
    flags: std::collections::BTreeMap<String, Value>,
    seats: Option<u32>,
    step_tokens_max: Option<u32>,
    kv_tokens: Option<u64>,
    block_tokens: Option<u32>,
    context_max: Option<u32>,
    priorities: bool,
    steps: bool,
}

/// Looks at a server.
pub(super) async fn discover(
    client: &Client,
    options: &RemoteOptions,
) -> Result<Found, DeviceError> {
    let model = model(client, options.model.as_deref()).await?;
    let metrics = client.text("/metrics").await.unwrap_or_default().unwrap_or_default();
    let own = client.json("/plimsoll/engine").await.unwrap_or_default();
    let own: Option<Own> = own.and_then(|own| serde_json::from_value(own).ok());
    let kind = options.kind.unwrap_or_else(|| kind(&metrics, model.owned_by.as_deref()));
    let mut description = Description {
        engine: kind.name().to_owned(),
        model: model.id,
        place: client.place(),
        limits: Limits { context_max: model.max_model_len, ..Limits::default() },
        ..Description::default()
    };
    match kind {
        BackendKind::Vllm => vllm(client, &metrics, &mut description).await,
        BackendKind::Sglang => sglang(client, &mut description).await,
        BackendKind::LlamaCpp => llama_cpp(client, &mut description).await,
        BackendKind::OpenAi => {}
    }
    let tells_steps = own.as_ref().is_some_and(|own| own.steps);
    if let Some(own) = own {
        let Own { seats, step_tokens_max, kv_tokens, block_tokens, context_max, .. } = own;
        let context_max = context_max.or(description.limits.context_max);
        let priorities = Some(match own.priorities {
            true => Priorities::Obeyed,
            false => Priorities::Ignored,
        });
        description.engine = own.engine;
        description.version = own.version;
        description.flags = flags(own.flags);
        description.limits =
            Limits { seats, step_tokens_max, kv_tokens, block_tokens, context_max, priorities };
    }
    Ok(Found { kind, description, tells_steps })
}

/// Which model is meant. Some servers list none of what they serve from a folder, or fail to list any;
/// whether the one that was named is there, its first answer tells.
async fn model(client: &Client, named: Option<&str>) -> Result<Model, DeviceError> {
    let (status, page) = client.page("/v1/models").await?;
    let unlisted = named.map(|id| Model { id: id.to_owned(), owned_by: None, max_model_len: None });
    if !status.is_success() {
        return unlisted.ok_or_else(|| match status {
            StatusCode::NOT_FOUND => client.otherwise("there is nothing at /v1/models"),
            _ => client.otherwise(format!(
                "/v1/models answers with status {status}; a model that is named (`--model`) needs \
                 no list"
            )),
        });
    }
    let models: Models = serde_json::from_str(&page)
        .map_err(|_| client.otherwise("/v1/models is no list of models"))?;
    match unlisted {
        Some(unlisted) if models.data.is_empty() => Ok(unlisted),
        _ => choose(models.data, client, named),
    }
}

fn choose(models: Vec<Model>, client: &Client, asked: Option<&str>) -> Result<Model, DeviceError> {
    let there = || {
        let names: Vec<&str> = models.iter().map(|model| model.id.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let none = |asked: &str| DeviceError::NoModel {
        url: client.place(),
        asked: asked.to_owned(),
        there: there(),
    };
    let at = match asked {
        Some(asked) => {
            let at = models.iter().position(|model| model.id == asked);
            at.ok_or_else(|| none(asked))?
        }
        None if models.len() == 1 => 0,
        None => return Err(none("(none was named)")),
    };
    Ok({ models }.swap_remove(at))
}

/// Whose server it is, by the names of its metrics, or by whom its model belongs to.
fn kind(metrics: &str, owner: Option<&str>) -> BackendKind {
    let kinds = [
        ("vllm:", "vllm", BackendKind::Vllm),
        ("sglang:", "sglang", BackendKind::Sglang),
        ("llamacpp:", "llamacpp", BackendKind::LlamaCpp),
    ];
    let by_metrics = kinds.iter().find(|(prefix, ..)| {
        metrics.lines().any(|line| !line.starts_with('#') && line.starts_with(prefix))
    });
    let by_owner = || kinds.iter().find(|(_, name, _)| owner == Some(name));
    by_metrics.or_else(by_owner).map_or(BackendKind::OpenAi, |(.., kind)| *kind)
}

async fn vllm(client: &Client, metrics: &str, description: &mut Description) {
    let version = client.json("/version").await.unwrap_or_default();
    description.version = version.and_then(|value| Some(value["version"].as_str()?.to_owned()));
    let info = |name| label(metrics, "vllm:cache_config_info", name);
    let number = |name| info(name).and_then(|text| text.parse::<u64>().ok());
    let (blocks, block) = (number("num_gpu_blocks"), number("block_size"));
    description.limits.block_tokens = block.and_then(|block| u32::try_from(block).ok());
    description.limits.kv_tokens = blocks.zip(block).map(|(blocks, block)| blocks * block);
    for name in ["enable_prefix_caching", "cache_dtype", "kv_cache_dtype"] {
        if let Some(value) = info(name) {
            description.flags.push(format!("{name}={value}"));
        }
    }
    description.flags.sort();
}

async fn sglang(client: &Client, description: &mut Description) {
    let Some(info) = client.json("/get_server_info").await.unwrap_or_default() else { return };
    let number = |name: &str| info[name].as_u64();
    let small = |name: &str| number(name).and_then(|value| u32::try_from(value).ok());
    description.version = info["version"].as_str().map(str::to_owned);
    description.limits.kv_tokens = number("max_total_num_tokens");
    description.limits.seats = small("max_running_requests");
    description.limits.step_tokens_max = small("chunked_prefill_size");
    description.limits.block_tokens = small("page_size");
    let kept = ["schedule_policy", "mem_fraction_static", "disable_radix_cache", "dtype"];
    let kept = kept.into_iter().filter(|name| !info[*name].is_null());
    description.flags = flags(kept.map(|name| (name.to_owned(), info[name].clone())).collect());
}

async fn llama_cpp(client: &Client, description: &mut Description) {
    let Some(props) = client.json("/props").await.unwrap_or_default() else { return };
    let number = |place: &str| props.pointer(place).and_then(Value::as_u64);
    let slots = number("/total_slots");
    let context = number("/default_generation_settings/n_ctx");
    description.version = props["build_info"].as_str().map(str::to_owned);
    description.limits.seats = slots.and_then(|slots| u32::try_from(slots).ok());
    description.limits.context_max = context.and_then(|context| u32::try_from(context).ok());
    // A slot has its own part of the memory, and holds one sequence.
    description.limits.kv_tokens = slots.zip(context).map(|(slots, context)| slots * context);
    description.limits.priorities = Some(Priorities::Ignored);
}

fn flags(flags: std::collections::BTreeMap<String, Value>) -> Vec<String> {
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    flags.into_iter().map(|(name, value)| format!("{name}={}", text(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_known_by_their_metrics_or_their_owner() {
        let check = |metrics: &str, owner, wanted| assert_eq!(kind(metrics, owner), wanted);
        check("# x\nvllm:num_requests_running{a=\"b\"} 1\n", None, BackendKind::Vllm);
        check("sglang:num_running_reqs 4\n", Some("vllm"), BackendKind::Sglang);
        check("# HELP vllm:x\nhttp_requests 1\n", Some("llamacpp"), BackendKind::LlamaCpp);
        check("", Some("me"), BackendKind::OpenAi);
    }
}
