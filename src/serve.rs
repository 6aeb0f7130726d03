//! `plimsoll serve`.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum as _;
use plimsoll_gateway::{Gateway, Keys, Operations, ReadAgain, Running, SetLogLevel, StartError};
use plimsoll_scenario::GatewayFile;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, reload};

use crate::Failure;
use crate::arguments::{LogFormat, LogLevel, ServeOptions};
use crate::run::locate;
use crate::signals::{Again, Stop};

/// Stands in front of inference servers until it is told to stop.
pub fn serve(options: &ServeOptions) -> Result<ExitCode, Failure> {
    let file = read(&options.file, &options.overrides)?;
    let keys = keys(&file)?;
    let operations =
        Operations { read_again: Some(read_again(options)), set_log_level: Some(log(options)) };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads.map_or_else(threads, usize::from))
        .enable_all()
        .build()?;
    runtime.block_on(run((file, keys), operations))
}

/// As many as there are cores, 8 at most: one task decides, and the others move bytes.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).min(8)
}

fn read(file: &Path, overrides: &[String]) -> Result<GatewayFile, Failure> {
    Ok(plimsoll_scenario::load_gateway(&locate(file)?, overrides)?)
}

fn keys(file: &GatewayFile) -> Result<Keys, Failure> {
    Keys::look_up(&file.keys, &file.backends).map_err(|error| Failure::Usage(error.to_string()))
}

/// Reads the file again, as it was read at first.
fn read_again(options: &ServeOptions) -> ReadAgain {
    let (path, overrides) = (options.file.clone(), options.overrides.clone());
    Arc::new(move || {
        let said = |failure: Failure| failure.text(false);
        let file = read(&path, &overrides).map_err(said)?;
        let keys = keys(&file).map_err(said)?;
        Ok((file, keys))
    })
}

/// Lines on stderr, without a word of any prompt. Returns what changes how many.
fn log(options: &ServeOptions) -> SetLogLevel {
    let level = LevelFilter::from_level(options.log_level.into());
    let (level, handle) = reload::Layer::new(level);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(level);
    match options.log_format {
        LogFormat::Human => registry.with(lines).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
    Arc::new(move |name| {
        let level = LogLevel::from_str(name, true)?;
        let level = LevelFilter::from_level(level.into());
        handle.reload(level).map_err(|error| error.to_string())
    })
}

async fn run(
    (file, keys): (GatewayFile, Keys),
    operations: Operations,
) -> Result<ExitCode, Failure> {
    // Heard from here on, so that whoever has read where we listen may end us.
    let mut stop = Stop::listen().context("listening to signals")?;
    let mut again = Again::listen().context("listening to signals")?;
    for assumption in &file.assumptions {
        eprintln!("note: {assumption}");
    }
    let grace = Duration::from_nanos(file.limits.drain.nanos());
    let running = start((file, keys), operations).await?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on http://{}", running.address())?;
    if let Some(admin) = running.admin_address() {
        writeln!(out, "operations on http://{admin}")?;
    }
    out.flush()?;
    loop {
        tokio::select! {
            () = stop.asked() => break,
            () = running.drain_asked() => break,
            () = again.asked() => match running.reload().await {
                Ok(summary) => eprintln!("reloaded: {summary}"),
                Err(error) => eprintln!("not reloaded, nothing has changed: {error}"),
            },
        }
    }
    eprintln!("draining: what runs may go on for {} s", grace.as_secs());
    let all_ended = tokio::select! {
        all_ended = running.drain(grace) => all_ended,
        // Whoever asks twice does not want to wait.
        () = stop.asked() => false,
    };
    if !all_ended {
        eprintln!("stopped with requests under way");
    }
    Ok(ExitCode::SUCCESS)
}

async fn start(
    (file, keys): (GatewayFile, Keys),
    operations: Operations,
) -> Result<Running, Failure> {
    let gateway = Gateway { file, keys, observer: Box::new(()) };
    gateway.operate(operations).await.map_err(|error| match error {
        StartError::Listen { .. } | StartError::Unsupported(_) => Failure::Usage(error.to_string()),
        StartError::Driver(error) => Failure::Broken(error.into()),
    })
}
