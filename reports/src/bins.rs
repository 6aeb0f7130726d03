//! Time series in bounded memory: at most 512 bins; when they are full their width doubles and
//! neighbours merge.

use plimsoll_base::{Span, Time};

/// Bins at most.
pub const BINS: usize = 512;

/// What happened to a class within a bin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassBin {
    /// Requests that arrived.
    pub arrived: u64,
    /// Requests that the allocator let in.
    pub dispatched: u64,
    /// Requests that ended or were refused.
    pub closed: u64,
    /// Requests that finished.
    pub finished: u64,
    /// Engine time used.
    pub busy: Span,
    /// Gauges: how often they were read in this bin, and the sums of the readings.
    pub samples: u64,
    /// Sum of readings: requests waiting in the allocator.
    pub queued: u64,
    /// Sum of readings: requests waiting inside engines.
    pub engine_waiting: u64,
    /// Sum of readings: requests in batches.
    pub running: u64,
    /// The largest reading of the age of the oldest request that waited.
    pub oldest_wait: Span,
}

/// What happened to a pool within a bin, over its replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolBin {
    /// Time spent computing.
    pub busy: Span,
    /// KV tokens held, in token-milliseconds.
    pub kv_token_millis: u64,
    /// Replica time over which the two were counted.
    pub observed: Span,
    /// Gauges: how often they were read in this bin, over all replicas.
    pub samples: u64,
    /// Sum of readings: requests in the engines' own queues.
    pub waiting: u64,
    /// Sum of readings: sequences in batches.
    pub running: u64,
    /// Requests thrown out of a batch.
    pub preemptions: u64,
    /// Of `busy`, what computed tokens again: its share of the tokens computed.
    pub wasted: Span,
    /// Sum of readings: seats.
    pub seats: u64,
    /// Sum of readings: seats that stood free while requests waited for KV memory.
    pub blocked: u64,
}

/// A bin that can take in its right neighbour.
pub(crate) trait Merge: Copy + Default {
    fn merge(&mut self, later: &Self);
}

impl Merge for ClassBin {
    fn merge(&mut self, later: &ClassBin) {
        self.arrived += later.arrived;
        self.dispatched += later.dispatched;
        self.closed += later.closed;
        self.finished += later.finished;
        self.busy += later.busy;
        self.samples += later.samples;
        self.queued += later.queued;
        self.engine_waiting += later.engine_waiting;
        self.running += later.running;
        self.oldest_wait = self.oldest_wait.max(later.oldest_wait);
    }
}

impl Merge for PoolBin {
    fn merge(&mut self, later: &PoolBin) {
        self.busy += later.busy;
        self.kv_token_millis += later.kv_token_millis;
        self.observed += later.observed;
        self.samples += later.samples;
        self.waiting += later.waiting;
        self.running += later.running;
        self.preemptions += later.preemptions;
        self.wasted += later.wasted;
        self.seats += later.seats;
        self.blocked += later.blocked;
    }
}

/// The series of one replication.
#[derive(Clone, Debug)]
pub struct Series {
    width: Span,
    /// The bin that holds the latest instant, and its bounds.
    current: usize,
    current_start: Time,
    current_end: Time,
    classes: Vec<Box<[ClassBin; BINS]>>,
    pools: Vec<Box<[PoolBin; BINS]>>,
}

impl Series {
    pub(crate) fn new(width: Span, classes: usize, pools: usize) -> Series {
        Series {
            width,
            current: 0,
            current_start: Time::ZERO,
            current_end: Time::ZERO + width,
            classes: vec![Box::new([ClassBin::default(); BINS]); classes],
            pools: vec![Box::new([PoolBin::default(); BINS]); pools],
        }
    }

    /// Moves on to the bin of `now`. Call it before anything else at `now`.
    pub(crate) fn advance(&mut self, now: Time) {
        if now >= self.current_end {
            self.advance_far(now);
        }
    }

    #[cold]
    fn advance_far(&mut self, now: Time) {
        while now.nanos() / self.width.nanos() >= BINS as u64 {
            self.width = self.width + self.width;
            self.classes.iter_mut().for_each(|bins| merge_pairs(&mut **bins));
            self.pools.iter_mut().for_each(|bins| merge_pairs(&mut **bins));
        }
        self.current = self.position(now);
        self.current_start = self.start(self.current);
        self.current_end = self.start(self.current + 1);
    }

    /// The class's bin at the latest instant.
    pub(crate) fn class(&mut self, class: usize) -> &mut ClassBin {
        &mut self.classes[class][self.current % BINS]
    }
    /// The pool's bin at the latest instant.
    pub(crate) fn pool(&mut self, pool: usize) -> &mut PoolBin {
        &mut self.pools[pool][self.current % BINS]
    }

    /// Splits an amount that came about evenly between `from` and `to` over the bins between;
    /// the parts sum to the amount. `to` is the latest instant.
    pub(crate) fn spread(
        &mut self,
        (from, to): (Time, Time),
        amount: u64,
        mut put: impl FnMut(&mut Series, usize, u64),
    ) {
        if from >= self.current_start || to <= from {
            return put(self, self.current, amount);
        }
        let first = self.position(from);
        let length = u128::from((to - from).nanos());
        let mut given = 0;
        for bin in first..=self.current {
            let end = self.start(bin + 1).min(to);
            let covered = u128::from((end - from).nanos());
            let until = (u128::from(amount) * covered / length) as u64;
            put(self, bin, until - given);
            given = until;
        }
    }

    pub(crate) fn class_bin(&mut self, class: usize, bin: usize) -> &mut ClassBin {
        &mut self.classes[class][bin]
    }
    pub(crate) fn pool_bin(&mut self, pool: usize, bin: usize) -> &mut PoolBin {
        &mut self.pools[pool][bin]
    }

    fn position(&self, at: Time) -> usize {
        (at.nanos() / self.width.nanos()) as usize
    }

    /// How wide a bin is.
    pub fn width(&self) -> Span {
        self.width
    }
    /// When bin `bin` begins.
    pub fn start(&self, bin: usize) -> Time {
        Time::ZERO + self.width.saturating_mul(bin as u64)
    }
    /// The bins of a class up to the latest instant. The last class is that of requests that no
    /// rule classified.
    pub fn class_bins(&self, class: usize) -> &[ClassBin] {
        &self.classes[class][..=self.current]
    }
    /// The bins of a pool up to the latest instant.
    pub fn pool_bins(&self, pool: usize) -> &[PoolBin] {
        &self.pools[pool][..=self.current]
    }
}

fn merge_pairs<B: Merge>(bins: &mut [B]) {
    for bin in 0..BINS / 2 {
        let mut merged = bins[2 * bin];
        merged.merge(&bins[2 * bin + 1]);
        bins[bin] = merged;
    }
    bins[BINS / 2..].fill(B::default());
}

/// The width to begin with: so that a run of known length fills about half of the bins with a
/// round width, and a millisecond where the length is unknown.
pub(crate) fn first_width(duration: Option<Span>) -> Span {
    let Some(duration) = duration else {
        return Span::from_millis(1);
    };
    let wanted = duration.nanos() / (BINS as u64 / 2);
    let mut decade = Span::from_millis(1).nanos();
    loop {
        for factor in [1, 2, 5] {
            if decade * factor >= wanted {
                return Span::from_nanos(decade * factor);
            }
        }
        decade *= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_keeps_every_count() {
        let mut series = Series::new(Span::from_millis(1), 1, 1);
        for second in 0..5_000u64 {
            let now = Time::ZERO + Span::from_secs(second);
            series.advance(now);
            series.class(0).arrived += 1;
            let from = Time::from_nanos(now.nanos().saturating_sub(1_000_000_000));
            series.spread((from, now), 1_000_003, |series, bin, part| {
                series.pool_bin(0, bin).kv_token_millis += part;
            });
        }
        let bins = series.class_bins(0);
        assert!(bins.len() > BINS / 2 && bins.len() <= BINS);
        assert_eq!(bins.iter().map(|bin| bin.arrived).sum::<u64>(), 5_000);
        let kv: u64 = series.pool_bins(0).iter().map(|bin| bin.kv_token_millis).sum();
        assert_eq!(kv, 5_000 * 1_000_003);
        let whole = series.width().secs_f64().floor() as u64;
        assert!(bins[..bins.len() - 1].iter().all(|bin| bin.arrived.abs_diff(whole) <= 1));
    }

    #[test]
    fn an_even_flow_is_spread_evenly() {
        let mut series = Series::new(Span::from_secs(1), 1, 1);
        let to = Time::ZERO + Span::from_millis(3_500);
        series.advance(to);
        series.spread((Time::ZERO + Span::from_millis(500), to), 300, |series, bin, part| {
            series.class_bin(0, bin).busy += Span::from_nanos(part);
        });
        let parts: Vec<u64> = series.class_bins(0).iter().map(|bin| bin.busy.nanos()).collect();
        assert_eq!(parts, [50, 100, 100, 50]);
    }

    #[test]
    fn widths_are_round() {
        for (secs, millis) in [(600, 5_000), (3_600, 20_000), (1, 5), (86_400, 500_000)] {
            assert_eq!(first_width(Some(Span::from_secs(secs))), Span::from_millis(millis));
        }
    }
}
