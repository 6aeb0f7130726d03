//! The detector's alarms: when, whom it hurts, who does it, on what.

use plimsoll_base::{Alarm, AlarmKind, Bound, ClassId, Time};

use crate::blame::told::resource_words;
use crate::estimate::tidy;
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::summary::AlarmSummary;
use crate::words;

/// Alarms of a replication that are kept.
pub(crate) const ALARMS_MAX: usize = 1_000;
/// Alarms that a page or a table spells out.
const TOLD_MAX: usize = 6;

/// The alarms of all replications, by replication and then in the order of time.
pub(crate) fn alarms(plan: &Plan, ledgers: &[Ledger]) -> Vec<AlarmSummary> {
    let of = |(replication, ledger): (usize, &Ledger)| {
        let told = ledger.alarms.iter().map(move |(at, alarm)| {
            let name = |class: ClassId| plan.names.class(class);
            AlarmSummary {
                kind: alarm.kind.name().to_owned(),
                class: name(alarm.victim),
                culprit: alarm.culprit.map(name),
                resource: alarm.resource.map(|bound| bound.name().to_owned()),
                at_s: seconds(*at),
                since_s: seconds(alarm.since),
                replication: replication as u32,
                sentence: sentence(plan, *at, alarm),
            }
        });
        told.collect::<Vec<_>>()
    };
    ledgers.iter().enumerate().flat_map(of).collect()
}

fn seconds(time: Time) -> f64 {
    tidy(time.secs_f64())
}

/// "15.3 min: chat got too much less than its share of the seats; batch held most for its weight"
fn sentence(plan: &Plan, at: Time, alarm: &Alarm) -> String {
    let class = plan.names.class(alarm.victim);
    let on = alarm.resource.map_or("what it waited for", |bound| resource_words(bound.name()));
    let what = match alarm.kind {
        AlarmKind::NoService => format!("none of {class} was let in for too long"),
        AlarmKind::Lag => format!("{class} got too much less than its share of {on}"),
        AlarmKind::Deadline => {
            format!("whoever joins the queue of {class} will miss its deadline")
        }
        AlarmKind::Livelock => {
            format!("{class} is preempted again and again, and none of it finishes")
        }
        AlarmKind::Idle => format!("{class} waits, {on} are free, and nobody is let in"),
        AlarmKind::Inversion => {
            format!("less important work held {on} for too long while {class} waited")
        }
    };
    let who = match alarm.culprit {
        Some(culprit) if culprit == alarm.victim => {
            format!("; its own limit stops it ({})", alarm.resource.map_or("", Bound::name))
        }
        Some(culprit) => format!("; {} held most for its weight", plan.names.class(culprit)),
        None => String::new(),
    };
    format!("{}: {what}{who}", words::secs(at.secs_f64()))
}

/// The first alarms in words, and how many more there are.
pub(crate) fn lines(alarms: &[AlarmSummary]) -> Vec<String> {
    let several = alarms.iter().any(|alarm| alarm.replication > 0);
    let told = |alarm: &AlarmSummary| match several {
        true => format!("replication {}, {}", alarm.replication + 1, alarm.sentence),
        false => alarm.sentence.clone(),
    };
    let mut lines: Vec<String> = alarms.iter().take(TOLD_MAX).map(told).collect();
    if alarms.len() > TOLD_MAX {
        let more = (alarms.len() - TOLD_MAX) as u64;
        lines.push(format!("{} more are in summary.json", words::count(more)));
    }
    lines
}
