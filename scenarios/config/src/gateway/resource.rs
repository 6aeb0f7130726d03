//! Resources: work that is not inference takes leases of them.
//!
//! To the allocator a resource is a model that only one backend serves, which has a pool of its
//! own. A lease holds a seat; tokens never stop it. `seats` may be 1 to 1000000, `lease_max` 1s to
//! 1d.

use plimsoll_base::{ModelId, PoolId, Span};
use plimsoll_policy::BackendInfo;
use schemars::JsonSchema;
use serde::Deserialize;

use super::backends::site;
use super::range::{Quantity, count};
use crate::{At, Diagnostic, SpanValue};

const SEATS_MAX: u32 = 1_000_000;
/// More than the tokens of one request can be.
const TOKENS_A_SEAT: u64 = 1 << 33;

/// `[[resource]]`: something that is lent to work which is not inference.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourceSpec {
    /// Letters, digits, `-`, `_`; neither a model's name nor a pool's.
    pub name: At<String>,
    /// Leases at once.
    pub seats: At<u32>,
    /// Where it stands, one of the policy's `sites`. Default: the first.
    pub site: Option<At<String>>,
    /// The longest a lease lasts without being renewed. Default "10m".
    pub lease_max: Option<At<SpanValue>>,
}

/// Something that is lent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name, also that of its model and of its pool.
    pub name: String,
    /// What its leases ask for.
    pub model: ModelId,
    /// What the allocator is told when it joins.
    pub info: BackendInfo,
    /// The longest a lease lasts without being renewed.
    pub lease_max: Span,
}

/// One resource, which is the model and the pool with these ids.
pub(super) fn resource(
    spec: &ResourceSpec,
    (model, pool): (ModelId, PoolId),
    sites: &[String],
    found: &mut Vec<Diagnostic>,
) -> Resource {
    let seats = count("seats", Some(spec.seats), (1, 1..=SEATS_MAX), found);
    let lease = Quantity { key: "lease_max", default: "10m", least: "1s", most: "1d" };
    Resource {
        name: spec.name.value.clone(),
        model,
        info: BackendInfo {
            pool,
            seats,
            kv_tokens: u64::from(seats) * TOKENS_A_SEAT,
            context_max: u32::MAX,
            site: site(spec.site.as_ref(), sites, found),
            models: 1u64.checked_shl(model.0.into()).unwrap_or(0),
        },
        lease_max: lease.span(spec.lease_max, found),
    }
}
