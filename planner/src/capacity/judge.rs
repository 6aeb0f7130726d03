//! Whether hardware keeps what is promised, from as few runs as it takes.

use plimsoll_base::{Metric, Objective};
use plimsoll_report::capacity::{Binding, Judged};
use plimsoll_report::interval::{around, t_quantile, wilson};
use plimsoll_report::measure::{self, Kept, Kind, Measure, Served};
use plimsoll_report::summary::Estimate;

use crate::StudyError;
use crate::bench::{Bench, Cell, Job};

/// Replications after which the runs are looked at. The error is split evenly over the looks, so
/// that looking often is not held against the result.
const LOOKS: [u32; 6] = [3, 6, 12, 24, 48, 96];

/// How sure to be, with which random numbers, after how many replications at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trial {
    /// The probability of a wrong `Met`, and that of a wrong `Missed`.
    pub alpha: f64,
    /// The seed.
    pub seed: u64,
    /// At most so many replications; the next of the looks.
    pub most: u32,
}

impl Trial {
    /// After how many replications it is looked, and the error that each look may make.
    fn looks(&self) -> (Vec<u32>, f64) {
        let looks: Vec<u32> = LOOKS.into_iter().filter(|&look| look <= self.most.max(3)).collect();
        let alpha = self.alpha / looks.len() as f64;
        (looks, alpha)
    }
}

/// What is kept of one replication.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// An entry an objective.
    kept: Vec<Kept>,
    values: Vec<Option<f64>>,
    attainment: Option<f64>,
    overloaded: Vec<usize>,
    served: Served,
}

/// What was found.
#[derive(Clone, Debug)]
pub(crate) struct Judgement {
    pub result: Judged,
    pub rows: Vec<Row>,
    /// An entry an objective, in the order of [`measure::promises`].
    pub promises: Vec<Binding>,
    /// Those of overloaded classes.
    pub overloaded: Vec<String>,
}

impl Judgement {
    /// The objective nearest to its limit, or furthest beyond it.
    pub fn binding(&self) -> Option<&Binding> {
        let room = |binding: &&Binding| {
            (binding.share - binding.wanted) / (1.0 - binding.wanted).max(1e-6)
        };
        self.promises.iter().min_by(|a, b| room(a).total_cmp(&room(b)))
    }

    /// Good ÷ offered, over replications.
    pub fn attainment(&self) -> Estimate {
        estimate(&self.attainments())
    }

    /// The 5th and the 95th percentile of single replications' attainment.
    pub fn risk(&self) -> Option<[f64; 2]> {
        let mut values = self.attainments();
        values.sort_unstable_by(f64::total_cmp);
        let at =
            |p: f64| values.get(((p * values.len() as f64).ceil() as usize).max(1) - 1).copied();
        Some([at(0.05)?, at(0.95)?])
    }

    /// Good requests a second, over replications.
    pub fn goodput(&self) -> Estimate {
        let rate = |row: &Row| row.served.good as f64 / row.served.seconds.max(1e-9);
        estimate(&self.rows.iter().map(rate).collect::<Vec<_>>())
    }

    /// Offered requests a second.
    pub fn offered(&self) -> f64 {
        let rate = |row: &Row| row.served.offered as f64 / row.served.seconds.max(1e-9);
        self.rows.iter().map(rate).sum::<f64>() / self.rows.len() as f64
    }

    /// The share of the requests that the policy declined.
    pub fn refused(&self) -> f64 {
        let refused: u64 = self.rows.iter().map(|row| row.served.refused).sum();
        let offered: u64 = self.rows.iter().map(|row| row.served.offered).sum();
        refused as f64 / (offered as f64).max(1.0)
    }

    fn attainments(&self) -> Vec<f64> {
        self.rows.iter().filter_map(|row| row.attainment).collect()
    }
}

/// The mean of values with its interval.
fn estimate(values: &[f64]) -> Estimate {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    Estimate {
        value: (!values.is_empty()).then(|| measure::tidy(mean)),
        interval: around(mean, values).map(|interval| interval.map(measure::tidy)),
        ..Estimate::default()
    }
}

/// Runs a cell until its objectives are decided.
pub(crate) fn judge(
    bench: &Bench<'_>,
    cell: &Cell,
    trial: &Trial,
) -> Result<Judgement, StudyError> {
    let (looks, alpha) = trial.looks();
    let mut rows: Vec<Row> = Vec::new();
    let mut result = Judged::Undecided;
    for look in looks {
        rows.extend(runs(bench, cell, (trial.seed, rows.len() as u32..look))?);
        result = decide(cell, &rows, alpha);
        if result != Judged::Undecided {
            break;
        }
    }
    Ok(judgement(cell, rows, result))
}

/// Runs a cell so often, whatever comes of it.
pub(crate) fn sample(
    bench: &Bench<'_>,
    cell: &Cell,
    (seed, replications): (u64, u32),
) -> Result<Judgement, StudyError> {
    let rows = runs(bench, cell, (seed, 0..replications))?;
    Ok(judgement(cell, rows, Judged::Undecided))
}

fn runs(
    bench: &Bench<'_>,
    cell: &Cell,
    (seed, range): (u64, std::ops::Range<u32>),
) -> Result<Vec<Row>, StudyError> {
    let jobs: Vec<Job<'_>> = range.map(|replication| Job { cell, seed, replication }).collect();
    let score = Measure { class: None, kind: Kind::Attainment };
    let mut measures: Vec<Measure> = measure::promises(&cell.plan)
        .into_iter()
        .map(|(row, objective)| Measure { class: Some(row), kind: kind(objective) })
        .collect();
    measures.push(score);
    bench.run(&jobs, |job, ledger| {
        let mut values = measure::values(&measures, ledger);
        let attainment = values.pop().flatten();
        Row {
            kept: measure::kept(&job.cell.plan, ledger),
            values,
            attainment,
            overloaded: measure::overloaded(&job.cell.plan, ledger),
            served: measure::served(ledger),
        }
    })
}

fn kind(objective: &Objective) -> Kind {
    match objective.metric {
        Metric::Attainment => Kind::Attainment,
        Metric::Ttft | Metric::Tpot | Metric::E2e | Metric::Queue => {
            Kind::Percentile(objective.metric, objective.percentile)
        }
    }
}

/// Whether the share within the limit of each objective lies above what is promised. What is tested
/// is the mean over replications of the requests within less the requests that should be, which has
/// the sign of the share's distance from its promise and no ratio's bias; beside Student's t, which
/// a handful of lucky runs could please, Wilson's interval over all requests must agree.
///
/// All objectives must be kept, so each is tested at the full error (an intersection-union test);
/// one that is missed is enough, so that error is split.
fn decide(cell: &Cell, rows: &[Row], alpha: f64) -> Judged {
    let promises = measure::promises(&cell.plan);
    let grows = |class: usize| {
        rows.iter().filter(|row| row.overloaded.contains(&class)).count() * 2 > rows.len()
    };
    let mut all = true;
    for (index, (class, objective)) in promises.iter().enumerate() {
        let kept: Vec<Kept> = rows.iter().map(|row| row.kept[index]).collect();
        let wanted = measure::wanted(objective);
        if grows(*class) || below(&kept, wanted, alpha / promises.len() as f64) {
            return Judged::Missed;
        }
        all &= above(&kept, wanted, alpha);
    }
    if all { Judged::Met } else { Judged::Undecided }
}

fn above(kept: &[Kept], wanted: f64, alpha: f64) -> bool {
    let (within, of) = total(kept);
    if wanted >= 1.0 {
        return of > 0 && within == of;
    }
    lower(kept, wanted, alpha) > 0.0 && wilson(within, of).is_some_and(|[low, _]| low >= wanted)
}

fn below(kept: &[Kept], wanted: f64, alpha: f64) -> bool {
    let (within, of) = total(kept);
    // The bound of what is beyond, with all signs turned.
    let missing: Vec<Kept> =
        kept.iter().map(|one| Kept { within: one.of - one.within, of: one.of }).collect();
    lower(&missing, 1.0 - wanted, alpha) > 0.0
        && wilson(within, of).is_some_and(|[_, high]| high < wanted)
}

fn total(kept: &[Kept]) -> (u64, u64) {
    kept.iter().fold((0, 0), |sum, one| (sum.0 + one.within, sum.1 + one.of))
}

/// The lower bound of the mean of the requests within less those that should be.
fn lower(kept: &[Kept], wanted: f64, alpha: f64) -> f64 {
    let surplus = |one: &Kept| one.within as f64 - wanted * one.of as f64;
    let values: Vec<f64> = kept.iter().map(surplus).collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0);
    mean - t_quantile(1.0 - alpha, n - 1.0) * (variance / n).sqrt()
}

fn judgement(cell: &Cell, rows: Vec<Row>, result: Judged) -> Judgement {
    let names = &cell.plan.names.classes;
    let promises = measure::promises(&cell.plan);
    let one = |(index, (class, objective)): (usize, &(usize, &Objective))| {
        let kept: Vec<Kept> = rows.iter().map(|row| row.kept[index]).collect();
        let (within, of) = total(&kept);
        let share = within as f64 / (of as f64).max(1.0);
        let each: Vec<f64> = (kept.iter().filter(|one| one.of > 0))
            .map(|one| one.within as f64 / one.of as f64)
            .collect();
        let values: Vec<f64> = rows.iter().filter_map(|row| row.values[index]).collect();
        Binding {
            class: names[*class].clone(),
            objective: objective.text.clone(),
            share: measure::tidy(share),
            half_width: around(share, &each)
                .map_or(0.0, |[low, high]| measure::tidy((high - low) / 2.0)),
            wanted: measure::wanted(objective),
            value: estimate(&values).value,
        }
    };
    let bindings = promises.iter().enumerate().map(one).collect();
    let grows = |class: &usize| {
        rows.iter().filter(|row| row.overloaded.contains(class)).count() * 2 > rows.len()
    };
    let overloaded = (0..names.len()).filter(grows).map(|class| names[class].clone()).collect();
    Judgement { result, rows, promises: bindings, overloaded }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_base::{Stream, StreamKey};

    /// Replications at the limit itself, which differ: their own share scatters around it.
    fn at_the_limit(trial: u32, wanted: f64) -> impl Iterator<Item = Kept> {
        let key = StreamKey { seed: 3, replication: trial, name: "limit", entity: 0 };
        let mut stream = Stream::new(key);
        std::iter::repeat_with(move || {
            let share = wanted + 0.05 * (stream.uniform() - 0.5);
            let of = 150 + stream.below(100);
            let within = (0..of).filter(|_| stream.uniform() < share).count() as u64;
            Kept { within, of }
        })
    }

    /// How often `above` and `below` hold at the limit itself, where neither should.
    #[test]
    fn at_the_limit_neither_is_claimed_more_often_than_stated() {
        let (alpha, wanted, trials) = (0.05, 0.9, 2_000u32);
        let (mut up, mut down) = (0, 0);
        for trial in 0..trials {
            let kept: Vec<Kept> = at_the_limit(trial, wanted).take(10).collect();
            up += u32::from(above(&kept, wanted, alpha));
            down += u32::from(below(&kept, wanted, alpha));
        }
        // 5 % of 2,000 and three standard errors.
        assert!(up <= 130 && down <= 130, "above {up}, below {down} of {trials}");
        assert!(up > 10 && down > 10, "it must be able to claim: above {up}, below {down}");
    }

    #[test]
    fn looking_often_claims_no_more_often() {
        let (wanted, trials) = (0.9, 1_000u32);
        let (looks, alpha) = Trial { alpha: 0.05, seed: 1, most: 96 }.looks();
        assert_eq!(looks.last(), Some(&96));
        let claims = |trial: &u32| {
            let kept: Vec<Kept> = at_the_limit(*trial, wanted).take(96).collect();
            looks.iter().any(|&look| above(&kept[..look as usize], wanted, alpha))
        };
        let claimed = (0..trials).filter(claims).count();
        // 5 % of 1,000 and three standard errors.
        assert!(claimed <= 70, "{claimed} of {trials}");
    }

    #[test]
    fn a_handful_of_requests_proves_nothing() {
        let few = [Kept { within: 20, of: 20 }; 5];
        assert!(!above(&few, 0.99, 0.01), "100 requests do not show 99 %");
        let many = [Kept { within: 200, of: 200 }; 5];
        assert!(above(&many, 0.99, 0.01));
        assert!(below(&[Kept { within: 100, of: 200 }; 3], 0.99, 0.01));
        assert!(!above(&[Kept::default(); 5], 0.9, 0.01));
    }
}
