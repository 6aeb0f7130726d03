//! `plimsoll serve`.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use plimsoll_gateway::{Gateway, Keys, Running, StartError};
use plimsoll_scenario::GatewayFile;
use tracing_subscriber::filter::LevelFilter;

use crate::Failure;
use crate::arguments::{LogFormat, ServeOptions};
use crate::run::locate;
use crate::signals::Stop;

/// Stands in front of inference servers until it is told to stop.
pub fn serve(options: &ServeOptions) -> Result<ExitCode, Failure> {
    let file = read(options)?;
    let keys = keys(&file)?;
    log(options);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads.map_or_else(threads, usize::from))
        .enable_all()
        .build()?;
    runtime.block_on(run(file, keys))
}

/// As many as there are cores, 8 at most: one task decides, and the others move bytes.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).min(8)
}

fn read(options: &ServeOptions) -> Result<GatewayFile, Failure> {
    let path = locate(&options.file)?;
    Ok(plimsoll_scenario::load_gateway(&path, &options.overrides)?)
}

fn keys(file: &GatewayFile) -> Result<Keys, Failure> {
    Keys::look_up(&file.keys, &file.backends).map_err(|error| Failure::Usage(error.to_string()))
}

/// Lines on stderr, without a word of any prompt.
fn log(options: &ServeOptions) {
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(LevelFilter::from_level(options.log_level.into()))
        .with_target(false);
    match options.log_format {
        LogFormat::Human => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

async fn run(file: GatewayFile, keys: Keys) -> Result<ExitCode, Failure> {
    // Heard from here on, so that whoever has read where we listen may end us.
    let mut stop = Stop::listen().context("listening to signals")?;
    for assumption in &file.assumptions {
        eprintln!("note: {assumption}");
    }
    let grace = Duration::from_nanos(file.limits.drain.nanos());
    let running = start(file, keys).await?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on http://{}", running.address()).and_then(|()| out.flush())?;
    stop.asked().await;
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

async fn start(file: GatewayFile, keys: Keys) -> Result<Running, Failure> {
    let gateway = Gateway { file, keys, observer: Box::new(()) };
    gateway.start().await.map_err(|error| match error {
        StartError::Listen { .. } => Failure::Usage(error.to_string()),
        StartError::Driver(error) => Failure::Broken(error.into()),
    })
}
