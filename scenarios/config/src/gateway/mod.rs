//! Gateway files: a policy, and what stands before and behind it.
//!
//! A gateway file is a policy file with a table `[gateway]`, one `[[backend]]` or more and, if need
//! be, `[[key]]`, `[[resource]]` and `[[deadlines]]`. Nothing here opens a socket, reads the
//! environment or looks into a key file: names and paths are carried to whoever does.

mod backend;
mod backends;
mod build;
mod check;
mod deadlines;
mod headers;
mod key;
mod limits;
mod listen;
mod names;
mod range;
mod resource;
mod spec;
mod url;

use std::net::SocketAddr;

use plimsoll_base::{Names, TenantId};
use plimsoll_policy::Config;

pub use backend::{Backend, BackendKind, BackendSpec, PriorityOrder};
pub use deadlines::{ClassDeadlinesSpec, Deadlines, DeadlinesSpec};
pub use headers::{Headers, HeadersSpec};
pub use key::{Key, KeySpec, Secret};
pub use limits::Limits;
pub use listen::{DecisionLog, Tls};
pub use resource::{Resource, ResourceSpec};
pub use spec::{GatewayFileSpec, GatewaySpec, LogSpec, TlsSpec};
pub use url::{Scheme, Url};

use crate::{ClassObjectives, Diagnostics, Effective, Layered, decode};

/// The ways in, indexed by `SourceId`; classification rules name them as `workload`.
pub const ROUTES: [&str; 4] = ["chat-completions", "completions", "embeddings", "leases"];
/// The tenant of all requests where the file has neither keys nor an `anonymous`.
pub const ANONYMOUS: &str = "anonymous";
/// The model that stands for all where the policy names none.
pub const ANY_MODEL: &str = "any";
/// The pool of backends that name none.
const POOL_DEFAULT: &str = "default";

/// A gateway, valid by construction.
#[derive(Clone, Debug)]
pub struct GatewayFile {
    /// A short name for reports.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The names behind the ids: classes, tenants, [`ROUTES`], pools. Pools are those of the
    /// backends in the order in which they are first named, then one a resource.
    pub names: Names,
    /// Stages of workflows, indexed by `StageId`; the first has no name and is that of requests
    /// outside of workflows.
    pub stages: Vec<String>,
    /// The policy. Its models are those of the file, or [`ANY_MODEL`], and then the resources.
    pub config: Config,
    /// Whether the file names no models: then whatever model a request asks for is the first,
    /// [`ANY_MODEL`], and is handed on by the name that the request states.
    pub any_model: bool,
    /// What each class is promised, indexed by `ClassId`.
    pub objectives: Vec<ClassObjectives>,
    /// Where clients connect; port 0 is any that is free.
    pub listen: SocketAddr,
    /// Where metrics and administration are; a loopback address.
    pub admin: SocketAddr,
    /// Certificate and key, if clients speak HTTPS.
    pub tls: Option<Tls>,
    /// The tenant of requests without a key; `None`: a key is required.
    pub anonymous: Option<TenantId>,
    /// Sizes, counts and times.
    pub limits: Limits,
    /// Which headers say what.
    pub headers: Headers,
    /// Where decisions are written, if anywhere.
    pub log: Option<DecisionLog>,
    /// How long backends may take, indexed by `ClassId`.
    pub deadlines: Vec<Deadlines>,
    /// Who may come in.
    pub keys: Vec<Key>,
    /// What serves; at least one.
    pub backends: Vec<Backend>,
    /// What is lent.
    pub resources: Vec<Resource>,
    /// Sentences that whoever runs it must see.
    pub assumptions: Vec<String>,
    /// Every value in force and where it came from.
    pub effective: Effective,
}

impl Layered {
    /// Whether it says what a gateway needs.
    pub fn is_gateway_file(&self) -> bool {
        ["gateway", "backend"].iter().any(|key| self.root.get(key).is_some())
    }

    /// The gateway of a gateway file.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn gateway_file(self) -> Result<GatewayFile, Diagnostics> {
        let effective = Effective::of(&self);
        let read = decode(&self.root);
        match read.and_then(|spec| build::gateway(spec, &self.sources, effective)) {
            Ok(gateway) => Ok(gateway),
            Err(list) => Err(Diagnostics { sources: self.sources, list }),
        }
    }
}

/// The JSON Schema of a gateway file, for editors.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(GatewayFileSpec)
}
