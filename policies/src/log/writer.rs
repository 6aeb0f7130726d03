//! Inputs and decisions to bytes.

use plimsoll_base::Time;

use super::bytes::put;
use super::chain::Chain;
use super::frame::{Framer, Kind};
use super::input::Base;
use super::{Header, MAGIC, SCHEMA_VERSION};
use crate::message::{Decision, Input, Signal};

/// A block is closed once it holds so many bytes: small enough to lose with a cut, large enough
/// to compress well.
const BLOCK: usize = 1 << 16;

/// Writes a decision log into memory; whoever drives it carries the bytes away.
///
/// Call [`input`](Writer::input) for each input that the allocator takes, then
/// [`decision`](Writer::decision) and [`signal`](Writer::signal) for what it says to it.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    block: Vec<u8>,
    base: Base,
    chain: Chain,
    framer: Framer,
    /// Inputs written, the pending one not counted.
    inputs: u64,
    decisions: u64,
    signals: u64,
    pending: Pending,
}

/// The latest input, and what has followed from it so far.
#[derive(Debug, Default)]
struct Pending {
    input: Option<(Time, Input)>,
    decisions: Vec<Decision>,
    signals: Vec<Signal>,
}

impl Writer {
    /// A log that begins with this header.
    pub fn new(header: &Header) -> Writer {
        let mut out = MAGIC.to_vec();
        out.extend(SCHEMA_VERSION.to_le_bytes());
        let mut framer = Framer::new();
        framer.frame(Kind::Header, &header.to_json(), &mut out);
        Writer {
            out,
            block: Vec::with_capacity(BLOCK + 1024),
            base: Base::default(),
            chain: Chain::new(),
            framer,
            inputs: 0,
            decisions: 0,
            signals: 0,
            pending: Pending::default(),
        }
    }

    /// The allocator was handed this.
    pub fn input(&mut self, now: Time, input: &Input) {
        self.settle();
        self.pending.input = Some((now, input.clone()));
    }

    /// It decided this in answer to the latest input.
    pub fn decision(&mut self, decision: &Decision) {
        self.pending.decisions.push(*decision);
    }

    /// It advised this in answer to the latest input.
    pub fn signal(&mut self, signal: &Signal) {
        self.pending.signals.push(*signal);
    }

    /// Whole blocks that are not carried away yet; whoever writes them down clears them.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Closes the block in hand, so that all that was decided up to now can be carried away.
    pub fn flush(&mut self) {
        self.settle();
        if !self.block.is_empty() {
            self.close_block();
        }
    }

    /// Ends the log; returns the bytes that were not carried away yet.
    pub fn finish(mut self) -> Vec<u8> {
        self.flush();
        let mut trailer = Vec::new();
        for count in [self.inputs, self.decisions, self.signals] {
            put(&mut trailer, count);
        }
        trailer.extend(self.chain.hash().0.to_le_bytes());
        self.framer.frame(Kind::Trailer, &trailer, &mut self.out);
        self.out
    }

    /// Writes the pending input down: nothing follows from it any more.
    fn settle(&mut self) {
        let Some((now, input)) = self.pending.input.take() else { return };
        if self.block.is_empty() {
            for number in [self.inputs, self.base.now, self.base.newest] {
                put(&mut self.block, number);
            }
        }
        let Pending { decisions, signals, .. } = &self.pending;
        super::record::write(&mut self.block, &mut self.base, (now, &input), (decisions, signals));
        for decision in decisions {
            self.chain.decision(self.inputs, decision);
        }
        for signal in signals {
            self.chain.signal(self.inputs, signal);
        }
        self.decisions += decisions.len() as u64;
        self.signals += signals.len() as u64;
        self.inputs += 1;
        self.pending.decisions.clear();
        self.pending.signals.clear();
        if self.block.len() >= BLOCK {
            self.close_block();
        }
    }

    fn close_block(&mut self) {
        self.block.extend(self.chain.hash().0.to_le_bytes());
        self.framer.frame(Kind::Records, &self.block, &mut self.out);
        self.block.clear();
    }
}
