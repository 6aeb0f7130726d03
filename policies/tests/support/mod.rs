//! Short ways to write policies and inputs.

use plimsoll_base::{BackendId, ClassId, RequestId, TenantId, Time};
use plimsoll_policy::config::{Class, Share};
use plimsoll_policy::{Allocator, BackendInfo, Config, Decision, Input, RequestInfo};

pub fn class() -> Class {
    Class::default()
}

/// Every request gets the class it claims.
pub fn config(share: Share, classes: Vec<Class>) -> Config {
    Config::plain(share, classes)
}

pub fn backend(seats: u32, kv_tokens: u64) -> BackendInfo {
    BackendInfo { seats, kv_tokens, context_max: 1_000_000, ..Default::default() }
}

pub fn join(slot: u32, seats: u32, kv_tokens: u64) -> Input {
    Input::Joined(BackendId::first(slot), backend(seats, kv_tokens))
}

pub fn request(class: u16, prompt_tokens: u32, output_cap: u32) -> RequestInfo {
    RequestInfo {
        tenant: TenantId(u32::from(class)),
        claims: Some(ClassId(class)),
        prompt_tokens,
        output_cap,
        ..RequestInfo::default()
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
