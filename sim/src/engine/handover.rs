//! Prompts that one engine computes for another.
//!
//! The rules follow vLLM with a connector for KV blocks (`NixlConnector`, behind a proxy that asks
//! the computing engine for one token): the engine that computed a prompt keeps its blocks when the
//! request is over there, until they have been read; the engine that decodes takes blocks for the
//! whole prompt before the reading begins, in the order of its queue, and computes the last token
//! of the prompt again, which gives the first token of the output. A request that is thrown out
//! while it decodes is computed again where it decodes.

use plimsoll_base::{Span, Ticks, Time};

use super::batch::{Batch, Sequence};
use super::segment::Prefill;
use super::{BatchShape, Engine, Job, Listener, Note};

impl<B: Batch> Engine<B> {
    /// Keeps the blocks of so many tokens that a request has just given back.
    pub fn keep(&mut self, tokens: u32) {
        let kept = self.blocks_free.checked_sub(self.blocks_for(tokens));
        self.blocks_free = kept.expect("what was given back at this instant is free");
    }

    /// Takes blocks for so many tokens of a prompt that comes from elsewhere, if there are any and
    /// nobody waits for some already. To be asked when the engine has begun what it does at `now`;
    /// it is to begin again then.
    pub fn reserve(&mut self, tokens: u32, now: Time, ear: &mut impl Listener) -> bool {
        if self.waiting.len() > 0 {
            return false;
        }
        self.catch_up(now, ear);
        let blocks = self.blocks_for(tokens);
        if blocks > self.blocks_free {
            return false;
        }
        self.blocks_free -= blocks;
        // The steps that were to come counted on these blocks.
        self.cut = true;
        true
    }

    /// Gives back blocks that were kept or reserved.
    pub fn give_back(&mut self, tokens: u32) {
        self.blocks_free += self.blocks_for(tokens);
        self.cut |= self.waiting.len() > 0;
    }

    /// Takes in a request whose prompt lies in the blocks that were reserved for it.
    pub fn receive(&mut self, job: Job) {
        let sequence = self.sequence(job);
        // The last token of the prompt is computed here.
        self.received.push(Sequence { context: sequence.prompt - 1, ..sequence });
        self.cut |= self.running() < self.model.seats;
    }

    /// How long a request whose prompt has come takes to its last token if nothing else is done.
    pub fn resumed(&self, prompt_tokens: u32, output_tokens: u32) -> Span {
        let last = BatchShape { prefill: 1, pairs: prompt_tokens.into(), ..BatchShape::default() };
        // Rounded down, so that nobody is faster than alone.
        let first = Ticks(self.cost.series(last).0.first).span_floor();
        let computed = self.alone(prompt_tokens, 1);
        first + self.alone(prompt_tokens, output_tokens).saturating_sub(computed)
    }

    /// The last sequence was thrown out because others hold the memory: if they are here, they are
    /// the step. Returns whether there is one; otherwise the engine rests until memory comes back.
    #[inline(never)]
    pub(super) fn admit_received_alone(&mut self, ear: &mut impl Listener) -> bool {
        self.admit_received(self.model.step_tokens_max, ear) > 0
    }

    /// Lets received requests in while seats and token budget allow; returns what they take of
    /// the budget.
    #[inline(never)]
    pub(super) fn admit_received(&mut self, budget: u32, ear: &mut impl Listener) -> u32 {
        let mut spent = 0;
        while spent < budget
            && self.running() < self.model.seats
            && let Some(sequence) = self.received.pop()
        {
            self.entries += 1;
            ear.hear(Note::Started { key: sequence.key });
            let sequence = Sequence { entry: self.entries, ..sequence };
            self.prefills.push(Prefill { sequence, chunk: 1 });
            spent += 1;
        }
        spent
    }
}
