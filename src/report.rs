//! `plimsoll report`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use plimsoll_planner::{Checked, Folded, LogReportError, Survey, fold};
use plimsoll_policy::log::{Header, Reader};
use plimsoll_report::{Ledger, Summary};

use crate::arguments::{PolicyCheck, ReportOptions};
use crate::files::{self, Listener, Results};
use crate::run::{Shown, file_name, read_result, read_template, show};
use crate::{Failure, replay};

/// How the file of a log ends.
const LOG: &str = "plog";
/// What a result folder holds.
const SUMMARY: &str = "summary.json";

/// Renders the report of a log, of each log of a folder, or prints that of a result folder again.
pub fn report(options: &ReportOptions) -> Result<ExitCode, Failure> {
    let path = &options.log;
    if !path.is_dir() {
        return Ok(ExitCode::from(of_log(options, path, None)?));
    }
    if path.join(SUMMARY).is_file() {
        return again(options, &path.join(SUMMARY));
    }
    let logs = logs(path)?;
    if logs.is_empty() {
        return Err(Failure::Usage(format!(
            "`{}` holds neither a decision log (*.{LOG}) nor a result ({SUMMARY})",
            path.display()
        )));
    }
    let mut code = 0;
    for log in &logs {
        let name = log.file_stem().map(Path::new);
        code = code.max(of_log(options, log, name)?);
    }
    Ok(ExitCode::from(code))
}

/// The logs of a folder, by name: those of a gateway follow each other in time.
fn logs(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries
        .map_err(|error| Failure::Usage(format!("cannot read `{}`: {error}", folder.display())))?;
    let mut logs: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == LOG));
    logs.sort();
    Ok(logs)
}

/// Prints the table of a result folder again.
fn again(options: &ReportOptions, file: &Path) -> Result<ExitCode, Failure> {
    if options.out.is_some() || options.page_template.is_some() {
        return Err(Failure::Usage(format!(
            "`{}` is a result already; name the decision log itself to render another report",
            options.log.display()
        )));
    }
    let summary = read_result(file)?;
    let baseline = options.baseline.as_deref().map(read_result).transpose()?;
    let shown = Shown { summary: &summary, ledgers: &[], baseline: baseline.as_ref() };
    show(options.format, &shown, None)?;
    Ok(ExitCode::from(exit_code(options, &summary)))
}

/// Renders the report of one log, in a folder of its name if it is one of several.
fn of_log(options: &ReportOptions, log: &Path, name: Option<&Path>) -> Result<u8, Failure> {
    let bytes = std::fs::read(log)
        .map_err(|error| Failure::Usage(format!("cannot read `{}`: {error}", log.display())))?;
    let open = || Reader::new(&bytes).map_err(|error| replay::located(log, &error));
    let template = options.page_template.as_deref().map(read_template).transpose()?;
    let (reader, second) = (open()?, open()?);
    let header = reader.header().clone();
    let failed = |error| failure(log, &header, error);
    let survey = Survey::of(reader).map_err(failed)?;
    let mut plan = survey.plan(&header);
    let rows = Some(files::rows(&plan, 0)?);
    let listener = Listener { ledger: Ledger::new(&plan), rows, trace: None, batches: None };
    let checked = match options.policy_check {
        PolicyCheck::On => Checked::Yes,
        PolicyCheck::Off => Checked::No,
    };
    let folded = fold(second, (&survey, checked), listener).map_err(failed)?;
    let Folded { observer: Listener { ledger, rows, .. }, differs_at } = folded;
    if let (Some(input), Some(recorded)) = (differs_at, &mut plan.recorded) {
        recorded.notes.push(format!(
            "From input {input} on the policy would decide otherwise than the log says: what \
             stopped whom, and samples, are not told from there on."
        ));
    }
    let ledgers = [ledger];
    let summary = plimsoll_report::summarise(&plan, &ledgers, survey.is_cut());
    let folder = folder(options, &header, name);
    let results = Results {
        plan: &plan,
        summary: &summary,
        ledgers: &ledgers,
        trace: None,
        template: template.as_ref(),
        parquet: false,
    };
    let page = files::write(&folder, results, rows.into_iter().collect())
        .map_err(|error| files::failure(error, &folder))?;
    let baseline = options.baseline.as_deref().map(read_result).transpose()?;
    let shown = Shown { summary: &summary, ledgers: &ledgers, baseline: baseline.as_ref() };
    show(options.format, &shown, Some(&page))?;
    Ok(exit_code(options, &summary))
}

fn folder(options: &ReportOptions, header: &Header, name: Option<&Path>) -> PathBuf {
    let named = || Path::new("plimsoll-out").join(file_name(&header.scenario) + "-log");
    let folder = options.out.clone().unwrap_or_else(named);
    name.map_or(folder.clone(), |name| folder.join(name))
}

fn exit_code(options: &ReportOptions, summary: &Summary) -> u8 {
    if options.no_gate { 0 } else { summary.exit_code() }
}

fn failure(log: &Path, header: &Header, error: LogReportError) -> Failure {
    match error {
        LogReportError::Log(error) => replay::located(log, &error),
        LogReportError::Differs(difference) => Failure::Located(format!(
            "error: {}: the policy of the log does not decide as the log says\n{}\
             (`--policy-check off` believes the log)",
            log.display(),
            replay::difference_text(header, &difference)
        )),
        LogReportError::Policy(_) | LogReportError::Number(_) => {
            Failure::Located(format!("error: {}: {error}", log.display()))
        }
    }
}
