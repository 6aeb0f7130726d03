//! Those who listen to the allocator: the log of its decisions and, where attribution is on, the
//! detector and whoever is told what stops each class. A run without an audience pays a branch
//! wherever something is said.

use plimsoll_base::{Fact, Observer, Time};
use plimsoll_policy::log::Writer;
use plimsoll_policy::{Allocator, Bounds, Config, Decision, Input, Signal};

use super::detection::Detection;
use super::{Event, World};
use crate::engine::Batch;
use crate::kernel::Agenda;

/// Who listens: somebody at least.
pub(super) struct Audience {
    /// Writes down what the allocator is told and decides.
    pub log: Option<Box<Writer>>,
    /// Where attribution is on.
    attribution: Option<Attribution>,
}

struct Attribution {
    detection: Detection,
    bounds: Bounds,
}

impl Audience {
    /// `attributed` is the policy of a run whose attribution is on.
    pub fn new(log: Option<Box<Writer>>, attributed: Option<&Config>) -> Option<Box<Audience>> {
        let attribution = attributed.map(|policy| Attribution {
            detection: Detection::new(policy),
            bounds: Bounds::new(policy.classes.len()),
        });
        let is_anyone_there = log.is_some() || attribution.is_some();
        is_anyone_there.then(|| Box::new(Audience { log, attribution }))
    }

    /// The allocator is about to be told something.
    // Where something is told its kind is known, and only what that kind needs remains.
    #[inline(always)]
    pub fn input(&mut self, now: Time, input: &Input, allocator: &Allocator) {
        if let Some(log) = &mut self.log {
            log.input(now, input);
        }
        if let Some(Attribution { detection, .. }) = &mut self.attribution {
            detection.detector.input(now, input, allocator);
        }
    }

    /// The allocator has decided.
    #[inline(never)]
    pub fn decision(&mut self, now: Time, decision: &Decision, allocator: &Allocator) {
        if let Some(Attribution { detection, .. }) = &mut self.attribution {
            detection.detector.decision(now, decision, allocator);
        }
        if let Some(log) = &mut self.log {
            log.decision(decision);
        }
    }

    /// The allocator has come to rest: tells what has changed since that was told last, mostly
    /// nothing, and what is wrong.
    #[inline(never)]
    pub fn rest(&mut self, now: Time, allocator: &Allocator, observer: &mut impl Observer) {
        let Some(Attribution { detection, bounds }) = &mut self.attribution else { return };
        bounds.tell(now, allocator.standing(), observer);
        detection.detector.settle(now, allocator);
        if detection.detector.has_alarms() {
            self.tell_alarms(now, observer);
        }
    }

    #[cold]
    fn tell_alarms(&mut self, now: Time, observer: &mut impl Observer) {
        let Audience { log, attribution } = self;
        let Some(Attribution { detection, .. }) = attribution else { return };
        while let Some(signal) = detection.detector.poll() {
            if let Some(log) = log {
                log.signal(&signal);
            }
            match signal {
                Signal::Alarm(alarm) => observer.observe(now, &Fact::Alarmed(alarm)),
                Signal::Scale(..) => {}
            }
        }
    }
}

impl<B: Batch, O: Observer> World<B, O> {
    /// Hands the allocator an input.
    #[inline(always)]
    pub(super) fn tell(&mut self, now: Time, input: Input) {
        if let Some(audience) = &mut self.audience {
            // A copy, so that without an audience the input need not be in memory.
            audience.input(now, &input.clone(), &self.allocator);
        }
        self.allocator.handle(now, input);
    }

    /// The allocator's next decision.
    #[inline(always)]
    pub(super) fn heed(&mut self, now: Time) -> Option<Decision> {
        let decision = self.allocator.poll();
        if let Some(audience) = &mut self.audience {
            match &decision {
                Some(decision) => audience.decision(now, decision, &self.allocator),
                None => self.tell_advice(now),
            }
        }
        decision
    }

    /// All that the allocator decided was carried out.
    #[inline(always)]
    pub(super) fn rest(&mut self, now: Time) {
        if let Some(audience) = &mut self.audience {
            audience.rest(now, &self.allocator, &mut self.chronicle.observer);
        }
    }

    /// Keeps the detector's next look on the agenda.
    #[inline(always)]
    pub(super) fn keep_watch(&mut self, now: Time, agenda: &mut Agenda<Event>) {
        if let Some(Audience { attribution: Some(attribution), .. }) = self.audience.as_deref_mut()
        {
            attribution.detection.keep_watch(now, agenda);
        }
    }

    /// It is time for the detector to look.
    #[inline(never)]
    pub(super) fn watch(&mut self, now: Time) {
        if let Some(Audience { attribution: Some(attribution), .. }) = self.audience.as_deref_mut()
        {
            attribution.detection.woken();
        }
        self.rest(now);
    }
}
