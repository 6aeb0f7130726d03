//! Whose turn it is. A *flow* is an owner of a queue; the share picks the flow, the order picks
//! within it.

mod counter;
mod deficit;
mod dominant;
mod flows;
mod line;
mod prefix;
mod price;
mod priority;
mod start_time;
mod stride;

use plimsoll_base::{ClassId, Reason};

use crate::book::{Book, Entry, Turned};
use crate::class_set::ClassSet;
use crate::config::{Class, Config, Per, Share as Rule};
use crate::message::{RequestInfo, Used};
use counter::{Counters, Lift};
use deficit::Deficits;
pub(crate) use flows::ACCOUNTS_MAX;
use flows::{Flows, Found};
use prefix::Prefixes;
use price::Price;
use priority::Bands;

/// The share rule and its state.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "an allocator has one")]
pub(crate) enum Share {
    /// One flow. No one is favoured, and no one is protected: who sends more gets more.
    Fcfs,
    Priority(Bands),
    Accounts(Accounts),
}

/// A rule that keeps accounts of who was served.
#[derive(Debug)]
pub(crate) struct Accounts {
    flows: Flows,
    rule: Books,
}

#[derive(Debug)]
enum Books {
    Deficit(Deficits),
    Counter(Counters),
    Prefix(Prefixes),
}

impl Share {
    pub fn new(config: &Config) -> Share {
        let (per, rule) = match config.share {
            Rule::Fcfs => return Share::Fcfs,
            Rule::Priority => return Share::Priority(Bands::new(&config.classes)),
            Rule::DeficitRoundRobin { per, quantum, cost } => {
                (per, Books::Deficit(Deficits::new(config, per, quantum, cost)))
            }
            Rule::VirtualTokenCounter { per, cost } => {
                let lift = (Lift::LEAST, Reason::VirtualCounter);
                (per, Books::Counter(Counters::new(config, per, Price::Tokens(cost), lift)))
            }
            Rule::StartTimeFair { per, cost } => {
                (per, Books::Counter(start_time::start_time_fair(config, per, cost)))
            }
            Rule::Stride { per } => (per, Books::Counter(stride::stride(config, per))),
            Rule::DominantResource { per, ref capacity } => {
                (per, Books::Counter(dominant::dominant_resource(config, per, capacity)))
            }
            Rule::DeficitLongestPrefix { per, quantum, cost } => {
                (per, Books::Prefix(Prefixes::new(config, per, quantum, cost)))
            }
        };
        Share::Accounts(Accounts { flows: Flows::new(per, config), rule })
    }

    /// What a pick by this rule is called.
    pub fn reason(&self) -> Reason {
        match self {
            Share::Fcfs => Reason::ArrivalOrder,
            Share::Priority(_) => Reason::Priority,
            Share::Accounts(accounts) => accounts.rule.reason(),
        }
    }

    /// Whether it matters to nobody's turn who waits and who is served.
    pub fn keeps_no_accounts(&self) -> bool {
        match self {
            Share::Fcfs | Share::Priority(_) => true,
            Share::Accounts(_) => false,
        }
    }

    /// Whether it matters where prompts are cached.
    pub fn needs_matches(&self) -> bool {
        match self {
            Share::Fcfs | Share::Priority(_) => false,
            Share::Accounts(accounts) => matches!(accounts.rule, Books::Prefix(_)),
        }
    }

    /// The flow a request belongs to, which is about to be enqueued; `None` if there are as many
    /// as there may be.
    pub fn flow(&mut self, class: ClassId, info: &RequestInfo) -> Option<u32> {
        match self {
            Share::Fcfs => Some(0),
            Share::Priority(bands) => Some(bands.flow(class)),
            Share::Accounts(accounts) => accounts.flow(class, info),
        }
    }

    /// A request was put into a lane of its flow.
    #[inline]
    pub fn enqueued(&mut self, slot: u32, entry: &Entry, turned: Turned) {
        if let Share::Accounts(accounts) = self {
            accounts.enqueued(slot, entry, turned);
        }
    }

    /// A request was taken out of a lane of its flow.
    #[inline]
    pub fn unqueued(&mut self, slot: u32, entry: &Entry, turned: Turned) {
        if let Share::Accounts(accounts) = self {
            accounts.unqueued(slot, entry, turned);
        }
    }

    /// The flow whose turn it is, of those with a request of an `open` class, of which there is
    /// at least one; and the request, where the rule picks that too.
    pub fn pick(&mut self, book: &Book, open: ClassSet) -> (u32, Option<u32>) {
        match self {
            Share::Fcfs => (0, None),
            Share::Priority(bands) => (bands.pick(book.waiting().and(open)), None),
            Share::Accounts(Accounts { rule, .. }) => match rule {
                Books::Deficit(deficits) => {
                    let (flow, slot) = deficits.pick(book, open);
                    (flow, Some(slot))
                }
                Books::Counter(counters) => (counters.pick(book, open), None),
                Books::Prefix(prefixes) => {
                    let (flow, slot) = prefixes.pick(open);
                    (flow, Some(slot))
                }
            },
        }
    }

    /// Charges a dispatch: what it is expected to cost.
    #[inline]
    pub fn charge(&mut self, entry: &Entry) {
        if let Share::Accounts(accounts) = self {
            accounts.charge(entry);
        }
    }

    /// Settles an end: adds what it cost minus what it was charged, either way.
    #[inline]
    pub fn settle(&mut self, entry: &Entry, used: Used) {
        if let Share::Accounts(accounts) = self {
            accounts.settle(entry, (used.prompt_tokens, used.output_tokens));
        }
    }
}

impl Accounts {
    fn flow(&mut self, class: ClassId, info: &RequestInfo) -> Option<u32> {
        let rule = &self.rule;
        match self.flows.find(class, info, |flow| rule.is_settled(flow))? {
            Found::Known(flow) => Some(flow),
            Found::Opened(flow) => {
                self.rule.open(flow);
                Some(flow)
            }
        }
    }

    fn enqueued(&mut self, slot: u32, entry: &Entry, turned: Turned) {
        let Entry { flow, queue: class, .. } = *entry;
        if turned.flow {
            self.flows.got_work(flow);
        }
        match &mut self.rule {
            Books::Deficit(deficits) => deficits.enqueued(flow, turned),
            Books::Counter(counters) => counters.enqueued(flow, class, turned),
            Books::Prefix(prefixes) => prefixes.enqueued(slot, entry, turned),
        }
    }

    fn unqueued(&mut self, slot: u32, entry: &Entry, turned: Turned) {
        let Entry { flow, queue: class, .. } = *entry;
        match &mut self.rule {
            Books::Deficit(deficits) => deficits.unqueued(flow, turned),
            Books::Counter(counters) => counters.unqueued(flow, class, turned),
            Books::Prefix(prefixes) => prefixes.unqueued(slot, entry, turned),
        }
        if turned.flow {
            self.flows.lost_work(flow, |flow| self.rule.is_settled(flow));
        }
    }

    fn charge(&mut self, entry: &Entry) {
        let Entry { flow, info, output_predicted, .. } = entry;
        self.flows.departed(*flow);
        match &mut self.rule {
            Books::Deficit(deficits) => {
                deficits.charge(*flow, info.prompt_tokens, *output_predicted)
            }
            Books::Counter(counters) => {
                counters.charge(*flow, info.prompt_tokens, *output_predicted)
            }
            Books::Prefix(prefixes) => prefixes.charge(entry),
        }
    }

    fn settle(&mut self, entry: &Entry, used: (u32, u32)) {
        let charged = (entry.info.prompt_tokens, entry.output_predicted);
        match &mut self.rule {
            Books::Deficit(deficits) => deficits.settle(entry.flow, charged, used),
            Books::Counter(counters) => counters.settle(entry.flow, charged, used),
            Books::Prefix(prefixes) => prefixes.settle(entry, used),
        }
        self.flows.ended(entry.flow, |flow| self.rule.is_settled(flow));
    }
}

impl Books {
    fn reason(&self) -> Reason {
        match self {
            Books::Deficit(_) => Reason::Deficit,
            Books::Counter(counters) => counters.reason(),
            Books::Prefix(_) => Reason::DeficitPrefix,
        }
    }

    /// Whether an idle flow may be forgotten without a difference to anyone.
    fn is_settled(&self, flow: u32) -> bool {
        match self {
            Books::Deficit(deficits) => deficits.is_settled(flow),
            Books::Counter(counters) => counters.is_settled(flow),
            Books::Prefix(prefixes) => prefixes.is_settled(flow),
        }
    }

    fn open(&mut self, flow: u32) {
        match self {
            Books::Deficit(deficits) => deficits.open(flow),
            Books::Counter(counters) => counters.open(flow),
            Books::Prefix(prefixes) => prefixes.open(flow),
        }
    }
}

/// The weights of the flows that are there from the start; others come later and have weight 1.
fn weights(per: Per, classes: &[Class]) -> Vec<u32> {
    match per {
        Per::Class => classes.iter().map(|class| class.weight).collect(),
        Per::Tenant | Per::Workflow => Vec::new(),
    }
}
