//! The body of a request: read once, rebuilt for the backend from what is known.

use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::answer::Problem;

/// What is asked of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Chat,
    Completions,
    Embeddings,
}

impl Route {
    pub const ALL: [Route; 3] = [Route::Chat, Route::Completions, Route::Embeddings];

    pub const fn path(self) -> &'static str {
        match self {
            Route::Chat => "/v1/chat/completions",
            Route::Completions => "/v1/completions",
            Route::Embeddings => "/v1/embeddings",
        }
    }
    /// The field that holds the prompt.
    const fn prompt(self) -> &'static str {
        match self {
            Route::Chat => "messages",
            Route::Completions => "prompt",
            Route::Embeddings => "input",
        }
    }
}

/// Fields that go to the backend as they are. OpenAI's, and those that vLLM, SGLang and llama.cpp
/// add to them; what is not here is refused, so that nothing is dropped in silence.
const PASSED: [&str; 64] = [
    "add_generation_prompt",
    "allowed_token_ids",
    "audio",
    "bad_words",
    "best_of",
    "cache_prompt",
    "chat_template",
    "chat_template_kwargs",
    "continue_final_message",
    "custom_params",
    "detokenize",
    "dimensions",
    "ebnf",
    "echo",
    "encoding_format",
    "frequency_penalty",
    "function_call",
    "functions",
    "grammar",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "ignore_eos",
    "include_stop_str_in_output",
    "json_schema",
    "length_penalty",
    "logit_bias",
    "logprobs",
    "lora_path",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "min_p",
    "min_tokens",
    "modalities",
    "n",
    "no_stop_trim",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_logprobs",
    "reasoning_effort",
    "regex",
    "repetition_penalty",
    "response_format",
    "safety_identifier",
    "seed",
    "separate_reasoning",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "stop",
    "stop_token_ids",
    "store",
    "structured_outputs",
    "suffix",
    "temperature",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "truncate_prompt_tokens",
    "user",
];
/// Fields that the gateway reads and writes anew.
const OWN: [&str; 5] = ["model", "priority", "service_tier", "stream", "stream_options"];

/// A request's body, as far as the gateway reads it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub route: Route,
    pub model: String,
    pub streams: bool,
    /// Whether the client wants to know what it used at the end of a stream.
    pub wants_usage: bool,
    /// Output tokens that the client allows, over all choices; `None` if it says nothing.
    pub output_cap: Option<u32>,
    /// What the client asks for; whether it counts is a matter of classification.
    pub service_tier: Option<String>,
    /// Bytes of the prompt as JSON.
    pub prompt_bytes: usize,
    /// Everything that goes on, as `,"name":value` after another.
    rest: Vec<u8>,
}

/// A field and its value, untouched.
struct Fields<'a>(Vec<(&'a str, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[derive(Default, Deserialize, Serialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

impl Asked {
    /// Reads a body.
    ///
    /// # Errors
    /// If it is no JSON of the route's shape, says something twice, or something that is not known.
    pub fn read(route: Route, body: &[u8]) -> Result<Asked, Problem> {
        let Fields(fields) = serde_json::from_slice(body).map_err(|error| {
            Problem::bad("invalid_json", format!("the body is no JSON object: {error}"))
        })?;
        let mut asked = Asked {
            route,
            model: String::new(),
            streams: false,
            wants_usage: false,
            output_cap: None,
            service_tier: None,
            prompt_bytes: 0,
            rest: Vec::with_capacity(body.len()),
        };
        let (mut choices, mut caps) = (1u32, [None; 2]);
        for (at, &(name, value)) in fields.iter().enumerate() {
            if fields[..at].iter().any(|(earlier, _)| *earlier == name) {
                return Err(Problem::bad("duplicate_field", format!("`{name}` is there twice")));
            }
            match name {
                "model" => asked.model = read(name, value)?,
                "stream" => asked.streams = read::<Option<bool>>(name, value)?.unwrap_or(false),
                "stream_options" => {
                    let options: Option<StreamOptions> = read(name, value)?;
                    asked.wants_usage = options.unwrap_or_default().include_usage;
                }
                "service_tier" => asked.service_tier = read(name, value)?,
                "max_completion_tokens" => caps[0] = read(name, value)?,
                "max_tokens" => caps[1] = read(name, value)?,
                "n" | "best_of" => {
                    let count: Option<u32> = read(name, value)?;
                    choices = choices.max(count.unwrap_or(1));
                }
                _ => {}
            }
            if name == route.prompt() {
                asked.prompt_bytes = value.get().len();
            } else if PASSED.binary_search(&name).is_err() {
                if OWN.contains(&name) {
                    continue;
                }
                return Err(Problem::bad(
                    "unknown_field",
                    format!("the gateway hands on no field `{name}`: leave it out"),
                ));
            }
            asked.pass(name, value);
        }
        asked.output_cap = caps[0].or(caps[1]).map(|cap: u32| cap.saturating_mul(choices));
        asked.check()
    }

    fn check(self) -> Result<Asked, Problem> {
        if self.model.is_empty() {
            return Err(Problem::bad("missing_field", "`model` must name a model"));
        }
        if self.prompt_bytes == 0 {
            let field = self.route.prompt();
            return Err(Problem::bad("missing_field", format!("`{field}` must be there")));
        }
        if self.output_cap == Some(0) {
            return Err(Problem::bad("invalid_field", "`max_tokens` must be at least 1"));
        }
        if self.streams && self.route == Route::Embeddings {
            return Err(Problem::bad("invalid_field", "embeddings cannot be streamed"));
        }
        Ok(self)
    }

    fn pass(&mut self, name: &str, value: &RawValue) {
        self.rest.extend_from_slice(b",\"");
        // Known names have nothing to escape.
        self.rest.extend_from_slice(name.as_bytes());
        self.rest.extend_from_slice(b"\":");
        self.rest.extend_from_slice(value.get().as_bytes());
    }

    /// The body for a backend that calls the model so. A stream is asked to end with what it used.
    pub fn for_backend(&self, model: &str, priority: Option<i32>) -> Bytes {
        let model = serde_json::Value::from(model).to_string();
        let mut out = Vec::with_capacity(self.rest.len() + model.len() + 96);
        out.extend_from_slice(b"{\"model\":");
        out.extend_from_slice(model.as_bytes());
        if let Some(priority) = priority {
            out.extend_from_slice(format!(",\"priority\":{priority}").as_bytes());
        }
        if self.streams {
            out.extend_from_slice(b",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
        }
        out.extend_from_slice(&self.rest);
        out.push(b'}');
        out.into()
    }
}

fn read<'a, T: Deserialize<'a>>(name: &str, value: &'a RawValue) -> Result<T, Problem> {
    serde_json::from_str(value.get())
        .map_err(|error| Problem::bad("invalid_field", format!("`{name}`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_fields_are_sorted() {
        assert!(PASSED.is_sorted());
        assert!(Route::ALL.iter().all(|route| !PASSED.contains(&route.prompt())));
    }

    #[test]
    fn a_body_is_rebuilt() {
        let body = br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,
            "max_tokens":5,"n":2,"temperature":0.5,"priority":9,"service_tier":"flex"}"#;
        let asked = Asked::read(Route::Chat, body).expect("it is sound");
        assert_eq!((asked.output_cap, asked.streams, asked.wants_usage), (Some(10), true, false));
        assert_eq!(asked.service_tier.as_deref(), Some("flex"));
        assert_eq!(asked.prompt_bytes, r#"[{"role":"user","content":"hi"}]"#.len());
        let sent = asked.for_backend("org/m", Some(-3));
        let sent: serde_json::Value = serde_json::from_slice(&sent).expect("JSON");
        let wanted = serde_json::json!({
            "model": "org/m", "priority": -3, "stream": true, "n": 2, "max_tokens": 5,
            "stream_options": { "include_usage": true }, "temperature": 0.5,
            "messages": [{ "role": "user", "content": "hi" }],
        });
        assert_eq!(sent, wanted);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |body: &str, code: &str| {
            let problem = Asked::read(Route::Chat, body.as_bytes()).expect_err(body);
            assert_eq!((problem.status.as_u16(), problem.code), (400, code), "{body}");
        };
        check("[]", "invalid_json");
        check("{", "invalid_json");
        check(r#"{"model":"m","model":"n","messages":[]}"#, "duplicate_field");
        check(r#"{"messages":[]}"#, "missing_field");
        check(r#"{"model":"m"}"#, "missing_field");
        check(r#"{"model":"m","messages":[],"max_tokens":0}"#, "invalid_field");
        check(r#"{"model":"m","messages":[],"max_tokens":"9"}"#, "invalid_field");
        check(r#"{"model":"m","messages":[],"surprise":1}"#, "unknown_field");
        check(r#"{"mod\u0065l":"m","messages":[]}"#, "invalid_json");
    }
}
