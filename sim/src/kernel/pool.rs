//! A resource that is held: requests take an amount of it and give it back.

use std::collections::VecDeque;

use plimsoll_base::Time;

use super::statistics::{Level, Tally};

/// A counted resource (memory, connections, licences) that requests hold amounts of. Grants are
/// first come, first served without overtaking: a small request waits behind a large one even
/// where it would fit, so that nobody starves.
///
/// ```
/// use plimsoll_base::Time;
/// use plimsoll_sim::kernel::{Grant, Pool};
///
/// let at = Time::from_nanos;
/// let mut memory = Pool::new(10);
/// assert_eq!(memory.acquire(at(0), "a", 8), Grant::Granted("a"));
/// assert_eq!(memory.acquire(at(1), "b", 5), Grant::Waits);
/// assert_eq!(memory.acquire(at(2), "c", 1), Grant::Waits); // fits, but "b" was first
/// let mut woken = Vec::new();
/// memory.release(at(4), 8, |request| woken.push(request));
/// assert_eq!(woken, ["b", "c"]);
/// assert_eq!(memory.held().mean(at(8)), Some((8.0 * 4.0 + 6.0 * 4.0) / 8.0));
/// ```
#[derive(Clone, Debug)]
pub struct Pool<R> {
    capacity: u64,
    /// Who waits, since when, for how much.
    queue: VecDeque<(Time, R, u64)>,
    held: Level,
    waits: Tally,
}

/// What becomes of a request for an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant<R> {
    /// It holds the amount from now on.
    Granted(R),
    /// It waits; some [`Pool::release`] will hand it back when it holds the amount.
    Waits,
}

impl<R> Pool<R> {
    /// A pool of `capacity` units, none of them held.
    pub fn new(capacity: u64) -> Self {
        Pool { capacity, queue: VecDeque::new(), held: Level::default(), waits: Tally::default() }
    }

    /// `request` asks for `amount` units.
    ///
    /// # Panics
    /// If `amount` is more than the pool has: the request would wait for ever.
    pub fn acquire(&mut self, now: Time, request: R, amount: u64) -> Grant<R> {
        assert!(amount <= self.capacity, "a request asks for no more than the pool has");
        if !self.queue.is_empty() || amount > self.free() {
            self.queue.push_back((now, request, amount));
            return Grant::Waits;
        }
        self.grant(now, now, amount);
        Grant::Granted(request)
    }

    /// `amount` units come back. Everybody who now gets what it waits for is handed to `granted`,
    /// in the order in which they asked.
    pub fn release(&mut self, now: Time, amount: u64, mut granted: impl FnMut(R)) {
        let left = self.held.value().checked_sub(amount).expect("only what is held comes back");
        self.held.set(now, left);
        while let Some((_, _, wanted)) = self.queue.front()
            && *wanted <= self.free()
        {
            let (came, request, amount) = self.queue.pop_front().expect("its front was seen");
            self.grant(now, came, amount);
            granted(request);
        }
    }

    /// Units nobody holds.
    pub fn free(&self) -> u64 {
        self.capacity - self.held.value()
    }

    /// Units held.
    pub fn held(&self) -> &Level {
        &self.held
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// From asking to holding, one entry a request that got its amount.
    pub fn waits(&self) -> &Tally {
        &self.waits
    }

    /// Statistics begin at `now`; what is held stays held.
    pub fn restart_statistics(&mut self, now: Time) {
        self.held.restart(now);
        self.waits = Tally::default();
    }

    fn grant(&mut self, now: Time, came: Time, amount: u64) {
        self.held.set(now, self.held.value() + amount);
        self.waits.record(now - came);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Acquires (`Some`) and releases of the oldest holder (`None`) in any order.
        #[test]
        fn grants_in_order_and_never_beyond_its_capacity(
            ops in prop::collection::vec(prop::option::of(0..=7u64), 0..200),
        ) {
            let mut pool = Pool::new(7);
            let mut asked: Vec<u64> = Vec::new();
            let mut granted: Vec<usize> = Vec::new();
            let mut released = 0;
            for (nanos, op) in ops.into_iter().enumerate() {
                let now = Time::from_nanos(nanos as u64);
                match op {
                    Some(amount) => {
                        asked.push(amount);
                        if let Grant::Granted(i) = pool.acquire(now, asked.len() - 1, amount) {
                            granted.push(i);
                        }
                    }
                    None if released < granted.len() => {
                        pool.release(now, asked[granted[released]], |i| granted.push(i));
                        released += 1;
                    }
                    None => {}
                }
                let held: u64 = granted[released..].iter().map(|i| asked[*i]).sum();
                prop_assert_eq!(pool.held().value(), held);
                prop_assert!(held <= 7);
                prop_assert!(granted.iter().copied().eq(0..granted.len()), "{granted:?}");
                prop_assert_eq!(pool.waiting(), asked.len() - granted.len());
                // Nobody waits beside room for it.
                prop_assert!(asked.get(granted.len()).is_none_or(|next| *next > pool.free()));
            }
        }
    }

    #[test]
    #[should_panic(expected = "no more than the pool has")]
    fn the_impossible_is_refused() {
        Pool::new(3).acquire(Time::ZERO, (), 4);
    }

    #[test]
    #[should_panic(expected = "only what is held comes back")]
    fn nothing_comes_back_twice() {
        Pool::<()>::new(3).release(Time::ZERO, 1, |()| {});
    }
}
