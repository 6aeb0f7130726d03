//! When a refused client should come back.

use plimsoll_base::{Span, Time};

use crate::book::Entry;

/// The shortest time after which a client refused for a full queue is asked to come back.
pub(crate) const RETRY_MIN: Span = Span::from_secs(1);

/// When a client refused for a full queue should come back: in the time in which those who wait
/// are dispatched at the pace measured (`wait`, see `drain.rs`). Before that is measured it is
/// what the oldest of them has waited so far: the queue drained no faster than that. At least
/// [`RETRY_MIN`].
pub(crate) fn retry_after(now: Time, wait: Option<Span>, oldest: Option<&Entry>) -> Span {
    let waited = || oldest.map(|entry| now.saturating_since(entry.arrived)).unwrap_or_default();
    wait.unwrap_or_else(waited).max(RETRY_MIN)
}
