//! What a request is expected to need, and what comes of refusing it.

use plimsoll_base::{Span, Time};

use crate::book::Entry;
use crate::config::{Class, Predict};

/// The shortest time after which a refused client is asked to come back.
pub(crate) const RETRY_MIN: Span = Span::from_secs(1);

/// Output tokens predicted from what a gateway can see; never above the client's cap.
pub(crate) fn output_predicted(predict: Predict, class: &Class, output_cap: u32) -> u32 {
    match predict {
        Predict::DeclaredCap => output_cap,
        Predict::ClassIntensity => class.output_tokens_expected.unwrap_or(u32::MAX).min(output_cap),
    }
}

/// When a client refused for a full queue should come back: what the oldest waiting request of
/// its class has waited so far, at least [`RETRY_MIN`]. The queue drained no faster than that.
pub(crate) fn retry_after(now: Time, oldest: Option<&Entry>) -> Span {
    let waited = oldest.map(|entry| now.saturating_since(entry.arrived));
    waited.unwrap_or_default().max(RETRY_MIN)
}
