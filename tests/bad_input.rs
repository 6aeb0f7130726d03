//! Every file of `tests/bad_input` through the command: its message, exit code 2, nothing written.

mod support;

use std::path::{Path, PathBuf};

use support::plimsoll;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_input")
}

/// The files that hold a mistake, gateway files under `gateway_`; those whose name begins with `_` are sound and extended.
fn files() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).expect("the folder is there");
    let names = entries.map(|entry| entry.expect("the folder can be listed").file_name());
    let mut names: Vec<String> = names
        .map(|name| name.into_string().expect("names are UTF-8"))
        .filter(|name| name.ends_with(".toml") && !name.starts_with('_'))
        .collect();
    names.sort();
    names
}

#[test]
fn bad_input_is_refused_and_nothing_is_written() {
    let names = files();
    assert!(names.len() >= 10, "only {} files", names.len());
    let wrong: Vec<String> = names.iter().filter_map(|name| check(name).err()).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), names.len(), wrong.join("\n"));
}

/// What is wrong with the answer to a bad file, if anything.
fn check(name: &str) -> Result<(), String> {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).expect("the file can be read");
    let overrides = text.lines().filter_map(|line| line.strip_prefix("# --set "));
    let overrides = overrides.flat_map(|setting| ["--set", setting]);
    let mut command = plimsoll();
    let verb = if name.starts_with("gateway_") { "check" } else { "run" };
    command.current_dir(scratch.path()).arg(verb).arg(&path).args(overrides);
    let output = command.output().expect("the command starts");
    let message = String::from_utf8(output.stderr).expect("messages are UTF-8");
    // The command was given a whole path; the expected messages stand in the folder itself.
    let message = message.replace(&format!("{}/", folder().display()), "");
    let expected = std::fs::read_to_string(path.with_extension("expected")).unwrap_or_default();
    let left = std::fs::read_dir(scratch.path()).expect("the scratch folder is there").count();
    if message != expected {
        return Err(format!("{name}: says\n{message}\nin place of\n{expected}"));
    }
    if output.status.code() != Some(2) || !output.stdout.is_empty() || left != 0 {
        let code = output.status;
        return Err(format!(
            "{name}: {code}, {left} things written, {:?} on stdout",
            output.stdout
        ));
    }
    Ok(())
}
