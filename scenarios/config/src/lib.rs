//! Reading configuration files: places, units, layering, errors; policy and gateway files.
//!
//! [`read`] merges a file with what it extends and with the overrides into a tree in which every
//! value knows its place; [`decode`] turns tables of that tree into serde types; [`policy`] turns
//! the policy part into [`plimsoll_policy::Config`], and [`gateway`] a whole gateway file. Whatever is wrong comes back as
//! [`Diagnostics`], rendered as rustc renders its errors.

pub mod admit;
pub mod classify;
mod code;
mod decode;
mod diagnostic;
mod effective;
mod examples;
pub mod feedback;
mod file;
pub mod gateway;
mod layer;
pub mod nearest;
mod objectives;
mod order;
pub mod partition;
mod path;
pub mod place;
pub mod policy;
mod share;
pub mod signals;
mod source;
pub mod spec;
pub mod tree;
pub mod units;
mod values;

pub use code::{Code, explain};
pub use decode::decode;
pub use diagnostic::{Diagnostic, Diagnostics};
pub use effective::{Effective, EffectiveRow, hash_of, text};
pub use file::{PolicyFile, PolicyFileSpec, TenantSpec};
pub use layer::{Layered, SHIPPED_PREFIX, Shipped, override_value, read, reason, take};
pub use path::DottedPath;
pub use plimsoll_base::{ClassObjectives, Metric, Objective};
pub use source::{Place, Position, Source, Sources};
pub use values::{
    At, BytesValue, CoefficientValue, FractionValue, Items, OneOrMany, RateValue, SpanValue,
};
