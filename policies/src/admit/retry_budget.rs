//! Retry budget: retries come in only in proportion to first attempts.
//!
//! **What it does.** A request that says it was tried before (`RequestInfo::attempt` above 0) is a
//! retry. Of retries the rule lets in `min` and `ratio` of the first attempts that it was asked
//! for, both in the last `window`; more are refused (`retry_budget`). First attempts are never
//! refused. `Retry-After` is the instant at which a retry would come in if nothing else came,
//! because those before it have left the window.
//!
//! The window moves in ten slices: it is the present slice and the nine before it.
//!
//! **Source.** `RetryBudget` of Finagle (`ttl`, `minRetriesPerSec`, `percentCanRetry` of 20 %), which
//! counts in ten slices too; Envoy has the same as `retry_budget` (`budget_percent`,
//! `min_retry_concurrency`) against requests that are active.
//!
//! **Promise.** Whenever a retry is let in, the retries let in during the window, it included, are
//! at most `min + ratio ·` first attempts in it. So a fault that makes every client try again and
//! again adds at most that part to the load: the storm cannot keep itself alive.
//!
//! **How it fails.** It believes the mark: a client that sends its retries as first attempts is
//! not bound, and feeds the budget of others. Whose retry is let in is chance; the budget is one
//! for all classes it names. A retry that a later rule or a full queue refuses has used its part:
//! put this rule last.

use plimsoll_base::{Reason, Refusal, Span, Time};

use super::{Candidate, Objection, named};
use crate::class_set::ClassSet;
use crate::config::RetryBudget as Rule;

/// Slices of a window.
pub(crate) const SLICES: u64 = 10;
/// Millionths of a whole.
const WHOLE: u128 = 1_000_000;

/// What came in lately.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    ratio_ppm: u32,
    min: u32,
    slice: Span,
    classes: ClassSet,
    /// The present slice's number since the beginning of time; its place is that modulo the length.
    present: u64,
    slices: [Slice; SLICES as usize],
    /// They added up.
    all: Slice,
}

/// Of one slice.
#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    firsts: u64,
    retries: u64,
}

impl Slice {
    fn without(self, other: Slice) -> Slice {
        let Slice { firsts, retries } = self;
        Slice { firsts: firsts - other.firsts, retries: retries - other.retries }
    }
}

impl RetryBudget {
    pub fn new(rule: &Rule, classes: usize) -> RetryBudget {
        RetryBudget {
            ratio_ppm: rule.ratio_ppm,
            min: rule.min,
            slice: Span::from_nanos(rule.window.nanos() / SLICES),
            classes: named(&rule.classes, classes),
            present: 0,
            slices: Default::default(),
            all: Slice::default(),
        }
    }

    pub fn ask(&mut self, now: Time, who: Candidate) -> Result<(), Objection> {
        if !self.classes.contains(who.class) {
            return Ok(());
        }
        self.advance(now);
        if who.is_retry && !self.has_room(self.all) {
            let (refusal, reason) = (Refusal::RateLimited, Reason::RetryBudget);
            return Err(Objection { refusal, reason, retry_after: self.retry_after(now) });
        }
        let slice = &mut self.slices[(self.present % SLICES) as usize];
        for counts in [slice, &mut self.all] {
            match who.is_retry {
                true => counts.retries += 1,
                false => counts.firsts += 1,
            }
        }
        Ok(())
    }

    fn has_room(&self, counts: Slice) -> bool {
        let budget =
            u128::from(self.min) * WHOLE + u128::from(counts.firsts) * u128::from(self.ratio_ppm);
        (u128::from(counts.retries) + 1) * WHOLE <= budget
    }

    /// Until so many slices have left the window that one more has room.
    fn retry_after(&self, now: Time) -> Span {
        let mut left = self.all;
        let has_room = |&next: &u64| {
            left = left.without(self.slices[(next % SLICES) as usize]);
            self.has_room(left)
        };
        // All of the window's slices gone, `min` alone has room.
        let start = (self.present + 1..).take(SLICES as usize).find(has_room);
        let start = start.unwrap_or(self.present + SLICES);
        Time::from_nanos(start.saturating_mul(self.slice.nanos())).saturating_since(now)
    }

    /// Forgets the slices that have left the window.
    fn advance(&mut self, now: Time) {
        let present = now.nanos() / self.slice.nanos();
        for number in (self.present + 1..=present).take(SLICES as usize) {
            let slice = std::mem::take(&mut self.slices[(number % SLICES) as usize]);
            self.all = self.all.without(slice);
        }
        self.present = present;
    }
}
