//! Robust non-negative least squares, and the choice of the model by held-out error.
//!
//! Errors are relative: a row is divided by the time that is predicted for it, at first by the median
//! of its cell. (By its own measured time a step that seems to have taken next to none, because
//! tokens of two came at once, would weigh more than all others.) Outliers, which are steps that
//! somebody else interrupted, are weighted down as Huber (1964) does, by iterated reweighting; each
//! cell has the same weight, however often it was measured, and traffic has twice that of all cells. Its
//! steps count by the time that steps of their size take: that is what others wait for, and the few that
//! compute prompts are half of it. Coefficients may not be negative (a
//! step takes no less time for more work): the optimum is found by active sets, as Lawson and Hanson
//! (1974, chapter 23) do.

use plimsoll_sim::engine::after_rest;
use plimsoll_sim::model::{Affine, Curve, StepCostSpec};

use super::observation::{Feature, KNOTS, Observation, PREFILL_KNOTS, SEQUENCE_KNOTS};
use super::statistics::{deviation, median};

/// Huber's tuning constant: 95 % efficient where errors are normal.
const HUBER: f64 = 1.345;
/// A prediction below this part of its cell's median does not make a row weigh more.
const PREDICTED_LEAST: f64 = 0.3;
/// The part of `after_long_idle` that some cell has to feel, which is that of a rest of 0.45 s.
const LONG_REST: f64 = 0.1;
/// Reweightings at most; weights settle in a few.
const REWEIGHTINGS: usize = 12;
/// No coefficient moves by a larger part of itself where weights have settled.
const SETTLED: f64 = 1e-5;
/// Into how many parts cells and traffic are cut to be held out in turn.
const FOLDS: usize = 5;
/// A kind must err by this much less on held-out cells than those before it.
const BETTER: f64 = 0.95;
/// A held-out error at which more coefficients are of no use.
const ENOUGH: f64 = 1e-3;
/// What traffic weighs beside all cells.
const TRAFFIC_WEIGHT: f64 = 2.0;

/// A kind of step-time model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `base + prefill step + prefill + sequence + context + after prefill (any and long) +
    /// after idle (short and long)`, without attention pairs.
    Linear,
    /// The same with attention pairs.
    Affine,
    /// Affine, with what a step costs more that both decodes and computes prompts. (A curve of
    /// sequences begins with a jump, which says the same. Without told steps this and a request's cost
    /// together are the same as `prefill step`, but for prompts of several chunks.)
    Mixed,
    /// Affine, with a curve through knots for sequences.
    Batched,
    /// Affine, with a curve through knots for prefill and prefill step.
    Curved,
    /// With both curves.
    Tabled,
    /// Linear and quadratic in prompt tokens, sequences and context.
    Polynomial,
}

impl Kind {
    /// All kinds, those with fewer coefficients first; last the one that knows nothing of rests and of
    /// what is felt behind prompts.
    pub const ALL: [Kind; 7] = [
        Kind::Linear,
        Kind::Affine,
        Kind::Mixed,
        Kind::Batched,
        Kind::Curved,
        Kind::Tabled,
        Kind::Polynomial,
    ];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Linear => "affine without attention pairs",
            Kind::Affine => "affine",
            Kind::Mixed => "affine with mixed steps",
            Kind::Batched => "affine with a curve of sequences",
            Kind::Curved => "affine with a curve of prompt tokens",
            Kind::Tabled => "affine with curves of prompt tokens and sequences",
            Kind::Polynomial => "polynomial",
        }
    }

    /// Whether there are curves of prompt tokens and of sequences.
    const fn curves(self) -> [bool; 2] {
        match self {
            Kind::Linear | Kind::Affine | Kind::Mixed | Kind::Polynomial => [false, false],
            Kind::Batched => [false, true],
            Kind::Curved => [true, false],
            Kind::Tabled => [true, true],
        }
    }

    /// Places of its terms among the features.
    fn terms(self) -> Vec<usize> {
        use Feature::{
            AfterIdle, AfterLongIdle, AfterLongPrefill, AfterPrefill, Context, ContextSquare,
            MixedSteps, Pairs, Prefill, PrefillSquare, PrefillSteps, Requests, Sequences,
            SequencesSquare, Steps,
        };
        let [curve_of_prompts, curve_of_sequences] = self.curves();
        let mut named = vec![Steps, Context, Requests];
        if self == Kind::Polynomial {
            named.extend([Prefill, PrefillSquare, Sequences, SequencesSquare, ContextSquare]);
        } else {
            named.extend([AfterPrefill, AfterLongPrefill, AfterIdle, AfterLongIdle]);
            named.extend((self == Kind::Mixed).then_some(MixedSteps));
            named.extend([PrefillSteps, Prefill].iter().filter(|_| !curve_of_prompts));
            named.extend((!curve_of_sequences).then_some(Sequences));
            named.extend((self != Kind::Linear).then_some(Pairs));
        }
        let knots = KNOTS.into_iter().zip(self.curves()).filter(|(_, is_curve)| *is_curve);
        let named = named.into_iter().map(|feature| feature as usize);
        named.chain(knots.flat_map(|(knots, _)| knots)).collect()
    }
}

/// A fitted model.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// Its kind.
    pub kind: Kind,
    /// ns, indexed by [`Feature`], and of the knots; 0 where the kind has no such term.
    pub coefficients: [f64; Feature::COUNT],
    /// How many knots of each curve were reached.
    knots: [usize; 2],
    /// The mean over cells and traffic of the relative error of a cell's median, fitted to that cell
    /// too.
    pub residual: f64,
    /// The same, each cell predicted by a fit to others, and steps of traffic by a fit to other steps.
    pub held_out: f64,
    /// The held-out error of each kind that was tried.
    pub tried: Vec<(Kind, f64)>,
}

impl Fit {
    /// Predicts an observation, in ns.
    pub fn predict(&self, observation: &Observation) -> f64 {
        predict(&self.coefficients, observation)
    }

    /// What a request costs beside steps, in ns.
    pub fn request(&self) -> f64 {
        self.coefficients[Feature::Requests as usize]
    }

    /// The curves of prompt tokens and of sequences.
    fn curves(&self) -> [Curve; 2] {
        [0, 1].map(|which| {
            if !self.kind.curves()[which] {
                return Curve::NONE;
            }
            let knots = [&PREFILL_KNOTS[..], &SEQUENCE_KNOTS][which];
            let nanos = self.coefficients[KNOTS[which].clone()].iter().copied();
            let points = knots.iter().copied().zip(nanos);
            let points: Vec<(u32, f64)> = points.take(self.knots[which]).collect();
            Curve::through(&points).expect("knots rise, and no coefficient is negative")
        })
    }

    /// As the simulator takes it.
    pub fn step_cost(&self) -> StepCostSpec {
        let at = |feature: Feature| self.coefficients[feature as usize];
        if self.kind == Kind::Polynomial {
            return StepCostSpec::Polynomial {
                base: at(Feature::Steps),
                prefill: [at(Feature::Prefill), at(Feature::PrefillSquare)],
                sequence: [at(Feature::Sequences), at(Feature::SequencesSquare)],
                context: [at(Feature::Context), at(Feature::ContextSquare)],
            };
        }
        let [prefill_curve, sequence_curve] = self.curves();
        StepCostSpec::Affine {
            terms: Affine {
                base: at(Feature::Steps),
                prefill_step: at(Feature::PrefillSteps),
                mixed_step: at(Feature::MixedSteps),
                prefill: at(Feature::Prefill),
                sequence: at(Feature::Sequences),
                context: at(Feature::Context),
                pair: at(Feature::Pairs),
                after_prefill: at(Feature::AfterPrefill),
                after_long_prefill: at(Feature::AfterLongPrefill),
                after_idle: at(Feature::AfterIdle),
                after_long_idle: at(Feature::AfterLongIdle),
            },
            prefill_curve,
            sequence_curve,
        }
    }
}

/// Fits every kind, and keeps the one that errs least on cells that it was not fitted to.
///
/// # Errors
/// What is missing, where there are too few observations or cells.
pub fn fit(observations: &[Observation]) -> Result<Fit, String> {
    let cells = cells_of(observations);
    if cells.len() < FOLDS {
        return Err(format!("{} cells of the plan gave a time, {FOLDS} are needed", cells.len()));
    }
    let mut tried = Vec::new();
    let mut best: Option<(Kind, f64)> = None;
    for kind in Kind::ALL {
        let held_out = held_out(kind, observations, &cells);
        tried.push((kind, held_out));
        if best.is_none_or(|(_, least)| held_out < least * BETTER && least > ENOUGH) {
            best = Some((kind, held_out));
        }
    }
    let (kind, held_out) = best.expect("there are kinds");
    let coefficients = solve(kind, observations);
    let residual = error(&coefficients, observations);
    let is_reached = |knot: &usize| observations.iter().any(|one| one.sums[*knot] > 0.0);
    let knots = KNOTS.map(|knots| {
        let first = knots.start;
        knots.rev().find(is_reached).map_or(0, |last| last + 1 - first)
    });
    Ok(Fit { kind, coefficients, knots, residual, held_out, tried })
}

/// The error on what a fit was not made of: whole cells, and single steps of traffic, of which there
/// are as many of every size as there will be when the profile is used. Of what a long rest costs one
/// cell or two tell; without them no kind would know of it, so single times of those are held out too.
fn held_out(kind: Kind, observations: &[Observation], cells: &[usize]) -> f64 {
    let mut sum = 0.0;
    for fold in 0..FOLDS {
        let is_held = |(index, one): &(usize, &Observation)| match one.traffic || rested_long(one) {
            true => index % FOLDS == fold,
            false => cells.binary_search(&one.cell).is_ok_and(|place| place % FOLDS == fold),
        };
        let (held, fitted_to): (Vec<_>, Vec<_>) =
            observations.iter().enumerate().partition(is_held);
        let [held, fitted_to] = [held, fitted_to]
            .map(|part| part.into_iter().map(|(_, one)| *one).collect::<Vec<Observation>>());
        sum += error(&solve(kind, &fitted_to), &held);
    }
    sum / FOLDS as f64
}

/// What rests cost, for `after_idle` and `after_long_idle`, of cells that rested for so many ns and
/// took so many ns longer.
pub(super) fn of_rests(cells: &[(u64, f64)]) -> [f64; 2] {
    let knows_long = cells.iter().any(|(rest, _)| after_rest(*rest)[1] >= LONG_REST);
    let row = |(rest, longer): &(u64, f64)| {
        let [short, long] = after_rest(*rest);
        ([short, if knows_long { long } else { 0.0 }], *longer)
    };
    let rows: Vec<_> = cells.iter().map(row).collect();
    let least = 0.1 * cells.iter().map(|(_, longer)| *longer).fold(1.0, f64::max);
    let weights: Vec<f64> = cells.iter().map(|(_, longer)| longer.max(least).powi(-2)).collect();
    let found = nonnegative(&rows, &weights);
    [0, 1].map(|term| found.get(term).copied().unwrap_or(0.0))
}

/// Whether it tells what a long rest costs.
fn rested_long(one: &Observation) -> bool {
    !one.traffic && one.sums[Feature::AfterLongIdle as usize] >= LONG_REST
}

/// The cells that there are observations of, in order.
fn cells_of(observations: &[Observation]) -> Vec<usize> {
    let mut cells: Vec<usize> = observations.iter().map(|one| one.cell).collect();
    cells.sort_unstable();
    cells.dedup();
    cells
}

/// The mean over cells of the relative error at the cell's median; sizes of traffic count by the time
/// that their steps take, as in the fit.
fn error(coefficients: &[f64; Feature::COUNT], observations: &[Observation]) -> f64 {
    let weights = weights(observations, &cell_medians(observations));
    let [mut sum, mut of_all] = [0.0; 2];
    for cell in cells_of(observations) {
        let of_cell = observations.iter().zip(&weights).filter(|(one, _)| one.cell == cell);
        let weight: f64 = of_cell.map(|(_, weight)| weight).sum();
        sum += weight * cell_error(coefficients, observations, cell).abs();
        of_all += weight;
    }
    sum / of_all.max(f64::MIN_POSITIVE)
}

/// The median of the relative errors of a cell's observations: positive where the model is slow.
fn cell_error(
    coefficients: &[f64; Feature::COUNT],
    observations: &[Observation],
    cell: usize,
) -> f64 {
    let of_cell = observations.iter().filter(|one| one.cell == cell);
    let errors: Vec<f64> =
        of_cell.map(|one| predict(coefficients, one) / one.nanos - 1.0).collect();
    median(&errors)
}

impl Fit {
    /// The relative error of a cell: positive where the model is slow.
    pub fn error_of(&self, observations: &[Observation], cell: usize) -> f64 {
        cell_error(&self.coefficients, observations, cell)
    }
}

fn predict(coefficients: &[f64; Feature::COUNT], observation: &Observation) -> f64 {
    coefficients.iter().zip(&observation.sums).map(|(each, sum)| each * sum).sum()
}

/// What each observation counts, whose cell usually takes so long.
fn weights(observations: &[Observation], usual: &[f64]) -> Vec<f64> {
    let mut counts = std::collections::BTreeMap::new();
    for one in observations.iter().filter(|one| !one.traffic) {
        *counts.entry(one.cell).or_insert(0.0) += 1.0;
    }
    let steps = observations.iter().zip(usual).filter(|(one, _)| one.traffic);
    let time: f64 = steps.map(|(_, usual)| usual).sum();
    let of_traffic = TRAFFIC_WEIGHT * counts.len().max(1) as f64 / time.max(1.0);
    let weight = |(one, usual): (&Observation, &f64)| match one.traffic {
        true => of_traffic * usual,
        false => 1.0 / counts[&one.cell],
    };
    observations.iter().zip(usual).map(weight).collect()
}

/// The robust non-negative fit of one kind.
fn solve(kind: Kind, observations: &[Observation]) -> [f64; Feature::COUNT] {
    let mut terms = kind.terms();
    // What long rests cost is not guessed from short ones.
    if !observations.iter().any(rested_long) {
        terms.retain(|term| *term != Feature::AfterLongIdle as usize);
    }
    let usual = cell_medians(observations);
    // Columns of about the same size, so that the normal equations keep their digits.
    let scales: Vec<f64> = terms
        .iter()
        .map(|term| {
            let sizes = observations.iter().zip(&usual).map(|(one, usual)| one.sums[*term] / usual);
            sizes.fold(0.0, f64::max)
        })
        .collect();
    let cell_weights = weights(observations, &usual);
    let mut weights = cell_weights.clone();
    let mut predicted = usual.clone();
    let mut coefficients = [0.0; Feature::COUNT];
    for _ in 0..REWEIGHTINGS {
        let row = |(one, predicted): (&Observation, &f64)| {
            let scaled = terms.iter().zip(&scales).map(|(term, scale)| match *scale > 0.0 {
                true => one.sums[*term] / predicted / scale,
                false => 0.0,
            });
            (scaled.collect(), one.nanos / predicted)
        };
        let rows: Vec<Row> = observations.iter().zip(&predicted).map(row).collect();
        let found = nonnegative(&rows, &weights);
        let before = coefficients;
        for ((term, scale), value) in terms.iter().zip(&scales).zip(&found) {
            if *scale > 0.0 {
                coefficients[*term] = value / scale;
            }
        }
        let moved = |(now, before): (&f64, &f64)| (now - before).abs() > SETTLED * now.abs();
        if !coefficients.iter().zip(&before).any(moved) {
            break;
        }
        let residuals: Vec<f64> = rows.iter().map(|(row, took)| dot(row, &found) - took).collect();
        let limit = (HUBER * deviation(&residuals)).max(1e-9);
        for ((weight, cell), residual) in weights.iter_mut().zip(&cell_weights).zip(&residuals) {
            *weight = cell * (limit / residual.abs()).min(1.0);
        }
        for ((predicted, one), usual) in predicted.iter_mut().zip(observations).zip(&usual) {
            *predicted = predict(&coefficients, one).max(PREDICTED_LEAST * usual);
        }
    }
    coefficients
}

/// Of each observation the median time of its cell, at least 1 ns.
fn cell_medians(observations: &[Observation]) -> Vec<f64> {
    let mut times = std::collections::BTreeMap::<usize, Vec<f64>>::new();
    for one in observations {
        times.entry(one.cell).or_default().push(one.nanos);
    }
    let medians: std::collections::BTreeMap<usize, f64> =
        times.into_iter().map(|(cell, times)| (cell, median(&times).max(1.0))).collect();
    observations.iter().map(|one| medians[&one.cell]).collect()
}

/// What was computed, and the time that it took, as parts of what is predicted.
type Row = (Vec<f64>, f64);

/// The normal equations of the weighted least squares problem `computed · x = took`.
fn normal<R: AsRef<[f64]>>(rows: &[(R, f64)], weights: &[f64]) -> (Vec<Vec<f64>>, Vec<f64>) {
    let terms = rows.first().map_or(0, |(row, _)| row.as_ref().len());
    let mut matrix = vec![vec![0.0; terms]; terms];
    let mut right = vec![0.0; terms];
    for ((row, took), weight) in rows.iter().zip(weights) {
        let row = row.as_ref();
        for i in (0..terms).filter(|term| row[*term] != 0.0) {
            let weighted = weight * row[i];
            right[i] += weighted * took;
            for (sum, other) in matrix[i].iter_mut().zip(row) {
                *sum += weighted * other;
            }
        }
    }
    (matrix, right)
}

/// The non-negative weighted least squares solution of `computed · x = took`.
pub(crate) fn nonnegative<R: AsRef<[f64]>>(rows: &[(R, f64)], weights: &[f64]) -> Vec<f64> {
    let (matrix, right) = normal(rows, weights);
    let terms = right.len();
    let least = 1e-10 * right.iter().copied().fold(0.0, f64::max);
    let mut x = vec![0.0; terms];
    // Terms that may be positive, and terms that turned out to depend on those.
    let (mut chosen, mut refused) = (Vec::new(), vec![false; terms]);
    // Each round lowers the loss; the limit is for rounding.
    for _ in 0..30 * terms {
        let gain = |term: usize| right[term] - dot(&matrix[term], &x);
        let open = (0..terms).filter(|term| !chosen.contains(term) && !refused[*term]);
        let open = open.filter(|term| gain(*term) > least);
        let Some(term) = open.max_by(|a, b| gain(*a).total_cmp(&gain(*b))) else { break };
        chosen.push(term);
        while let Some(part) = cholesky(&matrix, &right, &chosen) {
            // As far towards the optimum of the chosen as none becomes negative.
            let until = |at: usize| match part[at] > 0.0 {
                true => 1.0,
                false => x[chosen[at]] / (x[chosen[at]] - part[at]),
            };
            let first = (0..part.len()).min_by(|a, b| until(*a).total_cmp(&until(*b)));
            let first = first.expect("one was chosen");
            let step = until(first);
            for (term, part) in chosen.iter().zip(&part) {
                x[*term] += step * (part - x[*term]);
            }
            if step >= 1.0 {
                break;
            }
            x[chosen.remove(first)] = 0.0;
        }
        // It gives nothing beside the others: it depends on them, up to rounding.
        if x[term] <= 0.0 {
            chosen.retain(|it| *it != term);
            refused[term] = true;
        }
    }
    x
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Solves the equations of the chosen terms; `None` where they depend on each other.
fn cholesky(matrix: &[Vec<f64>], right: &[f64], chosen: &[usize]) -> Option<Vec<f64>> {
    let n = chosen.len();
    let mut lower = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let done: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
            let rest = matrix[chosen[i]][chosen[j]] - done;
            if i == j {
                if rest <= 1e-12 * matrix[chosen[i]][chosen[i]] {
                    return None;
                }
                lower[i][i] = rest.sqrt();
            } else {
                lower[i][j] = rest / lower[j][j];
            }
        }
    }
    let mut x = vec![0.0; n];
    for i in 0..n {
        let done: f64 = (0..i).map(|k| lower[i][k] * x[k]).sum();
        x[i] = (right[chosen[i]] - done) / lower[i][i];
    }
    for i in (0..n).rev() {
        let done: f64 = (i + 1..n).map(|k| lower[k][i] * x[k]).sum();
        x[i] = (x[i] - done) / lower[i][i];
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use plimsoll_base::{Stream, StreamKey};
    use plimsoll_sim::engine::{BatchShape, Behind};

    use super::*;

    /// What prompts of a length that differs from cell to cell leave, in 2⁻¹⁶.
    fn cold(cell: usize) -> u32 {
        [4_000, 20_000, 45_000][cell % 3]
    }

    /// Observations of a known model, each time changed by `noise`.
    fn observed(
        truth: &[f64; Feature::COUNT],
        mut noise: impl FnMut(usize) -> f64,
    ) -> Vec<Observation> {
        let mut found = Vec::new();
        let mut cell = 0;
        let shapes = [(0, 1), (16, 0), (100, 0), (512, 0), (2_048, 0), (64, 8), (512, 8), (0, 4)]
            .into_iter()
            .chain([(0, 16), (0, 64), (1_024, 32)]);
        for (prefill, sequences) in shapes {
            for context in [20, 300, 1_000] {
                cell += 1;
                for behind in 0..9 {
                    let mut one = Observation::of(cell);
                    one.add(BatchShape {
                        prefill,
                        pairs: prefill * (prefill + 1) / 2,
                        sequences,
                        context: context * sequences,
                        idle: if sequences == 0 { 20_000_000 << behind } else { 0 },
                        behind: match prefill {
                            0 => Behind { steps: behind % 5, cold: cold(cell) >> (behind % 5) },
                            _ => Behind::default(),
                        },
                    });
                    // Some are later chunks of a prompt: else a request costs what a prompt costs less
                    // beside others.
                    let is_request = sequences == 0 && behind % 3 > 0;
                    one.sums[Feature::Requests as usize] = f64::from(is_request);
                    one.nanos = predict(truth, &one) * noise(found.len());
                    found.push(one);
                }
            }
        }
        found
    }

    /// A step of a known model.
    fn step(truth: &[f64; Feature::COUNT], cell: usize, shape: BatchShape) -> Observation {
        let mut one = Observation::of(cell);
        one.add(shape);
        Observation { nanos: predict(truth, &one), ..one }
    }

    fn draws() -> Stream {
        Stream::new(StreamKey { seed: 1, replication: 0, name: "fit", entity: 0 })
    }

    const AFFINE: [f64; Feature::COUNT] = without_knots([
        8e6, 1e6, 5e6, 3e4, 0.0, 4e4, 0.0, 100.0, 0.0, 20.0, 3e6, 4e6, 5e6, 9e6, 2e6,
    ]);
    const POLYNOMIAL: [f64; Feature::COUNT] = without_knots([
        8e6, 0.0, 0.0, 3e4, 9.0, 4e4, 800.0, 100.0, 1e-3, 0.0, 0.0, 0.0, 0.0, 0.0, 2e6,
    ]);

    const fn without_knots(named: [f64; Feature::NAMED]) -> [f64; Feature::COUNT] {
        let mut all = [0.0; Feature::COUNT];
        let mut at = 0;
        while at < named.len() {
            all[at] = named[at];
            at += 1;
        }
        all
    }

    fn furthest(fit: &Fit, truth: &[f64; Feature::COUNT]) -> f64 {
        let away = fit.coefficients.iter().zip(truth).map(|(found, truth)| match *truth > 0.0 {
            true => (found / truth - 1.0).abs(),
            false => found.abs(),
        });
        away.fold(0.0, f64::max)
    }

    #[test]
    fn what_made_exact_times_is_found_again() {
        for (truth, kind) in [(AFFINE, Kind::Mixed), (POLYNOMIAL, Kind::Polynomial)] {
            let fit = fit(&observed(&truth, |_| 1.0)).expect("there is enough");
            assert_eq!(fit.kind, kind, "{:?}", fit.tried);
            assert!(furthest(&fit, &truth) < 1e-3, "{fit:?}");
            assert!(fit.held_out < 1e-4, "{fit:?}");
        }
        let mut linear = AFFINE;
        for feature in [Feature::Pairs, Feature::MixedSteps] {
            linear[feature as usize] = 0.0;
        }
        let fit = fit(&observed(&linear, |_| 1.0)).expect("there is enough");
        assert_eq!(fit.kind, Kind::Linear, "fewer coefficients where they do as well");
    }

    #[test]
    fn what_one_cell_alone_tells_of_long_rests_is_no_error_of_those_who_know_of_rests() {
        let mut all = observed(&AFFINE, |_| 1.0);
        all.retain(|one| rested_long(one) == (one.cell == 4));
        let fit = fit(&all).expect("there is enough");
        assert_eq!(fit.kind, Kind::Mixed, "{:?}", fit.tried);
        assert!(fit.held_out < 1e-3 && furthest(&fit, &AFFINE) < 1e-3, "{fit:?}");
    }

    #[test]
    fn what_rests_cost_is_found_as_far_as_cells_have_rested() {
        let cell = |millis: u64| {
            let idle = millis * 1_000_000;
            let [short, long] = BatchShape { idle, ..BatchShape::default() }.after_idle();
            (idle, 1e6 * short + 8e6 * long)
        };
        let near = |found: f64, wanted: f64| (found / wanted - 1.0).abs() < 1e-6;
        let [short, long] = of_rests(&[20, 60, 200, 1_000, 2_000].map(cell));
        assert!(near(short, 1e6) && near(long, 8e6), "{short} {long}");
        let [short, long] = of_rests(&[20, 60, 200].map(cell));
        assert!((1e6..1.7e6).contains(&short) && long == 0.0, "not guessed: {short} {long}");
        assert_eq!(of_rests(&[]), [0.0; 2]);
    }

    #[test]
    fn traffic_counts_by_its_time_and_twice_as_much_as_cells() {
        let of = |cell, traffic, nanos| Observation { traffic, nanos, ..Observation::of(cell) };
        let mut all = vec![of(0, false, 5.0), of(0, false, 6.0), of(1, false, 7.0)];
        all.push(of(2, true, 90.0));
        // One of ten was interrupted and weighs no more for it.
        all.extend((0..10).map(|step| of(3, true, if step == 4 { 400.0 } else { 9.0 })));
        let weights = weights(&all, &cell_medians(&all));
        assert_eq!(weights[..3], [0.5, 0.5, 1.0]);
        let near = |sum: f64, wanted: f64| (sum - wanted).abs() < 1e-9;
        assert!(near(weights[3], 2.0) && near(weights[4..].iter().sum(), 2.0), "{weights:?}");
        assert!(near(weights[4], weights[8]), "{weights:?}");
    }

    #[test]
    fn a_curve_is_found_where_no_line_fits() {
        let mut truth = AFFINE;
        for feature in [Feature::PrefillSteps, Feature::Prefill, Feature::MixedSteps] {
            truth[feature as usize] = 0.0;
        }
        let curve = [5e6, 6e6, 15e6, 16e6, 17e6, 18e6, 30e6, 52e6, 100e6, 500e6];
        truth[KNOTS[0].clone()].copy_from_slice(&curve);
        let mut all = observed(&truth, |_| 1.0);
        // Traffic reaches the knots between.
        let cells = all.len();
        for prefill in 16..300 {
            let shape = BatchShape { prefill, sequences: 2, context: 300, ..Default::default() };
            all.push(step(&truth, cells + prefill as usize, shape));
        }
        let fit = fit(&all).expect("there is enough");
        assert_eq!(fit.kind, Kind::Curved, "{:?}", fit.tried);
        assert!(fit.residual < 1e-3, "{fit:?}");
        let StepCostSpec::Affine { prefill_curve, .. } = fit.step_cost() else { panic!("{fit:?}") };
        assert_eq!(prefill_curve.points().count(), PREFILL_KNOTS.len());
        for ((_, found), wanted) in prefill_curve.points().zip(curve) {
            assert!((found / wanted - 1.0).abs() < 0.02, "{prefill_curve:?}");
        }
    }

    #[test]
    fn a_curve_where_prompts_are_short_is_found_beside_single_long_prompts() {
        // Up to 63 tokens one way to compute them, from 64 on another, which is faster.
        let token = |prefill: u64| if prefill < 64 { 320e3 } else { 200e3 };
        let observe = |cell: usize, traffic: bool, shape: BatchShape| {
            let beside = step(&AFFINE, cell, BatchShape { prefill: 0, pairs: 0, ..shape }).nanos;
            let nanos = beside + token(shape.prefill) * shape.prefill as f64;
            Observation { traffic, nanos, ..step(&AFFINE, cell, shape) }
        };
        let mut all = Vec::new();
        for (cell, prefill) in [19, 45, 119, 247, 503, 1_015, 2_039].into_iter().enumerate() {
            let shape = BatchShape { prefill, ..BatchShape::default() };
            all.extend([(); 3].map(|()| observe(cell, false, shape)));
        }
        for (cell, sequences) in (7..).zip([1, 2, 4, 8]) {
            for context in [20, 140, 530].map(|context| context * sequences) {
                let shape = BatchShape { sequences, context, ..BatchShape::default() };
                all.extend([(); 3].map(|()| observe(cell, false, shape)));
            }
        }
        for prefill in (16..300).step_by(3) {
            let sequences = 1 + prefill % 7;
            let context = 150 * sequences;
            let shape = BatchShape { prefill, sequences, context, ..BatchShape::default() };
            all.push(observe(20 + prefill.ilog2() as usize, true, shape));
            all.push(observe(40, true, BatchShape { prefill: 0, ..shape }));
        }
        let fit = fit(&all).expect("there is enough");
        assert!(fit.kind.curves()[0], "{:?}", fit.tried);
        for prefill in [20, 40, 100, 2_039] {
            let one = observe(0, true, BatchShape { prefill, ..BatchShape::default() });
            let error = fit.predict(&one) / one.nanos - 1.0;
            assert!(error.abs() < 0.05, "{prefill}: {error} {:?}", fit.tried);
        }
    }

    #[test]
    fn a_curve_of_sequences_is_found_where_no_line_fits() {
        let mut truth = AFFINE;
        truth[Feature::Sequences as usize] = 0.0;
        // Batches of up to 4 are computed as 4, of up to 8 as 8, larger ones in parts.
        let curve = [4e6, 4e6, 4e6, 4e6, 9e6, 9e6, 18e6, 18e6, 36e6, 72e6, 144e6];
        truth[KNOTS[1].clone()].copy_from_slice(&curve);
        let mut all = observed(&truth, |_| 1.0);
        let cells = all.len();
        for sequences in 1..40 {
            let context = 50 * sequences + 7 * (sequences % 5);
            let shape = BatchShape { sequences, context, ..Default::default() };
            all.push(step(&truth, cells + sequences as usize, shape));
        }
        let fit = fit(&all).expect("there is enough");
        assert!(fit.kind.curves()[1], "{:?}", fit.tried);
        assert!(fit.residual < 1e-3, "{fit:?}");
        // Of a step with so many sequences, and nothing to remember.
        let error = |sequences: u64| {
            let shape = BatchShape { sequences, context: 1_000, ..Default::default() };
            let one = step(&truth, 0, shape);
            (fit.predict(&one) / one.nanos - 1.0).abs()
        };
        assert!((1..64).all(|sequences| error(sequences) < 1e-3), "{fit:?}");
    }

    #[test]
    fn the_nonnegative_optimum_is_that_of_all_sets_of_terms() {
        let mut stream = draws();
        for case in 0..200 {
            let terms = 2 + stream.below(5) as usize;
            let mut row = || (0..terms).map(|_| stream.uniform() - 0.4).collect::<Vec<f64>>();
            let rows: Vec<Row> = (0..20).map(|_| (row(), 1.0)).collect();
            let weights = vec![1.0; rows.len()];
            let loss = |x: &[f64]| -> f64 {
                rows.iter().map(|(row, took)| (dot(row, x) - took).powi(2)).sum()
            };
            let (matrix, right) = normal(&rows, &weights);
            let mut best = f64::from(rows.len() as u32);
            for set in 1..1u32 << terms {
                let chosen: Vec<usize> = (0..terms).filter(|term| set >> term & 1 == 1).collect();
                let Some(part) = cholesky(&matrix, &right, &chosen) else { continue };
                if part.iter().all(|value| *value >= 0.0) {
                    let mut x = vec![0.0; terms];
                    chosen.iter().zip(part).for_each(|(term, value)| x[*term] = value);
                    best = best.min(loss(&x));
                }
            }
            let found = nonnegative(&rows, &weights);
            assert!(found.iter().all(|value| *value >= 0.0), "case {case}: {found:?}");
            let loss = loss(&found);
            assert!(loss <= best * (1.0 + 1e-9), "case {case}: {loss} for {best}");
        }
    }

    #[test]
    fn interrupted_steps_change_little() {
        let mut stream = draws();
        // One time in five is up to four times as long; all wobble by 2 %.
        let noise = |_| {
            let late = if stream.below(5) == 0 { 1.0 + 3.0 * stream.uniform() } else { 1.0 };
            late * (1.0 + 0.02 * (stream.uniform() - 0.5))
        };
        let fit = fit(&observed(&AFFINE, noise)).expect("there is enough");
        assert_eq!(fit.kind, Kind::Mixed, "{:?}", fit.tried);
        assert!(furthest(&fit, &AFFINE) < 0.1, "{fit:?}");
    }

    #[test]
    fn steps_that_seem_to_have_taken_nothing_change_little() {
        let mut stream = draws();
        // Tokens of two steps came at once: the second took next to nothing.
        let noise = |_| {
            let wobble = 1.0 + 0.02 * (stream.uniform() - 0.5);
            if stream.below(50) == 0 { 1e-4 } else { wobble }
        };
        let fit = fit(&observed(&AFFINE, noise)).expect("there is enough");
        assert_eq!(fit.kind, Kind::Mixed, "{:?}", fit.tried);
        assert!(furthest(&fit, &AFFINE) < 0.1, "{fit:?}");
    }

    #[test]
    fn no_coefficient_is_negative_whatever_the_noise() {
        let mut stream = draws();
        for _ in 0..20 {
            let fit = fit(&observed(&AFFINE, |_| 0.1 + 2.0 * stream.uniform())).expect("enough");
            assert!(fit.coefficients.iter().all(|each| *each >= 0.0), "{fit:?}");
        }
    }

    #[test]
    fn too_few_cells_are_told() {
        let few: Vec<_> = observed(&AFFINE, |_| 1.0).into_iter().filter(|o| o.cell < 4).collect();
        assert_eq!(fit(&few), Err("3 cells of the plan gave a time, 5 are needed".into()));
    }
}
