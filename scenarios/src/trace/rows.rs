//! The rows of a trace as its file states them, for whoever describes it instead of replaying it.

use std::path::Path;

use super::Format;
use super::lines::Fault;
use super::reader::Rows;

/// Streams the rows of a file; memory does not follow its length.
pub struct TraceRows {
    rows: Rows,
    last: u64,
}

/// A row as the file states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceRow {
    /// Its timestamp in nanoseconds: since 1970 where the format has dates, else since the trace began.
    pub nanos: u64,
    /// Prompt tokens; may be 0.
    pub prompt_tokens: u32,
    /// Output tokens; may be 0.
    pub output_tokens: u32,
    /// What its prompt begins with, block by block; `None` if the row does not say.
    pub blocks: Option<Vec<u64>>,
}

impl TraceRows {
    /// Opens a trace; `None` detects its format from its beginning.
    ///
    /// # Errors
    /// If it cannot be read, is empty, or is no trace: with file, line and column.
    pub fn open(path: &Path, format: Option<Format>) -> Result<TraceRows, Fault> {
        Ok(TraceRows { rows: Rows::open(path, format)?, last: 0 })
    }

    /// What the file is.
    pub fn format(&self) -> Format {
        self.rows.format()
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// If the row cannot be read, or is earlier than the one before it.
    pub fn advance(&mut self) -> Result<Option<TraceRow>, Fault> {
        let Some(row) = self.rows.next()? else { return Ok(None) };
        self.rows.in_order(self.last, &row)?;
        self.last = row.nanos;
        Ok(Some(TraceRow {
            nanos: row.nanos,
            prompt_tokens: row.prompt_tokens,
            output_tokens: row.output_tokens,
            blocks: self.rows.blocks()?,
        }))
    }
}
