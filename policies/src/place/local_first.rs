//! `local-first`: use the near site, spill to the next one late, come back late.
//!
//! Sites are ranked by preference; what the rule does not name comes last. A request goes to the
//! first site that has a backend able to hold it. Only when the oldest waiting request of its class
//! has waited `spill_wait` may the class use the next site as well, and for the one after that it
//! waits as long again. While a class spills, each request still takes the nearest site with room.
//! The class returns once it waits for no site and a nearer one has turned none of its requests away
//! for `return_after`.
//!
//! A site *turns away* a request of the class from the moment it is asked in vain until it is asked
//! with success or nobody of the class waits any more. "It has room" is judged by that, not by free
//! seats: a site with free seats and full memory has none.
//!
//! **Promise.** Nothing leaves the first site before it has waited `spill_wait` there, except while
//! its class spills. Two changes in the same direction of one class lie at least
//! `spill_wait + return_after` apart, so it cannot flap faster than that, whatever the load does.
//!
//! **Failure.** With a `spill_wait` near the objective for the first token every burst on the near
//! site costs its head that wait, while the next site idles: the bound shown is `site`. With a long
//! `return_after` work goes far although the near site could take most of it again; it takes what
//! it has room for.
//!
//! Source: our own; hysteresis as in a Schmitt trigger, with two spans of time for its thresholds.

use plimsoll_base::{ClassId, SiteId, Span, Time};

use crate::class_set::ClassSet;
use crate::config::LocalFirst as Config;

/// How far one class may go.
#[derive(Clone, Copy, Debug, Default)]
struct Spill {
    /// The farthest rank it may use, unless its requests fit only farther away.
    level: u32,
    /// When it reached that level, from either side.
    since: Time,
    /// Ranks that have turned it away since it last came back to a nearer one.
    turned: Ranks,
    /// Ranks that turn it away as it waits.
    waits_for: Ranks,
}

/// Which ranks have backends that can hold a request, and which have room for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Survey {
    pub capable: Ranks,
    pub roomy: Ranks,
}

impl Survey {
    /// Whether nothing can hold the request.
    pub fn is_empty(self) -> bool {
        self.capable == Ranks::default()
    }
    /// The ranks nearer than this one that can hold the request.
    pub fn nearer(self, rank: u32) -> Ranks {
        self.capable.below(rank)
    }
}

/// A set of ranks; there are at most 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranks(u64);

impl Ranks {
    pub fn insert(&mut self, rank: u32) {
        self.0 |= 1 << rank;
    }
    fn first(self) -> Option<u32> {
        (self.0 != 0).then(|| self.0.trailing_zeros())
    }
    fn below(self, rank: u32) -> Ranks {
        Ranks(self.0 & ((1 << rank) - 1))
    }
    fn at_least(self, rank: u32) -> Ranks {
        Ranks(self.0 & !((1 << rank) - 1))
    }
    fn union(self, other: Ranks) -> Ranks {
        Ranks(self.0 | other.0)
    }
}

/// The members in ascending order.
impl Iterator for Ranks {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let rank = self.first()?;
        self.0 &= self.0 - 1;
        Some(rank)
    }
}

/// The rule and what it remembers of each class.
#[derive(Debug)]
pub(crate) struct LocalFirst {
    /// Indexed by site.
    rank_of: Vec<u32>,
    /// The rank of sites that the rule does not name.
    rank_last: u32,
    spill_wait: Span,
    return_after: Span,
    /// Indexed by class.
    spills: Vec<Spill>,
    /// When each rank last turned the class away, indexed by class · (`rank_last` + 1) + rank.
    turned_at: Vec<Time>,
    /// Classes that some rank turns away as they wait.
    waiting: ClassSet,
    /// Those of them that could use a farther rank by waiting longer.
    rising: ClassSet,
    /// Classes that some rank turned away up to this round.
    waited: ClassSet,
    /// Indexed by slot.
    ranks: Vec<Option<u32>>,
}

impl LocalFirst {
    pub fn new(config: &Config, classes: usize) -> LocalFirst {
        let rank_last = config.sites.len() as u32;
        let sites = config.sites.iter().map(|site| site.index() + 1).max().unwrap_or(0);
        let mut rank_of = vec![rank_last; sites];
        for (rank, site) in (0..).zip(&config.sites) {
            rank_of[site.index()] = rank;
        }
        LocalFirst {
            rank_of,
            rank_last,
            spill_wait: config.spill_wait,
            return_after: config.return_after,
            spills: vec![Spill::default(); classes],
            turned_at: vec![Time::ZERO; classes * (rank_last as usize + 1)],
            waiting: ClassSet::EMPTY,
            rising: ClassSet::EMPTY,
            waited: ClassSet::EMPTY,
            ranks: Vec::new(),
        }
    }

    pub fn join(&mut self, at: usize, site: SiteId) {
        if self.ranks.len() <= at {
            self.ranks.resize(at + 1, None);
        }
        self.ranks[at] = Some(self.rank_of.get(site.index()).copied().unwrap_or(self.rank_last));
    }
    pub fn leave(&mut self, at: usize) {
        self.ranks[at] = None;
    }
    /// The rank of the backend in a slot that has one.
    pub fn rank(&self, at: usize) -> u32 {
        self.ranks[at].unwrap_or(self.rank_last)
    }

    /// The rank that such a request of the class goes to now, if there is room where it may go.
    pub fn choose(&self, class: ClassId, survey: Survey, now: Time) -> Option<u32> {
        let level =
            self.back_at(class, now).map_or(self.spills[class.index()].level, |back| back.0);
        let farthest = level.max(survey.capable.first().unwrap_or(0));
        survey.roomy.first().filter(|rank| *rank <= farthest)
    }

    /// The same for a request that waits, whose class's oldest arrived at `oldest`: the class may
    /// come back or spill by it. If there is no room, the farthest rank that it may use.
    pub fn ask(
        &mut self,
        class: ClassId,
        survey: Survey,
        (now, oldest): (Time, Time),
    ) -> Result<u32, u32> {
        self.come_back(class, now);
        loop {
            let spill = &mut self.spills[class.index()];
            let farthest = spill.level.max(survey.capable.first().unwrap_or(0));
            if let Some(rank) = survey.roomy.first().filter(|rank| *rank <= farthest) {
                return Ok(rank);
            }
            let next = survey.capable.at_least(farthest + 1).first();
            let due = oldest.max(spill.since).saturating_add(self.spill_wait);
            match next {
                Some(next) if due <= now => {
                    (spill.level, spill.since) = (next, now);
                    self.turned_away(class, survey.capable.below(next), now);
                }
                Some(_) | None => {
                    spill.waits_for = spill.waits_for.union(survey.capable.below(farthest + 1));
                    self.waiting.insert(class);
                    if next.is_some() {
                        self.rising.insert(class);
                    }
                    return Err(farthest);
                }
            }
        }
    }

    /// A request of the class goes to a rank; `passed` can hold it and had no room.
    pub fn went(&mut self, class: ClassId, passed: Ranks, now: Time) {
        self.come_back(class, now);
        self.turned_away(class, passed, now);
    }

    /// These classes are asked for anew; up to now those of them that wait were turned away.
    pub fn ask_anew(&mut self, classes: ClassSet, now: Time) {
        let turned_away = self.waiting.and(classes);
        self.waited = self.waited.without(classes).or(turned_away);
        turned_away.for_each(|class| self.stop_waiting(class, now));
    }
    /// Nobody of the class waits any more.
    pub fn rest(&mut self, class: ClassId, now: Time) {
        if self.waiting.contains(class) {
            self.stop_waiting(class, now);
        }
        self.waited.remove(class);
    }
    fn stop_waiting(&mut self, class: ClassId, now: Time) {
        let spill = &mut self.spills[class.index()];
        let turned = spill.turned.union(std::mem::take(&mut spill.waits_for));
        self.turned_away(class, turned, now);
        self.waiting.remove(class);
        self.rising.remove(class);
    }
    /// No backend has a seat: every site turns away those of the classes.
    pub fn close(&mut self, classes: ClassSet) {
        let mut all = Ranks::default();
        self.ranks.iter().flatten().for_each(|rank| all.insert(*rank));
        for class in classes {
            self.spills[class.index()].waits_for = all;
            self.waiting.insert(class);
        }
    }

    /// When the next class may spill, given when its oldest waiting request arrived.
    pub fn next_spill(&self, oldest: impl Fn(ClassId) -> Option<Time>) -> Option<Time> {
        self.rising.filter_map(|class| self.spills_at(class, &oldest)).min()
    }
    /// Classes that may spill now.
    pub fn spilling(&self, now: Time, oldest: impl Fn(ClassId) -> Option<Time>) -> ClassSet {
        let spills = |class: &ClassId| self.spills_at(*class, &oldest).is_some_and(|at| at <= now);
        self.rising.filter(spills).collect()
    }
    fn spills_at(&self, class: ClassId, oldest: impl Fn(ClassId) -> Option<Time>) -> Option<Time> {
        let from = oldest(class)?.max(self.spills[class.index()].since);
        Some(from.saturating_add(self.spill_wait))
    }

    /// The nearer rank that the class may only use again, and since when.
    fn back_at(&self, class: ClassId, now: Time) -> Option<(u32, Time)> {
        let spill = &self.spills[class.index()];
        // Who waits stays, or time alone would take a site from it.
        let is_idle = !self.waited.contains(class);
        let nearer = if is_idle { spill.turned.below(spill.level) } else { Ranks::default() };
        let mut back = nearer.map(|rank| {
            let turned_at = self.turned_at[self.row(class) + rank as usize];
            (rank, turned_at.saturating_add(self.return_after))
        });
        back.find(|(_, at)| *at <= now)
    }
    fn come_back(&mut self, class: ClassId, now: Time) {
        if let Some((level, at)) = self.back_at(class, now) {
            let spill = &mut self.spills[class.index()];
            (spill.level, spill.since) = (level, at);
            spill.turned = spill.turned.below(level);
        }
    }
    fn turned_away(&mut self, class: ClassId, ranks: Ranks, now: Time) {
        let row = self.row(class);
        for rank in ranks {
            self.turned_at[row + rank as usize] = now;
        }
        let spill = &mut self.spills[class.index()];
        spill.turned = spill.turned.union(ranks);
    }
    fn row(&self, class: ClassId) -> usize {
        class.index() * (self.rank_last as usize + 1)
    }
}
