//! The rules of placement one after the other: filter, preferences, last rule.

use plimsoll_base::{BackendId, Bound, ClassId, Time};

use super::affinity::{self, Sessions};
use super::local_first::{LocalFirst, Survey};
use super::power_of_two::Pairs;
use super::reach::Reach;
use super::{Asked, Placed, Slot, lesser};
use crate::class_set::ClassSet;
use crate::config::{Config, LoadBreak, Place};
use crate::message::BackendInfo;

/// Who names a warm backend.
#[derive(Clone, Copy, Debug)]
enum Affinity {
    Prefix(LoadBreak),
    Session(LoadBreak),
}

/// Who decides at last.
#[derive(Debug)]
enum Last {
    RoundRobin,
    LeastTokens,
    PowerOfTwo(Pairs),
}

/// The rules and what they remember.
#[derive(Debug)]
pub(crate) struct Choice {
    reach: Reach,
    local_first: Option<LocalFirst>,
    /// In the order in which they are asked.
    affinities: Vec<Affinity>,
    sessions: Option<Sessions>,
    last: Last,
    /// Whether loads and turns are all that the policy looks at.
    is_plain: bool,
}

impl Choice {
    pub fn new(config: &Config) -> Choice {
        let mut choice = Choice {
            reach: Reach::new(config),
            local_first: None,
            affinities: Vec::new(),
            sessions: None,
            last: Last::LeastTokens,
            is_plain: !Reach::is_restricted(config),
        };
        for rule in &config.place {
            match rule {
                Place::LocalFirst(rule) => {
                    choice.local_first = Some(LocalFirst::new(rule, config.classes.len()));
                }
                Place::PrefixAffinity(load) => choice.affinities.push(Affinity::Prefix(*load)),
                Place::SessionAffinity { sessions_max, load } => {
                    choice.affinities.push(Affinity::Session(*load));
                    choice.sessions = Some(Sessions::new(*sessions_max));
                }
                Place::RoundRobin => choice.last = Last::RoundRobin,
                Place::LeastTokens => choice.last = Last::LeastTokens,
                Place::PowerOfTwo { seed } => choice.last = Last::PowerOfTwo(Pairs::new(*seed)),
            }
            choice.is_plain &= matches!(rule, Place::RoundRobin | Place::LeastTokens);
        }
        choice
    }

    /// Whether loads and turns are all that counts, with the backends there are.
    pub fn is_plain(&self) -> bool {
        self.is_plain && !self.reach.differs()
    }
    pub fn reaches_differ(&self) -> bool {
        self.local_first.is_some() || self.reach.differs()
    }
    pub fn stopped_with(&self, class: ClassId) -> ClassSet {
        match self.local_first {
            // What fits only at a far site goes there while the others wait for a near one.
            Some(_) => ClassSet::from_iter([class]),
            None => self.reach.within(class),
        }
    }
    pub fn needs_matches(&self) -> bool {
        self.affinities.iter().any(|affinity| matches!(affinity, Affinity::Prefix(_)))
    }

    pub fn ask_anew(&mut self, classes: ClassSet, now: Time) {
        self.reach.let_go(classes);
        if let Some(rule) = &mut self.local_first {
            rule.ask_anew(classes, now);
        }
    }
    pub fn spilling(&self, now: Time, oldest: impl Fn(ClassId) -> Option<Time>) -> ClassSet {
        self.local_first.as_ref().map_or(ClassSet::EMPTY, |rule| rule.spilling(now, oldest))
    }
    pub fn holding(&self) -> ClassSet {
        self.reach.holding()
    }
    pub fn rest(&mut self, class: ClassId, now: Time) {
        self.reach.let_go(ClassSet::from_iter([class]));
        if let Some(rule) = &mut self.local_first {
            rule.rest(class, now);
        }
    }
    pub fn close(&mut self, classes: ClassSet) {
        if let Some(rule) = &mut self.local_first {
            rule.close(classes);
        }
    }
    pub fn next_spill(&self, oldest: impl Fn(ClassId) -> Option<Time>) -> Option<Time> {
        self.local_first.as_ref()?.next_spill(oldest)
    }

    pub fn join(&mut self, at: usize, info: &BackendInfo) {
        self.reach.join(at, info);
        if let Some(rule) = &mut self.local_first {
            rule.join(at, info.site);
        }
    }
    pub fn leave(&mut self, at: usize) {
        self.reach.leave(at);
        if let Some(rule) = &mut self.local_first {
            rule.leave(at);
        }
    }

    /// Whether such a request may go to the slot at all.
    pub fn allows(&self, at: usize, asked: &Asked) -> bool {
        self.reach.allows(at, asked)
    }

    pub fn could_take(&self, slots: &[Slot], asked: &Asked) -> bool {
        let mut may_go = (0..slots.len()).filter(|&at| self.reach.allows(at, asked)).peekable();
        may_go.peek().is_none()
            || may_go.any(|at| slots[at].is_capable(asked.tokens, asked.context))
    }

    /// Where a request can go that nobody is before.
    pub fn find_room(&self, slots: &[Slot], turn: usize, asked: &Asked) -> Option<usize> {
        let rank = match &self.local_first {
            Some(rule) => Some(rule.choose(asked.class, self.survey(slots, asked), asked.now)?),
            None => None,
        };
        self.choose(slots, turn, (asked, rank))
    }

    /// Where the request that is next can go, or why nowhere.
    pub fn place(&mut self, slots: &[Slot], turn: usize, asked: &Asked) -> Placed {
        let survey = self.survey(slots, asked);
        let rank = match &mut self.local_first {
            Some(_) if survey.is_empty() => return self.stop(slots, asked, 0),
            Some(rule) => match rule.ask(asked.class, survey, (asked.now, asked.oldest)) {
                Ok(rank) => Some(rank),
                Err(farthest) => return self.stop(slots, asked, farthest),
            },
            None => None,
        };
        match self.choose(slots, turn, (asked, rank)) {
            Some(at) => Placed::At(slots[at].id(at)),
            None => self.stop(slots, asked, u32::MAX),
        }
    }

    /// A request goes there.
    pub fn went(&mut self, slots: &[Slot], backend: BackendId, asked: &Asked) {
        let survey = self.survey(slots, asked);
        if let Some(rule) = &mut self.local_first {
            rule.went(asked.class, survey.nearer(rule.rank(backend.index())), asked.now);
        }
        if let Some(sessions) = &mut self.sessions {
            sessions.went(asked.session, backend);
        }
        match &mut self.last {
            Last::RoundRobin | Last::LeastTokens => {}
            Last::PowerOfTwo(pairs) => pairs.went(),
        }
    }

    fn rank(&self, at: usize) -> u32 {
        self.local_first.as_ref().map_or(0, |rule| rule.rank(at))
    }

    /// What each site has for a request; nothing where sites do not matter.
    fn survey(&self, slots: &[Slot], asked: &Asked) -> Survey {
        let mut survey = Survey::default();
        let Some(rule) = &self.local_first else { return survey };
        for (at, slot) in slots.iter().enumerate() {
            if self.reach.allows(at, asked) && slot.is_capable(asked.tokens, asked.context) {
                survey.capable.insert(rule.rank(at));
                if self.has_room(slots, at, asked) {
                    survey.roomy.insert(rule.rank(at));
                }
            }
        }
        survey
    }

    fn has_room(&self, slots: &[Slot], at: usize, asked: &Asked) -> bool {
        slots[at].has_room(asked.tokens, asked.context) && !self.reach.is_held(at)
    }

    /// The backend on sites of this rank, if ranks matter, by the rules after the first.
    fn choose(
        &self,
        slots: &[Slot],
        turn: usize,
        (asked, rank): (&Asked, Option<u32>),
    ) -> Option<usize> {
        let fits = |at: &usize| {
            self.reach.allows(*at, asked)
                && self.has_room(slots, *at, asked)
                && rank.is_none_or(|rank| self.rank(*at) == rank)
        };
        let all = || (0..slots.len()).filter(fits);
        let load = |at: &usize| (slots[*at].tokens, *at);
        let least = all().min_by_key(load)?;
        if let Some(warm) = self.warm(slots, asked, least, fits) {
            return Some(warm);
        }
        match &self.last {
            Last::LeastTokens => Some(least),
            Last::RoundRobin => all().find(|at| *at >= turn).or_else(|| all().next()),
            Last::PowerOfTwo(pairs) => {
                let (first, second) = pairs.pair(all().count());
                [first, second].into_iter().filter_map(|n| all().nth(n)).min_by_key(load)
            }
        }
    }

    /// The first warm backend that fits and is not loaded too far above the least loaded.
    fn warm(
        &self,
        slots: &[Slot],
        asked: &Asked,
        least: usize,
        fits: impl Fn(&usize) -> bool,
    ) -> Option<usize> {
        self.affinities.iter().find_map(|affinity| {
            let (load, backend) = match affinity {
                Affinity::Prefix(load) => {
                    (load, (asked.matched.tokens > 0).then_some(asked.matched.backend))
                }
                Affinity::Session(load) => {
                    (load, self.sessions.as_ref().and_then(|table| table.find(asked.session)))
                }
            };
            let backend = backend?;
            let slot = slots.get(backend.index()).filter(|slot| slot.holds(backend))?;
            let is_fair = affinity::is_fair(*load, slot.tokens, slots[least].tokens);
            (is_fair && fits(&backend.index())).then_some(backend.index())
        })
    }

    /// Why nothing that such a request may use, up to the farthest rank, has room. Where classes
    /// step aside nobody who comes later takes room there.
    fn stop(&mut self, slots: &[Slot], asked: &Asked, farthest: u32) -> Placed {
        let (mut may_go, mut fits) = (false, false);
        let (mut elsewhere, mut has_seat, mut why) = (false, false, None);
        let holds = self.reaches_differ();
        if holds {
            self.reach.begin_hold(asked.class);
        }
        for (at, slot) in slots.iter().enumerate() {
            if !self.reach.serves(at, asked) {
                continue;
            }
            let allowed = self.reach.allows(at, asked);
            may_go |= allowed;
            let is_capable = slot.is_capable(asked.tokens, asked.context);
            if !allowed || self.rank(at) > farthest {
                fits |= allowed && is_capable;
                elsewhere |= self.has_room(slots, at, asked);
            } else if is_capable {
                fits = true;
                if holds {
                    self.reach.hold(at, asked.class);
                }
                match slot.is_open() {
                    true => has_seat = true,
                    false => why = Some(lesser(why, slot.stop())),
                }
            }
        }
        match (may_go, fits) {
            (false, _) => Placed::Stopped(Bound::NoBackend),
            (true, false) => Placed::Never,
            (true, true) if elsewhere => Placed::Stopped(Bound::Site),
            (true, true) if has_seat => Placed::Stopped(Bound::KvMemory),
            (true, true) => Placed::Stopped(why.unwrap_or(Bound::Seats)),
        }
    }
}
