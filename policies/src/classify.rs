//! Which class a request gets: the first rule whose every stated condition holds.

use plimsoll_base::{ClassId, WorkflowId};

use crate::config::{Becomes, ClassifyRule, Config};
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

    /// Whether it matters where prompts are cached.
    pub fn needs_matches(&self) -> bool {
        let looks = |rule: &ClassifyRule| {
            rule.uncached_tokens_min.is_some() || rule.uncached_tokens_max.is_some()
        };
        self.rules.iter().any(looks)
    }

    /// The class by the first rule that matches; `uncached` prompt tokens are cached nowhere.
    #[inline(always)]
    pub fn classify(&self, info: &RequestInfo, uncached: u32) -> Option<ClassId> {
        let claimed = info.claims.filter(|class| class.index() < self.classes);
        if self.claims_win && claimed.is_some() {
            return claimed;
        }
        self.first_match(info, uncached, claimed)
    }

    #[inline(never)]
    fn first_match(
        &self,
        info: &RequestInfo,
        uncached: u32,
        claimed: Option<ClassId>,
    ) -> Option<ClassId> {
        let named = |rule| matches(rule, info, uncached).then(|| becomes(rule, claimed)).flatten();
        self.rules.iter().find_map(named)
    }
}

impl Config {
    /// The class of such a request, none of whose prompt is cached: that of the first rule that
    /// matches.
    pub fn class_of(&self, info: &RequestInfo) -> Option<ClassId> {
        let classifier = Classifier::new(&self.classify, self.classes.len());
        classifier.classify(info, info.prompt_tokens)
    }
}

fn matches(rule: &ClassifyRule, info: &RequestInfo, uncached: u32) -> bool {
    rule.tenant.is_none_or(|tenant| tenant == info.tenant)
        && rule.source.is_none_or(|source| source == info.source)
        && rule.claims.is_none_or(|class| Some(class) == info.claims)
        && rule.model.is_none_or(|model| model == info.model)
        && rule.stage.is_none_or(|stage| stage == info.stage)
        && rule.in_workflow.is_none_or(|inside| inside == (info.workflow != WorkflowId(0)))
        && info.labels.contain(rule.labels)
        && rule.uncached_tokens_min.is_none_or(|least| uncached >= least)
        && rule.uncached_tokens_max.is_none_or(|most| uncached <= most)
        && rule.prompt_tokens_min.is_none_or(|least| info.prompt_tokens >= least)
        && rule.prompt_tokens_max.is_none_or(|most| info.prompt_tokens <= most)
}

fn becomes(rule: &ClassifyRule, claimed: Option<ClassId>) -> Option<ClassId> {
    match rule.class {
        Becomes::Claimed => claimed,
        Becomes::Class(class) => Some(class),
    }
}
