//! The one place where wall time and the engine's [`Time`] become each other.

use std::time::{Duration, Instant};

use plimsoll_base::Time;

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
    /// How long it is until it shows `at`; a day where that cannot be said.
    pub fn until(&self, at: Time) -> Duration {
        let span = Duration::try_from_secs_f64(at.secs_f64() / self.speed).ok();
        let most = Duration::from_secs(86_400);
        span.map_or(most, |span| span.saturating_sub(self.start.elapsed()).min(most))
    }
}
