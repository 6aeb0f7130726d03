//! Autoscaling advice the plain way: every look is remembered, and nothing kept up to date.

use std::collections::BTreeMap;

use plimsoll_base::{PoolId, Scale, Time};
use plimsoll_policy::config::Autoscale;

/// A pool at a look: backends, and of requests and of tokens what is outstanding and what fits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub backends: u32,
    pub requests: (u128, u128),
    pub tokens: (u128, u128),
}

/// What was seen and said.
#[derive(Default)]
pub struct Advised {
    /// When the last look was.
    looked: Option<Time>,
    /// By pool: what was desired at each look, and before the first what was there.
    desired: BTreeMap<PoolId, Vec<(Time, u32)>>,
    /// By pool: all advice.
    said: BTreeMap<PoolId, Vec<(Time, Scale)>>,
    /// The order in which pools were seen first.
    order: Vec<PoolId>,
}

impl Advised {
    pub fn joined(&mut self, pool: PoolId) {
        if !self.order.contains(&pool) {
            self.order.push(pool);
        }
    }

    /// All that was said.
    pub fn all(&self) -> impl Iterator<Item = Scale> {
        self.said.values().flatten().map(|&(_, scale)| scale)
    }

    /// A backend spoke: what is advised. `held` is all requests and all their tokens.
    pub fn look(
        &mut self,
        rule: &Autoscale,
        now: Time,
        held: (u128, u128),
        pools: &BTreeMap<PoolId, Seen>,
    ) -> Vec<Scale> {
        if self.looked.is_some_and(|looked| now < looked + rule.every) {
            return vec![];
        }
        self.looked = Some(now);
        let sum = |of: fn(&Seen) -> u128| pools.values().map(of).sum::<u128>();
        let waiting = |held: u128, out: u128, whole: u128| match whole {
            0 => 0,
            _ => (held - out) * 1_000_000 / whole,
        };
        let waiting = (
            waiting(held.0, sum(|pool| pool.requests.0), sum(|pool| pool.requests.1)),
            waiting(held.1, sum(|pool| pool.tokens.0), sum(|pool| pool.tokens.1)),
        );
        let order = self.order.clone();
        let seen = |id: PoolId| pools.get(&id).copied().unwrap_or_default();
        order.into_iter().filter_map(|id| self.advise(rule, now, (id, seen(id)), waiting)).collect()
    }

    fn advise(
        &mut self,
        rule: &Autoscale,
        now: Time,
        (id, pool): (PoolId, Seen),
        waiting: (u128, u128),
    ) -> Option<Scale> {
        let part = |(out, whole): (u128, u128)| (out * 1_000_000).checked_div(whole).unwrap_or(0);
        let load = (part(pool.requests) + waiting.0).max(part(pool.tokens) + waiting.1);
        let (target, present) = (u128::from(rule.target_ppm), pool.backends);
        // |load / target - 1| ≤ tolerance, in whole numbers.
        let most = target * (1_000_000 + u128::from(rule.tolerance_ppm));
        let least = target * (1_000_000 - u128::from(rule.tolerance_ppm));
        let is_steady = (least..=most).contains(&(load * 1_000_000));
        let mut desired = present;
        if !is_steady {
            // The fewest that would bring the load to the target or below it.
            let enough = |count: u128| count * target >= u128::from(present) * load;
            desired =
                (0..=u128::from(rule.max)).find(|&n| enough(n)).map_or(rule.max, |n| n as u32);
        }
        let desired = desired.max(rule.min).min(rule.max);
        let first = present.max(rule.min).min(rule.max);
        let looks = self.desired.entry(id).or_insert_with(|| vec![(now, first)]);
        looks.push((now, desired));
        let lately = looks.iter().filter(|(at, _)| *at + rule.down_after >= now);
        let peak = lately.map(|&(_, count)| count).max().expect("this one is there");
        let said = self.said.entry(id).or_default();
        let latest = said.last().copied();
        let standing = match latest {
            Some((_, scale)) if scale.present == present => scale.wanted,
            _ => present,
        };
        let wanted = if desired >= standing { desired } else { peak.min(standing) };
        let keeps = is_steady && present >= rule.min && present <= rule.max;
        let waits = latest.is_some_and(|(at, _)| now < at + rule.cool_down);
        if keeps || waits || wanted == standing {
            return None;
        }
        let load_ppm = u32::try_from(load).unwrap_or(u32::MAX);
        let scale = Scale { pool: id, present, wanted, load_ppm };
        said.push((now, scale));
        Some(scale)
    }
}
