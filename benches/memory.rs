//! The peak of resident memory in the length of the run. Not a time: it prints the peak of this
//! process after runs of rising length; what grows with the length would show as a rise.
//!
//! `cargo bench --bench memory`; Linux only, elsewhere it is skipped.

mod scenario;

use scenario::{Run, pipeline, sized};

/// In MiB; `None` where the system does not tell.
fn peak() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}

fn main() {
    for replicas in [1, 8] {
        for requests in [100_000, 400_000, 1_600_000] {
            let offered = Run::load(&pipeline(), &sized(replicas, requests)).requests();
            match peak() {
                Some(peak) => {
                    println!("  {replicas} replicas, {offered:>9} requests {peak:21.1} MiB");
                }
                None => println!("  skipped: this system does not tell the peak of memory"),
            }
        }
    }
}
