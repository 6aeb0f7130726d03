//! The GPUs of the device beside its live runs.

use std::fmt::Write as _;
use std::time::Instant;

use plimsoll_report::telemetry::{Reading, Sample, Sampled, Telemetry};

use super::sample::Origin;
use crate::telemetry::{Absent, Gauge, PERIOD, Taken, beside, since};

const HEAD: &str = "policy,load,repetition,take,time_s,gpu,utilization,memory_bytes,power_w,\
                    clock_mhz,memory_clock_mhz,throttles\n";

/// What is seen of them.
pub(super) struct Gpus<'a> {
    gauge: Result<&'a dyn Gauge, Absent>,
    sampled: Sampled,
    /// A row a sample and GPU.
    csv: String,
}

impl<'a> Gpus<'a> {
    pub fn new(gauge: Result<&'a dyn Gauge, Absent>) -> Gpus<'a> {
        let gpus = gauge.as_ref().map_or(&[][..], |gauge| gauge.gpus());
        Gpus { sampled: Sampled::new(gpus), csv: HEAD.to_owned(), gauge }
    }

    /// Runs, and samples meanwhile where there is something to sample.
    pub fn beside<T>(&self, run: impl FnOnce() -> T) -> (T, Vec<Taken>) {
        match &self.gauge {
            Ok(gauge) => beside(*gauge, PERIOD, run),
            Err(_) => (run(), Vec::new()),
        }
    }

    /// Takes down what was sampled beside a run that began at `zero`.
    pub fn take_down(&mut self, origin: &Origin, (taken, zero): (&[Taken], Instant)) {
        if self.gauge.is_err() {
            return;
        }
        let samples = since(taken, zero);
        for sample in &samples {
            self.rows(origin, sample);
        }
        let name = format!(
            "{} at {:.0} %, repetition {}, run {}",
            origin.policy,
            origin.load * 100.0,
            origin.repetition + 1,
            origin.take + 1
        );
        self.sampled.add(name, &samples);
    }

    fn rows(&mut self, origin: &Origin, sample: &Sample) {
        let gpus = self.sampled.gpus.iter().zip(&sample.readings);
        for (gpu, reading) in gpus {
            let Reading { utilization, memory_bytes, power_w, clock_mhz, .. } = reading;
            let numbers = [*utilization, *memory_bytes, *power_w, *clock_mhz];
            let numbers = numbers.into_iter().chain([reading.memory_clock_mhz]);
            let fields: Vec<String> =
                numbers.map(|it| it.map_or(String::new(), |value| value.to_string())).collect();
            let held = reading.throttles.iter().flatten();
            let held: Vec<&str> = held.map(|reason| reason.word()).collect();
            // A string takes everything.
            let _ = writeln!(
                self.csv,
                "{},{:.6},{},{},\"{}\"",
                origin.columns(),
                sample.at,
                gpu.index,
                fields.join(","),
                held.join("; ")
            );
        }
    }

    /// All of it, and its rows where there are any.
    pub fn end(self) -> (Telemetry, Option<String>) {
        match self.gauge {
            Ok(_) => (Telemetry::Sampled(self.sampled), Some(self.csv)),
            Err(absent) => (Telemetry::Absent(absent.to_string()), None),
        }
    }
}
