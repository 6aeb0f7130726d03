//! Short ways to write policies and inputs.

use plimsoll_base::{BackendId, ClassId, PoolId, RequestId, SourceId, Span, TenantId, Time};
use plimsoll_policy::config::{Becomes, Class, ClassifyRule, Order, Place, Predict, Share, Window};
use plimsoll_policy::{Allocator, BackendInfo, Config, Decision, Input, RequestInfo};

pub fn class() -> Class {
    Class {
        priority: 0,
        weight: 1,
        wait_max: None,
        queue_max: None,
        time_to_live: None,
        requests_max: None,
        tokens_max: None,
        boost: Span::ZERO,
        output_tokens_expected: None,
        sheddable: false,
    }
}

/// Every request gets the class it claims.
pub fn config(share: Share, classes: Vec<Class>) -> Config {
    Config {
        classes,
        classify: vec![ClassifyRule { class: Becomes::Claimed, ..ClassifyRule::default() }],
        share,
        order: Order::Fcfs,
        place: Place::LeastTokens,
        window: Window::Seats,
        guard: None,
        predict: Predict::DeclaredCap,
        requests_max: 1_000_000,
    }
}

pub fn backend(seats: u32, kv_tokens: u64) -> BackendInfo {
    BackendInfo { pool: PoolId(0), seats, kv_tokens, context_max: 1_000_000 }
}

pub fn join(slot: u32, seats: u32, kv_tokens: u64) -> Input {
    Input::Joined(BackendId::first(slot), backend(seats, kv_tokens))
}

pub fn request(class: u16, prompt_tokens: u32, output_cap: u32) -> RequestInfo {
    RequestInfo {
        tenant: TenantId(u32::from(class)),
        source: SourceId(0),
        claims: Some(ClassId(class)),
        prompt_tokens,
        output_cap,
    }
}

pub fn arrive(id: u64, info: RequestInfo) -> Input {
    Input::Arrived(RequestId(id), info)
}

/// Hands in one input at `nanos` and takes every decision that follows.
pub fn step(allocator: &mut Allocator, nanos: u64, input: Input) -> Vec<Decision> {
    allocator.handle(Time::from_nanos(nanos), input);
    std::iter::from_fn(|| allocator.poll()).collect()
}
