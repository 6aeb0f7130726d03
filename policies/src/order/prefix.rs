//! Longest cached prefix first, within a bound.
//!
//! **What it does.** Prompts of which much is cached go first, because they cost little, and
//! because what is cached may be gone later. `token = "1ms"`: a cached prompt token is worth so
//! much waiting; the key is arrival − token × matched. How much of a prompt is cached where is
//! asked when the request arrives, and counts as of then.
//!
//! **Source.** Zheng et al., "SGLang: Efficient Execution of Structured Language Model Programs"
//! (NeurIPS 2024): longest shared prefix first is, of all orders, the one with the most cache
//! hits. The bound is that of aging: a static key in units of time.
//!
//! **Promise.** A request is overtaken only by what arrives within token × (the other's matched
//! tokens − its own). A cold prompt waits for warm ones that came before it, or within token ×
//! the longest match after it, and for no others.
//!
//! **Failure.** Without the bound cold prompts starve behind a stream of warm ones
//! (sgl-project/sglang #31954: 5 % of the requests made 75 % of all time to first token), so a
//! policy without `token` is refused. A match is a promise of the past: by the time the request is
//! dispatched the blocks may have been evicted.

use plimsoll_base::{Span, Time};

use crate::check::BOOST_MAX;

/// The key by arrival and match. Lifted by [`BOOST_MAX`], so that subtracting stays unsigned.
pub(crate) fn key(token: Span, arrived: Time, matched: u32) -> u64 {
    let lifted = arrived.saturating_add(BOOST_MAX).nanos();
    lifted.saturating_sub(token.saturating_mul(matched.into()).nanos())
}
