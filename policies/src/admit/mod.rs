//! Whether a request may come in: the rules of [`Config::admit`], asked in order.
//!
//! The first that objects refuses. What the rules before it had reserved is given back, as it is
//! when the request is refused later, expires or is withdrawn before it ran. Without rules a
//! request pays for one branch.

mod bucket;
mod drain;
mod early;
mod gate;
mod retry;
mod retry_budget;

use plimsoll_base::{BackendId, ClassId, Reason, Refusal, Span, TenantId, Time};

use crate::class_set::ClassSet;
use crate::config::{Admit, Config, Feedback};
use crate::message::Load;
use bucket::Buckets;
pub(crate) use drain::Drains;
use early::Early;
use gate::Gate;
pub(crate) use retry::{RETRY_MIN, retry_after};
use retry_budget::RetryBudget;
pub(crate) use retry_budget::SLICES;

/// What the rules see of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub class: ClassId,
    pub tenant: TenantId,
    /// Prompt + predicted output.
    pub tokens: u64,
    /// Whether it was tried before.
    pub is_retry: bool,
}

/// What was let in and has not ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    pub requests: u64,
    /// Estimated: prompt + predicted output.
    pub tokens: u64,
}

impl Held {
    fn add(&mut self, who: Candidate) {
        self.requests += 1;
        self.tokens += who.tokens;
    }
}

/// Why a request may not come in, and when its client may come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Objection {
    pub refusal: Refusal,
    pub reason: Reason,
    pub retry_after: Span,
}

#[derive(Debug)]
enum Rule {
    Bucket(Buckets),
    Gate(Gate),
    Early(Early),
    RetryBudget(RetryBudget),
}

/// The rules and their state.
#[derive(Debug)]
pub(crate) struct Admission {
    rules: Vec<Rule>,
    /// Counted where a rule of feedback looks at it.
    held: Option<Held>,
}

impl Admission {
    pub fn new(config: &Config) -> Admission {
        let rule = |rule: &Admit| match rule {
            Admit::TokenBucket(rule) => Rule::Bucket(Buckets::new(rule, config.classes.len())),
            Admit::SaturationGate(rule) => Rule::Gate(Gate::new(rule, config.classes.len())),
            Admit::EarlyRefusal(rule) => Rule::Early(Early::new(rule, &config.classes)),
            Admit::RetryBudget(rule) => {
                Rule::RetryBudget(RetryBudget::new(rule, config.classes.len()))
            }
        };
        let counts = |rule: &Feedback| matches!(rule, Feedback::Autoscale(_));
        let held = config.feedback.iter().any(counts).then(Held::default);
        Admission { rules: config.admit.iter().map(rule).collect(), held }
    }

    /// Whether it need not be asked at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.held.is_none()
    }

    /// What is held, where a rule of feedback looks at it.
    pub fn held(&self) -> Held {
        self.held.unwrap_or_default()
    }

    /// Classes whose pace of dispatch some rule reads.
    pub fn paced(&self) -> ClassSet {
        let early = self.rules.iter().filter_map(|rule| match rule {
            Rule::Early(early) => Some(early.classes()),
            Rule::Bucket(_) | Rule::Gate(_) | Rule::RetryBudget(_) => None,
        });
        early.flatten().collect()
    }

    /// How often some rule wants reports.
    pub fn reports_every(&self) -> Option<Span> {
        let spans = self.rules.iter().filter_map(|rule| match rule {
            Rule::Gate(gate) => Some(gate.reports_every()),
            Rule::Bucket(_) | Rule::Early(_) | Rule::RetryBudget(_) => None,
        });
        spans.min()
    }

    /// Reserves what the request is predicted to need, or says what speaks against it. `wait` is
    /// how long a request of its class is predicted to wait.
    pub fn ask(&mut self, now: Time, who: Candidate, wait: Option<Span>) -> Result<(), Objection> {
        for at in 0..self.rules.len() {
            let answer = match &mut self.rules[at] {
                Rule::Bucket(buckets) => buckets.reserve(now, who),
                Rule::Gate(gate) => gate.ask(now, who.class),
                Rule::Early(early) => early.ask(who.class, wait),
                Rule::RetryBudget(budget) => budget.ask(now, who),
            };
            if answer.is_err() {
                give_back(&mut self.rules[..at], now, who);
                return answer;
            }
        }
        if let Some(held) = &mut self.held {
            held.add(who);
        }
        Ok(())
    }

    /// Counts a request that an allocator before this one had let in.
    pub fn hold(&mut self, now: Time, who: Candidate) {
        for rule in &mut self.rules {
            match rule {
                Rule::Bucket(buckets) => buckets.hold(now, who),
                Rule::Gate(_) | Rule::Early(_) | Rule::RetryBudget(_) => {}
            }
        }
        self.held.iter_mut().for_each(|held| held.add(who));
    }

    /// The request never ran.
    pub fn give_back(&mut self, now: Time, who: Candidate) {
        give_back(&mut self.rules, now, who);
        self.let_go(who);
    }

    fn let_go(&mut self, who: Candidate) {
        if let Some(held) = &mut self.held {
            held.requests -= 1;
            held.tokens -= who.tokens;
        }
    }

    /// The request ended and had used so many tokens.
    pub fn settle(&mut self, now: Time, who: Candidate, used_tokens: u64) {
        self.let_go(who);
        for rule in &mut self.rules {
            match rule {
                Rule::Bucket(buckets) => buckets.settle(now, who, used_tokens),
                Rule::Gate(_) | Rule::Early(_) | Rule::RetryBudget(_) => {}
            }
        }
    }

    /// A backend took its slot.
    pub fn joined(&mut self, backend: BackendId) {
        self.gates().for_each(|gate| gate.joined(backend));
    }

    /// A backend that was there is gone.
    pub fn left(&mut self, backend: BackendId) {
        self.gates().for_each(|gate| gate.left(backend));
    }

    /// A backend spoke of itself.
    pub fn reported(&mut self, backend: BackendId, load: &Load, as_of: Time) {
        self.gates().for_each(|gate| gate.reported(backend, load, as_of));
    }

    fn gates(&mut self) -> impl Iterator<Item = &mut Gate> {
        self.rules.iter_mut().filter_map(|rule| match rule {
            Rule::Gate(gate) => Some(gate),
            Rule::Bucket(_) | Rule::Early(_) | Rule::RetryBudget(_) => None,
        })
    }
}

fn give_back(rules: &mut [Rule], now: Time, who: Candidate) {
    for rule in rules {
        match rule {
            Rule::Bucket(buckets) => buckets.give_back(now, who),
            Rule::Gate(_) | Rule::Early(_) | Rule::RetryBudget(_) => {}
        }
    }
}

/// The classes named, or all of `classes` if none is.
fn named(classes: &[ClassId], count: usize) -> ClassSet {
    match classes {
        [] => (0..count as u16).map(ClassId).collect(),
        named => named.iter().copied().collect(),
    }
}
