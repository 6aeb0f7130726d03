//! Which account a request belongs to: one a class, a tenant or a workflow.
//!
//! Memory is bounded by `accounts_max`. An account that has nothing waiting and nothing in flight
//! is idle. If the rule would treat a stranger no worse or better (its counter is not above where
//! strangers begin, or it owes nothing), its place may go to another owner; those stand first in
//! the list of idle accounts. When there are as many accounts as there may be, the idle one that
//! stands first goes even if it was ahead or in debt: its owner, should it come back, is then a
//! stranger. If none is idle, the newcomer is refused.

use plimsoll_base::{ClassId, WorkflowId};

use crate::config::{Config, Per};
use crate::heap::Key;
use crate::index::Index;
use crate::list::{Linked, Links, List};
use crate::message::RequestInfo;

/// Low bits of a key that hold the flow's number.
pub(crate) const FLOW_BITS: u32 = 20;

/// A counter above the number of its flow, so that one comparison orders by counter and then by
/// flow.
impl Key for i128 {
    fn member(self) -> u32 {
        (self & ((1 << FLOW_BITS) - 1)) as u32
    }
}

/// Accounts there may be at most, and the bound of tenants' ids.
pub(crate) const ACCOUNTS_MAX: usize = 1 << FLOW_BITS;

const UNKNOWN: u32 = u32::MAX;

/// The table of accounts. A tenant's or a workflow's is opened when it first appears.
#[derive(Debug)]
pub(crate) struct Flows {
    per: Per,
    accounts_max: usize,
    accounts: Vec<Account>,
    /// Indexed by flow. Apart from the accounts: it is asked for only when one is closed.
    owners: Vec<Owner>,
    /// Indexed by tenant.
    of_tenant: Vec<u32>,
    of_workflow: Index,
    idle: List,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    in_flight: u32,
    has_work: bool,
    is_idle: bool,
    idle: Links,
}

#[derive(Clone, Copy, Debug)]
enum Owner {
    Tenant(u32),
    Workflow(u64),
}

/// The account of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Known(u32),
    /// Just opened; what the rule knows of the number is another's.
    Opened(u32),
}

struct Idle<'a>(&'a mut [Account]);

impl Linked for Idle<'_> {
    fn links(&self, flow: u32) -> &Links {
        &self.0[flow as usize].idle
    }
    fn links_mut(&mut self, flow: u32) -> &mut Links {
        &mut self.0[flow as usize].idle
    }
}

impl Flows {
    pub fn new(per: Per, config: &Config) -> Flows {
        Flows {
            per,
            accounts_max: config.accounts_max as usize,
            accounts: Vec::new(),
            owners: Vec::new(),
            of_tenant: Vec::new(),
            of_workflow: Index::new(),
            idle: List::EMPTY,
        }
    }

    /// The account of a request; `None` if there are as many as there may be. `is_settled` tells
    /// whether an idle account may be forgotten without a difference to anyone.
    #[inline]
    pub fn find(
        &mut self,
        class: ClassId,
        info: &RequestInfo,
        is_settled: impl Fn(u32) -> bool,
    ) -> Option<Found> {
        match (self.per, info.workflow) {
            (Per::Class, _) => Some(Found::Known(u32::from(class.0))),
            (Per::Tenant, _) | (Per::Workflow, WorkflowId(0)) => {
                self.of_tenant(info.tenant.index(), is_settled)
            }
            (Per::Workflow, WorkflowId(workflow)) => self.of_workflow(workflow, is_settled),
        }
    }

    fn of_tenant(&mut self, tenant: usize, is_settled: impl Fn(u32) -> bool) -> Option<Found> {
        match self.of_tenant.get(tenant) {
            Some(&flow) if flow != UNKNOWN => return Some(Found::Known(flow)),
            Some(_) | None => {}
        }
        if tenant >= ACCOUNTS_MAX {
            return None;
        }
        let flow = self.open(Owner::Tenant(tenant as u32), is_settled)?;
        if tenant >= self.of_tenant.len() {
            self.of_tenant.resize(tenant + 1, UNKNOWN);
        }
        self.of_tenant[tenant] = flow;
        Some(Found::Opened(flow))
    }

    fn of_workflow(&mut self, workflow: u64, is_settled: impl Fn(u32) -> bool) -> Option<Found> {
        if let Some(found) = self.of_workflow.find(workflow) {
            return Some(Found::Known(found.slot));
        }
        let flow = self.open(Owner::Workflow(workflow), is_settled)?;
        self.of_workflow.insert(workflow, flow);
        Some(Found::Opened(flow))
    }

    fn open(&mut self, owner: Owner, is_settled: impl Fn(u32) -> bool) -> Option<u32> {
        let count = self.accounts.len();
        let spare = self.idle.head().filter(|&f| count >= self.accounts_max || is_settled(f));
        if let Some(flow) = spare {
            self.idle.remove(&mut Idle(&mut self.accounts), flow);
            self.forget(flow);
            self.accounts[flow as usize] = Account::NEW;
            self.owners[flow as usize] = owner;
            return Some(flow);
        }
        (count < self.accounts_max).then(|| {
            self.accounts.push(Account::NEW);
            self.owners.push(owner);
            count as u32
        })
    }

    fn forget(&mut self, flow: u32) {
        match self.owners[flow as usize] {
            Owner::Tenant(tenant) => self.of_tenant[tenant as usize] = UNKNOWN,
            Owner::Workflow(workflow) => {
                let found = self.of_workflow.find(workflow);
                self.of_workflow.remove(found.expect("an account is found by its owner"));
            }
        }
    }

    /// It has something waiting now.
    pub fn got_work(&mut self, flow: u32) {
        if self.per == Per::Class {
            return;
        }
        let account = &mut self.accounts[flow as usize];
        account.has_work = true;
        if std::mem::take(&mut account.is_idle) {
            self.idle.remove(&mut Idle(&mut self.accounts), flow);
        }
    }

    /// It has nothing waiting any more.
    pub fn lost_work(&mut self, flow: u32, is_settled: impl Fn(u32) -> bool) {
        if self.per != Per::Class {
            self.accounts[flow as usize].has_work = false;
            self.rest(flow, is_settled);
        }
    }

    /// A request of it was dispatched.
    pub fn departed(&mut self, flow: u32) {
        if self.per != Per::Class {
            self.accounts[flow as usize].in_flight += 1;
        }
    }

    /// A request of it ended.
    pub fn ended(&mut self, flow: u32, is_settled: impl Fn(u32) -> bool) {
        if self.per != Per::Class {
            self.accounts[flow as usize].in_flight -= 1;
            self.rest(flow, is_settled);
        }
    }

    fn rest(&mut self, flow: u32, is_settled: impl Fn(u32) -> bool) {
        let account = &mut self.accounts[flow as usize];
        account.is_idle = account.in_flight == 0 && !account.has_work;
        if !account.is_idle {
            return;
        }
        match is_settled(flow) {
            true => self.idle.push_front(&mut Idle(&mut self.accounts), flow),
            false => self.idle.push(&mut Idle(&mut self.accounts), flow),
        }
    }
}

impl Account {
    const NEW: Account =
        Account { in_flight: 0, has_work: false, is_idle: false, idle: Links::UNLINKED };
}

#[cfg(test)]
mod tests {
    use plimsoll_base::TenantId;

    use super::*;
    use crate::config::Share;

    fn flows(per: Per, accounts_max: u32) -> Flows {
        let config = Config { accounts_max, ..Config::plain(Share::Fcfs, vec![]) };
        Flows::new(per, &config)
    }
    fn of(tenant: u32, workflow: u64) -> RequestInfo {
        let (tenant, workflow) = (TenantId(tenant), WorkflowId(workflow));
        RequestInfo { tenant, workflow, ..RequestInfo::default() }
    }
    fn serve(flows: &mut Flows, info: RequestInfo, is_settled: bool) -> Option<Found> {
        let found = flows.find(ClassId(0), &info, |_| is_settled)?;
        let (Found::Known(flow) | Found::Opened(flow)) = found;
        flows.got_work(flow);
        flows.departed(flow);
        flows.lost_work(flow, |_| is_settled);
        flows.ended(flow, |_| is_settled);
        Some(found)
    }

    #[test]
    fn a_million_workflows_one_after_the_other_need_one_account() {
        let mut flows = flows(Per::Workflow, 1_000);
        for workflow in 1..=1_000_000 {
            assert_eq!(serve(&mut flows, of(7, workflow), true), Some(Found::Opened(0)));
        }
        assert_eq!(flows.accounts.len(), 1);
    }

    #[test]
    fn who_is_ahead_is_remembered_until_all_places_are_taken() {
        let mut flows = flows(Per::Workflow, 3);
        for workflow in [1, 2] {
            serve(&mut flows, of(0, workflow), false);
        }
        // Without a workflow the tenant is the owner, whatever its number.
        assert_eq!(serve(&mut flows, of(1, 0), false), Some(Found::Opened(2)));
        assert_eq!(serve(&mut flows, of(0, 1), false), Some(Found::Known(0)));
        // Workflow 2 has been idle longest; it is a stranger when it comes back.
        assert_eq!(serve(&mut flows, of(0, 4), false), Some(Found::Opened(1)));
        assert_eq!(serve(&mut flows, of(0, 2), false), Some(Found::Opened(2)));
        assert_eq!(flows.accounts.len(), 3);
    }

    #[test]
    fn who_has_work_or_runs_keeps_the_account() {
        let mut flows = flows(Per::Tenant, 2);
        let Some(Found::Opened(first)) = flows.find(ClassId(0), &of(0, 0), |_| true) else {
            panic!("there is room")
        };
        flows.got_work(first);
        serve(&mut flows, of(1, 0), true);
        assert_eq!(flows.find(ClassId(0), &of(2, 0), |_| true), Some(Found::Opened(1)));
        flows.got_work(1);
        assert_eq!(flows.find(ClassId(0), &of(3, 0), |_| true), None);
        flows.departed(first);
        flows.lost_work(first, |_| true);
        assert_eq!(flows.find(ClassId(0), &of(3, 0), |_| true), None);
        flows.ended(first, |_| true);
        assert_eq!(flows.find(ClassId(0), &of(3, 0), |_| true), Some(Found::Opened(0)));
        assert_eq!(flows.find(ClassId(0), &of(u32::MAX, 0), |_| true), None);
    }
}
