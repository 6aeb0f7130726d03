//! A policy in one sentence, for reports.

use std::fmt;

use crate::config::{
    Config, LoadBreak, Order, Partition, Per, Place, Predict, QuotaUnit, Share, TokenCost, Window,
};

/// `share by virtual token counter per tenant (1 a prompt token, 2 an output token); …`
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "share by {}", share(&self.share))?;
        match self.order {
            Order::Fcfs => f.write_str(", order by arrival")?,
            Order::Aging => f.write_str(", order by arrival less the class's boost (aging)")?,
        }
        for rule in &self.partition {
            write!(f, ", isolate by {}", partition(rule))?;
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
    }
}

fn partition(rule: &Partition) -> String {
    match rule {
        Partition::Dedicated(rule) => {
            let exclusive = if rule.exclusive { ", which take no others" } else { "" };
            format!("dedicated pools for class {} ({}{exclusive})", rule.class, rule.pools.len())
        }
        Partition::Quota(rule) => {
            let unit = match rule.unit {
                QuotaUnit::Requests => "requests",
                QuotaUnit::Tokens => "estimated tokens",
            };
            format!("quotas of {unit} in {} groups that lend and borrow", rule.groups.len())
        }
        Partition::Concurrency(rule) => {
            format!("fractions of all seats for {} classes", rule.shares_ppm.len())
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
    }
}

fn price(cost: TokenCost) -> String {
    format!("{} a prompt token, {} an output token", cost.prompt, cost.output)
}
