//! Rules that read what not everyone can tell.

use crate::spec::{OrderSpec, PlaceSpec, PolicySpec, ShareSpec};
use crate::{At, Place};

/// The rules that read where prompts are cached, and where they stand.
pub fn cache_readers(policy: &At<PolicySpec>) -> impl Iterator<Item = (&'static str, Place)> {
    let PolicySpec { share, order, place, .. } = &policy.value;
    let share =
        share.as_ref().filter(|share| matches!(share, ShareSpec::DeficitLongestPrefix { .. }));
    let order =
        order.as_ref().filter(|order| matches!(order.value, OrderSpec::LongestPrefix { .. }));
    let rules = place.iter().flat_map(|rules| &rules.0);
    let affinities = rules.filter(|rule| matches!(rule.value, PlaceSpec::PrefixAffinity { .. }));
    let shares = share.map(|_| ("deficit-longest-prefix", policy.place));
    let orders = order.map(|order| ("longest-prefix", order.place));
    let affinities = affinities.map(|rule| ("prefix-affinity", rule.place));
    shares.into_iter().chain(orders).chain(affinities)
}
