//! Stride scheduling (Waldspurger and Weihl, "Stride Scheduling: Deterministic
//! Proportional-Share Resource Management", MIT/LCS/TM-528, 1995): a baseline.
//!
//! Every dispatch costs one unit, whatever its tokens. A flow's pass goes up by its stride, the
//! reciprocal of its weight (its tickets), with each dispatch; the flow with work and the least
//! pass is next, ties by flow. The paper has a client that leaves keep what it was ahead or
//! behind of a global pass; here, as in common practice, a flow that gets work after having none
//! is lifted to the least pass of those with work and is never lowered.
//!
//! **Bound.** While flows f and g both have work, their dispatches n differ by at most
//! `|n_f/w_f − n_g/w_g| ≤ 1/w_f + 1/w_g`. Nothing is predicted, so there is no error.
//!
//! **How it fails.** It is fair in requests, not in what they take: who sends prompts ten times as
//! long gets ten times as much. That is what it is here to show.

use plimsoll_base::Reason;

use super::counter::{Counters, Lift};
use super::price::Price;
use crate::config::{Config, Per};

pub(crate) fn stride(config: &Config, per: Per) -> Counters {
    Counters::new(config, per, Price::Requests, (Lift::LEAST, Reason::Stride))
}
