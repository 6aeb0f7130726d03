//! The fast batch: constant work a step, any number of steps at once.
//!
//! No sequence is touched while it decodes. A step counter says how far everybody is; a wheel
//! says who ends next; the sum of contexts grows by the batch size a step; and since a sequence
//! needs a new KV block every `block_tokens` steps, one counter a residue says how many need one
//! at a given step.

use super::batch::{Batch, Departed, Sequence, leaves_before};
use super::clock::Series;
use super::ends::Ends;

/// Decoding sequences as counters.
#[derive(Debug)]
pub struct Counters {
    /// Steps taken.
    step: u64,
    context: u64,
    by_class: Vec<u32>,
    /// `residues[r]` sequences need a block at every step ≡ r modulo `block_tokens`.
    residues: Vec<u32>,
    block_shift: u32,
    /// Tokens a block less one.
    block_mask: u64,
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// By slot; whoever joins has entered last.
    ends: Ends,
    peaks: Peaks,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// As it was when it joined.
    sequence: Sequence,
    /// The step counter when it joined; `u64::MAX` marks a free slot.
    joined: u64,
}

/// The residue of the steps at which a sequence with `context` tokens at step `joined` opens a block:
/// when its context is a whole number of blocks.
fn residue(joined: u64, context: u32, block_mask: u64) -> usize {
    (joined.wrapping_sub(u64::from(context)) & block_mask) as usize
}

impl Counters {
    /// Frees a slot; returns its sequence as it was when it joined, and the steps since.
    #[inline(always)]
    fn leave(&mut self, slot: u16) -> (&Sequence, u32, u64) {
        self.free.push(slot);
        let Slot { sequence, joined } = &mut self.slots[usize::from(slot)];
        let joined = std::mem::replace(joined, u64::MAX);
        let steps = self.step - joined;
        let peak = self.peaks.since(joined);
        if self.ends.len() == 0 {
            self.peaks.clear();
        }
        let residue = residue(joined, sequence.context, self.block_mask);
        self.residues[residue] -= 1;
        self.by_class[sequence.class.index()] -= 1;
        self.context -= u64::from(sequence.context) + steps;
        let steps = u32::try_from(steps).expect("an output is counted in 32 bits");
        (sequence, steps, sequence.gap_max.max(peak))
    }
}

impl Batch for Counters {
    const STEPS_MAX: u64 = u64::MAX;

    fn new(block_tokens: u32, classes: usize) -> Counters {
        assert!(block_tokens.is_power_of_two(), "a block holds a power of two of tokens");
        Counters {
            step: 0,
            context: 0,
            by_class: vec![0; classes],
            residues: vec![0; block_tokens as usize],
            block_shift: block_tokens.trailing_zeros(),
            block_mask: u64::from(block_tokens) - 1,
            slots: Vec::new(),
            free: Vec::new(),
            ends: Ends::new(),
            peaks: Peaks::new(),
        }
    }
    fn len(&self) -> u32 {
        self.ends.len()
    }
    fn context(&self) -> u64 {
        self.context
    }
    fn by_class(&self) -> &[u32] {
        &self.by_class
    }
    #[inline]
    fn growth(&self, skip: u64, steps: u64) -> u64 {
        let first = ((self.step + skip) & self.block_mask) as usize;
        if steps == 1 {
            return u64::from(self.residues[first]);
        }
        let rounds = (steps >> self.block_shift) * u64::from(self.ends.len());
        let rest = (steps & self.block_mask) as usize;
        let (behind, ahead) = self.residues.split_at(first);
        rounds + u64::from(ahead.iter().chain(behind).take(rest).sum::<u32>())
    }
    fn steps_to_finish(&self) -> u64 {
        match self.ends.next() {
            u64::MAX => u64::MAX,
            end => end - self.step,
        }
    }
    fn join(&mut self, sequence: &Sequence) {
        let residue = residue(self.step, sequence.context, self.block_mask);
        self.residues[residue] += 1;
        self.by_class[sequence.class.index()] += 1;
        self.context += u64::from(sequence.context);
        let filled = Slot { sequence: *sequence, joined: self.step };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[usize::from(slot)] = filled;
                slot
            }
            None => {
                self.slots.push(filled);
                u16::try_from(self.slots.len() - 1).expect("an engine has at most 65,536 seats")
            }
        };
        self.ends.insert(slot, self.step + u64::from(sequence.remaining()));
    }
    #[inline(always)]
    fn advance(&mut self, steps: u64, series: Series) {
        self.step += steps;
        self.context += steps * u64::from(self.ends.len());
        self.peaks.push(self.step, series.step(steps - 1));
        if self.peaks.crowded() {
            let oldest = self.slots.iter().map(|slot| slot.joined).min().unwrap_or(u64::MAX);
            self.peaks.forget_until(oldest);
        }
    }
    fn take_finished(&mut self) -> Option<Departed> {
        let slot = self.ends.take(self.step)?;
        let (sequence, steps, gap_max) = self.leave(slot);
        Some(Departed { key: sequence.key, context: sequence.context + steps, gap_max })
    }
    fn worst(&self, by_priority: bool) -> Option<Sequence> {
        let taken = self.slots.iter().filter(|slot| slot.joined != u64::MAX);
        taken.map(|slot| slot.sequence).reduce(|worst, next| {
            if leaves_before(&next, &worst, by_priority) { next } else { worst }
        })
    }
    fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        let taken = self.slots.iter().filter(|slot| slot.joined != u64::MAX);
        taken.map(|slot| &slot.sequence)
    }
    fn remove(&mut self, entry: u64) -> Sequence {
        let is_sought = |slot: &Slot| slot.joined != u64::MAX && slot.sequence.entry == entry;
        let slot = self.slots.iter().position(is_sought);
        let slot = slot.expect("the sequence is in the batch") as u16;
        self.ends.remove(slot);
        let (sequence, steps, gap_max) = self.leave(slot);
        let context = sequence.context + steps;
        Sequence { context, delivered: sequence.delivered + steps, gap_max, ..*sequence }
    }
}

/// The longest step since any given step, by a stack of falling maxima: O(1) a push on average,
/// O(log n) a question. Pushes may skip steps where durations only rise (within a series).
#[derive(Debug)]
struct Peaks {
    /// (step counter after the step, ticks): counters rise, ticks fall.
    falling: Vec<(u64, u64)>,
    /// Length at which entries that nobody will ask for are looked for.
    crowd: usize,
}

impl Peaks {
    const CROWD_MIN: usize = 512;

    fn new() -> Peaks {
        Peaks { falling: Vec::new(), crowd: Self::CROWD_MIN }
    }

    fn push(&mut self, step: u64, ticks: u64) {
        while self.falling.last().is_some_and(|&(_, lower)| lower <= ticks) {
            self.falling.pop();
        }
        self.falling.push((step, ticks));
    }
    /// The longest step after the step counter stood at `joined`; 0 if there was none.
    fn since(&self, joined: u64) -> u64 {
        let later = self.falling.partition_point(|&(step, _)| step <= joined);
        self.falling.get(later).map_or(0, |&(_, ticks)| ticks)
    }
    fn crowded(&self) -> bool {
        self.falling.len() >= self.crowd
    }
    fn forget_until(&mut self, joined: u64) {
        let keep = self.falling.partition_point(|&(step, _)| step <= joined);
        self.falling.drain(..keep);
        self.crowd = Self::CROWD_MIN.max(2 * self.falling.len());
    }
    fn clear(&mut self) {
        self.falling.clear();
    }
}
