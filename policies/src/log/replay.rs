//! The same inputs to a fresh allocator: are the decisions the same?

use super::Record;
use crate::allocator::{Allocator, Snapshot};
use crate::check::ConfigError;
use crate::config::Config;
use crate::message::{Decision, Signal};

/// Replays a log, record by record.
#[derive(Debug)]
pub struct Replay {
    allocator: Allocator,
    decisions: Vec<Decision>,
    signals: Vec<Signal>,
}

/// Decisions that are not those of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What the log says.
    pub expected: Record,
    /// What was decided now.
    pub decisions: Vec<Decision>,
    /// What was advised now.
    pub signals: Vec<Signal>,
    /// What the allocator holds after the input.
    pub state: Snapshot,
}

impl Replay {
    /// A replay under the policy of a log.
    ///
    /// # Errors
    /// If the policy contradicts itself.
    pub fn new(policy: Config) -> Result<Replay, ConfigError> {
        let allocator = Allocator::new(policy)?;
        Ok(Replay { allocator, decisions: Vec::new(), signals: Vec::new() })
    }

    /// Hands the record's input in and compares; what follows a difference means nothing. Records
    /// come in the order of the log, whose times do not decrease.
    ///
    /// # Errors
    /// If anything differs.
    pub fn step(&mut self, record: &Record) -> Result<(), Box<Difference>> {
        self.allocator.handle(record.now, record.input.clone());
        self.decisions.clear();
        self.signals.clear();
        while let Some(decision) = self.allocator.poll() {
            self.decisions.push(decision);
        }
        while let Some(signal) = self.allocator.poll_signal() {
            self.signals.push(signal);
        }
        // Alarms are the word of a detector that stood beside the allocator.
        let advice = record.signals.iter().filter(|signal| !matches!(signal, Signal::Alarm(_)));
        if self.decisions == record.decisions && self.signals.iter().eq(advice) {
            return Ok(());
        }
        Err(Box::new(Difference {
            expected: record.clone(),
            decisions: self.decisions.clone(),
            signals: self.signals.clone(),
            state: self.allocator.snapshot(),
        }))
    }

    /// The allocator, as the latest input left it.
    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// What the allocator holds.
    pub fn state(&self) -> Snapshot {
        self.allocator.snapshot()
    }
}
