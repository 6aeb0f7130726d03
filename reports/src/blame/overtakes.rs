//! Overtakes: how many requests that came later, and are no more important, were let in before a
//! request was.

use plimsoll_base::RequestId;

/// Places of those that left are cleared away when they outnumber those that wait by this.
const SPARE: usize = 32;

/// Those that wait in the allocator, by priority. A dispatch and a departure cost the logarithm of
/// how many wait, once for each priority that is not below; memory follows how many wait.
#[derive(Clone, Debug)]
pub(super) struct Overtakes {
    /// The least important first.
    levels: Vec<Level>,
    /// The level of each class row.
    level_of: Vec<usize>,
}

/// Those of one priority, in order of arrival.
///
/// A dispatch passes everybody who came before: a front part of the places. It is counted at the
/// last place of that part, in a Fenwick tree; how often a place was passed is then the sum from
/// it to the end.
#[derive(Clone, Debug, Default)]
struct Level {
    places: Vec<Place>,
    /// Node `n` (from 1) holds the sum of the places `n - (n & -n) + 1 ..= n`.
    tree: Vec<u64>,
    all: u64,
    waiting: usize,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    id: RequestId,
    waits: bool,
}

impl Overtakes {
    /// For class rows of these priorities.
    pub fn new(priorities: &[i32]) -> Overtakes {
        let mut distinct = priorities.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let level_of = |priority: &i32| distinct.partition_point(|other| other < priority);
        Overtakes {
            level_of: priorities.iter().map(level_of).collect(),
            levels: vec![Level::default(); distinct.len()],
        }
    }

    /// A request begins to wait; it came after all that wait already.
    pub fn wait(&mut self, row: usize, id: RequestId) {
        self.levels[self.level_of[row]].push(id);
    }

    /// A request waits no more. Returns how often it was overtaken.
    pub fn leave(&mut self, row: usize, id: RequestId) -> u64 {
        self.levels[self.level_of[row]].remove(id)
    }

    /// A request was let in, past all who came before it and are no less important.
    #[inline]
    pub fn pass(&mut self, row: usize, id: RequestId) {
        for level in &mut self.levels[self.level_of[row]..] {
            if level.waiting > 0 {
                level.pass(id);
            }
        }
    }
}

impl Level {
    fn push(&mut self, id: RequestId) {
        self.waiting += 1;
        if self.places.last().is_some_and(|last| last.id > id) {
            return self.push_between(id);
        }
        self.places.push(Place { id, waits: true });
        self.append(0);
    }

    /// Takes in a request whose number is not the highest: numbers are given a moment before
    /// requests arrive, and one allocator takes over from another. It counts as passed as often as
    /// the one behind it.
    #[cold]
    fn push_between(&mut self, id: RequestId) {
        let at = self.places.partition_point(|place| place.id < id);
        let mut passed: Vec<u64> = (0..self.places.len()).map(|place| self.passed(place)).collect();
        passed.insert(at, passed[at]);
        self.places.insert(at, Place { id, waits: true });
        self.rebuild(&passed);
    }

    /// Adds the node of the last place, which was passed so often beside those behind it.
    fn append(&mut self, own: u64) {
        let node = self.tree.len() + 1;
        let lowest = node & node.wrapping_neg();
        let below = std::iter::successors(Some(1), |step| Some(step << 1));
        let below = below.take_while(|&step| step < lowest).map(|step| self.tree[node - step - 1]);
        self.tree.push(own + below.sum::<u64>());
    }

    fn pass(&mut self, id: RequestId) {
        let passed = match self.places.last() {
            Some(last) if last.id < id => self.places.len(),
            Some(_) | None => self.places.partition_point(|place| place.id < id),
        };
        if passed == 0 {
            return;
        }
        self.all += 1;
        let mut node = passed;
        while node <= self.tree.len() {
            self.tree[node - 1] += 1;
            node += node & node.wrapping_neg();
        }
    }

    /// How often the request at a place was passed.
    fn passed(&self, place: usize) -> u64 {
        let (mut node, mut before) = (place, 0);
        while node > 0 {
            before += self.tree[node - 1];
            node &= node - 1;
        }
        self.all - before
    }

    fn remove(&mut self, id: RequestId) -> u64 {
        let found = self.places.binary_search_by_key(&id, |place| place.id);
        let at = found.expect("who leaves the queue stood in it");
        let passed = self.passed(at);
        self.places[at].waits = false;
        self.waiting -= 1;
        if self.places.len() > 2 * self.waiting + SPARE {
            self.clear_away();
        }
        passed
    }

    /// Forgets the places of those that left.
    fn clear_away(&mut self) {
        let waiting = (0..self.places.len()).filter(|&place| self.places[place].waits);
        let passed: Vec<u64> = waiting.map(|place| self.passed(place)).collect();
        self.places.retain(|place| place.waits);
        self.rebuild(&passed);
    }

    fn rebuild(&mut self, passed: &[u64]) {
        self.tree.clear();
        self.all = passed.first().copied().unwrap_or(0);
        for (place, &own) in passed.iter().enumerate() {
            self.append(own - passed.get(place + 1).copied().unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_base::{Stream, StreamKey};

    #[test]
    fn it_counts_what_a_look_at_everybody_counts() {
        const PRIORITIES: [i32; 4] = [3, -1, 3, 0];
        for seed in 0..50 {
            let key = StreamKey { seed, replication: 0, name: "overtakes", entity: 0 };
            let mut stream = Stream::new(key);
            let mut overtakes = Overtakes::new(&PRIORITIES);
            // (row, number, overtaken)
            let mut waiting: Vec<(usize, u64, u64)> = Vec::new();
            let (mut total, mut places_max, mut waiting_max) = (0, 0, 0);
            for number in 0..4_000 {
                // It fills, and then runs empty.
                let row = stream.below(4) as usize;
                overtakes.wait(row, RequestId(number));
                waiting.push((row, number, 0));
                let leaving = if number % 400 < 200 { stream.below(2) } else { stream.below(4) };
                for _ in 0..leaving.min(waiting.len() as u64) {
                    let at = match stream.below(3) {
                        0 => 0,
                        _ => stream.below(waiting.len() as u64) as usize,
                    };
                    let (row, number, expected) = waiting.remove(at);
                    assert_eq!(overtakes.leave(row, RequestId(number)), expected, "seed {seed}");
                    total += expected;
                    if stream.below(5) == 0 {
                        continue;
                    }
                    overtakes.pass(row, RequestId(number));
                    for (other, earlier, overtaken) in &mut waiting {
                        let no_higher = PRIORITIES[row] <= PRIORITIES[*other];
                        *overtaken += u64::from(*earlier < number && no_higher);
                    }
                }
                let places: usize = overtakes.levels.iter().map(|level| level.places.len()).sum();
                places_max = places_max.max(places);
                waiting_max = waiting_max.max(waiting.len());
            }
            assert!(total > 10_000, "{total}");
            assert!(places_max <= 2 * waiting_max + 3 * (SPARE + 1), "{places_max} {waiting_max}");
        }
    }
}
