//! From counts to numbers with intervals.

use std::borrow::Cow;

use plimsoll_base::Refusal;

use crate::histogram::{Histogram, rank};
use crate::interval::{around, wilson};
use crate::summary::{Counts, Distribution, Estimate, Latency, Numbers, Proportion, Utilization};
use crate::tally::{Outcomes, Spans, Tally};

/// A percentile with fewer samples beyond it is marked.
const TAIL_SAMPLES_MIN: f64 = 10.0;
const PERCENTILES: [f64; 6] = [50.0, 75.0, 90.0, 95.0, 99.0, 99.9];

/// Nine significant digits: what lies beyond is rounding, and differs between platforms.
pub(crate) fn tidy(x: f64) -> f64 {
    format!("{x:.8e}").parse().expect("a formatted float parses")
}

/// Nanoseconds to seconds.
pub(crate) fn seconds(nanos: f64) -> f64 {
    tidy(nanos / 1e9)
}

/// A value over all replications and the same value of each: the interval is theirs.
pub(crate) fn estimate(value: Option<f64>, each: &[Option<f64>]) -> Estimate {
    Estimate { value: value.map(tidy), interval: interval(value, each), ..Estimate::default() }
}

fn interval(value: Option<f64>, each: &[Option<f64>]) -> Option<[f64; 2]> {
    let values: Option<Vec<f64>> = each.iter().copied().collect();
    around(value?, &values?).map(|interval| interval.map(tidy))
}

/// Observed spans and, where some were cut off, those too.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub observed: &'a Histogram,
    pub censored: Option<&'a Histogram>,
}

impl<'a> View<'a> {
    /// All of them, those that were cut off at what they had come to.
    fn union(self) -> Cow<'a, Histogram> {
        match self.censored {
            None => Cow::Borrowed(self.observed),
            Some(censored) => {
                let mut union = self.observed.clone();
                union.merge(censored);
                Cow::Owned(union)
            }
        }
    }
}

impl<'a> From<&'a Histogram> for View<'a> {
    fn from(observed: &'a Histogram) -> View<'a> {
        View { observed, censored: None }
    }
}
impl<'a> From<&'a Spans> for View<'a> {
    fn from(spans: &'a Spans) -> View<'a> {
        let censored = (spans.censored.count() > 0).then_some(&spans.censored);
        View { observed: &spans.observed, censored }
    }
}

/// Mean, percentiles and maximum of a [`View`], in nanoseconds.
struct Figures {
    count: u64,
    mean: Option<f64>,
    /// At [`PERCENTILES`], then the maximum; and whether it may be more.
    quantiles: [Option<(u64, bool)>; PERCENTILES.len() + 1],
}

/// The percentile, and whether the true one may be larger because requests were cut off: with
/// those at what they had waited it is one value, with those at infinity another (or none).
pub(crate) fn percentile(view: View<'_>, percentile: f64) -> Option<(u64, bool)> {
    let union = view.union();
    let ranks = [rank(percentile, union.count())];
    quantiles(view.observed, &union, ranks)[0]
}

/// The values of these ranks, which ascend, in `union`, and whether the true ones may be larger: what
/// it holds beside `observed` is known only to be at least so long.
fn quantiles<const N: usize>(
    observed: &Histogram,
    union: &Histogram,
    ranks: [u64; N],
) -> [Option<(u64, bool)>; N] {
    let low = union.buckets_at(ranks);
    let high = if std::ptr::eq(observed, union) { low } else { observed.buckets_at(ranks) };
    let mut at = low.into_iter().zip(high);
    std::array::from_fn(|_| {
        let (low, high) = at.next().expect("there are as many");
        low.map(|bucket| (union.middle(bucket), high != low))
    })
}

impl Figures {
    fn of(view: View<'_>) -> Figures {
        let union = view.union();
        let count = union.count();
        let mut all = [None; PERCENTILES.len() + 1];
        if count > 0 {
            let ranks = PERCENTILES.map(|percentile| rank(percentile, count));
            let (percentiles, maximum) = all.split_at_mut(PERCENTILES.len());
            percentiles.copy_from_slice(&quantiles(view.observed, &union, ranks));
            let longest =
                view.censored.is_some_and(|censored| censored.max() >= view.observed.max());
            maximum[0] = Some((union.max(), longest));
        }
        let mean = (count > 0).then(|| union.sum_nanos() / count as f64);
        Figures { count, mean, quantiles: all }
    }
}

/// The distribution over the pooled requests, in seconds, with intervals across replications.
pub(crate) fn distribution<'a>(
    pooled: View<'a>,
    each: impl ExactSizeIterator<Item = View<'a>>,
) -> Distribution {
    distribution_by(1e9, pooled, each)
}

/// The same of values of which `unit` make one.
fn distribution_by<'a>(
    unit: f64,
    pooled: View<'a>,
    each: impl ExactSizeIterator<Item = View<'a>>,
) -> Distribution {
    let all = Figures::of(pooled);
    // One replication has no interval, and its figures are those of all.
    let each: Vec<Figures> =
        if each.len() > 1 { each.map(Figures::of).collect() } else { Vec::new() };
    let quantile = |index: usize| {
        let of = |figures: &Figures| figures.quantiles[index].map(|(value, _)| value as f64 / unit);
        let values: Vec<Option<f64>> = each.iter().map(of).collect();
        let tail = PERCENTILES.get(index).map(|p| all.count as f64 * (1.0 - p / 100.0));
        let estimate = estimate(of(&all), &values);
        Estimate {
            at_least: all.quantiles[index].is_some_and(|(_, more)| more),
            few_samples: all.count > 0 && tail.is_some_and(|tail| tail < TAIL_SAMPLES_MIN - 1e-6),
            // A maximum grows with the length of the run and the number of runs.
            interval: estimate.interval.filter(|_| tail.is_some()),
            ..estimate
        }
    };
    let mean = |figures: &Figures| figures.mean.map(|value| value / unit);
    let means: Vec<Option<f64>> = each.iter().map(mean).collect();
    Distribution {
        count: all.count,
        censored: pooled.censored.map_or(0, Histogram::count),
        censored_max: pooled.censored.map(|censored| tidy(censored.max() as f64 / unit)),
        mean: Estimate { at_least: pooled.censored.is_some(), ..estimate(mean(&all), &means) },
        p50: quantile(0),
        p75: quantile(1),
        p90: quantile(2),
        p95: quantile(3),
        p99: quantile(4),
        p999: quantile(5),
        max: quantile(6),
    }
}

/// A share of requests over all replications, and of each: (how many, of how many).
pub(crate) fn proportion(each: &[(u64, u64)]) -> Proportion {
    let (count, of) = each.iter().fold((0, 0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    let share = |&(count, of): &(u64, u64)| (of > 0).then(|| count as f64 / of as f64);
    let shares: Vec<Option<f64>> = each.iter().map(share).collect();
    Proportion {
        value: share(&(count, of)).map(tidy),
        count,
        of,
        wilson: wilson(count, of).map(|interval| interval.map(tidy)),
        // A share lies between 0 and 1 whatever the normal theory says.
        interval: interval(share(&(count, of)), &shares)
            .map(|interval| interval.map(|x| x.clamp(0.0, 1.0))),
    }
}

/// A quotient over all replications, and of each.
pub(crate) fn quotient(each: &[(f64, f64)]) -> Estimate {
    let (over, under) = each.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    let divide = |&(over, under): &(f64, f64)| (under > 0.0).then(|| over / under);
    let values: Vec<Option<f64>> = each.iter().map(divide).collect();
    estimate(divide(&(over, under)), &values)
}

/// How requests closed, in words.
pub(crate) fn counts(outcomes: &Outcomes) -> Counts {
    let refused = Refusal::ALL.into_iter().zip(outcomes.refused);
    Counts {
        offered: outcomes.arrived,
        finished: outcomes.finished,
        failed: outcomes.failed,
        cancelled: outcomes.cancelled,
        expired: outcomes.expired,
        evicted: outcomes.evicted,
        refused: refused
            .filter(|&(_, count)| count > 0)
            .map(|(refusal, count)| (refusal.name().to_owned(), count))
            .collect(),
        in_flight: outcomes.in_flight(),
    }
}

/// The tallies of one group, one a replication, with the measured seconds of each.
pub(crate) struct Group<'a> {
    pub pooled: &'a Tally,
    pub each: &'a [&'a Tally],
    pub seconds: &'a [f64],
    pub replicas: u32,
}

impl Group<'_> {
    /// A count of each replication over its measured time.
    fn rate(&self, count: impl Fn(&Tally) -> u64) -> Estimate {
        let pairs = self.each.iter().zip(self.seconds);
        quotient(&pairs.map(|(tally, &seconds)| (count(tally) as f64, seconds)).collect::<Vec<_>>())
    }
    fn share(&self, pair: impl Fn(&Tally) -> (u64, u64)) -> Proportion {
        proportion(&self.each.iter().map(|tally| pair(tally)).collect::<Vec<_>>())
    }
    /// A count of tokens over the useful ones.
    fn of_useful(&self, count: fn(&Tally) -> u64) -> Estimate {
        let useful = |tally: &Tally| {
            (tally.prompt_tokens + tally.output_tokens).saturating_sub(tally.evicted_tokens)
        };
        let pair = |tally: &&Tally| (count(tally) as f64, useful(tally) as f64);
        quotient(&self.each.iter().map(pair).collect::<Vec<_>>())
    }
    fn latency<'b, V: Into<View<'b>>>(&'b self, pick: impl Fn(&'b Tally) -> V) -> Distribution {
        distribution(pick(self.pooled).into(), self.each.iter().map(|tally| pick(tally).into()))
    }

    /// Every number of the group.
    pub fn numbers(&self) -> Numbers {
        let gpu_seconds = |seconds: &f64| seconds * f64::from(self.replicas);
        let per_gpu: Vec<(f64, f64)> = (self.each.iter().zip(self.seconds))
            .map(|(tally, seconds)| (tally.output_tokens as f64, gpu_seconds(seconds)))
            .collect();
        let per_user: Vec<(f64, f64)> = (self.each.iter())
            .map(|tally| (tally.finished_tokens as f64, tally.finished_nanos as f64 / 1e9))
            .collect();
        Numbers {
            counts: counts(&self.pooled.outcomes),
            slo_attainment: self.share(|tally| (tally.good, tally.outcomes.arrived)),
            attainment_of_completed: self.share(|tally| (tally.good, tally.outcomes.finished)),
            goodput: self.rate(|tally| tally.good),
            goodput_tokens: self.rate(|tally| tally.good_tokens),
            input_tps: self.rate(|tally| tally.prompt_tokens),
            output_tps: self.rate(|tally| tally.output_tokens),
            total_tps: self.rate(|tally| tally.prompt_tokens + tally.output_tokens),
            tps_per_gpu: quotient(&per_gpu),
            tps_per_user: quotient(&per_user),
            output_tokens: self.pooled.output_tokens,
            tpot_undefined: self.pooled.tpot_undefined,
            preemptions: Some(self.pooled.preemptions),
            recomputed_tokens: Some(self.pooled.recomputed_tokens),
            preemptions_max: Some(self.pooled.preemptions_max),
            preemption_waste: self.of_useful(|tally| tally.recomputed_tokens),
            wasted_tokens: self.pooled.wasted_tokens,
            eviction_waste: self.of_useful(|tally| tally.wasted_tokens),
            slowdown: self.latency(|tally| &tally.slowdown),
            overtakes: distribution_by(
                1.0,
                View::from(&self.pooled.overtakes),
                self.each.iter().map(|tally| View::from(&tally.overtakes)),
            ),
            latency: self.latencies(),
        }
    }

    fn latencies(&self) -> Latency {
        Latency {
            queue_time: self.latency(|tally| &tally.queue),
            queue_time_first: self.latency(|tally| &tally.queue_first),
            prefill_time: self.latency(|tally| &tally.prefill),
            decode_time: self.latency(|tally| &tally.decode),
            preempted_time: self.latency(|tally| &tally.preempted),
            ttft: self.latency(|tally| &tally.ttft),
            ttft_service: self.latency(|tally| &tally.ttft_service),
            tpot: self.latency(|tally| &tally.tpot),
            itl: self.latency(|tally| &tally.gaps),
            itl_max: self.latency(|tally| &tally.gap_max),
            ntpot: self.latency(|tally| &tally.ntpot),
            e2e: self.latency(|tally| &tally.e2e),
        }
    }
}

/// How replicas were used: what each replication's added up to, and its KV token-milliseconds
/// there were.
pub(crate) fn utilization(each: &[(crate::ledger::Used, f64)]) -> Utilization {
    let pairs = |pair: fn(&crate::ledger::Used) -> (f64, f64)| {
        quotient(&each.iter().map(|(used, _)| pair(used)).collect::<Vec<_>>())
    };
    let kv: Vec<(f64, f64)> =
        each.iter().map(|(used, capacity)| (used.kv_token_millis as f64, *capacity)).collect();
    Utilization {
        busy: pairs(|used| (used.busy.secs_f64(), used.observed.secs_f64())),
        useful: pairs(|used| {
            let wasted = used.recomputed_tokens as f64 / (used.computed_tokens as f64).max(1.0);
            (used.busy.secs_f64() * (1.0 - wasted), used.observed.secs_f64())
        }),
        kv_occupancy: quotient(&kv),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_off_makes_a_percentile_a_lower_bound() {
        let spans = |observed: &[u64], censored: &[u64]| {
            let mut spans = Spans::default();
            observed.iter().for_each(|&nanos| spans.observed.record(nanos));
            censored.iter().for_each(|&nanos| spans.censored.record(nanos));
            spans
        };
        let check = |observed: &[u64], censored: &[u64], p, expected| {
            let spans = spans(observed, censored);
            assert_eq!(percentile(View::from(&spans), p), expected, "{observed:?} {censored:?}");
        };
        check(&[10, 20, 30, 40], &[], 50.0, Some((20, false)));
        // Beyond the median: it stays what it is.
        check(&[10, 20, 30], &[40], 50.0, Some((20, false)));
        // Cut off early, so it may lie anywhere above.
        check(&[10, 20, 30], &[5], 50.0, Some((10, true)));
        check(&[10], &[50, 60, 70], 99.0, Some((70, true)));
        check(&[], &[7], 50.0, Some((7, true)));
        check(&[], &[], 50.0, None);
    }

    #[test]
    fn numbers_keep_nine_digits() {
        assert_eq!(tidy(1.0 / 3.0), 0.333333333);
        assert_eq!(tidy(123_456_789_012.0), 123_456_789_000.0);
        assert_eq!(tidy(0.0), 0.0);
    }
}
