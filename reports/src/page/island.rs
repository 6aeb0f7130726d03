//! The data that the page's script draws from, as JSON beside the page: series, and who waited on
//! whom between marks. Small whatever the length of the run.

use serde_json::{Value, json};

use crate::bins::ClassBin;
use crate::blame::{Cause, told};
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::summary::BlameKind;

/// Numbers of series at most: bins are merged until they fit.
const NUMBERS_MAX: usize = 24_000;
/// Classes at most; those that are left out are named nowhere in it.
const CLASSES_MAX: usize = 40;

/// As it stands within a script element: no `<` of a name can end it.
pub(super) fn island(plan: &Plan, ledger: &Ledger) -> String {
    let series = ledger.series();
    let shown = plan.classes.len().min(CLASSES_MAX);
    let bins = series.class_bins(0).len();
    let step = bins.div_ceil((NUMBERS_MAX / (2 * shown + plan.pools.len()).max(1)).max(8)).max(1);
    let starts: Vec<f64> =
        (0..bins).step_by(step).map(|bin| round(series.start(bin).secs_f64())).collect();
    let classes: Vec<Value> = (0..shown)
        .map(|row| {
            let of = |value: fn(&ClassBin) -> f64| -> Vec<f64> {
                let most = |bins: &[ClassBin]| {
                    bins.iter().filter(|bin| bin.samples > 0).map(value).fold(0.0, f64::max)
                };
                series.class_bins(row).chunks(step).map(most).map(round).collect()
            };
            json!({
                "name": plan.names.classes[row],
                "waiting": of(|bin| (bin.queued + bin.engine_waiting) as f64 / bin.samples as f64),
                "oldest": of(|bin| bin.oldest_wait.secs_f64()),
            })
        })
        .collect();
    let pools: Vec<Value> = (0..plan.pools.len())
        .map(|row| {
            let tokens = plan.pools[row].kv_tokens as f64;
            let share = |bins: &[crate::bins::PoolBin]| {
                let held: u64 = bins.iter().map(|bin| bin.kv_token_millis).sum();
                let there: f64 = bins.iter().map(|bin| bin.observed.millis_f64()).sum();
                if there > 0.0 { round(held as f64 / (tokens * there)) } else { 0.0 }
            };
            let kv: Vec<f64> = series.pool_bins(row).chunks(step).map(share).collect();
            json!({ "name": plan.names.pools[row], "kv": kv })
        })
        .collect();
    let (causes, marks) = marks(plan, ledger, shown);
    let all = json!({
        "end": ledger.now().secs_f64(),
        "from": ledger.measured_from().secs_f64(),
        "starts": starts,
        "classes": classes,
        "pools": pools,
        "causes": causes,
        "marks": marks,
    });
    all.to_string().replace('<', "\\u003c").replace('&', "\\u0026")
}

/// Causes in words, and at each mark the seconds of waiting since the mark before: victim, cause,
/// seconds.
fn marks(plan: &Plan, ledger: &Ledger, shown: usize) -> (Vec<Value>, Vec<Value>) {
    let Some(blame) = &ledger.blame else { return (Vec::new(), Vec::new()) };
    let mut causes: Vec<(Cause, Option<usize>)> = Vec::new();
    let mut marks = Vec::new();
    for (at, grown) in blame.stretches() {
        let mut parts: Vec<Value> = Vec::new();
        for (victim, cause, seconds) in grown.into_iter().filter(|part| part.0 < shown) {
            // Within its own class it does not matter whether it held more than its share.
            let own = told::is_own(cause, victim);
            let key = match cause {
                Cause::Above(resource, class) if own => Cause::Within(resource, class),
                other => other,
            };
            let key = (key, own.then_some(victim));
            let place = causes.iter().position(|known| *known == key).unwrap_or_else(|| {
                causes.push(key);
                causes.len() - 1
            });
            parts.push(json!([victim, place, round(seconds)]));
        }
        marks.push(json!([round(at.secs_f64()), parts]));
    }
    let words = |&(cause, own): &(Cause, Option<usize>)| {
        let (kind, who, on) = told::named(plan, cause, own);
        json!([who, on, kind.words(), kind == BlameKind::AboveShare])
    };
    (causes.iter().map(words).collect(), marks)
}

/// Four digits are more than a screen shows.
fn round(x: f64) -> f64 {
    format!("{x:.3e}").parse().expect("a formatted float parses")
}
