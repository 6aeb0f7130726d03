//! Which headers say what.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{At, Code, Diagnostic, Items};

const NAMES_MAX: usize = 8;
const LENGTH_MAX: usize = 64;
/// What they carry must not come to stand in reports.
const SECRET: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "x-api-key"];

/// `[gateway.headers]`: lists of names in lower case; the first that a request bears counts, and
/// an empty list reads none.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeadersSpec {
    /// Who pays; from trusted keys only. Default ["x-gateway-inference-fairness-id"].
    pub tenant: Option<At<Items<At<String>>>>,
    /// The class that is claimed; from trusted keys only.
    /// Default ["x-gateway-inference-objective"].
    pub class: Option<At<Items<At<String>>>>,
    /// The session. Default ["x-session-id"].
    pub session: Option<At<Items<At<String>>>>,
    /// The workflow. Default ["x-workflow-id", "traceparent"].
    pub workflow: Option<At<Items<At<String>>>>,
    /// The stage of the workflow. Default ["x-workflow-stage"].
    pub stage: Option<At<Items<At<String>>>>,
    /// Which attempt it is, from 1; from trusted keys only. Default ["x-envoy-attempt-count"].
    pub attempt: Option<At<Items<At<String>>>>,
    /// The wanted time to the first token in milliseconds. Default ["x-slo-ttft-ms"].
    pub ttft_ms: Option<At<Items<At<String>>>>,
    /// The wanted time a token in milliseconds. Default ["x-slo-tpot-ms"].
    pub tpot_ms: Option<At<Items<At<String>>>>,
}

/// The headers that are read; each list in the order in which they are tried, names in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Who pays; believed from trusted keys only.
    pub tenant: Vec<String>,
    /// The class that is claimed; believed from trusted keys only.
    pub class: Vec<String>,
    /// The session.
    pub session: Vec<String>,
    /// The workflow. Of a `traceparent` its trace id.
    pub workflow: Vec<String>,
    /// The stage of the workflow.
    pub stage: Vec<String>,
    /// Which attempt it is, from 1; believed from trusted keys only.
    pub attempt: Vec<String>,
    /// The wanted time to the first token in milliseconds.
    pub ttft_ms: Vec<String>,
    /// The wanted time a token in milliseconds.
    pub tpot_ms: Vec<String>,
}

/// The headers of a file.
pub(super) fn headers(spec: &HeadersSpec, found: &mut Vec<Diagnostic>) -> Headers {
    let mut names = |written: &Option<At<Items<At<String>>>>, default: &[&str]| match written {
        Some(written) => read(written, found),
        None => default.iter().map(|&name| name.to_owned()).collect(),
    };
    Headers {
        tenant: names(&spec.tenant, &["x-gateway-inference-fairness-id"]),
        class: names(&spec.class, &["x-gateway-inference-objective"]),
        session: names(&spec.session, &["x-session-id"]),
        workflow: names(&spec.workflow, &["x-workflow-id", "traceparent"]),
        stage: names(&spec.stage, &["x-workflow-stage"]),
        attempt: names(&spec.attempt, &["x-envoy-attempt-count"]),
        ttft_ms: names(&spec.ttft_ms, &["x-slo-ttft-ms"]),
        tpot_ms: names(&spec.tpot_ms, &["x-slo-tpot-ms"]),
    }
}

fn read(written: &At<Items<At<String>>>, found: &mut Vec<Diagnostic>) -> Vec<String> {
    let names = &written.value.0;
    if names.len() > NAMES_MAX {
        let message = format!("{} headers are tried, at most {NAMES_MAX} may be", names.len());
        found.push(Diagnostic::new(Code::Range, Some(written.place), message));
    }
    for name in names {
        if !is_header_name(&name.value) {
            let message = format!("`{}` is not the name of a header in lower case", name.value);
            let help = match is_header_name(&name.value.to_ascii_lowercase()) {
                true => format!("write \"{}\"", name.value.to_ascii_lowercase()),
                false => "write for example \"x-session-id\"".to_owned(),
            };
            found.push(Diagnostic::new(Code::BadName, Some(name.place), message).help(help));
        } else if SECRET.contains(&name.value.as_str()) {
            let message = format!("`{}` carries secrets", name.value);
            found.push(
                Diagnostic::new(Code::Conflict, Some(name.place), message)
                    .label("what it says would stand in logs and reports")
                    .help("choose another header; keys are read by `[[key]]`"),
            );
        }
    }
    names.iter().map(|name| name.value.clone()).collect()
}

/// A token as of RFC 9110, without upper case.
fn is_header_name(name: &str) -> bool {
    let fits =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "!#$%&'*+-.^_`|~".contains(c);
    (1..=LENGTH_MAX).contains(&name.len()) && name.chars().all(fits)
}
