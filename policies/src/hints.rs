//! What the driver knows of a request before it arrives: where its prompt is cached. Kept for one
//! request, the one that is about to arrive.

use plimsoll_base::{BackendId, RequestId};

/// A backend that has a part of a prompt cached, and how many tokens of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Match {
    pub backend: BackendId,
    pub tokens: u32,
}

/// The longest match of one request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hints(Option<(RequestId, Match)>);

impl Hints {
    /// A backend has so many tokens of the request's prompt. Of equal matches the lowest slot
    /// counts.
    pub fn matched(&mut self, id: RequestId, backend: BackendId, tokens: u32) {
        let known = self.0.filter(|(of, _)| *of == id);
        let mut best = known.map_or(Match::default(), |(_, best)| best);
        if tokens > best.tokens || (tokens == best.tokens && backend.slot < best.backend.slot) {
            best = Match { backend, tokens };
        }
        self.0 = Some((id, best));
    }

    /// What is known of the request that arrives; then forgotten.
    #[inline(always)]
    pub fn take(&mut self, id: RequestId) -> Match {
        if self.0.is_none() {
            return Match::default();
        }
        let known = self.0.take().filter(|(of, _)| *of == id);
        known.map_or(Match::default(), |(_, best)| best)
    }
}
