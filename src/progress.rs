//! Progress on stderr, where that is a terminal.

use std::io::IsTerminal as _;
use std::sync::Mutex;

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

fn millis(span: Span) -> u64 {
    span.nanos() / 1_000_000
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is well formed")
}
