//! The Plimsoll allocator: one state machine, driven by a virtual clock in the simulator and by
//! the wall clock in production.
//!
//! It does no I/O and reads no clock: [`Allocator::handle`] takes the instant and an [`Input`],
//! then [`Allocator::poll`] yields [`Decision`]s until it is empty; [`Allocator::next_deadline`]
//! says when to hand it [`Input::Deadline`]. It cannot name a request's true output length.
//!
//! The pipeline, a leaf each: classify → admit → enqueue → { guard, share → order → caps → place
//! → dispatch }. [`rules`] tells what each rule promises and where it fails.

mod admit;
mod allocator;
mod book;
mod bounds;
mod caps;
mod check;
mod class_set;
mod classify;
pub mod config;
mod decided;
pub mod detect;
mod feedback;
mod guard;
mod heap;
mod heavy_lane;
mod hints;
mod index;
mod list;
pub mod log;
mod message;
mod order;
mod partition;
mod place;
mod predict;
mod promise;
pub mod rules;
mod sentence;
mod shadow;
mod share;
mod standing;
mod wait;

pub use allocator::{Allocator, BackendState, ClassState, Snapshot};
pub use bounds::Bounds;
pub use check::{ConfigError, Field, Problem};
pub use config::Config;
pub use detect::{Alarm, AlarmKind, Detector};
pub use message::{
    Action, BackendInfo, Decision, EnginePriority, Held, Input, Labels, Load, Needs, RequestInfo,
    Signal, Used,
};
pub use promise::{Charge, GapBound, gap_bound, gap_bound_void};
pub use shadow::{Agreement, Shadows, Verdict};
pub use standing::Standing;
pub use wait::{Because, Machine, WaitBound, WhyNot, wait_bounds};
