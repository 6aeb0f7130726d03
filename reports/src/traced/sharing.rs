//! What prompts have in common: blocks that earlier prompts began with.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::histogram::{Histogram, rank};

/// What prompts share with earlier ones, as if a memory without limit held all of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sharing {
    /// Tokens of a block.
    pub block_tokens: u32,
    /// Rows that state their blocks.
    pub rows: u64,
    /// Blocks of all of them.
    pub blocks: u64,
    /// Different ones.
    pub distinct: u64,
    /// Rows whose first block an earlier row had.
    pub rows_with_known_beginning: u64,
    /// Of all prompt tokens, those in blocks that an earlier prompt began with as well: what a prefix
    /// cache without limit would save.
    pub known_share: f64,
    /// Half of the known blocks were used again within so many seconds; null without any.
    pub reuse_p50_s: Option<f64>,
    /// And 90 % of them.
    pub reuse_p90_s: Option<f64>,
}

/// The fold.
pub(super) struct Shared {
    block_tokens: u32,
    /// When each block was last used.
    last: HashMap<u64, u64>,
    rows: u64,
    blocks: u64,
    known_rows: u64,
    known_tokens: u64,
    tokens: u64,
    reuse: Histogram,
}

impl Shared {
    pub fn new(block_tokens: u32) -> Shared {
        Shared {
            block_tokens,
            last: HashMap::new(),
            rows: 0,
            blocks: 0,
            known_rows: 0,
            known_tokens: 0,
            tokens: 0,
            reuse: Histogram::default(),
        }
    }

    pub fn take(&mut self, nanos: u64, prompt_tokens: u32, blocks: &[u64]) {
        self.rows += 1;
        self.blocks += blocks.len() as u64;
        self.tokens += u64::from(prompt_tokens);
        let known = blocks.iter().take_while(|block| self.last.contains_key(block)).count();
        self.known_rows += u64::from(known > 0);
        // The last block of a prompt may not be full.
        let saved = (known as u64 * u64::from(self.block_tokens)).min(prompt_tokens.into());
        self.known_tokens += saved;
        for (index, block) in blocks.iter().enumerate() {
            let before = self.last.insert(*block, nanos);
            if let Some(before) = before.filter(|_| index < known) {
                self.reuse.record(nanos - before);
            }
        }
    }

    /// `None` if no row stated a block.
    pub fn summary(&self) -> Option<Sharing> {
        let at =
            |p| self.reuse.at_rank(rank(p, self.reuse.count())).map(|nanos| nanos as f64 / 1e9);
        (self.blocks > 0).then(|| Sharing {
            block_tokens: self.block_tokens,
            rows: self.rows,
            blocks: self.blocks,
            distinct: self.last.len() as u64,
            rows_with_known_beginning: self.known_rows,
            known_share: self.known_tokens as f64 / self.tokens.max(1) as f64,
            reuse_p50_s: if self.reuse.count() > 0 { at(50.0) } else { None },
            reuse_p90_s: if self.reuse.count() > 0 { at(90.0) } else { None },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_beginning_that_is_known_is_shared() {
        let mut shared = Shared::new(10);
        assert_eq!(shared.summary(), None);
        shared.take(0, 30, &[1, 2, 3]);
        shared.take(5_000_000_000, 25, &[1, 2, 9]);
        // 3 is known, but not as a beginning.
        shared.take(6_000_000_000, 20, &[8, 3]);
        // The last block is not full.
        shared.take(7_000_000_000, 15, &[1, 2]);
        let told = shared.summary().expect("there are blocks");
        assert_eq!((told.rows, told.blocks, told.distinct), (4, 10, 5));
        assert_eq!(told.rows_with_known_beginning, 2);
        assert!((told.known_share - (20.0 + 15.0) / 90.0).abs() < 1e-12);
        let (p50, p90) = (told.reuse_p50_s.expect("some"), told.reuse_p90_s.expect("some"));
        assert!((p50 - 2.0).abs() < 0.01 && (p90 - 5.0).abs() < 0.01, "{p50} {p90}");
    }
}
