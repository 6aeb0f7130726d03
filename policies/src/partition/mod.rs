//! What classes and groups of classes may hold. A class that may not go now steps aside and others
//! go on.
//!
//! # `dedicated`
//! A class that is dedicated to pools uses only their backends; an *exclusive* pool takes only the
//! classes that are dedicated to it. Several rules for one class add their pools.
//!
//! **Promise.** A dedicated class never runs elsewhere, and where its pools are exclusive it never
//! waits for another class's requests. While its pools are full it waits for them (`site` if others
//! have room) and blocks only classes that may go nowhere else ([`crate::rules`]).
//!
//! **Failure.** What the class does not use idles if the pool is exclusive; if it is not, others
//! hold it when the class comes, and nothing is preempted. Source: node pools with taints and
//! tolerations, as cluster schedulers have them.

mod check;
mod concurrency;
mod quota;

use plimsoll_base::ClassId;

use crate::class_set::ClassSet;
use crate::config::{Config, Partition};
use concurrency::Concurrency;
use quota::Quota;

pub(crate) use check::check;
pub(crate) use quota::LEVELS_MAX;

/// The partition rules that keep accounts of what classes have outstanding. Where classes may go is
/// the business of [`crate::place`], and who queues apart that of [`crate::heavy_lane`].
#[derive(Debug, Default)]
pub(crate) struct Partitions {
    quota: Option<Box<Quota>>,
    concurrency: Option<Concurrency>,
    is_empty: bool,
}

impl Partitions {
    pub fn new(config: &Config) -> Partitions {
        let mut partitions = Partitions { is_empty: true, ..Partitions::default() };
        for rule in &config.partition {
            match rule {
                Partition::Dedicated(_) | Partition::HeavyLane { .. } => continue,
                Partition::Quota(rule) => partitions.quota = Some(Box::new(Quota::new(rule))),
                Partition::Concurrency(rule) => {
                    partitions.concurrency = Some(Concurrency::new(rule));
                }
            }
            partitions.is_empty = false;
        }
        partitions
    }

    /// Classes that have as many requests outstanding as they may.
    #[inline]
    pub fn full(&self) -> ClassSet {
        self.concurrency.as_ref().map_or(ClassSet::EMPTY, Concurrency::full)
    }
    /// Whether such a request could go if nothing else were outstanding.
    #[inline]
    pub fn could_take(&self, class: ClassId, tokens: u64) -> bool {
        self.quota.as_ref().is_none_or(|quota| quota.could_take(class, tokens))
    }
    /// Whether such a request may go if nobody waits.
    #[inline]
    pub fn has_room(&self, class: ClassId, tokens: u64) -> bool {
        self.is_empty
            || !self.full().contains(class)
                && self.quota.as_ref().is_none_or(|quota| quota.has_room(class, tokens))
    }

    /// These classes are asked for anew.
    #[inline]
    pub fn ask_anew(&mut self, classes: ClassSet) {
        if let Some(quota) = &mut self.quota {
            quota.ask_anew(classes);
        }
    }
    /// Whether such a request, which is next of its class, may go now. If not, its class steps
    /// aside.
    #[inline]
    pub fn admits(&mut self, class: ClassId, tokens: u64) -> bool {
        self.quota.as_mut().is_none_or(|quota| quota.admits(class, tokens))
    }
    /// No other class may go: those that may if requests that are less entitled go, too.
    #[inline]
    pub fn deepen(&mut self) -> Option<ClassSet> {
        self.quota.as_mut()?.deepen()
    }

    /// There are so many seats now.
    pub fn resize(&mut self, seats: u64) {
        if let Some(concurrency) = &mut self.concurrency {
            concurrency.resize(seats);
        }
    }
    #[inline]
    pub fn take(&mut self, class: ClassId, tokens: u64) {
        if self.is_empty {
            return;
        }
        self.quota.iter_mut().for_each(|quota| quota.take(class, tokens));
        self.concurrency.iter_mut().for_each(|concurrency| concurrency.take(class));
    }
    #[inline]
    pub fn release(&mut self, class: ClassId, tokens: u64) {
        if self.is_empty {
            return;
        }
        self.quota.iter_mut().for_each(|quota| quota.release(class, tokens));
        self.concurrency.iter_mut().for_each(|concurrency| concurrency.release(class));
    }
}
