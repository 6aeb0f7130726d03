//! Circuit breaker: a backend that fails gets a rest.
//!
//! **What it does.** After `failures` requests in a row that a backend failed (`End::Failed`) it is
//! *open*: placement passes it over. `open_for` later it is *half open*: one request, the probe, is
//! sent to it. If the probe finishes the backend is as before; if it fails, the backend is open for another
//! `open_for`; if the client leaves first, the next request is the probe. Ends of other requests
//! that still run there change nothing meanwhile. A request that only open backends have room for
//! waits, and says so (`breaker`).
//!
//! **Source.** Nygard, *Release It!*; consecutive failures and a single probe as in the outlier
//! detection of Envoy and the breaker of resilience4j.
//!
//! **Promise.** A backend that fails everything costs `failures` requests plus those that were out
//! when it opened, and one more each `open_for`. Time alone lets the probe go: the instant is a
//! deadline.
//!
//! **How it fails.** A backend that fails every other request never opens. If all backends fail because of the
//! requests (a bad prompt that is sent again and again) it shuts healthy ones; then every
//! request waits until a probe finishes. A probe that never ends holds its backend shut: bound
//! the time of requests in the driver.
//!
//! A request that failed is over: nothing is tried again here. The driver knows what its client
//! has already received, and an `Ended` that ends nothing would make the contract a matter of
//! history.

use plimsoll_base::{BackendId, End, RequestId, Span, Time};

use crate::place::Backends;

/// All breakers, by backend slot.
#[derive(Debug)]
pub(crate) struct Breaker {
    failures_max: u32,
    open_for: Span,
    rows: Vec<Row>,
    /// When the first open one becomes half open.
    deadline: Time,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    here: Option<u32>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// So many failures in a row.
    Closed(u32),
    /// Until this instant.
    Open(Time),
    /// The probe, once it is out.
    Half(Option<RequestId>),
}

impl Default for State {
    fn default() -> State {
        State::Closed(0)
    }
}

impl Breaker {
    pub fn new(failures: u32, open_for: Span) -> Breaker {
        Breaker { failures_max: failures, open_for, rows: Vec::new(), deadline: Time::MAX }
    }

    pub fn deadline(&self) -> Time {
        self.deadline
    }

    pub fn joined(&mut self, backend: BackendId) {
        let at = backend.index();
        if at >= self.rows.len() {
            self.rows.resize(at + 1, Row::default());
        }
        self.rows[at] = Row { here: Some(backend.generation), state: State::default() };
        self.plan();
    }

    pub fn left(&mut self, backend: BackendId) {
        self.rows[backend.index()] = Row::default();
        self.plan();
    }

    /// Those whose rest is over become half open.
    pub fn tick(&mut self, now: Time, backends: &mut Backends) {
        for (at, row) in self.rows.iter_mut().enumerate() {
            if let (State::Open(until), Some(generation)) = (row.state, row.here)
                && until <= now
            {
                row.state = State::Half(None);
                backends.unshut(BackendId { slot: at as u32, generation });
            }
        }
        self.plan();
    }

    pub fn dispatched(&mut self, id: RequestId, backend: BackendId, backends: &mut Backends) {
        let row = &mut self.rows[backend.index()];
        match row.state {
            State::Half(None) => {
                row.state = State::Half(Some(id));
                backends.shut(backend);
            }
            State::Closed(_) | State::Open(_) | State::Half(Some(_)) => {}
        }
    }

    pub fn ended(
        &mut self,
        now: Time,
        (id, backend, end): (RequestId, BackendId, End),
        backends: &mut Backends,
    ) {
        let Some(row) = self.rows.get_mut(backend.index()) else { return };
        if row.here != Some(backend.generation) {
            return;
        }
        match (row.state, end) {
            (State::Closed(failures), End::Failed) => {
                row.state = State::Closed(failures + 1);
                if failures + 1 >= self.failures_max {
                    self.open(now, backend, backends);
                }
            }
            (State::Closed(_), End::Finished) => row.state = State::Closed(0),
            (State::Half(Some(probe)), End::Failed) if probe == id => {
                self.open(now, backend, backends);
            }
            (State::Half(Some(probe)), End::Finished) if probe == id => {
                row.state = State::Closed(0);
                backends.unshut(backend);
            }
            (State::Half(Some(probe)), End::Cancelled | End::Expired | End::Evicted)
                if probe == id =>
            {
                row.state = State::Half(None);
                backends.unshut(backend);
            }
            (State::Closed(_), End::Cancelled | End::Expired | End::Evicted)
            | (State::Open(_) | State::Half(_), _) => {}
        }
    }

    fn open(&mut self, now: Time, backend: BackendId, backends: &mut Backends) {
        self.rows[backend.index()].state = State::Open(now.saturating_add(self.open_for));
        backends.shut(backend);
        self.plan();
    }

    fn plan(&mut self) {
        let opens = self.rows.iter().filter_map(|row| match row.state {
            State::Open(until) => Some(until),
            State::Closed(_) | State::Half(_) => None,
        });
        self.deadline = opens.min().unwrap_or(Time::MAX);
    }
}
