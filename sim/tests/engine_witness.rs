//! Three engines, one history: counters taking many steps at once, explicit sequences taking one
//! step at a time, and a naive engine written from the rules alone (vLLM V1's scheduling loop,
//! request by request) must agree on every note, every gap and every counter, over random
//! engines, loads and sampling instants.

use std::collections::BTreeMap;

use plimsoll_base::{ClassId, Span, Stream, StreamKey, Time};
use plimsoll_sim::engine::{Batch, Counters, Engine, Explicit, Job, Note};
use plimsoll_sim::model::{Admission, Affine, Curve, EngineModel, StepCostSpec, StepNoise};

mod naive;

/// Everything an engine did: notes but gaps in order, and gaps pooled by (class, ticks).
#[derive(Debug, Default, PartialEq)]
pub struct History {
    events: Vec<(Time, Note)>,
    gaps: BTreeMap<(ClassId, u64), u64>,
}

impl History {
    fn add(&mut self, now: Time, notes: &mut Vec<Note>) {
        for note in notes.drain(..) {
            match note {
                Note::Gaps { class, first, increment, count, sequences } => {
                    for index in 0..count {
                        let gap = first.0 + increment.0 * index;
                        *self.gaps.entry((class, gap)).or_default() += u64::from(sequences);
                    }
                }
                Note::Started { .. }
                | Note::Token { .. }
                | Note::Preempted { .. }
                | Note::Handed { .. }
                | Note::Cancelled { .. }
                | Note::Finished { .. } => self.events.push((now, note)),
            }
        }
    }
}

struct Case {
    model: EngineModel,
    jobs: Vec<(Time, Job)>,
    samples: Vec<Time>,
}

/// Runs a case; returns the history and what each sample showed.
fn run<B: Batch>(case: &Case) -> (History, Vec<String>) {
    let mut engine: Engine<B> = Engine::new(&case.model, 3);
    let (mut history, mut shown, mut notes) = (History::default(), Vec::new(), Vec::new());
    let (mut jobs, mut samples) = (case.jobs.iter().peekable(), case.samples.iter().peekable());
    let mut boundary: Option<Time> = None;
    loop {
        let job = jobs.peek().map(|(at, _)| *at);
        let sample = samples.peek().map(|at| **at);
        let Some(now) = [boundary, job, sample].into_iter().flatten().min() else { break };
        if boundary == Some(now) {
            boundary = None;
            engine.complete(now, &mut notes);
            history.add(now, &mut notes);
        }
        while let Some((_, job)) = jobs.next_if(|(at, _)| *at == now) {
            engine.submit(*job);
        }
        boundary = engine.begin(now, &mut notes).or(boundary);
        history.add(now, &mut notes);
        if boundary != Some(now) && samples.next_if(|at| **at == now).is_some() {
            engine.settle(now, &mut notes);
            history.add(now, &mut notes);
            let busy: Vec<u128> = (0..3).map(|c| engine.class_busy(ClassId(c))).collect();
            shown.push(format!("{now:?} {:?} {busy:?}", engine.sample()));
        }
    }
    shown.push(format!("{:?}", engine.sample()));
    (history, shown)
}

fn between(stream: &mut Stream, low: u64, high: u64) -> u32 {
    u32::try_from(low + stream.below(high - low + 1)).expect("small")
}

/// A random engine and a random load; every third engine is short of memory.
fn case(seed: u64, affine: bool) -> Case {
    let mut s = Stream::new(StreamKey { seed, replication: 0, name: "case", entity: 0 });
    let block_tokens = 1 << s.below(6);
    let seats = between(&mut s, 1, 12);
    let context_max = between(&mut s, 40, 300);
    let least = context_max.div_ceil(block_tokens);
    let kv_blocks = match s.below(3) {
        0 => least + between(&mut s, 0, u64::from(least)),
        _ => least * seats,
    };
    let step_cost = if affine {
        StepCostSpec::Affine {
            terms: Affine {
                base: 1e3 + 1e5 * s.uniform(),
                prefill_step: if s.below(2) == 0 { 0.0 } else { 5e4 * s.uniform() },
                mixed_step: if seed.is_multiple_of(7) { 3e4 } else { 0.0 },
                prefill: 100.0 * s.uniform(),
                sequence: 50.0 * s.uniform(),
                context: if s.below(4) == 0 { 0.0 } else { 2.0 * s.uniform() },
                pair: 0.1 * s.uniform(),
                after_prefill: if seed.is_multiple_of(2) { 0.0 } else { 3e4 },
                after_long_prefill: if seed.is_multiple_of(3) { 0.0 } else { 4e4 },
                after_idle: if seed.is_multiple_of(3) { 5e4 } else { 0.0 },
                after_long_idle: if seed.is_multiple_of(4) { 1e6 } else { 0.0 },
            },
            prefill_curve: match seed % 5 {
                0 => Curve::through(&[(3, 2e3), (10, 9e3), (40, 8.5e3)]).expect("it rises"),
                _ => Curve::NONE,
            },
            sequence_curve: match seed % 3 {
                0 => Curve::through(&[(1, 3e3), (2, 4e3), (5, 1e4), (6, 9e3)]).expect("it rises"),
                _ => Curve::NONE,
            },
        }
    } else {
        StepCostSpec::Polynomial {
            base: 5e4,
            prefill: [100.0, 0.01],
            sequence: [800.0, -5.0],
            context: [1.0, 1e-4],
        }
    };
    let model = EngineModel {
        seats,
        step_tokens_max: seats + between(&mut s, 0, 100),
        kv_blocks,
        block_tokens,
        context_max,
        chunked_prefill: s.below(4) > 0,
        admission: if s.below(2) == 0 { Admission::Fcfs } else { Admission::Priority },
        step_noise: None,
        step_cost,
    };
    let mut at = Time::ZERO;
    let busy = s.uniform();
    let jobs = (0..80)
        .map(|key| {
            at += Span::from_secs_f64(s.exponential() * busy * 2e-3);
            let prompt_tokens = between(&mut s, 1, u64::from(context_max) * 3 / 4);
            let output_tokens = between(&mut s, 1, u64::from(context_max - prompt_tokens).max(1));
            let class = ClassId(s.below(3) as u16);
            let priority = class.0.into();
            (at, Job { key, class, priority, prompt_tokens, output_tokens })
        })
        .collect();
    let mut samples: Vec<Time> =
        (0..20).map(|_| Time::from_nanos(s.below(at.nanos() + 1_000_000))).collect();
    samples.sort();
    samples.dedup();
    Case { model, jobs, samples }
}

fn check(seeds: std::ops::Range<u64>, affine: bool) {
    let (mut preemptions, mut chunked) = (0, 0);
    for seed in seeds {
        let case = case(seed, affine);
        let (fast, fast_shown) = run::<Counters>(&case);
        let (single, single_shown) = run::<Explicit>(&case);
        let obvious = naive::run(&case.model, &case.jobs);
        assert_eq!(single, obvious, "explicit against naive, seed {seed}: {:?}", case.model);
        assert_eq!(fast, obvious, "counters against naive, seed {seed}: {:?}", case.model);
        assert_eq!(fast_shown, single_shown, "samples, seed {seed}: {:?}", case.model);
        let finished = fast.events.iter().filter(|(_, n)| matches!(n, Note::Finished { .. }));
        assert_eq!(finished.count(), case.jobs.len(), "everybody finishes, seed {seed}");
        let thrown = fast.events.iter().filter(|(_, n)| matches!(n, Note::Preempted { .. }));
        preemptions += thrown.count();
        chunked += usize::from(case.model.chunked_prefill);
    }
    println!("{preemptions} preemptions, {chunked} engines with chunked prefill");
    assert!(preemptions > 100, "the cases must exercise preemption: {preemptions}");
}

#[test]
fn three_engines_agree_with_affine_steps() {
    check(0..400, true);
}

/// Each step draws once, however steps are taken.
#[test]
fn drawn_steps_are_the_same_in_both_steppings() {
    let mut differs = 0;
    for seed in 2000..2100 {
        let mut case = case(seed, true);
        let plain = run::<Counters>(&case);
        let ratios = vec![0.7, 0.9, 1.0, 1.2, 2.0];
        case.model.step_noise = Some(StepNoise {
            ratios,
            prefill_ratios: (seed % 2 == 0).then(|| vec![0.95, 1.0, 1.1]),
            lasting: 0.5,
            lasting_steps: 4.0,
        });
        let drawn = run::<Counters>(&case);
        assert_eq!(drawn, run::<Explicit>(&case), "seed {seed}");
        differs += usize::from(drawn != plain);
    }
    assert_eq!(differs, 100, "draws change every run");
}

#[test]
fn three_engines_agree_with_polynomial_steps() {
    check(1000..1200, false);
}
