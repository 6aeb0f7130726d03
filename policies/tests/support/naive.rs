//! The allocator written the plain way: vectors, scans and no cleverness, to compare with.

use std::collections::BTreeMap;

use plimsoll_base::{BackendId, Bound, ClassId, End, Reason, Refusal, RequestId, Span, Time};
use plimsoll_policy::config::{Becomes, Order, Per, Place, Share, TokenCost, Window};
use plimsoll_policy::{
    Action, BackendInfo, Config, Decision, EnginePriority, Input, RequestInfo, Used,
};

use crate::naive_admit::{Asker, Memory};
use crate::naive_feedback::Adapted;

#[derive(Clone, Debug)]
pub struct Held {
    pub id: RequestId,
    pub info: RequestInfo,
    pub class: ClassId,
    pub arrived: Time,
    pub at: Option<BackendId>,
    predicted: u32,
    has_begun: bool,
    flow: usize,
    sequence: u64,
}

impl Held {
    pub fn tokens(&self) -> u64 {
        u64::from(self.info.prompt_tokens) + u64::from(self.predicted)
    }
    fn asker(&self) -> Asker {
        Asker { class: self.class, tenant: self.info.tenant, tokens: self.tokens() }
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
    /// Classes that wait for a change because their next request exceeds their cap of tokens.
    too_large: Vec<ClassId>,
    memory: Memory,
    adapted: Adapted,
    decisions: Vec<Decision>,
}

impl Naive {
    pub fn new(config: Config) -> Naive {
        Naive {
            adapted: Adapted::new(&config.feedback),
            config,
            held: Vec::new(),
            backends: BTreeMap::new(),
            seen: BTreeMap::new(),
            turn: 0,
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
            too_large: Vec::new(),
            memory: Memory::default(),
            decisions: Vec::new(),
        }
    }

    pub fn handle(&mut self, now: Time, input: Input) -> Vec<Decision> {
        self.now = now;
        let fresh = self.sequence;
        self.expire();
        self.adapted.tick(now);
        match input {
            Input::Arrived(id, info) => {
                self.arrived(id, info);
                self.memory.forget_hint();
            }
            Input::Withdrawn(id) => {
                if let Some(at) = self.held.iter().position(|h| h.id == id && h.at.is_none()) {
                    self.close(at, Action::Close(End::Cancelled), Reason::Withdrawn, fresh);
                }
            }
            Input::FirstToken(id) => {
                let begins = |h: &&mut Held| h.id == id && h.at.is_some() && !h.has_begun;
                if let Some(held) = self.held.iter_mut().find(begins) {
                    held.has_begun = true;
                    let of = (held.class, held.arrived, Some(now));
                    self.adapted.result(&self.config.classes, of, now);
                }
            }
            Input::Ended(id, end, used) => self.ended(id, end, used),
            Input::Joined(id, info) => {
                if self.seen.get(&id.slot).is_none_or(|&seen| seen < id.generation) {
                    self.seen.insert(id.slot, id.generation);
                    self.backends.retain(|other, _| other.slot != id.slot);
                    self.backends.insert(id, info);
                    self.memory.keep(&self.backends);
                    self.adapted.joined(id, &info);
                    self.adapted.keep(&self.backends);
                }
            }
            Input::Left(id) => {
                self.backends.remove(&id);
                self.memory.keep(&self.backends);
                self.adapted.keep(&self.backends);
            }
            Input::Predicted(id, output_tokens) => self.memory.hint(id, output_tokens),
            Input::Reported(id, load, as_of) => {
                if self.backends.contains_key(&id) {
                    self.memory.reported(id, load, as_of);
                    let room = (self.load(id).0, self.window(&self.backends[&id]));
                    self.adapted.reported(now, (id, load, as_of), room);
                }
            }
            Input::Draining => self.draining = true,
            Input::Deadline | Input::Accepted(_) | Input::Progressed(..) | Input::Matched(..) => {}
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

    /// The cap of requests of a class as it is now.
    pub fn cap(&self, class: ClassId) -> Option<u32> {
        self.adapted.cap(class, &self.config.classes)
    }

    fn expire(&mut self) {
        for class in 0..self.config.classes.len() {
            let Some(ttl) = self.config.classes[class].time_to_live else { continue };
            while let Some(at) = self.held.iter().position(|h| {
                h.at.is_none() && h.class.index() == class && self.now >= h.arrived + ttl
            }) {
                let of = (self.held[at].class, self.held[at].arrived, None);
                self.adapted.result(&self.config.classes, of, self.now);
                self.close(at, Action::Close(End::Expired), Reason::TimeToLive, u64::MAX);
            }
        }
    }

    fn arrived(&mut self, id: RequestId, info: RequestInfo) {
        if self.held.iter().any(|h| h.id == id) {
            return;
        }
        let Some(class) = self.classify(&info) else {
            return self.refuse(id, None, Refusal::Unclassified, Reason::NoRule);
        };
        if self.draining {
            return self.refuse(id, Some(class), Refusal::Draining, Reason::Draining);
        }
        let predicted = self.memory.predict(&self.config, id, &info, class);
        let (arrived, sequence) = (self.now, self.sequence);
        let mut held = Held {
            id,
            info,
            class,
            arrived,
            at: None,
            predicted,
            has_begun: false,
            flow: 0,
            sequence,
        };
        if !self.backends.is_empty() && !self.backends.values().any(|b| fits_empty(b, &held)) {
            return self.refuse(id, Some(class), Refusal::Infeasible, Reason::TooLarge);
        }
        if self.held.len() as u32 >= self.config.requests_max {
            return self.refuse(id, Some(class), Refusal::QueueFull, Reason::QueueBound);
        }
        let wait = self.wait(class);
        let around = (&self.config, self.now);
        let asked = self.memory.ask(around, held.asker(), &self.backends, wait);
        if let Err((refusal, reason, span)) = asked {
            let (class, action) = (Some(class), Action::Reject(refusal, span));
            return self.decisions.push(Decision { id, class, action, reason, bound: None });
        }
        held.flow = self.flow(&held);
        self.sequence += 1;
        self.backlog(held.flow);
        self.too_large.retain(|&c| c != held.class);
        self.held.push(held);
    }

    /// How long a request of the class that comes now is predicted to wait.
    fn wait(&self, class: ClassId) -> Option<Span> {
        let queued = self.waiting().filter(|h| h.class == class).count();
        let known = Memory::measures(&self.config, class);
        known.then(|| self.memory.wait(self.now, class, queued)).flatten()
    }

    /// A request of the class that did not run has left the queue.
    fn left(&mut self, held: &Held) {
        let queued = self.waiting().filter(|h| h.class == held.class).count();
        self.memory.left(held.class, queued);
        self.memory.give_back(&self.config, self.now, held.asker());
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

    fn ended(&mut self, id: RequestId, end: End, used: Used) {
        let Some(at) = self.held.iter().position(|h| h.id == id && h.at.is_some()) else { return };
        let held = self.held.remove(at);
        let all = u64::from(used.prompt_tokens) + u64::from(used.output_tokens);
        self.memory.settle(&self.config, self.now, held.asker(), all);
        self.memory.ended(held.class, end, used.output_tokens);
        let backend = held.at.expect("it was dispatched");
        self.adapted.ended(self.now, id, backend, end);
        self.too_large.retain(|&c| c != held.class);
        let difference = self.cost(used.prompt_tokens, used.output_tokens)
            - self.cost(held.info.prompt_tokens, held.predicted);
        self.charge(held.flow, difference);
        self.unbacklog(held.flow);
    }

    fn dispatch(&mut self, fresh: u64) {
        let mut closed: Vec<(ClassId, Bound)>;
        let mut stopped = None;
        self.look_again_at_due(&[]);
        let mut tried_as_due = Vec::new();
        loop {
            closed = self.too_large.iter().map(|&class| (class, Bound::ClassTokens)).collect();
            for class in (0..self.config.classes.len() as u16).map(ClassId) {
                let running = self.outstanding(class).count() as u32;
                if self.cap(class).is_some_and(|max| running >= max) {
                    let stated = self.config.classes[class.index()].requests_max;
                    let is_lowered = self.cap(class) < stated;
                    let bound = if is_lowered { Bound::Adaptive } else { Bound::ClassRequests };
                    closed.push((class, bound));
                }
            }
            let open: Vec<usize> = (0..self.held.len())
                .filter(|&at| self.held[at].at.is_none())
                .filter(|&at| closed.iter().all(|&(class, _)| class != self.held[at].class))
                .collect();
            if open.is_empty() {
                break;
            }
            if self.backends.is_empty() {
                stopped = Some(Bound::NoBackend);
                break;
            }
            if !self.backends.iter().any(|(&id, b)| self.has_seat(id, b)) {
                stopped = self.why_no_seat(self.backends.iter());
                break;
            }
            let (at, reason) = self.pick(&open);
            let held = self.held[at].clone();
            let rule = &self.config.classes[held.class.index()];
            let running: u64 = self.outstanding(held.class).map(Held::tokens).sum();
            let alone = self.outstanding(held.class).count() == 0;
            if !alone && rule.tokens_max.is_some_and(|max| running + held.tokens() > max) {
                self.too_large.push(held.class);
                if reason == Reason::Due {
                    tried_as_due.push(held.class);
                }
                continue;
            }
            let capable: Vec<_> =
                self.backends.iter().filter(|(_, b)| fits_empty(b, &held)).collect();
            if capable.is_empty() {
                let refusal = Action::Reject(Refusal::Infeasible, Span::ZERO);
                self.close(at, refusal, Reason::TooLarge, fresh);
                continue;
            }
            let Some(backend) = self.place(&held) else {
                let seat = capable.iter().any(|&(&id, b)| self.has_seat(id, b));
                let none = || self.why_no_seat(capable.iter().copied());
                stopped = if seat { Some(Bound::KvMemory) } else { none() };
                break;
            };
            self.send(at, backend, reason, fresh);
            self.look_again_at_due(&tried_as_due);
        }
        self.stops.clear();
        for class in (0..self.config.classes.len() as u16).map(ClassId) {
            let own = |kind| closed.contains(&(class, kind)).then_some(kind);
            let requests = own(Bound::ClassRequests).or(own(Bound::Adaptive));
            let cap = requests.or(own(Bound::ClassTokens));
            if let Some(bound) = cap.or(stopped) {
                self.stops.insert(class, bound);
            }
        }
    }

    fn look_again_at_due(&mut self, tried: &[ClassId]) {
        let Some(guard) = self.config.guard else { return };
        if self.credit + guard.due_share_ppm >= 1_000_000 {
            let due: Vec<ClassId> =
                self.waiting().filter(|h| self.due_at(h).is_some()).map(|h| h.class).collect();
            self.too_large.retain(|class| tried.contains(class) || !due.contains(class));
        }
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
        self.adapted.stop(id, self.load(id).0, self.window(info)).is_none()
    }

    fn window(&self, info: &BackendInfo) -> u32 {
        if self.config.window == Window::None { u32::MAX } else { info.seats }
    }

    /// The breaker before the adaptive limit before the seats.
    fn why_no_seat<'a>(
        &self,
        backends: impl Iterator<Item = (&'a BackendId, &'a BackendInfo)>,
    ) -> Option<Bound> {
        let stops: Vec<Bound> = backends
            .filter_map(|(&id, info)| self.adapted.stop(id, self.load(id).0, self.window(info)))
            .collect();
        let order = [Bound::Breaker, Bound::Adaptive, Bound::Seats];
        order.into_iter().find(|bound| stops.contains(bound))
    }

    pub fn has_room(&self, id: BackendId, info: &BackendInfo, held: &Held) -> bool {
        let memory =
            self.config.window == Window::None || self.load(id).1 + held.tokens() <= info.kv_tokens;
        self.has_seat(id, info) && memory && fits_empty(info, held)
    }

    fn place(&self, held: &Held) -> Option<BackendId> {
        let room = self.backends.iter().filter(|(id, info)| self.has_room(**id, info, held));
        let key = |id: BackendId| match self.config.place {
            Place::RoundRobin => (u64::from(id.slot < self.turn), id.slot),
            Place::LeastTokens => (self.load(id).1, id.slot),
        };
        room.map(|(&id, _)| id).min_by_key(|&id| key(id))
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
        self.adapted.dispatched(held.id, backend, self.load(backend).0);
        let queued = self.waiting().filter(|h| h.class == held.class).count();
        self.memory.dispatched(self.now, held.class, queued);
        self.charge(held.flow, self.cost(held.info.prompt_tokens, held.predicted));
        self.dispatched_last = Some(held.flow);
        self.unbacklog(held.flow);
    }

    fn close(&mut self, at: usize, action: Action, reason: Reason, fresh: u64) {
        let held = self.held[at].clone();
        self.decide(&held, action, reason, fresh);
        self.held.remove(at);
        self.left(&held);
        self.too_large.retain(|&c| c != held.class);
        self.unbacklog(held.flow);
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
            self.left(&held);
            self.too_large.retain(|&c| c != held.class);
            self.unbacklog(held.flow);
            self.refuse(held.id, Some(held.class), Refusal::QueueFull, Reason::QueueBound);
            self.dispatch(fresh);
        }
    }

    fn refuse(&mut self, id: RequestId, class: Option<ClassId>, refusal: Refusal, reason: Reason) {
        let second = Span::from_secs(1);
        let span = match refusal {
            Refusal::QueueFull => {
                let oldest = self.waiting().filter(|h| Some(h.class) == class).map(|h| h.arrived);
                let age = oldest.min().map_or(second, |oldest| self.now - oldest);
                class.and_then(|class| self.wait(class)).unwrap_or(age).max(second)
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
