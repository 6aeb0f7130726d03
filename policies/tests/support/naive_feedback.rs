//! The rules of feedback the plain way.

use std::collections::BTreeMap;

use plimsoll_base::{BackendId, Bound, ClassId, End, RequestId, Span, Time};
use plimsoll_policy::config::{Adapt, Class, Feedback};
use plimsoll_policy::{BackendInfo, Load};

/// What is known of one backend that is there.
#[derive(Clone, Debug, Default)]
struct Known {
    /// In 1/1024 of a request.
    limit: u64,
    peak: u32,
    reported: Option<Time>,
    fell: Option<Time>,
    usual: i128,
    reports: i128,
    failures: u32,
    open_until: Option<Time>,
    is_half_open: bool,
    probe: Option<RequestId>,
}

/// What feedback knows of all of them.
pub struct Adapted {
    rules: Vec<Feedback>,
    known: BTreeMap<BackendId, Known>,
    /// Caps that were moved, whether requests were late, and when caps last moved.
    caps: BTreeMap<ClassId, u32>,
    late: Vec<bool>,
    acted: Option<Time>,
}

impl Adapted {
    pub fn new(rules: &[Feedback]) -> Adapted {
        Adapted {
            rules: rules.to_vec(),
            known: BTreeMap::new(),
            caps: BTreeMap::new(),
            late: vec![],
            acted: None,
        }
    }

    /// The cap of requests of a class that states one.
    pub fn cap(&self, class: ClassId, classes: &[Class]) -> Option<u32> {
        self.caps.get(&class).copied().or(classes[class.index()].requests_max)
    }

    /// A request that arrived then got its first token now, or `None`, expired.
    pub fn result(
        &mut self,
        classes: &[Class],
        (class, arrived, begun): (ClassId, Time, Option<Time>),
        now: Time,
    ) {
        let rule = self.rules.iter().find_map(|rule| match rule {
            Feedback::SloCaps(rule) => Some(rule.clone()),
            _ => None,
        });
        let Some(rule) = rule.filter(|rule| rule.class == class) else { return };
        if self.acted.is_some_and(|acted| acted >= arrived) {
            return;
        }
        let deadline = classes[class.index()].deadline.expect("the rule needs it");
        self.late.push(begun.is_none_or(|begun| begun > arrived + deadline));
        if self.late.len() < rule.window as usize {
            return;
        }
        let late = self.late.iter().filter(|late| **late).count() as f64;
        let is_missed = late / self.late.len() as f64 > f64::from(rule.misses_max_ppm) / 1e6;
        self.late.clear();
        for lesser in rule.lesser {
            let cap = self.cap(lesser, classes).expect("the rule needs it");
            let stated = classes[lesser.index()].requests_max.expect("the rule needs it");
            let lower = cap.saturating_sub(rule.step).max(rule.min);
            let moved = if is_missed { lower } else { (cap + rule.step).min(stated) };
            if moved != cap {
                self.caps.insert(lesser, moved);
                self.acted = Some(now);
            }
        }
    }

    /// Whether the rest of some backend is over.
    pub fn tick(&mut self, now: Time) -> bool {
        let mut is_over = false;
        for known in self.known.values_mut() {
            if known.open_until.is_some_and(|until| until <= now) {
                (known.open_until, known.is_half_open) = (None, true);
                is_over = true;
            }
        }
        is_over
    }

    pub fn joined(&mut self, id: BackendId, info: &BackendInfo) {
        let mut known = Known { limit: u64::MAX, ..Known::default() };
        for rule in &self.rules {
            if let Feedback::AdaptiveConcurrency { min, .. } = rule {
                known.limit = u64::from(info.seats.max(*min)) * 1024;
            }
        }
        self.known.insert(id, known);
    }

    /// Only those count that are there.
    pub fn keep(&mut self, backends: &BTreeMap<BackendId, BackendInfo>) {
        self.known.retain(|id, _| backends.contains_key(id));
    }

    /// What stops one more request at a backend with so many and a window of so many.
    pub fn stop(&self, id: BackendId, requests: u32, window: u32) -> Option<Bound> {
        let known = &self.known[&id];
        let limit = u32::try_from(known.limit / 1024).unwrap_or(u32::MAX);
        let is_shut = known.open_until.is_some() || known.probe.is_some();
        match () {
            () if requests >= window => Some(Bound::Seats),
            () if requests >= limit => Some(Bound::Adaptive),
            () if is_shut => Some(Bound::Breaker),
            () => None,
        }
    }

    pub fn dispatched(&mut self, id: RequestId, backend: BackendId, requests: u32) {
        let known = self.known.get_mut(&backend).expect("it is there");
        known.peak = known.peak.max(requests);
        if known.is_half_open && known.probe.is_none() {
            known.probe = Some(id);
        }
    }

    pub fn ended(&mut self, now: Time, id: RequestId, backend: BackendId, end: End) {
        let breaker = self.rules.iter().find_map(|rule| match rule {
            Feedback::CircuitBreaker { failures, open_for } => Some((*failures, *open_for)),
            _ => None,
        });
        let (Some((failures, open_for)), Some(known)) = (breaker, self.known.get_mut(&backend))
        else {
            return;
        };
        if known.open_until.is_some() {
            return;
        }
        if known.is_half_open {
            if known.probe != Some(id) {
                return;
            }
            known.probe = None;
            known.failures = 0;
            match end {
                End::Finished => known.is_half_open = false,
                End::Failed => {
                    (known.is_half_open, known.open_until) = (false, Some(now + open_for));
                }
                End::Cancelled | End::Expired | End::Evicted => {}
            }
            return;
        }
        match end {
            End::Finished => known.failures = 0,
            End::Failed => known.failures += 1,
            End::Cancelled | End::Expired | End::Evicted => {}
        }
        if known.failures >= failures {
            (known.failures, known.open_until) = (0, Some(now + open_for));
        }
    }

    pub fn reported(
        &mut self,
        now: Time,
        (backend, load, as_of): (BackendId, Load, Time),
        (requests, window): (u32, u32),
    ) {
        let rule = self.rules.iter().find_map(|rule| match rule {
            Feedback::AdaptiveConcurrency { by, min } => Some((*by, *min)),
            _ => None,
        });
        let Some((by, min)) = rule else { return };
        let known = self.known.get_mut(&backend).expect("it is there");
        if known.reported.is_some_and(|reported| reported >= as_of) {
            return;
        }
        known.reported = Some(as_of);
        let peak = std::mem::replace(&mut known.peak, requests);
        if load.waiting > 0 && load.queue_wait == Span::ZERO {
            return;
        }
        let limit = known.limit;
        let wanted = match by {
            Adapt::Aimd { target } if load.queue_wait > target => limit / 1024 * 7 / 8 * 1024,
            Adapt::Aimd { .. } if u64::from(peak) >= limit / 1024 => limit + 1024,
            Adapt::Aimd { .. } => limit,
            Adapt::Gradient { base } => known.gradient(load.queue_wait + base, peak),
        };
        let wanted = wanted.min(u64::from(window) * 1024).max(u64::from(min) * 1024);
        let fell_since = known.fell.is_some_and(|fell| as_of <= fell);
        if wanted >= limit {
            known.limit = wanted;
        } else if !fell_since {
            (known.limit, known.fell) = (wanted, Some(now));
        }
    }
}

impl Known {
    fn gradient(&mut self, wait: Span, peak: u32) -> u64 {
        let wait = i128::from(wait.nanos());
        self.reports += 1;
        let weight = if self.reports <= 10 { (1, self.reports) } else { (2, 601) };
        self.usual += (wait * 1024 - self.usual) * weight.0 / weight.1;
        let usual = self.usual;
        if usual > 2 * 1024 * wait {
            self.usual = usual / 20 * 19;
        }
        if u64::from(peak) * 1024 < self.limit / 2 {
            return self.limit;
        }
        let gradient = (usual * 3 / 2 / wait).clamp(512, 1024) as u64;
        let wanted = self.limit * gradient / 1024 + 4 * 1024;
        self.limit - self.limit / 5 + wanted / 5
    }
}
