//! The decision log on disk: files of a bounded size, of which the latest are kept. A thread of its
//! own writes them, so that a slow disk holds up no decision.
//!
//! Each file replays by itself: it begins with the policy, the backends, and what was held when it
//! began ([`Allocator::handover`](plimsoll_policy::Allocator::handover)). The allocator that goes
//! on is one that was told just that, so accounts and rates start afresh with each file, as they do
//! when the policy is replaced. A file that is being written lacks its end, and so does the last
//! one of a process that was killed; both can be read up to a second before.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use plimsoll_policy::log::{Header, Writer};

use crate::inside::LogState;

/// Pieces that may wait for the disk.
const PIECES_MAX: usize = 64;
/// Bytes that may wait beside them.
const BACKLOG_MAX: usize = 64 << 20;

/// Where decisions are written down, and how much is kept.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// The folder; made if it is not there.
    pub folder: PathBuf,
    /// A file that has more begins the next.
    pub file_bytes_max: u64,
    /// So many files are kept; at least 1.
    pub files_max: usize,
}

/// What the thread is told.
enum Order {
    Bytes(Vec<u8>),
    Next(File),
}

/// A log that is being written.
pub(crate) struct Log {
    settings: LogSettings,
    pub writer: Writer,
    /// What the thread has no room for yet, in order.
    behind: VecDeque<Order>,
    /// `None` once it is broken.
    to: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    /// What broke it.
    error: Arc<Mutex<Option<String>>>,
    number: u64,
    file_bytes: u64,
    all_bytes: u64,
}

impl Log {
    /// Opens the first file.
    pub fn begin(settings: LogSettings, header: &Header) -> io::Result<Log> {
        std::fs::create_dir_all(&settings.folder)?;
        let number = files(&settings.folder)?.last().map_or(1, |(number, _)| number + 1);
        let file = create(&settings.folder, number)?;
        let (to, from) = sync_channel(PIECES_MAX);
        let error: Arc<Mutex<Option<String>>> = Arc::default();
        let (seen, kept) = (Arc::clone(&error), settings.clone());
        let write = move || {
            if let Err(error) = write_all(&from, file, &kept) {
                tracing::error!(%error, "the decision log ends here");
                *seen.lock().expect("nobody panics while it is held") = Some(error.to_string());
            }
        };
        let thread = std::thread::Builder::new().name("decision-log".into()).spawn(write)?;
        Ok(Log {
            settings,
            writer: Writer::new(header),
            behind: VecDeque::new(),
            to: Some(to),
            thread: Some(thread),
            error,
            number,
            file_bytes: 0,
            all_bytes: 0,
        })
    }

    /// Carries whole blocks to the disk. Whether the file has become too large.
    pub fn carry(&mut self) -> bool {
        if self.to.is_none() {
            self.writer.bytes().clear();
            return false;
        }
        let bytes = self.writer.bytes();
        // Where the disk is behind it waits for all of them in one piece.
        if self.behind.is_empty() && !bytes.is_empty() {
            let bytes = std::mem::take(bytes);
            self.file_bytes += bytes.len() as u64;
            self.all_bytes += bytes.len() as u64;
            self.behind.push_back(Order::Bytes(bytes));
        }
        self.hand_over();
        if self.writer.bytes().len() > BACKLOG_MAX {
            self.break_off("the disk is too slow for it");
        }
        self.file_bytes >= self.settings.file_bytes_max && self.behind.is_empty()
    }

    /// Gives the thread as much as it has room for.
    fn hand_over(&mut self) {
        while let (Some(to), Some(order)) = (&self.to, self.behind.pop_front()) {
            match to.try_send(order) {
                Ok(()) => {}
                Err(TrySendError::Full(order)) => return self.behind.push_front(order),
                Err(TrySendError::Disconnected(_)) => self.to = None,
            }
        }
    }

    /// Ends this file and begins the next one.
    pub fn rotate(&mut self, header: &Header) {
        let before = std::mem::replace(&mut self.writer, Writer::new(header));
        if self.to.is_none() {
            return;
        }
        match self.next_file() {
            Ok(next) => {
                let last = before.finish();
                self.all_bytes += last.len() as u64;
                self.behind.extend([Order::Bytes(last), next]);
                (self.number, self.file_bytes) = (self.number + 1, 0);
                self.hand_over();
            }
            Err(error) => self.break_off(&error.to_string()),
        }
    }

    fn next_file(&self) -> io::Result<Order> {
        Ok(Order::Next(create(&self.settings.folder, self.number + 1)?))
    }

    fn break_off(&mut self, why: &str) {
        tracing::error!(why, "the decision log ends here");
        self.to = None;
        self.behind.clear();
        *self.error.lock().expect("nobody panics while it is held") = Some(why.to_owned());
    }

    /// What becomes of it.
    pub fn state(&self) -> LogState {
        match &*self.error.lock().expect("nobody panics while it is held") {
            Some(error) => LogState::Broken(error.clone()),
            None => LogState::Written(self.all_bytes),
        }
    }

    /// Writes everything down and ends the file.
    pub fn finish(mut self) {
        if let Some(to) = self.to.take() {
            self.behind.push_back(Order::Bytes(self.writer.finish()));
            // A thread that has ended has said why.
            let _ = self.behind.into_iter().try_for_each(|order| to.send(order));
        }
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the thread of the log does not panic");
        }
    }
}

fn write_all(from: &Receiver<Order>, mut file: File, settings: &LogSettings) -> io::Result<()> {
    for order in from {
        match order {
            Order::Bytes(bytes) => file.write_all(&bytes)?,
            Order::Next(next) => {
                file.sync_all()?;
                file = next;
                prune(settings)?;
            }
        }
    }
    file.sync_all()
}

/// Removes the oldest files.
fn prune(settings: &LogSettings) -> io::Result<()> {
    let mut old = files(&settings.folder)?;
    old.truncate(old.len().saturating_sub(settings.files_max.max(1)));
    old.iter().try_for_each(|(_, path)| std::fs::remove_file(path))
}

fn create(folder: &Path, number: u64) -> io::Result<File> {
    File::create_new(folder.join(format!("decisions-{number:06}.plog")))
}

/// The files of a folder, oldest first.
fn files(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("decisions-")?.strip_suffix(".plog")?.parse().ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    found.sort();
    Ok(found)
}
