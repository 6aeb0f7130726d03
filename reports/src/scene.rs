//! What only the page shows of measured requests: how long they are, their latency over time, the
//! slowest of them. In memory that does not grow with the run.

use plimsoll_base::{Outcome, RequestRecord, Span, Time};

use crate::histogram::Histogram;

/// Slowest requests kept of a class.
pub(crate) const SLOWEST_MAX: usize = 5;

/// One class.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene {
    /// Prompt tokens of all that were offered, refused ones included.
    pub prompts: Histogram,
    /// Output tokens of those that finished.
    pub outputs: Histogram,
    /// By arrival.
    pub heat: Heat,
    /// Those that were longest without a first token, the longest first.
    pub slowest: Vec<RequestRecord>,
}

/// Until the first token; until the close where none came.
pub(crate) fn unserved(record: &RequestRecord) -> Span {
    record.ttft().unwrap_or_else(|| record.e2e())
}

impl Scene {
    /// A measured request has closed.
    #[inline(always)]
    pub fn close(&mut self, record: &RequestRecord) {
        self.prompts.record(u64::from(record.prompt_tokens));
        if let Outcome::Refused(_) = record.outcome {
            return;
        }
        if record.finished() {
            self.outputs.record(u64::from(record.output_tokens));
        }
        let span = unserved(record);
        self.heat.record(record.arrived, span);
        let full = self.slowest.len() == SLOWEST_MAX;
        if !full || self.slowest.last().is_some_and(|last| unserved(last) < span) {
            self.keep(record, span);
        }
    }

    #[cold]
    fn keep(&mut self, record: &RequestRecord, span: Span) {
        let place = self.slowest.partition_point(|other| unserved(other) >= span);
        self.slowest.insert(place, *record);
        self.slowest.truncate(SLOWEST_MAX);
    }
}

/// How many requests of each stretch of arrivals took how long. Stretches are a power of two of
/// nanoseconds and double when they become too many, lengths go by four an octave.
#[derive(Clone, Debug)]
pub(crate) struct Heat {
    shift: u32,
    columns: Vec<Vec<u32>>,
}

impl Default for Heat {
    fn default() -> Heat {
        // A millisecond.
        Heat { shift: 20, columns: Vec::new() }
    }
}

impl Heat {
    const COLUMNS_MAX: usize = 128;
    /// The shortest length that is told from shorter ones, as a power of two of nanoseconds, and
    /// how many lengths are told: from 131 µs to 9.8 h.
    const FIRST: usize = 17;
    const ROWS: usize = 112;

    #[inline]
    fn record(&mut self, arrived: Time, span: Span) {
        let column = (arrived.nanos() >> self.shift) as usize;
        match self.columns.get_mut(column) {
            Some(rows) if !rows.is_empty() => rows[Heat::row(span)] += 1,
            Some(_) | None => self.record_first(arrived, span),
        }
    }

    #[cold]
    fn record_first(&mut self, arrived: Time, span: Span) {
        while (arrived.nanos() >> self.shift) as usize >= Heat::COLUMNS_MAX {
            self.double();
        }
        let column = (arrived.nanos() >> self.shift) as usize;
        if column >= self.columns.len() {
            self.columns.resize(column + 1, Vec::new());
        }
        if self.columns[column].is_empty() {
            self.columns[column] = vec![0; Heat::ROWS];
        }
        self.columns[column][Heat::row(span)] += 1;
    }

    fn double(&mut self) {
        self.shift += 1;
        let mut halves = std::mem::take(&mut self.columns).into_iter();
        while let Some(mut first) = halves.next() {
            let second = halves.next().unwrap_or_default();
            if first.is_empty() {
                first = second;
            } else {
                first.iter_mut().zip(second).for_each(|(into, count)| *into += count);
            }
            self.columns.push(first);
        }
    }

    #[inline]
    fn row(span: Span) -> usize {
        let nanos = span.nanos() | 1 << 2;
        let octave = 63 - nanos.leading_zeros() as usize;
        let quarter = (nanos >> (octave - 2) & 3) as usize;
        (4 * octave + quarter).saturating_sub(4 * Heat::FIRST).min(Heat::ROWS - 1)
    }

    /// The shortest length of a row, in seconds.
    pub fn length(row: usize) -> f64 {
        let octave = (1u64 << (Heat::FIRST + row / 4)) as f64;
        octave * (1.0 + (row % 4) as f64 / 4.0) / 1e9
    }
    /// How many stretches there are.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }
    /// How many lengths are told apart.
    pub const fn column_rows(&self) -> usize {
        Heat::ROWS
    }
    /// When a stretch begins, in seconds.
    pub fn start(&self, column: usize) -> f64 {
        ((column as u64) << self.shift) as f64 / 1e9
    }
    /// Requests of a stretch by length; empty where there is none.
    pub fn column(&self, column: usize) -> &[u32] {
        &self.columns[column]
    }
    /// How long the given part of the requests of a stretch took at most, in seconds: the middle of
    /// its row, at most a ninth off.
    pub fn quantile(&self, column: usize, part: f64) -> Option<f64> {
        let rows = self.column(column);
        let all: u32 = rows.iter().sum();
        let rank = (f64::from(all) * part).ceil().max(1.0);
        let mut seen = 0.0;
        let row = rows.iter().position(|&count| {
            seen += f64::from(count);
            seen >= rank
        });
        (all > 0).then(|| {
            let row = row.expect("the rank is at most all");
            (Heat::length(row) + Heat::length(row + 1)) / 2.0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_base::{End, RequestId};

    #[test]
    fn a_length_stands_in_the_row_that_begins_below_it() {
        for millis in [1u64, 3, 17, 400, 9_999, 3_600_000] {
            let row = Heat::row(Span::from_millis(millis));
            let seconds = millis as f64 / 1e3;
            assert!(Heat::length(row) <= seconds && seconds < Heat::length(row + 1), "{millis}");
        }
        assert_eq!(Heat::row(Span::ZERO), 0);
        assert_eq!(Heat::row(Span::from_secs(1_000_000)), Heat::ROWS - 1);
    }

    #[test]
    fn doubling_keeps_every_request_and_the_slowest_are_the_slowest() {
        let mut scene = Scene::default();
        for number in 0..10_000u64 {
            let arrived = Time::ZERO + Span::from_millis(number * 700);
            let mut record = RequestRecord::new(RequestId(number), arrived);
            record.outcome = Outcome::Ended(End::Finished);
            record.prompt_tokens = 10;
            record.output_tokens = 2;
            record.first_token = Some(arrived + Span::from_millis(1 + number * 7_919 % 10_007));
            record.closed = arrived + Span::from_secs(20);
            scene.close(&record);
        }
        let heat = &scene.heat;
        assert!(heat.columns() > Heat::COLUMNS_MAX / 2 && heat.columns() <= Heat::COLUMNS_MAX);
        let all: u32 = (0..heat.columns()).flat_map(|column| heat.column(column)).sum();
        assert_eq!(all, 10_000);
        let spans: Vec<u64> = scene.slowest.iter().map(|r| unserved(r).nanos()).collect();
        let expected = [10_007, 10_006, 10_005, 10_004, 10_003].map(|ms| ms * 1_000_000);
        assert!(
            spans.iter().zip(expected).all(|(got, most)| *got <= most && *got > most - 4_000_000)
        );
        assert!(spans.is_sorted_by(|a, b| a >= b) && spans.len() == SLOWEST_MAX);
        let median = heat.quantile(heat.columns() / 2, 0.5).expect("requests arrived then");
        assert!((4.0..7.0).contains(&median), "{median}");
        assert_eq!((scene.prompts.count(), scene.outputs.max()), (10_000, 2));
    }
}
