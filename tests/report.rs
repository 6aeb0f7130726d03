//! `plimsoll report LOG` says of a decision log what `plimsoll run` said of the run itself, as far
//! as a log can know, and says what it cannot.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use plimsoll_base::{BackendId, ClassId, End, RequestId, Span, TenantId, Time};
use plimsoll_policy::config::{Class, Config, Share};
use plimsoll_policy::log::{Header, Reader, Writer};
use plimsoll_policy::{
    Action, Allocator, BackendInfo, EnginePriority, Held, Input, Load, RequestInfo, Used,
};
use serde_json::Value;
use support::{plimsoll, scenario};

/// First tokens are told where a rule reads them.
const SLO_CAPS: &str =
    r#"policy.feedback=[{ rule = "slo-caps", class = "chat", lesser = ["batch"] }]"#;
const CAPPED: &str = "class.batch.requests_max=40";
const NO_WARM_UP: &str = "run.warm_up=\"0s\"";

fn run(file: &Path, settings: &[&str], out: &Path) {
    let mut command = plimsoll();
    command.arg("run").arg(file).args(["--decisions", "--no-gate", "--quiet", "--out"]).arg(out);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.assert().success();
}

fn report(log: &Path, options: &[&str], out: &Path) -> Output {
    let mut command = plimsoll();
    command.arg("report").arg(log).args(options).arg("--out").arg(out);
    command.output().expect("the command starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("what it prints is UTF-8")
}

fn read(path: PathBuf) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn summary(folder: &Path) -> Value {
    serde_json::from_str(&read(folder.join("summary.json"))).expect("JSON")
}

/// A run and the report of its log.
struct Both {
    scratch: tempfile::TempDir,
    run: Value,
    log: Value,
}

impl Both {
    fn of(file: &Path, settings: &[&str]) -> Both {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let (of_run, of_log) = (scratch.path().join("run"), scratch.path().join("log"));
        run(file, &[&[NO_WARM_UP], settings].concat(), &of_run);
        let said = report(&of_run.join("decisions.plog"), &["--no-gate"], &of_log);
        assert_eq!(said.status.code(), Some(0), "{}", text(&said.stderr));
        Both { run: summary(&of_run), log: summary(&of_log), scratch }
    }

    fn rows(&self, of: &str) -> BTreeMap<u64, BTreeMap<String, String>> {
        let table = read(self.scratch.path().join(of).join("requests.csv"));
        let mut lines = table.lines();
        let columns: Vec<&str> = lines.next().expect("a header").split(',').collect();
        let row = |line: &str| {
            let cells = columns.iter().zip(line.split(','));
            let row: BTreeMap<String, String> =
                cells.map(|(name, cell)| ((*name).to_owned(), cell.to_owned())).collect();
            (row["id"].parse().expect("a number"), row)
        };
        lines.map(row).collect()
    }

    /// Every request has the same life, as far as a gateway sees it.
    fn check_requests(&self, has_first_tokens: bool) {
        let (run, log) = (self.rows("run"), self.rows("log"));
        assert!(run.len() > 300, "{} requests", run.len());
        assert_eq!(run.len(), log.len());
        let told = ["source", "tenant", "class", "backend", "outcome", "arrived_s", "reason"];
        let more = ["dispatched_s", "closed_s", "prompt_tokens", "output_cap", "bound"];
        let first = ["first_token_s", "ttft_s"];
        for (id, row) in &run {
            let other = &log[id];
            for column in told.iter().chain(&more) {
                // The run goes on a moment longer than its log.
                let is_cut = row["outcome"] == "unfinished" && *column == "closed_s";
                assert!(
                    is_cut || row[*column] == other[*column],
                    "{id}: {column}: {row:?} {other:?}"
                );
            }
            if row["outcome"] == "finished" {
                assert_eq!(row["output_tokens"], other["output_tokens"], "{id}");
                if has_first_tokens {
                    first.iter().for_each(|name| assert_eq!(row[*name], other[*name], "{id}"));
                    assert_eq!(row["tpot_s"], other["tpot_s"], "{id}");
                }
            }
        }
    }

    /// What each class waited for in the allocator, and on whom that falls, is the same.
    fn check_classes(&self) -> usize {
        let list = |summary: &Value| summary["classes"].as_array().expect("classes").clone();
        let mut starved = 0;
        for (run, log) in list(&self.run).iter().zip(&list(&self.log)) {
            let name = &run["name"];
            assert_eq!(
                (name, &run["numbers"]["counts"]),
                (&log["name"], &log["numbers"]["counts"])
            );
            assert_eq!(run["numbers"]["overtakes"], log["numbers"]["overtakes"], "{name}");
            assert_eq!(
                run["numbers"]["latency"]["e2e"], log["numbers"]["latency"]["e2e"],
                "{name}"
            );
            let (run, log) = (&run["waiting"], &log["waiting"]);
            assert_eq!(
                in_allocator(&run["waited_for"]),
                in_allocator(&log["waited_for"]),
                "{name}"
            );
            assert_eq!(run["inversion_seat_s"], log["inversion_seat_s"], "{name}");
            assert_eq!(run["due"], log["due"], "{name}");
            let at_the_door = run["longest_without_service"]["in_engine"] == false;
            if at_the_door {
                assert_eq!(run["longest_without_service"], log["longest_without_service"]);
            }
            if run["starved_by"] == "no_service" && at_the_door {
                starved += 1;
                assert_eq!((&run["fate"], &run["starved_by"]), (&log["fate"], &log["starved_by"]));
            }
            self.check_parts(run, log);
        }
        starved
    }

    /// The parts of the waiting time sum to it, and those outside engines are those of the run.
    fn check_parts(&self, run: &Value, log: &Value) {
        let parts = |waiting: &Value| {
            let blame = waiting["blame"].as_array().expect("parts").clone();
            let outside = blame.into_iter().filter(|part| part["resource"] != "engine");
            let key =
                |part: &Value| format!("{} {} {}", part["kind"], part["resource"], part["culprit"]);
            let nanos = |part: &Value| part["nanos"].as_u64().expect("nanoseconds");
            outside.map(|part| (key(&part), nanos(&part))).collect::<BTreeMap<String, u64>>()
        };
        let (run, log_parts) = (parts(run), parts(log));
        let all: u64 = log_parts.values().sum();
        assert_eq!(Some(all), log["waited_nanos"].as_u64(), "the parts sum to the waiting time");
        assert!(run.keys().eq(log_parts.keys()), "{run:?} {log_parts:?}");
        for (part, nanos) in &run {
            // What rounding leaves over goes to the largest part, which may be an engine's.
            assert!(nanos.abs_diff(log_parts[part]) <= 64, "{part}: {nanos} {log_parts:?}");
        }
    }
}

/// Requests and seconds by what they waited for, without the engines' own queues.
fn in_allocator(waited_for: &Value) -> Vec<(String, String)> {
    let all = waited_for.as_array().expect("causes").iter();
    let outside = all.filter(|cause| cause["what"] != "engine_queue");
    let mut told: Vec<(String, String)> = outside
        .map(|cause| {
            (cause["what"].to_string(), format!("{} {}", cause["requests"], cause["seconds"]))
        })
        .collect();
    told.sort();
    told
}

#[test]
fn a_log_tells_what_its_run_told() {
    for (file, settings, has_first_tokens) in [
        (scenario("neighbours"), &[SLO_CAPS, CAPPED][..], true),
        (scenario("neighbours"), &[][..], false),
        (scenario("fair"), &["policy.window=\"seats\""][..], false),
    ] {
        let both = Both::of(&file, settings);
        both.check_requests(has_first_tokens);
        both.check_classes();
        assert_eq!(both.run["conservation"], both.log["conservation"]);
        let recorded = &both.log["recorded"];
        assert_eq!(recorded["first_tokens"], has_first_tokens, "{recorded}");
        assert_eq!(recorded["attribution_is_estimated"], true);
        let ttft = |summary: &Value| summary["run"]["latency"]["ttft"].clone();
        let objectives = |summary: &Value| summary["objectives"].clone();
        if has_first_tokens {
            assert_eq!(ttft(&both.run), ttft(&both.log));
            assert_eq!(objectives(&both.run), objectives(&both.log));
        } else {
            assert_eq!(ttft(&both.log)["count"], 0);
            for objective in objectives(&both.log).as_array().expect("objectives") {
                assert_eq!(objective["result"], "inconclusive", "{objective}");
            }
        }
    }
}

#[test]
fn who_starves_at_the_door_starves_in_the_log() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions");
    let mut starved = 0;
    for name in ["high_behind_low", "lower_band", "shortest_first"] {
        let both = Both::of(&folder.join(name).with_extension("toml"), &[]);
        both.check_requests(false);
        starved += both.check_classes();
        let kinds = |summary: &Value| {
            let told = summary["alarms"].as_array().expect("alarms").iter();
            let key = |alarm: &Value| {
                format!("{} {} {}", alarm["kind"], alarm["class"], alarm["since_s"])
            };
            told.map(key).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&both.run), kinds(&both.log), "{name}");
    }
    assert!(starved > 0, "some class starves");
}

#[test]
fn what_is_not_observed_is_absent() {
    let both = Both::of(&scenario("neighbours"), &[SLO_CAPS, CAPPED]);
    let numbers = &both.log["run"];
    for absent in ["preemptions", "preemptions_max", "recomputed_tokens"] {
        assert_eq!(numbers[absent], Value::Null, "{absent}");
    }
    for absent in ["itl", "itl_max", "preempted_time"] {
        assert_eq!(numbers["latency"][absent]["count"], 0, "{absent}");
    }
    assert_eq!(numbers["slowdown"]["count"], 0);
    let used = &both.log["utilization"];
    assert_eq!((&used["busy"]["value"], &used["useful"]["value"]), (&Value::Null, &Value::Null));
    for class in both.log["classes"].as_array().expect("classes") {
        let waiting = &class["waiting"];
        assert_eq!((&waiting["engine_share"], &waiting["lag"]), (&Value::Null, &Value::Null));
    }
    let page = read(both.scratch.path().join("log/report.html"));
    for said in ["not observed", "What the log cannot tell", "Estimated", "engines are opaque"] {
        assert!(page.contains(said), "{said:?} stands on the page");
    }
    assert!(!page.contains("id=\"utilization\"") && !page.contains("id=\"shares\""));
}

#[test]
fn the_same_log_gives_the_same_bytes_and_a_result_folder_its_table() {
    let both = Both::of(&scenario("small"), &[]);
    let folder = both.scratch.path();
    let log = folder.join("run/decisions.plog");
    let said = report(&log, &["--no-gate"], &folder.join("again"));
    for name in ["summary.json", "requests.csv", "timeseries.csv", "report.html"] {
        assert!(
            read(folder.join("log").join(name)) == read(folder.join("again").join(name)),
            "{name}"
        );
    }
    let again = plimsoll().arg("report").arg(folder.join("log")).arg("--no-gate").output();
    let again = again.expect("the command starts");
    assert_eq!(text(&again.stdout), text(&said.stdout));
    let refused = report(&folder.join("log"), &[], &folder.join("third"));
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("is a result already"), "{}", text(&refused.stderr));
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let nothing = plimsoll().arg("report").arg(scratch.path()).output().expect("it starts");
    assert_eq!(nothing.status.code(), Some(2));
    assert!(text(&nothing.stderr).contains("neither a decision log"), "{}", text(&nothing.stderr));
}

#[test]
fn a_cut_log_gives_a_partial_report_and_a_damaged_one_none() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    run(&scenario("neighbours"), &[NO_WARM_UP], &scratch.path().join("run"));
    let bytes = std::fs::read(scratch.path().join("run/decisions.plog")).expect("a log");
    let (log, out) = (scratch.path().join("other.plog"), scratch.path().join("out"));
    for (length, is_partial) in
        [(bytes.len(), false), (bytes.len() - 1, true), (bytes.len() / 2, true)]
    {
        std::fs::write(&log, &bytes[..length]).expect("it can be written");
        let said = report(&log, &["--no-gate"], &out);
        assert_eq!(said.status.code(), Some(0), "{}", text(&said.stderr));
        let summary = summary(&out);
        assert_eq!(summary["partial"], is_partial, "{length}");
        let line = summary["verdict_line"].as_str().expect("a line");
        assert_eq!(line.contains("PARTIAL, the log was cut off"), is_partial, "{line}");
        std::fs::remove_dir_all(&out).expect("it is there");
    }
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    for (content, message) in [
        (&damaged[..], "damaged"),
        (&bytes[..40], "within its header"),
        (b"", "empty"),
        (b"x", "not a"),
    ] {
        std::fs::write(&log, content).expect("it can be written");
        let said = report(&log, &[], &out);
        assert_eq!(said.status.code(), Some(2), "{message}");
        assert!(text(&said.stderr).contains(message), "{}", text(&said.stderr));
        assert!(!out.exists(), "nothing is written");
    }
}

#[test]
fn another_decision_is_refused_unless_the_log_is_to_be_believed() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    run(&scenario("neighbours"), &[NO_WARM_UP], &scratch.path().join("run"));
    let bytes = std::fs::read(scratch.path().join("run/decisions.plog")).expect("a log");
    let reader = Reader::new(&bytes).expect("it is whole");
    let mut writer = Writer::new(reader.header());
    for record in reader {
        let record = record.expect("it is whole");
        writer.input(record.now, &record.input);
        for mut decision in record.decisions {
            if let (Action::Dispatch(backend, _), 200) = (decision.action, decision.id.0) {
                decision.action = Action::Dispatch(backend, EnginePriority(-77));
            }
            writer.decision(&decision);
        }
    }
    let (log, out) = (scratch.path().join("other.plog"), scratch.path().join("out"));
    std::fs::write(&log, writer.finish()).expect("it can be written");
    let said = report(&log, &[], &out);
    assert_eq!(said.status.code(), Some(2));
    for part in ["does not decide as the log says", "differs at input", "-77", "--policy-check off"]
    {
        assert!(text(&said.stderr).contains(part), "{part:?}: {}", text(&said.stderr));
    }
    assert!(!out.exists(), "nothing is written");
    let said = report(&log, &["--policy-check", "off", "--no-gate"], &out);
    assert_eq!(said.status.code(), Some(0), "{}", text(&said.stderr));
    let own = summary(&scratch.path().join("run"));
    let believed = summary(&out);
    assert_eq!(own["conservation"], believed["conservation"]);
    assert!(believed["recorded"]["not_observed"].to_string().contains("would decide otherwise"));
}

fn at(secs: u64) -> Time {
    // A gateway's clock does not begin at nought.
    Time::ZERO + Span::from_secs(1_700_000_000 + secs)
}

/// What a gateway's log may look like: it takes over two requests, one that runs and one that
/// waits, on a backend with two seats; some are streamed.
fn production() -> Vec<u8> {
    let policy = Config::plain(Share::Fcfs, vec![Class::default()]);
    let mut header = Header { scenario: "gateway.toml".into(), policy, ..Header::default() };
    header.names.classes.push("chat".into());
    header.names.tenants.push("key".into());
    let mut writer = Writer::new(&header);
    let mut allocator = Allocator::new(header.policy.clone()).expect("a plain policy");
    let backend = BackendId::first(0);
    let info = RequestInfo {
        claims: Some(ClassId(0)),
        tenant: TenantId(0),
        prompt_tokens: 100,
        output_cap: 50,
        ..RequestInfo::default()
    };
    let held = |secs, backend| Held { class: ClassId(0), arrived: at(secs), backend };
    let load = Load { running: 2, kv_used_ppm: 250_000, ..Load::default() };
    let used = Used { prompt_tokens: 100, output_tokens: 11 };
    let hardware =
        BackendInfo { seats: 2, kv_tokens: 1_000, context_max: 1_000, ..BackendInfo::default() };
    let id = RequestId;
    for (secs, input) in [
        (100, Input::Joined(backend, hardware)),
        (100, Input::Resumed(id(7), info, held(50, Some(backend)))),
        (100, Input::Resumed(id(8), info, held(60, None))),
        (101, Input::Arrived(id(9), info)),
        (102, Input::Reported(backend, load, at(102))),
        (103, Input::Ended(id(7), End::Finished, used)),
        (104, Input::FirstToken(id(9))),
        (105, Input::Ended(id(8), End::Finished, used)),
        (106, Input::Arrived(id(10), info)),
        (109, Input::Ended(id(9), End::Finished, used)),
        (110, Input::Reported(backend, load, at(110))),
        (112, Input::Ended(id(10), End::Finished, used)),
        (113, Input::Arrived(id(11), info)),
        (114, Input::Draining),
    ] {
        writer.input(at(secs), &input);
        allocator.handle(at(secs), input);
        while let Some(decision) = allocator.poll() {
            writer.decision(&decision);
        }
    }
    let mut all = std::mem::take(writer.bytes());
    all.extend(writer.finish());
    all
}

#[test]
fn a_log_of_production_begins_with_what_it_took_over() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    for name in ["000.plog", "001.plog"] {
        std::fs::write(scratch.path().join(name), production()).expect("it can be written");
    }
    let out = scratch.path().join("out");
    let said = report(scratch.path(), &[], &out);
    assert_eq!(said.status.code(), Some(0), "{}", text(&said.stderr));
    let one = out.join("000");
    assert!(read(one.join("summary.json")) == read(out.join("001/summary.json")));
    let summary = summary(&one);
    assert_eq!(summary["scenario"]["name"], "gateway.toml");
    assert_eq!(summary["conservation"]["offered"], 5);
    let counts = &summary["run"]["counts"];
    assert_eq!((&counts["offered"], &counts["finished"]), (&3.into(), &2.into()), "{counts}");
    assert_eq!(summary["recorded"]["taken_over"], 2);
    let latency = &summary["run"]["latency"];
    // Request 9 waited 2 s and had its first token after 3 s; 10 was not streamed: 6 s, no TPOT.
    assert_eq!(latency["queue_time"]["max"]["value"], 2.0);
    let median = latency["ttft"]["p50"]["value"].as_f64().expect("it was told");
    assert!((median - 3.0).abs() < 0.01, "{}", latency["ttft"]);
    assert_eq!(latency["ttft"]["max"]["value"], 6.0);
    assert_eq!(latency["tpot"]["count"], 1);
    assert_eq!(latency["tpot"]["max"]["value"], 0.5);
    assert_eq!(summary["run"]["tpot_undefined"], 1);
    let kv = summary["utilization"]["kv_occupancy"]["value"].as_f64().expect("it was reported");
    assert!(kv > 0.1 && kv < 0.26, "{kv}");
    let rows = read(one.join("requests.csv"));
    assert!(rows.contains("\n7,0,#0,key,chat,0,finished,0.000000000,"), "{rows}");
    assert!(rows.contains("\n9,0,#0,key,chat,0,finished,1.000000001,3.000000001,"), "{rows}");
}
