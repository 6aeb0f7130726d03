//! What a gateway is tested against: something that behaves like an inference server.
//!
//! [`backend`] is the simulator's engine model behind an OpenAI-compatible HTTP server on the
//! wall clock, with faults on purpose.

pub mod backend;
