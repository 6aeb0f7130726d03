//! From ids to slots: open addressing, a multiplication for a hash, a third full at most. Memory
//! follows the most ids ever held.
//!
//! Ids come from the driver, not from clients, so nobody can aim at the hash. Places are looked at
//! all over, so a place is a slot and no more, to stay in the cache; the ids stand in a row of
//! their own by slot, which is dense.

use crate::list::NONE;

/// A map from ids (of requests held, or of workflows) to their slots, of which no two are equal.
#[derive(Debug)]
pub(crate) struct Index {
    /// A power of two; [`NONE`] marks a free place.
    places: Vec<u32>,
    /// Indexed by slot; means something while the slot stands in a place.
    ids: Vec<u64>,
    held: usize,
}

/// Where an id stands, until the index changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub slot: u32,
    place: usize,
}

const PLACES_MIN: usize = 64;

impl Index {
    pub fn new() -> Index {
        Index { places: vec![NONE; PLACES_MIN], ids: Vec::new(), held: 0 }
    }

    fn mask(&self) -> usize {
        self.places.len() - 1
    }

    /// Where the id belongs: Fibonacci hashing (Knuth, volume 3, 6.4) spreads consecutive ids.
    fn home(&self, id: u64) -> usize {
        let hash = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 32) as usize & self.mask()
    }

    /// The place of an id, or the free one where it would go, and the slot that stands there.
    fn place(&self, id: u64) -> Found {
        let mask = self.mask();
        let mut place = self.home(id);
        loop {
            let slot = self.places[place];
            if slot == NONE || self.ids[slot as usize] == id {
                return Found { slot, place };
            }
            place = (place + 1) & mask;
        }
    }

    pub fn find(&self, id: u64) -> Option<Found> {
        let found = self.place(id);
        (found.slot != NONE).then_some(found)
    }

    /// Adds an id; `false` if it is there already.
    #[inline]
    pub fn insert(&mut self, id: u64, slot: u32) -> bool {
        if (self.held + 1) * 3 > self.places.len() {
            self.grow();
        }
        let Found { slot: held, place } = self.place(id);
        if held != NONE {
            return false;
        }
        self.places[place] = slot;
        if self.ids.len() <= slot as usize {
            self.ids.resize(slot as usize + 1, 0);
        }
        self.ids[slot as usize] = id;
        self.held += 1;
        true
    }

    /// Takes out an id, found since the index last changed, and closes the gap, so that no search
    /// ends early.
    #[inline(always)]
    pub fn remove(&mut self, found: Found) {
        let mut gap = found.place;
        assert!(self.places[gap] == found.slot, "what is removed stands where it was found");
        self.held -= 1;
        let mask = self.mask();
        let mut place = gap;
        loop {
            place = (place + 1) & mask;
            let other = self.places[place];
            if other == NONE {
                break;
            }
            // Whoever lies at or before the gap on its way may move into it.
            let home = self.home(self.ids[other as usize]);
            if place.wrapping_sub(home) & mask >= place.wrapping_sub(gap) & mask {
                self.places[gap] = other;
                gap = place;
            }
        }
        self.places[gap] = NONE;
    }

    #[cold]
    fn grow(&mut self) {
        let places = vec![NONE; self.places.len() * 2];
        for slot in std::mem::replace(&mut self.places, places) {
            if slot != NONE {
                let place = self.place(self.ids[slot as usize]).place;
                self.places[place] = slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use plimsoll_base::{Stream, StreamKey};

    use super::*;

    #[test]
    fn behaves_like_an_ordered_map() {
        for seed in 0..50 {
            let mut s = Stream::new(StreamKey { seed, replication: 0, name: "index", entity: 0 });
            let (mut index, mut obvious) = (Index::new(), BTreeMap::new());
            let spread = [1, 7, 64, 1 << 32][seed as usize % 4];
            for step in 0..3000u32 {
                let id = s.below(u64::from(step / 20) + 40) * spread;
                if s.below(2) == 0 {
                    let is_new = index.insert(id, step);
                    assert_eq!(is_new, !obvious.contains_key(&id), "{seed} {step}");
                    obvious.entry(id).or_insert(step);
                } else {
                    let found = index.find(id);
                    assert_eq!(found.map(|found| found.slot), obvious.remove(&id), "{seed} {step}");
                    found.into_iter().for_each(|found| index.remove(found));
                }
                let other = s.below(300) * spread;
                let slot = index.find(other).map(|found| found.slot);
                assert_eq!(slot, obvious.get(&other).copied(), "{seed} {step}");
                assert_eq!(index.held, obvious.len());
            }
        }
    }
}
