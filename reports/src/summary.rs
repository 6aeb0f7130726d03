//! The results of a run as `summary.json` holds them. Times are seconds, shares are fractions.

use std::collections::BTreeMap;

use plimsoll_base::Metric;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of the layout of `summary.json`.
pub const SCHEMA_VERSION: u32 = 1;

/// The results of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// The version of this layout.
    pub schema_version: u32,
    /// The version of the program.
    pub plimsoll: String,
    /// Whether the run was interrupted: the numbers cover what had happened by then.
    pub partial: bool,
    /// What was run.
    pub scenario: Scenario,
    /// The verdict in a word.
    pub verdict: Verdict,
    /// The verdict in a sentence.
    pub verdict_line: String,
    /// Each objective, met or not.
    pub objectives: Vec<ObjectiveResult>,
    /// Why there are no intervals, or how they were made.
    pub interval_note: String,
    /// All requests of all replications, warm-up included.
    pub conservation: Counts,
    /// The conservation line in words.
    pub conservation_line: String,
    /// Measured seconds a replication: from the end of the warm-up to the end of the run.
    pub measured_s: Estimate,
    /// All measured requests.
    pub run: Numbers,
    /// How the replicas were used.
    pub utilization: Utilization,
    /// How evenly the classes were served.
    pub fairness: Fairness,
    /// Each class.
    pub classes: Vec<ClassSummary>,
    /// Each tenant that offered a request.
    pub tenants: Vec<TenantSummary>,
    /// Each pool.
    pub pools: Vec<PoolSummary>,
    /// The detector's alarms, in the order in which they were raised; the first 1,000 of each
    /// replication. Empty without attribution.
    pub alarms: Vec<AlarmSummary>,
    /// Advice on the number of replicas, in the order in which it was given; the first 1,000
    /// pieces of each replication. The simulated machine kept its size. Left out if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<AdviceSummary>,
    /// What to do next, a sentence each.
    pub next: Vec<String>,
    /// What was assumed where nothing was measured.
    pub assumptions: Vec<String>,
    /// The formula of each number.
    pub definitions: BTreeMap<String, String>,
    /// What a report of a decision log cannot know; left out of the report of a simulated run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<RecordedSummary>,
    /// What came of a stated precision; left out where none was stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<PrecisionSummary>,
    /// Whether the warm-up is long enough; left out where nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<WarmUpCheck>,
    /// Mean latencies by batch means, where one trace was replayed once; else left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batch_means: Vec<BatchMean>,
}

/// What came of a stated precision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PrecisionSummary {
    /// What was wanted: half an interval ÷ its value.
    pub relative: f64,
    /// Whether every interval that counts is so narrow.
    pub reached: bool,
    /// Half of the widest interval ÷ its value; null where nothing was measured.
    pub widest: Option<f64>,
    /// In words.
    pub note: String,
}

/// Whether the warm-up is long enough, by MSER-5: a diagnostic. It cannot tell a system that warms
/// up from a load that changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WarmUpCheck {
    /// The warm-up of the scenario.
    pub stated_s: f64,
    /// What MSER-5 would cut: the median over replications, of the class that needs most.
    pub mser5_s: Option<f64>,
    /// In words.
    pub note: String,
}

/// A mean over one long run with the interval of batch means. They cover less than they say where
/// the run is short for the memory of the system: 71 to 86 % at 10,000 customers of an M/M/1 queue
/// at 90 % load. Percentiles have no such interval: those of batches cover almost nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchMean {
    /// The class.
    pub class: String,
    /// How many batches.
    pub batches: u32,
    /// Requests in each.
    pub requests_a_batch: u64,
    /// The mean end-to-end latency.
    pub e2e_mean_s: Option<f64>,
    /// Its 95 % Student-t interval across the batches.
    pub interval: Option<[f64; 2]>,
    /// Of neighbouring batches.
    pub autocorrelation: Option<f64>,
    /// Why there is no interval.
    pub note: Option<String>,
}

/// A report of a decision log: what it cannot know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordedSummary {
    /// A sentence each.
    pub not_observed: Vec<String>,
    /// What waiting falls on is estimated: engines are opaque.
    pub attribution_is_estimated: bool,
    /// Whether time to first token is that of the log; if not, it is absent.
    pub first_tokens: bool,
    /// Requests that had arrived before the log began: they are not measured.
    pub taken_over: u64,
}

/// What was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub description: String,
    /// A digest of the scenario as read.
    pub hash: String,
    /// The policy in one sentence.
    pub policy: String,
    /// The seed.
    pub seed: u64,
    /// Independent replications.
    pub replications: u32,
    /// Whether a recorded trace was replayed.
    pub has_trace: bool,
    /// Seconds cut off at the beginning.
    pub warm_up_s: f64,
    /// When arrivals stopped; null where every source ran to its end.
    pub duration_s: Option<f64>,
}

/// The verdict on a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No objective was stated.
    Done,
    /// Every objective was met.
    Pass,
    /// At least one objective was missed, whether by overload or not.
    Fail,
    /// A queue grows for as long as requests arrive, and no objective says whether that is fine.
    Overloaded,
    /// What was measured cannot decide.
    Inconclusive,
}

impl Verdict {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Done => "DONE",
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::Overloaded => "OVERLOADED",
            Verdict::Inconclusive => "INCONCLUSIVE",
        }
    }
    /// Its symbol.
    pub const fn symbol(self) -> &'static str {
        match self {
            Verdict::Done => "•",
            Verdict::Pass => "✓",
            Verdict::Fail => "✗",
            Verdict::Overloaded => "▲",
            Verdict::Inconclusive => "?",
        }
    }
    /// The process's exit code: 0 objectives met or none stated, 3 an objective missed,
    /// 4 inconclusive or overloaded without an objective.
    pub const fn exit_code(self) -> u8 {
        match self {
            Verdict::Done | Verdict::Pass => 0,
            Verdict::Fail => 3,
            Verdict::Overloaded | Verdict::Inconclusive => 4,
        }
    }
}

/// A number with what is known of its certainty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Estimate {
    /// Null where nothing was measured.
    pub value: Option<f64>,
    /// The 95 % Student-t interval across replications, around the value over all of them; null
    /// with fewer than two, and for a maximum.
    pub interval: Option<[f64; 2]>,
    /// The true value is this or more: requests cut off by the end of the run weigh in with what
    /// they had waited by then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
    /// Fewer than 10 samples lie beyond this percentile.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub few_samples: bool,
}

/// A share of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Proportion {
    /// `count / of`; null where `of` is 0.
    pub value: Option<f64>,
    /// How many.
    pub count: u64,
    /// Of how many.
    pub of: u64,
    /// The 95 % Wilson interval over all requests, as if they were independent.
    pub wilson: Option<[f64; 2]>,
    /// The 95 % Student-t interval across replications; null with fewer than two.
    pub interval: Option<[f64; 2]>,
}

/// A measure over requests, in seconds where nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Distribution {
    /// Samples, cut off ones included.
    pub count: u64,
    /// Of these, how many were cut off before it was known.
    pub censored: u64,
    /// The longest of those cut off.
    pub censored_max: Option<f64>,
    /// The mean.
    pub mean: Estimate,
    /// The median.
    pub p50: Estimate,
    /// The 75th percentile.
    pub p75: Estimate,
    /// The 90th percentile.
    pub p90: Estimate,
    /// The 95th percentile.
    pub p95: Estimate,
    /// The 99th percentile.
    pub p99: Estimate,
    /// The 99.9th percentile.
    #[serde(rename = "p99.9")]
    pub p999: Estimate,
    /// The maximum.
    pub max: Estimate,
}

/// Latencies, in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// All waiting.
    pub queue_time: Distribution,
    /// From arrival to first scheduled.
    pub queue_time_first: Distribution,
    /// From first scheduled to first token.
    pub prefill_time: Distribution,
    /// From first to last token.
    pub decode_time: Distribution,
    /// Computing again what preemptions threw away.
    pub preempted_time: Distribution,
    /// Time to first token.
    pub ttft: Distribution,
    /// Time to first token once scheduled.
    pub ttft_service: Distribution,
    /// Time per output token after the first, a value a request.
    pub tpot: Distribution,
    /// Gaps between tokens, pooled.
    pub itl: Distribution,
    /// The largest gap of each request.
    pub itl_max: Distribution,
    /// End-to-end latency per output token.
    pub ntpot: Distribution,
    /// End-to-end latency.
    pub e2e: Distribution,
}

/// Whether there is none.
fn is_none(count: &u64) -> bool {
    *count == 0
}

/// How requests closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Offered; the sum of all below.
    pub offered: u64,
    /// Finished.
    pub finished: u64,
    /// Broken by a backend or the network.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Expired.
    pub expired: u64,
    /// Cut off by the policy to make room; absent if none was.
    #[serde(default, skip_serializing_if = "is_none")]
    pub evicted: u64,
    /// Refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Cut off by the end of the run.
    pub in_flight: u64,
}

/// What is reported of any group of measured requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Numbers {
    /// How they closed.
    pub counts: Counts,
    /// Good ÷ offered.
    pub slo_attainment: Proportion,
    /// Good ÷ finished.
    pub attainment_of_completed: Proportion,
    /// Good requests a second.
    pub goodput: Estimate,
    /// Output tokens of good requests a second.
    pub goodput_tokens: Estimate,
    /// Prompt tokens a second.
    pub input_tps: Estimate,
    /// Output tokens a second.
    pub output_tps: Estimate,
    /// Both.
    pub total_tps: Estimate,
    /// Output tokens a second a replica.
    pub tps_per_gpu: Estimate,
    /// Output tokens a second as one request sees them.
    pub tps_per_user: Estimate,
    /// Output tokens.
    pub output_tokens: u64,
    /// Finished with fewer than two tokens: no time per output token.
    pub tpot_undefined: u64,
    /// Times a request was thrown out of a batch; null where engines are opaque.
    pub preemptions: Option<u64>,
    /// Tokens computed again because of it; null where engines are opaque.
    pub recomputed_tokens: Option<u64>,
    /// The most preemptions of one request; null where engines are opaque.
    pub preemptions_max: Option<u32>,
    /// Tokens computed again ÷ useful tokens.
    pub preemption_waste: Estimate,
    /// Tokens computed for requests that were then evicted.
    pub wasted_tokens: u64,
    /// These ÷ useful tokens.
    pub eviction_waste: Estimate,
    /// End-to-end latency ÷ what the request takes alone on the same hardware: a ratio, no seconds.
    /// Empty without attribution.
    pub slowdown: Distribution,
    /// Later arrivals of no higher priority that were let in before a request: a number, no
    /// seconds. Empty without attribution.
    pub overtakes: Distribution,
    /// Latencies.
    pub latency: Latency,
}

/// How replicas were used in the measured time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Utilization {
    /// Share of time spent computing.
    pub busy: Estimate,
    /// `busy` without recomputed work, by its share of the computed tokens.
    pub useful: Estimate,
    /// Share of the KV memory held, over time.
    pub kv_occupancy: Estimate,
}

/// A class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClassSummary {
    /// Its name.
    pub name: String,
    /// Higher is more important.
    pub priority: i32,
    /// Its weight.
    pub weight: u32,
    /// The longest a request of it should wait.
    pub wait_max_s: Option<f64>,
    /// Whether its queue grew for as long as requests arrived.
    pub overload: Option<Overload>,
    /// Why its means and percentiles describe no steady state; null where they do.
    pub interval_note: Option<String>,
    /// Who waited for what.
    pub waiting: Waiting,
    /// Its numbers.
    pub numbers: Numbers,
}

/// A queue that grows: the second half of the measured arrivals of one replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Overload {
    /// Requests that arrived in that half.
    pub arrived: u64,
    /// Requests that closed in it.
    pub closed: u64,
    /// Replications in which the queue grew.
    pub replications: u32,
}

/// What became of a class that had to wait, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Others were served while it went without for longer than it should.
    Starved,
    /// Its queue grew because there is too little.
    Overload,
    /// Single requests waited too long although the class was served.
    Unlucky,
    /// Nothing of the kind.
    Fine,
}

impl Fate {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Fate::Starved => "starved",
            Fate::Overload => "overload",
            Fate::Unlucky => "unlucky",
            Fate::Fine => "fine",
        }
    }
}

/// How a class was starved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StarvedBy {
    /// None of it was served for too long while others were.
    NoService,
    /// It was served, but fell too far behind its share.
    Lag,
}

/// Who waited for what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// In one word.
    pub fate: Fate,
    /// What it was starved by; null where it was not.
    pub starved_by: Option<StarvedBy>,
    /// In one sentence.
    pub sentence: String,
    /// The longest time without service while some of the class waited.
    pub longest_without_service: Option<WithoutService>,
    /// The longest wait of one request.
    pub worst_wait: Option<WorstWaitSummary>,
    /// Its part of the engine time used; null where none was sampled.
    pub engine_share: Option<f64>,
    /// Its part by weight.
    pub entitlement: f64,
    /// The waiting time by what was waited for; the seconds sum to the queue time.
    pub waited_for: Vec<WaitedFor>,
    /// The queue time of all its measured requests together, in whole nanoseconds.
    pub waited_nanos: u64,
    /// The waiting time by what it falls on, the largest part first. Empty without attribution.
    pub blame: Vec<BlamedPart>,
    /// Who held what while it waited, the most beyond its weight first; from samples.
    pub meanwhile: Vec<Meanwhile>,
    /// Requests that the guard let in.
    pub due: u64,
    /// Quantiles of the queue time by the product-limit estimator, which takes waits that were
    /// cut off for what they are.
    pub survival: Survival,
    /// Seat-seconds that less important classes held while it waited for seats; null without
    /// attribution.
    pub inversion_seat_s: Option<f64>,
    /// The longest that a request which had not started by the end of the run had waited.
    pub oldest_at_end_s: Option<f64>,
    /// Seconds of a replication for which capacity was free while a line of the policy (a cap, a
    /// quota, a lane) held some of the class back: the mean over replications. Null without
    /// attribution.
    pub unfair_idle_s: Estimate,
    /// How far it fell behind its fluid share; null where it never did.
    pub lag: Option<LagSummary>,
}

/// Kaplan-Meier quantiles in seconds; null where so many waits were cut off that it is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Survival {
    /// The median.
    pub p50: Option<f64>,
    /// The 90th percentile.
    pub p90: Option<f64>,
    /// The 99th percentile.
    pub p99: Option<f64>,
}

/// Engine time that a class got less than its fluid share: the most over any stretch of its
/// backlog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LagSummary {
    /// Engine seconds.
    pub seconds: f64,
    /// From when.
    pub from_s: f64,
    /// To when.
    pub to_s: f64,
    /// In which replication, from 0.
    pub replication: u32,
    /// The engine time of the largest request at the run's mean price of a token: a fair share
    /// may lag by twice as much.
    pub largest_request_s: f64,
}

/// How evenly backlogged classes were served.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fairness {
    /// Jain's index over used ÷ fluid share of the classes that were backlogged: 1 is even, 1/n is
    /// all to one of n; null with fewer than two.
    pub jain: Option<f64>,
    /// The most by which two backlogged classes came apart; null where no two were.
    pub service_gap: Option<ServiceGap>,
    /// The most by which two classes came apart in the share rule's own book, beside its bound; null
    /// where the rule promises nothing, no two classes had work at once, or without attribution.
    pub booked_gap: Option<BookedGap>,
    /// That gap in a sentence.
    pub sentence: Option<String>,
}

/// The most by which the service of two classes came apart while both had work, in the book of the
/// share rule: a request is charged when it is let in, as predicted, and settled when it ends.
/// Seconds are engine time at the run's mean price of a cost unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BookedGap {
    /// The class that got more.
    pub ahead: String,
    /// The class that got less.
    pub behind: String,
    /// Cost units a unit of weight.
    pub cost: f64,
    /// The same in seconds; null where engines are opaque.
    pub seconds: Option<f64>,
    /// What the rule promises at most, with the largest requests of this run; null where the policy
    /// voids the promise.
    pub bound_cost: Option<f64>,
    /// The same in seconds.
    pub bound_seconds: Option<f64>,
    /// The part of the bound that wrong predictions of the output cause, in seconds.
    pub bound_of_errors_seconds: Option<f64>,
    /// The bound as a formula.
    pub formula: String,
    /// Why there is no bound.
    pub void: Option<String>,
    /// In which replication, from 0.
    pub replication: u32,
}

/// The most by which two classes came apart while both were backlogged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceGap {
    /// The class that got more.
    pub ahead: String,
    /// The class that got less.
    pub behind: String,
    /// Engine seconds a unit of weight.
    pub seconds: f64,
    /// In which replication, from 0.
    pub replication: u32,
}

/// How many replicas the policy advised a pool to have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AdviceSummary {
    /// Which pool.
    pub pool: String,
    /// How many it had.
    pub present: u32,
    /// How many it should have had.
    pub wanted: u32,
    /// What was running and waiting, in parts of what the pool holds: above 1, some waited.
    pub load: f64,
    /// When it was advised.
    pub at_s: f64,
    /// In which replication.
    pub replication: u32,
    /// In one sentence.
    pub sentence: String,
}

/// An alarm of the detector that stood beside the allocator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AlarmSummary {
    /// `no_service`, `lag`, `deadline`, `livelock`, `idle` or `inversion`.
    pub kind: String,
    /// Whom it hurts.
    pub class: String,
    /// The class that held most for its weight; the class itself where its own limit stops it;
    /// null where nobody is to blame.
    pub culprit: Option<String>,
    /// What the class waited for.
    pub resource: Option<String>,
    /// When it was raised.
    pub at_s: f64,
    /// Since when its condition held.
    pub since_s: f64,
    /// In which replication.
    pub replication: u32,
    /// In one sentence.
    pub sentence: String,
}

/// A part of a class's waiting time, over all its measured requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BlamedPart {
    /// What it falls on.
    pub kind: BlameKind,
    /// What was waited for: `seats`, `kv_memory`, `engine` (its own queue), or a bound of the
    /// allocator; `untold` where the facts do not say.
    pub resource: String,
    /// The class that held it; null where no holder is to blame.
    pub culprit: Option<String>,
    /// How much.
    pub seconds: f64,
    /// The same in whole nanoseconds: over all parts they sum to `waited_nanos` exactly.
    pub nanos: u64,
    /// Of all waiting time of the class.
    pub share: f64,
    /// The culprit's mean part of the resource while the class waited for it.
    pub held: Option<f64>,
}

/// What waiting time falls on. A class's share of a resource is its weight among the classes that
/// hold some of it or wait for it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum BlameKind {
    /// Another class held more than its share: it starved this one.
    AboveShare,
    /// Another class held what is within its share: shortage.
    WithinShare,
    /// Requests of its own class held the resource: order within the class.
    OwnClass,
    /// Its own cap or quota.
    OwnLimit,
    /// A line of the policy keeps capacity back.
    PolicyLine,
    /// What is known of the backends is too old.
    Signal,
    /// No backend was there.
    NoBackend,
    /// Nobody held what was waited for.
    Idle,
    /// The facts do not say.
    Untold,
}

impl BlameKind {
    /// In plain words.
    pub const fn words(self) -> &'static str {
        match self {
            BlameKind::AboveShare => "above its share",
            BlameKind::WithinShare => "within its share",
            BlameKind::OwnClass => "its own class",
            BlameKind::OwnLimit => "its own limit",
            BlameKind::PolicyLine => "a policy line",
            BlameKind::Signal => "stale signals",
            BlameKind::NoBackend => "no backend",
            BlameKind::Idle => "idle",
            BlameKind::Untold => "untold",
        }
    }
}

/// What another class held while a class waited: averages over that class's waiting time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Meanwhile {
    /// The other class.
    pub class: String,
    /// Its part of the seats that were taken.
    pub seat_share: f64,
    /// Its part of the engine time used; null where engines are opaque.
    pub engine_share: Option<f64>,
    /// Its part by weight.
    pub entitlement: f64,
}

/// An interval without service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WithoutService {
    /// How long.
    pub seconds: f64,
    /// From when.
    pub from_s: f64,
    /// How many waited at its end.
    pub waiting: u64,
    /// In which replication, from 0.
    pub replication: u32,
    /// Whether it was seen in samples of engine time (as coarse as they are) and not at the
    /// allocator's door.
    pub in_engine: bool,
    /// Classes that were served meanwhile.
    pub served_meanwhile: Vec<String>,
}

/// The longest wait of one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorstWaitSummary {
    /// How long.
    pub seconds: f64,
    /// It had not ended when the run did.
    pub at_least: bool,
    /// The request's number.
    pub request: u64,
    /// Whose it was.
    pub tenant: String,
    /// When it arrived.
    pub arrived_s: f64,
    /// In which replication, from 0.
    pub replication: u32,
}

/// Waiting time for one resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaitedFor {
    /// Which: a bound of the allocator, `turn` (no resource, only the order), or `engine_queue`.
    pub what: String,
    /// Requests that waited for it.
    pub requests: u64,
    /// Their waiting time.
    pub seconds: f64,
    /// The part of requests that were not good.
    pub seconds_of_missed: f64,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TenantSummary {
    /// Its name.
    pub name: String,
    /// How its measured requests closed.
    pub counts: Counts,
    /// Good ÷ offered.
    pub slo_attainment: Proportion,
    /// Good requests a second.
    pub goodput: Estimate,
    /// Output tokens of good requests a second.
    pub goodput_tokens: Estimate,
    /// Output tokens a second.
    pub output_tps: Estimate,
    /// All waiting.
    pub queue_time: Distribution,
    /// Time to first token.
    pub ttft: Distribution,
    /// End-to-end latency.
    pub e2e: Distribution,
    /// End-to-end latency ÷ what the request takes alone on the same hardware: a ratio, no seconds.
    /// Empty without attribution.
    pub slowdown: Distribution,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolSummary {
    /// Its name.
    pub name: String,
    /// How many replicas.
    pub replicas: u32,
    /// Seats of each.
    pub seats: u32,
    /// KV memory of each, in tokens.
    pub kv_tokens: u64,
    /// Where its step-time numbers come from.
    pub provenance: String,
    /// How it was used.
    pub utilization: Utilization,
}

/// An objective and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectiveResult {
    /// Whose.
    pub class: String,
    /// As written.
    pub text: String,
    /// What is measured.
    #[schemars(schema_with = "metrics")]
    pub metric: Metric,
    /// At which percentile; null for attainment.
    pub percentile: Option<f64>,
    /// The limit: seconds, or a fraction.
    pub limit: f64,
    /// What was measured.
    pub value: Estimate,
    /// Met, missed or undecided.
    pub result: ObjectiveVerdict,
    /// Why, where it is not plain.
    pub note: Option<String>,
}

/// The names that a metric may have.
fn metrics(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "enum": Metric::ALL })
}

/// What became of an objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObjectiveVerdict {
    /// Met.
    Pass,
    /// Missed.
    Fail,
    /// Undecided.
    Inconclusive,
}

impl Summary {
    /// The verdict.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        self.verdict.exit_code()
    }
    /// `summary.json`: indented, keys in a fixed order, a newline at the end.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self)
            .expect("a summary holds only strings, finite numbers and string keys");
        json.push('\n');
        json
    }
}

/// The JSON Schema of `summary.json`.
pub fn summary_schema() -> serde_json::Value {
    schemars::schema_for!(Summary).to_value()
}
