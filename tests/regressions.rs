//! Faults that users of other schedulers reported. Each scenario fails under a model of the
//! original behaviour and holds under ours, by the same yardstick, with more than one seed.
//!
//! Proved on scripts of inputs, because the simulated machine caches no prefixes, loses no report
//! and has one gateway:
//! - the longest cached prefix first starves cold prompts (sglang #31954): `policies/tests/orders.rs`;
//! - reports that no longer come halt a healthy pool (llm-d-router #2408): `policies/tests/admit.rs`;
//! - bursts herd to one backend (llm-d-router #1598): `policies/tests/place.rs`.
//!
//! Left for later: shares that break across two gateway replicas (dynamo #15187), which needs
//! inputs from peers.

mod support;

use serde_json::Value;
use support::plimsoll;

const SEEDS: [u64; 3] = [1, 2, 3];

/// One fault: what turns the file into a model of the original, and into ours.
struct Regression {
    file: &'static str,
    original: &'static [&'static str],
    ours: &'static [&'static str],
}

/// summary.json of a regression scenario with some values set.
fn run(file: &str, set: &[&str], seed: u64) -> Value {
    let mut command = plimsoll();
    command.args(["run", &format!("tests/regressions/{file}.toml")]);
    command.args(["--quiet", "--no-files", "--no-gate", "--format", "json"]);
    command.args(["--seed", &seed.to_string()]);
    command.args(set.iter().flat_map(|value| ["--set", value]));
    let output = command.assert().success().get_output().stdout.clone();
    serde_json::from_slice(&output).expect("summary.json is JSON")
}

fn class<'a>(summary: &'a Value, name: &str) -> &'a Value {
    let classes = summary["classes"].as_array().expect("classes");
    classes.iter().find(|class| class["name"] == name).expect("the class")
}

/// A latency of a class in seconds, such as `ttft p99`.
fn latency(summary: &Value, name: &str, metric: &str, at: &str) -> f64 {
    let value = &class(summary, name)["numbers"]["latency"][metric][at]["value"];
    value.as_f64().expect("requests were served")
}

impl Regression {
    /// Compares one number of both, for each seed: it is above `bad` in the original and below
    /// `good` in ours.
    fn holds(&self, number: impl Fn(&Value) -> f64, bad: f64, good: f64) {
        for seed in SEEDS {
            let original = number(&run(self.file, self.original, seed));
            let ours = number(&run(self.file, self.ours, seed));
            assert!(original > bad, "{} seed {seed}: the original shows {original}", self.file);
            assert!(ours < good, "{} seed {seed}: ours shows {ours}", self.file);
        }
    }
}

/// vLLM #40004, #24365.
#[test]
fn what_is_urgent_does_not_wait_behind_taken_seats() {
    let regression = Regression {
        file: "high_behind_low",
        original: &[
            "policy.window=none",
            "class.low.requests_max=1000",
            "pool.gpu.engine.admission=priority",
        ],
        ours: &[],
    };
    regression.holds(|summary| latency(summary, "urgent", "ttft", "p99"), 2.0, 0.5);
}

/// LiteLLM #6867.
#[test]
fn a_queue_that_policy_orders_is_not_empty() {
    let regression =
        Regression { file: "empty_queue", original: &["policy.window=none"], ours: &[] };
    regression.holds(|summary| latency(summary, "urgent", "ttft", "p99"), 10.0, 0.5);
}

/// vLLM #57413.
#[test]
fn long_prompts_do_not_block_everyone_while_memory_is_short() {
    let regression =
        Regression { file: "long_prefill", original: &["policy.partition=[]"], ours: &[] };
    regression.holds(|summary| latency(summary, "short", "ttft", "p99"), 15.0, 8.0);
}

/// gateway-api-inference-extension #1861.
#[test]
fn the_lowest_band_is_served() {
    let regression =
        Regression { file: "lower_band", original: &[], ours: &["policy.guard.due_share=0.1"] };
    regression.holds(|summary| latency(summary, "lowest", "ttft", "max"), 600.0, 30.0);
}

/// Dynamo #10571.
#[test]
fn long_requests_are_not_starved_by_short_ones() {
    let regression = Regression {
        file: "shortest_first",
        original: &["policy.order=shortest-predicted"],
        ours: &[],
    };
    regression.holds(|summary| latency(summary, "long", "ttft", "max"), 600.0, 30.0);
}

/// llama.cpp #29175.
#[test]
fn one_prompt_does_not_stall_the_decoding_of_all() {
    let regression = Regression {
        file: "one_prefill",
        original: &[
            "pool.gpu.engine.chunked_prefill=false",
            "pool.gpu.engine.step_tokens_max=32768",
        ],
        ours: &[],
    };
    regression.holds(|summary| latency(summary, "chat", "itl", "max"), 1.5, 0.2);
}
