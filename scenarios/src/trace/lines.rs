//! Lines of a file, one at a time in one buffer.

use std::io::{self, BufRead};
use std::ops::Range;
use std::path::Path;

use plimsoll_config::{Code, Diagnostic, Diagnostics, Place, Source};

const LINE_MAX: u64 = 16 << 20;

/// What is wrong with a trace; boxed, because it is large and rare.
pub(super) type Fault = Box<Diagnostics>;

/// A file's lines and where it stands.
pub(super) struct Lines {
    reader: Box<dyn BufRead + Send>,
    path: String,
    buffer: Vec<u8>,
    number: usize,
    complete: bool,
}

/// A mistake in a line: which bytes, what, and what to write.
pub(super) struct Mistake {
    pub code: Code,
    pub bytes: Range<usize>,
    pub message: String,
    pub label: String,
    pub help: String,
}

impl Lines {
    /// Opens a file.
    pub(super) fn open(path: &Path) -> Result<Lines, Fault> {
        let name = path.to_string_lossy().into_owned();
        let reader = super::open::open(path).map_err(|error| {
            let reason = plimsoll_config::reason(&error);
            let message = format!("cannot read `{name}`: {reason}");
            Box::new(Diagnostics::bare(
                Diagnostic::new(Code::TraceUnreadable, None, message)
                    .help("give the path of a trace file, relative to the scenario file"),
            ))
        })?;
        Ok(Lines { reader, path: name, buffer: Vec::new(), number: 0, complete: true })
    }

    /// Goes to the next line that is not empty; `false` at the end of the file.
    pub(super) fn advance(&mut self) -> Result<bool, Fault> {
        use std::io::Read as _;
        loop {
            self.buffer.clear();
            self.number += 1;
            let mut limited = (&mut self.reader).take(LINE_MAX);
            let count = match limited.read_until(b'\n', &mut self.buffer) {
                Ok(count) => count,
                Err(error) => return Err(self.broken(&error)),
            };
            if count == 0 {
                return Ok(false);
            }
            self.complete = self.buffer.last() == Some(&b'\n');
            if !self.complete && count as u64 == LINE_MAX {
                self.buffer.truncate(80);
                return Err(self.fault(self.whole(
                    Code::TraceLine,
                    "a line is longer than 16 MiB",
                    "is this a trace file?",
                )));
            }
            while matches!(self.buffer.last(), Some(b'\n' | b'\r')) {
                self.buffer.pop();
            }
            if self.number == 1 && self.buffer.starts_with(b"\xef\xbb\xbf") {
                self.buffer.drain(..3);
            }
            if !self.buffer.iter().all(u8::is_ascii_whitespace) {
                return Ok(true);
            }
        }
    }

    /// The line without its end.
    pub(super) fn line(&self) -> &[u8] {
        &self.buffer
    }
    /// Whether the line ended with a newline; the last one of a file may not.
    pub(super) fn complete(&self) -> bool {
        self.complete
    }
    /// The file as messages name it.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// A mistake about the whole line.
    pub(super) fn whole(&self, code: Code, message: &str, help: &str) -> Mistake {
        Mistake {
            code,
            bytes: 0..self.buffer.len().max(1),
            message: message.into(),
            label: String::new(),
            help: help.into(),
        }
    }

    /// A mistake in this line, told with the line itself.
    pub(super) fn fault(&self, mistake: Mistake) -> Fault {
        let text = String::from_utf8_lossy(&self.buffer).into_owned();
        let bytes = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let place =
            Place { source: 0, start: bytes(mistake.bytes.start), end: bytes(mistake.bytes.end) };
        let source =
            Source { path: self.path.clone(), text, first_line: self.number, directory: None };
        Box::new(Diagnostics::about(
            source,
            Diagnostic::new(mistake.code, Some(place), mistake.message)
                .label(mistake.label)
                .help(mistake.help),
        ))
    }

    fn broken(&self, error: &io::Error) -> Fault {
        let message = format!(
            "`{}` cannot be decompressed past line {}: {}",
            self.path,
            self.number,
            plimsoll_config::reason(error)
        );
        Box::new(Diagnostics::bare(
            Diagnostic::new(Code::TraceBroken, None, message)
                .help("the file was cut off or damaged: fetch it again"),
        ))
    }
}
