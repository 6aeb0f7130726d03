//! What goes in and what comes out.

use plimsoll_base::{
    BackendId, Bound, ClassId, End, ModelId, PoolId, Reason, Refusal, RequestId, Scale, SessionId,
    SiteId, SourceId, Span, StageId, TenantId, Time, WorkflowId,
};
use serde::{Deserialize, Serialize};

/// What a gateway can see of a request. The true output length is not here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Who pays.
    pub tenant: TenantId,
    /// Which workload or route it came in by.
    pub source: SourceId,
    /// The class it asks for.
    pub claims: Option<ClassId>,
    /// Which model it asks for.
    pub model: ModelId,
    /// What it does in its workflow.
    pub stage: StageId,
    /// Prompt length in tokens.
    pub prompt_tokens: u32,
    /// Output tokens the client allows (`max_tokens`).
    pub output_cap: u32,
    /// Which of the policy's labels it bears.
    pub labels: Labels,
    /// Which requests it shares a growing context with.
    pub session: SessionId,
    /// Which requests it does one piece of work with.
    pub workflow: WorkflowId,
    /// How often it was tried before: 0 is a first attempt, all others are retries. A gateway
    /// knows it from a header, such as Envoy's `x-envoy-attempt-count` less one.
    pub attempt: u8,
}

/// A set of at most 64 labels. A label is a condition that only the driver can see (a header with
/// a value, an API key, a service tier), numbered in the order of
/// [`Config::labels`](crate::Config::labels).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels(pub u64);

impl Labels {
    /// Whether it has all of `others`.
    pub const fn contain(self, others: Labels) -> bool {
        self.0 & others.0 == others.0
    }
}

/// What a backend offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendInfo {
    /// The group it belongs to.
    pub pool: PoolId,
    /// Requests it runs at once.
    pub seats: u32,
    /// KV memory in tokens.
    pub kv_tokens: u64,
    /// The longest context (prompt + output) it takes, in tokens.
    pub context_max: u32,
    /// Where it stands.
    pub site: SiteId,
    /// The models it serves, a bit an id; 0 serves all.
    pub models: u64,
}

/// How an allocator held a request when another took its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The class it has.
    pub class: ClassId,
    /// When it had arrived.
    pub arrived: Time,
    /// Where it runs; `None` if it waits.
    pub backend: Option<BackendId>,
}

/// What a request had used when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Prompt tokens computed.
    pub prompt_tokens: u32,
    /// Output tokens delivered.
    pub output_tokens: u32,
}

/// What a backend said of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests in its batch.
    pub running: u32,
    /// Requests in its own queue.
    pub waiting: u32,
    /// The part of its KV memory that is held, in millionths.
    pub kv_used_ppm: u32,
    /// The mean time in its own queue of the requests that it started since its report before.
    pub queue_wait: Span,
}

/// What happened in the world. Observations carry the instant at which they were true (`as_of`);
/// the allocator decides what their age means. Those that no rule of the policy reads (see
/// [`Needs`]) need not be handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A request was offered.
    Arrived(RequestId, RequestInfo),
    /// An allocator before this one had let the request in: it waits, or runs. Told in the order
    /// in which they arrived, after the backends have joined and before anything else; see
    /// [`Allocator::handover`](crate::Allocator::handover).
    Resumed(RequestId, RequestInfo, Held),
    /// Its client left. If it was dispatched, an `Ended` follows when the backend let go.
    Withdrawn(RequestId),
    /// Its backend has taken it in.
    Accepted(RequestId),
    /// Its first token was delivered.
    FirstToken(RequestId),
    /// So many output tokens of it have been delivered.
    Progressed(RequestId, u32),
    /// It ended at its backend.
    Ended(RequestId, End, Used),
    /// Of the prompt of a request that is about to arrive, so many tokens are cached there.
    Matched(RequestId, BackendId, u32),
    /// A request that is about to arrive is predicted to deliver so many output tokens.
    Predicted(RequestId, u32),
    /// A backend is there.
    Joined(BackendId, BackendInfo),
    /// A backend's report, true at the instant.
    Reported(BackendId, Load, Time),
    /// A backend is gone; what ran on it has ended or will be reported as ended.
    Left(BackendId),
    /// From now on everything new is refused.
    Draining,
    /// `next_deadline` has passed.
    Deadline,
}

/// Which observations the rules of a policy read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// [`Input::FirstToken`].
    pub first_tokens: bool,
    /// [`Input::Progressed`], and how often.
    pub progress: Option<Span>,
    /// [`Input::Matched`].
    pub matches: bool,
    /// [`Input::Predicted`].
    pub predictions: bool,
    /// [`Input::Reported`], and how often.
    pub reports: Option<Span>,
}

/// The priority handed to an engine: higher is more important, adapters translate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EnginePriority(pub i32);

/// How often reports are asked for where a rule needs no other pace.
pub(crate) const REPORT_EVERY: Span = Span::from_millis(100);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send it to this backend.
    Dispatch(BackendId, EnginePriority),
    /// Decline it; the client may come back after the span.
    Reject(Refusal, Span),
    /// It waited too long or was withdrawn: close it with this end. It never ran.
    Close(End),
    /// Cancel it at its backend before its first token; it waits here again. The `Ended` of the
    /// cancelled run must not be handed in.
    Preempt(BackendId),
    /// Cancel it at its backend; an `Ended` follows when the backend let go.
    Cancel(BackendId),
}

/// An action for one request, and why. Of every request there is first one dispatch, refusal or
/// close; a dispatch may be followed by a cancel, or by a preemption and another of the first
/// three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// For whom.
    pub id: RequestId,
    /// The class it was given; `None` if no rule matched.
    pub class: Option<ClassId>,
    /// What to do.
    pub action: Action,
    /// The rule that decided.
    pub reason: Reason,
    /// The resource it had waited for; `None` if it had not waited.
    pub bound: Option<Bound>,
}

/// Advice that concerns no single request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A pool should have so many backends. It is the allocator's own word: the same inputs give
    /// the same advice.
    Scale(Scale),
    /// Something goes wrong with a class; from a [`Detector`](crate::Detector).
    Alarm(crate::detect::Alarm),
}
