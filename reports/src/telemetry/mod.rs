//! What the GPUs of a device said of themselves beside runs: how busy they were, their memory,
//! power and clocks, and what held their clocks down.
//!
//! A GPU that throttles in one run and not in the next is no longer the device that was measured:
//! that is why a validation shows it. Who asks the GPUs is no matter of this crate.

mod fold;
mod show;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use fold::{in_words, summary, throttled_words};
pub use show::{HEAD, row};

/// A GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gpu {
    /// The number that its driver gives it.
    pub index: u32,
    /// What it is.
    pub name: String,
    /// Its memory in bytes.
    pub memory_bytes: Option<u64>,
    /// What it may draw, in watts.
    pub power_limit_w: Option<f64>,
}

impl Gpu {
    /// "GPU 0", as tables and charts call it.
    pub fn label(&self) -> String {
        format!("GPU {}", self.index)
    }
}

/// What a GPU says of itself at an instant; `None` where it does not say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The part of its driver's last sampling period in which any kernel ran.
    pub utilization: Option<f64>,
    /// Memory taken, in bytes.
    pub memory_bytes: Option<f64>,
    /// Power drawn, in watts.
    pub power_w: Option<f64>,
    /// The clock of its multiprocessors, in MHz.
    pub clock_mhz: Option<f64>,
    /// The clock of its memory, in MHz.
    pub memory_clock_mhz: Option<f64>,
    /// What holds its clocks down; empty if nothing does.
    pub throttles: Option<Vec<Throttle>>,
}

impl Reading {
    /// Whether it runs slower than it would; `false` where it does not say.
    pub fn is_throttled(&self) -> bool {
        self.throttles.iter().flatten().any(|reason| reason.slows())
    }
}

/// Readings of all GPUs, in their order, at an instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Seconds since the run's start.
    pub at: f64,
    /// One a GPU.
    pub readings: Vec<Reading>,
}

/// What holds clocks down, as NVML tells it (`nvmlClocksEventReasons`). That a GPU has nothing to do
/// is not among them.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Throttle {
    /// It would draw more power than it may.
    PowerCap,
    /// It or its memory is hotter than it may be in operation.
    Thermal,
    /// The hardware has halved the clocks, or more: heat, a power brake, or a sudden draw.
    HardwareSlowdown,
    /// The hardware has halved the clocks for heat.
    HardwareThermal,
    /// The power supply has asked the hardware to halve the clocks.
    PowerBrake,
    /// Somebody has set the clocks.
    ApplicationClocks,
    /// Another GPU of its group holds it back.
    SyncBoost,
    /// The clocks of displays hold it back.
    DisplayClocks,
}

impl Throttle {
    /// All of them.
    pub const ALL: [Throttle; 8] = [
        Throttle::PowerCap,
        Throttle::Thermal,
        Throttle::HardwareSlowdown,
        Throttle::HardwareThermal,
        Throttle::PowerBrake,
        Throttle::ApplicationClocks,
        Throttle::SyncBoost,
        Throttle::DisplayClocks,
    ];

    /// In words.
    pub const fn word(self) -> &'static str {
        match self {
            Throttle::PowerCap => "power cap",
            Throttle::Thermal => "heat",
            Throttle::HardwareSlowdown => "hardware slowdown",
            Throttle::HardwareThermal => "heat, by the hardware",
            Throttle::PowerBrake => "power brake",
            Throttle::ApplicationClocks => "application clocks",
            Throttle::SyncBoost => "sync boost",
            Throttle::DisplayClocks => "display clocks",
        }
    }

    /// Whether it makes a GPU slower than it was measured to be: clocks that somebody has set are
    /// the same in every run.
    pub const fn slows(self) -> bool {
        match self {
            Throttle::PowerCap
            | Throttle::Thermal
            | Throttle::HardwareSlowdown
            | Throttle::HardwareThermal
            | Throttle::PowerBrake
            | Throttle::SyncBoost => true,
            Throttle::ApplicationClocks | Throttle::DisplayClocks => false,
        }
    }
}

/// What was seen of GPUs beside the live runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Telemetry {
    /// Nothing, and why, as a sentence.
    Absent(String),
    /// This.
    Sampled(Sampled),
}

/// Samples of runs, reduced to what a report shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sampled {
    /// The GPUs.
    pub gpus: Vec<Gpu>,
    /// Each run.
    pub runs: Vec<SampledRun>,
    /// The run that is drawn, by its place among `runs`: the one throttled the most.
    pub drawn: usize,
    /// What is drawn of it, a list a GPU.
    pub stretches: Vec<Vec<Stretch>>,
}

/// A run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SampledRun {
    /// Its name in a report.
    pub name: String,
    /// Each GPU.
    pub gpus: Vec<GpuSummary>,
}

/// A GPU in a run. Means and parts are of time: each sample stands for the time to the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GpuSummary {
    /// How often it was read.
    pub samples: u64,
    /// The part of time in which any kernel ran.
    pub utilization: Option<Level>,
    /// Memory taken, in bytes.
    pub memory_bytes: Option<Level>,
    /// Power drawn, in watts.
    pub power_w: Option<Level>,
    /// The clock of its multiprocessors, in MHz.
    pub clock_mhz: Option<Level>,
    /// The clock of its memory, in MHz.
    pub memory_clock_mhz: Option<Level>,
    /// The part of the time in which something slowed it; `None` where it does not say.
    pub throttled: Option<f64>,
    /// What held its clocks down, each with its part of the time, the largest first; two may hold
    /// them at once.
    pub reasons: Vec<(Throttle, f64)>,
}

/// A number over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Level {
    /// The least.
    pub min: f64,
    /// The mean over time.
    pub mean: f64,
    /// The most.
    pub max: f64,
}

/// A stretch of a run as it is drawn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stretch {
    /// From when, in seconds since the run's start.
    pub from: f64,
    /// To when.
    pub to: f64,
    /// The mean.
    pub utilization: Option<f64>,
    /// The mean, in watts.
    pub power_w: Option<f64>,
    /// The mean, in MHz.
    pub clock_mhz: Option<f64>,
    /// Whether anything slowed it at any time of it.
    pub throttled: bool,
}
