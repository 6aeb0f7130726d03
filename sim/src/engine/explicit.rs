//! The obvious batch: a list of sequences, each touched every step. The witness for
//! [`Counters`](super::counters::Counters), and what `stepping = "single"` runs.

use super::batch::{Batch, Departed, Sequence, leaves_before};
use super::clock::Series;

/// Sequences in order of entry.
#[derive(Debug)]
pub struct Explicit {
    sequences: Vec<Sequence>,
    by_class: Vec<u32>,
    block_tokens: u32,
}

impl Batch for Explicit {
    const STEPS_MAX: u64 = 1;

    fn new(block_tokens: u32, classes: usize) -> Explicit {
        Explicit { sequences: Vec::new(), by_class: vec![0; classes], block_tokens }
    }
    fn len(&self) -> u32 {
        u32::try_from(self.sequences.len()).expect("seats are counted in 32 bits")
    }
    fn context(&self) -> u64 {
        self.sequences.iter().map(|s| u64::from(s.context)).sum()
    }
    fn by_class(&self) -> &[u32] {
        &self.by_class
    }
    fn growth(&self, skip: u64, steps: u64) -> u64 {
        let block = u64::from(self.block_tokens);
        let blocks_after = |s: &Sequence, n: u64| (u64::from(s.context) + n).div_ceil(block);
        self.sequences.iter().map(|s| blocks_after(s, skip + steps) - blocks_after(s, skip)).sum()
    }
    fn steps_to_finish(&self) -> u64 {
        self.sequences.iter().map(|s| u64::from(s.remaining())).min().unwrap_or(u64::MAX)
    }
    fn join(&mut self, sequence: &Sequence) {
        self.by_class[sequence.class.index()] += 1;
        self.sequences.push(*sequence);
    }
    fn advance(&mut self, steps: u64, series: Series) {
        for step in 0..steps {
            for sequence in &mut self.sequences {
                sequence.context += 1;
                sequence.delivered += 1;
                sequence.gap_max = sequence.gap_max.max(series.step(step));
            }
        }
    }
    fn take_finished(&mut self) -> Option<Departed> {
        let position = self.sequences.iter().position(|s| s.remaining() == 0)?;
        let sequence = self.sequences.remove(position);
        self.by_class[sequence.class.index()] -= 1;
        Some(Departed::of(&sequence))
    }
    fn worst(&self, by_priority: bool) -> Option<Sequence> {
        self.sequences.iter().copied().reduce(|worst, next| {
            if leaves_before(&next, &worst, by_priority) { next } else { worst }
        })
    }
    fn remove(&mut self, entry: u64) -> Sequence {
        let position = self.sequences.iter().position(|s| s.entry == entry);
        let sequence = self.sequences.remove(position.expect("the sequence is in the batch"));
        self.by_class[sequence.class.index()] -= 1;
        sequence
    }
}
