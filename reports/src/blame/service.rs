//! Service by the share rule's own book, and how far two classes with work came apart in it.
//!
//! The rule charges a request when it is let in, as predicted, and settles when it ends. In that
//! book, and not in engine time, its bound holds to the unit. Between two instants at which both
//! classes have work without a break, the gap is the difference of what they were charged a unit of
//! weight; the most over all such stretches is compared with the bound.

use plimsoll_base::{End, Outcome, RequestRecord};

use crate::plan::{Errors, Plan, Promise};

/// The book of one replication.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    promise: Promise,
    rows: Vec<Row>,
    /// Of row and column with row < column, in order.
    pairs: Vec<Pair>,
    /// What all were charged and settled.
    cost: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    weight: f64,
    waiting: u64,
    /// It waits for its own limit or another line of the policy, and so has no claim.
    steps_aside: bool,
    has_work: bool,
    /// Counts the stretches in which it has work.
    stretch: u64,
    /// Per weight: charged and settled so far; the largest charge; the largest error.
    service: f64,
    largest: f64,
    error: f64,
    in_flight: u64,
    in_flight_max: u64,
}

/// The lead of one class over another while both have work.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    stretches: (u64, u64),
    least: f64,
    most: f64,
    worst: f64,
    row_is_ahead: bool,
}

/// Two classes that came apart, in cost units a unit of weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BookedGap {
    pub ahead: usize,
    pub behind: usize,
    pub gap: f64,
    /// What the rule promises with true predictions, and what wrong ones add to it.
    pub bound: f64,
    pub errors: f64,
}

impl Service {
    /// `None` where the policy promises nothing.
    pub fn new(plan: &Plan) -> Option<Service> {
        let promise = plan.promise.clone()?;
        let row = |weight: u32| Row { weight: f64::from(weight), ..Row::default() };
        let rows: Vec<Row> = plan.classes.iter().map(|class| row(class.weight)).collect();
        let pairs = vec![Pair::default(); rows.len() * rows.len().saturating_sub(1) / 2];
        Some(Service { promise, rows, pairs, cost: 0.0 })
    }

    /// What happened in the warm-up does not count.
    pub fn warm(&mut self) {
        self.rows.iter_mut().for_each(|row| row.stretch += 1);
        self.pairs.iter_mut().for_each(|pair| pair.worst = 0.0);
        (0..self.rows.len()).for_each(|row| self.look(row));
    }

    pub fn arrive(&mut self, row: usize) {
        if row < self.rows.len() {
            self.rows[row].waiting += 1;
            self.follow(row);
        }
    }

    /// It may wait for what others hold too, or not.
    pub fn bind(&mut self, row: usize, steps_aside: bool) {
        self.rows[row].steps_aside = steps_aside;
        self.follow(row);
    }

    pub fn dispatch(&mut self, row: usize, (prompt, tokens): (u32, u64)) {
        let charge = self.charge(prompt, tokens);
        let own = &mut self.rows[row];
        own.waiting -= 1;
        own.in_flight += 1;
        own.in_flight_max = own.in_flight_max.max(own.in_flight);
        own.largest = own.largest.max(charge / own.weight);
        own.service += charge / own.weight;
        self.cost += charge;
        self.follow(row);
    }

    pub fn close(&mut self, row: usize, record: &RequestRecord) {
        if row >= self.rows.len() {
            return;
        }
        if record.dispatched.is_none() {
            self.rows[row].waiting -= 1;
            return self.follow(row);
        }
        let prompt = match record.outcome {
            Outcome::Ended(End::Evicted) => record.prompt_tokens.min(record.wasted_tokens),
            Outcome::Ended(End::Finished | End::Failed | End::Cancelled | End::Expired)
            | Outcome::Refused(_) => record.prompt_tokens,
            // The rule has not settled it.
            Outcome::Unfinished => return,
        };
        let used = self.promise.price.of(prompt, record.output_tokens.into());
        let more = used - self.charge(record.prompt_tokens, record.tokens);
        let own = &mut self.rows[row];
        own.in_flight -= 1;
        own.error = own.error.max(more.abs() / own.weight);
        own.service += more / own.weight;
        self.cost += more;
        self.follow(row);
    }

    /// What is charged for estimated tokens, of which so many are the prompt's.
    fn charge(&self, prompt: u32, tokens: u64) -> f64 {
        self.promise.price.of(prompt, tokens.saturating_sub(prompt.into()))
    }

    /// Whether it has work has perhaps changed, or its service.
    fn follow(&mut self, row: usize) {
        let own = &mut self.rows[row];
        let has_work = own.waiting > 0 && !own.steps_aside;
        own.stretch += u64::from(has_work && !own.has_work);
        own.has_work = has_work;
        self.look(row);
    }

    /// Takes the leads of and over a class into account.
    fn look(&mut self, row: usize) {
        let own = self.rows[row];
        if !own.has_work {
            return;
        }
        for other in (0..self.rows.len()).filter(|&other| other != row) {
            let its = self.rows[other];
            if !its.has_work {
                continue;
            }
            let (a, b) = if row < other { (own, its) } else { (its, own) };
            let place = self.place(row.min(other), row.max(other));
            self.pairs[place].look((a.stretch, b.stretch), a.service - b.service);
        }
    }

    fn place(&self, a: usize, b: usize) -> usize {
        a * self.rows.len() - a * (a + 1) / 2 + b - a - 1
    }

    /// The gap of two classes and its bound.
    fn gap_of(&self, a: usize, b: usize) -> BookedGap {
        let pair = &self.pairs[self.place(a, b)];
        let (ahead, behind) = if pair.row_is_ahead { (a, b) } else { (b, a) };
        let (f, g) = (&self.rows[a], &self.rows[b]);
        // No more than the largest error for each of those that were ever in flight together.
        let error = |row: &Row| row.error * row.in_flight_max as f64;
        let (bound, errors) = match self.promise.errors {
            Errors::OfBoth => (f.largest + g.largest, error(f) + error(g)),
            Errors::OfAll => (2.0 * f.largest.max(g.largest), self.rows.iter().map(error).sum()),
        };
        let bound = self.promise.quantum as f64 + bound;
        BookedGap { ahead, behind, gap: pair.worst, bound, errors: 2.0 * errors }
    }

    /// Every pair of classes that had work at once.
    pub fn gaps(&self) -> impl Iterator<Item = BookedGap> {
        let rows = self.rows.len();
        let pairs = (0..rows).flat_map(move |a| (a + 1..rows).map(move |b| (a, b)));
        pairs.map(|(a, b)| self.gap_of(a, b)).filter(|gap| gap.gap > 0.0)
    }

    /// All that was charged and settled.
    pub fn cost(&self) -> f64 {
        self.cost
    }
}

impl Pair {
    fn look(&mut self, stretches: (u64, u64), lead: f64) {
        if self.stretches != stretches {
            (self.stretches, self.least, self.most) = (stretches, lead, lead);
        }
        let (up, down) = (lead - self.least, self.most - lead);
        self.least = self.least.min(lead);
        self.most = self.most.max(lead);
        if up.max(down) > self.worst {
            (self.worst, self.row_is_ahead) = (up.max(down), up >= down);
        }
    }
}
