//! The engine's own clock: integer ticks of 2⁻¹⁶ ns, so that adding steps one by one and adding
//! them as a series land on the same instant.

use plimsoll_base::{Ticks, Time};

/// An instant to the tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clock {
    whole: Time,
    fraction: u64,
}

impl Clock {
    /// The instant `at`, exactly.
    pub fn at(at: Time) -> Clock {
        Clock { whole: at, fraction: 0 }
    }
    /// This instant `ticks` later.
    pub fn after(self, ticks: u64) -> Clock {
        let sum = self.fraction + ticks;
        let whole = self.whole + Ticks(sum).span_floor();
        Clock { whole, fraction: sum % Ticks::PER_NANO }
    }
    /// The first whole nanosecond that is not earlier: when the world sees it.
    pub fn ceil(self) -> Time {
        self.whole + Ticks(self.fraction).span_ceil()
    }
    /// Ticks from this instant to the whole nanosecond `later`; 0 if that is not later.
    pub fn ticks_until(self, later: Time) -> u64 {
        let nanos = later.saturating_since(self.whole).nanos();
        nanos.saturating_mul(Ticks::PER_NANO).saturating_sub(self.fraction)
    }
}

/// Durations of consecutive steps: `first`, `first + increment`, `first + 2·increment`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// The first step, in ticks; at least 1.
    pub first: u64,
    /// What each step adds to the one before, in ticks.
    pub increment: u64,
}

impl Series {
    /// No sum of a series may exceed this: 19 hours, so that sums fit 64 bits.
    const SUM_MAX: u64 = 1 << 62;

    /// The step with this index, from 0.
    pub fn step(self, index: u64) -> u64 {
        self.first + self.increment * index
    }
    /// The sum of the first `steps` steps.
    pub fn sum(self, steps: u64) -> u64 {
        self.first * steps + self.increment * (steps * steps.saturating_sub(1) / 2)
    }
    /// The greatest number of steps, at most `steps`, whose sum is sure to fit.
    pub fn fitting(self, steps: u64) -> u64 {
        // The usual case: 4,096 steps of 4 seconds each still fit.
        if steps <= 1 << 12 && self.first < 1 << 48 && self.increment < 1 << 36 {
            return steps;
        }
        let mut steps = steps.min(1 << 20);
        while steps > 1 {
            let last = self.increment.saturating_mul(steps).saturating_add(self.first);
            if last.saturating_mul(steps) <= Self::SUM_MAX {
                break;
            }
            steps /= 2;
        }
        steps.max(1)
    }
    /// The least number of steps whose sum is at least `ticks`, between 1 and `limit`.
    pub fn steps_to_reach(self, ticks: u64, limit: u64) -> u64 {
        let mut steps = self.estimate(ticks).clamp(1, limit);
        while steps > 1 && self.sum(steps - 1) >= ticks {
            steps -= 1;
        }
        while steps < limit && self.sum(steps) < ticks {
            steps += 1;
        }
        steps
    }
    /// The positive root of the sum's quadratic, in floats: off by one at the worst, and
    /// corrected exactly by the caller.
    fn estimate(self, ticks: u64) -> u64 {
        if self.increment == 0 {
            return ticks.div_ceil(self.first);
        }
        let half = self.increment as f64 / 2.0;
        let linear = self.first as f64 - half;
        let root = plimsoll_base::math::sqrt(linear * linear + 4.0 * half * ticks as f64);
        ((root - linear) / (2.0 * half)) as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_invert_exactly() {
        for (first, increment) in [(1, 0), (1, 1), (7, 0), (1000, 3), (5, 1000), (1 << 40, 1 << 20)]
        {
            let series = Series { first, increment };
            for steps in [1, 2, 3, 10, 100, 1000] {
                let sum = series.sum(steps);
                for (ticks, want) in [(sum - 1, steps), (sum, steps), (sum + 1, steps + 1)] {
                    let want = if ticks == 0 { 1 } else { want };
                    let want =
                        if steps > 1 && series.sum(steps - 1) >= ticks { steps - 1 } else { want };
                    assert_eq!(series.steps_to_reach(ticks, 1 << 20), want, "{series:?} {steps}");
                }
            }
        }
    }

    #[test]
    fn clocks_add_the_same_in_parts() {
        let start = Clock::at(Time::from_nanos(5));
        assert_eq!(start.after(40_000).after(40_000), start.after(80_000));
        assert_eq!(start.after(1).ceil(), Time::from_nanos(6));
        assert_eq!(start.after(1).ticks_until(Time::from_nanos(6)), Ticks::PER_NANO - 1);
    }
}
