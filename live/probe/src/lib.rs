//! Real devices, and what stands in for one.
//!
//! [`device`] is whatever really computes, behind one trait: an inference server, or a small
//! transformer in this process; [`calibrate`] measures one and fits the simulator's step-time model
//! to it; [`validate`] holds a simulation with that model against the device; [`telemetry`] reads the
//! device's GPUs meanwhile. [`backend`] is the simulator's engine model behind an OpenAI-compatible
//! HTTP server on the wall clock, with faults on purpose.

pub mod backend;
pub mod calibrate;
pub mod device;
pub mod telemetry;
pub mod validate;
