//! The running hash of the decisions: one number for all decisions up to an input.
//!
//! It is XXH3-128 over the canonical bytes of every decision and signal with the number of the
//! input it followed, in order: a fixed layout, so that the same decisions give the same number
//! however their log is cut into blocks or compressed. 128 bits, so that any number of logs can
//! be told apart by it (a collision is not to be expected below 2⁶⁴ logs), and XXH3 because
//! it costs less than writing the bytes down. It shows accidents, a lost or changed block, and
//! compares runs by one number; it is no signature: whoever forges a log can compute it anew.

use std::fmt;

use plimsoll_base::Scale;
use twox_hash::xxhash3_128::Hasher;

use super::codes::Coded;
use crate::detect::Alarm;
use crate::message::{Action, Decision, Signal};

/// A hash of decisions, printed as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecisionHash(pub u128);

impl fmt::Display for DecisionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The hash of the decisions so far.
pub struct Chain(Hasher);

impl Chain {
    /// The hash of no decision.
    #[expect(clippy::new_without_default, reason = "a chain begins somewhere, on purpose")]
    pub fn new() -> Chain {
        Chain(Hasher::new())
    }

    /// A decision that followed the input of this number.
    pub fn decision(&mut self, input: u64, decision: &Decision) {
        let Decision { id, class, action, reason, bound } = *decision;
        let (kind, first, second) = match action {
            Action::Dispatch(backend, priority) => (
                1,
                u64::from(backend.slot) << 32 | u64::from(backend.generation),
                priority.0 as u32,
            ),
            Action::Reject(refusal, span) => (2, span.nanos(), u32::from(refusal.code())),
            Action::Close(end) => (3, 0, u32::from(end.code())),
            Action::Preempt(backend) => {
                (4, u64::from(backend.slot) << 32 | u64::from(backend.generation), 0)
            }
            Action::Cancel(backend) => {
                (5, u64::from(backend.slot) << 32 | u64::from(backend.generation), 0)
            }
        };
        let class = class.map_or(0, |class| u32::from(class.0) + 1);
        let rules = [kind, reason.code(), bound.map_or(0, Coded::code), 0];
        self.words(input, [id.0, first], [second, class, u32::from_le_bytes(rules)]);
    }

    /// A signal that followed the input of this number.
    pub fn signal(&mut self, input: u64, signal: &Signal) {
        match *signal {
            Signal::Scale(Scale { pool, present, wanted, load_ppm }) => {
                self.words(input, [pool.0.into(), load_ppm.into()], [wanted, present, 128]);
            }
            Signal::Alarm(Alarm { kind, victim, culprit, resource, since }) => {
                let culprit = culprit.map_or(0, |class| u64::from(class.0) + 1);
                let long = [since.nanos(), u64::from(victim.0) << 32 | culprit];
                let resource = resource.map_or(0, Coded::code);
                self.words(input, long, [u32::from(kind.code()), u32::from(resource), 129]);
            }
        }
    }

    fn words(&mut self, input: u64, long: [u64; 2], short: [u32; 3]) {
        let mut bytes = [0; 36];
        bytes[..8].copy_from_slice(&input.to_le_bytes());
        for (place, word) in bytes[8..24].chunks_exact_mut(8).zip(long) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        for (place, word) in bytes[24..].chunks_exact_mut(4).zip(short) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        self.0.write(&bytes);
    }

    /// The hash so far.
    pub fn hash(&self) -> DecisionHash {
        DecisionHash(self.0.finish_128())
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({})", self.hash())
    }
}
