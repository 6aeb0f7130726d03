//! The rules of placement the plain way.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_base::{BackendId, Bound, ClassId, SessionId, Stream, StreamKey, Time};
use plimsoll_policy::config::{LoadBreak, LocalFirst, Partition, Place};
use plimsoll_policy::{BackendInfo, Config};

use super::{Held, Naive, fits_empty};

/// What the rules remember.
#[derive(Default)]
pub struct Memory {
    spills: BTreeMap<ClassId, Spill>,
    /// From least to most recently used.
    sessions: Vec<(SessionId, BackendId)>,
    pair: Option<(Stream, u64)>,
    /// Backends for which a request waits that comes first.
    held: BTreeSet<(BackendId, ClassId)>,
}

#[derive(Default)]
struct Spill {
    level: usize,
    since: Time,
    turned: BTreeMap<usize, Time>,
    waits_for: BTreeSet<usize>,
    /// Whether it has been turned away up to this round.
    waited: bool,
    /// Whether it could use a farther rank by waiting longer.
    rises: bool,
}

pub enum Found {
    At(BackendId),
    Stopped(Bound),
    Never,
}

fn local_first(config: &Config) -> Option<&LocalFirst> {
    config.place.iter().find_map(|rule| match rule {
        Place::LocalFirst(rule) => Some(rule),
        _ => None,
    })
}

/// Whether a class may go to a backend at all.
pub fn class_may(config: &Config, class: ClassId, info: &BackendInfo) -> bool {
    let sites = config.classes[class.index()].sites;
    let dedicated: Vec<_> = config
        .partition
        .iter()
        .filter_map(|rule| match rule {
            Partition::Dedicated(rule) => Some(rule),
            _ => None,
        })
        .collect();
    let own = dedicated.iter().filter(|rule| rule.class == class);
    let by_pool = match own.clone().next() {
        Some(_) => own.clone().any(|rule| rule.pools.contains(&info.pool)),
        None => !dedicated.iter().any(|rule| rule.exclusive && rule.pools.contains(&info.pool)),
    };
    by_pool && (sites == 0 || sites & 1 << info.site.0 != 0)
}

pub fn serves(info: &BackendInfo, held: &Held) -> bool {
    info.models == 0 || info.models & 1 << held.info.model.0 != 0
}

impl Naive {
    fn rank(&self, info: &BackendInfo) -> usize {
        let Some(rule) = local_first(&self.config) else { return 0 };
        rule.sites.iter().position(|site| *site == info.site).unwrap_or(rule.sites.len())
    }
    pub fn may(&self, info: &BackendInfo, held: &Held) -> bool {
        class_may(&self.config, held.class, info) && serves(info, held)
    }
    fn free(&self, id: BackendId, held: &Held) -> bool {
        let is_held = self.placing.held.iter().any(|(backend, _)| *backend == id);
        self.has_room(id, &self.backends[&id], held) && !is_held
    }

    /// Whether a backend is there that could hold it, or none is there to which it may go.
    pub fn could_ever(&self, held: &Held) -> bool {
        let mut may = self.backends.values().filter(|info| self.may(info, held)).peekable();
        may.peek().is_none() || may.any(|info| fits_empty(info, held))
    }

    pub fn reaches_differ(&self) -> bool {
        let classes = || (0..self.config.classes.len() as u16).map(ClassId);
        let differs = |info: &BackendInfo| {
            let may = classes().filter(|class| class_may(&self.config, *class, info)).count();
            info.models != 0 || may != self.config.classes.len()
        };
        local_first(&self.config).is_some() || self.backends.values().any(differs)
    }

    /// The classes that wait with a class when a request of it fits nowhere.
    pub fn stopped_with(&self, class: ClassId) -> Vec<ClassId> {
        let alone = local_first(&self.config).is_some()
            || self.backends.values().any(|info| info.models != 0);
        let classes = (0..self.config.classes.len() as u16).map(ClassId);
        let within = |other: &ClassId| {
            let may = |class, info| class_may(&self.config, class, info);
            let mut all = self.backends.values().filter(|info| may(*other, info));
            *other == class || (!alone && all.all(|info| may(class, info)))
        };
        classes.filter(within).collect()
    }

    /// Classes of which a request that comes first waits for room.
    pub fn holding(&self) -> Vec<ClassId> {
        let mut classes: Vec<_> = self.placing.held.iter().map(|(_, class)| *class).collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    }
    pub fn place_anew(&mut self, classes: &[ClassId]) {
        self.placing.held.retain(|(_, class)| !classes.contains(class));
        for class in classes {
            let waited = self.stop_waiting(*class);
            let spill = self.placing.spills.entry(*class).or_default();
            (spill.waited, spill.rises) = (waited, false);
        }
    }
    /// Classes that have waited long enough to use a farther site.
    pub fn spilling(&self) -> Vec<ClassId> {
        let Some(rule) = local_first(&self.config) else { return Vec::new() };
        let spills = self.placing.spills.iter().filter(|(class, spill)| {
            let own = self.waiting().filter(|h| h.class == **class).map(|h| h.arrived);
            let due = own.min().map(|own| own.max(spill.since).saturating_add(rule.spill_wait));
            spill.rises && due.is_some_and(|due| due <= self.now)
        });
        spills.map(|(class, _)| *class).collect()
    }
    pub fn rest_if_idle(&mut self, class: ClassId) {
        if !self.waiting().any(|h| h.class == class) {
            self.stop_waiting(class);
            self.placing.held.retain(|(_, other)| *other != class);
            let spill = self.placing.spills.entry(class).or_default();
            (spill.waited, spill.rises) = (false, false);
        }
    }
    /// Whether it had waited.
    fn stop_waiting(&mut self, class: ClassId) -> bool {
        let now = self.now;
        let spill = self.placing.spills.entry(class).or_default();
        let waited_for = std::mem::take(&mut spill.waits_for);
        if waited_for.is_empty() {
            return false;
        }
        spill.turned.extend(waited_for.into_iter().map(|rank| (rank, now)));
        spill.turned.values_mut().for_each(|at| *at = now);
        true
    }
    pub fn close_all(&mut self, classes: &[ClassId]) {
        let ranks: BTreeSet<usize> = self.backends.values().map(|info| self.rank(info)).collect();
        for class in classes {
            self.placing.spills.entry(*class).or_default().waits_for = ranks.clone();
        }
    }

    fn come_back(&mut self, class: ClassId) {
        let Some(rule) = local_first(&self.config) else { return };
        let spill = self.placing.spills.entry(class).or_default();
        let back = spill.turned.iter().find(|(rank, at)| {
            **rank < spill.level
                && !spill.waited
                && at.saturating_add(rule.return_after) <= self.now
        });
        if let Some((&rank, &at)) = back {
            (spill.level, spill.since) = (rank, at.saturating_add(rule.return_after));
            spill.turned.retain(|other, _| *other < rank);
        }
    }

    fn ranks(&self, held: &Held, only_free: bool) -> BTreeSet<usize> {
        let may = self.backends.iter().filter(|(_, info)| self.may(info, held));
        let capable = may.filter(|(_, info)| fits_empty(info, held));
        capable
            .filter(|(id, _)| !only_free || self.free(**id, held))
            .map(|(_, info)| self.rank(info))
            .collect()
    }

    /// The farthest rank that a waiting request may use now.
    pub fn farthest(&self, held: &Held) -> usize {
        let level = self.placing.spills.get(&held.class).map_or(0, |spill| spill.level);
        self.ranks(held, false).first().map_or(level, |first| level.max(*first))
    }

    pub fn find(&mut self, held: &Held) -> Found {
        let capable = self.ranks(held, false);
        if let Some(rule) = local_first(&self.config).cloned()
            && !capable.is_empty()
        {
            self.come_back(held.class);
            let oldest = self.waiting().filter(|h| h.class == held.class).map(|h| h.arrived);
            let oldest = oldest.min().unwrap_or(self.now);
            loop {
                let farthest = self.farthest(held);
                let nearest = self.ranks(held, true).first().copied();
                if nearest.is_some_and(|rank| rank <= farthest) {
                    break;
                }
                let now = self.now;
                let spill = self.placing.spills.entry(held.class).or_default();
                let due = oldest.max(spill.since).saturating_add(rule.spill_wait);
                let next = capable.iter().copied().find(|rank| *rank > farthest);
                let Some(next) = next.filter(|_| due <= now) else {
                    spill.rises = next.is_some();
                    spill.waits_for.extend(capable.iter().filter(|rank| **rank <= farthest));
                    return self.stopped(held, farthest);
                };
                (spill.level, spill.since) = (next, now);
                spill.turned.extend(capable.iter().filter(|r| **r < next).map(|r| (*r, now)));
            }
        }
        match self.choose(held) {
            Some(backend) => Found::At(backend),
            None => self.stopped(held, usize::MAX),
        }
    }

    fn choose(&mut self, held: &Held) -> Option<BackendId> {
        let near = self.ranks(held, true).first().copied();
        let free: Vec<BackendId> = self
            .backends
            .iter()
            .filter(|(id, info)| self.may(info, held) && self.free(**id, held))
            .filter(|(_, info)| Some(self.rank(info)) == near)
            .map(|(id, _)| *id)
            .collect();
        let load = |id: &BackendId| (self.load(*id).1, id.slot);
        let least = *free.iter().min_by_key(|id| load(id))?;
        let fair = |rule: &LoadBreak, id: BackendId| {
            let factor = u128::from(rule.factor_ppm);
            let most = factor * u128::from(load(&least).0) + u128::from(rule.tokens) * 1_000_000;
            free.contains(&id) && u128::from(load(&id).0) * 1_000_000 <= most
        };
        for rule in &self.config.place {
            let warm = match rule {
                Place::PrefixAffinity(rule) => held.matched_at.filter(|id| fair(rule, *id)),
                Place::SessionAffinity { load, .. } => {
                    let seat = self.placing.sessions.iter().find(|(s, _)| *s == held.info.session);
                    seat.map(|(_, id)| *id).filter(|id| fair(load, *id))
                }
                Place::RoundRobin => free.iter().min_by_key(|id| id.slot < self.turn).copied(),
                Place::PowerOfTwo { .. } => {
                    let drawn = self.pair().1;
                    let first = ((drawn >> 32) * free.len() as u64) >> 32;
                    let second = ((drawn & 0xffff_ffff) * (free.len() as u64 - 1)) >> 32;
                    let second = if second >= first { second + 1 } else { second };
                    let two = [first, second].map(|n| free.get(n as usize));
                    two.into_iter().flatten().min_by_key(|id| load(id)).copied()
                }
                Place::LocalFirst(_) | Place::LeastTokens => None,
            };
            if warm.is_some() {
                return warm;
            }
        }
        Some(least)
    }

    fn pair(&self) -> (Stream, u64) {
        self.placing.pair.clone().unwrap_or_else(|| {
            let seed = self.config.place.iter().find_map(|rule| match rule {
                Place::PowerOfTwo { seed } => Some(*seed),
                _ => None,
            });
            let (seed, name) = (seed.unwrap_or(0), "policy.place.power-of-two");
            let mut stream = Stream::new(StreamKey { seed, replication: 0, name, entity: 0 });
            let drawn = stream.bits();
            (stream, drawn)
        })
    }

    /// A request that has just been taken out of its queue goes there.
    pub fn went(&mut self, held: &Held, backend: BackendId) {
        self.come_back(held.class);
        let rank = self.rank(&self.backends[&backend]);
        let passed: Vec<_> = self.ranks(held, false).into_iter().filter(|r| *r < rank).collect();
        let spill = self.placing.spills.entry(held.class).or_default();
        spill.turned.extend(passed.into_iter().map(|rank| (rank, self.now)));
        let (mut stream, _) = self.pair();
        let drawn = stream.bits();
        self.placing.pair = Some((stream, drawn));
        if held.info.session != SessionId(0) {
            let sessions = &mut self.placing.sessions;
            sessions.retain(|(session, _)| *session != held.info.session);
            sessions.push((held.info.session, backend));
            let most = self.config.place.iter().find_map(|rule| match rule {
                Place::SessionAffinity { sessions_max, .. } => Some(*sessions_max as usize),
                _ => None,
            });
            if most.is_some_and(|most| sessions.len() > most) {
                sessions.remove(0);
            }
        }
    }

    fn stopped(&mut self, held: &Held, farthest: usize) -> Found {
        let served: Vec<_> = self.backends.iter().filter(|(_, b)| serves(b, held)).collect();
        let may: Vec<_> = served.iter().filter(|(_, b)| self.may(b, held)).collect();
        if may.is_empty() {
            return Found::Stopped(Bound::NoBackend);
        }
        if !may.iter().any(|(_, b)| fits_empty(b, held)) {
            return Found::Never;
        }
        let near: Vec<BackendId> = may
            .iter()
            .filter(|(_, b)| fits_empty(b, held) && self.rank(b) <= farthest)
            .map(|(id, _)| **id)
            .collect();
        let is_near = |b: &BackendInfo| self.may(b, held) && self.rank(b) <= farthest;
        let elsewhere = served.iter().any(|(id, b)| !is_near(b) && self.free(**id, held));
        let seat = near.iter().any(|id| self.has_seat(*id, &self.backends[id]));
        let why = self.why_no_seat(near.iter().map(|id| (id, &self.backends[id])));
        if self.reaches_differ() {
            self.placing.held.extend(near.into_iter().map(|id| (id, held.class)));
        }
        Found::Stopped(match (elsewhere, seat) {
            (true, _) => Bound::Site,
            (false, true) => Bound::KvMemory,
            (false, false) => why.unwrap_or(Bound::Seats),
        })
    }

    /// Whether a waiting request finds room where it may go now.
    pub fn finds_room(&self, held: &Held) -> bool {
        let farthest = self.farthest(held);
        self.backends.iter().any(|(&id, info)| {
            self.may(info, held) && self.rank(info) <= farthest && self.has_room(id, info, held)
        })
    }
}
