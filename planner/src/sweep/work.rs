//! The workers of a sweep. The unit of work is one replication of one cell; units are handed out in
//! order, so that no more cells are open than there are workers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use plimsoll_base::Span;
use plimsoll_report::sweep::CellSummary;
use plimsoll_report::{Ledger, Plan};
use plimsoll_scenario::{Cell, Diagnostics, Scenario};

use super::{Advance, Journal, SweepError, SweepWatch, Sweeping};
use crate::{Progress, Replication, Watch, simulate};

/// A cell of which not all replications are done.
struct Open {
    number: u64,
    /// Built by whoever runs its first replication.
    built: OnceLock<Result<Built, Box<Diagnostics>>>,
    /// What the replications left behind, in their order.
    ledgers: Mutex<Vec<Option<Ledger>>>,
}

struct Built {
    scenario: Scenario,
    parameters: BTreeMap<String, serde_json::Value>,
    plan: Plan,
}

/// What there is to do, and who does it.
pub(super) struct Desk<'a> {
    sweeping: &'a Sweeping,
    journal: &'a Journal,
    watch: &'a dyn SweepWatch,
    hand: Mutex<Hand<'a>>,
    stopped: AtomicBool,
    units: AtomicU64,
    cells: AtomicU64,
    simulating: AtomicU64,
    summing: AtomicU64,
    failed: Mutex<Option<(u64, SweepError)>>,
}

/// What is handed out next.
struct Hand<'a> {
    todo: Box<dyn Iterator<Item = u64> + Send + 'a>,
    open: Option<(Arc<Open>, u32)>,
}

/// What the workers did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub cells: u64,
    pub simulating: Duration,
    pub summing: Duration,
    pub stopped: bool,
}

impl<'a> Desk<'a> {
    /// For the cells that are left to do, in order.
    pub fn new(
        sweeping: &'a Sweeping,
        todo: impl Iterator<Item = u64> + Send + 'a,
        journal: &'a Journal,
        watch: &'a dyn SweepWatch,
    ) -> Desk<'a> {
        Desk {
            sweeping,
            journal,
            watch,
            hand: Mutex::new(Hand { todo: Box::new(todo), open: None }),
            stopped: AtomicBool::new(false),
            units: AtomicU64::new(0),
            cells: AtomicU64::new(0),
            simulating: AtomicU64::new(0),
            summing: AtomicU64::new(0),
            failed: Mutex::new(None),
        }
    }

    /// Works until nothing is left or somebody says stop.
    pub fn work(&self, worker: usize) {
        while !self.stops()
            && let Some((open, replication)) = self.take()
        {
            // Small runs end before they look; something is left to do, so it is a stop.
            if self.watch.stop() {
                self.stopped.store(true, Ordering::Relaxed);
                return;
            }
            if let Err(error) = self.unit(worker, &open, replication) {
                let mut failed = self.failed.lock().expect("no thread panics while it holds it");
                if failed.as_ref().is_none_or(|(earlier, _)| open.number < *earlier) {
                    *failed = Some((open.number, error));
                }
                self.stopped.store(true, Ordering::Relaxed);
            }
        }
    }

    /// What was done, or why it could not be: the failure of the earliest cell that failed.
    pub fn done(self) -> Result<Done, SweepError> {
        match self.failed.into_inner().expect("no thread panics while it holds the lock") {
            Some((_, error)) => Err(error),
            None => Ok(Done {
                cells: self.cells.into_inner(),
                simulating: Duration::from_nanos(self.simulating.into_inner()),
                summing: Duration::from_nanos(self.summing.into_inner()),
                stopped: self.stopped.into_inner(),
            }),
        }
    }

    fn stops(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn take(&self) -> Option<(Arc<Open>, u32)> {
        let mut hand = self.hand.lock().expect("no thread panics while it holds the lock");
        let replications = self.sweeping.study.replications;
        let (open, replication) = match hand.open.take() {
            Some(next) => next,
            None => {
                let number = hand.todo.next()?;
                let ledgers = (0..replications).map(|_| None).collect();
                let open = Open { number, built: OnceLock::new(), ledgers: Mutex::new(ledgers) };
                (Arc::new(open), 0)
            }
        };
        if replication + 1 < replications {
            hand.open = Some((open.clone(), replication + 1));
        }
        Some((open, replication))
    }

    /// Runs one replication; whoever runs the last one of a cell writes its result down.
    fn unit(&self, worker: usize, open: &Open, replication: u32) -> Result<(), SweepError> {
        let built = match open.built.get_or_init(|| self.build(open.number)) {
            Ok(built) => built,
            Err(wrong) => return Err(SweepError::Cell(wrong.clone())),
        };
        let began = Instant::now();
        let watch = UnitWatch { desk: self, worker, duration: built.scenario.model.plan.duration };
        let run =
            Replication { scenario: &built.scenario, seed: built.plan.seed, number: replication };
        let ledger = Ledger::new(&built.plan).without_page();
        let ledger = simulate(run, (ledger, None), &(), (&watch, &self.stopped))?;
        self.simulating.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        if self.stops() {
            return Ok(());
        }
        let whole = {
            let mut ledgers =
                open.ledgers.lock().expect("no thread panics while it holds the lock");
            ledgers[replication as usize] = Some(ledger);
            let whole = ledgers.iter().all(Option::is_some);
            whole.then(|| ledgers.drain(..).flatten().collect::<Vec<Ledger>>())
        };
        if let Some(ledgers) = whole {
            let began = Instant::now();
            let summary = plimsoll_report::summarise(&built.plan, &ledgers, false);
            drop(ledgers);
            self.summing.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
            let summary = CellSummary::new(open.number, built.parameters.clone(), summary);
            let object = serde_json::to_vec(&summary)
                .expect("a summary holds only strings, finite numbers and string keys");
            self.journal.append(&object)?;
            self.cells.fetch_add(1, Ordering::Relaxed);
        }
        let units = self.units.fetch_add(1, Ordering::Relaxed) + 1;
        let cells = self.cells.load(Ordering::Relaxed);
        self.watch.advanced(Advance { worker, part: 0.0, units, cells });
        Ok(())
    }

    /// Every cell was built once before any ran; a trace may have gone since.
    fn build(&self, number: u64) -> Result<Built, Box<Diagnostics>> {
        let Cell { parameters, scenario } = self.sweeping.cell(number)?;
        let plan = crate::plan(&scenario, self.sweeping.study.seed.unwrap_or(scenario.seed));
        let parameters = parameters.into_iter().map(|set| (set.path, set.value)).collect();
        Ok(Built { scenario, parameters, plan })
    }
}

/// Watches one replication.
struct UnitWatch<'a, 'd> {
    desk: &'a Desk<'d>,
    worker: usize,
    duration: Option<Span>,
}

impl Watch for UnitWatch<'_, '_> {
    fn stop(&self) -> bool {
        self.desk.stops() || self.desk.watch.stop()
    }
    fn progress(&self, progress: Progress) {
        let whole = self.duration.map_or(0.0, Span::secs_f64);
        let now = progress.now.nanos() as f64 / 1e9;
        let part = if whole > 0.0 { (now / whole).min(1.0) } else { 0.0 };
        let units = self.desk.units.load(Ordering::Relaxed);
        let cells = self.desk.cells.load(Ordering::Relaxed);
        self.desk.watch.advanced(Advance { worker: self.worker, part, units, cells });
    }
}
