//! The allocator written the plain way: vectors, scans and no cleverness, to compare with.

#[path = "naive_place.rs"]
pub mod place;
#[path = "naive_quota.rs"]
pub mod quota;

use std::collections::BTreeMap;

use plimsoll_base::{
    BackendId, Bound, ClassId, End, PoolId, Reason, Refusal, RequestId, Scale, Span, Time,
    WorkflowId,
};
use plimsoll_policy::config::{Becomes, Feedback, Order, Partition, Per, Share, TokenCost, Window};
use plimsoll_policy::{
    Action, BackendInfo, Config, Decision, EnginePriority, Input, RequestInfo, Signal, Used,
};

#[path = "naive_admit.rs"]
mod admit;
#[path = "naive_autoscale.rs"]
mod autoscale;
#[path = "naive_feedback.rs"]
mod feedback;

use admit::{Asker, Memory};
use autoscale::{Advised, Seen};
use feedback::Adapted;

#[derive(Clone, Debug)]
pub struct Held {
    pub id: RequestId,
    pub info: RequestInfo,
    pub class: ClassId,
    pub arrived: Time,
    pub at: Option<BackendId>,
    /// Where most of its prompt is cached.
    matched_at: Option<BackendId>,
    predicted: u32,
    /// Tokens of its prompt that the best backend was said to have cached.
    matched: u32,
    has_begun: bool,
    /// The how manieth dispatch of all it was.
    went: u64,
    flow: usize,
    sequence: u64,
    /// What its workflow had been given.
    attained: u64,
    /// Whether its deadline came.
    late: bool,
    /// How many went past it.
    passed: u32,
}

impl Held {
    pub fn tokens(&self) -> u64 {
        u64::from(self.info.prompt_tokens) + u64::from(self.predicted)
    }
    fn asker(&self) -> Asker {
        let is_retry = self.info.attempt > 0;
        Asker { class: self.class, tenant: self.info.tenant, tokens: self.tokens(), is_retry }
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
    /// The owner of each account: a tenant, or a workflow.
    accounts: Vec<(u64, Option<u32>)>,
    /// Accounts with nothing waiting and nothing in flight; those to forget come first.
    idle: Vec<usize>,
    /// The virtual time, and the greatest finish tag, of start-time fair queueing.
    time: i128,
    finish: i128,
    placing: place::Memory,
    /// What is known of a request that is about to arrive.
    hint: Option<(RequestId, BackendId, u32)>,
    /// Service by flow, per weight, in eighths: the storms use weights that divide 8.
    counters: BTreeMap<usize, i128>,
    dispatched_last: Option<usize>,
    deficits: BTreeMap<usize, i128>,
    ring: Vec<usize>,
    visited: Vec<usize>,
    credit: u32,
    sequence: u64,
    dispatches: u64,
    /// Who was evicted and has not ended, and when the next may be.
    evicted: (Option<RequestId>, Time),
    draining: bool,
    now: Time,
    /// By class and whether it is heavy.
    stops: BTreeMap<(ClassId, bool), Bound>,
    /// Whether more than time has passed since everyone was asked for.
    changed: bool,
    aside: Vec<(ClassId, Bound)>,
    put_off: Vec<(ClassId, usize)>,
    denied: Vec<(ClassId, usize)>,
    /// Classes that wait for a change because their next request exceeds their cap of tokens.
    too_large: Vec<ClassId>,
    memory: Memory,
    adapted: Adapted,
    advised: Advised,
    signals: Vec<Signal>,
    decisions: Vec<Decision>,
    /// Workflows and what they were given; the one used last is last.
    given: Vec<(WorkflowId, u64)>,
    /// Who is next and fits nowhere, while looking past them.
    passed_over: Vec<RequestId>,
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
            accounts: Vec::new(),
            idle: Vec::new(),
            time: 0,
            finish: 0,
            placing: place::Memory::default(),
            hint: None,
            counters: BTreeMap::new(),
            dispatched_last: None,
            deficits: BTreeMap::new(),
            ring: Vec::new(),
            visited: Vec::new(),
            credit: 0,
            sequence: 0,
            draining: false,
            now: Time::ZERO,
            dispatches: 0,
            evicted: (None, Time::ZERO),
            stops: BTreeMap::new(),
            changed: false,
            aside: Vec::new(),
            put_off: Vec::new(),
            denied: Vec::new(),
            too_large: Vec::new(),
            memory: Memory::default(),
            advised: Advised::default(),
            signals: Vec::new(),
            decisions: Vec::new(),
            given: Vec::new(),
            passed_over: Vec::new(),
        }
    }

    pub fn handle(&mut self, now: Time, input: Input) -> Vec<Decision> {
        self.now = now;
        let fresh = self.sequence;
        self.expire();
        self.relegate();
        self.changed |= self.adapted.tick(now);
        match input {
            Input::Arrived(id, info) => self.arrived(id, info),
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
            // `handover.rs` tells it to real allocators.
            Input::Resumed(..) => unreachable!("no storm takes over from another allocator"),
            Input::Ended(id, end, used) => self.ended(id, end, used),
            Input::Joined(id, info) => {
                self.changed = true;
                if self.seen.get(&id.slot).is_none_or(|&seen| seen < id.generation) {
                    self.seen.insert(id.slot, id.generation);
                    self.backends.retain(|other, _| other.slot != id.slot);
                    self.backends.insert(id, info);
                    self.memory.keep(&self.backends);
                    self.adapted.joined(id, &info);
                    self.advised.joined(info.pool);
                    self.adapted.keep(&self.backends);
                }
            }
            Input::Left(id) => {
                self.changed = true;
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
                    let limits =
                        |rule: &Feedback| matches!(rule, Feedback::AdaptiveConcurrency { .. });
                    self.changed |= self.config.feedback.iter().any(limits);
                    self.look();
                }
            }
            Input::Draining => self.draining = true,
            Input::Matched(id, backend, tokens) => self.hinted(id, backend, tokens),
            Input::Deadline | Input::Accepted(_) | Input::Progressed(..) => {}
        }
        self.dispatch(fresh);
        self.refuse_over_bound(fresh);
        std::mem::take(&mut self.decisions)
    }

    /// Which advice was given, up or down, in all.
    pub fn advice(&self) -> impl Iterator<Item = Scale> {
        self.advised.all()
    }

    /// What was advised since this was last asked.
    pub fn take_signals(&mut self) -> Vec<Signal> {
        std::mem::take(&mut self.signals)
    }

    fn look(&mut self) {
        let rule = self.config.feedback.iter().find_map(|rule| match rule {
            Feedback::Autoscale(rule) => Some(rule),
            _ => None,
        });
        let Some(rule) = rule else { return };
        let mut pools: BTreeMap<PoolId, Seen> = BTreeMap::new();
        for (&id, info) in &self.backends {
            let (requests, tokens) = self.load(id);
            let pool = pools.entry(info.pool).or_default();
            pool.backends += 1;
            pool.requests.0 += u128::from(requests);
            pool.requests.1 += u128::from(info.seats);
            pool.tokens.0 += u128::from(tokens);
            pool.tokens.1 += u128::from(info.kv_tokens);
        }
        let tokens: u128 = self.held.iter().map(|held| u128::from(held.tokens())).sum();
        let held = (self.held.len() as u128, tokens);
        let said = self.advised.look(rule, self.now, held, &pools);
        self.signals.extend(said.into_iter().map(Signal::Scale));
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
        for heavy in [false, true] {
            for class in 0..self.config.classes.len() {
                let Some(ttl) = self.config.classes[class].time_to_live else { continue };
                while let Some(at) = self.held.iter().position(|h| {
                    h.at.is_none()
                        && h.class.index() == class
                        && self.is_heavy(h) == heavy
                        && self.now >= h.arrived + ttl
                }) {
                    let of = (self.held[at].class, self.held[at].arrived, None);
                    self.adapted.result(&self.config.classes, of, self.now);
                    self.close(at, Action::Close(End::Expired), Reason::TimeToLive, u64::MAX);
                }
            }
        }
    }

    /// Marks those whose deadline has come.
    fn relegate(&mut self) {
        for at in 0..self.held.len() {
            let held = &self.held[at];
            let deadline = self.config.classes[held.class.index()].deadline;
            if self.config.order == Order::EarliestDeadline
                && held.at.is_none()
                && !held.late
                && deadline.is_some_and(|deadline| held.arrived + deadline <= self.now)
            {
                let class = held.class;
                self.held[at].late = true;
                self.changed = true;
                self.too_large.retain(|&c| c != class);
            }
        }
    }

    fn heavy_lane(&self) -> Option<(u64, u32)> {
        self.config.partition.iter().find_map(|rule| match rule {
            Partition::HeavyLane { over_tokens, max } => Some((*over_tokens, *max)),
            Partition::Dedicated(_) | Partition::Quota(_) | Partition::Concurrency(_) => None,
        })
    }
    pub fn is_heavy(&self, held: &Held) -> bool {
        let uncached = u64::from(held.info.prompt_tokens.saturating_sub(held.matched));
        let tokens = uncached + u64::from(held.predicted);
        self.heavy_lane().is_some_and(|(over, _)| tokens > over)
    }
    /// Whether as many heavy requests run as may.
    pub fn heavy_lane_is_full(&self) -> bool {
        let running = self.held.iter().filter(|h| h.at.is_some() && self.is_heavy(h)).count();
        self.heavy_lane().is_some_and(|(_, max)| running >= max as usize)
    }

    fn arrived(&mut self, id: RequestId, info: RequestInfo) {
        let hint = self.hint.take().filter(|(of, ..)| *of == id);
        let told = self.memory.take_hint(id);
        if self.held.iter().any(|h| h.id == id) {
            return;
        }
        let Some(class) = self.classify(&info) else {
            return self.refuse(id, None, Refusal::Unclassified, Reason::NoRule);
        };
        if self.draining {
            return self.refuse(id, Some(class), Refusal::Draining, Reason::Draining);
        }
        let predicted = self.memory.predict(&self.config, told, &info, class);
        let (arrived, sequence) = (self.now, self.sequence);
        let matched_at = hint.map(|(_, backend, _)| backend);
        let matched = hint.map_or(0, |(.., tokens)| tokens);
        let mut held = Held {
            id,
            info,
            class,
            arrived,
            at: None,
            predicted,
            has_begun: false,
            went: 0,
            matched_at,
            matched,
            flow: 0,
            sequence,
            attained: 0,
            late: false,
            passed: 0,
        };
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
        let wait = self.wait(class);
        let around = (&self.config, self.now);
        let asked = self.memory.ask(around, held.asker(), &self.backends, wait);
        if let Err((refusal, reason, span)) = asked {
            let (class, action) = (Some(class), Action::Reject(refusal, span));
            return self.decisions.push(Decision { id, class, action, reason, bound: None });
        }
        let Some(flow) = self.flow(&held) else {
            self.memory.give_back(&self.config, self.now, held.asker());
            return self.refuse(id, Some(class), Refusal::QueueFull, Reason::QueueBound);
        };
        held.attained = self.attained(info.workflow);
        held.flow = flow;
        self.sequence += 1;
        self.backlog(held.flow);
        self.changed = true;
        self.too_large.retain(|&c| c != held.class);
        self.held.push(held);
        self.rest(flow);
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

    fn per(&self) -> Option<Per> {
        match self.config.share {
            Share::Fcfs | Share::Priority => None,
            Share::DeficitRoundRobin { per, .. }
            | Share::VirtualTokenCounter { per, .. }
            | Share::StartTimeFair { per, .. }
            | Share::Stride { per }
            | Share::DominantResource { per, .. }
            | Share::DeficitLongestPrefix { per, .. } => Some(per),
        }
    }

    fn flow(&mut self, held: &Held) -> Option<usize> {
        let owner = match (self.per(), held.info.workflow.0) {
            (None, _) if self.config.share == Share::Fcfs => return Some(0),
            // Ordered so that the least number is the highest priority.
            (None, _) => {
                let own = self.config.classes[held.class.index()].priority;
                return Some((i64::from(i32::MAX) - i64::from(own)) as usize);
            }
            (Some(Per::Class), _) => return Some(held.class.index()),
            (Some(Per::Tenant), _) | (Some(Per::Workflow), 0) => (0, Some(held.info.tenant.0)),
            (Some(Per::Workflow), workflow) => (workflow, None),
        };
        self.accounts.iter().position(|&o| o == owner).or_else(|| self.open(owner))
    }

    fn open(&mut self, owner: (u64, Option<u32>)) -> Option<usize> {
        let is_full = self.accounts.len() >= self.config.accounts_max as usize;
        let spare = self.idle.first().copied().filter(|&f| is_full || self.is_settled(f));
        let flow = match spare {
            Some(flow) => {
                self.idle.remove(0);
                self.accounts[flow] = owner;
                flow
            }
            None if is_full => return None,
            None => {
                self.accounts.push(owner);
                self.accounts.len() - 1
            }
        };
        let start = self.floor().unwrap_or(0);
        self.counters.insert(flow, start);
        self.deficits.insert(flow, 0);
        Some(flow)
    }

    /// Whether a stranger stands where the idle flow stands.
    fn is_settled(&self, flow: usize) -> bool {
        match self.config.share {
            Share::DeficitRoundRobin { .. } | Share::DeficitLongestPrefix { .. } => {
                self.deficits.get(&flow).copied().unwrap_or(0) == 0
            }
            _ => self.floor().is_none_or(|floor| self.counter(flow) <= floor),
        }
    }

    /// A flow may have come to rest, or to work.
    fn rest(&mut self, flow: usize) {
        if !matches!(self.per(), Some(Per::Tenant | Per::Workflow)) {
            return;
        }
        let is_idle = self.held.iter().all(|h| h.flow != flow);
        let was_idle = self.idle.contains(&flow);
        if !is_idle {
            self.idle.retain(|&f| f != flow);
        } else if !was_idle && self.is_settled(flow) {
            self.idle.insert(0, flow);
        } else if !was_idle {
            self.idle.push(flow);
        }
    }

    fn attained(&mut self, workflow: WorkflowId) -> u64 {
        let Some(at) = self.given.iter().position(|&(other, _)| other == workflow) else {
            return 0;
        };
        let account = self.given.remove(at);
        self.given.push(account);
        account.1
    }

    fn account(&mut self, workflow: WorkflowId, prompt: u32, output: u32) {
        let Order::LeastAttained { cost, workflows_max } = self.config.order else { return };
        if workflow == WorkflowId(0) {
            return;
        }
        let known = self.attained(workflow);
        self.given.retain(|&(other, _)| other != workflow);
        if self.given.len() == workflows_max as usize {
            self.given.remove(0);
        }
        self.given.push((workflow, known + worth(cost, prompt, output)));
    }

    fn settle_account(&mut self, held: &Held, used: Used) {
        let Order::LeastAttained { cost, .. } = self.config.order else { return };
        for (workflow, given) in &mut self.given {
            if *workflow == held.info.workflow {
                *given = (*given + worth(cost, used.prompt_tokens, used.output_tokens))
                    .saturating_sub(worth(cost, held.info.prompt_tokens, held.predicted));
            }
        }
    }

    fn weight(&self, flow: usize) -> i128 {
        match self.per() {
            Some(Per::Class) => self.config.classes[flow].weight.into(),
            Some(Per::Tenant | Per::Workflow) | None => 1,
        }
    }

    fn price(&self) -> TokenCost {
        match self.config.share {
            Share::DeficitRoundRobin { cost, .. }
            | Share::VirtualTokenCounter { cost, .. }
            | Share::StartTimeFair { cost, .. }
            | Share::DeficitLongestPrefix { cost, .. } => cost,
            Share::Fcfs
            | Share::Priority
            | Share::Stride { .. }
            | Share::DominantResource { .. } => TokenCost { prompt: 0, output: 0 },
        }
    }

    fn cost(&self, prompt: u32, output: u32) -> i128 {
        let (p, o) = (i128::from(prompt), i128::from(output));
        match self.config.share {
            Share::Stride { .. } => 1,
            Share::DominantResource { capacity, .. } => {
                let second = 1_000_000_000;
                let prefill = p * second / i128::from(capacity.prefill_tokens);
                let decode = o * second / i128::from(capacity.decode_tokens);
                let held = (p + o) * o * i128::from(capacity.output_token.nanos());
                prefill.max(decode).max(held / i128::from(capacity.kv_tokens))
            }
            _ => p * i128::from(self.price().prompt) + o * i128::from(self.price().output),
        }
    }

    /// What a request is charged at dispatch.
    fn expected(&self, held: &Held) -> i128 {
        let uncached = match self.config.share {
            Share::DeficitLongestPrefix { .. } => {
                held.info.prompt_tokens.saturating_sub(held.matched)
            }
            _ => held.info.prompt_tokens,
        };
        self.cost(uncached, held.predicted)
    }

    fn counter(&self, flow: usize) -> i128 {
        self.counters.get(&flow).copied().unwrap_or(0)
    }

    fn keeps_time(&self) -> bool {
        matches!(self.config.share, Share::StartTimeFair { .. } | Share::DominantResource { .. })
    }

    /// Where a flow that gets work begins at least.
    fn floor(&self) -> Option<i128> {
        if self.keeps_time() {
            return Some(self.time);
        }
        let active = self.waiting().map(|h| self.counter(h.flow)).min();
        active.or(self.dispatched_last.map(|last| self.counter(last)))
    }

    /// A request is about to join `flow`.
    fn backlog(&mut self, flow: usize) {
        if self.waiting().any(|h| h.flow == flow) {
            return;
        }
        self.ring.push(flow);
        if let Some(floor) = self.floor() {
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
        if self.waiting().next().is_none() && self.held.iter().all(|h| h.at.is_none()) {
            self.time = self.time.max(self.finish);
        }
        self.rest(flow);
    }

    fn charge(&mut self, flow: usize, cost: i128) {
        let weight = self.weight(flow);
        assert_eq!(8 % weight, 0);
        let counter = self.counters.entry(flow).or_default();
        *counter += cost * 8 / weight;
        self.finish = self.finish.max(*counter);
        *self.deficits.entry(flow).or_default() -= cost;
    }

    fn ended(&mut self, id: RequestId, end: End, used: Used) {
        let Some(at) = self.held.iter().position(|h| h.id == id && h.at.is_some()) else { return };
        let was_full = self.heavy_lane_is_full();
        let held = self.held.remove(at);
        self.evicted.0 = self.evicted.0.filter(|&evicted| evicted != id);
        let all = u64::from(used.prompt_tokens) + u64::from(used.output_tokens);
        self.memory.settle(&self.config, self.now, held.asker(), all);
        self.memory.ended(held.class, end, used.output_tokens);
        let backend = held.at.expect("it was dispatched");
        self.adapted.ended(self.now, id, backend, end);
        self.changed = true;
        self.too_large.retain(|&c| c != held.class);
        if self.heavy_lane_is_full() != was_full {
            self.too_large.clear();
        }
        self.settle_account(&held, used);
        let difference = self.cost(used.prompt_tokens, used.output_tokens) - self.expected(&held);
        self.charge(held.flow, difference);
        self.unbacklog(held.flow);
    }

    fn dispatch(&mut self, fresh: u64) {
        let mut closed: Vec<(ClassId, Bound)>;
        let (mut stopped, mut stopped_next, mut depth) = (None, None, 0);
        let spilling = self.spilling();
        let changed = self.changed;
        self.aside.retain(|(class, _)| !changed && !spilling.contains(class));
        let everyone: Vec<_> = (0..self.config.classes.len() as u16).map(ClassId).collect();
        let mut anew = everyone.clone();
        anew.retain(|class| self.aside.iter().all(|(other, _)| other != class));
        let mut returned = if changed { Vec::new() } else { self.holding() };
        self.ask_anew(&anew);
        self.look_again_at_due(&[]);
        returned.retain(|class| !self.holding().contains(class));
        let mut tried_as_due = Vec::new();
        loop {
            closed = self.closed();
            let heavy_lane_is_full = self.heavy_lane_is_full();
            let open: Vec<usize> = (0..self.held.len())
                .filter(|&at| self.held[at].at.is_none())
                .filter(|&at| !self.passed_over.contains(&self.held[at].id))
                .filter(|&at| !heavy_lane_is_full || !self.is_heavy(&self.held[at]))
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
                stopped = self.why_no_seat(self.backends.iter());
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
                    let mut reason = reason;
                    for passed in std::mem::take(&mut self.passed_over) {
                        reason = Reason::Bypass;
                        self.held.iter_mut().find(|h| h.id == passed).unwrap().passed += 1;
                    }
                    stopped_next = None;
                    let was_full = self.heavy_lane_is_full();
                    self.send(at, backend, reason, fresh);
                    let lane_turned = self.heavy_lane_is_full() != was_full;
                    if lane_turned {
                        self.too_large.clear();
                        tried_as_due.clear();
                    }
                    // What its class held is free for those who stepped aside because of it.
                    if lane_turned || returned.contains(&held.class) {
                        returned.clear();
                        self.ask_anew(&everyone);
                        depth = 0;
                        continue;
                    }
                    tried_as_due.retain(|class| *class != held.class);
                    let before = self.holding();
                    if self.look_again_at_due(&tried_as_due) {
                        let now = self.holding();
                        returned.extend(before.into_iter().filter(|class| !now.contains(class)));
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
                    stopped_next = stopped_next.or(Some(bound));
                    let is_passable = held.passed < self.config.bypass_max;
                    if !is_passable || reason == Reason::Due || self.passed_over.len() == 16 {
                        break;
                    }
                    self.passed_over.push(held.id);
                }
            }
        }
        self.passed_over.clear();
        self.aside.retain(|(class, _)| !self.put_off.iter().any(|(other, _)| other == class));
        self.put_off.clear();
        self.changed = false;
        self.note_stops(&closed, stopped.or(stopped_next));
    }

    /// Classes at a cap of their own.
    fn closed(&self) -> Vec<(ClassId, Bound)> {
        let mut closed: Vec<_> =
            self.too_large.iter().map(|&class| (class, Bound::ClassTokens)).collect();
        let seats = self.backends.values().map(|info| u64::from(info.seats)).sum();
        for (class, rule) in (0..).map(ClassId).zip(&self.config.classes) {
            let running = self.outstanding(class).count() as u64;
            let share = quota::concurrency_max(&self.config, class, seats);
            let cap = self.cap(class);
            let is_full = cap.is_some_and(|max| running >= max.into());
            if is_full && cap < rule.requests_max {
                closed.push((class, Bound::Adaptive));
            } else if is_full || share.is_some_and(|max| running >= max) {
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
        let capped = is_capped(Bound::ClassRequests) || is_capped(Bound::Adaptive);
        let lane = self.is_heavy(held) && self.heavy_lane_is_full();
        quota && !lane && self.fits_cap(held) && !capped
    }

    fn note_stops(&mut self, closed: &[(ClassId, Bound)], stopped: Option<Bound>) {
        self.stops.clear();
        let heavy_lane_is_full = self.heavy_lane_is_full();
        for class in (0..self.config.classes.len() as u16).map(ClassId) {
            for heavy in [false, true] {
                let own = |kind| closed.contains(&(class, kind)).then_some(kind);
                let lane = (heavy && heavy_lane_is_full).then_some(Bound::HeavyLane);
                let requests = own(Bound::Adaptive).or(own(Bound::ClassRequests));
                let cap = requests.or(lane).or(own(Bound::ClassTokens));
                let aside = self.aside.iter().find(|(other, _)| *other == class);
                if let Some(bound) = cap.or(aside.map(|(_, bound)| *bound)).or(stopped) {
                    self.stops.insert((class, heavy), bound);
                }
            }
        }
        self.evict();
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
                (self.pick_by_counter(open), Reason::VirtualCounter)
            }
            Share::StartTimeFair { .. } => (self.pick_by_counter(open), Reason::StartTime),
            Share::Stride { .. } => (self.pick_by_counter(open), Reason::Stride),
            Share::DominantResource { .. } => (self.pick_by_counter(open), Reason::DominantShare),
            Share::DeficitLongestPrefix { quantum, .. } => {
                return (self.pick_by_prefix(open, quantum.into()), Reason::DeficitPrefix);
            }
            Share::DeficitRoundRobin { quantum, .. } => {
                (self.pick_by_deficit(open, quantum.into()), Reason::Deficit)
            }
        };
        (self.head(open, flow).expect("the flow has work"), reason)
    }

    fn pick_by_counter(&mut self, open: &[usize]) -> usize {
        let key = |&at: &usize| (self.counter(self.held[at].flow), self.held[at].flow);
        let (least, flow) = open.iter().map(key).min().unwrap();
        if self.keeps_time() {
            self.time = self.time.max(least);
        }
        flow
    }

    fn pick_by_prefix(&mut self, open: &[usize], quantum: i128) -> usize {
        loop {
            let deficit = |flow: usize| self.deficits.get(&flow).copied().unwrap_or(0);
            let ready = open.iter().copied().filter(|&at| deficit(self.held[at].flow) > 0);
            let key =
                |&at: &usize| (std::cmp::Reverse(self.held[at].matched), self.place_in_order(at));
            if let Some(at) = ready.min_by_key(key) {
                return at;
            }
            let mut flows: Vec<usize> = self.waiting().map(|h| h.flow).collect();
            flows.sort_unstable();
            flows.dedup();
            for flow in flows {
                let grant = quantum * self.weight(flow);
                let deficit = self.deficits.entry(flow).or_default();
                if *deficit <= 0 {
                    *deficit += grant;
                }
            }
        }
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

    fn place_in_order(&self, at: usize) -> ((i32, i128), u64) {
        let held = &self.held[at];
        let arrived = i128::from(held.arrived.nanos());
        let class = &self.config.classes[held.class.index()];
        let key = match self.config.order {
            Order::Fcfs => (0, arrived),
            Order::Aging => (0, arrived - i128::from(class.boost.nanos())),
            Order::EarliestDeadline => match class.deadline {
                Some(_) if held.late => (1, arrived),
                Some(deadline) => (0, arrived + i128::from(deadline.nanos())),
                None => (2, arrived),
            },
            Order::ShortestPredicted { aging: None } => (0, held.tokens().into()),
            Order::ShortestPredicted { aging: Some(aging) } => {
                (0, arrived + i128::from(aging.nanos()) * i128::from(held.tokens()))
            }
            Order::LeastAttained { .. } => (0, held.attained.into()),
            Order::LongestPrefix { token } => {
                let matched = held.matched.min(held.info.prompt_tokens);
                (0, arrived - i128::from(token.nanos()) * i128::from(matched))
            }
        };
        (key, held.sequence)
    }

    fn head(&self, open: &[usize], flow: usize) -> Option<usize> {
        let of_flow = open.iter().copied().filter(|&at| self.held[at].flow == flow);
        of_flow.min_by_key(|&at| self.place_in_order(at))
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
        self.dispatches += 1;
        self.held[at].went = self.dispatches;
        self.adapted.dispatched(held.id, backend, self.load(backend).0);
        let queued = self.waiting().filter(|h| h.class == held.class).count();
        self.memory.dispatched(self.now, held.class, queued);
        self.charge(held.flow, self.expected(&held));
        self.account(held.info.workflow, held.info.prompt_tokens, held.predicted);
        self.dispatched_last = Some(held.flow);
        self.unbacklog(held.flow);
        self.rest_if_idle(held.class);
        self.went(&held, backend);
    }

    fn close(&mut self, at: usize, action: Action, reason: Reason, fresh: u64) {
        let held = self.held[at].clone();
        self.decide(&held, action, reason, fresh);
        self.held.remove(at);
        self.left(&held);
        self.changed = true;
        self.too_large.retain(|&c| c != held.class);
        self.unbacklog(held.flow);
        self.rest_if_idle(held.class);
    }

    fn decide(&mut self, held: &Held, action: Action, reason: Reason, fresh: u64) {
        let waited = held.sequence < fresh;
        let bound = waited.then(|| self.stops[&(held.class, self.is_heavy(held))]);
        let (id, class) = (held.id, Some(held.class));
        self.decisions.push(Decision { id, class, action, reason, bound });
    }

    /// What keeps a request from the backends that could take it.
    fn lacks(&self, held: &Held) -> Option<Bound> {
        let capable =
            |(_, info): &(&BackendId, &BackendInfo)| self.may(info, held) && fits_empty(info, held);
        let capable: Vec<_> = self.backends.iter().filter(capable).collect();
        if capable.iter().any(|(id, info)| self.has_room(**id, info, held)) {
            return None;
        }
        let seat = capable.iter().any(|(id, info)| self.has_seat(**id, info));
        if seat { Some(Bound::KvMemory) } else { self.why_no_seat(capable.into_iter()) }
    }

    /// One running sheddable request makes room for the most important who waited long enough.
    fn evict(&mut self) {
        let spans = self.config.feedback.iter().find_map(|rule| match *rule {
            Feedback::EvictSheddable { after, every } => Some((after, every)),
            _ => None,
        });
        let Some((after, every)) = spans else { return };
        if self.evicted.0.is_some() || self.now < self.evicted.1 {
            return;
        }
        let class = |h: &Held| &self.config.classes[h.class.index()];
        let mut askers: Vec<&Held> = Vec::new();
        for id in (0..self.config.classes.len() as u16).map(ClassId) {
            askers.extend(self.waiting().filter(|h| h.class == id).min_by_key(|h| h.sequence));
        }
        askers.retain(|h| {
            let lacks = matches!(self.lacks(h), Some(Bound::Seats | Bound::KvMemory));
            !class(h).sheddable && self.now >= h.arrived + after && self.may_go(h) && lacks
        });
        askers.sort_by_key(|h| (-class(h).priority, h.class));
        let victim = askers.iter().find_map(|asker| {
            let mut running: Vec<&Held> = self.held.iter().filter(|h| h.at.is_some()).collect();
            running.sort_by_key(|h| (class(h).priority, h.class, std::cmp::Reverse(h.went)));
            let mut seen = BTreeMap::new();
            running.retain(|h| {
                let looked_at: &mut usize = seen.entry(h.class).or_default();
                *looked_at += 1;
                *looked_at <= 16 && class(h).sheddable && class(h).priority <= class(asker).priority
            });
            let victim = running.into_iter().find(|h| {
                let id = h.at.expect("it runs");
                self.backends.get(&id).is_some_and(|info| {
                    let others = self.load(id).0 - 1;
                    let stop = self.adapted.stop(id, others, self.window(info));
                    fits_empty(info, asker) && self.may(info, asker) && stop.is_none()
                })
            });
            Some((victim?, self.lacks(asker).expect("it asks")))
        });
        let Some((victim, bound)) = victim else { return };
        let (id, class, bound) = (victim.id, Some(victim.class), Some(bound));
        let action = Action::Cancel(victim.at.expect("it runs"));
        self.decisions.push(Decision { id, class, action, reason: Reason::Evicted, bound });
        self.evicted = (Some(id), self.now + every);
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

fn worth(cost: TokenCost, prompt: u32, output: u32) -> u64 {
    u64::from(prompt) * u64::from(cost.prompt) + u64::from(output) * u64::from(cost.output)
}
