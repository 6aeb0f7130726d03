//! `plimsoll check`.

use std::process::ExitCode;

use plimsoll_base::ClassId;
use plimsoll_scenario::Scenario;

use crate::Failure;
use crate::arguments::CheckOptions;
use crate::run::open;

/// Reads a scenario and says what it is; with `--explain`, each value and its origin.
pub fn check(options: &CheckOptions) -> Result<ExitCode, Failure> {
    let scenario = open(&options.file, &options.overrides)?;
    if options.explain {
        explain(&scenario);
    } else {
        outline(&scenario);
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(scenario: &Scenario) {
    let rows = &scenario.effective.rows;
    let width = rows.iter().map(|row| row.path.len() + row.value.len() + 3).max().unwrap_or(0);
    for row in rows {
        let setting = format!("{} = {}", row.path, row.value);
        println!("{setting:width$}  # {}", row.origin);
    }
}

fn outline(scenario: &Scenario) {
    let model = &scenario.model;
    println!("{} is a valid scenario (hash {}).", scenario.name, scenario.hash);
    println!("policy: {}", model.policy);
    for (pool, name) in model.pools.iter().zip(&model.names.pools) {
        let engine = &pool.engine;
        let tokens = engine.kv_tokens();
        println!(
            "pool {name}: replicas {}, each {} seats, {tokens} KV tokens, contexts up to {}",
            pool.replicas, engine.seats, engine.context_max
        );
    }
    for (index, objectives) in scenario.objectives.iter().enumerate() {
        let class = model.names.class(ClassId(index as u16));
        let promised: Vec<&str> =
            objectives.objectives.iter().map(|objective| objective.text.as_str()).collect();
        let promised = if promised.is_empty() { "nothing" } else { &promised.join(", ") };
        println!("class {class}: promised {promised}");
    }
    for assumption in &scenario.assumptions {
        println!("assumed: {assumption}");
    }
}
