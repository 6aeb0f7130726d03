//! The whole life of one request, as reports see it.

use crate::{
    BackendId, Bound, ClassId, Outcome, Reason, RequestId, SourceId, Span, TenantId, Time,
};

/// Where a request's time went. The parts sum to `closed - arrived` exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Waiting: in the allocator, in the engine's queue, and again after each preemption.
    pub queue: Span,
    /// From first scheduled to first token (or to the first preemption); where the prompt is
    /// computed apart, with the time in which its KV moves and without the waits before and after.
    pub prefill: Span,
    /// From first token to last token, without what a preemption cost.
    pub decode: Span,
    /// Computing again what a preemption threw away.
    pub preempted: Span,
}

impl Phases {
    /// The sum of the parts.
    pub fn total(&self) -> Span {
        self.queue + self.prefill + self.decode + self.preempted
    }
}

/// Everything known of a request when it is closed: ended, refused, or cut off by the run's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// Its number.
    pub id: RequestId,
    /// Which workload or route it came from.
    pub source: SourceId,
    /// Who pays.
    pub tenant: TenantId,
    /// What latency is owed; `None` if no classification rule matched.
    pub class: Option<ClassId>,
    /// Where it was dispatched to last.
    pub backend: Option<BackendId>,
    /// How it closed.
    pub outcome: Outcome,
    /// Intended arrival.
    pub arrived: Time,
    /// When the allocator let it go to a backend.
    pub dispatched: Option<Time>,
    /// When an engine first computed for it; where engines are opaque, when it was dispatched.
    pub started: Option<Time>,
    /// When its first token was delivered; the end of a request that was not streamed.
    pub first_token: Option<Time>,
    /// When its latest token was delivered.
    pub last_token: Option<Time>,
    /// When it was closed.
    pub closed: Time,
    /// Estimated tokens that the allocator counted for it when it let it go; 0 before,
    /// and without attribution.
    pub tokens: u64,
    /// How long it takes from arrival to its last token when it is alone on the backend that it was
    /// dispatched to, or on the slowest if it was not; zero where nobody knows, and without
    /// attribution.
    pub alone: Span,
    /// Prompt length in tokens.
    pub prompt_tokens: u32,
    /// Output tokens delivered so far.
    pub output_tokens: u32,
    /// Output tokens the client allows (`max_tokens`).
    pub output_cap: u32,
    /// Where the time went.
    pub phases: Phases,
    /// Times it was preempted.
    pub preemptions: u32,
    /// Tokens computed a second time because of preemptions.
    pub recomputed_tokens: u32,
    /// Tokens that were computed for nothing because it was evicted: prompt and output.
    pub wasted_tokens: u32,
    /// The largest gap between two of its tokens (`itl_max`).
    pub gap_max: Span,
    /// The rule that decided.
    pub reason: Option<Reason>,
    /// The resource it waited for in the allocator; `None` if it never waited there.
    pub bound: Option<Bound>,
}

impl RequestRecord {
    /// A request at the instant of its arrival: nothing has happened to it, and of what it asks
    /// for nothing is written down yet.
    #[inline(always)]
    pub const fn new(id: RequestId, arrived: Time) -> RequestRecord {
        RequestRecord {
            id,
            source: SourceId(0),
            tenant: TenantId(0),
            class: None,
            backend: None,
            outcome: Outcome::Unfinished,
            arrived,
            dispatched: None,
            started: None,
            first_token: None,
            last_token: None,
            closed: arrived,
            tokens: 0,
            alone: Span::ZERO,
            prompt_tokens: 0,
            output_tokens: 0,
            output_cap: 0,
            phases: Phases {
                queue: Span::ZERO,
                prefill: Span::ZERO,
                decode: Span::ZERO,
                preempted: Span::ZERO,
            },
            preemptions: 0,
            recomputed_tokens: 0,
            wasted_tokens: 0,
            gap_max: Span::ZERO,
            reason: None,
            bound: None,
        }
    }

    /// Time to first token, from intended arrival, queueing included.
    pub fn ttft(&self) -> Option<Span> {
        self.first_token.map(|first| first - self.arrived)
    }
    /// Time per output token after the first: `(last - first) / (n - 1)`, in seconds.
    /// Undefined (`None`) for fewer than two tokens, and where they came all at once: the
    /// request was not streamed.
    pub fn tpot_secs(&self) -> Option<f64> {
        let (first, last) = (self.first_token?, self.last_token?);
        (self.output_tokens >= 2 && last > first)
            .then(|| (last - first).secs_f64() / f64::from(self.output_tokens - 1))
    }
    /// End-to-end latency so far: `closed - arrived`.
    pub fn e2e(&self) -> Span {
        self.closed - self.arrived
    }
    /// Whether it ended with all its tokens.
    pub fn finished(&self) -> bool {
        matches!(self.outcome, Outcome::Ended(crate::End::Finished))
    }
}
