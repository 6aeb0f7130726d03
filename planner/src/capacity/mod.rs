//! How much hardware a load needs.
//!
//! The search brackets and bisects the number of replicas, because more replicas serve no less;
//! where two pools may vary it walks along the frontier between what is enough and what is not.
//! Each judgement draws fresh random numbers. What the search finds is then confirmed with random
//! numbers that it has not seen: a bound on the error of the answer that does not depend on how
//! often the search looked. Where a confirmation fails, one replica more is tried, each time at
//! half the error that is left, so that all of them together stay within it.

mod judge;
mod load;
mod search;

use plimsoll_report::capacity::{
    CapacityPlan, Curve, CurvePoint, Group, Grown, Judged, PLAN_VERSION, PlanVerdict, PolicyAnswer,
    PricesUsed, SafeLoad, Tried, share,
};
use plimsoll_report::measure;
use plimsoll_scenario::{Diagnostics, Scenario};

use crate::bench::{Bench, Cell};
use crate::{StudyError, Watch};
use judge::{Judgement, Trial, judge, sample};

/// What a replica of a pool can be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HardwareOption {
    /// Its name; `None` is what the scenario says.
    pub name: Option<String>,
    /// Devices that a replica takes, at least 1.
    pub devices: u32,
    /// What a device costs an hour.
    pub price: Option<f64>,
    /// What a device draws at most, in watts.
    pub power: Option<f64>,
}

/// A pool whose replicas are sought.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolRange {
    /// Its name.
    pub pool: String,
    /// Replicas at least, 1 or more.
    pub least: u32,
    /// Replicas at most.
    pub most: u32,
    /// What its replicas can be; not empty.
    pub options: Vec<HardwareOption>,
}

/// What is least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The price.
    Cheapest,
    /// The number of devices.
    Fewest,
}

impl Goal {
    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Goal::Cheapest => "cheapest",
            Goal::Fewest => "fewest",
        }
    }
}

/// How the load grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// A month, as a part.
    pub monthly: f64,
    /// For how many months, at least 1.
    pub months: u32,
}

/// Replicas of each pool in question: the option of each and how many.
pub type Hardware = Vec<(usize, u32)>;

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Policies to choose from; not empty.
    pub policies: Vec<String>,
    /// One pool, or two.
    pub pools: Vec<PoolRange>,
    /// What is least.
    pub goal: Goal,
    /// With what confidence every objective must be kept.
    pub confidence: f64,
    /// The load to plan for, as a multiple of the scenario's.
    pub load: f64,
    /// Replicas of any one pool that may fail without harm.
    pub spare: u32,
    /// How the load grows, if it does.
    pub growth: Option<Growth>,
    /// Replications a judgement takes at most.
    pub replications_most: u32,
    /// Searches with random numbers of their own, at least 1: how far their answers scatter is how
    /// sure the number is.
    pub searches: u32,
    /// Whether to look at other loads too.
    pub curves: Curves,
    /// The seed.
    pub seed: u64,
    /// Threads to use; 0 for one a core.
    pub threads: usize,
    /// Where prices come from.
    pub prices: Option<PricesUsed>,
}

/// Whether to look at other loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curves {
    /// The safe load of the answer, and a curve a policy.
    Drawn,
    /// Neither.
    Left,
}

/// Makes the scenario of a policy and hardware.
pub type Build<'a> = &'a dyn Fn(&str, &Hardware) -> Result<Scenario, Diagnostics>;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum CapacityError {
    /// A policy or an option does not fit the scenario.
    #[error("{}", .0.render(false))]
    Input(Diagnostics),
    /// A run failed.
    #[error("{0}")]
    Study(#[from] StudyError),
    /// Nothing is promised, so that anything would do.
    #[error("no class has an objective: nothing is promised, so anything would do")]
    NothingPromised,
}

/// Answers the question.
///
/// # Errors
/// If the scenario cannot be made or run, or promises nothing.
pub fn capacity(
    question: &Question,
    build: Build<'_>,
    watch: &dyn Watch,
) -> Result<CapacityPlan, CapacityError> {
    let bench = Bench::new(question.threads, watch)?;
    let mut planner = Planner { question, build, bench, trials: 0, tried: Vec::new() };
    let first: Hardware = question.pools.iter().map(|pool| (0, pool.least)).collect();
    let plan = planner.cell(&question.policies[0], &first, 1.0)?.plan;
    if measure::promises(&plan).is_empty() {
        return Err(CapacityError::NothingPromised);
    }
    let mut found: Vec<(String, Option<Hardware>)> = Vec::new();
    for policy in &question.policies {
        let least = planner.least(policy, question.load)?;
        found.push((policy.clone(), least));
    }
    let cost = |(_, hardware): &&(String, Option<Hardware>)| {
        hardware.as_ref().map_or(f64::INFINITY, |hardware| planner.cost(hardware))
    };
    let best = found.iter().min_by(|a, b| cost(a).total_cmp(&cost(b)));
    let (policy, hardware) = best.expect("there is a policy").clone();
    let mut answer = planner.answer(&plan.scenario, &found);
    match hardware {
        Some(hardware) => planner.tell_found(&mut answer, (&policy, &hardware))?,
        None => planner.tell_nothing(&mut answer)?,
    }
    answer.tried = planner.sorted();
    Ok(answer)
}

struct Planner<'a> {
    question: &'a Question,
    build: Build<'a>,
    bench: Bench<'a>,
    /// Judgements so far: each draws random numbers of its own.
    trials: u64,
    /// What was judged at the load in question.
    tried: Vec<Entry>,
}

struct Entry {
    policy: String,
    hardware: Hardware,
    judgement: Judgement,
}

impl Planner<'_> {
    fn cell(&self, policy: &str, hardware: &Hardware, load: f64) -> Result<Cell, CapacityError> {
        let scenario = (self.build)(policy, hardware).map_err(CapacityError::Input)?;
        Ok(Cell::new(load::scaled(scenario, load), self.question.seed))
    }

    /// A seed that no judgement had before.
    fn fresh(&mut self) -> u64 {
        self.trials += 1;
        // The odd number of splitmix64 keeps the seeds of different questions apart.
        self.question.seed.wrapping_add(self.trials.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Judges hardware with fresh random numbers: all of it, or each pool short of its spare.
    fn judge(
        &mut self,
        (policy, hardware): (&str, &Hardware),
        load: f64,
        alpha: f64,
    ) -> Result<Judgement, CapacityError> {
        let trial = Trial { alpha, seed: self.fresh(), most: self.question.replications_most };
        let mut worst: Option<Judgement> = None;
        for present in self.short(hardware) {
            let cell = self.cell(policy, &present, load)?;
            let judgement = judge(&self.bench, &cell, &trial)?;
            let rank = |judgement: &Judgement| match judgement.result {
                Judged::Missed => 0,
                Judged::Undecided => 1,
                Judged::Met => 2,
            };
            if worst.as_ref().is_none_or(|worst| rank(&judgement) < rank(worst)) {
                worst = Some(judgement);
            }
        }
        let judgement = worst.expect("there is a pool");
        if load == self.question.load {
            self.remember(policy, hardware, &judgement);
        }
        Ok(judgement)
    }

    /// The hardware with one pool at a time short of the spare replicas.
    fn short(&self, hardware: &Hardware) -> Vec<Hardware> {
        let spare = self.question.spare;
        if spare == 0 {
            return vec![hardware.clone()];
        }
        let without = |pool: usize| {
            let mut hardware = hardware.clone();
            hardware[pool].1 = hardware[pool].1.saturating_sub(spare).max(1);
            hardware
        };
        (0..hardware.len()).map(without).collect()
    }

    /// The latest judgement of each hardware counts: that of the confirmation.
    fn remember(&mut self, policy: &str, hardware: &Hardware, judgement: &Judgement) {
        let same = |entry: &Entry| entry.policy == policy && entry.hardware == *hardware;
        self.tried.retain(|entry| !same(entry));
        self.tried.push(Entry {
            policy: policy.to_owned(),
            hardware: hardware.clone(),
            judgement: judgement.clone(),
        });
    }

    fn recalled(&self, policy: &str, hardware: &Hardware) -> Option<&Judgement> {
        let same = |entry: &&Entry| entry.policy == policy && entry.hardware == *hardware;
        self.tried.iter().find(same).map(|entry| &entry.judgement)
    }

    fn alpha(&self) -> f64 {
        1.0 - self.question.confidence
    }

    /// The least hardware of a policy at a load, confirmed.
    fn least(&mut self, policy: &str, load: f64) -> Result<Option<Hardware>, CapacityError> {
        let mut open = Vec::new();
        for options in self.combinations() {
            open.extend(self.enough(policy, &options, load)?);
        }
        self.confirm(policy, open, load)
    }

    /// Every choice of an option for each pool.
    fn combinations(&self) -> Vec<Vec<usize>> {
        let mut all = vec![Vec::new()];
        for pool in &self.question.pools {
            let with = |before: Vec<usize>| {
                (0..pool.options.len()).map(move |one| [&before[..], &[one]].concat())
            };
            all = all.into_iter().flat_map(with).collect();
        }
        all
    }

    /// Hardware that the search found to be enough and not to be lessened, with these options.
    fn enough(
        &mut self,
        policy: &str,
        options: &[usize],
        load: f64,
    ) -> Result<Vec<Hardware>, CapacityError> {
        let ranges: Vec<(u32, u32)> = self.question.pools.iter().map(|p| self.range(p)).collect();
        let alpha = self.alpha();
        let Some((&last, before)) = ranges.split_last() else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let Some(&(low, high)) = before.first() else {
            let least = search::least(last, last.0, &mut |n| {
                Ok::<_, CapacityError>(
                    self.judge((policy, &vec![(options[0], n)]), load, alpha)?.result,
                )
            })?;
            return Ok(least.map(|n| vec![(options[0], n)]).into_iter().collect());
        };
        // With more of the first pool, no more of the second is needed.
        let mut most = last.1;
        for first in low..=high {
            let least = search::least((last.0, most), most.min(last.0.max(most / 2)), &mut |n| {
                let hardware = vec![(options[0], first), (options[1], n)];
                Ok::<_, CapacityError>(self.judge((policy, &hardware), load, alpha)?.result)
            })?;
            let Some(n) = least else { continue };
            found.push(vec![(options[0], first), (options[1], n)]);
            if n == last.0 {
                break;
            }
            most = n - 1;
        }
        Ok(found)
    }

    /// A pool never falls below one replica when it is short.
    fn range(&self, pool: &PoolRange) -> (u32, u32) {
        let least =
            pool.least + if pool.least <= self.question.spare { self.question.spare } else { 0 };
        (least.min(pool.most), pool.most)
    }

    /// The cheapest of the hardware found that fresh random numbers confirm; what they do not is
    /// tried again with a replica more.
    fn confirm(
        &mut self,
        policy: &str,
        mut open: Vec<Hardware>,
        load: f64,
    ) -> Result<Option<Hardware>, CapacityError> {
        const TRIES: u32 = 16;
        let mut alpha = self.alpha();
        let mut asked: Vec<Hardware> = Vec::new();
        let mut answer: Option<Hardware> = None;
        for _ in 0..TRIES {
            open.retain(|hardware| !asked.contains(hardware));
            open.sort_by(|a, b| self.cost(a).total_cmp(&self.cost(b)));
            if open.is_empty() {
                break;
            }
            let hardware = open.remove(0);
            alpha /= 2.0;
            asked.push(hardware.clone());
            if self.judge((policy, &hardware), load, alpha)?.result == Judged::Met {
                let less = self.less(policy, &hardware).filter(|less| !asked.contains(less));
                answer = Some(hardware);
                match less {
                    // What the search could not tell may be enough: that is asked with care.
                    Some(less) if load == self.question.load => open = vec![less],
                    Some(_) | None => break,
                }
            } else if answer.is_some() {
                break;
            } else {
                let mut more = hardware;
                let last = more.len() - 1;
                if more[last].1 < self.question.pools[last].most {
                    more[last].1 += 1;
                    open.push(more);
                }
            }
        }
        Ok(answer)
    }

    /// One replica less of the last pool, if the search could not decide about it.
    fn less(&self, policy: &str, hardware: &Hardware) -> Option<Hardware> {
        let mut less = hardware.clone();
        let last = less.len() - 1;
        less[last].1 = less[last].1.checked_sub(1)?;
        let judgement = self.recalled(policy, &less)?;
        (judgement.result == Judged::Undecided).then_some(less)
    }

    fn devices(&self, hardware: &Hardware) -> u32 {
        let pools = self.question.pools.iter().zip(hardware);
        pools.map(|(pool, &(option, n))| n * pool.options[option].devices).sum()
    }

    /// The sum of something over all devices; `None` where it is not known of one.
    fn sum(&self, hardware: &Hardware, of: fn(&HardwareOption) -> Option<f64>) -> Option<f64> {
        let pools = self.question.pools.iter().zip(hardware);
        pools
            .map(|(pool, &(option, n))| {
                let option = &pool.options[option];
                Some(of(option)? * f64::from(n * option.devices))
            })
            .sum()
    }

    fn cost(&self, hardware: &Hardware) -> f64 {
        let devices = f64::from(self.devices(hardware));
        match self.question.goal {
            Goal::Fewest => devices,
            Goal::Cheapest => self.sum(hardware, |option| option.price).unwrap_or(devices),
        }
    }

    fn label(&self, hardware: &Hardware) -> String {
        let pools = self.question.pools.iter().zip(hardware);
        let names: Vec<String> = pools
            .map(|(pool, &(option, n))| match &pool.options[option].name {
                Some(name) if self.question.pools.len() > 1 => {
                    format!("{n} × {} ({name})", pool.pool)
                }
                Some(name) => format!("{n} × {name}"),
                None => format!("{n} × {}", pool.pool),
            })
            .collect();
        names.join(" + ")
    }

    fn told(&self, entry: &Entry) -> Tried {
        let Entry { policy, hardware, judgement } = entry;
        let pools = self.question.pools.iter().zip(hardware);
        Tried {
            policy: policy.clone(),
            hardware: pools
                .map(|(pool, &(option, replicas))| Group {
                    pool: pool.pool.clone(),
                    option: pool.options[option].name.clone(),
                    replicas,
                })
                .collect(),
            label: self.label(hardware),
            devices: self.devices(hardware),
            price_an_hour: self.sum(hardware, |option| option.price).map(measure::tidy),
            power_w: self.sum(hardware, |option| option.power).map(measure::tidy),
            result: judgement.result,
            replications: judgement.rows.len() as u32,
            binding: judgement.binding().cloned(),
            attainment: judgement.attainment(),
            attainment_p5_p95: judgement.risk().map(|risk| risk.map(measure::tidy)),
        }
    }

    /// What was judged, the least first.
    fn sorted(&self) -> Vec<Tried> {
        let mut entries: Vec<&Entry> = self.tried.iter().collect();
        entries.sort_by(|a, b| {
            let cost = self.cost(&a.hardware).total_cmp(&self.cost(&b.hardware));
            cost.then_with(|| a.policy.cmp(&b.policy)).then_with(|| a.hardware.cmp(&b.hardware))
        });
        entries.into_iter().map(|entry| self.told(entry)).collect()
    }

    /// The answer, but for what it says.
    fn answer(&self, scenario: &str, found: &[(String, Option<Hardware>)]) -> CapacityPlan {
        let question = self.question;
        let policies = found.iter().map(|(policy, hardware)| PolicyAnswer {
            policy: policy.clone(),
            label: hardware.as_ref().map(|hardware| self.label(hardware)),
            devices: hardware.as_ref().map(|hardware| self.devices(hardware)),
            price_an_hour: hardware
                .as_ref()
                .and_then(|hardware| self.sum(hardware, |option| option.price)),
        });
        CapacityPlan {
            plan_version: PLAN_VERSION,
            plimsoll: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: scenario.to_owned(),
            seed: question.seed,
            goal: question.goal.name().to_owned(),
            confidence: question.confidence,
            method: self.method(),
            verdict: PlanVerdict::NothingFits,
            sentences: Vec::new(),
            answer: None,
            policies: if found.len() > 1 { policies.collect() } else { Vec::new() },
            tried: Vec::new(),
            searches: Vec::new(),
            safe_load: None,
            curves: Vec::new(),
            growth: Vec::new(),
            prices: question.prices.clone(),
            notes: self.notes(),
        }
    }

    fn method(&self) -> Vec<String> {
        let question = self.question;
        let range = |pool: &PoolRange| {
            let names: Vec<&str> =
                pool.options.iter().filter_map(|option| option.name.as_deref()).collect();
            let of =
                if names.is_empty() { String::new() } else { format!(" of {}", names.join(", ")) };
            format!("{} to {} replicas of {}{of}", pool.least, pool.most, pool.pool)
        };
        let ranges: Vec<String> = question.pools.iter().map(range).collect();
        vec![
            format!(
                "searched: {}; bracketed and bisected, fresh random numbers for each judgement",
                ranges.join(", ")
            ),
            format!(
                "an objective is kept where the share of requests within its limit lies above what \
                 is promised: Student's t across at most {} replications and Wilson's interval over \
                 all requests, error split over the looks; the answer is confirmed with random \
                 numbers that the search has not seen, at {}",
                question.replications_most,
                plimsoll_report::capacity::whole(question.confidence)
            ),
        ]
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "Prefill and decode on engines of their own are searched where [plan] has a split or \
             options say so. A parallel size is an option of [plan] with step times of its own: they \
             are not derived from those of one device."
                .to_owned(),
            "That more replicas never serve worse is assumed, not tested, beyond what was judged."
                .to_owned(),
        ];
        if self.question.goal == Goal::Cheapest && self.question.prices.is_none() {
            notes.push(
                "No price is known of what was searched, so that the fewest devices were taken for \
                 the cheapest: name the device (`--device`), or give a table that has its price \
                 (`--prices`)."
                    .to_owned(),
            );
        }
        if self.question.spare > 0 {
            notes.push(
                "A lost replica is absent for the whole run: how a failure in mid-run is lived \
                 through is not simulated."
                    .to_owned(),
            );
        }
        notes
    }

    /// Says what the answer is, with what margin, what less lacks, and how much more it bears.
    fn tell_found(
        &mut self,
        answer: &mut CapacityPlan,
        (policy, hardware): (&str, &Hardware),
    ) -> Result<(), CapacityError> {
        let question = self.question;
        answer.verdict = PlanVerdict::Found;
        let entry = self.entry(policy, hardware).expect("the answer was judged");
        let told = self.told(entry);
        let refused = entry.judgement.refused();
        let prices = question.prices.as_ref();
        let load = match question.load {
            1.0 => String::new(),
            load => format!(" at {load:.2} times the load"),
        };
        let spare = match question.spare {
            0 => String::new(),
            1 => ", with one replica lost".to_owned(),
            more => format!(", with {more} replicas of a pool lost"),
        };
        let under = if policy == plimsoll_scenario::OWN {
            String::new()
        } else {
            format!(" under {policy}")
        };
        answer.sentences.push(format!(
            "{}{under} keeps every objective{load}{spare}, with {} confidence.",
            told.words(prices),
            plimsoll_report::capacity::whole(question.confidence)
        ));
        if let Some(binding) = &told.binding {
            answer.sentences.push(format!("Nearest to its limit: {}.", binding.words()));
        }
        answer.sentences.push(self.next_cheaper(policy, hardware)?);
        if refused > 0.001 {
            answer.notes.push(format!(
                "{} of the requests are refused by the policy; percentiles speak of the others. State \
                 an attainment to count them.",
                share(refused, 0.0)
            ));
        }
        answer.answer = Some(told);
        self.search_again(answer, (policy, hardware))?;
        if question.curves == Curves::Drawn {
            self.other_loads(answer, (policy, hardware))?;
        }
        self.grow(answer, policy)
    }

    /// Searches again with fresh random numbers and says what each found.
    fn search_again(
        &mut self,
        answer: &mut CapacityPlan,
        (policy, hardware): (&str, &Hardware),
    ) -> Result<(), CapacityError> {
        if self.question.searches < 2 {
            return Ok(());
        }
        // What the first search judged is what is told.
        let told = std::mem::take(&mut self.tried);
        let mut found = vec![self.label(hardware)];
        for _ in 1..self.question.searches {
            let again = self.least(policy, self.question.load)?;
            found.push(again.map_or("nothing fits".to_owned(), |again| self.label(&again)));
        }
        self.tried = told;
        let mut counted: Vec<(String, usize)> = Vec::new();
        for label in &found {
            match counted.iter_mut().find(|(known, _)| known == label) {
                Some((_, times)) => *times += 1,
                None => counted.push((label.clone(), 1)),
            }
        }
        let each: Vec<String> =
            counted.iter().map(|(label, times)| format!("{label} ({times} times)")).collect();
        answer.sentences.push(format!(
            "{} searches with random numbers of their own found {}.",
            found.len(),
            each.join(", ")
        ));
        answer.searches = found;
        Ok(())
    }

    fn entry(&self, policy: &str, hardware: &Hardware) -> Option<&Entry> {
        self.tried.iter().find(|entry| entry.policy == policy && entry.hardware == *hardware)
    }

    /// Why the next cheaper plan is not the answer.
    fn next_cheaper(&mut self, policy: &str, hardware: &Hardware) -> Result<String, CapacityError> {
        let mut less = hardware.clone();
        let last = less.len() - 1;
        if less[last].1 > self.range(&self.question.pools[last]).0 {
            less[last].1 -= 1;
            if self.entry(policy, &less).is_none() {
                let alpha = self.alpha();
                self.judge((policy, &less), self.question.load, alpha)?;
            }
        }
        let cost = self.cost(hardware);
        let cheaper = self.tried.iter().filter(|entry| {
            self.cost(&entry.hardware) < cost && entry.judgement.result != Judged::Met
        });
        let next = cheaper.max_by(|a, b| self.cost(&a.hardware).total_cmp(&self.cost(&b.hardware)));
        let Some(next) = next else {
            return Ok("Less was not in the range.".to_owned());
        };
        let mut told = self.told(next).words(self.question.prices.as_ref());
        if self.question.policies.len() > 1 {
            told = format!("{told} under {}", next.policy);
        }
        let binding = next.judgement.binding().map_or(String::new(), |binding| binding.words());
        let overload = match next.judgement.overloaded.as_slice() {
            [] => String::new(),
            classes => format!(", and the queue of {} grows without end", classes.join(" and ")),
        };
        Ok(match next.judgement.result {
            Judged::Undecided => format!(
                "The next cheaper, {told}, is too close to tell after {} runs: {binding}.",
                next.judgement.rows.len()
            ),
            Judged::Missed | Judged::Met => {
                format!("The next cheaper, {told}, fails: {binding}{overload}.")
            }
        })
    }

    /// The safe load of the answer, and a curve a policy.
    fn other_loads(
        &mut self,
        answer: &mut CapacityPlan,
        (policy, hardware): (&str, &Hardware),
    ) -> Result<(), CapacityError> {
        const FAR: f64 = 8.0;
        const PRECISION: f64 = 0.03;
        let (alpha, load) = (self.alpha(), self.question.load);
        for other in self.question.policies.clone() {
            let (kept, not_kept) = search::safe(FAR, PRECISION, &mut |times| {
                // The load itself was judged by the search.
                if let Some(known) = self.recalled(&other, hardware).filter(|_| times == 1.0) {
                    return Ok(known.result);
                }
                let judgement = self.judge((&other, hardware), load * times, alpha)?;
                Ok::<_, CapacityError>(judgement.result)
            })?;
            let safe = kept.map(|kept| SafeLoad {
                kept: measure::tidy(kept),
                not_kept: not_kept.map(measure::tidy),
            });
            if other == policy {
                answer.safe_load = safe;
                answer.sentences.extend(safe.map(|safe| match safe.not_kept {
                    Some(not) => format!(
                        "It bears {:.2} times that load; {not:.2} times was not kept.",
                        safe.kept
                    ),
                    None => format!("It bears at least {:.2} times that load.", safe.kept),
                }));
            }
            let curve = self.curve((&other, hardware), safe)?;
            answer.curves.push(curve);
        }
        Ok(())
    }

    /// Goodput and attainment from a quarter of the safe load to twice.
    fn curve(
        &mut self,
        (policy, hardware): (&str, &Hardware),
        safe_load: Option<SafeLoad>,
    ) -> Result<Curve, CapacityError> {
        const PARTS: [f64; 9] = [0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.3, 1.6, 2.0];
        const REPLICATIONS: u32 = 4;
        let middle = safe_load.map_or(1.0, |safe| safe.kept);
        let mut points = Vec::new();
        let seed = self.fresh();
        for part in PARTS {
            let times = middle * part;
            let cell = self.cell(policy, hardware, self.question.load * times)?;
            let sampled = sample(&self.bench, &cell, (seed, REPLICATIONS))?;
            points.push(CurvePoint {
                load: measure::tidy(times),
                offered: measure::tidy(sampled.offered()),
                goodput: sampled.goodput(),
                attainment: sampled.attainment(),
            });
        }
        let best = points.iter().enumerate().max_by(|a, b| {
            let value = |point: &CurvePoint| point.goodput.value.unwrap_or(0.0);
            value(a.1).total_cmp(&value(b.1))
        });
        // A maximum at the end of the curve is not known to be one.
        let knee = best.filter(|(index, _)| index + 1 < points.len()).map(|(_, point)| point.load);
        let (policy, label) = (policy.to_owned(), self.label(hardware));
        Ok(Curve { policy, label, knee, safe_load, points })
    }

    /// What the load needs as it grows, four times on the way.
    fn grow(&mut self, answer: &mut CapacityPlan, policy: &str) -> Result<(), CapacityError> {
        let Some(growth) = self.question.growth else { return Ok(()) };
        let mut months: Vec<u32> = (1..=4).map(|part| (growth.months * part).div_ceil(4)).collect();
        months.dedup();
        for month in months {
            let times = (1.0 + growth.monthly).powi(month as i32);
            let least = self.least(policy, self.question.load * times)?;
            answer.growth.push(Grown {
                months: month,
                load: measure::tidy(times),
                label: least.as_ref().map(|hardware| self.label(hardware)),
                devices: least.as_ref().map(|hardware| self.devices(hardware)),
                price_an_hour: least
                    .as_ref()
                    .and_then(|hardware| self.sum(hardware, |option| option.price)),
            });
        }
        if let Some(last) = answer.growth.last() {
            let what = last.label.clone().unwrap_or("more than the range".to_owned());
            answer.sentences.push(format!(
                "In {} months, at {:.2} times that load, it takes {what}.",
                last.months, last.load
            ));
        }
        Ok(())
    }

    /// Says what can be reached, and what to relax.
    fn tell_nothing(&mut self, answer: &mut CapacityPlan) -> Result<(), CapacityError> {
        let attained = |entry: &&Entry| entry.judgement.attainment().value.unwrap_or(0.0);
        let room = |entry: &&Entry| {
            let binding = entry.judgement.binding();
            binding.map_or(f64::NEG_INFINITY, |binding| binding.share - binding.wanted)
        };
        let best = self
            .tried
            .iter()
            .max_by(|a, b| room(a).total_cmp(&room(b)).then(attained(a).total_cmp(&attained(b))));
        let best = best.expect("something was judged");
        if best.judgement.result == Judged::Undecided {
            answer.verdict = PlanVerdict::Undecided;
        }
        let most: Hardware = self.question.pools.iter().map(|pool| (0, pool.most)).collect();
        let told = self.told(best);
        answer.sentences.push(format!(
            "Nothing up to {} is shown to keep every objective{}; the best that was reached is {} \
             under {}.",
            self.label(&most),
            if self.question.load == 1.0 {
                String::new()
            } else {
                format!(" at {:.2} times the load", self.question.load)
            },
            told.words(self.question.prices.as_ref()),
            best.policy
        ));
        for promise in &best.judgement.promises {
            if promise.share - promise.half_width >= promise.wanted {
                continue;
            }
            let reach = match promise.value {
                Some(value) if promise.objective.contains("attainment") => {
                    format!(
                        "promise {} or less",
                        plimsoll_report::capacity::whole((value * 1e3).floor() / 1e3)
                    )
                }
                Some(value) => format!(
                    "it would take a limit of about {}",
                    plimsoll_base::Span::from_secs_f64(value * 1.05)
                ),
                None => "nothing of it was measured".to_owned(),
            };
            let verb = if best.judgement.overloaded.contains(&promise.class) {
                ": its queue grows without end, so that no limit would do; more replicas or less load"
                    .to_owned()
            } else {
                format!("; to relax: {reach}")
            };
            answer.sentences.push(format!("Best reachable: {}{verb}.", promise.words()));
        }
        Ok(())
    }
}
