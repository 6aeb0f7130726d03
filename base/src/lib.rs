//! The vocabulary that every Plimsoll crate shares.
//!
//! Nothing here does I/O, reads a clock, starts a thread or draws entropy. A word that two crates
//! must agree on (an instant, an id, an outcome, a fact) is defined here once.

pub mod advice;
pub mod alarm;
pub mod attribution;
pub mod decision;
pub mod fact;
pub mod ids;
pub mod math;
pub mod names;
pub mod objective;
pub mod outcome;
pub mod record;
pub mod stream;
pub mod time;

pub use advice::Scale;
pub use alarm::{Alarm, AlarmKind};
pub use attribution::Attribution;
pub use decision::{Bound, Reason};
pub use fact::{BackendSample, ClassSample, Fact, Observer, Stage};
pub use ids::{
    BackendId, ClassId, ModelId, PoolId, RequestId, SessionId, SiteId, SourceId, StageId, TenantId,
    WorkflowId,
};
pub use names::Names;
pub use objective::{ClassObjectives, Metric, Objective};
pub use outcome::{End, Outcome, Refusal};
pub use record::{Phases, RequestRecord};
pub use stream::{Stream, StreamKey};
pub use time::{Span, Ticks, Time};
