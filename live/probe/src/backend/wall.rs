//! The one place where wall time and the engine's [`Time`] become each other.

use std::time::Duration;

use plimsoll_base::Time;
use tokio::time::Instant;

/// The engine's clock: as fast as the wall's times `speed`.
#[derive(Clone, Copy, Debug)]
pub(super) struct WallClock {
    start: Instant,
    speed: f64,
}

impl WallClock {
    /// A clock that stands at zero now.
    pub fn start(speed: f64) -> WallClock {
        WallClock { start: Instant::now(), speed }
    }
    /// What it shows.
    pub fn now(&self) -> Time {
        // `as` saturates.
        Time::from_nanos((self.start.elapsed().as_secs_f64() * self.speed * 1e9) as u64)
    }
    /// How many of the wall's nanoseconds after the start it shows `at`.
    pub fn nanos(&self, at: Time) -> u64 {
        // `as` saturates.
        (at.secs_f64() / self.speed * 1e9) as u64
    }
    /// When it will show `at`; a day from now where that cannot be said.
    pub fn instant(&self, at: Time) -> Instant {
        let span = Duration::try_from_secs_f64(at.secs_f64() / self.speed).ok();
        let instant = span.and_then(|span| self.start.checked_add(span));
        instant.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400))
    }
}
