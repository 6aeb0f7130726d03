//! The journal of a sweep: what is done, one record a line, only ever appended to.
//!
//! A line is 32 hexadecimal digits, a space, a JSON object. The digits are XXH3-128 of the object,
//! keyed by the study, so that a record of another sweep does not pass. The first line says what is
//! swept; it is written under a temporary name, so that a journal always has it.
//!
//! A record is handed to the operating system in one call when its cell is done: a process that is
//! killed leaves at most one record cut, and loses the cells that were running. A thread of
//! its own has the disk hold it (`fdatasync`) once a second and at the end: power that fails may cost
//! the cells of the last second, which checksums and lengths show.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use plimsoll_report::sweep::Study;
use plimsoll_report::{OutputFolder, Verdict};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use super::Shard;

/// The journal's name within its folder.
pub const FILE: &str = "sweep.journal";
/// The name of the file that says who is at work in a folder.
const LOCK: &str = "sweep.lock";
/// The version of the layout.
const VERSION: u32 = 1;
/// A record longer than this is damage.
const LINE_MAX: u64 = 1 << 26;
/// How long results may stand in the operating system's memory alone.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What a journal is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    journal: u32,
    /// Which part of the sweep.
    pub shard: Shard,
    /// What is swept.
    pub study: Study,
}

impl Header {
    /// For a part of a study.
    pub fn new(study: Study, shard: Shard) -> Header {
        Header { journal: VERSION, shard, study }
    }

    /// What keeps the results of the two from standing side by side, shards aside.
    pub fn differs(&self, other: &Header) -> Option<String> {
        let (one, two) = (&self.study, &other.study);
        let seed =
            |seed: Option<u64>| seed.map_or("the scenario's".to_owned(), |seed| seed.to_string());
        if one.plimsoll != two.plimsoll {
            return Some(format!("program version {} and {}", one.plimsoll, two.plimsoll));
        }
        if one.hash != two.hash {
            let names = [one, two].map(|study| format!("{} (hash {})", study.scenario, study.hash));
            return Some(format!("scenario {} and {}", names[0], names[1]));
        }
        if one.replications != two.replications {
            let (one, two) = (one.replications, two.replications);
            return Some(format!("{one} and {two} replications"));
        }
        if one.seed != two.seed {
            return Some(format!("seed {} and {}", seed(one.seed), seed(two.seed)));
        }
        let other_cells = "other values are varied, or a trace has changed";
        (one != two).then(|| format!("{other_cells} (study {} and {})", one.study, two.study))
    }
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system said no.
    #[error("{}: {error}", path.display())]
    Io {
        /// What it was asked for.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The first line is not that of a journal, or does not pass its checksum.
    #[error("{}: line 1 (byte 0) is damaged: what was swept is not known", .0.display())]
    Head(PathBuf),
    /// A newer program wrote it.
    #[error("{}: the journal has version {version}, this program reads version {VERSION}", path.display())]
    Version {
        /// Which journal.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It is of another sweep.
    #[error("{}: the results there are of another sweep: {differs}", path.display())]
    Other {
        /// Which journal.
        path: PathBuf,
        /// In what they differ.
        differs: String,
    },
}

impl JournalError {
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> JournalError + use<> {
        let path = path.to_owned();
        move |error| JournalError::Io { path: path.clone(), error }
    }
}

/// A record that cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Its line, from 1.
    pub line: u64,
    /// Where it begins.
    pub byte: u64,
    /// What is wrong with it.
    pub what: &'static str,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {} (byte {}) {}", self.line, self.byte, self.what)
    }
}

/// Where the result of a cell stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub cell: u64,
    at: u64,
    length: u32,
    line: u64,
    pub verdict: Verdict,
}

/// A journal as it was read.
#[derive(Debug)]
pub struct Records {
    /// Where it is.
    pub path: PathBuf,
    /// What it is about.
    pub header: Header,
    /// Where the results stand, by cell.
    pub(crate) spots: Vec<Spot>,
    /// Records that cannot be believed.
    pub damage: Vec<Damage>,
    /// Where a record begins that was cut off, as the end of a process leaves it.
    pub cut: Option<u64>,
    file: File,
}

/// What a record is read for before it is needed.
#[derive(Deserialize)]
struct Glance {
    cell: u64,
    verdict: Verdict,
}

impl Records {
    /// Reads a journal; one that is not there is `None`.
    ///
    /// # Errors
    /// The file cannot be read, or its first line is damaged or of a newer program.
    pub fn read(folder: &Path) -> Result<Option<Records>, JournalError> {
        let path = folder.join(FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(JournalError::Io { path, error }),
        };
        let io = JournalError::io(&path);
        let mut lines = Lines { reader: BufReader::new(&file), byte: 0, line: 0, text: Vec::new() };
        let first = lines.next().map_err(&io)?;
        let header =
            first.and_then(|line| checked(line, 0)).ok_or(JournalError::Head(path.clone()));
        let header = parsed(&path, header?)?;
        let key = key(&header.study);
        let (mut spots, mut damage, mut cut) = (Vec::new(), Vec::new(), None);
        loop {
            let (line, byte) = (lines.line + 1, lines.byte);
            let Some(text) = lines.next().map_err(&io)? else { break };
            let length = text.len();
            if !text.ends_with(b"\n") && (length as u64) < LINE_MAX {
                cut = Some(byte);
                break;
            }
            match spot(text, key, header.shard) {
                Ok(spot) => spots.push(Spot { at: byte + PREFIX as u64, line, ..spot }),
                Err(what) => damage.push(Damage { line, byte, what }),
            }
        }
        spots.sort_by_key(|spot| (spot.cell, spot.at));
        spots.dedup_by(|later, first| {
            let twice = later.cell == first.cell;
            if twice {
                let byte = later.at - PREFIX as u64;
                damage.push(Damage { line: later.line, byte, what: "repeats a cell" });
            }
            twice
        });
        Ok(Some(Records { path, header, spots, damage, cut, file }))
    }

    /// The JSON of a result.
    pub(crate) fn json(&self, spot: &Spot) -> io::Result<Vec<u8>> {
        let mut file = &self.file;
        let mut text = vec![0; spot.length as usize];
        file.seek(SeekFrom::Start(spot.at))?;
        file.read_exact(&mut text)?;
        Ok(text)
    }

    /// Which of this shard's cells it lacks.
    pub fn missing(&self) -> impl Iterator<Item = u64> {
        let Header { shard, study, .. } = &self.header;
        let (number, of) = (u64::from(shard.number), u64::from(shard.of));
        let done = |cell: &u64| self.spots.binary_search_by_key(cell, |spot| spot.cell).is_ok();
        (number - 1..study.cells).step_by(of as usize).filter(move |cell| !done(cell))
    }
}

/// Digits and the space before the object.
const PREFIX: usize = 33;

fn key(study: &Study) -> u64 {
    XxHash3_128::oneshot(study.study.as_bytes()) as u64
}

fn sealed(object: &[u8], key: u64) -> Vec<u8> {
    let mut line = format!("{:032x} ", XxHash3_128::oneshot_with_seed(key, object)).into_bytes();
    line.extend_from_slice(object);
    line.push(b'\n');
    line
}

/// The object of a line that passes its checksum.
fn checked(line: &[u8], key: u64) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?;
    let (digits, object) = (line.get(..PREFIX)?, line.get(PREFIX..)?);
    let digits = std::str::from_utf8(digits).ok()?.strip_suffix(' ')?;
    let said = u128::from_str_radix(digits, 16).ok()?;
    (said == XxHash3_128::oneshot_with_seed(key, object)).then_some(object)
}

fn parsed(path: &Path, object: &[u8]) -> Result<Header, JournalError> {
    #[derive(Deserialize)]
    struct Version {
        journal: u32,
    }
    let head = || JournalError::Head(path.to_owned());
    let Version { journal: version } = serde_json::from_slice(object).map_err(|_| head())?;
    if version != VERSION {
        return Err(JournalError::Version { path: path.to_owned(), version });
    }
    serde_json::from_slice(object).map_err(|_| head())
}

fn spot(line: &[u8], key: u64, shard: Shard) -> Result<Spot, &'static str> {
    let object = checked(line, key).ok_or("does not pass its checksum")?;
    let glance: Glance = serde_json::from_slice(object).map_err(|_| "is no result of a cell")?;
    if !shard.holds(glance.cell) {
        return Err("is of a cell of another shard");
    }
    let length = u32::try_from(object.len()).map_err(|_| "is too long")?;
    Ok(Spot { cell: glance.cell, at: 0, length, line: 0, verdict: glance.verdict })
}

/// Lines with their places.
struct Lines<'a> {
    reader: BufReader<&'a File>,
    byte: u64,
    line: u64,
    text: Vec<u8>,
}

impl Lines<'_> {
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.text.clear();
        let length = (&mut self.reader).take(LINE_MAX).read_until(b'\n', &mut self.text)?;
        self.byte += length as u64;
        self.line += 1;
        Ok((length > 0).then_some(&self.text))
    }
}

/// A journal that is written to.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    key: u64,
    /// Held for as long as this process may write.
    _lock: File,
    end: Mutex<End>,
    /// The same file, so that nobody waits for the disk who only appends.
    disk: File,
}

#[derive(Debug)]
struct End {
    file: File,
    at: u64,
}

/// Who else is at work in a folder.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes the folder for this process; `None` if another has it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn take(folder: &Path) -> Result<Option<Lock>, JournalError> {
        let path = folder.join(LOCK);
        let io = JournalError::io(&path);
        std::fs::create_dir_all(folder).map_err(&io)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(&io)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(io(error)),
        }
    }
}

impl Journal {
    /// Begins a journal.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn begin(folder: &Path, header: &Header, lock: Lock) -> Result<Journal, JournalError> {
        let path = folder.join(FILE);
        let object = serde_json::to_vec(header).expect("a header holds only strings and numbers");
        let written =
            OutputFolder::create(folder).and_then(|out| out.write(FILE, &sealed(&object, 0)));
        written.map_err(JournalError::io(&path))?;
        Journal::open(path, &header.study, lock)
    }

    /// Goes on with a journal that was read: what was cut off or is damaged is taken out.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn resume(records: &Records, lock: Lock) -> Result<Journal, JournalError> {
        let path = &records.path;
        let io = JournalError::io(path);
        if !records.damage.is_empty() {
            records.rewrite().map_err(&io)?;
        } else if let Some(cut) = records.cut {
            let file = OpenOptions::new().write(true).open(path).map_err(&io)?;
            file.set_len(cut).map_err(&io)?;
        }
        Journal::open(path.clone(), &records.header.study, lock)
    }

    fn open(path: PathBuf, study: &Study, Lock(lock): Lock) -> Result<Journal, JournalError> {
        let io = JournalError::io(&path);
        let file = OpenOptions::new().append(true).open(&path).map_err(&io)?;
        let at = file.metadata().map_err(&io)?.len();
        let disk = file.try_clone().map_err(&io)?;
        let end = Mutex::new(End { file, at });
        Ok(Journal { key: key(study), path, _lock: lock, end, disk })
    }

    /// Appends the result of a cell.
    ///
    /// # Errors
    /// Those of the file system. What was written of the record is then taken back as far as that
    /// is possible; nothing may be appended any more.
    pub fn append(&self, object: &[u8]) -> Result<(), JournalError> {
        let line = sealed(object, self.key);
        let mut end = self.end.lock().expect("no thread panics while it holds the lock");
        let written = end.file.write_all(&line);
        if let Err(error) = written {
            // Best effort: a record that stays cut is found when the journal is read.
            let _ = end.file.set_len(end.at);
            return Err(JournalError::io(&self.path)(error));
        }
        end.at += line.len() as u64;
        Ok(())
    }

    /// Has the disk hold everything, once a second until `work` is over, and then.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn synced(&self, work: impl FnOnce()) -> Result<(), JournalError> {
        let sync = || self.disk.sync_data().map_err(JournalError::io(&self.path));
        let (working, over) = mpsc::channel::<()>();
        let until_over = move || {
            while let Err(RecvTimeoutError::Timeout) = over.recv_timeout(SYNC_EVERY) {
                sync()?;
            }
            sync()
        };
        std::thread::scope(|scope| {
            let syncing = scope.spawn(until_over);
            work();
            drop(working);
            syncing.join().expect("whoever syncs does nothing else")
        })
    }
}

impl Records {
    /// Writes the journal anew with the records that can be believed.
    fn rewrite(&self) -> io::Result<()> {
        let folder = self.path.parent().expect("a journal stands in a folder");
        let mut whole = OutputFolder::create(folder)?.begin(FILE)?;
        let object = serde_json::to_vec(&self.header)?;
        whole.write_all(&sealed(&object, 0))?;
        for spot in &self.spots {
            whole.write_all(&sealed(&self.json(spot)?, key(&self.header.study)))?;
        }
        whole.keep()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study() -> Study {
        Study {
            plimsoll: "1.2.3".into(),
            scenario: "small".into(),
            description: String::new(),
            hash: "674972fa75ca4641".into(),
            study: "5c7eb1452c0013156a32d9da9af2104b".into(),
            seed: None,
            replications: 3,
            parameters: vec!["seed".into()],
            cells: 4,
            equal_left_out: 0,
        }
    }

    #[test]
    fn results_that_must_not_stand_side_by_side_say_why() {
        let header = |study| Header::new(study, Shard { number: 1, of: 2 });
        let own = header(study());
        let other_shard = Header::new(study(), Shard { number: 2, of: 2 });
        assert_eq!(own.differs(&other_shard), None, "shards of one sweep belong together");
        for (other, said) in [
            (Study { plimsoll: "1.2.4".into(), ..study() }, "program version 1.2.3 and 1.2.4"),
            (Study { hash: "0".into(), ..study() }, "scenario small (hash 674972fa75ca4641) and"),
            (Study { replications: 5, ..study() }, "3 and 5 replications"),
            (Study { seed: Some(7), ..study() }, "seed the scenario's and 7"),
            (Study { study: "0".into(), ..study() }, "other values are varied"),
            (Study { cells: 5, ..study() }, "other values are varied"),
        ] {
            let differs = own.differs(&header(other)).expect("they differ");
            assert!(differs.contains(said), "no {said:?} in {differs:?}");
        }
    }

    #[test]
    fn a_journal_of_a_newer_program_is_refused() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let newer = sealed(br#"{"journal":2,"unknown":true}"#, 0);
        std::fs::write(folder.path().join(FILE), newer).expect("it can be written");
        match Records::read(folder.path()) {
            Err(JournalError::Version { version: 2, .. }) => {}
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_process_at_a_time_works_in_a_folder() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let take = || Lock::take(folder.path()).expect("the folder can be locked");
        let first = take();
        assert!(first.is_some());
        assert!(take().is_none(), "two would write into one journal");
        drop(first);
        assert!(take().is_some());
    }
}
