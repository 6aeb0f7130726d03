//! An input as bytes. Times and ids are written as ways from the input before: short, and alike.

use plimsoll_base::{
    BackendId, ClassId, ModelId, PoolId, RequestId, SessionId, SiteId, SourceId, Span, StageId,
    TenantId, Time, WorkflowId,
};

use super::bytes::{Cursor, Malformed, put, put_way};
use super::codes::Coded;
use crate::message::{BackendInfo, Held, Input, Labels, Load, RequestInfo, Used};

/// What ways lead away from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Base {
    /// The time of the latest input.
    pub now: u64,
    /// The request that arrived last.
    pub newest: u64,
}

/// Codes above are kept for kinds to come.
pub(super) const KIND_MAX: u8 = 31;
/// The kind that came after those about no request.
const RESUMED: u8 = 13;

/// The number of an input's kind.
pub(super) fn kind(input: &Input) -> u8 {
    match input {
        Input::Arrived(..) => 0,
        Input::Withdrawn(_) => 1,
        Input::Accepted(_) => 2,
        Input::FirstToken(_) => 3,
        Input::Progressed(..) => 4,
        Input::Ended(..) => 5,
        Input::Matched(..) => 6,
        Input::Predicted(..) => 7,
        Input::Joined(..) => 8,
        Input::Reported(..) => 9,
        Input::Left(_) => 10,
        Input::Draining => 11,
        Input::Deadline => 12,
        Input::Resumed(..) => RESUMED,
    }
}

/// Whom an input is about.
pub(super) fn subject(input: &Input) -> Option<RequestId> {
    match *input {
        Input::Arrived(id, _)
        | Input::Resumed(id, ..)
        | Input::Withdrawn(id)
        | Input::Accepted(id)
        | Input::FirstToken(id)
        | Input::Progressed(id, _)
        | Input::Ended(id, ..)
        | Input::Matched(id, ..)
        | Input::Predicted(id, _) => Some(id),
        Input::Joined(..)
        | Input::Reported(..)
        | Input::Left(_)
        | Input::Draining
        | Input::Deadline => None,
    }
}

/// Appends what an input of a known kind holds.
pub(super) fn write(out: &mut Vec<u8>, base: &mut Base, input: &Input) {
    match *input {
        Input::Arrived(id, ref info) => {
            put_way(out, base.newest.wrapping_add(1), id.0);
            base.newest = id.0;
            write_info(out, info);
        }
        Input::Resumed(id, ref info, Held { class, arrived, backend }) => {
            put_way(out, base.newest.wrapping_add(1), id.0);
            base.newest = id.0;
            write_info(out, info);
            put(out, class.0.into());
            put_way(out, base.now, arrived.nanos());
            out.push(u8::from(backend.is_some()));
            backend.iter().for_each(|&backend| write_backend(out, backend));
        }
        Input::Withdrawn(id) | Input::Accepted(id) | Input::FirstToken(id) => {
            put_way(out, base.newest, id.0);
        }
        Input::Progressed(id, tokens) | Input::Predicted(id, tokens) => {
            put_way(out, base.newest, id.0);
            put(out, tokens.into());
        }
        Input::Ended(id, end, Used { prompt_tokens, output_tokens }) => {
            put_way(out, base.newest, id.0);
            out.push(end.code());
            put(out, prompt_tokens.into());
            put(out, output_tokens.into());
        }
        Input::Matched(id, backend, tokens) => {
            put_way(out, base.newest, id.0);
            write_backend(out, backend);
            put(out, tokens.into());
        }
        Input::Joined(backend, ref info) => {
            let BackendInfo { pool, seats, kv_tokens, context_max, site, models } = *info;
            write_backend(out, backend);
            put(out, pool.0.into());
            put(out, seats.into());
            put(out, kv_tokens);
            put(out, context_max.into());
            put(out, site.0.into());
            put(out, models);
        }
        Input::Reported(backend, ref load, as_of) => {
            let Load { running, waiting, kv_used_ppm, queue_wait } = *load;
            write_backend(out, backend);
            put(out, running.into());
            put(out, waiting.into());
            put(out, kv_used_ppm.into());
            put(out, queue_wait.nanos());
            put_way(out, base.now, as_of.nanos());
        }
        Input::Left(backend) => write_backend(out, backend),
        Input::Draining | Input::Deadline => {}
    }
}

/// Reads what [`write`] wrote for an input of this kind.
pub(super) fn read(kind: u8, from: &mut Cursor<'_>, base: &mut Base) -> Result<Input, Malformed> {
    if let 0..=7 | RESUMED = kind {
        let next = base.newest.wrapping_add(u64::from(matches!(kind, 0 | RESUMED)));
        let id = RequestId(from.way(next, "a request id")?);
        return about_a_request(kind, id, from, base);
    }
    Ok(match kind {
        8 => {
            let backend = read_backend(from)?;
            let info = BackendInfo {
                pool: PoolId(from.small("a pool id")?),
                seats: from.small("a number of seats")?,
                kv_tokens: from.number("KV tokens")?,
                context_max: from.small("a context length")?,
                site: SiteId(from.small("a site id")?),
                models: from.number("a set of models")?,
            };
            Input::Joined(backend, info)
        }
        9 => {
            let backend = read_backend(from)?;
            let load = Load {
                running: from.small("running requests")?,
                waiting: from.small("waiting requests")?,
                kv_used_ppm: from.small("a part of KV memory")?,
                queue_wait: Span::from_nanos(from.number("a queue wait")?),
            };
            let as_of = Time::from_nanos(from.way(base.now, "the time of a report")?);
            Input::Reported(backend, load, as_of)
        }
        10 => Input::Left(read_backend(from)?),
        11 => Input::Draining,
        12 => Input::Deadline,
        14.. => return Err(Malformed::Unknown("input", kind)),
        0..=7 | RESUMED => unreachable!("inputs about a request were read above"),
    })
}

fn about_a_request(
    kind: u8,
    id: RequestId,
    from: &mut Cursor<'_>,
    base: &mut Base,
) -> Result<Input, Malformed> {
    Ok(match kind {
        0 => {
            base.newest = id.0;
            Input::Arrived(id, read_info(from)?)
        }
        1 => Input::Withdrawn(id),
        2 => Input::Accepted(id),
        3 => Input::FirstToken(id),
        4 => Input::Progressed(id, from.small("output tokens")?),
        5 => {
            let end = Coded::decoded(from.byte("an end")?)?;
            let prompt_tokens = from.small("prompt tokens")?;
            let output_tokens = from.small("output tokens")?;
            Input::Ended(id, end, Used { prompt_tokens, output_tokens })
        }
        6 => Input::Matched(id, read_backend(from)?, from.small("cached tokens")?),
        RESUMED => {
            base.newest = id.0;
            let info = read_info(from)?;
            let class = ClassId(from.small("a class id")?);
            let arrived = Time::from_nanos(from.way(base.now, "the time of an arrival")?);
            let backend = match from.byte("whether it runs")? {
                0 => None,
                1 => Some(read_backend(from)?),
                other => return Err(Malformed::Unknown("state of a request", other)),
            };
            Input::Resumed(id, info, Held { class, arrived, backend })
        }
        7.. => Input::Predicted(id, from.small("output tokens")?),
    })
}

/// What of a request is not as it is for most, a bit each.
mod unusual {
    pub const CLAIMS: u8 = 1;
    pub const MODEL: u8 = 2;
    pub const STAGE: u8 = 4;
    pub const LABELS: u8 = 8;
    pub const SESSION: u8 = 16;
    pub const WORKFLOW: u8 = 32;
    pub const ATTEMPT: u8 = 64;
    pub const ALL: u8 = 127;
}

fn write_info(out: &mut Vec<u8>, info: &RequestInfo) {
    let RequestInfo { tenant, source, claims, model, stage, .. } = *info;
    let RequestInfo { prompt_tokens, output_cap, labels, session, workflow, attempt, .. } = *info;
    // The fields by name once more, so that a new one cannot be forgotten here.
    let _: RequestInfo = RequestInfo {
        tenant,
        source,
        claims,
        model,
        stage,
        prompt_tokens,
        output_cap,
        labels,
        session,
        workflow,
        attempt,
    };
    let extras = [
        (unusual::CLAIMS, claims.map_or(0, |class| u64::from(class.0) + 1)),
        (unusual::MODEL, model.0.into()),
        (unusual::STAGE, stage.0.into()),
        (unusual::LABELS, labels.0),
        (unusual::SESSION, session.0),
        (unusual::WORKFLOW, workflow.0),
        (unusual::ATTEMPT, attempt.into()),
    ];
    let there = extras.iter().filter(|(_, number)| *number > 0);
    out.push(there.clone().map(|(bit, _)| bit).sum());
    there.for_each(|&(_, number)| put(out, number));
    put(out, tenant.0.into());
    put(out, source.0.into());
    put(out, prompt_tokens.into());
    put(out, output_cap.into());
}

fn read_info(from: &mut Cursor<'_>) -> Result<RequestInfo, Malformed> {
    let there = from.byte("a request")?;
    if there > unusual::ALL {
        return Err(Malformed::Unknown("part of a request", there));
    }
    let mut extra = |bit, what| if there & bit == 0 { Ok(0) } else { from.number(what) };
    fn narrow<T: TryFrom<u64>>(number: u64, what: &'static str) -> Result<T, Malformed> {
        T::try_from(number).map_err(|_| Malformed::TooLarge(what))
    }
    let claims = extra(unusual::CLAIMS, "a class id")?.checked_sub(1);
    let claims = claims.map(|id| narrow(id, "a class id").map(ClassId)).transpose()?;
    let model = narrow(extra(unusual::MODEL, "a model id")?, "a model id")?;
    let stage = narrow(extra(unusual::STAGE, "a stage id")?, "a stage id")?;
    let labels = extra(unusual::LABELS, "labels")?;
    let session = extra(unusual::SESSION, "a session id")?;
    let workflow = extra(unusual::WORKFLOW, "a workflow id")?;
    let attempt = narrow(extra(unusual::ATTEMPT, "an attempt")?, "an attempt")?;
    Ok(RequestInfo {
        tenant: TenantId(from.small("a tenant id")?),
        source: SourceId(from.small("a source id")?),
        claims,
        model: ModelId(model),
        stage: StageId(stage),
        prompt_tokens: from.small("prompt tokens")?,
        output_cap: from.small("an output cap")?,
        labels: Labels(labels),
        session: SessionId(session),
        workflow: WorkflowId(workflow),
        attempt,
    })
}

pub(super) fn write_backend(out: &mut Vec<u8>, backend: BackendId) {
    put(out, backend.slot.into());
    put(out, backend.generation.into());
}

pub(super) fn read_backend(from: &mut Cursor<'_>) -> Result<BackendId, Malformed> {
    let slot = from.small("a backend's slot")?;
    Ok(BackendId { slot, generation: from.small("a backend's generation")? })
}
