//! What an allocator holds at an instant, to be looked at.

use std::fmt;

use plimsoll_base::{BackendId, Bound, ClassId, Time};

use super::Allocator;
use crate::book::State;

/// What an allocator holds: what waits, what is outstanding, and what stops whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The instant of the latest input.
    pub now: Time,
    /// Whether it refuses everything new.
    pub draining: bool,
    /// Indexed by class.
    pub classes: Vec<ClassState>,
    /// The backends that are there, by slot.
    pub backends: Vec<BackendState>,
}

/// A class at an instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassState {
    /// Requests that wait here.
    pub queued: u32,
    /// When the oldest of them arrived.
    pub oldest: Option<Time>,
    /// What stops the oldest of them.
    pub stopped_by: Option<Bound>,
    /// Requests outstanding at backends.
    pub outstanding: u32,
    /// Their estimated tokens.
    pub outstanding_tokens: u64,
}

/// A backend at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendState {
    /// Which.
    pub backend: BackendId,
    /// Requests outstanding, and how many the window allows.
    pub requests: (u32, u32),
    /// Estimated tokens outstanding, and how many the window allows.
    pub tokens: (u64, u64),
}

impl Allocator {
    /// What it holds now. Looks at every request: for people, not for every input.
    pub fn snapshot(&self) -> Snapshot {
        let count = self.config.classes.len();
        let mut classes: Vec<ClassState> = (0..count)
            .map(|index| {
                let class = ClassId(index as u16);
                let queued = self.book.queued(class);
                let first = self.book.oldest(class);
                let stopped_by = first.and_then(|first| self.stops.bound(class, first.queue));
                let oldest = first.map(|first| first.arrived);
                ClassState { queued, oldest, stopped_by, ..ClassState::default() }
            })
            .collect();
        for entry in self.book.held() {
            if let State::Dispatched(_) = entry.state {
                let class = &mut classes[entry.class.index()];
                class.outstanding += 1;
                class.outstanding_tokens += entry.tokens();
            }
        }
        let backends = self.backends.states().collect();
        Snapshot { now: self.now, draining: self.draining, classes, backends }
    }
}

/// One line a class and a backend.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, class) in self.classes.iter().enumerate() {
            let ClassState { queued, oldest, stopped_by, outstanding, outstanding_tokens } = class;
            write!(f, "class {index}: {queued} queued")?;
            if let Some(oldest) = oldest {
                write!(f, " since {:.9} s", oldest.secs_f64())?;
            }
            if let Some(bound) = stopped_by {
                write!(f, ", stopped by {}", bound.name())?;
            }
            writeln!(f, ", {outstanding} outstanding with {outstanding_tokens} tokens")?;
        }
        for BackendState { backend, requests, tokens } in &self.backends {
            write!(
                f,
                "backend {backend}: {} of {} requests",
                requests.0,
                limit(requests.1.into())
            )?;
            writeln!(f, ", {} of {} tokens", tokens.0, limit(tokens.1))?;
        }
        if self.draining { writeln!(f, "draining") } else { Ok(()) }
    }
}

fn limit(number: u64) -> String {
    if number >= u64::from(u32::MAX) { "any number of".to_owned() } else { number.to_string() }
}
