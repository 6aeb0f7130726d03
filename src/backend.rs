//! `plimsoll backend`.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use plimsoll_probe::backend::{Backend, Faults, Kind, Settings, Steps};
use plimsoll_scenario::Scenario;
use plimsoll_sim::model::EngineModel;

use crate::Failure;
use crate::arguments::{BackendOptions, ServerKind};
use crate::run::open;
use crate::signals::Stop;

/// Serves an engine model over HTTP until it is told to stop.
pub fn backend(options: &BackendOptions) -> Result<ExitCode, Failure> {
    let scenario = open(&options.profile, &[])?;
    let model = engine(&scenario, options.pool.as_deref())?;
    let faults = Faults::new(options.faults.clone(), options.seed)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let settings = Settings {
        listen: options.listen,
        model: options.model.clone(),
        speed: options.speed,
        kind: match options.kind {
            ServerKind::Vllm => Kind::Vllm,
            ServerKind::Sglang => Kind::Sglang,
            ServerKind::LlamaCpp => Kind::LlamaCpp,
        },
        stream_interval: options.stream_interval.get(),
        faults,
        steps: if options.tell_steps { Steps::Told } else { Steps::Hidden },
        ..Settings::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(model, settings))
}

async fn serve(model: EngineModel, settings: Settings) -> Result<ExitCode, Failure> {
    // Heard from here on, so that whoever has read where we listen may end us.
    let mut stop = Stop::listen().context("listening to signals")?;
    let wanted = settings.listen;
    let running = Backend::start(model, settings).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidInput => Failure::Usage(error.to_string()),
        _ => Failure::Broken(anyhow::Error::new(error).context(format!("listening on {wanted}"))),
    })?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on http://{}", running.addr).and_then(|()| out.flush())?;
    stop.asked().await;
    running.shutdown();
    Ok(ExitCode::SUCCESS)
}

fn engine(scenario: &Scenario, name: Option<&str>) -> Result<EngineModel, Failure> {
    let names = &scenario.model.names.pools;
    let index = match name {
        None => 0,
        Some(name) => names.iter().position(|known| known == name).ok_or_else(|| {
            let message = format!("no pool is called `{name}`; there is {}", names.join(", "));
            Failure::Usage(message)
        })?,
    };
    let pool = &scenario.model.pools[index];
    if pool.split.is_some() {
        let name = &names[index];
        let message = format!(
            "`{name}` is disaggregated, and a test backend is one engine: \
             `--set pool.{name}.disaggregated.on=false` makes it one"
        );
        return Err(Failure::Usage(message));
    }
    Ok(pool.engine.clone())
}
