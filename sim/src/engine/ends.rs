//! Who ends next: a wheel with a spoke a step, as in the timing wheels of Varghese and Lauck (SOSP
//! 1987). Taking in and taking out cost the same however many there are.

/// Spokes of the wheel. Whoever ends more steps ahead stays on its spoke for several rounds.
const SPOKES: usize = 1024;
const WORD: usize = u64::BITS as usize;
const WORDS: usize = SPOKES / WORD;
/// No slot.
const NONE: u32 = u32::MAX;

/// The steps after which slots end.
#[derive(Debug)]
pub(super) struct Ends {
    /// The first slot on each spoke.
    firsts: Box<[u32; SPOKES]>,
    /// A bit a spoke: whether a slot is on it.
    taken: [u64; WORDS],
    /// Indexed by slot.
    places: Vec<Place>,
    len: u32,
    next: u64,
}

/// The end of a slot, [`u64::MAX`] if it is free, and who is behind it on its spoke: later comers.
#[derive(Clone, Copy, Debug)]
struct Place {
    end: u64,
    behind: u32,
}

const FREE: Place = Place { end: u64::MAX, behind: NONE };

fn spoke(end: u64) -> usize {
    end as usize % SPOKES
}

impl Ends {
    pub fn new() -> Ends {
        Ends {
            firsts: Box::new([NONE; SPOKES]),
            taken: [0; WORDS],
            places: Vec::new(),
            len: 0,
            next: u64::MAX,
        }
    }
    pub fn len(&self) -> u32 {
        self.len
    }
    /// The earliest end; [`u64::MAX`] if there is none.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// A slot ends after this step, which has not come yet. Of equal ends the first to come in goes
    /// first.
    #[inline(always)]
    pub fn insert(&mut self, slot: u16, end: u64) {
        let slot = u32::from(slot);
        match self.places.get_mut(slot as usize) {
            Some(place) => *place = Place { end, behind: NONE },
            None => self.grow(slot, end),
        }
        self.len += 1;
        self.next = self.next.min(end);
        let spoke = spoke(end);
        match self.firsts[spoke] {
            NONE => {
                self.firsts[spoke] = slot;
                self.taken[spoke / WORD] |= 1 << (spoke % WORD);
            }
            first => self.line_up(first, slot),
        }
    }
    #[cold]
    fn grow(&mut self, slot: u32, end: u64) {
        self.places.resize(slot as usize + 1, FREE);
        self.places[slot as usize].end = end;
    }
    fn line_up(&mut self, first: u32, slot: u32) {
        let mut last = first;
        while self.places[last as usize].behind != NONE {
            last = self.places[last as usize].behind;
        }
        self.places[last as usize].behind = slot;
    }

    /// Takes out the first to come in of those who end after this step, the earliest end.
    #[inline(always)]
    pub fn take(&mut self, step: u64) -> Option<u16> {
        if self.next != step {
            return None;
        }
        let mut slot = self.firsts[spoke(step)];
        while self.places[slot as usize].end != step {
            slot = self.places[slot as usize].behind;
        }
        self.remove(slot as u16);
        Some(slot as u16)
    }

    /// Takes out a slot.
    pub fn remove(&mut self, slot: u16) {
        let slot = u32::from(slot);
        let Place { end, behind } = std::mem::replace(&mut self.places[slot as usize], FREE);
        let spoke = spoke(end);
        let first = self.firsts[spoke];
        if first != slot {
            let mut before = first;
            while self.places[before as usize].behind != slot {
                before = self.places[before as usize].behind;
            }
            self.places[before as usize].behind = behind;
        } else {
            self.firsts[spoke] = behind;
            if behind == NONE {
                self.taken[spoke / WORD] &= !(1 << (spoke % WORD));
            }
        }
        self.len -= 1;
        if end == self.next {
            self.next = self.find(end);
        }
    }

    /// The earliest end, which is not before `from`.
    fn find(&self, from: u64) -> u64 {
        // To the end of the first word, over the others, and back to the beginning of the first.
        let start = from - from % WORD as u64;
        for base in (start..).step_by(WORD).take(WORDS + 1) {
            let mut word = self.taken[spoke(base) / WORD];
            if base == start {
                word &= u64::MAX << (from % WORD as u64);
            }
            while word != 0 {
                let end = base + u64::from(word.trailing_zeros());
                if self.ends_at(end) {
                    return end;
                }
                word &= word - 1;
            }
        }
        // None within a round, or none at all.
        self.places.iter().map(|place| place.end).min().unwrap_or(u64::MAX)
    }

    fn ends_at(&self, end: u64) -> bool {
        let mut slot = self.firsts[spoke(end)];
        while slot != NONE && self.places[slot as usize].end != end {
            slot = self.places[slot as usize].behind;
        }
        slot != NONE
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_base::{Stream, StreamKey};

    use super::*;

    #[test]
    fn behaves_like_a_sorted_list() {
        for seed in 0..60 {
            let mut s = Stream::new(StreamKey { seed, replication: 0, name: "ends", entity: 0 });
            // Ends close by, many of them equal; and ends many rounds ahead.
            let spread = [8, 300, 5_000, 100_000][seed as usize % 4];
            let (mut ends, mut sorted) = (Ends::new(), Vec::<(u64, u64, u16)>::new());
            let mut free: Vec<u16> = (0..64).collect();
            let mut step = s.below(10_000);
            for entry in 0..3_000 {
                match s.below(5) {
                    0..3 if !free.is_empty() => {
                        let slot = free.swap_remove(s.below(free.len() as u64) as usize);
                        let end = step + 1 + s.below(spread);
                        ends.insert(slot, end);
                        sorted.push((end, entry, slot));
                        sorted.sort_unstable();
                    }
                    3 if !sorted.is_empty() => {
                        let gone = s.below(sorted.len() as u64) as usize;
                        let (_, _, slot) = sorted.remove(gone);
                        ends.remove(slot);
                        free.push(slot);
                    }
                    _ if !sorted.is_empty() => {
                        step = sorted[0].0;
                        while sorted.first().is_some_and(|first| first.0 == step) {
                            let (_, _, slot) = sorted.remove(0);
                            assert_eq!(ends.take(step), Some(slot), "{seed} {entry}");
                            free.push(slot);
                        }
                        assert_eq!(ends.take(step), None, "{seed} {entry}");
                    }
                    _ => {}
                }
                let next = sorted.first().map_or(u64::MAX, |first| first.0);
                assert_eq!(
                    (ends.next(), ends.len() as usize),
                    (next, sorted.len()),
                    "{seed} {entry}"
                );
            }
        }
    }
}
