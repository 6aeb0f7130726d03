//! Wall time to [`Time`], and back to instants to sleep until.

use plimsoll_base::{Span, Time};
use tokio::time::Instant;

/// Counts nanoseconds since it was started. Never runs backwards.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that stands at zero now.
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The time now.
    pub fn now(&self) -> Time {
        self.at(Instant::now())
    }

    /// The time at an instant; zero before the start.
    pub fn at(&self, instant: Instant) -> Time {
        let since = instant.saturating_duration_since(self.start).as_nanos();
        Time::from_nanos(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// The instant of a time; a day from now where that is farther off, which is late enough to
    /// look again.
    pub(crate) fn instant(&self, at: Time) -> Instant {
        let ahead = at.saturating_since(self.now()).min(Span::from_secs(86_400));
        Instant::now() + std::time::Duration::from_nanos(ahead.nanos())
    }
}
