//! GPUs beside a run, read by a gauge that tells what it is told to.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use plimsoll_probe::telemetry::{Absent, Gauge, beside, remarked};
use plimsoll_report::telemetry::{Gpu, Reading, Throttle};
use support::eventually;

/// Tells one reading after another, and the last for ever.
#[derive(Debug)]
struct Scripted {
    gpus: Vec<Gpu>,
    script: Vec<Reading>,
    /// How long a reading takes.
    takes: Duration,
    reads: Arc<AtomicUsize>,
}

impl Scripted {
    fn new(script: Vec<Reading>) -> Scripted {
        let gpu = Gpu { name: "a GPU".into(), ..Gpu::default() };
        Scripted { gpus: vec![gpu], script, takes: Duration::ZERO, reads: Arc::default() }
    }
}

impl Gauge for Scripted {
    fn gpus(&self) -> &[Gpu] {
        &self.gpus
    }
    fn read(&self) -> Vec<Reading> {
        thread::sleep(self.takes);
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        vec![self.script[number.min(self.script.len() - 1)].clone()]
    }
}

fn watts(power_w: f64, throttles: &[Throttle]) -> Reading {
    let throttles = Some(throttles.to_vec());
    Reading { power_w: Some(power_w), throttles, ..Reading::default() }
}

const PERIOD: Duration = Duration::from_millis(10);

#[test]
fn a_gauge_is_read_for_as_long_as_a_run_goes_on() {
    let gauge = Scripted::new(vec![watts(1.0, &[]), watts(2.0, &[]), watts(3.0, &[])]);
    let reads = Arc::clone(&gauge.reads);
    let began = Instant::now();
    let (made, taken) = beside(&gauge, PERIOD, || {
        eventually("it is read", || reads.load(Ordering::Relaxed) >= 6);
        "made"
    });
    let ended = Instant::now();
    assert_eq!((made, taken.len()), ("made", reads.load(Ordering::Relaxed)));
    let power: Vec<f64> = taken.iter().filter_map(|one| one.readings[0].power_w).collect();
    assert_eq!(power[..4], [1.0, 2.0, 3.0, 3.0], "in the order of time");
    for (number, one) in (0..).zip(&taken) {
        assert!((began + PERIOD * number..=ended).contains(&one.at), "{number} came early");
    }
    thread::sleep(3 * PERIOD);
    assert_eq!(reads.load(Ordering::Relaxed), taken.len(), "it is read no more");
}

#[test]
fn a_run_that_is_over_at_once_is_not_held_up_by_the_period() {
    let gauge = Scripted::new(vec![watts(7.0, &[])]);
    let began = Instant::now();
    let ((), taken) = beside(&gauge, Duration::from_secs(3_600), || {});
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_eq!(taken.len(), 1);
}

#[test]
fn a_gauge_that_is_slower_than_the_period_is_not_read_in_bursts() {
    let gauge = Scripted { takes: 4 * PERIOD, ..Scripted::new(vec![watts(1.0, &[])]) };
    let reads = Arc::clone(&gauge.reads);
    let ((), taken) = beside(&gauge, PERIOD, || {
        eventually("it is read", || reads.load(Ordering::Relaxed) >= 4);
    });
    for pair in taken.windows(2) {
        assert!(pair[1].at - pair[0].at > 4 * PERIOD, "{taken:?}");
    }
}

#[test]
fn a_run_that_panics_ends_the_reading() {
    let gauge = Scripted::new(vec![watts(1.0, &[])]);
    let run = || beside(&gauge, PERIOD, || panic!("on purpose"));
    let died = catch_unwind(AssertUnwindSafe(run)).map(|((), _)| ());
    assert!(died.is_err(), "the panic is passed on");
    let reads = gauge.reads.load(Ordering::Relaxed);
    thread::sleep(3 * PERIOD);
    assert_eq!(gauge.reads.load(Ordering::Relaxed), reads);
}

#[test]
fn what_is_to_say_of_a_run_is_said() {
    let said = |script: Vec<Reading>| {
        let gauge = Scripted::new(script);
        let (made, remarks) = remarked(Ok(&gauge), || 1);
        assert_eq!((made, remarks.len()), (1, 1));
        remarks[0].clone()
    };
    let capped = watts(300.0, &[Throttle::PowerCap]);
    assert_eq!(
        said(vec![capped]),
        "GPU 0 (a GPU) was throttled 100 % of the time: power cap 100 %"
    );
    let set = watts(300.0, &[Throttle::ApplicationClocks]);
    assert_eq!(said(vec![set]), "GPU 0 (a GPU) was not throttled");
    let mute = Reading::default();
    assert_eq!(said(vec![mute]), "GPU 0 (a GPU) does not say whether it was throttled");
    let (made, remarks) = remarked(Err(Absent::NoGpu), || 2);
    assert_eq!((made, remarks), (2, vec![Absent::NoGpu.to_string()]));
}

/// NVML's own calls, against a library that stands in for it.
#[cfg(feature = "nvml")]
mod nvml {
    use std::path::Path;
    use std::process::Command;

    use plimsoll_probe::telemetry::{Absent, Gauge, Nvml};
    use plimsoll_report::telemetry::{Reading, Throttle};

    /// Two GPUs, of which the second tells nothing but its name; `None`, and a word about it, where
    /// there is no C compiler.
    fn library(folder: &Path, count: u32) -> Option<std::path::PathBuf> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nvml.c");
        let library = folder.join(format!("libnvml-{count}.so"));
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", &format!("-DCOUNT={count}"), "-o"]);
        match command.arg(&library).arg(source).status() {
            Ok(status) => assert!(status.success(), "the library cannot be built"),
            Err(error) => {
                println!("skipped: there is no C compiler ({error})");
                return None;
            }
        }
        Some(library)
    }

    #[test]
    fn what_nvml_tells_is_read_in_our_units() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let Some(library) = library(folder.path(), 2) else { return };
        let gauge = Nvml::open_at(library.as_os_str()).expect("the library is one");
        let [first, second] = gauge.gpus() else { panic!("there are two: {:?}", gauge.gpus()) };
        assert_eq!((first.index, &first.name[..]), (0, "Stand-in 0"));
        assert_eq!((first.memory_bytes, first.power_limit_w), (Some(80 << 30), Some(700.0)));
        assert_eq!((second.index, second.memory_bytes, second.power_limit_w), (1, None, None));
        let told = Reading {
            utilization: Some(0.93),
            memory_bytes: Some(f64::from(1 << 30) * 24.0),
            power_w: Some(412.5),
            clock_mhz: Some(1_410.0),
            memory_clock_mhz: Some(2_619.0),
            // The library says that it is idle as well, which is no reason.
            throttles: Some(vec![Throttle::PowerCap, Throttle::HardwareThermal]),
        };
        assert_eq!(gauge.read(), [told, Reading::default()]);
    }

    #[test]
    fn a_library_that_is_none_or_knows_of_none_is_named() {
        let none = Nvml::open_at("libthere-is-none.so".as_ref()).expect_err("there is none");
        assert!(matches!(none, Absent::NoLibrary(_)), "{none}");
        let folder = tempfile::tempdir().expect("a folder can be made");
        let Some(library) = library(folder.path(), 0) else { return };
        let nobody = Nvml::open_at(library.as_os_str()).expect_err("it knows of none");
        assert_eq!(nobody, Absent::NoGpu);
    }
}
