//! The scheduler: what the next steps compute, and taking them.
//!
//! The rules follow vLLM V1: running sequences before new ones; a preempting step admits nobody;
//! prompt chunks take what the token budget leaves.

use plimsoll_base::{Ticks, Time};

use super::batch::{Batch, Departed, Sequence, leaves_before};
use super::clock::{Clock, Series};
use super::cost::BatchShape;
use super::meter::ChunkShare;
use super::{Engine, Listener, Note};
use crate::model::Admission;

/// A sequence whose prompt is being computed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefill {
    pub sequence: Sequence,
    /// Tokens computed in the current step.
    pub chunk: u32,
}

impl Prefill {
    fn remaining(&self) -> u32 {
        self.sequence.prefill_target() - self.sequence.context
    }
}

/// Steps in a row with the same batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub series: Series,
    pub steps: u64,
    /// How long they take, in ticks.
    pub span: u64,
    /// The part of the (then only) step that prompt chunks cause, in ticks.
    pub prefill_part: u64,
    /// KV tokens held at the end of the first step.
    pub held: u64,
}

impl Segment {
    /// When it shows that the segment is over, if it begins at `start`.
    pub fn end(&self, start: Clock) -> Time {
        start.after(self.span).ceil()
    }

    /// Its only step takes so many ticks, of which prompt chunks cause the same part as before.
    pub fn retime(&mut self, ticks: u64) {
        let part = u128::from(self.prefill_part) * u128::from(ticks) / u128::from(self.span.max(1));
        self.prefill_part = part as u64;
        self.series = Series { first: ticks, increment: 0 };
        self.span = ticks;
    }

    /// Ends it at the first boundary that shows at or after `at`; returns when that is.
    #[inline(never)]
    pub fn cut(&mut self, start: Clock, at: Time) -> Time {
        let ticks = start.ticks_until(at).saturating_sub(Ticks::PER_NANO - 1);
        self.steps = self.series.steps_to_reach(ticks.max(1), self.steps);
        self.span = self.series.sum(self.steps);
        self.end(start)
    }
}

impl<B: Batch> Engine<B> {
    /// Decides what the coming steps compute; `None` if there is nothing to do.
    pub(super) fn compose(&mut self, now: Time, ear: &mut impl Listener) -> Option<Segment> {
        let preempted = self.make_room(now, ear);
        if !preempted {
            self.admit(ear);
        }
        if self.running() == 0 && !(preempted && self.admit_received_alone(ear)) {
            return None;
        }
        let decoding = BatchShape {
            behind: self.behind,
            idle: self.idle,
            sequences: u64::from(self.batch.len()),
            context: self.batch.context(),
            ..BatchShape::default()
        };
        if self.prefills.is_empty() {
            let (series, holds_for) = self.cost.series(decoding);
            let wanted = match preempted || self.noise.is_some() {
                true => 1,
                false => self.batch.steps_to_finish().min(holds_for).min(B::STEPS_MAX),
            };
            let steps = self.steps_with_memory(series.fitting(wanted));
            let held = decoding.context + decoding.sequences;
            return Some(Segment { series, steps, span: series.sum(steps), prefill_part: 0, held });
        }
        Some(self.mixed_step(decoding))
    }

    /// A step that computes prompt chunks too.
    fn mixed_step(&self, decoding: BatchShape) -> Segment {
        let mut shape = decoding;
        let mut held = decoding.context + decoding.sequences;
        for prefill in &self.prefills {
            let (chunk, computed) = (u64::from(prefill.chunk), u64::from(prefill.sequence.context));
            shape.prefill += chunk;
            shape.pairs += chunk * computed + chunk * (chunk + 1) / 2;
            held += computed + chunk;
        }
        let (series, _) = self.cost.series(shape);
        let prefill_part = match shape.sequences {
            0 => series.first,
            _ => self.cost.prefill_part(shape),
        };
        Segment { series, steps: 1, span: series.first, prefill_part, held }
    }

    /// Reserves the blocks that the running sequences need for the next step, preempting until
    /// they fit. Returns whether anybody was preempted.
    fn make_room(&mut self, now: Time, ear: &mut impl Listener) -> bool {
        let mut preempted = false;
        loop {
            let budget = self.model.step_tokens_max - self.batch.len();
            let mut need = self.batch.growth(0, 1) as u32;
            if let Some(partial) = self.prefills.first_mut() {
                partial.chunk = partial.remaining().min(budget);
                let Prefill { sequence: Sequence { context, .. }, chunk } = *partial;
                need += self.blocks_for(context + chunk) - self.blocks_for(context);
            }
            if need <= self.blocks_free {
                self.blocks_free -= need;
                return preempted;
            }
            self.preempt(now, ear);
            preempted = true;
        }
    }

    /// Throws the least important, latest sequence out of the batch.
    // Apart: in the loop that calls it it would take the registers from all else.
    #[inline(never)]
    fn preempt(&mut self, now: Time, ear: &mut impl Listener) {
        let by_priority = self.model.admission == Admission::Priority;
        let decoding = self.batch.worst(by_priority);
        let computing = self.prefills.first().map(|prefill| prefill.sequence);
        let from_batch = match (&decoding, &computing) {
            (Some(decoding), Some(computing)) => leaves_before(decoding, computing, by_priority),
            (decoding, _) => decoding.is_some(),
        };
        let mut victim = if from_batch {
            self.divide_shared();
            let entry = decoding.expect("it was chosen from the batch").entry;
            Sequence { parted: now, ..self.batch.remove(entry) }
        } else {
            self.prefills.pop().expect("a full memory is held by somebody").sequence
        };
        let (key, lost_tokens, delivered) = (victim.key, victim.context, victim.delivered);
        ear.hear(Note::Preempted { key, lost_tokens, delivered });
        self.meter.count_preemption(lost_tokens);
        self.blocks_free += self.blocks_for(victim.context);
        victim.context = 0;
        self.waiting.push_preempted(victim);
    }

    /// Lets waiting requests in while seats, token budget and KV blocks allow.
    fn admit(&mut self, ear: &mut impl Listener) {
        // Between steps at most one prompt is left.
        let spent = self.prefills.first().map_or(0, |partial| partial.chunk);
        let mut budget = self.model.step_tokens_max - self.batch.len() - spent;
        if self.received.len() > 0 {
            budget -= self.admit_received(budget, ear);
        }
        while let Some(first) = self.waiting.first()
            && budget > 0
            && self.running() < self.model.seats
        {
            let (key, whole) = (first.key, first.prefill_target());
            // An unchunked prompt larger than the budget may run as the only one of its step.
            let chunk = match self.model.chunked_prefill {
                true => whole.min(budget),
                false if whole > budget && !self.prefills.is_empty() => return,
                false => whole,
            };
            let blocks = self.blocks_for(chunk);
            if blocks > self.blocks_free {
                return;
            }
            self.blocks_free -= blocks;
            budget = budget.saturating_sub(chunk);
            self.entries += 1;
            ear.hear(Note::Started { key });
            let waited = self.waiting.pop().expect("somebody waits");
            let sequence = Sequence { entry: self.entries, ..waited };
            self.prefills.push(Prefill { sequence, chunk });
        }
    }

    /// The greatest number of steps, at most `wanted`, for which there are KV blocks. Those of
    /// the first step are reserved already.
    fn steps_with_memory(&self, wanted: u64) -> u64 {
        let free = u64::from(self.blocks_free);
        let rounds = (wanted >> self.block_shift) + 1;
        if rounds * u64::from(self.batch.len()) <= free || self.batch.growth(1, wanted - 1) <= free
        {
            return wanted;
        }
        let (mut enough, mut short) = (1, wanted);
        while short - enough > 1 {
            let middle = enough + (short - enough) / 2;
            match self.batch.growth(1, middle - 1) <= free {
                true => enough = middle,
                false => short = middle,
            }
        }
        enough
    }

    /// Takes the steps of a segment, or of the first part of one.
    #[inline(always)]
    pub(super) fn take_steps(&mut self, segment: &Segment, ear: &mut impl Listener) {
        let Segment { series, steps, span, .. } = *segment;
        if steps > 1 {
            let grown = self.batch.growth(1, steps - 1);
            self.blocks_free = u32::try_from(u64::from(self.blocks_free) - grown)
                .expect("a segment ends before memory does");
        }
        let sequences = self.batch.len();
        if self.looks_behind && (self.behind.steps > 0 || !self.prefills.is_empty()) {
            let prefill = self.prefills.iter().map(|it| u64::from(it.chunk)).sum();
            let (behind, idle) = (self.behind, self.idle);
            let shape = BatchShape { prefill, behind, idle, ..BatchShape::default() };
            self.behind = shape.leaves(steps);
        }
        self.meter.count_steps((steps, series, span), u64::from(sequences), segment.held);
        if segment.prefill_part > 0 {
            let chunks = self.prefills.iter();
            let chunks = chunks.map(|p| ChunkShare { class: p.sequence.class, tokens: p.chunk });
            self.meter.attribute_prefill(segment.prefill_part, chunks);
        }
        if sequences > 0 {
            self.note_gaps(steps, series, ear);
            self.batch.advance(steps, series);
        }
        self.clock = self.clock.after(span);
    }

    #[inline(always)]
    fn note_gaps(&self, steps: u64, series: Series, ear: &mut impl Listener) {
        for (class, &sequences) in self.batch.by_class().iter().enumerate() {
            if sequences > 0 {
                ear.hear(Note::Gaps {
                    class: plimsoll_base::ClassId(class as u16),
                    first: Ticks(series.first),
                    increment: Ticks(series.increment),
                    count: steps,
                    sequences,
                });
            }
        }
    }

    /// Ends the step for the sequences whose prompt was being computed. Those that are done
    /// deliver a token and decode from now on.
    pub(super) fn finish_prefills(&mut self, now: Time, ear: &mut impl Listener) {
        if self.prefills.is_empty() {
            return;
        }
        self.divide_shared();
        let mut done = 0;
        while let Some(Prefill { sequence, chunk }) = self.prefills.get_mut(done) {
            sequence.context += std::mem::take(chunk);
            if sequence.context < sequence.prefill_target() {
                break;
            }
            ear.hear(Note::Token { key: sequence.key });
            if sequence.delivered > 0 {
                come_back(sequence, now, ear);
            }
            sequence.delivered += 1;
            self.meter.count_token();
            if sequence.remaining() == 0 {
                let departed = Departed::of(sequence);
                self.release(departed, ear);
            } else {
                self.batch.join(sequence);
            }
            done += 1;
        }
        let left = self.prefills.len() - done;
        assert!(left <= 1, "only the last prompt of a step can be left unfinished");
        if done == 0 {
            return;
        }
        if left > 0 {
            self.prefills.swap(0, done);
        }
        self.prefills.truncate(left);
    }
}

/// A sequence that was preempted delivers again: that was a gap like others.
#[inline(never)]
fn come_back(sequence: &mut Sequence, now: Time, ear: &mut impl Listener) {
    let gap = (now - sequence.parted).ticks().expect("a gap stays below 78 hours");
    sequence.gap_max = sequence.gap_max.max(gap.0);
    let (class, increment) = (sequence.class, Ticks(0));
    ear.hear(Note::Gaps { class, first: gap, increment, count: 1, sequences: 1 });
}
