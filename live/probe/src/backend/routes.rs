//! What is answered where.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::answer::Refusal;
use super::ask::Route;
use super::infer::infer;
use super::line::Doom;
use super::metrics;
use super::script::{Body, Broken, full};
use super::server::Shared;

/// The header that names a request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers one request of a connection.
pub(super) async fn answer(
    shared: Arc<Shared>,
    doom: Doom,
    request: Request<Incoming>,
) -> Result<Response<Body>, Broken> {
    let id = request.headers().get(REQUEST_ID).cloned();
    let mut response = match Route::of(request.uri().path()) {
        Some(route) if request.method() == Method::POST => {
            infer((&shared, doom), route, request).await?
        }
        Some(_) => not_allowed("POST"),
        None => look(&shared, &request),
    };
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Ok(response)
}

/// What can be looked at without being counted.
fn look(shared: &Shared, request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let is_known = ["/health", "/v1/models", "/metrics", "/requests"].contains(&path);
    if is_known && request.method() != Method::GET && request.method() != Method::HEAD {
        return not_allowed("GET, HEAD");
    }
    match path {
        "/health" => json(StatusCode::OK, Bytes::from_static(b"{\"status\":\"ok\"}")),
        "/v1/models" => json(StatusCode::OK, models(shared)),
        "/requests" => json(StatusCode::OK, json!(shared.books.counts()).to_string()),
        "/plimsoll/engine" if shared.described.is_some() => {
            let described = shared.described.as_ref().expect("it was looked at");
            json(StatusCode::OK, described.to_string())
        }
        "/plimsoll/steps" if shared.described.is_some() => {
            let query = request.uri().query().unwrap_or_default();
            let after = query.strip_prefix("after=").and_then(|after| after.parse().ok());
            json(StatusCode::OK, shared.desk.steps(after.unwrap_or(0)).to_string())
        }
        "/metrics" => {
            let text = metrics::text(shared.kind, shared.model(), &shared.desk.sample());
            let mut response = Response::new(full(text));
            let text = HeaderValue::from_static(metrics::CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, text);
            response
        }
        _ => {
            let message = format!("there is nothing at {path}");
            refuse(&Refusal::new(StatusCode::NOT_FOUND, "not_found", message))
        }
    }
}

fn models(shared: &Shared) -> String {
    let model = json!({
        "id": shared.model(),
        "object": "model",
        "created": 0,
        "owned_by": "plimsoll",
        "max_model_len": shared.context_max,
    });
    json!({"object": "list", "data": [model]}).to_string()
}

/// A response in JSON.
pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A response that says why there is none.
pub(super) fn refuse(refusal: &Refusal) -> Response<Body> {
    json(refusal.status, refusal.body())
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let message = format!("this answers {methods} only");
    let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
    let mut response = refuse(&refusal);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}
