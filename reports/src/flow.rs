//! Backlog and service of one class while the run goes on: constant state, constant work a fact.

use plimsoll_base::{ClassSample, Span, Time};

/// An interval in which a class had requests waiting and got nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drought {
    pub from: Time,
    pub to: Time,
    /// Requests of the class that waited at its end.
    pub waiting: u64,
    /// Whether other classes were served meanwhile.
    pub others_served: bool,
    /// Whether it was seen in the samples of engine time, not at the allocator's door.
    pub in_engine: bool,
}

impl Drought {
    pub fn span(&self) -> Span {
        self.to - self.from
    }
}

/// The state of one class.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow {
    /// Requests in the allocator's queue.
    pub waiting: u64,
    /// Requests let in so far.
    pub dispatched: u64,
    /// When it was last let in, or became backlogged.
    since: Time,
    /// What the other classes had been let in by then.
    others_since: u64,
    /// The same for engine time: since when no sample shows any, and the others' by then.
    quiet_since: Time,
    others_quiet: Span,
    last: Option<(Time, ClassSample)>,
    /// The longest so far.
    pub longest: Option<Drought>,
    /// Engine time used since the warm-up.
    pub busy: Span,
}

impl Flow {
    /// One more waits; `others` requests of other classes have been let in so far.
    pub fn arrive(&mut self, now: Time, others: u64) {
        if self.waiting == 0 {
            self.since = now;
            self.others_since = others;
        }
        self.waiting += 1;
    }

    /// One is let in.
    #[inline(always)]
    pub fn dispatch(&mut self, now: Time, others: u64) {
        self.end_drought(now, others);
        self.waiting = self.waiting.saturating_sub(1);
        self.dispatched += 1;
        self.since = now;
        self.others_since = others;
    }

    /// One leaves the queue without having been let in.
    pub fn leave(&mut self, now: Time, others: u64) {
        if self.waiting == 1 {
            self.end_drought(now, others);
        }
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// What happened before the warm-up is over does not count.
    pub fn warm(&mut self, now: Time) {
        self.since = self.since.max(now);
        self.quiet_since = self.quiet_since.max(now);
        self.longest = None;
    }

    /// The run is over.
    pub fn end(&mut self, now: Time, others: u64) {
        self.end_drought(now, others);
    }

    #[inline(always)]
    fn end_drought(&mut self, now: Time, others: u64) {
        let longest = self.longest.as_ref();
        if self.waiting > 0 && longest.is_none_or(|longest| now - self.since > longest.span()) {
            self.note(Drought {
                from: self.since,
                to: now,
                waiting: self.waiting,
                others_served: others > self.others_since,
                in_engine: false,
            });
        }
    }

    #[inline(never)]
    fn note(&mut self, drought: Drought) {
        if self.longest.is_none_or(|longest| drought.span() > longest.span()) {
            self.longest = Some(drought);
        }
    }

    /// Takes a sample; returns when the one before was taken and the engine time since.
    /// `others` is the engine time of the other classes so far.
    pub fn sample(&mut self, now: Time, sample: &ClassSample, others: Span) -> (Time, Span) {
        let (before_at, before) = self.last.unwrap_or_default();
        let used = sample.busy - before.busy;
        let waited = before.queued + before.engine_waiting > 0;
        let waits = sample.queued + sample.engine_waiting > 0;
        if waited && waits && used == Span::ZERO {
            self.note(Drought {
                from: self.quiet_since,
                to: now,
                waiting: u64::from(sample.queued) + u64::from(sample.engine_waiting),
                others_served: others > self.others_quiet,
                in_engine: true,
            });
        } else {
            self.quiet_since = now;
            self.others_quiet = others;
        }
        self.last = Some((now, *sample));
        (before_at, used)
    }

    /// The engine time of the class at its latest sample.
    pub fn busy_so_far(&self) -> Span {
        self.last.map_or(Span::ZERO, |(_, sample)| sample.busy)
    }
    /// Requests that wait, in the allocator and, at the latest sample, inside engines.
    pub fn waiting_everywhere(&self) -> u64 {
        self.waiting + self.last.map_or(0, |(_, sample)| u64::from(sample.engine_waiting))
    }
}
