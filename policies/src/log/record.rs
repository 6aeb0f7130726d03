//! A record: an input, its time, and what followed from it.

use plimsoll_base::{RequestId, Time};

use super::Record;
use super::bytes::{Cursor, Malformed, put};
use super::input::{self, Base, KIND_MAX};
use super::{decision, input::subject};
use crate::message::{Decision, Input, Signal};

/// Decisions of which the first byte itself tells how many there are.
const FEW: usize = 2;
const MANY: u8 = 3;
const DECISIONS: u32 = 5;
const SIGNALS: u8 = 128;

/// Appends a record.
pub(super) fn write(
    out: &mut Vec<u8>,
    base: &mut Base,
    (now, input): (Time, &Input),
    (decisions, signals): (&[Decision], &[Signal]),
) {
    let count = if decisions.len() <= FEW { decisions.len() as u8 } else { MANY };
    let advised = if signals.is_empty() { 0 } else { SIGNALS };
    out.push(input::kind(input) | count << DECISIONS | advised);
    put(out, now.nanos().wrapping_sub(base.now));
    base.now = now.nanos();
    if decisions.len() > FEW {
        put(out, decisions.len() as u64);
    }
    if !signals.is_empty() {
        put(out, signals.len() as u64);
    }
    input::write(out, base, input);
    let subject = subject(input).unwrap_or(RequestId(base.newest));
    decisions.iter().for_each(|made| decision::write(out, subject, made));
    signals.iter().for_each(|given| decision::write_signal(out, given));
}

/// Reads what [`write`] wrote; `number` is the record's place in the log. `None` in place of it
/// where its time does not fit.
pub(super) fn read(
    number: u64,
    from: &mut Cursor<'_>,
    base: &mut Base,
) -> Result<Option<Record>, Malformed> {
    let tag = from.byte("a record")?;
    let step = from.number("a time")?;
    let count = match tag >> DECISIONS & MANY {
        MANY => from.number("a number of decisions")?,
        few => few.into(),
    };
    let advised = if tag & SIGNALS == 0 { 0 } else { from.number("a number of signals")? };
    let Some(now) = base.now.checked_add(step) else { return Ok(None) };
    base.now = now;
    let input = input::read(tag & KIND_MAX, from, base)?;
    let subject = subject(&input).unwrap_or(RequestId(base.newest));
    let decisions = (0..count).map(|_| decision::read(from, subject)).collect::<Result<_, _>>()?;
    let signals = (0..advised).map(|_| decision::read_signal(from)).collect::<Result<_, _>>()?;
    Ok(Some(Record { number, now: Time::from_nanos(now), input, decisions, signals }))
}
