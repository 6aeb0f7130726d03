//! `power-of-two`: of two backends with room, drawn at random, the one with fewer outstanding
//! tokens; of equals the one in the lower slot.
//!
//! **Promise.** With balls thrown one after the other the fullest of n bins holds
//! ln ln n / ln 2 + O(1) more than the mean, against ln n / ln ln n by one random choice
//! (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10),
//! 2001). It forgives accounts that are old or shared: two gateways that see the same loads do not
//! both send everything to the same backend.
//!
//! **Failure.** On accounts that are exact, as those of one allocator are, `least-tokens` is better;
//! the draw only adds noise.
//!
//! The stream belongs to this rule: one draw a dispatch, whatever else the policy does, so the same
//! inputs give the same decisions. An index drawn from 32 bits among n backends is off uniform by at
//! most n / 2³².

use plimsoll_base::{Stream, StreamKey};

/// The rule's stream and its next draw.
#[derive(Debug)]
pub(crate) struct Pairs {
    stream: Stream,
    drawn: u64,
}

impl Pairs {
    pub fn new(seed: u64) -> Pairs {
        let name = "policy.place.power-of-two";
        let mut stream = Stream::new(StreamKey { seed, replication: 0, name, entity: 0 });
        let drawn = stream.bits();
        Pairs { stream, drawn }
    }

    /// Two different numbers below `count`, or the only one twice. The same until a dispatch.
    pub fn pair(&self, count: usize) -> (usize, usize) {
        if count < 2 {
            return (0, 0);
        }
        let scaled = |bits: u64, below: usize| ((bits * below as u64) >> 32) as usize;
        let first = scaled(self.drawn >> 32, count);
        let second = scaled(self.drawn & u64::from(u32::MAX), count - 1);
        (first, second + usize::from(second >= first))
    }

    /// A request was dispatched.
    pub fn went(&mut self) {
        self.drawn = self.stream.bits();
    }
}
