//! `plimsoll run`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use plimsoll_planner::{
    LogKeeper, OtherPolicy, Replicated, Replications, StudyError, replicate_logged,
};
use plimsoll_policy::Agreement;
use plimsoll_report::{Ledger, Plan, Summary};
use plimsoll_scenario::{Loaded, Scenario};

use crate::arguments::{Format, RunOptions};
use crate::decisions::Decisions;
use crate::files::{self, Listener, Results};
use crate::other::other_policy;
use crate::progress::Bar;
use crate::{Failure, interrupt};

const INTERRUPTED: u8 = 130;

/// Runs a scenario, writes its report, prints a verdict.
pub fn run(options: &RunOptions) -> Result<ExitCode, Failure> {
    let scenario = open(&options.file, &options.overrides)?;
    let template = options.page_template.as_deref().map(read_template).transpose()?;
    let seed = options.seed.unwrap_or(scenario.seed);
    let plan = plimsoll_planner::plan(&scenario, seed);
    let shadows = shadows(options, &scenario)?;
    let logged = options.decisions || !shadows.is_empty();
    let logs = logged.then(|| Decisions::new(&scenario, seed, options.replications)).transpose()?;
    let Replicated { observers, partial } = simulate(options, (&scenario, &plan), &logs)?;
    let (mut ledgers, mut rows) = (Vec::new(), Vec::new());
    for listener in observers {
        ledgers.push(listener.ledger);
        rows.extend(listener.rows);
    }
    let agreements = logs.as_ref().map_or(Ok(Vec::new()), |logs| logs.agreements(&shadows))?;
    let summary = plimsoll_report::summarise(&plan, &ledgers, partial);
    let page = match folder(options, &scenario) {
        Some(folder) => {
            let template = template.as_deref();
            let (plan, summary, ledgers) = (&plan, &summary, &ledgers);
            let results = Results { plan, summary, ledgers, template };
            let written = files::write(&folder, &results, rows).and_then(|page| {
                let kept = logs.filter(|_| options.decisions);
                kept.map_or(Ok(()), |logs| logs.name(&folder))?;
                Ok(page)
            });
            Some(written.with_context(|| format!("writing to {}", folder.display()))?)
        }
        None => None,
    };
    print(options, &summary, page.as_deref())?;
    tell_agreements(options, &agreements);
    Ok(exit_code(options, &summary))
}

/// The policies that listen.
fn shadows(options: &RunOptions, scenario: &Scenario) -> Result<Vec<OtherPolicy>, Failure> {
    let names = &scenario.model.names;
    options.shadow.iter().map(|file| other_policy(file, names)).collect()
}

fn tell_agreements(options: &RunOptions, agreements: &[Agreement]) {
    for (file, agreement) in options.shadow.iter().zip(agreements) {
        let Agreement { same, decided } = agreement;
        let rate =
            agreement.rate().map_or(String::new(), |rate| format!(" ({:.1} %)", 100.0 * rate));
        eprintln!(
            "shadow {}: same backend, refusal or end in {same} of {decided} decisions{rate}",
            file.display()
        );
    }
}

/// Reads a scenario from a file, or a shipped one by its name.
pub fn open(file: &Path, overrides: &[String]) -> Result<Scenario, Failure> {
    Ok(plimsoll_scenario::load(&locate(file)?, overrides)?)
}

/// Reads a scenario or a policy from a file, or a shipped one by its name.
pub fn open_either(file: &Path, overrides: &[String]) -> Result<Loaded, Failure> {
    Ok(plimsoll_scenario::load_either(&locate(file)?, overrides)?)
}

/// Where a file or a shipped scenario is to be read from.
pub fn locate(file: &Path) -> Result<PathBuf, Failure> {
    let name = file.to_str().unwrap_or_default();
    if file.exists() {
        return Ok(file.to_owned());
    }
    if plimsoll_scenario::template(name).is_some() {
        return Ok(PathBuf::from(format!("shipped:{name}")));
    }
    if let Some(near) = plimsoll_config::nearest::nearest(name, plimsoll_scenario::templates()) {
        let message = format!("no file and no scenario is called `{name}`; did you mean `{near}`?");
        return Err(Failure::Usage(message));
    }
    Ok(file.to_owned())
}

fn read_template(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("the page template {}: {error}", path.display())))
}

fn simulate(
    options: &RunOptions,
    (scenario, plan): (&Scenario, &Plan),
    logs: &Option<Decisions<'_>>,
) -> Result<Replicated<Listener>, Failure> {
    let names = &scenario.model.names;
    let wants_rows = !options.no_files && !options.no_requests;
    // Opened before anything runs, so that a full disk shows at once.
    let rows = (0..options.replications)
        .map(|replication| wants_rows.then(|| files::rows(names, replication)).transpose())
        .map(|rows| rows.map(std::sync::Mutex::new))
        .collect::<std::io::Result<Vec<_>>>()?;
    let listener = |replication: u32| Listener {
        ledger: Ledger::new(plan),
        rows: rows[replication as usize].lock().expect("each is taken once").take(),
    };
    interrupt::listen();
    let bar = Bar::new(options.replications, scenario.model.plan.duration, options.quiet);
    let count = options.replications;
    let replications = Replications { count, seed: plan.seed, threads: options.threads };
    let keeper: &dyn LogKeeper = match logs {
        Some(logs) => logs,
        None => &(),
    };
    let result = replicate_logged(scenario, replications, (listener, keeper), &bar);
    bar.clear();
    result.map_err(|error| match error {
        // A source breaks only where a trace row is bad: that is input, and says where.
        StudyError::Source(error) => Failure::Located(error.to_string()),
        other => Failure::Broken(other.into()),
    })
}

fn folder(options: &RunOptions, scenario: &Scenario) -> Option<PathBuf> {
    let named = || Path::new("plimsoll-out").join(file_name(&scenario.name));
    (!options.no_files).then(|| options.out.clone().unwrap_or_else(named))
}

/// A scenario's name as one file name.
fn file_name(name: &str) -> String {
    let keep = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    name.chars().map(keep).collect()
}

fn print(options: &RunOptions, summary: &Summary, page: Option<&Path>) -> Result<(), Failure> {
    let text = match options.format {
        Format::Json => summary.to_json(),
        Format::Human => table(summary, plimsoll_report::Format::Human),
        Format::Csv => table(summary, plimsoll_report::Format::Csv),
        Format::Md => table(summary, plimsoll_report::Format::Md),
    };
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever read us has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
        other => other?,
    }
    if let Some(page) = page {
        eprintln!("report: {}", page.display());
    }
    Ok(())
}

fn table(summary: &Summary, format: plimsoll_report::Format) -> String {
    let width = match std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()) {
        Some(columns) => columns,
        None if std::io::stdout().is_terminal() => console::Term::stdout().size().1.into(),
        None => 120,
    };
    plimsoll_report::table(summary, format, width)
}

fn exit_code(options: &RunOptions, summary: &Summary) -> ExitCode {
    let code = match summary.verdict.exit_code() {
        _ if summary.partial => INTERRUPTED,
        3 | 4 if options.no_gate => 0,
        code => code,
    };
    ExitCode::from(code)
}
