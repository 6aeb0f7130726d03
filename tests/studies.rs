//! `compare`, `plan` and `run --replications auto` through the command.

mod support;

use serde_json::Value;
use support::{plimsoll, scenario};

/// Runs the command in a scratch folder: exit code, stdout, stderr, how many things it left.
fn run(arguments: &[&str]) -> (i32, String, String, usize) {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let output = plimsoll().current_dir(scratch.path()).args(arguments).output();
    let output = output.expect("the command starts");
    let left = std::fs::read_dir(scratch.path()).expect("the scratch folder is there").count();
    let text = |bytes| String::from_utf8(bytes).expect("it is UTF-8");
    let code = output.status.code().expect("nobody kills it");
    (code, text(output.stdout), text(output.stderr), left)
}

fn refused(arguments: &[&str], parts: &[&str]) {
    let (code, out, error, left) = run(arguments);
    assert_eq!((code, left), (2, 0), "{arguments:?}: {error}");
    assert!(out.is_empty(), "{arguments:?}: {out}");
    for part in parts {
        assert!(error.contains(part), "{arguments:?}: {part} in {error}");
    }
}

fn json(arguments: &[&str]) -> (i32, Value) {
    let (code, out, error, _) = run(arguments);
    let value = serde_json::from_str(&out);
    (code, value.unwrap_or_else(|wrong| panic!("{arguments:?}: {wrong}\n{out}\n{error}")))
}

/// Short runs of the shipped scenario with three classes.
const SHORT: [&str; 6] =
    ["--set", "run.duration=5m", "--set", "run.warm_up=30s", "--replications", "4"];

#[test]
fn mistakes_are_refused_and_nothing_is_written() {
    let compare = |more: &[&'static str]| [&["compare", "noisy-neighbour"][..], more].concat();
    refused(&compare(&[]), &["nothing to compare with", "--policy own --policy vtc"]);
    refused(&compare(&["--policy", "own", "--policy", "vtcc"]), &["did you mean `vtc`?"]);
    refused(&compare(&["--policy", "own", "--policy", "own"]), &["there twice"]);
    refused(&compare(&["--vary", "pool.gpu.replicas"]), &["has no values"]);
    refused(&compare(&["--vary", "pool.gpux.replicas=1,2"]), &["did you mean `gpu`?"]);
    refused(
        &compare(&["--vary", "pool.gpu.replicas=1,2", "--replications", "1"]),
        &["no interval"],
    );
    let strange = ["--policy", "own", "--policy", "quickstart"];
    refused(&compare(&strange), &["has no class `chat`", "does not fit"][1..]);
    let plan = |more: &[&'static str]| [&["plan", "quickstart"][..], more].concat();
    refused(&plan(&["--policy", "fcsf"]), &["did you mean `fcfs`?"]);
    refused(&plan(&["--replicas", "5..2"]), &["write a range"]);
    refused(&plan(&["--pool", "gpus"]), &["no pool is called `gpus`", "did you mean `gpu`?"]);
    refused(&plan(&["--device", "h100-sxn"]), &["did you mean `h100-sxm`?"]);
    refused(&plan(&["--confidence", "100%"]), &["less than 100%"]);
    refused(&plan(&["--replicas", "2", "--spare", "2"]), &["nothing is left"]);
    refused(&plan(&["--prices", "nowhere.toml"]), &["cannot read `nowhere.toml`"]);
    refused(&plan(&["--set", "class.chat.slo={}"]), &["no class has an objective"]);
    refused(&["plan", "noisy-neighbour", "--months", "3"], &["--growth"]);
}

#[test]
fn a_comparison_is_printed_and_written_in_every_format() {
    let policies = ["compare", "noisy-neighbour", "--policy", "fcfs", "--policy", "vtc"];
    let command = |more: &[&'static str]| [&policies[..], &SHORT, more].concat();
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let out = scratch.path().join("result");
    let out_text = out.to_str().expect("paths are UTF-8").to_owned();
    let mut arguments: Vec<&str> = command(&["--format", "json"]);
    arguments.extend(["--out", &out_text]);
    let (code, value) = json(&arguments);
    assert_eq!((code, &value["comparison_version"]), (0, &Value::from(1)));
    assert_eq!(value["replications"], 4);
    assert_eq!(value["candidates"][1]["name"], "vtc");
    let differences = value["differences"].as_array().expect("a list");
    assert!(
        differences.iter().all(|one| one["interval"].is_array() || one["evidence"] == "unmeasured")
    );
    for file in ["comparison.json", "comparison.html", "charts/differences.svg"] {
        assert!(out.join(file).is_file(), "{file}");
    }
    let page = std::fs::read_to_string(out.join("comparison.html")).expect("it is a page");
    assert!(
        page.contains("default-src 'none'") && page.contains("<svg") && !page.contains("<script")
    );
    let (_, human, _, left) = run(&command(&["--no-files"]));
    let human = human.replace("\n  ", " ");
    assert!(human.contains("hold together with 95 %") && left == 0, "{human}");
    let (_, csv, _, _) = run(&command(&["--no-files", "--format", "csv"]));
    assert!(csv.starts_with("candidate,class,measure,unit,"), "{csv}");
    assert_eq!(csv.lines().count(), differences.len() + 1);
    let (_, md, _, _) = run(&command(&["--no-files", "--format", "md"]));
    assert!(md.contains("| candidate |"), "{md}");
}

#[test]
fn policies_of_the_file_and_variations_have_names() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let file = scratch.path().join("mine.toml");
    let text = "schema_version = 1\nextends = \"shipped:noisy-neighbour\"\nname = \"mine\"\n\
                [policy.gentle]\nshare = \"priority\"\n";
    std::fs::write(&file, text).expect("it can be written");
    let file = file.to_str().expect("paths are UTF-8");
    let variation = ["--vary", "pool.gpu.replicas=2,3", "--no-files", "--format", "json"];
    let policies = ["compare", file, "--policy", "own", "--policy", "gentle"];
    let (_, value) = json(&[&policies[..], &SHORT, &variation].concat());
    let names: Vec<&str> = value["candidates"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(
        names,
        [
            "own, pool.gpu.replicas=2",
            "own, pool.gpu.replicas=3",
            "gentle, pool.gpu.replicas=2",
            "gentle, pool.gpu.replicas=3"
        ]
    );
    assert!(value["best"]["sentence"].is_string());
    // The other policy is no part of the scenario itself.
    assert_eq!(run(&["check", file]).0, 0);
    let slip = text.replace("share =", "shares =");
    std::fs::write(file, slip).expect("it can be written");
    refused(&["check", file], &["shares"]);
}

#[test]
fn a_plan_is_printed_and_written() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let out = scratch.path().join("result");
    let out_text = out.to_str().expect("paths are UTF-8").to_owned();
    let load = ["--set", "workload.chat.arrivals.rate=20/s", "--set", "run.duration=3m"];
    let plan = ["plan", "quickstart", "--device", "h100-sxm", "--replicas", "1..8"];
    let written = ["--format", "json", "--out", &out_text];
    let (code, value) = json(&[&plan[..], &load, &written].concat());
    assert_eq!((code, &value["plan_version"]), (0, &Value::from(1)));
    assert_eq!(value["verdict"], "found");
    let answer = &value["answer"];
    let replicas = answer["hardware"][0]["replicas"].as_f64().expect("a number");
    assert_eq!(answer["price_an_hour"], Value::from(3.0 * replicas));
    assert!(value["safe_load"]["kept"].as_f64().expect("a number") >= 1.0);
    for file in ["plan.json", "plan.html", "charts/capacity.svg", "charts/frontier.svg"] {
        assert!(out.join(file).is_file(), "{file}");
    }
    let csv = ["--no-files", "--no-curves", "--format", "csv"];
    let (_, text, _, left) = run(&[&plan[..], &load, &csv].concat());
    assert!(text.starts_with("policy,hardware,devices,") && left == 0, "{text}");
    let few = ["plan", "quickstart", "--replicas", "1", "--no-files"];
    let (code, text, _, _) = run(&[&few[..], &load].concat());
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("NOTHING FITS") && text.contains("Best reachable"), "{text}");
}

#[test]
fn options_of_the_file_are_devices_to_choose_from() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let file = scratch.path().join("mine.toml");
    let text = r#"
schema_version = 1
extends = "shipped:quickstart"
name = "mine"
[run]
duration = "3m"
[plan]
replicas_max = 8
[[plan.option]]
name = "slow"
price = 1.0
set = ["step_time.base=25ms", "step_time.prefill_token=60us"]
[[plan.option]]
name = "fast"
price = 10.0
"#;
    std::fs::write(&file, text).expect("it can be written");
    let file = file.to_str().expect("paths are UTF-8");
    let plan = ["plan", file, "--no-files", "--no-curves", "--format", "json"];
    let (code, value) = json(&plan);
    assert_eq!(code, 0, "{value}");
    assert_eq!(value["answer"]["hardware"][0]["option"], "slow", "{}", value["answer"]);
    let (_, fewest) = json(&[&plan[..], &["--goal", "fewest"]].concat());
    assert!(fewest["answer"]["devices"].as_u64() <= value["answer"]["devices"].as_u64());
    let slip = text.replace("replicas_max = 8", "replicas_max = 0\npools = [\"cpu\"]");
    std::fs::write(file, slip).expect("it can be written");
    refused(&["check", file], &["from 1 to 10,000", "no pool is named `cpu`"]);
}

#[test]
fn replications_stop_at_a_precision() {
    let file = scenario("small");
    let file = file.to_str().expect("paths are UTF-8");
    let auto = |precision: &'static str, threads: &'static str| {
        let options = ["--no-files", "--no-gate", "--format", "json", "--threads", threads];
        let stop = ["--replications", "auto", "--precision", precision, "--replications-max", "40"];
        json(&[&["run", file][..], &options, &stop].concat()).1
    };
    let (rough, fine) = (auto("80%", "1"), auto("0.5%", "1"));
    assert_eq!(rough["scenario"]["replications"], 10, "{}", rough["precision"]);
    assert_eq!(rough["precision"]["reached"], true);
    let replications = fine["scenario"]["replications"].as_u64().expect("a number");
    assert!(replications > 10, "{}", fine["precision"]);
    assert!(fine["precision"]["reached"] == true || replications == 40);
    assert!(fine["warm_up"]["note"].is_string());
    assert_eq!(fine, auto("0.5%", "2"), "the number of threads does not matter");
    refused(&["run", file, "--replications", "auto", "--decisions"], &["--replications 10"]);
}

#[test]
fn one_long_trace_has_batch_means() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let trace = scratch.path().join("trace.csv");
    let mut rows = String::from("TIMESTAMP,ContextTokens,GeneratedTokens\n");
    for row in 0..4_000u32 {
        let (minute, second, micros) = (row / 120, row / 2 % 60, row % 2 * 500_000);
        let (prompt, output) = (100 + row * 7_919 % 900, 10 + row * 104_729 % 200);
        rows += &format!("2023-11-16 18:{minute:02}:{second:02}.{micros:06}0,{prompt},{output}\n");
    }
    std::fs::write(&trace, rows).expect("it can be written");
    let path = format!("workload.trace.trace.path={}", trace.display());
    let file = scenario("replay");
    let file = file.to_str().expect("paths are UTF-8");
    let run = ["run", file, "--set", &path, "--no-files", "--no-gate", "--format", "json"];
    let (_, summary) = json(&run);
    let means = summary["batch_means"].as_array().expect("one trace, replayed once");
    let mean = &means[0];
    assert_eq!((means.len(), &mean["batches"]), (1, &Value::from(32)), "{mean}");
    assert!(mean["interval"].is_array() != mean["note"].is_string(), "{mean}");
    let (_, summary) = json(&[&run[..], &["--replications", "2"]].concat());
    assert!(summary["batch_means"].is_null());
}
