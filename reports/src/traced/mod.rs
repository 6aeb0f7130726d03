//! What a trace of requests holds: how they arrive, how long they are, what they share, and what the
//! file does not say.
//!
//! Judge an arrival model by its dispersion at the time scale of whoever controls it, not by the
//! distribution of gaps: a renewal process can have the right gaps and a variance per minute that is
//! many times too small.

mod sharing;
mod study;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::histogram::{Histogram, rank};
use sharing::Shared;
pub use sharing::Sharing;

/// The version of the layout of `trace.json`.
pub const TRACE_VERSION: u32 = 1;

/// The time scales at which arrivals are counted, in seconds.
const SCALES: [f64; 6] = [0.1, 1.0, 10.0, 60.0, 600.0, 3600.0];
/// Fewer windows say nothing of a variance.
const WINDOWS_MIN: u64 = 10;
/// Stretches of the arrivals over time at most.
const STRETCHES: usize = 256;
/// The first width of a stretch: so that widths become whole seconds.
const WIDTH_FIRST: f64 = 1.0 / 1024.0;

/// A trace, described.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TraceDescription {
    /// The version of this layout.
    pub trace_version: u32,
    /// The version of the program.
    pub plimsoll: String,
    /// The file.
    pub file: String,
    /// What it is.
    pub format: String,
    /// Rows.
    pub rows: u64,
    /// Of these, without prompt tokens.
    pub without_prompt: u64,
    /// Of these, without output tokens.
    pub without_output: u64,
    /// From the first arrival to the last, in seconds.
    pub seconds: f64,
    /// Requests a second; null if all arrive at once.
    pub rate: Option<f64>,
    /// Arrivals at each time scale that the trace is long enough for.
    pub scales: Vec<AtScale>,
    /// Standard deviation ÷ mean of the gaps between arrivals; 1 is a Poisson process.
    pub gap_cv: Option<f64>,
    /// Prompt tokens.
    pub prompt: Lengths,
    /// Output tokens.
    pub output: Lengths,
    /// Of the logarithms of prompt and output: -1 to 1; null if one of them does not vary.
    pub correlation: Option<f64>,
    /// What prompts share; null if the rows do not say.
    pub sharing: Option<Sharing>,
    /// What the file does not say and a scenario has to.
    pub missing: Vec<Missing>,
    /// Arrivals over time.
    pub arrivals: Arrivals,
}

/// Arrivals counted in windows of one length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AtScale {
    /// The length of a window.
    pub seconds: f64,
    /// Whole windows.
    pub windows: u64,
    /// Requests a second in the busiest of them.
    pub busiest: f64,
    /// Variance ÷ mean of the counts: 1 is a Poisson process, more comes in bursts.
    pub dispersion: f64,
}

/// Lengths in tokens, of rows that have any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Lengths {
    /// Rows that have any.
    pub count: u64,
    /// Tokens of all of them.
    pub sum: u64,
    /// Null without rows.
    pub mean: Option<f64>,
    /// Percentiles, at most 0.1 % off.
    pub p10: Option<u64>,
    /// The median.
    pub p50: Option<u64>,
    /// See p10.
    pub p90: Option<u64>,
    /// See p10.
    pub p95: Option<u64>,
    /// See p10.
    pub p99: Option<u64>,
    /// The longest.
    pub max: Option<u64>,
    /// The number of rows from 1, 2, 4 … tokens to below twice as many.
    pub doublings: [u64; 32],
}

/// Something that the file does not say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Missing {
    /// What.
    pub what: String,
    /// What a replay does without it, and what to write.
    pub instead: String,
}

/// How many arrive in each stretch of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Arrivals {
    /// The length of a stretch in seconds.
    pub seconds: f64,
    /// Requests in each, from the first arrival on.
    pub counts: Vec<u64>,
}

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedRow<'a> {
    /// When it arrived; no earlier than the row before.
    pub nanos: u64,
    /// Prompt tokens.
    pub prompt_tokens: u32,
    /// Output tokens.
    pub output_tokens: u32,
    /// What its prompt begins with, block by block.
    pub blocks: Option<&'a [u64]>,
}

/// Folds the rows of a trace. Memory grows with distinct blocks of prompts alone.
pub struct TraceFold {
    first: Option<u64>,
    last: u64,
    rows: u64,
    without: [u64; 2],
    gaps: Moments,
    windows: [Windows; SCALES.len()],
    lengths: [Histogram; 2],
    doublings: [[u64; 32]; 2],
    /// Of the logarithms: prompt, output, and their product.
    logarithms: [Moments; 3],
    shared: Option<Shared>,
    counts: Vec<u64>,
    width: f64,
}

/// Count, sum and sum of squares.
#[derive(Clone, Copy, Default)]
struct Moments {
    count: u64,
    sum: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, x: f64) {
        self.count += 1;
        self.sum += x;
        self.squares += x * x;
    }
    fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }
    /// The sample variance; 0 of fewer than two.
    fn variance(&self) -> f64 {
        let freedom = self.count.saturating_sub(1).max(1) as f64;
        ((self.squares - self.sum * self.mean()) / freedom).max(0.0)
    }
}

/// Arrivals counted window by window.
#[derive(Clone, Copy, Default)]
struct Windows {
    current: u64,
    count: u64,
    done: Moments,
    most: u64,
}

impl Windows {
    /// An arrival in window `number`; those before it that are over are counted.
    fn arrive(&mut self, number: u64) {
        if number > self.current {
            self.done.add(self.count as f64);
            self.most = self.most.max(self.count);
            // Windows without an arrival.
            self.done.count += number - self.current - 1;
            (self.current, self.count) = (number, 0);
        }
        self.count += 1;
    }
}

impl TraceFold {
    /// Nothing read; `block_tokens` is the size of a block where the format states blocks.
    pub fn new(block_tokens: Option<u32>) -> TraceFold {
        TraceFold {
            first: None,
            last: 0,
            rows: 0,
            without: [0; 2],
            gaps: Moments::default(),
            windows: [Windows::default(); SCALES.len()],
            lengths: [Histogram::default(), Histogram::default()],
            doublings: [[0; 32]; 2],
            logarithms: [Moments::default(); 3],
            shared: block_tokens.map(Shared::new),
            counts: Vec::new(),
            width: WIDTH_FIRST,
        }
    }

    /// Takes a row in.
    pub fn take(&mut self, row: TracedRow<'_>) {
        self.rows += 1;
        let first = *self.first.get_or_insert(row.nanos);
        if self.rows > 1 {
            self.gaps.add((row.nanos - self.last) as f64 / 1e9);
        }
        self.last = row.nanos;
        self.arrive(row.nanos - first);
        self.measure([row.prompt_tokens, row.output_tokens]);
        if let (Some(shared), Some(blocks)) = (&mut self.shared, row.blocks) {
            shared.take(row.nanos, row.prompt_tokens, blocks);
        }
    }

    fn arrive(&mut self, nanos: u64) {
        for (windows, scale) in self.windows.iter_mut().zip(SCALES) {
            windows.arrive(nanos / (scale * 1e9) as u64);
        }
        let seconds = nanos as f64 / 1e9;
        while seconds >= self.width * STRETCHES as f64 {
            self.counts = self.counts.chunks(2).map(|pair| pair.iter().sum()).collect();
            self.width *= 2.0;
        }
        let at = (seconds / self.width) as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
    }

    fn measure(&mut self, tokens: [u32; 2]) {
        for (which, &tokens) in tokens.iter().enumerate() {
            match tokens {
                0 => self.without[which] += 1,
                some => {
                    self.lengths[which].record(some.into());
                    self.doublings[which][some.ilog2() as usize] += 1;
                }
            }
        }
        let [prompt, output] = tokens;
        if prompt > 0 && output > 0 {
            let (prompt, output) = (f64::from(prompt).ln(), f64::from(output).ln());
            self.logarithms[0].add(prompt);
            self.logarithms[1].add(output);
            self.logarithms[2].add(prompt * output);
        }
    }

    /// What the rows add up to.
    pub fn describe(self, (file, format): (&str, &str), plimsoll: &str) -> TraceDescription {
        let seconds = (self.last - self.first.unwrap_or(0)) as f64 / 1e9;
        let sharing = self.shared.as_ref().and_then(Shared::summary);
        TraceDescription {
            trace_version: TRACE_VERSION,
            plimsoll: plimsoll.to_owned(),
            file: file.to_owned(),
            format: format.to_owned(),
            rows: self.rows,
            without_prompt: self.without[0],
            without_output: self.without[1],
            seconds,
            rate: (seconds > 0.0).then(|| (self.rows - 1) as f64 / seconds),
            scales: self.scales(),
            gap_cv: (self.gaps.count > 1 && self.gaps.mean() > 0.0)
                .then(|| self.gaps.variance().sqrt() / self.gaps.mean()),
            prompt: lengths(&self.lengths[0], self.doublings[0]),
            output: lengths(&self.lengths[1], self.doublings[1]),
            correlation: self.correlation(),
            missing: missing(sharing.is_some()),
            sharing,
            arrivals: Arrivals { seconds: self.width, counts: self.counts },
        }
    }

    fn scales(&self) -> Vec<AtScale> {
        let scale = |(windows, seconds): (&Windows, f64)| {
            let mean = windows.done.mean();
            (windows.done.count >= WINDOWS_MIN && mean > 0.0).then(|| AtScale {
                seconds,
                windows: windows.done.count,
                busiest: windows.most as f64 / seconds,
                dispersion: windows.done.variance() / mean,
            })
        };
        self.windows.iter().zip(SCALES).filter_map(scale).collect()
    }

    /// Pearson's of the logarithms.
    fn correlation(&self) -> Option<f64> {
        let [prompt, output, both] = self.logarithms;
        let scale = (prompt.variance() * output.variance()).sqrt();
        let together = both.sum - prompt.sum * output.mean();
        let covariance = together / prompt.count.saturating_sub(1).max(1) as f64;
        (scale > 1e-12).then(|| (covariance / scale).clamp(-1.0, 1.0))
    }
}

fn lengths(histogram: &Histogram, doublings: [u64; 32]) -> Lengths {
    let count = histogram.count();
    let at = |p: f64| if count > 0 { histogram.at_rank(rank(p, count)) } else { None };
    Lengths {
        count,
        sum: u64::try_from(histogram.sum_whole_nanos()).unwrap_or(u64::MAX),
        mean: histogram.mean(),
        p10: at(10.0),
        p50: at(50.0),
        p90: at(90.0),
        p95: at(95.0),
        p99: at(99.0),
        max: (count > 0).then(|| histogram.max()),
        doublings,
    }
}

/// What no format that is read says, and prefixes where the rows have none.
fn missing(has_blocks: bool) -> Vec<Missing> {
    let one =
        |what: &str, instead: &str| Missing { what: what.to_owned(), instead: instead.to_owned() };
    let mut all = vec![
        one("tenants", "the workload's `tenant` pays for all; `assign` shares rows out"),
        one(
            "classes",
            "all claim the workload's `class`; `assign` tells them apart by prompt length or share",
        ),
        one(
            "what the client allows of output",
            "the row's own output, rounded up to a power of two; `output_cap` states one",
        ),
        one(
            "who gave up, and how long answers took",
            "nobody gives up; the simulation says how long answers take",
        ),
        one(
            "sessions and turns",
            "each row is a request of its own, and arrives when the trace says",
        ),
    ];
    if !has_blocks {
        all.push(one("what prompts have in common", "no prompt shares its beginning with another"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(rows: impl Iterator<Item = (u64, u32, u32)>) -> TraceDescription {
        let mut fold = TraceFold::new(None);
        for (nanos, prompt_tokens, output_tokens) in rows {
            fold.take(TracedRow { nanos, prompt_tokens, output_tokens, blocks: None });
        }
        fold.describe(("f", "g"), "0")
    }

    #[test]
    fn a_metronome_has_no_dispersion_and_bursts_have_much() {
        let even = fold((0..10_000).map(|n| (n * 100_000_000, 10, 10)));
        assert_eq!(even.rate, Some(10.0));
        for scale in &even.scales {
            assert!(scale.dispersion < 1e-9, "{scale:?}");
            assert!((scale.busiest - 10.0).abs() < 1e-9, "{scale:?}");
        }
        assert!(even.gap_cv.expect("gaps") < 1e-6);
        // A hundred at once, once a minute: variance ÷ mean of counts a second, by hand.
        let bursts = fold((0..10_000).map(|n| (n / 100 * 60_000_000_000, 10, 10)));
        let second = bursts.scales.iter().find(|scale| scale.seconds == 1.0).expect("long enough");
        // 99 bursts are over in 5,940 whole windows.
        let (windows, bursts_over) = (5_940.0, 99.0);
        let mean = bursts_over * 100.0 / windows;
        let squares = bursts_over * 100.0f64.powi(2);
        let variance = (squares - windows * mean * mean) / (windows - 1.0);
        assert!((second.dispersion - variance / mean).abs() < 1e-6, "{second:?}");
        assert_eq!(second.busiest, 100.0);
    }

    #[test]
    fn arrivals_over_time_keep_their_sum_whatever_the_length() {
        for gap in [0, 1, 1_000_000, 77_000_000_000] {
            let told = fold((0..1000).map(|n| (5 + n * gap, 1, 1)));
            assert_eq!(told.arrivals.counts.iter().sum::<u64>(), 1000, "{gap}");
            assert!(told.arrivals.counts.len() <= STRETCHES);
            let end = told.arrivals.seconds * told.arrivals.counts.len() as f64;
            assert!(end >= told.seconds, "{gap}");
        }
    }

    #[test]
    fn lengths_and_what_has_none() {
        let told = fold((1..=100).map(|n| (n, n as u32 - 1, 2 * n as u32)));
        assert_eq!((told.rows, told.without_prompt, told.without_output), (100, 1, 0));
        assert_eq!((told.prompt.count, told.prompt.sum), (99, 99 * 100 / 2));
        assert_eq!((told.prompt.p50, told.prompt.max), (Some(50), Some(99)));
        assert_eq!(told.prompt.doublings[..3], [1, 2, 4]);
        assert!(told.correlation.expect("both vary") > 0.99);
        assert_eq!(fold([(0, 5, 5)].into_iter()).correlation, None);
        assert_eq!(fold([(0, 5, 5)].into_iter()).rate, None);
    }
}
