//! Heaps, four children a node, in which every member knows its place, so that one is taken out of the middle, or
//! given another key, in O(log n). Memory follows the longest that each heap ever was.

use crate::list::NONE;

/// What orders a member among others; no two of a heap are equal.
pub(crate) trait Key: Copy + PartialOrd {
    /// The member it belongs to.
    fn member(self) -> u32;
}

/// One heap, the member with the least key on top.
#[derive(Debug)]
pub(crate) struct Heap<K> {
    keys: Vec<K>,
    places: Places,
}

impl<K: Key> Heap<K> {
    pub const EMPTY: Heap<K> = Heap { keys: Vec::new(), places: Places(Vec::new()) };

    pub fn least(&self) -> Option<K> {
        self.keys.first().copied()
    }

    /// All keys, in no order.
    pub fn keys(&self) -> &[K] {
        &self.keys
    }

    pub fn push(&mut self, key: K) {
        self.places.push(&mut self.keys, key);
    }

    pub fn remove(&mut self, member: u32) {
        self.places.remove(&mut self.keys, member);
    }

    /// Gives the member of `key` this key, if it is in the heap.
    pub fn change(&mut self, key: K) {
        if self.places.of(key.member()) != NONE {
            self.places.change(&mut self.keys, key);
        }
    }
}

/// Many heaps, by number. A member stands in one of them at a time.
#[derive(Debug)]
pub(crate) struct Heaps<K> {
    heaps: Vec<Vec<K>>,
    places: Places,
}

impl<K: Key> Heaps<K> {
    pub const EMPTY: Heaps<K> = Heaps { heaps: Vec::new(), places: Places(Vec::new()) };

    /// Sees to it that there are so many.
    pub fn grow(&mut self, heaps: usize) {
        self.heaps.resize_with(heaps, Vec::new);
    }
    pub fn least(&self, heap: usize) -> Option<K> {
        self.heaps[heap].first().copied()
    }
    pub fn push(&mut self, heap: usize, key: K) {
        self.places.push(&mut self.heaps[heap], key);
    }
    pub fn remove(&mut self, heap: usize, member: u32) {
        self.places.remove(&mut self.heaps[heap], member);
    }
    /// Gives the member of `key`, which stands in the heap, this key.
    pub fn change(&mut self, heap: usize, key: K) {
        self.places.change(&mut self.heaps[heap], key);
    }
}

/// Children of a node: four keys of 16 bytes fill a cache line, and half as many steps write half
/// as many places as in a heap of two.
const CHILDREN: usize = 4;

/// The child of `at` with the least key, if it has children.
fn least_child<K: Key>(heap: &[K], at: usize) -> Option<usize> {
    let first = CHILDREN * at + 1;
    let keys = heap.get(first..)?;
    let Some([a, b, c, d]) = keys.first_chunk::<CHILDREN>() else {
        let least = (0..keys.len()).reduce(|a, b| if keys[b] < keys[a] { b } else { a });
        return least.map(|least| first + least);
    };
    // No branch: which is least cannot be predicted.
    let (front, back) = (usize::from(b < a), usize::from(d < c));
    let is_back = [c, d][back] < [a, b][front];
    Some(first + [front, 2 + back][usize::from(is_back)])
}

/// Indexed by member: where it stands in its heap; [`NONE`] if it stands in none.
#[derive(Debug)]
struct Places(Vec<u32>);

impl Places {
    fn of(&self, member: u32) -> u32 {
        self.0.get(member as usize).copied().unwrap_or(NONE)
    }

    fn push<K: Key>(&mut self, heap: &mut Vec<K>, key: K) {
        let member = key.member() as usize;
        if self.0.len() <= member {
            self.0.resize(member + 1, NONE);
        }
        assert!(self.0[member] == NONE, "a member stands in one heap, once");
        let last = heap.len();
        heap.push(key);
        self.rise(heap, last);
    }

    fn remove<K: Key>(&mut self, heap: &mut Vec<K>, member: u32) {
        let at = self.0[member as usize] as usize;
        assert!(heap[at].member() == member, "a member stands where its place says");
        self.0[member as usize] = NONE;
        let key = heap.swap_remove(at);
        if let Some(&moved) = heap.get(at) {
            self.settle(heap, at, moved > key);
        }
    }

    fn change<K: Key>(&mut self, heap: &mut [K], key: K) {
        let at = self.0[key.member() as usize] as usize;
        assert!(heap[at].member() == key.member(), "a member stands where its place says");
        let falls = heap[at] < key;
        heap[at] = key;
        self.settle(heap, at, falls);
    }

    /// Moves what stands at `at` to where it belongs: down if its key is above the one that stood
    /// there.
    fn settle<K: Key>(&mut self, heap: &mut [K], at: usize, falls: bool) {
        if falls { self.sink(heap, at) } else { self.rise(heap, at) }
    }

    fn rise<K: Key>(&mut self, heap: &mut [K], mut at: usize) {
        let key = heap[at];
        while at > 0 {
            let parent = (at - 1) / CHILDREN;
            let above = heap[parent];
            if above <= key {
                break;
            }
            self.put(heap, at, above);
            at = parent;
        }
        self.put(heap, at, key);
    }

    fn sink<K: Key>(&mut self, heap: &mut [K], mut at: usize) {
        let key = heap[at];
        while let Some(child) = least_child(heap, at) {
            let below = heap[child];
            if key <= below {
                break;
            }
            self.put(heap, at, below);
            at = child;
        }
        self.put(heap, at, key);
    }

    fn put<K: Key>(&mut self, heap: &mut [K], at: usize, key: K) {
        heap[at] = key;
        self.0[key.member() as usize] = at as u32;
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_base::{Stream, StreamKey};

    use super::*;

    /// By number, then by sequence.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Ranked {
        key: u64,
        sequence: u64,
        member: u32,
    }

    impl Key for Ranked {
        fn member(self) -> u32 {
            self.member
        }
    }

    #[test]
    fn each_heap_is_sorted_whatever_leaves_or_changes() {
        for seed in 0..50 {
            let mut s = Stream::new(StreamKey { seed, replication: 0, name: "heaps", entity: 0 });
            let mut heaps = Heaps::EMPTY;
            heaps.grow(3);
            // Indexed by member: the heap, and the key in it.
            let mut obvious: Vec<Option<(usize, Ranked)>> = vec![None; 60];
            for sequence in 0..3000 {
                let member = s.below(60) as u32;
                let key = s.below(20);
                match (obvious[member as usize], s.below(3)) {
                    (None, _) => {
                        let heap = s.below(3) as usize;
                        let ranked = Ranked { key, sequence, member };
                        heaps.push(heap, ranked);
                        obvious[member as usize] = Some((heap, ranked));
                    }
                    (Some((heap, _)), 0) => {
                        heaps.remove(heap, member);
                        obvious[member as usize] = None;
                    }
                    (Some((heap, ranked)), _) => {
                        heaps.change(heap, Ranked { key, ..ranked });
                        obvious[member as usize] = Some((heap, Ranked { key, ..ranked }));
                    }
                }
                for heap in 0..3 {
                    let there = obvious.iter().flatten().filter(|(other, _)| *other == heap);
                    let first = there.map(|(_, ranked)| *ranked).min();
                    assert_eq!(heaps.least(heap), first, "{seed} {sequence}");
                }
            }
        }
    }
}
