//! Who holds a resource while others wait for it, integrated over time.

use plimsoll_base::Time;

/// Binary digits below the nanosecond.
pub(super) const FRACTION_BITS: u32 = 32;
/// All of a resource.
const WHOLE: u64 = 1 << FRACTION_BITS;

/// A resource (the seats, the KV memory, one engine's batch) with one row a class.
///
/// Who holds how much is constant between facts, so the part of a wait that falls on a class is
/// the difference of one running integral at the wait's two ends. The rule:
///
/// - A class's *part* is what it holds ÷ all that is held.
/// - Its *share* is its weight ÷ the weights of all classes that hold some of the resource or wait
///   for it.
/// - Of an instant of waiting the lesser of the two falls on the class *within* its share, and
///   what its part is more than its share falls on it *above* its share.
///
/// Parts and shares are rounded down to 2⁻³², and what the parts then lack goes to the class that
/// holds most, of equals to the first: they sum to the whole exactly. An instant at which nothing
/// is held is *idle*.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    rows: Vec<Row>,
    held: u64,
    waiting: u64,
    at: Time,
    /// Whether the parts are not those of what is held now.
    stale: bool,
    /// In 2⁻³² ns: within by row, above by row, idle.
    integral: Vec<u128>,
    /// What each row held while anybody waited, times nanoseconds.
    held_time: Vec<u128>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    held: u64,
    /// Requests that wait for the resource, and how many of them are measured.
    waiting: u64,
    measured: u64,
    weight: u64,
    within: u64,
    above: u64,
}

impl Holding {
    pub fn new(weights: &[u32]) -> Holding {
        let row = |&weight: &u32| Row { weight: u64::from(weight), ..Row::default() };
        Holding {
            rows: weights.iter().map(row).collect(),
            held: 0,
            waiting: 0,
            at: Time::ZERO,
            stale: true,
            integral: vec![0; 2 * weights.len() + 1],
            held_time: vec![0; weights.len()],
        }
    }

    /// The integral up to `now`: within by row, above by row, idle.
    #[inline]
    pub fn integral(&mut self, now: Time) -> &[u128] {
        self.advance(now);
        &self.integral
    }

    /// What [`integral`](Holding::integral) would be, without getting there.
    pub fn integral_at(&self, now: Time) -> Vec<u128> {
        let mut then = self.clone();
        then.advance(now);
        then.integral
    }

    /// Requests of a class that wait for it.
    #[inline]
    pub fn waiting(&self, row: usize) -> u64 {
        self.rows[row].waiting
    }

    /// What the rows of a set held while anybody waited, times nanoseconds, as of the last change.
    pub fn held_time(&self, rows: &[usize]) -> u128 {
        rows.iter().map(|&row| self.held_time[row]).sum()
    }

    /// Measured requests of a class that wait for it.
    pub fn measured(&self, row: usize) -> u64 {
        self.rows[row].measured
    }

    #[inline]
    pub fn hold(&mut self, now: Time, row: usize, amount: u64) {
        self.advance(now);
        self.rows[row].held += amount;
        self.held += amount;
        self.stale = true;
    }

    #[inline]
    pub fn release(&mut self, now: Time, row: usize, amount: u64) {
        self.advance(now);
        let held = &mut self.rows[row].held;
        *held = held.checked_sub(amount).expect("what is given back was held");
        self.held -= amount;
        self.stale = true;
    }

    /// So many requests, of which so many are measured, begin to wait for it.
    #[inline]
    pub fn wait(&mut self, now: Time, row: usize, (count, measured): (u64, u64)) {
        self.advance(now);
        self.waiting += count;
        let row = &mut self.rows[row];
        self.stale |= row.waiting == 0;
        row.waiting += count;
        row.measured += measured;
    }

    #[inline]
    pub fn stop_waiting(&mut self, now: Time, row: usize, (count, measured): (u64, u64)) {
        self.advance(now);
        let row = &mut self.rows[row];
        row.waiting = row.waiting.checked_sub(count).expect("who stops waiting has waited");
        row.measured -= measured;
        self.stale |= row.waiting == 0;
        self.waiting -= count;
    }

    #[inline]
    fn advance(&mut self, now: Time) {
        if self.at < now {
            let span = (now - self.at).nanos();
            self.at = now;
            if self.waiting > 0 {
                self.integrate(span);
            }
        }
    }

    fn integrate(&mut self, nanos: u64) {
        let nanos = u128::from(nanos);
        let rows = self.rows.len();
        if self.held == 0 {
            self.integral[2 * rows] += nanos << FRACTION_BITS;
            return;
        }
        if self.stale {
            self.divide();
        }
        let (within, above) = self.integral.split_at_mut(rows);
        let sums = within.iter_mut().zip(above).zip(&mut self.held_time);
        for (row, ((within, above), held)) in self.rows.iter().zip(sums) {
            *within += nanos * u128::from(row.within);
            *above += nanos * u128::from(row.above);
            *held += nanos * u128::from(row.held);
        }
    }

    /// Divides the whole into parts within and above the shares.
    fn divide(&mut self) {
        self.stale = false;
        let active = |row: &Row| row.held > 0 || row.waiting > 0;
        let weights = self.rows.iter().filter(|row| active(row)).map(|row| row.weight).sum::<u64>();
        let (mut left, mut most) = (WHOLE, 0);
        for index in 0..self.rows.len() {
            let held = self.rows[index].held;
            let part = fraction(held, self.held);
            left -= part;
            self.rows[index].within = part;
            if held > self.rows[most].held {
                most = index;
            }
        }
        self.rows[most].within += left;
        for row in &mut self.rows {
            let share = fraction(row.weight, weights.max(1));
            row.above = row.within.saturating_sub(share);
            row.within -= row.above;
        }
    }
}

/// `part / of` in 2⁻³², rounded down.
fn fraction(part: u64, of: u64) -> u64 {
    match part {
        0 => 0,
        part if part <= u64::from(u32::MAX) => (part << FRACTION_BITS) / of,
        part => ((u128::from(part) << FRACTION_BITS) / u128::from(of)) as u64,
    }
}
