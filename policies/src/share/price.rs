//! What a request costs.

use super::dominant::Times;
use crate::config::TokenCost;

/// How a request's tokens become cost units.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Price {
    /// Each token has its price.
    Tokens(TokenCost),
    /// One unit, whatever its tokens.
    Requests,
    /// Its time at the resource it needs most of, in nanoseconds.
    Dominant(Times),
}

impl Price {
    /// The cost in cost units, at most 2⁵³ or so.
    #[inline]
    pub fn of(&self, prompt_tokens: u32, output_tokens: u32) -> i64 {
        match self {
            Price::Tokens(cost) => cost_of(*cost, prompt_tokens, output_tokens),
            Price::Requests => 1,
            Price::Dominant(times) => times.dominant(prompt_tokens, output_tokens),
        }
    }
}

/// The cost of a request at token prices. [`Config::check`](crate::Config::check) keeps prices
/// small enough to fit.
#[inline]
pub(crate) fn cost_of(price: TokenCost, prompt_tokens: u32, output_tokens: u32) -> i64 {
    let prompt = u64::from(prompt_tokens) * u64::from(price.prompt);
    (prompt + u64::from(output_tokens) * u64::from(price.output)) as i64
}
