//! What must hold between the parts of a policy.

use std::fmt;

use plimsoll_base::{ClassId, Span};

mod admit;
mod feedback;

use crate::class_set::CLASSES_MAX;
use crate::config::{
    Becomes, Capacity, Class, ClassifyRule, Config, Order, Partition, Place, Predict, Share,
    TokenCost,
};
use crate::guard::DISPATCH;
use crate::share::ACCOUNTS_MAX;
use crate::{heavy_lane, partition, place};

/// The dearest token there may be, in cost units; keeps every cost inside 64 bits.
pub(crate) const PRICE_MAX: u32 = 1_000_000;
/// The largest weight; keeps the rounding of a weight below one in a million.
pub(crate) const WEIGHT_MAX: u32 = 65_536;
/// The largest quantum in cost units: more than the largest cost there is.
pub(crate) const QUANTUM_MAX: u64 = 1 << 60;
/// The largest capacity in tokens or tokens a second; a token still takes thousands of the units in
/// which the time of a resource is counted.
pub(crate) const CAPACITY_MAX: u64 = 1_000_000_000_000;
/// The largest boost: 100 years, so that an arrival plus a boost is still an instant.
pub(crate) const BOOST_MAX: Span = Span::from_secs(100 * 365 * 86_400);

/// Accounts of workflows there may be: what fits some 300 MB.
const WORKFLOWS_MAX: u64 = 1 << 22;

/// The part of a [`Config`] that is wrong, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// Of the policy as a whole.
    Policy(Field, Problem),
    /// Of the class with this index.
    Class(usize, Field, Problem),
    /// Of the classification rule with this index.
    Rule(usize, Field, Problem),
    /// Of the admission rule with this index.
    Admit(usize, Field, Problem),
    /// Of the feedback rule with this index.
    Feedback(usize, Field, Problem),
    /// Of the placement rule with this index.
    Place(usize, Field, Problem),
    /// Of the partition rule with this index.
    Partition(usize, Field, Problem),
    /// Of a group, by its index, in the partition rule with this index.
    Group(usize, usize, Field, Problem),
}

/// The field that is wrong, named as in [`crate::config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the field of that name")]
pub enum Field {
    AccountsMax,
    After,
    Aging,
    Base,
    Boost,
    Burst,
    Ceilings,
    BorrowMax,
    BreakFactor,
    BypassMax,
    Claims,
    Class,
    Classes,
    Classify,
    CoolDown,
    Cost,
    Deadline,
    DecodeTokens,
    DownAfter,
    DueShare,
    Every,
    Failures,
    Groups,
    Guard,
    HeavyMax,
    KvFull,
    KvTokens,
    Lesser,
    Max,
    Min,
    MissesMax,
    OpenFor,
    LendMax,
    Models,
    Nominal,
    Order,
    OutputToken,
    Parent,
    Partition,
    Place,
    Pools,
    PrefillTokens,
    PromptTokensMax,
    Quantile,
    Quantum,
    Rate,
    Ratio,
    RequestsMax,
    SamplesMin,
    Rule,
    StaleAfter,
    Step,
    Target,
    ReturnAfter,
    SessionsMax,
    Shares,
    Sites,
    SpillWait,
    TimeToLive,
    Token,
    Tolerance,
    TokensMax,
    WaitLimit,
    WaitMax,
    WaitingFull,
    Weight,
    Window,
    WorkflowsMax,
}

impl Field {
    /// The field's name in [`crate::config`].
    pub const fn name(self) -> &'static str {
        match self {
            Field::AccountsMax => "accounts_max",
            Field::After => "after",
            Field::Aging => "aging",
            Field::Base => "base",
            Field::Boost => "boost",
            Field::Burst => "burst",
            Field::Ceilings => "ceilings",
            Field::BorrowMax => "borrow_max",
            Field::BreakFactor => "break_factor",
            Field::BypassMax => "bypass_max",
            Field::Claims => "claims",
            Field::Class => "class",
            Field::Classes => "classes",
            Field::Classify => "classify",
            Field::CoolDown => "cool_down",
            Field::Cost => "cost",
            Field::Deadline => "deadline",
            Field::DecodeTokens => "decode_tokens",
            Field::DownAfter => "down_after",
            Field::DueShare => "due_share_ppm",
            Field::Every => "every",
            Field::Failures => "failures",
            Field::Groups => "groups",
            Field::Guard => "guard",
            Field::HeavyMax => "max",
            Field::KvFull => "kv_full_ppm",
            Field::KvTokens => "kv_tokens",
            Field::Lesser => "lesser",
            Field::Max => "max",
            Field::Min => "min",
            Field::MissesMax => "misses_max_ppm",
            Field::OpenFor => "open_for",
            Field::LendMax => "lend_max",
            Field::Models => "models",
            Field::Nominal => "nominal",
            Field::Order => "order",
            Field::OutputToken => "output_token",
            Field::Parent => "parent",
            Field::Partition => "partition",
            Field::Place => "place",
            Field::Pools => "pools",
            Field::PrefillTokens => "prefill_tokens",
            Field::PromptTokensMax => "prompt_tokens_max",
            Field::Quantile => "quantile_ppm",
            Field::Quantum => "quantum",
            Field::Rate => "rate_micros",
            Field::Ratio => "ratio_ppm",
            Field::RequestsMax => "requests_max",
            Field::SamplesMin => "samples_min",
            Field::Rule => "rule",
            Field::StaleAfter => "stale_after",
            Field::Step => "step",
            Field::Target => "target",
            Field::ReturnAfter => "return_after",
            Field::SessionsMax => "sessions_max",
            Field::Shares => "shares",
            Field::Sites => "sites",
            Field::SpillWait => "spill_wait",
            Field::TimeToLive => "time_to_live",
            Field::Token => "token",
            Field::Tolerance => "tolerance_ppm",
            Field::TokensMax => "tokens_max",
            Field::WaitLimit => "wait_limit",
            Field::WaitMax => "wait_max",
            Field::WaitingFull => "waiting_full",
            Field::Weight => "weight",
            Field::Window => "window",
            Field::WorkflowsMax => "workflows_max",
        }
    }
}

/// Why a field is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It must be at least this; a span in nanoseconds.
    Below(u64),
    /// It must be at most this; a span in nanoseconds.
    Above(u64),
    /// There is no class with this index.
    NoSuchClass(ClassId),
    /// Both token prices are zero, so all requests cost nothing.
    CostsNothing,
    /// The least prompt length of the rule is above its greatest: it matches nothing.
    MatchesNothing,
    /// `wait_max` must be less than `time_to_live`: nothing would live to fall due.
    ExpiresBeforeDue,
    /// The guard needs a class that states `wait_max`.
    GuardsNothing,
    /// It needs a class that states `deadline`, or a limit of its own.
    NoLimit,
    /// A class is named twice.
    NamedTwice(ClassId),
    /// A rule of this kind is there already.
    SecondOfItsKind,
    /// Eviction needs a class that is sheddable and one that is not.
    ShedsNothing,
    /// The class states no `deadline`.
    HasNoDeadline(ClassId),
    /// The class states no `requests_max`, so it has no cap that could move.
    NoCap(ClassId),
    /// The share picks requests by their prefix, so that no order but that of arrival counts.
    OrdersItself,
    /// Earliest deadline first needs a class with a deadline.
    NoDeadline,
    /// There may be one heavy lane, and then at most 32 classes.
    TwoHeavyLanes,
    /// The same.
    TooManyBesideHeavyLane,
    /// Classes step aside by another rule, so that nothing is left to go past.
    ClassesStepAside,
    /// There is one like it before.
    Twice,
    /// It belongs before a rule that stands before it.
    TooLate,
    /// A group stands before its parent, or its parent does not exist.
    NoSuchGroup,
    /// More than so many groups would stand one below the other.
    TooDeep(u64),
    /// The nominal quotas of its children sum to so much, which is more than its own.
    ChildrenExceed(u64),
    /// A root has nobody to borrow from or to lend to.
    IsRoot,
    /// A group with groups below it names classes.
    IsNoLeaf,
    /// Nothing ever fits.
    AdmitsNothing,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Policy(field, problem) => write!(f, "{}: {problem}", field.name()),
            ConfigError::Class(class, field, problem) => {
                write!(f, "class {class}, {}: {problem}", field.name())
            }
            ConfigError::Rule(rule, field, problem) => {
                write!(f, "classify rule {rule}, {}: {problem}", field.name())
            }
            ConfigError::Feedback(rule, field, problem) => {
                write!(f, "feedback rule {rule}, {}: {problem}", field.name())
            }
            ConfigError::Admit(rule, field, problem) => {
                write!(f, "admit rule {rule}, {}: {problem}", field.name())
            }
            ConfigError::Place(rule, field, problem) => {
                write!(f, "place rule {rule}, {}: {problem}", field.name())
            }
            ConfigError::Partition(rule, field, problem) => {
                write!(f, "partition rule {rule}, {}: {problem}", field.name())
            }
            ConfigError::Group(rule, group, field, problem) => {
                write!(f, "partition rule {rule}, group {group}, {}: {problem}", field.name())
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Below(least) => write!(f, "must be at least {least}"),
            Problem::Above(most) => write!(f, "must be at most {most}"),
            Problem::NoSuchClass(class) => write!(f, "there is no class {class}"),
            Problem::CostsNothing => f.write_str("a prompt or an output token must cost something"),
            Problem::MatchesNothing => f.write_str("is less than prompt_tokens_min"),
            Problem::ExpiresBeforeDue => f.write_str("must be less than time_to_live"),
            Problem::GuardsNothing => f.write_str("needs a class with wait_max"),
            Problem::NoLimit => f.write_str("must be stated where no class has a deadline"),
            Problem::ShedsNothing => {
                f.write_str("needs a class that is sheddable and one that is not")
            }
            Problem::HasNoDeadline(class) => write!(f, "class {class} has no deadline"),
            Problem::NoCap(class) => write!(f, "class {class} has no requests_max"),
            Problem::SecondOfItsKind => f.write_str("there is one of this kind already"),
            Problem::NamedTwice(class) => write!(f, "class {class} is named twice"),
            Problem::OrdersItself => {
                f.write_str("must be fcfs or aging: the share picks by the cached prefix")
            }
            Problem::NoDeadline => f.write_str("needs a class with a deadline"),
            Problem::TwoHeavyLanes => f.write_str("states a heavy lane twice"),
            Problem::TooManyBesideHeavyLane => {
                write!(f, "must be at most {} beside a heavy lane", heavy_lane::CLASSES_MAX)
            }
            Problem::ClassesStepAside => f.write_str(
                "must be 0 beside quotas, dedicated pools, sites of classes and local-first: \
                 there a class that does not fit steps aside by itself",
            ),
            Problem::Twice => f.write_str("may be stated once"),
            Problem::TooLate => {
                f.write_str("goes from sites to affinities to the rule that decides at last")
            }
            Problem::NoSuchGroup => f.write_str("must be a group that is listed before this one"),
            Problem::TooDeep(most) => write!(f, "makes more than {most} groups in a row"),
            Problem::ChildrenExceed(sum) => {
                write!(f, "is less than those of its children, which sum to {sum}")
            }
            Problem::IsRoot => f.write_str("needs a parent: a root neither borrows nor lends"),
            Problem::IsNoLeaf => f.write_str("cannot be named by a group that has groups below it"),
            Problem::AdmitsNothing => f.write_str("and what may be borrowed are 0: nothing fits"),
        }
    }
}

impl Config {
    /// Whether the parts fit together; the first that does not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let policy = |found: Result<(), (Field, Problem)>| {
            found.map_err(|(field, problem)| ConfigError::Policy(field, problem))
        };
        policy(within(Field::Classes, self.classes.len() as u64, 1, CLASSES_MAX as u64))?;
        policy(within(Field::Classify, self.classify.len() as u64, 1, u64::MAX))?;
        // The greatest 32-bit number marks the end of lists.
        policy(within(Field::RequestsMax, self.requests_max.into(), 1, u64::from(u32::MAX) - 1))?;
        policy(within(Field::AccountsMax, self.accounts_max.into(), 1, ACCOUNTS_MAX as u64))?;
        for (index, class) in self.classes.iter().enumerate() {
            check_class(class)
                .map_err(|(field, problem)| ConfigError::Class(index, field, problem))?;
        }
        for (index, rule) in self.classify.iter().enumerate() {
            check_rule(rule, self.classes.len())
                .map_err(|(field, problem)| ConfigError::Rule(index, field, problem))?;
        }
        for (index, rule) in self.admit.iter().enumerate() {
            admit::check(rule, &self.classes)
                .map_err(|(field, problem)| ConfigError::Admit(index, field, problem))?;
        }
        for (index, rule) in self.feedback.iter().enumerate() {
            feedback::check(rule, &self.feedback[..index], &self.classes)
                .map_err(|(field, problem)| ConfigError::Feedback(index, field, problem))?;
        }
        policy(check_predict(self.predict))?;
        policy(check_share(&self.share))?;
        policy(self.check_order())?;
        policy(self.check_heavy_lane())?;
        policy(self.check_bypass())?;
        policy(within(Field::Sites, self.sites.len() as u64, 0, place::SITES_MAX as u64))?;
        policy(within(Field::Models, self.models.len() as u64, 0, place::MODELS_MAX as u64))?;
        place::check(&self.place)
            .map_err(|(rule, field, problem)| ConfigError::Place(rule, field, problem))?;
        partition::check(self)?;
        policy(self.check_guard())
    }

    fn check_order(&self) -> Result<(), (Field, Problem)> {
        let orders_itself = matches!(self.share, Share::DeficitLongestPrefix { .. });
        if orders_itself && !matches!(self.order, Order::Fcfs | Order::Aging) {
            return Err((Field::Order, Problem::OrdersItself));
        }
        match self.order {
            Order::Fcfs | Order::Aging => Ok(()),
            Order::EarliestDeadline => {
                match self.classes.iter().any(|class| class.deadline.is_some()) {
                    true => Ok(()),
                    false => Err((Field::Order, Problem::NoDeadline)),
                }
            }
            Order::ShortestPredicted { aging } => {
                within(Field::Aging, aging.unwrap_or(BOOST_MAX).nanos(), 1, BOOST_MAX.nanos())
            }
            Order::LeastAttained { cost, workflows_max } => {
                check_cost(cost)?;
                within(Field::WorkflowsMax, workflows_max.into(), 1, WORKFLOWS_MAX)
            }
            Order::LongestPrefix { token } => {
                within(Field::Token, token.nanos(), 1, BOOST_MAX.nanos())
            }
        }
    }

    fn check_heavy_lane(&self) -> Result<(), (Field, Problem)> {
        for rule in &self.partition {
            if let Partition::HeavyLane { max, .. } = rule {
                within(Field::HeavyMax, (*max).into(), 1, u64::MAX)?;
            }
        }
        let heavy = |rule: &&Partition| matches!(rule, Partition::HeavyLane { .. });
        match self.partition.iter().filter(heavy).count() {
            0 => Ok(()),
            1 if self.classes.len() <= heavy_lane::CLASSES_MAX => Ok(()),
            1 => Err((Field::Classes, Problem::TooManyBesideHeavyLane)),
            _ => Err((Field::Partition, Problem::TwoHeavyLanes)),
        }
    }

    /// Who is denied quota, or waits where only some may go, steps aside as a class, so that nobody
    /// could count how many went past.
    fn check_bypass(&self) -> Result<(), (Field, Problem)> {
        let is_aside = self.classes.iter().any(|class| class.sites != 0)
            || self.place.iter().any(|rule| matches!(rule, Place::LocalFirst(_)))
            || self
                .partition
                .iter()
                .any(|rule| matches!(rule, Partition::Dedicated(_) | Partition::Quota(_)));
        match self.bypass_max > 0 && is_aside {
            true => Err((Field::BypassMax, Problem::ClassesStepAside)),
            false => Ok(()),
        }
    }

    fn check_guard(&self) -> Result<(), (Field, Problem)> {
        let Some(guard) = &self.guard else { return Ok(()) };
        within(Field::DueShare, guard.due_share_ppm.into(), 1, DISPATCH.into())?;
        match self.classes.iter().any(|class| class.wait_max.is_some()) {
            true => Ok(()),
            false => Err((Field::Guard, Problem::GuardsNothing)),
        }
    }
}

fn check_class(class: &Class) -> Result<(), (Field, Problem)> {
    within(Field::Weight, class.weight.into(), 1, WEIGHT_MAX.into())?;
    within(Field::Boost, class.boost.nanos(), 0, BOOST_MAX.nanos())?;
    within(Field::RequestsMax, class.requests_max.unwrap_or(1).into(), 1, u64::MAX)?;
    within(Field::TokensMax, class.tokens_max.unwrap_or(1), 1, u64::MAX)?;
    within(Field::TimeToLive, class.time_to_live.unwrap_or(Span::MAX).nanos(), 1, u64::MAX)?;
    within(Field::Deadline, class.deadline.unwrap_or(Span::MAX).nanos(), 1, u64::MAX)?;
    match (class.wait_max, class.time_to_live) {
        (Some(wait_max), Some(time_to_live)) if wait_max >= time_to_live => {
            Err((Field::WaitMax, Problem::ExpiresBeforeDue))
        }
        (_, _) => Ok(()),
    }
}

fn check_rule(rule: &ClassifyRule, classes: usize) -> Result<(), (Field, Problem)> {
    let exists = |field, class: ClassId| match class.index() < classes {
        true => Ok(()),
        false => Err((field, Problem::NoSuchClass(class))),
    };
    if let Some(class) = rule.claims {
        exists(Field::Claims, class)?;
    }
    if let Becomes::Class(class) = rule.class {
        exists(Field::Class, class)?;
    }
    match (rule.prompt_tokens_min, rule.prompt_tokens_max) {
        (Some(least), Some(most)) if least > most => {
            Err((Field::PromptTokensMax, Problem::MatchesNothing))
        }
        (_, _) => Ok(()),
    }
}

fn check_predict(predict: Predict) -> Result<(), (Field, Problem)> {
    match predict {
        Predict::DeclaredCap | Predict::ClassIntensity | Predict::NoisyOracle { error_ppm: _ } => {
            Ok(())
        }
        Predict::ClassQuantile { quantile_ppm, samples_min } => {
            within(Field::Quantile, quantile_ppm.into(), 1, 1_000_000)?;
            within(Field::SamplesMin, samples_min.into(), 1, u64::MAX)
        }
    }
}

fn check_share(share: &Share) -> Result<(), (Field, Problem)> {
    match *share {
        Share::Fcfs | Share::Priority | Share::Stride { per: _ } => Ok(()),
        Share::DeficitRoundRobin { per: _, quantum, cost }
        | Share::DeficitLongestPrefix { per: _, quantum, cost } => {
            check_cost(cost)?;
            // A round pays for at least one token of either kind.
            within(Field::Quantum, quantum, cost.prompt.max(cost.output).into(), QUANTUM_MAX)
        }
        Share::VirtualTokenCounter { per: _, cost } | Share::StartTimeFair { per: _, cost } => {
            check_cost(cost)
        }
        Share::DominantResource { per: _, capacity } => check_capacity(capacity),
    }
}

fn check_capacity(capacity: Capacity) -> Result<(), (Field, Problem)> {
    let Capacity { prefill_tokens, decode_tokens, kv_tokens, output_token } = capacity;
    within(Field::PrefillTokens, prefill_tokens, 1, CAPACITY_MAX)?;
    within(Field::DecodeTokens, decode_tokens, 1, CAPACITY_MAX)?;
    within(Field::KvTokens, kv_tokens, 1, CAPACITY_MAX)?;
    within(Field::OutputToken, output_token.nanos(), 1, u64::MAX)
}

fn check_cost(cost: TokenCost) -> Result<(), (Field, Problem)> {
    within(Field::Cost, cost.prompt.max(cost.output).into(), 0, PRICE_MAX.into())?;
    match (cost.prompt, cost.output) {
        (0, 0) => Err((Field::Cost, Problem::CostsNothing)),
        (_, _) => Ok(()),
    }
}

pub(crate) fn within(
    field: Field,
    value: u64,
    least: u64,
    most: u64,
) -> Result<(), (Field, Problem)> {
    if value < least {
        Err((field, Problem::Below(least)))
    } else if value > most {
        Err((field, Problem::Above(most)))
    } else {
        Ok(())
    }
}
