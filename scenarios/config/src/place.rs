//! Rules of placement in a file.

use plimsoll_base::{SiteId, Span};
use plimsoll_policy::config::{LoadBreak, LocalFirst, Place};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::find;
use crate::spec::{PolicySpec, or_bare_rule};
use crate::{At, Code, Diagnostic, Items, SpanValue};

const BREAK_FACTOR_DEFAULT: u32 = 1_500_000;
const BREAK_FACTOR_MAX: f64 = 1_000.0;
const BREAK_TOKENS_DEFAULT: u64 = 8_192;
const SESSIONS_DEFAULT: u32 = 100_000;
const SEED_DEFAULT: u64 = 1;

/// Which backend.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "rule", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "PlaceSpec", tag = "rule", transform = or_bare_rule)]
pub enum PlaceSpec {
    /// The nearest site; the next one only after a wait.
    LocalFirst {
        /// Sites from the nearest on. Default: all, in the order of the policy's `sites`.
        sites: Option<At<Items<At<String>>>>,
        /// The oldest request of a class waits so long before the class may use the next site.
        spill_wait: SpanValue,
        /// A nearer site turns away no request of the class for so long before the class
        /// returns. Default: `spill_wait`.
        return_after: Option<SpanValue>,
    },
    /// The backend that has most of the prompt cached, unless it is overloaded.
    PrefixAffinity {
        /// Overloaded is above this × the least loaded + `break_tokens`. Default 1.5.
        break_factor: Option<At<f64>>,
        /// Outstanding tokens. Default 8192.
        break_tokens: Option<u64>,
    },
    /// The backend that the session went to last, unless it is overloaded.
    SessionAffinity {
        /// Sessions remembered. Default 100000.
        sessions_max: Option<At<u32>>,
        /// Overloaded is above this × the least loaded + `break_tokens`. Default 1.5.
        break_factor: Option<At<f64>>,
        /// Outstanding tokens. Default 8192.
        break_tokens: Option<u64>,
    },
    /// In turn.
    RoundRobin,
    /// The one with the fewest outstanding tokens.
    LeastTokens,
    /// The less loaded of two that are drawn at random.
    PowerOfTwo {
        /// Seed of the rule's random stream. Default 1.
        seed: Option<u64>,
    },
}

/// The rules, in order.
pub(crate) fn rules(policy: &PolicySpec, found: &mut Vec<Diagnostic>) -> Vec<Place> {
    let Some(rules) = &policy.place else { return vec![Place::LeastTokens] };
    rules.0.iter().map(|rule| self::rule(&rule.value, policy, found)).collect()
}

fn rule(spec: &PlaceSpec, policy: &PolicySpec, found: &mut Vec<Diagnostic>) -> Place {
    match spec {
        PlaceSpec::LocalFirst { sites, spill_wait, return_after } => {
            Place::LocalFirst(LocalFirst {
                sites: ranked(sites.as_ref(), policy, found),
                spill_wait: spill_wait.0,
                return_after: return_after
                    .map_or(spill_wait.0, |after: SpanValue| -> Span { after.0 }),
            })
        }
        PlaceSpec::PrefixAffinity { break_factor, break_tokens } => {
            Place::PrefixAffinity(load(*break_factor, *break_tokens, found))
        }
        PlaceSpec::SessionAffinity { sessions_max, break_factor, break_tokens } => {
            Place::SessionAffinity {
                sessions_max: sessions_max.map_or(SESSIONS_DEFAULT, |most| most.value),
                load: load(*break_factor, *break_tokens, found),
            }
        }
        PlaceSpec::RoundRobin => Place::RoundRobin,
        PlaceSpec::LeastTokens => Place::LeastTokens,
        PlaceSpec::PowerOfTwo { seed } => Place::PowerOfTwo { seed: seed.unwrap_or(SEED_DEFAULT) },
    }
}

fn load(
    break_factor: Option<At<f64>>,
    break_tokens: Option<u64>,
    found: &mut Vec<Diagnostic>,
) -> LoadBreak {
    let factor_ppm =
        break_factor.map(|factor| {
            if !(1.0..=BREAK_FACTOR_MAX).contains(&factor.value) {
                let message = format!("`break_factor` {} is not from 1 to 1000", factor.value);
                found.push(Diagnostic::new(Code::Range, Some(factor.place), message).help(
                    "write for example `break_factor = 1.5`; 1 allows no more than the tokens",
                ));
            }
            (factor.value * 1e6).round() as u32
        });
    LoadBreak {
        factor_ppm: factor_ppm.unwrap_or(BREAK_FACTOR_DEFAULT),
        tokens: break_tokens.unwrap_or(BREAK_TOKENS_DEFAULT),
    }
}

fn ranked(
    sites: Option<&At<Items<At<String>>>>,
    policy: &PolicySpec,
    found: &mut Vec<Diagnostic>,
) -> Vec<SiteId> {
    let known: Vec<String> = site_names(policy);
    match sites {
        Some(sites) => {
            let named = sites.value.0.iter();
            named.filter_map(|site| find(site, &known, "site", found)).map(site_id).collect()
        }
        None => (0..known.len()).map(site_id).collect(),
    }
}

/// The policy's sites, indexed by [`SiteId`].
pub(crate) fn site_names(policy: &PolicySpec) -> Vec<String> {
    policy.sites.0.iter().map(|name| name.value.clone()).collect()
}

/// The sites that a class names, a bit an id; 0, which is all, if it names none.
pub(crate) fn site_bits(
    sites: Option<&At<Items<At<String>>>>,
    known: &[String],
    found: &mut Vec<Diagnostic>,
) -> u64 {
    let Some(sites) = sites else { return 0 };
    if sites.value.0.is_empty() {
        found.push(
            Diagnostic::new(Code::Range, Some(sites.place), "a class with no site runs nowhere")
                .help("name the sites it may go to, or leave `sites` out to allow all"),
        );
    }
    let named = sites.value.0.iter().filter_map(|site| find(site, known, "site", found));
    named.fold(0, |bits, index| bits | 1u64.checked_shl(index as u32).unwrap_or(0))
}

fn site_id(index: usize) -> SiteId {
    SiteId(u16::try_from(index).unwrap_or(u16::MAX))
}
