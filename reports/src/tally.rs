//! What reports read of a group of requests: a class, all that no rule classified, a tenant.

use plimsoll_base::{Bound, End, Outcome, Phases, Refusal, RequestRecord, Span, Time};

use crate::histogram::{self, Histogram};

/// How requests closed. Those still open are `arrived` less all of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcomes {
    pub arrived: u64,
    pub finished: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub expired: u64,
    pub evicted: u64,
    /// In the order of [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
    /// Closed by the end of the run.
    pub unfinished: u64,
}

impl Outcomes {
    pub fn close(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Ended(End::Finished) => self.finished += 1,
            Outcome::Ended(End::Failed) => self.failed += 1,
            Outcome::Ended(End::Cancelled) => self.cancelled += 1,
            Outcome::Ended(End::Expired) => self.expired += 1,
            Outcome::Ended(End::Evicted) => self.evicted += 1,
            Outcome::Refused(refusal) => self.refused[refusal as usize] += 1,
            Outcome::Unfinished => self.unfinished += 1,
        }
    }

    /// Those that will not change any more.
    pub fn settled(&self) -> u64 {
        self.finished
            + self.failed
            + self.cancelled
            + self.expired
            + self.evicted
            + self.refused.iter().sum::<u64>()
    }

    /// Offered and neither ended nor refused: cut off by the end of the run or of the facts.
    pub fn in_flight(&self) -> u64 {
        self.arrived.checked_sub(self.settled()).expect("what closes has arrived")
    }

    pub fn merge(&mut self, other: &Outcomes) {
        self.arrived += other.arrived;
        self.finished += other.finished;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.expired += other.expired;
        self.evicted += other.evicted;
        for (into, count) in self.refused.iter_mut().zip(other.refused) {
            *into += count;
        }
        self.unfinished += other.unfinished;
    }
}

/// Observed spans, and spans known only to be at least so long.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spans {
    pub observed: Histogram,
    pub censored: Histogram,
}

impl Spans {
    pub fn record(&mut self, span: Option<Span>, so_far: Span) {
        match span {
            Some(span) => self.observed.record(span.nanos()),
            None => self.censored.record(so_far.nanos()),
        }
    }
    pub fn merge(&mut self, other: &Spans) {
        self.observed.merge(&other.observed);
        self.censored.merge(&other.censored);
    }
}

/// What a request waited for: the allocator's bounds, the order of its queue, the engine's queue.
pub(crate) const WAITS: usize = Bound::ALL.len() + 2;
/// Held back by no resource: only by the order in which requests were let in.
pub(crate) const WAIT_TURN: usize = Bound::ALL.len();
/// In the engine's own queue, for the first time or after a preemption.
pub(crate) const WAIT_ENGINE: usize = Bound::ALL.len() + 1;

/// Waiting time by what was waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waited {
    pub requests: u64,
    pub nanos: u128,
    /// The part of requests that were not good.
    pub nanos_of_missed: u128,
}

impl Waited {
    /// Counts the wait of one request, if it is one.
    pub fn add(&mut self, span: Span, good: bool) {
        if span > Span::ZERO {
            self.requests += 1;
            self.nanos += u128::from(span.nanos());
            if !good {
                self.nanos_of_missed += u128::from(span.nanos());
            }
        }
    }
}

/// The request that waited longest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorstWait {
    pub wait: Span,
    pub record: RequestRecord,
}

/// Where time went, by end-to-end latency: a bin is a page of a histogram, of which there are eight
/// an octave from a microsecond on.
#[derive(Clone, Debug, Default)]
pub(crate) struct PhaseBins(Vec<PhaseBin>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PhaseBin {
    pub count: u64,
    /// Queue, prefill, decode, preempted; nanoseconds.
    pub nanos: [u128; 4],
}

impl PhaseBins {
    // Recording the latency in a histogram computes it anyway.
    fn position(nanos: u64) -> usize {
        histogram::page(nanos)
    }
    /// Counts a request by its end-to-end latency in nanoseconds.
    pub fn record(&mut self, e2e: u64, phases: &Phases) {
        let position = PhaseBins::position(e2e);
        let bin = match self.0.get_mut(position) {
            Some(bin) => bin,
            None => return self.record_first(position, e2e, phases),
        };
        bin.count += 1;
        for (into, span) in bin.nanos.iter_mut().zip([
            phases.queue,
            phases.prefill,
            phases.decode,
            phases.preempted,
        ]) {
            *into += u128::from(span.nanos());
        }
    }
    #[cold]
    fn record_first(&mut self, position: usize, e2e: u64, phases: &Phases) {
        self.0.resize(position + 1, PhaseBin::default());
        self.record(e2e, phases);
    }
    pub fn merge(&mut self, other: &PhaseBins) {
        if other.0.len() > self.0.len() {
            self.0.resize(other.0.len(), PhaseBin::default());
        }
        for (into, from) in self.0.iter_mut().zip(&other.0) {
            into.count += from.count;
            for (into, nanos) in into.nanos.iter_mut().zip(from.nanos) {
                *into += nanos;
            }
        }
    }
    /// The mean phases, in nanoseconds, of requests about as long as `nanos`.
    pub fn near(&self, nanos: u64) -> Option<[f64; 4]> {
        let bin = self.0.get(PhaseBins::position(nanos))?;
        (bin.count > 0).then(|| bin.nanos.map(|sum| sum as f64 / bin.count as f64))
    }
}

/// What is counted of the measured requests of one class.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub outcomes: Outcomes,
    /// Finished within every per-request limit.
    pub good: u64,
    pub good_tokens: u64,
    /// Prompt tokens of requests that got a first token.
    pub prompt_tokens: u64,
    pub output_tokens: u64,
    /// Output tokens of finished requests, for tokens a second a user.
    pub finished_tokens: u64,
    /// End-to-end nanoseconds of finished requests.
    pub finished_nanos: u128,
    pub preemptions: u64,
    pub recomputed_tokens: u64,
    /// The most preemptions of one request.
    pub preemptions_max: u32,
    /// Computed for nothing because of evictions.
    pub wasted_tokens: u64,
    /// Prompt and output tokens of evicted requests, as far as they are in the sums above.
    pub evicted_tokens: u64,
    /// Finished with fewer than two tokens.
    pub tpot_undefined: u64,
    pub queue: Spans,
    pub queue_first: Spans,
    pub ttft: Spans,
    pub e2e: Spans,
    /// In 10⁻⁹.
    pub slowdown: Spans,
    /// Times a request was overtaken.
    pub overtakes: Spans,
    pub prefill: Histogram,
    pub decode: Histogram,
    pub preempted: Histogram,
    pub ttft_service: Histogram,
    pub tpot: Histogram,
    pub gaps: Histogram,
    pub gap_max: Histogram,
    pub ntpot: Histogram,
    pub phases: PhaseBins,
    pub waited: [Waited; WAITS],
    /// Let in by the guard.
    pub due: u64,
    pub worst: Option<WorstWait>,
}

impl Tally {
    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Tally) {
        self.outcomes.merge(&other.outcomes);
        self.good += other.good;
        self.good_tokens += other.good_tokens;
        self.prompt_tokens += other.prompt_tokens;
        self.output_tokens += other.output_tokens;
        self.finished_tokens += other.finished_tokens;
        self.finished_nanos += other.finished_nanos;
        self.preemptions += other.preemptions;
        self.recomputed_tokens += other.recomputed_tokens;
        self.preemptions_max = self.preemptions_max.max(other.preemptions_max);
        self.wasted_tokens += other.wasted_tokens;
        self.evicted_tokens += other.evicted_tokens;
        self.tpot_undefined += other.tpot_undefined;
        for (into, from) in [
            (&mut self.queue, &other.queue),
            (&mut self.queue_first, &other.queue_first),
            (&mut self.ttft, &other.ttft),
            (&mut self.e2e, &other.e2e),
            (&mut self.slowdown, &other.slowdown),
            (&mut self.overtakes, &other.overtakes),
        ] {
            into.merge(from);
        }
        for (into, from) in [
            (&mut self.prefill, &other.prefill),
            (&mut self.decode, &other.decode),
            (&mut self.preempted, &other.preempted),
            (&mut self.ttft_service, &other.ttft_service),
            (&mut self.tpot, &other.tpot),
            (&mut self.gaps, &other.gaps),
            (&mut self.gap_max, &other.gap_max),
            (&mut self.ntpot, &other.ntpot),
        ] {
            into.merge(from);
        }
        self.phases.merge(&other.phases);
        for (into, from) in self.waited.iter_mut().zip(&other.waited) {
            into.requests += from.requests;
            into.nanos += from.nanos;
            into.nanos_of_missed += from.nanos_of_missed;
        }
        self.due += other.due;
        if let Some(worst) = other.worst
            && self.worst.is_none_or(|mine| worst.wait > mine.wait)
        {
            self.worst = Some(worst);
        }
    }
}

/// What is counted of the measured requests of one tenant.
#[derive(Clone, Debug, Default)]
pub(crate) struct TenantTally {
    pub outcomes: Outcomes,
    pub good: u64,
    pub good_tokens: u64,
    pub output_tokens: u64,
    pub queue: Spans,
    pub ttft: Spans,
    pub e2e: Spans,
    /// In 10⁻⁹.
    pub slowdown: Spans,
}

impl TenantTally {
    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &TenantTally) {
        self.outcomes.merge(&other.outcomes);
        self.good += other.good;
        self.good_tokens += other.good_tokens;
        self.output_tokens += other.output_tokens;
        self.queue.merge(&other.queue);
        self.ttft.merge(&other.ttft);
        self.e2e.merge(&other.e2e);
        self.slowdown.merge(&other.slowdown);
    }
}

/// A request that would take less than this alone counts as if it took this: what is done in the
/// blink of an eye is not slowed down by as long a wait.
const ALONE_MIN: Span = Span::from_millis(100);

/// The bounded slowdown in 10⁻⁹: response ÷ response alone, which is taken as [`ALONE_MIN`] at
/// least, and at least 1 (Feitelson and Rudolph, JSSPP 1998; Mu'alem and Feitelson, 2001).
pub(crate) fn slowdown(e2e: Span, alone: Span) -> u64 {
    const ONE: u128 = 1_000_000_000;
    let alone = u128::from(alone.max(ALONE_MIN).nanos());
    let ratio = (u128::from(e2e.nanos()) * ONE + alone / 2) / alone;
    u64::try_from(ratio.max(ONE)).unwrap_or(u64::MAX)
}

/// Time per output token after the first, to the nearest nanosecond; `None` below two tokens.
pub(crate) fn tpot_nanos(record: &RequestRecord) -> Option<u64> {
    let (first, last) = (record.first_token?, record.last_token?);
    (record.output_tokens >= 2)
        .then(|| divide_rounded((last - first).nanos(), u64::from(record.output_tokens - 1)))
}

/// To the nearest, halves up.
pub(crate) fn divide_rounded(nanos: u64, by: u64) -> u64 {
    (nanos + by / 2) / by
}

/// The measured part of time: from the end of the warm-up.
pub(crate) fn measured(arrived: Time, warm_up: Span) -> bool {
    arrived.nanos() >= warm_up.nanos()
}
