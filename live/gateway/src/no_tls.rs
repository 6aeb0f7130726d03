//! What stands where the feature `tls` is off: nothing that could be had, and words that say so.

use plimsoll_config::gateway::Tls;
use tokio::net::TcpStream;

const WHY: &str = "this build has no TLS: build it with the feature `tls`";

/// There is none.
#[derive(Clone)]
pub(crate) enum Acceptor {}

impl Acceptor {
    pub fn new(_: &Tls) -> Result<Acceptor, String> {
        Err(format!("the file has `tls`, and {WHY}"))
    }
    pub async fn accept<S>(&self, _: S) -> std::io::Result<S> {
        match *self {}
    }
}

/// There is none.
#[derive(Clone)]
pub(crate) enum Connector {}

impl Connector {
    pub fn native() -> Result<Connector, String> {
        Err(format!("a backend's URL begins with https, and {WHY}"))
    }
    pub async fn connect(&self, _: &str, _: TcpStream) -> Result<TcpStream, String> {
        match *self {}
    }
}
