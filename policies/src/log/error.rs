//! What can be wrong with a log, and where.

use std::fmt;

use super::bytes::Malformed;
use super::{DecisionHash, SCHEMA_VERSION};

/// A log that cannot be believed, and the byte of the file at which that shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogError {
    /// Offset of the first byte of the part in question, from the beginning of the file.
    pub at: u64,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It is empty.
    Empty,
    /// It begins as no decision log does.
    Foreign,
    /// It ends before its header does.
    NoHeader,
    /// It has a format that this build does not know.
    Version(u16),
    /// The head of a block does not agree with its checksum.
    HeadChecksum,
    /// The content of a block does not agree with its checksum.
    PayloadChecksum,
    /// No block has this kind.
    BlockKind(u8),
    /// No block is coded so.
    Coding(u8),
    /// A block is larger than blocks are.
    BlockSize(usize),
    /// The content of a block does not decompress.
    Deflate,
    /// Blocks follow each other as they never do.
    BlockOrder(&'static str),
    /// The header says what this build does not understand; which build wrote it, and why.
    Header(String, String),
    /// The first input of the block is not the one expected: found, expected.
    Gap(u64, u64),
    /// A record of the block means nothing, at this byte of the decompressed block.
    Record(Malformed, usize),
    /// Time runs backwards or out of bounds in this input.
    Time(u64),
    /// The decisions up to here have another hash than the log says: found, stated.
    Hash(DecisionHash, DecisionHash),
    /// The trailer counts what is not there.
    Counts,
    /// Something follows the trailer.
    Trailing,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: ", self.at)?;
        match &self.problem {
            Problem::Empty => f.write_str("the file is empty"),
            Problem::Foreign => f.write_str("this is not a decision log"),
            Problem::NoHeader => f.write_str("the log was cut off within its header"),
            Problem::Version(version) => {
                write!(f, "the log has format {version}, this build reads format {SCHEMA_VERSION}")
            }
            Problem::HeadChecksum => {
                f.write_str("damaged: the head of a block does not agree with its checksum")
            }
            Problem::PayloadChecksum => {
                f.write_str("damaged: the content of a block does not agree with its checksum")
            }
            Problem::BlockKind(kind) => write!(f, "no block has the kind {kind}"),
            Problem::Coding(coding) => write!(f, "no block has the coding {coding}"),
            Problem::BlockSize(size) => write!(f, "no block has a size of {size} bytes"),
            Problem::Deflate => f.write_str("the content of a block does not decompress"),
            Problem::BlockOrder(what) => f.write_str(what),
            Problem::Header(build, why) => write!(
                f,
                "the header was written by plimsoll {build}, and this build cannot read it: {why}"
            ),
            Problem::Gap(found, expected) => write!(
                f,
                "blocks are missing or mixed up: this one begins with input {found}, expected \
                 was input {expected}"
            ),
            Problem::Record(malformed, within) => {
                write!(f, "a record means nothing: {malformed} (byte {within} of the open block)")
            }
            Problem::Time(input) => write!(f, "time is out of bounds at input {input}"),
            Problem::Hash(found, stated) => write!(
                f,
                "the decisions up to the end of this block have the hash {found}, the log says \
                 {stated}"
            ),
            Problem::Counts => f.write_str("the trailer counts other inputs or decisions"),
            Problem::Trailing => f.write_str("something follows the end of the log"),
        }
    }
}
impl std::error::Error for LogError {}
