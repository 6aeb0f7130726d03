//! From what was seen of runs to what is compared.

use std::fmt::Write as _;

use plimsoll_base::{End, Names, Outcome, RequestRecord, Span, Time};
use plimsoll_report::validation::{RunSample, Timed};
use plimsoll_sim::engine::StepCost;

use super::live::{LiveRequest, LiveRun};
use super::simulated::Simulated;
use super::steps::by_profile;
use crate::device::Step;

/// What a run is looked at with.
#[derive(Clone, Copy)]
pub(super) struct Lens {
    pub classes: usize,
    /// What arrives earlier does not count.
    pub warm_up: Time,
    /// How much later than its step a request's first token comes.
    pub first: Span,
}

impl Lens {
    fn empty(&self) -> RunSample {
        RunSample { classes: (0..self.classes).map(|_| Default::default()).collect() }
    }

    /// As whoever asked saw it.
    pub fn live(&self, run: &LiveRun) -> RunSample {
        self.seen(run, &|_, at| at.secs_f64())
    }

    /// As the engine's steps show it: each token where its step ends, and nothing sent late. `None` where
    /// no steps are told.
    pub fn engine(&self, run: &LiveRun) -> Option<RunSample> {
        if !run.tells_steps {
            return None;
        }
        Some(self.seen(run, &|request, at| {
            let step = run.steps.partition_point(|step| step.delivered <= at);
            let end = if step > 0 { run.steps[step - 1].end } else { at };
            let lag = request.lag.map_or(0.0, |lag| lag.secs_f64());
            let is_first = request.first_token() == Some(at);
            let first = if is_first { self.first } else { Span::ZERO };
            (end + first).secs_f64() - lag
        }))
    }

    fn seen(&self, run: &LiveRun, when: &dyn Fn(&LiveRequest, Time) -> f64) -> RunSample {
        let mut sample = self.empty();
        for request in run.requests.iter().filter(|request| request.at >= self.warm_up) {
            let (Some(class), Some(answer)) = (request.class, &request.answer) else { continue };
            let [ttft, itl, tpot, e2e] = &mut sample.classes[class.index()];
            let arrived = request.at.secs_f64();
            let at = |time: Time| when(request, time);
            let Some(last) = answer.chunks.last().map(|chunk| chunk.at) else { continue };
            // The end of the stream comes as long after its last token as it does.
            let tail = answer.ended.saturating_since(last).secs_f64();
            e2e.push(Timed { at: arrived, value: at(last) + tail - arrived });
            let Some(tokens) = &request.tokens else { continue };
            let times: Vec<f64> = tokens.iter().map(|token| at(*token)).collect();
            itl.extend(times.windows(2).map(|two| Timed { at: two[1], value: two[1] - two[0] }));
            ttft.extend(times.first().map(|at| Timed { at: arrived, value: at - arrived }));
            if let [first, .., last] = times[..] {
                let value = (last - first) / (times.len() - 1) as f64;
                tpot.push(Timed { at: arrived, value });
            }
        }
        sample
    }

    /// As simulated.
    pub fn simulated(&self, run: &Simulated) -> RunSample {
        let mut sample = self.empty();
        let counts = |record: &&RequestRecord| record.arrived >= self.warm_up && record.finished();
        for record in run.requests.iter().filter(counts) {
            let (Some(class), Some(first)) = (record.class, record.ttft()) else { continue };
            let [ttft, _, tpot, e2e] = &mut sample.classes[class.index()];
            let arrived = record.arrived.secs_f64();
            let value = (first + self.first).secs_f64();
            ttft.push(Timed { at: arrived, value });
            e2e.push(Timed { at: arrived, value: record.e2e().secs_f64() });
            tpot.extend(record.tpot_secs().map(|value| Timed { at: arrived, value }));
        }
        for (class, gap) in &run.gaps {
            if gap.at >= self.warm_up.secs_f64() {
                sample.classes[class.index()][1].push(*gap);
            }
        }
        sample
    }
}

/// Of a run's requests that count: how many there are, and how many were answered.
pub(super) fn counts(outcomes: impl Iterator<Item = Outcome>) -> [u64; 2] {
    outcomes.fold([0, 0], |[all, finished], outcome| {
        [all + 1, finished + u64::from(outcome == Outcome::Ended(End::Finished))]
    })
}

/// Whether more requests were there than the device has seats for a third of the arrivals' time or
/// longer without end: what is seen then is one queue, which a run of that length sees once.
pub(super) fn is_saturated(run: &LiveRun, end: Time, seats: u32) -> bool {
    let stays =
        run.requests.iter().filter_map(|request| match (request.outcome, &request.answer) {
            (_, Some(answer)) => Some([request.at, answer.ended.min(end).max(request.at)]),
            (Outcome::Unfinished, None) => Some([request.at, end.max(request.at)]),
            (Outcome::Ended(_) | Outcome::Refused(_), None) => None,
        });
    longest_over(seats, stays).secs_f64() >= end.secs_f64() / 3.0
}

/// How long at most there were more than so many, of whom is told when each came and left.
fn longest_over(seats: u32, stays: impl Iterator<Item = [Time; 2]>) -> Span {
    let mut changes: Vec<(Time, i64)> =
        stays.flat_map(|[came, left]| [(came, 1), (left, -1)]).collect();
    // Who leaves makes room for who comes.
    changes.sort_unstable();
    let (mut there, mut since, mut longest) = (0, None, Span::ZERO);
    for (at, change) in changes {
        there += change;
        longest = longest.max(since.map_or(Span::ZERO, |since| at.saturating_since(since)));
        since = if there > i64::from(seats) { since.or(Some(at)) } else { None };
    }
    longest
}

/// Which run a row is of.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub policy: String,
    pub load: f64,
    pub repetition: u32,
    pub take: u32,
}

impl Origin {
    pub fn columns(&self) -> String {
        let Origin { policy, load, repetition, take } = self;
        let policy = match policy.contains([',', '"', '\n']) {
            true => format!("\"{}\"", policy.replace('"', "\"\"")),
            false => policy.clone(),
        };
        format!("{policy},{load:.4},{repetition},{take}")
    }
}

pub(super) const REQUESTS_HEAD: &str = "policy,load,repetition,take,kind,class,arrived_s,outcome,\
                                        waited_s,send_lag_s,ttft_s,last_token_s,e2e_s,\
                                        prompt_tokens,output_tokens,itl_max_s\n";
pub(super) const STEPS_HEAD: &str = "policy,load,repetition,take,start_s,took_s,prompt_tokens,\
                                     attention_pairs,sequences,context_tokens,by_profile_s\n";

fn plain(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| format!("{value:.6}"))
}

/// A row a request, live.
pub(super) fn live_rows(out: &mut String, origin: &Origin, (run, names): (&LiveRun, &Names)) {
    for request in &run.requests {
        let answer = request.answer.as_ref();
        let since = |at: Time| at.secs_f64() - request.at.secs_f64();
        let tokens = request.tokens.as_deref().unwrap_or_default();
        let gaps = tokens.windows(2).map(|two| two[1].saturating_since(two[0]).secs_f64());
        let usage = answer.map(|answer| answer.usage).unwrap_or_default();
        // A string takes everything.
        let _ = writeln!(
            out,
            "{},live,{},{:.6},{},{:.6},{},{},{},{},{},{},{}",
            origin.columns(),
            request.class.map_or(String::new(), |class| names.class(class)),
            request.at.secs_f64(),
            request.outcome.name(),
            request.waited.secs_f64(),
            plain(request.lag.map(|lag| lag.secs_f64())),
            plain(request.first_token().map(since)),
            plain(answer.and_then(|answer| Some(since(answer.chunks.last()?.at)))),
            plain(answer.map(|answer| since(answer.ended))),
            usage.prompt_tokens,
            usage.output_tokens,
            plain(gaps.reduce(f64::max)),
        );
    }
}

/// A row a request, simulated.
pub(super) fn simulated_rows(
    out: &mut String,
    (origin, kind): (&Origin, &str),
    (run, names): (&Simulated, &Names),
) {
    for record in &run.requests {
        let since = |at: Time| (at - record.arrived).secs_f64();
        let _ = writeln!(
            out,
            "{},{kind},{},{:.6},{},{},,{},{},{},{},{},{}",
            origin.columns(),
            record.class.map_or(String::new(), |class| names.class(class)),
            record.arrived.secs_f64(),
            record.outcome.name(),
            plain(record.dispatched.map(since)),
            plain(record.first_token.map(since)),
            plain(record.last_token.map(since)),
            plain(record.finished().then(|| since(record.closed))),
            record.prompt_tokens,
            record.output_tokens,
            plain(Some(record.gap_max.secs_f64())),
        );
    }
}

/// A row a step.
pub(super) fn step_rows(out: &mut String, origin: &Origin, (steps, cost): (&[Step], &StepCost)) {
    for step in steps {
        let shape = step.shape;
        let _ = writeln!(
            out,
            "{},{:.6},{:.6},{},{},{},{},{:.6}",
            origin.columns(),
            step.start.secs_f64(),
            step.end.saturating_since(step.start).secs_f64(),
            shape.prefill,
            shape.pairs,
            shape.sequences,
            shape.context,
            by_profile(cost, shape) / 1e9,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_time_in_which_somebody_waits_is_found() {
        let longest = |seats: u32, stays: &[[u64; 2]]| {
            let stays =
                stays.iter().map(|stay| stay.map(|at| Time::from_nanos(at * 1_000_000_000)));
            longest_over(seats, stays).nanos() / 1_000_000_000
        };
        // Two seats: a third is there from 2 to 5, and again from 6 to 7.
        let stays = [[0, 5], [1, 9], [2, 7], [6, 8]];
        assert_eq!(longest(2, &stays), 3);
        assert_eq!(longest(1, &stays), 7);
        assert_eq!(longest(3, &stays), 0);
        // Who leaves at an instant makes room for who comes then.
        assert_eq!(longest(1, &[[0, 2], [2, 4], [4, 6]]), 0);
        assert_eq!(longest(1, &[]), 0);
    }
}
