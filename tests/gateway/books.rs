//! The gateway's books: its decision log, which must replay.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use plimsoll_base::{End, Reason, Refusal, RequestId};
use plimsoll_policy::log::{Ending, Reader, Replay};
use plimsoll_policy::{Action, Input, RequestInfo};

/// What became of the requests of a log.
#[derive(Debug, Default)]
pub struct Books {
    pub files: usize,
    pub inputs: u64,
    /// Decisions; every one of them was made again by a replay.
    pub decisions: u64,
    pub arrived: u64,
    /// Those of them that were tried before.
    pub retried: u64,
    pub dispatched: u64,
    pub rejected: BTreeMap<Refusal, u64>,
    /// Closed before they ran: withdrawn, or waited too long.
    pub withdrawn: u64,
    pub waited_too_long: u64,
    /// By how they ended at a backend.
    pub ended: BTreeMap<End, u64>,
    /// By the slot of the backend.
    pub by_backend: BTreeMap<u32, u64>,
    /// What each request asked for.
    pub infos: BTreeMap<RequestId, RequestInfo>,
    /// Its class, as the first decision on it says.
    pub classes: BTreeMap<RequestId, Option<usize>>,
    /// The order in which they were let go.
    pub order: Vec<RequestId>,
    /// The most that ran at once.
    pub peak: usize,
    waits: BTreeSet<RequestId>,
    runs: BTreeSet<RequestId>,
}

impl Books {
    /// Requests that have not come to an end.
    pub fn held(&self) -> usize {
        self.waits.len() + self.runs.len()
    }
    pub fn ended(&self, end: End) -> u64 {
        self.ended.get(&end).copied().unwrap_or(0)
    }
    pub fn refused(&self) -> u64 {
        self.rejected.values().sum()
    }

    fn input(&mut self, input: &Input) {
        self.inputs += 1;
        match input {
            Input::Arrived(id, info) => {
                assert!(self.waits.insert(*id), "{id:?} arrives twice");
                self.arrived += 1;
                self.retried += u64::from(info.attempt > 0);
                self.infos.insert(*id, *info);
            }
            Input::Ended(id, end, _) => {
                assert!(self.runs.remove(id), "{id:?} ends and does not run");
                *self.ended.entry(*end).or_default() += 1;
            }
            _ => {}
        }
    }

    fn decision(&mut self, decision: &plimsoll_policy::Decision) {
        self.decisions += 1;
        let id = decision.id;
        self.classes.entry(id).or_insert(decision.class.map(|class| class.index()));
        match decision.action {
            Action::Dispatch(..) if decision.reason == Reason::Resumed => {
                assert!(self.runs.contains(&id), "{id:?} is taken over and does not run");
            }
            Action::Dispatch(backend, _) => {
                assert!(self.waits.remove(&id), "{id:?} is let go and does not wait");
                self.runs.insert(id);
                self.peak = self.peak.max(self.runs.len());
                self.dispatched += 1;
                *self.by_backend.entry(backend.slot).or_default() += 1;
                self.order.push(id);
            }
            Action::Reject(refusal, _) => {
                assert!(self.waits.remove(&id), "{id:?} is refused and does not wait");
                *self.rejected.entry(refusal).or_default() += 1;
            }
            Action::Close(end) => {
                assert!(self.waits.remove(&id), "{id:?} is closed and does not wait");
                match end {
                    End::Cancelled => self.withdrawn += 1,
                    _ => self.waited_too_long += 1,
                }
            }
            Action::Preempt(_) | Action::Cancel(_) => {}
        }
    }
}

/// Reads all logs of a folder and replays them.
///
/// # Panics
/// If a log is damaged or cut off, or a decision differs.
pub fn books(folder: &Path) -> Books {
    let files = std::fs::read_dir(folder).expect("there is a log");
    let mut files: Vec<_> = files.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    let mut books = Books { files: files.len(), ..Books::default() };
    for path in &files {
        let bytes = std::fs::read(path).expect("the log can be read");
        let mut reader = Reader::new(&bytes).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let policy = reader.header().policy.clone();
        let mut replay = Replay::new(policy).expect("the policy is valid");
        for record in reader.by_ref() {
            let record = record.unwrap_or_else(|error| panic!("{path:?}: {error}"));
            if let Err(difference) = replay.step(&record) {
                panic!("{path:?}: record {} does not replay: {difference:?}", record.number);
            }
            books.input(&record.input);
            for decision in &record.decisions {
                books.decision(decision);
            }
        }
        assert_eq!(reader.ending(), Some(Ending::Whole), "{path:?}");
    }
    books
}
