//! What inference servers say, for whoever listens to them: the gateway in production, the probe
//! when it measures one. Bytes and text in, values out; no I/O.

mod closed;
mod scrape;
mod sse;

pub use closed::was_reset;
pub use scrape::{gauge, label, load};
pub use sse::{Event, Events, TooLong};
