//! The shipped scenarios show what they are for, with more than one seed.

mod support;

use serde_json::Value;
use support::plimsoll;

const SEEDS: [u64; 3] = [1, 2, 3];

/// summary.json of a shipped scenario.
fn run(name: &str, seed: u64) -> Value {
    run_with(name, seed, &[])
}

/// The same with overrides.
fn run_with(name: &str, seed: u64, overrides: &[&str]) -> Value {
    let mut command = plimsoll();
    command.args(["run", name, "--quiet", "--no-files", "--no-gate", "--format", "json"]);
    command.args(["--seed", &seed.to_string()]);
    command.args(overrides.iter().flat_map(|one| ["--set", one]));
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
        for part in
            ["meanwhile batch held", "of the taken seats", "(weight 1 of 13)", "waited for seats"]
        {
            assert!(words.contains(part), "{words}");
        }
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

fn pool_memory(summary: &Value, name: &str) -> f64 {
    let pools = summary["pools"].as_array().expect("pools");
    let pool = pools.iter().find(|pool| pool["name"] == name).expect("the pool");
    number(&pool["utilization"]["kv_occupancy"]["value"])
}

#[test]
fn local_first_fills_the_office_and_spills_late() {
    for seed in SEEDS {
        let near = run("local-first", seed);
        let spread = run_with("local-first", seed, &["policy.place=least-tokens"]);
        for name in ["chat", "records", "drafts"] {
            assert!(meets(&near, name), "seed {seed}: {name}");
        }
        // What can stay in the office does.
        let (office, cloud) = (pool_memory(&near, "office"), pool_memory(&near, "cloud"));
        assert!(office > 2.0 * pool_memory(&spread, "office"), "seed {seed}: {office}");
        assert!(cloud < 0.5 * pool_memory(&spread, "cloud"), "seed {seed}: {cloud}");
        // Chat goes to the cloud once its oldest request has waited five seconds, not before.
        let wait = worst_wait(&near, "chat");
        assert!((5.0..5.5).contains(&wait), "seed {seed}: {wait} s");
        assert!(worst_wait(&spread, "chat") < 1.0, "seed {seed}");
        // Drafts, which only the cloud serves, wait for nobody in the office.
        assert!(worst_wait(&near, "drafts") < 1.0, "seed {seed}");
        // If chat may not leave either, what is over waits in the office.
        let only = run_with("local-first", seed, &["class.chat.sites=[\"office\"]"]);
        assert!(!meets(&only, "chat") && worst_wait(&only, "chat") > 20.0, "seed {seed}");
    }
}

#[test]
fn a_quota_comes_back_when_its_owner_does() {
    for seed in SEEDS {
        let lent = run("quota", seed);
        let bare = run_with("quota", seed, &["policy.partition=[]"]);
        assert!(meets(&lent, "product") && !meets(&bare, "product"), "seed {seed}");
        let (wait, without) = (worst_wait(&lent, "product"), worst_wait(&bare, "product"));
        assert!(wait < 5.0 && without > 60.0, "seed {seed}: {wait} s, {without} s first come");
        // Without lending the borrower goes without seats that idle.
        let kept = run_with("quota", seed, &[KEPT]);
        assert!(worst_wait(&kept, "product") < 5.0, "seed {seed}");
        let done =
            |summary: &Value| number(&class(summary, "research")["numbers"]["counts"]["finished"]);
        assert!(done(&lent) > 1.2 * done(&kept), "seed {seed}: {} lent", done(&lent));
    }
}

/// The quota without lending.
const KEPT: &str = r#"policy.partition=[{ rule = "quota", groups = [
    { name = "all", nominal = 64 },
    { name = "product", parent = "all", nominal = 32, lend_max = 0, classes = ["product"] },
    { name = "research", parent = "all", nominal = 32, lend_max = 0, classes = ["research"] },
] }]"#;
