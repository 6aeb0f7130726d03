//! Progress on stderr, where that is a terminal.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use plimsoll_base::Span;
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

fn millis(span: Span) -> u64 {
    span.nanos() / 1_000_000
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is well formed")
}
