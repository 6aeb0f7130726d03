//! The machine: inputs in, decisions out.

use plimsoll_base::{
    BackendId, Bound, ClassId, End, Reason, Refusal, RequestId, Span, TenantId, Time,
};

use crate::admit::{Predictions, RETRY_MIN, retry_after};
use crate::book::{Book, Entry, State};
use crate::caps::{Caps, Stops};
use crate::check::ConfigError;
use crate::class_set::ClassSet;
use crate::classify::Classifier;
use crate::config::Config;
use crate::decided::Decided;
use crate::guard::{DISPATCH, Due, Guard};
use crate::hints::{Hint, Hints};
use crate::message::{Action, Decision, EnginePriority, Input, Needs, RequestInfo, Signal, Used};
use crate::order::Lifts;
use crate::partition::Partitions;
use crate::place::{Asked, Backends, Placed};
use crate::share::Share;

/// Decides which request goes to which backend, when, and why.
///
/// Call [`handle`](Allocator::handle), then [`poll`](Allocator::poll) until it is empty. Of every
/// request that arrived there is exactly one decision: a dispatch, a refusal or a close. Inputs
/// about requests and backends that it does not know (any more) change nothing, nor does an
/// arrival under the id of a request it holds: in production inputs race with each other.
#[derive(Debug)]
pub struct Allocator {
    config: Config,
    classifier: Classifier,
    predictions: Predictions,
    hints: Hints,
    lifts: Lifts,
    book: Book,
    share: Share,
    guard: Option<Guard>,
    caps: Caps,
    partitions: Partitions,
    backends: Backends,
    /// Classes with a time-to-live.
    mortal: ClassSet,
    /// What stopped those who wait.
    stops: Stops,
    /// Whether more than time has passed since dispatching last came to rest: then everyone is
    /// asked for anew, and otherwise only those who stepped aside and whose time has come.
    changed: bool,
    /// Classes whose next request did not fit their cap of tokens. A class is looked at again
    /// when what it has waiting or outstanding changes, or when its oldest request may go as due.
    too_large: ClassSet,
    decisions: Decided,
    in_flight: u32,
    /// The next request's place in the order of arrival.
    sequence: u64,
    /// Requests from this sequence on arrived with the input in hand: they have not waited.
    sequence_fresh: u64,
    draining: bool,
    now: Time,
    latest_class: Option<ClassId>,
}

impl Allocator {
    /// An allocator without backends and without requests.
    ///
    /// # Errors
    /// What [`Config::check`] finds.
    pub fn new(config: Config) -> Result<Allocator, ConfigError> {
        config.check()?;
        let ids = (0..).map(ClassId).zip(&config.classes);
        let mortal = ids.filter(|(_, class)| class.time_to_live.is_some()).map(|(id, _)| id);
        Ok(Allocator {
            classifier: Classifier::new(&config.classify, config.classes.len()),
            predictions: Predictions::new(config.predict, &config.classes),
            hints: Hints::default(),
            lifts: Lifts::new(config.order, &config.classes),
            book: Book::new(config.classes.len()),
            share: Share::new(&config),
            guard: config.guard.as_ref().map(|guard| Guard::new(guard, &config.classes)),
            caps: Caps::new(&config.classes),
            partitions: Partitions::new(&config),
            backends: Backends::new(&config),
            mortal: mortal.collect(),
            stops: Stops::default(),
            changed: false,
            too_large: ClassSet::EMPTY,
            decisions: Decided::default(),
            in_flight: 0,
            sequence: 0,
            sequence_fresh: 0,
            draining: false,
            now: Time::ZERO,
            latest_class: None,
            config,
        })
    }

    /// Takes one input at `now`, which never decreases from call to call, and decides what
    /// follows from it. First what has outlived its time-to-live is closed, by class and then by
    /// arrival; then the input counts; then requests are dispatched in the order of the rules.
    #[inline(always)]
    pub fn handle(&mut self, now: Time, input: Input) {
        assert!(now >= self.now, "the driver's clock never runs backwards");
        self.now = now;
        self.sequence_fresh = self.sequence;
        if self.mortal.meets(self.book.waiting()) {
            self.expire();
        }
        match input {
            Input::Arrived(id, info) => return self.arrived(id, &info),
            Input::Withdrawn(id) => self.withdrawn(id),
            Input::Accepted(_) | Input::FirstToken(_) | Input::Progressed(..) => {}
            Input::Ended(id, _, used) => self.ended(id, used),
            Input::Matched(id, backend, tokens) => self.hints.matched(id, backend, tokens),
            Input::Predicted(id, output_tokens) => self.hints.predicted(id, output_tokens),
            Input::Reported(..) => {}
            Input::Joined(backend, info) => {
                self.backends.join(backend, &info);
                self.resized();
            }
            Input::Left(backend) => {
                self.backends.leave(backend);
                self.resized();
            }
            Input::Draining => self.draining = true,
            Input::Deadline => {}
        }
        self.dispatch();
    }

    fn resized(&mut self) {
        self.partitions.resize(self.backends.seats());
        self.changed = true;
    }

    /// The next decision, in the order in which they were made.
    #[inline]
    pub fn poll(&mut self) -> Option<Decision> {
        self.decisions.poll()
    }

    /// When to hand in [`Input::Deadline`]: the next instant at which time alone can change a
    /// decision, because a request expires or falls due. `None` if there is none.
    #[inline]
    pub fn next_deadline(&self) -> Option<Time> {
        if self.book.waiting().is_empty() { None } else { self.earliest_deadline() }
    }

    fn earliest_deadline(&self) -> Option<Time> {
        let waiting = self.book.waiting();
        let expiries = self.mortal.and(waiting).filter_map(|class| self.next_expiry(class));
        let is_closed = self.backends.closed().is_some();
        let next_due = self.guard.as_ref().and_then(|guard| {
            // Falling due helps only where a request that is too large stopped the others.
            let open = match (is_closed, self.stops.all) {
                (true, _) => ClassSet::EMPTY,
                (false, Some(_)) => waiting.without(self.stops.requests),
                (false, None) => self.stops.tokens.or(self.stops.aside.all()),
            };
            guard.next_due(self.now, &self.book, open)
        });
        let next_spill = match is_closed {
            true => None,
            false => self.backends.next_spill(|class| self.oldest_arrival(class)),
        };
        expiries.chain(next_due).chain(next_spill).min()
    }

    /// The class such a request gets: that of the first rule that matches. Changes nothing.
    pub fn classify(&self, info: &RequestInfo) -> Option<ClassId> {
        self.classifier.classify(info, info.prompt_tokens)
    }

    /// Which observations the policy's rules read.
    pub fn needs(&self) -> Needs {
        Needs {
            matches: self.classifier.needs_matches() || self.backends.needs_matches(),
            predictions: self.predictions.needs_hints(),
            ..Needs::default()
        }
    }

    /// The next piece of advice.
    pub fn poll_signal(&mut self) -> Option<Signal> {
        None
    }

    /// The class that the request which arrived last was given.
    pub fn latest_class(&self) -> Option<ClassId> {
        self.latest_class
    }

    /// Requests of the class that wait here.
    pub fn queued(&self, class: ClassId) -> u32 {
        self.book.queued(class)
    }

    /// When the oldest request of the class that waits here arrived.
    pub fn oldest_arrival(&self, class: ClassId) -> Option<Time> {
        self.book.oldest(class).map(|entry| entry.arrived)
    }

    /// Requests that are dispatched and have not ended.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Not a part of `handle`, so that a driver that knows its input pays for nothing else.
    #[inline(never)]
    fn arrived(&mut self, id: RequestId, info: &RequestInfo) {
        let Hint { matched, output_tokens } = self.hints.take(id);
        let uncached = info.prompt_tokens.saturating_sub(matched.tokens);
        self.latest_class = self.classifier.classify(info, uncached);
        let Some(class) = self.latest_class else {
            return self.decline(id, None, Refusal::Unclassified, Reason::NoRule);
        };
        let RequestInfo { tenant, prompt_tokens, output_cap, .. } = *info;
        let output_predicted = self.predictions.output(class, output_cap, output_tokens);
        let tokens = u64::from(prompt_tokens) + u64::from(output_predicted);
        let context = u64::from(prompt_tokens) + u64::from(output_cap);
        let (now, model, session) = (self.now, info.model, info.session);
        let asked = || Asked { tokens, context, class, model, session, matched, now, oldest: now };
        let at_once = self.at_once(class, (tokens, context), asked);
        if let Some((refusal, reason)) = self.against(class, (tokens, context), at_once, asked) {
            return self.decline(id, Some(class), refusal, reason);
        }
        let inserted = self.book.insert(id, || Entry {
            id,
            class,
            flow: 0,
            arrived: self.now,
            sequence: self.sequence,
            key: self.lifts.key(class, self.now),
            info: *info,
            output_predicted,
            matched,
            state: at_once.map_or(State::Waiting, State::Dispatched),
        });
        let Some(slot) = inserted else { return self.dispatch() };
        let Some(backend) = at_once else { return self.wait(id, slot, class, tenant) };
        self.sequence += 1;
        self.too_large.remove(class);
        self.commit((id, class, tokens), backend, (self.share.reason(), None), asked);
    }

    /// Where a request can go now if the rules could not but pick it next: nobody waits, its
    /// class has room, and neither the share nor the guard keeps accounts of who waits or goes.
    fn at_once(
        &self,
        class: ClassId,
        (tokens, context): (u64, u64),
        asked: impl FnOnce() -> Asked,
    ) -> Option<BackendId> {
        let is_next = self.book.waiting().is_empty()
            && self.share.keeps_no_accounts()
            && self.guard.is_none()
            && !self.caps.full().contains(class)
            && self.caps.has_room(class, tokens)
            && self.partitions.has_room(class, tokens);
        if is_next { self.backends.find_room(tokens, context, asked) } else { None }
    }

    /// What speaks against taking a request in that could go `at_once`, if there is such a place.
    fn against(
        &self,
        class: ClassId,
        (tokens, context): (u64, u64),
        at_once: Option<BackendId>,
        asked: impl FnOnce() -> Asked,
    ) -> Option<(Refusal, Reason)> {
        if self.draining {
            Some((Refusal::Draining, Reason::Draining))
        } else if at_once.is_none() && !self.backends.could_take(tokens, context, asked) {
            Some((Refusal::Infeasible, Reason::TooLarge))
        } else if at_once.is_none() && !self.partitions.could_take(class, tokens) {
            Some((Refusal::OverQuota, Reason::TooLarge))
        } else if self.book.len() >= self.config.requests_max as usize {
            Some((Refusal::QueueFull, Reason::QueueBound))
        } else {
            None
        }
    }

    /// Refuses a request for what it is, unless one with its id is held.
    fn decline(&mut self, id: RequestId, class: Option<ClassId>, refusal: Refusal, reason: Reason) {
        if self.book.find(id).is_none() {
            self.refuse(id, class, refusal, reason);
        }
        self.dispatch();
    }

    /// Has the request that just arrived wait its turn, which may be now.
    fn wait(&mut self, id: RequestId, slot: u32, class: ClassId, tenant: TenantId) {
        let Some(flow) = self.share.flow(class, tenant) else {
            self.book.forget_id(id);
            self.refuse(id, Some(class), Refusal::QueueFull, Reason::QueueBound);
            return self.dispatch();
        };
        self.sequence += 1;
        self.too_large.remove(class);
        self.book.entry_mut(slot).flow = flow;
        let turned = self.book.enqueue(slot);
        self.changed = true;
        self.share.enqueued(flow, class, turned);
        self.dispatch();
        self.bound_queue(id, slot);
    }

    /// Refuses the request that just arrived if it must wait and its class's queue is full.
    fn bound_queue(&mut self, id: RequestId, slot: u32) {
        let Entry { class, state, .. } = *self.book.entry(slot);
        let queue_max = self.config.classes[class.index()].queue_max.unwrap_or(u32::MAX);
        if state != State::Waiting || self.book.queued(class) <= queue_max {
            return;
        }
        self.unqueue(slot);
        self.book.forget_id(id);
        self.too_large.remove(class);
        self.refuse(id, Some(class), Refusal::QueueFull, Reason::QueueBound);
        // It may have been the one that stopped the others.
        self.dispatch();
    }

    fn refuse(&mut self, id: RequestId, class: Option<ClassId>, refusal: Refusal, reason: Reason) {
        let retry_after = match refusal {
            Refusal::QueueFull => {
                let oldest = class.and_then(|class| self.book.oldest(class));
                retry_after(self.now, oldest)
            }
            Refusal::Draining | Refusal::NoBackend => RETRY_MIN,
            Refusal::RateLimited | Refusal::Saturated => RETRY_MIN,
            // It asks for more than its quota ever is.
            Refusal::OverQuota => Span::ZERO,
            Refusal::Infeasible | Refusal::Unclassified => Span::ZERO,
        };
        let action = Action::Reject(refusal, retry_after);
        self.decisions.push(Decision { id, class, action, reason, bound: None });
    }

    fn withdrawn(&mut self, id: RequestId) {
        if let Some(found) = self.book.find(id)
            && self.book.entry(found.slot).state == State::Waiting
        {
            self.drop_waiting(found.slot, Action::Close(End::Cancelled), Reason::Withdrawn);
        }
    }

    /// Apart like `arrived`.
    #[inline(never)]
    fn ended(&mut self, id: RequestId, used: Used) {
        let Some(found) = self.book.find(id) else { return };
        let entry = self.book.entry(found.slot);
        let State::Dispatched(backend) = entry.state else { return };
        let (class, flow, tokens) = (entry.class, entry.flow, entry.tokens());
        let charged = (entry.info.prompt_tokens, entry.output_predicted);
        self.book.forget(found);
        self.changed = true;
        self.backends.release(backend, tokens);
        self.caps.release(class, tokens);
        self.partitions.release(class, tokens);
        self.too_large.remove(class);
        self.share.settle(flow, charged, (used.prompt_tokens, used.output_tokens));
        self.in_flight -= 1;
    }

    fn expire(&mut self) {
        for class in self.mortal.and(self.book.waiting()) {
            while self.next_expiry(class).is_some_and(|at| at <= self.now) {
                let slot = self.book.oldest_slot(class).expect("what expires waits");
                self.drop_waiting(slot, Action::Close(End::Expired), Reason::TimeToLive);
            }
        }
    }

    fn next_expiry(&self, class: ClassId) -> Option<Time> {
        let time_to_live = self.config.classes[class.index()].time_to_live?;
        Some(self.book.oldest(class)?.arrived.saturating_add(time_to_live))
    }

    /// Decides against a waiting request.
    fn drop_waiting(&mut self, slot: u32, action: Action, reason: Reason) {
        let Entry { id, class, .. } = *self.book.entry(slot);
        let bound = self.waited_for(slot);
        self.decisions.push(Decision { id, class: Some(class), action, reason, bound });
        self.too_large.remove(class);
        self.unqueue(slot);
        self.book.forget_id(id);
    }

    fn unqueue(&mut self, slot: u32) {
        let Entry { flow, class, .. } = *self.book.entry(slot);
        let turned = self.book.unqueue(slot);
        self.share.unqueued(flow, class, turned);
        self.changed = true;
        if !self.book.waiting().contains(class) {
            self.backends.rest(class, self.now);
        }
    }

    #[inline]
    fn dispatch(&mut self) {
        if !self.book.waiting().is_empty() {
            self.dispatch_waiting();
        }
    }

    /// Dispatches until everyone who waits is stopped by something. Each turn sends a request,
    /// refuses one, closes a class, lets classes that stepped aside go deeper into their quotas or
    /// ends the loop, so it ends.
    fn dispatch_waiting(&mut self) {
        let mut stops = self.begin_round();
        self.too_large = self.too_large.without(self.due_among(self.too_large));
        let mut tried_as_due = ClassSet::EMPTY;
        loop {
            let open = self.open().without(stops.aside.all());
            if open.is_empty() {
                let Some(deeper) = self.partitions.deepen() else { break };
                stops.aside.come_back(deeper);
                continue;
            }
            stops.all = self.backends.closed();
            if stops.all.is_some() {
                self.backends.close(open);
                break;
            }
            let (due, slot, reason) = self.pick(open);
            let entry = self.book.entry(slot);
            let (class, tokens) = (entry.class, entry.tokens());
            if reason == Reason::Due {
                tried_as_due.insert(class);
            }
            if !self.caps.has_room(class, tokens) {
                self.too_large.insert(class);
                continue;
            }
            if !self.partitions.admits(class, tokens) {
                stops.aside.step(ClassSet::from_iter([class]), Bound::Quota);
                continue;
            }
            match self.place(slot) {
                Placed::At(backend) => {
                    self.send(slot, backend, reason, due);
                    tried_as_due.remove(class);
                    self.look_again_at_due(&mut stops, tried_as_due);
                }
                Placed::Stopped(bound) if self.backends.reaches_differ() => {
                    stops.aside.step(self.backends.stopped_with(class), bound);
                }
                Placed::Stopped(bound) => {
                    stops.all = Some(bound);
                    break;
                }
                Placed::Never => {
                    let refusal = Action::Reject(Refusal::Infeasible, Span::ZERO);
                    self.drop_waiting(slot, refusal, Reason::TooLarge);
                }
            }
        }
        self.come_to_rest(stops);
    }

    /// Classes with something waiting that no cap of their own closes.
    fn open(&self) -> ClassSet {
        let capped = self.caps.full().or(self.partitions.full());
        self.book.waiting().without(capped).without(self.too_large)
    }

    /// Where the request that is next can go.
    fn place(&mut self, slot: u32) -> Placed {
        let (book, now) = (&self.book, self.now);
        let entry = book.entry(slot);
        self.backends.place(entry.tokens(), entry.context(), || Asked {
            oldest: book.oldest(entry.class).map_or(now, |oldest| oldest.arrived),
            ..Asked::of(entry, now)
        })
    }

    /// Notes what stopped whom.
    fn come_to_rest(&mut self, mut stops: Stops) {
        self.changed = false;
        // Who was only put off is stopped by what stopped those that are more entitled.
        while let Some(deeper) = self.partitions.deepen() {
            stops.aside.come_back(deeper);
        }
        stops.requests = self.caps.full().or(self.partitions.full());
        stops.tokens = self.too_large;
        self.stops = stops;
    }

    /// What stops whom before anyone is asked for.
    fn begin_round(&mut self) -> Stops {
        let mut stops = Stops::default();
        if !self.changed && !self.stops.aside.all().is_empty() {
            let spilling = self.backends.spilling(self.now, |class| self.oldest_arrival(class));
            stops.aside = self.stops.aside;
            stops.aside.come_back(spilling.or(self.due_among(stops.aside.all())));
        }
        self.ask_anew(ClassSet::ALL.without(stops.aside.all()));
        stops
    }

    fn ask_anew(&mut self, classes: ClassSet) {
        self.partitions.ask_anew(classes);
        self.backends.ask_anew(classes, self.now);
    }

    /// After a dispatch the guard may have the credit to send what stepped aside.
    fn look_again_at_due(&mut self, stops: &mut Stops, tried: ClassSet) {
        let aside = self.too_large.or(stops.aside.all());
        let due = self.due_among(aside).without(tried);
        if !due.is_empty() {
            self.too_large = self.too_large.without(due);
            stops.aside.come_back(due);
            self.ask_anew(due);
        }
    }

    /// Of these classes, those whose oldest request the guard would send now.
    fn due_among(&self, classes: ClassSet) -> ClassSet {
        if classes.is_empty() {
            return ClassSet::EMPTY;
        }
        let due = self.guard.as_ref().map(|guard| guard.due_classes(self.now, &self.book));
        classes.and(due.unwrap_or(ClassSet::EMPTY))
    }

    /// The request that goes next, of the `open` classes, and the rule that says so.
    fn pick(&mut self, open: ClassSet) -> (Due, u32, Reason) {
        let due = match &self.guard {
            Some(guard) => guard.look(self.now, &self.book, open),
            None => Due::default(),
        };
        if let Some(slot) = due.next {
            return (due, slot, Reason::Due);
        }
        let flow = self.share.pick(&self.book, open);
        let slot = self.book.head(flow, open).expect("the flow picked has an open class");
        (due, slot, self.share.reason())
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
        let Entry { id, class, flow, output_predicted, .. } = *entry;
        let prompt_tokens = entry.info.prompt_tokens;
        let tokens = entry.tokens();
        let (entry, now) = (*entry, self.now);
        self.share.charge(flow, prompt_tokens, output_predicted);
        self.unqueue(slot);
        self.commit((id, class, tokens), backend, (reason, bound), || Asked::of(&entry, now));
    }

    /// Lets a request of so many estimated tokens go that stands in no queue (any more) and whose
    /// flow was charged.
    #[inline(always)]
    fn commit(
        &mut self,
        (id, class, tokens): (RequestId, ClassId, u64),
        backend: BackendId,
        (reason, bound): (Reason, Option<Bound>),
        asked: impl FnOnce() -> Asked,
    ) {
        let priority = EnginePriority(self.config.classes[class.index()].priority);
        let action = Action::Dispatch(backend, priority);
        self.decisions.push(Decision { id, class: Some(class), action, reason, bound });
        self.backends.take(backend, tokens, asked);
        self.caps.take(class, tokens);
        self.partitions.take(class, tokens);
        self.in_flight += 1;
    }

    /// What a waiting request was stopped by; `None` if it arrived with the input in hand.
    fn waited_for(&self, slot: u32) -> Option<Bound> {
        let Entry { class, sequence, .. } = *self.book.entry(slot);
        (sequence < self.sequence_fresh).then(|| {
            self.stops.bound(class).expect("a request that waited was stopped by something")
        })
    }
}
