//! Sweeps: many cells of one scenario, on all cores, in parts, and again after a stop.
//!
//! [`Sweeping::new`] checks every cell before any runs. [`Sweeping::run`] runs those that the journal
//! lacks; [`merge`] turns the journals of all shards into results. Results are read back from
//! journals even where there is but one, so that one run, a resumed one and shards on other machines
//! give the same bytes. Of a cell that is done, memory holds its place in the journal and no more.

mod collect;
mod journal;
mod shard;
mod work;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use plimsoll_report::sweep::Study;
use plimsoll_scenario::{Cell, Diagnostics, Parameter, Sweep};
use rayon::prelude::*;
use twox_hash::xxhash3_128::Hasher;

pub use collect::{Collected, MergeError, merge, so_far};
pub use journal::{Damage, FILE, Header, Journal, JournalError, Lock, Records};
pub use shard::Shard;

use crate::StudyError;
use work::Desk;

/// A sweep whose cells are all sound.
#[derive(Debug)]
pub struct Sweeping {
    sweep: Sweep,
    /// The combination that each cell is.
    combinations: Vec<u32>,
    /// What is swept.
    pub study: Study,
    began: Instant,
}

/// How a sweep runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepSettings {
    /// In place of the scenario's.
    pub seed: Option<u64>,
    /// In place of what the file says.
    pub replications: Option<u32>,
    /// Threads to use; 0 for one a core.
    pub threads: usize,
}

/// Watches a sweep from outside, from any thread.
pub trait SweepWatch: Sync {
    /// Whether to stop: cells that are not done are given up.
    fn stop(&self) -> bool;
    /// A worker has come so far.
    fn advanced(&self, advance: Advance);
}

/// How far a sweep has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Advance {
    /// Which worker, from 0.
    pub worker: usize,
    /// Of the replication that it runs, from 0 to 1.
    pub part: f64,
    /// Replications done by all workers.
    pub units: u64,
    /// Cells done by all workers.
    pub cells: u64,
}

/// What a run of a sweep came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Swept {
    /// Cells that it ran.
    pub cells: u64,
    /// Whether it was stopped before the last.
    pub stopped: bool,
    /// Since the cells were checked.
    pub wall: Duration,
    /// The part of all threads' time that was spent in the simulator.
    pub simulating: f64,
    /// The part that was spent turning what the simulator left behind into numbers.
    pub summing: f64,
}

/// Why a sweep failed.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// A run failed.
    #[error(transparent)]
    Study(#[from] StudyError),
    /// The journal could not be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A cell is not sound.
    #[error("{0}")]
    Cell(Box<Diagnostics>),
    /// A trace cannot be read.
    #[error("the trace {}: {error}", path.display())]
    Trace {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl Sweeping {
    /// Builds every cell once, in parallel, and leaves out those that equal an earlier one.
    ///
    /// # Errors
    /// Whatever is wrong with the first cell that is not sound; a trace that cannot be read.
    pub fn new(sweep: Sweep, settings: SweepSettings) -> Result<Sweeping, SweepError> {
        let began = Instant::now();
        let pool = pool(settings.threads)?;
        let (ids, traces) = pool.install(|| ids(&sweep))?;
        let replications = settings.replications.or(sweep.replications()).unwrap_or(1);
        let mut seen = BTreeSet::new();
        let first = |(combination, id): (u32, &u64)| seen.insert(*id).then_some(combination);
        let combinations: Vec<u32> = (0..).zip(&ids).filter_map(first).collect();
        let kept = combinations.iter().map(|combination| ids[*combination as usize]);
        let study = Study {
            plimsoll: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: sweep.name().to_owned(),
            description: sweep.description().to_owned(),
            hash: sweep.hash(),
            study: digest((kept, &traces), settings.seed, replications)?,
            seed: settings.seed,
            replications,
            parameters: sweep.paths(),
            cells: combinations.len() as u64,
            equal_left_out: (ids.len() - combinations.len()) as u64,
        };
        Ok(Sweeping { sweep, combinations, study, began })
    }

    /// What a cell sets.
    pub fn parameters(&self, cell: u64) -> Vec<Parameter> {
        self.sweep.parameters(self.combinations[cell as usize].into())
    }

    /// A cell by its number.
    ///
    /// # Errors
    /// A trace that was there when the cells were checked is there no more.
    pub fn cell(&self, cell: u64) -> Result<Cell, Box<Diagnostics>> {
        self.sweep.cell(self.combinations[cell as usize].into()).map_err(Box::new)
    }

    /// Runs the cells of a shard that `done`, what its journal held, does not have.
    ///
    /// # Errors
    /// The failure of the earliest cell that failed: a bad row of a trace, a journal that cannot be
    /// written. What is done stays in the journal.
    pub fn run(
        &self,
        (shard, done): (Shard, Option<&Records>),
        journal: &Journal,
        threads: usize,
        watch: &dyn SweepWatch,
    ) -> Result<Swept, SweepError> {
        let pool = pool(threads)?;
        let is_done = |cell: u64| {
            done.is_some_and(|done| done.spots.binary_search_by_key(&cell, |s| s.cell).is_ok())
        };
        let todo = (0..self.study.cells).filter(|cell| shard.holds(*cell) && !is_done(*cell));
        let desk = Desk::new(self, todo, journal, watch);
        let synced = journal.synced(|| {
            pool.broadcast(|context| desk.work(context.index()));
        });
        let done = desk.done()?;
        synced?;
        let wall = self.began.elapsed();
        let all = wall.as_secs_f64() * pool.current_num_threads() as f64;
        let part = |time: Duration| time.as_secs_f64() / all.max(f64::MIN_POSITIVE);
        let (simulating, summing) = (part(done.simulating), part(done.summing));
        Ok(Swept { cells: done.cells, stopped: done.stopped, wall, simulating, summing })
    }
}

fn pool(threads: usize) -> Result<rayon::ThreadPool, SweepError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    Ok(pool.map_err(StudyError::Threads)?)
}

/// The id of every combination, and the traces that they replay.
fn ids(sweep: &Sweep) -> Result<(Vec<u64>, BTreeSet<PathBuf>), SweepError> {
    let first_bad = AtomicU64::new(u64::MAX);
    let traces = Mutex::new(BTreeSet::new());
    let id = |combination: u64| {
        // What comes after a mistake need not be looked at; what comes before it must be.
        if combination > first_bad.load(Ordering::Relaxed) {
            return 0;
        }
        let Ok(cell) = sweep.cell(combination) else {
            first_bad.fetch_min(combination, Ordering::Relaxed);
            return 0;
        };
        for trace in cell.scenario.traces.iter().flatten() {
            let mut traces = traces.lock().expect("no thread panics while it holds the lock");
            if !traces.contains(&trace.path) {
                traces.insert(trace.path.clone());
            }
        }
        u64::from_str_radix(&cell.scenario.hash, 16).expect("a hash is 16 hexadecimal digits")
    };
    let ids: Vec<u64> = (0..sweep.combinations()).into_par_iter().map(id).collect();
    match first_bad.into_inner() {
        u64::MAX => {
            Ok((ids, traces.into_inner().expect("no thread panics while it holds the lock")))
        }
        bad => Err(SweepError::Cell(Box::new(
            sweep.cell(bad).expect_err("the same cell is wrong the second time"),
        ))),
    }
}

/// What two runs have in common whose results may stand side by side.
fn digest(
    (ids, traces): (impl Iterator<Item = u64>, &BTreeSet<PathBuf>),
    seed: Option<u64>,
    replications: u32,
) -> Result<String, SweepError> {
    let mut hasher = Hasher::new();
    hasher.write(format!("{seed:?} {replications}").as_bytes());
    ids.for_each(|id| hasher.write(&id.to_le_bytes()));
    for path in traces {
        let trace = |error| SweepError::Trace { path: path.clone(), error };
        let mut content = std::fs::File::open(path).map_err(trace)?;
        let mut portion = vec![0; 1 << 16];
        loop {
            match content.read(&mut portion).map_err(trace)? {
                0 => break,
                length => hasher.write(&portion[..length]),
            }
        }
    }
    Ok(format!("{:032x}", hasher.finish_128()))
}
