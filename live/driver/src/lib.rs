//! An allocator on the wall clock.
//!
//! One task owns the [`Allocator`](plimsoll_policy::Allocator) ([`start`]); everyone else holds a
//! [`Gate`] to it. This is the only place where wall time becomes
//! [`Time`](plimsoll_base::Time), so that what is simulated is what runs, and a decision log on
//! disk replays.
//!
//! A request is [submitted](Gate::submit), waits as [`Pending`], and goes with a [`Ticket`]. Each
//! of the two owns room in the channel to the task for its own last word, so that a client who
//! leaves, a panic and a lost backend all free what was held: exactly one end for each request that
//! was dispatched, though the channel is bounded and nothing waits in a destructor.

mod clock;
mod driver;
mod gate;
mod inside;
mod log;
mod ticket;

pub use clock::Clock;
pub use driver::{Policy, Settings, StartError, start};
pub use gate::{Gate, Gone, Offers, ReloadError};
pub use inside::{Backend, Inside, LogState, Timing};
pub use log::LogSettings;
pub use ticket::{Pending, Refused, Revocation, Ticket};
