//! Samples to numbers.

use super::{
    Gpu, GpuSummary, Level, Reading, Sample, Sampled, SampledRun, Stretch, Telemetry, Throttle,
};
use crate::words;

/// Stretches of a run that are drawn, at most.
const STRETCHES_MAX: usize = 240;

impl Sampled {
    /// No run yet.
    pub fn new(gpus: &[Gpu]) -> Sampled {
        Sampled { gpus: gpus.to_vec(), ..Sampled::default() }
    }

    /// Takes down a run. The one that was throttled the most is kept to be drawn.
    pub fn add(&mut self, name: String, samples: &[Sample]) {
        let gpus: Vec<GpuSummary> = (0..self.gpus.len()).map(|gpu| summary(samples, gpu)).collect();
        let run = SampledRun { name, gpus };
        let before = self.runs.get(self.drawn).map_or(-1.0, SampledRun::throttled);
        if run.throttled() > before {
            self.drawn = self.runs.len();
            self.stretches = (0..self.gpus.len()).map(|gpu| stretches(samples, gpu)).collect();
        }
        self.runs.push(run);
    }

    /// What to know: a sentence for each run in which a GPU was throttled.
    pub(crate) fn notes(&self) -> Vec<String> {
        let each = self.runs.iter().flat_map(|run| {
            self.gpus.iter().zip(&run.gpus).map(move |(gpu, summary)| (run, gpu, summary))
        });
        each.filter_map(|(run, gpu, summary)| {
            Some(format!("{}: {}", run.name, throttled_words(gpu, summary)?))
        })
        .collect()
    }
}

impl SampledRun {
    /// The largest part of the time in which one of its GPUs was throttled.
    fn throttled(&self) -> f64 {
        self.gpus.iter().filter_map(|gpu| gpu.throttled).fold(0.0, f64::max)
    }
}

impl Telemetry {
    /// What to know.
    pub(crate) fn notes(&self) -> Vec<String> {
        match self {
            Telemetry::Absent(why) => vec![why.clone()],
            Telemetry::Sampled(sampled) => sampled.notes(),
        }
    }
}

/// "GPU 0 (NVIDIA L4) was throttled 12 % of the time: power cap 12 %"; `None` if it was not.
pub fn throttled_words(gpu: &Gpu, summary: &GpuSummary) -> Option<String> {
    let part = summary.throttled.filter(|part| *part > 0.0)?;
    let slows = summary.reasons.iter().filter(|(reason, _)| reason.slows());
    Some(format!(
        "{} ({}) was throttled {} of the time: {}",
        gpu.label(),
        gpu.name,
        words::percent(part),
        listed(slows)
    ))
}

/// The same, and a sentence where it was not.
pub fn in_words(gpu: &Gpu, summary: &GpuSummary) -> String {
    throttled_words(gpu, summary).unwrap_or_else(|| match summary.throttled {
        Some(_) => format!("{} ({}) was not throttled", gpu.label(), gpu.name),
        None => format!("{} ({}) does not say whether it was throttled", gpu.label(), gpu.name),
    })
}

/// "power cap 12 %, heat 3 %".
pub(super) fn listed<'a>(reasons: impl Iterator<Item = &'a (Throttle, f64)>) -> String {
    let each = reasons.map(|(reason, part)| format!("{} {}", reason.word(), words::percent(*part)));
    each.collect::<Vec<_>>().join(", ")
}

/// A GPU over a run, by its place among the readings. Each sample stands for the time to the next,
/// the last for as long as the one before it.
pub fn summary(samples: &[Sample], gpu: usize) -> GpuSummary {
    let read: Vec<(f64, &Reading)> = weighted(samples)
        .filter_map(|(sample, weight)| Some((weight, sample.readings.get(gpu)?)))
        .collect();
    let level = |value: fn(&Reading) -> Option<f64>| {
        level(read.iter().filter_map(|(weight, reading)| Some((*weight, value(reading)?))))
    };
    let told: Vec<(f64, &Vec<Throttle>)> = (read.iter())
        .filter_map(|(weight, reading)| Some((*weight, reading.throttles.as_ref()?)))
        .collect();
    let part = |holds: &dyn Fn(&[Throttle]) -> bool| {
        let value = told.iter().map(|(weight, held)| (*weight, f64::from(u8::from(holds(held)))));
        self::level(value).map(|level| level.mean)
    };
    let mut reasons: Vec<(Throttle, f64)> = (Throttle::ALL.into_iter())
        .filter_map(|reason| Some((reason, part(&|held| held.contains(&reason))?)))
        .filter(|(_, part)| *part > 0.0)
        .collect();
    reasons.sort_by(|a, b| b.1.total_cmp(&a.1));
    GpuSummary {
        samples: read.len() as u64,
        utilization: level(|reading| reading.utilization),
        memory_bytes: level(|reading| reading.memory_bytes),
        power_w: level(|reading| reading.power_w),
        clock_mhz: level(|reading| reading.clock_mhz),
        memory_clock_mhz: level(|reading| reading.memory_clock_mhz),
        throttled: part(&|held| held.iter().any(|reason| reason.slows())),
        reasons,
    }
}

/// Each sample with the seconds that it stands for.
fn weighted(samples: &[Sample]) -> impl Iterator<Item = (&Sample, f64)> {
    let gap = |pair: &[Sample]| (pair[1].at - pair[0].at).max(0.0);
    // One alone stands for all.
    let last = samples.windows(2).last().map_or(1.0, gap);
    let gaps = samples.windows(2).map(gap).chain(std::iter::once(last));
    samples.iter().zip(gaps)
}

/// Of values with their weights; `None` of none.
fn level(values: impl Iterator<Item = (f64, f64)>) -> Option<Level> {
    let (mut sum, mut weights) = (0.0, 0.0);
    let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
    for (weight, value) in values {
        sum += weight * value;
        weights += weight;
        (min, max) = (min.min(value), max.max(value));
    }
    (weights > 0.0).then(|| Level { min, mean: sum / weights, max })
}

/// A GPU's samples in as many stretches as are drawn.
fn stretches(samples: &[Sample], gpu: usize) -> Vec<Stretch> {
    let read: Vec<(f64, f64, &Reading)> = weighted(samples)
        .filter_map(|(sample, weight)| Some((sample.at, weight, sample.readings.get(gpu)?)))
        .collect();
    let chunk = |chunk: &[(f64, f64, &Reading)]| {
        let mean = |value: fn(&Reading) -> Option<f64>| {
            let values = chunk.iter().filter_map(|(_, weight, it)| Some((*weight, value(it)?)));
            level(values).map(|level| level.mean)
        };
        let (last, length, _) = chunk[chunk.len() - 1];
        Stretch {
            from: chunk[0].0,
            to: last + length,
            utilization: mean(|reading| reading.utilization),
            power_w: mean(|reading| reading.power_w),
            clock_mhz: mean(|reading| reading.clock_mhz),
            throttled: chunk.iter().any(|(.., reading)| reading.is_throttled()),
        }
    };
    read.chunks(read.len().div_ceil(STRETCHES_MAX).max(1)).map(chunk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: f64, (utilization, power): (f64, f64), throttles: &[Throttle]) -> Sample {
        let reading = Reading {
            utilization: Some(utilization),
            power_w: Some(power),
            throttles: Some(throttles.to_vec()),
            ..Reading::default()
        };
        Sample { at, readings: vec![reading] }
    }

    #[test]
    fn a_sample_stands_for_the_time_to_the_next() {
        use Throttle::{ApplicationClocks, PowerCap, Thermal};
        // One second idle, three at work of which two throttled; the last stands for one.
        let samples = [
            sample(0.0, (0.0, 60.0), &[ApplicationClocks]),
            sample(1.0, (1.0, 300.0), &[PowerCap, ApplicationClocks]),
            sample(3.0, (0.5, 200.0), &[ApplicationClocks]),
            sample(4.0, (0.5, 240.0), &[Thermal, PowerCap]),
        ];
        let it = summary(&samples, 0);
        assert_eq!(it.samples, 4);
        assert_eq!(it.utilization, Some(Level { min: 0.0, mean: 0.6, max: 1.0 }));
        assert_eq!(it.power_w, Some(Level { min: 60.0, mean: 220.0, max: 300.0 }));
        // Clocks that somebody set are named and slow nothing.
        assert_eq!(it.throttled, Some(0.6));
        assert_eq!(it.reasons, [(ApplicationClocks, 0.8), (PowerCap, 0.6), (Thermal, 0.2)]);
        assert_eq!((it.clock_mhz, it.memory_bytes), (None, None), "it did not say");
    }

    #[test]
    fn what_is_not_told_is_none() {
        assert_eq!(summary(&[], 0), GpuSummary::default());
        let mute = [Sample { at: 0.0, readings: vec![Reading::default()] }];
        assert_eq!(summary(&mute, 0), GpuSummary { samples: 1, ..GpuSummary::default() });
        assert_eq!(summary(&mute, 1).samples, 0, "there is no such GPU");
        let alone = summary(&[sample(0.3, (0.7, 90.0), &[])], 0);
        assert_eq!((alone.throttled, alone.reasons.len()), (Some(0.0), 0));
        assert_eq!(alone.utilization.map(|level| level.mean), Some(0.7));
    }

    #[test]
    fn the_run_throttled_the_most_is_drawn_in_few_stretches() {
        let run = |throttled: usize| -> Vec<Sample> {
            let held = |at: usize| if at < throttled { &[Throttle::PowerCap][..] } else { &[] };
            (0..1_000)
                .map(|at| sample(at as f64 * 0.1, (at as f64 / 1e3, 100.0), held(at)))
                .collect()
        };
        let mut sampled = Sampled::new(&[Gpu { name: "a GPU".into(), ..Gpu::default() }]);
        for (name, throttled) in [("first", 0), ("second", 500), ("third", 500), ("last", 10)] {
            sampled.add(name.to_owned(), &run(throttled));
        }
        assert_eq!((sampled.runs.len(), sampled.drawn), (4, 1));
        let drawn = &sampled.stretches[0];
        assert_eq!(drawn.len(), 200);
        assert!(drawn.windows(2).all(|pair| (pair[0].to - pair[1].from).abs() < 1e-9));
        assert!((drawn[0].from, drawn[199].to) == (0.0, 100.0), "{:?}", drawn[199]);
        assert_eq!(drawn.iter().filter(|stretch| stretch.throttled).count(), 100);
        assert!((drawn[100].utilization.expect("it was told") - 0.502).abs() < 1e-9);
        let notes = sampled.notes();
        assert_eq!(notes.len(), 3, "the first was not throttled: {notes:?}");
        let said = "second: GPU 0 (a GPU) was throttled 50 % of the time: power cap 50 %";
        assert_eq!(notes[0], said);
    }
}
