//! Evicting: who asks for room, and who makes it. The rule is told in `feedback/evict.rs`.

use plimsoll_base::{BackendId, Bound, ClassId, Reason, RequestId, Time};

use super::Allocator;
use crate::book::{Entry, State};
use crate::message::{Action, Decision};
use crate::place::Asked;

impl Allocator {
    /// Evicts one request, if someone has waited long enough for what it holds.
    #[inline(never)]
    pub(super) fn evict_one(&mut self) {
        let Some(evict) = &self.evict else { return };
        if evict.is_pending() || evict.is_early(self.now) {
            return;
        }
        let mut asking = 0;
        while let Some(class) = self.evict.as_ref().and_then(|evict| evict.asker(asking)) {
            asking += 1;
            if self.earliest_for(class).is_none_or(|at| at > self.now) {
                continue;
            }
            let Some((&waiter, bound)) = self.asker(class) else { continue };
            if let Some((id, class, backend)) = self.victim(&waiter) {
                return self.evict(id, (class, backend), bound);
            }
        }
        self.put_off();
    }

    /// Notes before which instant nobody asks.
    fn put_off(&mut self) {
        let Some(evict) = &self.evict else { return };
        let askers = (0..).map_while(|at| evict.asker(at));
        // Who comes from now on asks later than anyone who comes now.
        let earliest = askers.filter_map(|class| self.earliest_for(class));
        let earliest = earliest.fold(evict.earliest(self.now), Time::min);
        if let Some(evict) = &mut self.evict {
            evict.put_off(earliest);
        }
    }

    /// When one may be evicted for the oldest of the class, if it waits for what backends have.
    fn earliest_for(&self, class: ClassId) -> Option<Time> {
        Some(self.evict.as_ref()?.earliest(self.book.oldest_arrival(class)?))
    }

    fn evict(&mut self, id: RequestId, (class, backend): (ClassId, BackendId), bound: Bound) {
        let (action, reason) = (Action::Cancel(backend), Reason::Evicted);
        let (class, bound) = (Some(class), Some(bound));
        self.decisions.push(Decision { id, class, action, reason, bound });
        if let Some(evict) = &mut self.evict {
            evict.evicted(self.now, id);
        }
    }

    /// When time alone may evict one.
    pub(super) fn next_eviction(&self) -> Option<Time> {
        let evict = self.evict.as_ref().filter(|evict| !evict.is_pending())?;
        let mut next: Option<Time> = None;
        for class in (0..).map_while(|at| evict.asker(at)) {
            let Some(at) = self.earliest_for(class) else { continue };
            // What could be evicted now was.
            let is_next = at > self.now && next.is_none_or(|next| at < next);
            if is_next && self.asker(class).is_some() {
                next = Some(at);
            }
        }
        next
    }

    /// The oldest of a class, if it waits for what backends have and nothing of its own keeps it.
    /// Time alone changes no answer: what stopped the class when it was asked last may be told
    /// anew once its oldest is due.
    fn asker(&self, class: ClassId) -> Option<(&Entry, Bound)> {
        let oldest = self.book.oldest(class)?;
        if !self.has_room((class, oldest.queue), oldest.tokens()) {
            return None;
        }
        let bound = self.backends.lacks(&Asked::of(oldest, self.now))?;
        matches!(bound, Bound::Seats | Bound::KvMemory).then_some((oldest, bound))
    }

    fn victim(&mut self, waiter: &Entry) -> Option<(RequestId, ClassId, BackendId)> {
        let asked = Asked::of(waiter, self.now);
        let priority = |class: ClassId| self.config.classes[class.index()].priority;
        let evict = self.evict.as_mut()?;
        let mut looking = 0;
        while let Some(class) = evict.victim(looking)
            && priority(class) <= priority(waiter.class)
        {
            looking += 1;
            for slot in evict.running(class) {
                let entry = self.book.entry(slot);
                if let State::Dispatched(backend) = entry.state
                    && self.backends.could_make_room(backend, &asked)
                {
                    return Some((entry.id, class, backend));
                }
            }
        }
        None
    }
}
