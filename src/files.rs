//! The files of a run: rows while it runs, the rest when it is over.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use plimsoll_base::{Fact, Observer, RequestRecord, Time};
use plimsoll_report::{
    Batches, Ledger, OutputFolder, Plan, RequestRows, Summary, Template, TemplateError,
    TraceRecorder,
};

use crate::Failure;
use crate::arguments::{RunOptions, Window};
use crate::run::bad_template;

/// The rows of one replication.
pub type Rows = RequestRows<BufWriter<File>>;

/// What listens to one replication.
pub struct Listener {
    /// The fold that every report is made of.
    pub ledger: Ledger,
    /// The rows of requests.csv, in a file without a name.
    pub rows: Option<Rows>,
    /// A stretch of the first replication for a trace viewer, where somebody asked.
    pub trace: Option<TraceRecorder>,
    /// For what is known of one long run, where somebody asked.
    pub batches: Option<Batches>,
}

/// Makes the listener of each replication.
pub struct Maker<'a> {
    plan: &'a Plan,
    wants_rows: bool,
    batched: bool,
    window: Option<Window>,
    /// Opened before anything runs, so that a full disk shows at once.
    opened: Mutex<Option<Rows>>,
    broken: Mutex<Option<io::Error>>,
}

impl<'a> Maker<'a> {
    /// For the files that the options ask for.
    pub fn new(options: &RunOptions, plan: &'a Plan, batched: bool) -> io::Result<Maker<'a>> {
        let wants_rows = !options.no_files && !options.no_requests;
        let opened = wants_rows.then(|| rows(plan, 0)).transpose()?;
        let (opened, broken) = (Mutex::new(opened), Mutex::new(None));
        let window = options.trace;
        Ok(Maker { plan, wants_rows, batched, window, opened, broken })
    }

    /// The listener of a replication; one without rows if their file cannot be opened.
    pub fn listener(&self, replication: u32) -> Listener {
        let rows = match replication {
            0 => self.opened.lock().expect("no thread panics while it holds the lock").take(),
            later => self.wants_rows.then(|| rows(self.plan, later)).and_then(|opened| {
                let keep = |error| {
                    *self.broken.lock().expect("no thread panics while it holds the lock") =
                        Some(error);
                };
                opened.map_err(keep).ok()
            }),
        };
        let batches = self.batched.then(|| Batches::new(self.plan.classes.len()));
        let traced = self.window.filter(|_| replication == 0);
        let trace = traced.map(|Window(from, to)| TraceRecorder::new(&self.plan.names, (from, to)));
        Listener { ledger: Ledger::new(self.plan), rows, trace, batches }
    }

    /// Why a file could not be opened, if one could not.
    pub fn broken(&self) -> Option<io::Error> {
        self.broken.lock().expect("no thread panics while it holds the lock").take()
    }
}

impl Observer for Listener {
    // Inlined, each place that tells a fact keeps only what that fact needs.
    #[inline(always)]
    fn observe(&mut self, now: Time, fact: &Fact) {
        self.ledger.observe(now, fact);
        if let Some(rows) = &mut self.rows {
            rows.observe(now, fact);
        }
        if let Some(trace) = &mut self.trace {
            trace.observe(now, fact);
        }
        if let Some(batches) = &mut self.batches {
            batches.observe(now, fact);
        }
    }
    #[inline(always)]
    fn close(&mut self, now: Time, record: &RequestRecord) {
        self.ledger.close(now, record);
        if let Some(rows) = &mut self.rows {
            rows.close(now, record);
        }
        if let Some(trace) = &mut self.trace {
            trace.close(now, record);
        }
        if let Some(batches) = &mut self.batches {
            batches.close(now, record);
        }
    }
}

/// Rows of one replication, in a file that vanishes when it is dropped.
pub fn rows(plan: &Plan, replication: u32) -> io::Result<Rows> {
    let file = tempfile::tempfile()?;
    Ok(RequestRows::new(BufWriter::with_capacity(1 << 16, file), plan, replication))
}

/// Everything a run writes.
pub struct Results<'a> {
    /// What was run.
    pub plan: &'a Plan,
    /// Its numbers.
    pub summary: &'a Summary,
    /// One a replication.
    pub ledgers: &'a [Ledger],
    /// A stretch for a trace viewer.
    pub trace: Option<TraceRecorder>,
    /// A template of the user's for the page.
    pub template: Option<&'a Template>,
    /// Whether the tables are written as Parquet too.
    pub parquet: bool,
}

/// Why files could not be written.
pub fn failure(error: anyhow::Error, folder: &Path) -> Failure {
    match error.downcast::<TemplateError>() {
        Ok(bad) => bad_template(bad),
        Err(other) => Failure::Broken(other.context(format!("writing to {}", folder.display()))),
    }
}

/// Writes the report, and the rows of all replications in order. Returns where the page is.
pub fn write(folder: &Path, results: Results<'_>, rows: Vec<Rows>) -> anyhow::Result<PathBuf> {
    let Results { plan, summary, ledgers, trace, template, parquet } = results;
    let out = OutputFolder::create(folder)?;
    let page = plimsoll_report::page(plan, summary, ledgers, template)?;
    if !rows.is_empty() {
        let mut table = out.begin("requests.csv")?;
        for part in rows {
            let mut file = part.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.rewind()?;
            io::copy(&mut file, &mut table)?;
        }
        table.keep()?;
        if parquet {
            write_parquet(plan, &out, "requests")?;
        }
    }
    let mut series = out.begin("timeseries.csv")?;
    plimsoll_report::write_timeseries(plan, ledgers, &mut series)?;
    series.flush()?;
    series.keep()?;
    if parquet {
        write_parquet(plan, &out, "timeseries")?;
    }
    let mut latency = out.begin("latency.hgrm")?;
    plimsoll_report::write_latency(ledgers, &mut latency)?;
    latency.keep()?;
    if let Some(trace) = trace {
        let mut file = out.begin("trace.json")?;
        trace.write(&mut file)?;
        file.keep()?;
    }
    for (name, svg) in plimsoll_report::charts(plan, ledgers, summary) {
        out.write(&format!("charts/{name}"), svg.as_bytes())?;
    }
    out.write("summary.json", summary.to_json().as_bytes())?;
    out.write("report.html", page.as_bytes())?;
    Ok(out.path().join("report.html"))
}

/// Writes a table of the folder as Parquet beside its CSV.
#[cfg(feature = "parquet")]
fn write_parquet(plan: &Plan, out: &OutputFolder, table: &str) -> io::Result<()> {
    let rows = File::open(out.path().join(format!("{table}.csv")))?;
    let mut file = out.begin(&format!("{table}.parquet"))?;
    plimsoll_report::write_parquet(plan, rows, &mut file)?;
    file.keep()
}

/// `run` has refused the option before anything ran.
#[cfg(not(feature = "parquet"))]
fn write_parquet(_: &Plan, _: &OutputFolder, _: &str) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}
