//! The machine: inputs in, decisions out. What goes when is decided in [`round`].

mod round;

mod evict;
mod resume;
mod snapshot;

pub use snapshot::{BackendState, ClassState, Snapshot};

use plimsoll_base::{BackendId, Bound, ClassId, End, Reason, Refusal, RequestId, Span, Time};

use crate::admit::{Admission, Candidate, Drains, RETRY_MIN, retry_after};
use crate::book::{Book, Entry, State};
use crate::caps::{Caps, Stops};
use crate::check::ConfigError;
use crate::class_set::ClassSet;
use crate::classify::Classifier;
use crate::config::Config;
use crate::decided::Decided;
use crate::feedback::{Evict, Feedback};
use crate::guard::Guard;
use crate::heavy_lane::{HeavyLane, Queues};
use crate::hints::Hints;
use crate::message::{
    Action, BackendInfo, Decision, EnginePriority, Input, Load, Needs, RequestInfo, Signal, Used,
};
use crate::order::{LATE, Order};
use crate::partition::Partitions;
use crate::place::{Asked, Backends};
use crate::predict::Predictions;
use crate::share::Share;
use crate::standing::Standing;

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
    admission: Admission,
    drains: Drains,
    feedback: Feedback,
    evict: Option<Evict>,
    order: Order,
    queues: Queues,
    book: Book,
    share: Share,
    guard: Option<Guard>,
    caps: Caps,
    heavy_lane: HeavyLane,
    partitions: Partitions,
    backends: Backends,
    /// Times to live, indexed by queue.
    lives: Vec<Option<Span>>,
    /// Queues with a time-to-live.
    mortal: ClassSet,
    /// The shortest of the times to live.
    life_min: Span,
    /// No request expires before this instant. Who arrives from now on lives for `life_min` at
    /// least.
    none_expires_before: Time,
    /// Whether time alone can bring something about: a time-to-live, a deadline or a breaker.
    heeds_time: bool,
    /// Whether it matters to nobody's turn who waits and who goes: then who can go at once does.
    is_unwatched: bool,
    /// Whether no rule keeps accounts of what goes and what ends, beside the loads of backends.
    is_plain: bool,
    /// What a pick by the share is called.
    share_reason: Reason,
    /// What stopped those who wait.
    stops: Stops,
    /// Whether more than time has passed since dispatching last came to rest, or someone else is
    /// next: then everyone is asked for anew, and otherwise only those who stepped aside and whose
    /// time has come.
    changed: bool,
    /// Classes whose next request did not fit their cap of tokens. A class is looked at again
    /// when what it has waiting or outstanding changes, when its oldest request may go as due, or
    /// when the heavy lane opens or closes, since then another may be next.
    too_large: ClassSet,
    /// Classes whose oldest request was looked at as due in the round in hand, in vain.
    tried_as_due: ClassSet,
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
        let queues = Queues::new(&config.partition, config.classes.len());
        let owed = queues.owed(&config.classes);
        let ids = (0..).map(ClassId).zip(&owed);
        let mortal = ids.filter(|(_, class)| class.time_to_live.is_some()).map(|(id, _)| id);
        let mortal: ClassSet = mortal.collect();
        let life_min = owed.iter().filter_map(|class| class.time_to_live).min();
        let life_min = life_min.unwrap_or(Span::MAX);
        let admission = Admission::new(&config);
        let ids = (0..).map(ClassId).zip(&config.classes);
        let bounded = ids.filter(|(_, class)| class.queue_max.is_some()).map(|(id, _)| id);
        let measured = bounded.chain(admission.paced()).collect();
        let order = Order::new(&config);
        let feedback = Feedback::new(&config);
        let share = Share::new(&Config { classes: owed.clone(), ..config.clone() });
        let caps = Caps::new(&config.classes);
        let predictions = Predictions::new(config.predict, &config.classes);
        Ok(Allocator {
            is_plain: admission.is_empty()
                && config.partition.is_empty()
                && config.feedback.is_empty()
                && share.keeps_no_accounts()
                && order.keeps_no_accounts()
                && predictions.learn_nothing()
                && caps.are_none(),
            classifier: Classifier::new(&config.classify, config.classes.len()),
            predictions,
            hints: Hints::default(),
            admission,
            drains: Drains::new(config.classes.len(), measured),
            evict: Evict::new(&config),
            heeds_time: !mortal.is_empty() || order.relegates() || feedback.heeds_time(),
            is_unwatched: share.keeps_no_accounts() && config.guard.is_none(),
            share_reason: share.reason(),
            feedback,
            share,
            queues,
            book: Book::new(queues, order.lanes(queues)),
            order,
            guard: config.guard.as_ref().map(|guard| Guard::new(guard, &owed)),
            caps,
            heavy_lane: HeavyLane::new(&config.partition, queues),
            partitions: Partitions::new(&config),
            backends: Backends::new(&config),
            lives: owed.iter().map(|class| class.time_to_live).collect(),
            mortal,
            life_min,
            none_expires_before: Time::ZERO.saturating_add(life_min),
            stops: Stops::default(),
            changed: false,
            too_large: ClassSet::EMPTY,
            tried_as_due: ClassSet::EMPTY,
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
        if self.heeds_time {
            self.pass_time();
        }
        match input {
            Input::Arrived(id, info) => return self.arrived(id, &info),
            Input::Resumed(id, info, held) => self.resumed(id, &info, held),
            Input::Withdrawn(id) => self.withdrawn(id),
            Input::Ended(id, end, used) => self.ended(id, end, used),
            Input::Matched(id, backend, tokens) => self.hints.matched(id, backend, tokens),
            Input::Predicted(id, output_tokens) => self.predictions.told(id, output_tokens),
            Input::FirstToken(id) => self.first_token(id),
            Input::Reported(backend, load, as_of) => self.reported(backend, &load, as_of),
            // No rule reads these yet.
            Input::Accepted(_) | Input::Progressed(..) => {}
            Input::Joined(backend, info) => self.joined(backend, &info),
            Input::Left(backend) => self.left(backend),
            Input::Draining => self.draining = true,
            Input::Deadline => {}
        }
        self.dispatch();
    }

    /// Does what time alone brings about.
    #[inline(never)]
    fn pass_time(&mut self) {
        if self.none_expires_before <= self.now {
            self.expire();
        }
        if self.order.relegates() {
            self.relegate();
        }
        if self.feedback.deadline() <= self.now {
            self.feedback.tick(self.now, &mut self.backends);
            self.changed = true;
        }
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
    /// decision, because a request expires, falls due or is relegated, or a class may spill to a
    /// farther site. `None` if there is none.
    #[inline]
    pub fn next_deadline(&self) -> Option<Time> {
        let heeds_time = self.heeds_time
            || self.guard.is_some()
            || self.evict.is_some()
            || self.backends.remembers();
        if heeds_time && !self.book.waiting().is_empty() { self.earliest_deadline() } else { None }
    }

    fn earliest_deadline(&self) -> Option<Time> {
        let waiting = self.book.waiting();
        let expiries = self.mortal.and(waiting).filter_map(|queue| self.next_expiry(queue));
        let is_closed = self.backends.closed().is_some();
        // Falling due and being relegated help only where a request that does not fit stopped the
        // others.
        let open = match (is_closed, self.stops.all) {
            (true, _) => ClassSet::EMPTY,
            (false, Some(_)) => waiting.without(self.queues.of(self.stops.requests)),
            (false, None) => self.queues.of(self.stops.tokens.or(self.stops.aside.all())),
        };
        let guard = self.guard.as_ref();
        let next_due = guard.and_then(|guard| guard.next_due(self.now, &self.book, open));
        let relegates = if self.order.relegates() { open.and(waiting) } else { ClassSet::EMPTY };
        let relegations = relegates.filter_map(|queue| self.next_relegation(queue));
        let rest_over = Some(self.feedback.deadline()).filter(|&at| at < Time::MAX);
        let evicts = self.evict.as_ref().and_then(|_| self.next_eviction());
        let next_spill = match is_closed {
            true => None,
            false => self.backends.next_spill(|class| self.oldest_arrival(class)),
        };
        let by_rules = next_due.into_iter().chain(rest_over).chain(evicts).chain(next_spill);
        expiries.chain(relegations).chain(by_rules).min()
    }

    /// The class such a request gets: that of the first rule that matches. Changes nothing.
    pub fn classify(&self, info: &RequestInfo) -> Option<ClassId> {
        self.classifier.classify(info, info.prompt_tokens)
    }

    /// Which observations the policy's rules read.
    pub fn needs(&self) -> Needs {
        Needs {
            matches: self.classifier.needs_matches()
                || self.order.needs_matches()
                || self.queues.needs_matches()
                || self.share.needs_matches()
                || self.backends.needs_matches(),
            predictions: self.predictions.needs_hints(),
            first_tokens: self.feedback.needs_first_tokens(),
            reports: [self.admission.reports_every(), self.feedback.reports_every()]
                .into_iter()
                .flatten()
                .min(),
            ..Needs::default()
        }
    }

    /// The next piece of advice.
    pub fn poll_signal(&mut self) -> Option<Signal> {
        self.feedback.poll_signal()
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
        self.book.oldest_arrival(class)
    }

    /// Requests that are dispatched and have not ended.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Who waits, and what stops each class.
    #[inline]
    pub fn standing(&self) -> Standing {
        Standing { queues: self.queues, waiting: self.book.waiting(), stops: self.stops }
    }

    /// Estimated tokens (prompt and predicted output) of a request that is held here.
    pub fn tokens(&self, id: RequestId) -> Option<u64> {
        self.book.find(id).map(|found| self.book.entry(found.slot).tokens())
    }

    /// The class of a request that was let in and has not ended, its prompt tokens and the output
    /// tokens it is predicted to deliver.
    pub(crate) fn expected(&self, id: RequestId) -> Option<(ClassId, u32, u32)> {
        let entry = self.book.entry(self.book.find(id)?.slot);
        let is_out = entry.state != State::Waiting;
        is_out.then_some((entry.class, entry.info.prompt_tokens, entry.output_predicted))
    }

    /// Not a part of `handle`, so that a driver that knows its input pays for nothing else.
    #[inline(never)]
    fn arrived(&mut self, id: RequestId, info: &RequestInfo) {
        let matched = self.hints.take(id);
        let uncached = info.prompt_tokens.saturating_sub(matched.tokens);
        self.latest_class = self.classifier.classify(info, uncached);
        let Some(class) = self.latest_class else {
            self.predictions.forget();
            return self.decline(id, None, Refusal::Unclassified, Reason::NoRule);
        };
        let RequestInfo { prompt_tokens, output_cap, .. } = *info;
        let output_predicted = self.predictions.output(id, class, output_cap);
        let tokens = u64::from(prompt_tokens) + u64::from(output_predicted);
        let context = u64::from(prompt_tokens) + u64::from(output_cap);
        let queue = self.queues.queue(class, u64::from(uncached) + u64::from(output_predicted));
        let (now, model, session) = (self.now, info.model, info.session);
        let asked = || Asked { tokens, context, class, model, session, matched, now, oldest: now };
        let at_once = self.at_once((class, queue), (tokens, context), asked);
        if let Some((refusal, reason)) = self.against(class, (tokens, context), at_once, asked) {
            return self.decline(id, Some(class), refusal, reason);
        }
        if !self.admission.is_empty() {
            let is_retry = info.attempt > 0;
            let who = Candidate { class, tenant: info.tenant, tokens, is_retry };
            if !self.admit(id, who) {
                return self.dispatch();
            }
        }
        let inserted = self.book.insert(id, || Entry {
            id,
            class,
            queue,
            flow: 0,
            arrived: self.now,
            sequence: self.sequence,
            key: 0,
            info: *info,
            output_predicted,
            matched,
            passed: 0,
            has_begun: false,
            state: at_once.map_or(State::Waiting, State::Dispatched),
        });
        let Some(slot) = inserted else { return self.dispatch() };
        let Some(backend) = at_once else { return self.wait(id, slot, class) };
        self.sequence += 1;
        if !self.is_plain {
            self.charge(slot);
        }
        self.remember(slot, backend);
        self.commit((id, class, tokens), backend, self.share_reason, None);
    }

    /// Where a request can go now if the rules could not but pick it next: nobody waits, its
    /// class has room, and neither the share nor the guard keeps accounts of who waits or goes.
    fn at_once(
        &self,
        (class, queue): (ClassId, ClassId),
        (tokens, context): (u64, u64),
        asked: impl FnOnce() -> Asked,
    ) -> Option<BackendId> {
        let is_next = self.book.waiting().is_empty()
            && self.is_unwatched
            && (self.is_plain || self.has_room((class, queue), tokens));
        if is_next { self.backends.find_room(tokens, context, asked) } else { None }
    }

    /// Whether no cap and no partition keeps such a request from going.
    #[inline]
    fn has_room(&self, (class, queue): (ClassId, ClassId), tokens: u64) -> bool {
        !self.caps.full().contains(class)
            && self.caps.has_room(class, tokens)
            && !self.heavy_lane.full().contains(queue)
            && self.partitions.has_room(class, tokens)
    }

    /// Charges a request that goes as it arrives to the rules that keep accounts. The share keeps
    /// none.
    #[inline(never)]
    fn charge(&mut self, slot: u32) {
        let Entry { class, queue, output_predicted, info, .. } = *self.book.entry(slot);
        self.too_large.remove(class);
        self.order.charge(info.workflow, info.prompt_tokens, output_predicted);
        self.take_heavy(queue);
        if let Some(evict) = &mut self.evict {
            evict.dispatched(slot, class);
        }
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

    /// Asks the rules of admission and carries out a refusal. Not for a request that is held.
    fn admit(&mut self, id: RequestId, who: Candidate) -> bool {
        if self.book.find(id).is_some() {
            return false;
        }
        let wait = self.drains.wait(self.now, who.class, self.book.queued(who.class));
        let answer = self.admission.ask(self.now, who, wait);
        if let Err(objection) = answer {
            let action = Action::Reject(objection.refusal, objection.retry_after);
            let (class, reason) = (Some(who.class), objection.reason);
            self.decisions.push(Decision { id, class, action, reason, bound: None });
        }
        answer.is_ok()
    }

    /// Gives back what admission reserved for a request that never ran.
    fn give_back(&mut self, entry: &Entry) {
        if !self.admission.is_empty() {
            self.admission.give_back(self.now, entry.candidate());
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
    fn wait(&mut self, id: RequestId, slot: u32, class: ClassId) {
        if self.line_up(id, slot, class) {
            self.dispatch();
            // It may have been the one that stopped the others.
            if self.bound_queue(id, slot) {
                self.dispatch();
            }
        }
    }

    /// Puts the request into its queue; if there is no account for its owner it is refused.
    fn line_up(&mut self, id: RequestId, slot: u32, class: ClassId) -> bool {
        let Some(flow) = self.share.flow(class, &self.book.entry(slot).info) else {
            let entry = *self.book.entry(slot);
            self.give_back(&entry);
            self.book.forget_id(id);
            self.refuse(id, Some(class), Refusal::QueueFull, Reason::QueueBound);
            self.dispatch();
            return false;
        };
        self.sequence += 1;
        self.too_large.remove(class);
        let entry = self.book.entry_mut(slot);
        entry.flow = flow;
        entry.key = self.order.key(entry);
        let turned = self.book.enqueue(slot);
        self.changed = true;
        self.share.enqueued(slot, self.book.entry(slot), turned);
        true
    }

    /// Refuses the request that just arrived if it must wait and its class's queue is full.
    fn bound_queue(&mut self, id: RequestId, slot: u32) -> bool {
        let entry = *self.book.entry(slot);
        let Entry { class, state, .. } = entry;
        let queue_max = self.config.classes[class.index()].queue_max.unwrap_or(u32::MAX);
        if state != State::Waiting || self.book.queued(class) <= queue_max {
            return false;
        }
        self.give_back(&entry);
        self.unqueue(slot);
        self.book.forget_id(id);
        self.drains.left(class, self.book.queued(class));
        self.too_large.remove(class);
        self.refuse(id, Some(class), Refusal::QueueFull, Reason::QueueBound);
        true
    }

    fn refuse(&mut self, id: RequestId, class: Option<ClassId>, refusal: Refusal, reason: Reason) {
        let retry_after = match refusal {
            Refusal::QueueFull => {
                let queued = |class| self.book.queued(class);
                let wait = class.and_then(|class| self.drains.wait(self.now, class, queued(class)));
                let oldest = class.and_then(|class| self.book.oldest(class));
                retry_after(self.now, wait, oldest)
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

    fn first_token(&mut self, id: RequestId) {
        let Some(found) = self.book.find(id) else { return };
        let entry = self.book.entry_mut(found.slot);
        if entry.state == State::Waiting || std::mem::replace(&mut entry.has_begun, true) {
            return;
        }
        let of = (entry.class, entry.arrived);
        self.feedback.first_token(self.now, of, &mut self.caps);
    }

    /// Apart like `arrived`.
    #[inline(never)]
    fn ended(&mut self, id: RequestId, end: End, used: Used) {
        let Some(found) = self.book.find(id) else { return };
        let entry = self.book.entry(found.slot);
        let State::Dispatched(backend) = entry.state else { return };
        let (class, tokens) = (entry.class, entry.tokens());
        if !self.is_plain {
            self.settle(found.slot, end, used);
        }
        self.book.forget(found);
        self.changed = true;
        self.backends.release(backend, tokens);
        if !self.is_plain {
            self.feedback.ended(self.now, (id, backend, end), &mut self.backends);
            self.caps.release(class, tokens);
            self.partitions.release(class, tokens);
            self.too_large.remove(class);
        }
        self.in_flight -= 1;
    }

    /// Tells the rules that keep accounts what a request used that has ended.
    #[inline(never)]
    fn settle(&mut self, slot: u32, end: End, used: Used) {
        let entry = self.book.entry(slot);
        let Entry { id, class, queue, info, output_predicted, .. } = *entry;
        if !self.admission.is_empty() {
            let used = u64::from(used.prompt_tokens) + u64::from(used.output_tokens);
            self.admission.settle(self.now, entry.candidate(), used);
        }
        self.predictions.ended(class, end, used.output_tokens);
        self.share.settle(entry, used);
        let charged = (info.prompt_tokens, output_predicted);
        self.order.settle(info.workflow, charged, (used.prompt_tokens, used.output_tokens));
        if self.heavy_lane.release(queue) {
            self.too_large = ClassSet::EMPTY;
        }
        if let Some(evict) = &mut self.evict {
            evict.ended(slot, class, id);
        }
    }

    fn joined(&mut self, backend: BackendId, info: &BackendInfo) {
        if self.backends.join(backend, info) {
            self.admission.joined(backend);
            self.feedback.joined(backend, info, &mut self.backends);
        }
        self.resized();
    }

    fn left(&mut self, backend: BackendId) {
        if self.backends.leave(backend) {
            self.admission.left(backend);
            self.feedback.left(backend);
        }
        self.resized();
    }

    fn reported(&mut self, backend: BackendId, load: &Load, as_of: Time) {
        self.admission.reported(backend, load, as_of);
        if self.backends.is_here(backend) {
            self.feedback.reported(self.now, (backend, load, as_of), &mut self.backends);
            self.changed |= self.feedback.limits();
            self.feedback.look(self.now, self.admission.held(), &self.backends);
        }
    }

    fn expire(&mut self) {
        for queue in self.mortal.and(self.book.waiting()) {
            while self.next_expiry(queue).is_some_and(|at| at <= self.now) {
                let oldest = self.book.oldest_in(queue).expect("what expires waits");
                let of = (self.queues.class(queue), oldest.arrived);
                self.feedback.expired(self.now, of, &mut self.caps);
                self.drop_waiting(oldest.slot, Action::Close(End::Expired), Reason::TimeToLive);
            }
        }
        let queues = self.mortal.and(self.book.waiting());
        let expiries = queues.filter_map(|queue| self.next_expiry(queue));
        let latest = self.now.saturating_add(self.life_min);
        self.none_expires_before = expiries.fold(latest, Time::min);
    }

    #[inline]
    fn next_expiry(&self, queue: ClassId) -> Option<Time> {
        let life = self.lives[queue.index()]?;
        Some(self.book.oldest_in(queue)?.arrived.saturating_add(life))
    }

    /// Relegates what has come to its deadline, which may change who is next in its class.
    fn relegate(&mut self) {
        for queue in self.book.waiting() {
            while let Some(slot) = self.book.fresh(queue)
                && self.book.entry(slot).key <= self.now.nanos()
            {
                self.book.relegate(slot);
                self.changed = true;
                self.too_large.remove(self.queues.class(queue));
            }
        }
    }

    fn next_relegation(&self, queue: ClassId) -> Option<Time> {
        let key = self.book.entry(self.book.fresh(queue)?).key;
        (key < LATE).then(|| Time::from_nanos(key))
    }

    /// Decides against a waiting request.
    fn drop_waiting(&mut self, slot: u32, action: Action, reason: Reason) {
        let entry = *self.book.entry(slot);
        let Entry { id, class, .. } = entry;
        self.give_back(&entry);
        let bound = self.waited_for(slot);
        self.decisions.push(Decision { id, class: Some(class), action, reason, bound });
        self.too_large.remove(class);
        self.unqueue(slot);
        self.drains.left(class, self.book.queued(class));
        self.book.forget_id(id);
    }

    fn unqueue(&mut self, slot: u32) {
        let turned = self.book.unqueue(slot);
        let entry = self.book.entry(slot);
        self.share.unqueued(slot, entry, turned);
        self.changed = true;
        if self.backends.remembers() {
            let class = entry.class;
            if self.book.queued(class) == 0 {
                self.backends.rest(class, self.now);
            }
        }
    }

    /// Counts a dispatch of the queue against the heavy lane. When it closes, others are next.
    #[inline]
    fn take_heavy(&mut self, queue: ClassId) {
        if self.heavy_lane.take(queue) {
            self.too_large = ClassSet::EMPTY;
            self.tried_as_due = ClassSet::EMPTY;
        }
    }

    /// Tells the rules of placement that keep track of who goes where.
    #[inline(always)]
    fn remember(&mut self, slot: u32, backend: BackendId) {
        if self.backends.remembers() {
            self.backends.went(backend, &Asked::of(self.book.entry(slot), self.now));
        }
    }

    /// Lets a request of so many estimated tokens go that stands in no queue (any more) and whose
    /// flow was charged.
    #[inline(always)]
    fn commit(
        &mut self,
        (id, class, tokens): (RequestId, ClassId, u64),
        backend: BackendId,
        reason: Reason,
        bound: Option<Bound>,
    ) {
        let priority = EnginePriority(self.config.classes[class.index()].priority);
        let action = Action::Dispatch(backend, priority);
        self.decisions.push(Decision { id, class: Some(class), action, reason, bound });
        self.backends.take(backend, tokens);
        if !self.is_plain {
            self.feedback.dispatched(id, backend, &mut self.backends);
            self.caps.take(class, tokens);
            self.partitions.take(class, tokens);
        }
        self.in_flight += 1;
    }

    /// What a waiting request was stopped by; `None` if it arrived with the input in hand.
    fn waited_for(&self, slot: u32) -> Option<Bound> {
        let Entry { class, queue, sequence, .. } = *self.book.entry(slot);
        (sequence < self.sequence_fresh).then(|| {
            self.stops.bound(class, queue).expect("a request that waited was stopped by something")
        })
    }
}
