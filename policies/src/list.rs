//! Doubly linked lists whose links live in the members: push, pop and removal from the middle in
//! O(1), without allocation.

/// No member.
pub(crate) const NONE: u32 = u32::MAX;

/// A member's neighbours in one list; [`NONE`] at the ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    previous: u32,
    next: u32,
}

impl Links {
    pub const UNLINKED: Links = Links { previous: NONE, next: NONE };
}

/// Where a list's links are stored.
pub(crate) trait Linked {
    fn links(&self, member: u32) -> &Links;
    fn links_mut(&mut self, member: u32) -> &mut Links;
}

/// The two ends of a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    head: u32,
    tail: u32,
}

impl List {
    pub const EMPTY: List = List { head: NONE, tail: NONE };

    pub fn head(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }
    pub fn tail(&self) -> Option<u32> {
        (self.tail != NONE).then_some(self.tail)
    }
    pub fn next(&self, store: &impl Linked, member: u32) -> Option<u32> {
        let next = store.links(member).next;
        (next != NONE).then_some(next)
    }

    pub fn push(&mut self, store: &mut impl Linked, member: u32) {
        *store.links_mut(member) = Links { previous: self.tail, next: NONE };
        match self.tail {
            NONE => self.head = member,
            tail => store.links_mut(tail).next = member,
        }
        self.tail = member;
    }

    pub fn push_front(&mut self, store: &mut impl Linked, member: u32) {
        *store.links_mut(member) = Links { previous: NONE, next: self.head };
        match self.head {
            NONE => self.tail = member,
            head => store.links_mut(head).previous = member,
        }
        self.head = member;
    }

    pub fn remove(&mut self, store: &mut impl Linked, member: u32) {
        let Links { previous, next } = *store.links(member);
        match previous {
            NONE => self.head = next,
            previous => store.links_mut(previous).next = next,
        }
        match next {
            NONE => self.tail = previous,
            next => store.links_mut(next).previous = previous,
        }
    }
}
