//! Facts to numbers, verdicts, charts, HTML, CSV and JSON.
//!
//! A [`Ledger`] folds the facts of one replication in memory that does not grow with the run;
//! [`summarise`] turns the ledgers of all replications into a [`Summary`]; everything that a
//! person reads is written from these two and the [`Plan`]. Nothing here knows who made the facts.

pub mod bins;
mod definitions;
mod estimate;
mod fate;
mod flow;
pub mod histogram;
pub mod interval;
mod ledger;
mod plan;
mod summarise;
pub mod summary;
mod tally;
mod verdict;
mod words;

pub use definitions::DEFINITIONS;
pub use ledger::Ledger;
pub use plan::{ClassPlan, Metric, Objective, Plan, PoolPlan};
pub use summarise::summarise;
pub use summary::{Summary, Verdict, summary_schema};
