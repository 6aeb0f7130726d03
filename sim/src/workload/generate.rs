//! From a [`Workload`] to the [`Source`] that generates it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use plimsoll_base::{ClassId, Span, Stream, StreamKey, TenantId, Time};

use super::arrivals::Process;
use super::lengths::Draw;
use super::{Arrivals, Request, Source, SourceError, Think, Workload};

/// The source that generates `workload`, which is called `name` in its scenario.
///
/// Every consumer draws from a stream of its own (`workload.<name>.arrivals`, `.prompt`,
/// `.output`, `.tenant`; one each a user in a closed loop), so that a change of one workload, or
/// of one of these four, changes none of the others: common random numbers by construction.
///
/// # Panics
/// If the workload replays a trace: that source is built by whoever can read files.
pub fn source(workload: &Workload, name: &str, seed: u64, replication: u32) -> Box<dyn Source> {
    let streams = Streams { seed, replication, name };
    if let Arrivals::Closed { users, think } = &workload.arrivals {
        return Box::new(Closed::new(workload, *users, *think, &streams));
    }
    let process = Process::new(&workload.arrivals, workload.start, streams.of("arrivals", 0))
        .expect("a workload that is generated is no trace");
    Box::new(Open::new(workload, process, Drawn::new(&streams, 0)))
}

/// Where streams come from: one a consumer and entity.
struct Streams<'a> {
    seed: u64,
    replication: u32,
    name: &'a str,
}

impl Streams<'_> {
    fn of(&self, consumer: &str, entity: u64) -> Stream {
        let name = format!("workload.{}.{consumer}", self.name);
        let (seed, replication) = (self.seed, self.replication);
        Stream::new(StreamKey { seed, replication, name: &name, entity })
    }
}

/// What requests of a workload look like.
struct Shape {
    prompt: Draw,
    output: Draw,
    output_cap: u32,
    /// Tenants with the sum of weights up to and including theirs.
    tenants: Vec<(TenantId, u64)>,
    /// The sum of all.
    weight: u64,
    claims: Option<ClassId>,
}

/// What lengths are drawn from.
struct Drawn {
    prompt: Stream,
    output: Stream,
    tenant: Stream,
}

impl Drawn {
    fn new(streams: &Streams<'_>, entity: u64) -> Drawn {
        Drawn {
            prompt: streams.of("prompt", entity),
            output: streams.of("output", entity),
            tenant: streams.of("tenant", entity),
        }
    }
}

impl Shape {
    fn new(workload: &Workload) -> Shape {
        let mut sum = 0;
        let cumulative = |(tenant, weight): &(TenantId, u32)| {
            sum += u64::from(*weight);
            (*tenant, sum)
        };
        let tenants: Vec<_> = workload.tenants.iter().map(cumulative).collect();
        assert!(sum > 0, "some tenant of a workload has weight");
        Shape {
            prompt: Draw::new(&workload.prompt),
            output: Draw::new(&workload.output),
            output_cap: workload.output_cap,
            tenants,
            weight: sum,
            claims: workload.claims,
        }
    }

    fn tenant(&self, stream: &mut Stream) -> TenantId {
        if let [(tenant, _)] = self.tenants[..] {
            return tenant;
        }
        let point = stream.below(self.weight);
        self.tenants[self.tenants.partition_point(|(_, upto)| *upto <= point)].0
    }

    fn request(&self, drawn: &mut Drawn, tenant: TenantId, key: u32) -> Request {
        let output_tokens = self.output.tokens(&mut drawn.output);
        Request {
            tenant,
            claims: self.claims,
            prompt_tokens: self.prompt.tokens(&mut drawn.prompt),
            output_tokens,
            output_cap: self.output_cap.max(output_tokens),
            key,
        }
    }
}

/// Open loop: arrivals do not wait for answers.
struct Open {
    process: Process,
    shape: Shape,
    drawn: Drawn,
    stop: Time,
    next: Option<Time>,
}

impl Open {
    fn new(workload: &Workload, mut process: Process, drawn: Drawn) -> Open {
        let stop = workload.stop.unwrap_or(Time::MAX);
        let next = process.next().filter(|at| *at < stop);
        Open { process, shape: Shape::new(workload), drawn, stop, next }
    }
}

impl Source for Open {
    fn next_at(&mut self) -> Result<Option<Time>, SourceError> {
        Ok(self.next)
    }

    fn take(&mut self) -> Request {
        assert!(self.next.is_some(), "only an announced request is taken");
        self.next = self.process.next().filter(|at| *at < self.stop);
        let tenant = self.shape.tenant(&mut self.drawn.tenant);
        self.shape.request(&mut self.drawn, tenant, 0)
    }
}

/// Closed loop: users that think, ask, and wait for the answer, whatever it is. All begin
/// thinking at the start. Each draws from streams of its own, so that a user's k-th request is
/// the same whatever the policy did to the others; and each pays as one tenant throughout.
struct Closed {
    shape: Shape,
    think: Think,
    users: Vec<User>,
    /// Users that think, by when they ask next.
    thinking: BinaryHeap<Reverse<(Time, u32)>>,
    stop: Time,
}

struct User {
    tenant: TenantId,
    arrivals: Stream,
    drawn: Drawn,
}

impl Closed {
    fn new(workload: &Workload, users: u32, think: Think, streams: &Streams<'_>) -> Closed {
        let shape = Shape::new(workload);
        let user = |entity| {
            let mut drawn = Drawn::new(streams, entity);
            let tenant = shape.tenant(&mut drawn.tenant);
            User { tenant, arrivals: streams.of("arrivals", entity), drawn }
        };
        let users: Vec<User> = (0..u64::from(users)).map(user).collect();
        let stop = workload.stop.unwrap_or(Time::MAX);
        let mut closed = Closed { shape, think, users, thinking: BinaryHeap::new(), stop };
        for user in 0..closed.users.len() as u32 {
            closed.think(workload.start, user);
        }
        closed
    }

    /// The user thinks from `now` on; one that would ask at or after the stop asks no more.
    fn think(&mut self, now: Time, user: u32) {
        let span = match self.think {
            Think::Fixed(span) => span,
            Think::Exponential(mean) => {
                let arrivals = &mut self.users[user as usize].arrivals;
                Span::from_secs_f64(arrivals.exponential() * mean.secs_f64())
            }
        };
        let at = now.saturating_add(span);
        if at < self.stop {
            self.thinking.push(Reverse((at, user)));
        }
    }

    fn first(&self) -> Option<(Time, u32)> {
        self.thinking.peek().map(|Reverse(first)| *first)
    }
}

impl Source for Closed {
    fn next_at(&mut self) -> Result<Option<Time>, SourceError> {
        Ok(self.first().map(|(at, _)| at))
    }

    fn take(&mut self) -> Request {
        let Reverse((_, user)) = self.thinking.pop().expect("only an announced request is taken");
        let User { tenant, drawn, .. } = &mut self.users[user as usize];
        self.shape.request(drawn, *tenant, user)
    }

    fn hears_ends(&self) -> bool {
        true
    }

    fn ended(&mut self, now: Time, key: u32) -> bool {
        let before = self.first();
        self.think(now, key);
        self.first() != before
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Lengths, Marks};
    use super::*;

    #[test]
    fn a_closed_loop_holds_its_users_and_no_more() {
        let workload = Workload {
            arrivals: Arrivals::Trace,
            prompt: Lengths::Fixed(1),
            output: Lengths::Fixed(1),
            output_cap: 1,
            tenants: vec![(TenantId(0), 1)],
            claims: None,
            marks: Marks::default(),
            start: Time::ZERO,
            stop: None,
        };
        let streams = Streams { seed: 1, replication: 0, name: "flat" };
        let think = Think::Exponential(Span::from_secs(1));
        let mut closed = Closed::new(&workload, 100, think, &streams);
        let held = closed.thinking.capacity();
        for _ in 0..100_000 {
            let (now, _) = closed.first().expect("somebody thinks");
            let key = closed.take().key;
            closed.ended(now, key);
        }
        assert_eq!((closed.thinking.len(), closed.thinking.capacity()), (100, held));
    }
}
