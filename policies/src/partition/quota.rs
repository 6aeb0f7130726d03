//! `quota`: a tree of groups with nominal quotas, borrowing, lending limits and reclaim.
//!
//! Every group has a `nominal` quota of what may be outstanding at backends, in requests or in
//! estimated tokens. Leaves name classes; a group's classes are those of the groups below it. What a
//! group uses is what its classes have outstanding. Where quotas are per tenant, give each tenant a
//! class of its own by `classify`.
//!
//! - **Borrow.** Beyond its nominal quota a group may use what its siblings and its parent leave
//!   unused, up to `borrow_max` more (absent: as much as there is). If that takes the parent beyond
//!   its own nominal quota, the parent borrows in turn. A root cannot borrow.
//! - **Lend.** A group lends at most `lend_max` of its nominal quota (absent: all of it). The rest
//!   is its own: it counts as used in its parent's account even while it idles.
//! - **Reclaim.** Work within its nominal quota goes before work that borrows, whatever the share
//!   says. While a class is denied room that is within its nominal quota, nobody who shares that
//!   room borrows more of it, and what was lent comes back as it ends. Nothing is preempted.
//!
//! How entitled a request is: it may borrow at no group above it, or only at groups near the root,
//! or at its own group. Dispatching asks for the most entitled first, then for the next: the
//! *depth* of a request is that of the deepest group that borrows for it, 0 if none does.
//! A class that is denied has a *claim* on the room of each group on its way that is deeper than
//! that. A request may borrow at a group only while no class elsewhere below that group's parent has
//! a claim on it. Claims point from deeper to less deep, so no two classes wait for each other.
//!
//! **Promises.**
//! 1. No group uses more than `nominal + borrow_max`, and no children together more than their
//!    parent may use.
//! 2. Nothing that borrows goes while a class with a claim on the same room waits; nor does it go
//!    before a request within its nominal quota that could go at the same instant.
//! 3. Lent capacity returns within the longest remaining run of what borrowed when the lender began
//!    to wait, once for each level of the tree that lent: with groups directly under one root, once.
//!
//! [`Config::check`](crate::Config::check) refuses a tree whose children's nominal quotas sum to
//! more than their parent's, since they could not all be kept. A request larger than its group can
//! ever use is refused (`over_quota`).
//!
//! **Failure.** The return takes a whole run, which for long outputs is minutes: limit `borrow_max`,
//! or `lend_max` of who must not wait. A class whose head does not fit steps aside as a whole. What a
//! class does not get for lack of a backend is no claim: others may borrow meanwhile, and then it
//! waits for their runs. A quota larger than what the backends can hold bounds nothing.
//!
//! Source: Kubernetes Kueue, hierarchical cohorts (`nominalQuota`, `borrowingLimit`, `lendingLimit`;
//! `available` and `addUsage` in its `resource_node.go`). There a cohort's quota adds to its
//! members'; here a group's nominal quota is that of everything below it.

use plimsoll_base::ClassId;

use crate::class_set::{CLASSES_MAX, ClassSet};
use crate::config::{Quota as Config, QuotaUnit};

/// Groups in a row from a root to a leaf at most.
pub(crate) const LEVELS_MAX: usize = 8;
/// No group.
const NONE: u16 = u16::MAX;

/// One group. Amounts are in the unit of the quota.
#[derive(Clone, Copy, Debug)]
struct Group {
    parent: u16,
    /// Groups above it.
    depth: usize,
    nominal: u64,
    /// What it may use, borrowed quota included.
    most: u64,
    /// What it never lends.
    kept: u64,
    /// What it could use if nothing else were outstanding.
    ceiling: u64,
    /// A leaf's outstanding; above, the sum over the children of what each uses or keeps.
    used: u64,
    /// Its classes.
    under: ClassSet,
}

impl Group {
    /// What it takes of its parent when it uses so much.
    fn taken(&self, used: u64) -> u64 {
        used.max(self.kept)
    }
}

/// What comes of asking for quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// There is room. The deepest group that borrows for it has this depth, 0 if none does.
    Room(usize),
    /// There is none.
    Full(usize),
}

/// The tree, what is used of it, and who claims what in the round in hand.
#[derive(Debug)]
pub(crate) struct Quota {
    unit: QuotaUnit,
    groups: Vec<Group>,
    /// Indexed by class.
    leaves: [u16; CLASSES_MAX],
    /// How deep requests may borrow for now.
    depth: usize,
    /// Indexed by depth: classes of which the next request would borrow there, put off for now.
    put_off: [ClassSet; LEVELS_MAX],
    /// Indexed by depth: classes denied although they would borrow no deeper.
    denied: [ClassSet; LEVELS_MAX],
    /// Whether one of these may name a class.
    has_refused: bool,
}

impl Quota {
    /// Parents stand before their children.
    pub fn new(config: &Config) -> Quota {
        let mut quota = Quota {
            unit: config.unit,
            groups: Vec::with_capacity(config.groups.len()),
            leaves: [NONE; CLASSES_MAX],
            depth: 0,
            put_off: [ClassSet::EMPTY; LEVELS_MAX],
            denied: [ClassSet::EMPTY; LEVELS_MAX],
            has_refused: false,
        };
        for (at, group) in (0..).zip(&config.groups) {
            let borrowed = group.parent.map_or(0, |_| group.borrow_max.unwrap_or(u64::MAX));
            quota.groups.push(Group {
                parent: group.parent.unwrap_or(NONE),
                depth: group.parent.map_or(0, |parent| quota.groups[usize::from(parent)].depth + 1),
                nominal: group.nominal,
                most: group.nominal.saturating_add(borrowed),
                kept: group.lend_max.map_or(0, |lent| group.nominal - lent),
                ceiling: u64::MAX,
                used: 0,
                under: group.classes.iter().copied().collect(),
            });
            group.classes.iter().for_each(|class| quota.leaves[class.index()] = at);
        }
        // From the last to the first, so that children are complete before their parents.
        for at in (0..quota.groups.len()).rev() {
            let group = quota.groups[at];
            if let Some(parent) = quota.groups.get_mut(usize::from(group.parent)) {
                parent.used += group.taken(group.used);
                parent.under = parent.under.or(group.under);
            }
        }
        for at in 0..quota.groups.len() {
            quota.groups[at].ceiling = quota.ceiling(quota.groups[at]);
        }
        quota
    }

    /// What a group could use in the idle tree, given that of its parent.
    fn ceiling(&self, group: Group) -> u64 {
        let Some(parent) = self.groups.get(usize::from(group.parent)) else { return group.most };
        let others = parent.used - group.taken(group.used);
        group.most.min(parent.ceiling.saturating_sub(others))
    }

    /// Whether the class's group could hold such a request if nothing else were outstanding.
    pub fn could_take(&self, class: ClassId, tokens: u64) -> bool {
        let leaf = self.groups.get(usize::from(self.leaves[class.index()]));
        leaf.is_none_or(|group| self.amount(tokens) <= group.ceiling)
    }

    /// Whether such a request may go if nobody waits.
    pub fn has_room(&self, class: ClassId, tokens: u64) -> bool {
        match self.ask(class, tokens) {
            Asked::Room(_) => true,
            Asked::Full(_) => false,
        }
    }

    /// These classes are asked for anew, and the most entitled requests first.
    pub fn ask_anew(&mut self, classes: ClassSet) {
        self.depth = 0;
        if !std::mem::take(&mut self.has_refused) {
            return;
        }
        for set in self.put_off.iter_mut().chain(&mut self.denied) {
            *set = set.without(classes);
            self.has_refused |= !set.is_empty();
        }
    }

    /// Whether such a request, which is next of its class, may go now. If not, its class steps
    /// aside.
    pub fn admits(&mut self, class: ClassId, tokens: u64) -> bool {
        match self.ask(class, tokens) {
            Asked::Room(depth) if depth > self.depth => self.put_off[depth].insert(class),
            Asked::Room(depth) if self.is_claimed(class, tokens) => {
                self.denied[depth].insert(class);
            }
            Asked::Room(_) => return true,
            Asked::Full(depth) => self.denied[depth].insert(class),
        }
        self.has_refused = true;
        false
    }

    /// Nobody else may go as deep as now: the classes that may go a step deeper.
    pub fn deepen(&mut self) -> Option<ClassSet> {
        if !self.has_refused {
            return None;
        }
        let deeper = (0..LEVELS_MAX).find(|&depth| !self.put_off[depth].is_empty())?;
        self.depth = deeper;
        Some(std::mem::take(&mut self.put_off[deeper]))
    }

    pub fn take(&mut self, class: ClassId, tokens: u64) {
        let leaf = self.leaves[class.index()];
        if let Some(group) = self.groups.get(usize::from(leaf)) {
            self.update(leaf, group.used + self.amount(tokens));
        }
    }
    pub fn release(&mut self, class: ClassId, tokens: u64) {
        let leaf = self.leaves[class.index()];
        if let Some(group) = self.groups.get(usize::from(leaf)) {
            let amount = self.amount(tokens);
            assert!(group.used >= amount, "what ends was outstanding");
            self.update(leaf, group.used - amount);
        }
    }

    fn amount(&self, tokens: u64) -> u64 {
        match self.unit {
            QuotaUnit::Requests => 1,
            QuotaUnit::Tokens => tokens,
        }
    }

    /// The leaf uses so much now; so do those above it.
    fn update(&mut self, leaf: u16, used: u64) {
        let (mut at, mut used) = (leaf, used);
        while let Some(group) = self.groups.get_mut(usize::from(at)) {
            let (before, after) = (group.taken(group.used), group.taken(used));
            group.used = used;
            at = group.parent;
            let Some(parent) = self.groups.get(usize::from(at)) else { return };
            used = parent.used - before + after;
        }
    }

    /// The groups that would use more, from the leaf up: which, and how much they would use.
    fn way(&self, class: ClassId, tokens: u64) -> impl Iterator<Item = (&Group, u64)> {
        let leaf = self.groups.get(usize::from(self.leaves[class.index()]));
        let first = leaf.map(|group| (group, group.used.saturating_add(self.amount(tokens))));
        let up = |&(group, used): &(&Group, u64)| {
            let parent: &Group = self.groups.get(usize::from(group.parent))?;
            let more = group.taken(used) - group.taken(group.used);
            Some((parent, parent.used.saturating_add(more)))
        };
        std::iter::successors(first, up).take_while(|(group, used)| *used > group.used)
    }

    fn ask(&self, class: ClassId, tokens: u64) -> Asked {
        let (mut depth, mut has_room) = (0, true);
        for (group, used) in self.way(class, tokens) {
            if used > group.nominal {
                depth = depth.max(group.depth);
            }
            has_room &= used <= group.most;
        }
        if has_room { Asked::Room(depth) } else { Asked::Full(depth) }
    }

    /// Whether such a request would borrow at some group what a class elsewhere claims.
    fn is_claimed(&self, class: ClassId, tokens: u64) -> bool {
        self.way(class, tokens).any(|(group, used)| {
            let Some(parent) = self.groups.get(usize::from(group.parent)) else { return false };
            let claims = self.denied[..group.depth].iter();
            let claims = claims.fold(ClassSet::EMPTY, |all, classes| all.or(*classes));
            used > group.nominal && claims.meets(parent.under.without(group.under))
        })
    }
}
