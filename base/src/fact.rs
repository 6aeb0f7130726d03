//! Facts: what happened, told by the simulator and by the gateway in the same words. Reports are
//! folds over facts and know nothing else.

use crate::{
    Alarm, BackendId, Bound, ClassId, Reason, RequestId, RequestRecord, Scale, Span, TenantId,
    Ticks, Time,
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A request was offered. Exactly one [`Fact::Closed`] follows for it.
    Arrived {
        /// Its number.
        id: RequestId,
        /// Who pays.
        tenant: TenantId,
        /// What latency is owed; `None` if no rule matched.
        class: Option<ClassId>,
        /// When: now, but for a request that was taken over from an allocator before, which had
        /// arrived earlier.
        arrived: Time,
        /// Prompt length in tokens.
        prompt_tokens: u32,
    },
    /// The allocator let a request go to a backend.
    Dispatched {
        /// Its number.
        id: RequestId,
        /// Who pays.
        tenant: TenantId,
        /// What latency is owed.
        class: ClassId,
        /// Where to.
        backend: BackendId,
        /// Which rule picked it.
        reason: Reason,
        /// What it had waited for, if it had waited.
        bound: Option<Bound>,
        /// When it had arrived.
        arrived: Time,
        /// Prompt length in tokens.
        prompt_tokens: u32,
        /// Its estimated tokens (prompt and predicted output), which the allocator counts as held
        /// until it is closed.
        tokens: u64,
    },
    /// What stops the requests of a class that wait in the allocator has changed. Until it is
    /// told again this stops all of them.
    Bound {
        /// Whose.
        class: ClassId,
        /// The resource; `None` if none of the class waits.
        bound: Option<Bound>,
    },
    /// An engine took a request into its batch: for the first time, or again after a preemption.
    Started {
        /// Its number.
        id: RequestId,
        /// What latency is owed.
        class: ClassId,
        /// Where.
        backend: BackendId,
        /// When it had arrived.
        arrived: Time,
    },
    /// An engine threw a running request out of its batch; it will be computed again.
    Preempted {
        /// Its number.
        id: RequestId,
        /// Whose work was lost.
        class: ClassId,
        /// Where.
        backend: BackendId,
        /// When it had arrived.
        arrived: Time,
        /// Tokens whose computation was lost.
        lost_tokens: u32,
    },
    /// A request whose prompt is computed apart from its decoding has come one step further.
    Handed {
        /// Its number.
        id: RequestId,
        /// What latency is owed.
        class: ClassId,
        /// Where.
        backend: BackendId,
        /// When it had arrived.
        arrived: Time,
        /// Tokens of its prompt.
        tokens: u32,
        /// What it does now.
        stage: Stage,
    },
    /// `count` steps in a row, in each of which `sequences` sequences of one class delivered one
    /// token each. The gaps form the series `first`, `first + increment`, … (the last is
    /// `first + (count - 1) * increment`). Pooled, they are the inter-token latency.
    Gaps {
        /// Whose tokens.
        class: ClassId,
        /// The first gap.
        first: Ticks,
        /// What each gap adds to the one before.
        increment: Ticks,
        /// How many gaps, at least 1.
        count: u64,
        /// How many sequences saw each of them.
        sequences: u32,
    },
    /// A request's life is over as far as this run can tell.
    Closed(RequestRecord),
    /// A backend's counters at a sampling instant.
    BackendSampled {
        /// Which backend.
        backend: BackendId,
        /// Its counters.
        sample: BackendSample,
    },
    /// A class's gauges and counters at a sampling instant, over all backends.
    ClassSampled {
        /// Which class.
        class: ClassId,
        /// Its gauges and counters.
        sample: ClassSample,
    },
    /// A detector beside the allocator raised an alarm.
    Alarmed(Alarm),
    /// The allocator gave advice on the number of backends.
    Advised(Scale),
    /// The run has warmed up: what arrives from now on is measured.
    WarmedUp,
    /// The last arrival has happened or the horizon was reached; what is in flight drains.
    ArrivalsEnded,
    /// Nothing happens after this.
    RunEnded,
}

/// Where a request stands between the engine that computed its prompt and the one that decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its prompt is computed; it waits for KV memory where it will decode, and holds some where it
    /// was computed.
    AwaitsMemory,
    /// It holds memory on both sides and waits for the link.
    AwaitsLink,
    /// Its KV moves.
    Moves,
    /// Its KV has come; it waits for a seat where it decodes.
    AwaitsSeat,
}

/// A backend at a sampling instant. Counters run from the beginning of the run; the difference of
/// two samples is what happened between them. A gateway knows what backends report of themselves:
/// the gauges and the KV memory held; what it cannot know stays 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendSample {
    /// Time spent computing; of several engines in one backend the mean.
    pub busy: Span,
    /// Steps taken.
    pub steps: u64,
    /// Prompt tokens computed, recomputation included.
    pub prefill_tokens: u64,
    /// Output tokens delivered.
    pub output_tokens: u64,
    /// Tokens computed again after a preemption (part of `prefill_tokens`).
    pub recomputed_tokens: u64,
    /// Preemptions.
    pub preemptions: u64,
    /// KV tokens held, integrated over time, in token-milliseconds (an idle engine holds none).
    pub kv_token_millis: u64,
    /// Gauge: sequences in the batch.
    pub running: u32,
    /// Gauge: requests in the engine's own queue.
    pub waiting: u32,
    /// Gauge: KV blocks held. Where nobody knows the size of a block, it is one token.
    pub kv_blocks_used: u32,
    /// KV blocks in all.
    pub kv_blocks: u32,
    /// Seats in all.
    pub seats: u32,
}

/// A class at a sampling instant. Engine time, and who waits inside engines, are 0 where engines
/// are opaque; what was let in and has not ended then counts as running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassSample {
    /// Gauge: requests waiting in the allocator.
    pub queued: u32,
    /// Gauge: requests waiting inside engines.
    pub engine_waiting: u32,
    /// Gauge: requests in batches.
    pub running: u32,
    /// Gauge: age of the oldest request that still waits (allocator or engine, never started).
    pub oldest_wait: Span,
    /// Counter: engine time used by the class, over all backends. A step's time goes to prefill
    /// by the marginal cost of its prompt tokens and to the decoding sequences in equal parts
    /// for the rest; the classes' times sum to the backends' busy time.
    pub busy: Span,
}

/// Something that listens to facts.
pub trait Observer {
    /// Called once a fact, in the order in which facts happen; `now` never decreases.
    fn observe(&mut self, now: Time, fact: &Fact);

    /// The same as [`observe`](Observer::observe) of a [`Fact::Closed`], for those who need no
    /// copy of the record.
    fn close(&mut self, now: Time, record: &RequestRecord) {
        self.observe(now, &Fact::Closed(*record));
    }
}

impl<A: Observer, B: Observer> Observer for (A, B) {
    fn observe(&mut self, now: Time, fact: &Fact) {
        self.0.observe(now, fact);
        self.1.observe(now, fact);
    }
    fn close(&mut self, now: Time, record: &RequestRecord) {
        self.0.close(now, record);
        self.1.close(now, record);
    }
}
impl<O: Observer> Observer for Option<O> {
    fn observe(&mut self, now: Time, fact: &Fact) {
        if let Some(observer) = self {
            observer.observe(now, fact);
        }
    }
    fn close(&mut self, now: Time, record: &RequestRecord) {
        if let Some(observer) = self {
            observer.close(now, record);
        }
    }
}
impl<O: Observer + ?Sized> Observer for Box<O> {
    fn observe(&mut self, now: Time, fact: &Fact) {
        (**self).observe(now, fact);
    }
    fn close(&mut self, now: Time, record: &RequestRecord) {
        (**self).close(now, record);
    }
}
/// Listens and forgets.
impl Observer for () {
    fn observe(&mut self, _: Time, _: &Fact) {}
    fn close(&mut self, _: Time, _: &RequestRecord) {}
}
impl Observer for Vec<(Time, Fact)> {
    fn observe(&mut self, now: Time, fact: &Fact) {
        self.push((now, fact.clone()));
    }
}
