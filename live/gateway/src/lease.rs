//! Leases: work that is not inference waits in the same queues under the same policy.
//!
//! A stage of a workflow that builds a context, runs a tool or steps through a batch asks for a
//! lease of a resource, waits for its turn as a request does, holds a seat of it while it works, and
//! gives it back. A lease that is neither given back nor renewed in time is given back for it, so
//! that a worker that died holds nothing.
//!
//! - `POST /v1/leases` `{"resource": "tools", "stage": "fetch", "workflow": "w1", "cost": 2000,
//!   "seconds": 60}` → 201 with `id` and `expires_in`, once it is its turn; the connection is kept
//!   meanwhile, and closing it gives the place up. `cost` is what it weighs beside requests, in
//!   tokens; `stage`, `workflow` and `seconds` may be left out.
//! - `PUT /v1/leases/ID` `{"seconds": 60}` renews it.
//! - `DELETE /v1/leases/ID` gives it back.
//!
//! A class waits in its order: a lease that finds no seat keeps the requests of its class behind it
//! waiting. So leases want a class of their own (`{ rule = "match", workload = "leases", class = … }`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};
use plimsoll_base::{End, SourceId, TenantId, WorkflowId};
use plimsoll_config::gateway::{ROUTES, Resource};
use plimsoll_driver::Ticket;
use plimsoll_policy::RequestInfo;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::answer::{Body, Problem, json};
use crate::identity::{self, Caller};
use crate::infer::duration;
use crate::state::{Current, Shared};

/// The first part of the path of a lease.
pub(crate) const PATH: &str = "/v1/leases";

/// What may be leased for how long is stated by the file; this is what a lease begins with.
const SECONDS_DEFAULT: u64 = 60;

/// Leases that are held.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<BTreeMap<String, Held>>);

#[derive(Debug)]
struct Held {
    /// Whose; nobody else may renew it or give it back.
    tenant: TenantId,
    lease_max: Duration,
    /// Until when it is held. Dropped when it is given back.
    until: watch::Sender<Instant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    resource: String,
    #[serde(default)]
    stage: Option<String>,
    #[serde(default)]
    workflow: Option<String>,
    #[serde(default)]
    cost: Option<u32>,
    #[serde(default)]
    seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Renewal {
    #[serde(default)]
    seconds: Option<u64>,
}

/// Waits for the turn of a lease and takes it.
///
/// # Errors
/// If the request makes no sense, or is refused.
pub(crate) async fn take(
    (shared, current): (&Arc<Shared>, &Arc<Current>),
    caller: &Caller,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response<Body>, Problem> {
    let wanted: Wanted = read(body)?;
    let resources = &current.file.resources;
    let resource = resources.iter().find(|resource| resource.name == wanted.resource);
    let resource = resource.ok_or_else(|| {
        let message = format!("no resource is named `{}`", wanted.resource);
        Problem::new(StatusCode::NOT_FOUND, "resource_not_found", message)
    })?;
    let info = info(&wanted, resource, caller, (headers, current))?;
    let refused = |refused: &plimsoll_driver::Refused| {
        let class = refused.class.map(|class| current.file.names.class(class));
        Problem::refused(refused, class.as_deref())
    };
    let pending = shared.gate.submit(info).map_err(|error| refused(&error))?;
    let mut ticket = pending.admitted().await.map_err(|error| refused(&error))?;
    ticket.used().prompt_tokens = info.prompt_tokens;
    let lease_max = duration(resource.lease_max);
    let lasts = lasts(wanted.seconds, lease_max);
    let id = format!("lease-{}-{}", std::process::id(), ticket.id().0);
    let waited = ticket.waited();
    let class = current.file.names.class(ticket.class());
    let (until, expiry) = watch::channel(Instant::now() + lasts);
    let held = Held { tenant: caller.tenant, lease_max, until };
    shared.leases.lock().insert(id.clone(), held);
    tokio::spawn(keep(Arc::clone(shared), id.clone(), (ticket, expiry)));
    let answer = json!({
        "id": id, "resource": resource.name, "class": class, "expires_in": lasts.as_secs_f64(),
        "waited_ms": waited.nanos() / 1_000_000,
    });
    Ok(json(StatusCode::CREATED, &answer))
}

fn info(
    wanted: &Wanted,
    resource: &Resource,
    caller: &Caller,
    (headers, current): (&HeaderMap, &Current),
) -> Result<RequestInfo, Problem> {
    let mut info = identity::common(headers, caller, &current.file)?;
    if let Some(stage) = &wanted.stage {
        info.stage = identity::stage_named(stage, &current.file)?;
    }
    if let Some(workflow) = &wanted.workflow {
        info.workflow = WorkflowId(identity::number(workflow));
    }
    Ok(RequestInfo {
        source: SourceId(ROUTES.len() as u16 - 1),
        model: resource.model,
        prompt_tokens: wanted.cost.unwrap_or(1).max(1),
        labels: identity::labels(headers, caller, None, &current.file),
        ..info
    })
}

/// Renews a lease.
///
/// # Errors
/// If the caller holds none of this id.
pub(crate) fn renew(
    shared: &Shared,
    caller: &Caller,
    (id, body): (&str, &[u8]),
) -> Result<Response<Body>, Problem> {
    let renewal: Renewal = if body.is_empty() { Renewal { seconds: None } } else { read(body)? };
    let leases = shared.leases.lock();
    let held = leases.get(id).filter(|held| held.tenant == caller.tenant);
    let held = held.ok_or_else(not_held)?;
    let lasts = lasts(renewal.seconds, held.lease_max);
    // Whoever keeps it may just have ended it.
    let _ = held.until.send(Instant::now() + lasts);
    Ok(json(StatusCode::OK, &json!({ "id": id, "expires_in": lasts.as_secs_f64() })))
}

/// Gives a lease back.
///
/// # Errors
/// If the caller holds none of this id.
pub(crate) fn give_back(
    shared: &Shared,
    caller: &Caller,
    id: &str,
) -> Result<Response<Body>, Problem> {
    let mut leases = shared.leases.lock();
    if leases.get(id).is_none_or(|held| held.tenant != caller.tenant) {
        return Err(not_held());
    }
    leases.remove(id);
    let mut response = Response::new(Empty::<Bytes>::new().boxed_unsync());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Holds a lease until it is given back, until nobody has renewed it in time, or until the allocator
/// takes it back.
async fn keep(
    shared: Arc<Shared>,
    id: String,
    (ticket, mut expiry): (Ticket, watch::Receiver<Instant>),
) {
    let end = loop {
        let until = *expiry.borrow_and_update();
        tokio::select! {
            changed = expiry.changed() => if changed.is_err() { break End::Finished },
            () = tokio::time::sleep_until(until) => break End::Expired,
            () = ticket.revoked() => break End::Evicted,
        }
    };
    if end != End::Finished {
        tracing::warn!(id, ?end, "a lease is over that was not given back");
        shared.leases.lock().remove(&id);
    }
    ticket.end(end);
}

impl Leases {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Held>> {
        self.0.lock().expect("nobody panics while it is held")
    }
}

fn lasts(seconds: Option<u64>, lease_max: Duration) -> Duration {
    Duration::from_secs(seconds.unwrap_or(SECONDS_DEFAULT).max(1)).min(lease_max)
}

fn not_held() -> Problem {
    let message = "you hold no lease of this id; it may have expired";
    Problem::new(StatusCode::NOT_FOUND, "lease_not_found", message)
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::bad("invalid_json", format!("the body: {error}")))
}
