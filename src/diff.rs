//! `plimsoll diff`.

use std::path::Path;
use std::process::ExitCode;

use crate::Failure;
use crate::arguments::DiffOptions;
use crate::compare::tell;
use crate::run::{read_result, read_template};

/// Compares two results.
pub fn diff(options: &DiffOptions) -> Result<ExitCode, Failure> {
    let template = options.page_template.as_deref().map(read_template).transpose()?;
    let (before, after) = (read_result(&options.before)?, read_result(&options.after)?);
    let names = names(&options.before, &options.after);
    let difference = plimsoll_report::diff((&names.0, &before), (&names.1, &after));
    let place = (options.out.as_deref(), template.as_ref());
    tell(&difference.study(), "difference", place, options.format)?;
    Ok(ExitCode::SUCCESS)
}

/// What the two are called: their folders, where those have names of their own.
fn names(before: &Path, after: &Path) -> (String, String) {
    let name = |path: &Path| {
        let folder = if path.is_dir() { Some(path) } else { path.parent() };
        let name = folder.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| path.display().to_string())
    };
    match (name(before), name(after)) {
        (one, two) if one == two => (before.display().to_string(), after.display().to_string()),
        different => different,
    }
}
