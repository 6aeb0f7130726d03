//! `plimsoll calibrate`.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use plimsoll_config::gateway::BackendKind;
use plimsoll_probe::calibrate::{
    CalibrateError, Method, Profile, Settings, Watch, from_log, parse_log,
};
use plimsoll_probe::device::{Device, DeviceError, Limits, Remote, RemoteOptions};
use plimsoll_probe::telemetry;

use crate::arguments::{CalibrateOptions, ServerKind};
use crate::run::INTERRUPTED;
use crate::{Failure, interrupt};

const INCONCLUSIVE: u8 = 4;

/// Measures a device, or reads a log, and writes a profile.
pub fn calibrate(options: &CalibrateOptions) -> Result<ExitCode, Failure> {
    let known = Limits {
        seats: options.seats,
        step_tokens_max: options.step_tokens_max,
        kv_tokens: options.kv_tokens,
        ..Limits::default()
    };
    if let Some(log) = &options.from {
        return read(log, known, &options.out);
    }
    let device = open(&Target {
        backend: options.backend.as_deref().unwrap_or_default(),
        kind: options.kind,
        model: options.model.as_deref(),
        token_env: options.token_env.as_deref(),
    })?;
    interrupt::listen();
    let effort = if options.quick { Settings::quick() } else { Settings::full() };
    let settings = Settings { seed: options.seed, known, ..effort };
    let bar = Bar::new(options.quiet);
    let gauge = telemetry::find(device.description());
    let measure = || plimsoll_probe::calibrate::calibrate(&*device, &settings, &bar);
    let gauge = gauge.as_deref().map_err(Clone::clone);
    let (result, remarks) = telemetry::remarked(gauge, measure);
    bar.0.finish_and_clear();
    match result {
        Ok(profile) => {
            write(&options.out, &profile, &remarks)?;
            tell(&profile, &options.out, &remarks)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(CalibrateError::Interrupted) => {
            eprintln!("interrupted: nothing was written");
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(error @ (CalibrateError::TooNoisy(_) | CalibrateError::TooLittle(_))) => {
            eprintln!("error: {error}");
            Ok(ExitCode::from(INCONCLUSIVE))
        }
        Err(CalibrateError::Device(error)) => Err(failure(error)),
    }
}

/// Fits to a log.
fn read(log: &Path, known: Limits, out: &Path) -> Result<ExitCode, Failure> {
    let shown = log.display();
    let text = std::fs::read_to_string(log)
        .map_err(|error| Failure::Usage(format!("{shown} cannot be read: {error}")))?;
    let requests = parse_log(&text).map_err(|error| Failure::Usage(format!("{shown}: {error}")))?;
    let seats = known.seats.unwrap_or(1);
    let step_tokens_max = known.step_tokens_max.map(|tokens| tokens.max(seats));
    let context = known.kv_tokens.and_then(|tokens| u32::try_from(tokens).ok());
    let limits = Limits {
        step_tokens_max,
        block_tokens: Some(16),
        context_max: context.or(Some(u32::MAX)),
        ..known
    };
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    match from_log(&requests, limits, &name) {
        Ok(profile) => {
            write(out, &profile, &[])?;
            tell(&profile, out, &[])?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("error: {error}");
            Ok(ExitCode::from(INCONCLUSIVE))
        }
    }
}

/// Which device is meant.
pub struct Target<'a> {
    /// A URL, `embedded` or `embedded-cuda`.
    pub backend: &'a str,
    /// Whose server it is, if it was said.
    pub kind: Option<ServerKind>,
    /// Which of its models, if it was said; of `embedded` where its weights are.
    pub model: Option<&'a str>,
    /// The environment variable that holds its key.
    pub token_env: Option<&'a str>,
}

/// Opens a device.
pub fn open(target: &Target<'_>) -> Result<Box<dyn Device>, Failure> {
    match target.backend {
        "embedded" => return embedded(target.model, false),
        "embedded-cuda" => return embedded(target.model, true),
        _ => {}
    }
    let token = target.token_env.map(|name| {
        std::env::var(name)
            .map_err(|_| Failure::Usage(format!("the environment variable `{name}` is not set")))
    });
    let options = RemoteOptions {
        url: target.backend.to_owned(),
        kind: target.kind.map(|kind| match kind {
            ServerKind::Vllm => BackendKind::Vllm,
            ServerKind::Sglang => BackendKind::Sglang,
            ServerKind::LlamaCpp => BackendKind::LlamaCpp,
        }),
        model: target.model.map(str::to_owned),
        token: token.transpose()?,
    };
    Ok(Box::new(Remote::open(&options).map_err(failure)?))
}

#[cfg(feature = "embedded")]
fn embedded(weights: Option<&str>, on_cuda: bool) -> Result<Box<dyn Device>, Failure> {
    use plimsoll_probe::device::{Embedded, EmbeddedOptions, Place};
    let place = if on_cuda { Place::Cuda } else { Place::Core };
    let weights = weights.map(Into::into);
    let options = EmbeddedOptions { place, weights, own_core: true, ..Default::default() };
    let device = Embedded::open(&options).map_err(failure)?;
    Ok(Box::new(device))
}

#[cfg(not(feature = "embedded"))]
fn embedded(_: Option<&str>, on_cuda: bool) -> Result<Box<dyn Device>, Failure> {
    let feature = if on_cuda { "cuda" } else { "embedded" };
    let what = format!("this build has no embedded device; build with `--features {feature}`");
    Err(Failure::Usage(what))
}

/// What is wrong with a device that can be put right before the next try is the user's to know;
/// what broke while it ran is not.
pub fn failure(error: DeviceError) -> Failure {
    match error {
        DeviceError::BadUrl { .. }
        | DeviceError::NotThere { .. }
        | DeviceError::SpeaksOtherwise { .. }
        | DeviceError::NoModel { .. }
        | DeviceError::NoStreaming { .. }
        | DeviceError::NoUsage { .. }
        | DeviceError::Refused { .. }
        | DeviceError::Loaded { .. }
        | DeviceError::ModelChanged { .. }
        | DeviceError::EngineChanged { .. }
        | DeviceError::Weights { .. }
        | DeviceError::NoCuda(_)
        | DeviceError::TooLong { .. } => Failure::Usage(error.to_string()),
        DeviceError::BrokeOff(_) | DeviceError::Silent(_) | DeviceError::Compute(_) => {
            Failure::Broken(error.into())
        }
    }
}

/// Writes the profile under a temporary name first, with remarks at its head.
fn write(path: &Path, profile: &Profile, remarks: &[String]) -> Result<(), Failure> {
    let line = |remark: &String| format!("# {}.\n", remark.replace(char::is_control, " "));
    let text: String = remarks.iter().map(line).chain([profile.to_toml()]).collect();
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.persist(path).map_err(|error| error.error)
    });
    written.with_context(|| format!("writing {}", path.display()))?;
    Ok(())
}

/// Says what was found.
fn tell(profile: &Profile, path: &Path, remarks: &[String]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", profile.provenance())?;
    writeln!(out)?;
    for cell in &profile.cells {
        let half_width = match cell.half_width.is_finite() {
            true => format!("{:.1} %", cell.half_width * 100.0),
            false => "?".to_owned(),
        };
        writeln!(
            out,
            "  {:32} {:>10.3} ms ± {:>6}   model {:>+6.1} %",
            cell.name,
            cell.measured / 1e6,
            half_width,
            cell.error * 100.0
        )?;
    }
    writeln!(out)?;
    let kind = profile.fit.kind.name();
    writeln!(
        out,
        "{kind}: error {:.1} %, on cells it was not fitted to {:.1} %; {} times of {}",
        profile.fit.residual * 100.0,
        profile.fit.held_out * 100.0,
        profile.observations,
        profile.method.name()
    )?;
    let overheads = profile.overheads;
    if profile.method != Method::Log {
        let busy = overheads.busy.map_or_else(String::new, |busy| {
            let [first, .., last] = busy.needed.map(|needed| (needed + busy.behind) / 1e6);
            let most = format!("four of five between {first:.2} and {last:.2}");
            format!(" ({:.2} ms while others are computed, {most})", busy.whole() / 1e6)
        });
        writeln!(
            out,
            "a request costs {:.2} ms beside steps{busy}, a further token of a step {:.1} us",
            overheads.request / 1e6,
            overheads.chunk / 1e3
        )?;
    }
    for note in &profile.assumed.notes {
        writeln!(out, "assumed: {note}")?;
    }
    for remark in remarks {
        writeln!(out, "{remark}")?;
    }
    if let Some(warning) = profile.noise.warning() {
        writeln!(out, "warning: {warning}")?;
    }
    writeln!(out, "wrote {}; a scenario takes it with `extends`", path.display())?;
    Ok(())
}

/// Progress on stderr, where that is a terminal.
pub struct Bar(pub ProgressBar);

impl Bar {
    /// At nothing yet.
    pub fn new(quiet: bool) -> Bar {
        if quiet || !std::io::stderr().is_terminal() {
            return Bar(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {msg}");
        let style = style.expect("the template is well formed");
        Bar(ProgressBar::new(1_000).with_style(style))
    }
}

impl Watch for Bar {
    fn stop(&self) -> bool {
        interrupt::asked()
    }
    fn progress(&self, what: &str, part: f64) {
        self.0.set_position((part * 1_000.0) as u64);
        self.0.set_message(what.to_owned());
    }
}
