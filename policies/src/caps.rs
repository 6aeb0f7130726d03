//! Concurrency caps of classes: requests and estimated tokens outstanding at backends.
//!
//! A class at its cap steps aside and others go on. Tokens are capped class by class too: when the
//! head that the share picks does not fit, the class waits until what it has outstanding or waiting
//! changes (or its oldest request may go as due) rather than let smaller requests slip by for ever. A request larger than the whole cap runs alone.

use plimsoll_base::{Bound, ClassId};

use crate::class_set::ClassSet;
use crate::config::Class;

#[derive(Debug)]
struct Cap {
    requests: u32,
    requests_max: u32,
    /// What the class states; feedback may allow fewer.
    requests_stated: u32,
    tokens: u64,
    tokens_max: u64,
}

/// What each class has outstanding, and may have.
#[derive(Debug)]
pub(crate) struct Caps {
    caps: Vec<Cap>,
    /// Classes with a cap. No account is kept of the others.
    capped: ClassSet,
    full: ClassSet,
    /// Classes whose cap of requests feedback holds below what they state.
    lowered: ClassSet,
}

impl Caps {
    pub fn new(classes: &[Class]) -> Caps {
        let cap = |class: &Class| Cap {
            requests: 0,
            requests_max: class.requests_max.unwrap_or(u32::MAX),
            requests_stated: class.requests_max.unwrap_or(u32::MAX),
            tokens: 0,
            tokens_max: class.tokens_max.unwrap_or(u64::MAX),
        };
        let is_capped = |class: &Class| class.requests_max.is_some() || class.tokens_max.is_some();
        let ids = (0..).map(ClassId).zip(classes);
        Caps {
            caps: classes.iter().map(cap).collect(),
            capped: ids.filter(|(_, class)| is_capped(class)).map(|(id, _)| id).collect(),
            full: ClassSet::EMPTY,
            lowered: ClassSet::EMPTY,
        }
    }
    /// Whether no class has a cap.
    pub fn are_none(&self) -> bool {
        self.capped.is_empty()
    }
    /// Classes at their cap of requests.
    pub fn full(&self) -> ClassSet {
        self.full
    }
    /// Classes whose cap of requests is lower than they state.
    pub fn lowered(&self) -> ClassSet {
        self.lowered
    }
    /// Feedback allows a class that states a cap of requests so many of them; what runs already
    /// runs on.
    pub fn adapt(&mut self, class: ClassId, requests_max: u32) {
        let cap = &mut self.caps[class.index()];
        cap.requests_max = requests_max;
        match cap.requests_max < cap.requests_stated {
            true => self.lowered.insert(class),
            false => self.lowered.remove(class),
        }
        match cap.requests >= cap.requests_max {
            true => self.full.insert(class),
            false => self.full.remove(class),
        }
    }
    /// Whether the class's token cap has room for a request of `tokens` estimated tokens.
    pub fn has_room(&self, class: ClassId, tokens: u64) -> bool {
        if !self.capped.contains(class) {
            return true;
        }
        let cap = &self.caps[class.index()];
        cap.requests == 0 || cap.tokens.saturating_add(tokens) <= cap.tokens_max
    }
    pub fn take(&mut self, class: ClassId, tokens: u64) {
        assert!(!self.full.contains(class), "a full class is not dispatched");
        self.hold(class, tokens);
    }
    /// Counts a request that runs, whatever the caps say.
    pub fn hold(&mut self, class: ClassId, tokens: u64) {
        if !self.capped.contains(class) {
            return;
        }
        let cap = &mut self.caps[class.index()];
        cap.requests += 1;
        cap.tokens += tokens;
        if cap.requests >= cap.requests_max {
            self.full.insert(class);
        }
    }
    pub fn release(&mut self, class: ClassId, tokens: u64) {
        if !self.capped.contains(class) {
            return;
        }
        let cap = &mut self.caps[class.index()];
        assert!(cap.requests > 0 && cap.tokens >= tokens, "what ends was outstanding");
        cap.requests -= 1;
        cap.tokens -= tokens;
        if cap.requests < cap.requests_max {
            self.full.remove(class);
        }
    }
}

/// What stopped the waiting requests when dispatching last came to rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stops {
    /// Classes at their cap of requests.
    pub requests: ClassSet,
    /// Those of them whose cap feedback has lowered.
    pub lowered: ClassSet,
    /// Queues that may send nothing because the heavy lane is full.
    pub heavy: ClassSet,
    /// Classes whose next request did not fit their cap of tokens.
    pub tokens: ClassSet,
    /// Classes that stepped aside for other reasons.
    pub aside: Aside,
    /// What stopped everyone else.
    pub all: Option<Bound>,
}

impl Stops {
    /// What stopped a request of `class` in `queue`: its own cap before what stopped everyone.
    pub fn bound(&self, class: ClassId, queue: ClassId) -> Option<Bound> {
        if self.requests.contains(class) && self.lowered.contains(class) {
            Some(Bound::Adaptive)
        } else if self.requests.contains(class) {
            Some(Bound::ClassRequests)
        } else if self.heavy.contains(queue) {
            Some(Bound::HeavyLane)
        } else if self.tokens.contains(class) {
            Some(Bound::ClassTokens)
        } else {
            self.aside.bound(class).or(self.all)
        }
    }
}

/// Classes that stepped aside while others went on, and what each waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Aside {
    all: ClassSet,
    /// A set a binary digit of the number of the bound, so that there is little to copy.
    digits: [ClassSet; DIGITS],
}

/// Digits that tell all bounds apart.
const DIGITS: usize = Bound::ALL.len().next_power_of_two().trailing_zeros() as usize;

impl Aside {
    #[inline]
    pub fn all(&self) -> ClassSet {
        self.all
    }
    /// These step aside, unless they have already.
    pub fn step(&mut self, classes: ClassSet, bound: Bound) {
        let new = classes.without(self.all);
        for (digit, set) in self.digits.iter_mut().enumerate() {
            if bound as usize >> digit & 1 == 1 {
                *set = set.or(new);
            }
        }
        self.all = self.all.or(classes);
    }
    /// These are asked again.
    pub fn come_back(&mut self, classes: ClassSet) {
        self.all = self.all.without(classes);
        self.digits.iter_mut().for_each(|set| *set = set.without(classes));
    }
    fn bound(&self, class: ClassId) -> Option<Bound> {
        if !self.all.contains(class) {
            return None;
        }
        let digits = self.digits.iter().enumerate();
        let number: usize =
            digits.map(|(digit, set)| usize::from(set.contains(class)) << digit).sum();
        Bound::ALL.into_iter().find(|bound| *bound as usize == number)
    }
}
