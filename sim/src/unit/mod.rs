//! A disaggregated unit: engines that compute prompts, engines that decode, and the link between.
//!
//! To whoever sends requests the unit is one backend, as a frontend with workers of both kinds is
//! (a proxy before vLLM, Dynamo). A request is computed where the fewest prompt tokens are
//! outstanding; when its prompt is computed, the engine that will decode it is chosen in the same
//! way. Its KV stays where it was computed until it has been moved. It waits, in order, for memory
//! for the whole prompt where it will decode, then for the link, which carries one transfer after
//! the other; while it waits it holds what it holds, so that a full decode side fills the prefill
//! side: no rule of the unit relieves that, as none does in those systems.
//!
//! The first token comes from the engine that decodes, as vLLM's does behind its proxy: the last
//! prompt token is computed again there. So the time to first token pays for the transfer.
//!
//! Like an engine the unit is a machine without a clock: [`Unit::submit`] and [`Unit::begin`] at an
//! instant, [`Unit::complete`] at the instant that `begin` announced. All it decides follows from
//! what happens at boundaries at which something ends, so stepping does not change it.

mod link;
mod member;

use std::collections::VecDeque;

use plimsoll_base::{BackendSample, ClassId, Span, Stage, Time};
use rustc_hash::FxHashMap;

use crate::engine::{Batch, Engine, Job, Listener, Note};
use crate::model::{EngineModel, Split};
use link::Link;
use member::{DecodeEar, Member, PrefillEar, least};

/// A request in the unit.
#[derive(Clone, Copy, Debug)]
struct Travel {
    job: Job,
    prefill: usize,
    decode: usize,
    at: Place,
    /// Whether it is to be dropped as soon as it can be.
    is_doomed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Where prompts are computed, or waiting there.
    Prefill,
    /// Between the engines.
    Between(Stage),
    /// Where it decodes.
    Decode,
}

/// A unit over batches of kind `B`.
#[derive(Debug)]
pub struct Unit<B> {
    prefills: Vec<Member<B>>,
    decodes: Vec<Member<B>>,
    /// By decoding engine: who waits for its memory.
    queues: Vec<VecDeque<u32>>,
    link: Link,
    travels: FxHashMap<u32, Travel>,
    /// Who is to be dropped between the engines, and when.
    doomed: VecDeque<(u32, Time)>,
    held: Held,
    /// What was announced last.
    announced: Option<Time>,
}

/// KV tokens that are held between the engines, integrated over time.
#[derive(Debug, Default)]
struct Held {
    tokens: u64,
    since: Time,
    token_nanos: u128,
}

impl Held {
    fn reach(&mut self, now: Time) {
        let span = now.saturating_since(self.since);
        self.token_nanos += u128::from(self.tokens) * u128::from(span.nanos());
        self.since = now;
    }
    fn hold(&mut self, now: Time, tokens: u32) {
        self.reach(now);
        self.tokens += u64::from(tokens);
    }
    fn release(&mut self, now: Time, tokens: u32) {
        self.reach(now);
        self.tokens -= u64::from(tokens);
    }
}

impl<B: Batch> Unit<B> {
    /// An idle unit, whose decoding engines are `engine`.
    pub fn new(engine: &EngineModel, split: &Split, classes: usize) -> Unit<B> {
        assert!(split.prefills > 0 && split.decodes > 0, "a unit has engines of both kinds");
        let block_tokens = split.engine.block_tokens;
        assert!(engine.block_tokens == block_tokens, "blocks are as large on both sides");
        let members = |count: u32, model: &EngineModel| {
            (0..count).map(|_| Member::new(Engine::new(model, classes))).collect()
        };
        Unit {
            prefills: members(split.prefills, &split.engine),
            decodes: members(split.decodes, engine),
            queues: vec![VecDeque::new(); split.decodes as usize],
            link: Link::new(split.link),
            travels: FxHashMap::default(),
            doomed: VecDeque::new(),
            held: Held::default(),
            announced: None,
        }
    }

    /// Which unit of which run this is: where steps are drawn, each engine has its own stream.
    pub fn draw_noise(&mut self, drawn: (u64, u32), unit: u64) {
        for (index, member) in (1..).zip(self.prefills.iter_mut().chain(&mut self.decodes)) {
            member.engine.draw_noise(drawn, index << 32 | unit);
        }
    }

    /// Takes in a request.
    pub fn submit(&mut self, job: Job) {
        let prefill = least(&self.prefills);
        let member = &mut self.prefills[prefill];
        member.engine.submit(Job { output_tokens: 1, ..job });
        member.outstanding += u64::from(job.prompt_tokens);
        member.dirty = true;
        let travel = Travel { job, prefill, decode: 0, at: Place::Prefill, is_doomed: false };
        self.travels.insert(job.key, travel);
    }

    /// Cuts off the request with this key as soon as it can be after `now`: in an engine at its
    /// next boundary, on the link when it has arrived. Unless it has delivered everything by then,
    /// a [`Note::Cancelled`] follows.
    pub fn cancel(&mut self, key: u32, now: Time) {
        let Some(travel) = self.travels.get_mut(&key) else { return };
        travel.is_doomed = true;
        let engine = match travel.at {
            Place::Prefill => &mut self.prefills[travel.prefill],
            Place::Decode | Place::Between(Stage::AwaitsSeat) => &mut self.decodes[travel.decode],
            Place::Between(Stage::AwaitsMemory | Stage::AwaitsLink | Stage::Moves) => {
                self.doomed.push_back((key, now + Span::from_nanos(1)));
                return;
            }
        };
        engine.engine.cancel(key, now);
        engine.dirty = true;
    }

    /// Starts what there is to do at `now`, after everything else of this instant has happened.
    /// Returns when [`complete`](Unit::complete) is due if that is new or has changed.
    pub fn begin(&mut self, now: Time, ear: &mut impl Listener) -> Option<Time> {
        let mut unheard = (Vec::new(), Vec::new());
        for member in &mut self.prefills {
            let (computed, cancelled) = (&mut unheard.0, &mut unheard.1);
            member.begin(now, &mut PrefillEar { ear, computed, cancelled });
        }
        assert!(unheard.0.is_empty() && unheard.1.is_empty(), "nothing ends where steps begin");
        for place in 0..self.decodes.len() {
            self.begin_decode(place, now, ear);
        }
        // Boundaries of this instant come first: they may give memory back.
        if self.next() != Some(now) {
            self.reserve(now, ear);
            if let Some(key) = self.link.start(now) {
                self.hand(key, Stage::Moves, ear);
            }
        }
        let next = self.next();
        if next == self.announced {
            return None;
        }
        self.announced = next;
        next
    }

    fn begin_decode(&mut self, place: usize, now: Time, ear: &mut impl Listener) {
        let (mut started, mut ended) = (Vec::new(), Vec::new());
        let mut ear = DecodeEar { ear, started: &mut started, ended: &mut ended };
        self.decodes[place].begin(now, &mut ear);
        for key in started {
            let travel = self.travels.get_mut(&key).expect("who decodes is in the unit");
            if travel.at == Place::Between(Stage::AwaitsSeat) {
                travel.at = Place::Decode;
                self.held.release(now, travel.job.prompt_tokens);
            }
        }
    }

    /// Takes memory for those who wait for it, each engine in order.
    fn reserve(&mut self, now: Time, ear: &mut impl Listener) {
        for place in 0..self.decodes.len() {
            while let Some(&key) = self.queues[place].front() {
                let tokens = self.travels[&key].job.prompt_tokens;
                let member = &mut self.decodes[place];
                if !member.engine.reserve(tokens, now, ear) {
                    break;
                }
                member.dirty = true;
                self.queues[place].pop_front();
                self.held.hold(now, tokens);
                self.link.ask(key, tokens);
                self.hand(key, Stage::AwaitsLink, ear);
            }
            // Steps that counted on the memory are cut.
            self.begin_decode(place, now, ear);
        }
    }

    /// A request has come one step further.
    fn hand(&mut self, key: u32, stage: Stage, ear: &mut impl Listener) {
        let travel = self.travels.get_mut(&key).expect("who is handed on is in the unit");
        travel.at = Place::Between(stage);
        ear.hear(Note::Handed { key, stage });
    }

    /// When something happens next.
    fn next(&self) -> Option<Time> {
        let engines = self.prefills.iter().chain(&self.decodes).filter_map(|member| member.due);
        let doomed = self.doomed.front().map(|&(_, at)| at);
        engines.chain(self.link.next()).chain(doomed).min()
    }

    /// Whether `now` is the instant that was announced last.
    pub fn is_due(&self, now: Time) -> bool {
        self.announced == Some(now)
    }

    /// The instant that `begin` announced has come.
    pub fn complete(&mut self, now: Time, ear: &mut impl Listener) {
        self.announced = None;
        for place in 0..self.prefills.len() {
            self.complete_prefill(place, now, ear);
        }
        for place in 0..self.decodes.len() {
            let (mut started, mut ended) = (Vec::new(), Vec::new());
            let mut ear = DecodeEar { ear, started: &mut started, ended: &mut ended };
            self.decodes[place].complete(now, &mut ear);
            for key in ended {
                let travel = self.travels.remove(&key).expect("who ends is in the unit");
                self.leave_decode(&travel, now);
            }
        }
        while let Some(key) = self.link.land(now) {
            self.land(key, now, ear);
        }
        while let Some((key, _)) = self.doomed.front().copied().filter(|(_, at)| *at <= now) {
            self.doomed.pop_front();
            self.drop_doomed(key, now, ear);
        }
    }

    fn complete_prefill(&mut self, place: usize, now: Time, ear: &mut impl Listener) {
        let (mut computed, mut cancelled) = (Vec::new(), Vec::new());
        let member = &mut self.prefills[place];
        let mut hearing = PrefillEar { ear, computed: &mut computed, cancelled: &mut cancelled };
        member.complete(now, &mut hearing);
        for key in cancelled {
            let travel = self.travels.remove(&key).expect("who is cut off is in the unit");
            member.outstanding -= u64::from(travel.job.prompt_tokens);
        }
        for key in computed {
            let tokens = self.travels[&key].job.prompt_tokens;
            let member = &mut self.prefills[place];
            member.outstanding -= u64::from(tokens);
            member.engine.keep(tokens);
            self.held.hold(now, tokens);
            let decode = least(&self.decodes);
            self.decodes[decode].outstanding += u64::from(tokens);
            self.queues[decode].push_back(key);
            self.hand(key, Stage::AwaitsMemory, ear);
            let travel = self.travels.get_mut(&key).expect("it was handed on");
            travel.decode = decode;
            if travel.is_doomed {
                self.doomed.push_back((key, now));
            }
        }
    }

    /// The KV of a request has come: it is free where the prompt was computed.
    fn land(&mut self, key: u32, now: Time, ear: &mut impl Listener) {
        self.leave_prefill(key, now);
        let travel = self.travels[&key];
        self.hand(key, Stage::AwaitsSeat, ear);
        let member = &mut self.decodes[travel.decode];
        member.engine.receive(travel.job);
        member.dirty = true;
        if travel.is_doomed {
            // As if it were said now: it has just come.
            member.engine.cancel(key, now);
        }
    }

    /// Gives back what a request holds where its prompt was computed.
    fn leave_prefill(&mut self, key: u32, now: Time) {
        let Travel { job, prefill, .. } = self.travels[&key];
        let member = &mut self.prefills[prefill];
        member.engine.give_back(job.prompt_tokens);
        member.dirty = true;
        self.held.release(now, job.prompt_tokens);
    }

    fn leave_decode(&mut self, travel: &Travel, now: Time) {
        self.decodes[travel.decode].outstanding -= u64::from(travel.job.prompt_tokens);
        if travel.at == Place::Between(Stage::AwaitsSeat) {
            self.held.release(now, travel.job.prompt_tokens);
        }
    }

    /// Drops a request that waits between the engines; what moves is dropped when it has come, and
    /// what has come by its engine.
    fn drop_doomed(&mut self, key: u32, now: Time, ear: &mut impl Listener) {
        let Some(&travel) = self.travels.get(&key) else { return };
        let tokens = travel.job.prompt_tokens;
        let member = &mut self.decodes[travel.decode];
        match travel.at {
            Place::Between(Stage::AwaitsMemory) => {
                self.queues[travel.decode].retain(|&waiting| waiting != key);
            }
            Place::Between(Stage::AwaitsLink) => {
                self.link.forget(key);
                member.engine.give_back(tokens);
                member.dirty = true;
                self.held.release(now, tokens);
            }
            Place::Between(Stage::Moves | Stage::AwaitsSeat) | Place::Prefill | Place::Decode => {
                return;
            }
        }
        self.leave_prefill(key, now);
        self.leave_decode(&travel, now);
        self.travels.remove(&key);
        let (delivered, gap_max) = (0, Span::ZERO);
        ear.hear(Note::Cancelled { key, lost_tokens: tokens, delivered, gap_max });
    }

    /// Brings the counters up to the last boundary of each engine that is not later than `now`.
    /// Changes nothing that the unit will do.
    pub fn settle(&mut self, now: Time, ear: &mut impl Listener) {
        for member in self.prefills.iter_mut().chain(&mut self.decodes) {
            member.engine.settle(now, ear);
        }
        self.held.reach(now);
    }

    /// How long a request takes from its arrival to its last token if the unit does nothing else.
    pub fn alone(&self, prompt_tokens: u32, output_tokens: u32) -> Span {
        let computed = self.prefills[0].engine.alone(prompt_tokens, 1);
        let moved = self.link.model.taken(prompt_tokens) + self.link.model.latency;
        computed + moved + self.decodes[0].engine.resumed(prompt_tokens, output_tokens)
    }

    /// Counters and gauges as of the last `settle` or boundary, over all engines; the time spent
    /// computing is their mean. A token that was computed on the prefill side is no output.
    pub fn sample(&self) -> BackendSample {
        let mut all = BackendSample::default();
        for (members, delivers) in [(&self.prefills, 0), (&self.decodes, 1)] {
            for member in members {
                add(&mut all, &member.engine.sample(), delivers);
            }
        }
        all.busy = Span::from_nanos(all.busy.nanos() / self.engines());
        all.kv_token_millis += u64::try_from(self.held.token_nanos / 1_000_000)
            .expect("token-milliseconds fit 64 bits");
        let waits = |travel: &&Travel| {
            matches!(travel.at, Place::Between(Stage::AwaitsMemory | Stage::AwaitsLink))
        };
        all.waiting += self.travels.values().filter(waits).count() as u32;
        all
    }

    fn engines(&self) -> u64 {
        (self.prefills.len() + self.decodes.len()) as u64
    }

    /// Engine time used by a class, in ticks: the mean over the engines.
    pub fn class_busy(&self, class: ClassId) -> u128 {
        let members = self.prefills.iter().chain(&self.decodes);
        let all: u128 = members.map(|member| member.engine.class_busy(class)).sum();
        all / u128::from(self.engines())
    }

    /// Keys and classes of the requests that wait, in no stated order.
    pub fn waiting(&self) -> impl Iterator<Item = (u32, ClassId)> {
        let members = self.prefills.iter().chain(&self.decodes);
        let inside = members.flat_map(|member| member.engine.waiting());
        let between = self.travels.values().filter(|travel| {
            matches!(travel.at, Place::Between(Stage::AwaitsMemory | Stage::AwaitsLink))
        });
        let between = between.map(|travel| (travel.job.key, travel.job.class));
        inside.map(|sequence| (sequence.key, sequence.class)).chain(between)
    }

    /// Adds the number of sequences in the batches to a table indexed by class.
    pub fn count_running(&self, by_class: &mut [u32]) {
        for member in self.prefills.iter().chain(&self.decodes) {
            member.engine.count_running(by_class);
        }
    }
}

fn add(all: &mut BackendSample, one: &BackendSample, delivers: u64) {
    all.busy += one.busy;
    all.steps += one.steps;
    all.prefill_tokens += one.prefill_tokens;
    all.output_tokens += one.output_tokens * delivers;
    all.recomputed_tokens += one.recomputed_tokens;
    all.preemptions += one.preemptions;
    all.kv_token_millis += one.kv_token_millis;
    all.running += one.running;
    all.waiting += one.waiting;
    all.kv_blocks_used += one.kv_blocks_used;
    all.kv_blocks += one.kv_blocks;
    all.seats += one.seats;
}
