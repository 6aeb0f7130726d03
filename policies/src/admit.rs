//! What a request is expected to need, and what comes of refusing it.

use plimsoll_base::{ClassId, Span, Time};

use crate::book::Entry;
use crate::config::{Class, Predict};

/// The shortest time after which a refused client is asked to come back.
pub(crate) const RETRY_MIN: Span = Span::from_secs(1);

/// Output tokens expected of a request, indexed by class; [`u32::MAX`] where only the cap counts.
#[derive(Debug)]
pub(crate) struct Predictions(Vec<u32>);

impl Predictions {
    pub fn new(predict: Predict, classes: &[Class]) -> Predictions {
        let stated = classes.iter().map(|class| match predict {
            Predict::DeclaredCap => u32::MAX,
            Predict::ClassIntensity => class.output_tokens_expected.unwrap_or(u32::MAX),
        });
        Predictions(stated.collect())
    }
    /// Output tokens predicted from what a gateway can see; never above the client's cap.
    pub fn output(&self, class: ClassId, output_cap: u32) -> u32 {
        self.0[class.index()].min(output_cap)
    }
}

/// When a client refused for a full queue should come back: what the oldest waiting request of
/// its class has waited so far, at least [`RETRY_MIN`]. The queue drained no faster than that.
pub(crate) fn retry_after(now: Time, oldest: Option<&Entry>) -> Span {
    let waited = oldest.map(|entry| now.saturating_since(entry.arrived));
    waited.unwrap_or_default().max(RETRY_MIN)
}
