//! What a backend says: the JSON of OpenAI's API.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::ask::{Ask, Route};

/// What every token says.
const TOKEN: &str = " tok";
/// Numbers of an embedding.
const DIMENSIONS: usize = 8;

/// The end of a stream.
pub(super) const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");
/// A frame that is no JSON, and a body that is none.
pub(super) const MALFORMED_FRAME: Bytes = Bytes::from_static(b"data: {\"choices\": [{oops\n\n");
pub(super) const MALFORMED_BODY: Bytes = Bytes::from_static(b"{\"choices\": [{oops");

/// The answer to one request, in the shapes that its route has.
#[derive(Debug)]
pub(super) struct Answer {
    route: Route,
    id: String,
    created: u64,
    model: String,
    prompt_tokens: u32,
    output_tokens: u32,
    finish_reason: &'static str,
    texts: usize,
}

impl Answer {
    /// The answer to the request with this number.
    pub fn new(route: Route, ask: &Ask, (number, model): (u64, &str)) -> Answer {
        let prefix = match route {
            Route::Chat => "chatcmpl",
            Route::Completions => "cmpl",
            Route::Embeddings => "embd",
        };
        Answer {
            route,
            id: format!("{prefix}-{number}"),
            created: now(),
            model: ask.model.as_deref().unwrap_or(model).to_owned(),
            prompt_tokens: ask.order.prompt_tokens,
            output_tokens: ask.order.output_tokens,
            finish_reason: if ask.is_cut { "length" } else { "stop" },
            texts: ask.texts,
        }
    }

    /// The frame of the first token, which says whose turn it is.
    pub fn first_frame(&self) -> Bytes {
        let choice = match self.route {
            Route::Chat => json!({"delta": {"role": "assistant", "content": TOKEN}}),
            Route::Completions | Route::Embeddings => json!({"text": TOKEN}),
        };
        self.frame(choice, Value::Null)
    }

    /// The frame of so many tokens that follow.
    pub fn tokens_frame(&self, count: u32) -> Bytes {
        let text = TOKEN.repeat(count as usize);
        let choice = match self.route {
            Route::Chat => json!({"delta": {"content": text}}),
            Route::Completions | Route::Embeddings => json!({"text": text}),
        };
        self.frame(choice, Value::Null)
    }

    /// The frame that says why there are no more tokens.
    pub fn finish_frame(&self) -> Bytes {
        let choice = match self.route {
            Route::Chat => json!({"delta": {}}),
            Route::Completions | Route::Embeddings => json!({"text": ""}),
        };
        self.frame(choice, self.finish_reason.into())
    }

    /// The frame with the numbers of tokens.
    pub fn usage_frame(&self) -> Bytes {
        let mut chunk = self.chunk(json!([]));
        chunk["usage"] = self.usage();
        frame(&chunk)
    }

    /// The whole answer, for whoever does not stream.
    pub fn whole(&self) -> Bytes {
        let text = || TOKEN.repeat(self.output_tokens as usize);
        let reason = self.finish_reason;
        let mut whole = match self.route {
            Route::Chat => {
                let message = json!({"role": "assistant", "content": text()});
                let mut whole = self.chunk(json!([
                    {"index": 0, "message": message, "logprobs": null, "finish_reason": reason}
                ]));
                whole["object"] = "chat.completion".into();
                whole
            }
            Route::Completions => self.chunk(json!([
                {"index": 0, "text": text(), "logprobs": null, "finish_reason": reason}
            ])),
            Route::Embeddings => {
                let embedding = |index| {
                    let numbers = [0.5; DIMENSIONS];
                    json!({"object": "embedding", "index": index, "embedding": numbers})
                };
                let data: Vec<Value> = (0..self.texts).map(embedding).collect();
                json!({"object": "list", "data": data, "model": self.model})
            }
        };
        whole["usage"] = self.usage();
        Bytes::from(whole.to_string())
    }

    fn usage(&self) -> Value {
        let (prompt, output) = (u64::from(self.prompt_tokens), u64::from(self.output_tokens));
        match self.route {
            Route::Embeddings => json!({"prompt_tokens": prompt, "total_tokens": prompt}),
            Route::Chat | Route::Completions => json!({
                "prompt_tokens": prompt,
                "completion_tokens": output,
                "total_tokens": prompt + output,
            }),
        }
    }

    fn frame(&self, mut choice: Value, finish_reason: Value) -> Bytes {
        choice["index"] = 0.into();
        choice["logprobs"] = Value::Null;
        choice["finish_reason"] = finish_reason;
        frame(&self.chunk(json!([choice])))
    }

    fn chunk(&self, choices: Value) -> Value {
        let object = match self.route {
            Route::Chat => "chat.completion.chunk",
            Route::Completions | Route::Embeddings => "text_completion",
        };
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }
}

fn frame(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Why a request gets no answer.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }
    /// The request does not fit the context.
    pub fn too_long(context_max: u32, (prompt, output): (u32, u32)) -> Refusal {
        let message = format!(
            "This model's maximum context length is {context_max} tokens. However, you requested \
             {} tokens ({prompt} in the prompt, {output} in the completion).",
            u64::from(prompt) + u64::from(output)
        );
        Refusal::new(StatusCode::BAD_REQUEST, "context_length_exceeded", message)
    }
    /// Any other.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { status, code, message: message.into() }
    }

    /// OpenAI's shape of an error.
    pub fn body(&self) -> Bytes {
        let kind = match self.status.is_server_error() {
            true => "server_error",
            false => "invalid_request_error",
        };
        let error =
            json!({"message": self.message, "type": kind, "param": null, "code": self.code});
        Bytes::from(json!({"error": error}).to_string())
    }
}
