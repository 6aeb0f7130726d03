//! Decision logs of replications.

use std::io;

use plimsoll_policy::log::{Header, Writer};
use plimsoll_scenario::Scenario;

/// Where the decision logs of replications go, from any thread.
pub trait LogKeeper: Sync {
    /// The log that a replication writes; `None` if it is to write none.
    fn begin(&self, replication: u32) -> Option<Writer>;
    /// Takes the next bytes of a replication's log.
    ///
    /// # Errors
    /// Those of wherever it puts them; the study then fails.
    fn keep(&self, replication: u32, bytes: &[u8]) -> io::Result<()>;
}

/// No logs.
impl LogKeeper for () {
    fn begin(&self, _: u32) -> Option<Writer> {
        None
    }
    fn keep(&self, _: u32, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// What the log of a replication of the scenario, run with `seed`, says of itself.
pub fn log_header(scenario: &Scenario, seed: u64, replication: u32) -> Header {
    Header {
        build: env!("CARGO_PKG_VERSION").to_owned(),
        scenario: scenario.name.clone(),
        scenario_hash: scenario.hash.clone(),
        seed,
        replication,
        names: scenario.model.names.clone(),
        policy: scenario.model.policy.clone(),
        objectives: scenario.objectives.clone(),
    }
}
