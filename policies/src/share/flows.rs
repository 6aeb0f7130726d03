//! Which flow a request belongs to, where a rule queues per class or per tenant.

use plimsoll_base::{ClassId, TenantId};

use super::heap::FLOW_BITS;
use crate::config::Per;

/// Tenants with a flow of their own at most, and the bound of their ids.
pub(crate) const TENANTS_MAX: usize = 1 << FLOW_BITS;

const UNKNOWN: u32 = u32::MAX;

/// The table of flows. A tenant's is made when the tenant first appears.
#[derive(Debug)]
pub(crate) struct Flows {
    per: Per,
    count: u32,
    /// Indexed by tenant.
    of_tenant: Vec<u32>,
}

impl Flows {
    pub fn new(per: Per, classes: usize) -> Flows {
        let count = match per {
            Per::Class => classes as u32,
            Per::Tenant => 0,
        };
        Flows { per, count, of_tenant: Vec::new() }
    }
    /// How many there are.
    pub fn count(&self) -> usize {
        self.count as usize
    }
    pub fn find(&mut self, class: ClassId, tenant: TenantId) -> Option<u32> {
        match self.per {
            Per::Class => Some(u32::from(class.0)),
            Per::Tenant => self.of_tenant(tenant.index()),
        }
    }
    fn of_tenant(&mut self, tenant: usize) -> Option<u32> {
        if tenant >= TENANTS_MAX {
            return None;
        }
        if tenant >= self.of_tenant.len() {
            self.of_tenant.resize(tenant + 1, UNKNOWN);
        }
        let flow = &mut self.of_tenant[tenant];
        if *flow == UNKNOWN {
            *flow = self.count;
            self.count += 1;
        }
        Some(*flow)
    }
}
