//! What the fold counts of measured requests, each value once: by tenant and class what is told
//! of both, by class the rest. [`Tally`] and [`TenantTally`] are added up from these.

use plimsoll_base::{Outcome, Reason, RequestRecord, Span};

use crate::histogram::Histogram;
use crate::plan::Limits;
use crate::tally::{
    Outcomes, PhaseBins, Spans, Tally, TenantTally, WAIT_ENGINE, WAIT_TURN, WAITS, Waited,
    WorstWait, divide_rounded, slowdown, tpot_nanos,
};

/// Two measures that agree for most requests: where they do, the value is recorded once.
#[derive(Clone, Debug, Default)]
struct Twins {
    both: Histogram,
    one: Histogram,
    other: Histogram,
}

impl Twins {
    #[inline(always)]
    fn record(&mut self, one: Span, other: Span) {
        if one == other {
            self.both.record(one.nanos());
        } else {
            self.one.record(one.nanos());
            self.other.record(other.nanos());
        }
    }
    fn add_one_to(&self, histogram: &mut Histogram) {
        histogram.merge(&self.both);
        histogram.merge(&self.one);
    }
    fn add_other_to(&self, histogram: &mut Histogram) {
        histogram.merge(&self.both);
        histogram.merge(&self.other);
    }
}

/// Measured requests of one tenant in one class.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupCount {
    pub outcomes: Outcomes,
    /// Finished within every per-request limit.
    good: u64,
    good_tokens: u64,
    output_tokens: u64,
    /// Queue time, and the part of it before the first start: of requests that started, and of
    /// the others so far.
    queue: Twins,
    queue_censored: Twins,
    ttft: Spans,
    e2e: Spans,
    /// Of those of which it is known how long they take alone; in 10⁻⁹.
    slowdown: Spans,
}

impl GroupCount {
    /// Counts how long a request that was not refused waited for its start and its first token.
    #[inline(always)]
    fn wait(&mut self, record: &RequestRecord, e2e: Span) {
        let wait = record.phases.queue;
        match record.started {
            Some(started) => self.queue.record(wait, started - record.arrived),
            None => self.queue_censored.record(wait, e2e),
        }
        self.ttft.record(record.ttft(), e2e);
    }

    fn finish(&mut self, e2e: Span, tokens: u32, good: bool) {
        self.e2e.observed.record(e2e.nanos());
        self.good += u64::from(good);
        self.good_tokens += if good { u64::from(tokens) } else { 0 };
    }

    #[inline(always)]
    fn slow_down(&mut self, record: &RequestRecord, e2e: Span) {
        if record.alone > Span::ZERO {
            let slowdown = slowdown(e2e, record.alone);
            match record.finished() {
                true => self.slowdown.observed.record(slowdown),
                false => self.slowdown.censored.record(slowdown),
            }
        }
    }

    /// Adds it to its class.
    pub fn add_to_class(&self, tally: &mut Tally) {
        tally.outcomes.merge(&self.outcomes);
        tally.good += self.good;
        tally.good_tokens += self.good_tokens;
        tally.output_tokens += self.output_tokens;
        tally.finished_nanos += self.e2e.observed.sum_whole_nanos();
        self.queue.add_one_to(&mut tally.queue.observed);
        self.queue_censored.add_one_to(&mut tally.queue.censored);
        self.queue.add_other_to(&mut tally.queue_first.observed);
        self.queue_censored.add_other_to(&mut tally.queue_first.censored);
        tally.ttft.merge(&self.ttft);
        tally.e2e.merge(&self.e2e);
        tally.slowdown.merge(&self.slowdown);
    }

    /// Adds it to its tenant.
    pub fn add_to_tenant(&self, tally: &mut TenantTally) {
        tally.outcomes.merge(&self.outcomes);
        tally.good += self.good;
        tally.good_tokens += self.good_tokens;
        tally.output_tokens += self.output_tokens;
        self.queue.add_one_to(&mut tally.queue.observed);
        self.queue_censored.add_one_to(&mut tally.queue.censored);
        tally.ttft.merge(&self.ttft);
        tally.e2e.merge(&self.e2e);
        tally.slowdown.merge(&self.slowdown);
    }
}

/// From its start to its first token.
fn served(record: &RequestRecord) -> Option<Span> {
    record.started.zip(record.first_token).map(|(from, first)| first - from)
}

/// Measured requests of one class: what is not told of its tenants.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClassCount {
    prompt_tokens: u64,
    finished_tokens: u64,
    preemptions: u64,
    recomputed_tokens: u64,
    preemptions_max: u32,
    wasted_tokens: u64,
    evicted_tokens: u64,
    tpot_undefined: u64,
    /// The prefill phase of finished requests, and from the start to the first token of all that
    /// got one.
    prefill: Twins,
    decode: Histogram,
    /// Of finished requests for which it is not zero.
    preempted: Histogram,
    tpot: Histogram,
    pub gaps: Histogram,
    gap_max: Histogram,
    ntpot: Histogram,
    phases: PhaseBins,
    waited: [Waited; WAITS],
    due: u64,
    /// The first of those that waited longest; `None` if none waited.
    pub worst: Option<WorstWait>,
}

impl ClassCount {
    /// Counts a measured request at its close, here and in its group.
    #[inline(always)]
    pub fn close(&mut self, group: &mut GroupCount, record: &RequestRecord, limits: &Limits) {
        group.output_tokens += u64::from(record.output_tokens);
        self.preemptions += u64::from(record.preemptions);
        self.recomputed_tokens += u64::from(record.recomputed_tokens);
        self.preemptions_max = self.preemptions_max.max(record.preemptions);
        if record.finished() {
            self.close_finished(group, record, limits);
        } else {
            self.close_other(group, record);
        }
    }

    #[inline(always)]
    fn close_finished(&mut self, group: &mut GroupCount, record: &RequestRecord, limits: &Limits) {
        let e2e = record.e2e();
        group.outcomes.finished += 1;
        group.wait(record, e2e);
        group.slow_down(record, e2e);
        match served(record) {
            Some(served) => {
                self.prompt_tokens += u64::from(record.prompt_tokens);
                self.prefill.record(record.phases.prefill, served);
            }
            None => self.prefill.one.record(record.phases.prefill.nanos()),
        }
        let good = self.finish(record, e2e, limits);
        group.finish(e2e, record.output_tokens, good);
        self.due += u64::from(record.reason == Some(Reason::Due));
        if record.phases.queue > Span::ZERO {
            self.wait(record, good);
        }
    }

    /// Counts a request that did not finish.
    #[inline(never)]
    fn close_other(&mut self, group: &mut GroupCount, record: &RequestRecord) {
        group.outcomes.close(record.outcome);
        if let Outcome::Ended(_) | Outcome::Unfinished = record.outcome {
            let e2e = record.e2e();
            group.wait(record, e2e);
            group.slow_down(record, e2e);
            group.e2e.censored.record(e2e.nanos());
            if let Some(served) = served(record) {
                self.prompt_tokens += u64::from(record.prompt_tokens);
                self.prefill.other.record(served.nanos());
            }
            if record.wasted_tokens > 0 {
                self.waste(record);
            }
            self.due += u64::from(record.reason == Some(Reason::Due));
        }
        // Of those that were refused, one that waited and was then sent away.
        if record.phases.queue > Span::ZERO {
            self.wait(record, false);
        }
    }

    /// Counts what was computed for a request that was then evicted.
    #[cold]
    fn waste(&mut self, record: &RequestRecord) {
        self.wasted_tokens += u64::from(record.wasted_tokens);
        let prompt = record.first_token.map_or(0, |_| record.prompt_tokens);
        self.evicted_tokens += u64::from(prompt) + u64::from(record.output_tokens);
    }

    /// Counts a finished request. Returns whether it was good.
    #[inline]
    fn finish(&mut self, record: &RequestRecord, e2e: Span, limits: &Limits) -> bool {
        let phases = &record.phases;
        let e2e = e2e.nanos();
        let tokens = u64::from(record.output_tokens);
        self.decode.record(phases.decode.nanos());
        if phases.preempted > Span::ZERO {
            self.preempted.record(phases.preempted.nanos());
        }
        self.phases.record(e2e, phases);
        self.finished_tokens += tokens;
        let tpot = tpot_nanos(record);
        match tpot {
            Some(tpot) => {
                self.ntpot.record(divide_rounded(e2e, tokens));
                self.tpot.record(tpot);
                self.gap_max.record(record.gap_max.nanos());
            }
            None => self.finish_short(e2e, tokens),
        }
        record.ttft().map_or(0, Span::nanos) <= limits.ttft
            && tpot.unwrap_or(0) <= limits.tpot
            && e2e <= limits.e2e
            && phases.queue.nanos() <= limits.queue
    }

    /// A finished request without a time per output token after the first.
    #[cold]
    fn finish_short(&mut self, e2e: u64, tokens: u64) {
        self.tpot_undefined += 1;
        if tokens > 0 {
            self.ntpot.record(divide_rounded(e2e, tokens));
        }
    }

    /// Splits the wait: up to dispatch by the bound that the allocator named, the rest is the
    /// engine's. The parts sum to the queue time.
    #[inline]
    fn wait(&mut self, record: &RequestRecord, good: bool) {
        let total = record.phases.queue;
        let let_in = record.dispatched.unwrap_or(record.closed);
        let outside = (let_in - record.arrived).min(total);
        let cause = record.bound.map_or(WAIT_TURN, |bound| bound as usize);
        self.waited[cause].add(outside, good);
        self.waited[WAIT_ENGINE].add(total - outside, good);
        if self.worst.as_ref().is_none_or(|worst| total > worst.wait) {
            self.wait_worst(record);
        }
    }

    #[cold]
    fn wait_worst(&mut self, record: &RequestRecord) {
        self.worst = Some(WorstWait { wait: record.phases.queue, record: *record });
    }

    /// Adds it to the tally of its class; the groups of the class have been added before.
    pub fn add_to(&self, tally: &mut Tally) {
        tally.prompt_tokens += self.prompt_tokens;
        tally.finished_tokens += self.finished_tokens;
        tally.preemptions += self.preemptions;
        tally.recomputed_tokens += self.recomputed_tokens;
        tally.preemptions_max = self.preemptions_max;
        tally.wasted_tokens += self.wasted_tokens;
        tally.evicted_tokens += self.evicted_tokens;
        tally.tpot_undefined += self.tpot_undefined;
        self.prefill.add_one_to(&mut tally.prefill);
        self.prefill.add_other_to(&mut tally.ttft_service);
        tally.decode.merge(&self.decode);
        tally.preempted.merge(&self.preempted);
        tally.preempted.record_times(0, tally.outcomes.finished - self.preempted.count());
        tally.tpot.merge(&self.tpot);
        tally.gaps.merge(&self.gaps);
        tally.gap_max.merge(&self.gap_max);
        tally.ntpot.merge(&self.ntpot);
        tally.phases.merge(&self.phases);
        tally.waited = self.waited;
        tally.due += self.due;
        tally.worst = self.worst;
    }
}
