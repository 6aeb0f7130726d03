//! Same scenario, same seed: the same bytes of `summary.json` and `requests.csv`.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{plimsoll, scenario};

/// The files whose bytes are promised.
const FILES: [&str; 3] = ["summary.json", "requests.csv", "timeseries.csv"];
/// The scenarios whose digests are kept.
const KEPT: [&str; 2] = ["neighbours", "fair"];

/// Runs a scenario of `tests/scenarios` and returns the bytes of [`FILES`].
fn run(name: &str, options: &[&str], out: &Path) -> [Vec<u8>; 3] {
    let mut command = plimsoll();
    command.arg("run").arg(scenario(name)).args(["--no-gate", "--quiet", "--out"]).arg(out);
    command.args(options).assert().success();
    FILES.map(|file| std::fs::read(out.join(file)).expect("a run leaves its files"))
}

/// `summary.json` with the hash of the scenario taken out, and the hash. It covers the settings
/// and so must differ where a setting differs.
fn without_hash(summary: &[u8]) -> (String, String) {
    let text = std::str::from_utf8(summary).expect("JSON is UTF-8");
    let json: serde_json::Value = serde_json::from_str(text).expect("it is JSON");
    let hash = json["scenario"]["hash"].as_str().expect("the scenario has a hash").to_owned();
    assert_eq!(text.matches(&hash).count(), 1, "the hash stands in one place");
    (text.replace(&hash, ""), hash)
}

#[test]
fn on_any_number_of_threads() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    for name in KEPT {
        let [one, two] = ["1", "2"].map(|threads| {
            let options = ["--replications", "3", "--threads", threads];
            run(name, &options, &folder.path().join(format!("{name}-{threads}")))
        });
        for (file, (one, two)) in FILES.iter().zip(one.iter().zip(&two)) {
            assert!(one == two, "{name}: {file} differs between 1 and 2 threads");
            assert!(!one.is_empty(), "{name}: {file} is empty");
        }
    }
}

#[test]
fn in_macro_and_single_stepping() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    for name in KEPT {
        let stepped = |stepping: &str| {
            let setting = format!("run.stepping=\"{stepping}\"");
            run(name, &["--set", &setting], &folder.path().join(format!("{name}-{stepping}")))
        };
        let (many, single) = (stepped("macro"), stepped("single"));
        assert!(many[1] == single[1], "{name}: requests.csv differs");
        assert!(many[2] == single[2], "{name}: timeseries.csv differs");
        let (many, hash_of_many) = without_hash(&many[0]);
        let (single, hash_of_single) = without_hash(&single[0]);
        assert!(many == single, "{name}: summary.json differs in more than the hash");
        assert_ne!(hash_of_many, hash_of_single, "{name}: the hash covers the stepping");
    }
}

#[test]
fn another_seed_gives_another_run() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let seeded = |seed| run("fair", &["--seed", seed], &folder.path().join(seed));
    let (first, other) = (seeded("1"), seeded("2"));
    assert!(first[1] != other[1], "the seed changes the requests");
}

/// `tests/digests.txt` was written by one build and holds for all: this is the test build,
/// `.ci/run` compares the release build. `UPDATE_EXPECT=1` writes it anew.
#[test]
fn in_any_build() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    for name in KEPT {
        run(name, &["--replications", "2"], &folder.path().join(name));
    }
    let digests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/digests.txt");
    let files: Vec<PathBuf> = KEPT
        .iter()
        .flat_map(|name| ["summary.json", "requests.csv"].map(|file| Path::new(name).join(file)))
        .collect();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let sums = sha256sum(folder.path(), |command| command.args(&files));
        std::fs::write(&digests, sums).expect("the digests can be written");
    }
    let checked =
        sha256sum(folder.path(), |command| command.args(["--check", "--strict"]).arg(&digests));
    assert_eq!(checked.matches(": OK").count(), files.len(), "every file is checked:\n{checked}");
}

/// What `sha256sum` of GNU coreutils prints, run in a folder.
fn sha256sum(folder: &Path, arguments: impl Fn(&mut Command) -> &mut Command) -> String {
    let mut command = Command::new("sha256sum");
    let output = arguments(&mut command).current_dir(folder).output();
    let output = output.expect("sha256sum is part of GNU coreutils");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}
