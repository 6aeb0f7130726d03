//! How fast the queue of a class drains: the mean gap between dispatches while it has work.
//!
//! A gap counts only if requests of the class waited from its beginning to its end; otherwise it
//! would measure how often requests come. The mean is exponential with weight 1/8, as the smoothed
//! round-trip time of TCP (Jacobson, SIGCOMM 1988), in integers. A gap that is still open counts as
//! soon as it is longer than the mean, so that a queue that stands still is not thought to run.

use plimsoll_base::{ClassId, Span, Time};

use crate::class_set::ClassSet;

/// Gaps to be measured before the mean counts.
const GAPS_MIN: u32 = 8;
/// One over the weight of the newest gap.
const WEIGHT: u64 = 8;
/// Longer gaps count as this, so that eight of them fit: nine years.
const GAP_MAX: u64 = 1 << 58;

/// The pace of each class that somebody asks for.
#[derive(Debug)]
pub(crate) struct Drains {
    measured: ClassSet,
    /// Indexed by class.
    paces: Vec<Pace>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// Eight times the mean gap in nanoseconds.
    mean_times_weight: u64,
    gaps: u32,
    /// The latest dispatch, if requests of the class have waited ever since.
    since: Option<Time>,
}

impl Drains {
    pub fn new(classes: usize, measured: ClassSet) -> Drains {
        Drains { measured, paces: vec![Pace::default(); classes] }
    }

    /// A request of the class was taken out of its queue to be dispatched; `queued` remain.
    #[inline]
    pub fn dispatched(&mut self, now: Time, class: ClassId, queued: impl FnOnce() -> u32) {
        if !self.measured.contains(class) {
            return;
        }
        let pace = &mut self.paces[class.index()];
        if let Some(since) = pace.since {
            pace.count(now.saturating_since(since));
        }
        pace.since = (queued() > 0).then_some(now);
    }

    /// A request of the class left its queue for another reason; `queued` remain.
    pub fn left(&mut self, class: ClassId, queued: u32) {
        if queued == 0 {
            self.paces[class.index()].since = None;
        }
    }

    /// How long one waits that comes behind `queued` others; `None` before that is measured.
    pub fn wait(&self, now: Time, class: ClassId, queued: u32) -> Option<Span> {
        let pace = &self.paces[class.index()];
        (pace.gaps >= GAPS_MIN).then(|| pace.mean(now).saturating_mul(queued.into()))
    }
}

impl Pace {
    fn count(&mut self, gap: Span) {
        let gap = gap.nanos().min(GAP_MAX);
        self.mean_times_weight = match self.gaps {
            0 => gap * WEIGHT,
            _ => self.mean_times_weight - self.mean_times_weight / WEIGHT + gap,
        };
        self.gaps = self.gaps.saturating_add(1);
    }

    fn mean(&self, now: Time) -> Span {
        let mean = self.mean_times_weight / WEIGHT;
        let open = self.since.map_or(0, |since| now.saturating_since(since).nanos());
        Span::from_nanos(mean + open.saturating_sub(mean) / WEIGHT)
    }
}
