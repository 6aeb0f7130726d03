//! A backend as the gateway talks to it: connections that are kept a while, and requests that are
//! rebuilt from what the gateway knows.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
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

/// A backend.
pub(crate) struct Upstream {
    pub backend: Backend,
    /// What has become of its requests.
    pub breaker: Breaker,
    authorization: Option<HeaderValue>,
    host: HeaderValue,
    /// Connections without a request, and since when.
    kept: Mutex<Vec<(Sender, Instant)>>,
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
    pub response: Response<Incoming>,
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
        self.upstream.keep(self.sender);
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
        // A kept connection may turn out closed before anything was sent over it.
        while let Some(mut sender) = self.take_kept() {
            match sender.try_send_request(request).await {
                Ok(response) => {
                    return Ok(Begun { response, sender, upstream: Arc::clone(self) });
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Broken::Answer(error.into_error().to_string())),
                },
            }
        }
        let mut sender = match timeout(connect, self.connect()).await {
            Ok(Ok(sender)) => sender,
            Ok(Err(error)) => return Err(Broken::Connect(error)),
            Err(_) => return Err(Broken::Connect("connecting took too long".to_owned())),
        };
        match sender.try_send_request(request).await {
            Ok(response) => Ok(Begun { response, sender, upstream: Arc::clone(self) }),
            Err(error) if error.message().is_some() => {
                Err(Broken::Connect("the connection broke off before anything was sent".to_owned()))
            }
            Err(error) => Err(Broken::Answer(error.into_error().to_string())),
        }
    }

    async fn connect(&self) -> Result<Sender, String> {
        let address = (self.backend.url.host.as_str(), self.backend.url.port);
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        match self.backend.url.scheme {
            Scheme::Http => open(stream).await,
            Scheme::Https => open(connector()?.connect(address.0, stream).await?).await,
        }
    }

    fn take_kept(&self) -> Option<Sender> {
        let mut kept = self.kept.lock().expect("nobody panics while it is held");
        while let Some((sender, since)) = kept.pop() {
            if since.elapsed() < IDLE_MAX && sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut kept = self.kept.lock().expect("nobody panics while it is held");
        if kept.len() < KEPT_MAX {
            kept.push((sender, Instant::now()));
        }
    }
}

/// How backends are spoken to over TLS; whom this machine trusts is read once.
pub(crate) fn connector() -> Result<Connector, String> {
    static CONNECTOR: OnceLock<Result<Connector, String>> = OnceLock::new();
    CONNECTOR.get_or_init(Connector::native).clone()
}

async fn open<S>(stream: S) -> Result<Sender, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends when the sender is dropped, which breaks off what it carries.
    tokio::spawn(connection);
    Ok(sender)
}
