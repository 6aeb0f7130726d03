//! What the driver knows of a request before it arrives: where its prompt is cached, and how much
//! it is predicted to deliver. Kept for one request, the one that is about to arrive.

use plimsoll_base::{BackendId, RequestId};

/// A backend that has a part of a prompt cached, and how many tokens of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Match {
    pub backend: BackendId,
    pub tokens: u32,
}

/// What is known of one request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hints {
    of: Option<RequestId>,
    known: Hint,
}

/// The longest match, and the predicted output.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hint {
    pub matched: Match,
    pub output_tokens: Option<u32>,
}

impl Hints {
    /// A backend has so many tokens of the request's prompt. Of equal matches the lowest slot
    /// counts.
    pub fn matched(&mut self, id: RequestId, backend: BackendId, tokens: u32) {
        let known = self.of(id);
        let best = &mut known.matched;
        if tokens > best.tokens || (tokens == best.tokens && backend.slot < best.backend.slot) {
            *best = Match { backend, tokens };
        }
    }

    pub fn predicted(&mut self, id: RequestId, output_tokens: u32) {
        self.of(id).output_tokens = Some(output_tokens);
    }

    /// What is known of the request that arrives; then forgotten.
    pub fn take(&mut self, id: RequestId) -> Hint {
        match self.of.take() {
            Some(of) if of == id => std::mem::take(&mut self.known),
            Some(_) | None => Hint::default(),
        }
    }

    fn of(&mut self, id: RequestId) -> &mut Hint {
        if self.of != Some(id) {
            *self = Hints { of: Some(id), known: Hint::default() };
        }
        &mut self.known
    }
}
