//! Whether each backend is there, and how full it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use plimsoll_driver::Gate;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::infer::duration;
use crate::upstream::{Broken, Upstream};

/// Looks that must fail in a row before a backend counts as gone.
const FAILURES_MAX: u32 = 2;
/// The longest page of metrics.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// How long a look may take.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Who looks after which slot.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<BTreeMap<u32, JoinHandle<()>>>);

impl Watchers {
    /// Has somebody look after the backend of a slot, and whoever did so before stop. It may be
    /// there already; `every` is how often the policy wants reports, if it does.
    pub fn start(
        &self,
        (gate, slot): (Gate, u32),
        upstream: &Arc<Upstream>,
        (is_here, every): (bool, Option<Duration>),
    ) {
        let task = tokio::spawn(watch((gate, slot), Arc::clone(upstream), is_here, every));
        let before = self.0.lock().expect("nobody panics while it is held").insert(slot, task);
        before.inspect(JoinHandle::abort);
    }

    /// Nobody looks after a slot any more.
    pub fn stop(&self, slot: u32) {
        let task = self.0.lock().expect("nobody panics while it is held").remove(&slot);
        task.inspect(JoinHandle::abort);
    }

    /// Nobody looks after anything any more.
    pub fn stop_all(&self) {
        let tasks = std::mem::take(&mut *self.0.lock().expect("nobody panics while it is held"));
        tasks.values().for_each(JoinHandle::abort);
    }
}

/// Looks after the backend of a slot for ever: has it join, leave and report.
async fn watch(
    (gate, slot): (Gate, u32),
    upstream: Arc<Upstream>,
    mut is_here: bool,
    every: Option<Duration>,
) {
    let own = duration(upstream.backend.scrape_every);
    let mut ticks = interval(every.map_or(own, |every| every.min(own)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = 0;
    upstream.breaker.set_here(is_here);
    loop {
        let next = async {
            ticks.tick().await;
            upstream.sweep();
            let as_of = Instant::now();
            match upstream.breaker.is_open() {
                true => None,
                false => Some((as_of, timeout(LOOK_MAX, look(&upstream)).await)),
            }
        };
        let looked = tokio::select! {
            biased;
            () = upstream.breaker.opened() => {
                tracing::warn!(backend = upstream.backend.name, "left out for a while");
                (is_here, failures) = (false, 0);
                gate.leave(slot).await;
                upstream.breaker.set_here(false);
                continue;
            }
            looked = next => looked,
        };
        match looked {
            None => {}
            Some((as_of, Ok(Ok(load)))) => {
                failures = 0;
                if !std::mem::replace(&mut is_here, true) {
                    tracing::info!(backend = upstream.backend.name, "joined");
                    gate.join(slot, upstream.backend.info).await;
                    upstream.breaker.set_here(true);
                }
                if let Some(load) = load {
                    gate.report(slot, load, as_of).await;
                }
            }
            Some((_, Ok(Err(_)) | Err(_))) => {
                failures += 1;
                if failures >= FAILURES_MAX && std::mem::replace(&mut is_here, false) {
                    tracing::warn!(backend = upstream.backend.name, "left");
                    gate.leave(slot).await;
                    upstream.breaker.set_here(false);
                }
            }
        }
    }
}

/// Asks a backend whether it is well, and how full it is if it says so anywhere.
async fn look(upstream: &Arc<Upstream>) -> Result<Option<plimsoll_policy::Load>, ()> {
    get(upstream, &upstream.backend.health).await.map_err(drop)?;
    let Some(path) = &upstream.backend.metrics else { return Ok(None) };
    // A backend whose metrics are off is well all the same.
    let page = get(upstream, path).await.ok();
    Ok(page.and_then(|page| plimsoll_wire::load(upstream.backend.kind, &page)))
}

/// The text at a path, if the answer is a success.
async fn get(upstream: &Arc<Upstream>, path: &str) -> Result<String, Broken> {
    let mut begun = upstream.get(path, LOOK_MAX).await?;
    if !begun.response.status().is_success() {
        return Err(Broken::Answer(begun.response.status().to_string()));
    }
    let body = Limited::new(begun.response.body_mut(), PAGE_BYTES_MAX).collect().await;
    let bytes = body.map_err(|error| Broken::Answer(error.to_string()))?.to_bytes();
    begun.done();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
