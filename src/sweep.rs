//! `plimsoll sweep` and `plimsoll merge`.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use plimsoll_planner::StudyError;
use plimsoll_planner::sweep::{
    Collected, FILE, Header, Journal, Lock, MergeError, Records, Shard, SweepError, SweepSettings,
    Sweeping, Swept,
};
use plimsoll_report::sweep::{SHOWN_MAX, Study};
use plimsoll_report::{OutputFolder, Template};
use plimsoll_scenario::{SweepArguments, load_sweep, sweep_of};

use crate::arguments::{CheckOptions, Format, MergeOptions, SweepOptions};
use crate::progress::{Quiet, SweepBar};
use crate::run::{INTERRUPTED, bad_template, file_name, locate, read_template};
use crate::{Failure, emit, interrupt};

/// What the page is called.
const PAGE: &str = "sweep.html";
/// How often it is looked whether another process has left the folder.
const PATIENCE: Duration = Duration::from_millis(200);

/// Runs the cells of a sweep, or its shard, and writes the results.
pub fn sweep(options: &SweepOptions) -> Result<ExitCode, Failure> {
    let template = options.page_template.as_deref().map(read_template).transpose()?;
    let sweeping = open(options)?;
    if options.dry_run {
        list(&sweeping, u64::MAX)?;
        return Ok(ExitCode::SUCCESS);
    }
    let folder = folder(options, &sweeping.study);
    if options.emit.is_some() {
        return emit::ray(options, &sweeping.study, &folder);
    }
    let shard = options.shard.unwrap_or(Shard::WHOLE);
    let header = Header::new(sweeping.study.clone(), shard);
    interrupt::listen();
    let Some((journal, done)) = journal(options, &header, &folder)? else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let swept = run(options, (&sweeping, shard), (&journal, done.as_ref()))?;
    tell(&sweeping, shard, &swept);
    if swept.stopped || !shard.is_whole() {
        part(&folder, template.as_ref())?;
    }
    if swept.stopped {
        eprintln!("interrupted: what is done is in {}; go on with --resume", folder.display());
        return Ok(ExitCode::from(INTERRUPTED));
    }
    drop(journal);
    if !shard.is_whole() {
        eprintln!(
            "{shard} is done: {}; `plimsoll merge` puts the shards together",
            folder.display()
        );
        return Ok(ExitCode::SUCCESS);
    }
    let collected = plimsoll_planner::sweep::merge(std::slice::from_ref(&folder));
    finish(&collected.map_err(merge_failure)?, (&folder, template.as_ref()), options.format)
}

/// Puts shards together and writes the results.
pub fn merge(options: &MergeOptions) -> Result<ExitCode, Failure> {
    let template = options.page_template.as_deref().map(read_template).transpose()?;
    let collected = plimsoll_planner::sweep::merge(&options.folders).map_err(merge_failure)?;
    let folder = match (&options.out, options.folders.as_slice()) {
        (Some(out), _) => out.clone(),
        (None, [only]) => only.clone(),
        (None, _) => default_folder(collected.study()),
    };
    finish(&collected, (&folder, template.as_ref()), options.format)
}

/// The sweep that a file holds, if it holds one, with all its cells checked.
pub fn of(options: &CheckOptions) -> Result<Option<Sweeping>, Failure> {
    let sweep = sweep_of(&locate(&options.file)?, &options.overrides)?;
    let settings = SweepSettings { seed: None, replications: None, threads: 0 };
    sweep.map(|sweep| Sweeping::new(sweep, settings).map_err(failure)).transpose()
}

/// Says what a sweep consists of; the first cells.
pub fn outline(sweeping: &Sweeping) -> Result<(), Failure> {
    list(sweeping, SHOWN_MAX as u64)
}

fn list(sweeping: &Sweeping, most: u64) -> Result<(), Failure> {
    let study = &sweeping.study;
    println!(
        "sweep: {} cells, each of {} replications{}",
        study.cells,
        study.replications,
        match study.equal_left_out {
            0 => String::new(),
            equal => format!("; {equal} combinations equal an earlier cell and are left out"),
        }
    );
    for cell in 0..study.cells.min(most) {
        let set = sweeping.parameters(cell);
        let set: Vec<String> =
            set.iter().map(|set| format!("{} = {}", set.path, set.text)).collect();
        let set = if set.is_empty() { "the file as it is".to_owned() } else { set.join(", ") };
        let id = sweeping.cell(cell).map_err(|wrong| Failure::Input(*wrong))?.scenario.hash;
        println!("  {cell} {id}: {set}");
    }
    if study.cells > most {
        println!("  and {} more: `plimsoll sweep FILE --dry-run` lists all", study.cells - most);
    }
    Ok(())
}

fn open(options: &SweepOptions) -> Result<Sweeping, Failure> {
    let arguments = SweepArguments {
        vary: options.vary.clone(),
        zip: options.zip.clone(),
        cells: options.cells.clone(),
        draw: options.draw.clone(),
        draws: options.draws,
        draw_seed: options.draw_seed,
    };
    let sweep = load_sweep(&locate(&options.file)?, &options.overrides, &arguments)?;
    let settings = SweepSettings {
        seed: options.seed,
        replications: options.replications,
        threads: options.threads,
    };
    Sweeping::new(sweep, settings).map_err(failure)
}

fn default_folder(study: &Study) -> PathBuf {
    Path::new("plimsoll-out").join(format!("{}-sweep", file_name(&study.scenario)))
}

fn folder(options: &SweepOptions, study: &Study) -> PathBuf {
    let of_shard = |shard: Shard| format!("shard-{}-of-{}", shard.number, shard.of);
    let named = || match options.shard {
        Some(shard) => default_folder(study).join(of_shard(shard)),
        None => default_folder(study),
    };
    options.out.clone().unwrap_or_else(named)
}

/// The journal of a folder, and what it held; `None` if somebody said stop while it was waited for.
fn journal(
    options: &SweepOptions,
    header: &Header,
    folder: &Path,
) -> Result<Option<(Journal, Option<Records>)>, Failure> {
    let Some(lock) = lock(options, folder)? else { return Ok(None) };
    let broken = |error| failure(SweepError::Journal(error));
    let Some(records) = Records::read(folder).map_err(input)? else {
        return Ok(Some((Journal::begin(folder, header, lock).map_err(broken)?, None)));
    };
    if !options.resume {
        let message = format!(
            "{} holds the results of a sweep; go on with it by --resume, write elsewhere by --out, or \
             remove the folder",
            folder.display()
        );
        return Err(Failure::Usage(message));
    }
    let shards = || {
        let (one, two) = (records.header.shard, header.shard);
        (one != two).then(|| format!("{one} and {two}"))
    };
    if let Some(differs) = records.header.differs(header).or_else(shards) {
        let path = records.path.display();
        let message = format!("{path}: the results there are of another sweep: {differs}");
        return Err(Failure::Usage(message));
    }
    for damage in &records.damage {
        let path = records.path.display();
        eprintln!("warning: {path}: damaged: {damage}; what it held is run again");
    }
    if let Some(cut) = records.cut {
        let path = records.path.display();
        eprintln!("{path}: the last record was cut off (byte {cut}); its cell is run again");
    }
    let journal = Journal::resume(&records, lock).map_err(broken)?;
    // What was taken out has moved the rest.
    let records = Records::read(folder).map_err(broken)?;
    Ok(Some((journal, records)))
}

fn lock(options: &SweepOptions, folder: &Path) -> Result<Option<Lock>, Failure> {
    let mut told = false;
    loop {
        if let Some(lock) =
            Lock::take(folder).map_err(|error| failure(SweepError::Journal(error)))?
        {
            return Ok(Some(lock));
        }
        let busy = format!("another process is at work in {}", folder.display());
        if !options.resume {
            return Err(Failure::Usage(busy));
        }
        if interrupt::asked() {
            return Ok(None);
        }
        if !told {
            eprintln!("{busy}: waiting for it to end");
            told = true;
        }
        std::thread::sleep(PATIENCE);
    }
}

fn run(
    options: &SweepOptions,
    (sweeping, shard): (&Sweeping, Shard),
    (journal, done): (&Journal, Option<&Records>),
) -> Result<Swept, Failure> {
    let study = &sweeping.study;
    let cells = shard.count(study.cells);
    let before = done.map_or(0, |done| cells - done.missing().count() as u64);
    if before > 0 {
        eprintln!("resumed: {before} of {cells} cells were done");
    }
    let workers = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let quiet = if options.quiet { Quiet::Yes } else { Quiet::No };
    let bar = SweepBar::new((cells, before), study.replications, workers, quiet);
    let swept = sweeping.run((shard, done), journal, workers, &bar);
    bar.clear();
    swept.map_err(failure)
}

fn tell(sweeping: &Sweeping, shard: Shard, swept: &Swept) {
    eprintln!(
        "{} of {} cells run in {:.1} s; of the threads' time {:.1} % simulating, {:.1} % summing up, \
         {:.1} % the sweep's own and idle",
        swept.cells,
        shard.count(sweeping.study.cells),
        swept.wall.as_secs_f64(),
        100.0 * swept.simulating,
        100.0 * swept.summing,
        100.0 * (1.0 - swept.simulating - swept.summing)
    );
}

/// Leaves a page of what is done so far, which says that it is not all.
fn part(folder: &Path, template: Option<&Template>) -> Result<(), Failure> {
    match plimsoll_planner::sweep::so_far(folder).map_err(input)? {
        Some(collected) => write_page(&collected, folder, template),
        None => Ok(()),
    }
}

fn write_page(
    collected: &Collected,
    folder: &Path,
    template: Option<&Template>,
) -> Result<(), Failure> {
    let writing = || format!("writing to {}", folder.display());
    let sheet = collected.page().with_context(writing)?;
    let page = sheet.page(template).map_err(bad_template)?;
    let written = || -> io::Result<()> {
        let out = OutputFolder::create(folder)?;
        for (name, svg) in sheet.charts() {
            out.write(&format!("charts/{name}"), svg.as_bytes())?;
        }
        out.write(PAGE, page.as_bytes())
    };
    Ok(written().with_context(writing)?)
}

fn finish(
    collected: &Collected,
    (folder, template): (&Path, Option<&Template>),
    format: Format,
) -> Result<ExitCode, Failure> {
    let writing = || format!("writing to {}", folder.display());
    write_page(collected, folder, template)?;
    collected.write(folder).with_context(writing)?;
    let mut out = io::stdout().lock();
    let printed = match format {
        Format::Json => copy(&folder.join("sweep.json"), &mut out),
        Format::Csv => copy(&folder.join("cells.csv"), &mut out),
        Format::Human => table(collected, plimsoll_report::Format::Human, &mut out),
        Format::Md => table(collected, plimsoll_report::Format::Md, &mut out),
    };
    match printed.and_then(|()| out.flush()) {
        // Whoever read us has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        other => other?,
    }
    eprintln!("results: {}", folder.join("cells.csv").display());
    eprintln!("report: {}", folder.join(PAGE).display());
    Ok(ExitCode::SUCCESS)
}

fn copy(path: &Path, out: &mut impl io::Write) -> io::Result<()> {
    io::copy(&mut File::open(path)?, out).map(drop)
}

fn table(
    collected: &Collected,
    format: plimsoll_report::Format,
    out: &mut impl io::Write,
) -> io::Result<()> {
    let cells = collected.cells().take(SHOWN_MAX).collect::<io::Result<Vec<_>>>()?;
    let width = match std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()) {
        Some(columns) => columns,
        None if io::stdout().is_terminal() => console::Term::stdout().size().1.into(),
        None => 120,
    };
    let study = (collected.study(), collected.verdicts());
    out.write_all(plimsoll_report::sweep::table(study, &cells, (format, width)).as_bytes())
}

fn failure(error: SweepError) -> Failure {
    match error {
        SweepError::Cell(wrong) => Failure::Input(*wrong),
        // A source breaks only where a trace row is bad: that is input, and says where.
        SweepError::Study(StudyError::Source(error)) => Failure::Located(error.to_string()),
        other => Failure::Broken(other.into()),
    }
}

/// A journal that is there and cannot be read is input.
fn input(error: plimsoll_planner::sweep::JournalError) -> Failure {
    Failure::Usage(format!("{error}; remove {FILE} to begin anew"))
}

fn merge_failure(error: MergeError) -> Failure {
    Failure::Usage(error.to_string())
}
