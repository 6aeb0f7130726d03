//! `plimsoll run`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use plimsoll_planner::{self as planner, LogKeeper, OtherPolicy, Replicated, StudyError};
use plimsoll_policy::Agreement;
use plimsoll_report::{
    Ledger, Plan, Precision, Summary, Template, TemplateError, TraceRecorder, comment, diff,
    table_with_sparklines,
};
use plimsoll_scenario::{Loaded, Scenario};

use crate::arguments::{Format, Replications, RunOptions};
use crate::decisions::Decisions;
use crate::files::{self, Listener, Maker, Results, Rows};
use crate::other::other_policy;
use crate::progress::Bar;
use crate::{Failure, interrupt};

/// The exit code of what was interrupted.
pub const INTERRUPTED: u8 = 130;

/// Runs a scenario, writes its report, prints a verdict.
pub fn run(options: &RunOptions) -> Result<ExitCode, Failure> {
    if options.parquet && !cfg!(feature = "parquet") {
        let message = "this build writes no Parquet; build with `--features parquet`";
        return Err(Failure::Usage(message.to_owned()));
    }
    let scenario = open(&options.file, &options.overrides)?;
    let template = options.page_template.as_deref().map(read_template).transpose()?;
    let baseline = options.baseline.as_deref().map(read_result).transpose()?;
    let seed = options.seed.unwrap_or(scenario.seed);
    let plan = plimsoll_planner::plan(&scenario, seed);
    let shadows = shadows(options, &scenario)?;
    let logged = options.decisions || !shadows.is_empty();
    let counted = match options.replications {
        Replications::Count(count) => Some(count),
        Replications::Auto if logged => return Err(uncounted()),
        Replications::Auto => None,
    };
    let logs = logged.then(|| Decisions::new(&scenario, seed, counted.unwrap_or(1))).transpose()?;
    let Outcome { ledgers, rows, trace, summary } = simulate(options, (&scenario, &plan), &logs)?;
    let agreements = logs.as_ref().map_or(Ok(Vec::new()), |logs| logs.agreements(&shadows))?;
    let page = match folder(options, &scenario) {
        Some(folder) => {
            let template = template.as_ref();
            let (plan, summary, ledgers) = (&plan, &summary, &ledgers);
            let results =
                Results { plan, summary, ledgers, trace, template, parquet: options.parquet };
            let written = files::write(&folder, results, rows).and_then(|page| {
                let kept = logs.filter(|_| options.decisions);
                kept.map_or(Ok(()), |logs| logs.name(&folder))?;
                Ok(page)
            });
            Some(written.map_err(|error| files::failure(error, &folder))?)
        }
        None => None,
    };
    let shown = Shown { summary: &summary, ledgers: &ledgers, baseline: baseline.as_ref() };
    show(options.format, &shown, page.as_deref())?;
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
    let is_shipped = plimsoll_scenario::template(name).is_some();
    // A folder that happens to have the name of a shipped scenario is not what was meant.
    if file.exists() && !(is_shipped && file.is_dir()) {
        return Ok(file.to_owned());
    }
    if is_shipped {
        return Ok(PathBuf::from(format!("shipped:{name}")));
    }
    if let Some(near) = plimsoll_config::nearest::nearest(name, plimsoll_scenario::templates()) {
        let message = format!("no file and no scenario is called `{name}`; did you mean `{near}`?");
        return Err(Failure::Usage(message));
    }
    Ok(file.to_owned())
}

/// Reads a template of the user's for the page.
pub fn read_template(path: &Path) -> Result<Template, Failure> {
    let source = std::fs::read_to_string(path).map_err(|error| {
        Failure::Usage(format!("the page template {}: {error}", path.display()))
    })?;
    Template::new(path.display().to_string(), source).map_err(bad_template)
}

/// A template that does not parse, or asks for what no page knows.
pub fn bad_template(error: TemplateError) -> Failure {
    Failure::Located(format!("error: {error}"))
}

fn uncounted() -> Failure {
    let message = "decision logs and shadows need a number of replications: write \
                   `--replications 10` in place of `auto`";
    Failure::Usage(message.to_owned())
}

/// What all replications left behind.
struct Outcome {
    ledgers: Vec<Ledger>,
    rows: Vec<Rows>,
    trace: Option<TraceRecorder>,
    summary: Summary,
}

fn simulate(
    options: &RunOptions,
    (scenario, plan): (&Scenario, &Plan),
    logs: &Option<Decisions<'_>>,
) -> Result<Outcome, Failure> {
    let precision =
        Precision { relative: options.precision.0.max(1e-6), most: options.replications_max };
    let first = match options.replications {
        Replications::Count(count) => count,
        Replications::Auto => Precision::PILOT,
    };
    let auto = options.replications == Replications::Auto;
    let batched = auto || plan.has_trace && first == 1;
    let maker = Maker::new(options, plan, batched)?;
    interrupt::listen();
    let bar = Bar::new(first, scenario.model.plan.duration, options.quiet);
    let (mut ledgers, mut rows, mut batches) = (Vec::new(), Vec::new(), Vec::new());
    let mut trace = None;
    let mut summary = None;
    let mut next = |replicated: Replicated<Listener>| {
        for listener in replicated.observers {
            ledgers.push(listener.ledger);
            rows.extend(listener.rows);
            trace = trace.take().or(listener.trace);
            batches.extend(listener.batches);
        }
        let made = summary.insert(plimsoll_report::summarise(plan, &ledgers, replicated.partial));
        let wanted = if auto { precision.wanted(made) } else { first };
        bar.expect(wanted);
        wanted
    };
    let keeper: &dyn LogKeeper = match logs {
        Some(logs) => logs,
        None => &(),
    };
    let replications =
        planner::Replications { count: first, seed: plan.seed, threads: options.threads };
    let parts = (planner::Rounds { first, next: &mut next }, &bar as &dyn planner::Watch);
    let listener = |replication| maker.listener(replication);
    let result = planner::replicate_in_rounds(scenario, replications, (listener, keeper), parts);
    bar.clear();
    result.map_err(study_failure)?;
    if let Some(error) = maker.broken() {
        return Err(error.into());
    }
    let mut summary = summary.expect("the first round is always run");
    if auto {
        summary.precision = Some(precision.outcome(&summary));
        summary.warm_up = Some(plimsoll_report::warm_up_check(&batches, &plan.names, plan.warm_up));
    } else if let Some(batches) = batches.first() {
        summary.batch_means = batches.means(&plan.names, plan.warm_up);
    }
    Ok(Outcome { ledgers, rows, trace, summary })
}

/// Why a study failed, as the command tells it.
pub fn study_failure(error: StudyError) -> Failure {
    match error {
        // A source breaks only where a trace row is bad: that is input, and says where.
        StudyError::Source(error) => Failure::Located(error.to_string()),
        other => Failure::Broken(other.into()),
    }
}

fn folder(options: &RunOptions, scenario: &Scenario) -> Option<PathBuf> {
    let named = || Path::new("plimsoll-out").join(file_name(&scenario.name));
    (!options.no_files).then(|| options.out.clone().unwrap_or_else(named))
}

/// A scenario's name as one file name.
pub fn file_name(name: &str) -> String {
    let keep = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    name.chars().map(keep).collect()
}

/// What is printed of results.
pub struct Shown<'a> {
    /// The results.
    pub summary: &'a Summary,
    /// What they were made of; nothing where a result folder is shown again.
    pub ledgers: &'a [Ledger],
    /// What they are compared with.
    pub baseline: Option<&'a Summary>,
}

/// Prints the results, and says where the page is.
pub fn show(format: Format, shown: &Shown<'_>, page: Option<&Path>) -> Result<(), Failure> {
    let &Shown { summary, ledgers, baseline } = shown;
    let difference = baseline.map(|other| diff(("the baseline", other), ("this run", summary)));
    let text = match (format, ledgers, &difference) {
        (Format::Json, _, _) => summary.to_json(),
        (Format::Csv, _, _) => table(summary, plimsoll_report::Format::Csv),
        (Format::Md, _, None) => table(summary, plimsoll_report::Format::Md),
        (Format::Md, _, Some(difference)) => comment(summary, difference),
        // Lines are drawn for people alone.
        (Format::Human, [ledger, ..], _) if std::io::stdout().is_terminal() => {
            table_with_sparklines(summary, ledger, width())
        }
        (Format::Human, _, _) => table(summary, plimsoll_report::Format::Human),
    };
    let human = plimsoll_report::Format::Human;
    let text = match difference.filter(|_| format == Format::Human) {
        Some(difference) => text + "\n" + &difference.study().text(human, width()),
        None => text,
    };
    say(&text, page)
}

/// Reads the summary of a result folder, or a summary itself.
pub fn read_result(path: &Path) -> Result<Summary, Failure> {
    let file = if path.is_dir() { path.join("summary.json") } else { path.to_owned() };
    let cannot =
        |error: String| Failure::Usage(format!("cannot read `{}`: {error}", file.display()));
    let text = std::fs::read(&file).map_err(|error| cannot(error.to_string()))?;
    Summary::read(&text).map_err(cannot)
}

/// Prints a text, and says where its page is.
pub fn say(text: &str, page: Option<&Path>) -> Result<(), Failure> {
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
    plimsoll_report::table(summary, format, width())
}

/// Characters a line.
pub fn width() -> usize {
    match std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()) {
        Some(columns) => columns,
        None if std::io::stdout().is_terminal() => console::Term::stdout().size().1.into(),
        None => 120,
    }
}

fn exit_code(options: &RunOptions, summary: &Summary) -> ExitCode {
    let code = match summary.verdict.exit_code() {
        _ if summary.partial => INTERRUPTED,
        3 | 4 if options.no_gate => 0,
        code => code,
    };
    ExitCode::from(code)
}
