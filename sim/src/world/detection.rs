//! The detector beside the allocator: it hears what the allocator hears, and its alarms are told.

use plimsoll_base::{Span, Time};
use plimsoll_policy::detect::Limits;
use plimsoll_policy::{Config, Detector};

use super::Event;
use crate::kernel::{Agenda, Rank};

/// How often the conditions are looked at: often enough for alarms that must hold for a second.
const EVERY: Span = Span::from_millis(250);

/// The detector, and whether it is to be woken.
#[derive(Debug)]
pub(super) struct Detection {
    pub detector: Detector,
    is_planned: bool,
}

impl Detection {
    pub fn new(config: &Config) -> Detection {
        let limits = Limits { every: EVERY, ..Limits::default() };
        Detection { detector: Detector::new(config, limits), is_planned: false }
    }

    /// Keeps the detector's next look on the agenda while somebody waits: some conditions come
    /// about by time alone.
    #[inline]
    pub fn keep_watch(&mut self, now: Time, agenda: &mut Agenda<Event>) {
        if self.is_planned {
            return;
        }
        if let Some(at) = self.detector.next_check() {
            self.is_planned = true;
            let at = at.max(now + Span::from_nanos(1));
            agenda.schedule(at, Rank::Decision, Event::Watch);
        }
    }

    /// The look that was planned is taken.
    pub fn woken(&mut self) {
        self.is_planned = false;
    }
}
