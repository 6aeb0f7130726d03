//! The decision logs of a run, in files without a name until it is over.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::sync::Mutex;

use plimsoll_planner::{LogKeeper, OtherPolicy, log_header};
use plimsoll_policy::Agreement;
use plimsoll_policy::log::{Reader, Writer};
use plimsoll_report::OutputFolder;
use plimsoll_scenario::Scenario;

use crate::Failure;

/// Keeps one log a replication.
pub struct Decisions<'a> {
    scenario: &'a Scenario,
    seed: u64,
    files: Vec<Mutex<File>>,
}

impl<'a> Decisions<'a> {
    /// Files for so many replications of a scenario that runs with `seed`.
    pub fn new(scenario: &'a Scenario, seed: u64, replications: u32) -> io::Result<Decisions<'a>> {
        let files = (0..replications).map(|_| tempfile::tempfile().map(Mutex::new));
        Ok(Decisions { scenario, seed, files: files.collect::<io::Result<_>>()? })
    }

    /// How often each of these policies, listening to all replications, decides as the one that
    /// acted.
    pub fn agreements(&self, others: &[OtherPolicy]) -> Result<Vec<Agreement>, Failure> {
        let mut sums = vec![Agreement::default(); others.len()];
        for file in &self.files {
            let mut file = file.lock().expect("no thread panics while it holds the lock");
            let mut bytes = Vec::new();
            file.rewind()?;
            file.read_to_end(&mut bytes)?;
            for (other, sum) in others.iter().zip(&mut sums) {
                let log = Reader::new(&bytes).map_err(anyhow::Error::from)?;
                let found = plimsoll_planner::shadow(log, other)
                    .map_err(|error| Failure::Usage(error.to_string()))?;
                sum.same += found.same;
                sum.decided += found.decided;
            }
        }
        Ok(sums)
    }

    /// Gives the logs their names in the folder.
    pub fn name(self, folder: &Path) -> io::Result<()> {
        let out = OutputFolder::create(folder)?;
        let alone = self.files.len() == 1;
        for (replication, file) in self.files.into_iter().enumerate() {
            let name = match alone {
                true => "decisions.plog".to_owned(),
                false => format!("decisions-{replication}.plog"),
            };
            let mut file = file.into_inner().expect("no thread panics while it holds the lock");
            let mut log = out.begin(&name)?;
            file.rewind()?;
            io::copy(&mut file, &mut log)?;
            log.keep()?;
        }
        Ok(())
    }
}

impl LogKeeper for Decisions<'_> {
    fn begin(&self, replication: u32) -> Option<Writer> {
        Some(Writer::new(&log_header(self.scenario, self.seed, replication)))
    }
    fn keep(&self, replication: u32, bytes: &[u8]) -> io::Result<()> {
        let file = &self.files[replication as usize];
        file.lock().expect("no thread panics while it holds the lock").write_all(bytes)
    }
}
