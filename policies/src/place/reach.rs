//! The capability filter: which backends a request may go to at all. Always on.
//!
//! A request may go to a backend that serves its model ([`BackendInfo::models`]), whose longest
//! context and memory can hold it, that stands on a site its class may use
//! ([`Class::sites`](crate::config::Class::sites): a data rule, such as "this data does not leave
//! the building"), and that belongs to a pool its class may use ([`super::super::partition`]).
//!
//! **Promise.** No rule after this one, and no load, ever sends a request anywhere else.
//!
//! **Who waits for whom.** A request that is next and fits nowhere is waited for. Its class steps
//! aside, and so does every class all of whose backends are among those that the stopped class may
//! use. The others go on, but not on a backend that the stopped request could use: nobody slips by
//! a large request onto the memory that is being freed for it. Where backends serve different
//! models each class is looked at for itself.
//!
//! **Failure.** Requests of one class wait for each other even if they ask for different models;
//! give each model a class of its own where that matters. A request whose model no backend serves,
//! or whose class has no backend, waits (`no_backend`) until one joins or its time-to-live ends.

use plimsoll_base::ClassId;

use super::Asked;
use crate::class_set::{CLASSES_MAX, ClassSet};
use crate::config::{Config, Partition};
use crate::message::BackendInfo;

/// What a backend is, as far as rules look at it.
#[derive(Clone, Copy, Debug, Default)]
struct Traits {
    /// Who may go there. Empty while nobody is in the slot.
    classes: ClassSet,
    /// A bit a model; all bits where every model is served.
    models: u64,
    /// Classes of which a request that came first waited for room here when it was last asked.
    held: ClassSet,
}

/// Who may go where.
#[derive(Debug)]
pub(crate) struct Reach {
    /// Indexed by class: the sites it may use, a bit an id; 0 for all.
    sites: Vec<u64>,
    /// Indexed by class: what it is dedicated to, sorted; `None` for everything shared.
    pools: Vec<Option<Vec<u16>>>,
    /// Pools closed to classes that are not dedicated to them, sorted.
    exclusive: Vec<u16>,
    /// Indexed by slot.
    traits: Vec<Traits>,
    /// Indexed by class: those that may go wherever it may go.
    above: [ClassSet; CLASSES_MAX],
    /// Whether some backend serves only certain models.
    models_differ: bool,
    /// Whether some request may go where another may not.
    differs: bool,
    /// Classes of which a request waits for room now, so that what they hold is not for others.
    holding: ClassSet,
}

impl Reach {
    pub fn new(config: &Config) -> Reach {
        let mut reach = Reach {
            sites: config.classes.iter().map(|class| class.sites).collect(),
            pools: vec![None; config.classes.len()],
            exclusive: Vec::new(),
            traits: Vec::new(),
            above: [everyone(config.classes.len()); CLASSES_MAX],
            models_differ: false,
            differs: false,
            holding: ClassSet::EMPTY,
        };
        for rule in &config.partition {
            let Partition::Dedicated(dedicated) = rule else { continue };
            let pools = dedicated.pools.iter().map(|pool| pool.0);
            reach.pools[dedicated.class.index()].get_or_insert_default().extend(pools.clone());
            if dedicated.exclusive {
                reach.exclusive.extend(pools);
            }
        }
        reach.pools.iter_mut().flatten().for_each(|pools| pools.sort_unstable());
        reach.exclusive.sort_unstable();
        reach
    }

    /// Whether the policy has such rules at all.
    pub fn is_restricted(config: &Config) -> bool {
        config.classes.iter().any(|class| class.sites != 0)
            || config.partition.iter().any(|rule| matches!(rule, Partition::Dedicated(_)))
    }

    /// Classes of which a request waits for room that is not for others.
    pub fn holding(&self) -> ClassSet {
        self.holding
    }
    /// These classes are not waited for any more.
    pub fn let_go(&mut self, classes: ClassSet) {
        self.holding = self.holding.without(classes);
    }

    /// Whether such a request may go to the slot, by class and model.
    pub fn allows(&self, at: usize, asked: &Asked) -> bool {
        self.traits[at].classes.contains(asked.class) && self.serves(at, asked)
    }
    /// Whether the slot serves the request's model.
    pub fn serves(&self, at: usize, asked: &Asked) -> bool {
        let model = u32::from(asked.model.0);
        let models = self.traits[at].models;
        models.checked_shr(model).unwrap_or(u64::from(models == u64::MAX)) & 1 == 1
    }
    /// Whether a request that came first waits for room in the slot.
    pub fn is_held(&self, at: usize) -> bool {
        self.traits[at].held.meets(self.holding)
    }
    /// A request of the class, which comes first, waits for room; where is told by `hold`.
    pub fn begin_hold(&mut self, class: ClassId) {
        self.traits.iter_mut().for_each(|slot| slot.held.remove(class));
        self.holding.insert(class);
    }
    /// It waits for room in this slot.
    pub fn hold(&mut self, at: usize, class: ClassId) {
        self.traits[at].held.insert(class);
    }

    /// Classes that wait with `class` when a request of it fits nowhere.
    pub fn within(&self, class: ClassId) -> ClassSet {
        let classes = (0..self.sites.len() as u16).map(ClassId);
        let within = |other: &ClassId| {
            let covered = !self.models_differ && self.above[other.index()].contains(class);
            *other == class || covered
        };
        classes.filter(within).collect()
    }

    /// Whether some request may go where another may not.
    pub fn differs(&self) -> bool {
        self.differs
    }

    pub fn join(&mut self, at: usize, info: &BackendInfo) {
        if self.traits.len() <= at {
            self.traits.resize(at + 1, Traits::default());
        }
        let classes = (0..self.sites.len() as u16).map(ClassId);
        self.traits[at] = Traits {
            classes: classes.filter(|class| self.may_use(*class, info)).collect(),
            models: if info.models == 0 { u64::MAX } else { info.models },
            held: ClassSet::EMPTY,
        };
        self.compare();
    }
    pub fn leave(&mut self, at: usize) {
        self.traits[at] = Traits::default();
        self.compare();
    }

    fn may_use(&self, class: ClassId, info: &BackendInfo) -> bool {
        let sites = self.sites[class.index()];
        let by_site = sites == 0 || sites.checked_shr(info.site.0.into()).unwrap_or(0) & 1 == 1;
        let pool = info.pool.0;
        let by_pool = match &self.pools[class.index()] {
            Some(pools) => pools.binary_search(&pool).is_ok(),
            None => self.exclusive.binary_search(&pool).is_err(),
        };
        by_site && by_pool
    }

    /// Compares where classes may go, now that a backend has come or gone.
    fn compare(&mut self) {
        let here = || self.traits.iter().filter(|slot| slot.models != 0);
        let all = everyone(self.sites.len());
        let mut above = [all; CLASSES_MAX];
        for slot in here() {
            for class in slot.classes {
                above[class.index()] = above[class.index()].and(slot.classes);
            }
        }
        self.models_differ = here().any(|slot| slot.models != u64::MAX);
        self.differs = self.models_differ || here().any(|slot| slot.classes != all);
        self.above = above;
    }
}

/// All of so many classes.
fn everyone(classes: usize) -> ClassSet {
    (0..classes as u16).map(ClassId).collect()
}
