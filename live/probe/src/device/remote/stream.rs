//! One request, from its first byte out to its last byte in.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::header::CONTENT_TYPE;
use plimsoll_wire::{Event, Events};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::client::{self, Client};
use super::dialect::Dialect;
use crate::device::{Carries, Chunk, DeviceError, Heard, Teller, Usage};

/// How long a server may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// The longest event.
const EVENT_BYTES_MAX: usize = 4 << 20;

/// Sends a request and tells what comes of it, its end or failure included.
pub(super) async fn answer(client: &Client, asked: (&Dialect, Bytes), teller: &Teller) {
    let heard = match listen(client, asked, teller).await {
        Ok(usage) => Heard::Ended(client.clock.now(), usage),
        Err(error) => Heard::Failed(client.clock.now(), error),
    };
    // Whoever no longer listens does not want to know.
    let _ = teller.send(heard).await;
}

async fn listen(
    client: &Client,
    (dialect, body): (&Dialect, Bytes),
    teller: &Teller,
) -> Result<Usage, DeviceError> {
    let asked = timeout(SILENCE_MAX, client.post(dialect.path(), body)).await;
    let mut begun = asked.map_err(|_| DeviceError::Silent(SILENCE_MAX))??;
    tell(teller, Heard::Sent(begun.sent)).await;
    tell(teller, Heard::Accepted(client.clock.now())).await;
    let status = begun.response.status();
    if !status.is_success() {
        let message = client::said(&client::read(begun.response).await?);
        return Err(DeviceError::Refused { status: status.as_u16(), message });
    }
    let kind = begun.response.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("nothing").to_owned();
    if !kind.starts_with("text/event-stream") {
        let what = format!("it answers with {kind}");
        return Err(DeviceError::NoStreaming { url: client.place(), what });
    }
    let mut reader = Reader { client, dialect, usage: None, teller };
    let mut events = Events::default();
    let mut is_first = true;
    loop {
        let frame = timeout(SILENCE_MAX, begun.response.body_mut().frame()).await;
        let frame = frame.map_err(|_| DeviceError::Silent(SILENCE_MAX))?;
        let at = client.clock.now();
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| DeviceError::BrokeOff(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if std::mem::take(&mut is_first) {
            tell(teller, Heard::FirstByte(at)).await;
        }
        events.push(&data);
        let long = |_| DeviceError::BrokeOff("an event of its stream does not end".into());
        while let Some(event) = events.next(EVENT_BYTES_MAX).map_err(long)? {
            reader.read(&event, at).await?;
        }
    }
    let usage = reader.usage;
    client.done(begun);
    usage.ok_or_else(|| DeviceError::NoUsage { url: client.place() })
}

async fn tell(teller: &Teller, heard: Heard) {
    // Nobody may listen any more; then the whole is dropped in a moment.
    let _ = teller.send(heard).await;
}

struct Reader<'a> {
    client: &'a Client,
    dialect: &'a Dialect,
    usage: Option<Usage>,
    teller: &'a Teller,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<SaidUsage>,
    /// llama.cpp's.
    #[serde(default)]
    timings: Option<Timings>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    delta: Option<Delta>,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    reasoning_content: Option<String>,
}

#[derive(Deserialize)]
struct SaidUsage {
    #[serde(default)]
    prompt_tokens: u32,
    #[serde(default)]
    completion_tokens: u32,
    #[serde(default)]
    prompt_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Timings {
    #[serde(default)]
    predicted_n: Option<u32>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: Option<u32>,
}

impl Reader<'_> {
    async fn read(&mut self, event: &Event, at: plimsoll_base::Time) -> Result<(), DeviceError> {
        let Some(data) = event.data() else { return Ok(()) };
        if data.as_ref() == b"[DONE]" {
            return Ok(());
        }
        let said: Said = serde_json::from_slice(&data)
            .map_err(|error| self.client.otherwise(format!("an event is no chunk: {error}")))?;
        if let Some(error) = said.error.filter(|error| !error.is_null()) {
            return Err(DeviceError::BrokeOff(client::said(&error.to_string())));
        }
        if let Some(is) = said.model {
            self.dialect.check_model(&is)?;
        }
        let by_timings = said.timings.and_then(|timings| timings.predicted_n);
        let by_usage = said.usage.as_ref().map(|usage| usage.completion_tokens);
        let counted = by_timings.or(by_usage);
        if let Some(SaidUsage { prompt_tokens, completion_tokens, prompt_tokens_details }) =
            said.usage
        {
            let cached = prompt_tokens_details.and_then(|details| details.cached_tokens);
            self.usage = Some(Usage {
                prompt_tokens,
                cached_tokens: cached.unwrap_or(0),
                output_tokens: completion_tokens,
            });
        }
        if let Some(choice) = said.choices.first()
            && let Some(carries) = choice.carries()
        {
            tell(self.teller, Heard::Chunk(Chunk { at, carries, counted })).await;
        }
        Ok(())
    }
}

impl Choice {
    /// What it carries; `None` if it only says whose turn it is.
    fn carries(&self) -> Option<Carries> {
        let delta = self.delta.as_ref();
        let texts = [
            self.text.as_deref(),
            delta.and_then(|delta| delta.content.as_deref()),
            delta.and_then(|delta| delta.reasoning_content.as_deref()),
        ];
        if texts.into_iter().flatten().any(|text| !text.is_empty()) {
            return Some(Carries::Text);
        }
        let is_turn = delta.is_some_and(|delta| delta.role.is_some());
        (!is_turn).then_some(Carries::Nothing)
    }
}
