//! Advice on the number of replicas: when, for which pool, how many. The simulated machine keeps
//! its size; what a pool would have done with more is another scenario.

use plimsoll_base::{Scale, Time};

use crate::estimate::tidy;
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::summary::AdviceSummary;
use crate::words;

/// Pieces of advice of a replication that are kept.
pub(crate) const ADVICE_MAX: usize = 1_000;
/// Pieces of advice that a page or a table spells out.
const TOLD_MAX: usize = 6;

/// The advice of all replications, by replication and then in the order of time.
pub(crate) fn advice(plan: &Plan, ledgers: &[Ledger]) -> Vec<AdviceSummary> {
    let of = |(replication, ledger): (usize, &Ledger)| {
        let told = ledger.advice.iter().map(move |(at, scale)| AdviceSummary {
            pool: plan.names.pool(scale.pool),
            present: scale.present,
            wanted: scale.wanted,
            load: tidy(f64::from(scale.load_ppm) / 1e6),
            at_s: tidy(at.secs_f64()),
            replication: replication as u32,
            sentence: sentence(plan, *at, scale),
        });
        told.collect::<Vec<_>>()
    };
    ledgers.iter().enumerate().flat_map(of).collect()
}

/// "12.0 min: gpu wanted 3 more replicas (5, not 2): work for 178 % of what it holds"
fn sentence(plan: &Plan, at: Time, scale: &Scale) -> String {
    let Scale { pool, present, wanted, load_ppm } = *scale;
    let pool = plan.names.pool(pool);
    let difference = wanted.abs_diff(present);
    let replicas = if difference == 1 { "replica" } else { "replicas" };
    let what = match wanted.cmp(&present) {
        std::cmp::Ordering::Greater => {
            format!("{pool} wanted {difference} more {replicas} ({wanted}, not {present})")
        }
        std::cmp::Ordering::Less => {
            format!("{pool} wanted {difference} {replicas} less ({wanted}, not {present})")
        }
        std::cmp::Ordering::Equal => format!("{pool} no longer wanted more or fewer ({present})"),
    };
    let percent = (u64::from(load_ppm) + 5_000) / 10_000;
    format!("{}: {what}: work for {percent} % of what it holds", words::secs(at.secs_f64()))
}

/// The first pieces of advice in words, how many more there are, and that they are only advice.
pub(crate) fn lines(advice: &[AdviceSummary]) -> Vec<String> {
    let told = advice.iter().take(TOLD_MAX).map(|one| one.sentence.clone());
    let mut lines: Vec<String> = told.collect();
    if advice.len() > TOLD_MAX {
        let more = (advice.len() - TOLD_MAX) as u64;
        lines.push(format!("{} more are in summary.json", words::count(more)));
    }
    if !lines.is_empty() {
        lines.push("this is advice: the pools of the simulated machine kept their size".to_owned());
    }
    lines
}
