//! Opening a file: plain, zstd or gzip, told apart by their first bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The window of `zstd --long=27`, the largest that the tool itself takes unasked.
const ZSTD_WINDOW_MAX: u64 = 1 << 27;
const BUFFER: usize = 1 << 16;

/// The decompressed bytes of a file.
pub(super) fn open(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    let mut file = BufReader::with_capacity(BUFFER, File::open(path)?);
    let start = file.fill_buf()?;
    if start.starts_with(&ZSTD) {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW_MAX);
        let frames = ZstdFrames { file, decoder, state: State::Between };
        return Ok(Box::new(BufReader::with_capacity(BUFFER, frames)));
    }
    if start.starts_with(&GZIP) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file))));
    }
    Ok(Box::new(file))
}

/// All frames of a zstd file, one after the other.
struct ZstdFrames<R: BufRead> {
    file: R,
    decoder: FrameDecoder,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Between,
    Inside,
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.state {
                State::Between if self.file.fill_buf()?.is_empty() => return Ok(0),
                State::Between => self.begin_frame()?,
                State::Inside if self.decoder.can_collect() > 0 => {
                    return self.decoder.read(buffer);
                }
                State::Inside if self.decoder.is_finished() => self.end_frame()?,
                State::Inside => {
                    let some = BlockDecodingStrategy::UptoBlocks(1);
                    self.decoder
                        .decode_blocks(&mut self.file, some)
                        .map_err(|_| damaged("the zstd data end too early or are damaged"))?;
                }
            }
        }
    }
}

impl<R: BufRead> ZstdFrames<R> {
    fn begin_frame(&mut self) -> io::Result<()> {
        match self.decoder.init(&mut self.file) {
            Ok(()) => {
                self.state = State::Inside;
                Ok(())
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                io::copy(&mut (&mut self.file).take(u64::from(length)), &mut io::sink())?;
                Ok(())
            }
            Err(_) => Err(damaged("what follows is not a zstd frame")),
        }
    }
    fn end_frame(&mut self) -> io::Result<()> {
        let stated = self.decoder.get_checksum_from_data();
        let found = self.decoder.get_calculated_checksum();
        if stated.is_some() && found.is_some() && stated != found {
            return Err(damaged("the checksum does not match"));
        }
        self.state = State::Between;
        Ok(())
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
