//! `plimsoll validate`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use plimsoll_probe::device::Device;
use plimsoll_probe::telemetry;
use plimsoll_probe::validate::{Study, ValidateError, Validated};
use plimsoll_report::OutputFolder;
use plimsoll_scenario::{OWN, Scenario};

use crate::arguments::ValidateOptions;
use crate::calibrate::{Bar, Target, failure, open};
use crate::compare::{folder, tell};
use crate::run::{INTERRUPTED, locate, read_template};
use crate::{Failure, interrupt};

/// Where `calibrate` writes a profile.
const PROFILE: &str = "profile.toml";
/// Policies and loads at most, of each.
const MOST: usize = 20;

/// Runs the scenario on a device and in the simulator, and says how far apart they are.
pub fn validate(options: &ValidateOptions) -> Result<ExitCode, Failure> {
    let template = options.page_template.as_deref().map(read_template).transpose()?;
    let policies = policies(options)?;
    let loads: Vec<f64> = options.loads.iter().map(|load| load.0).collect();
    if let Some(bad) = loads.iter().find(|load| !(0.001..=10.0).contains(*load)) {
        let message = format!("a load of {bad} is not from 0.001 to 10, parts of the capacity");
        return Err(Failure::Usage(message));
    }
    let first = &policies[0].1;
    let target = Target {
        backend: &options.backend,
        kind: options.kind,
        model: options.model.as_deref(),
        token_env: options.token_env.as_deref(),
    };
    let device: Arc<dyn Device> = Arc::from(open(&target)?);
    let gauge = telemetry::find(device.description());
    let path = folder(options.out.as_deref(), &first.name, "validate");
    let out =
        OutputFolder::create(&path).with_context(|| format!("writing to {}", path.display()))?;
    // Logs are written while runs go on, and get their place when all are whole.
    let logs = tempfile::Builder::new().prefix(".plimsoll-").tempdir_in(out.path())?;
    let study = Study {
        seed: options.seed.unwrap_or(first.seed),
        policies,
        loads,
        repetitions: options.repetitions,
        within: options.within.0.max(1e-6),
        paced: !options.as_calibrated,
        logs: logs.path(),
        gauge: gauge.as_deref().map_err(Clone::clone),
    };
    interrupt::listen();
    let bar = Bar::new(options.quiet);
    let made = plimsoll_probe::validate::validate(&device, &study, &bar);
    bar.0.finish_and_clear();
    let mut made = match made {
        Err(error) => return ended(error, "nothing was written"),
        Ok(made) => made,
    };
    keep(&out, logs.path(), &made).with_context(|| format!("writing to {}", path.display()))?;
    let study = made.validation.study(&made.lags);
    tell(&study, "validation", (Some(&path), template.as_ref()), options.format)?;
    if let Some(error) = made.broke_off.take() {
        return ended(error, "what is written is of the loads before");
    }
    Ok(match made.validation.verdict.exit_code() {
        3 | 4 if options.no_gate => ExitCode::SUCCESS,
        code => ExitCode::from(code),
    })
}

/// How it ends that broke off.
fn ended(error: ValidateError, left: &str) -> Result<ExitCode, Failure> {
    match error {
        ValidateError::Interrupted => {
            eprintln!("interrupted: {left}");
            Ok(ExitCode::from(INTERRUPTED))
        }
        ValidateError::Device(error) => Err(failure(error)),
        ValidateError::Scenario(message) => Err(Failure::Usage(message)),
        ValidateError::Log(..) | ValidateError::Threads(_) | ValidateError::Driver => {
            Err(Failure::Broken(error.into()))
        }
    }
}

/// Keeps raw numbers and logs.
fn keep(out: &OutputFolder, logs: &Path, made: &Validated) -> std::io::Result<()> {
    out.write("requests.csv", made.requests.as_bytes())?;
    if let Some(steps) = &made.steps {
        out.write("steps.csv", steps.as_bytes())?;
    }
    if let Some(gpus) = &made.gpus {
        out.write("gpus.csv", gpus.as_bytes())?;
    }
    let place = out.path().join("decisions");
    match std::fs::remove_dir_all(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::fs::create_dir(&place)?;
    for entry in std::fs::read_dir(logs)? {
        let entry = entry?;
        std::fs::rename(entry.path(), place.join(entry.file_name()))?;
    }
    Ok(())
}

/// The scenario under each policy, with the profile in the place of its pool.
fn policies(options: &ValidateOptions) -> Result<Vec<(String, Scenario)>, Failure> {
    let path = locate(&options.file)?;
    let own = [OWN.to_owned()];
    let names = if options.policy.is_empty() { &own[..] } else { &options.policy[..] };
    if names.len() > MOST || options.loads.len() > MOST {
        return Err(Failure::Usage(format!("at most {MOST} policies and {MOST} loads are run")));
    }
    let profile = profile(options, &path)?;
    let mut policies: Vec<(String, Scenario)> = Vec::new();
    for name in names {
        if policies.iter().any(|(earlier, _)| earlier == name) {
            return Err(Failure::Usage(format!("`{name}` is there twice")));
        }
        let overrides = &options.overrides;
        let scenario = match &profile {
            Some(profile) => plimsoll_scenario::load_on(&path, (name, profile), overrides)?,
            None => plimsoll_scenario::load_under(&path, name, overrides)?,
        };
        policies.push((name.clone(), scenario));
    }
    Ok(policies)
}

/// The profile that takes the place of the scenario's pool, if one does.
fn profile(options: &ValidateOptions, path: &Path) -> Result<Option<PathBuf>, Failure> {
    if let Some(profile) = &options.profile {
        return Ok(Some(profile.clone()));
    }
    let scenario = plimsoll_scenario::load_under(path, OWN, &options.overrides)?;
    let has_own = scenario.calibrations.iter().any(Option::is_some);
    let default = Path::new(PROFILE);
    Ok((!has_own && default.exists()).then(|| default.to_owned()))
}
