//! In which form a server takes a prompt, and how it is told the length of the answer.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use plimsoll_base::{Stream, StreamKey};
use plimsoll_config::gateway::BackendKind;
use serde_json::{Value, json};

use super::client::Client;
use super::discover::Found;
use super::stream;
use crate::device::{Ask, DeviceError, Prompt, channel};

/// Tokens of a prompt drawn at random are below this: every vocabulary has them, and the special
/// ones are elsewhere.
const TOKENS: std::ops::Range<u32> = 10..250;
/// Words of a prompt drawn at random: short and common, so that most are one token.
const WORDS: [&str; 32] = [
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world",
    "school", "state", "family", "student", "group", "country", "problem", "hand", "part", "place",
    "case", "week", "company", "system", "program", "question", "work", "number", "night", "point",
    "home",
];
/// Words of the two prompts that tell how many tokens a word is.
const WORDS_FEW: u32 = 16;
const WORDS_MANY: u32 = 144;

/// In which form a prompt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Tokens to `/v1/completions`.
    Tokens,
    /// Text to `/v1/completions`.
    Text,
    /// Text to `/v1/chat/completions`.
    Chat,
}

impl Form {
    const ALL: [Form; 3] = [Form::Tokens, Form::Text, Form::Chat];
}

/// How the length of an answer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    /// At least and at most so many, whatever the model says.
    Exact,
    /// At most.
    AtMost,
}

/// How a server is spoken to.
#[derive(Debug)]
pub(super) struct Dialect {
    form: Form,
    length: Length,
    kind: BackendKind,
    model: String,
    /// What its answers call the model.
    called: OnceLock<String>,
    /// When it was opened, in ns since 1970, and how many prompts were drawn since.
    opened: u64,
    asked: AtomicU64,
    /// Tokens of a prompt of `n` words: the first, plus `n` times the second.
    words: (f64, f64),
}

impl Dialect {
    /// Finds out how to speak to a server, by asking it.
    ///
    /// # Errors
    /// If it takes no form of a prompt, does not stream, or tells no usage.
    pub async fn find(client: &Client, found: &Found) -> Result<Dialect, DeviceError> {
        let mut refused = None;
        let opened = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let opened = opened.as_nanos() as u64;
        for form in Form::ALL {
            for length in [Length::Exact, Length::AtMost] {
                let mut dialect = Dialect {
                    form,
                    length,
                    kind: found.kind,
                    model: found.description.model.clone(),
                    called: OnceLock::new(),
                    opened,
                    asked: AtomicU64::new(0),
                    words: (0.0, 1.0),
                };
                match dialect.learn(client).await {
                    Ok(()) => return Ok(dialect),
                    // Another form may be taken.
                    Err(error @ DeviceError::Refused { status: 400..=499, .. }) => {
                        if let DeviceError::Refused { status: 401 | 403, .. } = error {
                            return Err(error);
                        }
                        refused.get_or_insert(error);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Err(refused.unwrap_or_else(|| client.otherwise("it takes no prompt")))
    }

    /// Checks the name of the model in an answer. Some servers call it by a longer name than they
    /// take it by, such as one with a revision; it must stay that of the first answer.
    ///
    /// # Errors
    /// If it is another model.
    pub fn check_model(&self, is: &str) -> Result<(), DeviceError> {
        let is_of_asked = is.contains(&self.model) || self.model.contains(is);
        let called = self.called.get_or_init(|| match is_of_asked {
            true => is.to_owned(),
            false => self.model.clone(),
        });
        match is == called {
            true => Ok(()),
            false => Err(DeviceError::ModelChanged { was: called.clone(), is: is.to_owned() }),
        }
    }

    /// The path that it is spoken to at.
    pub fn path(&self) -> &'static str {
        match self.form {
            Form::Tokens | Form::Text => "/v1/completions",
            Form::Chat => "/v1/chat/completions",
        }
    }

    /// The body of a request.
    ///
    /// # Errors
    /// If it does not fit the context.
    pub fn body(&self, ask: &Ask, context_max: Option<u32>) -> Result<Bytes, DeviceError> {
        let prompt = self.prompt(&ask.prompt);
        if let (Some(context_max), Some(tokens)) = (context_max, prompt_tokens(&ask.prompt)) {
            let needed = u64::from(tokens) + u64::from(ask.output_tokens);
            if needed > u64::from(context_max) {
                return Err(DeviceError::TooLong { needed, context_max });
            }
        }
        let mut body = json!({
            "model": self.model,
            "stream": true,
            "stream_options": {"include_usage": true},
            "temperature": 0.0,
            "max_tokens": ask.output_tokens,
        });
        match self.form {
            Form::Tokens | Form::Text => body["prompt"] = prompt,
            Form::Chat => body["messages"] = json!([{"role": "user", "content": prompt}]),
        }
        if self.length == Length::Exact {
            body["ignore_eos"] = true.into();
            if self.kind != BackendKind::LlamaCpp {
                body["min_tokens"] = ask.output_tokens.into();
            }
        }
        // How many tokens are out comes with every piece: several may be in one.
        match self.kind {
            BackendKind::Vllm | BackendKind::Sglang => {
                body["stream_options"]["continuous_usage_stats"] = true.into();
            }
            BackendKind::LlamaCpp => body["timings_per_token"] = true.into(),
            BackendKind::OpenAi => {}
        }
        let priority = match self.kind {
            // A lower number goes first.
            BackendKind::Vllm => ask.priority.saturating_neg(),
            BackendKind::Sglang => ask.priority,
            BackendKind::LlamaCpp | BackendKind::OpenAi => 0,
        };
        if priority != 0 {
            body["priority"] = priority.into();
        }
        Ok(Bytes::from(body.to_string()))
    }

    fn prompt(&self, prompt: &Prompt) -> Value {
        match (prompt, self.form) {
            (Prompt::Text(text), _) => text.clone().into(),
            (Prompt::Tokens(tokens), Form::Tokens) => tokens.clone().into(),
            (Prompt::Random { tokens }, Form::Tokens) => {
                let mut stream = self.draws();
                let span = u64::from(TOKENS.end - TOKENS.start);
                let draw = |_| u64::from(TOKENS.start) + stream.below(span);
                (0..*tokens).map(draw).collect::<Vec<u64>>().into()
            }
            (Prompt::Tokens(tokens), Form::Text | Form::Chat) => self.text(tokens.len() as u32),
            (Prompt::Random { tokens }, Form::Text | Form::Chat) => self.text(*tokens),
        }
    }

    /// For a prompt that nobody has asked before.
    fn draws(&self) -> Stream {
        let (seed, entity) = (self.opened, self.asked.fetch_add(1, Ordering::Relaxed));
        Stream::new(StreamKey { seed, replication: 0, name: "device.prompt", entity })
    }

    /// Words that make about so many tokens.
    fn text(&self, tokens: u32) -> Value {
        let (fixed, each) = self.words;
        let count = ((f64::from(tokens) - fixed) / each).round().max(1.0) as u64;
        let mut stream = self.draws();
        let words = (0..count).map(|_| WORDS[stream.below(WORDS.len() as u64) as usize]);
        words.collect::<Vec<_>>().join(" ").into()
    }

    /// Has the server answer a short request or two, to see that it can be measured, and learns
    /// how many tokens a word is.
    async fn learn(&mut self, client: &Client) -> Result<(), DeviceError> {
        let few = self.count(client, WORDS_FEW).await?;
        if self.form == Form::Tokens {
            return Ok(());
        }
        let many = self.count(client, WORDS_MANY).await?;
        let each = (many - few) / f64::from(WORDS_MANY - WORDS_FEW);
        if each > 0.0 {
            self.words = (few - each * f64::from(WORDS_FEW), each);
        }
        Ok(())
    }

    /// How long the server says that a prompt of so many tokens or words is.
    async fn count(&self, client: &Client, length: u32) -> Result<f64, DeviceError> {
        let prompt = Prompt::Random { tokens: length };
        let ask = Ask { prompt, output_tokens: 2, priority: 0 };
        let (teller, answering) = channel(ask.output_tokens + 64);
        let body = self.body(&ask, None)?;
        stream::answer(client, (self, body), &teller).await;
        drop(teller);
        let answer = answering.whole().await?;
        Ok(f64::from(answer.usage.prompt_tokens))
    }
}

fn prompt_tokens(prompt: &Prompt) -> Option<u32> {
    match prompt {
        Prompt::Random { tokens, .. } => Some(*tokens),
        Prompt::Tokens(tokens) => u32::try_from(tokens.len()).ok(),
        Prompt::Text(_) => None,
    }
}
