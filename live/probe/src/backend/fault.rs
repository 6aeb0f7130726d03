//! What a backend does wrong on purpose.

use std::fmt;
use std::str::FromStr;

use plimsoll_base::{Stream, StreamKey};

/// A way to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection.
    Refuse,
    /// Nothing ever.
    Hang,
    /// Headers late.
    SlowHeaders,
    /// 500.
    Status500,
    /// 503.
    Status503,
    /// Not what was asked for.
    WrongType,
    /// Nothing after the headers.
    StallFirst,
    /// Nothing after some tokens.
    Stall,
    /// A reset after some tokens.
    Reset,
    /// An end within a frame.
    Cut,
    /// An end that looks regular and is none.
    Truncate,
    /// A frame that is no JSON.
    Malformed,
}

impl Fault {
    /// All of them, by when they happen.
    pub const ALL: [Fault; 12] = [
        Fault::Refuse,
        Fault::Hang,
        Fault::SlowHeaders,
        Fault::Status500,
        Fault::Status503,
        Fault::WrongType,
        Fault::StallFirst,
        Fault::Stall,
        Fault::Reset,
        Fault::Cut,
        Fault::Truncate,
        Fault::Malformed,
    ];

    /// Its name on the command line and in headers, and what it does.
    fn description(self) -> (&'static str, &'static str) {
        match self {
            Fault::Refuse => (
                "refuse",
                "the connection is closed before anything is read (by header: before the body is)",
            ),
            Fault::Hang => ("hang", "nothing is ever sent, no headers either"),
            Fault::SlowHeaders => ("slow-headers", "headers come 3 s late, then all is well"),
            Fault::Status500 => ("status-500", "500 with an error"),
            Fault::Status503 => ("status-503", "503 with an error"),
            Fault::WrongType => ("wrong-type", "200 with text/html"),
            Fault::StallFirst => ("stall-first", "headers, then nothing"),
            Fault::Stall => ("stall", "some tokens, then nothing"),
            Fault::Reset => ("reset", "some tokens, then the connection is reset"),
            Fault::Cut => ("cut", "some tokens, then the connection is closed within a frame"),
            Fault::Truncate => (
                "truncate",
                "some tokens, then a regular end of the body without finish_reason and [DONE]",
            ),
            Fault::Malformed => {
                ("malformed", "some tokens, then a `data:` that is no JSON, then the rest")
            }
        }
    }
    /// Its name on the command line and in headers.
    pub fn name(self) -> &'static str {
        self.description().0
    }
    /// What it does.
    pub fn about(self) -> &'static str {
        self.description().1
    }
    /// Whether the answer is nevertheless whole.
    pub(super) fn is_harmless(self) -> bool {
        self == Fault::SlowHeaders
    }
}

impl FromStr for Fault {
    type Err = BadFault;
    fn from_str(name: &str) -> Result<Fault, BadFault> {
        let known = Fault::ALL.into_iter().find(|fault| fault.name() == name);
        known.ok_or_else(|| {
            let names = Fault::ALL.map(Fault::name).join(", ");
            BadFault(format!("no fault is called `{name}`; there are {names}"))
        })
    }
}

/// A fault and how often: `reset:0.1`, or `reset` for always.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaultShare {
    /// Which.
    pub fault: Fault,
    /// The part of all requests, from 0 to 1.
    pub probability: f64,
}

impl FromStr for FaultShare {
    type Err = BadFault;
    fn from_str(text: &str) -> Result<FaultShare, BadFault> {
        let (name, part) = text.split_once(':').unwrap_or((text, "1"));
        let probability = part.parse().ok().filter(|part| (0.0..=1.0).contains(part));
        let probability =
            probability.ok_or_else(|| BadFault(format!("`{part}` is no number from 0 to 1")))?;
        Ok(FaultShare { fault: name.parse()?, probability })
    }
}

/// What goes wrong, how often: drawn for each request by its number, so that the same requests in
/// the same order meet the same faults.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    shares: Vec<FaultShare>,
    seed: u64,
}

impl Faults {
    /// These faults, each request having one at most.
    ///
    /// # Errors
    /// If they are more than all requests.
    pub fn new(shares: Vec<FaultShare>, seed: u64) -> Result<Faults, BadFault> {
        let sum: f64 = shares.iter().map(|share| share.probability).sum();
        // Ten tenths are not quite one.
        if sum > 1.0 + 1e-9 {
            return Err(BadFault(format!("the probabilities of all faults sum to {sum}, above 1")));
        }
        Ok(Faults { shares, seed })
    }

    /// Whether the connection with this number is refused.
    pub(super) fn refuses(&self, connection: u64) -> bool {
        self.draw("refuse", connection, |fault| fault == Fault::Refuse).is_some()
    }

    /// What goes wrong with the request of this number.
    pub(super) fn strike(&self, request: u64) -> Option<Fault> {
        self.draw("fault", request, |fault| fault != Fault::Refuse)
    }

    fn draw(&self, name: &str, entity: u64, among: fn(Fault) -> bool) -> Option<Fault> {
        let key = StreamKey { seed: self.seed, replication: 0, name, entity };
        let mut left = Stream::new(key).uniform();
        let mut shares = self.shares.iter().filter(|share| among(share.fault));
        let struck = shares.find(|share| {
            left -= share.probability;
            left < 0.0
        });
        struck.map(|share| share.fault)
    }
}

/// Why a fault cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFault(String);

impl fmt::Display for BadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for BadFault {}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(texts: &[&str]) -> Vec<FaultShare> {
        texts.iter().map(|text| text.parse().expect("it is a fault")).collect()
    }

    #[test]
    fn faults_are_read_or_said_to_be_wrong() {
        assert_eq!("reset".parse(), Ok(FaultShare { fault: Fault::Reset, probability: 1.0 }));
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
        }
        for (text, why) in [("sink:0.1", "sink"), ("reset:2", "`2`"), ("reset:x", "`x`")] {
            let error = text.parse::<FaultShare>().expect_err(text).to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(Faults::new(shares(&["reset:0.7", "cut:0.4"]), 1).is_err());
        assert!(Faults::new(shares(&["reset:0.1"; 10]), 1).is_ok());
    }

    #[test]
    fn faults_are_as_frequent_as_stated_and_the_same_again() {
        let faults = Faults::new(shares(&["refuse:0.2", "reset:0.1", "cut:0.3"]), 7);
        let faults = faults.expect("they fit");
        let struck: Vec<_> = (0..10_000).map(|number| faults.strike(number)).collect();
        let count = |fault| struck.iter().filter(|struck| **struck == fault).count();
        for (fault, expected) in
            [(Some(Fault::Reset), 1_000), (Some(Fault::Cut), 3_000), (Some(Fault::Refuse), 0)]
        {
            assert!(count(fault).abs_diff(expected) < 150, "{fault:?}: {}", count(fault));
        }
        let refused = (0..10_000).filter(|number| faults.refuses(*number)).count();
        assert!(refused.abs_diff(2_000) < 150, "{refused}");
        assert!((0..10_000).all(|number| faults.strike(number) == struck[number as usize]));
    }
}
