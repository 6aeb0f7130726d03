//! The policy, valid by construction: what a policy file means once it has been read.
//!
//! Everything is an integer. `scenarios/config` reads files into these types and is where spans,
//! units and error messages live; [`Config::check`] states what must hold between the parts.

mod admit;
mod feedback;

pub use admit::{
    Admit, BucketPer, BucketUnit, EarlyRefusal, RetryBudget, SaturationGate, Stale, TokenBucket,
};
pub use feedback::{Adapt, Autoscale, Feedback, SloCaps};

use plimsoll_base::{ClassId, ModelId, PoolId, SiteId, SourceId, Span, StageId, TenantId};
use serde::{Deserialize, Serialize};

use crate::message::Labels;

/// A whole policy: the classes and one rule list per stage of the pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The classes, indexed by [`ClassId`]; at least one, at most 64.
    pub classes: Vec<Class>,
    /// Tried in order; the first that matches names the class.
    pub classify: Vec<ClassifyRule>,
    /// What the driver looks at for the bits of [`Labels`], in order; at most 64.
    pub labels: Vec<Label>,
    /// Names of the sites, indexed by [`SiteId`]; at most 32.
    pub sites: Vec<String>,
    /// Names of the models, indexed by [`ModelId`]; at most 64.
    pub models: Vec<String>,
    /// Asked in order whether a request may come in; the first that objects refuses it.
    pub admit: Vec<Admit>,
    /// Whose turn it is.
    pub share: Share,
    /// Who goes first within a turn.
    pub order: Order,
    /// What each class may hold; all must agree.
    pub partition: Vec<Partition>,
    /// Which backend: preferences in order, then a last rule; empty is [`Place::LeastTokens`].
    pub place: Vec<Place>,
    /// How much may be outstanding at a backend.
    pub window: Window,
    /// What adapts to what happens.
    pub feedback: Vec<Feedback>,
    /// How many requests may go past one that is next and fits no backend now, because they fit.
    /// With 0 it is waited for.
    pub bypass_max: u32,
    /// The liveness guard; `None` leaves waiting without a bound.
    pub guard: Option<Guard>,
    /// How output length is predicted from what a gateway can see.
    pub predict: Predict,
    /// Queued and dispatched requests the allocator holds at most; more is refused (`QueueFull`).
    pub requests_max: u32,
    /// Accounts of tenants or workflows that the share keeps at most. Idle ones make room; if
    /// none is idle, a newcomer is refused (`QueueFull`).
    pub accounts_max: u32,
}

impl Config {
    /// These classes and this share, and of everything else the plainest: every request gets the
    /// class it claims, no limit but that of memory, the declared cap as prediction.
    pub fn plain(share: Share, classes: Vec<Class>) -> Config {
        Config {
            classes,
            classify: vec![ClassifyRule::default()],
            labels: Vec::new(),
            sites: Vec::new(),
            models: Vec::new(),
            admit: Vec::new(),
            share,
            order: Order::Fcfs,
            partition: Vec::new(),
            place: vec![Place::LeastTokens],
            window: Window::Seats,
            feedback: Vec::new(),
            bypass_max: 0,
            guard: None,
            predict: Predict::DeclaredCap,
            requests_max: 1_000_000,
            accounts_max: 65_536,
        }
    }
}

impl Config {
    /// Whether classes or lanes depend on how much of a prompt is cached.
    pub fn looks_at_caches(&self) -> bool {
        let by_cost = |rule: &ClassifyRule| {
            rule.uncached_tokens_min.is_some() || rule.uncached_tokens_max.is_some()
        };
        let lanes = |rule: &Partition| matches!(rule, Partition::HeavyLane { .. });
        self.classify.iter().any(by_cost) || self.partition.iter().any(lanes)
    }

    /// Whether decisions rest on the true output length, which no gateway knows. Every report of
    /// such a run says so.
    pub fn uses_oracle(&self) -> bool {
        match self.predict {
            Predict::NoisyOracle { .. } => true,
            Predict::DeclaredCap | Predict::ClassIntensity | Predict::ClassQuantile { .. } => false,
        }
    }
}

/// What latency is owed, and how much may wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Importance: higher is more important.
    pub priority: i32,
    /// Its share in proportion to the others' (at least 1).
    pub weight: u32,
    /// The guard's threshold: an older head is due.
    pub wait_max: Option<Span>,
    /// Requests of the class that may wait at once; more is refused.
    pub queue_max: Option<u32>,
    /// A request that waited this long leaves the queue (`Expired`).
    pub time_to_live: Option<Span>,
    /// Requests of the class outstanding at backends at once.
    pub requests_max: Option<u32>,
    /// Estimated tokens (prompt + predicted output) of the class outstanding at once. A single
    /// larger request may run alone, so that it does not wait for ever.
    pub tokens_max: Option<u64>,
    /// Subtracted from the arrival time by [`Order::Aging`]: a request is overtaken only by what
    /// arrives within the difference of two classes' boosts.
    pub boost: Span,
    /// What a request of the class is stated to produce; used by [`Predict::ClassIntensity`].
    pub output_tokens_expected: Option<u32>,
    /// Whether it may be shed first.
    pub sheddable: bool,
    /// The longest a request of the class may take to its first token, queueing included.
    pub deadline: Option<Span>,
    /// The sites its requests may go to, a bit an id; 0 allows all.
    pub sites: u64,
}

/// Weight 1 and no limit.
impl Default for Class {
    fn default() -> Class {
        Class {
            priority: 0,
            weight: 1,
            wait_max: None,
            queue_max: None,
            time_to_live: None,
            requests_max: None,
            tokens_max: None,
            boost: Span::ZERO,
            output_tokens_expected: None,
            sheddable: false,
            deadline: None,
            sites: 0,
        }
    }
}

/// A condition on a request that only the driver can see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Label {
    /// A header has this value.
    Header {
        /// Its name in lower case.
        name: String,
        /// Its value.
        value: String,
    },
    /// It came with the API key of this name.
    Key(String),
    /// It asks for this service tier.
    ServiceTier(String),
}

/// One classification rule: a request matches if every stated condition holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifyRule {
    /// Only this tenant.
    pub tenant: Option<TenantId>,
    /// Only this workload or route.
    pub source: Option<SourceId>,
    /// Only if the client claims this class.
    pub claims: Option<ClassId>,
    /// Only this model.
    pub model: Option<ModelId>,
    /// Only this stage of a workflow.
    pub stage: Option<StageId>,
    /// Only as a part of a workflow (`true`), or only alone (`false`).
    pub in_workflow: Option<bool>,
    /// Only if it bears all of these labels.
    pub labels: Labels,
    /// Only prompts of which at least this many tokens are cached nowhere.
    pub uncached_tokens_min: Option<u32>,
    /// Only prompts of which at most this many tokens are cached nowhere.
    pub uncached_tokens_max: Option<u32>,
    /// Only prompts of at least this many tokens.
    pub prompt_tokens_min: Option<u32>,
    /// Only prompts of at most this many tokens.
    pub prompt_tokens_max: Option<u32>,
    /// What a match becomes.
    pub class: Becomes,
}

/// The class that a matching request gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Becomes {
    /// The class it claims; no match if it claims none.
    #[default]
    Claimed,
    /// This class.
    Class(ClassId),
}

/// What a class, or a group of classes, may hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Partition {
    /// At most so many heavy requests of all classes are outstanding at once. They queue apart, so
    /// that one that may not go blocks nobody light behind it. At most one such rule, and then at
    /// most 32 classes.
    HeavyLane {
        /// Heavy is what is estimated to compute more tokens: prompt − cached + predicted output.
        over_tokens: u64,
        /// How many; at least 1.
        max: u32,
    },
    /// A class uses only certain pools.
    Dedicated(Dedicated),
    /// Groups of classes have quotas, which they lend each other. At most one such rule.
    Quota(Quota),
    /// Classes have fractions of all seats. At most one such rule.
    Concurrency(Concurrency),
}

/// A class and the pools that it uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dedicated {
    /// Who.
    pub class: ClassId,
    /// Where; at least one.
    pub pools: Vec<PoolId>,
    /// Whether the pools take only classes that are dedicated to them.
    pub exclusive: bool,
}

/// A forest of groups with quotas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// What is counted.
    pub unit: QuotaUnit,
    /// The groups, parents before their children.
    pub groups: Vec<QuotaGroup>,
}

/// What a quota counts of the requests outstanding at backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum QuotaUnit {
    /// Their number.
    #[default]
    Requests,
    /// Their estimated tokens (prompt + predicted output).
    Tokens,
}

/// A group of classes, or of groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaGroup {
    /// The index of the group it is a part of; `None` makes it a root, which cannot borrow.
    pub parent: Option<u16>,
    /// What is its own.
    pub nominal: u64,
    /// What it may use beyond that; `None` is whatever there is.
    pub borrow_max: Option<u64>,
    /// What others may use of its own; `None` is all of it.
    pub lend_max: Option<u64>,
    /// The classes of a leaf; a class is in one leaf at most.
    pub classes: Vec<ClassId>,
}

/// Fractions of all seats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// Classes and their fractions in millionths, 1 to 1,000,000, in all at most 1,000,000.
    pub shares_ppm: Vec<(ClassId, u32)>,
}

/// Who owns a queue of its own in a [`Share`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Per {
    /// One flow a class.
    #[default]
    Class,
    /// One flow a tenant (weight 1 each; orders within the tenant by [`Order`]).
    Tenant,
    /// One flow a workflow (weight 1 each); a request that is part of none belongs to its
    /// tenant's.
    Workflow,
}

/// Token prices in cost units a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenCost {
    /// A prompt token.
    pub prompt: u32,
    /// An output token.
    pub output: u32,
}

/// What all backends together can do, as far as [`Share::DominantResource`] is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Prompt tokens a second.
    pub prefill_tokens: u64,
    /// Output tokens a second.
    pub decode_tokens: u64,
    /// KV memory in tokens.
    pub kv_tokens: u64,
    /// How long an output token of one request takes, for how long it holds its KV memory.
    pub output_token: Span,
}

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Share {
    /// One queue for all.
    Fcfs,
    /// The highest priority with work; lower ones may wait for ever.
    Priority,
    /// Deficit round robin on token cost (Shreedhar and Varghese, 1995).
    DeficitRoundRobin {
        /// Who owns a queue.
        per: Per,
        /// Cost units a round and weight.
        quantum: u64,
        /// Token prices.
        cost: TokenCost,
    },
    /// Virtual token counter (Sheng et al., OSDI 2024).
    VirtualTokenCounter {
        /// Who owns a queue.
        per: Per,
        /// Token prices.
        cost: TokenCost,
    },
    /// Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996).
    StartTimeFair {
        /// Who owns a queue.
        per: Per,
        /// Token prices.
        cost: TokenCost,
    },
    /// Stride scheduling (Waldspurger and Weihl, 1995): one unit a request, whatever its tokens.
    Stride {
        /// Who owns a queue.
        per: Per,
    },
    /// Memoryless dominant resource fair queueing (Ghodsi et al., SIGCOMM 2012).
    DominantResource {
        /// Who owns a queue.
        per: Per,
        /// What there is to share.
        capacity: Capacity,
    },
    /// Deficits, and among flows that have credit the longest cached prefix (Cao et al., 2025).
    DeficitLongestPrefix {
        /// Who owns a queue.
        per: Per,
        /// Cost units a round and weight.
        quantum: u64,
        /// Prices of a prompt token that is not cached, and of an output token.
        cost: TokenCost,
    },
}

impl Share {
    /// Whether shares are owed to classes. A rule whose accounts are tenants or workflows owes a
    /// class nothing: a class of few tenants gets little, and that is fair.
    pub fn owes_classes(&self) -> bool {
        match self {
            Share::Fcfs | Share::Priority => true,
            Share::DeficitRoundRobin { per, .. }
            | Share::VirtualTokenCounter { per, .. }
            | Share::StartTimeFair { per, .. }
            | Share::Stride { per }
            | Share::DominantResource { per, .. }
            | Share::DeficitLongestPrefix { per, .. } => match per {
                Per::Class => true,
                Per::Tenant | Per::Workflow => false,
            },
        }
    }
}

/// Who goes first within a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Order {
    /// By arrival.
    #[default]
    Fcfs,
    /// By arrival minus the class's boost: a static key, no clock.
    Aging,
    /// By deadline (arrival + [`Class::deadline`]); what has missed its own goes when nothing in
    /// its turn can still make it, and what has none goes last.
    EarliestDeadline,
    /// By predicted tokens (prompt + predicted output).
    ShortestPredicted {
        /// How much waiting a token is worth; `None` lets long requests wait for ever.
        aging: Option<Span>,
    },
    /// By what the request's workflow had been given when the request arrived (Luo et al.,
    /// Autellix, NSDI 2025).
    LeastAttained {
        /// Token prices.
        cost: TokenCost,
        /// Accounts of workflows at most; those used longest ago are forgotten.
        workflows_max: u32,
    },
    /// By arrival minus what the cached tokens of the prompt are worth.
    LongestPrefix {
        /// How much waiting a cached token is worth.
        token: Span,
    },
}

/// A rule of placement. Preferences come in this order: [`LocalFirst`](Place::LocalFirst), then
/// affinities, then one of the others, which decides at last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Place {
    /// The nearest site; the next one only after a wait.
    LocalFirst(LocalFirst),
    /// The backend that has most of the prompt cached, unless it is overloaded.
    PrefixAffinity(LoadBreak),
    /// The backend that the session went to last, unless it is overloaded.
    SessionAffinity {
        /// Sessions remembered; at least 1.
        sessions_max: u32,
        /// When it is overloaded.
        load: LoadBreak,
    },
    /// In turn, skipping backends whose window is full.
    RoundRobin,
    /// The one with the fewest estimated outstanding tokens; ties by slot.
    LeastTokens,
    /// The less loaded of two that are drawn at random.
    PowerOfTwo {
        /// Seed of the rule's stream.
        seed: u64,
    },
}

/// Sites by preference, and when to use the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalFirst {
    /// From the nearest on; what is not named comes last.
    pub sites: Vec<SiteId>,
    /// The oldest request of a class waits so long before the class may use the next site.
    pub spill_wait: Span,
    /// A nearer site turns away no request of the class for so long before the class returns.
    pub return_after: Span,
}

/// When a warm backend is overloaded: when its outstanding tokens exceed the factor × those of the
/// least loaded backend with room + the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadBreak {
    /// In millionths, at least 1,000,000.
    pub factor_ppm: u32,
    /// Tokens.
    pub tokens: u64,
}

/// How much may be outstanding at a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Window {
    /// Requests up to its seats and estimated tokens up to its KV memory, so that waiting happens
    /// where policy can act.
    #[default]
    Seats,
    /// No bound: the engine queues.
    None,
}

/// The liveness guard: a head older than its class's `wait_max` is due, and due heads own a
/// fraction of dispatches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// Their fraction of dispatches in millionths, 1 to 1,000,000.
    pub due_share_ppm: u32,
}

/// How output length is predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Predict {
    /// The client's cap.
    DeclaredCap,
    /// What the class states (`output_tokens_expected`), never above the cap; the cap where the
    /// class states nothing.
    #[default]
    ClassIntensity,
    /// A quantile of what finished requests of the class have delivered lately, never above the
    /// cap; the cap before `samples_min` of the class have finished.
    ClassQuantile {
        /// Which quantile, in millionths.
        quantile_ppm: u32,
        /// Requests of the class that have finished before the quantile counts; at least 1.
        samples_min: u32,
    },
    /// What the driver predicts ([`Input::Predicted`](crate::Input::Predicted)), never above the
    /// cap; the cap where it predicts nothing. For studies: the simulator makes it out of the true
    /// length and an error.
    NoisyOracle {
        /// The relative standard deviation of the error in millionths. The allocator does not
        /// read it; it is for the driver that makes the predictions.
        error_ppm: u32,
    },
}
