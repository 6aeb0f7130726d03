//! How long a step takes, in integer ticks.

use plimsoll_base::{Span, Ticks, math};

use super::clock::Series;
use crate::model::{Affine, Curve, StepCostSpec};

/// What a step computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchShape {
    /// Prompt tokens.
    pub prefill: u64,
    /// (query, key) pairs the prompt tokens attend to: a chunk of `m` tokens behind `c` computed
    /// ones has `m·c + m(m+1)/2`.
    pub pairs: u64,
    /// Decoding sequences, one token each.
    pub sequences: u64,
    /// Tokens of context of the decoding sequences.
    pub context: u64,
    /// What it feels of prompt tokens in steps before it.
    pub behind: Behind,
    /// How long the engine had rested when it began, in ns.
    pub idle: u64,
}

/// What a step feels of prompt tokens that were computed before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// How many steps ago: 1 for the step before; 0 where that is longer ago than
    /// [`AFTER_PREFILL_STEPS`] or not known.
    pub steps: u32,
    /// The part of `after_long_prefill` that is left, in 2⁻¹⁶.
    pub cold: u32,
}

impl Behind {
    /// What is left so many steps later.
    fn later(self, steps: u64) -> Behind {
        let ago = u64::from(self.steps).saturating_add(steps);
        match u32::try_from(ago).ok().filter(|ago| self.steps > 0 && *ago <= AFTER_PREFILL_STEPS) {
            Some(ago) => Behind { steps: ago, cold: self.cold >> steps },
            None => Behind::default(),
        }
    }
}

/// After rests of so long, in ns, a step feels a half of `after_idle` and of `after_long_idle`.
const IDLE_HALVES: [u64; 2] = [60_000_000, 4_000_000_000];
/// So many prompt tokens leave a half of `after_long_prefill` to the step behind them.
const COLD_HALF: u64 = 128;

/// So many steps feel a step with prompt tokens before them.
pub const AFTER_PREFILL_STEPS: u32 = 7;

impl BatchShape {
    /// Whether it computes anything.
    pub fn is_known(&self) -> bool {
        self.prefill > 0 || self.sequences > 0
    }

    /// The `behind` of what follows so many steps like this one.
    pub fn leaves(&self, steps: u64) -> Behind {
        match self.prefill {
            0 => self.behind.later(steps),
            _ => Behind { steps: 1, cold: self.cold() }.later(steps - 1),
        }
    }

    /// How cold a step with prompt tokens leaves the caches to the one behind it, in 2⁻¹⁶: the more of
    /// them, the longer it rested before, and at least a half of how cold they were.
    fn cold(&self) -> u32 {
        let (prefill, idle) = (self.prefill.min(1 << 32), self.idle.min(1 << 40));
        // The larger part is that of the larger share of its half.
        let (value, half) = match idle * COLD_HALF > prefill * IDLE_HALVES[0] {
            true => (idle, IDLE_HALVES[0]),
            false => (prefill, COLD_HALF),
        };
        (((value << 16) / (value + half)) as u32).max(self.behind.cold / 2)
    }

    /// Fills in what each of consecutive steps feels of those before, where it is told of the first;
    /// tells it of the one that follows. Rests are known.
    pub fn follow<'a>(first: Behind, steps: impl Iterator<Item = &'a mut BatchShape>) -> Behind {
        steps.fold(first, |behind, shape| {
            shape.behind = behind;
            shape.leaves(1)
        })
    }

    /// The parts of `after_prefill`, of which a half is left each step later, and of
    /// `after_long_prefill` that this step feels.
    pub fn after_prefill(&self) -> [f64; 2] {
        let Behind { steps, cold } = self.behind;
        let Some(later) = steps.checked_sub(1) else { return [0.0, 0.0] };
        [1.0 / (1u64 << later.min(63)) as f64, f64::from(cold) / 65_536.0]
    }

    /// The parts of `after_idle` and of `after_long_idle` that this step feels.
    pub fn after_idle(&self) -> [f64; 2] {
        after_rest(self.idle)
    }
}

/// The parts of `after_idle` and of `after_long_idle` that are felt behind a rest of so many ns.
pub fn after_rest(nanos: u64) -> [f64; 2] {
    IDLE_HALVES.map(|half| nanos as f64 / (nanos + half) as f64)
}

/// A step-time model with quantised coefficients. See [`StepCostSpec`] for the formulas.
#[derive(Clone, Debug)]
pub enum StepCost {
    /// Coefficients in ticks.
    Affine {
        /// The coefficients.
        terms: Affine<u64>,
        /// Points of (prompt tokens, ticks).
        prefill_curve: Box<[(u64, u64)]>,
        /// Points of (decoding sequences, ticks).
        sequence_curve: Box<[(u64, u64)]>,
    },
    /// Coefficients in 2⁻³² ns.
    Polynomial {
        /// Every step.
        base: i128,
        /// Linear and quadratic in prompt tokens.
        prefill: [i128; 2],
        /// Linear and quadratic in decoding sequences.
        sequence: [i128; 2],
        /// Linear and quadratic in context tokens.
        context: [i128; 2],
    },
}

/// The shortest step, so that time always moves: a nanosecond.
const STEP_MIN: u64 = Ticks::PER_NANO;

impl StepCost {
    /// Quantises a model: affine coefficients to the nearest 2⁻¹⁶ ns, polynomial ones to the
    /// nearest 2⁻³² ns.
    pub fn new(spec: StepCostSpec) -> StepCost {
        let ticks = |nanos: f64| math::round(nanos * Ticks::PER_NANO as f64) as u64;
        let fixed = |nanos: f64| math::round(nanos * (1u64 << 32) as f64) as i128;
        match spec {
            StepCostSpec::Affine { terms, prefill_curve, sequence_curve } => {
                let terms = terms.map(ticks);
                let points = |curve: Curve| {
                    curve.points().map(|(at, nanos)| (u64::from(at), ticks(nanos))).collect()
                };
                StepCost::Affine {
                    terms: Affine { base: terms.base.max(STEP_MIN), ..terms },
                    prefill_curve: points(prefill_curve),
                    sequence_curve: points(sequence_curve),
                }
            }
            StepCostSpec::Polynomial { base, prefill, sequence, context } => StepCost::Polynomial {
                base: fixed(base),
                prefill: prefill.map(fixed),
                sequence: sequence.map(fixed),
                context: context.map(fixed),
            },
        }
    }

    /// Whether what was computed before a step changes what it takes.
    pub fn looks_behind(&self) -> bool {
        match self {
            StepCost::Affine { terms, .. } => terms.after_prefill.max(terms.after_long_prefill) > 0,
            StepCost::Polynomial { .. } => false,
        }
    }

    /// The durations of the coming steps while the batch stays as it is, and how many steps the
    /// series holds for (each decoding step adds `sequences` to the context).
    pub fn series(&self, shape: BatchShape) -> (Series, u64) {
        match self {
            StepCost::Affine { terms, sequence_curve, .. } => {
                let first = terms.base
                    + self.prefill_part(shape)
                    + terms.sequence * shape.sequences
                    + along(sequence_curve, shape.sequences)
                    + terms.context * shape.context;
                let series = Series { first, increment: terms.context * shape.sequences };
                let extra = after([terms.after_prefill, terms.after_long_prefill], shape.behind)
                    + rested([terms.after_idle, terms.after_long_idle], shape.idle);
                match extra {
                    0 => (series, u64::MAX),
                    extra => (Series { first: first + extra, increment: 0 }, 1),
                }
            }
            StepCost::Polynomial { base, prefill, sequence, context } => {
                let total = base
                    + quadratic(*prefill, shape.prefill)
                    + quadratic(*sequence, shape.sequences)
                    + quadratic(*context, shape.context);
                (Series { first: to_ticks(total), increment: 0 }, 1)
            }
        }
    }

    /// How long a request takes that is alone: its prompt in steps of at most `chunk_max` tokens,
    /// then a step for each output token after the first. In closed form, so that a long request
    /// costs no more than a short one; where steps are rounded one by one it is long by less than
    /// a tick a step.
    pub fn alone(&self, (prompt, output): (u32, u32), chunk_max: u32) -> Span {
        let (prompt, chunk_max) = (i128::from(prompt), i128::from(chunk_max.max(1)));
        let (whole, rest) = (prompt / chunk_max, prompt % chunk_max);
        let decodes = i128::from(output.saturating_sub(1));
        let steps = whole + i128::from(rest > 0) + decodes;
        // Contexts of prompt, prompt + 1, …, and their squares.
        let contexts = decodes * prompt + decodes * (decodes - 1) / 2;
        let ticks = match self {
            // Nobody has to have rested.
            StepCost::Affine { terms, prefill_curve, sequence_curve } => {
                let pairs = prompt * (prompt + 1) / 2;
                let behind = |behind: Behind| {
                    i128::from(after([terms.after_prefill, terms.after_long_prefill], behind))
                };
                // What a chunk leaves that is as large as it may be, and the last one.
                let chunk = |prefill: i128, behind: Behind| {
                    let prefill = prefill as u64;
                    BatchShape { prefill, behind, ..BatchShape::default() }.leaves(1)
                };
                let full = chunk(chunk_max.min(prompt), Behind::default());
                let last = if whole > 0 && rest > 0 { chunk(rest, full) } else { full };
                let later = (0..u64::from(AFTER_PREFILL_STEPS)).take(decodes as usize);
                let later: i128 = later.map(|steps| behind(last.later(steps))).sum();
                let between = (steps - decodes - 1) * behind(full);
                let terms = terms.map(i128::from);
                let curve = |tokens: i128| i128::from(along(prefill_curve, tokens as u64));
                later
                    + between
                    + steps * terms.base
                    + terms.prefill_step * (steps - decodes)
                    + terms.prefill * prompt
                    + whole * curve(chunk_max)
                    + curve(rest)
                    + terms.pair * pairs
                    + (terms.sequence + i128::from(along(sequence_curve, 1))) * decodes
                    + terms.context * contexts
            }
            StepCost::Polynomial { base, prefill, sequence, context } => {
                let squares = decodes * prompt * prompt
                    + prompt * decodes * (decodes - 1)
                    + (decodes - 1) * decodes * (2 * decodes - 1) / 6;
                let fixed = steps * *base
                    + prefill[0] * prompt
                    + prefill[1] * (whole * chunk_max * chunk_max + rest * rest)
                    + decodes * (sequence[0] + sequence[1])
                    + context[0] * contexts
                    + context[1] * squares;
                fixed >> (32 - Ticks::FRACTION_BITS)
            }
        };
        let nanos = ticks.max(steps * i128::from(STEP_MIN)) + i128::from(Ticks::PER_NANO - 1);
        Span::from_nanos(u64::try_from(nanos >> Ticks::FRACTION_BITS).unwrap_or(u64::MAX))
    }

    /// The part of a step that its prompt tokens cause, in ticks.
    pub fn prefill_part(&self, shape: BatchShape) -> u64 {
        match self {
            StepCost::Affine { terms, prefill_curve, .. } => {
                if shape.prefill == 0 {
                    return 0;
                }
                let mixed = if shape.sequences > 0 { terms.mixed_step } else { 0 };
                terms.prefill_step
                    + mixed
                    + terms.prefill * shape.prefill
                    + along(prefill_curve, shape.prefill)
                    + terms.pair * shape.pairs
            }
            StepCost::Polynomial { prefill, .. } => {
                let whole = self.series(shape).0.first;
                to_ticks(quadratic(*prefill, shape.prefill)).min(whole)
            }
        }
    }
}

/// A curve through points at so many tokens or sequences, in ticks, rounded down.
fn along(points: &[(u64, u64)], tokens: u64) -> u64 {
    let Some(last) = points.len().checked_sub(1) else { return 0 };
    let above = points.partition_point(|(at, _)| *at < tokens).min(last);
    let (from, low) = above.checked_sub(1).map_or((0, 0), |below| points[below]);
    let (to, high) = points[above];
    let [low, high] = [low, high].map(i128::from);
    let rise = (high - low) * i128::from(tokens - from);
    u64::try_from(low + rise.div_euclid(i128::from(to - from))).unwrap_or(0)
}

/// What a step feels of both behind prompt tokens.
fn after([prefill, long]: [u64; 2], behind: Behind) -> u64 {
    let Some(later) = behind.steps.checked_sub(1) else { return 0 };
    let cold = (u128::from(long) * u128::from(behind.cold)) >> 16;
    (prefill >> later.min(63)).saturating_add(u64::try_from(cold).unwrap_or(u64::MAX))
}

/// What a step feels of both after a rest of so many ns.
fn rested(terms: [u64; 2], idle: u64) -> u64 {
    if terms == [0, 0] || idle == 0 {
        return 0;
    }
    let part = |(term, half): (u64, u64)| {
        let part = u128::from(term) * u128::from(idle);
        u64::try_from(part / (u128::from(idle) + u128::from(half))).unwrap_or(u64::MAX)
    };
    terms.into_iter().zip(IDLE_HALVES).map(part).sum()
}

fn quadratic([linear, square]: [i128; 2], x: u64) -> i128 {
    let x = i128::from(x);
    linear * x + square * x * x
}

/// 2⁻³² ns to ticks, rounded down, never below a nanosecond.
fn to_ticks(fixed: i128) -> u64 {
    u64::try_from(fixed >> (32 - Ticks::FRACTION_BITS)).unwrap_or(0).max(STEP_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affine_steps_form_the_series_of_single_steps() {
        let cost = StepCost::new(StepCostSpec::affine(Affine {
            base: 8e6,
            prefill: 33_000.5,
            sequence: 40_000.0,
            context: 0.0391,
            pair: 0.001,
            after_prefill: 2e6,
            after_long_prefill: 3e6,
            after_idle: 1e6,
            ..Affine::default()
        }));
        let mut shape = BatchShape { sequences: 17, context: 12_345, ..BatchShape::default() };
        let (series, _) = cost.series(shape);
        for index in 0..100 {
            assert_eq!(cost.series(shape).0.first, series.step(index));
            shape.context += shape.sequences;
        }
    }

    #[test]
    fn at_a_pace_further_sequences_are_apart_from_the_first() {
        let curve = |points: &[(u32, f64)]| Curve::through(points).expect("it rises");
        let steps = [(1, 2e6), (2, 3e6), (4, 3.5e6), (8, 9e6)];
        for (sequence, sequence_curve) in [
            (3e5, Curve::NONE),
            (0.0, curve(&steps)),
            (3e5, curve(&steps)),
            (1e5, curve(&[(8, 4e6)])),
            (0.0, curve(&[(1, 2e6)])),
        ] {
            let terms = Affine { base: 1e6, sequence, context: 100.0, ..Affine::default() };
            let spec = StepCostSpec::Affine { terms, prefill_curve: Curve::NONE, sequence_curve };
            let took = |pace: [f64; 5], sequences: u64, context: u64| {
                let shape = BatchShape { sequences, context, ..BatchShape::default() };
                StepCost::new(spec.at_pace(pace)).series(shape).0.first as f64
            };
            let usual = |sequences, context| took([1.0; 5], sequences, context);
            for (sequences, context) in [(1, 0), (1, 500), (2, 90), (3, 90), (8, 700), (50, 900)] {
                let one = usual(1, 0);
                let wanted = 1.5 * one + 0.75 * (usual(sequences, context) - one);
                let found = took([1.5, 0.75, 2.0, 3.0, 4.0], sequences, context);
                assert!((found / wanted - 1.0).abs() < 1e-5, "{spec:?} {sequences} {context}");
            }
        }
    }

    /// A request alone in an engine that is stepped one step at a time.
    fn stepped(cost: &StepCost, (prompt, output): (u64, u64), chunk_max: u64) -> u64 {
        let (mut ticks, mut computed, mut behind) = (0, 0, Behind::default());
        let mut step = |shape: BatchShape| {
            let shape = BatchShape { behind, ..shape };
            behind = shape.leaves(1);
            ticks += cost.series(shape).0.first;
        };
        while computed < prompt {
            let prefill = chunk_max.min(prompt - computed);
            let pairs = prefill * computed + prefill * (prefill + 1) / 2;
            step(BatchShape { prefill, pairs, ..BatchShape::default() });
            computed += prefill;
        }
        for context in prompt..prompt + output - 1 {
            step(BatchShape { sequences: 1, context, ..BatchShape::default() });
        }
        ticks
    }

    #[test]
    fn alone_is_the_sum_of_its_steps() {
        let affine = StepCostSpec::Affine {
            terms: Affine {
                base: 8e6,
                prefill_step: 2.5e6,
                mixed_step: 1e6,
                prefill: 33_000.5,
                sequence: 40_000.0,
                context: 39.1,
                pair: 1.3,
                after_prefill: 1.9e6,
                after_long_prefill: 2.3e6,
                after_idle: 1e6,
                after_long_idle: 1e6,
            },
            prefill_curve: Curve::through(&[(16, 5e6), (64, 9.5e6), (100, 9e6)]).expect("it rises"),
            sequence_curve: Curve::through(&[(1, 1e6), (4, 2e6)]).expect("it rises"),
        };
        let polynomial = StepCostSpec::Polynomial {
            base: 5.74e6,
            prefill: [31_000.0, 0.7],
            sequence: [210_937.5, -392.7],
            context: [77.7, 0.001],
        };
        for spec in [affine, polynomial] {
            let cost = StepCost::new(spec);
            for (prompt, output) in [(1, 1), (1, 2), (300, 1), (512, 700), (513, 2), (9_000, 40)] {
                for chunk_max in [512, prompt] {
                    let lengths = (u64::from(prompt), u64::from(output));
                    let ticks = stepped(&cost, lengths, chunk_max.into());
                    let expected = ticks.div_ceil(Ticks::PER_NANO);
                    let alone = cost.alone((prompt, output), chunk_max).nanos();
                    // A step that is rounded lacks less than a tick.
                    assert!((expected..=expected + 1).contains(&alone), "{alone} {expected}");
                }
            }
        }
    }

    #[test]
    fn polynomial_follows_its_formula() {
        // Base 5.74 ms, -25.74·x² + 54.01·x in ms with x = sequences / 256.
        let cost = StepCost::new(StepCostSpec::Polynomial {
            base: 5.74e6,
            prefill: [0.0, 0.0],
            sequence: [54.01e6 / 256.0, -25.74e6 / 65_536.0],
            context: [0.0, 0.0],
        });
        let shape = BatchShape { sequences: 128, ..BatchShape::default() };
        let nanos = cost.series(shape).0.first as f64 / Ticks::PER_NANO as f64;
        let want = 5.74e6 + 54.01e6 * 0.5 - 25.74e6 * 0.25;
        assert!((nanos - want).abs() < 1.0, "{nanos} {want}");
    }
}
