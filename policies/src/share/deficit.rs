//! Deficit round robin on token cost (Shreedhar and Varghese, SIGCOMM 1995).
//!
//! Flows with work stand in a ring. Each visit grants `quantum · weight` cost units; the flow is
//! served while its next request costs no more than its deficit, then the rest is carried to its
//! next visit. A flow that runs empty loses what it had saved, but not what it owes.
//!
//! **Bound.** While flows f and g both have work, their service S in cost units differs by at most
//! `|S_f/w_f − S_g/w_g| ≤ quantum + max_f/w_f + max_g/w_g`, where max is the flow's largest
//! request. Service is charged at dispatch as predicted and settled at the end; what is in flight
//! adds its error of prediction, at most twice: `+ 2 · (E_f/w_f + E_g/w_g)`.
//!
//! A flow whose classes are all at their caps keeps its place in the ring and gets no grant: it
//! neither saves up a burst nor loses its turn.

use super::price::cost_of;
use super::weights;
use crate::book::{Book, Turned};
use crate::class_set::ClassSet;
use crate::config::{Config, Per, TokenCost};
use crate::list::{Linked, Links, List};

/// The state of the rule.
#[derive(Debug)]
pub(crate) struct Deficits {
    cost: TokenCost,
    /// What a visit grants a flow of weight 1.
    quantum: i128,
    states: Vec<State>,
    ring: List,
}

#[derive(Debug)]
struct State {
    /// Cost units it may use now; negative is debt.
    deficit: i128,
    /// What a visit grants it: quantum · weight.
    grant: i128,
    /// Whether it is being visited and has had its grant.
    is_visited: bool,
    /// Whether it stands in the ring.
    has_work: bool,
    ring: Links,
}

struct Ring<'a>(&'a mut [State]);

impl Linked for Ring<'_> {
    fn links(&self, flow: u32) -> &Links {
        &self.0[flow as usize].ring
    }
    fn links_mut(&mut self, flow: u32) -> &mut Links {
        &mut self.0[flow as usize].ring
    }
}

impl Deficits {
    pub fn new(config: &Config, per: Per, quantum: u64, cost: TokenCost) -> Deficits {
        let quantum = i128::from(quantum);
        let grants = weights(per, &config.classes).into_iter();
        let states = grants.map(|weight| State::new(quantum * i128::from(weight))).collect();
        Deficits { cost, quantum, states, ring: List::EMPTY }
    }

    /// Whether a stranger would be treated no better and no worse than the idle flow.
    pub fn is_settled(&self, flow: u32) -> bool {
        self.states[flow as usize].deficit == 0
    }

    pub fn open(&mut self, flow: u32) {
        if self.states.len() <= flow as usize {
            self.states.push(State::new(self.quantum));
        }
        self.states[flow as usize].deficit = 0;
    }

    pub fn enqueued(&mut self, flow: u32, turned: Turned) {
        if turned.flow {
            self.ring.push(&mut Ring(&mut self.states), flow);
            self.states[flow as usize].has_work = true;
        }
    }

    pub fn unqueued(&mut self, flow: u32, turned: Turned) {
        if turned.flow {
            self.ring.remove(&mut Ring(&mut self.states), flow);
            let state = &mut self.states[flow as usize];
            state.has_work = false;
            state.is_visited = false;
            state.deficit = state.deficit.min(0);
        }
    }

    /// Visits flows in ring order until one can pay for its next request. O(1) when the quantum
    /// covers a typical request and no flow steps aside; O(flows with work) otherwise. The flow and
    /// the request that goes first in it.
    pub fn pick(&mut self, book: &Book, open: ClassSet) -> (u32, u32) {
        let mut first_turned = None;
        let mut at = self.ring.head();
        loop {
            let Some(flow) = at else {
                at = self.ring.head();
                continue;
            };
            let next = self.ring.next(&Ring(&mut self.states), flow);
            if let Some(head) = book.head(flow, open) {
                if self.visit(flow, self.cost_of(book, head)) {
                    return (flow, head);
                }
                self.ring.remove(&mut Ring(&mut self.states), flow);
                self.ring.push(&mut Ring(&mut self.states), flow);
                match first_turned {
                    None => first_turned = Some(flow),
                    Some(first) if first == flow => {
                        self.skip_rounds(book, open);
                        first_turned = None;
                    }
                    Some(_) => {}
                }
            }
            at = next;
        }
    }

    pub fn charge(&mut self, flow: u32, prompt_tokens: u32, output_predicted: u32) {
        self.states[flow as usize].deficit -=
            i128::from(cost_of(self.cost, prompt_tokens, output_predicted));
    }

    pub fn settle(&mut self, flow: u32, charged: (u32, u32), used: (u32, u32)) {
        let (charged, used) =
            (cost_of(self.cost, charged.0, charged.1), cost_of(self.cost, used.0, used.1));
        let state = &mut self.states[flow as usize];
        state.deficit += i128::from(charged - used);
        if !state.has_work {
            state.deficit = state.deficit.min(0);
        }
    }

    /// Grants the flow its due if the visit is new; whether it can pay `cost`.
    fn visit(&mut self, flow: u32, cost: i128) -> bool {
        let state = &mut self.states[flow as usize];
        if !state.is_visited {
            state.deficit += state.grant;
        }
        state.is_visited = cost <= state.deficit;
        state.is_visited
    }

    /// Grants every flow that may be served the rounds in which none of them could pay, at once:
    /// a large request or a deep debt costs one pass instead of thousands.
    fn skip_rounds(&mut self, book: &Book, open: ClassSet) {
        let mut rounds = i128::MAX;
        let mut at = self.ring.head();
        while let Some(flow) = at {
            if let Some(head) = book.head(flow, open) {
                let cost = self.cost_of(book, head);
                let State { deficit, grant, .. } = self.states[flow as usize];
                rounds = rounds.min((cost - deficit + grant - 1) / grant);
            }
            at = self.ring.next(&Ring(&mut self.states), flow);
        }
        assert!((1..i128::MAX).contains(&rounds), "no flow could pay in the round before");
        let mut at = self.ring.head();
        while let Some(flow) = at {
            if book.waiting_in(flow).meets(open) {
                let state = &mut self.states[flow as usize];
                state.deficit += (rounds - 1) * state.grant;
            }
            at = self.ring.next(&Ring(&mut self.states), flow);
        }
    }

    fn cost_of(&self, book: &Book, slot: u32) -> i128 {
        let entry = book.entry(slot);
        i128::from(cost_of(self.cost, entry.info.prompt_tokens, entry.output_predicted))
    }
}

impl State {
    fn new(grant: i128) -> State {
        State { deficit: 0, grant, is_visited: false, has_work: false, ring: Links::UNLINKED }
    }
}
