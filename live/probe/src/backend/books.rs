//! Who came, and how it ended: for tests that compare these books with a gateway's.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use twox_hash::XxHash3_128;

/// The books: `accepted = finished + cancelled + failed + running`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests for inference that were understood, or struck by a fault before they were read.
    pub accepted: u64,
    /// Answered in full.
    pub finished: u64,
    /// The client left before.
    pub cancelled: u64,
    /// Struck by a fault, whatever the client made of it.
    pub failed: u64,
    /// Not over yet.
    pub running: u64,
    /// Refused as wrong (400 and the like); not accepted.
    pub refused: u64,
    /// Connections that the fault `refuse` closed.
    pub connections_refused: u64,
    /// Requests whose `x-request-id` had been seen before.
    pub doubled: u64,
    /// The first such ids.
    pub doubled_ids: Vec<String>,
    /// Whether there were more ids than are remembered: then `doubled` is a lower bound.
    pub ids_forgotten: bool,
}

/// Ids that are remembered.
const IDS_MAX: usize = 1 << 22;
/// Ids that are shown, and how much of each.
const IDS_SHOWN: usize = 16;
const ID_SHOWN: usize = 128;

/// The books of a backend, shared by its connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Books(Arc<Mutex<Page>>);

#[derive(Debug, Default)]
struct Page {
    counts: Counts,
    /// Hashes of 128 bits: of four million ids two are alike with a probability of 10⁻²⁶.
    ids: HashSet<u128>,
}

impl Books {
    pub fn counts(&self) -> Counts {
        self.page().counts.clone()
    }

    /// A request is accepted; returns its number, from 0, and its entry.
    pub fn open(&self, id: Option<&[u8]>) -> (u64, Entry) {
        let mut page = self.page();
        if let Some(id) = id {
            page.see(id);
        }
        let number = page.counts.accepted;
        page.counts.accepted += 1;
        page.counts.running += 1;
        (number, Entry { books: self.clone(), fate: Fate::Cancelled })
    }

    pub fn count_refused(&self) {
        self.page().counts.refused += 1;
    }

    pub fn count_connection_refused(&self) {
        self.page().counts.connections_refused += 1;
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        // Counters are whole whatever happened to whoever held them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    fn see(&mut self, id: &[u8]) {
        let hash = XxHash3_128::oneshot(id);
        let counts = &mut self.counts;
        if self.ids.contains(&hash) {
            counts.doubled += 1;
            if counts.doubled_ids.len() < IDS_SHOWN {
                let shown = &id[..id.len().min(ID_SHOWN)];
                counts.doubled_ids.push(String::from_utf8_lossy(shown).into_owned());
            }
        } else if self.ids.len() < IDS_MAX {
            self.ids.insert(hash);
        } else {
            counts.ids_forgotten = true;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Cancelled,
    Finished,
    Failed,
}

/// A request's line in the books. It ends exactly once, when this is dropped: as cancelled unless
/// something else was said.
#[derive(Debug)]
pub(super) struct Entry {
    books: Books,
    fate: Fate,
}

impl Entry {
    /// A fault strikes: nothing that follows makes it good.
    pub fn fail(&mut self) {
        self.fate = Fate::Failed;
    }
    /// Everything has been said.
    pub fn finish(&mut self) {
        if self.fate == Fate::Cancelled {
            self.fate = Fate::Finished;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut page = self.books.page();
        page.counts.running -= 1;
        match self.fate {
            Fate::Cancelled => page.counts.cancelled += 1,
            Fate::Finished => page.counts.finished += 1,
            Fate::Failed => page.counts.failed += 1,
        }
    }
}
