//! The liveness guard: turns "may wait for ever" into a bound.
//!
//! A waiting request is *due* once it has waited its class's `wait_max`. While anything is due,
//! each dispatch earns `due_share_ppm` of credit, and a whole dispatch of credit (1,000,000) sends
//! the due request with the earliest due instant, whatever the share says. When it fits no
//! backend it is waited for like every picked head, so that a large request is not starved.
//!
//! **Bound.** A due request with `n` due requests ahead of it goes within
//! `ceil((n + 1) · 1,000,000 / due_share_ppm)` dispatches from the instant it is due, as long as
//! no class with due work is at its cap. Nothing that falls due later gets ahead of it. So the
//! wait is bounded while due work arrives more slowly than `due_share` × the dispatch rate; beyond
//! that `n` grows, and time-to-live is what ends the wait. Of a class with a heavy twin (see
//! [`crate::heavy_lane`]) light and heavy requests fall due apart.

use plimsoll_base::{ClassId, Span, Time};

use crate::book::Book;
use crate::class_set::ClassSet;
use crate::config::{Class, Guard as Config};

/// A whole dispatch of credit.
pub(crate) const DISPATCH: u32 = 1_000_000;

/// The due lane's thresholds and its credit.
#[derive(Debug)]
pub(crate) struct Guard {
    due_share: u32,
    /// At most [`DISPATCH`].
    credit: u32,
    /// Indexed by class; [`Span::MAX`] where the class states none.
    wait_max: Vec<Span>,
    guarded: ClassSet,
}

/// What the guard sees before a dispatch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Due {
    /// Whether anything is due, capped or not.
    pub any: bool,
    /// The due request that may go now, by slot.
    pub next: Option<u32>,
}

impl Guard {
    pub fn new(config: &Config, classes: &[Class]) -> Guard {
        let wait_max = |class: &Class| class.wait_max.unwrap_or(Span::MAX);
        let ids = (0..).map(ClassId).zip(classes);
        Guard {
            due_share: config.due_share_ppm,
            credit: 0,
            wait_max: classes.iter().map(wait_max).collect(),
            guarded: ids.filter(|(_, class)| class.wait_max.is_some()).map(|(id, _)| id).collect(),
        }
    }

    /// Looks at the oldest request of each guarded class; those of `open` classes may go.
    pub fn look(&self, now: Time, book: &Book, open: ClassSet) -> Due {
        let mut due = Due::default();
        let mut least = (Time::MAX, u64::MAX);
        for class in self.guarded.and(book.waiting()) {
            let oldest = book.oldest_in(class).expect("a waiting class has an oldest request");
            let key = (self.due_at(class, oldest.arrived), oldest.sequence);
            if key.0 > now {
                continue;
            }
            due.any = true;
            if self.may_send() && open.contains(class) && key <= least {
                least = key;
                due.next = Some(oldest.slot);
            }
        }
        due
    }

    /// Classes whose oldest request is due and could be sent with the credit there is.
    pub fn due_classes(&self, now: Time, book: &Book) -> ClassSet {
        if !self.may_send() {
            return ClassSet::EMPTY;
        }
        let due = self.guarded.and(book.waiting()).filter(|&class| {
            let oldest = book.oldest_in(class).expect("a waiting class has an oldest request");
            self.due_at(class, oldest.arrived) <= now
        });
        due.collect()
    }

    /// Books a dispatch made while something was due; `spent` is [`DISPATCH`] if the due lane
    /// sent it and 0 otherwise.
    pub fn earn(&mut self, spent: u32) {
        self.credit = (self.credit + self.due_share - spent).min(DISPATCH);
    }

    /// When a request that is not due yet could be sent by becoming due, of the classes in `open`.
    pub fn next_due(&self, now: Time, book: &Book, open: ClassSet) -> Option<Time> {
        if !self.may_send() {
            return None;
        }
        let heads = self.guarded.and(book.waiting()).and(open).filter_map(|class| {
            book.oldest_in(class).map(|oldest| self.due_at(class, oldest.arrived))
        });
        heads.filter(|&at| at > now).min()
    }

    fn may_send(&self) -> bool {
        self.credit + self.due_share >= DISPATCH
    }
    fn due_at(&self, class: ClassId, arrived: Time) -> Time {
        arrived.saturating_add(self.wait_max[class.index()])
    }
}
