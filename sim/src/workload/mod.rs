//! What is offered: requests, the sources they come from, and the generators.

use plimsoll_base::{ClassId, ModelId, SessionId, Span, StageId, TenantId, Time, WorkflowId};
use plimsoll_policy::{Labels, RequestInfo};

mod arrivals;
mod generate;
mod lengths;
#[cfg(test)]
mod tests;

pub use generate::source;

/// A request as the simulator knows it. Policies never see `output_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who pays.
    pub tenant: TenantId,
    /// The class it asks for.
    pub claims: Option<ClassId>,
    /// Prompt length in tokens, at least 1.
    pub prompt_tokens: u32,
    /// True output length in tokens, at least 1.
    pub output_tokens: u32,
    /// Output tokens the client allows, at least `output_tokens`.
    pub output_cap: u32,
    /// The source's own key for it (a closed-loop user), handed back by [`Source::ended`].
    pub key: u32,
}

/// A source broke: a trace row was bad. The message names file, line, what is wrong and what to
/// write.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Where requests come from, open loop or closed loop. Memory follows what is in flight.
pub trait Source: Send {
    /// When the next request arrives, as far as is known now; `None` if nothing is to come
    /// (a closed-loop source may say `Some` again after [`Source::ended`]). Never decreases but
    /// after `ended`, and never lies before the last instant the source was told of.
    fn next_at(&mut self) -> Result<Option<Time>, SourceError>;

    /// The request that `next_at` announced. Only called after `next_at` returned `Some`.
    fn take(&mut self) -> Request;

    /// Whether it wants to hear of requests that are over.
    fn hears_ends(&self) -> bool {
        false
    }

    /// A request of this source, which [`hears_ends`](Source::hears_ends), is over, whatever its
    /// outcome. Returns whether `next_at` may have changed.
    fn ended(&mut self, _now: Time, _key: u32) -> bool {
        false
    }
}

/// A workload of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// How and when requests arrive.
    pub arrivals: Arrivals,
    /// Prompt lengths.
    pub prompt: Lengths,
    /// Output lengths.
    pub output: Lengths,
    /// Output tokens the client allows; the true length where that is longer.
    pub output_cap: u32,
    /// Who pays: tenants with weights, drawn by an own stream. At least one.
    pub tenants: Vec<(TenantId, u32)>,
    /// The class its requests ask for.
    pub claims: Option<ClassId>,
    /// What else its requests bear.
    pub marks: Marks,
    /// The first arrival comes after this.
    pub start: Time,
    /// No arrival at or after this.
    pub stop: Option<Time>,
}

/// What all requests of a workload bear, beside tenant and class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The model they ask for.
    pub model: ModelId,
    /// What they do in their workflow.
    pub stage: StageId,
    /// The policy's labels.
    pub labels: Labels,
    /// How often they were tried before.
    pub attempt: u8,
    /// Who belongs together.
    pub together: Together,
}

impl Marks {
    /// What a gateway sees of these marks on a request of this user; users are numbered from 1.
    #[inline]
    pub fn seen(&self, user: u64) -> RequestInfo {
        let (session, workflow) = match self.together {
            Together::None => (0, 0),
            Together::Sessions => (user, 0),
            Together::Workflows => (user, user),
        };
        RequestInfo {
            model: self.model,
            stage: self.stage,
            labels: self.labels,
            attempt: self.attempt,
            session: SessionId(session),
            workflow: WorkflowId(workflow),
            ..RequestInfo::default()
        }
    }
}

/// Which requests of a workload belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Together {
    /// None.
    #[default]
    None,
    /// Those of one user (of a closed loop) are a session.
    Sessions,
    /// Those of one user (of a closed loop) are a session and one workflow.
    Workflows,
}

/// How requests arrive.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrivals {
    /// Independent exponential gaps.
    Poisson {
        /// Requests a second, above 0.
        rate: f64,
    },
    /// Independent gamma gaps.
    Gamma {
        /// Requests a second, above 0.
        rate: f64,
        /// Coefficient of variation of the gaps, above 0 (1 is Poisson).
        cv: f64,
    },
    /// A Poisson process whose rate is constant on each piece (drawn by time rescaling).
    Piecewise {
        /// Length and rate (requests a second, 0 allowed) of each piece; not empty.
        pieces: Vec<(Span, f64)>,
        /// Whether the pieces start over after the last one.
        repeat: bool,
    },
    /// Users that wait for their answer, think, and ask again.
    Closed {
        /// How many.
        users: u32,
        /// How long they think.
        think: Think,
    },
    /// Rows of a trace file; the source is built by whoever can read files.
    Trace,
}

/// How long a closed-loop user thinks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Think {
    /// Always the same.
    Fixed(Span),
    /// Exponential with this mean.
    Exponential(Span),
}

/// A distribution of lengths in tokens; every draw is at least 1.
#[derive(Clone, Debug, PartialEq)]
pub enum Lengths {
    /// Always the same.
    Fixed(u32),
    /// Uniform over `min..=max`.
    Uniform {
        /// The least.
        min: u32,
        /// The greatest.
        max: u32,
    },
    /// exp(N(mu, sigma²)) rounded to the nearest integer and clamped to `1..=max`.
    Lognormal {
        /// Mean of the logarithm.
        mu: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
        /// Draws above are clamped to it.
        max: u32,
    },
    /// Linear interpolation between quantiles: (probability, tokens), probabilities rising from
    /// 0 to 1, tokens not falling.
    Quantiles(Vec<(f64, u32)>),
}

impl Lengths {
    /// The longest length that can be drawn.
    pub fn max(&self) -> u32 {
        match self {
            Lengths::Fixed(tokens) => *tokens,
            Lengths::Uniform { max, .. } | Lengths::Lognormal { max, .. } => *max,
            Lengths::Quantiles(points) => points.last().map_or(1, |(_, tokens)| *tokens),
        }
    }
}
