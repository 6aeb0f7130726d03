//! From the share rule of a file to [`plimsoll_policy::config::Share`].

use plimsoll_policy::config::{Capacity, Per, Share, TokenCost};

use crate::policy::at_least_one;
use crate::spec::{CostSpec, PerSpec, ShareSpec};
use crate::{At, Code, Diagnostic, RateValue};

const QUANTUM_DEFAULT: u64 = 4_096;
const COST_DEFAULT: TokenCost = TokenCost { prompt: 1, output: 2 };

pub(crate) fn share(spec: Option<&ShareSpec>, found: &mut Vec<Diagnostic>) -> Share {
    let mut grant = |quantum: Option<At<u64>>| {
        at_least_one("quantum", quantum, found).unwrap_or(QUANTUM_DEFAULT)
    };
    match spec {
        None | Some(ShareSpec::Fcfs) => Share::Fcfs,
        Some(ShareSpec::Priority) => Share::Priority,
        Some(ShareSpec::DeficitRoundRobin { per, quantum, cost }) => Share::DeficitRoundRobin {
            per: owner(*per),
            quantum: grant(*quantum),
            cost: price(*cost),
        },
        Some(ShareSpec::VirtualTokenCounter { per, cost }) => {
            Share::VirtualTokenCounter { per: owner(*per), cost: price(*cost) }
        }
        Some(ShareSpec::StartTimeFair { per, cost }) => {
            Share::StartTimeFair { per: owner(*per), cost: price(*cost) }
        }
        Some(ShareSpec::Stride { per }) => Share::Stride { per: owner(*per) },
        Some(ShareSpec::DominantResource { per, prefill, decode, kv_tokens, output_token }) => {
            let capacity = Capacity {
                prefill_tokens: tokens("prefill", *prefill, found),
                decode_tokens: tokens("decode", *decode, found),
                kv_tokens: at_least_one("kv_tokens", Some(*kv_tokens), found).unwrap_or(1),
                output_token: output_token.value.0,
            };
            Share::DominantResource { per: owner(*per), capacity }
        }
        Some(ShareSpec::DeficitLongestPrefix { per, quantum, cost }) => {
            Share::DeficitLongestPrefix {
                per: owner(*per),
                quantum: grant(*quantum),
                cost: price(*cost),
            }
        }
    }
}

fn owner(per: Option<PerSpec>) -> Per {
    match per {
        None | Some(PerSpec::Class) => Per::Class,
        Some(PerSpec::Tenant) => Per::Tenant,
        Some(PerSpec::Workflow) => Per::Workflow,
    }
}

pub(crate) fn price(cost: Option<CostSpec>) -> TokenCost {
    cost.map_or(COST_DEFAULT, |cost| TokenCost { prompt: cost.prompt, output: cost.output })
}

/// Whole tokens a second.
fn tokens(key: &str, rate: At<RateValue>, found: &mut Vec<Diagnostic>) -> u64 {
    let a_second = rate.value.0.round();
    if !(1.0..=1e12).contains(&a_second) {
        found.push(
            Diagnostic::new(
                Code::Range,
                Some(rate.place),
                format!("`{key}` must be from 1 to 10¹² tokens a second"),
            )
            .label(format!("is {} tokens a second", rate.value.0))
            .help(format!(
                "write what all backends together can do, for example {key} = \"20000/s\""
            )),
        );
    }
    a_second as u64
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use plimsoll_base::Span;

    use super::*;
    use crate::{decode, read};

    /// What a share means, or what is wrong with it.
    fn parse(text: &str) -> Result<Share, String> {
        let shipped = &[("empty", "schema_version = 1")];
        let set = [format!("share={text}")];
        let layered = read(Path::new("shipped:empty"), &set, shipped).expect("it is TOML");
        let node = layered.root.get("share").expect("it was set");
        let told = |list: Vec<Diagnostic>| {
            let told = list.iter().map(|d| format!("{}: {}", d.code.id(), d.message));
            told.collect::<Vec<_>>().join("; ")
        };
        let spec: ShareSpec = decode(node).map_err(told)?;
        let mut found = Vec::new();
        let share = share(Some(&spec), &mut found);
        if found.is_empty() { Ok(share) } else { Err(told(found)) }
    }

    #[test]
    fn every_rule_is_read() {
        let cost = TokenCost { prompt: 1, output: 4 };
        assert_eq!(
            parse(
                r#"{ rule = "start-time-fair", per = "tenant", cost = { prompt = 1, output = 4 } }"#
            ),
            Ok(Share::StartTimeFair { per: Per::Tenant, cost })
        );
        assert_eq!(parse(r#""stride""#), Ok(Share::Stride { per: Per::Class }));
        assert_eq!(
            parse(r#"{ rule = "deficit-longest-prefix", per = "workflow", quantum = 500 }"#),
            Ok(Share::DeficitLongestPrefix {
                per: Per::Workflow,
                quantum: 500,
                cost: COST_DEFAULT
            })
        );
        let dominant = r#"{ rule = "dominant-resource", per = "tenant", prefill = "20000/s",
            decode = "60000/min", kv_tokens = 400000, output_token = "40ms" }"#;
        let capacity = Capacity {
            prefill_tokens: 20_000,
            decode_tokens: 1_000,
            kv_tokens: 400_000,
            output_token: Span::from_millis(40),
        };
        let expected = Share::DominantResource { per: Per::Tenant, capacity };
        assert_eq!(parse(&dominant.replace('\n', " ")), Ok(expected));
    }

    #[test]
    fn what_cannot_be_is_told() {
        let wrong = |text: &str, told: &str| {
            let found = parse(text).expect_err("it is wrong");
            assert!(found.contains(told), "{found}");
        };
        wrong(r#"{ rule = "stride", cost = { prompt = 1, output = 1 } }"#, "cost");
        wrong(r#"{ rule = "stride", per = "user" }"#, "user");
        wrong(r#"{ rule = "deficit-longest-prefix", quantum = 0 }"#, "at least 1");
        let dominant = |prefill: &str| {
            let rest = r#"decode = "9/s", kv_tokens = 0, output_token = "1ms""#;
            format!(r#"{{ rule = "dominant-resource", prefill = {prefill}, {rest} }}"#)
        };
        wrong(&dominant(r#""1/min""#), "`prefill` must be from 1");
        wrong(&dominant(r#""9/s""#), "`kv_tokens` must be at least 1");
        wrong(&dominant("9"), "lacks a unit");
        wrong(r#"{ rule = "dominant-resource", prefill = "9/s" }"#, "decode");
    }
}
