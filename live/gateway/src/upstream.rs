//! A backend as the gateway talks to it: connections that are kept a while, and requests that are
//! rebuilt from what the gateway knows.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use plimsoll_config::gateway::{Backend, Scheme};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::breaker::Breaker;
use crate::tls::Connector;

/// How long a connection without a request is kept: less than the 5 s after which uvicorn, which
/// most servers of this kind stand on, closes it.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Connections that are kept; more are closed when their request is done.
const KEPT_MAX: usize = 512;

type Sender = SendRequest<Full<Bytes>>;

/// What moves the bytes of a connection. It has no task of its own: whoever waits for an answer
/// drives it, and is woken once for what would else wake two.
struct Wire {
    /// `None` once it is over. It is dropped then, and with it a request that it did not send.
    moves: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
}

impl Wire {
    /// Waits for something that comes over it.
    async fn drive<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| self.poll_with(context, |context| future.as_mut().poll(context))).await
    }

    fn poll_with<T>(
        &mut self,
        context: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let polled = poll(context);
        let Some(moves) = self.moves.as_mut().filter(|_| polled.is_pending()) else {
            return polled;
        };
        if moves.as_mut().poll(context).is_ready() {
            self.moves = None;
        }
        poll(context)
    }

    /// Whether it is over by now.
    fn is_over(&mut self) -> bool {
        let _ = self.drive(std::future::pending::<()>()).now_or_never();
        self.moves.is_none()
    }
}

/// The body of an answer, and the wire that it comes over.
pub(crate) struct Answer {
    incoming: Incoming,
    wire: Wire,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;
    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Answer { incoming, wire } = self.get_mut();
        wire.poll_with(context, |context| Pin::new(&mut *incoming).poll_frame(context))
    }
    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// A connection without a request.
struct Kept {
    sender: Sender,
    wire: Wire,
    since: Instant,
}

/// A backend.
pub(crate) struct Upstream {
    pub backend: Backend,
    /// What has become of its requests.
    pub breaker: Breaker,
    authorization: Option<HeaderValue>,
    host: HeaderValue,
    /// Those used last at the end.
    kept: Mutex<VecDeque<Kept>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Broken {
    /// It could not be reached: nothing was sent.
    Connect(String),
    /// It was reached and broke off.
    Answer(String),
}

/// An answer that has begun, and the connection that it comes over.
pub(crate) struct Begun {
    pub response: Response<Answer>,
    sender: Sender,
    upstream: Arc<Upstream>,
}

impl Begun {
    /// Who answers.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// The whole answer was read: the connection may carry another request.
    pub fn done(self) {
        self.upstream.keep(self.sender, self.response.into_body().wire);
    }
}

impl Upstream {
    /// A backend that wants this bearer token. Nothing is connected yet.
    pub fn new(backend: Backend, token: Option<&str>) -> Upstream {
        let sensitive = |token: &str| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        let host = HeaderValue::try_from(backend.url.authority());
        Upstream {
            authorization: token.and_then(sensitive),
            host: host.expect("the authority of a valid URL"),
            kept: Mutex::default(),
            breaker: Breaker::default(),
            backend,
        }
    }

    /// Whether the other is the same in every respect.
    pub fn is_same(&self, other: &Upstream) -> bool {
        self.backend == other.backend && self.authorization == other.authorization
    }

    /// Posts JSON. The time for connecting counts apart; that for the answer is the caller's.
    pub async fn post(
        self: &Arc<Upstream>,
        path: &str,
        body: Bytes,
        (id, connect): (&str, Duration),
    ) -> Result<Begun, Broken> {
        let mut request = self.request(Method::POST, path, body);
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(id) = HeaderValue::try_from(id) {
            headers.insert("x-request-id", id);
        }
        self.send(request, connect).await
    }

    /// Gets a path.
    pub async fn get(self: &Arc<Upstream>, path: &str, connect: Duration) -> Result<Begun, Broken> {
        self.send(self.request(Method::GET, path, Bytes::new()), connect).await
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        let uri = Uri::try_from(format!("{}{path}", self.backend.url.path));
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.expect("a path of the file, or our own");
        request.headers_mut().insert(HOST, self.host.clone());
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        request
    }

    async fn send(
        self: &Arc<Upstream>,
        mut request: Request<Full<Bytes>>,
        connect: Duration,
    ) -> Result<Begun, Broken> {
        // Who cannot be reached has seen nothing, and another backend may be tried; unless a
        // connection was closed under the request, which may be why.
        let mut unreached: fn(String) -> Broken = Broken::Connect;
        // A kept connection may turn out closed before anything was sent over it.
        while let Some((mut sender, mut wire)) = self.take_kept() {
            let copy = request.clone();
            match wire.drive(sender.try_send_request(request)).await {
                Ok(response) => return Ok(self.begun(response, (sender, wire))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => {
                        let error = error.into_error();
                        if !error.is_incomplete_message() {
                            return Err(Broken::Answer(error.to_string()));
                        }
                        // It was closed in order, without a word of an answer: most likely because
                        // it had been idle, while the request was on its way.
                        (request, unreached) = (copy, Broken::Answer);
                        break;
                    }
                },
            }
        }
        let (mut sender, mut wire) = match timeout(connect, self.connect()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(unreached(error)),
            Err(_) => return Err(unreached("connecting took too long".to_owned())),
        };
        match wire.drive(sender.try_send_request(request)).await {
            Ok(response) => Ok(self.begun(response, (sender, wire))),
            Err(error) if error.message().is_some() => {
                Err(unreached("the connection broke off before anything was sent".to_owned()))
            }
            Err(error) => Err(Broken::Answer(error.into_error().to_string())),
        }
    }

    fn begun(
        self: &Arc<Upstream>,
        response: Response<Incoming>,
        (sender, wire): (Sender, Wire),
    ) -> Begun {
        let response = response.map(|incoming| Answer { incoming, wire });
        Begun { response, sender, upstream: Arc::clone(self) }
    }

    async fn connect(&self) -> Result<(Sender, Wire), String> {
        let address = (self.backend.url.host.as_str(), self.backend.url.port);
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        match self.backend.url.scheme {
            Scheme::Http => open(stream).await,
            Scheme::Https => open(connector()?.connect(address.0, stream).await?).await,
        }
    }

    fn take_kept(&self) -> Option<(Sender, Wire)> {
        loop {
            let kept = self.kept.lock().expect("nobody panics while it is held").pop_back();
            let Kept { sender, mut wire, since } = kept?;
            // Nobody has driven it since, who would have been told of its end.
            if since.elapsed() < IDLE_MAX && !wire.is_over() && sender.is_ready() {
                return Some((sender, wire));
            }
        }
    }

    fn keep(&self, sender: Sender, mut wire: Wire) {
        self.sweep();
        if wire.is_over() {
            return;
        }
        let mut kept = self.kept.lock().expect("nobody panics while it is held");
        if kept.len() < KEPT_MAX {
            kept.push_back(Kept { sender, wire, since: Instant::now() });
        }
    }

    /// Closes connections that have not been used for long.
    pub fn sweep(&self) {
        let mut kept = self.kept.lock().expect("nobody panics while it is held");
        while kept.front().is_some_and(|kept| kept.since.elapsed() >= IDLE_MAX) {
            kept.pop_front();
        }
    }
}

/// How backends are spoken to over TLS; whom this machine trusts is read once.
pub(crate) fn connector() -> Result<Connector, String> {
    static CONNECTOR: OnceLock<Result<Connector, String>> = OnceLock::new();
    CONNECTOR.get_or_init(Connector::native).clone()
}

async fn open<S>(stream: S) -> Result<(Sender, Wire), String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    Ok((sender, Wire { moves: Some(Box::pin(connection)) }))
}
