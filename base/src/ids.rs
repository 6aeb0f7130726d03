//! Ids: small integers with a type, so that a tenant is never passed where a class is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The id as an index into a table with one row an id.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A request, numbered in order of arrival from 0; never reused within a run.
    RequestId(u64)
}
id! {
    /// Who pays: an index into [`Names::tenants`](crate::Names).
    TenantId(u32)
}
id! {
    /// What latency is owed: an index into [`Names::classes`](crate::Names) and the policy's classes.
    ClassId(u16)
}
id! {
    /// A group of equal backends: an index into [`Names::pools`](crate::Names).
    PoolId(u16)
}
id! {
    /// Where requests come from (a workload of the scenario, a route of the gateway):
    /// an index into [`Names::sources`](crate::Names).
    SourceId(u16)
}

id! {
    /// Which model a request asks for: an index into the policy's models. 0 where there is one.
    ModelId(u16)
}
id! {
    /// A kind of work within a workflow (inference, context building, a call): an index into the
    /// policy's stages. 0 where a request is no part of a workflow.
    StageId(u16)
}
id! {
    /// Where a backend stands (this device, the edge, the central pool): an index into the
    /// policy's sites.
    SiteId(u16)
}
id! {
    /// Requests that carry their context from one to the next. 0 is no session.
    SessionId(u64)
}
id! {
    /// Requests that together do one piece of work. 0 is no workflow.
    WorkflowId(u64)
}

/// Anything that can take a request. A backend that leaves and rejoins is a new one: the slot may
/// be the same, the generation is not.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct BackendId {
    /// Index into tables with one row a backend.
    pub slot: u32,
    /// Which tenant of the slot this is, from 0.
    pub generation: u32,
}

impl BackendId {
    /// The first backend in a slot.
    pub const fn first(slot: u32) -> BackendId {
        BackendId { slot, generation: 0 }
    }
    /// The slot as an index.
    pub const fn index(self) -> usize {
        self.slot as usize
    }
}
impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            0 => write!(f, "{}", self.slot),
            generation => write!(f, "{}.{generation}", self.slot),
        }
    }
}
