//! How long a request of each class can wait, in the worst case, as it follows from the policy.
//!
//! **Model.** Whenever so many wait, at least [`Machine::parallel`] requests run at once (the
//! largest that there are, side by side); none holds its place for longer than
//! [`Machine::residence`]; and while so many run, each [`Machine::step`] advances at least as many
//! tokens. Then:
//!
//! - A stretch of one residence in which a request waits for a place holds at least `parallel`
//!   dispatches, because as many run at its end as at its beginning, and all of those were let in
//!   within it. A request that `n` dispatches may precede goes within
//!   `(1 + ⌊n / parallel⌋) · residence`.
//! - A request that `x` cost units of work may precede, of which a token costs at least `p`, goes
//!   within `residence + ⌈x / (p · parallel)⌉ · step`.
//!
//! **What may go first** follows from the rules:
//!
//! | rule | may go first |
//! |---|---|
//! | first come, first served | what the allocator holds |
//! | aging | the same, after the difference of the boosts: what arrives later cannot overtake |
//! | strict priority | without bound, but for the highest band: what that band may have waiting |
//! | deficit round robin | as many rounds as pay for what waits ahead in the class, each with the grants of all |
//! | virtual token counter | for each unit of its own service, the others' by weight, and the rule's gap |
//! | guard | from `wait_max` on `⌈(n + 1) / due_share⌉` dispatches, with `n` what may be due |
//!
//! No bound has been shown for a class that steps aside: one with a quota or a share of seats, and
//! every class where requests may use different backends (models, sites, dedicated pools,
//! local-first).
//!
//! The guard's dispatches come beside those of the share: `due_share / (1 - due_share)` of them. A
//! class with a cap waits for its own places too: each of its requests ahead may take a residence
//! more. The bound of a class is the least that these and its time-to-live give. Costs may be
//! predicted wrongly by any factor: all that is in flight counts as wrong. The bounds are safe and
//! far from tight; what they tell apart is a wait that is bounded from one that is not.
//!
//! **Feedback** takes places away. Under adaptive concurrency as many requests run at once as its
//! `min`, though no more than `parallel`: some backend has that limit at least. Under a circuit
//! breaker one goes in each `residence + open_for`: by then all that ran has ended, and of the
//! backends that rest one takes its probe. What fails may cost nothing, so shares that count cost
//! have no bound then. Caps that follow an objective stay at 1 at least, which is all that is
//! assumed of caps. Admission refuses those who come, and never who waits. Who is evicted does
//! not wait again, but work that is cut off is paid back too. Advice on the number of backends is no
//! promise of any.

use std::fmt;

use plimsoll_base::{ClassId, Span};

use crate::config::{
    Class, Config, Feedback, Order, Partition, Per, Place, Share, TokenCost, Window,
};
use crate::guard::DISPATCH;

/// What serves the policy's requests, at its worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The largest requests that all backends together hold at once; at least 1.
    pub parallel: u64,
    /// Requests that all backends together hold at once at most.
    pub seats: u64,
    /// The longest that a request holds its place.
    pub residence: Span,
    /// The longest step.
    pub step: Span,
    /// The longest prompt, in tokens.
    pub prompt_tokens_max: u32,
    /// The longest output, in tokens.
    pub output_tokens_max: u32,
    /// Whether some backend serves only certain models.
    pub models_differ: bool,
}

impl Machine {
    /// For whom only whether there is a bound matters, not how long it is.
    pub const UNKNOWN: Machine = Machine {
        parallel: 1,
        seats: 1,
        residence: Span::MAX,
        step: Span::MAX,
        prompt_tokens_max: 1,
        output_tokens_max: 1,
        models_differ: false,
    };
}

/// The longest wait of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitBound {
    /// Never longer than this ([`Span::MAX`]: longer than 584 years).
    Within(Span, Because),
    /// There is no bound.
    Unbounded(WhyNot),
}

/// What a bound follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// It leaves the queue then.
    TimeToLive,
    /// The guard.
    Guard,
    /// The share and the order.
    Share,
}

/// Why there is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// This class, of a higher priority, may always have work.
    Higher(ClassId),
    /// Each tenant or workflow that comes has a share too, and any number may come.
    Owners,
    /// Once its deadline has passed, all whose deadline has not go first.
    Relegated,
    /// Shorter requests may always come.
    Shorter,
    /// Workflows that were served less may always come.
    LessAttained,
    /// Requests with more of their prompt cached may always come.
    Prefixes,
    /// No bound has been shown for this rule.
    NotShown,
    /// The engine queues, where no rule acts.
    NoWindow,
    /// The guard may take every dispatch.
    Guard,
    /// Requests that fail or are evicted are paid back, and any number may.
    PaidBack,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WhyNot::Higher(class) => {
                return write!(f, "class {class}, of a higher priority, may always have work");
            }
            WhyNot::Owners => "each tenant or workflow that comes has a share, and any number may",
            WhyNot::Relegated => {
                "once its deadline has passed, all whose deadline has not go first"
            }
            WhyNot::Shorter => "shorter requests may always come",
            WhyNot::LessAttained => "workflows that were served less may always come",
            WhyNot::Prefixes => "requests with more of their prompt cached may always come",
            WhyNot::NotShown => "no bound has been shown for these rules",
            WhyNot::NoWindow => "the engine queues, where no rule acts",
            WhyNot::Guard => "the guard may take every dispatch",
            WhyNot::PaidBack => "requests that fail or are evicted are paid back, any number may",
        })
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Because::TimeToLive => "it leaves the queue then",
            Because::Guard => "the guard lets it in",
            Because::Share => "its turn comes",
        })
    }
}

/// The bound of each class, indexed by class.
pub fn wait_bounds(config: &Config, machine: &Machine) -> Vec<WaitBound> {
    let study = Study { config, machine: &left_by_feedback(config, *machine) };
    let classes = (0..).map(ClassId).zip(&config.classes);
    classes.map(|(id, class)| study.bound(id, class)).collect()
}

/// The machine without the places that the rules of feedback may take away.
fn left_by_feedback(config: &Config, mut machine: Machine) -> Machine {
    for rule in &config.feedback {
        match *rule {
            Feedback::AdaptiveConcurrency { by: _, min } => {
                machine.parallel = machine.parallel.min(min.into());
            }
            Feedback::CircuitBreaker { failures: _, open_for } => {
                machine.parallel = 1;
                machine.residence = machine.residence.saturating_add(open_for);
            }
            Feedback::SloCaps(_) | Feedback::EvictSheddable { .. } | Feedback::Autoscale(_) => {}
        }
    }
    machine
}

struct Study<'a> {
    config: &'a Config,
    machine: &'a Machine,
}

impl Study<'_> {
    fn bound(&self, id: ClassId, class: &Class) -> WaitBound {
        let (by_share, by_guard) = match self.config.window {
            Window::None => (Err(WhyNot::NoWindow), None),
            Window::Seats if self.steps_aside(id) => (Err(WhyNot::NotShown), None),
            Window::Seats => (self.by_share(class), self.by_guard(class)),
        };
        let bounds = [
            (class.time_to_live, Because::TimeToLive),
            (by_guard, Because::Guard),
            (by_share.ok(), Because::Share),
        ];
        let known = bounds.into_iter().filter_map(|(span, because)| Some((span?, because)));
        match (known.min_by_key(|(span, _)| *span), by_share) {
            (Some((span, because)), _) => WaitBound::Within(span, because),
            (None, Err(why)) => WaitBound::Unbounded(why),
            (None, Ok(_)) => unreachable!("what the share bounds is known"),
        }
    }

    /// Whether the class may step aside by a rule for which no bound has been shown.
    fn steps_aside(&self, id: ClassId) -> bool {
        self.reaches_differ()
            || self.config.partition.iter().any(|rule| match rule {
                Partition::HeavyLane { .. } | Partition::Dedicated(_) => false,
                Partition::Quota(rule) => {
                    rule.groups.iter().any(|group| group.classes.contains(&id))
                }
                Partition::Concurrency(rule) => {
                    rule.shares_ppm.iter().any(|(class, _)| *class == id)
                }
            })
    }

    /// Whether some class may go where another may not, or not yet.
    fn reaches_differ(&self) -> bool {
        self.machine.models_differ
            || self.config.classes.iter().any(|class| class.sites != 0)
            || self.config.place.iter().any(|rule| matches!(rule, Place::LocalFirst(_)))
            || self.config.partition.iter().any(|rule| matches!(rule, Partition::Dedicated(_)))
    }

    /// Requests of the class that may wait at once.
    fn queue(&self, class: &Class) -> u128 {
        class.queue_max.unwrap_or(u32::MAX).min(self.config.requests_max).into()
    }

    /// Requests of some classes that may wait at once.
    fn queues<'c>(&self, classes: impl Iterator<Item = &'c Class>) -> u128 {
        let all: u128 = classes.map(|class| self.queue(class)).sum();
        all.min(self.config.requests_max.into())
    }

    /// The time until a request goes that so many dispatches of the share may precede.
    fn after_dispatches(&self, class: &Class, count: u128) -> Option<Span> {
        Some(self.after_all_dispatches(class, count.saturating_add(self.beside(count)?)))
    }

    fn after_all_dispatches(&self, class: &Class, count: u128) -> Span {
        let rounds = 1 + count / u128::from(self.machine.parallel);
        self.with_own_cap(class, times(self.machine.residence, rounds))
    }

    /// The time until a request goes that so many cost units of the share's work may precede.
    fn after_work(&self, class: &Class, cost: TokenCost, units: u128) -> Option<Span> {
        let cheapest = [cost.prompt, cost.output].into_iter().filter(|&price| price > 0).min();
        let price = u128::from(cheapest.expect("a token costs something"));
        let beside = self.beside(units / price)?.saturating_mul(self.cost_max(cost));
        let steps =
            units.saturating_add(beside).div_ceil(price * u128::from(self.machine.parallel));
        let work = self.machine.residence.saturating_add(times(self.machine.step, steps));
        Some(self.with_own_cap(class, work))
    }

    /// Dispatches beside so many of the share: those that go past a request that is next and fits
    /// nowhere, and the guard's. `None` if the guard may take all.
    fn beside(&self, count: u128) -> Option<u128> {
        let past = (count + 1).saturating_mul(self.config.bypass_max.into());
        let Some(guard) = self.config.guard else { return Some(past) };
        let due = u128::from(guard.due_share_ppm);
        let rest = u128::from(DISPATCH) - due;
        let count = count.saturating_add(past).saturating_add(1);
        // What the guard may send at once for what it has saved up, and one for the rounding.
        (rest > 0).then(|| past.saturating_add(count.saturating_mul(due).div_ceil(rest)) + 2)
    }

    /// Where the class has a cap, each of its requests ahead waits for its turn and for a place of
    /// the class; where heavy requests have one together, each heavy one ahead does.
    fn with_own_cap(&self, class: &Class, turn: Span) -> Span {
        let each = turn.saturating_add(self.machine.residence);
        if self.has_heavy_lane() {
            times(each, self.queues(self.config.classes.iter()) + 1)
        } else if is_capped(class) {
            times(each, self.queue(class) + 1)
        } else {
            turn
        }
    }

    fn has_heavy_lane(&self) -> bool {
        self.config.partition.iter().any(|rule| matches!(rule, Partition::HeavyLane { .. }))
    }

    /// Whether feedback presumes that requests end before they have used anything.
    fn pays_back(&self) -> bool {
        self.config.feedback.iter().any(|rule| match rule {
            Feedback::CircuitBreaker { .. } | Feedback::EvictSheddable { .. } => true,
            Feedback::AdaptiveConcurrency { .. }
            | Feedback::SloCaps(_)
            | Feedback::Autoscale(_) => false,
        })
    }

    fn by_guard(&self, class: &Class) -> Option<Span> {
        let share = u128::from(self.config.guard?.due_share_ppm);
        let wait_max = class.wait_max?;
        let classes = (0..).map(ClassId).zip(&self.config.classes);
        let guarded = classes.filter(|(_, class)| class.wait_max.is_some());
        let due = self.queues(guarded.clone().map(|(_, class)| class)) + 1;
        let dispatches = (due * u128::from(DISPATCH)).div_ceil(share);
        // A guarded class at its cap steps aside for a while, and its due requests then come.
        let is_aside = |(id, other): &(ClassId, &Class)| is_capped(other) || self.steps_aside(*id);
        let mut turns = 1 + guarded.filter(is_aside).count() as u128;
        // So do heavy ones.
        turns += if self.has_heavy_lane() { self.config.classes.len() as u128 } else { 0 };
        let wait = times(self.after_all_dispatches(class, dispatches), turns);
        Some(wait_max.saturating_add(wait))
    }

    fn by_share(&self, class: &Class) -> Result<Span, WhyNot> {
        let all = || self.config.classes.iter();
        let own = || std::iter::once(class);
        let counts_dispatches = match self.config.share {
            Share::Fcfs | Share::Priority | Share::Stride { per: _ } => true,
            Share::DeficitRoundRobin { .. }
            | Share::VirtualTokenCounter { .. }
            | Share::StartTimeFair { .. }
            | Share::DominantResource { .. }
            | Share::DeficitLongestPrefix { .. } => false,
        };
        if !counts_dispatches && self.pays_back() {
            return Err(WhyNot::PaidBack);
        }
        let (overtaken, wait) = match self.config.share {
            Share::Fcfs => {
                let wait = self.after_dispatches(class, self.queues(all()));
                (self.overtaken_for(class, all())?, wait)
            }
            Share::Priority => {
                let band = self.band(class)?;
                let wait = self.after_dispatches(class, self.queues(band.clone()));
                (self.overtaken_for(class, band)?, wait)
            }
            Share::DeficitRoundRobin { per: Per::Class, quantum, cost } => {
                (self.overtaken_for(class, own())?, self.by_deficit(class, quantum, cost))
            }
            Share::VirtualTokenCounter { per: Per::Class, cost }
            | Share::StartTimeFair { per: Per::Class, cost } => {
                (self.overtaken_for(class, own())?, self.by_counter(class, cost))
            }
            Share::Stride { per: Per::Class } => {
                (self.overtaken_for(class, own())?, self.by_stride(class))
            }
            Share::DominantResource { per: Per::Class, .. } => return Err(WhyNot::NotShown),
            Share::DeficitLongestPrefix { per: Per::Class, .. } => return Err(WhyNot::Prefixes),
            Share::DeficitRoundRobin { per: Per::Tenant | Per::Workflow, .. }
            | Share::VirtualTokenCounter { per: Per::Tenant | Per::Workflow, .. }
            | Share::StartTimeFair { per: Per::Tenant | Per::Workflow, .. }
            | Share::Stride { per: Per::Tenant | Per::Workflow }
            | Share::DominantResource { per: Per::Tenant | Per::Workflow, .. }
            | Share::DeficitLongestPrefix { per: Per::Tenant | Per::Workflow, .. } => {
                return Err(WhyNot::Owners);
            }
        };
        Ok(overtaken.saturating_add(wait.ok_or(WhyNot::Guard)?))
    }

    /// How long after a request of the class some of `others` may still arrive that go before it.
    fn overtaken_for<'c>(
        &self,
        class: &Class,
        others: impl Iterator<Item = &'c Class>,
    ) -> Result<Span, WhyNot> {
        let tokens = |count: u32, each: Span| times(each, count.into());
        let Machine { prompt_tokens_max: prompt, output_tokens_max: output, .. } = *self.machine;
        match self.config.order {
            Order::Fcfs => Ok(Span::ZERO),
            Order::Aging => {
                let most = others.map(|other| other.boost).max().unwrap_or_default();
                Ok(most.saturating_sub(class.boost))
            }
            Order::ShortestPredicted { aging: Some(aging) } => {
                Ok(tokens(prompt.saturating_add(output), aging))
            }
            Order::LongestPrefix { token } => Ok(tokens(prompt, token)),
            Order::EarliestDeadline => Err(WhyNot::Relegated),
            Order::ShortestPredicted { aging: None } => Err(WhyNot::Shorter),
            Order::LeastAttained { .. } => Err(WhyNot::LessAttained),
        }
    }

    /// The classes of the same priority, if there is no higher one.
    fn band(&self, class: &Class) -> Result<impl Iterator<Item = &Class> + Clone, WhyNot> {
        let priority = class.priority;
        let higher = self.config.classes.iter().position(|other| other.priority > priority);
        match higher {
            Some(higher) => Err(WhyNot::Higher(ClassId(higher as u16))),
            None => Ok(self.config.classes.iter().filter(move |other| other.priority == priority)),
        }
    }

    /// What a request may cost at most.
    fn cost_max(&self, cost: TokenCost) -> u128 {
        u128::from(self.machine.prompt_tokens_max) * u128::from(cost.prompt)
            + u128::from(self.machine.output_tokens_max) * u128::from(cost.output)
    }

    /// The cost of what waits ahead in the class, of the request itself, and of what is in flight
    /// and may have been charged wrongly.
    fn own_cost(&self, class: &Class, cost: TokenCost) -> u128 {
        let requests = self.queue(class) + 1 + u128::from(self.machine.seats);
        requests.saturating_mul(self.cost_max(cost))
    }

    fn by_deficit(&self, class: &Class, quantum: u64, cost: TokenCost) -> Option<Span> {
        let grant = |class: &Class| u128::from(quantum) * u128::from(class.weight);
        let rounds = self.own_cost(class, cost).div_ceil(grant(class)) + 1;
        let wrong = u128::from(self.machine.seats) * self.cost_max(cost);
        let all = self.config.classes.iter();
        let work: u128 = all
            .map(|other| rounds.saturating_mul(grant(other)) + self.cost_max(cost) + wrong)
            .fold(0, u128::saturating_add);
        self.after_work(class, cost, work)
    }

    fn by_stride(&self, class: &Class) -> Option<Span> {
        let own = (self.queue(class) + 1).div_ceil(class.weight.into()) + 2;
        let all = self.config.classes.iter();
        let count = all.map(|other| own.saturating_mul(other.weight.into()));
        self.after_dispatches(class, count.fold(0, u128::saturating_add))
    }

    fn by_counter(&self, class: &Class, cost: TokenCost) -> Option<Span> {
        let own = self.own_cost(class, cost);
        let wrong = (1 + u128::from(self.machine.seats)) * self.cost_max(cost);
        let per_weight = own.div_ceil(class.weight.into()).saturating_add(2 * wrong);
        let all = self.config.classes.iter();
        let work = all.map(|other| per_weight.saturating_mul(other.weight.into()));
        self.after_work(class, cost, work.fold(0, u128::saturating_add))
    }
}

fn is_capped(class: &Class) -> bool {
    class.requests_max.is_some() || class.tokens_max.is_some()
}

fn times(span: Span, count: u128) -> Span {
    let nanos = u128::from(span.nanos()).saturating_mul(count);
    Span::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
