//! What a request asks for: from its headers and body to numbers.

use hyper::HeaderMap;
use serde::Deserialize;

use super::answer::Refusal;
use super::fault::Fault;
use super::machine::Order;
use super::settings::Kind;
use super::wishes::Wishes;

/// Tokens of an answer whose request says nothing.
const OUTPUT_DEFAULT: u32 = 16;
/// Texts that one request may have embedded.
const TEXTS_MAX: usize = 2_048;

/// What is asked of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Chat,
    Completions,
    Embeddings,
}

impl Route {
    pub fn of(path: &str) -> Option<Route> {
        match path {
            "/v1/chat/completions" => Some(Route::Chat),
            "/v1/completions" => Some(Route::Completions),
            "/v1/embeddings" => Some(Route::Embeddings),
            _ => None,
        }
    }
}

/// A request that makes sense.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub model: Option<String>,
    pub order: Order,
    /// Whether the answer ends because the client allows no more.
    pub is_cut: bool,
    /// Texts to embed; 1 elsewhere.
    pub texts: usize,
    pub streams: bool,
    pub wants_usage: bool,
    pub fault: Option<Fault>,
}

impl Ask {
    /// Reads a request.
    ///
    /// # Errors
    /// If it is no JSON of the route's shape, or too long for the context.
    pub fn read(
        (route, kind, context_max): (Route, Kind, u32),
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Ask, Refusal> {
        let body: Body = serde_json::from_slice(body)
            .map_err(|error| Refusal::invalid(format!("the body is not understood: {error}")))?;
        if body.n.is_some_and(|n| n != 1) {
            return Err(Refusal::invalid("`n` must be 1: there is one choice"));
        }
        let mut wishes = Wishes::of(headers)?;
        let Text { tokens, texts } = body.text(route, &mut wishes)?;
        let allowed = match route {
            Route::Embeddings => Some(1),
            Route::Chat | Route::Completions => body.max_completion_tokens.or(body.max_tokens),
        };
        if allowed == Some(0) {
            return Err(Refusal::invalid("`max_tokens` must be at least 1"));
        }
        let wished = wishes.output_tokens;
        let cap = allowed.or(wished).unwrap_or(OUTPUT_DEFAULT);
        let prompt_tokens = wishes.prompt_tokens.unwrap_or(tokens).max(1);
        if u64::from(prompt_tokens) + u64::from(cap) > u64::from(context_max) {
            return Err(Refusal::too_long(context_max, (prompt_tokens, cap)));
        }
        let priority = kind.priority(body.priority.unwrap_or(0));
        let output_tokens = wished.unwrap_or(cap).min(cap);
        let stops = wished.is_some_and(|tokens| allowed.is_none_or(|allowed| tokens < allowed));
        Ok(Ask {
            model: body.model,
            order: Order { prompt_tokens, output_tokens, priority },
            is_cut: !stops,
            texts,
            streams: body.stream.unwrap_or(false) && route != Route::Embeddings,
            wants_usage: body.stream_options.is_some_and(|options| options.include_usage),
            fault: wishes.fault,
        })
    }
}

/// How much there is to read.
struct Text {
    tokens: u32,
    texts: usize,
}

/// A request as written, as far as it matters here.
#[derive(Deserialize)]
struct Body {
    model: Option<String>,
    messages: Option<Vec<Message>>,
    prompt: Option<Prompt>,
    input: Option<Prompt>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    priority: Option<i32>,
    n: Option<u32>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a message; pictures and the like count as nothing.
#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

/// What is completed or embedded: text or tokens, one or many.
#[derive(Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    Many(Vec<Vec<u32>>),
}

impl Body {
    fn text(&self, route: Route, wishes: &mut Wishes) -> Result<Text, Refusal> {
        let missing = |name| Refusal::invalid(format!("`{name}` is missing or empty"));
        let (prompt, name, texts_max) = match route {
            Route::Chat => {
                let messages = self.messages.as_deref().filter(|messages| !messages.is_empty());
                let messages = messages.ok_or_else(|| missing("messages"))?;
                let mut tokens = 0;
                for text in messages.iter().flat_map(Message::texts) {
                    tokens += wishes.read(text)?;
                }
                return Ok(Text { tokens: clamp(tokens), texts: 1 });
            }
            Route::Completions => (&self.prompt, "prompt", 1),
            Route::Embeddings => (&self.input, "input", TEXTS_MAX),
        };
        let text = prompt.as_ref().ok_or_else(|| missing(name))?.text(wishes)?;
        match text.texts {
            0 => Err(missing(name)),
            texts if texts > texts_max => {
                Err(Refusal::invalid(format!("`{name}` has {texts} texts, above {texts_max}")))
            }
            _ => Ok(text),
        }
    }
}

impl Message {
    fn texts(&self) -> Vec<&str> {
        match &self.content {
            None => Vec::new(),
            Some(Content::Text(text)) => vec![text],
            Some(Content::Parts(parts)) => {
                parts.iter().filter_map(|part| part.text.as_deref()).collect()
            }
        }
    }
}

impl Prompt {
    fn text(&self, wishes: &mut Wishes) -> Result<Text, Refusal> {
        let (tokens, texts) = match self {
            Prompt::Text(text) => (wishes.read(text)?, 1),
            Prompt::Texts(texts) => {
                let mut tokens = 0;
                for text in texts {
                    tokens += wishes.read(text)?;
                }
                (tokens, texts.len())
            }
            Prompt::Tokens(tokens) => (tokens.len(), 1),
            Prompt::Many(many) => (many.iter().map(Vec::len).sum(), many.len()),
        };
        Ok(Text { tokens: clamp(tokens), texts })
    }
}

fn clamp(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(route: Route, headers: &[(&'static str, &str)], body: &str) -> Result<Ask, Refusal> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        Ask::read((route, Kind::Vllm, 1_000), &headers.collect(), body.as_bytes())
    }

    fn lengths(headers: &[(&'static str, &str)], body: &str) -> (u32, u32, bool) {
        let Ask { order, is_cut, .. } = read(Route::Chat, headers, body).expect(body);
        (order.prompt_tokens, order.output_tokens, is_cut)
    }

    #[test]
    fn words_are_tokens_unless_something_else_is_wished() {
        let hello = r#"{"messages":[{"role":"user","content":"hello  out there"}]}"#;
        assert_eq!(lengths(&[], hello), (3, 16, true));
        assert_eq!(lengths(&[("x-output-tokens", "40")], hello), (3, 40, false));
        let parts = r#"{"messages":[{"content":[{"text":"a b"},{"image_url":1}]},{"content":null},
            {"content":"c"}],"max_tokens":5}"#;
        assert_eq!(lengths(&[], parts), (3, 5, true));
        assert_eq!(lengths(&[("x-output-tokens", "4")], parts), (3, 4, false));
        assert_eq!(lengths(&[("x-output-tokens", "5")], parts), (3, 5, true));
        assert_eq!(lengths(&[("x-output-tokens", "6")], parts), (3, 5, true));
        assert_eq!(lengths(&[("x-prompt-tokens", "77")], parts), (77, 5, true));
        let spoken = r#"{"messages":[{"content":"x-prompt-tokens:70 x-output-tokens:2 and so"}]}"#;
        assert_eq!(lengths(&[], spoken), (70, 2, false));
        assert_eq!(lengths(&[("x-prompt-tokens", "9")], spoken), (9, 2, false));
    }

    #[test]
    fn other_routes_have_other_prompts() {
        let read = |route, body| read(route, &[], body).expect(body);
        assert_eq!(read(Route::Completions, r#"{"prompt":"a b c"}"#).order.prompt_tokens, 3);
        assert_eq!(read(Route::Completions, r#"{"prompt":[5,6]}"#).order.prompt_tokens, 2);
        let many = read(Route::Embeddings, r#"{"input":["a b","c"],"stream":true}"#);
        assert_eq!((many.order.prompt_tokens, many.order.output_tokens), (3, 1));
        assert_eq!((many.texts, many.streams), (2, false));
        assert_eq!(read(Route::Embeddings, r#"{"input":[[1,2],[3]]}"#).order.prompt_tokens, 3);
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for (body, why) in [
            ("{", "EOF"),
            ("[]", "not understood"),
            ("{}", "`messages` is missing"),
            (r#"{"messages":[]}"#, "`messages` is missing"),
            (r#"{"messages":[{"content":7}]}"#, "not understood"),
            (r#"{"messages":[{}],"n":2}"#, "`n` must be 1"),
            (r#"{"messages":[{}],"max_tokens":0}"#, "at least 1"),
            (r#"{"messages":[{}],"max_tokens":-4}"#, "not understood"),
            (r#"{"messages":[{}],"max_tokens":1000}"#, "maximum context length is 1000"),
            (r#"{"messages":[{"content":"x-fault:sink"}]}"#, "no fault is called `sink`"),
        ] {
            let refusal = read(Route::Chat, &[], body).expect_err(body);
            assert_eq!(refusal.status, 400, "{body}");
            assert!(refusal.message.contains(why), "{body}: {}", refusal.message);
        }
        let fits = r#"{"messages":[{}],"max_tokens":999}"#;
        assert_eq!(lengths(&[], fits), (1, 999, true));
        assert!(read(Route::Chat, &[("x-output-tokens", "none")], fits).is_err());
        assert!(read(Route::Completions, &[], r#"{"prompt":["a","b"]}"#).is_err());
    }

    #[test]
    fn priorities_are_turned_as_the_server_does() {
        let body = br#"{"messages":[{}],"priority":-3}"#;
        for (kind, expected) in [(Kind::Vllm, 3), (Kind::Sglang, -3), (Kind::LlamaCpp, 0)] {
            let ask = Ask::read((Route::Chat, kind, 100), &HeaderMap::new(), body);
            assert_eq!(ask.expect("it makes sense").order.priority, expected);
        }
    }
}
