//! What stands against holding a scenario against a device: each by its name.

use plimsoll_policy::Allocator;
use plimsoll_scenario::Scenario;
use plimsoll_scenario::calibration::CalibrationSpec;
use plimsoll_sim::workload::Arrivals;

use super::ValidateError;
use super::arrivals::Arrival;
use crate::device::{Description, Device, DeviceError};

fn refuse<T>(what: impl Into<String>) -> Result<T, ValidateError> {
    Err(ValidateError::Scenario(what.into()))
}

/// What the profile says of itself; the one pool has to have one.
pub(super) fn calibration(scenario: &Scenario) -> Result<&CalibrationSpec, ValidateError> {
    let replicas: u32 = scenario.model.pools.iter().map(|pool| pool.replicas).sum();
    if scenario.model.pools.len() != 1 || replicas != 1 {
        return refuse(format!(
            "the scenario has {} pools with {replicas} replicas, and there is one device: leave one pool \
             with `replicas = 1`",
            scenario.model.pools.len()
        ));
    }
    match &scenario.calibrations[0] {
        Some(calibration) => Ok(calibration),
        None => refuse(format!(
            "pool `{}` has no profile that was measured: run `plimsoll calibrate --backend …` first, and \
             name its file with `--profile` or in the scenario's `extends`",
            scenario.model.names.pools[0]
        )),
    }
}

/// Whether this is the device of the profile, and it is idle. Returns what to know.
pub(super) fn device(
    device: &dyn Device,
    scenario: &Scenario,
    calibration: &CalibrationSpec,
) -> Result<Vec<String>, ValidateError> {
    let is = device.description();
    let was = Description {
        engine: calibration.engine.clone(),
        version: calibration.version.clone(),
        model: calibration.model.clone(),
        ..Description::default()
    };
    let mut notes = Vec::new();
    if calibration.method == "log" {
        let text = "the profile was fitted to a log: whether it is of this device is not known";
        notes.push(text.to_owned());
    } else {
        is.require_same(&was)?;
        if is.flags != calibration.flags.0 {
            let [is, was] = [&is.flags, &calibration.flags.0].map(|flags| match flags.is_empty() {
                true => "nothing".to_owned(),
                false => flags.join(", "),
            });
            let is = format!("started with {is}");
            let was = format!("one started with {was}");
            return Err(DeviceError::EngineChanged { was, is }.into());
        }
    }
    let (engine, limits) = (&scenario.model.pools[0].engine, is.limits);
    for (name, told, taken) in [
        ("seats", limits.seats, engine.seats),
        ("step_tokens_max", limits.step_tokens_max, engine.step_tokens_max),
        ("block_tokens", limits.block_tokens, engine.block_tokens),
    ] {
        if let Some(told) = told.filter(|told| *told != taken) {
            return refuse(format!(
                "the device has `{name}` {told}, and the profile {taken}: calibrate again, or correct the \
                 pool's `engine`"
            ));
        }
    }
    device.require_idle()?;
    Ok(notes)
}

/// Whether a scenario under a policy can be run on a device at all.
pub(super) fn scenario(
    name: &str,
    scenario: &Scenario,
    device: &dyn Device,
) -> Result<(), ValidateError> {
    let model = &scenario.model;
    for (workload, source) in model.workloads.iter().zip(&model.names.sources) {
        if let Arrivals::Closed { .. } = workload.arrivals {
            return refuse(format!(
                "workload `{source}` is a closed loop: when its requests come depends on the answers, and \
                 here they come when the scenario says, live and simulated alike; use another process"
            ));
        }
    }
    let allocator = Allocator::new(model.policy.clone());
    let needs = allocator.map_err(|error| ValidateError::Scenario(error.to_string()))?.needs();
    if needs.predictions {
        return refuse(format!(
            "policy `{name}` asks an oracle for output lengths, and there is none outside a simulation: \
             use another `predict`"
        ));
    }
    if needs.reports.is_some() && device.load()?.is_none() {
        return refuse(format!(
            "policy `{name}` reads reports of its backends, and the device tells no load"
        ));
    }
    Ok(())
}

/// Whether every request fits.
pub(super) fn lengths(scenario: &Scenario, arrivals: &[Arrival]) -> Result<(), ValidateError> {
    let context_max = scenario.model.pools[0].engine.context_max;
    let needed = |arrival: &Arrival| {
        u64::from(arrival.request.prompt_tokens) + u64::from(arrival.request.output_tokens)
    };
    match arrivals.iter().map(needed).max() {
        Some(needed) if needed > u64::from(context_max) => {
            Err(DeviceError::TooLong { needed, context_max }.into())
        }
        Some(_) | None => Ok(()),
    }
}
