//! A scenario, valid by construction: what the simulator runs.

use plimsoll_base::{Attribution, Names, SiteId, Span};
use plimsoll_policy::Config;

use crate::workload::Workload;

/// Everything a run needs but its seed.
#[derive(Clone, Debug)]
pub struct Model {
    /// The names behind the ids.
    pub names: Names,
    /// Groups of equal replicas, indexed by `PoolId`.
    pub pools: Vec<Pool>,
    /// What is offered, indexed by `SourceId`. A workload that replays a file is handed over
    /// as a source of its own when the run starts.
    pub workloads: Vec<Workload>,
    /// The policy.
    pub policy: Config,
    /// How long, and how.
    pub plan: RunPlan,
}

/// How long a run lasts and how it steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunPlan {
    /// Arrivals stop here; `None` runs every source to its end.
    pub duration: Option<Span>,
    /// Requests that arrive earlier are simulated but not measured.
    pub warm_up: Span,
    /// How long after the last arrival the run may go on; what is then in flight is censored.
    pub drain_max: Span,
    /// How engines step.
    pub stepping: Stepping,
    /// Whether facts tell what stops whom.
    pub attribution: Attribution,
}

/// How engines step. Both give the same results to the byte; `Single` is the slow witness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stepping {
    /// Counters, and many steps at once where nothing happens in between.
    #[default]
    Macro,
    /// Explicit sequences, one step at a time.
    Single,
}

/// A group of equal replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// How many.
    pub replicas: u32,
    /// What each is; of a disaggregated one, the engines that decode.
    pub engine: EngineModel,
    /// Whether prompts are computed by other engines than those that decode.
    pub split: Option<Split>,
    /// Where they stand.
    pub site: SiteId,
    /// The models they serve, a bit an id; 0 serves all.
    pub models: u64,
    /// Where its step-time numbers come from: one sentence with source, for reports.
    pub provenance: String,
}

impl Pool {
    /// Sequences that a replica holds at most.
    pub fn seats(&self) -> u32 {
        self.all(|engine| engine.seats.into()).try_into().unwrap_or(u32::MAX)
    }
    /// KV memory of a replica, in tokens.
    pub fn kv_tokens(&self) -> u64 {
        self.all(EngineModel::kv_tokens)
    }
    /// The longest context that a replica takes.
    pub fn context_max(&self) -> u32 {
        let prefill = self.split.as_ref().map_or(u32::MAX, |split| split.engine.context_max);
        self.engine.context_max.min(prefill)
    }
    /// Engines of a replica.
    pub fn engines(&self) -> u32 {
        u32::try_from(self.all(|_| 1)).unwrap_or(u32::MAX)
    }
    /// The sum of something over the engines of a replica.
    fn all(&self, of: impl Fn(&EngineModel) -> u64) -> u64 {
        match &self.split {
            None => of(&self.engine),
            Some(split) => {
                u64::from(split.decodes) * of(&self.engine)
                    + u64::from(split.prefills) * of(&split.engine)
            }
        }
    }
}

/// A replica whose prompts are computed by other engines than those that decode: to whoever sends
/// requests it is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Engines that compute prompts, at least 1.
    pub prefills: u32,
    /// Engines that decode, at least 1.
    pub decodes: u32,
    /// What those that compute prompts are; their blocks are as large as those of the others.
    pub engine: EngineModel,
    /// What carries KV from these to those.
    pub link: LinkModel,
}

/// A link that carries one transfer after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkModel {
    /// From the last byte sent to the last byte there.
    pub latency: Span,
    /// Bytes a second, at least 1.
    pub bandwidth: u64,
    /// Bytes of KV that a token takes.
    pub token_bytes: u64,
}

impl LinkModel {
    /// How long the link is taken by so many tokens of KV: at least a nanosecond.
    pub fn taken(&self, tokens: u32) -> Span {
        let bytes = u128::from(tokens) * u128::from(self.token_bytes);
        let nanos = (bytes * 1_000_000_000).div_ceil(u128::from(self.bandwidth.max(1)));
        Span::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).max(1))
    }
}

/// An engine instance.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineModel {
    /// Sequences in a batch at most (vLLM `max_num_seqs`).
    pub seats: u32,
    /// Tokens computed a step at most (vLLM `max_num_batched_tokens`); at least `seats`.
    pub step_tokens_max: u32,
    /// KV blocks in all.
    pub kv_blocks: u32,
    /// Tokens a block; a power of two, at most 256.
    pub block_tokens: u32,
    /// The longest context (prompt + output) it takes; fits the KV memory.
    pub context_max: u32,
    /// Whether a prompt may be computed over several steps.
    pub chunked_prefill: bool,
    /// Who enters the batch first, and who leaves it last.
    pub admission: Admission,
    /// How long a step takes.
    pub step_cost: StepCostSpec,
    /// How far from that it really is; `None` for exactly that.
    pub step_noise: Option<StepNoise>,
}

impl EngineModel {
    /// KV memory in tokens.
    pub fn kv_tokens(&self) -> u64 {
        u64::from(self.kv_blocks) * u64::from(self.block_tokens)
    }

    /// A time that no step exceeds: a full budget of prompt tokens behind the longest context,
    /// every seat decoding, and the KV memory full.
    pub fn step_max(&self) -> Span {
        let prefill = f64::from(self.step_tokens_max);
        let sequences = f64::from(self.seats);
        let context = self.kv_tokens() as f64;
        // A negative term is taken as nothing: the sum stays an upper bound.
        let most =
            |[linear, square]: [f64; 2], x: f64| linear.max(0.0) * x + square.max(0.0) * x * x;
        let nanos = match self.step_cost {
            StepCostSpec::Affine { terms, prefill_curve, sequence_curve } => {
                let pairs = prefill * f64::from(self.context_max);
                terms.base
                    + terms.prefill_step
                    + terms.mixed_step
                    + prefill_curve.most(self.step_tokens_max)
                    + sequence_curve.most(self.seats)
                    + terms.prefill * prefill
                    + terms.sequence * sequences
                    + terms.context * context
                    + terms.pair * pairs
                    + terms.after_prefill
                    + terms.after_long_prefill
                    + terms.after_idle
                    + terms.after_long_idle
            }
            StepCostSpec::Polynomial { base, prefill: p, sequence: s, context: c } => {
                base.max(0.0) + most(p, prefill) + most(s, sequences) + most(c, context)
            }
        };
        let longest = self.step_noise.iter().flat_map(|noise| noise.by_kind().concat());
        let longest = longest.reduce(f64::max).unwrap_or(1.0);
        // A nanosecond more than rounding can take away.
        Span::from_secs_f64(nanos * longest / 1e9).saturating_add(Span::from_nanos(2))
    }
}

impl StepCostSpec {
    /// Affine, without a curve.
    pub const fn affine(terms: Affine<f64>) -> StepCostSpec {
        StepCostSpec::Affine { terms, prefill_curve: Curve::NONE, sequence_curve: Curve::NONE }
    }

    /// The same with parts so many times as long: what each step costs, with (but where it is polynomial)
    /// the first sequence that decodes; what further ones and contexts add; what prompt tokens add; what
    /// is felt of prompts in the steps behind them; what is felt of rests.
    #[must_use]
    pub fn at_pace(self, [fixed, decode, prompt, behind, rested]: [f64; 5]) -> StepCostSpec {
        let each = |pair: [f64; 2], by: f64| pair.map(|term| term * by);
        match self {
            StepCostSpec::Affine { terms, prefill_curve, sequence_curve } => {
                let (sequence, sequence_curve) = match fixed == decode {
                    true => (terms.sequence * decode, sequence_curve.times(decode)),
                    false => (0.0, sequence_curve.first_times(terms.sequence, [fixed, decode])),
                };
                StepCostSpec::Affine {
                    terms: Affine {
                        base: terms.base * fixed,
                        prefill_step: terms.prefill_step * prompt,
                        mixed_step: terms.mixed_step * prompt,
                        prefill: terms.prefill * prompt,
                        sequence,
                        context: terms.context * decode,
                        pair: terms.pair * prompt,
                        after_prefill: terms.after_prefill * behind,
                        after_long_prefill: terms.after_long_prefill * behind,
                        after_idle: terms.after_idle * rested,
                        after_long_idle: terms.after_long_idle * rested,
                    },
                    prefill_curve: prefill_curve.times(prompt),
                    sequence_curve,
                }
            }
            StepCostSpec::Polynomial { base, prefill, sequence, context } => {
                StepCostSpec::Polynomial {
                    base: base * fixed,
                    prefill: each(prefill, prompt),
                    sequence: each(sequence, decode),
                    context: each(context, decode),
                }
            }
        }
    }
}

/// A time by a number of tokens or sequences: through points, straight from one to the next, from
/// nothing at none; beyond the last point as between the two before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Curve {
    /// Those of 0 tokens, at the end, are no points.
    tokens: [u32; Curve::POINTS_MAX],
    /// ns.
    nanos: [f64; Curve::POINTS_MAX],
}

impl Curve {
    /// Points it may have.
    pub const POINTS_MAX: usize = 12;
    /// Nothing, at any number of tokens.
    pub const NONE: Curve =
        Curve { tokens: [0; Curve::POINTS_MAX], nanos: [0.0; Curve::POINTS_MAX] };

    /// Through points of (tokens, ns). `None` if they are more than
    /// [`POINTS_MAX`](Curve::POINTS_MAX), tokens do not rise from above 0, or a time is negative or no
    /// number.
    pub fn through(points: &[(u32, f64)]) -> Option<Curve> {
        let mut curve = Curve::NONE;
        let mut below = 0;
        for (place, (tokens, nanos)) in points.iter().enumerate() {
            if *tokens <= below || !nanos.is_finite() || *nanos < 0.0 {
                return None;
            }
            below = *tokens;
            *curve.tokens.get_mut(place)? = *tokens;
            curve.nanos[place] = *nanos;
        }
        Some(curve)
    }

    /// Its points of (tokens, ns).
    pub fn points(&self) -> impl DoubleEndedIterator<Item = (u32, f64)> + '_ {
        let end = self.tokens.partition_point(|tokens| *tokens > 0);
        self.tokens[..end].iter().copied().zip(self.nanos[..end].iter().copied())
    }

    /// No less than it is anywhere up to so many tokens, in ns.
    fn most(&self, tokens: u32) -> f64 {
        let mut latest = self.points().rev().chain([(0, 0.0)]);
        let (Some((to, high)), Some((from, low))) = (latest.next(), latest.next()) else {
            return 0.0;
        };
        let highest = self.nanos.iter().copied().fold(0.0, f64::max);
        let beyond = f64::from(tokens.saturating_sub(to)) / f64::from(to - from);
        highest + (high - low).max(0.0) * beyond
    }

    fn times(self, by: f64) -> Curve {
        Curve { nanos: self.nanos.map(|nanos| nanos * by), ..self }
    }

    /// With a line of so many ns each: what one costs so many times as long, and what further ones cost
    /// beside it.
    fn first_times(self, each: f64, [first, further]: [f64; 2]) -> Curve {
        let mut points: Vec<(u32, f64)> = self.points().collect();
        let one = points.first().map_or(0.0, |(tokens, nanos)| nanos / f64::from(*tokens));
        if points.len() < 2 {
            points = vec![(1, one), (2, 2.0 * one)];
        } else if points[0].0 > 1 && points.len() < Curve::POINTS_MAX {
            // Where there is no room for it, what one costs is a part of what the first point does.
            points.insert(0, (1, one));
        }
        let one = one + each;
        for (tokens, nanos) in &mut points {
            let cost = *nanos + each * f64::from(*tokens);
            *nanos = (first * one + further * (cost - one)).max(0.0);
        }
        Curve::through(&points).expect("points rise, and none is negative")
    }
}

/// How far steps are from what the step-time model says: caches, clocks and neighbours make equal
/// steps take unequal times. Each step's time is multiplied by a ratio that is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct StepNoise {
    /// Quantiles of the ratio, ascending and above 0: of `n`, the one with index `i` is at
    /// `(i + ½)/n`. Between them ratios are linear in the normal score, beyond them they end.
    pub ratios: Vec<f64>,
    /// The same of steps that compute prompt tokens; `None` where they are as far off as the others.
    /// One score drives both.
    pub prefill_ratios: Option<Vec<f64>>,
    /// The part of the variance (of normal scores) that lasts from step to step, from 0 to 1.
    pub lasting: f64,
    /// Steps until that has decayed to 1/e; above 0.
    pub lasting_steps: f64,
}

impl StepNoise {
    /// The quantiles of steps that only decode, and of those that compute prompt tokens.
    pub fn by_kind(&self) -> [&[f64]; 2] {
        [&self.ratios, self.prefill_ratios.as_ref().unwrap_or(&self.ratios)]
    }

    /// Their means, about.
    pub fn means(&self) -> [f64; 2] {
        self.by_kind().map(|ratios| ratios.iter().sum::<f64>() / ratios.len().max(1) as f64)
    }
}

/// Who enters the batch first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// By arrival at the engine.
    #[default]
    Fcfs,
    /// By engine priority (higher first), then by arrival at the engine.
    Priority,
}

/// The coefficients of a step time that is affine in what the step computes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Affine<T> {
    /// Every step.
    pub base: T,
    /// A step that computes prompt tokens, beside the base: kernels for prompts are launched
    /// beside those that decode.
    pub prefill_step: T,
    /// A step that computes prompt tokens beside sequences that decode: some engines compute the two
    /// one after the other.
    pub mixed_step: T,
    /// A prompt token.
    pub prefill: T,
    /// A decoding sequence.
    pub sequence: T,
    /// A token of context of a decoding sequence.
    pub context: T,
    /// A (query, key) pair of prompt attention.
    pub pair: T,
    /// A step that follows one with prompt tokens, whose activations drove weights out of the
    /// caches; the step behind that a half of it, and so on for
    /// [`AFTER_PREFILL_STEPS`](crate::engine::AFTER_PREFILL_STEPS).
    pub after_prefill: T,
    /// The same, more the more they drove out: behind `p` prompt tokens the part `p/(p + 128)` of it,
    /// and no less than that of `after_idle` where those came behind a rest.
    pub after_long_prefill: T,
    /// A step of an engine that has rested, whose caches others have had meanwhile: the part
    /// `t/(t + 60 ms)` of it after a rest of `t`.
    pub after_idle: T,
    /// The same where clocks fall and processes are put aside: the part `t/(t + 4 s)` of it.
    pub after_long_idle: T,
}

impl<T> Affine<T> {
    /// Each one changed alike.
    pub fn map<U>(self, mut to: impl FnMut(T) -> U) -> Affine<U> {
        Affine {
            base: to(self.base),
            prefill_step: to(self.prefill_step),
            mixed_step: to(self.mixed_step),
            prefill: to(self.prefill),
            sequence: to(self.sequence),
            context: to(self.context),
            pair: to(self.pair),
            after_prefill: to(self.after_prefill),
            after_long_prefill: to(self.after_long_prefill),
            after_idle: to(self.after_idle),
            after_long_idle: to(self.after_long_idle),
        }
    }
}

/// How long a step takes, as written: nanoseconds in floats, quantised when the engine is built.
///
/// A step computes `prefill` prompt tokens that attend to `pairs` (query, key) pairs, and one
/// token each for `sequences` decoding sequences whose contexts sum to `context` tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "an engine has one, which is read when it is built")]
pub enum StepCostSpec {
    /// `base + prefill·p + sequence·n + context·c + pair·q`, and `prefill_step` where `p` is not 0,
    /// and `mixed_step` where neither `p` nor `n` is, `prefill_curve` at `p`, `sequence_curve` at
    /// `n`, and what is left of `after_prefill`, `after_long_prefill`, `after_idle` and `after_long_idle`,
    /// all in ns.
    Affine {
        /// The coefficients, in ns.
        terms: Affine<f64>,
        /// The prompt tokens of a step, where no line fits them: kernels take tokens by the tile, and
        /// change with their number.
        prefill_curve: Curve,
        /// The decoding sequences of a step, where no line fits them: batches are padded to sizes that
        /// were prepared, and cut into kernels.
        sequence_curve: Curve,
    },
    /// `base + prefill·p + prefill2·p² + sequence·n + sequence2·n² + context·c + context2·c²`,
    /// in ns; terms may be negative, the whole is floored at 1 ns.
    Polynomial {
        /// Every step.
        base: f64,
        /// Linear and quadratic in prompt tokens.
        prefill: [f64; 2],
        /// Linear and quadratic in decoding sequences.
        sequence: [f64; 2],
        /// Linear and quadratic in context tokens of decoding sequences.
        context: [f64; 2],
    },
}
