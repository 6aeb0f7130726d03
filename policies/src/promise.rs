//! What a share rule promises about the service of two flows with work, as numbers.
//!
//! In every interval in which two flows have work throughout, their charges a unit of weight differ
//! by at most
//!
//! | rule | bound |
//! |---|---|
//! | deficit round robin | `quantum + C_f/w_f + C_g/w_g + 2 (E_f/w_f + E_g/w_g)` |
//! | virtual token counter | `2 max(C_f/w_f, C_g/w_g) + 2 sum_h E_h/w_h` |
//! | start-time fair, stride, dominant resource | `C_f/w_f + C_g/w_g + 2 (E_f/w_f + E_g/w_g)` |
//! | deficit longest prefix | `2 quantum + C_f/w_f + C_g/w_g + 2 (E_f/w_f + E_g/w_g)` |
//!
//! `C` is the largest charge of a flow, `E` the largest total error of prediction of its requests in
//! flight, `w` its weight. `policies/tests/fairness.rs` holds the rules to it; sources are given in
//! each rule's own file.

use crate::config::{Config, Per, Place, Share, TokenCost, Window};
use crate::share::Times;

/// What a rule charges for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Each token has its price.
    Tokens(TokenCost),
    /// One, whatever its tokens.
    Request,
    /// Its time at the resource it needs most of, in nanoseconds rounded down. What each takes
    /// is given in 2⁻³² ns.
    Dominant {
        /// A prompt token at the prefill.
        prompt_token: u64,
        /// An output token at the decode.
        output_token: u64,
        /// A token held for one output token in the KV memory.
        held_token: u64,
    },
}

/// The bound of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapBound {
    /// What it charges.
    pub charge: Charge,
    /// Added whatever was served.
    pub quantum: u64,
    /// Twice the larger charge of the two and the errors of all, instead of the charges and the
    /// errors of the two.
    pub counts_all: bool,
    /// The bound as a formula.
    pub formula: &'static str,
}

const OF_BOTH: &str = "C_f/w_f + C_g/w_g + 2 (E_f/w_f + E_g/w_g)";

/// What the policy's share rule promises about classes; `None` where it promises nothing, keeps
/// its accounts for others than classes, or charges what is not told of a request.
pub fn gap_bound(config: &Config) -> Option<GapBound> {
    let both = |charge| GapBound { charge, quantum: 0, counts_all: false, formula: OF_BOTH };
    let (per, bound) = match config.share {
        Share::VirtualTokenCounter { per, cost } => {
            let formula = "2 max(C_f/w_f, C_g/w_g) + 2 sum_h E_h/w_h";
            (per, GapBound { counts_all: true, formula, ..both(Charge::Tokens(cost)) })
        }
        Share::DeficitRoundRobin { per, quantum, cost } => {
            let formula = "quantum + C_f/w_f + C_g/w_g + 2 (E_f/w_f + E_g/w_g)";
            (per, GapBound { quantum, formula, ..both(Charge::Tokens(cost)) })
        }
        Share::StartTimeFair { per, cost } => (per, both(Charge::Tokens(cost))),
        Share::Stride { per } => (per, both(Charge::Request)),
        Share::DominantResource { per, ref capacity } => (per, both(Times::new(capacity).charge())),
        // Its bound is of tokens that are computed, and what is cached of a prompt is not told of
        // a request: the simulated engine has no prefix cache, and refuses to run it.
        Share::DeficitLongestPrefix { .. } => return None,
        Share::Fcfs | Share::Priority => return None,
    };
    match per {
        Per::Class => Some(bound),
        Per::Tenant | Per::Workflow => None,
    }
}

/// Which part of the policy may let others go first, so that the share rule's bound does not hold;
/// `None` if it holds.
pub fn gap_bound_void(config: &Config) -> Option<&'static str> {
    let capped = config.classes.iter().any(|c| c.requests_max.is_some() || c.tokens_max.is_some());
    if config.guard.is_some() {
        Some("the guard lets due requests go first")
    } else if config.bypass_max > 0 {
        Some("requests that fit may go past one that does not (bypass_max)")
    } else if capped {
        Some("classes have caps, and one that steps aside loses its turn")
    } else if !config.partition.is_empty() {
        Some("rules of partition make some requests step aside")
    } else if is_bound_to_places(config) {
        Some("not every request may go everywhere (sites, models)")
    } else if !config.feedback.is_empty() {
        Some("feedback changes what may be outstanding")
    } else if config.window == Window::None {
        Some("everything is let in at once (window = none)")
    } else {
        None
    }
}

fn is_bound_to_places(config: &Config) -> bool {
    let names_some = !config.models.is_empty() || !config.sites.is_empty();
    let keeps_near = config.place.iter().any(|rule| matches!(rule, Place::LocalFirst(_)));
    names_some || keeps_near || config.classes.iter().any(|class| class.sites != 0)
}
