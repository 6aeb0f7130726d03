//! `plimsoll compare`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use plimsoll_planner::{Candidate, CompareSettings, StudyError};
use plimsoll_report::{OutputFolder, Precision, Study, Template};

use crate::arguments::{CompareOptions, Format, Replications};
use crate::progress::Counter;
use crate::run::{
    INTERRUPTED, bad_template, file_name, locate, read_template, say, study_failure, width,
};
use crate::{Failure, interrupt};

/// At most so many candidates.
const CANDIDATES_MAX: usize = 100;

/// Runs the candidates, writes the comparison, prints the answer.
pub fn compare(options: &CompareOptions) -> Result<ExitCode, Failure> {
    let path = locate(&options.file)?;
    let template = options.page_template.as_deref().map(read_template).transpose()?;
    let candidates = candidates(options, &path)?;
    let scenario = &candidates[0].scenario;
    let (name, seed) = (scenario.name.clone(), options.seed.unwrap_or(scenario.seed));
    let (replications, precision) = match options.replications {
        Replications::Count(1) => {
            let message = "one replication has no interval: write `--replications 10`, or `auto`";
            return Err(Failure::Usage(message.to_owned()));
        }
        Replications::Count(count) => (count, None),
        Replications::Auto => {
            let relative = options.precision.0.max(1e-6);
            let precision = Precision { relative, most: options.replications_max };
            (Precision::PILOT, Some(precision))
        }
    };
    let settings = CompareSettings {
        replications,
        precision,
        seed,
        threads: options.threads,
        confidence: options.confidence.0,
        indifference: options.indifference.0.max(1e-9),
        selection_most: options.select_max,
    };
    if !(0.5..1.0).contains(&settings.confidence) {
        let message = "`--confidence` is from 50% to less than 100%";
        return Err(Failure::Usage(message.to_owned()));
    }
    interrupt::listen();
    let watch = Counter::new(options.quiet);
    let made = plimsoll_planner::compare(candidates, &settings, &watch);
    watch.clear();
    let comparison = match made {
        Err(StudyError::Interrupted) => return Ok(interrupted()),
        other => other.map_err(study_failure)?,
    };
    let folder = folder(options.out.as_deref(), &name, "compare");
    let folder = (!options.no_files).then_some(&*folder);
    let place = (folder, template.as_ref());
    tell(&comparison.study(), "comparison", place, options.format)?;
    Ok(ExitCode::SUCCESS)
}

/// Says that a study was stopped.
pub fn interrupted() -> ExitCode {
    eprintln!("interrupted: half of a study says nothing, and nothing was written");
    ExitCode::from(INTERRUPTED)
}

/// Where the files of a study go.
pub fn folder(out: Option<&Path>, scenario: &str, study: &str) -> PathBuf {
    let named = || Path::new("plimsoll-out").join(format!("{}-{study}", file_name(scenario)));
    out.map_or_else(named, Path::to_owned)
}

/// Writes the files of a study into the folder, if there is to be one, and prints its answer. JSON and
/// page are called `name`.
pub fn tell(
    study: &Study,
    name: &str,
    (folder, template): (Option<&Path>, Option<&Template>),
    format: Format,
) -> Result<(), Failure> {
    let write = |folder| write(study, name, folder, template);
    let page = folder.map(write).transpose()?;
    let text = match format {
        Format::Json => study.json().to_owned(),
        Format::Human => study.text(plimsoll_report::Format::Human, width()),
        Format::Csv => study.text(plimsoll_report::Format::Csv, width()),
        Format::Md => study.text(plimsoll_report::Format::Md, width()),
    };
    say(&text, page.as_deref())
}

/// Where the page is.
fn write(
    study: &Study,
    name: &str,
    folder: &Path,
    template: Option<&Template>,
) -> Result<PathBuf, Failure> {
    let content = study.page(template).map_err(bad_template)?;
    let written = || -> std::io::Result<PathBuf> {
        let out = OutputFolder::create(folder)?;
        for (name, svg) in study.charts() {
            out.write(&format!("charts/{name}"), svg.as_bytes())?;
        }
        out.write(&format!("{name}.json"), study.json().as_bytes())?;
        let page = format!("{name}.html");
        out.write(&page, content.as_bytes())?;
        Ok(out.path().join(page))
    };
    Ok(written().with_context(|| format!("writing to {}", folder.display()))?)
}

/// Every policy with every variation.
fn candidates(options: &CompareOptions, path: &Path) -> Result<Vec<Candidate>, Failure> {
    let own = [plimsoll_scenario::OWN.to_owned()];
    let policies = if options.policy.is_empty() { &own[..] } else { &options.policy[..] };
    let variants = variants(&options.vary)?;
    let count = policies.len() * variants.len();
    if count < 2 {
        let known: Vec<String> = plimsoll_scenario::baselines()
            .map(|(name, about)| format!("{name} ({about})"))
            .collect();
        return Err(Failure::Usage(format!(
            "there is nothing to compare with: name two policies (`--policy own --policy vtc`) or \
             values (`--vary pool.gpu.replicas=2,3`); baselines: {}",
            known.join(", ")
        )));
    }
    if count > CANDIDATES_MAX {
        return Err(Failure::Usage(format!(
            "{count} candidates are too many: at most {CANDIDATES_MAX} are compared at once"
        )));
    }
    let mut candidates: Vec<Candidate> = Vec::new();
    for policy in policies {
        for variant in &variants {
            let overrides = [&options.overrides[..], &variant[..]].concat();
            let scenario = plimsoll_scenario::load_under(path, policy, &overrides)?;
            let name = match (policies.len(), variant.is_empty()) {
                (_, true) => policy.clone(),
                (1, false) => variant.join(", "),
                (_, false) => format!("{policy}, {}", variant.join(", ")),
            };
            if candidates.iter().any(|earlier| earlier.name == name) {
                return Err(Failure::Usage(format!("`{name}` is there twice")));
            }
            candidates.push(Candidate { name, scenario });
        }
    }
    Ok(candidates)
}

/// All combinations of the values of all variations; one that changes nothing without any.
fn variants(vary: &[String]) -> Result<Vec<Vec<String>>, Failure> {
    let mut all = vec![Vec::new()];
    for text in vary {
        let values = text.split_once('=').map(|(path, values)| (path, split(values)));
        let Some((path, values)) = values.filter(|(path, _)| !path.trim().is_empty()) else {
            let message =
                format!("`--vary {text}` has no values: write `--vary pool.gpu.replicas=2,3,4`");
            return Err(Failure::Usage(message));
        };
        all = all
            .iter()
            .flat_map(|before: &Vec<String>| {
                let with =
                    |value: &String| [&before[..], &[format!("{path}={value}")][..]].concat();
                values.iter().map(with).collect::<Vec<_>>()
            })
            .collect();
    }
    Ok(all)
}

/// Values between commas; commas within brackets, braces or quotes belong to a value.
fn split(text: &str) -> Vec<String> {
    let (mut depth, mut quoted, mut values) = (0u32, false, vec![String::new()]);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth = depth.saturating_sub(1),
            ',' if !quoted && depth == 0 => {
                values.push(String::new());
                continue;
            }
            _ => {}
        }
        values.last_mut().expect("there is one").push(c);
    }
    values.into_iter().map(|value| value.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_split_at_their_commas() {
        assert_eq!(split("1, 2,3"), ["1", "2", "3"]);
        assert_eq!(
            split(r#"[1,2],{ a = 1, b = "x,y" },"p,q""#),
            ["[1,2]", r#"{ a = 1, b = "x,y" }"#, r#""p,q""#]
        );
    }

    #[test]
    fn variations_are_combined() {
        let all = variants(&["a=1,2".to_owned(), "b=x,y".to_owned()]).ok().expect("both are fine");
        let names: Vec<String> = all.iter().map(|variant| variant.join(" ")).collect();
        assert_eq!(names, ["a=1 b=x", "a=1 b=y", "a=2 b=x", "a=2 b=y"]);
        assert!(variants(&["a".to_owned()]).is_err());
    }
}
