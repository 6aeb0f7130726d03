//! Pages and files: one set of templates, what is wrong with one of the user's, comments for pull
//! requests, differences, traces for a viewer, results of other versions. How a page looks and works
//! in a browser is checked by `tests/page/check.mjs`.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use support::{plimsoll, scenario};

struct Said {
    code: Option<i32>,
    out: String,
    error: String,
}

fn said(folder: &Path, arguments: &[&str]) -> Said {
    let output = plimsoll().current_dir(folder).args(arguments).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("what it prints is UTF-8");
    Said { code: output.status.code(), out: text(output.stdout), error: text(output.stderr) }
}

/// Runs `neighbours` into a folder.
fn run(folder: &Path, out: &str, more: &[&str]) -> Said {
    let file = scenario("neighbours");
    let file = file.to_str().expect("paths are UTF-8");
    let arguments = ["run", file, "--no-gate", "--quiet", "--out", out];
    said(folder, &[&arguments[..], more].concat())
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).expect("the file is there")
}

#[test]
fn a_template_of_the_users_replaces_ours_or_is_told_what_is_wrong() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = scratch.path();
    let template = |text: &str| std::fs::write(folder.join("mine.html"), text).expect("room");
    template(
        "{% extends \"run.html\" %}\n{% block footer %}by <i>us</i>, {{ title }}{% endblock %}",
    );
    assert_eq!(run(folder, "whole", &["--page-template", "mine.html"]).code, Some(0));
    let page = read(folder.join("whole/report.html"));
    assert!(page.contains("<footer>by <i>us</i>, neighbours</footer>"), "the block is replaced");
    for (text, expected) in [
        ("<p>\n{{ nothing_like_it }}", "mine.html:2:4: undefined value"),
        ("{% if title %}", "mine.html:1:13: syntax error"),
        ("{% extends \"my.html\" %}", "mine.html:1:"),
    ] {
        template(text);
        let wrong = run(folder, "half", &["--page-template", "mine.html"]);
        assert_eq!(wrong.code, Some(2), "{}", wrong.error);
        assert!(wrong.error.contains(expected), "{}", wrong.error);
        let left = std::fs::read_dir(folder.join("half")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "nothing half written");
    }
    template("{% extends \"study.html\" %}{% block footer %}ours{% endblock %}");
    let studies = ["diff", "whole", "whole", "--out", "d", "--page-template", "mine.html"];
    assert_eq!(said(folder, &studies).code, Some(0));
    assert!(read(folder.join("d/difference.html")).contains("<footer>ours</footer>"));
}

#[test]
fn a_comment_is_short_and_says_what_differs_from_a_baseline() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = scratch.path();
    assert_eq!(run(folder, "before", &["--replications", "3"]).code, Some(0));
    let fewer = ["--replications", "3", "--set", "pool.gpu.replicas=4", "--format", "md"];
    let comment = run(folder, "after", &[&fewer[..], &["--baseline", "before"]].concat());
    assert_eq!(comment.code, Some(0), "{}", comment.error);
    assert!(comment.out.lines().count() < 40, "{}", comment.out);
    for part in ["**", "| class | offered |", "| the baseline |", "95 %", "this run"] {
        assert!(comment.out.contains(part), "{part}: {}", comment.out);
    }
    let missing = run(folder, "other", &["--baseline", "nowhere"]);
    assert_eq!(missing.code, Some(2));
    assert!(missing.error.contains("cannot read `nowhere`"), "{}", missing.error);
    assert!(!folder.join("other").exists(), "it is looked for before anything runs");
}

#[test]
fn results_of_scenarios_with_other_classes_stand_side_by_side() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = scratch.path();
    assert_eq!(run(folder, "one", &[]).code, Some(0));
    let short = ["--set", "run.duration=3m", "--set", "run.warm_up=30s"];
    let quickstart = ["run", "quickstart", "--no-gate", "--quiet", "--out", "two"];
    assert_eq!(said(folder, &[&quickstart[..], &short].concat()).code, Some(0));
    for (before, after) in [("one", "two"), ("two", "one")] {
        let told = said(folder, &["diff", before, after]);
        assert_eq!(told.code, Some(0), "{}", told.error);
        assert!(told.out.contains("–"), "{}", told.out);
    }
}

#[test]
fn differences_have_intervals_and_a_result_does_not_differ_from_itself() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = scratch.path();
    assert_eq!(run(folder, "one", &["--replications", "4"]).code, Some(0));
    let slower = ["--replications", "4", "--set", "pool.gpu.replicas=1", "--set", "seed=9"];
    assert_eq!(run(folder, "two", &slower).code, Some(0));
    let json = |one: &str, two: &str| -> Value {
        let told = said(folder, &["diff", one, two, "--format", "json"]);
        assert_eq!(told.code, Some(0), "{}", told.error);
        serde_json::from_str(&told.out).expect("JSON")
    };
    let differences = |value: &Value| value["differences"].as_array().expect("a list").clone();
    for one in differences(&json("one", "one")) {
        assert_eq!((one["difference"].as_f64(), &one["evidence"]), (Some(0.0), &"none".into()));
    }
    let value = json("one", "two");
    assert_eq!(value["separate"], true);
    let before: Value = serde_json::from_str(&read(folder.join("one/summary.json"))).expect("JSON");
    let after: Value = serde_json::from_str(&read(folder.join("two/summary.json"))).expect("JSON");
    for one in differences(&value) {
        let class = |summary: &Value| {
            let classes = summary["classes"].as_array().expect("a list");
            classes.iter().find(|class| class["name"] == one["class"]).expect("it is there").clone()
        };
        if one["measure"] != "p99 TTFT" {
            continue;
        }
        let p99 = |summary| class(summary)["numbers"]["latency"]["ttft"]["p99"]["value"].as_f64();
        let expected = p99(&after).expect("a number") - p99(&before).expect("a number");
        assert!((one["difference"].as_f64().expect("a number") - expected).abs() < 1e-9);
        let low = one["interval"][0].as_f64().expect("an end");
        let high = one["interval"][1].as_f64().expect("an end");
        assert!(low <= expected && expected <= high, "{one}");
    }
}

#[test]
fn results_of_another_version_and_partial_ones_are_told() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = scratch.path();
    assert_eq!(run(folder, "now", &[]).code, Some(0));
    let text = read(folder.join("now/summary.json"));
    let later = text.replacen("\"schema_version\": 1", "\"schema_version\": 7", 1);
    std::fs::write(folder.join("later.json"), later).expect("room");
    for arguments in [&["diff", "now", "later.json"][..], &["diff", "later.json", "now"][..]] {
        let wrong = said(folder, arguments);
        assert_eq!(wrong.code, Some(2));
        assert!(
            wrong.error.contains("version 7 of the layout, written by plimsoll"),
            "{}",
            wrong.error
        );
    }
    let partial = text.replacen("\"partial\": false", "\"partial\": true", 1);
    std::fs::write(folder.join("partial.json"), partial).expect("room");
    let told = said(folder, &["diff", "now", "partial.json"]);
    assert!(told.out.contains("PARTIAL"), "{}", told.out);
}

/// The documented rules of the trace event format that Perfetto's importer needs. Its own trace
/// processor comes from no package registry: its Python package downloads the binary elsewhere.
#[test]
fn a_trace_keeps_the_rules_of_its_format() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = scratch.path();
    let said = run(folder, "traced", &["--trace", "20s..40s"]);
    assert_eq!(said.code, Some(0), "{}", said.error);
    let trace: Value = serde_json::from_str(&read(folder.join("traced/trace.json"))).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("a list");
    let number = |event: &Value, key: &str| event[key].as_f64().expect("a number");
    let track = |event: &Value| (number(event, "pid") as u64, event["tid"].as_u64());
    let mut slices: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
    let (mut begun, mut named, mut kinds) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    for event in events {
        let kind = event["ph"].as_str().expect("a phase").to_owned();
        *kinds.entry(kind.clone()).or_insert(0) += 1;
        assert!(event["name"].is_string() && event["pid"].is_u64(), "{event}");
        match kind.as_str() {
            "M" => drop(named.insert(track(event))),
            "X" => {
                let (from, length) = (number(event, "ts"), number(event, "dur"));
                assert!(from >= 0.0 && length >= 0.0, "{event}");
                // What touches the window: [20 s, 40 s].
                assert!(from <= 40e6 && from + length >= 20e6, "{event}");
                assert!(named.contains(&track(event)), "the track has a name: {event}");
                slices.entry(track(event)).or_default().push((from, from + length));
            }
            "s" => drop(begun.insert(event["id"].as_u64(), number(event, "ts"))),
            "C" => assert!(
                event["args"]
                    .as_object()
                    .is_some_and(|values| { values.values().all(Value::is_number) })
            ),
            "t" | "f" => {}
            other => panic!("an unknown phase {other}"),
        }
    }
    for event in events.iter().filter(|event| event["ph"] == "f" || event["ph"] == "t") {
        let since = begun.get(&event["id"].as_u64()).expect("a flow has a beginning");
        assert!(*since <= number(event, "ts"), "{event}");
    }
    for kind in ["M", "X", "s", "f", "C"] {
        assert!(kinds.get(kind).is_some_and(|count| *count > 5), "{kind}: {kinds:?}");
    }
    for ((pid, tid), mut slices) in slices {
        if pid == 1 {
            continue;
        }
        slices.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let mut open: Vec<f64> = Vec::new();
        for (from, to) in slices {
            open.retain(|end| *end > from + 1e-3);
            assert!(
                open.iter().all(|end| to <= end + 1e-3),
                "{pid} {tid:?}: {from} to {to} overlaps"
            );
            open.push(to);
        }
    }
}

#[test]
fn the_published_schema_is_the_schema_and_every_shipped_scenario_keeps_it() {
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/summary.schema.json");
    let schema = plimsoll_report::summary_schema();
    let text = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&published, &text).expect("room");
    }
    assert!(read(&published) == text, "docs/summary.schema.json is stale: UPDATE_EXPECT=1");
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    let mut kept = 0;
    for name in plimsoll_scenario::templates().filter(|name| !matches!(*name, "gateway")) {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let short = ["--set", "run.duration=60s", "--set", "run.warm_up=5s"];
        let arguments = ["run", name, "--no-files", "--no-gate", "--quiet", "--format", "json"];
        let told = said(scratch.path(), &[&arguments[..], &short].concat());
        assert_eq!(told.code, Some(0), "{name}: {}", told.error);
        let summary: Value = serde_json::from_str(&told.out).expect("JSON");
        let wrong: Vec<String> = validator
            .iter_errors(&summary)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert!(wrong.is_empty(), "{name}: {wrong:?}");
        kept += 1;
    }
    assert!(kept > 15);
    let mut broken = serde_json::json!({ "schema_version": 1 });
    assert!(!validator.is_valid(&broken), "the schema refuses what is no summary");
    broken["verdict"] = "splendid".into();
    assert!(!validator.is_valid(&broken));
}
