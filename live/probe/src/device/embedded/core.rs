//! A core for the thread that computes alone: on two cores a client that sends, decides and takes
//! down would take turns with it.

/// Takes the last of the cores on which this thread may run from it, and from all threads that it
/// starts from now on, so that another can [`keep`] it. `None` if it has only one, or where the system
/// lets nobody choose.
#[cfg(target_os = "linux")]
pub(super) fn reserve() -> Option<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let mut mine = sched_getaffinity(None).ok().filter(|cores| cores.count() > 1)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|core| mine.is_set(*core))?;
    mine.unset(last);
    sched_setaffinity(None, &mine).ok().map(|()| last)
}

/// This thread runs on that core, which was reserved, and nowhere else.
#[cfg(target_os = "linux")]
pub(super) fn keep(core: usize) {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut only = CpuSet::new();
    only.set(core);
    // It may run there, or nothing would have been reserved.
    let _ = sched_setaffinity(None, &only);
}

#[cfg(not(target_os = "linux"))]
pub(super) fn reserve() -> Option<usize> {
    None
}

#[cfg(not(target_os = "linux"))]
pub(super) fn keep(_: usize) {}
