//! A stream, event by event: read from the backend, counted, and passed on.
//!
//! Until the first event with a token the client has seen nothing, and whatever goes wrong is an
//! answer with a status. After that it is an event `error`, and the stream ends without `[DONE]`:
//! the gateway never says of an answer that it is complete unless its backend has.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use plimsoll_base::{End, ModelId};
use plimsoll_driver::Ticket;
use plimsoll_wire::{Event, Events};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::answer::{Body, Problem};
use crate::infer::{Job, Times, Usage, broken, duration, evicted, kind_is, too_late};
use crate::line::Peer;
use crate::state::{Current, Shared, count};
use crate::upstream::Begun;

/// Events that may wait for a client that reads slowly, before nothing more is read for it.
const AHEAD_MAX: usize = 16;
/// The longest event.
const EVENT_BYTES_MAX: usize = 4 << 20;

/// A stream under way.
pub(crate) struct Stream {
    job: JobPart,
    begun: Begun,
    ticket: Ticket,
    times: Times,
    alarm: Alarm,
    events: Events,
    seen: Seen,
}

/// Goes off at a deadline. Most deadlines are put off before they are near, by every event: the
/// timer is set anew only once it has gone off.
struct Alarm {
    timer: Pin<Box<Sleep>>,
    at: Instant,
    which: &'static str,
}

impl Alarm {
    fn new((at, which): (Instant, &'static str)) -> Alarm {
        Alarm { timer: Box::pin(sleep_until(at)), at, which }
    }

    fn set(&mut self, (at, which): (Instant, &'static str)) {
        (self.at, self.which) = (at, which);
        if at < self.timer.deadline() {
            self.timer.as_mut().reset(at);
        }
    }

    async fn gone_off(&mut self) {
        while Instant::now() < self.at {
            self.timer.as_mut().await;
            self.timer.as_mut().reset(self.at);
        }
    }
}

/// What of a job outlives the answer's head.
struct JobPart {
    shared: Arc<Shared>,
    current: Arc<Current>,
    model: String,
    model_id: ModelId,
    prompt_bytes: usize,
    prompt_tokens: u32,
    wants_usage: bool,
    id: String,
}

/// What has been seen of a stream.
#[derive(Debug, Default)]
struct Seen {
    bytes: u64,
    tokens: u32,
    usage: Option<Usage>,
    is_finished: bool,
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A keep-alive, or the role before the first token.
    Empty,
    Token,
    /// What was used, and nothing else.
    Usage,
    /// The end.
    Done,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    finish_reason: Option<IgnoredAny>,
    #[serde(default)]
    text: Said,
    #[serde(default)]
    delta: Said,
}

impl Choice {
    fn has_token(&self) -> bool {
        self.text.something || self.delta.something
    }
}

/// Whether a value says anything: a text that is not empty, a list that is not, or an object in which
/// something beside the role does (content, reasoning, calls of tools, whatever its name).
#[derive(Clone, Copy, Default)]
struct Said {
    something: bool,
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Said, D::Error> {
        deserializer.deserialize_any(Listener)
    }
}

struct Listener;

impl<'de> Visitor<'de> for Listener {
    type Value = Said;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }
    fn visit_unit<E>(self) -> Result<Said, E> {
        Ok(Said { something: false })
    }
    fn visit_bool<E>(self, _: bool) -> Result<Said, E> {
        Ok(Said { something: true })
    }
    fn visit_i64<E>(self, _: i64) -> Result<Said, E> {
        Ok(Said { something: true })
    }
    fn visit_u64<E>(self, _: u64) -> Result<Said, E> {
        Ok(Said { something: true })
    }
    fn visit_f64<E>(self, _: f64) -> Result<Said, E> {
        Ok(Said { something: true })
    }
    fn visit_str<E>(self, text: &str) -> Result<Said, E> {
        Ok(Said { something: !text.is_empty() })
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Said, A::Error> {
        let mut something = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            something = true;
        }
        Ok(Said { something })
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Said, A::Error> {
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
        let mut something = false;
        while let Some(Name(name)) = map.next_key()? {
            let said: Said = map.next_value()?;
            something |= said.something && name != "role";
        }
        Ok(Said { something })
    }
}

/// How a stream stops.
enum Stop {
    /// The backend said that it is complete.
    Done,
    /// The client is gone, or does not read.
    ClientGone,
    Evicted,
    Problem(Problem, End),
}

impl Stream {
    pub fn new(job: &Job, begun: Begun, ticket: Ticket, times: Times) -> Stream {
        let job = JobPart {
            shared: job.shared.clone(),
            current: job.current.clone(),
            model: job.asked.model.clone(),
            model_id: job.info.model,
            prompt_bytes: job.asked.prompt_bytes,
            prompt_tokens: job.info.prompt_tokens,
            wants_usage: job.asked.wants_usage,
            id: job.id.clone(),
        };
        let (events, seen) = (Events::default(), Seen::default());
        let (span, which) = times.first_token();
        let alarm = Alarm::new((times.until(span), which));
        Stream { job, begun, ticket, times, alarm, events, seen }
    }

    /// The next event, and what it is.
    async fn next(&mut self) -> Result<(Event, Kind), Stop> {
        loop {
            match self.events.next(EVENT_BYTES_MAX) {
                Ok(Some(event)) => {
                    let kind = self.look(&event)?;
                    return Ok((event, kind));
                }
                Ok(None) => {}
                Err(_) => return Err(failed("the backend sent an event that is too long")),
            }
            let frame = tokio::select! {
                biased;
                frame = self.begun.response.body_mut().frame() => frame,
                () = self.ticket.revoked() => return Err(Stop::Evicted),
                () = self.alarm.gone_off() => {
                    return Err(Stop::Problem(too_late(self.alarm.which), End::Expired));
                }
            };
            match frame {
                Some(Ok(frame)) => {
                    let Ok(piece) = frame.into_data() else { continue };
                    self.seen.bytes += piece.len() as u64;
                    if self.seen.bytes > self.job.current.file.limits.response_bytes_max {
                        return Err(failed("the backend's answer is too long"));
                    }
                    self.events.push(&piece);
                }
                Some(Err(_)) => return Err(failed("the backend broke off in its answer")),
                None if self.events.is_cut() => {
                    return Err(failed("the backend's answer ended in mid-event"));
                }
                None => return Err(failed("the backend's answer ended before it was complete")),
            }
        }
    }

    /// What an event is; counts its tokens.
    fn look(&mut self, event: &Event) -> Result<Kind, Stop> {
        let Some(data) = event.data() else { return Ok(Kind::Empty) };
        if &*data == b"[DONE]" {
            return match self.seen.is_finished {
                true => Ok(Kind::Done),
                false => Err(failed("the backend ended its answer without saying why")),
            };
        }
        let chunk = str::from_utf8(&data).ok().and_then(|text| serde_json::from_str(text).ok());
        let Some(chunk): Option<Chunk> = chunk else {
            return Err(failed("the backend sent malformed JSON"));
        };
        if chunk.error.is_some() {
            return Err(failed("the backend reported an error in its answer"));
        }
        self.seen.is_finished |= chunk.choices.iter().any(|choice| choice.finish_reason.is_some());
        if let Some(usage) = chunk.usage {
            self.seen.usage = Some(usage);
        }
        if chunk.choices.is_empty() {
            return Ok(if chunk.usage.is_some() { Kind::Usage } else { Kind::Empty });
        }
        let tokens = chunk.choices.iter().filter(|choice| choice.has_token()).count() as u32;
        self.seen.tokens += tokens;
        let used = self.ticket.used();
        used.prompt_tokens = self.job.prompt_tokens;
        used.output_tokens = self.seen.tokens;
        Ok(if tokens > 0 || self.seen.is_finished { Kind::Token } else { Kind::Empty })
    }

    /// Passes everything on, until the end.
    async fn pump(&mut self, to: &mpsc::Sender<Bytes>) -> Stop {
        loop {
            self.alarm.set(self.times.idle());
            let (event, kind) = match self.next().await {
                Ok(next) => next,
                Err(stop) => return stop,
            };
            if kind == Kind::Usage && !self.job.wants_usage {
                continue;
            }
            if let Err(stop) = self.hand_over(to, event.bytes).await {
                return stop;
            }
            if kind == Kind::Done {
                return Stop::Done;
            }
        }
    }

    /// Waits for a client that reads slowly, but not for ever.
    async fn hand_over(&mut self, to: &mpsc::Sender<Bytes>, bytes: Bytes) -> Result<(), Stop> {
        let bytes = match to.try_send(bytes) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Stop::ClientGone),
            Err(mpsc::error::TrySendError::Full(bytes)) => bytes,
        };
        let write = Instant::now() + duration(self.job.current.file.limits.write_timeout);
        let total = self.times.until(self.times.deadlines.total);
        tokio::select! {
            sent = to.send(bytes) => sent.map_err(|_| Stop::ClientGone),
            () = self.ticket.revoked() => Err(Stop::Evicted),
            () = tokio::time::sleep_until(write) => Err(Stop::ClientGone),
            () = tokio::time::sleep_until(total) => {
                Err(Stop::Problem(too_late("total"), End::Expired))
            }
        }
    }

    /// Tells the allocator how it ended.
    fn close(mut self, stop: &Stop) {
        let upstream = self.begun.upstream();
        match stop {
            Stop::Done => upstream.breaker.well(),
            Stop::ClientGone | Stop::Evicted => {}
            Stop::Problem(..) => {
                let JobPart { current, model_id, .. } = &self.job;
                upstream.breaker.broke(|| current.places.has_other(upstream, *model_id));
            }
        }
        let (end, word) = match stop {
            Stop::Done => {
                if let Some(usage) = self.seen.usage {
                    let JobPart { model, prompt_bytes, shared, .. } = &self.job;
                    usage.settle(&mut self.ticket, (model, *prompt_bytes), shared);
                }
                (End::Finished, "finished")
            }
            Stop::ClientGone => (End::Cancelled, "the client left"),
            Stop::Evicted => (End::Evicted, "evicted"),
            Stop::Problem(_, end) => {
                count(&self.job.shared.counts.broken_streams);
                (*end, "broken")
            }
        };
        tracing::info!(
            id = self.job.id,
            class = self.job.current.file.names.class(self.ticket.class()),
            backend = self.ticket.backend().index(),
            waited_ms = self.ticket.waited().nanos() / 1_000_000,
            took_ms = self.times.began.elapsed().as_millis() as u64,
            tokens = self.seen.tokens,
            end = word,
            "done"
        );
        self.ticket.end(end);
        // A stream that is done may have its last empty chunk to come; whoever waited for that
        // would hold the seat meanwhile.
        if let Stop::Done = stop {
            let mut begun = self.begun;
            tokio::spawn(async move {
                let rest =
                    async { while let Some(Ok(_)) = begun.response.body_mut().frame().await {} };
                if tokio::time::timeout(std::time::Duration::from_secs(1), rest).await.is_ok() {
                    begun.done();
                }
            });
        }
    }
}

/// Waits for the first token, then answers with what comes.
///
/// # Errors
/// If the stream stops before its first token.
pub(crate) async fn begin(mut stream: Stream, peer: &Peer) -> Result<Response<Body>, Problem> {
    let head = stream.begun.response.headers();
    if !kind_is(head.get(CONTENT_TYPE), b"text/event-stream") {
        let stop = failed("the backend answered something else than a stream of events");
        return Err(stopped(stream, stop));
    }
    let mut first = Vec::new();
    loop {
        match stream.next().await {
            Ok((_, Kind::Usage)) if !stream.job.wants_usage => {}
            Ok((event, kind)) => {
                first.push(event.bytes);
                if kind != Kind::Empty {
                    break;
                }
            }
            Err(stop) => return Err(stopped(stream, stop)),
        }
    }
    stream.job.shared.gate.first_token(&stream.ticket).await;
    let (to, from) = mpsc::channel(AHEAD_MAX);
    tokio::spawn(carry(stream, (to, peer.clone())));
    let body = StreamBody::new(Frames { first: first.into_iter(), rest: from });
    let mut response = Response::new(body.boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// Until the end, whatever becomes of the client.
async fn carry(mut stream: Stream, (to, peer): (mpsc::Sender<Bytes>, Peer)) {
    let stop = tokio::select! {
        biased;
        stop = stream.pump(&to) => stop,
        () = to.closed() => Stop::ClientGone,
        () = peer.gone() => Stop::ClientGone,
    };
    // Nobody waits for its end who would keep the connection open.
    drop(peer);
    let problem = match &stop {
        Stop::Done | Stop::ClientGone => None,
        Stop::Evicted => Some(evicted()),
        Stop::Problem(problem, _) => Some(problem.clone()),
    };
    let write = duration(stream.job.current.file.limits.write_timeout);
    stream.close(&stop);
    if let Some(problem) = problem {
        let event = format!("event: error\ndata: {}\n\n", problem.to_json());
        // Whoever does not read it any more is gone.
        let _ = to.send_timeout(event.into(), write).await;
    }
}

/// Ends a stream that has not begun for its client.
fn stopped(stream: Stream, stop: Stop) -> Problem {
    stream.close(&stop);
    match stop {
        Stop::Problem(problem, _) => problem,
        Stop::Evicted => evicted(),
        Stop::Done | Stop::ClientGone => broken("the backend's answer is empty"),
    }
}

fn failed(message: &str) -> Stop {
    Stop::Problem(broken(message), End::Failed)
}

/// Pieces as frames of a body. The first go with the head, which they have waited for.
struct Frames {
    first: std::vec::IntoIter<Bytes>,
    rest: mpsc::Receiver<Bytes>,
}

impl futures_util::Stream for Frames {
    type Item = Result<Frame<Bytes>, std::convert::Infallible>;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let piece = match self.first.next() {
            Some(first) => std::task::Poll::Ready(Some(first)),
            None => self.rest.poll_recv(context),
        };
        piece.map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}
