//! What an engine counts: integers only, so that any division of the same steps into segments
//! gives the same counts.

use plimsoll_base::{BackendSample, ClassId, Span, Ticks};

use super::clock::Series;

/// Counters since the run began.
#[derive(Debug)]
pub struct Meter {
    busy: u128,
    steps: u64,
    prefill_tokens: u64,
    output_tokens: u64,
    recomputed_tokens: u64,
    preemptions: u64,
    /// KV tokens held, integrated: token-ticks.
    held: u128,
    by_class: Vec<u128>,
    /// Time of steps whose division among the decoding sequences is still to come.
    shared: u64,
}

/// A prompt chunk of the step, for the division of its time.
#[derive(Clone, Copy, Debug)]
pub struct ChunkShare {
    /// Whose.
    pub class: ClassId,
    /// Tokens computed.
    pub tokens: u32,
}

impl Meter {
    /// All zero, for this many classes.
    pub fn new(classes: usize) -> Meter {
        Meter {
            busy: 0,
            steps: 0,
            prefill_tokens: 0,
            output_tokens: 0,
            recomputed_tokens: 0,
            preemptions: 0,
            held: 0,
            by_class: vec![0; classes],
            shared: 0,
        }
    }

    /// Counts `steps` steps of the given durations, `span` in sum, with `sequences` decoding
    /// sequences and `held` KV tokens at the end of the first; each step adds `sequences` to what
    /// is held.
    #[inline(always)]
    pub fn count_steps(
        &mut self,
        (steps, series, span): (u64, Series, u64),
        sequences: u64,
        held: u64,
    ) {
        self.busy += u128::from(span);
        self.steps += steps;
        self.output_tokens += steps * sequences;
        self.shared += span;
        // Σ (held + n·i)(first + inc·i) for i in 0..k, with Σi = k(k-1)/2, Σi² = (k-1)k(2k-1)/6.
        let wide = u128::from;
        self.held += wide(held) * wide(span);
        if steps > 1 {
            // A segment has at most 2²⁰ steps, so both sums fit 64 bits.
            let pairs = steps * (steps - 1) / 2;
            let squares = pairs * (2 * steps - 1) / 3;
            let weighted =
                wide(series.first) * wide(pairs) + wide(series.increment) * wide(squares);
            self.held += wide(sequences) * weighted;
        }
    }

    /// Moves the part of the latest step that prompt chunks caused from the shared time to the
    /// chunks' classes, by their tokens, the remainder to the first.
    #[inline(always)]
    pub fn attribute_prefill(
        &mut self,
        part: u64,
        mut chunks: impl Iterator<Item = ChunkShare> + Clone,
    ) {
        let first = chunks.next().expect("prompt chunks cause the prefill part");
        let others: u64 = chunks.clone().map(|chunk| u64::from(chunk.tokens)).sum();
        let tokens = u64::from(first.tokens) + others;
        let mut left = part;
        for chunk in chunks {
            let share = u128::from(part) * u128::from(chunk.tokens) / u128::from(tokens);
            self.by_class[chunk.class.index()] += share;
            left -= u64::try_from(share).expect("a share is part of the whole");
        }
        self.by_class[first.class.index()] += u128::from(left);
        self.shared -= part;
        self.prefill_tokens += tokens;
    }

    /// Divides the shared time among the decoding sequences in equal parts; to be called before
    /// their number changes. The remainder goes to the first class present.
    #[inline(always)]
    pub fn divide_shared(&mut self, sequences: u32, by_class: &[u32]) {
        if self.shared == 0 {
            return;
        }
        assert!(sequences > 0, "time is shared by somebody");
        let shared = std::mem::take(&mut self.shared);
        match &mut self.by_class[..] {
            [only] => *only += u128::from(shared),
            totals => divide(shared, sequences, totals.iter_mut().zip(by_class)),
        }
    }

    /// Counts a token that ends a prefill.
    pub fn count_token(&mut self) {
        self.output_tokens += 1;
    }

    /// Counts a preemption that lost this many computed tokens.
    pub fn count_preemption(&mut self, lost_tokens: u32) {
        self.preemptions += 1;
        self.recomputed_tokens += u64::from(lost_tokens);
    }

    /// The counters; gauges are left at zero.
    pub fn sample(&self) -> BackendSample {
        BackendSample {
            busy: span(self.busy),
            steps: self.steps,
            prefill_tokens: self.prefill_tokens,
            output_tokens: self.output_tokens,
            recomputed_tokens: self.recomputed_tokens,
            preemptions: self.preemptions,
            kv_token_millis: u64::try_from(self.held / (u128::from(Ticks::PER_NANO) * 1_000_000))
                .expect("token-milliseconds fit 64 bits"),
            ..BackendSample::default()
        }
    }

    /// Engine time used by a class, in ticks.
    pub fn class_busy(&self, class: ClassId) -> u128 {
        self.by_class[class.index()]
    }
}

#[inline(never)]
fn divide<'a>(shared: u64, sequences: u32, totals: impl Iterator<Item = (&'a mut u128, &'a u32)>) {
    let each = shared / u64::from(sequences);
    let mut remainder = shared % u64::from(sequences);
    for (total, &count) in totals {
        if count > 0 {
            *total += u128::from(each) * u128::from(count) + u128::from(remainder);
            remainder = 0;
        }
    }
}

/// Ticks to whole nanoseconds, rounded down.
pub fn span(ticks: u128) -> Span {
    let nanos = ticks / u128::from(Ticks::PER_NANO);
    Span::from_nanos(u64::try_from(nanos).expect("engine time stays below 584 years"))
}
