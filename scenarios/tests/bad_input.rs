//! Every distinct mistake has a file in `tests/bad_input/` at the root of the repository and,
//! beside it, the message that it must give. `UPDATE_EXPECT=1` writes the messages anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use plimsoll_scenario::{Code, Diagnostics, load, load_gateway};

/// More rows than any file here has; a generator has no end.
const ROWS_MAX: usize = 1_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bad_input")
}

/// The diagnostics of a file, from reading it or, if it reads, from replaying it.
fn wrong(path: &Path) -> Diagnostics {
    let text = std::fs::read_to_string(path).expect("the file can be read");
    let overrides: Vec<String> =
        text.lines().filter_map(|line| line.strip_prefix("# --set ")).map(str::to_owned).collect();
    let name = path.file_name().expect("a file has a name");
    if name.to_string_lossy().starts_with("gateway_") {
        return load_gateway(path, &overrides)
            .expect_err(&format!("{} has a mistake", path.display()));
    }
    let scenario = match load(path, &overrides) {
        Ok(scenario) => scenario,
        Err(wrong) => return wrong,
    };
    let sources = scenario.sources(1, 0);
    let broken = sources.and_then(|mut sources| {
        for source in &mut sources {
            for _ in 0..ROWS_MAX {
                if source.next_at()?.is_none() {
                    break;
                }
                source.take();
            }
        }
        Ok(())
    });
    let error = broken.expect_err(&format!("{} has a mistake", path.display()));
    *error.downcast::<Diagnostics>().expect("a trace fails with diagnostics")
}

#[test]
fn every_mistake_gives_its_message() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder is there")
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter(|path| {
            !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('_'))
        })
        .collect();
    files.sort();
    let mut codes = BTreeSet::new();
    let mut differing = Vec::new();
    for path in &files {
        let wrong = wrong(path);
        codes.extend(wrong.list.iter().map(|diagnostic| diagnostic.code));
        let folder = folder().to_string_lossy().into_owned() + "/";
        let message = wrong.render(false).replace(&folder, "") + "\n";
        let expected = path.with_extension("expected");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&expected, &message).expect("the message can be written");
        }
        let expected = std::fs::read_to_string(&expected).unwrap_or_default();
        if message != expected {
            differing.push(format!("{}:\n{message}\n", path.display()));
        }
    }
    assert!(differing.is_empty(), "other messages than expected:\n{}", differing.join("\n"));
    let missing: Vec<&str> = Code::ALL
        .iter()
        .filter(|code| !codes.contains(code))
        // These need 65 classes or a line of 16 MiB: more file than message.
        .filter(|code| !matches!(code, Code::TooMany | Code::TraceLine))
        .map(|code| code.id())
        .collect();
    assert!(missing.is_empty(), "no file makes these mistakes: {missing:?}");
}
