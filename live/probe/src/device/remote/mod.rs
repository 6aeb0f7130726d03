//! Any OpenAI-compatible server, by its URL.
//!
//! What is opened is looked at first: which model it serves, whose server it is, what it tells of
//! its limits, in which form it takes a prompt, and whether it streams and tells `usage`. What is
//! missing is an error with a name, never guessed over.
//!
//! Prompts go as tokens to `/v1/completions` where that is taken, as text there else, and as a
//! chat at last. Answers are asked to be exactly as long as wished with `ignore_eos` and
//! `min_tokens`, where the server takes these.

mod client;
mod closed;
mod dialect;
mod discover;
mod steps;
mod stream;

use std::sync::Arc;

use plimsoll_config::gateway::{BackendKind, Scheme, Url};
use plimsoll_policy::Load;
use tokio::runtime::{Builder, Runtime};

use self::client::Client;
use self::dialect::Dialect;
use self::steps::Steps;
use super::{Answering, Ask, Clock, Description, Device, DeviceError, Heard, Step, channel};

/// How to find a server.
#[derive(Clone, Debug, Default)]
pub struct RemoteOptions {
    /// Such as `http://127.0.0.1:8000`; a `/v1` at its end is not needed.
    pub url: String,
    /// Whose server it is. Default: what it says of itself.
    pub kind: Option<BackendKind>,
    /// Which of its models. Default: the only one.
    pub model: Option<String>,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<String>,
}

/// An OpenAI-compatible server.
pub struct Remote {
    client: Arc<Client>,
    kind: BackendKind,
    dialect: Arc<Dialect>,
    description: Description,
    steps: Option<Steps>,
    runtime: Option<Runtime>,
}

impl Remote {
    /// Opens the server at a URL: looks at what it is, and has it answer two or three short
    /// requests.
    ///
    /// # Errors
    /// If nobody is there, or whoever is cannot be measured: each case by its name.
    pub fn open(options: &RemoteOptions) -> Result<Remote, DeviceError> {
        let url = parse(&options.url)?;
        // One thread, so that the client can be held on one core.
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).thread_name("client").enable_all().build();
        let runtime = runtime.map_err(|error| DeviceError::Compute(error.to_string()))?;
        let client = Arc::new(Client::new(url, options.token.as_deref())?);
        let (found, dialect) = runtime.block_on(async {
            let found = discover::discover(&client, options).await?;
            let dialect = Dialect::find(&client, &found).await?;
            Ok::<_, DeviceError>((found, dialect))
        })?;
        Ok(Remote {
            steps: found.tells_steps.then(|| Steps::new(client.clock)),
            kind: found.kind,
            description: found.description,
            dialect: Arc::new(dialect),
            client,
            runtime: Some(runtime),
        })
    }

    /// Whose server it is.
    pub fn kind(&self) -> BackendKind {
        self.kind
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is taken when this is dropped")
    }

    /// Runs a short look at the server to its end, from whatever thread.
    fn look<T: Send>(&self, look: impl Future<Output = T> + Send) -> T {
        std::thread::scope(|scope| {
            // A thread of its own: the caller may be a task of another runtime.
            let looking = scope.spawn(|| self.runtime().block_on(look));
            looking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Device for Remote {
    fn description(&self) -> &Description {
        &self.description
    }

    fn clock(&self) -> Clock {
        self.client.clock
    }

    fn submit(&self, ask: &Ask) -> Answering {
        let (teller, answering) = channel(ask.output_tokens);
        let (client, dialect) = (Arc::clone(&self.client), Arc::clone(&self.dialect));
        let body = match self.dialect.body(ask, self.description.limits.context_max) {
            Ok(body) => body,
            Err(error) => {
                // There is room for it: the channel is new.
                let _ = teller.try_send(Heard::Failed(client.clock.now(), error));
                return answering;
            }
        };
        self.runtime().spawn(async move {
            let gone = teller.clone();
            tokio::select! {
                () = stream::answer(&client, (&dialect, body), &teller) => {}
                // Nobody listens any more: what runs is dropped, and the server sees it.
                () = gone.closed() => {}
            }
        });
        answering
    }

    fn load(&self) -> Result<Option<Load>, DeviceError> {
        if self.kind == BackendKind::OpenAi {
            return Ok(None);
        }
        let page = self.look(self.client.text("/metrics"))?;
        Ok(page.and_then(|page| plimsoll_wire::load(self.kind, &page)))
    }

    fn take_steps(&self) -> Result<Option<Vec<Step>>, DeviceError> {
        let Some(steps) = &self.steps else { return Ok(None) };
        self.look(steps.take(&self.client)).map(Some)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("description", &self.description).finish_non_exhaustive()
    }
}

fn parse(text: &str) -> Result<Url, DeviceError> {
    let bad = |what: &str| DeviceError::BadUrl { url: text.to_owned(), what: what.to_owned() };
    let trimmed = text.trim_end_matches('/');
    let url = Url::parse(trimmed.strip_suffix("/v1").unwrap_or(trimmed)).map_err(bad)?;
    match url.scheme {
        Scheme::Http => Ok(url),
        Scheme::Https => Err(bad(
            "must begin with http://: a device is measured without TLS in between, at its own port",
        )),
    }
}
