//! Numbers of the command line that are not plain.

use std::str::FromStr;

use plimsoll_base::Time;

/// How many replications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replications {
    /// So many, at least 1.
    Count(u32),
    /// As many as a precision takes.
    Auto,
}

impl FromStr for Replications {
    type Err = String;

    fn from_str(text: &str) -> Result<Replications, String> {
        match text.parse() {
            _ if text == "auto" => Ok(Replications::Auto),
            Ok(count @ 1..=100_000) => Ok(Replications::Count(count)),
            Ok(_) | Err(_) => Err("write `auto` or a whole number from 1 to 100000".to_owned()),
        }
    }
}

/// A part above 0, as `2%` or `0.02`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent(pub f64);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Percent, String> {
        let (number, unit) = match text.strip_suffix('%') {
            Some(number) => (number, 100.0),
            None => (text, 1.0),
        };
        match number.trim().parse::<f64>() {
            Ok(value) if value.is_finite() && value >= 0.0 => Ok(Percent(value / unit)),
            Ok(_) | Err(_) => Err("write a part, such as `2%` or `0.02`".to_owned()),
        }
    }
}

/// A range of whole numbers from 1 to 10,000, as `1..64`; or one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Between {
    /// At least 1.
    pub least: u32,
    /// At least as much.
    pub most: u32,
}

impl FromStr for Between {
    type Err = String;

    fn from_str(text: &str) -> Result<Between, String> {
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let number = |text: &str| text.trim_start_matches('=').trim().parse::<u32>().ok();
        match (number(least), number(most)) {
            (Some(least), Some(most)) if (1..=most).contains(&least) && most <= 10_000 => {
                Ok(Between { least, most })
            }
            (Some(_) | None, Some(_) | None) => {
                Err("write a range from 1 to 10000, such as `1..64`".to_owned())
            }
        }
    }
}

/// From one instant of a run to another, as `15m..16m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(pub Time, pub Time);

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Window, String> {
        let instant = |text: &str| plimsoll_config::units::span(text.trim()).ok();
        let ends = text.split_once("..").map(|(from, to)| (instant(from), instant(to)));
        match ends {
            Some((Some(from), Some(to))) if from < to => {
                Ok(Window(Time::ZERO + from, Time::ZERO + to))
            }
            Some((Some(_) | None, Some(_) | None)) | None => {
                Err("write two instants of the run, such as `15m..16m`".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_or_refused() {
        for (text, expected) in [("auto", Some(Replications::Auto)), ("0", None), ("-1", None)] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
        for (text, expected) in
            [("1..64", Some((1, 64))), ("5", Some((5, 5))), ("0..3", None), ("4..2", None)]
        {
            let read: Option<Between> = text.parse().ok();
            assert_eq!(read.map(|range| (range.least, range.most)), expected, "{text}");
        }
        assert_eq!("12".parse(), Ok(Replications::Count(12)));
        for (text, expected) in
            [("2%", Some(0.02)), ("0.05", Some(0.05)), ("x", None), ("-1%", None), ("NaN", None)]
        {
            let read: Option<Percent> = text.parse().ok();
            assert_eq!(read.map(|percent| percent.0), expected, "{text}");
        }
    }
}
