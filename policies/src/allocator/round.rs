//! A round of dispatching: who goes now, and what stops those who do not.
//!
//! A round asks for the request that is next and sends it, again and again. One that may not go
//! keeps others from going or not:
//!
//! - At a cap of its own, or denied by a partition, its class *steps aside* and the others go on.
//! - Where it fits no backend now and all may go everywhere, it is waited for, except that so many
//!   as `bypass_max` go *past* it. It is set aside meanwhile, alone.
//! - Where it fits no backend now and some may go where others may not, its class steps aside, with
//!   those that have nowhere else to go (see [`crate::place`]); nobody takes the room that it waits
//!   for, so that there is nothing to go past.
//!
//! Classes that stepped aside stay there as long as only time passes, unless it is time that they
//! waited for. A class steps aside with both its queues (see [`crate::heavy_lane`]). When the heavy
//! lane closes another request is next of each class, and everyone is asked for anew.

use plimsoll_base::{BackendId, Bound, Reason, Refusal, Span};

use super::Allocator;
use crate::book::{Entry, State};
use crate::caps::Stops;
use crate::class_set::ClassSet;
use crate::guard::{DISPATCH, Due};
use crate::message::Action;
use crate::place::{Asked, Placed};

/// How many of those who are next may be aside at once, so that looking for one that may go past
/// them costs a bounded time.
const ASIDE_MAX: usize = 16;

/// What a round has come to so far.
#[derive(Debug, Default)]
struct Round {
    stops: Stops,
    /// What stopped the first of the requests that are aside.
    stopped_next: Option<Bound>,
    /// Classes that came back from aside, where they had held room against others.
    returned: ClassSet,
}

impl Allocator {
    #[inline]
    pub(super) fn dispatch(&mut self) {
        if !self.book.waiting().is_empty() {
            self.dispatch_waiting();
        }
    }

    /// Dispatches until everyone who waits is stopped by something. Each turn sends a request,
    /// refuses one, sets one aside, closes a class, lets classes that stepped aside go deeper into
    /// their quotas or ends the loop, so it ends.
    fn dispatch_waiting(&mut self) {
        let mut round = self.begin_round();
        loop {
            let aside = round.stops.aside.all();
            let open = self.book.standing().without(self.closed_queues(aside));
            if open.is_empty() {
                let Some(deeper) = self.partitions.deepen() else { break };
                round.stops.aside.come_back(deeper);
                continue;
            }
            round.stops.all = self.backends.closed();
            if round.stops.all.is_some() {
                self.backends.close(self.queues.classes(open));
                break;
            }
            let (due, slot, reason) = self.pick(open);
            if reason == Reason::Due {
                self.tried_as_due.insert(self.book.entry(slot).class);
            }
            if !self.may_go(slot, &mut round.stops) {
                continue;
            }
            match self.place(slot) {
                Placed::At(backend) => {
                    let reason = round.stopped_next.take().map_or(reason, |_| self.go_past());
                    self.send_and_look_again((slot, backend), (reason, due), &mut round);
                }
                Placed::Stopped(bound) => {
                    if !self.goes_on_beside((slot, reason), bound, &mut round) {
                        break;
                    }
                }
                Placed::Never => {
                    let refusal = Action::Reject(Refusal::Infeasible, Span::ZERO);
                    self.drop_waiting(slot, refusal, Reason::TooLarge);
                }
            }
        }
        self.come_to_rest(round);
    }

    /// What stops whom before anyone is asked for.
    fn begin_round(&mut self) -> Round {
        let mut round = Round::default();
        self.too_large = self.too_large.without(self.due_among(self.too_large));
        self.tried_as_due = ClassSet::EMPTY;
        if !self.changed && !self.stops.aside.all().is_empty() {
            let spilling = self.backends.spilling(self.now, |class| self.oldest_arrival(class));
            let aside = &mut round.stops.aside;
            *aside = self.stops.aside;
            let returned = spilling.or(self.due_among(aside.all()));
            aside.come_back(returned);
            round.returned = returned.and(self.backends.holding());
        }
        self.ask_anew(ClassSet::ALL.without(round.stops.aside.all()));
        round
    }

    fn ask_anew(&mut self, classes: ClassSet) {
        self.partitions.ask_anew(classes);
        self.backends.ask_anew(classes, self.now);
    }

    /// Queues of which nothing may go, whatever there is room for, given who stepped aside.
    #[inline]
    fn closed_queues(&self, aside: ClassSet) -> ClassSet {
        let classes = self.caps.full().or(self.partitions.full()).or(self.too_large).or(aside);
        self.queues.of(classes).or(self.heavy_lane.full())
    }

    /// Whether nothing of its own keeps the request that is next from going. If not, its class
    /// steps aside.
    fn may_go(&mut self, slot: u32, stops: &mut Stops) -> bool {
        let entry = self.book.entry(slot);
        let (class, tokens) = (entry.class, entry.tokens());
        if !self.caps.has_room(class, tokens) {
            self.too_large.insert(class);
            return false;
        }
        let is_admitted = self.partitions.admits(class, tokens);
        if !is_admitted {
            stops.aside.step(ClassSet::from_iter([class]), Bound::Quota);
        }
        is_admitted
    }

    /// Where the request that is next can go.
    fn place(&mut self, slot: u32) -> Placed {
        let (book, now) = (&self.book, self.now);
        let entry = book.entry(slot);
        self.backends.place(entry.tokens(), entry.context(), || Asked {
            oldest: book.oldest_arrival(entry.class).unwrap_or(now),
            ..Asked::of(entry, now)
        })
    }

    /// The request that is next fits nowhere now: whether anyone else may go.
    fn goes_on_beside(
        &mut self,
        (slot, reason): (u32, Reason),
        bound: Bound,
        round: &mut Round,
    ) -> bool {
        if self.backends.reaches_differ() {
            let class = self.book.entry(slot).class;
            round.stops.aside.step(self.backends.stopped_with(class), bound);
            return true;
        }
        round.stopped_next.get_or_insert(bound);
        let goes_on = self.may_be_passed(slot, reason);
        if goes_on {
            self.set_aside(slot);
        }
        goes_on
    }

    /// Whether others may go past a request that is next and fits nowhere now. What the guard
    /// sends is never passed, so that its bound holds.
    fn may_be_passed(&self, slot: u32, reason: Reason) -> bool {
        self.book.entry(slot).passed < self.config.bypass_max
            && reason != Reason::Due
            && self.book.aside().len() < ASIDE_MAX
    }

    /// Looks past the request that is next for those that fit.
    fn set_aside(&mut self, slot: u32) {
        let turned = self.book.set_aside(slot);
        self.share.unqueued(slot, self.book.entry(slot), turned);
    }

    /// One of those behind fits: it goes past all who are aside, which each of them remembers.
    fn go_past(&mut self) -> Reason {
        for at in 0..self.book.aside().len() {
            let slot = self.book.aside()[at];
            self.book.entry_mut(slot).passed += 1;
        }
        self.put_back();
        Reason::Bypass
    }

    fn put_back(&mut self) {
        while let Some((slot, turned)) = self.book.put_back() {
            self.share.enqueued(slot, self.book.entry(slot), turned);
        }
    }

    /// Notes what stopped whom.
    fn come_to_rest(&mut self, Round { mut stops, stopped_next, .. }: Round) {
        if stopped_next.is_some() {
            self.put_back();
            stops.all = stops.all.or(stopped_next);
        }
        self.changed = false;
        // Who was only put off is stopped by what stopped those that are more entitled.
        while let Some(deeper) = self.partitions.deepen() {
            stops.aside.come_back(deeper);
        }
        stops.requests = self.caps.full().or(self.partitions.full());
        stops.lowered = self.caps.full().and(self.caps.lowered());
        stops.heavy = self.heavy_lane.full();
        stops.tokens = self.too_large;
        self.stops = stops;
        if self.evict.is_some() {
            self.evict_one();
        }
    }

    /// The request that goes next, of the `open` queues, and the rule that says so.
    fn pick(&mut self, open: ClassSet) -> (Due, u32, Reason) {
        let due = match &self.guard {
            Some(guard) => guard.look(self.now, &self.book, open),
            None => Due::default(),
        };
        if let Some(slot) = due.next {
            return (due, slot, Reason::Due);
        }
        let (flow, picked) = self.share.pick(&self.book, open);
        let head = picked.or_else(|| self.book.head(flow, open));
        let slot = head.expect("the flow picked has an open queue");
        (due, slot, self.share_reason)
    }

    /// Sends a request. After that the guard may have the credit to send what stepped aside; if the
    /// heavy lane closed with it, others are next; and if its class had held room, that is free for
    /// those who stepped aside because of it.
    fn send_and_look_again(
        &mut self,
        (slot, backend): (u32, BackendId),
        (reason, due): (Reason, Due),
        Round { stops, returned, .. }: &mut Round,
    ) {
        let Entry { class, .. } = *self.book.entry(slot);
        let lane = self.heavy_lane.full();
        self.send(slot, backend, reason, due);
        if self.heavy_lane.full() != lane || returned.contains(class) {
            *returned = ClassSet::EMPTY;
            stops.aside.come_back(ClassSet::ALL);
            self.ask_anew(ClassSet::ALL);
            return;
        }
        self.tried_as_due.remove(class);
        let aside = self.too_large.or(stops.aside.all());
        let due = self.due_among(aside).without(self.tried_as_due);
        if !due.is_empty() {
            self.too_large = self.too_large.without(due);
            *returned = returned.or(due.and(self.backends.holding()));
            stops.aside.come_back(due);
            self.ask_anew(due);
        }
    }

    /// Of these classes, those whose oldest request, of either queue, the guard would send now.
    #[inline(always)]
    fn due_among(&self, classes: ClassSet) -> ClassSet {
        match &self.guard {
            Some(guard) if !classes.is_empty() => {
                classes.and(self.queues.classes(guard.due_classes(self.now, &self.book)))
            }
            Some(_) | None => ClassSet::EMPTY,
        }
    }

    fn send(&mut self, slot: u32, backend: BackendId, reason: Reason, due: Due) {
        if let Some(guard) = &mut self.guard
            && due.any
        {
            guard.earn(if reason == Reason::Due { DISPATCH } else { 0 });
        }
        let bound = self.waited_for(slot);
        let entry = self.book.entry_mut(slot);
        entry.state = State::Dispatched(backend);
        let Entry { id, class, queue, output_predicted, .. } = *entry;
        let (prompt_tokens, workflow) = (entry.info.prompt_tokens, entry.info.workflow);
        let tokens = entry.tokens();
        self.share.charge(entry);
        self.order.charge(workflow, prompt_tokens, output_predicted);
        self.take_heavy(queue);
        self.unqueue(slot);
        if let Some(evict) = &mut self.evict {
            evict.dispatched(slot, class);
        }
        self.drains.dispatched(self.now, class, || self.book.queued(class));
        self.remember(slot, backend);
        self.commit((id, class, tokens), backend, reason, bound);
    }
}
