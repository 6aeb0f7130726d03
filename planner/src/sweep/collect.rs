//! From journals to results: one journal, or those of all shards.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use plimsoll_report::OutputFolder;
use plimsoll_report::sweep::{self, CellSummary, Study, SweepPage, Verdicts};

use super::journal::{FILE, JournalError, Records};

/// Results of a sweep, read from journals as they are asked for.
#[derive(Debug)]
pub struct Collected {
    /// In the order of the shards.
    journals: Vec<Records>,
    verdicts: Verdicts,
}

/// Why journals do not make a whole sweep.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A folder holds no results.
    #[error("{}: there are no results of a sweep here (no {FILE})", .0.display())]
    Nothing(PathBuf),
    /// They do not belong together.
    #[error("{} and {} do not belong together: {differs}", one.display(), other.display())]
    Different {
        /// One.
        one: PathBuf,
        /// The other.
        other: PathBuf,
        /// In what they differ.
        differs: String,
    },
    /// A shard is there twice.
    #[error("shard {number} of {of} is there twice: in {} and in {}", one.display(), other.display())]
    Doubled {
        /// Which.
        number: u32,
        /// Of how many.
        of: u32,
        /// Where.
        one: PathBuf,
        /// Where else.
        other: PathBuf,
    },
    /// Shards are not there.
    #[error("of {of} shards {} missing: {missing}", if *only_one { "one is" } else { "some are" })]
    Missing {
        /// Which.
        missing: String,
        /// Whether it is one.
        only_one: bool,
        /// Of how many.
        of: u32,
    },
    /// Records cannot be believed.
    #[error(
        "{}: the journal is damaged: {damage}; run the sweep again with `--resume`, which runs what \
         is damaged anew", path.display()
    )]
    Damaged {
        /// Which journal.
        path: PathBuf,
        /// Where.
        damage: String,
    },
    /// Cells were not run.
    #[error(
        "{}: {missing} of {cells} cells are not done, the first is cell {first}; go on with `--resume`",
        path.display()
    )]
    Unfinished {
        /// Which journal.
        path: PathBuf,
        /// How many.
        missing: u64,
        /// Of how many.
        cells: u64,
        /// The first of them.
        first: u64,
    },
}

/// Puts the shards of a sweep together. A folder without a journal stands for the folders in it.
///
/// # Errors
/// They are not exactly the shards of one sweep, each whole.
pub fn merge(folders: &[PathBuf]) -> Result<Collected, MergeError> {
    let mut journals = Vec::new();
    for folder in folders {
        journals.extend(read(folder)?);
    }
    belong_together(&journals)?;
    journals.sort_by_key(|records| records.header.shard.number);
    complete(&journals)?;
    Ok(Collected::new(journals))
}

/// What a folder's journal holds, whole or not; `None` where there is none.
///
/// # Errors
/// The journal cannot be read.
pub fn so_far(folder: &Path) -> Result<Option<Collected>, JournalError> {
    Ok(Records::read(folder)?.map(|records| Collected::new(vec![records])))
}

fn read(folder: &Path) -> Result<Vec<Records>, MergeError> {
    if let Some(records) = Records::read(folder)? {
        return Ok(vec![records]);
    }
    let io = JournalError::io(folder);
    let mut within = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>())
        .map_err(io)?;
    within.retain(|path| path.is_dir());
    within.sort();
    let mut found = Vec::new();
    for path in within {
        found.extend(Records::read(&path)?);
    }
    if found.is_empty() { Err(MergeError::Nothing(folder.to_owned())) } else { Ok(found) }
}

fn belong_together(journals: &[Records]) -> Result<(), MergeError> {
    let Some((first, rest)) = journals.split_first() else { return Ok(()) };
    for other in rest {
        let of = (first.header.shard.of, other.header.shard.of);
        let counts = || (of.0 != of.1).then(|| format!("{} and {} shards", of.0, of.1));
        if let Some(differs) = first.header.differs(&other.header).or_else(counts) {
            let (one, other) = (first.path.clone(), other.path.clone());
            return Err(MergeError::Different { one, other, differs });
        }
    }
    Ok(())
}

/// `journals` are of one sweep, and sorted.
fn complete(journals: &[Records]) -> Result<(), MergeError> {
    for pair in journals.windows(2) {
        let shard = pair[0].header.shard;
        if shard == pair[1].header.shard {
            let [one, other] = [&pair[0].path, &pair[1].path].map(PathBuf::clone);
            return Err(MergeError::Doubled { number: shard.number, of: shard.of, one, other });
        }
    }
    let of = journals.first().map_or(0, |records| records.header.shard.of);
    let is_there =
        |number: &u32| journals.iter().any(|records| records.header.shard.number == *number);
    let missing: Vec<u32> = (1..=of).filter(|number| !is_there(number)).collect();
    if !missing.is_empty() {
        let named: Vec<String> =
            missing.iter().take(20).map(|number| format!("{number}/{of}")).collect();
        let more = if missing.len() > 20 { ", …" } else { "" };
        let (only_one, missing) = (missing.len() == 1, named.join(", ") + more);
        return Err(MergeError::Missing { missing, only_one, of });
    }
    journals.iter().try_for_each(whole)
}

fn whole(records: &Records) -> Result<(), MergeError> {
    let path = records.path.clone();
    if let Some(damage) = records.damage.first() {
        return Err(MergeError::Damaged { path, damage: damage.to_string() });
    }
    let missing = records.missing().count() as u64;
    match records.missing().next() {
        Some(first) => {
            let cells = records.header.shard.count(records.header.study.cells);
            Err(MergeError::Unfinished { path, missing, cells, first })
        }
        None => Ok(()),
    }
}

impl Collected {
    fn new(journals: Vec<Records>) -> Collected {
        let mut verdicts = Verdicts::default();
        for spot in journals.iter().flat_map(|records| &records.spots) {
            verdicts.add(spot.verdict);
        }
        Collected { journals, verdicts }
    }

    /// What was swept.
    pub fn study(&self) -> &Study {
        &self.journals[0].header.study
    }

    /// How many cells came to which verdict.
    pub fn verdicts(&self) -> Verdicts {
        self.verdicts
    }

    /// The result of each cell as JSON, in order.
    fn json(&self) -> impl Iterator<Item = io::Result<Vec<u8>>> {
        // Each journal has its cells in order.
        let mut next = vec![0; self.journals.len()];
        std::iter::from_fn(move || {
            let cell =
                |number: usize| self.journals[number].spots.get(next[number]).map(|s| s.cell);
            let heads = (0..next.len()).filter_map(|number| Some((cell(number)?, number)));
            let (_, number) = heads.min()?;
            let records = &self.journals[number];
            let spot = &records.spots[next[number]];
            next[number] += 1;
            Some(records.json(spot))
        })
    }

    /// The result of each cell, in order.
    pub fn cells(&self) -> impl Iterator<Item = io::Result<CellSummary>> {
        self.json().map(|json| Ok(serde_json::from_slice(&json?)?))
    }

    /// What is done, as a page: `PARTIAL` where that is not all.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn page(&self) -> io::Result<SweepPage> {
        SweepPage::new((self.study(), self.verdicts), self.cells())
    }

    /// Writes `sweep.json` and `cells.csv`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let out = OutputFolder::create(folder)?;
        let mut table = out.begin("cells.csv")?;
        table.write_all(sweep::csv_head(self.study()).as_bytes())?;
        for cell in self.cells() {
            table.write_all(sweep::csv_rows(self.study(), &cell?).as_bytes())?;
        }
        let mut whole = out.begin("sweep.json")?;
        sweep::write_json((self.study(), self.verdicts), self.json(), &mut whole)?;
        table.keep()?;
        whole.keep()
    }
}
