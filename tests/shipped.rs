//! The shipped scenarios show what they are for, with more than one seed.

mod support;

use serde_json::Value;
use support::plimsoll;

const SEEDS: [u64; 3] = [1, 2, 3];

/// summary.json of a shipped scenario.
fn run(name: &str, seed: u64) -> Value {
    let mut command = plimsoll();
    command.args(["run", name, "--quiet", "--no-files", "--no-gate", "--format", "json"]);
    command.args(["--seed", &seed.to_string()]);
    let output = command.assert().success().get_output().stdout.clone();
    serde_json::from_slice(&output).expect("summary.json is JSON")
}

fn class<'a>(summary: &'a Value, name: &str) -> &'a Value {
    let classes = summary["classes"].as_array().expect("classes");
    classes.iter().find(|class| class["name"] == name).expect("the class")
}

/// Whether every objective of a class was met.
fn meets(summary: &Value, class: &str) -> bool {
    let objectives = summary["objectives"].as_array().expect("objectives");
    let own: Vec<&Value> = objectives.iter().filter(|one| one["class"] == class).collect();
    assert!(!own.is_empty(), "{class} is promised something");
    own.iter().all(|one| one["result"] == "pass")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is a number"))
}

fn sentence<'a>(summary: &'a Value, name: &str) -> &'a str {
    class(summary, name)["waiting"]["sentence"].as_str().expect("a sentence")
}

/// Seconds for which some of a class waited and none of it was served.
fn longest_without_service(summary: &Value, name: &str) -> f64 {
    let gap = &class(summary, name)["waiting"]["longest_without_service"];
    if gap.is_null() { 0.0 } else { number(&gap["seconds"]) }
}

fn worst_wait(summary: &Value, name: &str) -> f64 {
    number(&class(summary, name)["waiting"]["worst_wait"]["seconds"])
}

#[test]
fn first_come_first_served_lets_batch_hurt_chat() {
    for seed in SEEDS {
        let summary = run("noisy-neighbour", seed);
        assert_eq!(summary["verdict"], "fail", "seed {seed}");
        assert!(!meets(&summary, "chat") && meets(&summary, "batch"), "seed {seed}");
        assert!(
            number(&class(&summary, "chat")["numbers"]["latency"]["ttft"]["p99"]["value"]) > 60.0
        );
        let batch = &class(&summary, "chat")["waiting"]["meanwhile"][0];
        assert_eq!(batch["class"], "batch", "seed {seed}");
        let (held, due) = (number(&batch["seat_share"]), number(&batch["entitlement"]));
        assert!(held > 4.0 * due, "batch held {held} of the seats, by weight {due}");
        let words = sentence(&summary, "chat");
        for part in ["because batch held", "above its share (weight 1 of 13)", "waited for seats"] {
            assert!(words.contains(part), "{words}");
        }
        let line = summary["verdict_line"].as_str().expect("a line");
        assert!(line.contains("(because batch held the seats)"), "{line}");
        let above = matrix(&summary, "chat", "batch", "above_share");
        assert!(above > 0.25, "{above} of its waiting falls on batch above its share");
        let alarms = summary["alarms"].as_array().expect("alarms");
        let lag = alarms.iter().find(|alarm| alarm["kind"] == "lag" && alarm["class"] == "chat");
        let lag = lag.unwrap_or_else(|| panic!("{alarms:?}"));
        assert_eq!((&lag["culprit"], &lag["resource"]), (&"batch".into(), &"seats".into()));
        let next = summary["next"].to_string();
        assert!(next.contains("chat waited behind batch, which is less important"), "{next}");
    }
}

#[test]
fn priority_without_a_guard_starves_batch() {
    for seed in SEEDS {
        let summary = run("noisy-neighbour-priority", seed);
        assert!(meets(&summary, "chat") && !meets(&summary, "batch"), "seed {seed}");
        assert_eq!(class(&summary, "batch")["waiting"]["fate"], "starved", "seed {seed}");
        // As long as the agents rush.
        let gap = longest_without_service(&summary, "batch");
        assert!((890.0..960.0).contains(&gap), "seed {seed}: {gap} s");
        let words = sentence(&summary, "batch");
        for part in [
            "starved: no request was let in for 15.",
            "chat and agents were served",
            "a guard would",
        ] {
            assert!(words.contains(part), "{words}");
        }
        let line = summary["verdict_line"].as_str().expect("a line");
        assert!(line.contains("batch starved for 15."), "{line}");
    }
}

#[test]
fn the_guard_bounds_the_wait_of_batch() {
    for seed in SEEDS {
        let guarded = run("noisy-neighbour-priority-guard", seed);
        let bare = run("noisy-neighbour-priority", seed);
        assert!(meets(&guarded, "chat") && meets(&guarded, "batch"), "seed {seed}");
        assert_ne!(class(&guarded, "batch")["waiting"]["fate"], "starved", "seed {seed}");
        let (gap, without) =
            (longest_without_service(&guarded, "batch"), longest_without_service(&bare, "batch"));
        assert!(gap < 20.0 && without > 40.0 * gap, "seed {seed}: {gap} s, {without} s unguarded");
        let (wait, without) = (worst_wait(&guarded, "batch"), worst_wait(&bare, "batch"));
        assert!(
            wait < 900.0 && without > 1.8 * wait,
            "seed {seed}: {wait} s, {without} s unguarded"
        );
        let due = number(&class(&guarded, "batch")["waiting"]["due"]);
        let offered = number(&class(&guarded, "batch")["numbers"]["counts"]["offered"]);
        assert!(due > 0.3 * offered, "seed {seed}: {due} of {offered} were due");
        let words = sentence(&guarded, "batch");
        assert!(words.contains("in because they were due"), "{words}");
        // Who pays: the agents, from whom the seats are taken.
        assert!(!meets(&guarded, "agents") && meets(&bare, "agents"), "seed {seed}");
    }
}

#[test]
fn the_other_variants_have_the_character_their_comments_say() {
    for seed in SEEDS {
        let fcfs = run("noisy-neighbour", seed);
        let counters = run("noisy-neighbour-vtc", seed);
        assert!(meets(&counters, "chat"), "seed {seed}: chat asks for less than its share");
        assert!(longest_without_service(&counters, "batch") < 60.0, "seed {seed}");
        let chat_p99 = |summary: &Value| {
            number(&class(summary, "chat")["numbers"]["latency"]["ttft"]["p99"]["value"])
        };
        let aging = run("noisy-neighbour-aging", seed);
        assert!(!meets(&aging, "chat") && chat_p99(&aging) < chat_p99(&fcfs), "seed {seed}");
        let caps = run("noisy-neighbour-caps", seed);
        assert!(!meets(&caps, "chat") && chat_p99(&caps) < chat_p99(&fcfs) / 3.0, "seed {seed}");
        assert!(worst_wait(&caps, "batch") > worst_wait(&fcfs, "batch"), "seed {seed}");
    }
}

#[test]
fn the_first_scenario_passes() {
    for seed in SEEDS {
        let summary = run("quickstart", seed);
        assert_eq!(summary["verdict"], "pass", "seed {seed}");
        assert_eq!(summary["conservation"]["offered"], summary["conservation"]["finished"]);
    }
}

/// How much of a class's waiting falls on another that held the seats.
fn matrix(summary: &Value, victim: &str, culprit: &str, kind: &str) -> f64 {
    let parts = class(summary, victim)["waiting"]["blame"].as_array().expect("parts");
    let is_meant = |part: &&Value| {
        part["kind"] == kind && part["culprit"] == culprit && part["resource"] == "seats"
    };
    parts.iter().find(is_meant).map_or(0.0, |part| number(&part["share"]))
}

#[test]
fn the_parts_of_waiting_sum_to_it_to_the_nanosecond() {
    for name in [
        "noisy-neighbour",
        "noisy-neighbour-priority",
        "noisy-neighbour-priority-guard",
        "noisy-neighbour-vtc",
        "noisy-neighbour-aging",
        "noisy-neighbour-caps",
        "quickstart",
    ] {
        let summary = run(name, 1);
        for class in summary["classes"].as_array().expect("classes") {
            let waiting = &class["waiting"];
            let parts = waiting["blame"].as_array().expect("parts");
            let nanos = |value: &Value| value.as_u64().expect("a whole number");
            let all: u64 = parts.iter().map(|part| nanos(&part["nanos"])).sum();
            assert_eq!(all, nanos(&waiting["waited_nanos"]), "{name}: {class}");
            let causes = waiting["waited_for"].as_array().expect("causes");
            let seconds: f64 = causes.iter().map(|cause| number(&cause["seconds"])).sum();
            assert!((seconds * 1e9 - all as f64).abs() <= 1e-7 * all as f64, "{name}: {class}");
        }
    }
}

/// What attribution adds is all that it changes.
#[test]
fn attribution_changes_nothing_else() {
    let run = |attribution: &str| {
        let mut command = plimsoll();
        command.args(["run", "noisy-neighbour", "--quiet", "--no-files", "--no-gate"]);
        command.args(["--format", "json", "--set", &format!("run.attribution={attribution}")]);
        let output = command.assert().success().get_output().stdout.clone();
        let summary: Value = serde_json::from_slice(&output).expect("summary.json is JSON");
        summary
    };
    let (on, mut off) = (run("on"), run("off"));
    for (class, with) in off["classes"]
        .as_array_mut()
        .expect("classes")
        .iter_mut()
        .zip(on["classes"].as_array().expect("classes"))
    {
        assert_eq!(class["waiting"]["blame"], serde_json::json!([]));
        for key in ["blame", "inversion_seat_s", "sentence"] {
            class["waiting"][key] = with["waiting"][key].clone();
        }
    }
    assert_eq!(off["alarms"], serde_json::json!([]));
    off["alarms"] = on["alarms"].clone();
    off["verdict_line"] = on["verdict_line"].clone();
    off["scenario"]["hash"] = on["scenario"]["hash"].clone();
    assert_eq!(on, off);
}
