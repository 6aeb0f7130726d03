//! `classify = [...]` of a policy: which class a request gets.

use plimsoll_base::{ClassId, ModelId, SourceId, StageId, TenantId};
use plimsoll_policy::Labels;
use plimsoll_policy::config::{Becomes, ClassifyRule, Label};

use crate::policy::{Known, check_names, find};
use crate::spec::{ClassifySpec, PolicySpec};
use crate::{At, Code, Diagnostic};

const LABELS_MAX: usize = 64;

/// The ids of names of one kind that the policy declares.
pub struct Declared(Vec<String>);

impl Declared {
    /// The models, in order.
    pub fn models(policy: &PolicySpec) -> Declared {
        Declared::of(policy.models.as_ref().map(|names| &names.0))
    }
    /// The stages; that of requests outside of workflows has no name and comes first.
    pub fn stages(policy: &PolicySpec) -> Declared {
        let mut stages = Declared::of(policy.stages.as_ref().map(|names| &names.0));
        stages.0.insert(0, String::new());
        stages
    }
    fn of(names: Option<&Vec<At<String>>>) -> Declared {
        Declared(names.into_iter().flatten().map(|name| name.value.clone()).collect())
    }
    /// The names, indexed by id.
    pub(crate) fn into_names(self) -> Vec<String> {
        self.0
    }
    /// The id of a name; adds to `found` if it was not declared.
    pub fn find(&self, name: &At<String>, what: &str, found: &mut Vec<Diagnostic>) -> Option<u16> {
        find(name, &self.0, what, found).map(|index| u16::try_from(index).unwrap_or(u16::MAX))
    }
}

/// The rules in order, and the labels that they look for.
pub(crate) fn rules(
    policy: &PolicySpec,
    known: Known<'_>,
    found: &mut Vec<Diagnostic>,
) -> (Vec<ClassifyRule>, Vec<Label>) {
    for (names, what) in [(&policy.models, "model"), (&policy.stages, "stage")] {
        let names: Vec<_> = names.iter().flat_map(|names| &names.0).collect();
        check_names(&names, what, found);
    }
    let Some(written) = &policy.classify else {
        return (vec![ClassifyRule::default()], Vec::new());
    };
    let mut reader = Reader {
        known,
        models: Declared::models(policy),
        stages: Declared::stages(policy),
        labels: Vec::new(),
        found,
    };
    let mut rules = Vec::new();
    for rule in &written.value.0 {
        match &rule.value {
            ClassifySpec::Match { .. } => rules.push(reader.matching(&rule.value)),
            ClassifySpec::CostBucket { edges_tokens, classes } => {
                rules.extend(reader.buckets(edges_tokens, classes));
            }
        }
    }
    let labels = reader.labels;
    if labels.len() > LABELS_MAX {
        let message = format!(
            "the rules look for {} headers, keys and tiers, at most {LABELS_MAX} are supported",
            labels.len()
        );
        found.push(Diagnostic::new(Code::TooMany, Some(written.place), message));
    }
    (rules, labels)
}

/// The labels of a request with these headers, this key and this service tier.
pub fn labels_of(
    labels: &[Label],
    headers: &[(String, String)],
    key: Option<&str>,
    service_tier: Option<&str>,
) -> Labels {
    let bears = |label: &Label| match label {
        Label::Header { name, value } => {
            headers.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && v == value)
        }
        Label::Key(name) => key == Some(name),
        Label::ServiceTier(name) => service_tier == Some(name),
    };
    let bits = labels.iter().take(LABELS_MAX).enumerate();
    Labels(bits.fold(0, |set, (bit, label)| set | u64::from(bears(label)) << bit))
}

struct Reader<'a> {
    known: Known<'a>,
    models: Declared,
    stages: Declared,
    labels: Vec<Label>,
    found: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    fn matching(&mut self, rule: &ClassifySpec) -> ClassifyRule {
        let ClassifySpec::Match {
            tenant,
            workload,
            claims,
            model,
            stage,
            in_workflow,
            header,
            key,
            service_tier,
            uncached_tokens_min,
            uncached_tokens_max,
            prompt_tokens_min,
            prompt_tokens_max,
            class,
        } = rule
        else {
            return ClassifyRule::default();
        };
        let header = header.as_ref().map(|header| Label::Header {
            name: header.name.to_ascii_lowercase(),
            value: header.value.clone(),
        });
        let key = key.as_ref().map(|key| key.value.clone());
        let wanted = [header, key.map(Label::Key), service_tier.clone().map(Label::ServiceTier)];
        let labels = wanted.into_iter().flatten().fold(0, |set, label| set | self.bit(label));
        let (models, stages) = (&self.models, &self.stages);
        ClassifyRule {
            model: model
                .as_ref()
                .and_then(|name| models.find(name, "model", self.found))
                .map(ModelId),
            stage: stage
                .as_ref()
                .and_then(|name| stages.find(name, "stage", self.found))
                .map(StageId),
            in_workflow: *in_workflow,
            labels: Labels(labels),
            uncached_tokens_min: *uncached_tokens_min,
            uncached_tokens_max: *uncached_tokens_max,
            tenant: self
                .index(tenant, self.known.tenants, "tenant")
                .map(|index| TenantId(u32::try_from(index).unwrap_or(u32::MAX))),
            source: self
                .index(workload, self.known.sources, "workload")
                .map(|index| SourceId(u16::try_from(index).unwrap_or(u16::MAX))),
            claims: self.index(claims, self.known.classes, "class").map(class_id),
            prompt_tokens_min: *prompt_tokens_min,
            prompt_tokens_max: *prompt_tokens_max,
            class: self
                .index(class, self.known.classes, "class")
                .map_or(Becomes::Claimed, |index| Becomes::Class(class_id(index))),
        }
    }

    fn index(&mut self, name: &Option<At<String>>, names: &[String], what: &str) -> Option<usize> {
        find(name.as_ref()?, names, what, self.found)
    }

    /// The bit of a label, which is given one if it is new.
    fn bit(&mut self, label: Label) -> u64 {
        let at = self.labels.iter().position(|known| *known == label);
        let at = at.unwrap_or_else(|| {
            self.labels.push(label);
            self.labels.len() - 1
        });
        1u64.checked_shl(at as u32).unwrap_or(0)
    }

    fn buckets(
        &mut self,
        edges: &At<Vec<u32>>,
        classes: &At<Vec<At<String>>>,
    ) -> Vec<ClassifyRule> {
        if classes.value.len() != edges.value.len() + 1 {
            let message = format!(
                "{} edges make {} buckets, and {} classes are named",
                edges.value.len(),
                edges.value.len() + 1,
                classes.value.len()
            );
            self.found.push(
                Diagnostic::new(Code::Conflict, Some(classes.place), message)
                    .help("name one class more than there are edges"),
            );
        }
        if !edges.value.is_sorted_by(|a, b| a < b) || edges.value.first() == Some(&0) {
            self.found.push(
                Diagnostic::new(
                    Code::Range,
                    Some(edges.place),
                    "the edges do not rise from above 0",
                )
                .help("write rising numbers of tokens, for example [2048, 32768]"),
            );
        }
        let least = std::iter::once(0).chain(edges.value.iter().copied());
        let most = edges.value.iter().map(|edge| Some(edge.saturating_sub(1))).chain([None]);
        let bucket = |((least, most), class): ((u32, Option<u32>), &At<String>)| {
            let class = find(class, self.known.classes, "class", self.found)?;
            Some(ClassifyRule {
                uncached_tokens_min: (least > 0).then_some(least),
                uncached_tokens_max: most,
                class: Becomes::Class(class_id(class)),
                ..ClassifyRule::default()
            })
        };
        least.zip(most).zip(&classes.value).filter_map(bucket).collect()
    }
}

fn class_id(index: usize) -> ClassId {
    ClassId(u16::try_from(index).unwrap_or(u16::MAX))
}
