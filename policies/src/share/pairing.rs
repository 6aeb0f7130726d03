//! Heaps whose links live in the members (pairing heaps: Fredman, Sedgewick, Sleator and Tarjan,
//! 1986): a member stands in one heap at a time, so that any number of heaps needs no more memory
//! than the members do. O(1) to add, O(log n) amortised to take one out, wherever it stands.

use crate::list::NONE;

/// A member: its key, and who stands next to it.
#[derive(Clone, Copy, Debug)]
struct Node<K> {
    key: K,
    /// The first of its children.
    child: u32,
    /// The child of the same parent that comes next.
    next: u32,
    /// The one before, or the parent if it is the first child.
    previous: u32,
}

/// The members of all heaps, by number. A heap is the number of its least member, or [`NONE`].
#[derive(Debug)]
pub(crate) struct Pairing<K> {
    nodes: Vec<Node<K>>,
}

impl<K: Copy + Ord + Default> Pairing<K> {
    pub const EMPTY: Pairing<K> = Pairing { nodes: Vec::new() };

    pub fn key(&self, member: u32) -> K {
        self.nodes[member as usize].key
    }

    pub fn push(&mut self, root: &mut u32, member: u32, key: K) {
        let node = Node { key, child: NONE, next: NONE, previous: NONE };
        if self.nodes.len() <= member as usize {
            let vacant = Node { key: K::default(), child: NONE, next: NONE, previous: NONE };
            self.nodes.resize(member as usize + 1, vacant);
        }
        self.nodes[member as usize] = node;
        *root = self.join(*root, member);
    }

    /// Takes a member out of the heap it stands in.
    pub fn remove(&mut self, root: &mut u32, member: u32) {
        let below = self.join_children(member);
        if *root == member {
            *root = below;
            return;
        }
        let Node { next, previous, .. } = self.nodes[member as usize];
        let before = &mut self.nodes[previous as usize];
        match before.child == member {
            true => before.child = next,
            false => before.next = next,
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        *root = self.join(*root, below);
    }

    /// Joins two heaps; either may be empty.
    fn join(&mut self, a: u32, b: u32) -> u32 {
        if a == NONE || b == NONE {
            return a.min(b);
        }
        let (winner, loser) = match self.key(a) < self.key(b) {
            true => (a, b),
            false => (b, a),
        };
        let first = std::mem::replace(&mut self.nodes[winner as usize].child, loser);
        if first != NONE {
            self.nodes[first as usize].previous = loser;
        }
        let node = &mut self.nodes[loser as usize];
        (node.next, node.previous) = (first, winner);
        winner
    }

    /// Joins the children of a member in pairs from the first to the last, then all pairs from
    /// the last to the first.
    fn join_children(&mut self, member: u32) -> u32 {
        let mut at = std::mem::replace(&mut self.nodes[member as usize].child, NONE);
        // A chain of pairs, through `next`, the last one first.
        let mut pairs = NONE;
        while at != NONE {
            let second = self.nodes[at as usize].next;
            let rest = if second == NONE { NONE } else { self.nodes[second as usize].next };
            self.cut(at);
            if second != NONE {
                self.cut(second);
            }
            let pair = self.join(at, second);
            self.nodes[pair as usize].next = pairs;
            pairs = pair;
            at = rest;
        }
        let mut root = NONE;
        while pairs != NONE {
            let rest = self.nodes[pairs as usize].next;
            self.cut(pairs);
            root = self.join(root, pairs);
            pairs = rest;
        }
        root
    }

    fn cut(&mut self, member: u32) {
        let node = &mut self.nodes[member as usize];
        (node.next, node.previous) = (NONE, NONE);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use plimsoll_base::{Stream, StreamKey};

    use super::*;

    #[test]
    fn behaves_like_ordered_sets() {
        for seed in 0..50 {
            let mut s = Stream::new(StreamKey { seed, replication: 0, name: "heap", entity: 0 });
            let mut nodes = Pairing::EMPTY;
            let mut heaps = vec![(NONE, BTreeSet::new()); 3];
            let mut place = [None; 60];
            for _ in 0..3000 {
                let member = s.below(60) as u32;
                match place[member as usize].take() {
                    None => {
                        let (heap, key) = (s.below(3) as usize, (s.below(10), member));
                        let (root, obvious) = &mut heaps[heap];
                        nodes.push(root, member, key);
                        obvious.insert(key);
                        place[member as usize] = Some((heap, key));
                    }
                    Some((heap, key)) => {
                        let (root, obvious) = &mut heaps[heap];
                        nodes.remove(root, member);
                        obvious.remove(&key);
                    }
                }
                for (root, obvious) in &heaps {
                    let least = (*root != NONE).then(|| nodes.key(*root));
                    assert_eq!(least, obvious.first().copied(), "{seed}");
                }
            }
        }
    }
}
