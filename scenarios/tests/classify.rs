//! Classification, from the file to the class that a request gets.

use std::path::PathBuf;

use plimsoll_base::ClassId;
use plimsoll_policy::RequestInfo;
use plimsoll_scenario::{Scenario, load};
use plimsoll_sim::workload::{Marks, Together};

const FILE: &str = r#"
schema_version = 1
name = "classify"

class = [{ name = "small" }, { name = "large" }, { name = "team" }, { name = "ci" }, { name = "flex" },
    { name = "tools" }, { name = "steps" }]

[[workload]]
name = "people"
arrivals = { process = "closed", users = 2, think = "1s" }
prompt_tokens = { distribution = "uniform", min = 1, max = 9000 }
output_tokens = { distribution = "fixed", tokens = 20 }

[[workload]]
name = "agents"
users_are = "workflows"
model = "large"
stage = "tool"
headers = { X-Team = "search" }
key = "ci"
service_tier = "flex"
arrivals = { process = "closed", users = 2, think = "1s" }
prompt_tokens = { distribution = "fixed", tokens = 10 }
output_tokens = { distribution = "fixed", tokens = 20 }

[[pool]]
name = "gpu"
replicas = 1
engine = { seats = 64, step_tokens_max = 2048, kv_tokens = 100_000, context_max = 32_768 }
step_time = { kind = "affine", base = "11ms", prefill_token = "30us" }
provenance = "made up for a test"

[policy]
models = ["small", "large"]
stages = ["plan", "tool"]
classify = [
    { rule = "match", header = { name = "x-team", value = "search" }, model = "large", class = "team" },
    { rule = "match", key = "ci", class = "ci" },
    { rule = "match", service_tier = "flex", class = "flex" },
    { rule = "match", stage = "tool", class = "tools" },
    { rule = "match", in_workflow = true, class = "steps" },
    { rule = "cost-bucket", edges_tokens = [2048], classes = ["small", "large"] },
]
"#;

fn scenario() -> Scenario {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let path: PathBuf = scratch.path().join("classify.toml");
    std::fs::write(&path, FILE).expect("the file can be written");
    load(&path, &[]).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// What the gateway sees of a request that bears these marks.
fn marked(marks: &Marks, prompt_tokens: u32) -> RequestInfo {
    RequestInfo { prompt_tokens, ..marks.seen(1) }
}

#[test]
fn every_condition_leads_to_its_class() {
    let scenario = scenario();
    let [people, agents] = [&scenario.model.workloads[0].marks, &scenario.model.workloads[1].marks];
    assert_eq!(people.together, Together::Sessions, "a closed loop's users are sessions");
    let check = |info: RequestInfo, class: &str| {
        let found = scenario.model.policy.class_of(&info).map(ClassId::index);
        let names = &scenario.model.names.classes;
        assert_eq!(found.map(|index| names[index].as_str()), Some(class), "{info:?}");
    };
    check(marked(people, 2047), "small");
    check(marked(people, 2048), "large");
    let agent = marked(agents, 10);
    check(agent, "team");
    // The same without one condition after the other.
    let agent = RequestInfo { model: people.model, ..agent };
    check(agent, "ci");
    let without = |bits: u64| RequestInfo {
        labels: plimsoll_policy::Labels(agent.labels.0 & !bits),
        ..agent
    };
    check(without(0b010), "flex");
    check(without(0b110), "tools");
    check(RequestInfo { stage: people.stage, ..without(0b110) }, "steps");
}
