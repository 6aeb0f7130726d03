//! Lanes whose order is not that of arrival: a binary heap a lane, in which every slot knows its
//! place, so that one is taken out of the middle, or given another key, in O(log n). Memory
//! follows the longest that each lane ever was.

use crate::list::NONE;

/// A waiting request in its lane. The least goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standing {
    pub key: u64,
    pub sequence: u64,
    pub slot: u32,
}

/// All lanes.
#[derive(Debug, Default)]
pub(crate) struct Keyed {
    /// Indexed by lane.
    heaps: Vec<Vec<Standing>>,
    /// Indexed by slot: where it stands in its lane's heap; [`NONE`] if it stands in none.
    places: Vec<u32>,
}

impl Keyed {
    /// Sees to it that there are `lanes`.
    pub fn grow(&mut self, lanes: usize) {
        self.heaps.resize_with(lanes, Vec::new);
    }
    pub fn head(&self, lane: usize) -> Option<Standing> {
        self.heaps[lane].first().copied()
    }
    pub fn is_empty(&self, lane: usize) -> bool {
        self.heaps[lane].is_empty()
    }

    pub fn push(&mut self, lane: usize, standing: Standing) {
        let slot = standing.slot as usize;
        if self.places.len() <= slot {
            self.places.resize(slot + 1, NONE);
        }
        assert!(self.places[slot] == NONE, "a request stands in one lane, once");
        let heap = &mut self.heaps[lane];
        let last = heap.len();
        heap.push(standing);
        rise(heap, &mut self.places, last);
    }

    pub fn remove(&mut self, lane: usize, slot: u32) {
        let at = self.places[slot as usize] as usize;
        let heap = &mut self.heaps[lane];
        assert!(heap[at].slot == slot, "a request stands where its place says");
        self.places[slot as usize] = NONE;
        heap.swap_remove(at);
        if at < heap.len() {
            let at = rise(heap, &mut self.places, at);
            sink(heap, &mut self.places, at);
        }
    }

    /// Gives the request another key.
    pub fn change(&mut self, lane: usize, slot: u32, key: u64) {
        let at = self.places[slot as usize] as usize;
        let heap = &mut self.heaps[lane];
        assert!(heap[at].slot == slot, "a request stands where its place says");
        heap[at].key = key;
        let at = rise(heap, &mut self.places, at);
        sink(heap, &mut self.places, at);
    }
}

fn rise(heap: &mut [Standing], places: &mut [u32], mut at: usize) -> usize {
    let standing = heap[at];
    while at > 0 && standing < heap[(at - 1) / 2] {
        put(heap, places, at, heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    put(heap, places, at, standing);
    at
}

fn sink(heap: &mut [Standing], places: &mut [u32], mut at: usize) {
    let standing = heap[at];
    let last = heap.len() - 1;
    while 2 * at < last {
        let left = 2 * at + 1;
        let right = (left + 1).min(last);
        let child = left + usize::from(heap[right] < heap[left]);
        if standing <= heap[child] {
            break;
        }
        put(heap, places, at, heap[child]);
        at = child;
    }
    put(heap, places, at, standing);
}

fn put(heap: &mut [Standing], places: &mut [u32], at: usize, standing: Standing) {
    heap[at] = standing;
    places[standing.slot as usize] = at as u32;
}

#[cfg(test)]
mod tests {
    use plimsoll_base::{Stream, StreamKey};

    use super::*;

    #[test]
    fn each_lane_is_sorted_whatever_leaves_or_changes() {
        for seed in 0..40 {
            let mut s = Stream::new(StreamKey { seed, replication: 0, name: "keyed", entity: 0 });
            let mut keyed = Keyed::default();
            keyed.grow(3);
            // Indexed by slot: the lane, and the place in it.
            let mut obvious: Vec<Option<(usize, Standing)>> = vec![None; 60];
            for sequence in 0..2000 {
                let slot = s.below(60) as u32;
                let key = s.below(20);
                match (obvious[slot as usize], s.below(3)) {
                    (None, _) => {
                        let lane = s.below(3) as usize;
                        let standing = Standing { key, sequence, slot };
                        keyed.push(lane, standing);
                        obvious[slot as usize] = Some((lane, standing));
                    }
                    (Some((lane, _)), 0) => {
                        keyed.remove(lane, slot);
                        obvious[slot as usize] = None;
                    }
                    (Some((lane, standing)), _) => {
                        keyed.change(lane, slot, key);
                        obvious[slot as usize] = Some((lane, Standing { key, ..standing }));
                    }
                }
                for lane in 0..3 {
                    let there = obvious.iter().flatten().filter(|(other, _)| *other == lane);
                    let first = there.map(|(_, standing)| *standing).min();
                    assert_eq!(keyed.head(lane), first, "{seed} {sequence}");
                    assert_eq!(keyed.is_empty(lane), first.is_none());
                }
            }
        }
    }
}
