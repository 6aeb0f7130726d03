//! Which of several systems is best, with a stated probability of being right.
//!
//! The procedure of Kim and Nelson ("A Fully Sequential Procedure for Indifference-Zone Selection
//! in Simulation", ACM TOMACS 11, 2001), with c = 1: after a first stage that estimates the
//! variances of all differences, replication follows replication, and whoever falls so far behind
//! another that chance does not explain it is screened out. Differences are what it looks at, so
//! that common random numbers help it and are allowed. If the best is better than all others by at
//! least the indifference zone, it is returned with at least the stated probability; the values of
//! one system in several replications are taken as normal.

use std::ops::Range;

/// How surely, how exactly, and with how much work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Selection {
    /// The probability of returning the best, below 1 and above 1 ÷ systems.
    pub confidence: f64,
    /// A smaller difference does not matter; above 0.
    pub indifference: f64,
    /// Replications of the first stage, at least 2.
    pub first: u32,
    /// Replications between two looks; looking less often errs on the safe side.
    pub step: u32,
    /// Replications at most.
    pub most: u32,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The best; `None` if the replications did not suffice.
    pub best: Option<usize>,
    /// Who was not screened out.
    pub left: Vec<usize>,
    /// Who was, after how many replications.
    pub out: Vec<(usize, u32)>,
    /// Replications of those that were left.
    pub replications: u32,
}

/// Gives the values of some systems in a range of replications, a list a system.
pub type Sample<'a, E> = dyn FnMut(&[usize], Range<u32>) -> Result<Vec<Vec<f64>>, E> + 'a;

/// Selects the system with the largest mean of `count`.
///
/// # Errors
/// Those of `sample`.
pub fn select<E>(
    count: usize,
    selection: &Selection,
    sample: &mut Sample<'_, E>,
) -> Result<Selected, E> {
    let mut left: Vec<usize> = (0..count).collect();
    let mut values = sample(&left, 0..selection.first)?;
    let screen = Screen::new(selection, &values);
    let longest = screen.longest();
    let mut out = Vec::new();
    let mut done = selection.first;
    loop {
        let gone: Vec<usize> =
            left.iter().copied().filter(|&one| screen.loses(one, &left, (&values, done))).collect();
        left.retain(|one| !gone.contains(one));
        out.extend(gone.into_iter().map(|one| (one, done)));
        let largest = || {
            let mean = |&one: &usize| values[one].iter().sum::<f64>();
            left.iter().copied().max_by(|a, b| mean(a).total_cmp(&mean(b)))
        };
        if left.len() == 1 || f64::from(done) > longest {
            return Ok(Selected { best: largest(), left, out, replications: done });
        }
        if done >= selection.most {
            return Ok(Selected { best: None, left, out, replications: done });
        }
        let next = (done + selection.step.max(1)).min(selection.most);
        for (&one, more) in left.iter().zip(sample(&left, done..next)?) {
            values[one].extend(more);
        }
        done = next;
    }
}

/// The continuation region.
struct Screen {
    indifference: f64,
    /// h² S² ÷ δ² of each pair: the replications after which it closes.
    reach: Vec<Vec<f64>>,
}

impl Screen {
    fn new(selection: &Selection, values: &[Vec<f64>]) -> Screen {
        let others = (values.len().max(2) - 1) as f64;
        let freedom = f64::from(selection.first - 1);
        let alpha = 1.0 - selection.confidence;
        let eta = 0.5 * ((2.0 * alpha / others).powf(-2.0 / freedom) - 1.0);
        let h2 = 2.0 * eta * freedom;
        let squared = selection.indifference * selection.indifference;
        let pair = |a: &Vec<f64>, b: &Vec<f64>| h2 * variance_of_difference(a, b) / squared;
        let row = |a| values.iter().map(|b| pair(a, b)).collect();
        let reach = values.iter().map(row).collect();
        Screen { indifference: selection.indifference, reach }
    }

    /// After so many replications every pair has closed.
    fn longest(&self) -> f64 {
        self.reach.iter().flatten().copied().fold(0.0, f64::max)
    }

    /// Whether one is behind another of those that are left by more than chance explains.
    fn loses(&self, one: usize, left: &[usize], (values, done): (&[Vec<f64>], u32)) -> bool {
        let r = f64::from(done);
        let mean = |system: usize| values[system].iter().sum::<f64>() / r;
        left.iter().filter(|&&other| other != one).any(|&other| {
            let room = self.indifference / (2.0 * r) * (self.reach[one][other] - r);
            mean(one) < mean(other) - room.max(0.0)
        })
    }
}

fn variance_of_difference(a: &[f64], b: &[f64]) -> f64 {
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let n = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / n;
    differences.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_base::{Stream, StreamKey};

    /// Systems with these means, standard deviation 1, and a part of their noise in common.
    fn run(means: &[f64], common: f64, seed: u64) -> Selected {
        let draw = |name: &str, entity: u64, replication| {
            Stream::new(StreamKey { seed, replication, name, entity }).normal()
        };
        let selection =
            Selection { confidence: 0.95, indifference: 0.5, first: 10, step: 1, most: 10_000 };
        let mut sample = |systems: &[usize], range: Range<u32>| {
            let of = |&system: &usize| {
                let value = |replication| {
                    means[system]
                        + common.sqrt() * draw("common", 0, replication)
                        + (1.0 - common).sqrt() * draw("own", system as u64, replication)
                };
                range.clone().map(value).collect()
            };
            Ok::<_, ()>(systems.iter().map(of).collect())
        };
        select(means.len(), &selection, &mut sample).expect("drawing cannot fail")
    }

    #[test]
    fn the_best_is_found_as_often_as_stated() {
        // The least favourable case: all others just outside the indifference zone.
        for (systems, common) in [(2, 0.0), (5, 0.0), (5, 0.7), (10, 0.0)] {
            let mut means = vec![0.0; systems];
            means[systems - 1] = 0.5;
            let right = (0..1_000)
                .filter(|&seed| run(&means, common, seed).best == Some(systems - 1))
                .count();
            // 950 less three standard errors.
            assert!(right >= 930, "{right} of 1000 for {systems} systems, {common} in common");
        }
    }

    #[test]
    fn common_random_numbers_and_clear_losers_save_work() {
        let work = |means: &[f64], common| -> u32 {
            (0..50).map(|seed| run(means, common, seed).replications).sum()
        };
        let means = [0.0, 0.0, 0.5];
        assert!(work(&means, 0.8) * 2 < work(&means, 0.0));
        let clear = run(&[0.0, 3.0, 3.6], 0.0, 7);
        assert_eq!(clear.out.first().map(|(system, _)| *system), Some(0));
        assert!(clear.out[0].1 < clear.replications);
    }

    #[test]
    fn too_little_work_decides_nothing() {
        let mut noise = 0.0;
        let mut sample = |systems: &[usize], range: Range<u32>| {
            let mut value = || {
                noise = (noise + 0.37) % 1.0;
                noise
            };
            Ok::<_, ()>(systems.iter().map(|_| range.clone().map(|_| value()).collect()).collect())
        };
        let selection =
            Selection { confidence: 0.95, indifference: 0.001, first: 5, step: 5, most: 20 };
        let selected = select(3, &selection, &mut sample).expect("drawing cannot fail");
        assert_eq!((selected.best, selected.replications), (None, 20));
    }
}
