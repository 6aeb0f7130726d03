//! Who goes first within a turn: a key fixed on arrival, so nothing is re-sorted as time passes.
//! The one exception is a deadline that comes, which changes its request's key once.

mod aging;
mod attained;
mod deadline;
mod prefix;
mod shortest;

use plimsoll_base::{Span, WorkflowId};

use crate::book::{Entry, Lanes};
use crate::config::{Config, Order as Rule};
use crate::heavy_lane::Queues;
use aging::Lifts;
use attained::Accounts;
use deadline::Deadlines;

pub(crate) use deadline::LATE;

/// The order and its state.
#[derive(Debug)]
pub(crate) enum Order {
    Arrival(Lifts),
    Deadline(Deadlines),
    Shortest(Option<Span>),
    Attained(Box<Accounts>),
    Prefix(Span),
}

impl Order {
    pub fn new(config: &Config) -> Order {
        let classes = &config.classes;
        match config.order {
            Rule::Fcfs => Order::Arrival(Lifts::equal(classes)),
            Rule::Aging => Order::Arrival(Lifts::by_boost(classes)),
            Rule::EarliestDeadline => Order::Deadline(Deadlines::new(classes)),
            Rule::ShortestPredicted { aging } => Order::Shortest(aging),
            Rule::LeastAttained { cost, workflows_max } => {
                Order::Attained(Box::new(Accounts::new(cost, workflows_max)))
            }
            Rule::LongestPrefix { token } => Order::Prefix(token),
        }
    }

    /// The key of a request that is to wait: the least goes first; ties by sequence.
    pub fn key(&mut self, entry: &Entry) -> u64 {
        let matched = entry.matched.tokens.min(entry.info.prompt_tokens);
        match self {
            Order::Arrival(lifts) => lifts.key(entry.class, entry.arrived),
            Order::Deadline(deadlines) => deadlines.key(entry.class, entry.arrived),
            Order::Shortest(aging) => shortest::key(*aging, entry.arrived, entry.tokens()),
            Order::Attained(accounts) => accounts.attained(entry.info.workflow),
            Order::Prefix(token) => prefix::key(*token, entry.arrived, matched),
        }
    }

    /// Lanes that keep this order. Where keys rise with arrival within a class, who came first
    /// goes first.
    pub fn lanes(&self, queues: Queues) -> Lanes {
        match self {
            Order::Arrival(_) => Lanes::by_arrival(),
            // A relegated request goes behind those that came after it.
            Order::Deadline(_) => Lanes::by_key(queues),
            Order::Shortest(_) | Order::Attained(_) | Order::Prefix(_) => Lanes::by_key(queues),
        }
    }

    /// Whether requests are relegated when their key's instant has come.
    #[inline]
    pub fn relegates(&self) -> bool {
        matches!(self, Order::Deadline(_))
    }

    /// Whether it matters to nobody's turn who was served.
    pub fn keeps_no_accounts(&self) -> bool {
        !matches!(self, Order::Attained(_))
    }

    /// Whether it matters how much of a prompt is cached.
    pub fn needs_matches(&self) -> bool {
        matches!(self, Order::Prefix(_))
    }

    /// Books a dispatch: what it is expected to use.
    #[inline(always)]
    pub fn charge(&mut self, workflow: WorkflowId, prompt_tokens: u32, output_predicted: u32) {
        if let Order::Attained(accounts) = self {
            accounts.charge(workflow, prompt_tokens, output_predicted);
        }
    }

    /// Books an end: what was charged, and what was used.
    #[inline(always)]
    pub fn settle(&mut self, workflow: WorkflowId, charged: (u32, u32), used: (u32, u32)) {
        if let Order::Attained(accounts) = self {
            accounts.settle(workflow, charged, used);
        }
    }
}
