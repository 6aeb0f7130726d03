//! What is wrong with a device, each by its name.

use std::time::Duration;

use thiserror::Error;

/// Why a device cannot be used, or has not answered.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DeviceError {
    /// What was written is no address of a device.
    #[error(
        "`{url}` is no address of a device: the URL {what}; write for example http://127.0.0.1:8000"
    )]
    BadUrl {
        /// As written.
        url: String,
        /// To follow "the URL".
        what: String,
    },
    /// Nobody listens there.
    #[error("no device at {url}: {why}; start the server first, or correct the address")]
    NotThere {
        /// Where.
        url: String,
        /// What the system says.
        why: String,
    },
    /// Somebody listens there and speaks something else.
    #[error("{url} does not speak OpenAI's API: {what}")]
    SpeaksOtherwise {
        /// Where.
        url: String,
        /// What it said.
        what: String,
    },
    /// It has no such model.
    #[error("{url} has no model `{asked}`; there is {there}")]
    NoModel {
        /// Where.
        url: String,
        /// Which was asked for.
        asked: String,
        /// Which there are.
        there: String,
    },
    /// It answers in one piece.
    #[error("{url} does not stream ({what}): the time of each token cannot be seen")]
    NoStreaming {
        /// Where.
        url: String,
        /// What it sent instead.
        what: String,
    },
    /// It does not say how many tokens it read and wrote.
    #[error(
        "{url} tells no `usage` at the end of a stream (`stream_options.include_usage`): how many tokens it computed cannot be known"
    )]
    NoUsage {
        /// Where.
        url: String,
    },
    /// It refuses a request.
    #[error("the device refuses a request with status {status}: {message}")]
    Refused {
        /// HTTP's.
        status: u16,
        /// Its own words.
        message: String,
    },
    /// It computes for somebody else.
    #[error(
        "the device is loaded already ({running} running, {waiting} waiting): stop what uses it, or what is measured is not the device"
    )]
    Loaded {
        /// Requests that run.
        running: u32,
        /// Requests that wait.
        waiting: u32,
    },
    /// The weights of the embedded device cannot be used.
    #[error("the weights in {path} cannot be used: {what}")]
    Weights {
        /// Their folder.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// The model is not the one that was meant.
    #[error(
        "the device serves `{is}` now, not `{was}`: measure it again, or start the other model"
    )]
    ModelChanged {
        /// Before.
        was: String,
        /// Now.
        is: String,
    },
    /// The engine or its version is not the one that was meant.
    #[error("the engine is {is} now, and the profile is of {was}: calibrate again")]
    EngineChanged {
        /// Before.
        was: String,
        /// Now.
        is: String,
    },
    /// It broke off in the middle of an answer.
    #[error("the device broke off: {0}")]
    BrokeOff(String),
    /// It said nothing for too long.
    #[error("the device said nothing for {} s", .0.as_secs())]
    Silent(Duration),
    /// A request does not fit it.
    #[error("{needed} tokens of prompt and output do not fit a context of {context_max}")]
    TooLong {
        /// Prompt and output together.
        needed: u64,
        /// What fits.
        context_max: u32,
    },
    /// There is no GPU to compute on.
    #[error("no CUDA device: {0}")]
    NoCuda(String),
    /// A model cannot be loaded, or computing failed.
    #[error("{0}")]
    Compute(String),
}
