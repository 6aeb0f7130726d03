//! Facts to numbers, verdicts, charts, HTML, CSV and JSON.
//!
//! A [`Ledger`] folds the facts of one replication in memory that does not grow with the run;
//! [`summarise`] turns the ledgers of all replications into a [`Summary`]; everything that a
//! person reads is written from these two and the [`Plan`]. Nothing here knows who made the facts.

pub mod advice;
pub mod alarms;
mod batches;
mod bins;
mod blame;
pub mod capacity;
mod charts;
pub mod comparison;
mod count;
mod definitions;
mod diff;
mod estimate;
mod fairness;
mod fate;
mod flow;
mod folder;
mod glossary;
mod hgrm;
pub mod histogram;
pub mod interval;
mod ledger;
mod markdown;
pub mod measure;
mod page;
#[cfg(feature = "parquet")]
mod parquet;
mod plan;
mod precision;
mod recorded;
mod rows;
mod scene;
mod study;
mod summarise;
pub mod summary;
mod survival;
pub mod sweep;
mod table;
mod tally;
pub mod telemetry;
mod timeseries;
mod trace;
pub mod traced;
pub mod validation;
mod verdict;
mod words;

pub use batches::{Batches, warm_up_check};
pub use blame::{Blamed, Cause, Resource};
pub use charts::{Chart, charts};
pub use definitions::DEFINITIONS;
pub use diff::diff;
pub use folder::{OutputFolder, PendingFile};
pub use glossary::{Word, explained, glossary};
pub use hgrm::write_latency;
pub use ledger::Ledger;
pub use page::{Template, TemplateError, page};
#[cfg(feature = "parquet")]
pub use parquet::write_parquet;
pub use plan::{ClassPlan, Errors, Plan, PoolPlan, Price, Promise};
pub use plimsoll_base::{Metric, Objective};
pub use precision::Precision;
pub use recorded::Recorded;
pub use rows::{COLUMNS as REQUEST_COLUMNS, RequestRows};
pub use study::Study;
pub use summarise::summarise;
pub use summary::{Summary, Verdict, summary_schema};
pub use table::{Format, comment, table, table_with_sparklines};
pub use timeseries::{COLUMNS as TIMESERIES_COLUMNS, write_timeseries};
pub use trace::TraceRecorder;
