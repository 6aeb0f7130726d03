//! As a table.

use super::fold::listed;
use super::{Gpu, GpuSummary, Level, Sampled};
use crate::study::Grid;
use crate::words;

/// Rows at most.
const ROWS_MAX: usize = 200;

/// What [`row`] gives.
pub const HEAD: [&str; 9] = [
    "run",
    "GPU",
    "utilization",
    "memory",
    "power",
    "clock",
    "memory clock",
    "throttled",
    "what held its clocks down",
];

/// A GPU in a run, as text: means, and in brackets the most, of the clock the least.
pub fn row(run: &str, gpu: &Gpu, summary: &GpuSummary) -> Vec<String> {
    let most = |level: Option<Level>, text: &dyn Fn(f64) -> String| {
        level.map_or("–".to_owned(), |it| format!("{} (max {})", text(it.mean), text(it.max)))
    };
    let least = |level: Option<Level>| {
        level.map_or("–".to_owned(), |it| format!("{:.0} MHz (min {:.0})", it.mean, it.min))
    };
    let gibibytes = |bytes: f64| format!("{:.1} GiB", bytes / f64::from(1 << 30));
    let reasons = listed(summary.reasons.iter());
    vec![
        run.to_owned(),
        format!("{} {}", gpu.index, gpu.name),
        most(summary.utilization, &words::percent),
        most(summary.memory_bytes, &gibibytes),
        most(summary.power_w, &|watts| format!("{watts:.0} W")),
        least(summary.clock_mhz),
        least(summary.memory_clock_mhz),
        summary.throttled.map_or("–".to_owned(), words::percent),
        if reasons.is_empty() { "–".to_owned() } else { reasons },
    ]
}

impl Sampled {
    /// A row a run and GPU.
    pub(crate) fn grid(&self) -> Grid {
        let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
        for run in &self.runs {
            let each = self.gpus.iter().zip(&run.gpus);
            rows.extend(each.map(|(gpu, summary)| row(&run.name, gpu, summary)));
        }
        let all = rows.len() - 1;
        rows.truncate(1 + ROWS_MAX);
        let title = match all > ROWS_MAX {
            true => format!("GPUs beside the live runs: the first {ROWS_MAX} rows of {all}"),
            false => "GPUs beside the live runs".to_owned(),
        };
        Grid { title, rows }
    }
}
