//! What every request sees.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use plimsoll_base::TenantId;
use plimsoll_config::gateway::GatewayFile;
use plimsoll_driver::Gate;
use tokio::sync::{Notify, Semaphore, watch};

use crate::health::Watchers;
use crate::keys::Keys;
use crate::lease::Leases;
use crate::places::Places;
use crate::ratio::Ratios;

/// Room for bodies is given out in so many bytes.
pub(crate) const KIB: u64 = 1024;

/// Shared by everything in the gateway.
pub(crate) struct Shared {
    /// The way to the allocator.
    pub gate: Gate,
    /// What is in force; replaced whole when the file is read again.
    current: RwLock<Arc<Current>>,
    /// Tenants that trusted headers have named.
    pub tenants: Tenants,
    pub leases: Leases,
    /// Tokens a byte, by model.
    pub ratios: Ratios,
    /// Whether nothing new is taken in.
    pub is_draining: AtomicBool,
    /// Tells that somebody asked the operations side to drain.
    pub drain_asked: Notify,
    /// What is counted outside of the allocator.
    pub counts: Counts,
    /// Room for connections of clients.
    pub room: Arc<Semaphore>,
    /// Room for bodies of requests, in units of [`KIB`].
    pub bodies: Arc<Semaphore>,
    /// Who looks after the backends.
    pub watchers: Watchers,
    /// Whether connections are to be closed.
    pub closing: watch::Sender<Closing>,
}

/// Whether connections of clients are to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    No,
    /// Once the answer that is under way is written out.
    WhenAnswered,
    Now,
}

/// What a file says, ready for use.
pub(crate) struct Current {
    pub file: GatewayFile,
    pub keys: Keys,
    /// Whose slots are.
    pub places: Places,
    /// What tells the policy from every other.
    pub fingerprint: String,
}

impl Current {
    pub fn new(file: GatewayFile, keys: Keys, places: Places) -> Current {
        let fingerprint = crate::admin::fingerprint(&file);
        Current { file, keys, places, fingerprint }
    }
}

impl Shared {
    pub fn new(gate: Gate, current: Current) -> Shared {
        let names = &current.file.names.tenants;
        let limits = &current.file.limits;
        Shared {
            gate,
            closing: watch::Sender::new(Closing::No),
            leases: Leases::default(),
            tenants: Tenants::new(names, limits.tenants_max),
            ratios: Ratios::new(limits.tokens_per_byte),
            room: Arc::new(Semaphore::new(limits.connections_max as usize)),
            bodies: Arc::new(Semaphore::new(limits.bodies_bytes_max.div_ceil(KIB) as usize)),
            current: RwLock::new(Arc::new(current)),
            is_draining: AtomicBool::new(false),
            drain_asked: Notify::new(),
            counts: Counts::default(),
            watchers: Watchers::default(),
        }
    }

    /// From now on nothing new is taken in.
    pub async fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
        self.gate.drain().await;
    }

    /// What is in force now; a request keeps to what it began with.
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().expect("nobody panics while it is held"))
    }

    /// From now on this is in force.
    pub fn replace(&self, current: Arc<Current>) {
        *self.current.write().expect("nobody panics while it is held") = current;
    }

    /// Connections of clients that are open.
    pub fn connections(&self) -> u32 {
        let room = self.room.available_permits() as u32;
        self.current().file.limits.connections_max.saturating_sub(room)
    }

    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }
}

/// Tenants by name: those of the file, and those that trusted headers have named since.
#[derive(Debug)]
pub(crate) struct Tenants {
    known: Mutex<BTreeMap<String, TenantId>>,
    /// Beside those of the file.
    more_max: usize,
    of_file: usize,
}

impl Tenants {
    fn new(names: &[String], more_max: u32) -> Tenants {
        let known = names.iter().cloned().zip((0..).map(TenantId)).collect();
        Tenants { known: Mutex::new(known), more_max: more_max as usize, of_file: names.len() }
    }

    /// The id of a tenant; `None` if it is new and there are as many as there may be.
    pub fn id(&self, name: &str) -> Option<TenantId> {
        let mut known = self.known.lock().expect("nobody panics while it is held");
        if let Some(&id) = known.get(name) {
            return Some(id);
        }
        if known.len() >= self.of_file + self.more_max {
            return None;
        }
        let id = TenantId(known.len() as u32);
        known.insert(name.to_owned(), id);
        Some(id)
    }

    /// Takes the names of another file in, if none of them has another id already.
    ///
    /// # Errors
    /// In words, and then nothing has changed.
    pub fn adopt(&self, names: &[String]) -> Result<(), String> {
        let mut known = self.known.lock().expect("nobody panics while it is held");
        for (id, name) in (0..).map(TenantId).zip(names) {
            let taken = id.index() < known.len();
            if known.get(name).map_or(taken, |&known| known != id) {
                return Err(format!(
                    "the tenant `{name}` cannot be added: a header has named a tenant since the \
                     gateway started, and numbers are given in order"
                ));
            }
        }
        known.extend(names.iter().cloned().zip((0..).map(TenantId)));
        Ok(())
    }

    /// All names, in the order of their ids.
    pub fn names(&self) -> Vec<String> {
        let known = self.known.lock().expect("nobody panics while it is held");
        let mut names = vec![String::new(); known.len()];
        for (name, id) in known.iter() {
            names[id.index()] = name.clone();
        }
        names
    }
}

/// Counters that only rise, and gauges; each means what its name says.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub connections: AtomicU64,
    pub connections_refused: AtomicU64,
    /// Requests that were answered before the allocator was asked: bad, without a key, too large.
    pub turned_away: AtomicU64,
    /// Requests that were answered, by the first digit of the status.
    pub answered: [AtomicU64; 6],
    /// Streams that a backend broke off, and that were told so.
    pub broken_streams: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
