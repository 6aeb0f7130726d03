//! Robust non-negative least squares, and the choice of the model by held-out error.
//!
//! Errors are relative: a row is divided by its measured time. Outliers, which are steps that
//! somebody else interrupted, are weighted down as Huber (1964) does, by iterated reweighting; each
//! cell has the same weight, however often it was measured, and traffic, whose steps count the same,
//! has twice that of all cells. Coefficients may not be negative (a
//! step takes no less time for more work): with as few as there are, the optimum is found by
//! trying every set of coefficients that may be positive (the active sets of Lawson and Hanson
//! 1974, chapter 23, all of them).

use plimsoll_sim::model::StepCostSpec;

use super::observation::{Feature, Observation};
use super::statistics::{deviation, median};

/// Huber's tuning constant: 95 % efficient where errors are normal.
const HUBER: f64 = 1.345;
/// Reweightings; weights settle in a few.
const REWEIGHTINGS: usize = 12;
/// Into how many parts cells are cut to be held out in turn.
const FOLDS: usize = 5;
/// A kind with more coefficients must err by this much less on held-out cells.
const BETTER: f64 = 0.9;
/// What traffic weighs beside all cells.
const TRAFFIC_WEIGHT: f64 = 2.0;
/// The most coefficients a kind has.
const TERMS_MAX: usize = 9;

/// A kind of step-time model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `base + prefill step + prefill + sequence + context + after prefill + after idle`, without
    /// attention pairs.
    Linear,
    /// `base + prefill step + prefill + sequence + context + pair + after prefill + after idle`.
    Affine,
    /// Linear and quadratic in prompt tokens, sequences and context.
    Polynomial,
}

impl Kind {
    /// All kinds, those with fewer coefficients first.
    pub const ALL: [Kind; 3] = [Kind::Linear, Kind::Affine, Kind::Polynomial];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Linear => "affine without attention pairs",
            Kind::Affine => "affine",
            Kind::Polynomial => "polynomial",
        }
    }

    fn features(self) -> &'static [Feature] {
        use Feature::{
            AfterIdle, AfterPrefill, Context, ContextSquare, Pairs, Prefill, PrefillSquare,
            PrefillSteps, Requests, Sequences, SequencesSquare, Steps,
        };
        match self {
            Kind::Linear => &[
                Steps,
                PrefillSteps,
                Prefill,
                Sequences,
                Context,
                AfterPrefill,
                AfterIdle,
                Requests,
            ],
            Kind::Affine => &[
                Steps,
                PrefillSteps,
                Prefill,
                Sequences,
                Context,
                Pairs,
                AfterPrefill,
                AfterIdle,
                Requests,
            ],
            Kind::Polynomial => &[
                Steps,
                Prefill,
                PrefillSquare,
                Sequences,
                SequencesSquare,
                Context,
                ContextSquare,
                Requests,
            ],
        }
    }
}

/// A fitted model.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// Its kind.
    pub kind: Kind,
    /// ns, indexed by [`Feature`]; 0 where the kind has no such term.
    pub coefficients: [f64; Feature::COUNT],
    /// The mean over cells of the relative error of a cell's median, fitted to that cell too.
    pub residual: f64,
    /// The same, each cell predicted by a fit to others.
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

    /// As the simulator takes it.
    pub fn step_cost(&self) -> StepCostSpec {
        let at = |feature: Feature| self.coefficients[feature as usize];
        match self.kind {
            Kind::Linear | Kind::Affine => StepCostSpec::Affine {
                base: at(Feature::Steps),
                prefill_step: at(Feature::PrefillSteps),
                prefill: at(Feature::Prefill),
                sequence: at(Feature::Sequences),
                context: at(Feature::Context),
                pair: at(Feature::Pairs),
                after_prefill: at(Feature::AfterPrefill),
                after_idle: at(Feature::AfterIdle),
            },
            Kind::Polynomial => StepCostSpec::Polynomial {
                base: at(Feature::Steps),
                prefill: [at(Feature::Prefill), at(Feature::PrefillSquare)],
                sequence: [at(Feature::Sequences), at(Feature::SequencesSquare)],
                context: [at(Feature::Context), at(Feature::ContextSquare)],
            },
        }
    }
}

/// Fits every kind, and keeps the one that errs least on cells that it was not fitted to.
///
/// # Errors
/// What is missing, where there are too few observations or cells.
pub fn fit(observations: &[Observation]) -> Result<Fit, String> {
    let mut cells: Vec<usize> = observations.iter().map(|one| one.cell).collect();
    cells.sort_unstable();
    cells.dedup();
    if cells.len() < FOLDS {
        return Err(format!("{} cells of the plan gave a time, {FOLDS} are needed", cells.len()));
    }
    let mut tried = Vec::new();
    let mut best: Option<(Kind, f64)> = None;
    for kind in Kind::ALL {
        let held_out = held_out(kind, observations, &cells);
        tried.push((kind, held_out));
        if best.is_none_or(|(_, least)| held_out < least * BETTER) {
            best = Some((kind, held_out));
        }
    }
    let (kind, held_out) = best.expect("there are kinds");
    let coefficients = solve(kind, observations);
    let residual = error(&coefficients, observations, &cells);
    Ok(Fit { kind, coefficients, residual, held_out, tried })
}

fn held_out(kind: Kind, observations: &[Observation], cells: &[usize]) -> f64 {
    let mut sum = 0.0;
    for fold in 0..FOLDS {
        let held: Vec<usize> = cells.iter().copied().skip(fold).step_by(FOLDS).collect();
        let fitted_to: Vec<Observation> =
            observations.iter().filter(|one| !held.contains(&one.cell)).copied().collect();
        let coefficients = solve(kind, &fitted_to);
        sum += error(&coefficients, observations, &held) * held.len() as f64;
    }
    sum / cells.len() as f64
}

/// The mean over cells of the relative error at the cell's median.
fn error(
    coefficients: &[f64; Feature::COUNT],
    observations: &[Observation],
    cells: &[usize],
) -> f64 {
    let sum: f64 =
        cells.iter().map(|cell| cell_error(coefficients, observations, *cell).abs()).sum();
    sum / cells.len() as f64
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

/// What each observation counts.
fn weights(observations: &[Observation]) -> Vec<f64> {
    let mut counts = std::collections::BTreeMap::new();
    for one in observations.iter().filter(|one| !one.traffic) {
        *counts.entry(one.cell).or_insert(0.0) += 1.0;
    }
    let steps = observations.iter().filter(|one| one.traffic).count();
    let of_traffic = TRAFFIC_WEIGHT * counts.len().max(1) as f64 / steps.max(1) as f64;
    let weight = |one: &Observation| if one.traffic { of_traffic } else { 1.0 / counts[&one.cell] };
    observations.iter().map(weight).collect()
}

/// The robust non-negative fit of one kind.
fn solve(kind: Kind, observations: &[Observation]) -> [f64; Feature::COUNT] {
    let features = kind.features();
    // Columns of about the same size, so that the normal equations keep their digits.
    let scales: Vec<f64> = features
        .iter()
        .map(|feature| {
            let sizes = observations.iter().map(|one| one.sums[*feature as usize] / one.nanos);
            sizes.fold(0.0, f64::max)
        })
        .collect();
    let rows: Vec<Vec<f64>> = observations
        .iter()
        .map(|one| {
            let scaled = features.iter().zip(&scales).map(|(feature, scale)| match *scale > 0.0 {
                true => one.sums[*feature as usize] / one.nanos / scale,
                false => 0.0,
            });
            scaled.collect()
        })
        .collect();
    let cell_weights = weights(observations);
    let mut weights = cell_weights.clone();
    let mut found = vec![0.0; features.len()];
    for _ in 0..REWEIGHTINGS {
        found = nonnegative(&rows, &weights);
        let residuals: Vec<f64> = rows.iter().map(|row| dot(row, &found) - 1.0).collect();
        let limit = (HUBER * deviation(&residuals)).max(1e-9);
        for ((weight, cell), residual) in weights.iter_mut().zip(&cell_weights).zip(&residuals) {
            *weight = cell * (limit / residual.abs()).min(1.0);
        }
    }
    let mut coefficients = [0.0; Feature::COUNT];
    for ((feature, scale), value) in features.iter().zip(&scales).zip(&found) {
        if *scale > 0.0 {
            coefficients[*feature as usize] = value / scale;
        }
    }
    coefficients
}

/// The non-negative weighted least squares solution of `rows · x = 1`.
fn nonnegative(rows: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    let terms = rows.first().map_or(0, Vec::len);
    assert!(terms <= TERMS_MAX, "every set of terms is tried");
    let mut matrix = vec![vec![0.0; terms]; terms];
    let mut right = vec![0.0; terms];
    for (row, weight) in rows.iter().zip(weights) {
        for i in 0..terms {
            right[i] += weight * row[i];
            for j in 0..terms {
                matrix[i][j] += weight * row[i] * row[j];
            }
        }
    }
    // The loss is this plus a constant: x·A·x − 2 b·x.
    let loss = |x: &[f64]| {
        let product: f64 = (0..terms).map(|i| x[i] * dot(&matrix[i], x)).sum();
        product - 2.0 * dot(&right, x)
    };
    let mut best = (0.0, vec![0.0; terms]);
    for set in 1..1u32 << terms {
        let chosen: Vec<usize> = (0..terms).filter(|term| set >> term & 1 == 1).collect();
        let Some(part) = cholesky(&matrix, &right, &chosen) else { continue };
        if part.iter().any(|value| *value < 0.0) {
            continue;
        }
        let mut x = vec![0.0; terms];
        for (term, value) in chosen.iter().zip(part) {
            x[*term] = value;
        }
        let loss = loss(&x);
        if loss < best.0 {
            best = (loss, x);
        }
    }
    best.1
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
    use plimsoll_sim::engine::BatchShape;

    use super::*;

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
                        idle: if sequences == 0 { 10_000_000 * u64::from(behind) } else { 0 },
                        prefill_behind: if prefill == 0 { behind % 5 } else { 0 },
                    });
                    one.sums[Feature::Requests as usize] = f64::from(sequences == 0);
                    one.nanos = predict(truth, &one) * noise(found.len());
                    found.push(one);
                }
            }
        }
        found
    }

    fn draws() -> Stream {
        Stream::new(StreamKey { seed: 1, replication: 0, name: "fit", entity: 0 })
    }

    const AFFINE: [f64; Feature::COUNT] =
        [8e6, 1e6, 3e4, 0.0, 4e4, 0.0, 100.0, 0.0, 20.0, 3e6, 5e6, 2e6];
    const POLYNOMIAL: [f64; Feature::COUNT] =
        [8e6, 0.0, 3e4, 9.0, 4e4, 800.0, 100.0, 1e-3, 0.0, 0.0, 0.0, 2e6];

    fn furthest(fit: &Fit, truth: &[f64; Feature::COUNT]) -> f64 {
        let away = fit.coefficients.iter().zip(truth).map(|(found, truth)| match *truth > 0.0 {
            true => (found / truth - 1.0).abs(),
            false => found.abs(),
        });
        away.fold(0.0, f64::max)
    }

    #[test]
    fn what_made_exact_times_is_found_again() {
        for (truth, kind) in [(AFFINE, Kind::Affine), (POLYNOMIAL, Kind::Polynomial)] {
            let fit = fit(&observed(&truth, |_| 1.0)).expect("there is enough");
            assert_eq!(fit.kind, kind, "{:?}", fit.tried);
            assert!(furthest(&fit, &truth) < 1e-3, "{fit:?}");
            assert!(fit.held_out < 1e-4, "{fit:?}");
        }
        let linear = AFFINE.map(|each| if each == 20.0 { 0.0 } else { each });
        let fit = fit(&observed(&linear, |_| 1.0)).expect("there is enough");
        assert_eq!(fit.kind, Kind::Linear, "fewer coefficients where they do as well");
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
        assert_eq!(fit.kind, Kind::Affine, "{:?}", fit.tried);
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
