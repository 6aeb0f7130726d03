//! The clock of a device: nanoseconds since it was opened.

use std::time::{Duration, Instant};

use plimsoll_base::Time;

/// A monotonic clock that stood at zero when its device was opened.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that stands at zero now.
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }
    /// What it shows.
    pub fn now(self) -> Time {
        self.at(Instant::now())
    }
    /// What it shows, or showed, at an instant; zero before it was started.
    pub fn at(self, instant: Instant) -> Time {
        let nanos = instant.saturating_duration_since(self.start).as_nanos();
        Time::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
    /// When it shows `time`.
    pub fn instant(self, time: Time) -> Instant {
        self.start + Duration::from_nanos(time.nanos())
    }
}
