//! What clients are told when something is wrong: errors in OpenAI's shape that say why.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use plimsoll_base::{Refusal, Span};
use plimsoll_driver::Refused;
use serde_json::{Value, json};

/// A body, whole or as it comes.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// An answer that is an error.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub status: StatusCode,
    /// OpenAI's kind: `invalid_request_error`, `rate_limit_error`, `server_error`, …
    pub kind: &'static str,
    /// What programs look at.
    pub code: &'static str,
    pub message: String,
    pub retry_after: Option<Span>,
    /// What decided, for those who ask the allocator why.
    pub detail: Option<Value>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Problem {
        let kind = match status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        };
        Problem { status, kind, code, message: message.into(), retry_after: None, detail: None }
    }

    pub fn bad(code: &'static str, message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The answer to a request that the allocator declined; `class` is its class's name.
    pub fn refused(refused: &Refused, class: Option<&str>) -> Problem {
        let (status, code, message) = match refused.refusal {
            Some(Refusal::QueueFull) => (429, "queue_full", "the queue of its class is full"),
            Some(Refusal::RateLimited) => (429, "rate_limited", "its rate limit is used up"),
            Some(Refusal::OverQuota) => (429, "over_quota", "it asks for more than its quota"),
            Some(Refusal::Infeasible) if refused.retry_after > Span::ZERO => {
                (503, "objective_cannot_be_met", "its objective cannot be met any more")
            }
            Some(Refusal::Infeasible) => {
                (400, "context_length_exceeded", "no backend could ever hold it")
            }
            Some(Refusal::Saturated) => (503, "saturated", "the backends are too full for it"),
            Some(Refusal::Unclassified) => (403, "unclassified", "no rule gives it a class"),
            Some(Refusal::NoBackend) => (503, "no_backend", "no backend is there"),
            Some(Refusal::Draining) => (503, "draining", "the gateway is shutting down"),
            None => (503, "waited_too_long", "it waited as long as its class may"),
        };
        let status = StatusCode::from_u16(status).expect("a status of the table above");
        let mut problem = Problem::new(status, code, message);
        problem.retry_after = match status.as_u16() {
            429 | 503 => Some(refused.retry_after.max(Span::from_secs(1))),
            _ => None,
        };
        problem.detail = Some(json!({
            "class": class,
            "rule": refused.reason.map(|reason| reason.name()),
            "waited_for": refused.bound.map(|bound| bound.name()),
        }));
        problem
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let mut error = json!({
            "message": self.message, "type": self.kind, "param": null, "code": self.code,
        });
        if let Some(detail) = &self.detail {
            error["plimsoll"] = detail.clone();
        }
        json!({ "error": error })
    }

    pub fn response(&self) -> Response<Body> {
        let mut response = json(self.status, &self.to_json());
        if let Some(span) = self.retry_after {
            let seconds = span.nanos().div_ceil(1_000_000_000);
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
            let millis = span.nanos().div_ceil(1_000_000);
            response.headers_mut().insert("retry-after-ms", millis.into());
        }
        response
    }
}

/// JSON as an answer.
pub(crate) fn json(status: StatusCode, value: &Value) -> Response<Body> {
    whole(status, "application/json", value.to_string().into())
}

/// Bytes as an answer.
pub(crate) fn whole(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
