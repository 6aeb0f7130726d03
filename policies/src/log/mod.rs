//! The decision log: every input of a run and every decision that followed, as bytes.
//!
//! A [`Writer`] turns inputs and decisions into bytes, a [`Reader`] turns them back; neither does
//! I/O. A [`Replay`] feeds the inputs of a log to a fresh allocator and tells the first decision
//! that differs. The log holds ids, counts and times only, and no text of any request. The policy
//! and the names behind the ids stand in its [`Header`], so that a log can be replayed and shown
//! without the scenario or the policy file it came from.
//!
//! # Format
//!
//! The magic, the version of the format (u16, little-endian), then blocks. Each block has a head
//! with its kind, its sizes and two CRC-32 (one of the head itself), and a payload, deflated where
//! that is shorter. First comes one block with the header as JSON, then blocks of records,
//! last a trailer with counts. A block of records begins with the number of its first input and
//! the time and the request id that its first record leads away from, and ends with the
//! [`DecisionHash`] of all decisions up to there. A log that was cut off can be read up to its
//! last whole block ([`Ending::Cut`]).
//!
//! A record is one byte (kind of input; 0, 1, 2 or more decisions; signals or not), the time
//! since the record before, the input, its decisions, its signals; numbers are written to
//! base 128, ids as ways from the request that arrived last.

mod bytes;
mod chain;
mod codes;
mod decision;
mod error;
mod frame;
mod input;
mod reader;
mod record;
mod replay;
mod writer;

pub use bytes::Malformed;
pub use chain::{Chain, DecisionHash};
pub use error::{LogError, Problem};
pub use reader::{Ending, Reader, Totals};
pub use replay::{Difference, Replay};
pub use writer::Writer;

use plimsoll_base::{ClassObjectives, Names, Time};
use serde::{Deserialize, Serialize};

use crate::config::{Class, Config, Share};
use crate::message::{Decision, Input, Signal};

/// The first bytes of every log. The first is no text, the rest finds conversions of line ends.
pub const MAGIC: [u8; 8] = *b"\x89PLOG\r\n\x1a";
/// The version of the format.
pub const SCHEMA_VERSION: u16 = 1;

/// What a log says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The version of the program that wrote it.
    pub build: String,
    /// What ran: the scenario's name, in production that of the gateway file.
    pub scenario: String,
    /// The scenario's hash; empty where there was none.
    pub scenario_hash: String,
    /// The seed of the run; 0 in production.
    pub seed: u64,
    /// Which replication, from 0.
    pub replication: u32,
    /// The names behind the ids.
    pub names: Names,
    /// The policy.
    pub policy: Config,
    /// What each class was promised, in the order of the classes; empty in logs that do not say.
    #[serde(default)]
    pub objectives: Vec<ClassObjectives>,
}

/// Of no run, with no class.
impl Default for Header {
    fn default() -> Header {
        Header {
            build: String::new(),
            scenario: String::new(),
            scenario_hash: String::new(),
            seed: 0,
            replication: 0,
            names: Names::default(),
            policy: Config::plain(Share::Fcfs, Vec::<Class>::new()),
            objectives: Vec::new(),
        }
    }
}

impl Header {
    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a header has no map, and its floats are finite")
    }

    /// The header, or which build wrote it and why this one does not understand it.
    fn of_json(bytes: &[u8]) -> Result<Header, (String, String)> {
        #[derive(Deserialize)]
        struct Written {
            build: String,
        }
        serde_json::from_slice(bytes).map_err(|error| {
            let written = serde_json::from_slice(bytes).map(|written: Written| written.build);
            (written.unwrap_or_else(|_| "of an unknown version".to_owned()), error.to_string())
        })
    }
}

/// An input and what followed from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log, from 0.
    pub number: u64,
    /// When the allocator was handed it.
    pub now: Time,
    /// What.
    pub input: Input,
    /// What it decided, in order.
    pub decisions: Vec<Decision>,
    /// What it advised, in order.
    pub signals: Vec<Signal>,
}
