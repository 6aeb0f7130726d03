//! A client's connection: given up when the client takes nothing of what is sent to it, and
//! watched for its end while a request is under way.

use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use plimsoll_driver::Revocation;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

/// How often a client that has sent more than it should is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long, and how much, is read of what nobody wants, so that the client can read why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// A connection to read from and to write to. Whoever writes gives up once nothing was taken for
/// `patience`, or the [`Term`] of what is written is over.
pub(crate) struct Line {
    wire: Arc<Wire>,
    patience: Duration,
    /// Runs while nothing is taken.
    stuck: Option<Pin<Box<Sleep>>>,
}

struct Wire {
    stream: TcpStream,
    term: Mutex<Option<Term>>,
}

/// How long an answer may take, however slowly its client reads: nobody asks an answer for more
/// while its client takes nothing, so the line watches this in its place.
pub(crate) struct Term {
    pub until: Instant,
    pub revocation: Revocation,
}

/// The client of a connection, as whoever answers it sees it.
#[derive(Clone)]
pub(crate) struct Peer(Arc<Wire>);

impl Peer {
    /// Comes back when the client has hung up, or sends nothing more. Whoever reads HTTP does not
    /// notice that while more than one request was sent.
    pub async fn gone(&self) {
        let mut watch = self.watch();
        poll_fn(|context| watch.poll_gone(context)).await;
    }

    /// The same, for whoever polls.
    pub fn watch(&self) -> Watch {
        Watch { peer: self.clone(), again: None }
    }

    /// Whether an answer is written that is held to a term: a stream after its first token.
    pub fn is_streaming(&self) -> bool {
        self.0.term().is_some()
    }

    /// Holds what is written to a term, until what comes back is dropped.
    pub fn hold_to(&self, term: Term) -> Held {
        *self.0.term() = Some(term);
        Held(self.clone())
    }
}

impl Wire {
    fn term(&self) -> MutexGuard<'_, Option<Term>> {
        self.term.lock().expect("nobody panics while it is held")
    }
}

/// What is written is held to a term.
pub(crate) struct Held(Peer);

impl Drop for Held {
    fn drop(&mut self) {
        *self.0.0.term() = None;
    }
}

/// Waits for a client to hang up.
pub(crate) struct Watch {
    peer: Peer,
    /// When the client is looked at again.
    again: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    /// Ready when the client has hung up, or sends nothing more.
    pub fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(again) = &mut self.again {
                ready!(again.as_mut().poll(context));
                self.again = None;
            }
            let mut byte = [0];
            match ready!(self.peer.0.stream.poll_peek(context, &mut ReadBuf::new(&mut byte))) {
                Ok(1..) => self.again = Some(Box::pin(sleep(LOOK_EVERY))),
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl Line {
    pub fn new(stream: TcpStream, patience: Duration) -> Line {
        let wire = Arc::new(Wire { stream, term: Mutex::new(None) });
        Line { wire, patience, stuck: None }
    }

    pub fn peer(&self) -> Peer {
        Peer(Arc::clone(&self.wire))
    }

    fn wait(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let until = Instant::now() + self.patience;
        let term = self.wire.term();
        let end = term.as_ref().map_or(until, |term| term.until.min(until));
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep_until(end)));
        let is_over = stuck.as_mut().poll(context).is_ready()
            || term.as_ref().is_some_and(|term| term.revocation.poll_revoked(context).is_ready());
        if is_over { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { Poll::Pending }
    }

    fn write_or_wait(
        &mut self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let Poll::Ready(ready) = self.wire.stream.poll_write_ready(context) else {
                return self.wait(context);
            };
            ready?;
            match write(&self.wire.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.stuck = None;
                    return Poll::Ready(written);
                }
            }
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = &self.wire.stream;
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let mut read = None;
            let _ = stream.try_io(Interest::READABLE, || {
                let count = stream.try_read_buf(buffer);
                // Less than there was room for was all: epoll will tell of more, and the socket need
                // not be asked in vain.
                let is_all = matches!(count, Ok(1..)) && buffer.remaining() > 0;
                read = Some(count);
                match cfg!(target_os = "linux") && is_all {
                    true => Err(io::ErrorKind::WouldBlock.into()),
                    false => Ok(()),
                }
            });
            match read {
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Some(read) => return Poll::Ready(read.map(drop)),
                None => {}
            }
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write_or_wait(cx, |stream| stream.try_write(bytes))
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write_or_wait(cx, |stream| stream.try_write_vectored(slices))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    /// Left to [`hang_up`], which has the connection for itself.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Closes a connection that nobody uses any more. What the client still sends is read for a moment:
/// were it closed upon unread bytes, the client would lose the answer that it has not read.
pub(crate) async fn hang_up(peer: Peer) {
    let Some(Wire { mut stream, .. }) = Arc::into_inner(peer.0) else { return };
    let _ = stream.shutdown().await;
    let read = async {
        let (mut bytes, mut count) = ([0; 4096], 0);
        while let Ok(read @ 1..) = stream.read(&mut bytes).await
            && count < LINGER_BYTES
        {
            count += read;
        }
    };
    let _ = timeout(LINGER, read).await;
}
