//! What resources count: exact integers, turned into floats only when asked.

use plimsoll_base::{Span, Time};

/// A number that changes over time, and its time-weighted mean.
#[derive(Clone, Debug, Default)]
pub struct Level {
    value: u64,
    peak: u64,
    /// Value times nanoseconds, summed from `begun` to `changed`.
    area: u128,
    begun: Time,
    changed: Time,
}

impl Level {
    /// The number now.
    pub fn value(&self) -> u64 {
        self.value
    }

    /// The greatest value since the statistics began.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// The integral over time since the statistics began, up to `now`: value times nanoseconds.
    pub fn area(&self, now: Time) -> u128 {
        self.area + u128::from(self.value) * u128::from((now - self.changed).nanos())
    }

    /// The time-weighted mean since the statistics began; `None` where no time has passed.
    pub fn mean(&self, now: Time) -> Option<f64> {
        let nanos = (now - self.begun).nanos();
        (nanos > 0).then(|| self.area(now) as f64 / nanos as f64)
    }

    /// The number becomes `value` at `now`.
    pub fn set(&mut self, now: Time, value: u64) {
        self.area = self.area(now);
        self.changed = now;
        self.value = value;
        self.peak = self.peak.max(value);
    }

    /// The statistics begin at `now`; the number stays.
    pub fn restart(&mut self, now: Time) {
        *self = Level { value: self.value, peak: self.value, area: 0, begun: now, changed: now };
    }
}

/// How many spans there were, and their mean.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    count: u64,
    nanos: u128,
    longest: Span,
}

impl Tally {
    /// One more.
    pub fn record(&mut self, span: Span) {
        self.count += 1;
        self.nanos += u128::from(span.nanos());
        self.longest = self.longest.max(span);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest; zero where there were none.
    pub fn longest(&self) -> Span {
        self.longest
    }

    /// Their sum in nanoseconds.
    pub fn nanos(&self) -> u128 {
        self.nanos
    }

    /// Their mean in seconds; `None` where there were none.
    pub fn mean_secs(&self) -> Option<f64> {
        (self.count > 0).then(|| self.nanos as f64 / self.count as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_weighs_by_time() {
        let at = Time::from_nanos;
        let mut level = Level::default();
        level.set(at(10), 3);
        level.set(at(20), 1);
        assert_eq!((level.area(at(40)), level.peak()), (3 * 10 + 20, 3));
        assert_eq!(level.mean(at(40)), Some(50.0 / 40.0));
        level.restart(at(40));
        assert_eq!((level.mean(at(40)), level.mean(at(50)), level.peak()), (None, Some(1.0), 1));
    }

    #[test]
    fn a_tally_of_nothing_has_no_mean() {
        let mut tally = Tally::default();
        assert_eq!(tally.mean_secs(), None);
        tally.record(Span::from_secs(1));
        tally.record(Span::from_secs(4));
        assert_eq!((tally.mean_secs(), tally.longest()), (Some(2.5), Span::from_secs(4)));
    }
}
