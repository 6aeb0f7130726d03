//! Deficit longest prefix match (Cao et al., "Locality-aware Fair Scheduling in LLM Serving",
//! 2025): the cache is used as well as fairness allows.
//!
//! Longest-prefix-first uses the cache best and starves whoever shares no prefix; a fair rule that
//! is blind to prefixes throws the cache away. This rule gives each flow a deficit, as deficit
//! round robin does, and lets locality decide among all flows whose deficit is positive: of their
//! requests the one with the longest cached prefix goes first (ties by the policy's order, then by
//! arrival). A dispatch is charged to its flow, which may go into debt. When no flow that may be
//! served has credit, each flow with work and without credit is granted `quantum · weight`, again
//! until one has. A flow that runs empty loses what it had saved, but not what it owes.
//!
//! **What is charged** is what the flow makes a backend compute: prompt tokens that are not cached
//! and output tokens. A cached token costs a flow nothing, because it costs the others nothing
//! (the paper's extend tokens); so a flow with a good prefix gets more answers for the same
//! share. At dispatch the longest match known on arrival is taken off the prompt and the output is
//! as predicted; at the end both are corrected by what was computed, so a match that was evicted
//! meanwhile is paid for. Matches are hints of the driver; without any the rule is deficit round
//! robin with all flows served in order of arrival while they have credit.
//!
//! **Bound.** While flows f and g both have work, their service S (in cost units of computed
//! tokens) differs by at most
//! `|S_f/w_f − S_g/w_g| ≤ 2 · quantum + max_f/w_f + max_g/w_g + 2 · (E_f/w_f + E_g/w_g)`,
//! max the largest charge of a request and E the greatest sum of errors of prediction of the
//! flow's requests in flight. *Proof.* All flows without credit are granted the same rounds R, and
//! a grant is given only when all are without: `S_f = R · quantum · w_f + d_f(before) − d_f(now)`.
//! A deficit d is at most `quantum · w_f` after a grant and falls by what is dispatched from then
//! on; it is above `−max_f` after a dispatch, for that needs credit; settlements move it by E_f
//! at most either way. So d_f/w_f stays within `quantum + max_f/w_f + 2 · E_f/w_f`, and two such
//! ranges add up. The paper's bound `2 · (U + Q)` is the same with true predictions.
//!
//! **How it fails.** Within a flow the longest match goes first too, so a flow's own cold request
//! may wait as long as warm ones keep coming: `wait_max` and the guard bound that. A small quantum
//! leaves locality little to choose from; a large one makes others wait for as long as it lasts.
//! The match is that of arrival: what is cached later is not seen.
//!
//! **Cost.** Requests of a (flow, class) stand in a heap by match, flows with credit in a heap a
//! class by their best request, flows without in one by the round in which they get credit. So a
//! round is one number that goes up, and nobody is visited in vain.

use plimsoll_base::ClassId;

use super::flows::FLOW_BITS;
use super::price::cost_of;
use super::weights;
use crate::book::{Entry, Turned};
use crate::class_set::ClassSet;
use crate::config::{Config, Per, TokenCost};
use crate::heap::{Heap, Heaps, Key};

/// The state of the rule.
#[derive(Debug)]
pub(crate) struct Prefixes {
    cost: TokenCost,
    /// What a round grants a flow of weight 1.
    quantum: i128,
    classes: usize,
    states: Vec<State>,
    /// Indexed by flow · classes + class: the requests that wait there.
    lanes: Heaps<Match>,
    /// Indexed by class: the flows with credit that have something of it waiting.
    with_credit: Vec<Heap<Best>>,
    /// Flows with work and without credit: the round that gives them credit, above their number.
    without: Heap<i128>,
    /// Rounds granted so far.
    round: i128,
}

#[derive(Debug)]
struct State {
    /// Cost units it may use now; negative is debt. Of a flow without credit that has work,
    /// what it would have been at round 0.
    deficit: i128,
    /// What a round grants it: quantum · weight.
    grant: i128,
    /// Its classes with something waiting.
    waiting: ClassSet,
    has_credit: bool,
}

/// The order of requests: most cached tokens, then the policy's order, then arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Match {
    /// The greatest number less the tokens cached.
    missing: u32,
    key: u64,
    sequence: u64,
    slot: u32,
}

impl Key for Match {
    fn member(self) -> u32 {
        self.slot
    }
}

/// A flow by its best request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Best {
    request: Match,
    flow: u32,
}

impl Key for Best {
    fn member(self) -> u32 {
        self.flow
    }
}

impl State {
    fn new(grant: i128) -> State {
        State { deficit: 0, grant, waiting: ClassSet::EMPTY, has_credit: false }
    }
}

impl Prefixes {
    pub fn new(config: &Config, per: Per, quantum: u64, cost: TokenCost) -> Prefixes {
        let quantum = i128::from(quantum);
        let grants = weights(per, &config.classes).into_iter();
        let states: Vec<State> = grants.map(|w| State::new(quantum * i128::from(w))).collect();
        let classes = config.classes.len();
        let mut lanes = Heaps::EMPTY;
        lanes.grow(states.len() * classes);
        Prefixes {
            cost,
            quantum,
            classes,
            lanes,
            states,
            with_credit: (0..classes).map(|_| Heap::EMPTY).collect(),
            without: Heap::EMPTY,
            round: 0,
        }
    }

    /// Whether a stranger would be treated no better and no worse than the idle flow.
    pub fn is_settled(&self, flow: u32) -> bool {
        self.states[flow as usize].deficit == 0
    }

    pub fn open(&mut self, flow: u32) {
        if self.states.len() <= flow as usize {
            self.states.push(State::new(self.quantum));
            self.lanes.grow(self.states.len() * self.classes);
        }
        self.states[flow as usize].deficit = 0;
    }

    pub fn enqueued(&mut self, slot: u32, entry: &Entry, turned: Turned) {
        let Entry { flow, queue: class, key, sequence, .. } = *entry;
        let missing = u32::MAX - entry.matched.tokens;
        self.lanes.push(self.lane(flow, class), Match { missing, key, sequence, slot });
        self.states[flow as usize].waiting.insert(class);
        if turned.flow {
            let deficit = self.states[flow as usize].deficit;
            self.wait_for_credit(flow, deficit);
        } else if self.states[flow as usize].has_credit {
            self.rank(flow, class, turned.lane);
        }
    }

    pub fn unqueued(&mut self, slot: u32, entry: &Entry, turned: Turned) {
        let Entry { flow, queue: class, .. } = *entry;
        self.lanes.remove(self.lane(flow, class), slot);
        let has_credit = self.states[flow as usize].has_credit;
        if has_credit && turned.lane {
            self.with_credit[class.index()].remove(flow);
        } else if has_credit {
            self.rank(flow, class, false);
        }
        if turned.flow {
            if !has_credit {
                self.without.remove(flow);
            }
            let deficit = self.deficit(flow).min(0);
            let state = &mut self.states[flow as usize];
            (state.deficit, state.has_credit) = (deficit, false);
        }
        if turned.lane {
            self.states[flow as usize].waiting.remove(class);
        }
    }

    /// The request that goes next, of those of an `open` class, of which there is one. Grants as
    /// many rounds as it takes until a flow that may be served has credit.
    pub fn pick(&mut self, open: ClassSet) -> (u32, u32) {
        loop {
            let heaps = open.filter_map(|class| self.with_credit.get(class.index()));
            if let Some(best) = heaps.filter_map(Heap::least).min() {
                return (best.flow, best.request.slot);
            }
            self.grant_rounds();
        }
    }

    pub fn charge(&mut self, entry: &Entry) {
        self.spend(entry.flow, self.expected_cost(entry));
    }

    pub fn settle(&mut self, entry: &Entry, used: (u32, u32)) {
        let difference = cost_of(self.cost, used.0, used.1) - self.expected_cost(entry);
        self.spend(entry.flow, difference);
    }

    fn lane(&self, flow: u32, class: ClassId) -> usize {
        flow as usize * self.classes + class.index()
    }

    /// What it is expected to make a backend compute.
    fn expected_cost(&self, entry: &Entry) -> i64 {
        let uncached = entry.info.prompt_tokens.saturating_sub(entry.matched.tokens);
        cost_of(self.cost, uncached, entry.output_predicted)
    }

    fn spend(&mut self, flow: u32, cost: i64) {
        let deficit = self.deficit(flow) - i128::from(cost);
        let State { waiting, has_credit, .. } = self.states[flow as usize];
        if waiting.is_empty() {
            self.states[flow as usize].deficit = deficit.min(0);
        } else if has_credit && deficit > 0 {
            self.states[flow as usize].deficit = deficit;
        } else if has_credit {
            waiting.for_each(|class| self.with_credit[class.index()].remove(flow));
            self.wait_for_credit(flow, deficit);
        } else {
            self.without.remove(flow);
            match deficit > 0 {
                true => self.give_credit(flow, deficit),
                false => self.wait_for_credit(flow, deficit),
            }
        }
    }

    fn deficit(&self, flow: u32) -> i128 {
        let State { deficit, grant, waiting, has_credit } = self.states[flow as usize];
        let is_without = !waiting.is_empty() && !has_credit;
        if is_without { deficit + self.round * grant } else { deficit }
    }

    /// The flow has work and a deficit of 0 or less.
    fn wait_for_credit(&mut self, flow: u32, deficit: i128) {
        let round = self.round;
        let state = &mut self.states[flow as usize];
        state.has_credit = false;
        state.deficit = deficit - round * state.grant;
        let rounds = -deficit / state.grant + 1;
        self.without.push((round + rounds) << FLOW_BITS | i128::from(flow));
    }

    /// The flow has work and a positive deficit.
    fn give_credit(&mut self, flow: u32, deficit: i128) {
        let state = &mut self.states[flow as usize];
        (state.deficit, state.has_credit) = (deficit, true);
        state.waiting.for_each(|class| self.rank(flow, class, true));
    }

    /// The best request of the flow in the class is another, or the first.
    fn rank(&mut self, flow: u32, class: ClassId, is_first: bool) {
        let request = self.lanes.least(self.lane(flow, class)).expect("some wait in the class");
        let best = Best { request, flow };
        match is_first {
            true => self.with_credit[class.index()].push(best),
            false => self.with_credit[class.index()].change(best),
        }
    }

    /// Goes on to the next round that gives somebody credit.
    fn grant_rounds(&mut self) {
        let next = self.without.least().expect("a flow has credit or waits for it");
        let round = next >> FLOW_BITS;
        while let Some(key) = self.without.least()
            && key >> FLOW_BITS == round
        {
            let flow = key.member();
            let State { deficit, grant, .. } = self.states[flow as usize];
            self.without.remove(flow);
            self.give_credit(flow, deficit + round * grant);
        }
        self.round = round;
    }
}
