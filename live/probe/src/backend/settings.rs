//! How a backend is set up.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use super::Faults;

/// How a backend is set up. The default listens on a free port of the loopback interface.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens; port 0 is a free one.
    pub listen: SocketAddr,
    /// The only model it serves; `None` serves whatever it is asked for.
    pub model: Option<String>,
    /// How much faster the engine's clock runs than the wall's.
    pub speed: f64,
    /// Whose metrics and priorities it speaks.
    pub kind: Kind,
    /// Tokens a frame of a stream, but for the first token, which comes alone: what vLLM and SGLang
    /// call `--stream-interval`. 0 is taken for 1.
    pub stream_interval: u32,
    /// What goes wrong, how often.
    pub faults: Faults,
    /// What it does not exceed.
    pub limits: Limits,
    /// Whether it tells its steps.
    pub steps: Steps,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            model: None,
            speed: 1.0,
            kind: Kind::default(),
            stream_interval: 1,
            faults: Faults::default(),
            limits: Limits::default(),
            steps: Steps::default(),
        }
    }
}

/// Whether a backend tells what it is and its steps, as the engines under `live/engines` do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Steps {
    /// As real servers do: nothing.
    #[default]
    Hidden,
    /// At `/plimsoll/engine` and `/plimsoll/steps`.
    Told,
}

impl Settings {
    /// Speeds at which an instant of the engine is still an instant of the wall.
    const SPEEDS: std::ops::RangeInclusive<f64> = 0.001..=1e6;

    pub(super) fn check(&self) -> io::Result<()> {
        if !Settings::SPEEDS.contains(&self.speed) {
            let message = format!("a speed of {} is not from 0.001 to 1000000", self.speed);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(())
    }
}

/// What a backend does not exceed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once, and so requests; more wait to be accepted.
    pub connections_max: usize,
    /// Bytes of a request's body.
    pub body_max: usize,
    /// How long a client may take for its headers, and again for its body.
    pub read_max: Duration,
    /// How long [`Fault::SlowHeaders`](super::Fault::SlowHeaders) holds headers back.
    pub slow_headers: Duration,
    /// Frames that a stream delivers before it goes wrong in the middle.
    pub tokens_before_fault: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 16_384,
            body_max: 4 << 20,
            read_max: Duration::from_secs(30),
            slow_headers: Duration::from_secs(3),
            tokens_before_fault: 3,
        }
    }
}

/// Whose metrics and priorities a backend speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// vLLM: a lower `priority` is more important.
    #[default]
    Vllm,
    /// SGLang: a higher `priority` is more important.
    Sglang,
    /// llama.cpp: knows no priorities.
    LlamaCpp,
}

impl Kind {
    /// The engine's priority (higher is more important) for the one that a request states.
    pub(super) fn priority(self, stated: i32) -> i32 {
        match self {
            Kind::Vllm => stated.saturating_neg(),
            Kind::Sglang => stated,
            Kind::LlamaCpp => 0,
        }
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(name: &str) -> Result<Kind, String> {
        match name {
            "vllm" => Ok(Kind::Vllm),
            "sglang" => Ok(Kind::Sglang),
            "llama-cpp" => Ok(Kind::LlamaCpp),
            other => Err(format!("`{other}` is none of vllm, sglang, llama-cpp")),
        }
    }
}
