//! Every shipped scenario loads, says what it extends, and offers what it says.

use std::path::Path;

use plimsoll_policy::config::{Order, Share};
use plimsoll_scenario::{Scenario, gateway_schema, load, load_gateway, schema, shipped, template};

fn scenario(name: &str, overrides: &[&str]) -> Scenario {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    load(Path::new(&format!("shipped:{name}")), &overrides)
        .unwrap_or_else(|wrong| panic!("{name}:\n{wrong}"))
}

/// All shipped files but the gateway.
fn scenarios() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    shipped().iter().filter(|(name, _)| *name != "gateway")
}

#[test]
fn every_shipped_scenario_loads_under_its_own_name() {
    for (name, text) in scenarios() {
        let scenario = scenario(name, &[]);
        assert_eq!(scenario.name, *name);
        assert!(!scenario.description.is_empty(), "{name} says what it is about");
        assert_eq!(template(name), Some(*text));
        assert_eq!(scenario.model.policy.check(), Ok(()), "{name}");
        for source in &mut scenario.sources(1, 0).expect("generators need no file") {
            let first = source.next_at().expect("generators do not fail");
            assert!(first.is_some(), "{name} offers something");
            assert!(source.take().prompt_tokens >= 1);
        }
    }
}

#[test]
fn variants_change_the_policy_and_nothing_else() {
    let base = scenario("noisy-neighbour", &[]);
    assert_eq!(base.model.policy.share, Share::Fcfs);
    let mut hashes = vec![base.hash.clone()];
    for (name, _) in shipped().iter().filter(|(name, _)| name.starts_with("noisy-neighbour-")) {
        let variant = scenario(name, &[]);
        assert_eq!(variant.model.workloads, base.model.workloads, "{name}");
        assert_eq!(variant.model.pools, base.model.pools, "{name}");
        assert_eq!(variant.model.plan, base.model.plan, "{name}");
        assert_eq!(variant.seed, base.seed, "{name}");
        assert_ne!(variant.model.policy, base.model.policy, "{name}");
        hashes.push(variant.hash);
    }
    assert_eq!(hashes.len(), 6);
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 6, "each variant has a hash of its own");
    let guarded = scenario("noisy-neighbour-priority-guard", &[]);
    assert_eq!(guarded.model.policy.guard.map(|guard| guard.due_share_ppm), Some(100_000));
    assert_eq!(scenario("noisy-neighbour-aging", &[]).model.policy.order, Order::Aging);
}

#[test]
fn origins_follow_the_layers() {
    let variant = scenario(
        "noisy-neighbour-caps",
        &["workload.agents.arrivals.users=50", "pool.0.replicas=3"],
    );
    let origin = |path: &str| {
        let row = variant.effective.rows.iter().find(|row| row.path == path);
        let row = row.unwrap_or_else(|| panic!("{path} is in force"));
        (row.value.clone(), row.origin.split(".toml:").next().unwrap_or_default().to_owned())
    };
    let strip = |(value, origin): (String, String)| {
        (value, origin.split(":").take(2).collect::<Vec<_>>().join(":"))
    };
    let cap = origin("class.batch.requests_max");
    assert_eq!(strip(cap), ("16".into(), "shipped:noisy-neighbour-caps".into()));
    let weight = origin("class.chat.weight");
    assert_eq!(strip(weight), ("8".into(), "shipped:noisy-neighbour".into()));
    assert_eq!(origin("workload.agents.arrivals.users"), ("50".into(), "--set".into()));
    assert_eq!(origin("pool.gpu.replicas"), ("3".into(), "--set".into()));
    assert_eq!(variant.model.pools[0].replicas, 3);
    // The same values have the same hash, wherever they were written.
    let plain = scenario("noisy-neighbour-caps", &[]);
    let same = scenario("noisy-neighbour-caps", &["pool.gpu.replicas=2"]);
    assert_eq!(plain.hash, same.hash);
    assert_ne!(plain.hash, variant.hash);
}

#[test]
fn the_shipped_gateway_loads_and_needs_no_key() {
    let gateway = load_gateway(Path::new("shipped:gateway"), &[]);
    let gateway = gateway.unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(gateway.name, "gateway");
    assert_eq!(gateway.names.classes, ["chat", "batch"]);
    assert_eq!(gateway.names.tenants, ["anonymous"]);
    assert!(gateway.anonymous.is_some() && gateway.keys.is_empty());
    assert_eq!(gateway.config.check(), Ok(()));
    assert_eq!(gateway.assumptions, Vec::<String>::new());
    assert!(template("gateway").is_some());
}

#[test]
fn the_committed_schemas_are_current() {
    for (file, schema) in [("schema.json", schema()), ("gateway-schema.json", gateway_schema())] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let fresh = serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n";
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &fresh).expect("the schema can be written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == fresh, "scenarios/{file} is stale: run with UPDATE_EXPECT=1");
    }
}
