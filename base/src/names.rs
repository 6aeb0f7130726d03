//! The names behind the ids, for messages and reports.

use serde::{Deserialize, Serialize};

use crate::{ClassId, PoolId, SourceId, TenantId};

/// One name an id, in id order. Built once when a scenario or a policy file is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Who pays.
    pub tenants: Vec<String>,
    /// What latency is owed.
    pub classes: Vec<String>,
    /// Groups of equal backends.
    pub pools: Vec<String>,
    /// Where requests come from.
    pub sources: Vec<String>,
}

impl Names {
    /// The tenant's name; its number where the table is shorter (a tenant met while running).
    pub fn tenant(&self, id: TenantId) -> String {
        name(&self.tenants, id.index())
    }
    /// The class's name.
    pub fn class(&self, id: ClassId) -> String {
        name(&self.classes, id.index())
    }
    /// The pool's name.
    pub fn pool(&self, id: PoolId) -> String {
        name(&self.pools, id.index())
    }
    /// The source's name.
    pub fn source(&self, id: SourceId) -> String {
        name(&self.sources, id.index())
    }
}

fn name(table: &[String], index: usize) -> String {
    table.get(index).cloned().unwrap_or_else(|| format!("#{index}"))
}
