//! The kernel: the future event list, the loop that runs a world through it, and two resources.
//!
//! A simulation is a [`World`] that owns all state and an [`Agenda`] that says what happens next.
//! [`advance`] pops the earliest event and hands it to the world, which changes its state and
//! schedules what follows:
//!
//! ```
//! use plimsoll_base::{Span, Time};
//! use plimsoll_sim::kernel::{Agenda, Rank, World, advance};
//!
//! struct Ticker(u32);
//! impl World for Ticker {
//!     type Event = ();
//!     fn handle(&mut self, now: Time, (): (), agenda: &mut Agenda<()>) {
//!         self.0 += 1;
//!         if self.0 < 3 {
//!             agenda.schedule(now + Span::from_secs(1), Rank::Begin, ());
//!         }
//!     }
//! }
//!
//! let mut agenda = Agenda::new();
//! agenda.schedule(Time::ZERO, Rank::Begin, ());
//! let mut world = Ticker(0);
//! let progress = advance(&mut world, &mut agenda, u64::MAX);
//! assert_eq!((world.0, progress.now, progress.done), (3, Time::from_nanos(2_000_000_000), true));
//! ```

mod agenda;
mod pool;
mod station;
mod statistics;
mod world;

pub use agenda::{Agenda, EventId, Rank};
pub use pool::{Grant, Pool};
pub use station::{Entry, Station};
pub use statistics::{Level, Tally};
pub use world::{Progress, World, advance};
