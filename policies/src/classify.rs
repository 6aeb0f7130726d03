//! Which class a request gets: the first rule whose every stated condition holds.

use plimsoll_base::ClassId;

use crate::config::{Becomes, ClassifyRule};
use crate::message::RequestInfo;

/// The class by the first rule that matches; a claimed class that the policy does not have
/// (`classes` is how many it has) is no claim.
pub(crate) fn classify(
    rules: &[ClassifyRule],
    classes: usize,
    info: &RequestInfo,
) -> Option<ClassId> {
    let claimed = info.claims.filter(|class| class.index() < classes);
    rules.iter().find_map(|rule| matches(rule, info).then(|| becomes(rule, claimed))?)
}

fn matches(rule: &ClassifyRule, info: &RequestInfo) -> bool {
    rule.tenant.is_none_or(|tenant| tenant == info.tenant)
        && rule.source.is_none_or(|source| source == info.source)
        && rule.claims.is_none_or(|class| Some(class) == info.claims)
        && rule.prompt_tokens_min.is_none_or(|least| info.prompt_tokens >= least)
        && rule.prompt_tokens_max.is_none_or(|most| info.prompt_tokens <= most)
}

fn becomes(rule: &ClassifyRule, claimed: Option<ClassId>) -> Option<ClassId> {
    match rule.class {
        Becomes::Claimed => claimed,
        Becomes::Class(class) => Some(class),
    }
}
