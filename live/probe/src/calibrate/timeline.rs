//! The steps of an engine as the tokens of all its answers show them: one ends where tokens come, and
//! each sequence gets one a step.
//!
//! A server that does not count its tokens may hold some back, whose text is the beginning of a
//! character, and send it with that of a later token. Which step each of an answer's tokens came of is
//! known all the same if there were as many steps, from its first piece to its end, as it has tokens; or
//! if others show each of these steps, when those that are missing came before the first piece.

use plimsoll_base::{Span, Time};
use plimsoll_sim::engine::{BatchShape, Behind};

use super::observation::nanos;
use super::statistics::median;
use crate::device::{Answer, Step};

/// An answer as it came in pieces.
struct Pieces<'a> {
    answer: &'a Answer,
    at: Vec<Time>,
    /// Whether each is a token.
    is_whole: bool,
}

impl Pieces<'_> {
    fn of(answer: &Answer) -> Pieces<'_> {
        if let Some(at) = answer.tokens().filter(|tokens| !tokens.is_empty()) {
            return Pieces { answer, at, is_whole: true };
        }
        let at = answer.pieces();
        // One whose text is all held back shows that it is over.
        let at = if at.is_empty() { vec![answer.ended] } else { at };
        Pieces { answer, at, is_whole: false }
    }

    /// When the last was there, be it one that only says that the answer is over.
    fn end(&self) -> Time {
        self.answer.chunks.last().map_or(self.answer.ended, |chunk| chunk.at)
    }

    /// How many tokens the answer has.
    fn count(&self) -> usize {
        self.answer.usage.output_tokens.max(1) as usize
    }
}

/// A request as its tokens show it.
pub(super) struct Seen {
    pub sent: Time,
    /// When its first token was there; `None` if its text came with that of a later one.
    pub first: Option<Time>,
    pub ended: Time,
    pub prompt: u64,
    /// Which steps ended with its tokens. If that is not known: all from its first piece on.
    pub steps: Vec<usize>,
    /// Whether it is known.
    pub is_known: bool,
}

/// Steps of an engine, and which of them each request was in.
pub(super) struct Timeline {
    pub all: Vec<Seen>,
    /// When each step begins: where tokens show them, when the one before ends.
    pub starts: Vec<Time>,
    pub ends: Vec<Time>,
    /// What each computes.
    pub shapes: Vec<BatchShape>,
    /// Whether it is known that each is one step and no more.
    is_one: Vec<bool>,
}

impl Timeline {
    /// As the engine tells them. `None` if it tells none.
    pub fn told(answers: &[Answer], steps: &[Step]) -> Option<Timeline> {
        if steps.is_empty() {
            return None;
        }
        let Apart { all, is_one, .. } = Apart::new(answers, steps);
        Some(Timeline {
            all,
            starts: steps.iter().map(|step| step.start).collect(),
            ends: steps.iter().map(|step| step.end).collect(),
            shapes: steps.iter().map(|step| step.shape).collect(),
            is_one,
        })
    }

    /// As tokens show them. `None` where most answers' tokens cannot be told apart.
    pub fn of<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Option<Timeline> {
        let Apart { out: ends, all, is_one, .. } = Apart::new(answers, &[]);
        let known = all.iter().filter(|one| one.is_known).count();
        if ends.is_empty() || 2 * known < all.len() {
            return None;
        }
        let mut shapes = vec![BatchShape::default(); ends.len()];
        for one in &all {
            let first = &mut shapes[one.steps[0]];
            first.prefill += one.prompt;
            first.pairs += one.prompt * (one.prompt + 1) / 2;
            for (delivered, two) in (1..).zip(one.steps.windows(2)) {
                // Where it misses a step, nobody asks for what these compute.
                if two[1] == two[0] + 1 {
                    shapes[two[1]].sequences += 1;
                    shapes[two[1]].context += one.prompt + delivered - 1;
                }
            }
        }
        // Where nobody decodes, the engine rested until the first prompt came.
        for (one, before) in all.iter().filter_map(|one| Some((one, one.steps[0].checked_sub(1)?)))
        {
            let first = &mut shapes[before + 1];
            if first.sequences == 0 {
                let idle = one.sent.saturating_since(ends[before]).nanos();
                first.idle = if first.idle == 0 { idle } else { idle.min(first.idle) };
            }
        }
        BatchShape::follow(Behind::default(), shapes.iter_mut());
        let starts = [Time::ZERO].into_iter().chain(ends.iter().copied());
        let starts = starts.take(ends.len()).collect();
        Some(Timeline { all, starts, ends, shapes, is_one })
    }

    /// The first step that begins when it is sent or later.
    pub fn next_of(&self, one: &Seen) -> usize {
        self.starts.partition_point(|start| *start < one.sent)
    }

    /// Of which steps it is not known whether a request was in them that has shown no token.
    pub fn hidden(&self) -> Vec<bool> {
        let mut hidden = vec![false; self.ends.len()];
        for one in self.all.iter().filter(|one| !one.is_known) {
            let first = one.steps[0];
            hidden[self.next_of(one).min(first)..=first].fill(true);
            for step in &one.steps[1..] {
                hidden[*step] |= !self.is_one[*step];
            }
        }
        hidden
    }
}

/// Requests, and which of an engine's steps their tokens came of.
struct Apart<'a> {
    pieces: Vec<Pieces<'a>>,
    /// When the tokens of each step went out.
    out: Vec<Time>,
    all: Vec<Seen>,
    /// Of which steps it is known that there is no other before it that nobody shows.
    is_one: Vec<bool>,
}

impl<'a> Apart<'a> {
    /// By the steps that the engine told, or by those that tokens show where it tells none.
    fn new(answers: impl IntoIterator<Item = &'a Answer>, told: &[Step]) -> Apart<'a> {
        let pieces: Vec<Pieces<'_>> = answers.into_iter().map(Pieces::of).collect();
        let out: Vec<Time> = match told.is_empty() {
            true => ends(&pieces),
            false => told.iter().map(|step| step.delivered).collect(),
        };
        let mut is_one = vec![!told.is_empty(); out.len()];
        let at = |time: Time| out.partition_point(|out| *out <= time).saturating_sub(1);
        let of = |pieces: &Pieces<'_>| {
            let Pieces { answer, is_whole, .. } = *pieces;
            let steps: Vec<usize> = match is_whole {
                true => pieces.at.iter().map(|time| at(*time)).collect(),
                false => {
                    let first = at(pieces.at[0]);
                    let last = at(pieces.end()).clamp(first, first + pieces.count() - 1);
                    (first..=last).collect()
                }
            };
            Seen {
                sent: answer.sent,
                first: Some(pieces.at[0]),
                ended: answer.ended,
                prompt: answer.usage.prompt_tokens.into(),
                is_known: is_whole || steps.len() == answer.usage.output_tokens as usize,
                steps,
            }
        };
        let mut all: Vec<Seen> = pieces.iter().map(of).collect();
        for one in all.iter().filter(|one| one.is_known) {
            for two in one.steps.windows(2).filter(|two| two[1] == two[0] + 1) {
                is_one[two[1]] = true;
            }
        }
        for (one, pieces) in all.iter_mut().zip(&pieces).filter(|(one, _)| !one.is_known) {
            let last = one.steps[one.steps.len() - 1];
            let Some(first) = (last + 1).checked_sub(pieces.count()) else { continue };
            let are_shown = || is_one[first + 1..=last].iter().all(|it| *it);
            if first < last && out[first] > one.sent && are_shown() {
                one.first = None;
                one.steps = (first..=last).collect();
                one.is_known = true;
            }
        }
        Apart { pieces, out, all, is_one }
    }
}

/// When each token of each answer was there, of steps that the engine told, or tells none; `None` where
/// that is not known. A token whose text was held back was there when its step ended.
pub(crate) fn token_times<'a>(
    answers: impl IntoIterator<Item = &'a Answer>,
    told: &[Step],
) -> Vec<Option<Vec<Time>>> {
    let Apart { pieces, out, all, .. } = Apart::new(answers, told);
    let times = |(one, pieces): (Seen, Pieces<'_>)| {
        if pieces.is_whole {
            return Some(pieces.at);
        }
        let time = |step: &usize| {
            let from = pieces.at.partition_point(|at| *at < out[*step]);
            let next = out.get(step + 1);
            let own = pieces.at.get(from).filter(|at| next.is_none_or(|next| *at < next));
            own.copied().unwrap_or(out[*step])
        };
        (one.is_known && !out.is_empty()).then(|| one.steps.iter().map(time).collect())
    };
    all.into_iter().zip(pieces).map(times).collect()
}

/// When each token of a sequence was there that decoded alone, so that one of its steps is like the next:
/// a gap twice as long is two of them. `None` if these are not as many as it has tokens.
pub(super) fn alone_times(answer: &Answer) -> Option<Vec<Time>> {
    let all = Pieces::of(answer);
    let (count, end) = (all.count(), all.end());
    let mut pieces = all.at;
    if all.is_whole {
        return Some(pieces);
    }
    let gap = |two: &[Time]| nanos(two[0], two[1]);
    let usual = median(&pieces.windows(2).map(gap).collect::<Vec<f64>>());
    if pieces.last().is_some_and(|last| nanos(*last, end) > usual / 2.0) {
        pieces.push(end);
    }
    let mut tokens = vec![pieces[0]];
    for two in pieces.windows(2) {
        let steps = (gap(two) / usual).round().clamp(1.0, 1e6) as u64;
        let step = |index| two[0] + Span::from_nanos((gap(two) as u64) * index / steps);
        tokens.extend((1..=steps).map(step));
    }
    (tokens.len() == count).then_some(tokens)
}

/// The steps of an engine that tells none, as far as the tokens of all its answers show them. Left
/// out are those of which it cannot be known what they computed: the first after an idle time, those
/// in which a request may have been computed in part (`step_tokens_max` tokens fit a step, and
/// `seats` sequences), and those around a sequence that misses a step.
pub(crate) fn steps_of<'a>(
    answers: impl IntoIterator<Item = &'a Answer>,
    (step_tokens_max, seats): (u32, u32),
) -> Vec<Step> {
    let Some(timeline) = Timeline::of(answers) else { return Vec::new() };
    let Timeline { all, ends, shapes, .. } = &timeline;
    let mut unknown = timeline.hidden();
    for one in all.iter().filter(|one| one.is_known) {
        for two in one.steps.windows(2).filter(|two| two[1] != two[0] + 1) {
            unknown[two[0]..=two[1]].fill(true);
        }
        let first = one.steps[0];
        // It was there when these steps began, and no token came of them.
        let next = timeline.next_of(one);
        for step in next..first {
            unknown[step] |= shapes[step].sequences < u64::from(seats);
        }
        // It came while the step ran in which it ended: the client's clock and the engine's differ.
        unknown[first] |= next > first;
    }
    let fits = |shape: &BatchShape| shape.prefill + shape.sequences <= u64::from(step_tokens_max);
    (1..ends.len())
        .filter(|step| !unknown[*step] && shapes[*step].sequences > 0 && fits(&shapes[*step]))
        .map(|step| {
            let (start, end, shape) = (ends[step - 1], ends[step], shapes[step]);
            Step { start, end, delivered: end, shape }
        })
        .collect()
}

/// The steps of prompts that met an engine at rest and were computed alone, from sending them to their
/// first tokens, as far as the tokens of all answers show them.
pub(super) fn alone(answers: &[Answer], step_tokens_max: u32) -> Vec<Step> {
    let Some(timeline) = Timeline::of(answers) else { return Vec::new() };
    let hidden = timeline.hidden();
    let step = |one: &Seen| {
        let (first, sent) = (one.steps[0], one.sent);
        let (shape, end) = (timeline.shapes[first], timeline.ends[first]);
        let is_alone = shape.prefill == one.prompt && shape.idle > 0 && !hidden[first];
        let fits = one.prompt <= step_tokens_max.into();
        (is_alone && fits).then_some(Step { start: sent, end, delivered: end, shape })
    };
    timeline.all.iter().filter_map(step).collect()
}

/// When steps ended: the first of the tokens that came of each. A sequence gets one token a step, so
/// a second one is of another; and so is one that comes later than most steps take.
fn ends(all: &[Pieces<'_>]) -> Vec<Time> {
    let gaps = all.iter().flat_map(|one| one.at.windows(2));
    let gaps: Vec<f64> = gaps.map(|two| nanos(two[0], two[1])).collect();
    if gaps.is_empty() {
        return Vec::new();
    }
    let together = Span::from_nanos(median(&gaps) as u64);
    let tokens =
        all.iter().enumerate().flat_map(|(one, pieces)| pieces.at.iter().map(move |at| (*at, one)));
    let mut tokens: Vec<(Time, usize)> = tokens.collect();
    tokens.sort_unstable();
    let mut ends: Vec<Time> = Vec::new();
    // Which step each sequence's latest token is of.
    let mut latest = vec![0; all.len()];
    for (at, one) in tokens {
        let is_same = ends.last().is_some_and(|end| {
            at == *end || latest[one] != ends.len() && at.saturating_since(*end) <= together
        });
        if !is_same {
            ends.push(at);
        }
        latest[one] = ends.len();
    }
    ends
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::device::{Carries, Chunk, Usage};

    pub fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    pub fn answer(sent: u64, prompt_tokens: u32, tokens: &[u64]) -> Answer {
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
                let BatchShape { prefill, pairs, sequences, context, behind, idle: _ } = shape;
                let behind = behind.steps.into();
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
    fn a_prompt_that_meets_an_engine_at_rest_is_seen_from_its_sending_on() {
        let first = answer(80, 10, &[100, 110, 120]);
        let rested = answer(150, 20, &[190, 200]);
        let beside = answer(195, 30, &[230, 240]);
        let seen = alone(&[first, rested, beside], 512);
        let [step] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!((step.start, step.end), (at(150), at(190)));
        let wanted = BatchShape {
            prefill: 20,
            pairs: 210,
            behind: Behind { steps: 3, cold: (10 << 16) / (128 + 10) / 4 },
            idle: 30_000_000,
            ..BatchShape::default()
        };
        assert_eq!(step.shape, wanted);
    }

    /// The same, of which only some tokens were shown, by their places.
    fn held(mut whole: Answer, shown: &[usize]) -> Answer {
        whole.chunks = shown.iter().map(|place| whole.chunks[*place]).collect();
        whole
    }

    #[test]
    fn tokens_whose_text_was_held_back_are_found_by_those_of_others() {
        let first = answer(80, 10, &[100, 110, 120, 130, 140]);
        let second = answer(105, 20, &[120, 130, 140]);
        let third = answer(125, 30, &[140, 150, 160]);
        let whole = [first.clone(), second.clone(), third.clone()];
        let wanted = seen(&whole, (512, 8));
        let times = |answers: &[Answer]| token_times(answers, &[]);
        assert_eq!(wanted.len(), 6);
        // Within the second, and its first one, which the first one shows.
        for shown in [&[0, 2][..], &[1, 2], &[2]] {
            let some = [first.clone(), held(second.clone(), shown), third.clone()];
            assert_eq!(seen(&some, (512, 8)), wanted, "{shown:?}");
            assert_eq!(times(&some), times(&whole), "{shown:?}");
        }
        // Of the third nobody shows whether it was in the step to 150, or in that to 140.
        let some = [first.clone(), second.clone(), held(third.clone(), &[0, 2])];
        let known = [true, true, false];
        assert_eq!(times(&some).iter().map(Option::is_some).collect::<Vec<_>>(), known);
        let without = |starts: &[u64]| {
            let mut steps = wanted.clone();
            steps.retain(|step| !starts.contains(&step.0));
            steps
        };
        assert_eq!(seen(&some, (512, 8)), without(&[130, 140, 150]));
        // What the engine tells shows all.
        let told = |number: u64| Step {
            start: at(10 * number),
            end: at(10 * number + 10),
            delivered: at(10 * number + 10),
            shape: BatchShape::default(),
        };
        let told: Vec<Step> = (9..16).map(told).collect();
        assert_eq!(token_times(&some, &told), times(&whole));
        // Nothing is shown at all, and no step.
        for tokens in [0, 1, 2] {
            let mut none = held(second.clone(), &[]);
            none.usage.output_tokens = tokens;
            assert_eq!(times(&[none.clone()]), [None], "{tokens}");
            assert_eq!(seen(&[none], (512, 8)), []);
        }
        // Where most are held back, nothing is known.
        let most = [first, held(second, &[0]), held(third, &[0])];
        assert_eq!(seen(&most, (512, 8)), []);
    }

    #[test]
    fn steps_of_which_a_lone_sequence_shows_nothing_are_gaps_twice_as_long() {
        let whole = answer(80, 10, &[100, 110, 121, 130, 141, 150, 160]);
        let check = |shown: &[usize], found: Option<&[u64]>| {
            let times = alone_times(&held(whole.clone(), shown));
            let found = found.map(|all| all.iter().map(|millis| at(*millis)).collect::<Vec<_>>());
            assert_eq!(times, found, "{shown:?}");
        };
        check(&[0, 1, 2, 3, 4, 5, 6], Some(&[100, 110, 121, 130, 141, 150, 160]));
        check(&[0, 1, 3, 4, 5, 6], Some(&[100, 110, 120, 130, 141, 150, 160]));
        // Its first one is not to be found.
        check(&[1, 2, 3, 4, 5, 6], None);
        check(&[6], None);
    }
}
