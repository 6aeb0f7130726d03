//! The admin listener and its routes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::look::{self, Look};
use super::{Desk, guard, live, metrics, text};
use crate::answer::{Body, Problem, json as answer_json, whole};

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// How long a head, and again a body, may take.
const READ_MAX: Duration = Duration::from_secs(5);
/// The longest body.
const BODY_BYTES_MAX: usize = 4096;

/// Accepts for ever. Connections end with it.
pub(crate) async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection for administration");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if connections.len() < CONNECTIONS_MAX {
            connections.spawn(serve(stream, Arc::clone(&desk)));
        }
    }
}

async fn serve(stream: TcpStream, desk: Arc<Desk>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(answer(request, &desk).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(READ_MAX).max_buf_size(16 << 10);
    // A connection that breaks off has freed what it held.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, desk: &Desk) -> Response<Body> {
    let guarded = guard::check(request.method(), request.headers());
    let answered = match guarded {
        Ok(()) => route(request, desk).await,
        Err(problem) => Err(problem),
    };
    let mut response = answered.unwrap_or_else(|problem| problem.response());
    let fresh = HeaderValue::from_static("no-store");
    response.headers_mut().entry(CACHE_CONTROL).or_insert(fresh);
    response
}

async fn route(request: Request<Incoming>, desk: &Desk) -> Result<Response<Body>, Problem> {
    let path = request.uri().path();
    let method = match path {
        "/" | "/metrics" | "/state" | "/events" => Method::GET,
        "/reload" | "/drain" | "/log-level" => Method::POST,
        _ => {
            let message = format!("there is nothing at `{path}`");
            return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", message));
        }
    };
    crate::server::allow(&request, &method)?;
    match path {
        "/" => Ok(live::page()),
        "/metrics" => metrics_page(desk).await,
        "/state" => state(desk).await,
        "/events" => live::events(desk),
        "/reload" => reload(desk).await,
        "/drain" => drain(desk).await,
        _ => log_level(request, desk).await,
    }
}

async fn look(desk: &Desk) -> Result<Look, Problem> {
    Look::at(&desk.shared)
        .await
        .map_err(|gone| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopped", gone.to_string()))
}

async fn metrics_page(desk: &Desk) -> Result<Response<Body>, Problem> {
    let look = look(desk).await?;
    let current = desk.shared.current();
    // A copy, so that the driver does not wait until the page is written.
    let mut numbers = desk.meter.lock().clone();
    numbers.shares.pass(look.now);
    let page = metrics::page(&look, (&desk.shared, &current), &numbers);
    Ok(whole(StatusCode::OK, text::KIND, page.into()))
}

async fn state(desk: &Desk) -> Result<Response<Body>, Problem> {
    let look = look(desk).await?;
    let current = desk.shared.current();
    let parts = desk.parts(look.now, look.snapshot.classes.len());
    let state = look::state(&look, (&desk.shared, &current), &parts);
    Ok(answer_json(StatusCode::OK, &state))
}

async fn reload(desk: &Desk) -> Result<Response<Body>, Problem> {
    match desk.reload().await {
        Ok(summary) => Ok(answer_json(StatusCode::OK, &json!({ "reloaded": summary }))),
        Err(why) => {
            tracing::warn!(why, "not reloaded");
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not_reloaded", why))
        }
    }
}

async fn drain(desk: &Desk) -> Result<Response<Body>, Problem> {
    desk.shared.drain().await;
    desk.shared.drain_asked.notify_one();
    tracing::info!("draining: somebody asked for it");
    Ok(answer_json(StatusCode::ACCEPTED, &json!({ "draining": true })))
}

async fn log_level(request: Request<Incoming>, desk: &Desk) -> Result<Response<Body>, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        level: String,
    }
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    let body = match tokio::time::timeout(READ_MAX, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Err(Problem::bad("body", "the body broke off or is too long")),
        Err(_) => return Err(Problem::bad("body_too_slow", "the body took too long")),
    };
    let asked: Asked = serde_json::from_slice(&body)
        .map_err(|_| Problem::bad("body", "send for example {\"level\": \"debug\"}"))?;
    let Some(set) = &desk.operations.set_log_level else {
        let message = "the level of this gateway's log is fixed";
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "fixed", message));
    };
    set(&asked.level).map_err(|why| Problem::bad("level", why))?;
    tracing::info!(level = asked.level, "the log says more or less from now on");
    Ok(answer_json(StatusCode::OK, &json!({ "level": asked.level })))
}
