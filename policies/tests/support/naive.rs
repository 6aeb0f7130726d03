//! The allocator written the plain way: vectors, scans and no cleverness, to compare with.

#[path = "naive_place.rs"]
pub mod place;
#[path = "naive_quota.rs"]
pub mod quota;

use std::collections::BTreeMap;

use plimsoll_base::{BackendId, Bound, ClassId, End, Reason, Refusal, RequestId, Span, Time};
use plimsoll_policy::config::{Becomes, Order, Per, Predict, Share, TokenCost, Window};
use plimsoll_policy::{
    Action, BackendInfo, Config, Decision, EnginePriority, Input, RequestInfo, Used,
};

#[derive(Clone, Debug)]
pub struct Held {
    pub id: RequestId,
    pub info: RequestInfo,
    pub class: ClassId,
    pub arrived: Time,
    pub at: Option<BackendId>,
    /// Where most of its prompt is cached.
    matched: Option<BackendId>,
    predicted: u32,
    flow: usize,
    sequence: u64,
}

impl Held {
    pub fn tokens(&self) -> u64 {
        u64::from(self.info.prompt_tokens) + u64::from(self.predicted)
    }
    fn context(&self) -> u64 {
        u64::from(self.info.prompt_tokens) + u64::from(self.info.output_cap)
    }
}

pub struct Naive {
    pub config: Config,
    pub held: Vec<Held>,
    /// Who is there.
    pub backends: BTreeMap<BackendId, BackendInfo>,
    seen: BTreeMap<u32, u32>,
    turn: u32,
    memory: place::Memory,
    /// What is known of a request that is about to arrive.
    hint: Option<(RequestId, BackendId, u32)>,
    tenants: Vec<u32>,
    /// Service by flow, per weight, in eighths: the storms use weights that divide 8.
    counters: BTreeMap<usize, i128>,
    dispatched_last: Option<usize>,
    deficits: BTreeMap<usize, i128>,
    ring: Vec<usize>,
    visited: Vec<usize>,
    credit: u32,
    sequence: u64,
    draining: bool,
    now: Time,
    stops: BTreeMap<ClassId, Bound>,
    /// Whether more than time has passed since everyone was asked for.
    changed: bool,
    aside: Vec<(ClassId, Bound)>,
    put_off: Vec<(ClassId, usize)>,
    denied: Vec<(ClassId, usize)>,
    /// Classes that wait for a change because their next request exceeds their cap of tokens.
    too_large: Vec<ClassId>,
    decisions: Vec<Decision>,
}

impl Naive {
    pub fn new(config: Config) -> Naive {
        Naive {
            config,
            held: Vec::new(),
            backends: BTreeMap::new(),
            seen: BTreeMap::new(),
            turn: 0,
            memory: place::Memory::default(),
            hint: None,
            tenants: Vec::new(),
            counters: BTreeMap::new(),
            dispatched_last: None,
            deficits: BTreeMap::new(),
            ring: Vec::new(),
            visited: Vec::new(),
            credit: 0,
            sequence: 0,
            draining: false,
            now: Time::ZERO,
            stops: BTreeMap::new(),
            changed: false,
            aside: Vec::new(),
            put_off: Vec::new(),
            denied: Vec::new(),
            too_large: Vec::new(),
            decisions: Vec::new(),
        }
    }

    pub fn handle(&mut self, now: Time, input: Input) -> Vec<Decision> {
        self.now = now;
        let fresh = self.sequence;
        self.expire();
        match input {
            Input::Arrived(id, info) => self.arrived(id, info),
            Input::Withdrawn(id) => {
                if let Some(at) = self.held.iter().position(|h| h.id == id && h.at.is_none()) {
                    self.close(at, Action::Close(End::Cancelled), Reason::Withdrawn, fresh);
                }
            }
            Input::Ended(id, _, used) => self.ended(id, used),
            Input::Joined(id, info) => {
                self.changed = true;
                if self.seen.get(&id.slot).is_none_or(|&seen| seen < id.generation) {
                    self.seen.insert(id.slot, id.generation);
                    self.backends.retain(|other, _| other.slot != id.slot);
                    self.backends.insert(id, info);
                }
            }
            Input::Left(id) => {
                self.changed = true;
                self.backends.remove(&id);
            }
            Input::Draining => self.draining = true,
            Input::Matched(id, backend, tokens) => self.hinted(id, backend, tokens),
            Input::Deadline
            | Input::Accepted(_)
            | Input::FirstToken(_)
            | Input::Progressed(..)
            | Input::Predicted(..)
            | Input::Reported(..) => {}
        }
        self.dispatch(fresh);
        self.refuse_over_bound(fresh);
        std::mem::take(&mut self.decisions)
    }

    pub fn waiting(&self) -> impl Iterator<Item = &Held> {
        self.held.iter().filter(|h| h.at.is_none())
    }
    pub fn outstanding(&self, class: ClassId) -> impl Iterator<Item = &Held> {
        self.held.iter().filter(move |h| h.at.is_some() && h.class == class)
    }

    /// The longest match counts, of equal ones that in the lowest slot.
    fn hinted(&mut self, id: RequestId, backend: BackendId, tokens: u32) {
        let known = self.hint.filter(|(of, ..)| *of == id);
        let better = known.is_none_or(|(_, best, most)| {
            tokens > most || (tokens == most && backend.slot < best.slot)
        });
        if better && tokens > 0 {
            self.hint = Some((id, backend, tokens));
        } else if known.is_none() {
            self.hint = None;
        }
    }

    fn expire(&mut self) {
        for class in 0..self.config.classes.len() {
            let Some(ttl) = self.config.classes[class].time_to_live else { continue };
            while let Some(at) = self.held.iter().position(|h| {
                h.at.is_none() && h.class.index() == class && self.now >= h.arrived + ttl
            }) {
                self.close(at, Action::Close(End::Expired), Reason::TimeToLive, u64::MAX);
            }
        }
    }

    fn arrived(&mut self, id: RequestId, info: RequestInfo) {
        let hint = self.hint.take().filter(|(of, ..)| *of == id);
        let matched = hint.map(|(_, backend, _)| backend);
        if self.held.iter().any(|h| h.id == id) {
            return;
        }
        let Some(class) = self.classify(&info) else {
            return self.refuse(id, None, Refusal::Unclassified, Reason::NoRule);
        };
        if self.draining {
            return self.refuse(id, Some(class), Refusal::Draining, Reason::Draining);
        }
        let predicted = match self.config.predict {
            Predict::DeclaredCap => info.output_cap,
            Predict::ClassIntensity => {
                let stated = self.config.classes[class.index()].output_tokens_expected;
                stated.unwrap_or(info.output_cap).min(info.output_cap)
            }
        };
        let (arrived, sequence) = (self.now, self.sequence);
        let mut held =
            Held { id, info, class, arrived, at: None, matched, predicted, flow: 0, sequence };
        if !self.could_ever(&held) {
            return self.refuse(id, Some(class), Refusal::Infeasible, Reason::TooLarge);
        }
        if let Some(rule) = quota::quota(&self.config)
            && !quota::has_room(rule, &quota::with(rule, &[], (class, held.tokens())))
        {
            return self.refuse(id, Some(class), Refusal::OverQuota, Reason::TooLarge);
        }
        if self.held.len() as u32 >= self.config.requests_max {
            return self.refuse(id, Some(class), Refusal::QueueFull, Reason::QueueBound);
        }
        held.flow = self.flow(&held);
        self.sequence += 1;
        self.backlog(held.flow);
        self.changed = true;
        self.too_large.retain(|&c| c != held.class);
        self.held.push(held);
    }

    fn classify(&self, info: &RequestInfo) -> Option<ClassId> {
        let claimed = info.claims.filter(|c| c.index() < self.config.classes.len());
        for rule in &self.config.classify {
            let matches = [
                rule.tenant.is_none() || rule.tenant == Some(info.tenant),
                rule.source.is_none() || rule.source == Some(info.source),
                rule.claims.is_none() || rule.claims == info.claims,
                info.prompt_tokens >= rule.prompt_tokens_min.unwrap_or(0),
                info.prompt_tokens <= rule.prompt_tokens_max.unwrap_or(u32::MAX),
            ];
            let class = match rule.class {
                Becomes::Claimed => claimed,
                Becomes::Class(class) => Some(class),
            };
            if matches == [true; 5] && class.is_some() {
                return class;
            }
        }
        None
    }

    fn flow(&mut self, held: &Held) -> usize {
        let per = match self.config.share {
            Share::Fcfs => return 0,
            // Ordered so that the least number is the highest priority.
            Share::Priority => {
                let own = self.config.classes[held.class.index()].priority;
                return (i64::from(i32::MAX) - i64::from(own)) as usize;
            }
            Share::DeficitRoundRobin { per, .. } | Share::VirtualTokenCounter { per, .. } => per,
        };
        match per {
            Per::Class => held.class.index(),
            Per::Tenant => {
                let tenant = held.info.tenant.0;
                self.tenants.iter().position(|&t| t == tenant).unwrap_or_else(|| {
                    self.tenants.push(tenant);
                    self.tenants.len() - 1
                })
            }
        }
    }

    fn weight(&self, flow: usize) -> i128 {
        match self.config.share {
            Share::DeficitRoundRobin { per: Per::Class, .. }
            | Share::VirtualTokenCounter { per: Per::Class, .. } => {
                self.config.classes[flow].weight.into()
            }
            _ => 1,
        }
    }

    fn price(&self) -> TokenCost {
        match self.config.share {
            Share::Fcfs | Share::Priority => TokenCost { prompt: 0, output: 0 },
            Share::DeficitRoundRobin { cost, .. } | Share::VirtualTokenCounter { cost, .. } => cost,
        }
    }

    fn cost(&self, prompt: u32, output: u32) -> i128 {
        i128::from(prompt) * i128::from(self.price().prompt)
            + i128::from(output) * i128::from(self.price().output)
    }

    /// A request is about to join `flow`.
    fn backlog(&mut self, flow: usize) {
        if self.waiting().any(|h| h.flow == flow) {
            return;
        }
        self.ring.push(flow);
        let active = self.waiting().map(|h| self.counters.get(&h.flow).copied().unwrap_or(0)).min();
        let last = self.dispatched_last.map(|l| self.counters.get(&l).copied().unwrap_or(0));
        if let Some(floor) = active.or(last) {
            let counter = self.counters.entry(flow).or_default();
            *counter = (*counter).max(floor);
        }
    }

    /// A request has left `flow`.
    fn unbacklog(&mut self, flow: usize) {
        if !self.waiting().any(|h| h.flow == flow) {
            self.ring.retain(|&f| f != flow);
            self.visited.retain(|&f| f != flow);
            let deficit = self.deficits.entry(flow).or_default();
            *deficit = (*deficit).min(0);
        }
    }

    fn charge(&mut self, flow: usize, cost: i128) {
        let weight = self.weight(flow);
        assert_eq!(8 % weight, 0);
        *self.counters.entry(flow).or_default() += cost * 8 / weight;
        *self.deficits.entry(flow).or_default() -= cost;
    }

    fn ended(&mut self, id: RequestId, used: Used) {
        let Some(at) = self.held.iter().position(|h| h.id == id && h.at.is_some()) else { return };
        let held = self.held.remove(at);
        self.changed = true;
        self.too_large.retain(|&c| c != held.class);
        let difference = self.cost(used.prompt_tokens, used.output_tokens)
            - self.cost(held.info.prompt_tokens, held.predicted);
        self.charge(held.flow, difference);
        self.unbacklog(held.flow);
    }

    fn dispatch(&mut self, fresh: u64) {
        let mut closed: Vec<(ClassId, Bound)>;
        let (mut stopped, mut depth) = (None, 0);
        let spilling = self.spilling();
        let changed = self.changed;
        self.aside.retain(|(class, _)| !changed && !spilling.contains(class));
        let mut anew: Vec<_> = (0..self.config.classes.len() as u16).map(ClassId).collect();
        anew.retain(|class| self.aside.iter().all(|(other, _)| other != class));
        self.ask_anew(&anew);
        self.look_again_at_due(&[]);
        let mut tried_as_due = Vec::new();
        loop {
            closed = self.closed();
            let open: Vec<usize> = (0..self.held.len())
                .filter(|&at| self.held[at].at.is_none())
                .filter(|&at| closed.iter().all(|&(class, _)| class != self.held[at].class))
                .filter(|&at| self.aside.iter().all(|&(class, _)| class != self.held[at].class))
                .collect();
            if open.is_empty() {
                let deeper = self.put_off.iter().map(|(_, depth)| *depth).min();
                let Some(deeper) = deeper else { break };
                depth = deeper;
                self.aside.retain(|(class, _)| !self.put_off.contains(&(*class, depth)));
                self.put_off.retain(|(_, other)| *other != depth);
                continue;
            }
            if self.backends.is_empty() {
                stopped = Some(Bound::NoBackend);
            } else if !self.backends.iter().any(|(&id, b)| self.has_seat(id, b)) {
                stopped = Some(Bound::Seats);
            }
            if stopped.is_some() {
                let classes: Vec<_> = open.iter().map(|&at| self.held[at].class).collect();
                self.close_all(&classes);
                break;
            }
            let (at, reason) = self.pick(&open);
            let held = self.held[at].clone();
            if reason == Reason::Due {
                tried_as_due.push(held.class);
            }
            if !self.fits_cap(&held) {
                self.too_large.push(held.class);
                continue;
            }
            if let Some(rule) = quota::quota(&self.config) {
                let usage = quota::with(rule, &self.held, (held.class, held.tokens()));
                let borrows_at = quota::borrows_at(rule, &usage);
                let has_room = quota::has_room(rule, &usage);
                let is_put_off = has_room && borrows_at > depth;
                if is_put_off {
                    self.put_off.push((held.class, borrows_at));
                } else if !has_room || quota::is_claimed(rule, &usage, &self.denied) {
                    self.denied.push((held.class, borrows_at));
                }
                if is_put_off || self.denied.iter().any(|(class, _)| *class == held.class) {
                    self.aside.push((held.class, Bound::Quota));
                    continue;
                }
            }
            match self.find(&held) {
                place::Found::At(backend) => {
                    self.send(at, backend, reason, fresh);
                    tried_as_due.retain(|class| *class != held.class);
                    if self.look_again_at_due(&tried_as_due) {
                        depth = 0;
                    }
                }
                place::Found::Never => {
                    let refusal = Action::Reject(Refusal::Infeasible, Span::ZERO);
                    self.close(at, refusal, Reason::TooLarge, fresh);
                }
                place::Found::Stopped(bound) if self.reaches_differ() => {
                    let mut classes = self.stopped_with(held.class);
                    classes.retain(|class| !self.aside.iter().any(|(other, _)| other == class));
                    self.aside.extend(classes.into_iter().map(|class| (class, bound)));
                }
                place::Found::Stopped(bound) => {
                    stopped = Some(bound);
                    break;
                }
            }
        }
        self.aside.retain(|(class, _)| !self.put_off.iter().any(|(other, _)| other == class));
        self.put_off.clear();
        self.changed = false;
        self.note_stops(&closed, stopped);
    }

    /// Classes at a cap of their own.
    fn closed(&self) -> Vec<(ClassId, Bound)> {
        let mut closed: Vec<_> =
            self.too_large.iter().map(|&class| (class, Bound::ClassTokens)).collect();
        let seats = self.backends.values().map(|info| u64::from(info.seats)).sum();
        for (class, rule) in (0..).map(ClassId).zip(&self.config.classes) {
            let running = self.outstanding(class).count() as u64;
            let share = quota::concurrency_max(&self.config, class, seats);
            if rule.requests_max.is_some_and(|max| running >= max.into())
                || share.is_some_and(|max| running >= max)
            {
                closed.push((class, Bound::ClassRequests));
            }
        }
        closed
    }

    pub fn fits_cap(&self, held: &Held) -> bool {
        let rule = &self.config.classes[held.class.index()];
        let running: u64 = self.outstanding(held.class).map(Held::tokens).sum();
        let alone = self.outstanding(held.class).count() == 0;
        alone || rule.tokens_max.is_none_or(|max| running + held.tokens() <= max)
    }

    /// Whether no cap and no partition keeps a request that is next from going.
    pub fn may_go(&self, held: &Held) -> bool {
        let quota = quota::quota(&self.config).is_none_or(|rule| {
            let usage = quota::with(rule, &self.held, (held.class, held.tokens()));
            quota::has_room(rule, &usage)
        });
        let closed = self.closed();
        let is_capped = |bound| closed.contains(&(held.class, bound));
        quota && self.fits_cap(held) && !is_capped(Bound::ClassRequests)
    }

    fn note_stops(&mut self, closed: &[(ClassId, Bound)], stopped: Option<Bound>) {
        self.stops.clear();
        for class in (0..self.config.classes.len() as u16).map(ClassId) {
            let own = |kind| closed.contains(&(class, kind)).then_some(kind);
            let cap = own(Bound::ClassRequests).or(own(Bound::ClassTokens));
            let aside =
                self.aside.iter().find(|(other, _)| *other == class).map(|(_, bound)| *bound);
            if let Some(bound) = cap.or(aside).or(stopped) {
                self.stops.insert(class, bound);
            }
        }
    }

    /// Classes that stepped aside and are due are asked for anew; whether there are any.
    fn look_again_at_due(&mut self, tried: &[ClassId]) -> bool {
        let Some(guard) = self.config.guard else { return false };
        if self.credit + guard.due_share_ppm < 1_000_000 {
            return false;
        }
        let mut due: Vec<ClassId> =
            self.waiting().filter(|h| self.due_at(h).is_some()).map(|h| h.class).collect();
        let is_aside = |class: &ClassId| {
            self.aside.iter().any(|(other, _)| other == class) || self.too_large.contains(class)
        };
        due.retain(|class| is_aside(class) && !tried.contains(class));
        due.sort_unstable();
        due.dedup();
        self.too_large.retain(|class| !due.contains(class));
        self.ask_anew(&due);
        !due.is_empty()
    }

    fn ask_anew(&mut self, classes: &[ClassId]) {
        self.aside.retain(|(class, _)| !classes.contains(class));
        self.put_off.retain(|(class, _)| !classes.contains(class));
        self.denied.retain(|(class, _)| !classes.contains(class));
        self.place_anew(classes);
    }

    fn due_at(&self, held: &Held) -> Option<Time> {
        let wait_max = self.config.classes[held.class.index()].wait_max?;
        Some(held.arrived + wait_max).filter(|&due| due <= self.now)
    }

    fn pick(&mut self, open: &[usize]) -> (usize, Reason) {
        if let Some(guard) = self.config.guard
            && self.credit + guard.due_share_ppm >= 1_000_000
        {
            let due = open
                .iter()
                .filter_map(|&at| Some((self.due_at(&self.held[at])?, self.held[at].sequence, at)));
            if let Some((_, _, at)) = due.min() {
                return (at, Reason::Due);
            }
        }
        let (flow, reason) = match self.config.share {
            Share::Fcfs => (0, Reason::ArrivalOrder),
            Share::Priority => {
                (open.iter().map(|&at| self.held[at].flow).min().unwrap(), Reason::Priority)
            }
            Share::VirtualTokenCounter { .. } => {
                let key = |&at: &usize| {
                    let flow = self.held[at].flow;
                    (self.counters.get(&flow).copied().unwrap_or(0), flow)
                };
                (open.iter().map(key).min().unwrap().1, Reason::VirtualCounter)
            }
            Share::DeficitRoundRobin { quantum, .. } => {
                (self.pick_by_deficit(open, quantum.into()), Reason::Deficit)
            }
        };
        (self.head(open, flow).expect("the flow has work"), reason)
    }

    fn pick_by_deficit(&mut self, open: &[usize], quantum: i128) -> usize {
        loop {
            let place = self.ring.iter().position(|&f| self.head(open, f).is_some()).unwrap();
            let flow = self.ring[place];
            let head = &self.held[self.head(open, flow).unwrap()];
            let cost = self.cost(head.info.prompt_tokens, head.predicted);
            let grant = quantum * self.weight(flow);
            let deficit = self.deficits.entry(flow).or_default();
            if !self.visited.contains(&flow) {
                *deficit += grant;
                self.visited.push(flow);
            }
            if cost <= *deficit {
                return flow;
            }
            self.visited.retain(|&f| f != flow);
            self.ring.remove(place);
            self.ring.push(flow);
        }
    }

    fn head(&self, open: &[usize], flow: usize) -> Option<usize> {
        let key = |&at: &usize| {
            let held = &self.held[at];
            let boost = match self.config.order {
                Order::Fcfs => 0,
                Order::Aging => i128::from(self.config.classes[held.class.index()].boost.nanos()),
            };
            (i128::from(held.arrived.nanos()) - boost, held.sequence)
        };
        open.iter().copied().filter(|&at| self.held[at].flow == flow).min_by_key(key)
    }

    fn load(&self, id: BackendId) -> (u32, u64) {
        let on = self.held.iter().filter(|h| h.at == Some(id));
        on.fold((0, 0), |(n, tokens), h| (n + 1, tokens + h.tokens()))
    }

    fn has_seat(&self, id: BackendId, info: &BackendInfo) -> bool {
        self.config.window == Window::None || self.load(id).0 < info.seats
    }

    pub fn has_room(&self, id: BackendId, info: &BackendInfo, held: &Held) -> bool {
        let memory =
            self.config.window == Window::None || self.load(id).1 + held.tokens() <= info.kv_tokens;
        self.has_seat(id, info) && memory && fits_empty(info, held)
    }

    fn send(&mut self, at: usize, backend: BackendId, reason: Reason, fresh: u64) {
        if let Some(guard) = self.config.guard
            && self.waiting().any(|h| self.due_at(h).is_some())
        {
            let spent = if reason == Reason::Due { 1_000_000 } else { 0 };
            self.credit = (self.credit + guard.due_share_ppm - spent).min(1_000_000);
        }
        let held = self.held[at].clone();
        let priority = EnginePriority(self.config.classes[held.class.index()].priority);
        self.decide(&held, Action::Dispatch(backend, priority), reason, fresh);
        self.turn = backend.slot + 1;
        self.held[at].at = Some(backend);
        self.charge(held.flow, self.cost(held.info.prompt_tokens, held.predicted));
        self.dispatched_last = Some(held.flow);
        self.unbacklog(held.flow);
        self.rest_if_idle(held.class);
        self.went(&held, backend);
    }

    fn close(&mut self, at: usize, action: Action, reason: Reason, fresh: u64) {
        let held = self.held[at].clone();
        self.decide(&held, action, reason, fresh);
        self.held.remove(at);
        self.changed = true;
        self.too_large.retain(|&c| c != held.class);
        self.unbacklog(held.flow);
        self.rest_if_idle(held.class);
    }

    fn decide(&mut self, held: &Held, action: Action, reason: Reason, fresh: u64) {
        let waited = held.sequence < fresh;
        let bound = waited.then(|| self.stops[&held.class]);
        let (id, class) = (held.id, Some(held.class));
        self.decisions.push(Decision { id, class, action, reason, bound });
    }

    fn refuse_over_bound(&mut self, fresh: u64) {
        let Some(at) = self.held.iter().position(|h| h.at.is_none() && h.sequence >= fresh) else {
            return;
        };
        let held = self.held[at].clone();
        let queued = self.waiting().filter(|h| h.class == held.class).count() as u32;
        if self.config.classes[held.class.index()].queue_max.is_some_and(|max| queued > max) {
            self.held.remove(at);
            self.changed = true;
            self.too_large.retain(|&c| c != held.class);
            self.unbacklog(held.flow);
            self.rest_if_idle(held.class);
            self.refuse(held.id, Some(held.class), Refusal::QueueFull, Reason::QueueBound);
            self.dispatch(fresh);
        }
    }

    fn refuse(&mut self, id: RequestId, class: Option<ClassId>, refusal: Refusal, reason: Reason) {
        let second = Span::from_secs(1);
        let span = match refusal {
            Refusal::QueueFull => {
                let oldest = self.waiting().filter(|h| Some(h.class) == class).map(|h| h.arrived);
                oldest.min().map_or(second, |oldest| (self.now - oldest).max(second))
            }
            Refusal::Draining => second,
            _ => Span::ZERO,
        };
        let action = Action::Reject(refusal, span);
        self.decisions.push(Decision { id, class, action, reason, bound: None });
    }
}

fn fits_empty(info: &BackendInfo, held: &Held) -> bool {
    held.tokens() <= info.kv_tokens && held.context() <= u64::from(info.context_max)
}
