//! Studies: running a scenario more than once and putting the runs together.
//!
//! Replications run in parallel, one thread each; their results come back in order, so that any
//! number of threads gives the same bytes.

mod bench;
mod capacity;
mod compare;
mod counterfactual;
mod log;
mod other;
mod recorded;
mod report;
pub mod select;
pub mod sweep;

pub use capacity::{
    Build, CapacityError, Curves, Goal, Growth, Hardware, HardwareOption, PoolRange, Question,
    capacity,
};
pub use compare::{Candidate, CompareSettings, compare};
pub use counterfactual::{
    ClassOutcomes, Counterfactual, CounterfactualError, Outcomes, counterfactual,
};
pub use log::{LogKeeper, log_header};
pub use other::{ClassesDiffer, OtherPolicy, shadow};
pub use recorded::{Checked, Folded, LogReportError, Survey, fold};
pub use report::plan;

use std::sync::atomic::{AtomicBool, Ordering};

use plimsoll_base::{Observer, Time};
use plimsoll_policy::log::Writer;
use plimsoll_scenario::Scenario;
use plimsoll_sim::{Run, StartError};
use rayon::prelude::*;

/// How often, with which seed, on how many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replications {
    /// How many, at least 1.
    pub count: u32,
    /// Keys every random stream, together with the replication's number.
    pub seed: u64,
    /// Threads to use; 0 for one a core.
    pub threads: usize,
}

/// Watches a study from outside, from any thread.
pub trait Watch: Sync {
    /// Whether to end the runs where they stand.
    fn stop(&self) -> bool;
    /// A replication has come so far.
    fn progress(&self, progress: Progress);
}

/// How far a replication has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which, from 0.
    pub replication: u32,
    /// Simulated time.
    pub now: Time,
    /// Requests offered so far.
    pub offered: u64,
    /// Whether it is over.
    pub done: bool,
}

/// Never stops and tells nobody.
impl Watch for () {
    fn stop(&self) -> bool {
        false
    }
    fn progress(&self, _: Progress) {}
}

/// What the replications left behind.
#[derive(Debug)]
pub struct Replicated<O> {
    /// One observer a replication, in order.
    pub observers: Vec<O>,
    /// Whether the runs were stopped before their end.
    pub partial: bool,
}

/// Why a study failed.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// The policy contradicts itself.
    #[error("{0}")]
    Policy(#[from] plimsoll_policy::ConfigError),
    /// A source broke: a trace file or a row of it is bad. The message says where.
    #[error("{0}")]
    Source(plimsoll_sim::workload::SourceError),
    /// A decision log could not be kept.
    #[error("the decision log could not be written: {0}")]
    Log(std::io::Error),
    /// The watch had the runs stopped, and half of a study says nothing.
    #[error("interrupted")]
    Interrupted,
    /// The threads could not be started.
    #[error("the threads could not be started: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// Events between two looks at the watch.
const PORTION: u64 = 1 << 16;

/// Runs every replication of a scenario; `observer` makes the listener of each.
///
/// # Errors
/// The first error in order of the replications, if any failed.
pub fn replicate<O, F>(
    scenario: &Scenario,
    replications: Replications,
    observer: F,
    watch: &dyn Watch,
) -> Result<Replicated<O>, StudyError>
where
    O: Observer + Send,
    F: Fn(u32) -> O + Sync,
{
    replicate_logged(scenario, replications, (observer, &()), watch)
}

/// Like [`replicate`]; the decision logs go to their keeper.
///
/// # Errors
/// The first error in order of the replications, if any failed.
pub fn replicate_logged<O, F>(
    scenario: &Scenario,
    replications: Replications,
    (observer, keeper): (F, &dyn LogKeeper),
    watch: &dyn Watch,
) -> Result<Replicated<O>, StudyError>
where
    O: Observer + Send,
    F: Fn(u32) -> O + Sync,
{
    let mut made = None;
    let mut round = |replicated| {
        made = Some(replicated);
        0
    };
    let wanted = replications.count;
    let rounds = Rounds { first: wanted, next: &mut round };
    replicate_in_rounds(scenario, replications, (observer, keeper), (rounds, watch))?;
    Ok(made.expect("the first round is always run"))
}

/// How many replications to run, found out on the way.
pub struct Rounds<'a, O> {
    /// In the first round, at least 1.
    pub first: u32,
    /// Takes the observers of each round, and says how many replications there are to be in all; no
    /// more than there are ends it. What it says must follow from what it is given alone.
    pub next: &'a mut dyn FnMut(Replicated<O>) -> u32,
}

/// Runs replications in rounds until they are enough. The `count` of the replications is not read.
///
/// # Errors
/// The first error in order of the replications, if any failed.
pub fn replicate_in_rounds<O, F>(
    scenario: &Scenario,
    replications: Replications,
    (observer, keeper): (F, &dyn LogKeeper),
    (rounds, watch): (Rounds<'_, O>, &dyn Watch),
) -> Result<(), StudyError>
where
    O: Observer + Send,
    F: Fn(u32) -> O + Sync,
{
    let stopped = AtomicBool::new(false);
    let one = |replication: u32| -> Result<O, StudyError> {
        let log = keeper.begin(replication).map(Box::new);
        let listeners = (observer(replication), log);
        let run = Replication { scenario, seed: replications.seed, number: replication };
        simulate(run, listeners, keeper, (watch, &stopped))
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(replications.threads).build()?;
    let (mut done, mut wanted) = (0, rounds.first);
    while wanted > done {
        let results: Vec<Result<O, StudyError>> =
            pool.install(|| (done..wanted).into_par_iter().map(one).collect());
        let observers = results.into_iter().collect::<Result<Vec<O>, StudyError>>()?;
        done = wanted;
        let partial = stopped.load(Ordering::Relaxed);
        let more = (rounds.next)(Replicated { observers, partial });
        wanted = if partial { done } else { more };
    }
    Ok(())
}

/// One run of a scenario.
#[derive(Clone, Copy)]
pub(crate) struct Replication<'a> {
    pub scenario: &'a Scenario,
    pub seed: u64,
    pub number: u32,
}

/// Runs it to its end, or until the watch has it stopped.
pub(crate) fn simulate<O: Observer>(
    Replication { scenario, seed, number }: Replication<'_>,
    listeners: (O, Option<Box<Writer>>),
    keeper: &dyn LogKeeper,
    (watch, stopped): (&dyn Watch, &AtomicBool),
) -> Result<O, StudyError> {
    let sources = scenario.sources(seed, number).map_err(StudyError::Source)?;
    let mut run = Run::start_logged(&scenario.model, (sources, (seed, number)), listeners)
        .map_err(study_error)?;
    loop {
        let at = run.advance(PORTION);
        if let Some(log) = run.writer() {
            keeper.keep(number, log.bytes()).map_err(StudyError::Log)?;
            log.bytes().clear();
        }
        let (now, offered, done) = (at.now, at.offered, at.done);
        watch.progress(Progress { replication: number, now, offered, done });
        if done {
            break;
        }
        if watch.stop() {
            stopped.store(true, Ordering::Relaxed);
            break;
        }
    }
    if let Some(log) = run.take_writer() {
        keeper.keep(number, &log.finish()).map_err(StudyError::Log)?;
    }
    run.finish().map_err(StudyError::Source)
}

fn study_error(error: StartError) -> StudyError {
    match error {
        StartError::Policy(error) => StudyError::Policy(error),
        StartError::Source(error) => StudyError::Source(error),
    }
}
