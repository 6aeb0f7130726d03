//! The decoding part of a batch, behind one small trait with two implementers: [`Counters`] does
//! constant work a step and takes many at once; [`Explicit`] touches every sequence every step.
//! The scheduler's rules are written once over it.
//!
//! [`Counters`]: super::counters::Counters
//! [`Explicit`]: super::explicit::Explicit

use plimsoll_base::{ClassId, Time};

use super::clock::Series;

/// A request inside an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The owner's key for it.
    pub key: u32,
    /// Whose.
    pub class: ClassId,
    /// Engine priority, higher is more important.
    pub priority: i32,
    /// Order of arrival at the engine.
    pub serial: u64,
    /// Order of the latest entry into the batch.
    pub entry: u64,
    /// Prompt length in tokens.
    pub prompt: u32,
    /// Output length in tokens.
    pub output: u32,
    /// Output tokens delivered.
    pub delivered: u32,
    /// Tokens in KV memory.
    pub context: u32,
    /// When it delivered its latest token before it was preempted.
    pub parted: Time,
    /// The largest gap between two of its tokens, in ticks.
    pub gap_max: u64,
}

impl Sequence {
    /// Tokens to compute before it can decode: the prompt, and after a preemption the delivered
    /// output too.
    pub fn prefill_target(&self) -> u32 {
        self.prompt + self.delivered
    }
    /// Decode steps to its end.
    pub fn remaining(&self) -> u32 {
        self.output - self.delivered
    }
}

/// What is left of a sequence that has delivered everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departed {
    /// The owner's key for it.
    pub key: u32,
    /// Tokens it had in KV memory.
    pub context: u32,
    /// The largest gap between two of its tokens, in ticks.
    pub gap_max: u64,
}

impl Departed {
    /// What is left of this sequence.
    pub fn of(sequence: &Sequence) -> Departed {
        let Sequence { key, context, gap_max, .. } = *sequence;
        Departed { key, context, gap_max }
    }
}

/// The decoding sequences of a batch. Each advances by one token a step.
pub trait Batch {
    /// Steps it takes at once at most.
    const STEPS_MAX: u64;

    /// An empty batch for blocks of `block_tokens` (a power of two) and `classes` classes.
    fn new(block_tokens: u32, classes: usize) -> Self;
    /// How many decode.
    fn len(&self) -> u32;
    /// Whether none does.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The sum of their contexts in tokens.
    fn context(&self) -> u64;
    /// How many decode, by class.
    fn by_class(&self) -> &[u32];
    /// KV blocks that the steps `skip..skip + steps` from now need.
    fn growth(&self, skip: u64, steps: u64) -> u64;
    /// Steps to the next end; `u64::MAX` if none decodes.
    fn steps_to_finish(&self) -> u64;
    /// Takes in a sequence whose prefill is done and that has tokens left to deliver.
    fn join(&mut self, sequence: &Sequence);
    /// Takes `steps` steps of the given durations, at most `steps_to_finish`.
    fn advance(&mut self, steps: u64, series: Series);
    /// Takes out a sequence that has delivered everything, in order of entry.
    fn take_finished(&mut self) -> Option<Departed>;
    /// The sequence that leaves first when memory runs out: by `by_priority` the least
    /// important then the last to arrive, else the last to enter.
    fn worst(&self, by_priority: bool) -> Option<Sequence>;
    /// Takes out the sequence with this entry number.
    fn remove(&mut self, entry: u64) -> Sequence;
}

/// Whether `a` leaves before `b` when memory runs out.
pub(super) fn leaves_before(a: &Sequence, b: &Sequence, by_priority: bool) -> bool {
    if by_priority {
        (a.priority, std::cmp::Reverse(a.serial)) < (b.priority, std::cmp::Reverse(b.serial))
    } else {
        a.entry > b.entry
    }
}
