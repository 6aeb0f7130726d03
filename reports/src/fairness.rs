//! Shares over time: lag, service gap, Jain's index. From samples of engine time, one step a
//! sampling instant.
//!
//! Between two samples the classes used what they used; that is the usable capacity. A class that
//! waits at both samples is *backlogged* and wants all it can get, any other wanted what it used.
//! The *fluid share* is the weighted max-min division of the capacity over these demands: whoever
//! wants less than its weight gives is content, and the rest is divided by weight among the others.
//!
//! - *Lag* of a class: fluid share minus what it used, summed over a stretch of its backlog; the
//!   most over all stretches.
//! - *Service gap* of two classes: engine time a unit of weight of the one minus that of the other,
//!   over a stretch in which both are backlogged; the most over all pairs and stretches.
//! - *Jain's index* over used ÷ fluid share of each class while it was backlogged: 1 if all got the
//!   same part of their share, 1/n if one of n got everything.

use plimsoll_base::{ClassSample, Span, Time};

/// How far a class fell behind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Lag {
    /// Engine time in seconds.
    pub seconds: f64,
    pub from: Time,
    pub to: Time,
}

/// How far two classes came apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Gap {
    /// Rows: the one that got more, the one that got less.
    pub ahead: usize,
    pub behind: usize,
    /// Engine seconds a unit of weight.
    pub seconds: f64,
}

#[derive(Clone, Debug, Default)]
struct Row {
    weight: f64,
    last: ClassSample,
    next: ClassSample,
    /// Within the interval in hand.
    backlogged: bool,
    used: f64,
    fluid: f64,
    /// Of the stretch in hand.
    lag: f64,
    since: Time,
    worst: Lag,
    /// While it was backlogged.
    used_all: f64,
    fluid_all: f64,
}

/// The difference in service of two backlogged classes, and its least and most so far.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    now: f64,
    least: f64,
    most: f64,
}

/// The shares of one replication.
#[derive(Clone, Debug)]
pub(crate) struct Fairness {
    rows: Vec<Row>,
    /// Of row and column with row < column, in order.
    pairs: Vec<Pair>,
    gap: Option<Gap>,
    at: Time,
    /// The instant of the samples that are being taken in.
    taking: Option<Time>,
}

impl Fairness {
    pub fn new(weights: &[u32]) -> Fairness {
        let row = |&weight: &u32| Row { weight: f64::from(weight), ..Row::default() };
        Fairness {
            rows: weights.iter().map(row).collect(),
            pairs: vec![Pair::default(); weights.len() * weights.len().saturating_sub(1) / 2],
            gap: None,
            at: Time::ZERO,
            taking: None,
        }
    }

    /// Takes a class's sample; those of an instant count when all are in.
    pub fn sample(&mut self, now: Time, row: usize, sample: &ClassSample) {
        if self.taking.is_some_and(|at| at < now) {
            self.close_interval();
        }
        self.taking = Some(now);
        self.rows[row].next = *sample;
    }

    /// What happened in the warm-up does not count.
    pub fn warm(&mut self) {
        self.close_interval();
        for row in &mut self.rows {
            (row.lag, row.worst, row.used_all, row.fluid_all) = (0.0, Lag::default(), 0.0, 0.0);
        }
        self.pairs.fill(Pair::default());
        self.gap = None;
    }

    /// The last samples are in.
    pub fn end(&mut self) {
        self.close_interval();
    }

    pub fn lag(&self, row: usize) -> Lag {
        self.rows[row].worst
    }
    pub fn gap(&self) -> Option<Gap> {
        self.gap
    }
    /// What each class used while it was backlogged, and its fluid share, in seconds.
    pub fn shares(&self) -> impl Iterator<Item = (f64, f64)> {
        self.rows.iter().map(|row| (row.used_all, row.fluid_all))
    }

    fn close_interval(&mut self) {
        let Some(to) = self.taking.take() else { return };
        let from = std::mem::replace(&mut self.at, to);
        for row in &mut self.rows {
            let waits = |sample: &ClassSample| sample.queued + sample.engine_waiting > 0;
            row.backlogged = waits(&row.last) && waits(&row.next);
            row.used = row.next.busy.saturating_sub(row.last.busy).max(Span::ZERO).secs_f64();
            row.last = row.next;
        }
        self.divide();
        for row in &mut self.rows {
            row.step((from, to));
        }
        self.step_pairs();
    }

    /// Weighted max-min: whoever wants less than its part is content, until nobody does.
    fn divide(&mut self) {
        let mut left: f64 = self.rows.iter().map(|row| row.used).sum();
        let mut open: Vec<usize> = (0..self.rows.len())
            .filter(|&row| self.rows[row].backlogged || self.rows[row].used > 0.0)
            .collect();
        loop {
            let weights: f64 = open.iter().map(|&row| self.rows[row].weight).sum();
            let level = if weights > 0.0 { left / weights } else { 0.0 };
            let content = |row: &usize| {
                let row = &self.rows[*row];
                !row.backlogged && row.used <= row.weight * level
            };
            let (done, rest): (Vec<usize>, Vec<usize>) = open.iter().partition(|row| content(row));
            for &row in &done {
                self.rows[row].fluid = self.rows[row].used;
                left -= self.rows[row].used;
            }
            if done.is_empty() {
                rest.iter().for_each(|&row| self.rows[row].fluid = self.rows[row].weight * level);
                return;
            }
            open = rest;
        }
    }

    fn step_pairs(&mut self) {
        let mut number = 0;
        for a in 0..self.rows.len() {
            for b in a + 1..self.rows.len() {
                let (one, other) = (&self.rows[a], &self.rows[b]);
                let pair = &mut self.pairs[number];
                number += 1;
                if !(one.backlogged && other.backlogged) {
                    *pair = Pair::default();
                    continue;
                }
                pair.now += one.used / one.weight - other.used / other.weight;
                let (up, down) = (pair.now - pair.least, pair.most - pair.now);
                pair.least = pair.least.min(pair.now);
                pair.most = pair.most.max(pair.now);
                let (seconds, ahead, behind) = if up >= down { (up, a, b) } else { (down, b, a) };
                if seconds > self.gap.map_or(0.0, |gap| gap.seconds) {
                    self.gap = Some(Gap { ahead, behind, seconds });
                }
            }
        }
    }
}

impl Row {
    fn step(&mut self, (from, to): (Time, Time)) {
        if !self.backlogged {
            self.lag = 0.0;
            return;
        }
        if self.lag == 0.0 {
            self.since = from;
        }
        self.lag = (self.lag + self.fluid - self.used).max(0.0);
        self.used_all += self.used;
        self.fluid_all += self.fluid;
        if self.lag > self.worst.seconds {
            self.worst = Lag { seconds: self.lag, from: self.since, to };
        }
    }
}

/// `(Σ x)² ÷ (n · Σ x²)` of x = used ÷ share; `None` for fewer than two.
pub(crate) fn jain(shares: &[(f64, f64)]) -> Option<f64> {
    if shares.len() < 2 {
        return None;
    }
    let each = || shares.iter().map(|(used, fluid)| used / fluid);
    let squares: f64 = each().map(|x| x * x).sum();
    let sum: f64 = each().sum();
    (squares > 0.0).then(|| sum * sum / (shares.len() as f64 * squares))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (engine seconds so far, requests that wait) of each class, one row a second.
    fn fold(weights: &[u32], samples: &[&[(u64, u32)]]) -> Fairness {
        let mut fairness = Fairness::new(weights);
        for (second, sample) in samples.iter().enumerate() {
            for (row, &(busy, queued)) in sample.iter().enumerate() {
                let busy = Span::from_secs(busy);
                let sample = ClassSample { busy, queued, ..ClassSample::default() };
                fairness.sample(Time::ZERO + Span::from_secs(second as u64), row, &sample);
            }
        }
        fairness.end();
        fairness
    }

    #[test]
    fn lag_is_what_the_fluid_would_have_given() {
        // Weights 1 and 3; both wait; the first gets 3 of every 4 seconds.
        let fairness = fold(&[1, 3], &[&[(0, 1), (0, 1)], &[(3, 1), (1, 1)], &[(6, 1), (2, 1)]]);
        assert_eq!(fairness.lag(0).seconds, 0.0);
        assert_eq!(fairness.lag(1).seconds, 4.0);
        assert_eq!(fairness.lag(1).to, Time::ZERO + Span::from_secs(2));
        // 6/1 - 2/3 a unit of weight.
        let gap = fairness.gap().expect("both waited");
        assert_eq!((gap.ahead, gap.behind), (0, 1));
        assert!((gap.seconds - 16.0 / 3.0).abs() < 1e-12);
        // Parts of their shares: 6/2 and 2/6.
        let shares: Vec<_> = fairness.shares().collect();
        assert_eq!(shares, [(6.0, 2.0), (2.0, 6.0)]);
        let expected = (10.0f64 / 3.0).powi(2) / (2.0 * (9.0 + 1.0 / 9.0));
        assert!((jain(&shares).expect("two") - expected).abs() < 1e-12);
    }

    #[test]
    fn what_is_not_wanted_is_divided_among_the_others() {
        // The third class wants 1 of 10 seconds and has a right to more; the others share 9.
        let samples: [&[(u64, u32)]; 2] = [&[(0, 1), (0, 1), (0, 0)], &[(9, 1), (0, 1), (1, 0)]];
        let fairness = fold(&[1, 2, 7], &samples);
        assert_eq!(fairness.lag(1).seconds, 6.0);
        assert_eq!(fairness.lag(2).seconds, 0.0);
    }

    #[test]
    fn a_pause_in_the_backlog_forgives_the_lag() {
        let samples: [&[(u64, u32)]; 4] =
            [&[(0, 1), (0, 1)], &[(2, 1), (0, 1)], &[(4, 1), (0, 0)], &[(6, 1), (0, 1)]];
        assert_eq!(fold(&[1, 1], &samples).lag(1).seconds, 1.0);
    }
}
