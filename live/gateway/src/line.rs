//! A client's connection: given up when the client takes nothing of what is sent to it, and
//! watched for its end while a request is under way.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

/// How often a client that has sent more than it should is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long, and how much, is read of what nobody wants, so that the client can read why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// A connection to read from and to write to. Whoever writes gives up once nothing was taken for
/// `patience`.
pub(crate) struct Line {
    stream: Arc<TcpStream>,
    patience: Duration,
    /// Runs while nothing is taken.
    stuck: Option<Pin<Box<Sleep>>>,
}

/// Whether the client of a connection is still there.
#[derive(Clone)]
pub(crate) struct Peer(Arc<TcpStream>);

impl Peer {
    /// Comes back when the client has hung up, or sends nothing more. Whoever reads HTTP does not
    /// notice that while more than one request was sent.
    pub async fn gone(&self) {
        while let Ok(1..) = self.0.peek(&mut [0]).await {
            sleep(LOOK_EVERY).await;
        }
    }
}

impl Line {
    pub fn new(stream: TcpStream, patience: Duration) -> Line {
        Line { stream: Arc::new(stream), patience, stuck: None }
    }

    pub fn peer(&self) -> Peer {
        Peer(Arc::clone(&self.stream))
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let patience = self.patience;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(patience)));
        stuck.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn write_or_wait(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let Poll::Ready(ready) = self.stream.poll_write_ready(cx) else { return self.wait(cx) };
            ready?;
            match write(&self.stream) {
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
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
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
    let Some(mut stream) = Arc::into_inner(peer.0) else { return };
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
