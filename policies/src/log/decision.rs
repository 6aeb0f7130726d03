//! Decisions and signals as bytes.

use plimsoll_base::{ClassId, PoolId, RequestId, Scale, Span, Time};

use super::bytes::{Cursor, Malformed, put, put_way, zigzag};
use super::codes::Coded;
use super::input::{read_backend, write_backend};
use crate::detect::Alarm;
use crate::message::{Action, Decision, EnginePriority, Signal};

const HAS_CLASS: u8 = 8;
const HAS_BOUND: u8 = 16;
const OF_ANOTHER: u8 = 32;
const ACTION: u8 = 7;

/// Appends a decision that followed an input about `subject`.
pub(super) fn write(out: &mut Vec<u8>, subject: RequestId, decision: &Decision) {
    let Decision { id, class, action, reason, bound } = *decision;
    let kind = match action {
        Action::Dispatch(..) => 0,
        Action::Reject(..) => 1,
        Action::Close(_) => 2,
        Action::Preempt(_) => 3,
        Action::Cancel(_) => 4,
    };
    let class_bit = if class.is_some() { HAS_CLASS } else { 0 };
    let bound_bit = if bound.is_some() { HAS_BOUND } else { 0 };
    let other_bit = if id == subject { 0 } else { OF_ANOTHER };
    out.extend([kind | class_bit | bound_bit | other_bit, reason.code()]);
    if let Some(bound) = bound {
        out.push(bound.code());
    }
    if let Some(class) = class {
        put(out, class.0.into());
    }
    if id != subject {
        put_way(out, subject.0, id.0);
    }
    match action {
        Action::Dispatch(backend, priority) => {
            write_backend(out, backend);
            put(out, zigzag(priority.0.into()));
        }
        Action::Reject(refusal, retry_after) => {
            out.push(refusal.code());
            put(out, retry_after.nanos());
        }
        Action::Close(end) => out.push(end.code()),
        Action::Preempt(backend) | Action::Cancel(backend) => write_backend(out, backend),
    }
}

/// Reads what [`write`] wrote.
pub(super) fn read(from: &mut Cursor<'_>, subject: RequestId) -> Result<Decision, Malformed> {
    let head = from.byte("a decision")?;
    if head & !(ACTION | HAS_CLASS | HAS_BOUND | OF_ANOTHER) != 0 {
        return Err(Malformed::Unknown("decision", head));
    }
    let reason = Coded::decoded(from.byte("a reason")?)?;
    let bound = match head & HAS_BOUND {
        0 => None,
        _ => Some(Coded::decoded(from.byte("a bound")?)?),
    };
    let class = match head & HAS_CLASS {
        0 => None,
        _ => Some(ClassId(from.small("a class id")?)),
    };
    let id = match head & OF_ANOTHER {
        0 => subject,
        _ => RequestId(from.way(subject.0, "a request id")?),
    };
    let action = match head & ACTION {
        0 => {
            let backend = read_backend(from)?;
            Action::Dispatch(backend, EnginePriority(from.signed("an engine priority")?))
        }
        1 => {
            let refusal = Coded::decoded(from.byte("a refusal")?)?;
            Action::Reject(refusal, Span::from_nanos(from.number("a time to retry after")?))
        }
        2 => Action::Close(Coded::decoded(from.byte("an end")?)?),
        3 => Action::Preempt(read_backend(from)?),
        4 => Action::Cancel(read_backend(from)?),
        other => return Err(Malformed::Unknown("action", other)),
    };
    Ok(Decision { id, class, action, reason, bound })
}

/// Appends a signal.
pub(super) fn write_signal(out: &mut Vec<u8>, signal: &Signal) {
    match *signal {
        Signal::Scale(Scale { pool, present, wanted, load_ppm }) => {
            out.push(0);
            let numbers = [pool.0.into(), present, wanted, load_ppm];
            numbers.into_iter().for_each(|number: u32| put(out, number.into()));
        }
        Signal::Alarm(Alarm { kind, victim, culprit, resource, since }) => {
            out.extend([1, kind.code(), resource.map_or(0, Coded::code)]);
            put(out, victim.0.into());
            put(out, culprit.map_or(0, |class| u64::from(class.0) + 1));
            put(out, since.nanos());
        }
    }
}

/// Reads what [`write_signal`] wrote.
pub(super) fn read_signal(from: &mut Cursor<'_>) -> Result<Signal, Malformed> {
    match from.byte("a signal")? {
        0 => Ok(Signal::Scale(Scale {
            pool: PoolId(from.small("a pool id")?),
            present: from.small("backends that are there")?,
            wanted: from.small("backends that are wanted")?,
            load_ppm: from.small("a load")?,
        })),
        1 => read_alarm(from).map(Signal::Alarm),
        other => Err(Malformed::Unknown("signal", other)),
    }
}

fn read_alarm(from: &mut Cursor<'_>) -> Result<Alarm, Malformed> {
    let kind = Coded::decoded(from.byte("a kind of alarm")?)?;
    let resource = match from.byte("a bound")? {
        0 => None,
        code => Some(Coded::decoded(code)?),
    };
    let victim = ClassId(from.small("a class id")?);
    let culprit = match from.number("a class id")?.checked_sub(1) {
        None => None,
        Some(class) => {
            let class = u16::try_from(class).map_err(|_| Malformed::TooLarge("a class id"))?;
            Some(ClassId(class))
        }
    };
    let since = Time::from_nanos(from.number("an instant")?);
    Ok(Alarm { kind, victim, culprit, resource, since })
}
