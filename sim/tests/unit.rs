//! Disaggregated units: what computation by hand says, both ways of stepping, memory that is given
//! back to the last block, and the effects that such deployments are known for.

use std::collections::BTreeMap;

use plimsoll_base::{ClassId, Span, Stage, Stream, StreamKey, Time};
use plimsoll_sim::engine::{Batch, Counters, Engine, Explicit, Job, Note};
use plimsoll_sim::model::{Admission, Affine, EngineModel, LinkModel, Split, StepCostSpec};
use plimsoll_sim::unit::Unit;

const MILLI: u64 = 1_000_000;

/// A step takes 1 ms, and 10 us a prompt token.
fn engine() -> EngineModel {
    EngineModel {
        seats: 8,
        step_tokens_max: 1024,
        kv_blocks: 256,
        block_tokens: 16,
        context_max: 4096,
        chunked_prefill: true,
        admission: Admission::Fcfs,
        step_noise: None,
        step_cost: StepCostSpec::affine(Affine { base: 1e6, prefill: 1e4, ..Affine::default() }),
    }
}

/// A token is a kilobyte, and the link carries one a microsecond.
fn link(latency: Span) -> LinkModel {
    LinkModel { latency, bandwidth: 1_000_000_000, token_bytes: 1_000 }
}

fn split(prefills: u32, decodes: u32) -> Split {
    Split { prefills, decodes, engine: engine(), link: link(Span::from_nanos(5_000)) }
}

fn job(key: u32, prompt_tokens: u32, output_tokens: u32) -> Job {
    Job { key, class: ClassId(0), priority: 0, prompt_tokens, output_tokens }
}

/// What happens to a unit from outside.
#[derive(Clone, Copy, Debug)]
enum Act {
    Submit(Job),
    Cancel(u32),
    Look,
}

/// Notes but gaps in order, gaps pooled, and what every look showed.
#[derive(Debug, Default, PartialEq)]
struct Told {
    notes: Vec<(Time, Note)>,
    gaps: BTreeMap<(ClassId, u64), u64>,
    looks: Vec<String>,
}

impl Told {
    fn add(&mut self, now: Time, notes: &mut Vec<Note>) {
        for note in notes.drain(..) {
            if let Note::Gaps { class, first, increment, count, sequences } = note {
                for index in 0..count {
                    let gap = (class, first.0 + increment.0 * index);
                    *self.gaps.entry(gap).or_default() += u64::from(sequences);
                }
            } else {
                self.notes.push((now, note));
            }
        }
    }

    /// When a note of a kind was told of a request first, in nanoseconds.
    fn at(&self, sought: impl Fn(&Note) -> bool) -> u64 {
        let found = self.notes.iter().find(|(_, note)| sought(note));
        found.unwrap_or_else(|| panic!("it was told: {:#?}", self.notes)).0.nanos()
    }
    fn stage(&self, of: u32, wanted: Stage) -> u64 {
        self.at(
            |note| matches!(note, Note::Handed { key, stage } if (*key, *stage) == (of, wanted)),
        )
    }
    fn token(&self, of: u32) -> u64 {
        self.at(|note| matches!(note, Note::Token { key } if *key == of))
    }
    fn finished(&self, of: u32) -> u64 {
        self.at(|note| matches!(note, Note::Finished { key, .. } if *key == of))
    }
}

/// Runs a unit to its end, as the world does. In the end it is as empty as it was.
fn run<B: Batch>(model: &EngineModel, split: &Split, acts: &[(Time, Act)]) -> Told {
    let mut unit: Unit<B> = Unit::new(model, split, 3);
    let (mut told, mut notes, mut boundary) = (Told::default(), Vec::new(), None::<Time>);
    let mut acts = acts.iter().peekable();
    loop {
        let act = acts.peek().map(|(at, _)| *at);
        let Some(now) = boundary.into_iter().chain(act).min() else { break };
        if boundary == Some(now) {
            boundary = None;
            unit.complete(now, &mut notes);
            told.add(now, &mut notes);
        }
        let mut looks = 0;
        while let Some((_, act)) = acts.next_if(|(at, _)| *at == now) {
            match act {
                Act::Submit(job) => unit.submit(*job),
                Act::Cancel(key) => unit.cancel(*key, now),
                Act::Look => looks += 1,
            }
        }
        boundary = unit.begin(now, &mut notes).or(boundary);
        told.add(now, &mut notes);
        while boundary == Some(now) {
            unit.complete(now, &mut notes);
            boundary = unit.begin(now, &mut notes);
            told.add(now, &mut notes);
        }
        for _ in 0..looks {
            unit.settle(now, &mut notes);
            told.add(now, &mut notes);
            let busy: Vec<u128> = (0..3).map(|class| unit.class_busy(ClassId(class))).collect();
            told.looks.push(format!("{now:?} {:?} {busy:?}", unit.sample()));
        }
    }
    let sample = unit.sample();
    let left = (sample.kv_blocks_used, sample.running, sample.waiting);
    assert_eq!(left, (0, 0, 0));
    assert_eq!(unit.waiting().count(), 0);
    told.looks.push(format!("{sample:?}"));
    told
}

fn submit(at: u64, job: Job) -> (Time, Act) {
    (Time::from_nanos(at), Act::Submit(job))
}

#[test]
fn one_request_takes_what_computation_by_hand_says() {
    let (model, split) = (engine(), split(1, 1));
    let told = run::<Counters>(&model, &split, &[submit(0, job(7, 100, 5))]);
    // The prompt: 1 ms and 100 times 10 us; the link: 100 us and 5 us; the last prompt token once
    // more: 1 ms and 10 us; four more steps.
    let computed = 2 * MILLI;
    let there = computed + 105_000;
    assert_eq!(told.stage(7, Stage::AwaitsMemory), computed);
    assert_eq!(told.stage(7, Stage::Moves), computed);
    assert_eq!(told.stage(7, Stage::AwaitsSeat), there);
    assert_eq!(told.token(7), there + MILLI + 10_000);
    assert_eq!(told.finished(7), there + MILLI + 10_000 + 4 * MILLI);
    let unit: Unit<Counters> = Unit::new(&model, &split, 1);
    assert_eq!(unit.alone(100, 5).nanos(), told.finished(7));
}

#[test]
fn over_a_link_that_takes_no_time_it_is_the_prompt_and_a_step_a_token() {
    let fast = LinkModel { latency: Span::ZERO, bandwidth: u64::MAX, token_bytes: 1 };
    let split = Split { link: fast, ..split(1, 1) };
    for (prompt, output) in [(1, 1), (16, 1), (17, 2), (1000, 40), (3000, 3)] {
        let told = run::<Counters>(&engine(), &split, &[submit(0, job(1, prompt, output))]);
        let steps = u64::from(prompt).div_ceil(1024) + u64::from(output);
        let tokens = u64::from(prompt) + 1;
        // The shortest transfer is a nanosecond.
        assert_eq!(told.finished(1), steps * MILLI + tokens * 10_000 + 1, "{prompt} {output}");
    }
}

#[test]
fn transfers_take_the_link_one_after_the_other() {
    // Two prompts are computed side by side and come to the link at the same instant.
    let acts = [submit(0, job(1, 500, 3)), submit(0, job(2, 500, 3))];
    let told = run::<Counters>(&engine(), &split(2, 1), &acts);
    let computed = 6 * MILLI;
    assert_eq!(told.stage(2, Stage::AwaitsLink), computed);
    assert_eq!(told.stage(1, Stage::AwaitsSeat), computed + 505_000);
    assert_eq!(told.stage(2, Stage::Moves), computed + 500_000);
    assert_eq!(told.stage(2, Stage::AwaitsSeat), computed + 1_005_000);
}

#[test]
fn a_full_decode_side_fills_the_prefill_side() {
    // The decode side holds one such request, the prefill side two.
    let decode = EngineModel { kv_blocks: 64, context_max: 1024, ..engine() };
    let prefill = EngineModel { kv_blocks: 64, context_max: 1024, ..engine() };
    let split = Split { engine: prefill, ..split(1, 1) };
    let jobs: Vec<(Time, Act)> = (0..4).map(|key| submit(0, job(key, 480, 400))).collect();
    let looks = (0..40).map(|at| (Time::from_nanos(at * 50 * MILLI), Act::Look));
    let mut acts: Vec<(Time, Act)> = jobs.into_iter().chain(looks).collect();
    acts.sort_by_key(|(at, _)| *at);
    let told = run::<Counters>(&decode, &split, &acts);
    // The second and the third stand computed, and the fourth cannot even begin, until the first,
    // which grows all the while, is done: that has nothing to do with how fast prompts are computed.
    let first = told.finished(0);
    assert!(first > 400 * MILLI);
    assert!(told.stage(2, Stage::AwaitsMemory) < 20 * MILLI);
    assert!(told.stage(2, Stage::AwaitsLink) >= first, "{told:?}");
    let begun = told.at(|note| matches!(note, Note::Started { key: 3 }));
    assert!(begun >= told.stage(1, Stage::AwaitsSeat), "the prefill side is full until then");
}

#[test]
fn long_prompts_do_not_stretch_the_gaps_of_others() {
    // One that decodes, and a long prompt that comes between.
    let acts = [submit(0, job(1, 16, 200)), submit(50 * MILLI, job(2, 1000, 2))];
    let apart = run::<Counters>(&engine(), &split(1, 1), &acts);
    let mut together: Engine<Counters> = Engine::new(&engine(), 3);
    let (mut notes, mut told, mut due) = (Vec::new(), Told::default(), None::<Time>);
    let mut acts = acts.iter().peekable();
    while let Some(now) = due.into_iter().chain(acts.peek().map(|(at, _)| *at)).min() {
        if due.take_if(|due| *due == now).is_some() {
            together.complete(now, &mut notes);
        }
        while let Some((_, Act::Submit(job))) = acts.next_if(|(at, _)| *at == now) {
            together.submit(*job);
        }
        due = together.begin(now, &mut notes).or(due);
        told.add(now, &mut notes);
    }
    let longest = |told: &Told| told.gaps.keys().map(|(_, ticks)| ticks >> 16).max();
    assert_eq!(longest(&told), Some(11 * MILLI), "a step with the whole prompt");
    assert_eq!(longest(&apart), Some(MILLI + 10_000), "a step with one prompt token");
    // The first token pays for it.
    assert!(apart.token(2) > told.token(2));
}

#[test]
fn who_is_cut_off_gives_everything_back_wherever_it_is() {
    let slow = LinkModel { bandwidth: 10_000_000, ..link(Span::from_millis(5)) };
    let split = Split { link: slow, ..split(1, 1) };
    let mut places = BTreeMap::<&str, u32>::new();
    for at in (0..300).map(|step| step * MILLI / 2) {
        let mut acts: Vec<(Time, Act)> = (0..3).map(|key| submit(0, job(key, 300, 60))).collect();
        acts.push((Time::from_nanos(at), Act::Cancel(1)));
        let told = run::<Counters>(&engine(), &split, &acts);
        let end = told.notes.iter().filter(|(_, note)| {
            matches!(note, Note::Finished { key: 1, .. } | Note::Cancelled { key: 1, .. })
        });
        assert_eq!(end.count(), 1, "exactly one end, cut off at {at}");
        let before = told.notes.iter().rev().find(|(when, note)| {
            when.nanos() <= at
                && matches!(note, Note::Handed { key: 1, .. } | Note::Started { key: 1 })
        });
        *places
            .entry(match before.map(|(_, note)| note) {
                Some(Note::Handed { stage: Stage::AwaitsLink, .. }) => "waits for the link",
                Some(Note::Handed { stage: Stage::Moves, .. }) => "moves",
                Some(Note::Handed { .. }) => "elsewhere between",
                Some(_) => "runs",
                None => "waits",
            })
            .or_default() += 1;
    }
    for place in ["waits for the link", "moves", "runs"] {
        assert!(places.get(place) > Some(&5), "{place}: {places:?}");
    }
}

fn between(s: &mut Stream, low: u64, high: u64) -> u32 {
    u32::try_from(low + s.below(high - low + 1)).expect("small")
}

/// A random unit, short of memory here and there, and a random load with cuts.
fn case(seed: u64) -> (EngineModel, Split, Vec<(Time, Act)>) {
    let mut s = Stream::new(StreamKey { seed, replication: 0, name: "unit", entity: 0 });
    let block_tokens = 1 << s.below(6);
    let context_max = between(&mut s, 40, 300);
    let one = |s: &mut Stream| {
        let seats = between(s, 1, 12);
        let least = context_max.div_ceil(block_tokens);
        EngineModel {
            seats,
            step_tokens_max: seats + between(s, 0, 100),
            kv_blocks: least + between(s, 0, u64::from(least * 2)),
            block_tokens,
            context_max,
            chunked_prefill: s.below(4) > 0,
            admission: if s.below(2) == 0 { Admission::Fcfs } else { Admission::Priority },
            step_noise: None,
            step_cost: StepCostSpec::affine(Affine {
                base: 1e3 + 1e5 * s.uniform(),
                prefill: 100.0 * s.uniform(),
                sequence: 50.0 * s.uniform(),
                context: if s.below(4) == 0 { 0.0 } else { 2.0 * s.uniform() },
                pair: 0.1 * s.uniform(),
                after_prefill: if block_tokens > 4 { 2e4 } else { 0.0 },
                after_long_prefill: if block_tokens > 8 { 2e4 } else { 0.0 },
                ..Affine::default()
            }),
        }
    };
    let (model, prefill) = (one(&mut s), one(&mut s));
    let link = LinkModel {
        latency: Span::from_nanos(s.below(100_000)),
        bandwidth: 1 + s.below(4_000_000_000),
        token_bytes: 1 + s.below(1_000),
    };
    let (prefills, decodes) = (between(&mut s, 1, 3), between(&mut s, 1, 3));
    let split = Split { prefills, decodes, engine: prefill, link };
    let (mut at, busy) = (Time::ZERO, s.uniform());
    let mut acts = Vec::new();
    for key in 0..80 {
        // Some come at the same instant.
        if s.below(4) > 0 {
            at += Span::from_secs_f64(s.exponential() * busy * 1e-3);
        }
        let prompt_tokens = between(&mut s, 1, u64::from(context_max) * 3 / 4);
        let output_tokens = between(&mut s, 1, u64::from(context_max - prompt_tokens).max(1));
        let class = ClassId(s.below(3) as u16);
        let priority = class.0.into();
        acts.push((at, Act::Submit(Job { key, class, priority, prompt_tokens, output_tokens })));
        if s.below(6) == 0 {
            let later = at + Span::from_secs_f64(s.exponential() * 3e-3);
            acts.push((later, Act::Cancel(key)));
        }
        if s.below(4) == 0 {
            acts.push((at + Span::from_nanos(s.below(2_000_000)), Act::Look));
        }
    }
    acts.sort_by_key(|(at, _)| *at);
    (model, split, acts)
}

#[test]
fn many_steps_at_once_are_the_steps_one_by_one() {
    let mut counts = BTreeMap::<String, u64>::new();
    for seed in 0..600 {
        let (model, split, acts) = case(seed);
        let fast = run::<Counters>(&model, &split, &acts);
        let single = run::<Explicit>(&model, &split, &acts);
        for (many, one) in fast.notes.iter().zip(&single.notes) {
            assert_eq!(many, one, "seed {seed}");
        }
        assert_eq!(fast.gaps, single.gaps, "seed {seed}");
        for (many, one) in fast.looks.iter().zip(&single.looks) {
            assert_eq!(many, one, "seed {seed}");
        }
        assert!(fast == single, "seed {seed}");
        let mut ends = BTreeMap::<u32, u32>::new();
        for (_, note) in &fast.notes {
            let kind = match *note {
                Note::Started { .. } => "started".to_owned(),
                Note::Token { .. } => "token".to_owned(),
                Note::Preempted { .. } => "preempted".to_owned(),
                Note::Handed { stage, .. } => format!("{stage:?}"),
                Note::Cancelled { key, .. } | Note::Finished { key, .. } => {
                    *ends.entry(key).or_default() += 1;
                    format!("{note:?}").chars().take_while(|c| c.is_alphabetic()).collect()
                }
                Note::Gaps { .. } => unreachable!("gaps are pooled"),
            };
            *counts.entry(kind).or_default() += 1;
        }
        assert!(ends.len() == 80 && ends.values().all(|&count| count == 1), "seed {seed}");
    }
    println!("{counts:?}");
    for kind in ["preempted", "Cancelled", "Finished", "AwaitsLink", "Moves"] {
        assert!(counts.get(kind) > Some(&500), "the cases must show {kind}: {counts:?}");
    }
}

/// Little's law, exactly: the time that requests spend inside is the integral of how many are.
#[test]
fn time_inside_is_the_integral_of_how_many_are_inside() {
    for seed in 0..50 {
        let (model, split, acts) = case(seed);
        let told = run::<Counters>(&model, &split, &acts);
        let mut changes: Vec<(u64, i64)> = acts
            .iter()
            .filter(|(_, act)| matches!(act, Act::Submit(_)))
            .map(|(at, _)| (at.nanos(), 1))
            .collect();
        let mut inside: i128 = changes.iter().map(|&(at, _)| -i128::from(at)).sum();
        for (at, note) in &told.notes {
            if matches!(note, Note::Finished { .. } | Note::Cancelled { .. }) {
                changes.push((at.nanos(), -1));
                inside += i128::from(at.nanos());
            }
        }
        changes.sort_unstable();
        let (mut integral, mut count, mut since) = (0i128, 0i64, 0);
        for (at, change) in changes {
            integral += i128::from(count) * i128::from(at - since);
            (count, since) = (count + change, at);
        }
        assert_eq!((integral, count), (inside, 0), "seed {seed}");
    }
}
