//! Which class a request gets: the first rule whose every stated condition holds.

use plimsoll_base::ClassId;

use crate::config::{Becomes, ClassifyRule};
use crate::message::RequestInfo;

/// The rules, in the order in which they are tried.
#[derive(Debug)]
pub(crate) struct Classifier {
    rules: Vec<ClassifyRule>,
    /// How many classes the policy has; claiming another is no claim.
    classes: usize,
    /// Whether the first rule gives every request the class it claims.
    claims_win: bool,
}

impl Classifier {
    pub fn new(rules: &[ClassifyRule], classes: usize) -> Classifier {
        let claims_win = rules.first().is_some_and(|rule| *rule == ClassifyRule::default());
        Classifier { rules: rules.to_vec(), classes, claims_win }
    }

    /// The class by the first rule that matches.
    pub fn classify(&self, info: &RequestInfo) -> Option<ClassId> {
        let claimed = info.claims.filter(|class| class.index() < self.classes);
        if self.claims_win && claimed.is_some() { claimed } else { self.search(info, claimed) }
    }

    fn search(&self, info: &RequestInfo, claimed: Option<ClassId>) -> Option<ClassId> {
        self.rules.iter().find_map(|rule| matches(rule, info).then(|| becomes(rule, claimed))?)
    }
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
