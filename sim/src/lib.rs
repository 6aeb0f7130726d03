//! The simulated machine: kernel, workload, engine, world.
//!
//! Nothing here does I/O, reads a clock, starts a thread or draws entropy of its own.

pub mod engine;
pub mod kernel;
pub mod model;
mod run;
pub mod unit;
pub mod workload;
pub mod world;

pub use model::Model;
pub use run::{Run, RunProgress};
pub use world::StartError;
