//! Virtual token counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024).
//!
//! Each flow has a counter of the service it was charged, divided by its weight; the flow with
//! work and the least counter is next, ties by flow. A flow that gets work after having none is
//! lifted to the least counter of those with work (to the flow dispatched last if there is none),
//! so that idleness saves nothing up.
//!
//! **Bound.** The paper charges tokens as they are computed and proves, for two flows that both
//! have work, a service gap of at most `2 · max(w_p · L_input, w_q · M)` (`w` prices of a prompt
//! and an output token, `L_input` the longest prompt, `M` the tokens a batch holds). Here a
//! request is charged at dispatch as predicted and settled at its end, so that a burst cannot run
//! up service before it is booked: the gap in booked service is at most `2 · (C + E)`, `C` the
//! cost of the largest request and `E` the largest total error of prediction of the requests of
//! the two flows in flight, all divided by the flow's weight. With true predictions it is
//! `2 · C`, and one-sided `C`.
//!
//! A flow whose classes are all at their caps is passed over and keeps its counter. A counter is
//! an integer: one cost unit at weight 1 is 2³⁶, and a weight is applied as the rounded
//! reciprocal 2³⁶/weight, so that charge and settlement add up exactly.

use plimsoll_base::{ClassId, TenantId};

use super::cost_of;
use super::flows::Flows;
use super::heap::{FLOW_BITS, Heap, flow_of};
use crate::book::Turned;
use crate::class_set::ClassSet;
use crate::config::{Class, Per, TokenCost};

/// Counter units of one cost unit at weight 1.
const SCALE: i128 = 1 << 36;

/// The state of the rule.
#[derive(Debug)]
pub(crate) struct Counters {
    flows: Flows,
    cost: TokenCost,
    states: Vec<State>,
    /// Indexed by class: the flows with a request of the class waiting. Picking among the classes
    /// that may be served is then O(classes), however many flows step aside.
    waiting: Vec<Heap>,
    dispatched_last: Option<u32>,
}

#[derive(Debug)]
struct State {
    /// The counter above the flow's number, as [`Heap`] orders it.
    key: i128,
    /// What one cost unit adds to the key.
    rate: i128,
}

impl State {
    fn new(flow: usize, weight: u32) -> State {
        let weight = i128::from(weight);
        State { key: flow as i128, rate: ((SCALE + weight / 2) / weight) << FLOW_BITS }
    }
}

impl Counters {
    pub fn new(per: Per, cost: TokenCost, classes: &[Class]) -> Counters {
        let states = match per {
            Per::Class => {
                let weights = classes.iter().map(|class| class.weight);
                weights.enumerate().map(|(flow, weight)| State::new(flow, weight)).collect()
            }
            Per::Tenant => Vec::new(),
        };
        Counters {
            flows: Flows::new(per, classes.len()),
            cost,
            states,
            waiting: classes.iter().map(|_| Heap::default()).collect(),
            dispatched_last: None,
        }
    }

    pub fn flow(&mut self, class: ClassId, tenant: TenantId) -> Option<u32> {
        let flow = self.flows.find(class, tenant)?;
        while self.states.len() < self.flows.count() {
            self.states.push(State::new(self.states.len(), 1));
        }
        Some(flow)
    }

    pub fn enqueued(&mut self, flow: u32, class: ClassId, turned: Turned) {
        if turned.flow {
            let least = self.waiting.iter().filter_map(Heap::least).min();
            let last = self.dispatched_last.map(|last| self.states[last as usize].key);
            let key = &mut self.states[flow as usize].key;
            if let Some(floor) = least.or(last) {
                *key = (*key).max(floor - i128::from(flow_of(floor)) + i128::from(flow));
            }
        }
        if turned.lane {
            self.waiting[class.index()].push(self.states[flow as usize].key);
        }
    }

    pub fn unqueued(&mut self, flow: u32, class: ClassId, turned: Turned) {
        if turned.lane {
            self.waiting[class.index()].remove(flow);
        }
    }

    pub fn pick(&self, waiting: ClassSet) -> u32 {
        let least = waiting.filter_map(|class| self.waiting[class.index()].least()).min();
        flow_of(least.expect("a class with work has a flow in its heap"))
    }

    pub fn charge(&mut self, flow: u32, prompt_tokens: u32, output_predicted: u32) {
        self.dispatched_last = Some(flow);
        self.add(flow, cost_of(self.cost, prompt_tokens, output_predicted));
    }

    pub fn settle(&mut self, flow: u32, charged: (u32, u32), used: (u32, u32)) {
        let difference =
            cost_of(self.cost, used.0, used.1) - cost_of(self.cost, charged.0, charged.1);
        if difference != 0 {
            self.add(flow, difference);
        }
    }

    fn add(&mut self, flow: u32, cost: i128) {
        let state = &mut self.states[flow as usize];
        let key = state.key.checked_add(cost * state.rate);
        state.key = key.expect("a counter holds 2¹⁷ requests of the largest cost there is");
        for heap in &mut self.waiting {
            heap.change(state.key);
        }
    }
}
