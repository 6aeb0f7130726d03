//! Start-time fair queueing (Goyal, Vin and Cheng, "Start-time Fair Queueing", SIGCOMM 1996).
//!
//! A request that goes after another of its flow starts, in virtual time, where that one
//! finished; one of a flow that had no work starts at the virtual time, if that is later:
//! `S = max(v, F)`, `F = S + l/r`, `l` its cost and `r` the flow's weight. The flow whose next
//! request has the least start tag goes, ties by flow, and `v` is that start tag. When nothing
//! waits and nothing runs any more, `v` becomes the greatest finish tag, so that all start level.
//!
//! **Bound** (theorem 1 of the paper). While flows f and m both have work, their booked service
//! differs by at most `|W_f/r_f − W_m/r_m| ≤ l_f/r_f + l_m/r_m`, `l` the largest request. A
//! request is charged at dispatch as predicted and settled at its end; what is in flight adds its
//! error of prediction, at most twice (once each way): `+ 2 · (E_f/r_f + E_m/r_m)`, `E` the greatest
//! sum of errors of the flow's requests in flight at a time.
//!
//! **Against the virtual token counter.** The two differ only in where a flow begins again. The
//! counter looks at who has work now; this rule at a clock that never goes back. So a newcomer is
//! not drawn back to a flow that lags because its class stepped aside (a cap), and cannot keep
//! others waiting until it has caught up with them.
//!
//! **How it fails.** Nothing is saved up while idle. A flow that steps aside keeps its tag and has
//! a burst in hand when it comes back. The guard's dispatches are charged but move no clock.

use plimsoll_base::Reason;

use super::counter::{Counters, Lift};
use super::price::Price;
use crate::config::{Config, Per, TokenCost};

pub(crate) fn start_time_fair(config: &Config, per: Per, cost: TokenCost) -> Counters {
    Counters::new(config, per, Price::Tokens(cost), (Lift::START_TAG, Reason::StartTime))
}
