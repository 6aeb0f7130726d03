//! When open-loop requests arrive.

use plimsoll_base::{Span, Stream, Time};

use super::Arrivals;

/// A point process on the time line. The last instant is kept in integer nanoseconds and each
/// gap is rounded once, so that no error grows with the length of a run.
#[derive(Clone, Debug)]
pub(super) struct Process {
    gaps: Gaps,
    at: Time,
    stream: Stream,
}

#[derive(Clone, Debug)]
enum Gaps {
    /// `mean_secs` times an exponential of mean 1.
    Exponential { mean_secs: f64 },
    /// `scale_secs` times a gamma of this shape.
    Gamma { shape: f64, scale_secs: f64 },
    /// By the cumulative rate.
    Piecewise(Pieces),
}

/// A piecewise constant rate, read from `piece` on, which began at `began`.
#[derive(Clone, Debug)]
struct Pieces {
    pieces: Vec<(Span, f64)>,
    repeat: bool,
    /// Length of, and requests expected in, one round through the pieces.
    round: Span,
    round_requests: f64,
    piece: usize,
    began: Time,
}

impl Process {
    /// The process of `arrivals`, begun at `start`; `None` where arrivals do not come from a
    /// process of their own (closed loop, trace).
    pub(super) fn new(arrivals: &Arrivals, start: Time, stream: Stream) -> Option<Process> {
        let gaps = match arrivals {
            Arrivals::Poisson { rate } => Gaps::Exponential { mean_secs: 1.0 / rate },
            // Shape 1/cv² and mean 1/rate.
            Arrivals::Gamma { rate, cv } => {
                Gaps::Gamma { shape: 1.0 / (cv * cv), scale_secs: cv * cv / rate }
            }
            Arrivals::Piecewise { pieces, repeat } => {
                Gaps::Piecewise(Pieces::new(pieces.clone(), *repeat, start))
            }
            Arrivals::Closed { .. } | Arrivals::Trace => return None,
        };
        Some(Process { gaps, at: start, stream })
    }

    /// The next arrival; `None` if there is none before the end of time.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<Time> {
        let next = match &mut self.gaps {
            Gaps::Exponential { mean_secs } => {
                after(self.at, self.stream.exponential() * *mean_secs)
            }
            Gaps::Gamma { shape, scale_secs } => {
                after(self.at, self.stream.gamma(*shape) * *scale_secs)
            }
            Gaps::Piecewise(pieces) => pieces.after(self.at, self.stream.exponential())?,
        };
        self.at = next;
        (next < Time::MAX).then_some(next)
    }
}

fn after(at: Time, secs: f64) -> Time {
    at.saturating_add(Span::from_secs_f64(secs))
}

impl Pieces {
    fn new(pieces: Vec<(Span, f64)>, repeat: bool, began: Time) -> Pieces {
        let round = pieces.iter().map(|(length, _)| *length).sum();
        let round_requests = pieces.iter().map(|(length, rate)| length.secs_f64() * rate).sum();
        Pieces { pieces, repeat, round, round_requests, piece: 0, began }
    }

    /// The instant by which the cumulative rate has risen by `requests` since `at`. With
    /// exponential rises of mean 1 these instants are a Poisson process with this rate.
    ///
    /// Source: E. Çinlar, "Introduction to Stochastic Processes" (1975), section 4.7 (time
    /// rescaling by the inverse of the expectation function).
    fn after(&mut self, at: Time, mut requests: f64) -> Option<Time> {
        let mut at = at;
        loop {
            let (length, rate) = *self.pieces.get(self.piece)?;
            let end = self.began.saturating_add(length);
            let left = end.saturating_since(at).secs_f64() * rate;
            if requests < left {
                // Rounding must not carry the arrival over the piece's end.
                return Some(after(at, requests / rate).min(end));
            }
            if end == Time::MAX {
                return None;
            }
            requests -= left;
            (self.piece, self.began, at) = (self.piece + 1, end, end);
            if self.piece == self.pieces.len() && self.repeat && self.round_requests > 0.0 {
                // Whole rounds are skipped at once, however small their rates.
                let rounds = requests / self.round_requests;
                requests -= rounds.floor() * self.round_requests;
                self.began = end.saturating_add(self.round.saturating_mul(rounds as u64));
                (self.piece, at) = (0, self.began);
            }
        }
    }
}
