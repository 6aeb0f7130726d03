//! The detector beside the allocator: it hears what the allocator hears, and its alarms are told.

use plimsoll_base::{Fact, Observer, Span, Time};
use plimsoll_policy::detect::Limits;
use plimsoll_policy::{Config, Detector, Signal};

use super::{Event, World};
use crate::engine::Batch;
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
}

impl<B: Batch, O: Observer> World<B, O> {
    /// Has the detector look, and tells its alarms.
    #[inline]
    pub(super) fn detect(&mut self, now: Time) {
        let World { detection, allocator, .. } = self;
        let Some(Detection { detector, .. }) = detection.as_deref_mut() else { return };
        detector.settle(now, allocator);
        if detector.has_alarms() {
            self.tell_alarms(now);
        }
    }

    #[cold]
    fn tell_alarms(&mut self, now: Time) {
        let World { detection, log, observer, .. } = self;
        let Some(Detection { detector, .. }) = detection.as_deref_mut() else { return };
        while let Some(signal) = detector.poll() {
            if let Some(log) = log {
                log.signal(&signal);
            }
            match signal {
                Signal::Alarm(alarm) => observer.observe(now, &Fact::Alarmed(alarm)),
                Signal::Scale(..) => {}
            }
        }
    }

    /// Keeps the detector's next look on the agenda while somebody waits: some conditions come
    /// about by time alone.
    #[inline]
    pub(super) fn keep_watch(&mut self, now: Time, agenda: &mut Agenda<Event>) {
        let Some(detection) = self.detection.as_deref_mut() else { return };
        if detection.is_planned {
            return;
        }
        if let Some(at) = detection.detector.next_check() {
            detection.is_planned = true;
            let at = at.max(now + Span::from_nanos(1));
            agenda.schedule(at, Rank::Decision, Event::Watch);
        }
    }

    /// It is time to look.
    #[inline(never)]
    pub(super) fn watch(&mut self, now: Time) {
        if let Some(detection) = &mut self.detection {
            detection.is_planned = false;
        }
        self.detect(now);
    }
}
