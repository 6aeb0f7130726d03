//! Another policy than the one that acted, and a log in its ids.

use plimsoll_base::{ClassId, Names, PoolId, SourceId, TenantId};
use plimsoll_policy::log::Reader;
use plimsoll_policy::{Agreement, Config, Input, RequestInfo, Shadows};

use crate::CounterfactualError;

/// Another policy, and the names behind its ids.
#[derive(Clone, Debug)]
pub struct OtherPolicy {
    /// The policy.
    pub policy: Config,
    /// Its names; its classes are those of the log, in any order.
    pub names: Names,
}

impl OtherPolicy {
    /// Whether its classes are those of a log with these names.
    ///
    /// # Errors
    /// If one has a class that the other has not.
    pub fn fits(&self, log: &Names) -> Result<(), ClassesDiffer> {
        Translation::new(log, &self.names).map(drop)
    }
}

/// Two policies have not the same classes; says which one is missing where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ClassesDiffer(String);

/// How often another policy, which listens to what the acting one of the log was told and acts
/// on nothing, decides the same.
///
/// # Errors
/// If the log is damaged, or the other policy does not fit it.
pub fn shadow(log: Reader<'_>, other: &OtherPolicy) -> Result<Agreement, CounterfactualError> {
    let translation = Translation::new(&log.header().names, &other.names)?;
    let mut shadows = Shadows::new(vec![other.policy.clone()])?;
    for record in log {
        let record = record?;
        shadows.listen(record.now, &translation.input(record.input), &record.decisions);
    }
    Ok(shadows.agreements().next().expect("there is one shadow"))
}

/// From the ids of the log to those of the other policy, by name.
#[derive(Clone, Debug)]
pub(crate) struct Translation {
    classes: Vec<ClassId>,
    tenants: Vec<TenantId>,
    sources: Vec<SourceId>,
    pools: Vec<PoolId>,
}

impl Translation {
    pub fn new(log: &Names, other: &Names) -> Result<Translation, ClassesDiffer> {
        let stranger = |ours: &[String], theirs: &[String]| {
            ours.iter().find(|name| !theirs.contains(name)).cloned()
        };
        if let Some(name) = stranger(&log.classes, &other.classes) {
            let message = format!("the log has a class `{name}`, the other policy has none");
            return Err(ClassesDiffer(message));
        }
        if let Some(name) = stranger(&other.classes, &log.classes) {
            let message = format!("the other policy has a class `{name}`, the log has none");
            return Err(ClassesDiffer(message));
        }
        // A name that the other policy does not know gets a number that it does not know.
        fn ids(log: &[String], other: &[String]) -> impl Iterator<Item = usize> {
            log.iter().enumerate().map(|(index, name)| {
                other.iter().position(|known| known == name).unwrap_or(other.len() + index)
            })
        }
        let short = |index: usize| u16::try_from(index).unwrap_or(u16::MAX);
        let long = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        Ok(Translation {
            classes: ids(&log.classes, &other.classes).map(short).map(ClassId).collect(),
            tenants: ids(&log.tenants, &other.tenants).map(long).map(TenantId).collect(),
            sources: ids(&log.sources, &other.sources).map(short).map(SourceId).collect(),
            pools: ids(&log.pools, &other.pools).map(short).map(PoolId).collect(),
        })
    }

    /// The input in the ids of the other policy.
    pub fn input(&self, mut input: Input) -> Input {
        match &mut input {
            Input::Resumed(_, info, held) => {
                held.class = self.class(held.class);
                self.info(info);
            }
            Input::Arrived(_, info) => self.info(info),
            Input::Joined(_, info) => {
                info.pool = *self.pools.get(info.pool.index()).unwrap_or(&info.pool);
            }
            Input::Withdrawn(_)
            | Input::Accepted(_)
            | Input::FirstToken(_)
            | Input::Progressed(..)
            | Input::Ended(..)
            | Input::Matched(..)
            | Input::Predicted(..)
            | Input::Reported(..)
            | Input::Left(_)
            | Input::Draining
            | Input::Deadline => {}
        }
        input
    }

    fn info(&self, info: &mut RequestInfo) {
        info.claims = info.claims.map(|id| self.class(id));
        info.tenant = *self.tenants.get(info.tenant.index()).unwrap_or(&info.tenant);
        info.source = *self.sources.get(info.source.index()).unwrap_or(&info.source);
    }

    fn class(&self, id: ClassId) -> ClassId {
        *self.classes.get(id.index()).unwrap_or(&id)
    }

    /// The class of the log that the other policy's is.
    pub fn back(&self, class: ClassId) -> Option<usize> {
        self.classes.iter().position(|&other| other == class)
    }

    /// How many classes there are.
    pub fn classes(&self) -> usize {
        self.classes.len()
    }
}
