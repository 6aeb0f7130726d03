//! Least attained service first, by workflow.
//!
//! **What it does.** A workflow (an agent's run, a pipeline) has an account of the service that all
//! its requests were given, in cost units. Of the requests of a turn the one goes first whose
//! workflow had been given least when the request arrived; ties by arrival. A request without a
//! workflow is a workflow of its own, which had been given nothing. Service is charged at dispatch
//! as predicted and settled at the end.
//!
//! **Source.** Luo et al., "Autellix: An Efficient Serving Engine for LLM Agents as General
//! Programs" (NSDI 2025): program-level attained service. Least attained service itself: Nuyens
//! and Wierman, "The Foreground-Background queue: A survey" (Performance Evaluation 65, 2008):
//! without knowing lengths it favours the short, because only the long attain much.
//!
//! **Promise.** No request is passed over for one whose workflow had attained more. A program of
//! many calls stands behind the first calls of fresh programs, and no program gets ahead by being
//! cut into many calls.
//!
//! **Bounded.** There are at most `workflows_max` accounts, opened at a workflow's first dispatch.
//! For a new one the account that was used (by an arrival or a dispatch) longest ago is forgotten;
//! should that workflow come again, it starts as if new. What ends after its account was forgotten
//! is settled nowhere, and no account falls below zero.
//!
//! **Failure.** A long program may wait for ever while fresh ones keep coming; the guard bounds
//! that. Whoever may name workflows freely gets ahead by naming a new one for each request: let
//! only trusted clients name them, or share by tenant.

use plimsoll_base::WorkflowId;

use crate::config::TokenCost;
use crate::index::Index;
use crate::list::{Linked, Links, List};

/// The accounts of workflows.
#[derive(Debug)]
pub(crate) struct Accounts {
    cost: TokenCost,
    workflows_max: usize,
    rows: Vec<Row>,
    /// From workflows to rows.
    rows_by_id: Index,
    /// From the row used longest ago to the one used last.
    recency: List,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    workflow: WorkflowId,
    /// Cost units.
    attained: u64,
    links: Links,
}

struct Recency<'a>(&'a mut [Row]);

impl Linked for Recency<'_> {
    fn links(&self, row: u32) -> &Links {
        &self.0[row as usize].links
    }
    fn links_mut(&mut self, row: u32) -> &mut Links {
        &mut self.0[row as usize].links
    }
}

impl Accounts {
    pub fn new(cost: TokenCost, workflows_max: u32) -> Accounts {
        Accounts {
            cost,
            workflows_max: workflows_max as usize,
            rows: Vec::new(),
            rows_by_id: Index::new(),
            recency: List::EMPTY,
        }
    }

    /// What the workflow of a request that arrives has been given.
    pub fn attained(&mut self, workflow: WorkflowId) -> u64 {
        let Some(row) = self.find(workflow) else { return 0 };
        self.use_row(row);
        self.rows[row as usize].attained
    }

    /// Charges a dispatch: what it is expected to cost.
    #[inline(never)]
    pub fn charge(&mut self, workflow: WorkflowId, prompt_tokens: u32, output_predicted: u32) {
        if workflow == WorkflowId(0) {
            return;
        }
        let row = match self.find(workflow) {
            Some(row) => {
                self.use_row(row);
                row
            }
            None => self.open(workflow),
        };
        let attained = &mut self.rows[row as usize].attained;
        *attained = attained.saturating_add(cost_of(self.cost, prompt_tokens, output_predicted));
    }

    /// Settles an end: adds what it cost minus what it was charged, either way.
    #[inline(never)]
    pub fn settle(&mut self, workflow: WorkflowId, charged: (u32, u32), used: (u32, u32)) {
        let Some(row) = self.find(workflow) else { return };
        let attained = &mut self.rows[row as usize].attained;
        let with = attained.saturating_add(cost_of(self.cost, used.0, used.1));
        *attained = with.saturating_sub(cost_of(self.cost, charged.0, charged.1));
    }

    fn find(&self, workflow: WorkflowId) -> Option<u32> {
        self.rows_by_id.find(workflow.0).map(|found| found.slot)
    }

    fn use_row(&mut self, row: u32) {
        self.recency.remove(&mut Recency(&mut self.rows), row);
        self.recency.push(&mut Recency(&mut self.rows), row);
    }

    /// Opens an account; the one used longest ago makes room.
    fn open(&mut self, workflow: WorkflowId) -> u32 {
        let fresh = Row { workflow, attained: 0, links: Links::UNLINKED };
        let row = if self.rows.len() < self.workflows_max {
            self.rows.push(fresh);
            self.rows.len() as u32 - 1
        } else {
            let oldest = self.recency.head().expect("there is room for one account at least");
            let forgotten = self.rows[oldest as usize].workflow.0;
            let found = self.rows_by_id.find(forgotten).expect("an account is indexed");
            self.rows_by_id.remove(found);
            self.recency.remove(&mut Recency(&mut self.rows), oldest);
            self.rows[oldest as usize] = fresh;
            oldest
        };
        self.recency.push(&mut Recency(&mut self.rows), row);
        self.rows_by_id.insert(workflow.0, row);
        row
    }
}

/// The cost of so many tokens. [`crate::Config::check`] keeps prices small enough to fit.
fn cost_of(cost: TokenCost, prompt_tokens: u32, output_tokens: u32) -> u64 {
    u64::from(prompt_tokens) * u64::from(cost.prompt)
        + u64::from(output_tokens) * u64::from(cost.output)
}
