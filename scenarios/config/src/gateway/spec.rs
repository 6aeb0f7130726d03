//! A gateway file, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::backend::BackendSpec;
use super::deadlines::{ClassDeadlinesSpec, DeadlinesSpec};
use super::headers::HeadersSpec;
use super::key::KeySpec;
use super::resource::ResourceSpec;
use crate::file::TenantSpec;
use crate::spec::{ClassSpec, PolicySpec};
use crate::{At, BytesValue, Items, SpanValue};

/// A gateway file: a policy, and what stands before and behind it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayFileSpec {
    /// The version of this format: 1.
    pub schema_version: u32,
    /// A path, or `shipped:NAME`: this file is laid over that one. Tables merge, lists are
    /// replaced, lists of named tables merge by name.
    #[serde(default)]
    pub extends: Option<String>,
    /// A short name for reports.
    pub name: At<String>,
    /// What the gateway is for.
    #[serde(default)]
    pub description: String,
    /// Where it listens and what it allows.
    pub gateway: GatewaySpec,
    /// What latency is owed to whom.
    #[serde(default)]
    pub class: Items<ClassSpec>,
    /// Who pays: the tenants that keys and rules name.
    #[serde(default)]
    pub tenant: Items<TenantSpec>,
    /// Who goes first.
    #[serde(default)]
    pub policy: At<PolicySpec>,
    /// Deadlines of single classes.
    #[serde(default)]
    pub deadlines: Items<ClassDeadlinesSpec>,
    /// Who may come in.
    #[serde(default)]
    pub key: Items<At<KeySpec>>,
    /// What serves.
    #[serde(default)]
    pub backend: Items<At<BackendSpec>>,
    /// What is lent: work that is not inference.
    #[serde(default)]
    pub resource: Items<At<ResourceSpec>>,
}

/// `[gateway]`: where it listens and what it allows.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewaySpec {
    /// Address and port for clients: "127.0.0.1:8080".
    pub listen: At<String>,
    /// Address and port for metrics and administration; a loopback address.
    /// Default "127.0.0.1:9091".
    pub admin: Option<At<String>>,
    /// The tenant of requests without a key. Default: a key is required if the file has keys;
    /// without any keys all belong to the tenant "anonymous".
    pub anonymous: Option<At<String>>,
    /// Connections of clients at once. Default 20000.
    pub connections_max: Option<At<u32>>,
    /// The longest head of a request. Default "32KiB".
    pub header_bytes_max: Option<At<BytesValue>>,
    /// The longest body of a request. Default "8MiB".
    pub body_bytes_max: Option<At<BytesValue>>,
    /// All bodies of requests that are held at once: those that come in, wait or run. A request for
    /// which there is no room is refused with 503. Default "1GiB".
    pub bodies_bytes_max: Option<At<BytesValue>>,
    /// The longest body of an answer. Default "64MiB".
    pub response_bytes_max: Option<At<BytesValue>>,
    /// How long a client may take to send a head. Default "10s".
    pub header_timeout: Option<At<SpanValue>>,
    /// How long a client may take to send a body. Default "30s".
    pub body_timeout: Option<At<SpanValue>>,
    /// How long a client may take none of what is sent to it. Default "30s".
    pub write_timeout: Option<At<SpanValue>>,
    /// How long requests may go on after the gateway is told to end. Default "30s".
    pub drain: Option<At<SpanValue>>,
    /// Other backends that are tried if one could not be reached. Default 1.
    pub retries: Option<At<u32>>,
    /// Tenants that trusted headers name, at most; those of the file not counted. Default 4096.
    pub tenants_max: Option<At<u32>>,
    /// Tokens a byte of prompt counts as before a model's ratio is learnt. Default 0.25.
    pub tokens_per_byte: Option<At<f64>>,
    /// The output cap of requests that state none, in tokens. Default 1024.
    pub output_tokens_default: Option<At<u32>>,
    /// Certificate and key, for HTTPS. Default: plain HTTP.
    pub tls: Option<TlsSpec>,
    /// Which headers say what.
    #[serde(default)]
    pub headers: HeadersSpec,
    /// Where decisions are written. Default: nowhere.
    pub log: Option<LogSpec>,
    /// How long backends may take.
    #[serde(default)]
    pub deadlines: At<DeadlinesSpec>,
}

/// Certificate and key; paths are relative to the file that names them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSpec {
    /// A PEM file: the certificate, then those that vouch for it.
    pub certificate: At<String>,
    /// A PEM file: the private key.
    pub key: At<String>,
}

/// `[gateway.log]`: the decision log.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogSpec {
    /// A folder, relative to the file that names it.
    pub folder: At<String>,
    /// A file that has grown to this is followed by the next. Default "256MiB".
    pub file_bytes_max: Option<At<BytesValue>>,
    /// Files that are kept; the oldest goes. Default 8.
    pub files_max: Option<At<u32>>,
}
