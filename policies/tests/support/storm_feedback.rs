//! Random rules of feedback.

use plimsoll_base::{ClassId, Span};
use plimsoll_policy::config::{Adapt, Autoscale, Class, Feedback, SloCaps};
use proptest::option::weighted;
use proptest::prelude::*;

/// Rules that fit all classes, and those that [`fit`] makes fit.
type Rules = (Vec<Feedback>, Option<(SloCaps, Span)>, Option<Feedback>);

pub fn feedback() -> impl Strategy<Value = Rules> {
    let span = (1u64..40).prop_map(Span::from_nanos);
    let by = prop_oneof![
        span.clone().prop_map(|target| Adapt::Aimd { target }),
        span.clone().prop_map(|base| Adapt::Gradient { base }),
    ];
    let concurrency = (by, 1u32..4).prop_map(|(by, min)| Feedback::AdaptiveConcurrency { by, min });
    let breaker = (1u32..4, span)
        .prop_map(|(failures, open_for)| Feedback::CircuitBreaker { failures, open_for });
    let rules = (weighted(0.35, concurrency), weighted(0.35, breaker), weighted(0.35, autoscale()))
        .prop_map(|(concurrency, breaker, autoscale)| {
            concurrency.into_iter().chain(breaker).chain(autoscale).collect()
        });
    let evict = (1u64..30, 1u64..40).prop_map(|(after, every)| Feedback::EvictSheddable {
        after: Span::from_nanos(after),
        every: Span::from_nanos(every),
    });
    (rules, weighted(0.35, slo_caps()), weighted(0.4, evict))
}

pub fn autoscale() -> impl Strategy<Value = Feedback> {
    let spans = (1u64..30, 1u64..60, 0u64..100);
    (200_000u32..1_000_001, 0u32..400_000, spans, 1u32..3, 0u32..6).prop_map(
        |(target_ppm, tolerance_ppm, (every, cool_down, down_after), min, more)| {
            Feedback::Autoscale(Autoscale {
                target_ppm,
                tolerance_ppm,
                every: Span::from_nanos(every),
                cool_down: Span::from_nanos(cool_down),
                down_after: Span::from_nanos(down_after),
                min,
                max: min + more,
            })
        },
    )
}

/// Everyone gives way to class 0, whose deadline is the span.
fn slo_caps() -> impl Strategy<Value = (SloCaps, Span)> {
    (1u32..4, 0u32..1_000_000, 1u32..3, 1u64..60).prop_map(
        |(window, misses_max_ppm, step, deadline)| {
            let class = ClassId(0);
            let rule = SloCaps { class, lesser: vec![], window, misses_max_ppm, step, min: 1 };
            (rule, Span::from_nanos(deadline))
        },
    )
}

/// All rules, and the classes changed so that they make sense.
pub fn fit((mut rules, slo_caps, evict): Rules, classes: &mut [Class]) -> Vec<Feedback> {
    if let Some(evict) = evict
        && classes.len() > 1
    {
        classes[1].sheddable = true;
        if classes.len() > 3 {
            classes[3].sheddable = true;
        }
        rules.push(evict);
    }
    if let Some((mut rule, deadline)) = slo_caps
        && classes.len() > 1
    {
        classes[0].deadline = Some(deadline);
        for class in &mut classes[1..] {
            class.requests_max.get_or_insert(4);
        }
        rule.lesser = (1..classes.len() as u16).map(ClassId).collect();
        rules.push(Feedback::SloCaps(rule));
    }
    rules
}
