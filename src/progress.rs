//! Progress on stderr, where that is a terminal.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use plimsoll_base::Span;
use plimsoll_planner::sweep::{Advance, SweepWatch};
use plimsoll_planner::{Progress, Watch};

use crate::interrupt;

/// A bar over simulated time, or a counter of requests where the end is not known.
pub struct Bar {
    bar: ProgressBar,
    seen: Mutex<Vec<(u64, u64)>>,
    duration: Option<Span>,
}

impl Bar {
    /// A bar for this many replications of a scenario that lasts `duration`.
    pub fn new(replications: u32, duration: Option<Span>, quiet: bool) -> Bar {
        let shown = !quiet && std::io::stderr().is_terminal();
        let bar = match duration {
            _ if !shown => ProgressBar::hidden(),
            Some(span) => ProgressBar::new(u64::from(replications) * millis(span))
                .with_style(style("{bar:32} {percent:>3} %  {msg}  {eta} left")),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {msg}")),
        };
        Bar { bar, seen: Mutex::new(vec![(0, 0); replications as usize]), duration }
    }
    /// So many replications are wanted now.
    pub fn expect(&self, replications: u32) {
        let mut seen = self.seen.lock().expect("no thread panics while it holds the lock");
        if seen.len() < replications as usize {
            seen.resize(replications as usize, (0, 0));
            if let Some(span) = self.duration {
                self.bar.set_length(u64::from(replications) * millis(span));
            }
        }
    }
    /// Takes the bar off the screen.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Watch for Bar {
    fn stop(&self) -> bool {
        interrupt::asked()
    }
    fn progress(&self, progress: Progress) {
        if self.bar.is_hidden() {
            return;
        }
        let mut seen = self.seen.lock().expect("no thread panics while it holds the lock");
        let end = self.duration.map_or(u64::MAX, millis);
        let now = progress.now.nanos() / 1_000_000;
        seen[progress.replication as usize] =
            (if progress.done { end } else { now.min(end) }, progress.offered);
        let (at, offered) =
            seen.iter().fold((0u64, 0u64), |sum, one| (sum.0.saturating_add(one.0), sum.1 + one.1));
        self.bar.set_position(at);
        self.bar.set_message(format!("{offered} requests"));
    }
}

/// A counter of runs, where nobody knows how many there will be.
pub struct Counter {
    bar: ProgressBar,
    runs: AtomicU64,
}

impl Counter {
    /// At nought.
    pub fn new(quiet: bool) -> Counter {
        let shown = !quiet && std::io::stderr().is_terminal();
        let bar = match shown {
            true => ProgressBar::new_spinner().with_style(style("{spinner} {msg}, {elapsed}")),
            false => ProgressBar::hidden(),
        };
        Counter { bar, runs: AtomicU64::new(0) }
    }
    /// Takes it off the screen.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Watch for Counter {
    fn stop(&self) -> bool {
        interrupt::asked()
    }
    fn progress(&self, progress: Progress) {
        if progress.done {
            let runs = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
            self.bar.set_message(format!("{runs} runs"));
        }
        self.bar.tick();
    }
}

/// A bar over the replications of a sweep.
pub struct SweepBar {
    bar: ProgressBar,
    /// What each worker has done of its replication, in thousandths.
    parts: Vec<AtomicU64>,
    cells: u64,
    before: u64,
}

impl SweepBar {
    /// A bar for `cells` of which `before` were done, each of so many replications, and for so many
    /// workers.
    pub fn new(
        (cells, before): (u64, u64),
        replications: u32,
        workers: usize,
        quiet: Quiet,
    ) -> SweepBar {
        let shown = quiet == Quiet::No && std::io::stderr().is_terminal();
        let bar = match shown {
            false => ProgressBar::hidden(),
            true => ProgressBar::new(1000 * (cells - before) * u64::from(replications))
                .with_style(style("{bar:32} {percent:>3} %  {msg}  {eta} left")),
        };
        let parts = (0..workers).map(|_| AtomicU64::new(0)).collect();
        SweepBar { bar, parts, cells, before }
    }
    /// Takes the bar off the screen.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl SweepWatch for SweepBar {
    fn stop(&self) -> bool {
        interrupt::asked()
    }
    fn advanced(&self, advance: Advance) {
        if self.bar.is_hidden() {
            return;
        }
        let part = (advance.part * 1000.0) as u64;
        self.parts[advance.worker].store(part, Ordering::Relaxed);
        let parts: u64 = self.parts.iter().map(|part| part.load(Ordering::Relaxed)).sum();
        self.bar.set_position(1000 * advance.units + parts);
        self.bar.set_message(format!("{} of {} cells", self.before + advance.cells, self.cells));
    }
}

/// Whether nothing is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// Nothing is.
    Yes,
    /// What a terminal can show is.
    No,
}

fn millis(span: Span) -> u64 {
    span.nanos() / 1_000_000
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is well formed")
}
