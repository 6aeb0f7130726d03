//! `timeseries.csv`: what classes and pools did over time, in long form.

use std::io::{self, Write};

use plimsoll_base::Span;

use crate::bins::Series;
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::rows::{Line, field};

/// The columns of `timeseries.csv`. A row is one class or one pool in one bin; what does not
/// apply to it, or was not sampled in the bin, is empty.
pub const COLUMNS: &str = "replication,from_s,to_s,kind,name,arrived,dispatched,finished,queued,\
engine_waiting,running,oldest_wait_s,busy_share,kv_share";

/// Writes the time series of all replications.
///
/// # Errors
/// Those of the writer.
pub fn write_timeseries(plan: &Plan, ledgers: &[Ledger], mut out: impl Write) -> io::Result<()> {
    writeln!(out, "{COLUMNS}")?;
    let mut buffer = Vec::new();
    for (replication, ledger) in ledgers.iter().enumerate() {
        let series = ledger.series();
        for (row, name) in plan.names.classes.iter().enumerate().take(plan.classes.len()) {
            class_rows(&mut buffer, replication, (&field(name), row), (plan, series));
        }
        for (row, name) in plan.names.pools.iter().enumerate().take(plan.pools.len()) {
            pool_rows(&mut buffer, replication, (&field(name), row), (plan, series));
        }
        out.write_all(&buffer)?;
        buffer.clear();
    }
    out.flush()
}

fn begin<'a>(
    buffer: &'a mut Vec<u8>,
    replication: usize,
    (kind, name): (&str, &str),
    (series, bin): (&Series, usize),
) -> Line<'a> {
    let mut line = Line(buffer);
    line.integer(replication as u64);
    line.nanos(Some(series.start(bin).nanos()));
    line.nanos(Some(series.start(bin + 1).nanos()));
    line.text(kind);
    line.text(name);
    line
}

fn class_rows(
    buffer: &mut Vec<u8>,
    replication: usize,
    (name, row): (&str, usize),
    (plan, series): (&Plan, &Series),
) {
    // The share of all replicas' time.
    let there_is = series.width().secs_f64() * f64::from(plan.replicas().max(1));
    for (number, bin) in series.class_bins(row).iter().enumerate() {
        let mut line = begin(buffer, replication, ("class", name), (series, number));
        line.integer(bin.arrived);
        line.integer(bin.dispatched);
        line.integer(bin.finished);
        let engines = plan.sees_engines();
        for (sum, is_seen) in
            [(bin.queued, true), (bin.engine_waiting, engines), (bin.running, true)]
        {
            let is_seen = is_seen && bin.samples > 0;
            line.share(is_seen.then(|| sum as f64 / bin.samples as f64));
        }
        line.nanos((bin.samples > 0).then(|| bin.oldest_wait.nanos()));
        line.share(engines.then(|| bin.busy.secs_f64() / there_is));
        line.text("");
        line.end();
    }
}

fn pool_rows(
    buffer: &mut Vec<u8>,
    replication: usize,
    (name, row): (&str, usize),
    (plan, series): (&Plan, &Series),
) {
    let replicas = f64::from(plan.pools[row].replicas);
    for (number, bin) in series.pool_bins(row).iter().enumerate() {
        let mut line = begin(buffer, replication, ("pool", name), (series, number));
        for _ in 0..4 {
            line.text("");
        }
        for sum in [bin.waiting, bin.running] {
            // A reading is of one replica; the row is of all.
            line.share((bin.samples > 0).then(|| sum as f64 / bin.samples as f64 * replicas));
        }
        line.text("");
        let observed = bin.observed > Span::ZERO;
        let is_seen = observed && plan.sees_engines();
        line.share(is_seen.then(|| bin.busy.secs_f64() / bin.observed.secs_f64()));
        let capacity = plan.pools[row].kv_tokens as f64 * bin.observed.millis_f64();
        line.share((capacity > 0.0).then(|| bin.kv_token_millis as f64 / capacity));
        line.end();
    }
}
