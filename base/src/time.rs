//! Integer time: [`Time`] and [`Span`] in nanoseconds, [`Ticks`] for the inside of an engine.
//!
//! Arithmetic is checked: overflow is a bug that stops the run, never a wrong number.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use serde::{Deserialize, Serialize};

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// An instant: nanoseconds since the run began (584 years fit).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Time(u64);

/// A length of time in nanoseconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Span(u64);

/// A length of time in units of 2⁻¹⁶ ns (about 15 femtoseconds).
///
/// Step durations are sums of fixed-point coefficients in this unit, so that adding a thousand
/// steps one by one and adding them as an arithmetic series give the same integer. One `Ticks`
/// value holds up to 78 hours; absolute instants are always a [`Time`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Ticks(pub u64);

impl Time {
    /// The instant the run begins.
    pub const ZERO: Time = Time(0);
    /// Later than every instant of a run.
    pub const MAX: Time = Time(u64::MAX);

    /// The instant `nanos` nanoseconds after the run began.
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }
    /// Nanoseconds since the run began.
    pub const fn nanos(self) -> u64 {
        self.0
    }
    /// Seconds since the run began, for display and statistics.
    pub fn secs_f64(self) -> f64 {
        self.0 as f64 / NANOS_PER_SEC as f64
    }
    /// The time since `earlier`, or zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
    /// `self + span`, or [`Time::MAX`] where that does not fit.
    pub const fn saturating_add(self, span: Span) -> Time {
        Time(self.0.saturating_add(span.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);
    /// Longer than every run.
    pub const MAX: Span = Span(u64::MAX);

    /// `nanos` nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Span {
        Span(nanos)
    }
    /// `micros` microseconds.
    pub const fn from_micros(micros: u64) -> Span {
        Span(micros * 1_000)
    }
    /// `millis` milliseconds.
    pub const fn from_millis(millis: u64) -> Span {
        Span(millis * 1_000_000)
    }
    /// `secs` seconds.
    pub const fn from_secs(secs: u64) -> Span {
        Span(secs * NANOS_PER_SEC)
    }
    /// The only door from floats to time: `secs` seconds rounded to the nearest nanosecond,
    /// halves up. Negative and not-a-number become zero; too large becomes [`Span::MAX`].
    pub fn from_secs_f64(secs: f64) -> Span {
        // `as` cuts off, saturates and maps NaN to 0, which is the documented behaviour.
        Span((secs * NANOS_PER_SEC as f64 + 0.5) as u64)
    }
    /// Nanoseconds.
    pub const fn nanos(self) -> u64 {
        self.0
    }
    /// Seconds, for display and statistics.
    pub fn secs_f64(self) -> f64 {
        self.0 as f64 / NANOS_PER_SEC as f64
    }
    /// Milliseconds, for display and statistics.
    pub fn millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
    /// `self - other`, or zero.
    pub const fn saturating_sub(self, other: Span) -> Span {
        Span(self.0.saturating_sub(other.0))
    }
    /// The sum, or [`Span::MAX`].
    pub const fn saturating_add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
    /// `self * factor`, or [`Span::MAX`].
    pub const fn saturating_mul(self, factor: u64) -> Span {
        Span(self.0.saturating_mul(factor))
    }
    /// This span in engine units, or `None` past 78 hours.
    pub const fn ticks(self) -> Option<Ticks> {
        match self.0.checked_mul(Ticks::PER_NANO) {
            Some(ticks) => Some(Ticks(ticks)),
            None => None,
        }
    }
}

impl Ticks {
    /// How many ticks make a nanosecond.
    pub const PER_NANO: u64 = 1 << Self::FRACTION_BITS;
    /// Binary digits below the nanosecond.
    pub const FRACTION_BITS: u32 = 16;

    /// The span rounded up to whole nanoseconds, as engine time becomes [`Time`].
    pub const fn span_ceil(self) -> Span {
        Span(self.0.div_ceil(Self::PER_NANO))
    }
    /// The span rounded down to whole nanoseconds, as gaps are recorded.
    pub const fn span_floor(self) -> Span {
        Span(self.0 / Self::PER_NANO)
    }
}

impl Add<Span> for Time {
    type Output = Time;
    fn add(self, span: Span) -> Time {
        Time(self.0.checked_add(span.0).expect("an instant stays below 584 years"))
    }
}
impl AddAssign<Span> for Time {
    fn add_assign(&mut self, span: Span) {
        *self = *self + span;
    }
}
impl Sub<Time> for Time {
    type Output = Span;
    fn sub(self, earlier: Time) -> Span {
        Span(self.0.checked_sub(earlier.0).expect("the subtracted instant is not later"))
    }
}
impl Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0.checked_add(other.0).expect("a span stays below 584 years"))
    }
}
impl AddAssign for Span {
    fn add_assign(&mut self, other: Span) {
        *self = *self + other;
    }
}
impl Sub for Span {
    type Output = Span;
    fn sub(self, other: Span) -> Span {
        Span(self.0.checked_sub(other.0).expect("the subtracted span is not longer"))
    }
}
impl SubAssign for Span {
    fn sub_assign(&mut self, other: Span) {
        *self = *self - other;
    }
}
impl std::iter::Sum for Span {
    fn sum<I: Iterator<Item = Span>>(spans: I) -> Span {
        spans.fold(Span::ZERO, Add::add)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Span(self.0).fmt(f)
    }
}
/// Three significant digits in the unit that fits: `812 ms`, `1.50 s`, `25.0 min`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0 as f64;
        let (value, unit) = match self.0 {
            0 => return f.write_str("0 s"),
            1..=999 => (nanos, "ns"),
            1_000..=999_999 => (nanos / 1e3, "µs"),
            1_000_000..=999_999_999 => (nanos / 1e6, "ms"),
            1_000_000_000..=119_999_999_999 => (nanos / 1e9, "s"),
            120_000_000_000..=7_199_999_999_999 => (nanos / 60e9, "min"),
            _ => (nanos / 3600e9, "h"),
        };
        let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        write!(f, "{value:.digits$} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_enter_through_one_door() {
        for (secs, nanos) in
            [(0.0, 0), (1.0, 1_000_000_000), (1e-9, 1), (-1.0, 0), (f64::NAN, 0), (1e30, u64::MAX)]
        {
            assert_eq!(Span::from_secs_f64(secs).nanos(), nanos, "{secs}");
        }
    }

    #[test]
    fn ticks_round_up_into_time() {
        assert_eq!(Ticks(1).span_ceil(), Span::from_nanos(1));
        assert_eq!(Ticks(65_536).span_ceil(), Span::from_nanos(1));
        assert_eq!(Ticks(65_537).span_floor(), Span::from_nanos(1));
        assert_eq!(Span::from_nanos(3).ticks(), Some(Ticks(3 << 16)));
        assert_eq!(Span::MAX.ticks(), None);
    }

    #[test]
    fn spans_read_well() {
        for (nanos, text) in [
            (0, "0 s"),
            (999, "999 ns"),
            (1_500, "1.50 µs"),
            (812_000_000, "812 ms"),
            (1_500_000_000, "1.50 s"),
            (1_500_000_000_000, "25.0 min"),
        ] {
            assert_eq!(Span::from_nanos(nanos).to_string(), text);
        }
    }

    #[test]
    #[should_panic(expected = "not later")]
    fn time_never_runs_backwards() {
        let _ = Time::ZERO - Time::from_nanos(1);
    }
}
