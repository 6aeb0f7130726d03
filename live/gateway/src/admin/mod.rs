//! The operations side: metrics, state, reload, drain and a live page, on a loopback address of its
//! own.
//!
//! | | |
//! |---|---|
//! | `GET /` | the live page |
//! | `GET /metrics` | Prometheus |
//! | `GET /state` | everything now, as JSON |
//! | `GET /events` | the same, twice a second, as server-sent events |
//! | `POST /reload` | reads the gateway file again; all of it or nothing |
//! | `POST /drain` | takes nothing new in |
//! | `POST /log-level` | `{"level": "debug"}` |
//!
//! Whoever reaches a loopback address is on this machine, but a browser there may carry somebody
//! else's page: the `Host` must be a loopback one, and a post must say that it is JSON (or bear the
//! header `x-plimsoll`), which no foreign page can have a browser say without asking first.

mod guard;
mod live;
mod look;
mod meter;
mod metrics;
mod reload;
mod serve;
mod shares;
mod text;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plimsoll_base::{AlarmKind, Bound, ClassId, Span, Time};
use plimsoll_config::gateway::GatewayFile;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::keys::Keys;
use crate::state::Shared;
pub(crate) use look::fingerprint;
pub(crate) use meter::Meter;
pub use reload::Summary;
use shares::Part;

/// Reads the gateway file again and looks its keys up, or says in words what is wrong with it.
pub type ReadAgain = Arc<dyn Fn() -> Result<(GatewayFile, Keys), String> + Send + Sync>;
/// Has the log say more or less from now on, or says in words why not.
pub type SetLogLevel = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What the command lends the operations side.
#[derive(Clone, Default)]
pub struct Operations {
    /// Without it nothing can be reloaded.
    pub read_again: Option<ReadAgain>,
    /// Without it the level stays what it is.
    pub set_log_level: Option<SetLogLevel>,
}

/// How often it is looked whether anybody is starved.
const STARVED_EVERY: Duration = Duration::from_millis(250);
/// How often whoever watches is told.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// Who may watch at once.
const LISTENERS_MAX: usize = 8;

/// What the operations side knows.
pub(crate) struct Desk {
    shared: Arc<Shared>,
    meter: Meter,
    operations: Operations,
    /// One reload at a time.
    reloading: Mutex<()>,
    /// The latest event for whoever watches.
    events: watch::Sender<Bytes>,
    listeners: Arc<Semaphore>,
}

impl Desk {
    pub fn new(shared: Arc<Shared>, meter: Meter, operations: Operations) -> Desk {
        let (events, _) = watch::channel(Bytes::new());
        let listeners = Arc::new(Semaphore::new(LISTENERS_MAX));
        Desk { shared, meter, operations, reloading: Mutex::new(()), events, listeners }
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// In words, and then nothing has changed.
    pub async fn reload(&self) -> Result<Summary, String> {
        let read_again = self.operations.read_again.clone();
        let read_again = read_again.ok_or("this gateway has no file to read again")?;
        let _one_at_a_time = self.reloading.lock().await;
        let read = tokio::task::spawn_blocking(move || read_again()).await;
        let (file, keys) = read.map_err(|error| format!("reading the file: {error}"))??;
        let (summary, fresh) = reload::reload(&self.shared, file, keys).await?;
        self.meter.lock().adopt(&fresh.file, &fresh.places);
        tracing::info!(%summary, "reloaded");
        Ok(summary)
    }

    /// What each class got lately, indexed by class.
    fn parts(&self, now: Time, classes: usize) -> Vec<Part> {
        let mut numbers = self.meter.lock();
        numbers.shares.pass(now);
        (0..classes as u16).map(|class| numbers.shares.part(ClassId(class))).collect()
    }
}

/// Starts the listener and whoever looks regularly. They end when the tasks are aborted.
pub(crate) fn start(listener: TcpListener, desk: Desk) -> (Arc<Desk>, [JoinHandle<()>; 3]) {
    let desk = Arc::new(desk);
    let tasks = [
        tokio::spawn(serve::accept(listener, Arc::clone(&desk))),
        tokio::spawn(watch_starvation(Arc::clone(&desk))),
        tokio::spawn(live::tell(Arc::clone(&desk))),
    ];
    (desk, tasks)
}

/// Adds up how long classes are starved. Facts say what stops whom, but not while a policy takes
/// over; here that is set right.
async fn watch_starvation(desk: Arc<Desk>) {
    let mut ticks = interval(STARVED_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = None;
    loop {
        ticks.tick().await;
        let Ok((now, bounds, starved)) = desk.shared.gate.ask(standing).await else { return };
        let passed = now.saturating_since(before.replace(now).unwrap_or(now));
        let mut numbers = desk.meter.lock();
        for (class, bound) in (0..).map(ClassId).zip(bounds) {
            numbers.shares.bound(now, class, bound);
        }
        for (class, culprit) in starved {
            numbers.starve(class, culprit, passed.min(Span::from_secs(1)));
        }
    }
}

/// What stops each class, and who is starved by whom.
type Standing = (Time, Vec<Option<Bound>>, Vec<(ClassId, Option<ClassId>)>);

/// What stops each class, and those of which an alarm of starvation stands, each with the culprit of
/// the latest one.
fn standing(inside: &plimsoll_driver::Inside<'_>) -> Standing {
    let ids = || (0..inside.config.classes.len() as u16).map(ClassId);
    let stands = |class: ClassId, kind: AlarmKind| {
        look::is_starvation(kind) && inside.detector.stands(class, kind)
    };
    let culprit = |class: ClassId| {
        let mut latest = inside.alarms.iter().rev().map(|(_, alarm)| alarm);
        latest.find(|alarm| alarm.victim == class && stands(class, alarm.kind))?.culprit
    };
    let starved = ids().filter(|&class| AlarmKind::ALL.into_iter().any(|kind| stands(class, kind)));
    let standing = inside.allocator.standing();
    let bounds = ids().map(|class| standing.bound(class)).collect();
    (inside.now, bounds, starved.map(|class| (class, culprit(class))).collect())
}

#[cfg(test)]
mod tests {
    use plimsoll_config::gateway::GatewayFile;
    use plimsoll_config::{Shipped, read};

    const FILE: &str = r#"
schema_version = 1
name = "small"
class = [{ name = "chat", weight = 3 }, { name = "batch" }]
[policy]
models = ["llama"]
classify = [{ rule = "match", class = "chat" }]
[gateway]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
[[backend]]
name = "gpu0"
url = "http://10.0.0.1:8000"
kind = "vllm"
seats = 8
kv_tokens = 1000
"#;
    const SHIPPED: Shipped = &[("small", FILE)];

    /// A small gateway, with values of its file set otherwise.
    pub fn file_with(settings: &[&str]) -> Result<GatewayFile, String> {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let layered = read(std::path::Path::new("shipped:small"), &settings, SHIPPED);
        layered.and_then(|layered| layered.gateway_file()).map_err(|wrong| wrong.to_string())
    }

    pub fn file() -> GatewayFile {
        file_with(&[]).unwrap_or_else(|wrong| panic!("{wrong}"))
    }
}
