//! What the gateway allows: sizes, counts and times.
//!
//! | key | default | bounds |
//! |---|---|---|
//! | `connections_max` | 20000 | 1 to 1000000 |
//! | `header_bytes_max` | 32KiB | 1KiB to 1MiB |
//! | `body_bytes_max` | 8MiB | 1KiB to 1GiB |
//! | `bodies_bytes_max` | 1GiB | `body_bytes_max` to 1TiB |
//! | `response_bytes_max` | 64MiB | 1KiB to 64GiB |
//! | `header_timeout`, `body_timeout`, `write_timeout` | 10s, 30s, 30s | 1ms to 1h |
//! | `drain` | 30s | 0s to 1h |
//! | `retries` | 1 | 0 to 16 |
//! | `tenants_max` | 4096 | 0 to 1000000 |
//! | `tokens_per_byte` | 0.25 | 0.01 to 2 |
//! | `output_tokens_default` | 1024 | 1 to 16777216 |

use plimsoll_base::Span;

use super::range::{Quantity, count, outside};
use super::spec::GatewaySpec;
use crate::Diagnostic;

const TOKENS_PER_BYTE_DEFAULT: f64 = 0.25;
const TOKENS_PER_BYTE: std::ops::RangeInclusive<f64> = 0.01..=2.0;

/// What the gateway allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Connections of clients at once.
    pub connections_max: u32,
    /// The longest head of a request, in bytes.
    pub header_bytes_max: u64,
    /// The longest body of a request, in bytes.
    pub body_bytes_max: u64,
    /// All bodies of requests that are held at once, in bytes: those that come in, wait or run.
    pub bodies_bytes_max: u64,
    /// The longest body of an answer, in bytes.
    pub response_bytes_max: u64,
    /// How long a client may take to send a head.
    pub header_timeout: Span,
    /// How long a client may take to send a body.
    pub body_timeout: Span,
    /// How long a client may take none of what is sent to it.
    pub write_timeout: Span,
    /// How long requests may go on after the gateway is told to end.
    pub drain: Span,
    /// Other backends that are tried if one could not be reached.
    pub retries: u32,
    /// Tenants that trusted headers name, at most, beside those of the file.
    pub tenants_max: u32,
    /// Tokens a byte of prompt counts as before a model's ratio is learnt.
    pub tokens_per_byte: f64,
    /// The output cap of requests that state none, in tokens.
    pub output_tokens_default: u32,
}

/// The limits of a file.
pub(super) fn limits(spec: &GatewaySpec, found: &mut Vec<Diagnostic>) -> Limits {
    let bytes = |key, default, most| Quantity { key, default, least: "1KiB", most };
    let timeout = |key, default| Quantity { key, default, least: "1ms", most: "1h" };
    let body_bytes_max = bytes("body_bytes_max", "8MiB", "1GiB").bytes(spec.body_bytes_max, found);
    let drain = Quantity { key: "drain", default: "30s", least: "0s", most: "1h" };
    Limits {
        connections_max: count(
            "connections_max",
            spec.connections_max,
            (20_000, 1..=1_000_000),
            found,
        ),
        header_bytes_max: bytes("header_bytes_max", "32KiB", "1MiB")
            .bytes(spec.header_bytes_max, found),
        body_bytes_max,
        bodies_bytes_max: bodies_bytes_max(spec, body_bytes_max, found),
        response_bytes_max: bytes("response_bytes_max", "64MiB", "64GiB")
            .bytes(spec.response_bytes_max, found),
        header_timeout: timeout("header_timeout", "10s").span(spec.header_timeout, found),
        body_timeout: timeout("body_timeout", "30s").span(spec.body_timeout, found),
        write_timeout: timeout("write_timeout", "30s").span(spec.write_timeout, found),
        drain: drain.span(spec.drain, found),
        retries: count("retries", spec.retries, (1, 0..=16), found),
        tenants_max: count("tenants_max", spec.tenants_max, (4_096, 0..=1_000_000), found),
        tokens_per_byte: tokens_per_byte(spec, found),
        output_tokens_default: count(
            "output_tokens_default",
            spec.output_tokens_default,
            (1_024, 1..=1 << 24),
            found,
        ),
    }
}

fn bodies_bytes_max(spec: &GatewaySpec, one: u64, found: &mut Vec<Diagnostic>) -> u64 {
    let key = "bodies_bytes_max";
    let all = Quantity { key, default: "1GiB", least: "1KiB", most: "1TiB" };
    let bytes = all.bytes(spec.bodies_bytes_max, found);
    if bytes < one {
        let place = spec.bodies_bytes_max.or(spec.body_bytes_max).map(|written| written.place);
        let example = "bodies_bytes_max = \"1GiB\"";
        found.extend(place.map(|at| outside(key, at, ("`body_bytes_max`", "1TiB"), example)));
    }
    bytes
}

fn tokens_per_byte(spec: &GatewaySpec, found: &mut Vec<Diagnostic>) -> f64 {
    let Some(written) = spec.tokens_per_byte else { return TOKENS_PER_BYTE_DEFAULT };
    if !TOKENS_PER_BYTE.contains(&written.value) {
        let example = "tokens_per_byte = 0.25";
        found.push(outside("tokens_per_byte", written.place, ("0.01", "2"), example));
    }
    written.value
}
