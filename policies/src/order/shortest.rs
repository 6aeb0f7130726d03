//! Shortest predicted first.
//!
//! **What it does.** Of the requests of a turn the one with the fewest predicted tokens (prompt +
//! predicted output) goes first. With `aging = "2ms"` a predicted token is worth so much waiting:
//! the key is arrival + aging × tokens.
//!
//! **Source.** W. E. Smith, "Various optimizers for single-stage production" (1956): shortest first
//! has the least mean wait of all orders. For model serving with predicted lengths: Fu et al.,
//! "Efficient LLM Scheduling by Learning to Rank" (NeurIPS 2024), which adds an escape from
//! starvation, too.
//!
//! **Promise.** With aging a request is overtaken only by what arrives within aging × (its tokens
//! − the other's tokens): 2 ms let a request of 100 tokens pass one of 10,000 for 19.8 s, and not
//! longer. Without aging there is no promise.
//!
//! **Failure.** Without aging it halves the median and starves the long: while the short alone
//! fill the machine, no long request is ever served. It is as good as its predictions; with
//! `declared-cap` it favours whoever states a small `max_tokens`, which is an incentive to do so.

use plimsoll_base::{Span, Time};

/// The key by predicted tokens. Sums that exceed 64 bits go last, by arrival.
pub(crate) fn key(aging: Option<Span>, arrived: Time, tokens: u64) -> u64 {
    match aging {
        Some(aging) => arrived.saturating_add(aging.saturating_mul(tokens)).nanos(),
        None => tokens,
    }
}
