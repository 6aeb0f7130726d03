//! `concurrency`: each class may hold a fraction of all seats.
//!
//! A class with the share `s` holds at most `max(1, floor(s × seats))` requests at backends, where
//! `seats` is the sum over the backends that are there; it is computed anew when one joins or
//! leaves. A class at its share steps aside and the others go on. Classes that the rule does not
//! name are not limited by it.
//!
//! **Promise.** Where every class has a share, the shares sum to at most 1 ([`Config::check`]
//! demands it) and no share is rounded up to 1, a class below its share finds a free seat at once,
//! whatever the others ask for. When backends leave, a class may hold more than its share until
//! enough of its requests have ended; it gets no new seat before.
//!
//! **Failure.** What a class does not use stays idle: it is not lent. Where it should be, use
//! `quota`. With fewer seats than classes the shares that are rounded up to 1 sum to more than there
//! is, and then who comes first gets the seat.
//!
//! Source: Kubernetes, API Priority and Fairness: a server's concurrency limit is divided among
//! priority levels in proportion to their shares (there rounded up; here rounded down, so that the
//! sum stays below the whole).

use plimsoll_base::ClassId;

use crate::class_set::ClassSet;
use crate::config::Concurrency as Config;

/// A whole in millionths.
const ONE: u128 = 1_000_000;

#[derive(Clone, Copy, Debug)]
struct Part {
    class: ClassId,
    share_ppm: u32,
    requests: u32,
    requests_max: u32,
}

/// What each class holds of the seats, and may.
#[derive(Debug)]
pub(crate) struct Concurrency {
    seats: u64,
    parts: Vec<Part>,
    full: ClassSet,
}

impl Concurrency {
    pub fn new(config: &Config) -> Concurrency {
        let part = |&(class, share_ppm): &(ClassId, u32)| Part {
            class,
            share_ppm,
            requests: 0,
            requests_max: 1,
        };
        let parts = config.shares_ppm.iter().map(part).collect();
        Concurrency { seats: 0, parts, full: ClassSet::EMPTY }
    }

    /// Classes that hold their share.
    pub fn full(&self) -> ClassSet {
        self.full
    }

    /// There are so many seats now.
    pub fn resize(&mut self, seats: u64) {
        if self.seats == seats {
            return;
        }
        self.seats = seats;
        for part in &mut self.parts {
            let share = u128::from(part.share_ppm) * u128::from(seats) / ONE;
            part.requests_max = u32::try_from(share).unwrap_or(u32::MAX).max(1);
        }
        let full = self.parts.iter().filter(|part| part.requests >= part.requests_max);
        self.full = full.map(|part| part.class).collect();
    }

    pub fn take(&mut self, class: ClassId) {
        let Some(part) = self.parts.iter_mut().find(|part| part.class == class) else { return };
        part.requests += 1;
        if part.requests >= part.requests_max {
            self.full.insert(class);
        }
    }
    pub fn release(&mut self, class: ClassId) {
        let Some(part) = self.parts.iter_mut().find(|part| part.class == class) else { return };
        assert!(part.requests > 0, "what ends was outstanding");
        part.requests -= 1;
        if part.requests < part.requests_max {
            self.full.remove(class);
        }
    }
}
