//! One allocator takes over from another: a policy is replaced, or a new log begins.
//!
//! What the one before holds is told to a fresh one as inputs, so that a log which begins with
//! them replays by itself. Accounts, rates and what was learnt begin anew: nobody is owed anything
//! from before. Who runs is counted against every limit, though there may be more of them than
//! the new policy would have let in; who waits was admitted and is not asked again.

use plimsoll_base::{BackendId, Reason, RequestId, Time};

use super::Allocator;
use crate::book::{Entry, State};
use crate::hints::Match;
use crate::message::{Action, Decision, EnginePriority, Held, Input, RequestInfo};

impl Allocator {
    /// What a fresh allocator is to be told to take over from this one, once the same backends
    /// have joined: every request held, in the order of arrival; first those that run, so that
    /// nobody takes their place.
    pub fn handover(&self) -> Vec<Input> {
        let mut held: Vec<&Entry> = self.book.held().collect();
        held.sort_by_key(|entry| (entry.state == State::Waiting, entry.sequence));
        held.into_iter().map(resumption).collect()
    }

    #[cold]
    pub(super) fn resumed(&mut self, id: RequestId, info: &RequestInfo, held: Held) {
        let class = held.class;
        if class.index() >= self.config.classes.len() || self.book.find(id).is_some() {
            return;
        }
        let output_predicted = self.predictions.output(id, class, info.output_cap);
        let uncached = u64::from(info.prompt_tokens) + u64::from(output_predicted);
        let queue = self.queues.queue(class, uncached);
        let last = self.book.youngest_in(queue).map_or(Time::ZERO, |entry| entry.arrived);
        let entry = Entry {
            id,
            class,
            queue,
            flow: 0,
            arrived: held.arrived.max(last).min(self.now),
            sequence: self.sequence,
            key: 0,
            info: *info,
            output_predicted,
            matched: Match::default(),
            passed: 0,
            has_begun: false,
            state: State::Waiting,
        };
        if !self.admission.is_empty() {
            self.admission.hold(self.now, entry.candidate());
        }
        let slot = self.book.insert(id, || entry).expect("no request of this id is held");
        match held.backend {
            None => {
                self.look_at_the_clock();
                if self.line_up(id, slot, class) {
                    self.dispatch();
                }
            }
            Some(backend) => self.go_on(slot, backend),
        }
    }

    /// Forgets before which instant nothing expires and nobody asks for an eviction: who waits now
    /// has waited for longer than since it was told.
    fn look_at_the_clock(&mut self) {
        self.none_expires_before = self.now;
        if let Some(evict) = &mut self.evict {
            evict.put_off(self.now);
        }
    }

    /// Counts a request that runs.
    fn go_on(&mut self, slot: u32, backend: BackendId) {
        let Entry { id, class, queue, info, output_predicted, .. } = *self.book.entry(slot);
        let tokens = self.book.entry(slot).tokens();
        // Without an account of its own (there may be as many as there may be) it is counted on
        // the first one's.
        let flow = self.share.flow(class, &info).unwrap_or(0);
        self.sequence += 1;
        let entry = self.book.entry_mut(slot);
        entry.flow = flow;
        entry.key = self.order.key(entry);
        let turned = self.book.enqueue(slot);
        self.share.enqueued(slot, self.book.entry(slot), turned);
        self.book.entry_mut(slot).state = State::Dispatched(backend);
        self.share.charge(self.book.entry(slot));
        self.order.charge(info.workflow, info.prompt_tokens, output_predicted);
        self.unqueue(slot);
        self.heavy_lane.hold(queue);
        if let Some(evict) = &mut self.evict {
            evict.dispatched(slot, class);
        }
        self.backends.hold(backend, tokens);
        self.caps.hold(class, tokens);
        self.partitions.take(class, tokens);
        self.in_flight += 1;
        let priority = EnginePriority(self.config.classes[class.index()].priority);
        let action = Action::Dispatch(backend, priority);
        let (class, reason) = (Some(class), Reason::Resumed);
        self.decisions.push(Decision { id, class, action, reason, bound: None });
        self.dispatch();
    }
}

fn resumption(entry: &Entry) -> Input {
    let backend = match entry.state {
        State::Waiting => None,
        State::Dispatched(backend) => Some(backend),
    };
    let held = Held { class: entry.class, arrived: entry.arrived, backend };
    Input::Resumed(entry.id, entry.info, held)
}
