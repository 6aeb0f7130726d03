//! A policy in one sentence, for reports.

use std::fmt;

use crate::config::{
    Adapt, Admit, Autoscale, BucketPer, BucketUnit, Capacity, Config, Feedback, LoadBreak, Order,
    Partition, Per, Place, Predict, QuotaUnit, Share, TokenCost, Window,
};

/// `share by virtual token counter per tenant (1 a prompt token, 2 an output token); …`
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rule in &self.admit {
            write!(f, "admit by {}, ", admit(rule))?;
        }
        write!(f, "share by {}", share(&self.share))?;
        write!(f, ", order by {}", order(self.order))?;
        for rule in &self.partition {
            write!(f, ", {}", partition(rule))?;
        }
        f.write_str(", place ")?;
        for (at, rule) in self.place.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", then " }, place(rule))?;
        }
        match self.place.last().is_some_and(decides) {
            true => {}
            false if self.place.is_empty() => f.write_str("by least outstanding tokens")?,
            false => f.write_str(", then by least outstanding tokens")?,
        }
        match self.window {
            Window::Seats => f.write_str(", queue before the engine (window of its seats)")?,
            Window::None => f.write_str(", queue inside the engine (no window)")?,
        }
        if self.bypass_max > 0 {
            let most = self.bypass_max;
            write!(f, ", what fits may go past what does not ({most} times at most)")?;
        }
        for rule in &self.feedback {
            write!(f, ", {}", feedback(rule))?;
        }
        match self.guard {
            Some(guard) => {
                let percent = f64::from(guard.due_share_ppm) / 1e4;
                write!(f, ", guard: {percent} % of dispatches for what is overdue")?;
            }
            None => f.write_str(", no guard")?,
        }
        match self.predict {
            Predict::DeclaredCap => f.write_str("; output predicted as the client's cap"),
            Predict::ClassIntensity => f.write_str("; output predicted as the class states it"),
            Predict::ClassQuantile { quantile_ppm, samples_min: _ } => {
                let quantile = f64::from(quantile_ppm) / 1e6;
                write!(f, "; output predicted as the class's running {quantile} quantile")
            }
            Predict::NoisyOracle { error_ppm } => {
                let percent = f64::from(error_ppm) / 1e4;
                write!(f, "; output predicted by an ORACLE with an error of {percent} %")
            }
        }
    }
}

fn admit(rule: &Admit) -> String {
    match rule {
        Admit::TokenBucket(rule) => {
            let unit = match rule.unit {
                BucketUnit::Requests => "requests",
                BucketUnit::Tokens => "tokens",
            };
            let per = match rule.per {
                BucketPer::All => "",
                BucketPer::Class => " per class",
                BucketPer::Tenant => " per tenant",
            };
            let rate = rule.rate_micros as f64 / 1e6;
            format!("token bucket{per} ({rate} {unit} a second, burst {})", rule.burst)
        }
        Admit::SaturationGate(rule) => format!(
            "saturation gate (full at {} waiting or {} % of KV memory)",
            rule.waiting_full,
            f64::from(rule.kv_full_ppm) / 1e4
        ),
        Admit::EarlyRefusal(rule) => match rule.wait_limit {
            Some(limit) => format!("early refusal (predicted wait above {limit})"),
            None => "early refusal (predicted wait above the class's deadline)".to_owned(),
        },
        Admit::RetryBudget(rule) => {
            let (percent, min) = (f64::from(rule.ratio_ppm) / 1e4, rule.min);
            let window = rule.window;
            format!("retry budget ({percent} % of first attempts and {min} in {window})")
        }
    }
}

fn feedback(rule: &Feedback) -> String {
    match rule {
        Feedback::AdaptiveConcurrency { by: Adapt::Aimd { target }, min: _ } => {
            format!("adaptive concurrency (AIMD, queue wait of {target})")
        }
        Feedback::AdaptiveConcurrency { by: Adapt::Gradient { base: _ }, min: _ } => {
            "adaptive concurrency (gradient of queue wait)".to_owned()
        }
        Feedback::CircuitBreaker { failures, open_for } => {
            format!("circuit breaker ({failures} failures in a row, rest of {open_for})")
        }
        Feedback::EvictSheddable { after, every } => {
            format!("evict sheddable work (after a wait of {after}, one in {every} at most)")
        }
        Feedback::Autoscale(rule) => {
            let Autoscale { target_ppm, tolerance_ppm: _, min, max, cool_down, .. } = *rule;
            let percent = f64::from(target_ppm) / 1e4;
            format!(
                "autoscaling advice ({min} to {max} a pool, load of {percent} %, once in {cool_down})"
            )
        }
        Feedback::SloCaps(rule) => {
            let percent = f64::from(rule.misses_max_ppm) / 1e4;
            let (class, window) = (rule.class, rule.window);
            format!("caps by the misses of class {class} (over {percent} % of {window})")
        }
    }
}

fn share(share: &Share) -> String {
    match share {
        Share::Fcfs => "first come, first served".to_owned(),
        Share::Priority => "strict priority".to_owned(),
        Share::DeficitRoundRobin { per, quantum, cost } => {
            format!("deficit round robin {}, quantum {quantum} ({})", owner(*per), price(*cost))
        }
        Share::VirtualTokenCounter { per, cost } => {
            format!("virtual token counter {} ({})", owner(*per), price(*cost))
        }
        Share::StartTimeFair { per, cost } => {
            format!("start-time fair queueing {} ({})", owner(*per), price(*cost))
        }
        Share::Stride { per } => format!("stride {} (one unit a request)", owner(*per)),
        Share::DominantResource { per, capacity } => {
            format!("dominant resource {} ({})", owner(*per), capacities(capacity))
        }
        Share::DeficitLongestPrefix { per, quantum, cost } => format!(
            "deficit and longest cached prefix {}, quantum {quantum} ({}, cached ones free)",
            owner(*per),
            price(*cost),
        ),
    }
}

fn order(order: Order) -> String {
    match order {
        Order::Fcfs => "arrival".to_owned(),
        Order::Aging => "arrival less the class's boost (aging)".to_owned(),
        Order::EarliestDeadline => "deadline, missed ones last".to_owned(),
        Order::ShortestPredicted { aging: None } => {
            "predicted tokens, fewest first (long ones may wait for ever)".to_owned()
        }
        Order::ShortestPredicted { aging: Some(aging) } => {
            format!("arrival plus {aging} a predicted token")
        }
        Order::LeastAttained { cost, workflows_max: _ } => {
            format!("what its workflow was given, least first ({})", price(cost))
        }
        Order::LongestPrefix { token } => format!("arrival less {token} a cached token"),
    }
}

fn partition(rule: &Partition) -> String {
    match rule {
        Partition::HeavyLane { over_tokens, max } => {
            format!("at most {max} requests over {over_tokens} tokens at once")
        }
        Partition::Dedicated(rule) => {
            let exclusive = if rule.exclusive { ", which take no others" } else { "" };
            format!(
                "isolate by dedicated pools for class {} ({}{exclusive})",
                rule.class,
                rule.pools.len()
            )
        }
        Partition::Quota(rule) => {
            let unit = match rule.unit {
                QuotaUnit::Requests => "requests",
                QuotaUnit::Tokens => "estimated tokens",
            };
            format!(
                "isolate by quotas of {unit} in {} groups that lend and borrow",
                rule.groups.len()
            )
        }
        Partition::Concurrency(rule) => {
            format!("isolate by fractions of all seats for {} classes", rule.shares_ppm.len())
        }
    }
}

fn place(rule: &Place) -> String {
    match rule {
        Place::LocalFirst(rule) => format!(
            "local first over {} sites (spill after {}, back after {})",
            rule.sites.len(),
            rule.spill_wait,
            rule.return_after
        ),
        Place::PrefixAffinity(load) => format!("by cached prefix ({})", broken(*load)),
        Place::SessionAffinity { sessions_max, load } => {
            format!("by session ({sessions_max} remembered, {})", broken(*load))
        }
        Place::RoundRobin => "round robin".to_owned(),
        Place::LeastTokens => "by least outstanding tokens".to_owned(),
        Place::PowerOfTwo { seed } => format!("on the better of two drawn (seed {seed})"),
    }
}

/// Whether the rule decides at last.
fn decides(rule: &Place) -> bool {
    match rule {
        Place::RoundRobin | Place::LeastTokens | Place::PowerOfTwo { .. } => true,
        Place::LocalFirst(_) | Place::PrefixAffinity(_) | Place::SessionAffinity { .. } => false,
    }
}

fn broken(load: LoadBreak) -> String {
    let factor = f64::from(load.factor_ppm) / 1e6;
    format!("unless loaded above {factor} times the least + {} tokens", load.tokens)
}

fn owner(per: Per) -> &'static str {
    match per {
        Per::Class => "per class",
        Per::Tenant => "per tenant",
        Per::Workflow => "per workflow",
    }
}

fn capacities(capacity: &Capacity) -> String {
    let Capacity { prefill_tokens, decode_tokens, kv_tokens, output_token } = capacity;
    format!(
        "{prefill_tokens} prompt tokens/s, {decode_tokens} output tokens/s, \
         {kv_tokens} KV tokens held {output_token} an output token"
    )
}

fn price(cost: TokenCost) -> String {
    format!("{} a prompt token, {} an output token", cost.prompt, cost.output)
}
