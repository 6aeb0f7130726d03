//! Traffic: requests of all lengths come and go on lanes of their own, as they do when a device is
//! used. Steps of a batch that changes, beside a client that sends and reads, take other times than
//! steps of a batch that was laid out; a profile that is to foretell the former has to have seen them.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use plimsoll_base::{Span, Stream, StreamKey, Time, math};
use plimsoll_sim::engine::BatchShape;

use super::observation::nanos;
use super::statistics::median;
use super::{CalibrateError, Watch};
use crate::device::{Answer, Ask, Device, DeviceError, Prompt, Step};

/// Lanes at most: more clients than that disturb each other.
const LANES_MAX: u32 = 32;
/// Prompt lengths and output lengths, in tokens, as far as the device has room.
const PROMPTS: [u32; 2] = [16, 512];
const OUTPUTS: [u32; 2] = [16, 128];
/// How long a lane rests behind a request, as a multiple of what that took, part by part: so that
/// batches of all sizes occur.
const RESTS: [f64; 4] = [3.0, 1.0, 0.3, 0.0];
/// The longest that a lane sleeps without looking whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What traffic may be made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub seats: u32,
    pub context_max: u32,
    pub kv_tokens: Option<u64>,
    pub step_tokens_max: u32,
    /// Of lengths.
    pub seed: u64,
}

impl Room {
    fn lanes(&self) -> u32 {
        self.seats.clamp(1, LANES_MAX)
    }

    /// The longest prompt, so that all lanes together fit half the memory.
    fn prompt_max(&self) -> u32 {
        let [least, most] = PROMPTS;
        let of_memory = self.kv_tokens.map_or(u64::MAX, |kv| kv / u64::from(2 * self.lanes()));
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
            let rests = RESTS[((part() * RESTS.len() as f64) as usize).min(RESTS.len() - 1)];
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

/// A request as its tokens show it.
struct Seen {
    sent: Time,
    prompt: u64,
    tokens: Vec<Time>,
}

/// The steps of an engine that tells none, as far as the tokens of all its answers show them: one
/// ends where tokens come, and each sequence gets one a step. Left out are those of which it cannot
/// be known what they computed: the first after an idle time, those in which a request may have been
/// computed in part (`step_tokens_max` tokens fit a step, and `seats` sequences), and those around a
/// sequence that misses a step.
pub(super) fn steps_of(answers: &[Answer], (step_tokens_max, seats): (u32, u32)) -> Vec<Step> {
    let seen = |answer: &Answer| {
        let tokens = answer.tokens().filter(|tokens| !tokens.is_empty())?;
        Some(Seen { sent: answer.sent, prompt: answer.usage.prompt_tokens.into(), tokens })
    };
    let all: Option<Vec<Seen>> = answers.iter().map(seen).collect();
    let Some(all) = all else { return Vec::new() };
    let ends = ends(&all);
    let at = |time: Time| ends.partition_point(|end| *end <= time).saturating_sub(1);
    // What each step computes, and which cannot be known.
    let mut shapes = vec![BatchShape::default(); ends.len()];
    let mut unknown = vec![false; ends.len()];
    for one in &all {
        let steps: Vec<usize> = one.tokens.iter().map(|token| at(*token)).collect();
        for (delivered, two) in (1..).zip(steps.windows(2)) {
            let [from, to] = [two[0], two[1]];
            match to == from + 1 {
                true => {
                    shapes[to].sequences += 1;
                    shapes[to].context += one.prompt + delivered - 1;
                }
                false => unknown[from..=to].fill(true),
            }
        }
        let first = steps[0];
        shapes[first].prefill += one.prompt;
        shapes[first].pairs += one.prompt * (one.prompt + 1) / 2;
        // It was there when these steps began, and no token came of them.
        let sent = ends.partition_point(|end| *end < one.sent) + 1;
        for step in sent..first {
            let is_full = shapes[step].sequences >= u64::from(seats);
            unknown[step] |= !is_full;
        }
        // It came while the step ran in which it ended: the client's clock and the engine's differ.
        unknown[first] |= sent > first;
    }
    BatchShape::follow(0, shapes.iter_mut());
    let fits = |shape: &BatchShape| shape.prefill + shape.sequences <= u64::from(step_tokens_max);
    (1..ends.len())
        .filter(|step| !unknown[*step] && shapes[*step].sequences > 0 && fits(&shapes[*step]))
        .map(|step| {
            let (start, end, shape) = (ends[step - 1], ends[step], shapes[step]);
            Step { start, end, delivered: end, shape }
        })
        .collect()
}

/// When steps ended: the first of the tokens that came together.
fn ends(all: &[Seen]) -> Vec<Time> {
    let gaps = all.iter().flat_map(|one| one.tokens.windows(2));
    let gaps: Vec<f64> = gaps.map(|two| nanos(two[0], two[1])).collect();
    if gaps.is_empty() {
        return Vec::new();
    }
    let together = Span::from_nanos((median(&gaps) / 2.0) as u64);
    let mut tokens: Vec<Time> = all.iter().flat_map(|one| &one.tokens).copied().collect();
    tokens.sort_unstable();
    let mut ends: Vec<Time> = Vec::new();
    for token in tokens {
        if ends.last().is_none_or(|end| token.saturating_since(*end) > together) {
            ends.push(token);
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Carries, Chunk, Usage};

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn answer(sent: u64, prompt_tokens: u32, tokens: &[u64]) -> Answer {
        let carries = Carries::Text;
        let chunk = |millis: &u64| Chunk { at: at(*millis), carries, counted: None };
        let output_tokens = tokens.len() as u32;
        Answer {
            sent: at(sent),
            accepted: at(sent),
            first_byte: at(tokens[0]),
            chunks: tokens.iter().map(chunk).collect(),
            ended: at(tokens[tokens.len() - 1]),
            usage: Usage { prompt_tokens, output_tokens, ..Usage::default() },
        }
    }

    fn seen(answers: &[Answer], limits: (u32, u32)) -> Vec<(u64, u64, [u64; 5])> {
        let millis = |time: Time| time.nanos() / 1_000_000;
        let steps =
            steps_of(answers, limits).into_iter().map(|Step { start, end, shape, .. }| {
                let BatchShape { prefill, pairs, sequences, context, prefill_behind, idle: _ } =
                    shape;
                let behind = prefill_behind.into();
                (millis(start), millis(end), [prefill, pairs, sequences, context, behind])
            });
        steps.collect()
    }

    #[test]
    fn tokens_show_what_steps_computed() {
        let first = answer(80, 10, &[100, 110, 120, 150, 160]);
        // It comes while the step to 120 runs, and enters the next; its tokens are read a little later.
        let second = answer(115, 20, &[151, 161, 171]);
        let wanted = [
            (100, 110, [0, 0, 1, 10, 1]),
            (110, 120, [0, 0, 1, 11, 2]),
            (120, 150, [20, 210, 1, 12, 3]),
            (150, 160, [0, 0, 2, 13 + 20, 1]),
            (160, 171, [0, 0, 1, 21, 2]),
        ];
        assert_eq!(seen(&[first.clone(), second.clone()], (512, 8)), wanted);
        // A prompt that may have been computed in part leaves two steps unknown.
        let early = answer(105, 20, &[151, 161, 171]);
        let without: Vec<_> = wanted.into_iter().filter(|step| step.0 != 110).collect();
        assert_eq!(seen(&[first.clone(), early.clone()], (512, 8)), without);
        // Unless every seat was taken.
        assert_eq!(seen(&[first.clone(), early], (512, 1)), wanted);
        // More than a step holds, it was computed in several.
        let without: Vec<_> = wanted.into_iter().filter(|step| step.0 != 120).collect();
        assert_eq!(seen(&[first.clone(), second], (20, 8)), without);
        // A sequence that misses a step was thrown out, or its token was read with the next.
        let missed = answer(90, 10, &[100, 120, 150]);
        let known = [(120, 150, [0, 0, 2, 12 + 11, 3]), (150, 160, [0, 0, 1, 13, 4])];
        assert_eq!(seen(&[first, missed], (512, 8)), known);
    }

    #[test]
    fn lengths_stay_within_the_room() {
        let room =
            Room { seats: 4, context_max: 100, kv_tokens: Some(320), step_tokens_max: 64, seed: 1 };
        assert_eq!((room.lanes(), room.prompt_max(), room.output_max()), (4, 40, 25));
        let key = StreamKey { seed: 1, replication: 0, name: "lengths", entity: 0 };
        let mut stream = Stream::new(key);
        let drawn: Vec<u32> = (0..1_000).map(|_| length(&mut stream, [16, 512])).collect();
        assert!(drawn.iter().all(|length| (16..=512).contains(length)));
        // Each of the five octaves has a fifth.
        let short = drawn.iter().filter(|length| **length < 32).count();
        assert!((150..250).contains(&short), "{short}");
    }
}
