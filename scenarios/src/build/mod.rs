//! From the parts of a file to the parts of a model.

pub mod plan;
pub(crate) mod pool;
pub(crate) mod run;
pub(crate) mod trace;
pub(crate) mod workload;
