//! Saturation gate: a class may come in while the backends are less full than its ceiling.
//!
//! **What it does.** Each backend's report says how many requests stand in its own queue and what
//! part of its KV memory is held. A backend is as full as the fuller of the two,
//! `max(waiting / waiting_full, kv_used / kv_full)`, at most 1. The *saturation* is the mean over
//! the backends. A request whose class states a ceiling is refused (`saturated`) at or above it.
//! With a low ceiling for batch and a high one for chat, batch is turned away while there is
//! still room for chat.
//!
//! **Source.** The saturation detector of the Gateway API inference extension (llm-d router),
//! which takes the mean of the same maximum. A backend counts as full at most, so that one that
//! drowns does not close the pool for the others.
//!
//! **Stale reports.** A report older than `stale_after` is stale. What a backend without a fresh
//! report counts as is stated, never implied:
//!
//! | `stale` | it counts | if no backend has a fresh report |
//! |---|---|---|
//! | `open` (default) | not at all | everyone may come in |
//! | `closed` | as full | everyone with a ceiling is refused (`stale_signal`) |
//! | `last` | by its last report, however old | as they last said |
//!
//! **Promise.** With `open` a metrics outage never halts a healthy pool (the regression behind
//! this rule: llm-d-router #2408), and one fresh backend of many suffices to decide. With
//! `closed` nothing comes in on hope. A refusal for lack of fresh reports says so.
//!
//! **How it fails.** Reports lag: everything that is let in between two reports sees the same
//! saturation, so the gate overshoots by what arrives in that time, and with `open` an outage
//! during an overload lets everything in. It bounds nothing by itself; a queue bound does.

use plimsoll_base::{BackendId, ClassId, Reason, Refusal, Span, Time};

use super::{Objection, RETRY_MIN};
use crate::config::{SaturationGate, Stale};
use crate::message::{Load, REPORT_EVERY};
use crate::place::SLOTS_MAX;

/// A whole: full.
const FULL: u64 = 1_000_000;

/// The reports, and what they add up to.
#[derive(Debug)]
pub(crate) struct Gate {
    waiting_full: u64,
    kv_full_ppm: u64,
    stale_after: Span,
    stale: Stale,
    /// Indexed by class; `None`: not asked.
    ceilings: Vec<Option<u64>>,
    /// Indexed by backend slot.
    rows: Vec<Row>,
    /// What the rows add up to, as long as no report comes and none turns stale.
    sums: Option<Sums>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    /// The generation of the backend that is there.
    here: Option<u32>,
    /// How full it was, in millionths, and when.
    report: Option<(u64, Time)>,
}

/// Millionths added up, over so many backends.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    fullness: u64,
    backends: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sums {
    fresh: Sum,
    /// All that ever reported.
    last: Sum,
    /// All that are there, those without a fresh report as full.
    closed: Sum,
    /// The last instant at which this holds.
    until: Time,
}

impl Sum {
    fn add(&mut self, fullness: u64) {
        self.fullness += fullness;
        self.backends += 1;
    }
    fn reaches(self, ceiling: u64) -> bool {
        self.backends > 0 && self.fullness >= ceiling * self.backends
    }
}

impl Gate {
    pub fn new(rule: &SaturationGate, classes: usize) -> Gate {
        let mut ceilings = vec![None; classes];
        for &(class, ceiling) in &rule.ceilings {
            ceilings[class.index()] = Some(u64::from(ceiling));
        }
        Gate {
            waiting_full: rule.waiting_full.into(),
            kv_full_ppm: rule.kv_full_ppm.into(),
            stale_after: rule.stale_after,
            stale: rule.stale,
            ceilings,
            rows: Vec::new(),
            sums: None,
        }
    }

    /// Often enough that a single lost report does not make one stale.
    pub fn reports_every(&self) -> Span {
        REPORT_EVERY.min(Span::from_nanos((self.stale_after.nanos() / 2).max(1)))
    }

    /// O(1), but for the first request after a report or after one turned stale: O(backends).
    pub fn ask(&mut self, now: Time, class: ClassId) -> Result<(), Objection> {
        let Some(ceiling) = self.ceilings[class.index()] else { return Ok(()) };
        let sums = self.sums(now);
        let sum = match self.stale {
            Stale::Open => sums.fresh,
            Stale::Closed => sums.closed,
            Stale::Last => sums.last,
        };
        if !sum.reaches(ceiling) {
            return Ok(());
        }
        let reason = match self.stale {
            Stale::Closed if !sums.fresh.reaches(ceiling) => Reason::StaleSignal,
            Stale::Open | Stale::Closed | Stale::Last => Reason::Saturated,
        };
        Err(Objection { refusal: Refusal::Saturated, reason, retry_after: RETRY_MIN })
    }

    pub fn joined(&mut self, backend: BackendId) {
        let at = backend.index();
        if at >= SLOTS_MAX {
            return;
        }
        if at >= self.rows.len() {
            self.rows.resize(at + 1, Row::default());
        }
        self.rows[at] = Row { here: Some(backend.generation), report: None };
        self.sums = None;
    }

    pub fn left(&mut self, backend: BackendId) {
        if let Some(row) = self.row(backend) {
            *row = Row::default();
            self.sums = None;
        }
    }

    /// Takes a report of a backend that is there, unless a newer one is known.
    pub fn reported(&mut self, backend: BackendId, load: &Load, as_of: Time) {
        let waiting = u64::from(load.waiting) * FULL / self.waiting_full;
        let kv = u64::from(load.kv_used_ppm) * FULL / self.kv_full_ppm;
        if let Some(row) = self.row(backend)
            && row.report.is_none_or(|(_, known)| known <= as_of)
        {
            row.report = Some((waiting.max(kv).min(FULL), as_of));
            self.sums = None;
        }
    }

    fn row(&mut self, backend: BackendId) -> Option<&mut Row> {
        let row = self.rows.get_mut(backend.index())?;
        (row.here == Some(backend.generation)).then_some(row)
    }

    fn sums(&mut self, now: Time) -> Sums {
        if let Some(sums) = self.sums
            && now <= sums.until
        {
            return sums;
        }
        let (fresh, last, closed) = Default::default();
        let mut sums = Sums { fresh, last, closed, until: Time::MAX };
        for row in self.rows.iter().filter(|row| row.here.is_some()) {
            let fresh_until = row.report.map(|(_, as_of)| as_of.saturating_add(self.stale_after));
            match (row.report, fresh_until) {
                (Some((fullness, _)), Some(until)) if now <= until => {
                    sums.fresh.add(fullness);
                    sums.closed.add(fullness);
                    sums.last.add(fullness);
                    sums.until = sums.until.min(until);
                }
                (report, _) => {
                    sums.closed.add(FULL);
                    report.into_iter().for_each(|(fullness, _)| sums.last.add(fullness));
                }
            }
        }
        self.sums = Some(sums);
        sums
    }
}
