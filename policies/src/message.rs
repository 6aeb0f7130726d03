//! What goes in and what comes out.

use plimsoll_base::{
    BackendId, Bound, ClassId, End, PoolId, Reason, Refusal, RequestId, SourceId, Span, TenantId,
};

/// What a gateway can see of a request. The true output length is not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// Who pays.
    pub tenant: TenantId,
    /// Which workload or route it came in by.
    pub source: SourceId,
    /// The class it asks for.
    pub claims: Option<ClassId>,
    /// Prompt length in tokens.
    pub prompt_tokens: u32,
    /// Output tokens the client allows (`max_tokens`).
    pub output_cap: u32,
}

/// What a backend offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendInfo {
    /// The group it belongs to.
    pub pool: PoolId,
    /// Requests it runs at once.
    pub seats: u32,
    /// KV memory in tokens.
    pub kv_tokens: u64,
    /// The longest context (prompt + output) it takes, in tokens.
    pub context_max: u32,
}

/// What a request had used when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Prompt tokens computed.
    pub prompt_tokens: u32,
    /// Output tokens delivered.
    pub output_tokens: u32,
}

/// What happened in the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A request was offered.
    Arrived(RequestId, RequestInfo),
    /// Its client left. If it was dispatched, an `Ended` follows when the backend let go.
    Withdrawn(RequestId),
    /// It ended at its backend.
    Ended(RequestId, End, Used),
    /// A backend is there.
    Joined(BackendId, BackendInfo),
    /// A backend is gone; what ran on it has ended or will be reported as ended.
    Left(BackendId),
    /// From now on everything new is refused.
    Draining,
    /// `next_deadline` has passed.
    Deadline,
}

/// The priority handed to an engine: higher is more important, adapters translate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EnginePriority(pub i32);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send it to this backend.
    Dispatch(BackendId, EnginePriority),
    /// Decline it; the client may come back after the span.
    Reject(Refusal, Span),
    /// It waited too long or was withdrawn: close it with this end. It never ran.
    Close(End),
}

/// An action for one request, and why.
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
