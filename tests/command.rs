//! The command line: what it prints, what it writes, how it exits.

mod support;

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;
use support::{plimsoll, scenario};

/// Runs the command in an empty folder, which must stay empty.
fn said(arguments: &[&str]) -> Output {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let output = plimsoll().current_dir(scratch.path()).args(arguments).output();
    let left = std::fs::read_dir(scratch.path()).expect("the scratch folder is there").count();
    assert_eq!(left, 0, "{arguments:?} leaves nothing behind");
    output.expect("the command starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("what it prints is UTF-8")
}

/// `run` of a scenario of `tests/scenarios` without files.
fn run(name: &str, options: &[&str]) -> Output {
    let file = scenario(name);
    let mut arguments = vec!["run", file.to_str().expect("paths are UTF-8"), "--no-files"];
    arguments.extend(options);
    said(&arguments)
}

/// Exit code, and what stdout and stderr contain.
fn check(arguments: &[&str], code: i32, out: &[&str], error: &[&str]) {
    let output = said(arguments);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stdout}{stderr}");
    for (stream, parts) in [(stdout, out), (stderr, error)] {
        for part in parts {
            assert!(stream.contains(part), "{arguments:?}: no {part:?} in {stream:?}");
        }
        let ends = stream.is_empty() || stream.ends_with('\n');
        assert!(ends, "{arguments:?}: the last line ends: {stream:?}");
    }
    assert!(!out.is_empty() || stdout.is_empty(), "{arguments:?}: on stdout: {stdout}");
    assert!(!error.is_empty() || stderr.is_empty(), "{arguments:?}: on stderr: {stderr}");
}

#[test]
fn help_and_version_need_no_file() {
    let mut verbs = vec![
        "run",
        "compare",
        "plan",
        "sweep",
        "merge",
        "replay",
        "report",
        "check",
        "init",
        "explain",
        "schema",
        "completions",
    ];
    verbs.extend(cfg!(feature = "serve").then_some(["serve", "backend"]).into_iter().flatten());
    check(&["--help"], 0, &verbs, &[]);
    check(&["--help"], 0, &["Exit codes: 0 ", "3 objective missed", "130 interrupted"], &[]);
    for verb in verbs {
        check(&[verb, "--help"], 0, &["Usage: plimsoll ", verb], &[]);
    }
    check(&["--version"], 0, &[concat!("plimsoll ", env!("CARGO_PKG_VERSION"))], &[]);
}

#[test]
fn mistakes_on_the_command_line_exit_with_2() {
    check(&[], 2, &[], &["Usage: plimsoll"]);
    check(&["sail"], 2, &[], &["unrecognized subcommand 'sail'"]);
    check(&["run"], 2, &[], &["<FILE>"]);
    check(&["run", "quickstart", "--replications", "0"], 2, &[], &["--replications"]);
    check(&["run", "quickstart", "--no-files", "--out", "x"], 2, &[], &["cannot be used with"]);
    check(&["run", "quickstart", "--set", "seed"], 2, &[], &["seed"]);
    check(&["run", "nowhere.toml"], 2, &[], &["cannot read `nowhere.toml`"]);
    check(&["run", "quickstart", "--page-template", "none"], 2, &[], &["the page template none"]);
    check(&["explain", "nothing-like-it"], 2, &[], &["nothing is called `nothing-like-it`"]);
    check(&["init", "--template", "nix"], 2, &[], &["no scenario is called `nix`", "quickstart"]);
}

#[test]
fn a_slip_in_the_name_of_a_shipped_scenario_is_recognised() {
    for verb in ["run", "check"] {
        check(&[verb, "noisy-neighbor"], 2, &[], &["did you mean `noisy-neighbour`?"]);
        check(&[verb, "quickstrat"], 2, &[], &["did you mean `quickstart`?"]);
    }
}

#[test]
fn the_exit_code_is_the_verdict() {
    let code = |name, options: &[&str]| run(name, options).status.code();
    assert_eq!(code("small", &[]), Some(0), "the objective is met");
    let missed = ["--set", "class.chat.slo.ttft_p99=\"1ms\""];
    assert_eq!(code("small", &missed), Some(3), "the objective is missed");
    assert_eq!(code("small", &[&missed[..], &["--no-gate"]].concat()), Some(0), "no gate");
    let few = ["--set", "run.duration=\"3s\""];
    assert_eq!(code("small", &few), Some(4), "too few requests for a 99th percentile");
    assert_eq!(code("small", &[&few[..], &["--no-gate"]].concat()), Some(0), "no gate");
    assert_eq!(code("fair", &[]), Some(0), "nothing was promised");
    let overload = ["--set", "workload.mixed.arrivals.rate=\"60/s\""];
    assert_eq!(code("fair", &overload), Some(4), "overloaded without an objective");
}

#[test]
fn every_template_can_be_started_from() {
    let listed = said(&["init", "--list"]);
    let names: Vec<&str> = text(&listed.stdout).lines().collect();
    assert!(names.contains(&"quickstart") && names.contains(&"noisy-neighbour"), "{names:?}");
    for name in names {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let template = said(&["init", "--template", name]);
        let file = scratch.path().join("mine.toml");
        std::fs::write(&file, &template.stdout).expect("the file can be written");
        let file = file.to_str().expect("paths are UTF-8");
        let kind = if name == "gateway" { "gateway" } else { "scenario" };
        check(&["check", file], 0, &[&format!("{name} is a valid {kind}")], &[]);
        let origins = ["description = \"mine\"", "# --set"];
        check(&["check", file, "--explain", "--set", "description=mine"], 0, &origins, &[]);
    }
    assert_eq!(said(&["init"]).stdout, said(&["init", "--template", "quickstart"]).stdout);
}

#[test]
fn check_says_how_long_a_class_may_wait() {
    let starved = "batch: unbounded, because `chat`, of a higher priority, may always have work";
    check(&["check", "noisy-neighbour-priority"], 0, &["longest waits", starved], &[]);
    let expires = ["--set", "class.batch.time_to_live=15m"];
    let within = "batch: at most 15.0 min: it leaves the queue then";
    check(&[&["check", "noisy-neighbour-priority"], &expires[..]].concat(), 0, &[within], &[]);
    let guarded = "the guard lets it in";
    check(&["check", "noisy-neighbour-priority-guard"], 0, &[guarded], &[]);
    let none = ["--set", "policy.window=none"];
    let engine = "unbounded, because the engine queues, where no rule acts";
    check(&[&["check", "noisy-neighbour"], &none[..]].concat(), 0, &[engine], &[]);
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let file = scratch.path().join("policy.toml");
    let text = "schema_version = 1\nname = \"house\"\nclass = [{ name = \"chat\", priority = 1 }, \
                { name = \"rest\" }]\n[policy]\nshare = \"priority\"\n";
    std::fs::write(&file, text).expect("the file can be written");
    let out = ["house is a valid policy", "chat: bounded: its turn comes", "rest: unbounded"];
    check(&["check", file.to_str().expect("paths are UTF-8")], 0, &out, &[]);
    let explained = ["class.chat.priority = 1", "policy.share = ", "policy.toml:5"];
    check(&["check", "--explain", file.to_str().expect("paths are UTF-8")], 0, &explained, &[]);
    std::fs::write(&file, text.replace("priority = 1", "weight = 0")).expect("it can be written");
    check(&["check", file.to_str().expect("paths are UTF-8")], 2, &[], &["`weight`", ":3:"]);
}

#[test]
fn a_gateway_file_is_checked_and_not_run() {
    let said = [
        "gateway is a valid gateway (hash ",
        "listens at http://127.0.0.1:8080, for administration at http://127.0.0.1:9091",
        "backend llama: llama-cpp at http://127.0.0.1:8081, pool default, 4 seats",
        "class chat: promised tpot_p95 <= 100ms, ttft_p95 <= 2s",
        "batch: at most 60.0 min: it leaves the queue then",
    ];
    check(&["check", "gateway"], 0, &said, &[]);
    let public = ["--set", "gateway.listen=0.0.0.0:80", "--set", "backend.llama.seats=8"];
    let said = ["assumed: Whoever reaches 0.0.0.0:80 may use the models without a key", "8 seats"];
    check(&[&["check", "gateway"], &public[..]].concat(), 0, &said, &[]);
    let leases = ["--set", "resource=[{ name = \"tools\", seats = 3 }]"];
    let said = ["resource tools: 3 leases at once, each up to 10.0 min"];
    check(&[&["check", "gateway"], &leases[..]].concat(), 0, &said, &[]);
    check(&["run", "gateway"], 2, &[], &["nothing in it can be simulated", "`plimsoll serve`"]);
    // Its policy can listen to a run whose classes have the same names.
    check(&["run", "quickstart", "--no-files", "--shadow", "gateway"], 2, &[], &["batch"]);
}

#[test]
fn metrics_and_error_codes_are_explained() {
    check(&["explain", "ttft"], 0, &["ttft: "], &[]);
    check(&["explain", "P0001"], 0, &["P0001: "], &[]);
    let all = said(&["explain"]);
    let names: Vec<&str> =
        text(&all.stdout).lines().filter_map(|line| line.split(':').next()).collect();
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        check(&["explain", name], 0, &[&format!("{name}: ")], &[]);
    }
}

#[test]
fn schemas_are_json_and_the_summary_has_what_its_schema_requires() {
    let schema = |of| -> Value {
        let schema = serde_json::from_slice(&said(&["schema", of]).stdout).expect("JSON");
        let Value::Object(_) = &schema else { panic!("a schema is an object: {schema}") };
        schema
    };
    assert!(schema("scenario")["properties"]["workload"].is_object());
    assert!(schema("gateway")["properties"]["backend"].is_object());
    let required = schema("summary")["required"].clone();
    let required = required.as_array().expect("some keys are required");
    let summary = run("small", &["--format", "json"]);
    let summary: Value = serde_json::from_slice(&summary.stdout).expect("JSON");
    assert!(required.len() >= 10, "{required:?}");
    for key in required.iter().filter_map(Value::as_str) {
        assert!(summary.get(key).is_some(), "no {key} in {summary}");
    }
}

#[test]
fn completions_are_a_script_that_bash_reads() {
    let script = said(&["completions", "bash"]);
    assert!(text(&script.stdout).contains("complete -F _plimsoll"));
    let mut bash = assert_cmd::Command::new("bash");
    bash.arg("-n").write_stdin(script.stdout).assert().success();
}

#[test]
fn every_format_parses() {
    let csv = run("neighbours", &["--format", "csv", "--no-gate"]);
    let rows: Vec<Vec<&str>> =
        text(&csv.stdout).lines().map(|line| line.split(',').collect()).collect();
    assert!(rows.len() == 3 && rows[0].len() > 5, "a header and two classes: {rows:?}");
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{rows:?}");
    assert_eq!((rows[1][0], rows[2][0]), ("chat", "batch"));

    let md = run("neighbours", &["--format", "md", "--no-gate"]);
    let table: Vec<&str> = text(&md.stdout).lines().filter(|line| line.starts_with('|')).collect();
    let bars = |line: &str| line.matches('|').count();
    assert!(table.len() >= 4 && table[1].contains("--"), "{table:?}");
    assert!(table.iter().all(|line| bars(line) == bars(table[0])), "{table:?}");

    let human = run("small", &[]);
    for part in ["PASS", "offered", "= finished", "in flight 0", "no interval: one replication"] {
        assert!(text(&human.stdout).contains(part), "no {part:?}");
    }
    assert!(!human.stdout.contains(&0x1b), "no colours where stdout is no terminal");
}

/// The files below a folder, by their paths in it.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let entry = entry.expect("the folder can be listed");
        let name = entry.file_name().into_string().expect("names are UTF-8");
        if entry.path().is_dir() {
            found.extend(files(&entry.path()).iter().map(|below| format!("{name}/{below}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

#[test]
fn a_run_leaves_its_files_whole_and_nothing_else() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mut command = plimsoll();
    command.current_dir(scratch.path()).arg("run").arg(scenario("small"));
    let settings = ["--format", "json", "--set", "seed=42", "--replications", "2"];
    let output = command.args(settings).output().expect("the command starts");
    let out = scratch.path().join("plimsoll-out/small");
    let names = files(scratch.path());
    let charts = names.iter().filter(|name| name.contains("/charts/"));
    assert!(charts.clone().count() >= 3 && charts.clone().all(|name| name.ends_with(".svg")));
    let others: Vec<&str> = names
        .iter()
        .filter_map(|name| name.strip_prefix("plimsoll-out/small/"))
        .filter(|name| !name.starts_with("charts/"))
        .collect();
    assert_eq!(
        others,
        ["latency.hgrm", "report.html", "requests.csv", "summary.json", "timeseries.csv"]
    );
    assert_eq!(others.len() + charts.count(), names.len(), "{names:?}");

    let summary = std::fs::read(out.join("summary.json")).expect("the file can be read");
    assert_eq!(text(&summary), text(&output.stdout), "stdout is summary.json");
    let summary: Value = serde_json::from_slice(&summary).expect("JSON");
    assert_eq!(summary["scenario"]["seed"], 42);
    assert_eq!(summary["scenario"]["replications"], 2);
    assert_eq!(summary["partial"], false);
    let rows = std::fs::read_to_string(out.join("requests.csv")).expect("the file can be read");
    let offered = summary["conservation"]["offered"].as_u64().expect("a count");
    assert_eq!(rows.lines().count() as u64, 1 + offered, "a header and one row a request");
    assert!(offered > 300, "{offered}");
    let page = std::fs::read_to_string(out.join("report.html")).expect("the file can be read");
    assert!(page.trim_end().ends_with("</html>"), "the page is whole");
}

#[test]
fn a_folder_with_the_name_of_a_shipped_scenario_does_not_hide_it() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    std::fs::create_dir(scratch.path().join("quickstart")).expect("a folder");
    let mut command = plimsoll();
    command.current_dir(scratch.path()).args(["check", "quickstart"]);
    command.assert().code(0);
}

#[test]
#[cfg(not(feature = "parquet"))]
fn a_build_without_parquet_says_how_to_get_it() {
    let mut command = plimsoll();
    command.arg("run").arg(scenario("small")).arg("--parquet");
    let refused = command.assert().code(2);
    let said = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(said.contains("--features parquet"), "{said}");
}

#[test]
fn requests_csv_can_be_left_out() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mut command = plimsoll();
    command.arg("run").arg(scenario("small")).arg("--no-requests").arg("--out").arg(scratch.path());
    command.assert().success();
    let names = files(scratch.path());
    assert!(
        names.contains(&"summary.json".to_owned()) && !names.contains(&"requests.csv".to_owned())
    );
}

#[test]
fn an_input_error_leaves_no_output_folder() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let out = scratch.path().join("out");
    let mut command = plimsoll();
    command.arg("run").arg(scenario("small")).arg("--out").arg(&out);
    command.args(["--set", "workload.chat.arrivals.rate=\"-1/s\""]).assert().code(2);
    assert!(!out.exists());
}

/// Whether the process catches SIGINT, so that it may be sent.
#[cfg(target_os = "linux")]
fn listens(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & (1 << (2 - 1)) != 0)
}

/// A run that would take hours is interrupted: it ends at once, and what it leaves says so.
#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_keeps_what_there_is_and_says_so() {
    use std::time::{Duration, Instant};
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let out = scratch.path().join("out");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.arg("run").arg(scenario("small")).args(["--set", "run.duration=\"20000d\""]);
    command.arg("--no-requests").arg("--out").arg(&out);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("the command starts");
    let began = Instant::now();
    while !listens(child.id()) {
        assert!(began.elapsed() < Duration::from_secs(20), "it never listens to Ctrl-C");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(200));
    let kill = ["-INT".to_owned(), child.id().to_string()];
    assert!(std::process::Command::new("kill").args(kill).status().is_ok_and(|s| s.success()));
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("PARTIAL, interrupted"), "{}", text(&output.stdout));
    let summary = std::fs::read(out.join("summary.json")).expect("the file can be read");
    let summary: Value = serde_json::from_slice(&summary).expect("JSON");
    assert_eq!(summary["partial"], true);
    let page = std::fs::read_to_string(out.join("report.html")).expect("the file can be read");
    assert!(page.contains("PARTIAL"), "the page says that it is partial");
}
