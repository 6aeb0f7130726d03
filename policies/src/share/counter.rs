//! Virtual token counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024),
//! and the machine that [`super::start_time`], [`super::stride`] and [`super::dominant`] share
//! with it: they differ in what a request costs and in where a flow begins again.
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
//! cost of the largest request and `E` the largest total error of prediction of the requests in
//! flight, all divided by the flow's weight. With true predictions it is
//! `2 · C`, and one-sided `C`.
//!
//! A flow whose classes are all at their caps is passed over and keeps its counter. A counter is
//! an integer: one cost unit at weight 1 is 2³⁶, and a weight is applied as the rounded
//! reciprocal 2³⁶/weight, so that charge and settlement add up exactly.

use plimsoll_base::{ClassId, Reason};

use super::flows::FLOW_BITS;
use super::line::Line;
use super::price::Price;
use super::weights;
use crate::book::{Book, Turned};
use crate::class_set::ClassSet;
use crate::config::{Config, Per};
use crate::heap::Key;

/// Counter units of one cost unit at weight 1.
const SCALE: i64 = 1 << 36;

/// The state of the rule.
#[derive(Debug)]
pub(crate) struct Counters {
    reason: Reason,
    price: Price,
    lift: Lift,
    /// Indexed by flow: its counter above its number. What is looked at all over, and no more.
    keys: Vec<i128>,
    /// Indexed by flow: what one cost unit adds to the key; [`RATE`] of those that come later.
    rates: Vec<i64>,
    line: Line,
}

/// Where a flow that gets work after having none begins, if its own counter is less. Values of
/// counters; the flow's number below them is 0.
#[derive(Debug)]
pub(crate) enum Lift {
    /// At the least counter of those with work, or at the flow dispatched last.
    Least { dispatched_last: Option<u32> },
    /// At the virtual time: the greatest start tag picked so far. When nothing waits and nothing
    /// runs any more, the greatest finish tag.
    StartTag { time: i128, finish: i128, in_flight: u32 },
}

impl Lift {
    pub const LEAST: Lift = Lift::Least { dispatched_last: None };
    pub const START_TAG: Lift = Lift::StartTag { time: 0, finish: 0, in_flight: 0 };
}

/// What one cost unit adds to the key of a flow of this weight. Below 2⁵⁷, as costs are, so that
/// one multiplication of 64 bits does.
fn rate(weight: u32) -> i64 {
    let weight = i64::from(weight);
    ((SCALE + weight / 2) / weight) << FLOW_BITS
}

/// The rate of weight 1.
const RATE: i64 = SCALE << FLOW_BITS;

/// A key without the flow's number.
fn counter_of(key: i128) -> i128 {
    key - i128::from(key.member())
}

impl Counters {
    pub fn new(
        config: &Config,
        per: Per,
        price: Price,
        (lift, reason): (Lift, Reason),
    ) -> Counters {
        let rates: Vec<i64> = weights(per, &config.classes).into_iter().map(rate).collect();
        let keys = (0..rates.len()).map(|flow| flow as i128).collect();
        Counters { reason, price, lift, keys, rates, line: Line::new(config.classes.len()) }
    }

    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Whether a stranger would be treated no better and no worse than the idle flow.
    pub fn is_settled(&self, flow: u32) -> bool {
        self.floor().is_none_or(|floor| counter_of(self.keys[flow as usize]) <= floor)
    }

    /// A flow of this number begins, where strangers do.
    pub fn open(&mut self, flow: u32) {
        let start = self.floor().unwrap_or(0);
        if self.keys.len() <= flow as usize {
            self.keys.push(0);
        }
        self.keys[flow as usize] = start + i128::from(flow);
    }

    fn floor(&self) -> Option<i128> {
        match self.lift {
            Lift::StartTag { time, .. } => Some(time),
            Lift::Least { dispatched_last } => {
                let last = dispatched_last.map(|last| self.keys[last as usize]);
                self.line.least().or(last).map(counter_of)
            }
        }
    }

    pub fn enqueued(&mut self, flow: u32, class: ClassId, turned: Turned) {
        if turned.flow
            && let Some(floor) = self.floor()
        {
            let key = &mut self.keys[flow as usize];
            *key = (*key).max(floor + i128::from(flow));
        }
        self.line.enqueued(self.keys[flow as usize], class, turned);
    }

    pub fn unqueued(&mut self, flow: u32, class: ClassId, turned: Turned) {
        self.line.unqueued(flow, class, turned);
        if turned.flow {
            self.end_busy_period();
        }
    }

    pub fn pick(&mut self, book: &Book, open: ClassSet) -> u32 {
        let least = self.line.least_of(book, open);
        match &mut self.lift {
            Lift::Least { .. } => {}
            // It never goes back, so that a class that steps aside and comes back does not let
            // those that begin meanwhile start where it stood.
            Lift::StartTag { time, .. } => *time = (*time).max(counter_of(least)),
        }
        least.member()
    }

    pub fn charge(&mut self, flow: u32, prompt_tokens: u32, output_predicted: u32) {
        self.add(flow, self.price.of(prompt_tokens, output_predicted));
        match &mut self.lift {
            Lift::Least { dispatched_last } => *dispatched_last = Some(flow),
            Lift::StartTag { in_flight, .. } => *in_flight += 1,
        }
    }

    pub fn settle(&mut self, flow: u32, charged: (u32, u32), used: (u32, u32)) {
        let difference = self.price.of(used.0, used.1) - self.price.of(charged.0, charged.1);
        if difference != 0 {
            self.add(flow, difference);
        }
        if let Lift::StartTag { in_flight, .. } = &mut self.lift {
            *in_flight -= 1;
            self.end_busy_period();
        }
    }

    fn add(&mut self, flow: u32, cost: i64) {
        let rate = self.rates.get(flow as usize).copied().unwrap_or(RATE);
        let key = &mut self.keys[flow as usize];
        let sum = key.checked_add(i128::from(cost) * i128::from(rate));
        let sum = sum.expect("a counter holds 2¹⁷ requests of the largest cost there is");
        *key = sum;
        if let Lift::StartTag { finish, .. } = &mut self.lift {
            *finish = (*finish).max(counter_of(sum));
        }
        self.line.change(sum);
    }

    fn end_busy_period(&mut self) {
        if let Lift::StartTag { time, finish, in_flight: 0 } = &mut self.lift
            && self.line.least().is_none()
        {
            *time = (*time).max(*finish);
        }
    }
}
