//! Units in values: `"500ms"`, `"12/s"`, `"80GiB"`, `"99%"`.
//!
//! Spans and bytes are exact: no float stands between the text and the integer.

use plimsoll_base::Span;

/// Why a text is not a quantity: what is wrong, and what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub help: String,
}

const SPAN_HELP: &str =
    "write a number and a unit (ns, us, ms, s, min, h, d), for example \"500ms\", \"2s\", \"15m\"";
const RATE_HELP: &str = "write a number per unit of time (s, min, h, d), for example \"12/s\"";
const BYTES_HELP: &str =
    "write a number and a unit (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB), for example \"80GiB\"";
const FRACTION_HELP: &str =
    "write a number from 0 to 1 or a percentage, for example 0.99 or \"99%\"";
const COEFFICIENT_HELP: &str =
    "write a number and a unit (ps, ns, us, ms, s), for example \"8.2ms\" or \"21ps\"";

const SPANS: [(&str, u64); 10] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("", 0),
];
const BYTES: [(&str, u64); 11] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("", 0),
];

/// A length of time, exact to the nanosecond.
pub fn span(text: &str) -> Result<Span, Wrong> {
    exact(text, &SPANS, "span", SPAN_HELP).map(Span::from_nanos)
}

/// An amount of memory in bytes.
pub fn bytes(text: &str) -> Result<u64, Wrong> {
    exact(text, &BYTES, "amount of memory", BYTES_HELP)
}

/// A rate in events a second; not negative.
pub fn rate(text: &str) -> Result<f64, Wrong> {
    let wrong = |message: String| Wrong { message, help: RATE_HELP.into() };
    let Some((number, unit)) = text.split_once('/') else {
        return Err(wrong(format!("`{text}` is not a rate")));
    };
    let seconds = match unit.trim() {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        other => return Err(wrong(format!("`{other}` is not a unit of time for a rate"))),
    };
    match number.trim().parse::<f64>() {
        Ok(count) if count.is_finite() => Ok(count / seconds),
        Ok(_) | Err(_) => Err(wrong(format!("`{number}` is not a number"))),
    }
}

/// A fraction from 0 to 1, written as a percentage.
pub fn percentage(text: &str) -> Result<f64, Wrong> {
    let number = text.trim().strip_suffix('%').and_then(|digits| digits.trim().parse::<f64>().ok());
    match number {
        Some(percent) => fraction(percent / 100.0),
        None => Err(Wrong {
            message: format!("`{text}` is not a fraction"),
            help: FRACTION_HELP.into(),
        }),
    }
}

/// A fraction from 0 to 1, written as a number.
pub fn fraction(number: f64) -> Result<f64, Wrong> {
    if (0.0..=1.0).contains(&number) {
        return Ok(number);
    }
    Err(Wrong { message: format!("{number} is not from 0 to 1"), help: FRACTION_HELP.into() })
}

/// A step-time coefficient in nanoseconds.
pub fn coefficient(text: &str) -> Result<f64, Wrong> {
    let (number, unit) = split(text);
    let power = match unit {
        "ps" => Some(-3),
        "ns" => Some(0),
        "us" | "µs" => Some(3),
        "ms" => Some(6),
        "s" => Some(9),
        _ => None,
    };
    // The unit becomes a power of ten in the text, so that the float is the nearest one.
    let nanos = power.map(|power| format!("{number}e{power}").parse::<f64>());
    match nanos {
        Some(Ok(nanos)) if nanos >= 0.0 => Ok(nanos),
        Some(Ok(_) | Err(_)) | None => Err(Wrong {
            message: format!("`{text}` is not a step-time coefficient"),
            help: COEFFICIENT_HELP.into(),
        }),
    }
}

/// What to write for a quantity that was given without quotes and unit.
pub(crate) fn bare(kind: &str, number: &str) -> Wrong {
    let (unit, help) = match kind {
        SPAN => ("a unit of time", SPAN_HELP.replacen("500ms", &format!("{number}ms"), 1)),
        RATE => ("a unit", RATE_HELP.replacen("12/s", &format!("{number}/s"), 1)),
        BYTES_KIND => ("a unit", BYTES_HELP.replacen("80GiB", &format!("{number}GiB"), 1)),
        _ => ("a unit of time", COEFFICIENT_HELP.replacen("8.2ms", &format!("{number}ms"), 1)),
    };
    Wrong { message: format!("{number} lacks {unit}"), help }
}

/// The names under which [`crate::decode`] is asked for a quantity.
pub(crate) const SPAN: &str = "$plimsoll::span";
pub(crate) const RATE: &str = "$plimsoll::rate";
pub(crate) const BYTES_KIND: &str = "$plimsoll::bytes";
pub(crate) const FRACTION: &str = "$plimsoll::fraction";
pub(crate) const COEFFICIENT: &str = "$plimsoll::coefficient";

/// Splits `"1.5h"` into `"1.5"` and `"h"`.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '+')))
        .unwrap_or(text.len());
    (text[..end].trim(), text[end..].trim())
}

/// A decimal number times a unit, as an exact integer in the smallest unit.
fn exact(text: &str, units: &[(&str, u64)], what: &str, help: &str) -> Result<u64, Wrong> {
    let wrong = |message: String| Wrong { message, help: help.into() };
    let (number, unit) = split(text);
    if number.starts_with('-') {
        return Err(wrong(format!("a {what} cannot be negative")));
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return Err(wrong(format!("`{text}` is not a {what}")));
    }
    let scale = match units.iter().find(|(name, _)| *name == unit) {
        Some((_, 0)) => return Err(wrong(format!("`{text}` lacks a unit"))),
        Some((_, scale)) => u128::from(*scale),
        None => return Err(wrong(format!("`{unit}` is not a unit of a {what}"))),
    };
    let too_large = || wrong(format!("`{text}` is too large"));
    let mut total = whole.parse::<u128>().map_err(|_| too_large())?.checked_mul(scale);
    if !fraction.is_empty() {
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > 18 {
            return Err(wrong(format!("`{text}` has too many digits")));
        }
        let ten_to = 10u128.pow(fraction.len() as u32);
        let part = fraction.parse::<u128>().unwrap_or(0) * scale;
        if !part.is_multiple_of(ten_to) {
            return Err(wrong(format!("`{text}` is finer than the smallest unit")));
        }
        total = total.and_then(|total| total.checked_add(part / ten_to));
    }
    total.and_then(|total| u64::try_from(total).ok()).ok_or_else(too_large)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_exact() {
        for (text, nanos) in [
            ("500ms", 500_000_000),
            ("2s", 2_000_000_000),
            ("15m", 900_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("250us", 250_000),
            ("0.1s", 100_000_000),
            ("3.000000001s", 3_000_000_001),
            ("1 min", 60_000_000_000),
            ("0.30 ms", 300_000),
        ] {
            assert_eq!(span(text), Ok(Span::from_nanos(nanos)), "{text}");
        }
        for text in ["", "5", "ms", "5 bananas", "-1s", "1.5ns", "1e3s", "99999999999d", "1.2.3s"] {
            assert!(span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn other_quantities() {
        assert_eq!(bytes("80GiB"), Ok(80 << 30));
        assert_eq!(bytes("1.5kB"), Ok(1_500));
        assert!(bytes("80").is_err() && bytes("80G").is_err());
        assert_eq!(rate("90/min"), Ok(1.5));
        assert_eq!(rate("12/s"), Ok(12.0));
        assert!(rate("12").is_err() && rate("12/ms").is_err() && rate("x/s").is_err());
        assert_eq!(percentage("99%"), Ok(0.99));
        assert!(percentage("101%").is_err() && fraction(-0.1).is_err());
        assert_eq!(coefficient("8.2ms"), Ok(8.2e6));
        assert_eq!(coefficient("500ps"), Ok(0.5));
        assert!(coefficient("8.2").is_err() && coefficient("-1ns").is_err());
    }
}
