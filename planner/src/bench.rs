//! Many runs of several scenarios on one set of threads.

use std::sync::atomic::{AtomicBool, Ordering};

use plimsoll_base::Attribution;
use plimsoll_report::{Ledger, Plan};
use plimsoll_scenario::Scenario;
use rayon::prelude::*;

use crate::{Replication, StudyError, Watch, simulate};

/// A scenario with what reports know of it. Who held what is not attributed, as it costs time, but
/// where a page shows it.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub scenario: Scenario,
    pub plan: Plan,
}

impl Cell {
    pub fn new(mut scenario: Scenario, seed: u64) -> Cell {
        scenario.model.plan.attribution = Attribution::Off;
        Cell::attributed(scenario, seed)
    }

    /// The same with attribution, if the scenario says so.
    pub fn attributed(scenario: Scenario, seed: u64) -> Cell {
        let plan = crate::plan(&scenario, seed);
        Cell { scenario, plan }
    }
}

/// One run of a cell.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub cell: &'a Cell,
    pub seed: u64,
    pub replication: u32,
}

/// Runs jobs on its threads.
pub(crate) struct Bench<'a> {
    pool: rayon::ThreadPool,
    watch: &'a dyn Watch,
}

impl<'a> Bench<'a> {
    /// On so many threads; 0 for one a core.
    pub fn new(threads: usize, watch: &'a dyn Watch) -> Result<Bench<'a>, StudyError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        Ok(Bench { pool, watch })
    }

    /// What is left of each job, in their order, whatever the number of threads.
    pub fn run<T: Send>(
        &self,
        jobs: &[Job<'_>],
        reduce: impl Fn(&Job<'_>, &Ledger) -> T + Sync,
    ) -> Result<Vec<T>, StudyError> {
        let stopped = AtomicBool::new(false);
        let one = |job: &Job<'_>| -> Result<T, StudyError> {
            let Job { cell, seed, replication } = *job;
            let run = Replication { scenario: &cell.scenario, seed, number: replication };
            let listeners = (Ledger::new(&cell.plan).without_page(), None);
            let ledger = simulate(run, listeners, &(), (self.watch, &stopped))?;
            Ok(reduce(job, &ledger))
        };
        let results: Vec<Result<T, StudyError>> =
            self.pool.install(|| jobs.par_iter().with_max_len(1).map(one).collect());
        if stopped.load(Ordering::Relaxed) || self.watch.stop() {
            return Err(StudyError::Interrupted);
        }
        results.into_iter().collect()
    }
}
