//! Who waited, for what, and whether that was starvation, shortage or bad luck.

use plimsoll_base::{Bound, Span, Time};

use crate::estimate::{percentile, seconds, tidy};
use crate::flow::Drought;
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::summary::{
    ClassSummary, Fate, ObjectiveResult, ObjectiveVerdict, Overload, Summary, WaitedFor, Waiting,
    WithoutService, WorstWaitSummary,
};
use crate::tally::{Tally, WAIT_ENGINE, WAIT_TURN, WAITS};
use crate::words;

/// What the fate of each class is judged by.
pub(crate) struct Bench<'a> {
    pub plan: &'a Plan,
    pub ledgers: &'a [Ledger],
    /// One a class row, over all replications.
    pub pooled: &'a [Tally],
    /// All classes together.
    pub run: &'a Tally,
}

impl Bench<'_> {
    /// The longest that a class may go without service: its `wait_max`; without one, ten times
    /// the median queue time of the run, at least a second.
    fn patience(&self, row: usize) -> Span {
        let own = self.plan.classes.get(row).and_then(|class| class.wait_max);
        own.unwrap_or_else(|| {
            let median = percentile((&self.run.queue).into(), 50.0).map_or(0, |(nanos, _)| nanos);
            Span::from_nanos(median).saturating_mul(10).max(Span::from_secs(1))
        })
    }

    /// The longest drought of a class over all replications, and in which.
    fn drought(&self, row: usize) -> Option<(u32, Drought)> {
        let found = self.ledgers.iter().enumerate().filter_map(|(replication, ledger)| {
            Some((replication as u32, ledger.classes[row].flow.longest?))
        });
        found.reduce(|a, b| if b.1.span() > a.1.span() { b } else { a })
    }

    fn engine_share(&self, row: usize) -> Option<f64> {
        let busy = |row: usize| -> f64 {
            self.ledgers.iter().map(|ledger| ledger.classes[row].flow.busy.secs_f64()).sum()
        };
        let all: f64 = (0..self.plan.classes.len()).map(busy).sum();
        (all > 0.0).then(|| tidy(busy(row) / all))
    }

    fn entitlement(&self, row: usize) -> f64 {
        let weights: u32 = self.plan.classes.iter().map(|class| class.weight).sum();
        let own = self.plan.classes.get(row).map_or(0, |class| class.weight);
        tidy(f64::from(own) / f64::from(weights.max(1)))
    }

    /// The class that took the most beyond its entitlement, other than `row`.
    fn largest_taker(&self, row: usize) -> Option<(usize, f64)> {
        let beyond = |other: usize| {
            let share = self.engine_share(other)?;
            Some((other, share, share - self.entitlement(other)))
        };
        let others = (0..self.plan.classes.len()).filter(|&other| other != row).filter_map(beyond);
        let taker = others.max_by(|a, b| a.2.total_cmp(&b.2))?;
        (taker.2 > 0.0).then_some((taker.0, taker.1))
    }

    /// The classes served while `row` was not: those let in, or those that used engine time.
    fn served_meanwhile(&self, row: usize, (replication, drought): (u32, Drought)) -> Vec<String> {
        let series = self.ledgers[replication as usize].series();
        let width = series.width().nanos();
        let (first, last) = (drought.from.nanos() / width, drought.to.nanos() / width);
        let served = |other: &usize| {
            let bins = series.class_bins(*other);
            let last = (last as usize).min(bins.len() - 1);
            bins[(first as usize).min(last)..=last].iter().any(|bin| match drought.in_engine {
                true => bin.busy > Span::ZERO,
                false => bin.dispatched > 0,
            })
        };
        let others = (0..self.plan.classes.len()).filter(|&other| other != row).filter(served);
        others.map(|other| self.plan.names.classes[other].clone()).collect()
    }

    /// Who waited for what in one class.
    pub fn waiting(
        &self,
        row: usize,
        overload: Option<&Overload>,
        objectives: &[ObjectiveResult],
    ) -> Waiting {
        let tally = &self.pooled[row];
        let drought = self.drought(row);
        let patience = self.patience(row);
        let worst = tally.worst.map(|worst| worst.wait).unwrap_or_default();
        let starved =
            drought.is_some_and(|(_, drought)| drought.span() > patience && drought.others_served);
        let fate = if starved {
            Fate::Starved
        } else if overload.is_some() {
            Fate::Overload
        } else if worst > patience {
            Fate::Unlucky
        } else {
            Fate::Fine
        };
        let mut waiting = Waiting {
            fate,
            sentence: String::new(),
            longest_without_service: drought.map(|found| self.without_service(row, found)),
            worst_wait: self.worst_wait(row),
            engine_share: self.engine_share(row),
            entitlement: self.entitlement(row),
            waited_for: waited_for(tally),
            due: tally.due,
        };
        waiting.sentence = self.sentence(row, &waiting, overload, objectives);
        waiting
    }

    fn without_service(&self, row: usize, found: (u32, Drought)) -> WithoutService {
        let (replication, drought) = found;
        WithoutService {
            seconds: seconds(drought.span().nanos() as f64),
            from_s: at(drought.from),
            waiting: drought.waiting,
            replication,
            in_engine: drought.in_engine,
            served_meanwhile: self.served_meanwhile(row, found),
        }
    }

    fn worst_wait(&self, row: usize) -> Option<WorstWaitSummary> {
        let worst = self.pooled[row].worst.filter(|worst| worst.wait > Span::ZERO)?;
        let of = |ledger: &Ledger| ledger.classes[row].count.worst.map(|worst| worst.wait);
        let replication = self.ledgers.iter().position(|ledger| of(ledger) == Some(worst.wait));
        Some(WorstWaitSummary {
            seconds: seconds(worst.wait.nanos() as f64),
            at_least: worst.record.started.is_none(),
            request: worst.record.id.0,
            tenant: self.plan.names.tenant(worst.record.tenant),
            arrived_s: at(worst.record.arrived),
            replication: replication.expect("the worst of all is the worst of one") as u32,
        })
    }

    fn sentence(
        &self,
        row: usize,
        waiting: &Waiting,
        overload: Option<&Overload>,
        objectives: &[ObjectiveResult],
    ) -> String {
        let name = self.plan.names.classes.get(row).map_or("unclassified", String::as_str);
        let missed = objectives.iter().find(|o| o.result == ObjectiveVerdict::Fail);
        let mut clauses = Vec::new();
        let troubled = waiting.fate != Fate::Fine || missed.is_some();
        clauses.extend(self.fate_clause(row, waiting, overload));
        clauses.extend(missed.or(objectives.first()).map(|o| words::against(o, "against")));
        if waiting.fate != Fate::Starved {
            clauses.extend(waiting.worst_wait.as_ref().map(|worst| {
                let at_least = if worst.at_least { "at least " } else { "" };
                format!("the longest wait was {at_least}{}", words::secs(worst.seconds))
            }));
        }
        if waiting.due > 0 {
            clauses.push(format!("the guard let {} due requests in", words::count(waiting.due)));
        }
        if troubled {
            clauses.extend(waited_clause(waiting));
            clauses.extend(self.largest_taker(row).map(|(other, share)| {
                format!(
                    "{} used {} of the engine time with weight {} of {}",
                    self.plan.names.classes[other],
                    words::percent(share),
                    self.plan.classes[other].weight,
                    self.plan.classes.iter().map(|class| class.weight).sum::<u32>(),
                )
            }));
            clauses.extend(self.advice(row, waiting));
        }
        if clauses.is_empty() {
            clauses.push("nobody waited".to_owned());
        }
        format!("{name}: {}.", clauses.join("; "))
    }

    fn fate_clause(
        &self,
        row: usize,
        waiting: &Waiting,
        overload: Option<&Overload>,
    ) -> Option<String> {
        match waiting.fate {
            Fate::Starved => {
                let gap = waiting.longest_without_service.as_ref()?;
                let what = if gap.in_engine { "got engine time" } else { "was let in" };
                Some(format!(
                    "starved: no request {what} for {} while {} waited and {} {} served \
                     (patience {})",
                    words::secs(gap.seconds),
                    words::count(gap.waiting),
                    words::list(&gap.served_meanwhile),
                    if gap.served_meanwhile.len() == 1 { "was" } else { "were" },
                    words::round_secs(self.patience(row).secs_f64()),
                ))
            }
            Fate::Overload => overload.map(|half| {
                format!(
                    "overload: in the second half of the arrivals {} came and {} closed, so the \
                     queue grows and there is no steady state",
                    words::count(half.arrived),
                    words::count(half.closed),
                )
            }),
            Fate::Unlucky => Some(format!(
                "unlucky: the class was served, single requests waited longer than {}",
                words::round_secs(self.patience(row).secs_f64()),
            )),
            Fate::Fine => None,
        }
    }

    fn advice(&self, row: usize, waiting: &Waiting) -> Option<String> {
        let class = self.plan.classes.get(row)?;
        match waiting.fate {
            Fate::Starved if !class.guarded => Some("a guard would bound this wait".to_owned()),
            Fate::Starved => Some("the guard is on, but its share is too small".to_owned()),
            Fate::Overload => Some("this is shortage: add capacity or shed".to_owned()),
            Fate::Unlucky | Fate::Fine => None,
        }
    }
}

/// What a table says of a class: a word that a style may go by, and the text.
pub(crate) fn status(summary: &Summary, class: &ClassSummary) -> (&'static str, String) {
    let missed = (summary.objectives.iter())
        .any(|o| o.class == class.name && o.result == ObjectiveVerdict::Fail);
    match (class.waiting.fate, class.overload) {
        (Fate::Overload, _) => (Fate::Overload.word(), "OVERLOADED".to_owned()),
        (fate, Some(_)) => (Fate::Overload.word(), format!("{}, OVERLOADED", fate.word())),
        (Fate::Fine, None) if missed => ("misses", "misses SLO".to_owned()),
        (fate, None) => (fate.word(), fate.word().to_owned()),
    }
}

fn at(time: Time) -> f64 {
    tidy(time.secs_f64())
}

/// The word for each kind of wait.
pub(crate) fn wait_name(cause: usize) -> &'static str {
    match cause {
        WAIT_TURN => "turn",
        WAIT_ENGINE => "engine_queue",
        bound => Bound::ALL[bound].name(),
    }
}

/// In plain words, as in "it waited for …".
pub(crate) fn wait_words(name: &str) -> &str {
    match name {
        "seats" => "seats",
        "kv_memory" => "KV memory",
        "class_requests" => "its class's cap of requests",
        "class_tokens" => "its class's cap of tokens",
        "no_backend" => "a backend",
        "turn" => "its turn",
        "engine_queue" => "the engine's own queue",
        other => other,
    }
}

fn waited_for(tally: &Tally) -> Vec<WaitedFor> {
    let mut causes: Vec<WaitedFor> = (0..WAITS)
        .filter(|&cause| tally.waited[cause].requests > 0)
        .map(|cause| {
            let waited = &tally.waited[cause];
            WaitedFor {
                what: wait_name(cause).to_owned(),
                requests: waited.requests,
                seconds: seconds(waited.nanos as f64),
                seconds_of_missed: seconds(waited.nanos_of_missed as f64),
            }
        })
        .collect();
    causes.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    causes
}

/// "it waited for seats (93 % of its waiting time)"
fn waited_clause(waiting: &Waiting) -> Option<String> {
    let all: f64 = waiting.waited_for.iter().map(|waited| waited.seconds).sum();
    let most = waiting.waited_for.first()?;
    Some(format!(
        "it waited for {} ({} of its waiting time)",
        wait_words(&most.what),
        words::percent(most.seconds / all),
    ))
}
