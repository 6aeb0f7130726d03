//! Shadows: allocators that listen to what another one is told, and act on nothing.
//!
//! Each shadow is told the same inputs and decides for itself; nobody carries its decisions out.
//! What it is told of a request's end is the end under the acting allocator, so its own state
//! drifts from what it would be if it acted: a shadow shows how often two policies want the same
//! on the same stream of inputs, not what the other policy would achieve. What it holds is
//! bounded by what the acting one holds: a request that the acting one has done with leaves
//! every shadow.

use std::collections::{BTreeMap, VecDeque};

use plimsoll_base::{BackendId, End, Refusal, RequestId, Span, Time};

use crate::allocator::Allocator;
use crate::check::ConfigError;
use crate::config::Config;
use crate::message::{Action, Decision, Input, Used};

/// What was first decided for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It may run there.
    Dispatched(BackendId),
    /// It was declined.
    Refused(Refusal),
    /// It ended without having run.
    Closed(End),
}

impl Verdict {
    /// What an action says; `None` where it takes back what was said before.
    pub fn of(action: &Action) -> Option<Verdict> {
        match *action {
            Action::Dispatch(backend, _) => Some(Verdict::Dispatched(backend)),
            Action::Reject(refusal, _) => Some(Verdict::Refused(refusal)),
            Action::Close(end) => Some(Verdict::Closed(end)),
            Action::Preempt(_) | Action::Cancel(_) => None,
        }
    }
}

/// How often two policies decided the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Requests that both sent to the same backend, refused for the same reason or closed alike.
    pub same: u64,
    /// Requests that the acting policy decided.
    pub decided: u64,
}

impl Agreement {
    /// The part of the decisions that are the same; `None` where there are none.
    pub fn rate(self) -> Option<f64> {
        (self.decided > 0).then(|| self.same as f64 / self.decided as f64)
    }
}

/// Several allocators that listen.
#[derive(Debug)]
pub struct Shadows(Vec<Shadow>);

impl Shadows {
    /// A shadow for each policy.
    ///
    /// # Errors
    /// If a policy contradicts itself.
    pub fn new(policies: Vec<Config>) -> Result<Shadows, ConfigError> {
        policies.into_iter().map(Shadow::new).collect::<Result<_, _>>().map(Shadows)
    }

    /// The acting allocator was told this and decided that. Requests have ids of their own: one
    /// that is used again while it is held means nothing.
    pub fn listen(&mut self, now: Time, input: &Input, decisions: &[Decision]) {
        for shadow in &mut self.0 {
            shadow.listen(now, input, decisions);
        }
    }

    /// How each agrees with the acting one so far, in the order of their policies.
    pub fn agreements(&self) -> impl Iterator<Item = Agreement> {
        self.0.iter().map(|shadow| shadow.agreement)
    }
}

#[derive(Debug)]
struct Shadow {
    allocator: Allocator,
    open: BTreeMap<RequestId, Open>,
    agreement: Agreement,
    /// What it is still to be told.
    untold: VecDeque<Input>,
}

/// A request that the acting allocator has not done with.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    acting: Option<Verdict>,
    own: Option<Verdict>,
    /// Whether it runs, if the shadow were to be believed.
    runs: bool,
}

impl Shadow {
    fn new(policy: Config) -> Result<Shadow, ConfigError> {
        let (open, agreement) = (BTreeMap::new(), Agreement::default());
        Ok(Shadow { allocator: Allocator::new(policy)?, open, agreement, untold: VecDeque::new() })
    }

    fn listen(&mut self, now: Time, input: &Input, decisions: &[Decision]) {
        self.keep_deadlines(now);
        match *input {
            Input::Arrived(id, _) | Input::Resumed(id, ..) => {
                self.open.entry(id).or_default();
                self.tell(now, input.clone());
            }
            Input::Ended(id, end, used) if self.acts_on(id) => self.close(now, id, (end, used)),
            // The acting one ignores the end of what it does not run: time passes, no more.
            Input::Ended(..) => self.tell(now, Input::Deadline),
            // Its own deadlines before this instant were kept; one at it is kept by any input.
            Input::Deadline
            | Input::Withdrawn(_)
            | Input::Accepted(_)
            | Input::FirstToken(_)
            | Input::Progressed(..)
            | Input::Matched(..)
            | Input::Predicted(..)
            | Input::Joined(..)
            | Input::Reported(..)
            | Input::Left(_)
            | Input::Draining => self.tell(now, input.clone()),
        }
        for decision in decisions {
            let Some(verdict) = Verdict::of(&decision.action) else { continue };
            let Some(open) = self.open.get_mut(&decision.id) else { continue };
            open.acting.get_or_insert(verdict);
            if !matches!(verdict, Verdict::Dispatched(_)) {
                self.close(now, decision.id, (End::Cancelled, Used::default()));
            }
        }
    }

    /// Whether the acting allocator has sent this request to a backend.
    fn acts_on(&self, id: RequestId) -> bool {
        let acting = self.open.get(&id).and_then(|open| open.acting);
        matches!(acting, Some(Verdict::Dispatched(_)))
    }

    fn keep_deadlines(&mut self, now: Time) {
        let mut after = Time::ZERO;
        while let Some(at) = self.allocator.next_deadline().map(|at| at.max(after))
            && at < now
        {
            self.tell(at, Input::Deadline);
            after = at.saturating_add(Span::from_nanos(1));
        }
    }

    /// The acting allocator has done with a request: it is compared, and leaves the shadow too.
    fn close(&mut self, now: Time, id: RequestId, (end, used): (End, Used)) {
        let Some(open) = self.open.remove(&id) else { return };
        if let Some(acting) = open.acting {
            self.agreement.decided += 1;
            self.agreement.same += u64::from(open.own == Some(acting));
        }
        if open.runs {
            self.tell(now, Input::Ended(id, end, used));
        } else {
            self.tell(now, Input::Withdrawn(id));
        }
    }

    fn tell(&mut self, now: Time, input: Input) {
        self.untold.push_back(input);
        while let Some(input) = self.untold.pop_front() {
            self.allocator.handle(now, input);
            while let Some(decision) = self.allocator.poll() {
                self.note(&decision);
            }
            while self.allocator.poll_signal().is_some() {}
        }
    }

    fn note(&mut self, decision: &Decision) {
        let Some(open) = self.open.get_mut(&decision.id) else { return };
        match decision.action {
            Action::Dispatch(..) => open.runs = true,
            Action::Cancel(_) => {
                self.untold.push_back(Input::Ended(decision.id, End::Evicted, Used::default()));
                open.runs = false;
            }
            Action::Reject(..) | Action::Close(_) | Action::Preempt(_) => open.runs = false,
        }
        if let Some(verdict) = Verdict::of(&decision.action) {
            open.own.get_or_insert(verdict);
        }
    }
}
