//! What the GPUs of this machine say of themselves while something runs on them.
//!
//! A [`Gauge`] reads GPUs; [`beside`] reads one with a fixed period, on a thread of its own, for as
//! long as a run goes on. With the feature `nvml` there is a gauge for NVIDIA's GPUs, by NVML, the
//! driver's library, which is looked for at run time; a build with the feature runs without it too.
//! The gauge has only been tried against a library that stands in for NVML and tells what it is
//! told to, and all else against a scripted gauge: on no GPU.
//!
//! Only what is on this machine can be asked: a server that is reached through a tunnel on loopback
//! is taken for one that is, and then other GPUs are shown than those that computed.

#[cfg(feature = "nvml")]
mod nvml;
mod sampler;

use std::fmt::Debug;

use plimsoll_report::telemetry::{Gpu, Reading};
use thiserror::Error;

use crate::device::Description;

#[cfg(feature = "nvml")]
pub use nvml::Nvml;
pub use sampler::{PERIOD, Taken, beside, remarked, since};

/// Something that GPUs can be read by.
pub trait Gauge: Debug + Send + Sync {
    /// The GPUs, in the order in which they are read.
    fn gpus(&self) -> &[Gpu];

    /// What each says of itself now.
    fn read(&self) -> Vec<Reading>;
}

/// Why no GPU is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Absent {
    /// The device is another machine's.
    #[error("no GPU was looked at: only those of this machine can be, and the device is at {0}")]
    Elsewhere(String),
    /// The device has no use for a GPU.
    #[error("no GPU was looked at: the embedded device computes on the CPU")]
    Processor,
    /// The program was built without.
    #[error("no GPU was looked at: this build cannot; build with `--features nvml`")]
    NotBuilt,
    /// There is no NVML, or it does not work.
    #[error("no GPU was looked at: NVML, the library of NVIDIA's driver, does not answer: {0}")]
    NoLibrary(String),
    /// NVML knows of none.
    #[error("no GPU was looked at: NVML, the library of NVIDIA's driver, knows of none here")]
    NoGpu,
}

/// A gauge for the GPUs that a device may compute on.
///
/// # Errors
/// Why there is none.
pub fn find(device: &Description) -> Result<Box<dyn Gauge>, Absent> {
    match whereabouts(&device.place) {
        Whereabouts::Elsewhere => Err(Absent::Elsewhere(device.place.clone())),
        Whereabouts::ThisProcess => Err(Absent::Processor),
        Whereabouts::ThisMachine => open(),
    }
}

#[cfg(feature = "nvml")]
fn open() -> Result<Box<dyn Gauge>, Absent> {
    Ok(Box::new(Nvml::open()?))
}

#[cfg(not(feature = "nvml"))]
fn open() -> Result<Box<dyn Gauge>, Absent> {
    Err(Absent::NotBuilt)
}

/// Where a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whereabouts {
    ThisProcess,
    ThisMachine,
    Elsewhere,
}

/// By the place of a description: a URL, or what of this machine.
fn whereabouts(place: &str) -> Whereabouts {
    let Some((_, rest)) = place.split_once("://") else {
        let has_gpu = place.contains("CUDA");
        return if has_gpu { Whereabouts::ThisMachine } else { Whereabouts::ThisProcess };
    };
    let authority = rest.split('/').next().unwrap_or_default();
    // `[::1]:8000`, `127.0.0.1:8000`, `localhost`.
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(':').next(),
    };
    let host = host.unwrap_or_default();
    let is_here = match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback() || address.is_unspecified(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    };
    if is_here { Whereabouts::ThisMachine } else { Whereabouts::Elsewhere }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_on_loopback_is_on_this_machine() {
        for (place, expected) in [
            ("http://127.0.0.1:8000", Whereabouts::ThisMachine),
            ("http://127.3.2.1:8000/v1", Whereabouts::ThisMachine),
            ("http://localhost:8000", Whereabouts::ThisMachine),
            ("http://LocalHost", Whereabouts::ThisMachine),
            ("http://[::1]:8000/", Whereabouts::ThisMachine),
            ("http://0.0.0.0:8000", Whereabouts::ThisMachine),
            ("http://10.0.0.7:8000", Whereabouts::Elsewhere),
            ("http://[2001:db8::1]:8000", Whereabouts::Elsewhere),
            ("http://localhost.example.org:8000", Whereabouts::Elsewhere),
            ("http://example.org/127.0.0.1", Whereabouts::Elsewhere),
            ("this process, one x86_64 thread", Whereabouts::ThisProcess),
            ("this process, the first CUDA device", Whereabouts::ThisMachine),
        ] {
            assert_eq!(whereabouts(place), expected, "{place}");
        }
    }

    #[test]
    fn why_there_is_none_is_a_sentence() {
        let at = |place: &str| Description { place: place.to_owned(), ..Description::default() };
        let why = |place: &str| find(&at(place)).expect_err("there is none").to_string();
        let elsewhere = why("http://10.0.0.7:8000");
        assert!(elsewhere.ends_with("the device is at http://10.0.0.7:8000"), "{elsewhere}");
        assert!(why("this process, one x86_64 thread").ends_with("computes on the CPU"));
        #[cfg(not(feature = "nvml"))]
        assert!(why("http://127.0.0.1:8000").contains("--features nvml"));
    }
}
