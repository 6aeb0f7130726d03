//! `policy.feedback`: as written, and what it means.

use plimsoll_base::Span;
use plimsoll_policy::config::{Adapt, Autoscale, Feedback, SloCaps};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::admit::{class_id, class_ids, millionths, positive, span};
use crate::policy::{Known, at_least_one};
use crate::{At, Code, Diagnostic, FractionValue, Items, SpanValue};

const BASE_DEFAULT: Span = Span::from_millis(20);
const OPEN_FOR_DEFAULT: Span = Span::from_secs(10);
const FAILURES_DEFAULT: u32 = 5;
const AFTER_DEFAULT: Span = Span::from_secs(1);
const TARGET_PPM_DEFAULT: u32 = 700_000;
const TOLERANCE_PPM_DEFAULT: u32 = 100_000;
const LOOK_DEFAULT: Span = Span::from_secs(15);
const COOL_DOWN_DEFAULT: Span = Span::from_secs(180);
const DOWN_AFTER_DEFAULT: Span = Span::from_secs(300);
const EVERY_DEFAULT: Span = Span::from_millis(500);
const WINDOW_DEFAULT: u32 = 32;
const MISSES_MAX_PPM_DEFAULT: u32 = 100_000;

/// A rule of feedback; at most one of each kind.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "rule", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "FeedbackSpec", tag = "rule")]
pub enum FeedbackSpec {
    /// Adapts how many requests may be outstanding at a backend to the wait in its own queue.
    AdaptiveConcurrency {
        /// How the limit moves.
        by: At<AdaptSpec>,
        /// With "aimd": the longest wait in the backend's queue that is welcome.
        target: Option<At<SpanValue>>,
        /// With "gradient": added to the waits that are compared. Default "20ms".
        base: Option<At<SpanValue>>,
        /// The limit never falls below this. Default 1.
        min: Option<At<u32>>,
    },
    /// Gives a backend that fails a rest, then lets one request try.
    CircuitBreaker {
        /// Failures in a row that open it. Default 5.
        failures: Option<At<u32>>,
        /// How long it stays open. Default "10s".
        open_for: Option<At<SpanValue>>,
    },
    /// Cuts off running requests of sheddable classes, one at a time, while a class that is not
    /// sheddable waits for what they hold.
    EvictSheddable {
        /// How long the oldest request must have waited. Default "1s".
        after: Option<At<SpanValue>>,
        /// The shortest time from one eviction to the next. Default "500ms".
        every: Option<At<SpanValue>>,
    },
    /// Advises how many replicas each pool should have; nothing is resized.
    Autoscale {
        /// The load that is aimed at: what runs and waits in parts of what a pool holds. Default
        /// 0.7.
        target: Option<At<FractionValue>>,
        /// By what fraction of the target the load may differ from it. Default 0.1.
        tolerance: Option<At<FractionValue>>,
        /// How often it is looked. Default "15s".
        every: Option<At<SpanValue>>,
        /// The shortest time from one advice for a pool to the next, in which a new replica comes
        /// to be there. Default "3m".
        cool_down: Option<At<SpanValue>>,
        /// For how long none must have wanted more before fewer are advised. Default "5m".
        down_after: Option<At<SpanValue>>,
        /// Never fewer. Default 1.
        min: Option<At<u32>>,
        /// Never more.
        max: At<u32>,
    },
    /// Lowers the caps of lesser classes while a class misses its deadline.
    SloCaps {
        /// The class with the objective.
        class: At<String>,
        /// The classes that give way; each states `requests_max`, where its cap starts.
        lesser: Items<At<String>>,
        /// Results from one action to the next. Default 32.
        window: Option<At<u32>>,
        /// The fraction of them that may be misses. Default 0.1.
        misses_max: Option<At<FractionValue>>,
        /// By how many requests a cap moves. Default 1.
        step: Option<At<u32>>,
        /// No cap falls below this. Default 1.
        min: Option<At<u32>>,
    },
}

/// How an adaptive limit moves.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename = "by", rename_all = "kebab-case")]
#[schemars(rename = "AdaptSpec")]
pub enum AdaptSpec {
    /// Additive increase, multiplicative decrease around a target.
    Aimd,
    /// By the ratio of the usual to the present wait.
    Gradient,
}

/// One rule of feedback; `None` if a part of it is missing.
pub(crate) fn feedback(
    spec: &FeedbackSpec,
    known: Known<'_>,
    found: &mut Vec<Diagnostic>,
) -> Option<Feedback> {
    Some(match spec {
        &FeedbackSpec::AdaptiveConcurrency { by, target, base, min } => {
            let min = at_least_one("min", min, found).unwrap_or(1);
            let by = match by.value {
                AdaptSpec::Aimd => {
                    belongs_not("base", base, "gradient", found);
                    if target.is_none() {
                        let message = "`aimd` needs a `target`";
                        found.push(
                            Diagnostic::new(Code::Missing, Some(by.place), message)
                                .help("add the wait it aims at, for example `target = \"50ms\"`"),
                        );
                    }
                    Adapt::Aimd { target: span("target", target, found)? }
                }
                AdaptSpec::Gradient => {
                    belongs_not("target", target, "aimd", found);
                    Adapt::Gradient { base: span("base", base, found).unwrap_or(BASE_DEFAULT) }
                }
            };
            Feedback::AdaptiveConcurrency { by, min }
        }
        &FeedbackSpec::CircuitBreaker { failures, open_for } => Feedback::CircuitBreaker {
            failures: at_least_one("failures", failures, found).unwrap_or(FAILURES_DEFAULT),
            open_for: span("open_for", open_for, found).unwrap_or(OPEN_FOR_DEFAULT),
        },
        &FeedbackSpec::EvictSheddable { after, every } => Feedback::EvictSheddable {
            after: span("after", after, found).unwrap_or(AFTER_DEFAULT),
            every: span("every", every, found).unwrap_or(EVERY_DEFAULT),
        },
        &FeedbackSpec::Autoscale { target, tolerance, every, cool_down, down_after, min, max } => {
            Feedback::Autoscale(Autoscale {
                target_ppm: positive("target", target, found).unwrap_or(TARGET_PPM_DEFAULT),
                tolerance_ppm: tolerance
                    .map_or(TOLERANCE_PPM_DEFAULT, |part| millionths(part.value.0)),
                every: span("every", every, found).unwrap_or(LOOK_DEFAULT),
                cool_down: span("cool_down", cool_down, found).unwrap_or(COOL_DOWN_DEFAULT),
                down_after: down_after.map_or(DOWN_AFTER_DEFAULT, |span| span.value.0),
                min: at_least_one("min", min, found).unwrap_or(1),
                max: at_least_one("max", Some(max), found)?,
            })
        }
        FeedbackSpec::SloCaps { class, lesser, window, misses_max, step, min } => {
            Feedback::SloCaps(SloCaps {
                class: class_id(class, known, found)?,
                lesser: class_ids(Some(lesser), known, found),
                window: at_least_one("window", *window, found).unwrap_or(WINDOW_DEFAULT),
                misses_max_ppm: misses_max
                    .map_or(MISSES_MAX_PPM_DEFAULT, |part| millionths(part.value.0)),
                step: at_least_one("step", *step, found).unwrap_or(1),
                min: at_least_one("min", *min, found).unwrap_or(1),
            })
        }
    })
}

/// Refuses a key that belongs to the other way.
fn belongs_not(key: &str, value: Option<At<SpanValue>>, other: &str, found: &mut Vec<Diagnostic>) {
    if let Some(value) = value {
        let message = format!("`{key}` belongs to `by = \"{other}\"`");
        found.push(
            Diagnostic::new(Code::Conflict, Some(value.place), message)
                .help(format!("leave out `{key}`")),
        );
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_base::ClassId;

    use super::*;
    use crate::spec::PolicySpec;

    fn read(rules: &str) -> Result<Vec<Feedback>, Vec<String>> {
        let messages = |found: Vec<Diagnostic>| -> Vec<String> {
            found.into_iter().map(|diagnostic| diagnostic.message).collect()
        };
        let node = crate::tree::parse(&format!("feedback = [{rules}]"), 0).map_err(messages)?;
        let written: PolicySpec = crate::decode(&node).map_err(messages)?;
        let classes = ["chat", "batch"].map(str::to_owned);
        let known = Known { classes: &classes, tenants: &[], sources: &[], pools: &[] };
        let mut found = Vec::new();
        let rules = written.feedback.map(|rules| rules.value.0).unwrap_or_default();
        let read =
            rules.iter().filter_map(|rule| feedback(&rule.value, known, &mut found)).collect();
        if found.is_empty() { Ok(read) } else { Err(messages(found)) }
    }

    #[test]
    fn rules_are_read_with_their_defaults() {
        let aimd = Adapt::Aimd { target: Span::from_millis(50) };
        let gradient = Adapt::Gradient { base: BASE_DEFAULT };
        for (text, expected) in [
            (
                r#"{ rule = "adaptive-concurrency", by = "aimd", target = "50ms", min = 4 }"#,
                Feedback::AdaptiveConcurrency { by: aimd, min: 4 },
            ),
            (
                r#"{ rule = "adaptive-concurrency", by = "gradient" }"#,
                Feedback::AdaptiveConcurrency { by: gradient, min: 1 },
            ),
            (
                r#"{ rule = "circuit-breaker", failures = 3 }"#,
                Feedback::CircuitBreaker { failures: 3, open_for: OPEN_FOR_DEFAULT },
            ),
            (
                r#"{ rule = "evict-sheddable", after = "2s" }"#,
                Feedback::EvictSheddable { after: Span::from_secs(2), every: EVERY_DEFAULT },
            ),
            (
                r#"{ rule = "autoscale", max = 9, target = "80%", down_after = "0s" }"#,
                Feedback::Autoscale(Autoscale {
                    target_ppm: 800_000,
                    tolerance_ppm: TOLERANCE_PPM_DEFAULT,
                    every: LOOK_DEFAULT,
                    cool_down: COOL_DOWN_DEFAULT,
                    down_after: Span::ZERO,
                    min: 1,
                    max: 9,
                }),
            ),
            (
                r#"{ rule = "slo-caps", class = "chat", lesser = ["batch"], misses_max = "5%" }"#,
                Feedback::SloCaps(SloCaps {
                    class: ClassId(0),
                    lesser: vec![ClassId(1)],
                    window: WINDOW_DEFAULT,
                    misses_max_ppm: 50_000,
                    step: 1,
                    min: 1,
                }),
            ),
        ] {
            assert_eq!(read(text), Ok(vec![expected]), "{text}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (rule, expected) in [
            (r#"{ rule = "adaptive-concurrency", by = "aimd" }"#, "needs a `target`"),
            (r#"{ rule = "adaptive-concurrency", by = "gradient", target = "1s" }"#, "belongs to"),
            (r#"{ rule = "adaptive-concurrency", by = "luck" }"#, "luck"),
            (r#"{ rule = "adaptive-concurrency", by = "gradient", min = 0 }"#, "at least 1"),
            (r#"{ rule = "circuit-breaker", open_for = "0s" }"#, "above 0"),
            (r#"{ rule = "circuit-breaker", half = 1 }"#, "half"),
            (r#"{ rule = "evict-sheddable", every = "0s" }"#, "above 0"),
            (r#"{ rule = "autoscale" }"#, "max"),
            (r#"{ rule = "autoscale", max = 0 }"#, "at least 1"),
            (r#"{ rule = "autoscale", max = 2, cool_down = "0s" }"#, "above 0"),
            (r#"{ rule = "slo-caps", class = "x", lesser = [] }"#, "no class is named `x`"),
            (r#"{ rule = "slo-caps", class = "chat" }"#, "lesser"),
        ] {
            let found = read(rule).expect_err(rule);
            assert!(found.iter().any(|message| message.contains(expected)), "{rule}: {found:?}");
        }
    }
}
