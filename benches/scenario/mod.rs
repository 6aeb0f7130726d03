//! What the benches share: a scenario, run as `plimsoll run --no-files` runs it.

#![allow(dead_code, reason = "no bench uses all of it")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::Criterion;
use plimsoll_planner::{Replications, plan, replicate};
use plimsoll_policy::Config;
use plimsoll_report::{Ledger, Plan, summarise};
use plimsoll_scenario::{Scenario, load};

/// The load that speed is measured with.
pub fn pipeline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/pipeline.toml")
}

/// Few samples, so that all benches together take less than two minutes.
pub fn short() -> Criterion {
    let short = Criterion::default().without_plots().sample_size(10);
    short.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3))
}

/// Requests a second at 80 % load that `benches/pipeline.toml` offers a replica.
const RATE: f64 = 9.9;

/// The overrides that give so many replicas, each at 80 % load, about so many requests in all.
pub fn sized(replicas: u32, requests: u64) -> Vec<String> {
    let rate = RATE * f64::from(replicas);
    vec![
        format!("pool.gpu.replicas={replicas}"),
        format!("workload.chat.arrivals.rate=\"{rate:.1}/s\""),
        format!("run.duration=\"{:.0}s\"", requests as f64 / rate),
    ]
}

/// The policies of the main job, `noisy-neighbour`, and of its variants, by name.
pub fn main_job() -> Vec<(String, Config)> {
    let variants = ["", "-aging", "-caps", "-priority", "-priority-guard", "-vtc"];
    let policy = |variant| {
        let name = format!("noisy-neighbour{variant}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/{name}.toml"));
        let scenario = load(&path, &[]).unwrap_or_else(|wrong| panic!("{}", wrong.render(false)));
        (name, scenario.model.policy)
    };
    variants.into_iter().map(policy).collect()
}

/// Waiting is attributed to whoever held what was waited for.
pub fn attributed(mut overrides: Vec<String>) -> Vec<String> {
    overrides.push("run.attribution=\"on\"".to_owned());
    overrides
}

/// A scenario that is ready to run.
pub struct Run {
    scenario: Scenario,
    plan: Plan,
}

impl Run {
    /// Reads a scenario with overrides.
    pub fn load(path: &Path, overrides: &[String]) -> Run {
        let scenario =
            load(path, overrides).unwrap_or_else(|wrong| panic!("{}", wrong.render(false)));
        let plan = plan(&scenario, scenario.seed);
        Run { scenario, plan }
    }

    /// One replication with a ledger listening.
    pub fn simulate(&self) -> Ledger {
        let seed = self.scenario.seed;
        let once = Replications { count: 1, seed, threads: 1 };
        let listener = |_| Ledger::new(&self.plan);
        let result = replicate(&self.scenario, once, listener, &()).expect("the run ends well");
        result.observers.into_iter().next().expect("one replication has one observer")
    }

    /// The requests that one replication offers.
    pub fn requests(&self) -> u64 {
        summarise(&self.plan, &[self.simulate()], false).conservation.offered
    }

    /// From the ledger to `summary.json` and the page, in memory; their bytes.
    pub fn report(&self, ledger: Ledger) -> usize {
        let ledgers = [ledger];
        let summary = summarise(&self.plan, &ledgers, false);
        let page = plimsoll_report::page(&self.plan, &summary, &ledgers, None);
        page.expect("the page's template is sound").len() + summary.to_json().len()
    }
}
