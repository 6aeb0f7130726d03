//! `plimsoll plan` divides the devices of disaggregated pools, where the best division is known.

mod support;

use serde_json::Value;
use support::plimsoll;

/// A prompt of 4,000 tokens takes 0.41 s, a decoding step 10 ms.
fn scenario(workload: &str) -> String {
    format!(
        r#"
schema_version = 1
name = "split"
[run]
duration = "4m"
warm_up = "20s"
[[class]]
name = "all"
{workload}
[[pool]]
name = "gpu"
replicas = 1
engine = {{ seats = 64, step_tokens_max = 4096, kv_tokens = 400_000, context_max = 32_768 }}
step_time = {{ kind = "affine", base = "10ms", prefill_token = "100us" }}
provenance = "made up for a test"
disaggregated = {{ prefill = 1, decode = 1, link = {{ bandwidth_per_s = "50GB", kv_token_memory = "128KiB" }} }}
[plan]
replicas_max = 6
split = {{ devices = 4, price = 2.0 }}
"#
    )
}

fn plan(workload: &str) -> Value {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let file = scratch.path().join("split.toml");
    std::fs::write(&file, scenario(workload)).expect("it can be written");
    let mut command = plimsoll();
    command.args(["plan", "--no-files", "--no-gate", "--no-curves", "--format", "json"]);
    let output = command.arg(&file).assert().success().get_output().stdout.clone();
    serde_json::from_slice(&output).expect("a plan is JSON")
}

/// Four prompts a second are 1.6 engines' work: two are too slow to begin, three are not. What
/// decodes needs one. Where one engine does both, a prompt stretches some answer beyond its
/// objective, however many engines there are.
#[test]
fn the_best_division_is_found_and_named() {
    let plan = plan(
        r#"slo = { ttft_p99 = "1.4s", tpot_p99 = "15ms" }
[[workload]]
name = "all"
class = "all"
arrivals = { process = "poisson", rate = "4/s" }
prompt_tokens = { distribution = "fixed", tokens = 4000 }
output_tokens = { distribution = "fixed", tokens = 50 }"#,
    );
    let answer = &plan["answer"];
    let hardware = &answer["hardware"][0];
    assert_eq!(hardware["option"], "3P:1D", "{plan:#}");
    assert_eq!((&hardware["replicas"], &answer["devices"]), (&1.into(), &4.into()));
    assert_eq!(answer["price_an_hour"], 8.0);
    let sentences = plan["sentences"].to_string();
    assert!(sentences.contains("The next cheaper, 2 × colocated"), "{sentences}");
}

/// Short prompts hurt nobody, and one device is enough.
#[test]
fn where_prompts_are_short_a_device_does_both() {
    let plan = plan(
        r#"slo = { ttft_p99 = "1s", tpot_p99 = "40ms" }
[[workload]]
name = "all"
class = "all"
arrivals = { process = "poisson", rate = "4/s" }
prompt_tokens = { distribution = "fixed", tokens = 200 }
output_tokens = { distribution = "fixed", tokens = 50 }"#,
    );
    let answer = &plan["answer"];
    assert_eq!(answer["hardware"][0]["option"], "colocated", "{plan:#}");
    assert_eq!(answer["devices"], 1);
    // The divisions were looked at too.
    let tried = plan.to_string();
    for division in ["1P:3D", "2P:2D", "3P:1D"] {
        assert!(tried.contains(division), "{division}");
    }
}
