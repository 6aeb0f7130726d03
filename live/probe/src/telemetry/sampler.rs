//! Reading a gauge with a fixed period beside a run.

use std::convert::Infallible;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use plimsoll_report::telemetry::{Reading, Sample, in_words, summary};

use super::{Absent, Gauge};

/// Between two samples. NVIDIA's driver renews what it tells every 20 to 170 ms.
pub const PERIOD: Duration = Duration::from_millis(100);
/// Samples that are kept, at most; then every second one goes, and the period doubles. Nearly two
/// hours at the usual period.
const KEPT_MAX: usize = 65_536;

/// Readings of all GPUs.
#[derive(Clone, Debug)]
pub struct Taken {
    /// When.
    pub at: Instant,
    /// One a GPU.
    pub readings: Vec<Reading>,
}

/// Reads GPUs every `period` while `run` goes on; returns what it made, and what was read. The
/// reading is over when this returns, also if `run` panics.
pub fn beside<T>(gauge: &dyn Gauge, period: Duration, run: impl FnOnce() -> T) -> (T, Vec<Taken>) {
    thread::scope(|scope| {
        // Nothing is ever sent: the run is over when this end is dropped.
        let (running, over) = channel::<Infallible>();
        let sampler = scope.spawn(move || {
            let mut taken = Kept { taken: Vec::new(), max: KEPT_MAX, period };
            sample(gauge, &mut taken, &over);
            taken.taken
        });
        let made = run();
        drop(running);
        (made, sampler.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// Runs, and says of each GPU whether it was throttled meanwhile, or in a sentence why none was
/// looked at.
pub fn remarked<T>(gauge: Result<&dyn Gauge, Absent>, run: impl FnOnce() -> T) -> (T, Vec<String>) {
    let gauge = match gauge {
        Ok(gauge) => gauge,
        Err(absent) => return (run(), vec![absent.to_string()]),
    };
    let zero = Instant::now();
    let (made, taken) = beside(gauge, PERIOD, run);
    let samples = since(&taken, zero);
    let gpus = gauge.gpus().iter().enumerate();
    let remarks = gpus.map(|(place, gpu)| in_words(gpu, &summary(&samples, place))).collect();
    (made, remarks)
}

/// What was read, with times in seconds since `zero`; what was read before it is left out.
pub fn since(taken: &[Taken], zero: Instant) -> Vec<Sample> {
    let sample = |one: &Taken| {
        let at = one.at.checked_duration_since(zero)?.as_secs_f64();
        Some(Sample { at, readings: one.readings.clone() })
    };
    taken.iter().filter_map(sample).collect()
}

fn sample(gauge: &dyn Gauge, kept: &mut Kept, over: &Receiver<Infallible>) {
    let mut due = Instant::now();
    loop {
        let at = Instant::now();
        kept.push(Taken { at, readings: gauge.read() });
        due = next(due, kept.period, Instant::now());
        match over.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(never) => match never {},
        }
    }
}

/// The first multiple of the period after `due` that is still to come: what was missed is not made
/// up for.
fn next(due: Instant, period: Duration, now: Instant) -> Instant {
    let late = now.saturating_duration_since(due).as_nanos();
    let periods = late / period.as_nanos().max(1) + 1;
    due + period * u32::try_from(periods).unwrap_or(u32::MAX)
}

/// As many as are kept.
struct Kept {
    taken: Vec<Taken>,
    max: usize,
    period: Duration,
}

impl Kept {
    fn push(&mut self, one: Taken) {
        if self.taken.len() >= self.max {
            let mut is_even = false;
            self.taken.retain(|_| {
                is_even = !is_even;
                is_even
            });
            self.period *= 2;
        }
        self.taken.push(one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let period = Duration::from_millis(100);
        for (due, now, expected) in
            [(0, 0, 100), (0, 99, 100), (0, 100, 200), (0, 350, 400), (200, 100, 300)]
        {
            assert_eq!(next(at(due), period, at(now)), at(expected), "{due} {now}");
        }
    }

    #[test]
    fn a_long_run_is_kept_whole_with_fewer_samples() {
        let start = Instant::now();
        let period = Duration::from_millis(10);
        let mut kept = Kept { taken: Vec::new(), max: 8, period };
        let mut at = Duration::ZERO;
        for _ in 0..20 {
            kept.push(Taken { at: start + at, readings: Vec::new() });
            at += kept.period;
        }
        let millis: Vec<u128> =
            kept.taken.iter().map(|one| one.at.duration_since(start).as_millis()).collect();
        assert!(millis.len() <= 8, "{millis:?}");
        assert_eq!(kept.period, Duration::from_millis(80));
        assert_eq!(millis[0], 0);
        let gaps: Vec<u128> = millis.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| (40..=80).contains(gap)), "{millis:?}");
    }

    #[test]
    fn times_are_since_the_start_of_the_run() {
        let zero = Instant::now();
        let taken = |millis: u64| Taken {
            at: zero + Duration::from_millis(millis),
            readings: vec![Reading { power_w: Some(millis as f64), ..Reading::default() }],
        };
        let all = [taken(0), taken(100), taken(250)];
        let samples = since(&all, zero + Duration::from_millis(50));
        let said: Vec<(f64, Option<f64>)> =
            samples.iter().map(|it| (it.at, it.readings[0].power_w)).collect();
        assert_eq!(said, [(0.05, Some(100.0)), (0.2, Some(250.0))]);
    }
}
