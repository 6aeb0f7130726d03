//! `plimsoll trace`.

use std::process::ExitCode;

use plimsoll_report::traced::{TraceFold, TracedRow};
use plimsoll_scenario::trace::TraceRows;

use crate::arguments::{DescribeOptions, TraceVerb};
use crate::compare::tell;
use crate::run::{INTERRUPTED, read_template};
use crate::{Failure, interrupt};

/// Rows between two looks at whether somebody said stop.
const ROWS_A_LOOK: u64 = 1 << 14;

/// What is done with a trace.
pub fn trace(verb: &TraceVerb) -> Result<ExitCode, Failure> {
    match verb {
        TraceVerb::Describe(options) => describe(options),
    }
}

fn describe(options: &DescribeOptions) -> Result<ExitCode, Failure> {
    let template = options.page_template.as_deref().map(read_template).transpose()?;
    let wrong = |fault: Box<plimsoll_config::Diagnostics>| Failure::Input(*fault);
    let mut rows = TraceRows::open(&options.file, None).map_err(wrong)?;
    let format = rows.format();
    let mut fold = TraceFold::new(format.block_tokens());
    interrupt::listen();
    let mut read = 0u64;
    while let Some(row) = rows.advance().map_err(wrong)? {
        fold.take(TracedRow {
            nanos: row.nanos,
            prompt_tokens: row.prompt_tokens,
            output_tokens: row.output_tokens,
            blocks: row.blocks.as_deref(),
        });
        read += 1;
        if read.is_multiple_of(ROWS_A_LOOK) && interrupt::asked() {
            eprintln!("interrupted: half of a trace says little, and nothing was written");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
    if read == 0 {
        let message = format!("`{}` has a head and no rows", options.file.display());
        return Err(Failure::Usage(message));
    }
    let name = options.file.file_name().unwrap_or(options.file.as_os_str()).to_string_lossy();
    let described = fold.describe((&name, format.name()), env!("CARGO_PKG_VERSION"));
    tell(&described.study(), "trace", (options.out.as_deref(), template.as_ref()), options.format)?;
    Ok(ExitCode::SUCCESS)
}
