//! From the policy part of a file to [`plimsoll_policy::Config`].

use plimsoll_base::{ClassId, Span};
use plimsoll_policy::ConfigError;
use plimsoll_policy::config::{Admit, Class, Config, Feedback, Guard, Window};

use crate::admit;
use crate::classify::{self, Declared};
use crate::feedback;
use crate::objectives::objectives;
use crate::order::{deadline, order};
use crate::partition::{self, PartitionSpec};
use crate::place;
use crate::share::share;
use crate::spec::{ClassSpec, PolicySpec, WindowSpec};
use crate::{At, ClassObjectives, Code, Diagnostic, nearest};

/// The allocator holds at most this many requests where the file says nothing.
pub const REQUESTS_MAX_DEFAULT: u32 = 100_000;
const CLASSES_MAX: usize = 64;
/// The share keeps at most this many accounts where the file says nothing.
pub const ACCOUNTS_MAX_DEFAULT: u32 = 65_536;

/// Names that the policy may use, each indexed by its id.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Indexed by [`ClassId`].
    pub classes: &'a [String],
    /// Indexed by [`TenantId`].
    pub tenants: &'a [String],
    /// Workloads, indexed by [`SourceId`].
    pub sources: &'a [String],
    /// Pools, indexed by `PoolId`.
    pub pools: &'a [String],
}

/// The policy and each class's objectives. What is wrong is added to `found`; the result is then
/// not to be used.
pub fn build(
    classes: &[ClassSpec],
    written: &At<PolicySpec>,
    known: Known<'_>,
    found: &mut Vec<Diagnostic>,
) -> (Config, Vec<ClassObjectives>) {
    let policy = &written.value;
    if let Some(extra) = classes.get(CLASSES_MAX) {
        let message =
            format!("there are {} classes, at most {CLASSES_MAX} are supported", classes.len());
        found.push(Diagnostic::new(Code::TooMany, Some(extra.name.place), message));
    }
    let owed = classes.iter().enumerate().map(|(index, spec)| ClassObjectives {
        class: ClassId(u16::try_from(index).unwrap_or(u16::MAX)),
        objectives: objectives(&spec.slo, found),
    });
    let owed = owed.collect();
    let sites = place::site_names(policy);
    check_names(&policy.sites.0.iter().collect::<Vec<_>>(), "site", found);
    let (classify, labels) = classify::rules(policy, known, found);
    let config = Config {
        classes: classes.iter().map(|spec| class(spec, &sites, found)).collect(),
        classify,
        labels,
        admit: admit(policy, known, found),
        share: share(policy.share.as_ref(), found),
        order: order(policy.order, classes, found),
        partition: partition::rules(&policy.partition.0, known, found),
        place: place::rules(policy, found),
        sites,
        models: Declared::models(policy).into_names(),
        window: match policy.window {
            None | Some(WindowSpec::Seats) => Window::Seats,
            Some(WindowSpec::None) => Window::None,
        },
        feedback: feedback(policy, known, found),
        bypass_max: policy.bypass_max,
        guard: guard(classes, policy, found),
        predict: admit::predict(policy.predict, found),
        requests_max: at_least_one("requests_max", policy.requests_max, found)
            .unwrap_or(REQUESTS_MAX_DEFAULT),
        accounts_max: at_least_one("accounts_max", policy.accounts_max, found)
            .unwrap_or(ACCOUNTS_MAX_DEFAULT),
    };
    if found.is_empty() {
        found.extend(disagreement(&config, classes, written));
    }
    (config, owed)
}

/// What the policy's own check says, at the place of the part that it blames.
fn disagreement(
    config: &Config,
    classes: &[ClassSpec],
    written: &At<PolicySpec>,
) -> Option<Diagnostic> {
    let (place, part, field, problem) = match config.check().err()? {
        ConfigError::Policy(field, problem) => (written.place, "policy".into(), field, problem),
        ConfigError::Class(index, field, problem) => {
            let name = &classes.get(index)?.name;
            (name.place, format!("class `{}`", name.value), field, problem)
        }
        ConfigError::Rule(index, field, problem) => {
            let rules = written.value.classify.as_ref();
            let rule = rules.and_then(|rules| rules.value.0.get(index));
            let place = rule.map_or(written.place, |rule| rule.place);
            (place, format!("classify rule {}", index + 1), field, problem)
        }
        ConfigError::Feedback(index, field, problem) => {
            let rules = written.value.feedback.as_ref();
            let rule = rules.and_then(|rules| rules.value.0.get(index));
            let place = rule.map_or(written.place, |rule| rule.place);
            (place, format!("feedback rule {}", index + 1), field, problem)
        }
        ConfigError::Admit(index, field, problem) => {
            let rules = written.value.admit.as_ref();
            let rule = rules.and_then(|rules| rules.value.0.get(index));
            let place = rule.map_or(written.place, |rule| rule.place);
            (place, format!("admit rule {}", index + 1), field, problem)
        }
        ConfigError::Place(index, field, problem) => {
            let rule = written.value.place.as_ref().and_then(|rules| rules.0.get(index));
            let place = rule.map_or(written.place, |rule| rule.place);
            (place, format!("place rule {}", index + 1), field, problem)
        }
        ConfigError::Partition(index, field, problem) => {
            let place = written.value.partition.0.get(index).map_or(written.place, |r| r.place);
            (place, format!("partition rule {}", index + 1), field, problem)
        }
        ConfigError::Group(index, group, field, problem) => {
            let rule = &written.value.partition.0.get(index)?.value;
            let PartitionSpec::Quota { groups, .. } = rule else { return None };
            let group = groups.0.get(group)?;
            (group.place, format!("group `{}`", group.value.name.value), field, problem)
        }
    };
    let key = field.name();
    Some(
        Diagnostic::new(Code::Conflict, Some(place), format!("{part}: `{key}` {problem}"))
            .help(format!("change `{key}`")),
    )
}

/// The id of a name; tells what it could have been if there is none.
pub fn find(
    name: &At<String>,
    names: &[String],
    what: &str,
    found: &mut Vec<Diagnostic>,
) -> Option<usize> {
    let index = names.iter().position(|known| *known == name.value);
    if index.is_none() {
        let message = format!("no {what} is named `{}`", name.value);
        found.push(
            Diagnostic::new(Code::UnknownName, Some(name.place), message)
                .label(format!("not a {what} of this file"))
                .help_maybe(nearest::suggest(&name.value, names.iter().map(String::as_str))),
        );
    }
    index
}

/// Whether it can stand in a path, a file name and a report.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    (1..=64).contains(&name.chars().count()) && name.chars().all(fits)
}

/// Refuses names that could not stand in a path, and names given twice.
pub fn check_names(names: &[&At<String>], what: &str, found: &mut Vec<Diagnostic>) {
    for (index, name) in names.iter().enumerate() {
        if !is_name(&name.value) {
            let message = format!("`{}` cannot be the name of a {what}", name.value);
            found.push(
                Diagnostic::new(Code::BadName, Some(name.place), message)
                    .help("write 1 to 64 letters, digits, `-` or `_`"),
            );
        }
        if names[..index].iter().any(|earlier| earlier.value == name.value) {
            let message = format!("there are two of {what} `{}`", name.value);
            found.push(
                Diagnostic::new(Code::Duplicate, Some(name.place), message)
                    .label("the second of this name")
                    .help("give it a name of its own"),
            );
        }
    }
}

fn class(spec: &ClassSpec, sites: &[String], found: &mut Vec<Diagnostic>) -> Class {
    let intensity = spec.intensity.as_ref().and_then(|intensity| intensity.output_tokens);
    Class {
        priority: spec.priority,
        weight: at_least_one("weight", spec.weight, found).unwrap_or(1),
        wait_max: spec.wait_max.map(|at| at.value.0),
        queue_max: spec.queue_max,
        time_to_live: spec.time_to_live.map(|at| at.value.0),
        requests_max: at_least_one("requests_max", spec.requests_max, found),
        tokens_max: at_least_one("tokens_max", spec.tokens_max, found),
        boost: spec.boost.map_or(Span::ZERO, |boost| boost.0),
        output_tokens_expected: at_least_one("output_tokens", intensity, found),
        sheddable: spec.sheddable,
        deadline: deadline(spec, found),
        sites: place::site_bits(spec.sites.as_ref(), sites, found),
    }
}

fn admit(policy: &PolicySpec, known: Known<'_>, found: &mut Vec<Diagnostic>) -> Vec<Admit> {
    let rules = policy.admit.as_ref().map_or(&[][..], |rules| &rules.value.0);
    rules.iter().filter_map(|rule| admit::admit(&rule.value, known, found)).collect()
}

fn feedback(policy: &PolicySpec, known: Known<'_>, found: &mut Vec<Diagnostic>) -> Vec<Feedback> {
    let rules = policy.feedback.as_ref().map_or(&[][..], |rules| &rules.value.0);
    rules.iter().filter_map(|rule| feedback::feedback(&rule.value, known, found)).collect()
}

fn guard(classes: &[ClassSpec], policy: &PolicySpec, found: &mut Vec<Diagnostic>) -> Option<Guard> {
    let due_share = policy.guard?.due_share;
    let millionths = (due_share.value.0 * 1e6).round() as u32;
    if millionths == 0 {
        found.push(
            Diagnostic::new(
                Code::Range,
                Some(due_share.place),
                "a guard with no share guards nothing",
            )
            .help("write a fraction above 0, for example 0.10, or remove `guard`"),
        );
    }
    if classes.iter().all(|class| class.wait_max.is_none()) {
        found.push(
            Diagnostic::new(
                Code::Conflict,
                Some(due_share.place),
                "the guard has nothing to guard",
            )
            .label("no class states `wait_max`")
            .help("give the classes that must not starve a `wait_max`, for example \"15m\""),
        );
    }
    Some(Guard { due_share_ppm: millionths })
}

pub(crate) fn at_least_one<T: Copy + Default + PartialEq>(
    key: &str,
    value: Option<At<T>>,
    found: &mut Vec<Diagnostic>,
) -> Option<T> {
    let value = value?;
    if value.value == T::default() {
        found.push(
            Diagnostic::new(Code::Range, Some(value.place), format!("`{key}` must be at least 1"))
                .help(format!("write `{key} = 1` or more, or leave it out")),
        );
    }
    Some(value.value)
}
