//! Early refusal: what cannot meet its objective is told so at once.
//!
//! **What it does.** The wait of a request is predicted as the requests of its class that wait
//! before it times the class's recent mean gap between dispatches (see `drain.rs`). If that is
//! longer than the stated `wait_limit`, or without one than the class's `deadline`, the request is
//! refused (`infeasible`, because it is `hopeless`), and asked to come back when the queue will
//! have shrunk enough: `Retry-After` = predicted wait − limit.
//!
//! **Source.** Little's law over the queue in front of it; the idea is early rejection as in
//! Mooncake (Qin et al., FAST 2025), which refuses on predicted load instead of running work that
//! will miss its objective.
//!
//! **Promise.** The queue of a class stays below `limit / mean gap + 1`, so who is let in waits
//! about the limit at most while the pace holds, and work that would miss its objective anyway
//! costs nobody anything.
//!
//! **How it fails.** It predicts from the pace of the last dozens of dispatches. When the pace
//! falls suddenly, those already let in miss their objective; when it rises, some are refused that
//! would have been in time. Where the share serves tenants of one class in turn, a tenant with
//! nothing waiting is predicted the wait of the whole class. Before eight gaps were measured
//! nobody is refused, and a limit that counts only the wait leaves no room for prefill: state a
//! `wait_limit` below the objective where prefill takes long.

use plimsoll_base::{ClassId, Reason, Refusal, Span};

use super::{Objection, named};
use crate::class_set::ClassSet;
use crate::config::{Class, EarlyRefusal};

/// The limits.
#[derive(Debug)]
pub(crate) struct Early {
    /// Indexed by class; [`Span::MAX`] where there is none.
    limits: Vec<Span>,
    classes: ClassSet,
}

impl Early {
    pub fn new(rule: &EarlyRefusal, classes: &[Class]) -> Early {
        let limit = |class: &Class| rule.wait_limit.or(class.deadline).unwrap_or(Span::MAX);
        Early {
            limits: classes.iter().map(limit).collect(),
            classes: named(&rule.classes, classes.len()),
        }
    }

    pub fn classes(&self) -> ClassSet {
        self.classes
    }

    pub fn ask(&self, class: ClassId, wait: Option<Span>) -> Result<(), Objection> {
        let limit = self.limits[class.index()];
        match wait {
            Some(wait) if wait > limit && self.classes.contains(class) => Err(Objection {
                refusal: Refusal::Infeasible,
                reason: Reason::Hopeless,
                retry_after: wait - limit,
            }),
            Some(_) | None => Ok(()),
        }
    }
}
