//! Mooncake traces: one JSON object a line, timestamps in milliseconds.

use std::ops::Range;

use plimsoll_config::Code;
use serde::Deserialize;

use super::lines::{Lines, Mistake};
use super::reader::Row;

/// The keys that are read; prefix hashes and whatever else there is are skipped.
#[derive(Deserialize)]
struct Line {
    timestamp: Option<u64>,
    input_length: Option<u32>,
    output_length: Option<u32>,
}

const NANOS_PER_MILLI: u64 = 1_000_000;

/// Reads a row.
pub(super) fn row(lines: &Lines) -> Result<Row, Mistake> {
    let line = lines.line();
    let parsed: Line = match serde_json::from_slice(line) {
        Ok(parsed) => parsed,
        Err(error) => return Err(broken(lines, &error)),
    };
    let missing = |key: &str| {
        lines.whole(
            Code::TraceColumn,
            &format!("the row has no `{key}`"),
            "a row is {\"timestamp\": 0, \"input_length\": 6758, \"output_length\": 500}",
        )
    };
    let millis = parsed.timestamp.ok_or_else(|| missing("timestamp"))?;
    let time_bytes = value(line, "timestamp");
    let Some(nanos) = millis.checked_mul(NANOS_PER_MILLI) else {
        return Err(Mistake {
            code: Code::TraceTimestamp,
            bytes: time_bytes,
            message: format!("{millis} milliseconds are more than 584 years"),
            label: String::new(),
            help: "write milliseconds since the trace began".into(),
        });
    };
    Ok(Row {
        nanos,
        prompt_tokens: parsed.input_length.ok_or_else(|| missing("input_length"))?,
        output_tokens: parsed.output_length.ok_or_else(|| missing("output_length"))?,
        time_bytes,
        prompt_bytes: 0..0,
        output_bytes: 0..0,
    })
}

/// The hashes of the blocks of a row's prompt, if it states any.
pub(super) fn blocks(lines: &Lines) -> Result<Option<Vec<u64>>, Mistake> {
    #[derive(Deserialize)]
    struct Blocks {
        hash_ids: Option<Vec<u64>>,
    }
    let parsed: Result<Blocks, _> = serde_json::from_slice(lines.line());
    parsed.map(|blocks| blocks.hash_ids).map_err(|_| Mistake {
        code: Code::TraceNumber,
        bytes: value(lines.line(), "hash_ids"),
        message: "`hash_ids` is no list of hashes".to_owned(),
        label: String::new(),
        help: "write a list of whole numbers, or leave `hash_ids` out".into(),
    })
}

/// The bytes of a key's value, to mark them in a message.
pub(super) fn value(line: &[u8], key: &str) -> Range<usize> {
    let quoted = format!("\"{key}\"");
    let found = line.windows(quoted.len()).position(|window| window == quoted.as_bytes());
    let Some(at) = found else { return 0..line.len() };
    let after = at + quoted.len();
    let skipped = line[after..].iter().take_while(|byte| matches!(byte, b':' | b' ')).count();
    let start = after + skipped;
    let length = line[start..].iter().take_while(|byte| !matches!(byte, b',' | b'}')).count();
    start..start + length.max(1)
}

fn broken(lines: &Lines, error: &serde_json::Error) -> Mistake {
    let line = lines.line();
    let at = error.column().saturating_sub(1).min(line.len().saturating_sub(1));
    let reason = error.to_string();
    let reason = reason.split(" at line").next().unwrap_or(&reason);
    let cut = error.is_eof();
    let (code, message, help) = if cut && !lines.complete() {
        (
            Code::TraceTruncated,
            "the file ends in the middle of a row".to_owned(),
            "the file was cut off: fetch it again, or remove this row",
        )
    } else if cut {
        (
            Code::TraceTruncated,
            "the row ends before its object does".to_owned(),
            "complete the row or remove it",
        )
    } else {
        (
            Code::TraceNumber,
            format!("the row cannot be read: {reason}"),
            "timestamp (milliseconds), input_length and output_length are whole numbers, not \
             negative",
        )
    };
    Mistake { code, bytes: at..at + 1, message, label: "here".into(), help: help.into() }
}
