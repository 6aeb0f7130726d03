//! The rules of admission and prediction the plain way: whole histories, and nothing kept up to
//! date.

use std::collections::BTreeMap;

use plimsoll_base::{BackendId, ClassId, End, Reason, Refusal, RequestId, Span, TenantId, Time};
use plimsoll_policy::config::{
    Admit, BucketPer, BucketUnit, Class, EarlyRefusal, Predict, RetryBudget, SaturationGate, Stale,
    TokenBucket,
};
use plimsoll_policy::{BackendInfo, Config, Load, RequestInfo};

/// A token in what a bucket counts.
const UNIT: i128 = 1_000_000_000_000_000;

/// Who asks to come in.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    pub class: ClassId,
    pub tenant: TenantId,
    pub tokens: u64,
    pub is_retry: bool,
}

/// Everything that admission and prediction may remember.
#[derive(Default)]
pub struct Memory {
    /// By rule and owner: what was taken out of the bucket (negative: came back), and when.
    taken: BTreeMap<(usize, usize), Vec<(Time, i128)>>,
    /// By rule: who was let in, whether it was a retry, and when.
    tried: BTreeMap<usize, Vec<(Time, bool)>>,
    /// The newest report of each backend that is there, and when it was true.
    reports: BTreeMap<BackendId, (Load, Time)>,
    /// By class: the gaps between dispatches while it had work, and where the last began.
    gaps: BTreeMap<ClassId, Vec<u64>>,
    since: BTreeMap<ClassId, Time>,
    /// By class: the output of what finished.
    outputs: BTreeMap<ClassId, Vec<u32>>,
    hint: Option<(RequestId, u32)>,
}

impl Memory {
    pub fn hint(&mut self, id: RequestId, output_tokens: u32) {
        self.hint = Some((id, output_tokens));
    }

    /// What was told of a request that arrives; whatever arrives uses it up.
    pub fn take_hint(&mut self, id: RequestId) -> Option<u32> {
        self.hint.take().filter(|(of, _)| *of == id).map(|(_, hint)| hint)
    }

    /// The prediction for a request that arrives and of which that was told.
    pub fn predict(
        &self,
        config: &Config,
        hint: Option<u32>,
        info: &RequestInfo,
        class: ClassId,
    ) -> u32 {
        let cap = info.output_cap;
        let predicted = match config.predict {
            Predict::DeclaredCap => None,
            Predict::ClassIntensity => config.classes[class.index()].output_tokens_expected,
            Predict::NoisyOracle { .. } => hint,
            Predict::ClassQuantile { quantile_ppm, samples_min } => {
                let mut outputs = self.outputs.get(&class).cloned().unwrap_or_default();
                outputs.sort_unstable();
                let rank = (outputs.len() as u64 * u64::from(quantile_ppm)).div_ceil(1_000_000);
                let enough = outputs.len() >= samples_min as usize;
                enough.then(|| end_of_bucket(outputs[rank.max(1) as usize - 1]))
            }
        };
        predicted.unwrap_or(cap).min(cap)
    }

    pub fn ended(&mut self, class: ClassId, end: End, output_tokens: u32) {
        if end == End::Finished {
            self.outputs.entry(class).or_default().push(output_tokens);
        }
    }

    pub fn reported(&mut self, backend: BackendId, load: Load, as_of: Time) {
        if self.reports.get(&backend).is_none_or(|&(_, known)| known <= as_of) {
            self.reports.insert(backend, (load, as_of));
        }
    }

    /// Only those count that are there.
    pub fn keep(&mut self, backends: &BTreeMap<BackendId, BackendInfo>) {
        self.reports.retain(|id, _| backends.contains_key(id));
    }

    /// A request of the class was dispatched from its queue; so many remain.
    pub fn dispatched(&mut self, now: Time, class: ClassId, queued: usize) {
        if let Some(since) = self.since.remove(&class) {
            self.gaps.entry(class).or_default().push((now - since).nanos());
        }
        if queued > 0 {
            self.since.insert(class, now);
        }
    }

    pub fn left(&mut self, class: ClassId, queued: usize) {
        if queued == 0 {
            self.since.remove(&class);
        }
    }

    /// The wait behind so many; `None` while fewer than eight gaps are known.
    pub fn wait(&self, now: Time, class: ClassId, queued: usize) -> Option<Span> {
        let gaps = self.gaps.get(&class).filter(|gaps| gaps.len() >= 8)?;
        let eight = gaps[1..].iter().fold(gaps[0] * 8, |mean, gap| mean - mean / 8 + gap);
        let open = self.since.get(&class).map_or(0, |&since| (now - since).nanos());
        let mean = eight / 8 + open.saturating_sub(eight / 8) / 8;
        Some(Span::from_nanos(mean * queued as u64))
    }

    /// Whether the pace of the class is known at all: the allocator measures it where it is used.
    pub fn measures(config: &Config, class: ClassId) -> bool {
        let early = |rule: &Admit| match rule {
            Admit::EarlyRefusal(rule) => rule.classes.is_empty() || rule.classes.contains(&class),
            Admit::TokenBucket(_) | Admit::SaturationGate(_) | Admit::RetryBudget(_) => false,
        };
        config.classes[class.index()].queue_max.is_some() || config.admit.iter().any(early)
    }

    pub fn ask(
        &mut self,
        (config, now): (&Config, Time),
        who: Asker,
        backends: &BTreeMap<BackendId, BackendInfo>,
        wait: Option<Span>,
    ) -> Result<(), (Refusal, Reason, Span)> {
        for (at, rule) in config.admit.iter().enumerate() {
            let answer = match rule {
                Admit::TokenBucket(rule) => self.reserve(at, rule, now, who),
                Admit::SaturationGate(rule) => self.gate(rule, now, who, backends),
                Admit::EarlyRefusal(rule) => early(rule, &config.classes, who, wait),
                Admit::RetryBudget(rule) => self.retry(at, rule, now, who),
            };
            if answer.is_err() {
                self.take(config, now, who, (at, |unit| -unit));
                return answer;
            }
        }
        Ok(())
    }

    pub fn give_back(&mut self, config: &Config, now: Time, who: Asker) {
        self.take(config, now, who, (config.admit.len(), |units| -units));
    }

    pub fn settle(&mut self, config: &Config, now: Time, who: Asker, used: u64) {
        for (at, rule) in config.admit.iter().enumerate() {
            if let Admit::TokenBucket(rule) = rule
                && rule.unit == BucketUnit::Tokens
                && counts(rule, who)
            {
                let more = (i128::from(used) - i128::from(who.tokens)) * UNIT;
                self.taken.entry((at, owner(rule, who))).or_default().push((now, more));
            }
        }
    }

    /// Takes something out of the buckets of the first rules.
    fn take(
        &mut self,
        config: &Config,
        now: Time,
        who: Asker,
        (rules, what): (usize, fn(i128) -> i128),
    ) {
        for (at, rule) in config.admit[..rules].iter().enumerate() {
            if let Admit::TokenBucket(rule) = rule
                && counts(rule, who)
            {
                let amount = what(need(rule, who));
                self.taken.entry((at, owner(rule, who))).or_default().push((now, amount));
            }
        }
    }

    /// Retries against first attempts of the present slice and the nine before it.
    fn retry(
        &mut self,
        at: usize,
        rule: &RetryBudget,
        now: Time,
        who: Asker,
    ) -> Result<(), (Refusal, Reason, Span)> {
        if !rule.classes.is_empty() && !rule.classes.contains(&who.class) {
            return Ok(());
        }
        let slice = rule.window.nanos() / 10;
        let number = |at: Time| at.nanos() / slice;
        let tried = self.tried.entry(at).or_default();
        // Whether one more would fit if nothing came until then.
        let fits = |then: u64| {
            let count = |retries: bool| {
                let lately = tried.iter().filter(|(at, _)| number(*at) + 10 > then);
                lately.filter(|(_, is_retry)| *is_retry == retries).count() as u128
            };
            (count(true) + 1) * 1_000_000
                <= u128::from(rule.min) * 1_000_000 + count(false) * u128::from(rule.ratio_ppm)
        };
        if who.is_retry && !fits(number(now)) {
            let then = (number(now)..).find(|&then| fits(then)).expect("an empty window has room");
            let wait = Span::from_nanos(then * slice - now.nanos());
            return Err((Refusal::RateLimited, Reason::RetryBudget, wait));
        }
        tried.push((now, who.is_retry));
        Ok(())
    }

    fn reserve(
        &mut self,
        at: usize,
        rule: &TokenBucket,
        now: Time,
        who: Asker,
    ) -> Result<(), (Refusal, Reason, Span)> {
        if !counts(rule, who) {
            return Ok(());
        }
        let full = i128::from(rule.burst) * UNIT;
        if need(rule, who) > full {
            return Err((Refusal::Infeasible, Reason::RateLimit, Span::ZERO));
        }
        let taken = self.taken.entry((at, owner(rule, who))).or_default();
        // The whole history again.
        let (mut level, mut then) = (full, Time::ZERO);
        let end = [(now, 0)];
        for &(when, amount) in taken.iter().chain(&end) {
            let flowed = i128::from((when - then).nanos()) * i128::from(rule.rate_micros);
            level = ((level + flowed).min(full) - amount).min(full);
            then = when;
        }
        let missing = need(rule, who) - level;
        if missing > 0 {
            let rate = i128::from(rule.rate_micros);
            let nanos = (missing / rate + i128::from(missing % rate > 0)) as u64;
            return Err((Refusal::RateLimited, Reason::RateLimit, Span::from_nanos(nanos)));
        }
        taken.push((now, need(rule, who)));
        Ok(())
    }

    fn gate(
        &self,
        rule: &SaturationGate,
        now: Time,
        who: Asker,
        backends: &BTreeMap<BackendId, BackendInfo>,
    ) -> Result<(), (Refusal, Reason, Span)> {
        let Some(&(_, ceiling)) = rule.ceilings.iter().find(|(class, _)| *class == who.class)
        else {
            return Ok(());
        };
        let full = |load: &Load| {
            let waiting = u64::from(load.waiting) * 1_000_000 / u64::from(rule.waiting_full);
            let kv = u64::from(load.kv_used_ppm) * 1_000_000 / u64::from(rule.kv_full_ppm);
            waiting.max(kv).min(1_000_000)
        };
        let fresh = |as_of: Time| now <= as_of + rule.stale_after;
        let counted = |stale: Stale| -> Vec<u64> {
            let of = |id: &BackendId| match (self.reports.get(id), stale) {
                (Some((load, as_of)), _) if fresh(*as_of) => Some(full(load)),
                (_, Stale::Open) => None,
                (_, Stale::Closed) => Some(1_000_000),
                (report, Stale::Last) => report.map(|(load, _)| full(load)),
            };
            backends.keys().filter_map(of).collect()
        };
        let closes = |fullness: Vec<u64>| {
            let mean = fullness.iter().sum::<u64>() as f64 / fullness.len() as f64;
            !fullness.is_empty() && mean >= f64::from(ceiling)
        };
        if !closes(counted(rule.stale)) {
            return Ok(());
        }
        let knows = rule.stale != Stale::Closed || closes(counted(Stale::Open));
        let reason = if knows { Reason::Saturated } else { Reason::StaleSignal };
        Err((Refusal::Saturated, reason, Span::from_secs(1)))
    }
}

fn early(
    rule: &EarlyRefusal,
    classes: &[Class],
    who: Asker,
    wait: Option<Span>,
) -> Result<(), (Refusal, Reason, Span)> {
    let asked = rule.classes.is_empty() || rule.classes.contains(&who.class);
    let limit = rule.wait_limit.or(classes[who.class.index()].deadline);
    match (wait, limit) {
        (Some(wait), Some(limit)) if asked && wait > limit => {
            Err((Refusal::Infeasible, Reason::Hopeless, wait - limit))
        }
        (_, _) => Ok(()),
    }
}

fn counts(rule: &TokenBucket, who: Asker) -> bool {
    rule.classes.is_empty() || rule.classes.contains(&who.class)
}

fn need(rule: &TokenBucket, who: Asker) -> i128 {
    match rule.unit {
        BucketUnit::Requests => UNIT,
        BucketUnit::Tokens => i128::from(who.tokens) * UNIT,
    }
}

fn owner(rule: &TokenBucket, who: Asker) -> usize {
    match rule.per {
        BucketPer::All => 0,
        BucketPer::Class => who.class.index(),
        BucketPer::Tenant => who.tenant.index(),
    }
}

/// The largest number that shares its first five binary digits and its length.
fn end_of_bucket(value: u32) -> u32 {
    let dropped = value.checked_ilog2().unwrap_or(0).saturating_sub(4);
    (((u64::from(value >> dropped) + 1) << dropped) - 1) as u32
}
