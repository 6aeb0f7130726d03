//! Connections to a server, kept while they can be used again.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use plimsoll_base::Time;
use plimsoll_config::gateway::Url;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::closed::was_reset;
use crate::device::{Clock, DeviceError};

/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long the answer to a look may take.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// The longest page that is looked at.
const PAGE_BYTES_MAX: usize = 16 << 20;

type Sender = SendRequest<Full<Bytes>>;

/// Whoever talks to the server.
pub(super) struct Client {
    pub url: Url,
    pub clock: Clock,
    authorization: Option<HeaderValue>,
    host: HeaderValue,
    kept: Mutex<Vec<Sender>>,
}

/// An answer that has begun.
pub(super) struct Begun {
    /// When its request was sent.
    pub sent: Time,
    pub response: Response<Incoming>,
    sender: Sender,
}

impl Client {
    /// Nothing is connected yet.
    pub fn new(url: Url, token: Option<&str>) -> Result<Client, DeviceError> {
        let bad = |what: &str| DeviceError::BadUrl { url: url.authority(), what: what.into() };
        let authorization = token.map(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| bad("has a token that no header can carry"))?;
            value.set_sensitive(true);
            Ok::<_, DeviceError>(value)
        });
        let host = HeaderValue::try_from(url.authority()).map_err(|_| bad("has a strange host"))?;
        let authorization = authorization.transpose()?;
        Ok(Client { host, authorization, url, clock: Clock::start(), kept: Mutex::default() })
    }

    /// As it is shown.
    pub fn place(&self) -> String {
        format!("{}://{}{}", self.url.scheme.name(), self.url.authority(), self.url.path)
    }

    /// Posts JSON and waits for the head of the answer.
    pub async fn post(&self, path: &str, body: Bytes) -> Result<Begun, DeviceError> {
        self.send(self.request(Method::POST, path, body)).await
    }

    /// Keeps the connection of an answer that was read to its end.
    pub fn done(&self, begun: Begun) {
        if !begun.sender.is_closed() {
            self.kept.lock().expect("nobody panics while it is held").push(begun.sender);
        }
    }

    /// What stands at a path, with the status that it comes with.
    pub async fn page(&self, path: &str) -> Result<(StatusCode, String), DeviceError> {
        let look = async {
            let begun = self.send(self.request(Method::GET, path, Bytes::new())).await?;
            let status = begun.response.status();
            let text = read(begun.response).await?;
            match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    Err(DeviceError::Refused { status: status.as_u16(), message: said(&text) })
                }
                _ => Ok((status, text)),
            }
        };
        timeout(LOOK_MAX, look).await.unwrap_or(Err(DeviceError::Silent(LOOK_MAX)))
    }

    /// What stands at a path; `None` if there is nothing.
    pub async fn text(&self, path: &str) -> Result<Option<String>, DeviceError> {
        let (status, text) = self.page(path).await?;
        Ok(status.is_success().then_some(text))
    }

    /// What stands at a path, if it is JSON.
    pub async fn json(&self, path: &str) -> Result<Option<serde_json::Value>, DeviceError> {
        let text = self.text(path).await?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        let uri = Uri::try_from(format!("{}{path}", self.url.path));
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.expect("the path of a valid URL, and our own");
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        request
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Begun, DeviceError> {
        // A kept connection may turn out closed: before anything was sent over it, or by a server
        // that had closed it already when the request came, and says nothing.
        while let Some(mut sender) = self.take_kept() {
            let sent = self.clock.now();
            match sender.send_request(request.clone()).await {
                Ok(response) => return Ok(Begun { sent, response, sender }),
                Err(error)
                    if error.is_canceled()
                        || error.is_incomplete_message()
                        || was_reset(&error) => {}
                Err(error) => return Err(DeviceError::BrokeOff(error.to_string())),
            }
        }
        let mut sender = self.connect().await?;
        let sent = self.clock.now();
        match sender.send_request(request).await {
            Ok(response) => Ok(Begun { sent, response, sender }),
            Err(error) if error.is_parse() => Err(self.otherwise("it answers without HTTP/1.1")),
            Err(error) => Err(DeviceError::BrokeOff(error.to_string())),
        }
    }

    /// That it speaks something else.
    pub fn otherwise(&self, what: impl Into<String>) -> DeviceError {
        DeviceError::SpeaksOtherwise { url: self.place(), what: what.into() }
    }

    async fn connect(&self) -> Result<Sender, DeviceError> {
        let away = |why: String| DeviceError::NotThere { url: self.place(), why };
        let address = (self.url.host.as_str(), self.url.port);
        let stream = match timeout(CONNECT_MAX, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(away(error.to_string())),
            Err(_) => return Err(away(format!("no answer in {} s", CONNECT_MAX.as_secs()))),
        };
        stream.set_nodelay(true).map_err(|error| away(error.to_string()))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| away(error.to_string()))?;
        // Ends when the sender is dropped, which breaks off what it carries.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn take_kept(&self) -> Option<Sender> {
        let mut kept = self.kept.lock().expect("nobody panics while it is held");
        while let Some(sender) = kept.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }
}

/// A whole body as text.
pub(super) async fn read(response: Response<Incoming>) -> Result<String, DeviceError> {
    let body = Limited::new(response.into_body(), PAGE_BYTES_MAX).collect().await;
    let body = body.map_err(|error| DeviceError::BrokeOff(error.to_string()))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

/// What an error's body says, in a line.
pub(super) fn said(body: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let message = ["/error/message", "/message", "/detail", "/error"]
        .into_iter()
        .find_map(|place| value.pointer(place)?.as_str().map(str::to_owned));
    let message = message.unwrap_or_else(|| body.trim().to_owned());
    match message.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message,
    }
}
