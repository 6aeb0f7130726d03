//! Bytes to inputs and decisions.

use super::bytes::{Cursor, Malformed};
use super::chain::{Chain, DecisionHash};
use super::error::{LogError, Problem};
use super::frame::{HEAD, Head, Kind};
use super::input::Base;
use super::{Header, MAGIC, Record, SCHEMA_VERSION, record};

/// Bytes before the first block: the magic and the format's version.
const PREFIX: usize = MAGIC.len() + 2;
/// Bytes of a hash.
const HASH: usize = 16;

/// Reads a log from its bytes, a block at a time; its records, in order. After an error, and
/// after the end, there are none.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    /// Where the next block begins.
    at: usize,
    header: Header,
    /// The open block, where it begins in the file, and what of it was read.
    block: Vec<u8>,
    block_at: usize,
    within: usize,
    base: Base,
    chain: Chain,
    totals: Totals,
    ending: Option<Ending>,
    failed: bool,
}

/// What a log holds, as far as it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Inputs.
    pub inputs: u64,
    /// Decisions.
    pub decisions: u64,
    /// Signals.
    pub signals: u64,
}

/// How a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With its trailer: nothing is missing.
    Whole,
    /// Whoever wrote it was cut off; the last whole block ends at this byte.
    Cut(u64),
}

impl<'a> Reader<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// If this is no decision log, one of another format, or its header is damaged.
    pub fn new(bytes: &'a [u8]) -> Result<Reader<'a>, LogError> {
        let fail = |at: usize, problem| Err(LogError { at: at as u64, problem });
        if bytes.is_empty() {
            return fail(0, Problem::Empty);
        }
        if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
            return fail(0, Problem::Foreign);
        }
        let Some(version) = bytes.get(MAGIC.len()..PREFIX) else {
            return fail(bytes.len(), Problem::NoHeader);
        };
        let version = u16::from_le_bytes([version[0], version[1]]);
        if version != SCHEMA_VERSION {
            return fail(MAGIC.len(), Problem::Version(version));
        }
        let mut reader = Reader {
            bytes,
            at: PREFIX,
            header: Header::default(),
            block: Vec::new(),
            block_at: PREFIX,
            within: 0,
            base: Base::default(),
            chain: Chain::new(),
            totals: Totals::default(),
            ending: None,
            failed: false,
        };
        match reader.open_block()? {
            Some(Kind::Header) => {}
            Some(Kind::Records | Kind::Trailer) => {
                return fail(PREFIX, Problem::BlockOrder("the log does not begin with a header"));
            }
            None => return fail(bytes.len(), Problem::NoHeader),
        }
        reader.header = Header::of_json(&reader.block)
            .map_err(|(build, why)| reader.error(Problem::Header(build, why)))?;
        reader.block.clear();
        Ok(reader)
    }

    /// What the log says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }
    /// How it ends; `None` before the end.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }
    /// What was read so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }
    /// The hash of the decisions read so far.
    pub fn hash(&self) -> DecisionHash {
        self.chain.hash()
    }

    fn error(&self, problem: Problem) -> LogError {
        LogError { at: self.block_at as u64, problem }
    }
    fn malformed(&self, malformed: Malformed) -> LogError {
        self.error(Problem::Record(malformed, self.within))
    }

    /// Opens the next block; `None` where the bytes end before it does.
    fn open_block(&mut self) -> Result<Option<Kind>, LogError> {
        self.block_at = self.at;
        let rest = &self.bytes[self.at..];
        let Some(head) = rest.first_chunk::<HEAD>() else { return Ok(None) };
        let head = Head::parse(head).map_err(|problem| self.error(problem))?;
        let Some(payload) = rest[HEAD..].get(..head.stored) else { return Ok(None) };
        head.open(payload, &mut self.block)
            .map_err(|problem| LogError { at: (self.at + HEAD) as u64, problem })?;
        self.at += HEAD + head.stored;
        self.within = 0;
        Ok(Some(head.kind))
    }

    fn record(&mut self) -> Result<Option<Record>, LogError> {
        while self.within == self.block.len().saturating_sub(HASH) {
            if !self.block.is_empty() {
                self.check_hash()?;
                self.block.clear();
            }
            match self.open_block()? {
                Some(Kind::Records) => self.begin_records()?,
                Some(Kind::Trailer) => {
                    self.check_trailer()?;
                    self.ending = Some(Ending::Whole);
                    return Ok(None);
                }
                Some(Kind::Header) => {
                    return Err(self.error(Problem::BlockOrder("a second header")));
                }
                None => {
                    self.ending = Some(Ending::Cut(self.at as u64));
                    return Ok(None);
                }
            }
        }
        self.next_record().map(Some)
    }

    /// The bytes of the open block that hold records.
    fn records(&self) -> &[u8] {
        &self.block[..self.block.len() - HASH]
    }

    fn begin_records(&mut self) -> Result<(), LogError> {
        if self.block.len() < HASH {
            return Err(self.malformed(Malformed::Ends("a hash")));
        }
        let mut cursor = Cursor::new(self.records(), 0);
        let mut number = |what| cursor.number(what).map_err(|wrong| self.malformed(wrong));
        let first = number("the number of an input")?;
        let base = Base { now: number("a time")?, newest: number("a request id")? };
        if first != self.totals.inputs {
            return Err(self.error(Problem::Gap(first, self.totals.inputs)));
        }
        if base != self.base {
            let what = "the block does not begin where the one before it ended";
            return Err(self.error(Problem::BlockOrder(what)));
        }
        self.within = cursor.at();
        Ok(())
    }

    fn next_record(&mut self) -> Result<Record, LogError> {
        let number = self.totals.inputs;
        let mut base = self.base;
        let mut cursor = Cursor::new(self.records(), self.within);
        let record = record::read(number, &mut cursor, &mut base)
            .map_err(|wrong| self.malformed(wrong))?
            .ok_or_else(|| self.error(Problem::Time(number)))?;
        (self.within, self.base) = (cursor.at(), base);
        self.totals.inputs += 1;
        self.totals.decisions += record.decisions.len() as u64;
        self.totals.signals += record.signals.len() as u64;
        record.decisions.iter().for_each(|made| self.chain.decision(number, made));
        record.signals.iter().for_each(|given| self.chain.signal(number, given));
        Ok(record)
    }

    /// The hash that the open block ends with is that of what was read.
    fn check_hash(&self) -> Result<(), LogError> {
        let stated = self.block.last_chunk::<HASH>().expect("a block of records has a hash");
        let stated = DecisionHash(u128::from_le_bytes(*stated));
        let found = self.chain.hash();
        if found == stated { Ok(()) } else { Err(self.error(Problem::Hash(found, stated))) }
    }

    fn check_trailer(&mut self) -> Result<(), LogError> {
        let mut cursor = Cursor::new(&self.block, 0);
        let mut number = |what| cursor.number(what).map_err(|wrong| self.malformed(wrong));
        let stated = Totals {
            inputs: number("a number of inputs")?,
            decisions: number("a number of decisions")?,
            signals: number("a number of signals")?,
        };
        let hash = cursor.array::<HASH>("a hash").map_err(|wrong| self.malformed(wrong))?;
        if stated != self.totals || cursor.at() != self.block.len() {
            return Err(self.error(Problem::Counts));
        }
        let (found, stated) = (self.chain.hash(), DecisionHash(u128::from_le_bytes(hash)));
        if found != stated {
            return Err(self.error(Problem::Hash(found, stated)));
        }
        if self.at != self.bytes.len() {
            return Err(LogError { at: self.at as u64, problem: Problem::Trailing });
        }
        Ok(())
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Record, LogError>;

    fn next(&mut self) -> Option<Result<Record, LogError>> {
        if self.failed || self.ending.is_some() {
            return None;
        }
        let read = self.record();
        self.failed = read.is_err();
        read.transpose()
    }
}
