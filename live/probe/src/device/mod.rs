//! Something that really computes, behind one trait.
//!
//! A [`Device`] takes requests and says, on its own clock, what was seen of each and when: sent,
//! accepted, first byte, every chunk, the end, and the usage it was told. Two kinds there are:
//! [`Remote`], any OpenAI-compatible server, and with the feature `embedded` a small transformer
//! in this process, which with the feature `cuda` a GPU may compute. Whoever measures a device
//! (`calibrate`) or compares it with a simulation needs nothing but the trait.
//!
//! What one gives, and what it does not:
//!
//! | | remote | embedded |
//! |---|---|---|
//! | times of a request | at the client, of bytes as they arrive | at the engine's step boundaries |
//! | a chunk is | a server-sent event, usually a token | a token |
//! | prompt and output lengths | as the server's `usage` tells them | as asked for |
//! | steps | where the server tells them at `/plimsoll/steps` | every one |
//! | load | where its `/metrics` tells it | always |
//! | limits | those that the server tells | all |
//!
//! Submitting never waits: a request runs in the background until its [`Answering`] has ended or
//! is dropped, which takes it back. Nothing here needs the caller to have a runtime: `wait` and
//! `wait_next` are for threads, `whole` and `next` for tasks.

mod answering;
mod clock;
#[cfg(feature = "embedded")]
mod embedded;
mod error;
mod remote;

use plimsoll_base::Time;
use plimsoll_policy::Load;
use plimsoll_sim::engine::BatchShape;

pub use answering::{Answer, Answering, Carries, Chunk, Heard, Teller, Usage, channel};
pub use clock::Clock;
#[cfg(feature = "embedded")]
pub use embedded::{Embedded, EmbeddedOptions, Place, Shape};
pub use error::DeviceError;
pub use remote::{Remote, RemoteOptions};

/// Something that takes requests and really computes their answers.
pub trait Device: Send + Sync {
    /// What it is, as found when it was opened.
    fn description(&self) -> &Description;

    /// The clock of all times that it tells.
    fn clock(&self) -> Clock;

    /// Sends a request on its way, and returns at once. What becomes of it, failure included, is
    /// told by the [`Answering`].
    fn submit(&self, ask: &Ask) -> Answering;

    /// How full it is now; `None` if it does not tell.
    ///
    /// # Errors
    /// If it is gone or says something else than it did.
    fn load(&self) -> Result<Option<Load>, DeviceError>;

    /// The steps that ended since this was last called, oldest first; `None` if it tells none.
    ///
    /// # Errors
    /// If it is gone, or has forgotten steps before they were asked for.
    fn take_steps(&self) -> Result<Option<Vec<Step>>, DeviceError>;

    /// Refuses a device that computes for somebody else: what is measured on it would be wrong.
    ///
    /// # Errors
    /// [`DeviceError::Loaded`], and those of [`load`](Device::load).
    fn require_idle(&self) -> Result<(), DeviceError> {
        match self.load()? {
            Some(Load { running, waiting, .. }) if running + waiting > 0 => {
                Err(DeviceError::Loaded { running, waiting })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// What a device is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// What computes, such as `vllm`, `openvino-genai`, `plimsoll-embedded`; `openai` for a server
    /// that does not say.
    pub engine: String,
    /// Its version, if it says so.
    pub version: Option<String>,
    /// The settings it was started with, as far as it tells them: `name=value`, sorted.
    pub flags: Vec<String>,
    /// The model.
    pub model: String,
    /// Where it is: a URL, or what of this machine.
    pub place: String,
    /// What it tells of its limits.
    pub limits: Limits,
}

impl Description {
    /// Refuses this device where another was meant: a profile holds for the engine, the version
    /// and the model that it was measured on.
    ///
    /// # Errors
    /// [`DeviceError::ModelChanged`] or [`DeviceError::EngineChanged`].
    pub fn require_same(&self, before: &Description) -> Result<(), DeviceError> {
        let named = |it: &Description| match &it.version {
            Some(version) => format!("{} {version}", it.engine),
            None => it.engine.clone(),
        };
        if self.model != before.model {
            let (was, is) = (before.model.clone(), self.model.clone());
            return Err(DeviceError::ModelChanged { was, is });
        }
        let (was, is) = (named(before), named(self));
        if was != is {
            return Err(DeviceError::EngineChanged { was, is });
        }
        Ok(())
    }
}

/// The limits of a device; `None` where it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Sequences in a batch.
    pub seats: Option<u32>,
    /// Tokens computed a step.
    pub step_tokens_max: Option<u32>,
    /// KV memory in tokens.
    pub kv_tokens: Option<u64>,
    /// Tokens a KV block.
    pub block_tokens: Option<u32>,
    /// The longest context, prompt and output together, in tokens.
    pub context_max: Option<u32>,
    /// Whether more important requests enter the batch first.
    pub priorities: Option<Priorities>,
}

/// What a device makes of the priority of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priorities {
    /// Nothing: first come, first served.
    Ignored,
    /// The more important enters first.
    Obeyed,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What is asked.
    pub prompt: Prompt,
    /// Tokens of the answer: the device is told to give that many and no fewer, where it can be
    /// told. What it gave stands in [`Answer::usage`].
    pub output_tokens: u32,
    /// Higher is more important, whatever the device's own convention.
    pub priority: i32,
}

/// A prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// So many tokens drawn at random, anew each time it is asked, so that no prefix is in any
    /// cache: a server may keep prompts for longer than we run. A server that takes no tokens gets
    /// words instead, and the length is what `usage` tells, near to it.
    Random {
        /// How many.
        tokens: u32,
    },
    /// These tokens, of the device's vocabulary.
    Tokens(Vec<u32>),
    /// This text.
    Text(String),
}

/// One step of an engine, as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When it began.
    pub start: Time,
    /// When it was over, and the next could begin.
    pub end: Time,
    /// When its tokens went out; not later than its end.
    pub delivered: Time,
    /// What it computed.
    pub shape: BatchShape,
}
