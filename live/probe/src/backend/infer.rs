//! One request for inference, from its headers to its answer.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::{HeaderMap, Request, Response, StatusCode};

use super::answer::{Answer, DONE, MALFORMED_BODY, MALFORMED_FRAME, Refusal};
use super::ask::{Ask, Route};
use super::books::Entry;
use super::desk::Ticket;
use super::fault::Fault;
use super::line::Doom;
use super::routes::{REQUEST_ID, json, refuse};
use super::script::{Body, Broken, Play, Script, full};
use super::server::Shared;
use super::wishes::FAULT;

/// What came of a request: a response, or a connection that breaks.
type Outcome = Result<Response<Body>, Broken>;

/// Answers a request, as well as its fault lets it.
pub(super) async fn infer(
    (shared, doom): (&Arc<Shared>, Doom),
    route: Route,
    request: Request<Incoming>,
) -> Outcome {
    let (head, body) = request.into_parts();
    let headers = head.headers;
    if headers.get(FAULT).is_some_and(|fault| fault == Fault::Refuse.name()) {
        let (_, mut entry) = open(shared, &headers);
        entry.fail();
        doom.seal();
        return Err(Broken);
    }
    let ask =
        match read_body(shared, body).await.and_then(|body| shared.ask(route, &headers, &body)) {
            Ok(ask) => ask,
            Err(refusal) => {
                shared.books.count_refused();
                return Ok(refuse(&refusal));
            }
        };
    let (number, mut entry) = open(shared, &headers);
    let fault = ask.fault.or_else(|| shared.strike(number));
    if fault.is_some_and(|fault| !fault.is_harmless()) {
        entry.fail();
    }
    let answer = Answer::new(route, &ask, (number, shared.model()));
    match fault {
        Some(Fault::Refuse) => {
            doom.seal();
            return Err(Broken);
        }
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::SlowHeaders) => tokio::time::sleep(shared.limits.slow_headers).await,
        Some(Fault::Status500) => return Ok(broken(StatusCode::INTERNAL_SERVER_ERROR)),
        Some(Fault::Status503) => return Ok(broken(StatusCode::SERVICE_UNAVAILABLE)),
        Some(Fault::WrongType) => return Ok(page()),
        _ => {}
    }
    let Some(ticket) = shared.desk.submit(ask.order) else {
        return Ok(broken(StatusCode::SERVICE_UNAVAILABLE));
    };
    match ask.streams {
        true => Ok(stream(shared, (ticket, entry), (&ask, &answer), (fault, doom))),
        false => whole((ticket, entry), (&ask, &answer), (fault, doom)).await,
    }
}

fn open(shared: &Shared, headers: &HeaderMap) -> (u64, Entry) {
    shared.books.open(headers.get(REQUEST_ID).map(|id| id.as_bytes()))
}

async fn read_body(shared: &Shared, body: Incoming) -> Result<Bytes, Refusal> {
    let max = shared.limits.body_max;
    let read = Limited::new(body, max).collect();
    match tokio::time::timeout(shared.limits.read_max, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let message = format!("the body is longer than {max} bytes");
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_long", message))
        }
        Ok(Err(error)) => Err(Refusal::invalid(format!("the body cannot be read: {error}"))),
        Err(_) => {
            let message = "the body took too long";
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message))
        }
    }
}

fn stream(
    shared: &Shared,
    claim: (Ticket, Entry),
    (ask, answer): (&Ask, &Answer),
    (fault, doom): (Option<Fault>, Doom),
) -> Response<Body> {
    let tokens = ask.order.output_tokens;
    let usage = ask.wants_usage.then(|| answer.usage_frame());
    let rest = [Some(answer.finish_frame()), usage, Some(DONE)].into_iter().flatten().collect();
    let script = Script::stream(claim, answer, (tokens, shared.stream_interval, rest));
    let fault = fault.map(|fault| match fault {
        Fault::StallFirst => (fault, 0),
        // Before the last frame with tokens, so that something is missing.
        _ => {
            let frames = (tokens - 1).div_ceil(shared.stream_interval);
            (fault, shared.limits.tokens_before_fault.min(frames))
        }
    });
    let mut response = Response::new(Play::new(script, fault, (MALFORMED_FRAME, doom)).body());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, const { value("text/event-stream; charset=utf-8") });
    headers.insert(CACHE_CONTROL, const { value("no-cache") });
    response
}

/// An answer at once: its headers come when it is done, as those of a real server do.
async fn whole(
    (mut ticket, mut entry): (Ticket, Entry),
    (ask, answer): (&Ask, &Answer),
    (fault, doom): (Option<Fault>, Doom),
) -> Outcome {
    let fault = fault.filter(|fault| !fault.is_harmless());
    if fault != Some(Fault::StallFirst)
        && ticket.beyond(ask.order.output_tokens - 1).await.is_none()
    {
        return Ok(broken(StatusCode::SERVICE_UNAVAILABLE));
    }
    let body = answer.whole();
    let Some(fault) = fault else {
        entry.finish();
        return Ok(json(StatusCode::OK, body));
    };
    let (parts, after) = match fault {
        Fault::StallFirst => (vec![body], 0),
        Fault::Malformed => (Vec::new(), 0),
        _ => (vec![body.slice(..body.len() / 2), body.slice(body.len() / 2..)], 1),
    };
    let script = Script::parts((ticket, entry), parts);
    let play = Play::new(script, Some((fault, after)), (MALFORMED_BODY, doom));
    let mut response = json(StatusCode::OK, Bytes::new());
    *response.body_mut() = play.body();
    Ok(response)
}

fn broken(status: StatusCode) -> Response<Body> {
    refuse(&Refusal::new(status, "engine_failed", "the engine has failed"))
}

fn page() -> Response<Body> {
    let mut response = Response::new(full("<html><body>It works!</body></html>\n"));
    response.headers_mut().insert(CONTENT_TYPE, const { value("text/html") });
    response
}

const fn value(text: &'static str) -> hyper::header::HeaderValue {
    hyper::header::HeaderValue::from_static(text)
}
