//! Adaptive concurrency: how many requests a backend gets follows the wait in its own queue.
//!
//! **What it does.** Each backend has a limit on outstanding requests, between `min` and what the
//! window allows; it starts at its seats. Each report moves it by what the requests started since
//! the report before had waited inside the backend (`Load::queue_wait`):
//!
//! * `aimd`: one more while the wait is at most `target` and the limit was reached since the
//!   last report; times 7/8 when it is above.
//! * `gradient`: times `1.5 · usual wait / present wait`, at least 1/2 and at most 1, plus room for
//!   4 requests, of which a fifth is believed at a time. Waits are queue waits plus `base`. The usual wait is
//!   a slow mean (600 reports), which follows down quickly once the load has gone.
//!
//! A request that the limit stops says so (`adaptive`).
//!
//! **Source.** Additive increase, multiplicative decrease: Chiu and Jain, 1989. The gradient:
//! `Gradient2Limit` of Netflix's concurrency-limits, with its constants. Both are fed queue wait
//! and never the time from end to end: a long answer takes long on an idle backend too, and a
//! limit that followed it would fall because users ask for long answers.
//!
//! **Never twice on one gauge.** A report says what was, and after the limit falls it takes a
//! while until the queue shows it. After a decrease the next one needs a report that was true
//! later (`as_of`) than the decrease. Reports that are not newer than the last are not looked at,
//! nor those that say nothing: no request was started while some wait.
//!
//! **Promise.** `min ≤ limit ≤ window`; between two decreases of a backend lies a whole report. With
//! `aimd` the wait returns below `target` within `log(limit / min) / log(8/7)` reports if any limit
//! from `min` on keeps it there.
//!
//! **How it fails.** Without load it learns nothing, and a limit that has fallen climbs back one
//! request a report. `gradient` believes a queue that has grown slowly over minutes to be
//! usual. A backend whose reports stop keeps its last limit.

use plimsoll_base::{BackendId, Span, Time};

use crate::config::Adapt;
use crate::message::{BackendInfo, Load};
use crate::place::Backends;

/// Parts of a request in which the gradient's limit is kept.
const PARTS: u64 = 1_024;
/// Requests that may queue under the gradient.
const QUEUE: u64 = 4;
/// Reports over which the usual wait is a mean, and those of which it is the plain mean at first.
const USUAL: i64 = 600;
const WARM_UP: i64 = 10;
/// Longer waits count as this: 18 minutes.
const WAIT_MAX: u64 = 1 << 40;

/// The limits.
#[derive(Debug)]
pub(crate) struct Concurrency {
    by: Adapt,
    min: u32,
    /// Indexed by backend slot.
    rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    /// In 1/[`PARTS`] of a request.
    limit: u64,
    /// When the latest report was true.
    reported: Option<Time>,
    /// When the limit last fell.
    fell: Option<Time>,
    /// The usual wait in 1/[`PARTS`] of a nanosecond, and how many reports it knows.
    usual: i64,
    reports: i64,
}

impl Concurrency {
    pub fn new(by: Adapt, min: u32) -> Concurrency {
        Concurrency { by, min, rows: Vec::new() }
    }

    pub fn joined(&mut self, backend: BackendId, info: &BackendInfo, backends: &mut Backends) {
        let at = backend.index();
        if at >= self.rows.len() {
            self.rows.resize(at + 1, Row::default());
        }
        let limit = info.seats.max(self.min);
        self.rows[at] = Row { limit: u64::from(limit) * PARTS, ..Row::default() };
        backends.limit(backend, limit);
    }

    pub fn reported(
        &mut self,
        now: Time,
        (backend, load, as_of): (BackendId, &Load, Time),
        backends: &mut Backends,
    ) {
        let row = &mut self.rows[backend.index()];
        if row.reported.is_some_and(|known| as_of <= known) {
            return;
        }
        row.reported = Some(as_of);
        let (peak, window) = backends.take_peak(backend);
        if load.waiting > 0 && load.queue_wait == Span::ZERO {
            return;
        }
        let wanted = match self.by {
            Adapt::Aimd { target } => row.additive(load.queue_wait > target, peak),
            Adapt::Gradient { base } => row.gradient(load.queue_wait, base, peak),
        };
        let least = u64::from(self.min) * PARTS;
        let wanted = wanted.min(u64::from(window) * PARTS).max(least);
        if wanted < row.limit {
            if row.fell.is_some_and(|fell| as_of <= fell) {
                return;
            }
            row.fell = Some(now);
        }
        row.limit = wanted;
        backends.limit(backend, row.requests());
    }
}

impl Row {
    fn requests(&self) -> u32 {
        u32::try_from(self.limit / PARTS).unwrap_or(u32::MAX)
    }

    fn additive(&self, is_late: bool, peak: u32) -> u64 {
        let limit = u64::from(self.requests());
        let wanted = match (is_late, peak >= self.requests()) {
            (true, _) => limit * 7 / 8,
            (false, true) => limit + 1,
            (false, false) => limit,
        };
        wanted * PARTS
    }

    fn gradient(&mut self, wait: Span, base: Span, peak: u32) -> u64 {
        let wait = wait.nanos().saturating_add(base.nanos()).min(WAIT_MAX);
        let usual = self.learn(wait) as u64;
        // The limit was not needed: nothing is learned about it.
        if u64::from(peak) * PARTS < self.limit / 2 {
            return self.limit;
        }
        let gradient = (usual * 3 / 2 / wait).clamp(PARTS / 2, PARTS);
        let wanted = self.limit / PARTS * gradient + self.limit % PARTS * gradient / PARTS;
        let wanted = wanted + QUEUE * PARTS;
        self.limit - self.limit / 5 + wanted / 5
    }

    /// Adds a wait to the usual one, which is returned.
    fn learn(&mut self, wait: u64) -> i64 {
        let parts = (wait * PARTS) as i64;
        self.reports = (self.reports + 1).min(WARM_UP + 1);
        self.usual += match self.reports {
            ..=WARM_UP => (parts - self.usual) / self.reports,
            _ => (parts - self.usual) * 2 / (USUAL + 1),
        };
        let usual = self.usual;
        // The load has gone: what was usual is not any more.
        if usual > 2 * parts {
            self.usual = usual / 20 * 19;
        }
        usual
    }
}
