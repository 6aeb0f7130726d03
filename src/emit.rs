//! `plimsoll sweep --emit`: programs that run the shards of a sweep on a cluster.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use plimsoll_report::OutputFolder;
use plimsoll_report::sweep::Study;

use crate::Failure;
use crate::arguments::SweepOptions;
use crate::run::locate;

/// The driver's name within the folder of the results.
const DRIVER: &str = "sweep_ray.py";
/// What stands in the driver; its first lines are filled in.
const RAY: &str = include_str!("emit/ray.py");

/// Writes a driver for Ray into the folder of the results.
pub fn ray(options: &SweepOptions, study: &Study, folder: &Path) -> Result<ExitCode, Failure> {
    let shards = u64::from(options.shards).min(study.cells);
    let program = std::env::current_exe().context("where this program is")?;
    let file = locate(&options.file)?;
    // A shipped scenario keeps its name; a file is found from wherever a task runs.
    let file = match file.exists() {
        true => absolute(&file)?,
        false => options.file.clone(),
    };
    let here = std::env::current_dir().context("where this is run")?;
    let options: Vec<String> = same(options).iter().map(|word| literal(word)).collect();
    let path = |path: &Path| literal(&path.to_string_lossy());
    let filled = [
        ("{{program}}", path(&program)),
        ("{{file}}", path(&file)),
        ("{{options}}", format!("[{}]", options.join(", "))),
        ("{{out}}", path(&absolute(folder)?)),
        ("{{here}}", path(&here)),
        ("{{shards}}", shards.to_string()),
        ("{{cells}}", study.cells.to_string()),
    ];
    let driver = filled.iter().fold(RAY.to_owned(), |text, (key, value)| text.replace(key, value));
    let written = OutputFolder::create(folder).and_then(|out| out.write(DRIVER, driver.as_bytes()));
    written.with_context(|| format!("writing to {}", folder.display()))?;
    println!("{}", folder.join(DRIVER).display());
    eprintln!("run it where Ray is: python {}", folder.join(DRIVER).display());
    Ok(ExitCode::SUCCESS)
}

/// A text as Python writes it: what JSON escapes, Python escapes likewise.
fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    Ok(std::path::absolute(path).with_context(|| format!("where {} is", path.display()))?)
}

/// The options that say which sweep it is, as they were given.
fn same(options: &SweepOptions) -> Vec<String> {
    let lists = [
        ("--vary", &options.vary),
        ("--zip", &options.zip),
        ("--cell", &options.cells),
        ("--draw", &options.draw),
        ("--set", &options.overrides),
    ];
    let lists = lists.into_iter().flat_map(|(option, values)| {
        values.iter().flat_map(move |value| [option.to_owned(), value.clone()])
    });
    let numbers = [
        ("--draws", options.draws.map(u64::from)),
        ("--draw-seed", options.draw_seed),
        ("--replications", options.replications.map(u64::from)),
        ("--seed", options.seed),
    ];
    let numbers = numbers.into_iter().filter_map(|(option, value)| Some((option, value?)));
    lists
        .chain(numbers.flat_map(|(option, value)| [option.to_owned(), value.to_string()]))
        .collect()
}
