//! A binary heap of flows whose keys change in place.

use crate::list::NONE;

/// What a flow is ordered by: the counter, then the flow's number.
pub(crate) type Key = (i128, u32);

/// The flow with the least key on top; O(log n) to add, remove and change.
#[derive(Debug, Default)]
pub(crate) struct Heap {
    keys: Vec<Key>,
    /// Indexed by flow: where its key stands; [`NONE`] if not in the heap.
    positions: Vec<u32>,
}

impl Heap {
    pub fn least(&self) -> Option<Key> {
        self.keys.first().copied()
    }

    pub fn push(&mut self, key: Key) {
        let flow = key.1 as usize;
        if self.positions.len() <= flow {
            self.positions.resize(flow + 1, NONE);
        }
        assert!(self.positions[flow] == NONE, "a flow is in the heap once");
        self.keys.push(key);
        self.rise(self.keys.len() - 1);
    }

    pub fn remove(&mut self, flow: u32) {
        let at = self.positions[flow as usize] as usize;
        assert!(self.keys[at].1 == flow, "a flow stands where its position says");
        self.positions[flow as usize] = NONE;
        self.keys.swap_remove(at);
        if at < self.keys.len() {
            self.settle(at);
        }
    }

    /// Gives the flow of `key` its new counter, if the flow is in the heap.
    pub fn change(&mut self, key: Key) {
        let at = self.positions.get(key.1 as usize).copied().unwrap_or(NONE);
        if at != NONE {
            self.keys[at as usize] = key;
            self.settle(at as usize);
        }
    }

    fn settle(&mut self, at: usize) {
        let at = self.rise(at);
        self.sink(at);
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
        loop {
            let mut child = 2 * at + 1;
            if child + 1 < self.keys.len() && self.keys[child + 1] < self.keys[child] {
                child += 1;
            }
            if child >= self.keys.len() || key <= self.keys[child] {
                break;
            }
            self.put(at, self.keys[child]);
            at = child;
        }
        self.put(at, key);
    }

    fn put(&mut self, at: usize, key: Key) {
        self.keys[at] = key;
        self.positions[key.1 as usize] = at as u32;
    }
}
