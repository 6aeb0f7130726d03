//! Several policies or settings on the same workload with the same random numbers.

use std::ops::Range;

use plimsoll_report::comparison::{
    Best, COMPARISON_VERSION, CandidateSummary, Comparison, Difference, Evidence, Exhibit,
    MeasuredValue, ScreenedOut, Unit, beside, sentence,
};
use plimsoll_report::interval::{CONFIDENCE, student_t, student_t_at};
use plimsoll_report::measure::{self, Measure};
use plimsoll_report::summary::Estimate;
use plimsoll_report::{Chart, Ledger, Precision};
use plimsoll_scenario::Scenario;

use crate::bench::{Bench, Cell, Job};
use crate::select::{Selected, Selection, select};
use crate::{StudyError, Watch};

/// One of those compared.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What it is called.
    pub name: String,
    /// What it is. All have the same classes and workloads.
    pub scenario: Scenario,
}

/// How to compare.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompareSettings {
    /// Replications of every candidate, at least 2.
    pub replications: u32,
    /// More of them, up to a limit, until every difference is known to so small a part of what it
    /// is the difference of; `None` for exactly as many.
    pub precision: Option<Precision>,
    /// The seed of all.
    pub seed: u64,
    /// Threads to use; 0 for one a core.
    pub threads: usize,
    /// With what probability the best is to be found, where there are more than two.
    pub confidence: f64,
    /// What difference of the score does not matter: of attainment, or as a part of a latency.
    pub indifference: f64,
    /// Replications that the search for the best may take.
    pub selection_most: u32,
}

/// Compares candidates with the first of them; there are at least two. Replication r of each draws
/// the same arrivals, lengths and faults.
///
/// # Errors
/// The first error of a run, or that the watch stopped them.
pub fn compare(
    candidates: Vec<Candidate>,
    settings: &CompareSettings,
    watch: &dyn Watch,
) -> Result<Comparison, StudyError> {
    let names: Vec<String> = candidates.iter().map(|candidate| candidate.name.clone()).collect();
    let shown = candidates.iter().take(EXHIBITS_MAX);
    let shown = shown.map(|c| Cell::attributed(c.scenario.clone(), settings.seed)).collect();
    let cells = candidates.into_iter().map(|c| Cell::new(c.scenario, settings.seed)).collect();
    let mut study = Study::new((cells, shown), settings, Bench::new(settings.threads, watch)?);
    let everyone: Vec<usize> = (0..names.len()).collect();
    study.extend(&everyone, settings.replications)?;
    while let Some(more) = study.wanted() {
        study.extend(&everyone, more)?;
    }
    let replications = study.done(0);
    let differences = study.differences(&names);
    let answer = |name: &String| sentence(name, &names[0], &differences);
    Ok(Comparison {
        comparison_version: COMPARISON_VERSION,
        plimsoll: env!("CARGO_PKG_VERSION").to_owned(),
        scenario: study.cells[0].plan.scenario.clone(),
        seed: settings.seed,
        replications,
        method: study.method(&differences),
        sentences: names[1..].iter().map(answer).collect(),
        candidates: (0..names.len()).map(|one| study.summary(one, &names[one])).collect(),
        notes: study.notes(&names, replications),
        differences,
        best: (names.len() > 2).then(|| study.best(&names)).transpose()?,
        separate: false,
        beside: study.beside(&names),
    })
}

/// Candidates that the page shows beside each other, and how many of their replications are kept for
/// that, with attribution: what is kept is some hundred kilobytes a replication.
const EXHIBITS_MAX: usize = 6;
const EXHIBIT_RUNS: u32 = 4;

/// What one replication of one candidate left.
struct Row {
    values: Vec<Option<f64>>,
    overloaded: Vec<usize>,
}

struct Study<'a> {
    cells: Vec<Cell>,
    /// The first of them with attribution, and their first replications.
    shown: Vec<Cell>,
    kept: Vec<Vec<Ledger>>,
    settings: &'a CompareSettings,
    bench: Bench<'a>,
    /// What is compared, then the score.
    measures: Vec<Measure>,
    /// By candidate, then replication.
    rows: Vec<Vec<Row>>,
}

impl<'a> Study<'a> {
    fn new(
        (cells, shown): (Vec<Cell>, Vec<Cell>),
        settings: &'a CompareSettings,
        bench: Bench<'a>,
    ) -> Study<'a> {
        let plan = &cells[0].plan;
        let mut measures = measure::measures(plan);
        measures.push(measure::score(plan));
        let rows = cells.iter().map(|_| Vec::new()).collect();
        let kept = shown.iter().map(|_| Vec::new()).collect();
        Study { cells, shown, kept, settings, bench, measures, rows }
    }

    fn done(&self, candidate: usize) -> u32 {
        self.rows[candidate].len() as u32
    }

    /// Runs these candidates until each has so many replications.
    fn extend(&mut self, candidates: &[usize], until: u32) -> Result<(), StudyError> {
        let missing = |&candidate: &usize| {
            (self.done(candidate)..until).map(move |replication| (candidate, replication))
        };
        let mut wanted: Vec<(usize, u32)> = candidates.iter().flat_map(missing).collect();
        wanted.sort_by_key(|&(candidate, replication)| (replication, candidate));
        let seed = self.settings.seed;
        let is_shown =
            |candidate, replication| candidate < self.shown.len() && replication < EXHIBIT_RUNS;
        let job = |&(candidate, replication): &(usize, u32)| {
            let cells = if is_shown(candidate, replication) { &self.shown } else { &self.cells };
            Job { cell: &cells[candidate], seed, replication }
        };
        let jobs: Vec<Job<'_>> = wanted.iter().map(job).collect();
        let rows = self.bench.run(&jobs, |job, ledger| {
            let values = measure::values(&self.measures, ledger);
            let row = Row { values, overloaded: measure::overloaded(&job.cell.plan, ledger) };
            let is_shown = self.shown.iter().any(|cell| std::ptr::eq(cell, job.cell));
            (row, is_shown.then(|| ledger.clone()))
        })?;
        for ((candidate, _), (row, kept)) in wanted.into_iter().zip(rows) {
            self.rows[candidate].push(row);
            if let Some(ledger) = kept {
                self.kept[candidate].push(ledger);
            }
        }
        Ok(())
    }

    /// The charts of the first candidates side by side.
    fn beside(&self, names: &[String]) -> Vec<Chart> {
        let shown = self.shown.iter().zip(&self.kept).zip(names);
        let exhibits: Vec<Exhibit<'_>> = shown
            .map(|((cell, ledgers), name)| Exhibit { name, plan: &cell.plan, ledgers })
            .collect();
        beside(&exhibits)
    }

    /// A measure of a candidate in each replication; `None` if it is missing in one.
    fn values(&self, candidate: usize, measure: usize) -> Option<Vec<f64>> {
        self.rows[candidate].iter().map(|row| row.values[measure]).collect()
    }

    /// The differences from the first in one measure, pair by pair.
    fn pairs(&self, candidate: usize, measure: usize) -> Option<Vec<f64>> {
        let (first, other) = (self.values(0, measure)?, self.values(candidate, measure)?);
        Some(other.iter().zip(&first).map(|(other, first)| other - first).collect())
    }

    /// Everything that is compared: candidate and measure.
    fn comparisons(&self) -> Vec<(usize, usize)> {
        let compared = self.measures.len() - 1;
        (1..self.cells.len())
            .flat_map(|one| (0..compared).map(move |measure| (one, measure)))
            .collect()
    }

    /// The confidence of each of the intervals that hold together (Bonferroni).
    fn confidence_of_each(&self) -> f64 {
        let all = self.comparisons();
        let measured = all.iter().filter(|&&(one, measure)| self.pairs(one, measure).is_some());
        1.0 - (1.0 - CONFIDENCE) / measured.count().max(1) as f64
    }

    fn differences(&self, names: &[String]) -> Vec<Difference> {
        let confidence = self.confidence_of_each();
        let one = |&(candidate, measure): &(usize, usize)| {
            self.difference((candidate, &names[candidate]), measure, confidence)
        };
        let mut differences: Vec<Difference> = self.comparisons().iter().map(one).collect();
        let size = |one: &Difference| {
            let relative = one.relative.map_or(0.0, f64::abs);
            if matches!(one.evidence, Evidence::Better | Evidence::Worse) { relative } else { -1.0 }
        };
        differences.sort_by(|a, b| size(b).total_cmp(&size(a)));
        differences
    }

    fn difference(
        &self,
        (candidate, name): (usize, &str),
        measure: usize,
        confidence: f64,
    ) -> Difference {
        let what = self.measures[measure];
        let pairs = self.pairs(candidate, measure);
        let interval = pairs.as_ref().and_then(|pairs| student_t_at(confidence, pairs));
        let difference = pairs.as_ref().map(|pairs| mean(pairs));
        let reference = self.values(0, measure).map(|values| mean(&values));
        let better = |difference: f64| (difference < 0.0) == what.kind.less_is_better();
        let evidence = match (difference, interval) {
            (None, _) | (_, None) => Evidence::Unmeasured,
            (Some(_), Some([low, high])) if low <= 0.0 && 0.0 <= high => Evidence::None,
            (Some(difference), Some(_)) if better(difference) => Evidence::Better,
            (Some(_), Some(_)) => Evidence::Worse,
        };
        Difference {
            candidate: name.to_owned(),
            class: self.class(what),
            measure: what.kind.name(),
            unit: unit(what),
            reference: reference.map(tidy),
            difference: difference.map(tidy),
            interval: interval.map(|interval| interval.map(tidy)),
            relative: difference.zip(reference).and_then(|(difference, reference)| {
                (reference > 0.0).then(|| tidy(difference / reference))
            }),
            evidence,
        }
    }

    fn class(&self, measure: Measure) -> String {
        let names = &self.cells[0].plan.names.classes;
        measure.class.map_or("all".to_owned(), |row| names[row].clone())
    }

    /// How many replications of all the stated precision takes; `None` if no more.
    fn wanted(&self) -> Option<u32> {
        let precision = self.settings.precision?;
        let done = self.done(0);
        let confidence = self.confidence_of_each();
        let width = |&(candidate, measure): &(usize, usize)| {
            let [low, high] = student_t_at(confidence, &self.pairs(candidate, measure)?)?;
            let reference = mean(&self.values(0, measure)?).abs();
            (high > low).then(|| (high - low) / 2.0 / reference.max(f64::MIN_POSITIVE))
        };
        let widest = self.comparisons().iter().filter_map(width).fold(0.0, f64::max);
        if widest <= precision.relative || done >= precision.most {
            return None;
        }
        let ratio = widest / precision.relative;
        let needed = (f64::from(done) * ratio * ratio).ceil().min(f64::from(done * 2)) as u32;
        Some(needed.clamp(done + 2, precision.most.max(done + 2)))
    }

    fn summary(&self, candidate: usize, name: &str) -> CandidateSummary {
        let cell = &self.cells[candidate];
        let value = |(index, measure): (usize, &Measure)| {
            let values = self.values(candidate, index);
            let estimate = Estimate {
                value: values.as_ref().map(|values| tidy(mean(values))),
                interval: values.as_deref().and_then(student_t).map(|both| both.map(tidy)),
                ..Estimate::default()
            };
            let class = measure.class.map(|row| cell.plan.names.classes[row].clone());
            MeasuredValue { class, measure: measure.kind.name(), unit: unit(*measure), estimate }
        };
        CandidateSummary {
            name: name.to_owned(),
            policy: cell.plan.policy.clone(),
            hash: cell.plan.scenario_hash.clone(),
            overloaded: self.overloaded(candidate),
            values: self.measures.iter().enumerate().map(value).collect(),
        }
    }

    fn overloaded(&self, candidate: usize) -> Vec<String> {
        let rows = &self.rows[candidate];
        let grows = |class: &usize| {
            rows.iter().filter(|row| row.overloaded.contains(class)).count() * 2 > rows.len()
        };
        let names = &self.cells[candidate].plan.names.classes;
        (0..names.len()).filter(grows).map(|class| names[class].clone()).collect()
    }

    fn method(&self, differences: &[Difference]) -> String {
        let count = differences.iter().filter(|one| one.interval.is_some()).count();
        format!(
            "paired differences under common random numbers, the mean over {} pairs of \
             replications; {count} Student-t intervals that hold together with 95 % (Bonferroni: \
             each at {:.2} %)",
            self.done(0),
            100.0 * self.confidence_of_each()
        )
    }

    fn notes(&self, names: &[String], replications: u32) -> Vec<String> {
        let mut notes = Vec::new();
        for (candidate, name) in names.iter().enumerate() {
            let classes = self.overloaded(candidate);
            if !classes.is_empty() {
                notes.push(format!(
                    "Under {name} the queue of {} grows for as long as requests arrive: its numbers \
                     describe this run and its length.",
                    classes.join(" and ")
                ));
            }
        }
        if replications < 5 {
            notes.push(format!(
                "{replications} replications say little: intervals are wide, and believe that \
                 differences are normal."
            ));
        }
        if self.cells[0].plan.has_trace {
            notes.push(
                "A trace is replayed: it is the same in every replication, so that intervals say \
                 nothing of other days."
                    .to_owned(),
            );
        }
        notes
    }

    /// The best by the score.
    fn best(&mut self, names: &[String]) -> Result<Best, StudyError> {
        let score = self.measures.len() - 1;
        let what = self.measures[score];
        // Larger is better for the procedure; a latency's zone is a part of the first one's.
        let sign = if what.kind.less_is_better() { -1.0 } else { 1.0 };
        let scale = match what.kind.is_share() {
            true => 1.0,
            false => self.values(0, score).map_or(1.0, |values| mean(&values).abs().max(1e-9)),
        };
        let selection = Selection {
            confidence: self.settings.confidence,
            indifference: self.settings.indifference * scale,
            first: self.settings.replications.max(2),
            step: 4,
            most: self.settings.selection_most.max(self.settings.replications),
        };
        let count = self.cells.len();
        let mut sample = |systems: &[usize], range: Range<u32>| {
            self.extend(systems, range.end)?;
            let of = |&system: &usize| {
                let rows = &self.rows[system][range.start as usize..range.end as usize];
                rows.iter().map(|row| sign * row.values[score].unwrap_or(0.0)).collect()
            };
            Ok::<_, StudyError>(systems.iter().map(of).collect())
        };
        let selected = select(count, &selection, &mut sample)?;
        Ok(told(&selected, &selection, (what, &self.cells[0].plan), names))
    }
}

fn told(
    selected: &Selected,
    selection: &Selection,
    (what, plan): (Measure, &plimsoll_report::Plan),
    names: &[String],
) -> Best {
    let score = what.name(plan);
    let zone = match what.kind.is_share() {
        true => plimsoll_report::comparison::points(selection.indifference, 0.0),
        false => plimsoll_report::comparison::span(selection.indifference, 0.0),
    };
    let left: Vec<String> = selected.left.iter().map(|&one| names[one].clone()).collect();
    let sentence = match selected.best {
        Some(best) => format!(
            "{} has the best {score} of {}, with a probability of {:.0} % if it leads by {zone} or \
             more (Kim and Nelson's procedure, {} replications).",
            names[best],
            names.len(),
            100.0 * selection.confidence,
            selected.replications
        ),
        None => format!(
            "After {} replications the best {score} is still open between {}: allow more \
             (--select-max), or a larger indifference zone than {zone} (--indifference).",
            selected.replications,
            left.join(" and ")
        ),
    };
    let screened =
        |&(one, after): &(usize, u32)| ScreenedOut { candidate: names[one].clone(), after };
    Best {
        score,
        candidate: selected.best.map(|best| names[best].clone()),
        confidence: selection.confidence,
        indifference: selection.indifference,
        replications: selected.replications,
        left,
        out: selected.out.iter().map(screened).collect(),
        sentence,
    }
}

fn unit(measure: Measure) -> Unit {
    if measure.kind.is_share() { Unit::Share } else { Unit::Seconds }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Nine significant digits.
fn tidy(x: f64) -> f64 {
    plimsoll_report::measure::tidy(x)
}
