//! What each class received of the service, and what it was entitled to.
//!
//! Service is counted at the share rule's prices (1 a prompt token and 2 an output token where it
//! has none; 1 a request under `stride`): charged by estimate when a request is let in, corrected
//! by what it had used when it is closed. Time goes in slices of a second, of which the latest
//! sixty count. In each slice the service of all classes is divided by weighted max-min: a class
//! that had a *claim* all through the slice (some of it waited, and not for a limit of its own)
//! wants all it can get, any other wanted what it received. That is its entitled share.

use std::collections::VecDeque;

use plimsoll_base::{Bound, ClassId, Span, Time};
use plimsoll_config::gateway::GatewayFile;
use plimsoll_policy::config::{Share as Rule, TokenCost};

const SLICE: Span = Span::from_secs(1);
const SLICES: usize = 60;

/// A class's part of all service of the latest minute; 0 where there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Part {
    pub received: f64,
    pub entitled: f64,
}

impl Part {
    /// What it received too much (above 0) or too little. The classes' errors sum to 0.
    pub fn error(self) -> f64 {
        self.received - self.entitled
    }
}

/// The shares of all classes.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    price: Price,
    rows: Vec<Row>,
    /// When the slice in hand began.
    since: Time,
    /// Received and entitled by class, a slice each, oldest first.
    slices: VecDeque<Vec<(f64, f64)>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    weight: f64,
    has_claim: bool,
    /// Without a claim at some time of the slice in hand.
    had_none: bool,
    /// Service of the slice in hand; below nought what was charged too much before.
    charged: f64,
}

#[derive(Clone, Copy, Debug)]
enum Price {
    Requests,
    Tokens(TokenCost),
}

impl Shares {
    /// The shares of a file's classes, before anything has happened.
    pub fn new(file: &GatewayFile) -> Shares {
        let price = Price::of(&file.config.share);
        let mut shares =
            Shares { price, rows: Vec::new(), since: Time::ZERO, slices: VecDeque::new() };
        shares.adopt(file);
        shares
    }

    /// Another file is in force.
    pub fn adopt(&mut self, file: &GatewayFile) {
        let classes = &file.config.classes;
        self.price = Price::of(&file.config.share);
        self.rows.resize(classes.len(), Row { had_none: true, ..Row::default() });
        for (row, class) in self.rows.iter_mut().zip(classes) {
            row.weight = f64::from(class.weight.max(1));
        }
    }

    /// What a request costs.
    pub fn cost(&self, prompt_tokens: u32, output_tokens: u64) -> f64 {
        match self.price {
            Price::Requests => 1.0,
            Price::Tokens(TokenCost { prompt, output }) => {
                f64::from(prompt) * f64::from(prompt_tokens)
                    + f64::from(output) * output_tokens as f64
            }
        }
    }

    /// Service of a class; below nought where less was used than charged.
    pub fn charge(&mut self, now: Time, class: ClassId, cost: f64) {
        self.pass(now);
        if let Some(row) = self.rows.get_mut(class.index()) {
            row.charged += cost;
        }
    }

    /// What stops a class is another.
    pub fn bound(&mut self, now: Time, class: ClassId, bound: Option<Bound>) {
        self.pass(now);
        if let Some(row) = self.rows.get_mut(class.index()) {
            row.has_claim = bound.is_some_and(|bound| !is_own_limit(bound));
            row.had_none |= !row.has_claim;
        }
    }

    /// Closes the slices that are over.
    pub fn pass(&mut self, now: Time) {
        let over = now.saturating_since(self.since).nanos() / SLICE.nanos();
        for _ in 0..over.min(SLICES as u64 + 1) {
            self.close();
        }
        self.since += SLICE.saturating_mul(over);
    }

    fn close(&mut self) {
        let received: Vec<f64> = self.rows.iter().map(|row| row.charged.max(0.0)).collect();
        let demands = self.rows.iter().zip(&received);
        let demands: Vec<_> = demands
            .map(|(row, received)| {
                (row.weight, if row.had_none { *received } else { f64::INFINITY })
            })
            .collect();
        let entitled = max_min(received.iter().sum(), &demands);
        if self.slices.len() == SLICES {
            self.slices.pop_front();
        }
        for (row, received) in self.rows.iter_mut().zip(&received) {
            row.charged -= received;
            row.had_none = !row.has_claim;
        }
        self.slices.push_back(received.into_iter().zip(entitled).collect());
    }

    /// The part of a class in the slices that are closed.
    pub fn part(&self, class: ClassId) -> Part {
        let all: f64 = self.slices.iter().flatten().map(|(received, _)| received).sum();
        if all <= 0.0 {
            return Part::default();
        }
        let own = self.slices.iter().filter_map(|slice| slice.get(class.index()));
        let (received, entitled) = own.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        Part { received: received / all, entitled: entitled / all }
    }
}

impl Price {
    fn of(rule: &Rule) -> Price {
        match rule {
            Rule::Stride { .. } => Price::Requests,
            Rule::Fcfs | Rule::Priority | Rule::DominantResource { .. } => {
                Price::Tokens(TokenCost { prompt: 1, output: 2 })
            }
            Rule::DeficitRoundRobin { cost, .. }
            | Rule::DeficitLongestPrefix { cost, .. }
            | Rule::VirtualTokenCounter { cost, .. }
            | Rule::StartTimeFair { cost, .. } => Price::Tokens(*cost),
        }
    }
}

/// Whether what stops a class is its own.
pub(crate) fn is_own_limit(bound: Bound) -> bool {
    matches!(bound, Bound::ClassRequests | Bound::ClassTokens | Bound::Quota)
}

/// Divides a capacity over demands by weight: nobody gets more than it wants, and what that leaves
/// goes to the others.
fn max_min(capacity: f64, demands: &[(f64, f64)]) -> Vec<f64> {
    let mut given = vec![0.0; demands.len()];
    let mut open: Vec<usize> = (0..demands.len()).collect();
    let mut left: f64 = capacity;
    while !open.is_empty() {
        let weights: f64 = open.iter().map(|&index| demands[index].0).sum();
        let level = left / weights;
        let (content, others): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|&&index| demands[index].1 <= level * demands[index].0);
        if content.is_empty() {
            others.iter().for_each(|&index| given[index] = level * demands[index].0);
            break;
        }
        for index in content {
            given[index] = demands[index].1;
            left -= demands[index].1;
        }
        open = others;
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[f64]) -> Shares {
        let row = |&weight: &f64| Row { weight, had_none: true, ..Row::default() };
        let price = Price::Tokens(TokenCost { prompt: 1, output: 2 });
        let rows = weights.iter().map(row).collect();
        Shares { price, rows, since: Time::ZERO, slices: VecDeque::new() }
    }

    fn at(seconds: f64) -> Time {
        Time::from_nanos((seconds * 1e9) as u64)
    }

    fn errors(shares: &Shares) -> Vec<f64> {
        let ids = (0..shares.rows.len() as u16).map(ClassId);
        ids.map(|class| (shares.part(class).error() * 1000.0).round() / 1000.0).collect()
    }

    #[test]
    fn max_min_gives_what_is_wanted_and_the_rest_by_weight() {
        let all = f64::INFINITY;
        type Demands = [(f64, f64)];
        let cases: [(f64, &Demands, &[f64]); 5] = [
            (10.0, &[(1.0, all), (1.0, all)], &[5.0, 5.0]),
            (10.0, &[(1.0, all), (4.0, all)], &[2.0, 8.0]),
            (10.0, &[(1.0, all), (4.0, 3.0)], &[7.0, 3.0]),
            (10.0, &[(1.0, 1.0), (1.0, 2.0)], &[1.0, 2.0]),
            (0.0, &[(1.0, all), (1.0, 0.0)], &[0.0, 0.0]),
        ];
        for (capacity, demands, wanted) in cases {
            assert_eq!(max_min(capacity, demands), wanted, "{demands:?}");
        }
    }

    #[test]
    fn a_class_that_waits_is_owed_its_weight() {
        let mut shares = shares(&[1.0, 3.0]);
        let (zero, one) = (ClassId(0), ClassId(1));
        shares.bound(at(0.0), one, Some(Bound::Seats));
        shares.charge(at(0.5), zero, 50.0);
        shares.pass(at(1.0));
        assert_eq!(errors(&shares), [0.0, 0.0], "it did not wait all through the first second");
        shares.charge(at(1.5), zero, 100.0);
        shares.pass(at(2.0));
        assert_eq!(errors(&shares), [0.5, -0.5], "it got none of the 75 of 150 that were due");
        shares.bound(at(2.0), zero, Some(Bound::Seats));
        shares.pass(at(3.0));
        shares.charge(at(3.5), zero, 150.0);
        shares.pass(at(4.0));
        let part = shares.part(one);
        assert_eq!(part.received, 0.0);
        assert!(part.entitled > 0.3, "{part:?}");
        assert!(errors(&shares).iter().sum::<f64>().abs() < 1e-9, "errors sum to nought");
    }

    #[test]
    fn who_waits_for_its_own_limit_has_no_claim() {
        let mut shares = shares(&[1.0, 1.0]);
        shares.bound(at(0.0), ClassId(0), Some(Bound::Seats));
        shares.bound(at(0.0), ClassId(1), Some(Bound::ClassRequests));
        shares.pass(at(1.0));
        shares.charge(at(1.5), ClassId(0), 10.0);
        shares.pass(at(2.0));
        assert_eq!(errors(&shares), [0.0, 0.0]);
    }

    #[test]
    fn what_was_charged_too_much_is_made_up_for() {
        let mut shares = shares(&[1.0]);
        shares.charge(at(0.1), ClassId(0), 100.0);
        shares.charge(at(1.1), ClassId(0), -60.0);
        shares.charge(at(2.1), ClassId(0), 70.0);
        shares.pass(at(4.0));
        let received: f64 = shares.slices.iter().map(|slice| slice[0].0).sum();
        assert_eq!(received, 110.0);
        shares.pass(at(1000.0));
        assert_eq!((shares.part(ClassId(0)), shares.slices.len()), (Part::default(), SLICES));
    }
}
