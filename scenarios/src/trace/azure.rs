//! Azure LLM inference traces: CSV, columns by name.

use std::ops::Range;

use plimsoll_config::Code;

use super::lines::{Lines, Mistake};
use super::reader::Row;
use super::timestamp;

const NAMES: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];
const FIELDS_MAX: usize = 64;

/// Where the three columns stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    indices: [usize; 3],
    count: usize,
}

/// Whether a first line could be the header of such a file.
pub(super) fn is_header(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    line.split(',').any(|name| NAMES.contains(&name.trim()))
}

impl Columns {
    /// Finds the columns in the header.
    pub(super) fn find(lines: &Lines) -> Result<Columns, Mistake> {
        let header = String::from_utf8_lossy(lines.line()).into_owned();
        let names: Vec<&str> = header.split(',').map(str::trim).collect();
        let mut indices = [0; 3];
        for (index, wanted) in indices.iter_mut().zip(NAMES) {
            match names.iter().position(|name| *name == wanted) {
                Some(found) if names.len() <= FIELDS_MAX => *index = found,
                Some(_) | None => {
                    return Err(lines.whole(
                        Code::TraceColumn,
                        &format!("the header has no column `{wanted}`"),
                        "the first line names the columns TIMESTAMP, ContextTokens and \
                         GeneratedTokens, in any order",
                    ));
                }
            }
        }
        Ok(Columns { indices, count: names.len() })
    }

    /// Reads a row.
    pub(super) fn row(&self, lines: &Lines) -> Result<Row, Mistake> {
        let line = lines.line();
        let mut fields: [Range<usize>; 3] = [0..0, 0..0, 0..0];
        let (mut start, mut count) = (0, 0);
        for end in line
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b',')
            .map(|(at, _)| at)
            .chain([line.len()])
        {
            if let Some(which) = self.indices.iter().position(|index| *index == count) {
                fields[which] = trim(line, start..end);
            }
            (start, count) = (end + 1, count + 1);
        }
        if count != self.count {
            return Err(self.field_count(lines, count));
        }
        let [time, prompt, output] = fields;
        let Some(nanos) = timestamp::parse(&line[time.clone()]) else {
            let text = String::from_utf8_lossy(&line[time.clone()]).into_owned();
            return Err(Mistake {
                code: Code::TraceTimestamp,
                bytes: time,
                message: format!("`{text}` is not a timestamp"),
                label: String::new(),
                help: "write it as 2023-11-16 18:15:46.6805900, optionally with T and Z".into(),
            });
        };
        Ok(Row {
            nanos,
            prompt_tokens: tokens(lines, &prompt, NAMES[1])?,
            output_tokens: tokens(lines, &output, NAMES[2])?,
            time_bytes: time,
            prompt_bytes: prompt,
            output_bytes: output,
        })
    }

    fn field_count(&self, lines: &Lines, count: usize) -> Mistake {
        let line = lines.line();
        let expected = self.count;
        let (code, label, help) = if count > expected {
            (Code::TraceColumn, "more fields than the header names", "remove the extra fields")
        } else if lines.complete() {
            (Code::TraceTruncated, "ends here", "complete the row or remove it")
        } else {
            (
                Code::TraceTruncated,
                "the file ends here, in the middle of a row",
                "the file was cut off: fetch it again, or remove this row",
            )
        };
        Mistake {
            code,
            bytes: line.len().saturating_sub(1)..line.len(),
            message: format!("the row has {count} of {expected} fields"),
            label: label.into(),
            help: help.into(),
        }
    }
}

fn tokens(lines: &Lines, field: &Range<usize>, name: &str) -> Result<u32, Mistake> {
    let text = &lines.line()[field.clone()];
    let number = text.iter().try_fold(0u32, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    match number {
        Some(number) if !text.is_empty() => Ok(number),
        Some(_) | None => {
            let shown = String::from_utf8_lossy(text).into_owned();
            let cut = text.is_empty() && !lines.complete();
            Err(Mistake {
                code: if cut { Code::TraceTruncated } else { Code::TraceNumber },
                bytes: field.start..field.end.max(field.start + 1),
                message: match cut {
                    true => format!("the file ends before `{name}` of its last row"),
                    false => format!("`{shown}` is not a number of tokens"),
                },
                label: format!("this is `{name}`"),
                help: match cut {
                    true => "the file was cut off: fetch it again, or remove this row".into(),
                    false => "write a whole number that is not negative".into(),
                },
            })
        }
    }
}

fn trim(line: &[u8], field: Range<usize>) -> Range<usize> {
    let text = &line[field.clone()];
    let leading = text.iter().take_while(|byte| **byte == b' ').count();
    let trailing = text[leading..].iter().rev().take_while(|byte| **byte == b' ').count();
    field.start + leading..field.end - trailing
}
