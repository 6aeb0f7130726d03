//! Texts that values come from, and places within them.

use std::path::PathBuf;

use crate::At;

/// A text that values came from: a file, a shipped scenario, one `--set` or one row of a trace.
#[derive(Clone, Debug)]
pub struct Source {
    /// How messages name it.
    pub path: String,
    /// What it says; for a trace only the row in question.
    pub text: String,
    /// The number of the text's first line in its file, from 1.
    pub first_line: usize,
    /// Where relative paths written in it start; `None` is the current directory.
    pub directory: Option<PathBuf>,
}

/// A range of bytes in one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Index into [`Sources`].
    pub source: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// A place as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The source's path.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

/// All sources of one reading.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Adds a source and returns its index.
    pub fn add(&mut self, source: Source) -> u32 {
        self.0.push(source);
        u32::try_from(self.0.len() - 1).expect("fewer than 2^32 sources are read")
    }
    /// Adds all sources of another reading; returns how far their indices move.
    pub fn append(&mut self, other: Sources) -> u32 {
        let before = u32::try_from(self.0.len()).expect("fewer than 2^32 sources are read");
        self.0.extend(other.0);
        before
    }
    /// The source that a place lies in.
    pub fn of(&self, place: Place) -> &Source {
        &self.0[place.source as usize]
    }
    /// The source with this index.
    pub fn get(&self, index: u32) -> &Source {
        &self.0[index as usize]
    }
    /// A path as it is written, from where relative paths of its text start.
    pub fn path(&self, written: &At<String>) -> PathBuf {
        match &self.of(written.place).directory {
            Some(directory) => directory.join(&written.value),
            None => PathBuf::from(&written.value),
        }
    }
    /// Line and column of a place's first byte.
    pub fn position(&self, place: Place) -> Position {
        let source = self.of(place);
        let before = source.text.get(..place.start as usize).unwrap_or(&source.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Position {
            path: source.path.clone(),
            line: source.first_line + before.matches('\n').count(),
            column: before[line_start..].chars().count() + 1,
        }
    }
}
