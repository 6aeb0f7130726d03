//! What inference servers say, for whoever listens to them: the gateway in production, the probe
//! when it measures one. Bytes and text in, values out; no I/O.

mod scrape;
mod sse;

pub use scrape::{gauge, label, load};
pub use sse::{Event, Events, TooLong};
