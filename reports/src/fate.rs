//! Who waited, for what, and whether that was starvation, shortage or bad luck.

use std::borrow::Cow;

use plimsoll_base::{Bound, Span, Time};

use crate::blame::{service, told};
use crate::estimate::{estimate, percentile, seconds, tidy};
use crate::fairness::{Gap, Lag, jain};
use crate::flow::Drought;
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::summary::{
    BlamedPart, BookedGap, ClassSummary, Estimate, Fairness, Fate, LagSummary, Meanwhile,
    ObjectiveResult, ObjectiveVerdict, Overload, ServiceGap, StarvedBy, Summary, Survival,
    WaitedFor, Waiting, WithoutService, WorstWaitSummary,
};
use crate::tally::{Tally, WAIT_ENGINE, WAIT_TURN, WAITS};
use crate::{survival, words};

/// How to try another policy on a log.
pub(crate) const REPLAY: &str =
    " `plimsoll replay LOG --policy OTHER` shows what another policy would do with these requests.";

/// What the fate of each class is judged by.
pub(crate) struct Bench<'a> {
    pub plan: &'a Plan,
    pub ledgers: &'a [Ledger],
    /// One a class row, over all replications.
    pub pooled: &'a [Cow<'a, Tally>],
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

    /// What the other classes held while `row` waited: each bin counts as much as it holds of the
    /// row's waiting time.
    fn meanwhile(&self, row: usize) -> Vec<Meanwhile> {
        let rows = self.plan.classes.len();
        let (mut seats, mut busy) = (vec![0.0; rows], vec![0.0; rows]);
        for ledger in self.ledgers {
            let series = ledger.series();
            let first = ledger.measured_from().nanos().div_ceil(series.width().nanos()) as usize;
            for (number, own) in series.class_bins(row).iter().enumerate().skip(first) {
                if own.samples == 0 {
                    continue;
                }
                let waiting = own.queued as f64 / own.samples as f64 * series.width().secs_f64();
                for other in 0..rows {
                    let bin = &series.class_bins(other)[number];
                    let held = (bin.running + bin.engine_waiting) as f64;
                    seats[other] += waiting * held / bin.samples.max(1) as f64;
                    busy[other] += waiting * bin.busy.secs_f64();
                }
            }
        }
        let part = |parts: &[f64], of: usize| {
            let all: f64 = parts.iter().sum();
            if all > 0.0 { tidy(parts[of] / all) } else { 0.0 }
        };
        let held = |other: usize| Meanwhile {
            class: self.plan.names.classes[other].clone(),
            seat_share: part(&seats, other),
            engine_share: self.plan.sees_engines().then(|| part(&busy, other)),
            entitlement: self.entitlement(other),
        };
        let mut others: Vec<Meanwhile> =
            (0..rows).filter(|&other| other != row).map(held).collect();
        others.retain(|other| other.seat_share > 0.0);
        let beyond = |other: &Meanwhile| other.seat_share - other.entitlement;
        others.sort_by(|a, b| beyond(b).total_cmp(&beyond(a)));
        others
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
        let lag = self.lag(row);
        let starved =
            drought.is_some_and(|(_, drought)| drought.span() > patience && drought.others_served);
        let behind = !self.plan.owes_others
            && worst > patience
            && lag.as_ref().is_some_and(|l| l.seconds > 2.0 * l.largest_request_s);
        let starved_by = match (starved, behind) {
            (true, _) => Some(StarvedBy::NoService),
            (false, true) => Some(StarvedBy::Lag),
            (false, false) => None,
        };
        let fate = if starved_by.is_some() {
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
            starved_by,
            sentence: String::new(),
            longest_without_service: drought.map(|found| self.without_service(row, found)),
            worst_wait: self.worst_wait(row),
            engine_share: self.engine_share(row),
            entitlement: self.entitlement(row),
            waited_for: waited_for(tally),
            waited_nanos: waited(tally),
            blame: self.blame(row),
            meanwhile: self.meanwhile(row),
            due: tally.due,
            survival: survival(tally),
            inversion_seat_s: self.inversion(row),
            oldest_at_end_s: (tally.queue.censored.count() > 0)
                .then(|| seconds(tally.queue.censored.max() as f64)),
            unfair_idle_s: self.unfair_idle(row),
            lag,
        };
        waiting.sentence = self.sentence(row, &waiting, overload, objectives);
        waiting
    }

    /// What its waiting falls on.
    ///
    /// # Panics
    /// If the parts do not sum to the waiting time exactly: time is conserved in every build.
    fn blame(&self, row: usize) -> Vec<BlamedPart> {
        let parts = told::parts(self.plan, self.ledgers, row);
        if self.plan.attribution.is_on() && self.ledgers.iter().all(|ledger| ledger.ended) {
            let all: u64 = parts.iter().map(|part| part.nanos).sum();
            assert_eq!(all, waited(&self.pooled[row]), "the parts of a wait sum to the wait");
        }
        parts
    }

    /// `None` without attribution.
    fn inversion(&self, row: usize) -> Option<f64> {
        let each = self.ledgers.iter().map(|ledger| Some(ledger.blame.as_ref()?.inversion(row)));
        each.sum::<Option<u128>>().map(|nanos| seconds(nanos as f64))
    }

    /// Nothing without attribution.
    fn unfair_idle(&self, row: usize) -> Estimate {
        let idle = |ledger: &Ledger| Some(ledger.blame.as_ref()?.idle(row) as f64 / 1e9);
        let each: Vec<Option<f64>> = self.ledgers.iter().map(idle).collect();
        let all: Option<f64> = each.iter().copied().sum();
        estimate(all.map(|all| all / each.len() as f64), &each)
    }

    /// How far a class fell behind over all replications, and in which.
    fn lag(&self, row: usize) -> Option<LagSummary> {
        let found = self
            .ledgers
            .iter()
            .enumerate()
            .map(|(replication, ledger)| (replication as u32, ledger.fairness.lag(row)));
        let most = |a: (u32, Lag), b: (u32, Lag)| if b.1.seconds > a.1.seconds { b } else { a };
        let (replication, lag) = found.reduce(most).filter(|(_, lag)| lag.seconds > 0.0)?;
        Some(LagSummary {
            seconds: tidy(lag.seconds),
            from_s: at(lag.from),
            to_s: at(lag.to),
            replication,
            largest_request_s: self.largest_request(),
        })
    }

    /// Engine seconds of the largest request, at the run's mean price of a token.
    fn largest_request(&self) -> f64 {
        let busy: f64 = (self.ledgers.iter())
            .flat_map(|ledger| &ledger.backends)
            .map(|backend| backend.used.busy.secs_f64())
            .sum();
        let tokens = (self.run.prompt_tokens + self.run.output_tokens) as f64;
        let largest = self.ledgers.iter().map(|ledger| ledger.largest).max().unwrap_or(0);
        if tokens > 0.0 { tidy(busy / tokens * largest as f64) } else { 0.0 }
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
        // Waiting within what was promised needs no culprit.
        let kept = waiting.fate == Fate::Unlucky
            && !objectives.is_empty()
            && objectives.iter().all(|o| o.result == ObjectiveVerdict::Pass);
        let troubled = (waiting.fate != Fate::Fine && !kept) || missed.is_some();
        clauses.extend(self.fate_clause(row, waiting, overload));
        clauses.extend(missed.or(objectives.first()).map(|o| words::against(o, "against")));
        clauses.extend(waiting.worst_wait.as_ref().map(|worst| {
            let at_least = if worst.at_least { "at least " } else { "" };
            format!("the longest wait was {at_least}{}", words::secs(worst.seconds))
        }));
        if waiting.due > 0 {
            clauses.push(format!(
                "the guard let {} of {} in because they were due",
                words::count(waiting.due),
                words::count(self.pooled[row].outcomes.arrived),
            ));
        }
        if troubled {
            clauses.extend(waited_clause(waiting));
            let blame = told::clause(self.plan, &waiting.blame);
            clauses.extend(blame.or_else(|| meanwhile_clause(waiting, self.weights())));
            clauses.extend(self.advice(row, waiting, (overload, missed.is_some())));
        }
        clauses.extend(self.idle_clause(waiting));
        if clauses.is_empty() {
            clauses.push("nobody waited".to_owned());
        }
        format!("{name}: {}.", clauses.join("; "))
    }

    /// "capacity was free for 41 s of 10 min while the policy held it back", if that is a twentieth.
    fn idle_clause(&self, waiting: &Waiting) -> Option<String> {
        let measured = self.ledgers.iter().map(|ledger| ledger.measured_span().secs_f64());
        let measured = measured.sum::<f64>() / self.ledgers.len() as f64;
        let idle =
            waiting.unfair_idle_s.value.filter(|&idle| idle > 0.0 && idle >= 0.05 * measured)?;
        Some(format!(
            "capacity was free for {} of {} while the policy held it back",
            words::secs(idle),
            words::secs(measured)
        ))
    }

    fn weights(&self) -> u32 {
        self.plan.classes.iter().map(|class| class.weight).sum()
    }

    fn fate_clause(
        &self,
        row: usize,
        waiting: &Waiting,
        overload: Option<&Overload>,
    ) -> Option<String> {
        match waiting.fate {
            Fate::Starved => {
                if waiting.starved_by == Some(StarvedBy::Lag) {
                    return waiting.lag.as_ref().map(lag_clause);
                }
                let gap = waiting.longest_without_service.as_ref()?;
                let what = if gap.in_engine { "got engine time" } else { "was let in" };
                Some(format!(
                    "starved: no request {what} for {} while {} waited and {} {} served \
                     (limit {})",
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
            Fate::Unlucky => {
                let (patience, tally) = (self.patience(row), &self.pooled[row]);
                Some(format!(
                    "served all along, but {} of {} waited longer than {}",
                    words::count(tally.queue.observed.count_above(patience.nanos())),
                    words::count(tally.outcomes.arrived),
                    words::round_secs(patience.secs_f64()),
                ))
            }
            Fate::Fine => None,
        }
    }

    fn advice(
        &self,
        row: usize,
        waiting: &Waiting,
        (overload, missed): (Option<&Overload>, bool),
    ) -> Option<String> {
        let class = self.plan.classes.get(row)?;
        match waiting.fate {
            Fate::Starved if waiting.starved_by == Some(StarvedBy::Lag) => (self.plan.one_queue)
                .then(|| "a share rule with weights would keep each to its share".to_owned()),
            Fate::Starved if !class.guarded => Some("a guard would bound this wait".to_owned()),
            Fate::Starved => Some("the guard is on, but its share is too small".to_owned()),
            Fate::Overload => Some(shortage(overload)),
            Fate::Unlucky | Fate::Fine if missed => {
                let names = &self.plan.names.classes;
                let lesser = |taker: &&Meanwhile| {
                    let other = names.iter().position(|name| *name == taker.class);
                    taker.seat_share > taker.entitlement
                        && other.is_some_and(|o| self.plan.classes[o].priority < class.priority)
                };
                let taker = waiting.meanwhile.iter().find(lesser)?;
                Some(format!(
                    "{} is less important and held more than its weight, so this is the policy's \
                     doing and not shortage alone",
                    taker.class
                ))
            }
            Fate::Unlucky | Fate::Fine => None,
        }
    }
}

/// All queue time together.
fn waited(tally: &Tally) -> u64 {
    let nanos: u128 = tally.waited.iter().map(|waited| waited.nanos).sum();
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

fn survival(tally: &Tally) -> Survival {
    let [p50, p90, p99] = survival::quantiles(&tally.queue)
        .map(|quantile| quantile.map(|nanos| seconds(nanos as f64)));
    Survival { p50, p90, p99 }
}

/// That it is shortage, and how much.
fn shortage(overload: Option<&Overload>) -> String {
    match overload {
        Some(half) if half.closed > 0 && half.arrived > half.closed => {
            let (arrived, closed) = (half.arrived as f64, half.closed as f64);
            format!(
                "this is shortage: add {} of capacity or shed {} of what the class offers",
                words::percent(arrived / closed - 1.0),
                words::percent(1.0 - closed / arrived),
            )
        }
        Some(_) | None => "this is shortage: add capacity or shed".to_owned(),
    }
}

/// "starved: it fell 41 s of engine time behind its share between 5.0 min and 9.1 min"
fn lag_clause(lag: &LagSummary) -> String {
    format!(
        "starved: it was served, but fell {} of engine time behind its share between {} and {} \
         (the largest request takes {})",
        words::secs(lag.seconds),
        words::secs(lag.from_s),
        words::secs(lag.to_s),
        words::secs(lag.largest_request_s),
    )
}

/// How a verdict line says that a class starved, and by whom.
pub(crate) fn starved(class: &ClassSummary) -> String {
    let waiting = &class.waiting;
    let how = match (waiting.starved_by, &waiting.lag) {
        (Some(StarvedBy::Lag), Some(lag)) => format!(
            "{} starved, {} of engine time behind its share",
            class.name,
            words::secs(lag.seconds)
        ),
        (Some(StarvedBy::NoService | StarvedBy::Lag) | None, _) => {
            let gap = waiting.longest_without_service.as_ref().map_or(0.0, |gap| gap.seconds);
            format!("{} starved for {}", class.name, words::secs(gap))
        }
    };
    match told::culprit(&waiting.blame) {
        Some(part) => {
            let who = part.culprit.as_deref().unwrap_or("nobody");
            format!("{how} (because {who} held {})", told::resource_words(&part.resource))
        }
        None => how,
    }
}

/// How evenly the classes of a plan were served, over all replications.
pub(crate) fn fairness(plan: &Plan, ledgers: &[Ledger]) -> Fairness {
    let mut shares: Vec<(f64, f64)> = Vec::new();
    let mut gap: Option<(u32, Gap)> = None;
    for (replication, ledger) in ledgers.iter().enumerate() {
        let fairness = &ledger.fairness;
        shares.resize(plan.class_rows(), (0.0, 0.0));
        for (all, (used, fluid)) in shares.iter_mut().zip(fairness.shares()) {
            (all.0, all.1) = (all.0 + used, all.1 + fluid);
        }
        if let Some(found) = fairness.gap()
            && gap.is_none_or(|(_, gap)| found.seconds > gap.seconds)
        {
            gap = Some((replication as u32, found));
        }
    }
    shares.retain(|share| share.1 > 0.0);
    let booked_gap = booked_gap(plan, ledgers);
    let name = |row: usize| plan.names.classes.get(row).map_or("unclassified", String::as_str);
    Fairness {
        jain: jain(&shares).map(tidy),
        service_gap: gap.map(|(replication, gap)| ServiceGap {
            ahead: name(gap.ahead).to_owned(),
            behind: name(gap.behind).to_owned(),
            seconds: tidy(gap.seconds),
            replication,
        }),
        sentence: booked_gap.as_ref().and_then(|gap| gap_sentence(plan, gap)),
        booked_gap,
    }
}

/// The largest gap in the share rule's book over all replications.
fn booked_gap(plan: &Plan, ledgers: &[Ledger]) -> Option<BookedGap> {
    let promise = plan.promise.as_ref()?;
    let found = ledgers.iter().enumerate().filter_map(|(replication, ledger)| {
        let service = ledger.blame.as_ref()?.service.as_ref()?;
        let wider =
            |a: service::BookedGap, b: service::BookedGap| if b.gap > a.gap { b } else { a };
        Some((replication, service.cost(), service.gaps().reduce(wider)?))
    });
    let (replication, cost, gap) = found.reduce(|a, b| if b.2.gap > a.2.gap { b } else { a })?;
    let busy = ledgers[replication].engine_seconds();
    let seconds = |units: f64| {
        let seconds = if cost > 0.0 { tidy(units * busy / cost) } else { 0.0 };
        plan.sees_engines().then_some(seconds)
    };
    let bound = promise.void.is_none().then_some(gap.bound + gap.errors);
    Some(BookedGap {
        ahead: plan.names.classes[gap.ahead].clone(),
        behind: plan.names.classes[gap.behind].clone(),
        cost: tidy(gap.gap),
        seconds: seconds(gap.gap),
        bound_cost: bound.map(tidy),
        bound_seconds: bound.and_then(seconds),
        bound_of_errors_seconds: bound.and_then(|_| seconds(gap.errors)),
        formula: promise.formula.clone(),
        void: promise.void.clone(),
        replication: replication as u32,
    })
}

/// "the service of chat and batch came apart by 1.2 s a unit of weight at most, in favour of batch;
/// virtual-token-counter promises 3.4 s at most, 400 ms of it for wrong predictions of the output"
fn gap_sentence(plan: &Plan, gap: &BookedGap) -> Option<String> {
    let rule = &plan.promise.as_ref()?.rule;
    let gap_of = format!(
        "the service of {} and {} came apart by {} a unit of weight at most, in favour of {}",
        gap.ahead,
        gap.behind,
        service(gap.seconds, gap.cost),
        gap.ahead,
    );
    let bound = match (&gap.void, gap.bound_seconds, gap.bound_of_errors_seconds) {
        (Some(void), _, _) => format!("{rule} promises no bound here: {void}"),
        (None, Some(bound), Some(errors)) if errors > 0.0 => format!(
            "{rule} promises {} at most, {} of it for wrong predictions of the output",
            words::secs(bound),
            words::secs(errors),
        ),
        (None, bound, _) => {
            let bound = service(bound, gap.bound_cost.unwrap_or_default());
            format!("{rule} promises {bound} at most")
        }
    };
    Some(format!("{gap_of}; {bound}"))
}

/// Service as engine time, or in the cost units of the share rule where engines are opaque.
fn service(seconds: Option<f64>, cost: f64) -> String {
    match seconds {
        Some(seconds) => words::secs(seconds),
        None => format!("{} cost units", words::number(cost)),
    }
}

/// What another share rule could change: said where all share one queue, and a less important class
/// held more than its weight while a promised class missed.
pub(crate) fn policy_hint(plan: &Plan, summary: &Summary) -> Option<String> {
    if !plan.one_queue {
        return None;
    }
    let hint = |class: &ClassSummary| {
        let missed = (summary.objectives.iter())
            .any(|o| o.class == class.name && o.result == ObjectiveVerdict::Fail);
        let lesser = |taker: &&Meanwhile| {
            taker.seat_share > taker.entitlement
                && (summary.classes.iter())
                    .any(|other| other.name == taker.class && other.priority < class.priority)
        };
        let taker = class.waiting.meanwhile.iter().find(lesser).filter(|_| missed)?;
        let (name, taker) = (&class.name, &taker.class);
        Some(match plan.recorded {
            None => format!(
                "{name} waited behind {taker}, which is less important: try a share rule that tells \
                 them apart, `plimsoll run … --set policy.share=virtual-token-counter`, or a cap, \
                 `--set class.{taker}.requests_max=N`."
            ),
            Some(_) => format!(
                "{name} waited behind {taker}, which is less important: try a share rule that tells \
                 them apart, or a cap on {taker}.{REPLAY}"
            ),
        })
    };
    summary.classes.iter().find_map(hint)
}

/// What a table says of a class: a word that a style may go by, and the text.
pub(crate) fn status(summary: &Summary, class: &ClassSummary) -> (&'static str, String) {
    let own = || summary.objectives.iter().filter(|o| o.class == class.name);
    let missed = own().any(|o| o.result == ObjectiveVerdict::Fail);
    let met = own().count() > 0 && own().all(|o| o.result == ObjectiveVerdict::Pass);
    match (class.waiting.fate, class.overload) {
        (Fate::Overload, _) => (Fate::Overload.word(), "OVERLOADED".to_owned()),
        (fate, Some(_)) => (Fate::Overload.word(), format!("{}, OVERLOADED", fate.word())),
        (Fate::Fine | Fate::Unlucky, None) if missed => ("misses", "misses SLO".to_owned()),
        (Fate::Fine | Fate::Unlucky, None) if met => (Fate::Fine.word(), "meets SLO".to_owned()),
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

/// "meanwhile batch held 47 % of the taken seats and 58 % of the engine time (weight 1 of 13)": who
/// held a tenth or more, the most beyond its weight first.
fn meanwhile_clause(waiting: &Waiting, weights: u32) -> Option<String> {
    let held = |other: &Meanwhile| {
        format!(
            "{} held {} of the taken seats{} (weight {} of {weights})",
            other.class,
            words::percent(other.seat_share),
            other.engine_share.map_or(String::new(), |share| format!(
                " and {} of the engine time",
                words::percent(share)
            )),
            (other.entitlement * f64::from(weights)).round(),
        )
    };
    let holders = waiting.meanwhile.iter().filter(|other| other.seat_share >= 0.1);
    let parts: Vec<String> = holders.map(held).collect();
    (!parts.is_empty()).then(|| format!("meanwhile {}", words::list(&parts)))
}
