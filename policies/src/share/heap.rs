//! A binary heap of flows whose keys change in place.

use super::flows::FLOW_BITS;
use crate::list::NONE;

/// What orders a flow among others; no two of a heap are equal.
pub(crate) trait Key: Copy + PartialOrd {
    /// The flow it belongs to.
    fn flow(self) -> u32;
}

/// A counter above the number of its flow, so that one comparison orders by counter and then by
/// flow.
impl Key for i128 {
    fn flow(self) -> u32 {
        (self & ((1 << FLOW_BITS) - 1)) as u32
    }
}

/// The flow with the least key on top; O(log n) to add, remove and change.
#[derive(Debug)]
pub(crate) struct Heap<K> {
    keys: Vec<K>,
    /// Indexed by flow: where its key stands; [`NONE`] if not in the heap.
    positions: Vec<u32>,
}

impl<K: Key> Heap<K> {
    pub const EMPTY: Heap<K> = Heap { keys: Vec::new(), positions: Vec::new() };

    pub fn least(&self) -> Option<K> {
        self.keys.first().copied()
    }

    /// All keys, in no order.
    pub fn keys(&self) -> &[K] {
        &self.keys
    }

    pub fn push(&mut self, key: K) {
        let flow = key.flow() as usize;
        if self.positions.len() <= flow {
            self.positions.resize(flow + 1, NONE);
        }
        assert!(self.positions[flow] == NONE, "a flow is in the heap once");
        self.keys.push(key);
        self.rise(self.keys.len() - 1);
    }

    pub fn remove(&mut self, flow: u32) {
        let at = self.positions[flow as usize] as usize;
        assert!(self.keys[at].flow() == flow, "a flow stands where its position says");
        self.positions[flow as usize] = NONE;
        self.keys.swap_remove(at);
        if at < self.keys.len() {
            let at = self.rise(at);
            self.sink(at);
        }
    }

    /// Gives the flow of `key` this key, if the flow is in the heap.
    pub fn change(&mut self, key: K) {
        let at = self.positions.get(key.flow() as usize).copied().unwrap_or(NONE);
        if at != NONE {
            self.keys[at as usize] = key;
            let at = self.rise(at as usize);
            self.sink(at);
        }
    }

    fn rise(&mut self, mut at: usize) -> usize {
        let key = self.keys[at];
        while at > 0 && key < self.keys[(at - 1) / 2] {
            self.put(at, self.keys[(at - 1) / 2]);
            at = (at - 1) / 2;
        }
        self.put(at, key);
        at
    }

    fn sink(&mut self, mut at: usize) {
        let key = self.keys[at];
        let last = self.keys.len() - 1;
        while 2 * at < last {
            let left = 2 * at + 1;
            let right = (left + 1).min(last);
            // No branch: which child is less cannot be predicted.
            let child = left + usize::from(self.keys[right] < self.keys[left]);
            if key <= self.keys[child] {
                break;
            }
            self.put(at, self.keys[child]);
            at = child;
        }
        self.put(at, key);
    }

    fn put(&mut self, at: usize, key: K) {
        self.keys[at] = key;
        self.positions[key.flow() as usize] = at as u32;
    }
}
