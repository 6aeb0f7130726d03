//! Scenario files and traces to simulator types.
//!
//! [`load`] reads a scenario file, with what it extends and with overrides, into a [`Scenario`]
//! that is valid by construction; [`Scenario::sources`] opens its workloads. Everything that can
//! be wrong with the input comes back as [`Diagnostics`], before anything runs, or from a trace
//! row when it is read.

mod build;
pub mod calibration;
mod check;
mod machine;
mod prices;
mod scenario;
mod shipped;
pub mod spec;
pub mod sweep;
pub mod trace;
mod under;

pub use build::plan::{PlanOption, PlanSection};
pub use plimsoll_config::gateway::GatewayFile;
pub use plimsoll_config::{
    ClassObjectives, Code, Diagnostic, Diagnostics, Effective, EffectiveRow, Metric, Objective,
    PolicyFile, explain,
};
pub use prices::{Device, Prices, prices};
pub use scenario::{Loaded, Scenario, load, load_either, load_gateway};
pub use shipped::{shipped, template, templates};
pub use sweep::{Cell, Parameter, Sweep, SweepArguments, load_sweep, sweep_of};
pub use under::{OWN, baselines, load_on, load_under};

/// The JSON Schema of a scenario file, for editors.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(spec::Spec).to_value();
    // Within a scenario a policy may hold others, by name: `[policy.NAME]`.
    schema["$defs"]["PolicySpec"]["additionalProperties"] =
        serde_json::json!({ "$ref": "#/$defs/PolicySpec" });
    schema
}

/// The JSON Schema of a gateway file, for editors.
pub fn gateway_schema() -> serde_json::Value {
    plimsoll_config::gateway::schema().to_value()
}
