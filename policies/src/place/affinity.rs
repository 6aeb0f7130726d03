//! `prefix-affinity` and `session-affinity`: go where it is warm, unless that is overloaded.
//!
//! *Prefix affinity* names the backend that has most of the prompt cached
//! ([`Input::Matched`](crate::Input::Matched)). *Session affinity* names the backend that the
//! session's latest request went to; the table holds `sessions_max` sessions and forgets the one
//! that was used least recently. A session whose backend left, or was forgotten, goes anywhere.
//!
//! **The load break.** The warm backend is taken only if it has room for the request and its
//! outstanding tokens are at most `break_factor` × those of the least loaded backend with room +
//! `break_tokens`; otherwise the next rule decides. A session then belongs to where it went.
//!
//! **Promise.** A backend is never made more loaded by affinity than the break allows: after a
//! dispatch by affinity it holds at most that many tokens more than the request's own.
//!
//! **Failure.** Without a break (`break_tokens` as large as the memory) affinity overloads the warm
//! backend: it gets all of a popular prefix while the others idle, and the cold start it saves is
//! lost many times over in its queue. With a break that is too tight the cache is copied everywhere.
//! Of several backends with equal matches the lowest slot counts; where the best one may not take
//! the request, the second best is not tried.
//!
//! Source: after SGLang's cache-aware router, which calls load unbalanced by a relative and an
//! absolute threshold (`balance_rel_threshold`, `balance_abs_threshold`); here on outstanding tokens
//! in place of requests.

use plimsoll_base::{BackendId, SessionId};

use crate::config::LoadBreak;
use crate::index::Index;
use crate::list::{Linked, Links, List};

/// A whole in millionths.
const ONE: u128 = 1_000_000;

/// Whether a warm backend with so many outstanding tokens may be taken, given the least loaded.
pub(crate) fn is_fair(load: LoadBreak, warm: u64, least: u64) -> bool {
    let most = u128::from(load.factor_ppm) * u128::from(least) + ONE * u128::from(load.tokens);
    u128::from(warm) * ONE <= most
}

/// Where each session went last.
#[derive(Debug)]
pub(crate) struct Sessions {
    sessions_max: u32,
    seats: Vec<Seat>,
    /// The index is one of request ids; a session is looked up under its own number.
    by_id: Index,
    /// From least to most recently used.
    order: List,
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    session: SessionId,
    backend: BackendId,
    links: Links,
}

struct Order<'a>(&'a mut [Seat]);

impl Linked for Order<'_> {
    fn links(&self, member: u32) -> &Links {
        &self.0[member as usize].links
    }
    fn links_mut(&mut self, member: u32) -> &mut Links {
        &mut self.0[member as usize].links
    }
}

impl Sessions {
    pub fn new(sessions_max: u32) -> Sessions {
        Sessions { sessions_max, seats: Vec::new(), by_id: Index::new(), order: List::EMPTY }
    }

    /// Where the session's latest request went.
    pub fn find(&self, session: SessionId) -> Option<BackendId> {
        let found = self.by_id.find(session.0)?;
        Some(self.seats[found.slot as usize].backend)
    }

    /// A request of the session goes there. 0 is no session.
    pub fn went(&mut self, session: SessionId, backend: BackendId) {
        if session == SessionId(0) {
            return;
        }
        let at = match self.by_id.find(session.0) {
            Some(found) => {
                self.order.remove(&mut Order(&mut self.seats), found.slot);
                found.slot
            }
            None => self.seat(session),
        };
        self.seats[at as usize].backend = backend;
        self.order.push(&mut Order(&mut self.seats), at);
    }

    /// A place for a session that has none: a new one, or that of the least recently used.
    fn seat(&mut self, session: SessionId) -> u32 {
        let seat = Seat { session, backend: BackendId::default(), links: Links::UNLINKED };
        let at = if (self.seats.len() as u32) < self.sessions_max {
            self.seats.push(seat);
            self.seats.len() as u32 - 1
        } else {
            let at = self.order.head().expect("a full table has a least recently used session");
            let forgotten = self.seats[at as usize].session.0;
            self.by_id.remove(self.by_id.find(forgotten).expect("a seated session is indexed"));
            self.order.remove(&mut Order(&mut self.seats), at);
            self.seats[at as usize] = seat;
            at
        };
        self.by_id.insert(session.0, at);
        at
    }
}
