//! Whose turn it is. A *flow* is an owner of a queue; the share picks the flow, the order picks
//! within it.

mod counter;
mod deficit;
mod flows;
mod heap;
mod priority;

use plimsoll_base::{ClassId, Reason, TenantId};

use crate::book::{Book, Turned};
use crate::class_set::ClassSet;
use crate::config::{Config, Share as Rule, TokenCost};
use counter::Counters;
use deficit::Deficits;
use priority::Bands;

/// The share rule and its state.
#[derive(Debug)]
pub(crate) enum Share {
    /// One flow. No one is favoured, and no one is protected: who sends more gets more.
    Fcfs,
    Priority(Bands),
    Deficit(Deficits),
    Counter(Counters),
}

impl Share {
    pub fn new(config: &Config) -> Share {
        match config.share {
            Rule::Fcfs => Share::Fcfs,
            Rule::Priority => Share::Priority(Bands::new(&config.classes)),
            Rule::DeficitRoundRobin { per, quantum, cost } => {
                Share::Deficit(Deficits::new(per, quantum, cost, &config.classes))
            }
            Rule::VirtualTokenCounter { per, cost } => {
                Share::Counter(Counters::new(per, cost, &config.classes))
            }
        }
    }

    /// What a pick by this rule is called.
    pub fn reason(&self) -> Reason {
        match self {
            Share::Fcfs => Reason::ArrivalOrder,
            Share::Priority(_) => Reason::Priority,
            Share::Deficit(_) => Reason::Deficit,
            Share::Counter(_) => Reason::VirtualCounter,
        }
    }

    /// Whether it matters to nobody's turn who waits and who is served.
    pub fn keeps_no_accounts(&self) -> bool {
        match self {
            Share::Fcfs | Share::Priority(_) => true,
            Share::Deficit(_) | Share::Counter(_) => false,
        }
    }

    /// The flow a request belongs to; `None` if there are as many as there may be.
    pub fn flow(&mut self, class: ClassId, tenant: TenantId) -> Option<u32> {
        match self {
            Share::Fcfs => Some(0),
            Share::Priority(bands) => Some(bands.flow(class)),
            Share::Deficit(deficits) => deficits.flow(class, tenant),
            Share::Counter(counters) => counters.flow(class, tenant),
        }
    }

    /// A request was put into a lane of `flow`.
    pub fn enqueued(&mut self, flow: u32, class: ClassId, turned: Turned) {
        match self {
            Share::Fcfs | Share::Priority(_) => {}
            Share::Deficit(deficits) => deficits.enqueued(flow, turned),
            Share::Counter(counters) => counters.enqueued(flow, class, turned),
        }
    }

    /// A request was taken out of a lane of `flow`.
    pub fn unqueued(&mut self, flow: u32, class: ClassId, turned: Turned) {
        match self {
            Share::Fcfs | Share::Priority(_) => {}
            Share::Deficit(deficits) => deficits.unqueued(flow, turned),
            Share::Counter(counters) => counters.unqueued(flow, class, turned),
        }
    }

    /// The flow whose turn it is, of those with a request of an `open` class, of which there is
    /// at least one.
    pub fn pick(&mut self, book: &Book, open: ClassSet) -> u32 {
        match self {
            Share::Fcfs => 0,
            Share::Priority(bands) => bands.pick(book.waiting().and(open)),
            Share::Deficit(deficits) => deficits.pick(book, open),
            Share::Counter(counters) => counters.pick(book.waiting().and(open)),
        }
    }

    /// Charges a dispatch: what it is expected to cost.
    pub fn charge(&mut self, flow: u32, prompt_tokens: u32, output_predicted: u32) {
        match self {
            Share::Fcfs | Share::Priority(_) => {}
            Share::Deficit(deficits) => deficits.charge(flow, prompt_tokens, output_predicted),
            Share::Counter(counters) => counters.charge(flow, prompt_tokens, output_predicted),
        }
    }

    /// Settles an end: adds what it cost minus what it was charged, either way.
    pub fn settle(&mut self, flow: u32, charged: (u32, u32), used: (u32, u32)) {
        match self {
            Share::Fcfs | Share::Priority(_) => {}
            Share::Deficit(deficits) => deficits.settle(flow, charged, used),
            Share::Counter(counters) => counters.settle(flow, charged, used),
        }
    }
}

/// The cost of a request in cost units. [`Config::check`] keeps prices small enough to fit.
fn cost_of(price: TokenCost, prompt_tokens: u32, output_tokens: u32) -> i128 {
    let prompt = u64::from(prompt_tokens) * u64::from(price.prompt);
    i128::from(prompt + u64::from(output_tokens) * u64::from(price.output))
}
