//! The shipped scenarios show what they are for, with more than one seed.

mod support;

use serde_json::Value;
use support::plimsoll;

const SEEDS: [u64; 3] = [1, 2, 3];

/// summary.json of a shipped scenario.
fn run(name: &str, seed: u64) -> Value {
    run_with(name, &[], seed)
}

/// summary.json of a shipped scenario with some values set.
fn run_with(name: &str, set: &[&str], seed: u64) -> Value {
    let mut command = plimsoll();
    command.args(["run", name, "--quiet", "--no-files", "--no-gate", "--format", "json"]);
    command.args(set.iter().flat_map(|value| ["--set", value]));
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

fn pool_memory(summary: &Value, name: &str) -> f64 {
    let pools = summary["pools"].as_array().expect("pools");
    let pool = pools.iter().find(|pool| pool["name"] == name).expect("the pool");
    number(&pool["utilization"]["kv_occupancy"]["value"])
}

#[test]
fn local_first_fills_the_office_and_spills_late() {
    for seed in SEEDS {
        let near = run("local-first", seed);
        let spread = run_with("local-first", &["policy.place=least-tokens"], seed);
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
        let only = run_with("local-first", &["class.chat.sites=[\"office\"]"], seed);
        assert!(!meets(&only, "chat") && worst_wait(&only, "chat") > 20.0, "seed {seed}");
    }
}

#[test]
fn a_quota_comes_back_when_its_owner_does() {
    for seed in SEEDS {
        let lent = run("quota", seed);
        let bare = run_with("quota", &["policy.partition=[]"], seed);
        assert!(meets(&lent, "product") && !meets(&bare, "product"), "seed {seed}");
        let (wait, without) = (worst_wait(&lent, "product"), worst_wait(&bare, "product"));
        assert!(wait < 5.0 && without > 60.0, "seed {seed}: {wait} s, {without} s first come");
        // Without lending the borrower goes without seats that idle.
        let kept = run_with("quota", &[KEPT], seed);
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
        for key in ["blame", "inversion_seat_s", "unfair_idle_s", "sentence"] {
            class["waiting"][key] = with["waiting"][key].clone();
        }
        assert_eq!(class["numbers"]["slowdown"]["count"], 0);
        for key in ["slowdown", "overtakes"] {
            class["numbers"][key] = with["numbers"][key].clone();
        }
    }
    for key in ["slowdown", "overtakes"] {
        off["run"][key] = on["run"][key].clone();
    }
    for (tenant, with) in off["tenants"]
        .as_array_mut()
        .expect("tenants")
        .iter_mut()
        .zip(on["tenants"].as_array().expect("tenants"))
    {
        tenant["slowdown"] = with["slowdown"].clone();
    }
    assert_eq!(off["alarms"], serde_json::json!([]));
    off["alarms"] = on["alarms"].clone();
    off["verdict_line"] = on["verdict_line"].clone();
    off["scenario"]["hash"] = on["scenario"]["hash"].clone();
    assert_eq!(on, off);
}

/// The scenarios that each show one rule, and the same load without it as their comments say.
mod rules {
    use super::*;

    /// The number that `of` reads, under the rule and with the values set.
    fn both(name: &str, without: &str, seed: u64, of: impl Fn(&Value) -> f64) -> (f64, f64) {
        (of(&run(name, seed)), of(&run_with(name, &[without], seed)))
    }

    fn engine_share(summary: &Value, name: &str) -> f64 {
        number(&class(summary, name)["waiting"]["engine_share"])
    }
    fn ttft(summary: &Value, name: &str, at: &str) -> f64 {
        number(&class(summary, name)["numbers"]["latency"]["ttft"][at]["value"])
    }
    fn finished(summary: &Value, name: &str) -> f64 {
        number(&class(summary, name)["numbers"]["counts"]["finished"])
    }

    #[test]
    fn start_time_fair_is_equal_in_tokens_and_stride_in_requests() {
        for seed in SEEDS {
            let stride = "policy.share={ rule = \"stride\" }";
            let questions = |summary: &Value| engine_share(summary, "questions");
            let (fair, in_requests) = both("rule-start-time-fair", stride, seed, questions);
            assert!((0.45..0.6).contains(&fair), "seed {seed}: {fair}");
            assert!(in_requests < 0.2, "seed {seed}: {in_requests}");
            let requests = run_with("rule-start-time-fair", &[stride], seed);
            let (one, other) = (finished(&requests, "questions"), finished(&requests, "documents"));
            assert!((0.97..1.03).contains(&(one / other)), "seed {seed}: {one} and {other}");
        }
    }

    #[test]
    fn dominant_resource_gives_readers_what_they_read() {
        for seed in SEEDS {
            let read = |summary: &Value| {
                number(&class(summary, "readers")["numbers"]["input_tps"]["value"]) / 12_000.0
            };
            let wrote = |summary: &Value| {
                number(&class(summary, "writers")["numbers"]["output_tps"]["value"]) / 900.0
            };
            let fair = run("rule-dominant-resource", seed);
            let (readers, writers) = (read(&fair), wrote(&fair));
            assert!((readers - writers).abs() < 0.05, "seed {seed}: {readers} and {writers}");
            let counter = "policy.share=virtual-token-counter";
            let by_tokens = run_with("rule-dominant-resource", &[counter], seed);
            assert!(read(&by_tokens) < 0.4 * wrote(&by_tokens), "seed {seed}");
        }
    }

    #[test]
    fn each_workflow_gets_the_same_whoever_runs_it() {
        for seed in SEEDS {
            // Three workflows of one tenant, sixty of another.
            let of_few = |summary: &Value| finished(summary, "agents") / 3.0;
            let of_many = |summary: &Value| finished(summary, "swarm") / 60.0;
            let fair = run("rule-workflows", seed);
            let ratio = of_few(&fair) / of_many(&fair);
            assert!((0.8..1.25).contains(&ratio), "seed {seed}: {ratio}");
            let by_tenant = run_with("rule-workflows", &["policy.share.per=tenant"], seed);
            let ratio = of_few(&by_tenant) / of_many(&by_tenant);
            assert!(ratio > 5.0, "seed {seed}: {ratio}");
        }
    }

    #[test]
    fn the_earliest_deadline_first_meets_both() {
        for seed in SEEDS {
            let by_deadline = run("rule-edf", seed);
            assert!(meets(&by_deadline, "typing") && meets(&by_deadline, "reports"), "{seed}");
            let by_arrival = run_with("rule-edf", &["policy.order=fcfs"], seed);
            assert!(!meets(&by_arrival, "typing") && meets(&by_arrival, "reports"), "{seed}");
        }
    }

    #[test]
    fn short_workflows_are_not_held_up_by_long_ones() {
        for seed in SEEDS {
            let median = |summary: &Value| {
                let tenants = summary["tenants"].as_array().expect("tenants");
                let people = tenants.iter().find(|tenant| tenant["name"] == "people");
                let waits = &people.expect("people")["ttft"]["p50"]["value"];
                number(waits)
            };
            let (least, arrival) = both("rule-least-attained", "policy.order=fcfs", seed, median);
            assert!(arrival > 20.0 && least < arrival / 5.0, "seed {seed}: {least}, {arrival}");
        }
    }

    #[test]
    fn who_poses_as_light_is_told_by_cost() {
        for seed in SEEDS {
            let claimed = "policy.classify=[{ rule = \"match\" }]";
            let slow = |summary: &Value| ttft(summary, "chat", "p99");
            let (told, believed) = both("rule-cost-bucket", claimed, seed, slow);
            assert!(told < 0.7 * believed, "seed {seed}: {told} s, {believed} s");
        }
    }

    fn refused(summary: &Value, name: &str, how: &str) -> f64 {
        class(summary, name)["numbers"]["counts"]["refused"][how].as_f64().unwrap_or(0.0)
    }

    #[test]
    fn the_token_bucket_holds_a_tenant_to_its_rate() {
        for seed in SEEDS {
            let held = run("rule-token-bucket", seed);
            let open = run_with("rule-token-bucket", &["policy.admit=[]"], seed);
            assert!(meets(&held, "chat") && !meets(&open, "chat"), "seed {seed}");
            let slow = |summary: &Value| ttft(summary, "chat", "p99");
            assert!(slow(&held) < 0.1 * slow(&open), "seed {seed}: {} s", slow(&held));
            assert_eq!(refused(&held, "chat", "rate_limited"), 0.0, "seed {seed}");
            assert!(refused(&held, "agents", "rate_limited") > 1_000.0, "seed {seed}");
            // What it used, not what was reserved, stays within its rate and its burst; of that it
            // gets the most while it asks for more, two minutes of five.
            let tokens = |summary: &Value| {
                let numbers = &class(summary, "agents")["numbers"];
                number(&numbers["input_tps"]["value"]) + number(&numbers["output_tps"]["value"])
            };
            assert!((2_000.0..4_100.0).contains(&tokens(&held)), "seed {seed}: {}", tokens(&held));
        }
    }

    #[test]
    fn the_saturation_gate_turns_batch_away_and_not_chat() {
        for seed in SEEDS {
            let (gated, open) = (
                run("rule-admission", seed),
                run_with("rule-admission", &["policy.admit=[]"], seed),
            );
            let slow = |summary: &Value| ttft(summary, "chat", "p95");
            assert!(slow(&gated) < 2.0 && slow(&open) > 60.0, "seed {seed}: {} s", slow(&gated));
            let offered = number(&class(&gated, "batch")["numbers"]["counts"]["offered"]);
            let turned_away = refused(&gated, "batch", "saturated") / offered;
            assert!((0.4..0.8).contains(&turned_away), "seed {seed}: {turned_away}");
            assert_eq!(refused(&gated, "chat", "saturated"), 0.0, "seed {seed}");
        }
    }

    #[test]
    fn who_comes_in_past_early_refusal_is_in_time() {
        for seed in SEEDS {
            let (early, late) = (
                run("rule-early-refusal", seed),
                run_with("rule-early-refusal", &["policy.admit=[]"], seed),
            );
            assert!(ttft(&early, "chat", "p99") < 5.0, "seed {seed}");
            assert!(ttft(&late, "chat", "p50") > 60.0, "seed {seed}");
            // Nothing is wasted: of what is offered at half as much again a third is refused.
            let offered = number(&class(&early, "chat")["numbers"]["counts"]["offered"]);
            let hopeless = refused(&early, "chat", "infeasible") / offered;
            assert!((0.15..0.33).contains(&hopeless), "seed {seed}: {hopeless}");
            // In time: what came in, against next to nobody.
            let in_time = |summary: &Value| {
                number(&class(summary, "chat")["numbers"]["slo_attainment"]["value"])
            };
            let (most, none) = (in_time(&early), in_time(&late));
            assert!(most > 0.7 && none < 0.05, "seed {seed}: {most} and {none}");
        }
    }

    #[test]
    fn an_adaptive_limit_keeps_the_queue_where_priority_acts() {
        for seed in SEEDS {
            let alone = "policy.feedback=[]";
            let slow = |summary: &Value| ttft(summary, "chat", "p95");
            let (adaptive, without) = both("rule-adaptive", alone, seed, slow);
            assert!(adaptive < 1.5 && without > 60.0, "seed {seed}: {adaptive} s, {without} s");
            // It costs no throughput: the same batch is done in the same time.
            let done = |summary: &Value| finished(summary, "batch");
            let (adaptive, without) = both("rule-adaptive", alone, seed, done);
            assert!(adaptive >= without, "seed {seed}: {adaptive} and {without}");
        }
    }

    #[test]
    fn eviction_makes_room_for_chat() {
        for seed in SEEDS {
            let slow = |summary: &Value| ttft(summary, "chat", "p95");
            let (evicting, waiting) = both("rule-evict", "policy.feedback=[]", seed, slow);
            assert!(
                evicting < 2.0 && waiting > 2.5 * evicting,
                "seed {seed}: {evicting}, {waiting}"
            );
            let summary = run("rule-evict", seed);
            let counts =
                |name: &str| class(&summary, name)["numbers"]["counts"]["evicted"].as_f64();
            let batch = counts("batch").unwrap_or(0.0);
            assert!((40.0..200.0).contains(&batch), "seed {seed}: {batch}");
            assert_eq!(counts("chat").unwrap_or(0.0), 0.0, "seed {seed}");
        }
    }

    /// A wave of work: more replicas are wanted once it comes, and no more once it has gone. It is
    /// advice, and nothing else of the run changes.
    #[test]
    fn autoscaling_is_advice() {
        let wave = "workload.chat.arrivals={ process = \"piecewise\", repeat = true, \
                    pieces = [{ for = \"5m\", rate = \"2/s\" }, { for = \"5m\", rate = \"6/s\" }] }";
        let advise = "policy.feedback=[{ rule = \"autoscale\", max = 8, cool_down = \"1m\", down_after = \"2m\" }]";
        for seed in SEEDS {
            let common = ["policy.admit=[]", wave];
            let plain = run_with("rule-early-refusal", &common, seed);
            let advised = run_with("rule-early-refusal", &[&common[..], &[advise]].concat(), seed);
            assert_eq!(plain["classes"], advised["classes"], "seed {seed}");
            assert!(plain["advice"].is_null(), "seed {seed}");
            let advice = advised["advice"].as_array().expect("advice");
            let first = &advice[0];
            assert!((300.0..420.0).contains(&number(&first["at_s"])), "seed {seed}: {first}");
            assert_eq!((&first["present"], &first["wanted"]), (&1.into(), &2.into()), "{first}");
            let words = first["sentence"].as_str().expect("words");
            assert!(words.contains("gpu wanted 1 more replica (2, not 1)"), "{words}");
            assert_eq!(advice[1]["wanted"], 1, "seed {seed}: {advice:?}");
            let apart =
                advice.windows(2).map(|two| number(&two[1]["at_s"]) - number(&two[0]["at_s"]));
            assert!(apart.into_iter().all(|seconds| seconds >= 60.0), "seed {seed}: {advice:?}");
        }
    }

    /// If nobody but those who try again comes, three in ten seconds come in.
    #[test]
    fn retries_come_in_by_their_budget() {
        let budget = "policy.admit=[{ rule = \"retry-budget\", min = 3, window = \"10s\" }]";
        for seed in SEEDS {
            let storm = run_with("rule-early-refusal", &[budget, "workload.chat.attempt=1"], seed);
            // Nineteen minutes are measured: 342, and three more or less at either end.
            let came_in = finished(&storm, "chat");
            assert!((336.0..349.0).contains(&came_in), "seed {seed}: {came_in}");
            let first = run_with("rule-early-refusal", &[budget], seed);
            assert_eq!(refused(&first, "chat", "rate_limited"), 0.0, "seed {seed}");
        }
    }
}

/// Long prompts do not stretch the gaps of a chat any more, on the same devices; the first token pays.
#[test]
fn prompts_computed_apart_leave_the_gaps_of_others_alone() {
    let together = ["pool.gpu.disaggregated.on=false", "pool.gpu.replicas=2"];
    for seed in SEEDS {
        let (apart, together) =
            (run("disaggregated", seed), run_with("disaggregated", &together, seed));
        assert_eq!(apart["verdict"], "pass", "seed {seed}");
        assert!(!meets(&together, "chat"), "seed {seed}");
        let p99 = |summary: &Value, of: &str| {
            number(&class(summary, "chat")["numbers"]["latency"][of]["p99"]["value"])
        };
        assert!(p99(&together, "itl") > 4.0 * p99(&apart, "itl"), "seed {seed}");
        assert!(p99(&together, "ttft") < p99(&apart, "ttft"), "seed {seed}");
    }
}

/// A slow link shows as what it is.
#[test]
fn a_wait_for_the_link_is_told() {
    let slow = ["pool.gpu.disaggregated.link.bandwidth_per_s=2GB"];
    let summary = run_with("disaggregated", &slow, 1);
    assert!(sentence(&summary, "chat").contains("the link for KV"), "{summary}");
}
