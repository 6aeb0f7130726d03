//! The body of an answer, frame by frame, and what goes wrong with it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;

use super::answer::Answer;
use super::books::Entry;
use super::desk::Ticket;
use super::fault::Fault;
use super::line::Doom;

/// A body of a response.
pub(super) type Body = UnsyncBoxBody<Bytes, Broken>;

/// Why a response ends before its end: on purpose.
#[derive(Debug)]
pub(super) struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a fault on purpose")
    }
}
impl std::error::Error for Broken {}

/// How long a connection gets to send what it was given before it breaks.
const FLUSH: Duration = Duration::from_millis(20);

/// A body that is there at once.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The frames of an answer: the first token, the others so many at once as the engine delivers
/// them, then the rest.
#[derive(Debug)]
pub(super) struct Script {
    ticket: Ticket,
    first: Bytes,
    /// The tokens of one interval, and those left over for the last.
    some: Bytes,
    last: Bytes,
    interval: u32,
    told: u32,
    delivered: u32,
    tokens: u32,
    rest: std::vec::IntoIter<Bytes>,
    entry: Entry,
}

impl Script {
    /// A stream of so many tokens, an interval of them at once, with what follows the last.
    pub fn stream(
        (ticket, entry): (Ticket, Entry),
        answer: &Answer,
        (tokens, interval, rest): (u32, u32, Vec<Bytes>),
    ) -> Script {
        Script {
            ticket,
            first: answer.first_frame(),
            some: answer.tokens_frame(interval),
            last: answer.tokens_frame(tokens.saturating_sub(1) % interval),
            interval,
            told: 0,
            delivered: 0,
            tokens,
            rest: rest.into_iter(),
            entry,
        }
    }

    /// An answer in parts, for whoever does not stream.
    pub fn parts((ticket, entry): (Ticket, Entry), parts: Vec<Bytes>) -> Script {
        let none = Bytes::new();
        let (first, some, last) = (none.clone(), none.clone(), none);
        let (told, delivered, tokens, interval) = (0, 0, 0, 1);
        let rest = parts.into_iter();
        Script { ticket, first, some, last, interval, told, delivered, tokens, rest, entry }
    }

    /// The next frame; `None` if there is none, or if the engine is gone.
    async fn next(&mut self) -> Option<Bytes> {
        if self.told < self.tokens {
            let left = self.tokens - self.told;
            let (count, frame) = match self.told {
                0 => (1, &self.first),
                _ if left < self.interval => (left, &self.last),
                _ => (self.interval, &self.some),
            };
            let frame = frame.clone();
            if self.delivered < self.told + count {
                self.delivered = self.ticket.beyond(self.told + count - 1).await?;
            }
            self.told += count;
            return Some(frame);
        }
        let frame = self.rest.next();
        if self.rest.len() == 0 {
            self.entry.finish();
        }
        frame
    }
}

/// A script, and where it is left.
#[derive(Debug)]
pub(super) struct Play {
    pub script: Script,
    /// What goes wrong, after how many frames.
    pub fault: Option<(Fault, u32)>,
    /// What is said if the fault is [`Fault::Malformed`].
    pub junk: Bytes,
    pub doom: Doom,
    told: u32,
    breaks: bool,
}

impl Play {
    pub fn new(script: Script, fault: Option<(Fault, u32)>, (junk, doom): (Bytes, Doom)) -> Play {
        Play { script, fault, junk, doom, told: 0, breaks: false }
    }

    /// The body that plays it. Whoever drops it has left.
    pub fn body(self) -> Body {
        let frames = stream::unfold(self, |mut play| async {
            let frame = play.next().await?;
            Some((frame.map(Frame::data), play))
        });
        StreamBody::new(frames).boxed_unsync()
    }

    async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        if self.breaks {
            tokio::time::sleep(FLUSH).await;
            return Some(Err(Broken));
        }
        match self.fault.take_if(|(_, after)| *after == self.told) {
            Some((fault, _)) => self.go_wrong(fault).await,
            None => self.go_on().await,
        }
    }

    async fn go_on(&mut self) -> Option<Result<Bytes, Broken>> {
        let frame = self.script.next().await?;
        self.told += 1;
        Some(Ok(frame))
    }

    async fn go_wrong(&mut self, fault: Fault) -> Option<Result<Bytes, Broken>> {
        match fault {
            Fault::StallFirst | Fault::Stall => std::future::pending().await,
            Fault::Truncate => None,
            Fault::Malformed => Some(Ok(self.junk.clone())),
            Fault::Reset => {
                self.doom.seal();
                tokio::time::sleep(FLUSH).await;
                Some(Err(Broken))
            }
            Fault::Cut => {
                self.breaks = true;
                let frame = self.script.next().await?;
                Some(Ok(frame.slice(..frame.len() / 2)))
            }
            Fault::Refuse
            | Fault::Hang
            | Fault::SlowHeaders
            | Fault::Status500
            | Fault::Status503
            | Fault::WrongType => self.go_on().await,
        }
    }
}
