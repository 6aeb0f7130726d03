//! Production mode: an OpenAI-compatible gateway in front of inference servers.
//!
//! The allocator that runs in the simulator decides who goes where and when; the gateway moves
//! bytes and tells it what happened. One request: HTTP → limits, key, classification
//! ([`identity`]) → [`Gate::submit`](plimsoll_driver::Gate::submit) → its turn → a connection to
//! the backend ([`upstream`]) → the answer, whole or event by event ([`relay`]) → one end.
//!
//! What is sent upstream is rebuilt from an allow-list ([`body`]): no header of the client goes
//! further than here.

mod admin;
mod answer;
mod at_once;
mod body;
mod breaker;
mod health;
mod identity;
mod infer;
mod keys;
mod lease;
mod line;
mod places;
mod ratio;
mod relay;
mod server;
mod state;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod upstream;

pub use admin::{Operations, ReadAgain, SetLogLevel, Summary};
pub use keys::{KeyError, Keys};
pub use server::{Gateway, Running, StartError};
