//! Frames: each block with its kind, its sizes and checksums of both, so that damage is found
//! before a byte of it is believed, and a file that was cut off is told from one that is damaged.
//!
//! ```text
//! kind u8 · coding u8 · stored u32 · raw u32 · CRC-32 of the payload u32 · CRC-32 of those u32
//! payload: `stored` bytes, which the coding turns into `raw` bytes
//! ```

use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};

use super::error::Problem;

/// Bytes before a payload.
pub(super) const HEAD: usize = 18;
/// A payload is at most so long, stored or not: a damaged length must not eat the memory.
pub(super) const PAYLOAD_MAX: usize = 1 << 26;

const PLAIN: u8 = 0;
const DEFLATED: u8 = 1;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Header,
    Records,
    Trailer,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Header => b'H',
            Kind::Records => b'R',
            Kind::Trailer => b'T',
        }
    }
    fn of(code: u8) -> Option<Kind> {
        [Kind::Header, Kind::Records, Kind::Trailer].into_iter().find(|kind| kind.code() == code)
    }
}

/// Appends blocks.
pub(super) struct Framer {
    compress: Compress,
    deflated: Vec<u8>,
}

impl Framer {
    /// Compresses at the fastest level: recording stands in the way of what is recorded.
    pub fn new() -> Framer {
        Framer { compress: Compress::new(Compression::fast(), false), deflated: Vec::new() }
    }

    /// Appends a block to `out`; compressed where that makes it shorter.
    pub fn frame(&mut self, kind: Kind, raw: &[u8], out: &mut Vec<u8>) {
        self.deflated.clear();
        self.deflated.reserve(raw.len() + raw.len() / 8 + 64);
        self.compress.reset();
        let done = self.compress.compress_vec(raw, &mut self.deflated, FlushCompress::Finish);
        let shorter = matches!(done, Ok(Status::StreamEnd)) && self.deflated.len() < raw.len();
        let (coding, stored) = if shorter { (DEFLATED, &self.deflated[..]) } else { (PLAIN, raw) };
        let begin = out.len();
        out.extend([kind.code(), coding]);
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a block is below 4 GiB");
        for number in [size(stored), size(raw), crc(stored)] {
            out.extend(number.to_le_bytes());
        }
        let check = crc(&out[begin..]);
        out.extend(check.to_le_bytes());
        out.extend_from_slice(stored);
    }
}

impl std::fmt::Debug for Framer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Framer")
    }
}

/// The head of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub kind: Kind,
    coding: u8,
    pub stored: usize,
    raw: usize,
    check: u32,
}

impl Head {
    /// Reads a head, which must be whole.
    pub fn parse(bytes: &[u8; HEAD]) -> Result<Head, Problem> {
        let word = |at: usize| {
            let word = bytes[at..].first_chunk().expect("a head has room for its words");
            u32::from_le_bytes(*word)
        };
        if crc(&bytes[..HEAD - 4]) != word(HEAD - 4) {
            return Err(Problem::HeadChecksum);
        }
        let kind = Kind::of(bytes[0]).ok_or(Problem::BlockKind(bytes[0]))?;
        let (coding, stored, raw) = (bytes[1], word(2) as usize, word(6) as usize);
        if coding > DEFLATED {
            return Err(Problem::Coding(coding));
        }
        if stored.max(raw) > PAYLOAD_MAX || (coding == PLAIN && stored != raw) {
            return Err(Problem::BlockSize(stored.max(raw)));
        }
        Ok(Head { kind, coding, stored, raw, check: word(10) })
    }

    /// Turns the payload into its raw bytes.
    pub fn open(&self, payload: &[u8], raw: &mut Vec<u8>) -> Result<(), Problem> {
        raw.clear();
        if crc(payload) != self.check {
            return Err(Problem::PayloadChecksum);
        }
        if self.coding == PLAIN {
            raw.extend_from_slice(payload);
            return Ok(());
        }
        raw.reserve_exact(self.raw + 1);
        let mut decompress = Decompress::new(false);
        let done = decompress.decompress_vec(payload, raw, FlushDecompress::Finish);
        let whole = decompress.total_in() == payload.len() as u64 && raw.len() == self.raw;
        if !matches!(done, Ok(Status::StreamEnd)) || !whole {
            return Err(Problem::Deflate);
        }
        Ok(())
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}
