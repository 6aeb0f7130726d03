//! Dominant resource fairness over time: memoryless DRFQ (Ghodsi, Sekar, Zaharia and Stoica,
//! "Multi-Resource Fair Queueing for Packet Processing", SIGCOMM 2012), which brings dominant
//! resource fairness (Ghodsi et al., NSDI 2011) to resources that are shared by taking turns.
//!
//! One price a token cannot compare work that is bound by different things: a long prompt fills
//! the prefill, a long answer the decode, and both together the KV memory for as long as they
//! run. A request's processing time at each resource is what it needs of it over what there is a
//! second, as the policy states it:
//!
//! | resource | time |
//! |---|---|
//! | prefill | prompt tokens / `prefill` |
//! | decode | output tokens / `decode` |
//! | KV memory | (prompt + output tokens) · output tokens · `output_token` / `kv_tokens` |
//!
//! The KV memory is held as the dispatch window counts it, prompt and predicted output from the
//! first step to the last. The *dominant* time is the greatest of the three. A request's start
//! tag is the same at every resource, `S = max(V, F)`, and `F = S + dominant time / weight`; the
//! flow with the least of its greatest start tags is next, ties by flow. This is the paper's
//! memoryless rule. (Its other, dove-tailing, keeps a tag a resource and lets a flow make up for
//! a prompt-heavy request with an output-heavy one.)
//!
//! **Bound.** As start-time fair queueing, in dominant time: while flows f and g both have work,
//! `|D_f/w_f − D_g/w_g| ≤ d_f/w_f + d_g/w_g + 2 · (E_f/w_f + E_g/w_g)`, `D` the dominant time booked,
//! `d` that of the flow's largest request, `E` the greatest sum of errors of prediction of its
//! requests in flight. Hence no flow is better off with another's share, and each gets at least
//! its part of its dominant resource.
//!
//! **How it fails.** It is as good as the stated capacities: one that is stated too high is never
//! dominant and goes unguarded. A flow whose requests differ in what is dominant pays for the
//! greatest time of each.
//!
//! Times are whole nanoseconds, rounded down from 32 binary places, and at most 2⁵³ (104 days).

use plimsoll_base::Reason;

use super::counter::{Counters, Lift};
use super::price::Price;
use crate::config::{Capacity, Config, Per};
use crate::promise::Charge;

const FRACTION_BITS: u32 = 32;
/// The longest time a request is booked with: the largest cost at the other rules.
const TIME_MAX: u128 = 1 << 53;
const SECOND: u64 = 1_000_000_000;

pub(crate) fn dominant_resource(config: &Config, per: Per, capacity: &Capacity) -> Counters {
    let price = Price::Dominant(Times::new(capacity));
    Counters::new(config, per, price, (Lift::START_TAG, Reason::DominantShare))
}

/// Nanoseconds of each resource that a unit takes, in 2⁻³² ns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    prompt_token: u64,
    output_token: u64,
    /// A token held for one output token.
    held_token: u64,
}

impl Times {
    pub fn new(capacity: &Capacity) -> Times {
        Times {
            prompt_token: over(SECOND, capacity.prefill_tokens),
            output_token: over(SECOND, capacity.decode_tokens),
            held_token: over(capacity.output_token.nanos(), capacity.kv_tokens),
        }
    }

    /// What the rule charges, for those who keep its book.
    pub fn charge(&self) -> Charge {
        let Times { prompt_token, output_token, held_token } = *self;
        Charge::Dominant { prompt_token, output_token, held_token }
    }

    /// The dominant time of a request in nanoseconds.
    pub fn dominant(&self, prompt_tokens: u32, output_tokens: u32) -> i64 {
        let (prompt, output) = (u64::from(prompt_tokens), u64::from(output_tokens));
        let held = (prompt + output).saturating_mul(output);
        let time = |tokens: u64, each: u64| u128::from(tokens) * u128::from(each);
        let prefill = time(prompt, self.prompt_token);
        let decode = time(output, self.output_token);
        let dominant = prefill.max(decode).max(time(held, self.held_token));
        (dominant >> FRACTION_BITS).min(TIME_MAX) as i64
    }
}

fn over(nanos: u64, capacity: u64) -> u64 {
    let time = (u128::from(nanos) << FRACTION_BITS) / u128::from(capacity);
    u64::try_from(time).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use plimsoll_base::Span;

    use super::*;

    #[test]
    fn the_greatest_time_counts() {
        let capacity = Capacity {
            prefill_tokens: 1_000_000,
            decode_tokens: 10_000,
            kv_tokens: 100,
            output_token: Span::from_millis(1),
        };
        let times = Times::new(&capacity);
        assert_eq!(times.dominant(500, 0), 500_000, "1 µs a prompt token");
        assert_eq!(times.dominant(1, 1), 100_000, "100 µs an output token");
        // 110 tokens held for 10 ms of 100 tokens' memory.
        assert_eq!(times.dominant(100, 10), 11_000_000);
        assert_eq!(times.dominant(u32::MAX, u32::MAX), TIME_MAX as i64);
    }

    #[test]
    fn no_capacity_overflows() {
        for units in [1, u64::MAX] {
            let capacity = Capacity {
                prefill_tokens: units,
                decode_tokens: units,
                kv_tokens: units,
                output_token: Span::from_nanos(u64::MAX),
            };
            let time = Times::new(&capacity).dominant(u32::MAX, u32::MAX);
            assert!((0..=TIME_MAX as i64).contains(&time));
        }
    }
}
