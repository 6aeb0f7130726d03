//! A trace as a [`Source`] of requests.

use std::ops::Range;
use std::path::Path;

use plimsoll_base::{ClassId, Span, Stream, StreamKey, TenantId, Time};
use plimsoll_config::{Code, Diagnostic, Diagnostics};
use plimsoll_sim::workload::{Request, Source, SourceError};

use super::azure::{self, Columns};
use super::lines::{Fault, Lines, Mistake};
use super::{Format, Trace, mooncake};

/// A row as the file states it, and which bytes of its line say so.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub nanos: u64,
    pub prompt_tokens: u32,
    pub output_tokens: u32,
    pub time_bytes: Range<usize>,
    pub prompt_bytes: Range<usize>,
    pub output_bytes: Range<usize>,
}

/// What became of the rows read so far: `read` is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceCounts {
    /// Rows read.
    pub read: u64,
    /// Rows that became requests.
    pub emitted: u64,
    /// Rows before `from`.
    pub before: u64,
    /// The one row that told that the slice is over (`until`, `rows_max`, `stop`).
    pub after: u64,
    /// Rows without prompt or output tokens.
    pub zero_tokens: u64,
    /// Rows that no pool can hold.
    pub too_large: u64,
}

/// What a whole trace offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceTotals {
    /// What became of its rows.
    pub counts: TraceCounts,
    /// Prompt tokens of the requests.
    pub prompt_tokens: u64,
    /// Output tokens of the requests.
    pub output_tokens: u64,
    /// The last arrival.
    pub last: Time,
}

/// Streams the rows of a file as requests; memory does not follow the file's length.
pub struct TraceSource {
    trace: Trace,
    rows: Rows,
    draws: Draws,
    counts: TraceCounts,
    /// Timestamp of the file's first row, and of the first row that became a request.
    origin: Option<u64>,
    zero: Option<u64>,
    last: u64,
    next: Option<(Time, Request)>,
    over: bool,
}

pub(super) struct Rows {
    lines: Lines,
    parser: Parser,
    /// Whether the current line is a row that was not taken yet.
    pending: bool,
}

enum Parser {
    Azure(Columns),
    Mooncake,
}

/// The random streams of a trace's rules: one draw a row and rule, whatever matched, so that a
/// change of one rule moves no other.
struct Draws {
    tenants: Stream,
    shares: Vec<Stream>,
}

impl TraceSource {
    /// Opens a trace for the workload of this name.
    pub fn open(
        trace: &Trace,
        name: &str,
        seed: u64,
        replication: u32,
    ) -> Result<TraceSource, SourceError> {
        let stream =
            |name: &str, entity| Stream::new(StreamKey { seed, replication, name, entity });
        let shares = 0..trace.assign.len() as u64;
        let assign = format!("workload.{name}.assign");
        Ok(TraceSource {
            rows: Rows::open(&trace.path, trace.format).map_err(|fault| fault as SourceError)?,
            draws: Draws {
                tenants: stream(&format!("workload.{name}.tenants"), 0),
                shares: shares.map(|entity| stream(&assign, entity)).collect(),
            },
            trace: trace.clone(),
            counts: TraceCounts::default(),
            origin: None,
            zero: None,
            last: 0,
            next: None,
            over: false,
        })
    }

    /// What became of the rows read so far.
    pub fn counts(&self) -> TraceCounts {
        self.counts
    }

    /// Reads to the end and adds up what the trace offers.
    pub fn totals(mut self) -> Result<TraceTotals, SourceError> {
        let mut totals = TraceTotals::default();
        while let Some(at) = self.next_at()? {
            let request = self.take();
            totals.prompt_tokens += u64::from(request.prompt_tokens);
            totals.output_tokens += u64::from(request.output_tokens);
            totals.last = at;
        }
        totals.counts = self.counts;
        Ok(totals)
    }

    /// Reads rows until one becomes a request.
    fn fill(&mut self) -> Result<(), Fault> {
        while self.next.is_none() && !self.over {
            let Some(row) = self.rows.next()? else {
                self.over = true;
                return if self.counts.emitted == 0 { Err(self.empty()) } else { Ok(()) };
            };
            self.counts.read += 1;
            self.rows.in_order(self.last, &row)?;
            self.last = row.nanos;
            let origin = *self.origin.get_or_insert(row.nanos);
            let offset = Span::from_nanos(row.nanos - origin);
            if offset < self.trace.from {
                self.counts.before += 1;
                continue;
            }
            let full = self.trace.rows_max.is_some_and(|rows| self.counts.emitted >= rows);
            if full || self.trace.until.is_some_and(|until| offset >= until) {
                self.end_slice()?;
                continue;
            }
            if !self.holds(&row)? {
                continue;
            }
            let at = self.arrival(row.nanos);
            if self.trace.stop.is_some_and(|stop| at >= stop) {
                self.end_slice()?;
                continue;
            }
            self.counts.emitted += 1;
            self.next = Some((at, self.request(&row)));
        }
        Ok(())
    }

    fn end_slice(&mut self) -> Result<(), Fault> {
        self.counts.after += 1;
        self.over = true;
        if self.counts.emitted == 0 { Err(self.empty()) } else { Ok(()) }
    }

    /// Whether the row can be a request; counts or refuses it if not.
    fn holds(&mut self, row: &Row) -> Result<bool, Fault> {
        if row.prompt_tokens == 0 || row.output_tokens == 0 {
            self.counts.zero_tokens += 1;
            return if self.trace.drop_zero { Ok(false) } else { Err(self.zero_tokens(row)) };
        }
        let needed = u64::from(row.prompt_tokens) + u64::from(row.output_tokens);
        if needed > self.trace.limit.tokens() {
            self.counts.too_large += 1;
            return if self.trace.drop_too_large {
                Ok(false)
            } else {
                Err(self.too_large(row, needed))
            };
        }
        Ok(true)
    }

    fn arrival(&mut self, nanos: u64) -> Time {
        let gap = Span::from_nanos(nanos - *self.zero.get_or_insert(nanos));
        let gap = match self.trace.rate_scale {
            1.0 => gap,
            scale => Span::from_secs_f64(gap.secs_f64() / scale),
        };
        self.trace.start.saturating_add(gap)
    }

    fn request(&mut self, row: &Row) -> Request {
        let (tenant, claims) = self.assign(row.prompt_tokens);
        let room = self.trace.limit.tokens() - u64::from(row.prompt_tokens);
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let cap = match self.trace.output_cap {
            Some(cap) => cap.max(row.output_tokens),
            None => row.output_tokens.checked_next_power_of_two().unwrap_or(u32::MAX),
        };
        Request {
            tenant,
            claims,
            prompt_tokens: row.prompt_tokens,
            output_tokens: row.output_tokens,
            output_cap: cap.min(room),
            key: 0,
        }
    }

    fn assign(&mut self, prompt: u32) -> (TenantId, Option<ClassId>) {
        let own = self.draws.tenant(&self.trace.tenants);
        let mut chosen = None;
        for (rule, stream) in self.trace.assign.iter().zip(&mut self.draws.shares) {
            let drawn = stream.uniform();
            let matches = rule.prompt_tokens_min.is_none_or(|min| prompt >= min)
                && rule.prompt_tokens_max.is_none_or(|max| prompt <= max)
                && rule.share.is_none_or(|share| drawn < share);
            if matches && chosen.is_none() {
                chosen = Some(rule);
            }
        }
        match chosen {
            Some(rule) => (rule.tenant.unwrap_or(own), rule.class.or(self.trace.claims)),
            None => (own, self.trace.claims),
        }
    }

    fn zero_tokens(&self, row: &Row) -> Fault {
        let (bytes, what) = if row.prompt_tokens == 0 {
            (row.prompt_bytes.clone(), "prompt")
        } else {
            (row.output_bytes.clone(), "output")
        };
        self.rows.lines.fault(Mistake {
            code: Code::TraceZero,
            bytes: self.rows.mark(bytes, what),
            message: format!("this request has no {what} tokens"),
            label: "at least 1 is needed".into(),
            help: "write `drop = [\"zero-tokens\"]` in the trace's table to leave such rows out"
                .into(),
        })
    }

    fn too_large(&self, row: &Row, needed: u64) -> Fault {
        self.rows.lines.fault(Mistake {
            code: Code::TraceTooLarge,
            bytes: self.rows.mark(row.prompt_bytes.clone(), "prompt"),
            message: format!("this request takes {needed} tokens, {}", self.trace.limit.describe()),
            label: format!("prompt and output are {needed} tokens"),
            help: "give a pool more KV memory and `context_max`, or write \
                   `drop = [\"too-large\"]` in the trace's table to leave such rows out"
                .into(),
        })
    }

    fn empty(&self) -> Fault {
        let counts = self.counts;
        let path = self.rows.lines.path();
        let message = match counts.read {
            0 => format!("`{path}` has no rows"),
            read => format!(
                "none of the {read} rows read of `{path}` is replayed: {} before `from`, {} after \
                 the slice, {} without tokens, {} too large",
                counts.before, counts.after, counts.zero_tokens, counts.too_large
            ),
        };
        Box::new(Diagnostics::bare(
            Diagnostic::new(Code::TraceEmpty, None, message)
                .help("check the path, and `from`, `until`, `rows_max` and `drop`"),
        ))
    }
}

impl Source for TraceSource {
    fn next_at(&mut self) -> Result<Option<Time>, SourceError> {
        if let Err(fault) = self.fill() {
            self.over = true;
            return Err(fault);
        }
        Ok(self.next.as_ref().map(|(at, _)| *at))
    }
    fn take(&mut self) -> Request {
        let (_, request) = self.next.take().expect("`next_at` announced a request");
        request
    }
}

impl Rows {
    pub(super) fn open(path: &Path, format: Option<Format>) -> Result<Rows, Fault> {
        let mut lines = Lines::open(path)?;
        if !lines.advance()? {
            let message = format!("`{}` is empty", lines.path());
            return Err(Box::new(Diagnostics::bare(
                Diagnostic::new(Code::TraceEmpty, None, message)
                    .help("give a trace with at least one row"),
            )));
        }
        let first = lines.line().first().copied();
        let detected = match format {
            Some(format) => format,
            None if first == Some(b'{') => Format::MooncakeJsonl,
            None if azure::is_header(lines.line()) => Format::AzureCsv,
            None => {
                return Err(lines.fault(lines.whole(
                    Code::TraceFormat,
                    "the beginning of the file is no known trace format",
                    "known are Azure CSV (a header with TIMESTAMP, ContextTokens, \
                     GeneratedTokens) and Mooncake JSON lines ({\"timestamp\": …})",
                )));
            }
        };
        let (parser, pending) = match detected {
            Format::MooncakeJsonl => (Parser::Mooncake, true),
            Format::AzureCsv => {
                let columns = Columns::find(&lines).map_err(|mistake| lines.fault(mistake))?;
                (Parser::Azure(columns), false)
            }
        };
        Ok(Rows { lines, parser, pending })
    }

    pub(super) fn format(&self) -> Format {
        match self.parser {
            Parser::Azure(_) => Format::AzureCsv,
            Parser::Mooncake => Format::MooncakeJsonl,
        }
    }

    /// Refuses a row that is earlier than `last`, the one before it.
    pub(super) fn in_order(&self, last: u64, row: &Row) -> Result<(), Fault> {
        if row.nanos >= last {
            return Ok(());
        }
        let early = Span::from_nanos(last - row.nanos);
        Err(self.lines.fault(Mistake {
            code: Code::TraceUnsorted,
            bytes: row.time_bytes.clone(),
            message: format!("this row is {early} earlier than the row before it"),
            label: "out of order".into(),
            help: "sort the file by its timestamp".into(),
        }))
    }

    /// What the prompt of the row that was read last begins with.
    pub(super) fn blocks(&self) -> Result<Option<Vec<u64>>, Fault> {
        match self.parser {
            Parser::Azure(_) => Ok(None),
            Parser::Mooncake => {
                mooncake::blocks(&self.lines).map_err(|mistake| self.lines.fault(mistake))
            }
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Row>, Fault> {
        if !std::mem::take(&mut self.pending) && !self.lines.advance()? {
            return Ok(None);
        }
        let row = match &self.parser {
            Parser::Azure(columns) => columns.row(&self.lines),
            Parser::Mooncake => mooncake::row(&self.lines),
        };
        row.map(Some).map_err(|mistake| self.lines.fault(mistake))
    }

    /// The bytes that state the prompt or output; found only when a message needs them.
    fn mark(&self, bytes: Range<usize>, what: &str) -> Range<usize> {
        match self.parser {
            Parser::Azure(_) => bytes,
            Parser::Mooncake if what == "prompt" => {
                mooncake::value(self.lines.line(), "input_length")
            }
            Parser::Mooncake => mooncake::value(self.lines.line(), "output_length"),
        }
    }
}

impl Draws {
    fn tenant(&mut self, tenants: &[(TenantId, u32)]) -> TenantId {
        let (last, more) = tenants.split_last().expect("a workload has at least one tenant");
        if more.is_empty() {
            return last.0;
        }
        let total: u64 = tenants.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut drawn = self.tenants.below(total.max(1));
        for (tenant, weight) in tenants {
            let weight = u64::from(*weight);
            if drawn < weight {
                return *tenant;
            }
            drawn -= weight;
        }
        last.0
    }
}
