//! NVIDIA's GPUs, by NVML.
//!
//! The library comes with the driver and is loaded when a gauge is opened. A GPU that does not tell
//! a number (an older driver, a partition of MIG) leaves it out of its readings.

use std::ffi::OsStr;

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::Clock;
use plimsoll_report::telemetry::{Gpu, Reading, Throttle};

use super::{Absent, Gauge};

/// NVML's reasons; that a GPU is idle holds nothing back.
const REASONS: [(ThrottleReasons, Throttle); 8] = [
    (ThrottleReasons::SW_POWER_CAP, Throttle::PowerCap),
    (ThrottleReasons::SW_THERMAL_SLOWDOWN, Throttle::Thermal),
    (ThrottleReasons::HW_SLOWDOWN, Throttle::HardwareSlowdown),
    (ThrottleReasons::HW_THERMAL_SLOWDOWN, Throttle::HardwareThermal),
    (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, Throttle::PowerBrake),
    (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, Throttle::ApplicationClocks),
    (ThrottleReasons::SYNC_BOOST, Throttle::SyncBoost),
    (ThrottleReasons::DISPLAY_CLOCK_SETTING, Throttle::DisplayClocks),
];

/// All GPUs of this machine that NVML lets this process see.
#[derive(Debug)]
pub struct Nvml {
    nvml: nvml_wrapper::Nvml,
    gpus: Vec<Gpu>,
}

impl Nvml {
    /// Loads the driver's library.
    ///
    /// # Errors
    /// [`Absent::NoLibrary`] or [`Absent::NoGpu`].
    pub fn open() -> Result<Nvml, Absent> {
        Nvml::with(nvml_wrapper::Nvml::init())
    }

    /// Loads the library of this name or path.
    ///
    /// # Errors
    /// [`Absent::NoLibrary`] or [`Absent::NoGpu`].
    pub fn open_at(library: &OsStr) -> Result<Nvml, Absent> {
        Nvml::with(nvml_wrapper::Nvml::builder().lib_path(library).init())
    }

    fn with(
        loaded: Result<nvml_wrapper::Nvml, nvml_wrapper::error::NvmlError>,
    ) -> Result<Nvml, Absent> {
        let amiss = |error: nvml_wrapper::error::NvmlError| Absent::NoLibrary(error.to_string());
        let nvml = loaded.map_err(amiss)?;
        let count = nvml.device_count().map_err(amiss)?;
        let gpu = |index: u32| {
            let device = nvml.device_by_index(index).ok()?;
            Some(Gpu {
                index,
                name: device.name().unwrap_or_else(|_| "a GPU without a name".to_owned()),
                memory_bytes: device.memory_info().ok().map(|memory| memory.total),
                power_limit_w: device.enforced_power_limit().ok().map(watts),
            })
        };
        let gpus: Vec<Gpu> = (0..count).filter_map(gpu).collect();
        if gpus.is_empty() {
            return Err(Absent::NoGpu);
        }
        Ok(Nvml { nvml, gpus })
    }

    fn read_one(&self, index: u32) -> Reading {
        let Ok(device) = self.nvml.device_by_index(index) else { return Reading::default() };
        let megahertz = |clock: Clock| device.clock_info(clock).ok().map(f64::from);
        Reading {
            utilization: device.utilization_rates().ok().map(|it| f64::from(it.gpu) / 100.0),
            memory_bytes: device.memory_info().ok().map(|memory| memory.used as f64),
            power_w: device.power_usage().ok().map(watts),
            clock_mhz: megahertz(Clock::SM),
            memory_clock_mhz: megahertz(Clock::Memory),
            throttles: device.current_throttle_reasons().ok().map(throttles),
        }
    }
}

impl Gauge for Nvml {
    fn gpus(&self) -> &[Gpu] {
        &self.gpus
    }

    fn read(&self) -> Vec<Reading> {
        self.gpus.iter().map(|gpu| self.read_one(gpu.index)).collect()
    }
}

/// NVML counts milliwatts.
fn watts(milliwatts: u32) -> f64 {
    f64::from(milliwatts) / 1e3
}

fn throttles(told: ThrottleReasons) -> Vec<Throttle> {
    let held = REASONS.iter().filter(|(bit, _)| told.contains(*bit));
    held.map(|(_, reason)| *reason).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_bit_and_idleness_is_none() {
        assert_eq!(throttles(ThrottleReasons::NONE), []);
        assert_eq!(throttles(ThrottleReasons::GPU_IDLE), []);
        let mut all = throttles(ThrottleReasons::all());
        all.sort_unstable();
        assert_eq!(all, Throttle::ALL);
        // The bits of nvml.h.
        for (bit, reason) in [
            (0x2, Throttle::ApplicationClocks),
            (0x4, Throttle::PowerCap),
            (0x8, Throttle::HardwareSlowdown),
            (0x10, Throttle::SyncBoost),
            (0x20, Throttle::Thermal),
            (0x40, Throttle::HardwareThermal),
            (0x80, Throttle::PowerBrake),
            (0x100, Throttle::DisplayClocks),
        ] {
            assert_eq!(throttles(ThrottleReasons::from_bits_truncate(bit)), [reason]);
        }
    }
}
