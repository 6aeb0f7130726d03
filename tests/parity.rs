//! A decision log replays to the same decisions, and what is wrong with one is said with its
//! place. (`.ci/run` replays a log of the release build in the debug build.)

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;

use plimsoll_policy::log::{Reader, Writer};
use plimsoll_policy::{Action, EnginePriority};
use serde_json::Value;
use support::{plimsoll, scenario};

/// Runs a scenario of `tests/scenarios` with `--decisions` into `out`.
fn record(name: &str, options: &[&str], out: &Path) {
    let mut command = plimsoll();
    command.arg("run").arg(scenario(name)).args(["--decisions", "--no-gate", "--quiet"]);
    command.args(["--no-requests", "--out"]).arg(out).args(options).assert().success();
}

fn replay(log: &Path, options: &[&str]) -> Output {
    plimsoll().arg("replay").arg(log).args(options).output().expect("the command starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("what it prints is UTF-8")
}

/// The verdict as JSON, and the exit code.
fn verdict(log: &Path, options: &[&str]) -> (Value, Option<i32>) {
    let output = replay(log, &[options, &["--format", "json"]].concat());
    let shown = text(&output.stderr);
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{shown}"));
    (json, output.status.code())
}

#[test]
fn a_hundred_thousand_requests_replay() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let settings =
        ["--set", "run.duration=\"12000s\"", "--set", "workload.chat.arrivals.rate=\"9/s\""];
    record("small", &settings, scratch.path());
    let log = scratch.path().join("decisions.plog");
    let (json, code) = verdict(&log, &[]);
    assert_eq!((code, &json["identical"]), (Some(0), &Value::Bool(true)), "{json}");
    let count = |key: &str| json[key].as_u64().expect("a count");
    assert!(count("decisions") > 100_000, "{json}");
    assert!(count("inputs") > 200_000, "{json}");
    let size = log.metadata().expect("it is there").len();
    println!("{} bytes for {} requests", size, count("decisions"));
    assert!(size < 30 * count("decisions"), "{size} bytes");
}

#[test]
fn each_replication_has_a_log_of_its_own() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    for name in ["neighbours", "fair"] {
        let out = scratch.path().join(name);
        record(name, &["--replications", "2"], &out);
        let logs = [0, 1].map(|n| out.join(format!("decisions-{n}.plog")));
        let verdicts = logs.each_ref().map(|log| verdict(log, &[]));
        for (replication, (json, code)) in verdicts.iter().enumerate() {
            assert_eq!(*code, Some(0), "{name}: {json}");
            assert_eq!(json["log"]["replication"], replication, "{json}");
        }
        assert_ne!(verdicts[0].0["hash"], verdicts[1].0["hash"], "{name}");
        assert!(!out.join("decisions.plog").exists());
        // The log does not depend on how engines step.
        let single = scratch.path().join(format!("{name}-single"));
        record(name, &["--set", "run.stepping=\"single\""], &single);
        let (json, _) = verdict(&single.join("decisions.plog"), &[]);
        assert_eq!(json["hash"], verdicts[0].0["hash"], "{name}");
    }
}

#[test]
fn recording_changes_nothing() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let summary = |folder: &str, options: &[&str]| {
        let out = scratch.path().join(folder);
        let mut command = plimsoll();
        command.arg("run").arg(scenario("neighbours")).args(["--no-gate", "--quiet", "--out"]);
        command.arg(&out).args(options).assert().success();
        std::fs::read(out.join("summary.json")).expect("a summary")
    };
    assert!(summary("with", &["--decisions"]) == summary("without", &[]));
}

#[test]
fn a_log_is_shown_as_json_lines() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    record("neighbours", &[], scratch.path());
    let shown = replay(&scratch.path().join("decisions.plog"), &["--show"]);
    let lines: Vec<Value> = text(&shown.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    assert_eq!(lines[0]["input"]["kind"], "joined");
    assert_eq!(lines[0]["input"]["pool"], "gpu");
    let first = lines.iter().find(|line| line["input"]["kind"] == "arrived").expect("arrivals");
    assert_eq!(first["decisions"][0]["kind"], "dispatch", "{first}");
    assert!(["chat", "batch"].contains(&first["input"]["claims"].as_str().expect("a class")));
    assert!((0..).zip(&lines).all(|(number, line)| line["number"] == number));
}

/// The alarms that a run reports stand in its decision log, in order, each after what raised it.
#[test]
fn alarms_are_read_back_from_the_log() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let fcfs = ["--set", "policy.share=\"fcfs\"", "--set", "workload.batch.arrivals.rate=\"9/s\""];
    record("neighbours", &fcfs, scratch.path());
    let summary = std::fs::read(scratch.path().join("summary.json")).expect("a summary");
    let summary: Value = serde_json::from_slice(&summary).expect("JSON");
    let number = |value: &Value| -> f64 {
        let text = value.as_str().map(str::to_owned).unwrap_or_else(|| value.to_string());
        text.parse().expect("a number")
    };
    let reported: Vec<_> = summary["alarms"].as_array().expect("alarms").iter().collect();
    let shown = replay(&scratch.path().join("decisions.plog"), &["--show"]);
    let lines: Vec<Value> = text(&shown.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    let logged = lines.iter().filter_map(|line| Some((line, line["signals"].as_array()?)));
    let logged: Vec<(&Value, &Value)> = logged
        .flat_map(|(line, signals)| signals.iter().map(move |signal| (line, signal)))
        .filter(|(_, signal)| signal["kind"] == "alarm")
        .collect();
    assert!(reported.len() > 1, "the run must raise some: {}", summary["alarms"]);
    assert_eq!(reported.len(), logged.len(), "as many are logged");
    for (told, (line, alarm)) in reported.iter().zip(logged) {
        assert_eq!(told["kind"], alarm["alarm"]);
        assert_eq!(told["class"], alarm["victim"]);
        assert_eq!(told["culprit"], alarm["culprit"]);
        assert!((number(&told["since_s"]) - number(&alarm["since_s"])).abs() < 1e-5, "{alarm}");
        // Raised between the input it stands with and the next.
        let (at, from) = (number(&told["at_s"]), number(&line["time_s"]));
        assert!(from <= at + 1e-5, "{told} {line}");
        let next = lines.get(line["number"].as_u64().expect("a number") as usize + 1);
        assert!(next.is_none_or(|next| at <= number(&next["time_s"]) + 1e-5), "{told} {line}");
    }
}

/// The log with its n-th dispatch sent to another engine priority.
fn falsified(log: &[u8], nth: usize) -> Vec<u8> {
    let mut reader = Reader::new(log).expect("it is whole");
    let mut writer = Writer::new(reader.header());
    let mut seen = 0;
    for record in &mut reader {
        let mut record = record.expect("it is whole");
        writer.input(record.now, &record.input);
        for decision in &mut record.decisions {
            if let Action::Dispatch(backend, _) = decision.action {
                seen += 1;
                if seen == nth {
                    decision.action = Action::Dispatch(backend, EnginePriority(-77));
                }
            }
            writer.decision(decision);
        }
    }
    let mut all = std::mem::take(writer.bytes());
    all.extend(writer.finish());
    all
}

#[test]
fn the_first_difference_is_told() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    record("neighbours", &[], scratch.path());
    let log = std::fs::read(scratch.path().join("decisions.plog")).expect("a log");
    let other = scratch.path().join("other.plog");
    std::fs::write(&other, falsified(&log, 100)).expect("it can be written");
    let output = replay(&other, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let parts = [
        "differs at input ",
        "\ninput: {",
        "\nexpected: ",
        "\"priority\":-77",
        "\ngot: ",
        "class 0: ",
    ];
    for part in parts {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let (json, code) = verdict(&other, &[]);
    assert_eq!((code, &json["identical"]), (Some(1), &Value::Bool(false)));
    assert_eq!(json["expected"][0]["priority"], -77, "{json}");
    assert!(json["got"][0]["priority"].as_i64().expect("a number") >= 0, "{json}");
}

/// `neighbours` under another share, beside the log.
fn other_share(folder: &Path) -> PathBuf {
    let text = std::fs::read_to_string(scenario("neighbours")).expect("the scenario is there");
    let other = text.replace("share = \"priority\"", "share = \"fcfs\"");
    assert!(other != text);
    let path = folder.join("other.toml");
    std::fs::write(&path, other).expect("it can be written");
    path
}

#[test]
fn another_policy_is_compared_and_never_called_parity() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    record("neighbours", &[], scratch.path());
    let log = scratch.path().join("decisions.plog");
    let against = |policy: &Path| {
        let policy = policy.to_str().expect("paths are UTF-8");
        let (json, code) = verdict(&log, &["--policy", policy]);
        assert_eq!((code, &json["level"], &json["parity"]), (Some(0), &"L4".into(), &false.into()));
        json
    };
    // Under its own policy everything happens as it did.
    let same = against(&scenario("neighbours"));
    assert_eq!(same["agreement"]["rate"], 1.0, "{same}");
    assert_eq!(same["guessed_services"], 0, "{same}");
    for class in ["chat", "batch"] {
        let class = &same["classes"][class];
        assert_eq!(class["recorded"], class["other"], "{same}");
    }
    // First come, first served: chat waits for batch.
    let other = against(&other_share(scratch.path()));
    let wait = |json: &Value, class: &str, policy: &str| {
        let wait = json["classes"][class][policy]["wait_mean_s"].as_str().expect("some ran");
        wait.parse::<f64>().expect("a number of seconds")
    };
    assert_eq!(wait(&other, "chat", "recorded"), wait(&same, "chat", "recorded"));
    assert!(wait(&other, "chat", "other") > 2.0 * wait(&other, "chat", "recorded"), "{other}");
    let output = replay(&log, &["--policy", "noisy-neighbour"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("noisy-neighbour: the other policy has a class `agents`"), "{said}");
    let file = scratch.path().join("policy.toml");
    let rules = "schema_version = 1\nname = \"p\"\n[[class]]\nname = \"batch\"\n\
        [[class]]\nname = \"chat\"\n[policy]\nshare = \"fcfs\"\n";
    std::fs::write(&file, rules).expect("it can be written");
    let output = replay(&log, &["--policy", file.to_str().expect("paths are UTF-8")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("This is a counterfactual (L4), not parity"), "{said}");
}

#[test]
fn a_shadow_of_the_same_policy_agrees_and_another_does_not() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mut command = plimsoll();
    command.arg("run").arg(scenario("neighbours")).args(["--no-files", "--no-gate", "--quiet"]);
    command.arg("--shadow").arg(scenario("neighbours"));
    command.arg("--shadow").arg(other_share(scratch.path()));
    let output = command.output().expect("the command starts");
    let said = text(&output.stderr);
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("shadow ")).collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].ends_with(" decisions (100.0 %)"), "{said}");
    assert!(!lines[1].contains("(100.0 %)"), "{said}");
}

/// A log, and the bytes at which its blocks begin.
fn small_log(folder: &Path) -> (Vec<u8>, Vec<usize>) {
    record("neighbours", &[], folder);
    let bytes = std::fs::read(folder.join("decisions.plog")).expect("a log");
    let (mut at, mut begins) = (10, Vec::new());
    while at < bytes.len() {
        begins.push(at);
        let stored = bytes[at + 2..].first_chunk().expect("a head");
        at += 18 + u32::from_le_bytes(*stored) as usize;
    }
    (bytes, begins)
}

/// What `replay` says of these bytes, which it does not believe.
fn refused(folder: &Path, bytes: &[u8]) -> String {
    let path: PathBuf = folder.join("bad.plog");
    std::fs::write(&path, bytes).expect("it can be written");
    for options in [&[][..], &["--show"]] {
        let output = replay(&path, options);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    }
    let output = replay(&path, &[]);
    assert!(output.stdout.is_empty());
    let name = path.display().to_string();
    text(&output.stderr).replace(&name, "bad.plog")
}

#[test]
fn every_malformed_log_has_its_message() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = scratch.path();
    let (log, begins) = small_log(folder);
    let check = |bytes: &[u8], expected: String| {
        assert_eq!(refused(folder, bytes), format!("error: bad.plog: {expected}\n"));
    };
    let changed = |at: usize| {
        let mut bytes = log.clone();
        bytes[at] ^= 64;
        bytes
    };
    let without = |block: usize| {
        let end = begins.get(block + 1).copied().unwrap_or(log.len());
        [&log[..begins[block]], &log[end..]].concat()
    };
    let last = begins.len() - 1;
    assert!(last >= 2, "{begins:?}");
    check(b"", "byte 0: the file is empty".into());
    check(b"schema_version = 1\n", "byte 0: this is not a decision log".into());
    let newer = "byte 8: the log has format 65, this build reads format 1";
    check(&changed(8), newer.into());
    check(&log[..9], "byte 9: the log was cut off within its header".into());
    check(&log[..40], "byte 40: the log was cut off within its header".into());
    let head = "damaged: the head of a block does not agree with its checksum";
    let payload = "damaged: the content of a block does not agree with its checksum";
    check(&changed(12), format!("byte 10: {head}"));
    check(&changed(30), format!("byte 28: {payload}"));
    let (first, trailer) = (begins[1], begins[last]);
    check(&changed(first + 1), format!("byte {first}: {head}"));
    check(&changed(first + 99), format!("byte {}: {payload}", first + 18));
    check(&changed(trailer), format!("byte {trailer}: {head}"));
    check(&without(0), "byte 10: the log does not begin with a header".into());
    check(&[&log[..first], &log[10..]].concat(), format!("byte {first}: a second header"));
    let cut = [&log[..first], &log[trailer..]].concat();
    check(&cut, format!("byte {first}: the trailer counts other inputs or decisions"));
    let end = log.len();
    let longer = [&log[..], b"x"].concat();
    check(&longer, format!("byte {end}: something follows the end of the log"));
    let doubled = [&log[..begins[2]], &log[first..]].concat();
    let said = refused(folder, &doubled);
    let gap = format!(
        "error: bad.plog: byte {}: blocks are missing or mixed up: this one begins \
        with input 0, expected was input ",
        begins[2]
    );
    assert!(said.starts_with(&gap), "{said}");
    let missing = replay(&folder.join("none.plog"), &[]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("cannot read `"), "{}", text(&missing.stderr));
}

#[test]
fn a_log_that_was_cut_off_replays_as_far_as_it_goes() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (log, begins) = small_log(scratch.path());
    let last = begins[begins.len() - 1];
    let path = scratch.path().join("cut.plog");
    std::fs::write(&path, &log[..last + 3]).expect("it can be written");
    let output = replay(&path, &[]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(", identical\n"), "{said}");
    let cut = format!("the log was cut off: its last whole block ends at byte {last}, with ");
    assert!(said.contains(&cut), "{said}");
    assert_eq!(verdict(&path, &[]).0["cut_off"], true);
}

#[test]
fn a_log_needs_an_output_folder() {
    let mut command = plimsoll();
    command.arg("run").arg(scenario("small")).args(["--decisions", "--no-files"]);
    command.assert().code(2);
}
