//! Keeps other people's pages out.

use std::net::IpAddr;

use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::{Method, StatusCode};

use crate::answer::Problem;
use crate::infer::kind_is;

/// Says of a post that its sender knows what it does.
const OWN: HeaderName = HeaderName::from_static("x-plimsoll");

/// Whether a request is meant for us and comes from no foreign page.
///
/// # Errors
/// If it may come from one.
pub(crate) fn check(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let forbidden = |code, message: &str| Err(Problem::new(StatusCode::FORBIDDEN, code, message));
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    let Some(host) = text(HOST).filter(|host| is_loopback(host)) else {
        return forbidden("foreign_host", "ask for localhost or a loopback address");
    };
    if headers.get_all(HOST).iter().count() > 1 {
        return forbidden("foreign_host", "one `Host` is enough");
    }
    let is_own = |origin: &str| origin.strip_prefix("http://") == Some(host);
    if text(ORIGIN).is_some_and(|origin| !is_own(origin)) {
        return forbidden("foreign_origin", "other pages have no business here");
    }
    let means_it =
        kind_is(headers.get(CONTENT_TYPE), b"application/json") || headers.contains_key(OWN);
    if method == Method::POST && !means_it {
        let message = "a post needs `content-type: application/json` or a header `x-plimsoll`";
        return forbidden("not_meant", message);
    }
    Ok(())
}

/// Whether a `Host` is a loopback address or `localhost`, with or without a port.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match bare {
        Some(bare) => bare.parse().is_ok_and(|ip: std::net::Ipv6Addr| ip.is_loopback()),
        None => {
            name.eq_ignore_ascii_case("localhost")
                || name.parse().is_ok_and(|ip: IpAddr| ip.is_ipv4() && ip.is_loopback())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_hosts_are_ours() {
        let ours =
            ["localhost", "LOCALHOST:80", "127.0.0.1", "127.9.9.9:9091", "[::1]", "[::1]:80"];
        ours.into_iter().for_each(|host| assert!(is_loopback(host), "{host}"));
        let foreign = [
            "",
            "evil.example",
            "evil.example:9091",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "10.0.0.1",
            "[fe80::1]:80",
            "::1",
            "[::1",
            "127.0.0.1:80:80",
            "localhost:x",
            "0.0.0.0",
        ];
        foreign.into_iter().for_each(|host| assert!(!is_loopback(host), "{host}"));
    }

    type Headers = [(&'static str, &'static str)];

    fn verdict(method: Method, headers: &Headers) -> Option<&'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        check(&method, &map).err().map(|problem| problem.code)
    }

    #[test]
    fn posts_must_be_meant() {
        let host = ("host", "localhost:1");
        let json = ("content-type", "application/json");
        let cases: [(Method, &Headers, Option<&str>); 9] = [
            (Method::GET, &[host], None),
            (Method::GET, &[], Some("foreign_host")),
            (Method::GET, &[host, host], Some("foreign_host")),
            (Method::GET, &[("host", "evil.example")], Some("foreign_host")),
            (Method::GET, &[host, ("origin", "http://evil.example")], Some("foreign_origin")),
            (Method::POST, &[host], Some("not_meant")),
            (Method::POST, &[host, ("content-type", "text/plain")], Some("not_meant")),
            (Method::POST, &[host, json, ("origin", "http://localhost:1")], None),
            (Method::POST, &[host, ("x-plimsoll", "1")], None),
        ];
        for (method, headers, wanted) in cases {
            assert_eq!(verdict(method, headers), wanted, "{headers:?}");
        }
    }
}
