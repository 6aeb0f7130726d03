//! Autoscaling advice: how many backends each pool should have. Nothing is started or stopped
//! here; whoever runs the machine hears the advice ([`Signal::Scale`](crate::Signal::Scale)).
//!
//! **What it does.** Every `every` it looks at each pool. The load of a pool is what there is to
//! do in parts of what the pool holds, in requests against seats and in estimated tokens (prompt +
//! predicted output) against KV memory, whichever is more:
//!
//! ```text
//! load    = max over both of  outstanding / capacity of the pool + waiting / capacity of all pools
//! desired = ⌈present · load / target⌉, within min and max;  present, while
//!           |load − target| ≤ tolerance · target
//! ```
//!
//! What waits belongs to no pool yet and counts in each by its part of the capacity. Up it goes
//! at once; down only to the most that was desired in the last `down_after`. Advice is given when
//! it differs from what stands: the latest advice, or what is there once that has changed.
//!
//! **Source.** The Horizontal Pod Autoscaler of Kubernetes: desired = ⌈current · metric / target⌉
//! with a tolerance (default 0.1), the greatest of several metrics, and the stabilisation window
//! (default five minutes, down only). The metric is its own: a queue counts, so that a pool whose
//! seats are all taken does not look the same whatever waits.
//!
//! **Never twice on one gauge.** After advice for a pool there is none for `cool_down`: the time
//! that a backend takes to be there. What is held falls only once the new ones work.
//!
//! **Promise.** Advice lies within `min` and `max`; of one pool between two pieces lies
//! `cool_down` at least; none is given while the load is within the tolerance (and the pool within
//! its bounds); fewer backends are advised only if no look of the last `down_after` wanted more.
//!
//! **How it fails.** A backlog counts like work that keeps coming: after an outage it asks for what
//! would run all of it at once, up to `max`. It believes that work grows as backends do, and follows what has come: a burst
//! shorter than `cool_down` gets its backends when it is over. Where prompts vary the load does
//! too: widen `tolerance`. The looks are made at reports of backends, so a driver that does not
//! report gets no advice, nor do pools while no backend at all is there. Where some requests may
//! only go to some pools what waits is spread wrongly. A request whose backend is gone counts as
//! waiting until its end is told.

use std::collections::VecDeque;

use plimsoll_base::{BackendId, PoolId, Scale, Span, Time};

use crate::admit::Held;
use crate::allocator::BackendState;
use crate::config::Autoscale as Rule;
use crate::message::BackendInfo;

/// Millionths of a whole.
const WHOLE: u128 = 1_000_000;

/// What each pool was seen to need, and what was advised.
#[derive(Debug)]
pub(crate) struct Autoscale {
    rule: Rule,
    /// Not before this is looked again.
    next: Time,
    /// Indexed by backend slot.
    rows: Vec<Row>,
    pools: Vec<Pool>,
    /// Not yet heard; at most one a pool.
    said: VecDeque<Scale>,
}

/// What a backend offers.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    /// The place of its pool.
    pool: usize,
    seats: u32,
    kv_tokens: u64,
}

/// What some backends offer, and what is outstanding there.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    backends: u32,
    seats: u128,
    kv_tokens: u128,
    requests: u128,
    tokens: u128,
}

#[derive(Debug)]
struct Pool {
    id: PoolId,
    tally: Tally,
    /// How many there were when advice was given, and the advice.
    standing: Option<(u32, u32)>,
    advised: Option<Time>,
    /// The looks of the last `down_after` after which none wanted as many, the most first.
    peaks: VecDeque<(Time, u32)>,
}

impl Tally {
    fn add(&mut self, row: &Row, state: &BackendState) {
        self.backends += 1;
        self.seats += u128::from(row.seats);
        self.kv_tokens += u128::from(row.kv_tokens);
        self.requests += u128::from(state.requests.0);
        self.tokens += u128::from(state.tokens.0);
    }
}

impl Autoscale {
    pub fn new(rule: &Rule) -> Autoscale {
        let (rows, pools, said) = Default::default();
        Autoscale { rule: rule.clone(), next: Time::ZERO, rows, pools, said }
    }

    pub fn every(&self) -> Span {
        self.rule.every
    }

    pub fn joined(&mut self, backend: BackendId, info: &BackendInfo) {
        let known = self.pools.iter().position(|pool| pool.id == info.pool);
        let pool = known.unwrap_or_else(|| {
            self.pools.push(Pool::new(info.pool));
            self.pools.len() - 1
        });
        if self.rows.len() <= backend.index() {
            self.rows.resize(backend.index() + 1, Row::default());
        }
        self.rows[backend.index()] = Row { pool, seats: info.seats, kv_tokens: info.kv_tokens };
    }

    /// Looks, if it is time to: so much is held, and of it these backends have their part.
    pub fn look(&mut self, now: Time, held: Held, states: impl Iterator<Item = BackendState>) {
        if now < self.next {
            return;
        }
        self.next = now.saturating_add(self.rule.every);
        let mut all = Tally::default();
        self.pools.iter_mut().for_each(|pool| pool.tally = Tally::default());
        for state in states {
            let row = &self.rows[state.backend.index()];
            self.pools[row.pool].tally.add(row, &state);
            all.add(row, &state);
        }
        let waiting = (
            parts(u128::from(held.requests).saturating_sub(all.requests), all.seats),
            parts(u128::from(held.tokens).saturating_sub(all.tokens), all.kv_tokens),
        );
        for pool in &mut self.pools {
            if let Some(scale) = pool.look(now, &self.rule, waiting) {
                self.said.retain(|other| other.pool != scale.pool);
                self.said.push_back(scale);
            }
        }
    }

    pub fn poll(&mut self) -> Option<Scale> {
        self.said.pop_front()
    }
}

impl Pool {
    fn new(id: PoolId) -> Pool {
        let (tally, standing, advised, peaks) = Default::default();
        Pool { id, tally, standing, advised, peaks }
    }

    fn look(&mut self, now: Time, rule: &Rule, waiting: (u128, u128)) -> Option<Scale> {
        let present = self.tally.backends;
        let load = self.load(waiting);
        let target = u128::from(rule.target_ppm);
        let is_steady = load.abs_diff(target) * WHOLE <= target * u128::from(rule.tolerance_ppm);
        let needed = (u128::from(present) * load).div_ceil(target);
        let desired = if is_steady { present } else { u32::try_from(needed).unwrap_or(u32::MAX) };
        let bounded = |count: u32| count.clamp(rule.min, rule.max);
        let desired = bounded(desired);
        if self.peaks.is_empty() {
            self.desired(now, bounded(present), rule.down_after);
        }
        let peak = self.desired(now, desired, rule.down_after);
        let standing = match self.standing {
            Some((then, wanted)) if then == present => wanted,
            Some(_) | None => present,
        };
        let wanted = if desired >= standing { desired } else { peak.min(standing) };
        let is_right = is_steady && bounded(present) == present;
        let is_early = self.advised.is_some_and(|at| now < at.saturating_add(rule.cool_down));
        if is_right || is_early || wanted == standing {
            return None;
        }
        (self.standing, self.advised) = (Some((present, wanted)), Some(now));
        let load_ppm = u32::try_from(load).unwrap_or(u32::MAX);
        Some(Scale { pool: self.id, present, wanted, load_ppm })
    }

    /// In millionths.
    fn load(&self, waiting: (u128, u128)) -> u128 {
        let Tally { seats, kv_tokens, requests, tokens, .. } = self.tally;
        (parts(requests, seats) + waiting.0).max(parts(tokens, kv_tokens) + waiting.1)
    }

    /// Notes what is desired now; returns the most that was in the last `down_after`.
    fn desired(&mut self, now: Time, count: u32, down_after: Span) -> u32 {
        while self.peaks.back().is_some_and(|&(_, less)| less <= count) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((now, count));
        while self.peaks.front().is_some_and(|&(at, _)| at.saturating_add(down_after) < now) {
            self.peaks.pop_front();
        }
        self.peaks.front().map_or(count, |&(_, peak)| peak)
    }
}

/// Millionths of `whole`; none of nothing.
fn parts(part: u128, whole: u128) -> u128 {
    (part * WHOLE).checked_div(whole).unwrap_or(0)
}
