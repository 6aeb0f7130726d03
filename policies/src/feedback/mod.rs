//! What adapts to what happens: the rules of [`Config::feedback`]. Without rules an input pays
//! for a branch or two.

mod autoscale;
mod breaker;
mod concurrency;
mod evict;
mod slo_caps;

use plimsoll_base::{BackendId, ClassId, End, RequestId, Span, Time};

use crate::admit::Held;
use crate::caps::Caps;
use crate::config::{Config, Feedback as Rule};
use crate::message::{BackendInfo, Load, REPORT_EVERY, Signal};
use crate::place::Backends;
use autoscale::Autoscale;
use breaker::Breaker;
use concurrency::Concurrency;
pub(crate) use evict::Evict;
use slo_caps::SloCaps;

/// The rules and their state.
#[derive(Debug)]
pub(crate) struct Feedback {
    concurrency: Option<Concurrency>,
    breaker: Option<Breaker>,
    slo_caps: Option<SloCaps>,
    autoscale: Option<Autoscale>,
}

impl Feedback {
    pub fn new(config: &Config) -> Feedback {
        let mut feedback =
            Feedback { concurrency: None, breaker: None, slo_caps: None, autoscale: None };
        for rule in &config.feedback {
            match rule {
                Rule::AdaptiveConcurrency { by, min } => {
                    feedback.concurrency = Some(Concurrency::new(*by, *min));
                }
                Rule::CircuitBreaker { failures, open_for } => {
                    feedback.breaker = Some(Breaker::new(*failures, *open_for));
                }
                Rule::Autoscale(rule) => feedback.autoscale = Some(Autoscale::new(rule)),
                // Its state is the allocator's: it looks at who waits.
                Rule::EvictSheddable { .. } => {}
                Rule::SloCaps(rule) => {
                    feedback.slo_caps = Some(SloCaps::new(rule, &config.classes));
                }
            }
        }
        feedback
    }

    /// How often some rule wants reports.
    pub fn reports_every(&self) -> Option<Span> {
        let adapts = self.concurrency.as_ref().map(|_| REPORT_EVERY);
        let scales = self.autoscale.as_ref().map(Autoscale::every);
        adapts.into_iter().chain(scales).min()
    }

    /// Whether some rule limits what may be outstanding at backends, by their reports.
    pub fn limits(&self) -> bool {
        self.concurrency.is_some()
    }

    /// Whether some rule looks at first tokens.
    pub fn needs_first_tokens(&self) -> bool {
        self.slo_caps.is_some()
    }

    /// The first token of a request was delivered.
    pub fn first_token(&mut self, now: Time, (class, arrived): (ClassId, Time), caps: &mut Caps) {
        if let Some(slo_caps) = &mut self.slo_caps {
            slo_caps.first_token(now, class, arrived, caps);
        }
    }

    /// A request expired in the queue.
    pub fn expired(&mut self, now: Time, (class, arrived): (ClassId, Time), caps: &mut Caps) {
        if let Some(slo_caps) = &mut self.slo_caps {
            slo_caps.expired(now, class, arrived, caps);
        }
    }

    /// When time alone lets something go, if anything waits.
    pub fn deadline(&self) -> Time {
        self.breaker.as_ref().map_or(Time::MAX, Breaker::deadline)
    }

    /// The deadline has passed.
    pub fn tick(&mut self, now: Time, backends: &mut Backends) {
        if let Some(breaker) = &mut self.breaker {
            breaker.tick(now, backends);
        }
    }

    /// A backend took its slot.
    pub fn joined(&mut self, backend: BackendId, info: &BackendInfo, backends: &mut Backends) {
        if let Some(concurrency) = &mut self.concurrency {
            concurrency.joined(backend, info, backends);
        }
        if let Some(breaker) = &mut self.breaker {
            breaker.joined(backend);
        }
        if let Some(autoscale) = &mut self.autoscale {
            autoscale.joined(backend, info);
        }
    }

    /// A backend that was there is gone.
    pub fn left(&mut self, backend: BackendId) {
        if let Some(breaker) = &mut self.breaker {
            breaker.left(backend);
        }
    }

    /// A backend that is there spoke of itself.
    pub fn reported(
        &mut self,
        now: Time,
        (backend, load, as_of): (BackendId, &Load, Time),
        backends: &mut Backends,
    ) {
        if let Some(concurrency) = &mut self.concurrency {
            concurrency.reported(now, (backend, load, as_of), backends);
        }
    }

    /// A backend spoke: it may be time to look how many are needed.
    pub fn look(&mut self, now: Time, held: Held, backends: &Backends) {
        if let Some(autoscale) = &mut self.autoscale {
            autoscale.look(now, held, backends.states());
        }
    }

    /// The next piece of advice.
    pub fn poll_signal(&mut self) -> Option<Signal> {
        self.autoscale.as_mut()?.poll().map(Signal::Scale)
    }

    /// A request was sent to a backend, which has taken its seat.
    #[inline]
    pub fn dispatched(&mut self, id: RequestId, backend: BackendId, backends: &mut Backends) {
        if let Some(breaker) = &mut self.breaker {
            breaker.dispatched(id, backend, backends);
        }
    }

    /// A request ended at a backend.
    #[inline]
    pub fn ended(
        &mut self,
        now: Time,
        (id, backend, end): (RequestId, BackendId, End),
        backends: &mut Backends,
    ) {
        if let Some(breaker) = &mut self.breaker {
            breaker.ended(now, (id, backend, end), backends);
        }
    }
}
