//! `policy.admit` and `policy.predict`: as written, and what they mean.

use std::borrow::Cow;
use std::collections::BTreeMap;

use plimsoll_base::{ClassId, Span};
use plimsoll_policy::config::{
    Admit, BucketPer, BucketUnit, EarlyRefusal, Predict, RetryBudget, SaturationGate, Stale,
    TokenBucket,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::policy::{Known, at_least_one, find};
use crate::spec::{Scalar, or_bare_rule};
use crate::{At, Code, Diagnostic, FractionValue, Items, SpanValue, units};

const WAITING_FULL_DEFAULT: u32 = 5;
const KV_FULL_PPM_DEFAULT: u32 = 800_000;
const STALE_AFTER_DEFAULT: Span = Span::from_secs(1);
const RATIO_PPM_DEFAULT: u32 = 200_000;
const BUDGET_WINDOW_DEFAULT: Span = Span::from_secs(10);
const RETRIES_MIN_DEFAULT: u32 = 10;
const QUANTILE_PPM_DEFAULT: u32 = 900_000;
const SAMPLES_MIN_DEFAULT: u32 = 32;
const ERROR_MAX: f64 = 10.0;

/// A rule of admission; asked in order, the first that objects refuses.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "rule", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "AdmitSpec", tag = "rule")]
pub enum AdmitSpec {
    /// Refuses what comes faster than a rate; reserves on arrival, settles at the end.
    TokenBucket {
        /// What is counted: "requests" (default) or "tokens".
        unit: Option<UnitSpec>,
        /// Who has a bucket: "all" (default), "class" or "tenant".
        per: Option<BucketPerSpec>,
        /// What flows in: "50/s" of requests, or a number of tokens a second.
        rate: At<BucketRate>,
        /// What a full bucket holds, in requests or tokens.
        burst: At<u64>,
        /// Only these classes. Default all.
        classes: Option<Items<At<String>>>,
    },
    /// Refuses classes while the backends report that they are fuller than the class's ceiling.
    SaturationGate {
        /// Requests in a backend's own queue at which it is full. Default 5.
        waiting_full: Option<At<u32>>,
        /// The fraction of KV memory at which it is full. Default 0.8.
        kv_full: Option<At<FractionValue>>,
        /// By class: `{ batch = 0.6, chat = 1.0 }`. Classes not named are not asked.
        ceilings: At<BTreeMap<String, At<FractionValue>>>,
        /// The age past which a report is stale. Default "1s".
        stale_after: Option<At<SpanValue>>,
        /// What a backend with a stale report counts as. Default "open".
        stale: Option<StaleSpec>,
    },
    /// Refuses what would wait longer than its objective allows.
    EarlyRefusal {
        /// The longest predicted wait. Default: the class's deadline.
        wait_limit: Option<At<SpanValue>>,
        /// Only these classes. Default all.
        classes: Option<Items<At<String>>>,
    },
    /// Refuses retries beyond a part of first attempts.
    RetryBudget {
        /// Retries let in for each first attempt. Default 0.2.
        ratio: Option<At<FractionValue>>,
        /// Over how long. Default "10s".
        window: Option<At<SpanValue>>,
        /// Retries of a window that are let in however few first attempts there are. Default 10.
        min: Option<At<u32>>,
        /// Only these classes. Default all.
        classes: Option<Items<At<String>>>,
    },
}

/// What a token bucket counts.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename = "unit", rename_all = "kebab-case")]
#[schemars(rename = "UnitSpec")]
pub enum UnitSpec {
    /// One a request.
    Requests,
    /// Prompt and output tokens.
    Tokens,
}

/// Who has a token bucket of its own.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename = "per", rename_all = "kebab-case")]
#[schemars(rename = "BucketPerSpec")]
pub enum BucketPerSpec {
    /// One for all.
    All,
    /// One a class.
    Class,
    /// One a tenant.
    Tenant,
}

/// What a backend with a stale report counts as.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename = "stale", rename_all = "kebab-case")]
#[schemars(rename = "StaleSpec")]
pub enum StaleSpec {
    /// As nothing: the others decide.
    Open,
    /// As full.
    Closed,
    /// As its last report said.
    Last,
}

/// `"50/s"`, or a bare number a second.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct BucketRate(pub Scalar);

impl JsonSchema for BucketRate {
    fn schema_name() -> Cow<'static, str> {
        "BucketRate".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let rate = generator.subschema_for::<crate::RateValue>();
        json_schema!({
            "description": "Requests: \"50/s\". Tokens: a number a second, or \"90000/min\".",
            "anyOf": [rate, { "type": "number", "exclusiveMinimum": 0 }]
        })
    }
}

/// How output length is predicted.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename = "rule", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "PredictSpec", tag = "rule", transform = or_bare_rule)]
pub enum PredictSpec {
    /// The client's cap.
    DeclaredCap,
    /// What the class states, never above the cap; the cap where it states nothing.
    ClassIntensity,
    /// A running quantile of what finished requests of the class delivered.
    ClassQuantile {
        /// Which quantile. Default 0.9.
        quantile: Option<At<FractionValue>>,
        /// Requests of the class to finish before it counts. Default 32.
        samples_min: Option<At<u32>>,
    },
    /// The true length with an error: for studies only, and reports say so.
    NoisyOracle {
        /// The relative standard deviation of the error; 0 predicts the truth.
        error: At<f64>,
    },
}

/// The rule of prediction.
pub(crate) fn predict(spec: Option<PredictSpec>, found: &mut Vec<Diagnostic>) -> Predict {
    match spec {
        Some(PredictSpec::DeclaredCap) => Predict::DeclaredCap,
        None | Some(PredictSpec::ClassIntensity) => Predict::ClassIntensity,
        Some(PredictSpec::ClassQuantile { quantile, samples_min }) => Predict::ClassQuantile {
            quantile_ppm: positive("quantile", quantile, found).unwrap_or(QUANTILE_PPM_DEFAULT),
            samples_min: at_least_one("samples_min", samples_min, found)
                .unwrap_or(SAMPLES_MIN_DEFAULT),
        },
        Some(PredictSpec::NoisyOracle { error }) => {
            if !(0.0..=ERROR_MAX).contains(&error.value) {
                let message = format!("{} is not an error of prediction", error.value);
                found.push(
                    Diagnostic::new(Code::Range, Some(error.place), message)
                        .label("a relative standard deviation")
                        .help("write a number from 0 (the truth) to 10, for example 0.3"),
                );
            }
            Predict::NoisyOracle { error_ppm: millionths(error.value) }
        }
    }
}

/// One rule of admission; `None` if a part of it cannot be read.
pub(crate) fn admit(
    spec: &AdmitSpec,
    known: Known<'_>,
    found: &mut Vec<Diagnostic>,
) -> Option<Admit> {
    Some(match spec {
        AdmitSpec::TokenBucket { unit, per, rate, burst, classes } => {
            let unit = match unit {
                None | Some(UnitSpec::Requests) => BucketUnit::Requests,
                Some(UnitSpec::Tokens) => BucketUnit::Tokens,
            };
            Admit::TokenBucket(TokenBucket {
                unit,
                per: match per {
                    None | Some(BucketPerSpec::All) => BucketPer::All,
                    Some(BucketPerSpec::Class) => BucketPer::Class,
                    Some(BucketPerSpec::Tenant) => BucketPer::Tenant,
                },
                rate_micros: bucket_rate(rate, unit, found)?,
                burst: at_least_one("burst", Some(*burst), found)?,
                classes: class_ids(classes.as_ref(), known, found),
            })
        }
        AdmitSpec::SaturationGate { waiting_full, kv_full, ceilings, stale_after, stale } => {
            Admit::SaturationGate(SaturationGate {
                waiting_full: at_least_one("waiting_full", *waiting_full, found)
                    .unwrap_or(WAITING_FULL_DEFAULT),
                kv_full_ppm: positive("kv_full", *kv_full, found).unwrap_or(KV_FULL_PPM_DEFAULT),
                ceilings: ceilings_by_class(ceilings, known, found),
                stale_after: span("stale_after", *stale_after, found)
                    .unwrap_or(STALE_AFTER_DEFAULT),
                stale: match stale {
                    None | Some(StaleSpec::Open) => Stale::Open,
                    Some(StaleSpec::Closed) => Stale::Closed,
                    Some(StaleSpec::Last) => Stale::Last,
                },
            })
        }
        AdmitSpec::EarlyRefusal { wait_limit, classes } => Admit::EarlyRefusal(EarlyRefusal {
            wait_limit: wait_limit.map(|limit| limit.value.0),
            classes: class_ids(classes.as_ref(), known, found),
        }),
        AdmitSpec::RetryBudget { ratio, window, min, classes } => Admit::RetryBudget(RetryBudget {
            ratio_ppm: ratio.map_or(RATIO_PPM_DEFAULT, |part| millionths(part.value.0)),
            window: span("window", *window, found).unwrap_or(BUDGET_WINDOW_DEFAULT),
            min: at_least_one("min", *min, found).unwrap_or(RETRIES_MIN_DEFAULT),
            classes: class_ids(classes.as_ref(), known, found),
        }),
    })
}

/// Millionths of a unit a second.
fn bucket_rate(
    rate: &At<BucketRate>,
    unit: BucketUnit,
    found: &mut Vec<Diagnostic>,
) -> Option<u64> {
    let read = match (&rate.value.0, unit) {
        (Scalar::Text(text), _) => units::rate(text),
        (Scalar::Number(number), BucketUnit::Tokens) => Ok(*number),
        (Scalar::Number(number), BucketUnit::Requests) => {
            Err(units::bare(units::RATE, &number.to_string()))
        }
        (Scalar::Other, _) => Err(units::bare(units::RATE, "50")),
    };
    let per_second = match read {
        Ok(per_second) => per_second,
        Err(wrong) => {
            found.push(
                Diagnostic::new(Code::Unit, Some(rate.place), wrong.message).help(wrong.help),
            );
            return None;
        }
    };
    // From a millionth to 10¹² a second.
    if !(1e-6..=1e12).contains(&per_second) {
        let message = "a token bucket with such a rate never or always lets in";
        found.push(
            Diagnostic::new(Code::Range, Some(rate.place), message)
                .help("write a rate above 0, for example \"50/s\", or 20000 tokens a second"),
        );
        return None;
    }
    Some((per_second * 1e6).round() as u64)
}

fn ceilings_by_class(
    ceilings: &At<BTreeMap<String, At<FractionValue>>>,
    known: Known<'_>,
    found: &mut Vec<Diagnostic>,
) -> Vec<(ClassId, u32)> {
    if ceilings.value.is_empty() {
        found.push(
            Diagnostic::new(Code::Missing, Some(ceilings.place), "the gate has no ceiling")
                .help("name the classes it refuses: `ceilings = { batch = 0.6 }`"),
        );
    }
    let mut ceiling = |(name, value): (&String, &At<FractionValue>)| {
        let name = At { value: name.clone(), place: value.place };
        let class = class_id(&name, known, found)?;
        Some((class, positive("ceilings", Some(*value), found)?))
    };
    let mut named: Vec<_> = ceilings.value.iter().filter_map(&mut ceiling).collect();
    named.sort_unstable_by_key(|&(class, _)| class);
    named
}

/// The ids of classes named in a list.
pub(crate) fn class_ids(
    names: Option<&Items<At<String>>>,
    known: Known<'_>,
    found: &mut Vec<Diagnostic>,
) -> Vec<ClassId> {
    let names = names.map_or(&[][..], |names| &names.0);
    names.iter().filter_map(|name| class_id(name, known, found)).collect()
}

/// The id of a class that is named.
pub(crate) fn class_id(
    name: &At<String>,
    known: Known<'_>,
    found: &mut Vec<Diagnostic>,
) -> Option<ClassId> {
    let index = find(name, known.classes, "class", found)?;
    Some(ClassId(u16::try_from(index).unwrap_or(u16::MAX)))
}

/// A fraction above 0 in millionths.
pub(crate) fn positive(
    key: &str,
    value: Option<At<FractionValue>>,
    found: &mut Vec<Diagnostic>,
) -> Option<u32> {
    let value = value?;
    let parts = millionths(value.value.0);
    if parts == 0 {
        found.push(
            Diagnostic::new(Code::Range, Some(value.place), format!("`{key}` must be above 0"))
                .help("write a fraction above 0, for example 0.5, or leave it out"),
        );
    }
    Some(parts)
}

/// A span above 0.
pub(crate) fn span(
    key: &str,
    value: Option<At<SpanValue>>,
    found: &mut Vec<Diagnostic>,
) -> Option<Span> {
    let value = value?;
    if value.value.0 == Span::ZERO {
        found.push(
            Diagnostic::new(Code::Range, Some(value.place), format!("`{key}` must be above 0"))
                .help("write a length of time, for example \"1s\", or leave it out"),
        );
    }
    Some(value.value.0)
}

pub(crate) fn millionths(fraction: f64) -> u32 {
    (fraction * 1e6).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::PolicySpec;

    const CLASSES: [&str; 2] = ["chat", "batch"];

    /// Reads one `[policy]` with two classes.
    fn read(text: &str) -> Result<(Vec<Admit>, Predict), Vec<String>> {
        let node = crate::tree::parse(text, 0).map_err(messages)?;
        let written: PolicySpec = crate::decode(&node).map_err(messages)?;
        let classes: Vec<String> = CLASSES.iter().map(|&name| name.into()).collect();
        let known = Known { classes: &classes, tenants: &[], sources: &[], pools: &[] };
        let mut found = Vec::new();
        let rules = written.admit.map(|rules| rules.value.0).unwrap_or_default();
        let rules = rules.iter().filter_map(|rule| admit(&rule.value, known, &mut found));
        let rules = rules.collect();
        let predict = predict(written.predict, &mut found);
        if found.is_empty() { Ok((rules, predict)) } else { Err(messages(found)) }
    }

    fn messages(found: Vec<Diagnostic>) -> Vec<String> {
        found.into_iter().map(|diagnostic| diagnostic.message).collect()
    }

    #[test]
    fn rules_are_read_with_their_defaults() {
        let text = r#"
            admit = [
              { rule = "token-bucket", unit = "tokens", per = "tenant", rate = 1500, burst = 9000 },
              { rule = "token-bucket", rate = "90/min", burst = 3, classes = ["batch"] },
              { rule = "saturation-gate", ceilings = { chat = 1.0, batch = "60%" } },
              { rule = "early-refusal", wait_limit = "2s" },
              { rule = "retry-budget" },
              { rule = "retry-budget", ratio = 0.5, window = "1m", min = 3, classes = ["chat"] },
            ]
            predict = { rule = "noisy-oracle", error = 0.3 }
        "#;
        let bucket = |unit, per, rate_micros, burst, classes| {
            Admit::TokenBucket(TokenBucket { unit, per, rate_micros, burst, classes })
        };
        let budget = |ratio_ppm, window, min, classes| {
            Admit::RetryBudget(RetryBudget { ratio_ppm, window, min, classes })
        };
        let gate = SaturationGate {
            waiting_full: 5,
            kv_full_ppm: 800_000,
            ceilings: vec![(ClassId(0), 1_000_000), (ClassId(1), 600_000)],
            stale_after: Span::from_secs(1),
            stale: Stale::Open,
        };
        let expected = vec![
            bucket(BucketUnit::Tokens, BucketPer::Tenant, 1_500_000_000, 9000, vec![]),
            bucket(BucketUnit::Requests, BucketPer::All, 1_500_000, 3, vec![ClassId(1)]),
            Admit::SaturationGate(gate),
            Admit::EarlyRefusal(EarlyRefusal {
                wait_limit: Some(Span::from_secs(2)),
                classes: vec![],
            }),
            budget(200_000, Span::from_secs(10), 10, vec![]),
            budget(500_000, Span::from_secs(60), 3, vec![ClassId(0)]),
        ];
        assert_eq!(read(text), Ok((expected, Predict::NoisyOracle { error_ppm: 300_000 })));
        let quantile = Predict::ClassQuantile { quantile_ppm: 900_000, samples_min: 32 };
        assert_eq!(read(r#"predict = "class-quantile""#), Ok((vec![], quantile)));
        assert_eq!(read(r#"predict = "declared-cap""#), Ok((vec![], Predict::DeclaredCap)));
    }

    #[test]
    fn mistakes_are_told() {
        let cases = [
            (r#"{ rule = "token-bucket", rate = 5, burst = 3 }"#, "5 lacks a unit"),
            (r#"{ rule = "token-bucket", rate = "0/s", burst = 3 }"#, "never or always"),
            (r#"{ rule = "token-bucket", rate = "5/s", burst = 0 }"#, "`burst` must be"),
            (r#"{ rule = "token-bucket", rate = "5/s", burst = 1, size = 2 }"#, "size"),
            (r#"{ rule = "token-bucket", burst = 1 }"#, "rate"),
            (r#"{ rule = "saturation-gate", ceilings = {} }"#, "no ceiling"),
            (r#"{ rule = "saturation-gate", ceilings = { bach = 0.5 } }"#, "no class is named"),
            (r#"{ rule = "saturation-gate", ceilings = { chat = 0 } }"#, "above 0"),
            (r#"{ rule = "saturation-gate", ceilings = { chat = 1 }, stale = "shut" }"#, "shut"),
            (r#"{ rule = "early-refusal", classes = ["x"] }"#, "no class is named `x`"),
            (r#"{ rule = "early-refusal", wait_limit = 5 }"#, "lacks a unit"),
            (r#"{ rule = "retry-budget", min = 0 }"#, "`min` must be"),
            (r#"{ rule = "retry-budget", window = "0s" }"#, "`window` must be above 0"),
            (r#"{ rule = "retry-budget", ratio = 1.5 }"#, "1.5"),
        ];
        for (rule, expected) in cases {
            let found = read(&format!("admit = [{rule}]")).expect_err(rule);
            assert!(found.iter().any(|message| message.contains(expected)), "{rule}: {found:?}");
        }
        let found = read(r#"predict = { rule = "noisy-oracle", error = -1 }"#);
        assert!(found.expect_err("negative")[0].contains("not an error"), "-1");
    }
}
