//! A request for inference, from its body to its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use plimsoll_base::{End, Span};
use plimsoll_config::gateway::{Deadlines, PriorityOrder};
use plimsoll_driver::{Refused, Ticket};
use plimsoll_policy::RequestInfo;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::answer::{Body, Problem, whole};
use crate::body::Asked;
use crate::identity;
use crate::line::Peer;
use crate::relay::{self, Stream};
use crate::state::{Current, Shared};
use crate::upstream::{Begun, Broken, Upstream};

/// What an answer says of its length.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Usage {
    #[serde(default)]
    pub prompt_tokens: u32,
    #[serde(default)]
    pub completion_tokens: u32,
}

impl Usage {
    /// Writes down what a finished request had used, as far as its backend says so, and learns from
    /// it how many tokens the bytes of a prompt for the model are.
    pub fn settle(
        self,
        ticket: &mut Ticket,
        (model, prompt_bytes): (&str, usize),
        shared: &Shared,
    ) {
        let used = ticket.used();
        if self.prompt_tokens > 0 {
            shared.ratios.learn(model, prompt_bytes, self.prompt_tokens);
            used.prompt_tokens = self.prompt_tokens;
        }
        used.output_tokens = used.output_tokens.max(self.completion_tokens);
    }
}

/// A request on its way.
pub(crate) struct Job {
    pub shared: Arc<Shared>,
    pub current: Arc<Current>,
    pub asked: Asked,
    pub info: RequestInfo,
    /// The client's number for it, or ours.
    pub id: String,
    /// Held as long as the body is.
    _room: OwnedSemaphorePermit,
}

impl Job {
    /// What a request asks for, after its key and its headers.
    ///
    /// # Errors
    /// If anything is wrong with it.
    pub fn read(
        (shared, current): (&Arc<Shared>, &Arc<Current>),
        caller: &identity::Caller,
        headers: &HeaderMap,
        (asked, id, room): (Asked, String, OwnedSemaphorePermit),
    ) -> Result<Job, Problem> {
        let info = identity::inference(headers, &asked, caller, (shared, current))?;
        let (shared, current) = (Arc::clone(shared), Arc::clone(current));
        Ok(Job { shared, current, asked, info, id, _room: room })
    }

    /// Waits for its turn, has a backend answer it, and passes the answer on. Dropping the future
    /// frees whatever it held.
    ///
    /// # Errors
    /// If it was refused, or no backend answered it in time or truthfully.
    pub async fn run(mut self, peer: &Peer) -> Result<Response<Body>, Problem> {
        let retries = self.current.file.limits.retries;
        loop {
            let pending = self.shared.gate.submit(self.info);
            let ticket = match pending {
                Ok(pending) => pending.admitted().await,
                Err(refused) => Err(refused),
            };
            let ticket = ticket.map_err(|refused| self.refused(&refused))?;
            // The file may have been read again while it waited.
            self.current = self.shared.current();
            match self.go(ticket, peer).await {
                Err(Stopped::Unreached(_)) if u32::from(self.info.attempt) < retries => {
                    self.info.attempt += 1;
                }
                Err(Stopped::Unreached(problem) | Stopped::Broken(problem)) => return Err(problem),
                Ok(response) => return Ok(response),
            }
        }
    }

    fn refused(&self, refused: &Refused) -> Problem {
        let names = &self.current.file.names;
        let class = refused.class.map(|class| names.class(class));
        tracing::info!(
            id = self.id, tenant = self.info.tenant.0, class, refused = ?refused.refusal,
            rule = refused.reason.map(|reason| reason.name()), "refused"
        );
        Problem::refused(refused, class.as_deref())
    }

    /// Sends it where it may go.
    async fn go(&self, ticket: Ticket, peer: &Peer) -> Result<Response<Body>, Stopped> {
        let deadlines = self.current.file.deadlines[ticket.class().index()];
        let slot = ticket.backend().index();
        let Some(upstream) = self.current.places.upstream(slot) else {
            ticket.end(End::Failed);
            let problem = Problem::new(StatusCode::BAD_GATEWAY, "backend_gone", "it was removed");
            return Err(Stopped::Unreached(problem));
        };
        let began = Instant::now();
        let times = Times { began, deadlines };
        let priority = ticket.priority();
        let begun = tokio::select! {
            begun = self.begin(upstream, priority, times) => begun,
            () = ticket.revoked() => {
                ticket.end(End::Evicted);
                return Err(Stopped::Broken(evicted()));
            }
        };
        let other = || self.current.places.has_other(upstream, self.info.model);
        match begun {
            Ok(begun) if self.asked.streams && begun.response.status() == StatusCode::OK => {
                let stream = Stream::new(self, begun, ticket, times);
                relay::begin(stream, peer).await.map_err(Stopped::Broken)
            }
            Ok(begun) => {
                let answered = self.whole(begun, ticket, times).await;
                match &answered {
                    Ok(_) => upstream.breaker.well(),
                    Err(problem) if problem.status == StatusCode::SERVICE_UNAVAILABLE => {}
                    Err(_) => upstream.breaker.broke(other),
                }
                answered.map_err(Stopped::Broken)
            }
            Err(stopped) => {
                match &stopped {
                    Stopped::Unreached(_) => upstream.breaker.unreached(other).await,
                    Stopped::Broken(_) => upstream.breaker.broke(other),
                }
                ticket.end(stopped.end());
                Err(stopped)
            }
        }
    }

    /// Until the head of the answer is there.
    async fn begin(
        &self,
        upstream: &Arc<Upstream>,
        priority: i32,
        times: Times,
    ) -> Result<Begun, Stopped> {
        let model = match self.current.file.any_model {
            true => &self.asked.model,
            false => &upstream.backend.model_names[self.info.model.index()],
        };
        let priority = match upstream.backend.priority {
            PriorityOrder::LowerFirst => Some(priority.saturating_neg()),
            PriorityOrder::HigherFirst => Some(priority),
            PriorityOrder::None => None,
        };
        let body = self.asked.for_backend(model, priority);
        let connect = duration(times.deadlines.connect);
        let post = upstream.post(self.asked.route.path(), body, (&self.id, connect));
        // What is not streamed begins when it is complete: nobody sees its first token.
        let (span, which) = match self.asked.streams {
            true => times.first_token(),
            false => (times.deadlines.total, "total"),
        };
        match tokio::time::timeout_at(times.until(span), post).await {
            Ok(Ok(begun)) => Ok(begun),
            Ok(Err(Broken::Connect(error))) => {
                tracing::warn!(backend = upstream.backend.name, error, "not reached");
                let message = "the backend could not be reached";
                let problem = Problem::new(StatusCode::BAD_GATEWAY, "backend_unreachable", message);
                Err(Stopped::Unreached(problem))
            }
            Ok(Err(Broken::Answer(error))) => {
                tracing::warn!(backend = upstream.backend.name, error, "broke off");
                Err(Stopped::Broken(broken("the backend broke off before it answered")))
            }
            Err(_) => Err(Stopped::Broken(too_late(which))),
        }
    }

    /// An answer that comes as one.
    async fn whole(
        &self,
        mut begun: Begun,
        mut ticket: Ticket,
        times: Times,
    ) -> Result<Response<Body>, Problem> {
        let read = read_all(&mut begun, self.current.file.limits.response_bytes_max, times);
        let read = tokio::select! {
            read = read => read,
            () = ticket.revoked() => {
                ticket.end(End::Evicted);
                return Err(evicted());
            }
        };
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(problem) => {
                ticket.end(if problem.status == StatusCode::GATEWAY_TIMEOUT {
                    End::Expired
                } else {
                    End::Failed
                });
                return Err(problem);
            }
        };
        let status = begun.response.status();
        if let Some(problem) = declined(&begun.response) {
            ticket.end(End::Failed);
            begun.done();
            return Err(problem);
        }
        if !is_json(&begun.response) {
            ticket.end(End::Failed);
            return Err(broken("the backend answered something else than JSON"));
        }
        #[derive(Deserialize)]
        struct Answer {
            usage: Option<Usage>,
        }
        let Ok(answer) = serde_json::from_slice::<Answer>(&bytes) else {
            ticket.end(End::Failed);
            return Err(broken("the backend answered malformed JSON"));
        };
        begun.done();
        if status.is_success() {
            let usage = answer.usage.unwrap_or_default();
            ticket.used().prompt_tokens = self.info.prompt_tokens;
            usage.settle(&mut ticket, (&self.asked.model, self.asked.prompt_bytes), &self.shared);
            self.log_end(&ticket, times, "finished");
            ticket.end(End::Finished);
        } else {
            // The client asked for something that the backend does not do.
            ticket.end(End::Cancelled);
        }
        Ok(whole(status, "application/json", bytes))
    }

    /// A line of the log, without a word of the prompt or the answer.
    fn log_end(&self, ticket: &Ticket, times: Times, end: &'static str) {
        tracing::info!(
            id = self.id,
            tenant = self.info.tenant.0,
            class = self.current.file.names.class(ticket.class()),
            backend = ticket.backend().index(),
            waited_ms = ticket.waited().nanos() / 1_000_000,
            took_ms = times.began.elapsed().as_millis() as u64,
            end,
            "done"
        );
    }
}

/// What a client is told of an answer that is neither a success nor about its own request; what
/// the backend said of it may hold the gateway's key, and is told to nobody.
fn declined<B>(response: &Response<B>) -> Option<Problem> {
    let status = response.status();
    match status.as_u16() {
        401 | 403 | 407 => Some(broken("the backend does not accept the gateway's key")),
        429 => {
            let message = "the backend takes no more requests now";
            let mut problem =
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "backend_busy", message);
            let stated = response.headers().get(RETRY_AFTER);
            let stated = stated.and_then(|value| value.to_str().ok()?.parse().ok());
            problem.retry_after = Some(Span::from_secs(stated.unwrap_or(1).clamp(1, 3600)));
            Some(problem)
        }
        200..=299 | 400..=499 => None,
        _ => Some(broken(&format!("the backend answered {status}"))),
    }
}

/// Reads the rest of an answer.
async fn read_all(begun: &mut Begun, bytes_max: u64, times: Times) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    let body = begun.response.body_mut();
    loop {
        let (until, which) = times.idle();
        let frame = match tokio::time::timeout_at(until, body.frame()).await {
            Ok(frame) => frame,
            Err(_) => return Err(too_late(which)),
        };
        match frame {
            None => return Ok(bytes.freeze()),
            Some(Ok(frame)) => {
                let Ok(piece) = frame.into_data() else { continue };
                if (bytes.len() + piece.len()) as u64 > bytes_max {
                    return Err(broken("the backend's answer is too long"));
                }
                bytes.extend_from_slice(&piece);
            }
            Some(Err(_)) => return Err(broken("the backend broke off in its answer")),
        }
    }
}

fn is_json<B>(response: &Response<B>) -> bool {
    kind_is(response.headers().get(CONTENT_TYPE), b"application/json")
}

/// Whether a content type is this one, whatever its parameters.
pub(crate) fn kind_is(value: Option<&HeaderValue>, kind: &[u8]) -> bool {
    let value = value.map_or(&b""[..], HeaderValue::as_bytes);
    value.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind))
}

/// Since when a request is under way, and how long it may be.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub began: Instant,
    pub deadlines: Deadlines,
}

impl Times {
    /// The end of a span from the beginning, or of the whole.
    pub fn until(&self, span: Span) -> Instant {
        self.began + duration(span.min(self.deadlines.total))
    }
    /// How long the first token may take, and which deadline that is.
    pub fn first_token(&self) -> (Span, &'static str) {
        let Deadlines { first_token, total, .. } = self.deadlines;
        if first_token <= total { (first_token, "first token") } else { (total, "total") }
    }
    /// The end of a silence that begins now, or of the whole; and which of the two.
    pub fn idle(&self) -> (Instant, &'static str) {
        let idle = Instant::now() + duration(self.deadlines.idle);
        let total = self.until(self.deadlines.total);
        if idle < total { (idle, "idle") } else { (total, "total") }
    }
}

pub(crate) fn duration(span: Span) -> Duration {
    Duration::from_nanos(span.nanos())
}

/// Why a request stopped before its answer began.
enum Stopped {
    /// Nothing was sent: another backend may be tried.
    Unreached(Problem),
    Broken(Problem),
}

impl Stopped {
    fn end(&self) -> End {
        match self {
            Stopped::Broken(problem) if problem.status == StatusCode::GATEWAY_TIMEOUT => {
                End::Expired
            }
            Stopped::Unreached(_) | Stopped::Broken(_) => End::Failed,
        }
    }
}

pub(crate) fn broken(message: &str) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, "backend_failed", message)
}

pub(crate) fn too_late(which: &str) -> Problem {
    let message = format!("the backend missed the deadline `{which}`");
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "deadline_missed", message)
}

pub(crate) fn evicted() -> Problem {
    let message = "it was cut off to make room for work that is worth more";
    let mut problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "evicted", message);
    problem.retry_after = Some(Span::from_secs(1));
    problem
}
