//! Random rules of admission and prediction, and random reports.

use plimsoll_base::{ClassId, Span};
use plimsoll_policy::Load;
use plimsoll_policy::config::{
    Admit, BucketPer, BucketUnit, EarlyRefusal, Predict, RetryBudget, SaturationGate, Stale,
    TokenBucket,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// No rule as a rule, so that the others are seen.
pub fn admit(classes: u16) -> impl Strategy<Value = Vec<Admit>> {
    let rule = prop_oneof![
        2 => bucket(classes),
        2 => gate(classes),
        2 => early(classes),
        2 => retry_budget(classes)
    ];
    prop_oneof![3 => Just(vec![]), 2 => vec(rule, 1..4)]
}

fn bucket(classes: u16) -> impl Strategy<Value = Admit> {
    let unit = prop_oneof![Just(BucketUnit::Requests), Just(BucketUnit::Tokens)];
    let per = prop_oneof![Just(BucketPer::All), Just(BucketPer::Class), Just(BucketPer::Tenant)];
    // Up to half a token a nanosecond, and a burst that some requests exceed.
    (unit, per, 1u64..500_000_000, 1u64..6, only(classes)).prop_map(
        |(unit, per, rate, bursts, classes)| {
            let (rate_micros, burst) = match unit {
                BucketUnit::Requests => (rate * 100_000, bursts),
                BucketUnit::Tokens => (rate * 1_000_000, bursts * 60),
            };
            Admit::TokenBucket(TokenBucket { unit, per, rate_micros, burst, classes })
        },
    )
}

fn gate(classes: u16) -> impl Strategy<Value = Admit> {
    let stale = prop_oneof![Just(Stale::Open), Just(Stale::Closed), Just(Stale::Last)];
    let ceilings = vec(prop_oneof![1u32..1_000_000, Just(1_000_000)], 1..=classes as usize);
    (1u32..8, 1u32..1_000_001, ceilings, 1u64..80, stale).prop_map(
        |(waiting_full, kv_full_ppm, ceilings, stale_after, stale)| {
            Admit::SaturationGate(SaturationGate {
                waiting_full,
                kv_full_ppm,
                ceilings: (0..).map(ClassId).zip(ceilings).collect(),
                stale_after: Span::from_nanos(stale_after),
                stale,
            })
        },
    )
}

fn early(classes: u16) -> impl Strategy<Value = Admit> {
    (0u64..8, only(classes)).prop_map(|(limit, classes)| {
        let wait_limit = Some(Span::from_nanos(limit));
        Admit::EarlyRefusal(EarlyRefusal { wait_limit, classes })
    })
}

pub fn retry_budget(classes: u16) -> impl Strategy<Value = Admit> {
    let ratio = prop_oneof![Just(0u32), 1u32..1_000_001];
    (ratio, 10u64..300, 1u32..4, only(classes)).prop_map(|(ratio_ppm, window, min, classes)| {
        let window = Span::from_nanos(window);
        Admit::RetryBudget(RetryBudget { ratio_ppm, window, min, classes })
    })
}

fn only(classes: u16) -> impl Strategy<Value = Vec<ClassId>> {
    prop_oneof![2 => Just(vec![]), 1 => (0..classes).prop_map(|class| vec![ClassId(class)])]
}

pub fn predict() -> impl Strategy<Value = Predict> {
    prop_oneof![
        2 => Just(Predict::DeclaredCap),
        2 => Just(Predict::ClassIntensity),
        1 => (1u32..1_000_001, 1u32..5).prop_map(|(quantile_ppm, samples_min)| {
            Predict::ClassQuantile { quantile_ppm, samples_min }
        }),
        1 => Just(Predict::NoisyOracle { error_ppm: 0 }),
    ]
}

pub fn load() -> impl Strategy<Value = Load> {
    let kv = prop_oneof![Just(0u32), 0u32..1_000_001];
    (0u32..9, 0u32..9, kv, 0u64..40).prop_map(|(running, waiting, kv_used_ppm, wait)| Load {
        running,
        waiting,
        kv_used_ppm,
        queue_wait: Span::from_nanos(wait),
    })
}
