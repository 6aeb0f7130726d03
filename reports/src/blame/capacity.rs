//! How long capacity was free.

use plimsoll_base::Time;

/// The seats and the memory of all backends, as what was let in and has not closed takes them.
///
/// Capacity is free while some backend has a free seat and not all memory is taken. One running
/// integral, so that how long it was free while somebody waited is a subtraction.
#[derive(Clone, Debug)]
pub(super) struct Capacity {
    /// By backend slot: seats taken, and all.
    seats: Vec<(u32, u32)>,
    /// Backends with a free seat.
    open: usize,
    tokens: u64,
    tokens_all: u64,
    at: Time,
    /// Nanoseconds.
    free: u64,
}

impl Capacity {
    /// Backends with so many seats each, and so many tokens of memory in all.
    pub fn new(seats: impl Iterator<Item = u32>, tokens_all: u64) -> Capacity {
        let seats: Vec<(u32, u32)> = seats.map(|seats| (0, seats)).collect();
        let open = seats.iter().filter(|(_, all)| *all > 0).count();
        Capacity { seats, open, tokens: 0, tokens_all, at: Time::ZERO, free: 0 }
    }

    /// For how long capacity was free up to `now`, in nanoseconds.
    #[inline]
    pub fn free(&mut self, now: Time) -> u64 {
        if self.open > 0 && self.tokens < self.tokens_all {
            self.free += now.saturating_since(self.at).nanos();
        }
        self.at = now;
        self.free
    }

    /// A request is let in.
    #[inline]
    pub fn take(&mut self, now: Time, slot: usize, tokens: u64) {
        self.free(now);
        self.tokens += tokens;
        if let Some((taken, all)) = self.seats.get_mut(slot) {
            *taken += 1;
            self.open -= usize::from(*taken == *all);
        }
    }

    /// It closes.
    #[inline]
    pub fn give_back(&mut self, now: Time, slot: usize, tokens: u64) {
        self.free(now);
        self.tokens -= tokens;
        if let Some((taken, all)) = self.seats.get_mut(slot) {
            self.open += usize::from(*taken == *all);
            *taken -= 1;
        }
    }
}
