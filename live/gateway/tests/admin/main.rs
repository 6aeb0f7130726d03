//! The operations side, through its socket, in front of a backend that behaves like an engine.

mod client;
mod reload;
mod side;
#[cfg(feature = "tls")]
mod tls;
