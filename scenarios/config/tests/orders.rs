//! Orders, the heavy lane, bypass and deadlines, from files to rules, and what is refused.

use std::path::Path;

use plimsoll_base::Span;
use plimsoll_config::policy::{Known, build};
use plimsoll_config::spec::{ClassSpec, PolicySpec};
use plimsoll_config::{At, Diagnostics, Items, decode, read};
use plimsoll_policy::Config;
use plimsoll_policy::config::{Order, Partition, TokenCost};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    #[serde(rename = "schema_version")]
    _schema_version: u32,
    class: Items<ClassSpec>,
    policy: At<PolicySpec>,
}

const SHIPPED: &[(&str, &str)] = &[(
    "two",
    r#"
schema_version = 1
[[class]]
name = "promised"
slo = { ttft_p50 = "1s", ttft_p99 = "2s", tpot_p999 = "40ms" }
[[class]]
name = "stated"
deadline = "300ms"
slo = { ttft_p99 = "2s" }
[[class]]
name = "free"
[policy]
share = "fcfs"
"#,
)];

/// The policy of the file with these settings laid on top, or everything that is wrong.
fn policy(settings: &[&str]) -> Result<Config, String> {
    let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
    let layered = read(Path::new("shipped:two"), &settings, SHIPPED)
        .map_err(|diagnostics| diagnostics.render(false))?;
    let mut found = Vec::new();
    let built = decode::<File>(&layered.root).map(|file| {
        let classes: Vec<String> =
            file.class.0.iter().map(|class| class.name.value.clone()).collect();
        let known = Known { classes: &classes, tenants: &[], sources: &[], pools: &[] };
        build(&file.class.0, &file.policy, known, &mut found).0
    });
    match built {
        Ok(config) if found.is_empty() => Ok(config),
        Ok(_) => Err(Diagnostics { sources: layered.sources, list: found }.render(false)),
        Err(list) => Err(Diagnostics { sources: layered.sources, list }.render(false)),
    }
}

#[test]
fn orders_are_read() {
    let cost = TokenCost { prompt: 1, output: 2 };
    let shortest = |aging| Order::ShortestPredicted { aging };
    for (written, order) in [
        ("\"edf\"", Order::EarliestDeadline),
        ("{ rule = \"edf\" }", Order::EarliestDeadline),
        ("\"shortest-predicted\"", shortest(None)),
        (
            "{ rule = \"shortest-predicted\", aging = \"2ms\" }",
            shortest(Some(Span::from_millis(2))),
        ),
        ("\"least-attained\"", Order::LeastAttained { cost, workflows_max: 65_536 }),
        (
            "{ rule = \"least-attained\", cost = { prompt = 3, output = 4 }, workflows_max = 9 }",
            Order::LeastAttained { cost: TokenCost { prompt: 3, output: 4 }, workflows_max: 9 },
        ),
        (
            "{ rule = \"longest-prefix\", token = \"1ms\" }",
            Order::LongestPrefix { token: Span::from_millis(1) },
        ),
    ] {
        let found = policy(&[&format!("policy.order={written}")]).expect("it is sound");
        assert_eq!(found.order, order, "{written}");
    }
}

#[test]
fn a_deadline_is_stated_or_the_highest_promise() {
    let deadlines = |settings: &[&str]| {
        let config = policy(settings).expect("it is sound");
        let deadlines = config.classes.iter().map(|class| class.deadline.map(Span::millis_f64));
        deadlines.collect::<Vec<_>>()
    };
    assert_eq!(deadlines(&[]), [Some(2000.0), Some(300.0), None]);
    // Of p50 and p99 the latter counts, whichever limit is the tighter.
    let found = deadlines(&["class.0.slo.ttft_p99=500ms", "class.2.slo.e2e_p99=9s"]);
    assert_eq!(found, [Some(500.0), Some(300.0), None]);
}

#[test]
fn the_heavy_lane_and_bypass_are_read() {
    let config = policy(&[
        "policy.partition=[{ rule = \"heavy-lane\", over_tokens = 8192, max = 2 }]",
        "policy.bypass_max=16",
    ])
    .expect("it is sound");
    assert_eq!(config.partition, [Partition::HeavyLane { over_tokens: 8192, max: 2 }]);
    assert_eq!(config.bypass_max, 16);
    let words = config.to_string();
    assert!(words.contains("at most 2 requests over 8192 tokens at once"), "{words}");
    assert!(words.contains("(16 times at most)"), "{words}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let lane = |max: u32| format!("{{ rule = \"heavy-lane\", over_tokens = 1, max = {max} }}");
    let two = format!("policy.partition=[{}, {}]", lane(1), lane(2));
    let none = format!("policy.partition=[{}]", lane(0));
    let no_deadlines =
        ["policy.order=edf", "class.0.slo={}", "class.1={ name = \"stated\" }"].as_slice();
    for (settings, code, said) in [
        (["policy.order=longest-prefix"].as_slice(), "P0103", "token = \"1ms\""),
        (&["policy.order={ rule = \"longest-prefix\", token = \"0s\" }"], "P0104", "`token`"),
        (&["policy.order={ rule = \"shortest-predicted\", aging = \"0s\" }"], "P0104", "`aging`"),
        (&["policy.order={ rule = \"shortest-predicted\", aging = 2 }"], "P0105", "unit"),
        (&["policy.order={ rule = \"edf\", aging = \"1ms\" }"], "P0101", "`aging`"),
        (
            &["policy.order={ rule = \"least-attained\", workflows_max = 0 }"],
            "P0104",
            "`workflows_max`",
        ),
        (&["class.0.deadline=0s"], "P0104", "no time"),
        (no_deadlines, "P0209", "`deadline`"),
        (&[&two], "P0209", "already"),
        (&[&none], "P0104", "`max`"),
        (&["policy.partition=[{ rule = \"heavy-lane\", max = 1 }]"], "P0103", "over_tokens = 8192"),
    ] {
        let wrong = policy(settings).expect_err("it is refused");
        assert!(wrong.contains(code) && wrong.contains(said), "{settings:?}:\n{wrong}");
    }
}
