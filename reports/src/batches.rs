//! One long run cut into batches: how long it warms up, and how sure its means are.

use plimsoll_base::{ClassId, Fact, Names, Observer, RequestRecord, Span, Time};

use crate::estimate::tidy;
use crate::interval::student_t;
use crate::summary::{BatchMean, WarmUpCheck};

/// Batches kept at most; then two become one.
const KEPT: usize = 2_048;
/// Requests in the smallest batch, the five of MSER-5.
const FIRST: u32 = 5;
/// Batches that means are taken over.
const MEANS: usize = 32;
/// Fewer requests a batch say nothing.
const BATCH_MIN: u64 = 50;

/// End-to-end latencies of the finished requests of each class in batches of equal size, in the
/// order in which they finish. Memory does not grow with the run.
#[derive(Clone, Debug)]
pub struct Batches {
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    size: u32,
    whole: Vec<Batch>,
    open: Batch,
    count: u32,
}

/// Latencies added up, and the arrival of the latest of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Batch {
    nanos: u128,
    until: Time,
}

impl Batches {
    /// Nothing yet, for so many classes.
    pub fn new(classes: usize) -> Batches {
        let row = Row { size: FIRST, whole: Vec::new(), open: Batch::default(), count: 0 };
        Batches { rows: vec![row; classes] }
    }

    fn count(&mut self, record: &RequestRecord) {
        let row = record.class.map(ClassId::index).and_then(|row| self.rows.get_mut(row));
        if let Some(row) = row.filter(|_| record.finished()) {
            row.add(record.e2e(), record.arrived);
        }
    }

    /// How much to cut off the beginning, a class, by MSER-5: where the mean of what is left is
    /// surest. At most half of the run is cut; `None` with fewer than 20 batches.
    ///
    /// Source: K. P. White, "An Effective Truncation Heuristic for Bias Reduction in Simulation
    /// Output", Simulation 69 (1997); K. P. White, M. J. Cobb, S. C. Spratt, WSC 2000.
    pub fn mser5(&self) -> Vec<Option<Span>> {
        self.rows.iter().map(|row| mser(&row.whole)).collect()
    }

    /// The mean end-to-end latency of each class after the warm-up, with the interval of batch
    /// means or the words why there is none.
    pub fn means(&self, names: &Names, warm_up: Span) -> Vec<BatchMean> {
        let rows = self.rows.iter().zip(&names.classes);
        rows.map(|(row, name)| row.mean(name, Time::ZERO + warm_up)).collect()
    }
}

impl Row {
    fn add(&mut self, span: Span, arrived: Time) {
        self.open.nanos += u128::from(span.nanos());
        self.open.until = self.open.until.max(arrived);
        self.count += 1;
        if self.count == self.size {
            self.whole.push(std::mem::take(&mut self.open));
            self.count = 0;
            if self.whole.len() == KEPT {
                self.whole = pairs(&self.whole);
                self.size *= 2;
            }
        }
    }

    fn mean(&self, class: &str, from: Time) -> BatchMean {
        let measured: Vec<Batch> =
            self.whole.iter().copied().filter(|batch| batch.until >= from).collect();
        let each = measured.len() / MEANS;
        let requests = each as u64 * u64::from(self.size);
        let mut mean = BatchMean { class: class.to_owned(), batches: 0, ..BatchMean::default() };
        if requests < BATCH_MIN {
            mean.note =
                Some(format!("no interval: {MEANS} batches of {BATCH_MIN} requests are the least"));
            return mean;
        }
        // The oldest that do not fill a batch are left out, as if they warmed up.
        let measured = &measured[measured.len() - each * MEANS..];
        let seconds = |part: &[Batch]| {
            part.iter().map(|batch| batch.nanos).sum::<u128>() as f64 / 1e9 / requests as f64
        };
        let values: Vec<f64> = measured.chunks(each).map(seconds).collect();
        mean.batches = MEANS as u32;
        mean.requests_a_batch = requests;
        mean.e2e_mean_s = Some(tidy(values.iter().sum::<f64>() / MEANS as f64));
        let lag = autocorrelation(&values);
        mean.autocorrelation = Some(tidy(lag));
        // Two standard errors of the estimate for independent batches.
        match lag > 2.0 / (MEANS as f64).sqrt() {
            true => {
                mean.note = Some(format!(
                    "no interval: neighbouring batches are alike (correlation {lag:.2}); the trace \
                     is too short for its memory"
                ));
            }
            false => mean.interval = student_t(&values).map(|interval| interval.map(tidy)),
        }
        mean
    }
}

/// Two neighbours become one; a last one without neighbour stays behind.
fn pairs(batches: &[Batch]) -> Vec<Batch> {
    let join = |pair: &[Batch]| Batch {
        nanos: pair[0].nanos + pair[1].nanos,
        until: pair[0].until.max(pair[1].until),
    };
    batches.chunks_exact(2).map(join).collect()
}

/// Of neighbouring values.
fn autocorrelation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    let products: f64 = values.windows(2).map(|x| (x[0] - mean) * (x[1] - mean)).sum();
    if squares > 0.0 { products / squares } else { 0.0 }
}

fn mser(batches: &[Batch]) -> Option<Span> {
    let count = batches.len();
    if count < 20 {
        return None;
    }
    // The sum of squares around the mean of what is left, from the end to the beginning.
    let (mut sum, mut squares, mut best) = (0.0, 0.0, (f64::INFINITY, 0));
    for (cut, batch) in batches.iter().enumerate().rev() {
        let value = batch.nanos as f64;
        sum += value;
        squares += value * value;
        let left = (count - cut) as f64;
        if cut <= count / 2 {
            let statistic = (squares - sum * sum / left) / (left * left);
            if statistic <= best.0 {
                best = (statistic, cut);
            }
        }
    }
    Some(match best.1 {
        0 => Span::ZERO,
        cut => batches[cut - 1].until - Time::ZERO,
    })
}

/// What MSER-5 says of the stated warm-up, over all replications: the median of what each would
/// cut, of the class that would cut most.
pub fn warm_up_check(batches: &[Batches], names: &Names, stated: Span) -> WarmUpCheck {
    let rows = batches.first().map_or(0, |batches| batches.rows.len());
    let cuts: Vec<Vec<Option<Span>>> = batches.iter().map(Batches::mser5).collect();
    let median = |row: usize| {
        let mut own: Vec<Span> = cuts.iter().filter_map(|cuts| cuts[row]).collect();
        own.sort_unstable();
        (own.len() * 2 > batches.len()).then(|| own[own.len() / 2])
    };
    let longest = (0..rows).filter_map(|row| Some((median(row)?, row))).max();
    let note = match longest {
        None => "too few requests to tell how long the system warms up".to_owned(),
        Some((cut, row)) => {
            let name = names.classes.get(row).map_or("", String::as_str);
            let enough = match cut <= stated {
                true => format!("the stated warm-up of {stated} covers it"),
                false => format!(
                    "that is more than the stated warm-up of {stated}: set run.warm_up, unless the \
                     load itself changes with time"
                ),
            };
            format!("MSER-5 would cut {cut} ({name}); {enough}")
        }
    };
    WarmUpCheck {
        stated_s: stated.secs_f64(),
        mser5_s: longest.map(|(cut, _)| tidy(cut.secs_f64())),
        note,
    }
}

impl Observer for Batches {
    fn observe(&mut self, _: Time, fact: &Fact) {
        if let Fact::Closed(record) = fact {
            self.count(record);
        }
    }
    fn close(&mut self, _: Time, record: &RequestRecord) {
        self.count(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(spans: impl Iterator<Item = u64>) -> Row {
        let mut row = Batches::new(1).rows.remove(0);
        for (index, millis) in spans.enumerate() {
            row.add(Span::from_millis(millis), Time::from_nanos(index as u64 * 1_000_000_000));
        }
        row
    }

    #[test]
    fn mser_cuts_the_transient_and_nothing_of_a_steady_state() {
        let noise = |index: u64| (index * 7_919) % 100;
        let cut = |spans: &dyn Fn(u64) -> u64| mser(&row((0..2_000).map(spans)).whole);
        let seconds = |cut: Option<Span>| cut.expect("there are enough").secs_f64();
        assert!(seconds(cut(&|index| 1_000 + noise(index))) < 60.0);
        let warming = |index: u64| 1_000 + noise(index) + 5_000u64.saturating_sub(index * 20);
        let cut = seconds(cut(&warming));
        assert!((200.0..320.0).contains(&cut), "the slope ends after 250 requests, cut {cut}");
        assert_eq!(mser(&row(0..50).whole), None);
    }

    #[test]
    fn batches_double_and_lose_nothing() {
        let row = row(0..5 * 2_048 + 20);
        assert_eq!((row.size, row.whole.len(), row.count), (10, 1_024 + 2, 0));
        let sum: u128 = row.whole.iter().map(|batch| batch.nanos).sum();
        let all = 5 * 2_048 + 20;
        assert_eq!(sum, (all * (all - 1) / 2) * 1_000_000);
    }

    #[test]
    fn batch_means_say_why_they_have_no_interval() {
        let check = |row: Row, expected: Option<&str>| {
            let mean = row.mean("chat", Time::ZERO);
            match expected {
                None => assert!(mean.interval.is_some() && mean.note.is_none(), "{mean:?}"),
                Some(words) => {
                    assert!(
                        mean.note.as_ref().is_some_and(|note| note.contains(words)),
                        "{mean:?}"
                    );
                    assert!(mean.interval.is_none());
                }
            }
        };
        check(row((0..5_000).map(|index| (index * 7_919) % 1_000)), None);
        check(row((0..5_000).map(|index| index / 10)), Some("alike"));
        check(row(0..1_000), Some("the least"));
    }
}
