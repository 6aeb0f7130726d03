//! A stream, event by event: read from the backend, counted, and passed on.
//!
//! Until the first event with a token the client has seen nothing, and whatever goes wrong is an
//! answer with a status. After that it is an event `error`, and the stream ends without `[DONE]`:
//! the gateway never says of an answer that it is complete unless its backend has.

use std::borrow::Cow;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::{Body as _, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use plimsoll_base::{End, ModelId};
use plimsoll_driver::Ticket;
use plimsoll_wire::{Event, Events};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::answer::{Body, Problem};
use crate::infer::{Job, Times, Usage, broken, evicted, kind_is, too_late};
use crate::line::{Held, Peer, Term, Watch};
use crate::state::{Current, Shared, count};
use crate::upstream::Begun;

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

    fn poll_gone_off(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while Instant::now() < self.at {
            ready!(self.timer.as_mut().poll(context));
            self.timer.as_mut().reset(self.at);
        }
        Poll::Ready(())
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
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<(Event, Kind), Stop>> {
        loop {
            match self.events.next(EVENT_BYTES_MAX) {
                Ok(Some(event)) => {
                    let kind = self.look(&event)?;
                    if kind != Kind::Usage || self.job.wants_usage {
                        return Poll::Ready(Ok((event, kind)));
                    }
                    continue;
                }
                Ok(None) => {}
                Err(_) => return failed("the backend sent an event that is too long"),
            }
            let body = Pin::new(self.begun.response.body_mut());
            match body.poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(piece) = frame.into_data() else { continue };
                    self.seen.bytes += piece.len() as u64;
                    if self.seen.bytes > self.job.current.file.limits.response_bytes_max {
                        return failed("the backend's answer is too long");
                    }
                    self.events.push(&piece);
                }
                Poll::Ready(Some(Err(_))) => return failed("the backend broke off in its answer"),
                Poll::Ready(None) if self.events.is_cut() => {
                    return failed("the backend's answer ended in mid-event");
                }
                Poll::Ready(None) => {
                    return failed("the backend's answer ended before it was complete");
                }
                Poll::Pending => return self.poll_cut(context).map(Err),
            }
        }
    }

    /// Ready when it is not to be waited for any longer.
    fn poll_cut(&mut self, context: &mut Context<'_>) -> Poll<Stop> {
        if self.ticket.revocation().poll_revoked(context).is_ready() {
            return Poll::Ready(Stop::Evicted);
        }
        ready!(self.alarm.poll_gone_off(context));
        Poll::Ready(Stop::Problem(too_late(self.alarm.which), End::Expired))
    }

    /// What an event is; counts its tokens.
    fn look(&mut self, event: &Event) -> Result<Kind, Stop> {
        let Some(data) = event.data() else { return Ok(Kind::Empty) };
        if &*data == b"[DONE]" {
            return match self.seen.is_finished {
                true => Ok(Kind::Done),
                false => Err(problem("the backend ended its answer without saying why")),
            };
        }
        let chunk = str::from_utf8(&data).ok().and_then(|text| serde_json::from_str(text).ok());
        let Some(chunk): Option<Chunk> = chunk else {
            return Err(problem("the backend sent malformed JSON"));
        };
        if chunk.error.is_some() {
            return Err(problem("the backend reported an error in its answer"));
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
        if let Stop::Done = stop {
            keep(self.begun);
        }
    }
}

/// Keeps the connection of an answer that is done, for another. Its last empty chunk may be still to
/// come; whoever waited for that would hold the seat meanwhile.
fn keep(mut begun: Begun) {
    let mut rest = Box::pin(async move {
        while let Some(Ok(_)) = begun.response.body_mut().frame().await {}
        begun.done();
    });
    if rest.as_mut().now_or_never().is_none() {
        tokio::spawn(tokio::time::timeout(Duration::from_secs(1), rest));
    }
}

/// Waits for the first token, then answers with what comes.
///
/// # Errors
/// If the stream stops before its first token.
pub(crate) async fn begin(mut stream: Stream, peer: &Peer) -> Result<Response<Body>, Problem> {
    let head = stream.begun.response.headers();
    if !kind_is(head.get(CONTENT_TYPE), b"text/event-stream") {
        let stop = problem("the backend answered something else than a stream of events");
        return Err(stopped(stream, stop));
    }
    let mut first = Vec::new();
    loop {
        match poll_fn(|context| stream.poll_next(context)).await {
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
    stream.alarm.set(stream.times.idle());
    let term = Term {
        until: stream.times.until(stream.times.deadlines.total),
        revocation: stream.ticket.revocation().clone(),
    };
    let carried = Carried { stream, _held: peer.hold_to(term), watch: peer.watch() };
    let mut response = Response::new(
        Relayed { first: first.into_iter(), carried: Some(Box::new(carried)) }.boxed_unsync(),
    );
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
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

fn problem(message: &str) -> Stop {
    Stop::Problem(broken(message), End::Failed)
}

fn failed<T>(message: &str) -> Poll<Result<T, Stop>> {
    Poll::Ready(Err(problem(message)))
}

/// A stream as the body of an answer. It has no task of its own: the client's connection carries it,
/// and a piece from the backend wakes one task on its way to the client.
struct Relayed {
    /// They go with the head, which they have waited for.
    first: std::vec::IntoIter<Bytes>,
    /// Until it has ended.
    carried: Option<Box<Carried>>,
}

/// A stream, and the client that it goes to.
struct Carried {
    stream: Stream,
    watch: Watch,
    _held: Held,
}

impl Carried {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<(Event, Kind), Stop>> {
        let polled = self.stream.poll_next(context);
        if polled.is_pending() {
            ready!(self.watch.poll_gone(context));
            return Poll::Ready(Err(Stop::ClientGone));
        }
        self.stream.alarm.set(self.stream.times.idle());
        polled
    }
}

impl Relayed {
    fn end(&mut self, stop: &Stop) {
        if let Some(carried) = self.carried.take() {
            carried.stream.close(stop);
        }
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.next() {
            return Poll::Ready(Some(first));
        }
        let Some(carried) = &mut self.carried else { return Poll::Ready(None) };
        let stop = match ready!(carried.poll_next(context)) {
            Ok((event, kind)) => {
                if kind == Kind::Done {
                    self.end(&Stop::Done);
                }
                return Poll::Ready(Some(event.bytes));
            }
            Err(stop) => stop,
        };
        self.end(&stop);
        let problem = match stop {
            Stop::Done | Stop::ClientGone => return Poll::Ready(None),
            Stop::Evicted => evicted(),
            Stop::Problem(problem, _) => problem,
        };
        let event = format!("event: error\ndata: {}\n\n", problem.to_json());
        Poll::Ready(Some(event.into()))
    }
}

impl hyper::body::Body for Relayed {
    type Data = Bytes;
    type Error = std::convert::Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.poll_piece(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The connection is over before the stream is: its client has left, or takes nothing, and the line
/// has waited for it as long as it may.
impl Drop for Relayed {
    fn drop(&mut self) {
        let Some(carried) = &self.carried else { return };
        let Stream { ticket, times, .. } = &carried.stream;
        let stop = if ticket.revocation().is_revoked() {
            Stop::Evicted
        } else if Instant::now() >= times.until(times.deadlines.total) {
            Stop::Problem(too_late("total"), End::Expired)
        } else {
            Stop::ClientGone
        };
        self.end(&stop);
    }
}
