//! Why a request waited, and where each cause stands in a table.

use plimsoll_base::{Bound, ClassId};

/// What is held by somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// The seats that the allocator may fill, over all backends: who holds how many requests.
    Seats,
    /// The KV memory that the allocator may fill, over all backends: who holds how many estimated
    /// tokens.
    KvMemory,
    /// The batch of the engine in whose own queue the request waits: who runs there.
    Engine,
    /// The KV memory of the engines that decode, where prompts are computed by others: whose prompts
    /// lie there, or will, in tokens.
    DecodeMemory,
    /// The link between such engines: whose KV it carries.
    Link,
}

impl Resource {
    /// All, in report order.
    pub const ALL: [Resource; 5] = [
        Resource::Seats,
        Resource::KvMemory,
        Resource::Engine,
        Resource::DecodeMemory,
        Resource::Link,
    ];
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Resource::Seats => "seats",
            Resource::KvMemory => "kv_memory",
            Resource::Engine => "engine",
            Resource::DecodeMemory => "decode_memory",
            Resource::Link => "link",
        }
    }
}

/// What a part of a class's waiting time falls on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A class (`None`: requests that no rule classified) held the resource, within its share.
    Within(Resource, Option<ClassId>),
    /// The same, above its share.
    Above(Resource, Option<ClassId>),
    /// Nobody held the resource that was said to be full.
    Idle(Resource),
    /// A line of the policy, a missing signal or a missing backend: no holder is to blame.
    Line(Bound),
    /// The facts do not say what stopped it.
    Untold,
}

/// A part of a class's waiting time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blamed {
    /// What it falls on.
    pub cause: Cause,
    /// Nanoseconds, over all measured requests of the class.
    pub nanos: u128,
}

/// Where each cause stands in a victim's table: for each resource within by row, above by row and
/// idle, then the bounds, then what is untold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Classes, and one for what no rule classified.
    pub rows: usize,
}

impl Layout {
    const fn held(self) -> usize {
        2 * self.rows + 1
    }
    pub const fn cells(self) -> usize {
        Resource::ALL.len() * self.held() + Bound::ALL.len() + 1
    }
    /// The cells of a resource.
    pub fn of(self, resource: Resource) -> std::ops::Range<usize> {
        let from = resource as usize * self.held();
        from..from + self.held()
    }
    pub const fn line(self, bound: Bound) -> usize {
        Resource::ALL.len() * self.held() + bound as usize
    }
    pub const fn untold(self) -> usize {
        self.cells() - 1
    }

    /// What a cell stands for.
    pub fn cause(self, cell: usize) -> Cause {
        let class = |row: usize| (row + 1 < self.rows).then_some(ClassId(row as u16));
        match Resource::ALL.get(cell / self.held()) {
            Some(&resource) => match cell % self.held() {
                row if row < self.rows => Cause::Within(resource, class(row)),
                row if row < 2 * self.rows => Cause::Above(resource, class(row - self.rows)),
                _idle => Cause::Idle(resource),
            },
            None => match Bound::ALL.get(cell - Resource::ALL.len() * self.held()) {
                Some(&bound) => Cause::Line(bound),
                None => Cause::Untold,
            },
        }
    }
}
