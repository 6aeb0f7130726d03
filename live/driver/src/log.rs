//! The decision log on disk: files of a bounded size, of which the latest are kept. A thread of its
//! own writes them, so that a slow disk holds up no decision.
//!
//! Each file replays by itself: it begins with the policy, the backends, and what was held when it
//! began ([`Allocator::handover`](plimsoll_policy::Allocator::handover)). The allocator that goes
//! on is one that was told just that, so accounts and rates start afresh with each file, as they do
//! when the policy is replaced. A file that is being written lacks its end, and so does the last
//! one of a process that was killed; both can be read up to a second before.

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
        if self.writer.bytes().is_empty() {
            return false;
        }
        let Some(to) = &self.to else {
            self.writer.bytes().clear();
            return false;
        };
        let bytes = std::mem::take(self.writer.bytes());
        let count = bytes.len() as u64;
        match to.try_send(Order::Bytes(bytes)) {
            Ok(()) => {
                self.file_bytes += count;
                self.all_bytes += count;
            }
            Err(TrySendError::Full(Order::Bytes(bytes))) if bytes.len() <= BACKLOG_MAX => {
                *self.writer.bytes() = bytes;
            }
            Err(TrySendError::Full(_)) => self.break_off("the disk is too slow for it"),
            Err(TrySendError::Disconnected(_)) => self.to = None,
        }
        self.file_bytes >= self.settings.file_bytes_max
    }

    /// Ends this file and begins the next one.
    pub fn rotate(&mut self, header: &Header) {
        let before = std::mem::replace(&mut self.writer, Writer::new(header));
        let Some(to) = &self.to else { return };
        let next = self.next_file().and_then(|next| {
            to.send(Order::Bytes(before.finish()))
                .and_then(|()| to.send(next))
                .map_err(|_| io::Error::other("its thread has ended"))
        });
        match next {
            Ok(()) => (self.number, self.file_bytes) = (self.number + 1, 0),
            Err(error) => self.break_off(&error.to_string()),
        }
    }

    fn next_file(&self) -> io::Result<Order> {
        Ok(Order::Next(create(&self.settings.folder, self.number + 1)?))
    }

    fn break_off(&mut self, why: &str) {
        tracing::error!(why, "the decision log ends here");
        self.to = None;
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
            // A thread that has ended has said why.
            let _ = to.send(Order::Bytes(self.writer.finish()));
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
