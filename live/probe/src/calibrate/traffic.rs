//! Traffic: requests of all lengths come and go on lanes of their own, as they do when a device is
//! used. Steps of a batch that changes, beside a client that sends and reads, take other times than
//! steps of a batch that was laid out; a profile that is to foretell the former has to have seen them.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use plimsoll_base::{Span, Stream, StreamKey, Time, math};
use plimsoll_scenario::calibration::NEEDED_AT;

use super::observation::nanos;
use super::profile::Busy;
use super::statistics::median;
use super::timeline::{Seen, Timeline, steps_of};
use super::{CalibrateError, Watch};
use crate::device::{Answer, Ask, Device, DeviceError, Prompt, Step};

/// Lanes at most: more clients than that disturb each other.
const LANES_MAX: u32 = 32;
/// Prompt lengths and output lengths, in tokens, as far as the device has room.
const PROMPTS: [u32; 2] = [16, 512];
const OUTPUTS: [u32; 2] = [16, 128];
/// Fewer requests that came while others decoded say too little of what a request costs.
const TRIES_MIN: usize = 40;
/// Fewer that were sent when another had just left say too little of how soon a seat is taken again.
const TURNOVERS_MIN: usize = 20;
/// So much later the next one is sent at most.
const TURNOVER: Span = Span::from_millis(1);
/// The longest that a lane sleeps without looking whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What traffic may be made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub seats: u32,
    /// Of the seats and of [`LANES_MAX`] no more than so many are used.
    pub lanes: u32,
    pub context_max: u32,
    pub kv_tokens: Option<u64>,
    pub step_tokens_max: u32,
    /// How long a lane rests behind a request, as a multiple of what that took, part by part.
    pub rests: [f64; 4],
    /// Of lengths.
    pub seed: u64,
}

impl Room {
    /// As many as there may be.
    fn lanes_max(&self) -> u32 {
        self.seats.clamp(1, LANES_MAX)
    }

    fn lanes(&self) -> u32 {
        self.lanes.clamp(1, self.lanes_max())
    }

    /// The longest prompt, so that as many lanes as there may be fit half the memory.
    fn prompt_max(&self) -> u32 {
        let [least, most] = PROMPTS;
        let of_memory = self.kv_tokens.map_or(u64::MAX, |kv| kv / u64::from(2 * self.lanes_max()));
        let of_memory = u32::try_from(of_memory).unwrap_or(u32::MAX);
        most.min(of_memory).min(self.context_max / 2).max(least)
    }

    fn output_max(&self) -> u32 {
        let [least, most] = OUTPUTS;
        most.min(self.context_max / 4).max(least)
    }
}

/// A length between two, those of each octave as often as those of any other.
fn length(stream: &mut Stream, [least, most]: [u32; 2]) -> u32 {
    let (low, high) = (math::ln(f64::from(least)), math::ln(f64::from(most)));
    math::exp(low + stream.uniform() * (high - low)).round() as u32
}

/// Runs traffic for so long; returns its steps, as the device tells them or as tokens show them, and
/// the answers that came.
pub(crate) fn traffic_steps(
    device: &dyn Device,
    room: Room,
    time: Duration,
    watch: &dyn Watch,
) -> Result<(Vec<Step>, Vec<Answer>), CalibrateError> {
    device.take_steps()?;
    let answers = traffic(device, room, time, watch)?;
    let told = device.take_steps()?.filter(|told| !told.is_empty());
    let seen = || steps_of(&answers, (room.step_tokens_max, room.seats));
    Ok((told.unwrap_or_else(seen), answers))
}

/// Runs traffic for so long; returns the answers that came.
fn traffic(
    device: &dyn Device,
    room: Room,
    time: Duration,
    watch: &dyn Watch,
) -> Result<Vec<Answer>, CalibrateError> {
    let began = Instant::now();
    let found: Mutex<Vec<Answer>> = Mutex::default();
    let failed: Mutex<Option<DeviceError>> = Mutex::default();
    let part = || began.elapsed().as_secs_f64() / time.as_secs_f64();
    let is_over = || part() >= 1.0 || watch.stop() || lock(&failed).is_some();
    let lane = |lane: u32| {
        let entity = u64::from(lane);
        let key = StreamKey { seed: room.seed, replication: 0, name: "traffic", entity };
        let mut stream = Stream::new(key);
        while !is_over() {
            let ask = Ask {
                prompt: Prompt::Random {
                    tokens: length(&mut stream, [PROMPTS[0], room.prompt_max()]),
                },
                output_tokens: length(&mut stream, [OUTPUTS[0], room.output_max()]),
                priority: 0,
            };
            let since = Instant::now();
            match device.submit(&ask).wait() {
                Ok(answer) => lock(&found).push(answer),
                Err(error) => {
                    lock(&failed).get_or_insert(error);
                    return;
                }
            }
            let place = (part() * room.rests.len() as f64) as usize;
            let rests = room.rests[place.min(room.rests.len() - 1)];
            let rest = since.elapsed().mul_f64(rests * stream.exponential());
            let until = Instant::now() + rest;
            while Instant::now() < until && !is_over() {
                std::thread::sleep((until - Instant::now()).min(LOOK_EVERY));
            }
        }
    };
    let lane = &lane;
    std::thread::scope(|scope| {
        (0..room.lanes()).for_each(|index| {
            scope.spawn(move || lane(index));
        });
        while !is_over() {
            watch.progress("traffic", part().min(1.0));
            std::thread::sleep(LOOK_EVERY);
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(|it| it.into_inner()) {
        return Err(error.into());
    }
    if watch.stop() {
        return Err(CalibrateError::Interrupted);
    }
    Ok(found.into_inner().unwrap_or_else(|it| it.into_inner()))
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(|broken| broken.into_inner())
}

/// What a request costs beside steps of an engine that is busy and has told these steps, or tells none.
/// `None` where too few came while others decoded.
///
/// Each request tells of the step that ran when it was sent, which may take in who comes late, and of
/// each behind that whether it was in time for it; what is not known, the time that it needed, lies
/// between the last that it missed and the one it was in (interval censoring). Those that it missed
/// before say no more: one that waited for a hundred steps would count as a hundred. The distribution of
/// that time is the one of greatest likelihood, an isotonic regression of being in time on the time
/// there was (Ayer et al. 1955).
pub(super) fn request_cost(
    (answers, told): (&[Answer], &[Step]),
    (step_tokens_max, seats): (u32, u32),
) -> Option<Busy> {
    let timeline = Timeline::told(answers, told).or_else(|| Timeline::of(answers))?;
    // What there is to compute in each step: all that was there and had no token yet.
    let mut waiting = vec![(0, 0); timeline.ends.len()];
    for one in &timeline.all {
        let first = one.steps[0];
        for (tokens, requests) in &mut waiting[timeline.next_of(one).min(first)..=first] {
            *tokens += one.prompt;
            *requests += 1;
        }
    }
    // Where nobody decodes the step begins when the request is there; where there is no room for all,
    // some wait for that.
    let hidden = timeline.hidden();
    let is_known = |step: usize| {
        let (sequences, (tokens, requests)) = (timeline.shapes[step].sequences, waiting[step]);
        !hidden[step]
            && sequences > 0
            && sequences + tokens <= step_tokens_max.into()
            && sequences + requests <= seats.into()
    };
    let (mut tries, mut behind) = (Vec::new(), Vec::new());
    for one in timeline.all.iter().filter(|one| one.is_known) {
        let had = |step: usize| timeline.starts[step].nanos() as f64 - one.sent.nanos() as f64;
        let first = one.steps[0];
        let mut missed = timeline.next_of(one).saturating_sub(1)..first;
        tries.extend(missed.rfind(|step| is_known(*step)).map(|step| (had(step), false)));
        if is_known(first) {
            tries.push((had(first), true));
            behind.extend(one.first.map(|at| nanos(timeline.ends[first], at)));
        }
    }
    let at_once = at_once(&timeline, is_known);
    let enough = behind.len() >= TRIES_MIN;
    enough.then(|| Busy { needed: needed(tries), at_once, behind: median(&behind) })
}

/// Which part of those that were sent when another had just left is in the very next step, of steps of
/// which it is known who may enter; `None` of too few.
fn at_once(timeline: &Timeline, is_known: impl Fn(usize) -> bool) -> Option<f64> {
    let mut left: Vec<(Time, usize)> =
        timeline.all.iter().filter_map(|one| Some((one.ended, one.steps.last()? + 1))).collect();
    left.sort_unstable();
    let taken = |one: &Seen| {
        let (at, next) = left[..left.partition_point(|(at, _)| *at <= one.sent)].last()?;
        let is_turnover = one.sent.saturating_since(*at) <= TURNOVER;
        let can_be = *next < timeline.ends.len() && one.steps[0] >= *next && is_known(*next);
        (is_turnover && can_be).then(|| f64::from(u8::from(one.steps[0] == *next)))
    };
    let taken: Vec<f64> =
        timeline.all.iter().filter(|one| one.is_known).filter_map(taken).collect();
    (taken.len() >= TURNOVERS_MIN).then(|| taken.iter().sum::<f64>() / taken.len() as f64)
}

/// Quantiles of a time, at least 0, of which it is known whether it was at most each of these: a
/// request may miss a step for other reasons, and a mean would be made of those.
fn needed(mut tries: Vec<(f64, bool)>) -> [f64; NEEDED_AT.len()] {
    tries.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Blocks of (which part was in time, how many, from where), rising.
    let mut blocks: Vec<(f64, f64, f64)> = Vec::new();
    for (time, is_in) in tries {
        let mut block = (f64::from(u8::from(is_in)), 1.0, time);
        while let Some(before) = blocks.pop_if(|before| before.0 >= block.0) {
            let count = before.1 + block.1;
            block = ((before.0 * before.1 + block.0 * block.1) / count, count, before.2);
        }
        blocks.push(block);
    }
    NEEDED_AT.map(|wanted| {
        let enough = blocks.iter().find(|(part, ..)| *part >= wanted).or(blocks.last());
        enough.map_or(0.0, |(_, _, from)| from.max(0.0))
    })
}

#[cfg(test)]
mod tests {
    use plimsoll_sim::engine::BatchShape;

    use super::super::timeline::tests::{answer, at};
    use super::*;

    #[test]
    fn what_a_request_needs_is_found_between_what_was_enough_and_what_was_not() {
        let mut stream =
            Stream::new(StreamKey { seed: 1, replication: 0, name: "tries", entity: 0 });
        for (least, most) in [(5.0, 5.0), (0.0, 20.0), (0.0, 0.0)] {
            let mut tries = Vec::new();
            for _ in 0..2_000 {
                let needed = least + stream.uniform() * (most - least);
                let mut time = 30.0 * stream.uniform();
                tries.push((time, needed <= time));
                while needed > time {
                    time += 30.0;
                    tries.push((time, needed <= time));
                }
            }
            for (found, part) in needed(tries).into_iter().zip(NEEDED_AT) {
                let wanted = least + part * (most - least);
                assert!((found - wanted).abs() < 2.0, "{found} for {wanted}");
            }
        }
    }

    #[test]
    fn a_request_that_misses_a_step_needed_more_than_it_had() {
        // One decodes all the time, a step each 10 ms; others come 3 and 8 ms before a step begins,
        // and only the latter are in time. Their tokens come with those of the others.
        let tokens: Vec<u64> = (10..1_200).map(|step| 10 * step).collect();
        let mut answers = vec![answer(80, 10, &tokens)];
        for request in 0..50 {
            let base = 1_000 + 200 * request;
            answers.push(answer(base + 2, 20, &[base + 20, base + 30]));
            answers.push(answer(base + 107, 20, &[base + 130, base + 140]));
        }
        let busy = request_cost((&answers, &[]), (512, 8)).expect("there are enough");
        assert!(busy.needed.iter().all(|needed| (3e6..=8e6).contains(needed)), "{busy:?}");
        assert_eq!(busy.behind, 0.0);
        // Some that wait for a hundred steps, whatever for, count no more than others.
        let waiting = (0..4)
            .map(|it| answer(2_001 + 1_200 * it, 20, &[3_130 + 1_200 * it, 3_140 + 1_200 * it]));
        let with_some: Vec<Answer> = answers.iter().cloned().chain(waiting).collect();
        let busy = request_cost((&with_some, &[]), (512, 8)).expect("there are enough");
        assert!(busy.needed.iter().all(|needed| (3e6..=8e6).contains(needed)), "{busy:?}");
        assert_eq!(request_cost((&answers[..20], &[]), (512, 8)), None, "too few");
        // Where there was no room for them, nothing is known of those that were late.
        assert_eq!(request_cost((&answers, &[]), (12, 8)), None);
    }

    #[test]
    fn seats_that_are_taken_again_at_once_are_counted() {
        // Beside one that decodes, another seat changes hands; one in four misses a step.
        let tokens: Vec<u64> = (10..1_200).map(|step| 10 * step).collect();
        let mut answers = vec![answer(80, 10, &tokens)];
        let mut sent = 1_000;
        for request in 0..200 {
            let first = sent + if request % 4 == 0 { 20 } else { 10 };
            answers.push(answer(sent, 20, &[first, first + 10]));
            sent = first + 10;
        }
        let at_once = |told: &[Step]| {
            let busy = request_cost((&answers, told), (512, 8)).expect("there are enough");
            busy.at_once.expect("there are enough")
        };
        assert!((at_once(&[]) - 0.75).abs() < 0.01, "{}", at_once(&[]));
        // The engine tells that its tokens go out a little before its steps end.
        let told = |number: u64| Step {
            start: at(10 * number + 1),
            end: at(10 * number + 11),
            delivered: at(10 * number + 10),
            shape: BatchShape { sequences: 1, context: 50, ..BatchShape::default() },
        };
        let told: Vec<Step> = (9..1_200).map(told).collect();
        assert!((at_once(&told) - 0.75).abs() < 0.01, "{}", at_once(&told));
        assert_eq!(request_cost((&answers[..15], &[]), (512, 8)), None, "too few");
    }

    #[test]
    fn lengths_stay_within_the_room() {
        let room = Room {
            seats: 4,
            lanes: 3,
            context_max: 100,
            kv_tokens: Some(320),
            step_tokens_max: 64,
            rests: [0.0; 4],
            seed: 1,
        };
        assert_eq!((room.lanes(), room.prompt_max(), room.output_max()), (3, 40, 25));
        assert_eq!(Room { lanes: 9, ..room }.lanes(), 4);
        let key = StreamKey { seed: 1, replication: 0, name: "lengths", entity: 0 };
        let mut stream = Stream::new(key);
        let drawn: Vec<u32> = (0..1_000).map(|_| length(&mut stream, [16, 512])).collect();
        assert!(drawn.iter().all(|length| (16..=512).contains(length)));
        // Each of the five octaves has a fifth.
        let short = drawn.iter().filter(|length| **length < 32).count();
        assert!((150..250).contains(&short), "{short}");
    }
}
