//! Where a backend is: `http://10.0.0.1:8000/prefix`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether the way to a backend is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As a URL says it.
    pub const fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
    /// The port where a URL names none.
    pub const fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// A scheme, a host, a port and a path prefix; nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// How to talk to it.
    pub scheme: Scheme,
    /// A name in lower case, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
    /// What goes before every path: empty, or `/` and more without a `/` at its end.
    pub path: String,
}

impl Url {
    /// Reads a URL of exactly this shape.
    ///
    /// # Errors
    /// What is wrong with it, to follow "the URL".
    pub fn parse(text: &str) -> Result<Url, &'static str> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(_) | None => return Err("must begin with http:// or https://"),
        };
        if rest.contains(['?', '#']) {
            return Err("must have no query and no fragment");
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("must not carry a user or a password; use `key_env`");
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            None => scheme.port(),
            Some(digits) => read_port(digits).ok_or("has a port that is not from 1 to 65535")?,
        };
        Ok(Url { scheme, host, port, path: read_path(path)? })
    }

    /// The host and, unless it is the scheme's own, the port, as a `Host` header says them.
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port == self.scheme.port() {
            true => host,
            false => format!("{host}:{}", self.port),
        }
    }

    /// The host as an address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.name(), self.authority(), self.path)
    }
}

fn split_port(authority: &str) -> Result<(String, Option<&str>), &'static str> {
    let Some(bracketed) = authority.strip_prefix('[') else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        return Ok((read_host(host)?, port));
    };
    let (host, rest) = bracketed.split_once(']').ok_or("has a bracket that is not closed")?;
    let host: Ipv6Addr = host.parse().map_err(|_| "has brackets without an IPv6 address")?;
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        Some(port) => Some(port),
        None => return Err("has more than a port behind the host"),
    };
    Ok((host.to_string(), port))
}

/// A name or an IPv4 address.
fn read_host(host: &str) -> Result<String, &'static str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(fits)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() > 253 || !host.split('.').all(label) {
        return Err("needs a host: a name, an IPv4 address or an IPv6 address in brackets");
    }
    // What ends in a number is read as an address wherever it is read at all.
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) && host.parse::<Ipv4Addr>().is_err() {
        return Err("has a host that is not an IPv4 address");
    }
    Ok(host.to_ascii_lowercase())
}

fn read_port(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| plain && *port > 0)
}

fn read_path(path: &str) -> Result<String, &'static str> {
    let path = path.strip_suffix('/').unwrap_or(path);
    if !path.chars().all(is_path_character) {
        return Err("has a path with characters that must be percent-encoded");
    }
    if path.split('/').skip(1).any(|step| matches!(step, "" | "." | "..")) {
        return Err("has a path with an empty step, `.` or `..`");
    }
    if path.ends_with("/v1") {
        return Err("must end before `/v1`, which the gateway adds");
    }
    Ok(path.to_owned())
}

/// What RFC 3986 lets stand in a path, percent signs included.
pub(super) fn is_path_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@%".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written() {
        for (text, host, port, path) in [
            ("http://10.0.0.1:8000", "10.0.0.1", 8000, ""),
            ("http://10.0.0.1/", "10.0.0.1", 80, ""),
            ("https://Models.Example.com", "models.example.com", 443, ""),
            ("https://gpu_0.lan:8443/llama/eu/", "gpu_0.lan", 8443, "/llama/eu"),
            ("http://[::1]:8000/x", "::1", 8000, "/x"),
            ("http://[fd00:0:0::2]", "fd00::2", 80, ""),
            ("http://localhost:80", "localhost", 80, ""),
            ("http://a/v1beta", "a", 80, "/v1beta"),
        ] {
            let url = Url::parse(text).unwrap_or_else(|why| panic!("{text} {why}"));
            assert_eq!((url.host.as_str(), url.port, url.path.as_str()), (host, port, path));
            assert_eq!(Url::parse(&url.to_string()), Ok(url), "{text}");
        }
        let shown = |text: &str| Url::parse(text).map(|url| (url.authority(), url.ip().is_some()));
        assert_eq!(shown("http://[::1]:80"), Ok(("[::1]".into(), true)));
        assert_eq!(shown("https://a.b:80"), Ok(("a.b:80".into(), false)));
    }

    #[test]
    fn anything_else_is_refused() {
        for (text, why) in [
            ("", "begin with"),
            ("10.0.0.1:8000", "begin with"),
            ("ftp://a", "begin with"),
            ("HTTP://a", "begin with"),
            ("http:/a", "begin with"),
            ("http://", "needs a host"),
            ("http://:8000", "needs a host"),
            ("http:///x", "needs a host"),
            ("http://a..b", "needs a host"),
            ("http://-a", "needs a host"),
            ("http://a b", "needs a host"),
            ("http://ä.de", "needs a host"),
            ("http://::1", "needs a host"),
            ("http://1.2.3", "not an IPv4"),
            ("http://1.2.3.400", "not an IPv4"),
            ("http://8000", "not an IPv4"),
            ("http://[::1", "not closed"),
            ("http://[1.2.3.4]", "without an IPv6"),
            ("http://[::1]8000", "behind the host"),
            ("http://a:", "port"),
            ("http://a:0", "port"),
            ("http://a:+80", "port"),
            ("http://a:65536", "port"),
            ("http://a:80:90", "port"),
            ("http://a?x=1", "no query"),
            ("http://a/b#c", "no query"),
            ("http://me:pw@a", "user or a password"),
            ("http://a/b c", "percent-encoded"),
            ("http://a/ü", "percent-encoded"),
            ("http://a//b", "empty step"),
            ("http://a/b/../c", "empty step"),
            ("http://a//", "empty step"),
            ("http://a/v1", "before `/v1`"),
            ("http://a/eu/v1/", "before `/v1`"),
        ] {
            let wrong = Url::parse(text).expect_err(text);
            assert!(wrong.contains(why), "{text}: {wrong}");
        }
    }
}
