//! Paced eviction: running work that may be shed makes room for work that may not.
//!
//! **What it does.** When the oldest waiting request of a class that is not `sheddable` has waited
//! `after` for a seat or for KV memory, one running request of a `sheddable` class is cancelled at
//! its backend (`evicted`). Of the classes that wait the most important asks first; what goes is of
//! the least important sheddable class, of no higher priority than who asks, and of it the one
//! dispatched last, whose work is the least: at a backend that could take who asks. Only the
//! [`LOOK_MAX`] latest of a class are looked at. Nobody is sent into the seat before the backend
//! has let go: when the end of the evicted request is told its seat is free, and goes by the
//! share and the order like any other.
//!
//! **Source.** Preemption of best-effort work as in Borg (Verma et al., EuroSys 2015), at a pace:
//! one eviction is out at a time, and from one to the next lies `every` at least, so that no
//! gauge is acted on twice before it has absorbed the last action.
//!
//! **Promise.** In any interval of length T at most `T / every + 1` requests are evicted, each
//! once and for ever: it ends as `evicted`, is not queued again, and its client is told. Work that
//! is not sheddable is never evicted, nor is anything while nobody has waited `after`.
//!
//! **How it fails.** What was computed for the evicted is wasted. Where one eviction does not free
//! the KV memory that the waiter needs it takes several, `every` apart. The seat belongs to whoever
//! is next, which under a fair share may be sheddable work again: give the classes priorities or
//! weights that agree with what is sheddable. An engine that does not answer a cancellation stops
//! all further ones.

use plimsoll_base::{ClassId, RequestId, Span, Time};

use crate::class_set::ClassSet;
use crate::config::{Class, Config, Feedback};
use crate::list::{Linked, Links, List};

/// Running requests of one class that are looked at, the latest first.
const LOOK_MAX: usize = 16;

/// What runs and may be evicted.
#[derive(Debug)]
pub(crate) struct Evict {
    after: Span,
    every: Span,
    sheddable: ClassSet,
    /// The sheddable classes, the least important first; the others, the most important first.
    victims: Vec<ClassId>,
    askers: Vec<ClassId>,
    /// Indexed by class: what runs, the latest dispatched first.
    running: Vec<List>,
    /// Indexed by slot.
    links: Vec<Links>,
    /// Evicted, and its backend has not let go.
    pending: Option<RequestId>,
    /// Not before this instant again.
    next: Time,
    /// Nobody who waits or comes may ask before this instant.
    none_asks_before: Time,
}

struct Running<'a>(&'a mut [Links]);

impl Linked for Running<'_> {
    fn links(&self, member: u32) -> &Links {
        &self.0[member as usize]
    }
    fn links_mut(&mut self, member: u32) -> &mut Links {
        &mut self.0[member as usize]
    }
}

impl Evict {
    pub fn new(config: &Config) -> Option<Evict> {
        let spans = config.feedback.iter().find_map(|rule| match *rule {
            Feedback::EvictSheddable { after, every } => Some((after, every)),
            Feedback::AdaptiveConcurrency { .. }
            | Feedback::CircuitBreaker { .. }
            | Feedback::SloCaps(_)
            | Feedback::Autoscale(_) => None,
        });
        let (after, every) = spans?;
        let of = |is: fn(&Class) -> bool| -> Vec<ClassId> {
            let ids = (0..).map(ClassId).zip(&config.classes);
            ids.filter(|(_, class)| is(class)).map(|(id, _)| id).collect()
        };
        let (mut victims, mut askers) = (of(|class| class.sheddable), of(|class| !class.sheddable));
        let priority = |class: &ClassId| config.classes[class.index()].priority;
        victims.sort_by_key(priority);
        askers.sort_by_key(|class| std::cmp::Reverse(priority(class)));
        Some(Evict {
            after,
            every,
            sheddable: victims.iter().copied().collect(),
            victims,
            askers,
            running: vec![List::EMPTY; config.classes.len()],
            links: Vec::new(),
            pending: None,
            next: Time::ZERO,
            none_asks_before: Time::ZERO,
        })
    }

    /// A request in this slot was sent to a backend.
    pub fn dispatched(&mut self, slot: u32, class: ClassId) {
        if !self.sheddable.contains(class) {
            return;
        }
        if self.links.len() <= slot as usize {
            self.links.resize(slot as usize + 1, Links::UNLINKED);
        }
        self.running[class.index()].push_front(&mut Running(&mut self.links), slot);
    }

    /// A request in this slot ended at its backend.
    pub fn ended(&mut self, slot: u32, class: ClassId, id: RequestId) {
        if self.sheddable.contains(class) {
            self.running[class.index()].remove(&mut Running(&mut self.links), slot);
        }
        self.pending.take_if(|pending| *pending == id);
    }

    /// Whether an eviction is out that has not been absorbed.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether nobody can have waited long enough, by what [`Evict::put_off`] was told last.
    pub fn is_early(&self, now: Time) -> bool {
        now < self.none_asks_before
    }

    /// Nobody who waits or comes may ask before this instant.
    pub fn put_off(&mut self, until: Time) {
        self.none_asks_before = until;
    }

    /// When one may be evicted for a request that arrived then.
    pub fn earliest(&self, arrived: Time) -> Time {
        arrived.saturating_add(self.after).max(self.next)
    }

    /// Whose waiting is looked at, from 0.
    pub fn asker(&self, at: usize) -> Option<ClassId> {
        self.askers.get(at).copied()
    }

    /// Whose running requests are looked at, from 0.
    pub fn victim(&self, at: usize) -> Option<ClassId> {
        self.victims.get(at).copied()
    }

    /// The slots of what runs of a class, the latest first, as far as they are looked at.
    pub fn running(&mut self, class: ClassId) -> impl Iterator<Item = u32> {
        let list = self.running[class.index()];
        let links = Running(&mut self.links);
        let next = move |&slot: &u32| list.next(&links, slot);
        std::iter::successors(list.head(), next).take(LOOK_MAX)
    }

    /// This one is evicted.
    pub fn evicted(&mut self, now: Time, id: RequestId) {
        self.pending = Some(id);
        self.next = now.saturating_add(self.every);
    }
}
