//! Memory is bounded by what is in flight, not by the length of the run. Linux tells a process's
//! peak while it lives; elsewhere this is skipped. `benches/measure` shows the same in the
//! release build over longer runs.

mod support;

#[cfg(not(target_os = "linux"))]
#[test]
fn peak_memory_does_not_grow_with_the_run() {
    println!("skipped: peak memory is read from /proc");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::support::scenario;

    /// The peak of resident memory in KiB, as last seen a few milliseconds before the end.
    fn peak(duration: &str) -> u64 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        command.arg("run").arg(scenario("small")).args(["--no-files", "--no-gate", "--quiet"]);
        command.arg("--set").arg(format!("run.duration=\"{duration}\""));
        command.args(["--set", "workload.chat.arrivals.rate=\"12/s\""]);
        let mut child = command.stdout(Stdio::null()).spawn().expect("the command starts");
        let status = format!("/proc/{}/status", child.id());
        let mut peak = None;
        while child.try_wait().expect("a child can be waited for").is_none() {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
            peak = kib.or(peak);
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(child.wait().is_ok_and(|status| status.success()));
        peak.expect("the run lasts longer than a look at it")
    }

    #[test]
    fn peak_memory_does_not_grow_with_the_run() {
        // About 20,000 and 160,000 requests; a row of requests.csv each would be 20 MB more.
        let (short, long) = (peak("1700s"), peak("13600s"));
        println!("peak memory: {short} KiB, {long} KiB over a run 8 times as long");
        assert!(long < short + 1024, "{short} KiB grow to {long} KiB");
    }
}
