//! Where the gateway listens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::backend::{Backend, BackendSpec};
use super::range::{Quantity, count};
use super::spec::{GatewaySpec, LogSpec, TlsSpec};
use super::url::Url;
use crate::{At, Code, Diagnostic, Items, Sources};

const ADMIN_DEFAULT: &str = "127.0.0.1:9091";

/// Certificate and key, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate, then those that vouch for it.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Where decisions are written. A file may grow to 64KiB at least and 1TiB at most; 2 to 10000
/// are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionLog {
    /// The folder.
    pub folder: PathBuf,
    /// A file that has grown to this is followed by the next, in bytes.
    pub file_bytes_max: u64,
    /// Files that are kept; the oldest goes.
    pub files_max: u32,
}

/// The addresses for clients and for administration; `None` if one cannot be read.
pub(super) fn addresses(
    spec: &GatewaySpec,
    found: &mut Vec<Diagnostic>,
) -> Option<(SocketAddr, SocketAddr)> {
    let listen = address(&spec.listen, found);
    let default = At { value: ADMIN_DEFAULT.to_owned(), place: spec.listen.place };
    let written = spec.admin.as_ref().unwrap_or(&default);
    let admin = address(written, found)?;
    if !admin.ip().is_loopback() {
        let message = format!("`admin` listens at {admin}, which others can reach");
        found.push(
            Diagnostic::new(Code::Conflict, Some(written.place), message)
                .label("not a loopback address")
                .help(format!("write for example `admin = \"{ADMIN_DEFAULT}\"`")),
        );
    }
    let listen = listen?;
    if same(listen, admin.ip(), admin.port()) {
        let message = format!("`listen` and `admin` cannot both have port {}", admin.port());
        found.push(
            Diagnostic::new(Code::Conflict, Some(written.place), message)
                .label("taken by `listen`")
                .help("give one of them another port"),
        );
    }
    Some((listen, admin))
}

fn address(written: &At<String>, found: &mut Vec<Diagnostic>) -> Option<SocketAddr> {
    let read = written.value.parse();
    if read.is_err() {
        let message = format!("`{}` is not an address and a port", written.value);
        found.push(
            Diagnostic::new(Code::Address, Some(written.place), message)
                .help("write for example \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \"[::1]:8080\""),
        );
    }
    read.ok()
}

/// Whether a listening address takes what goes to the other; port 0 is any that is free.
fn same(listening: SocketAddr, ip: IpAddr, port: u16) -> bool {
    let own = listening.ip();
    let here = own == ip || own.is_unspecified() && (ip.is_loopback() || ip.is_unspecified());
    listening.port() == port && port != 0 && here
}

/// Refuses backends that are the gateway itself.
pub(super) fn no_loop(
    (listen, admin): (SocketAddr, SocketAddr),
    written: &Items<At<BackendSpec>>,
    backends: &[Backend],
    found: &mut Vec<Diagnostic>,
) {
    for backend in backends {
        let Url { host, port, .. } = &backend.url;
        let local = host == "localhost";
        let ip = backend.url.ip().or(local.then_some(Ipv4Addr::LOCALHOST.into()));
        let loops = |own: SocketAddr| {
            let own = if local && own.ip().is_loopback() { localhost(own.port()) } else { own };
            ip.is_some_and(|ip| same(own, ip, *port))
        };
        if !loops(listen) && !loops(admin) {
            continue;
        }
        let spec = written.0.iter().find(|spec| spec.value.name.value == backend.name);
        let message = format!("the backend `{}` is this gateway itself", backend.name);
        found.push(
            Diagnostic::new(Code::Conflict, spec.map(|spec| spec.value.url.place), message)
                .help("give the backend's own address"),
        );
    }
}

fn localhost(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The paths of certificate and key.
pub(super) fn tls(spec: &TlsSpec, sources: &Sources) -> Tls {
    Tls { certificate: sources.path(&spec.certificate), key: sources.path(&spec.key) }
}

/// The decision log.
pub(super) fn log(spec: &LogSpec, sources: &Sources, found: &mut Vec<Diagnostic>) -> DecisionLog {
    let size = Quantity { key: "file_bytes_max", default: "256MiB", least: "64KiB", most: "1TiB" };
    DecisionLog {
        folder: sources.path(&spec.folder),
        file_bytes_max: size.bytes(spec.file_bytes_max, found),
        files_max: count("files_max", spec.files_max, (8, 2..=10_000), found),
    }
}
