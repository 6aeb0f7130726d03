//! Studies of queues whose answers are known.
//!
//! A pool of one-seat engines behind one queue, with exponential service, is an M/M/c queue:
//! formulas from D. Gross, J. F. Shortle, J. M. Thompson, C. M. Harris, "Fundamentals of Queueing
//! Theory", 4th edition (2008), 2.3. A mean service lasts a second. Sized for CI;
//! `PLIMSOLL_SOAK=10` runs ten times as many seeds. `-- --nocapture` prints what was found.

use plimsoll_planner::{
    Candidate, CompareSettings, Curves, Goal, Hardware, HardwareOption, PoolRange, Question,
    capacity, compare,
};
use plimsoll_report::capacity::{CapacityPlan, PlanVerdict};
use plimsoll_report::comparison::{Comparison, Evidence};
use plimsoll_scenario::Scenario;
use plimsoll_sim::model::{Affine, StepCostSpec};

fn soak() -> u64 {
    let soak = std::env::var("PLIMSOLL_SOAK").ok().and_then(|text| text.parse().ok());
    soak.unwrap_or(1u64).max(1)
}

/// An M/M/c queue as a scenario.
#[derive(Clone, Copy, Debug)]
struct Queue {
    /// Arrivals a second.
    rate: f64,
    /// What part of the requests may not wait longer than `limit` seconds.
    percentile: f64,
    limit: f64,
    /// Requests a replication.
    requests: f64,
}

impl Queue {
    /// The part of the requests that wait longer than the limit with `c` servers (Erlang's C and
    /// the exponential tail of the wait); 1 if the queue grows.
    fn tail(&self, c: u32) -> f64 {
        let (servers, a) = (f64::from(c), self.rate);
        if a >= servers {
            return 1.0;
        }
        let (mut term, mut sum) = (1.0, 0.0);
        for k in 0..c {
            sum += term;
            term *= a / f64::from(k + 1);
        }
        let last = term * servers / (servers - a);
        last / (sum + last) * (-(servers - a) * self.limit).exp()
    }

    /// The least number of servers that keeps the limit.
    fn least(&self) -> u32 {
        let allowed = 1.0 - self.percentile / 100.0;
        (1..).find(|&c| self.tail(c) <= allowed).expect("enough servers keep any limit")
    }

    fn toml(&self) -> String {
        // A table of the exponential's quantiles; its far end is cut at seven means.
        let points: Vec<String> = (0..=400)
            .map(|step| {
                let p =
                    if step == 400 { 1.0 } else { 1.0 - (-7.0 * f64::from(step) / 400.0).exp() };
                format!("[{p}, {}]", (1_000.0 * 7.0 * f64::from(step) / 400.0).round().max(1.0))
            })
            .collect();
        let Queue { rate, percentile, limit, requests } = self;
        let duration = (requests / rate + 60.0).round();
        format!(
            r#"schema_version = 1
name = "mmc"
[run]
duration = "{duration}s"
warm_up = "60s"
[[class]]
name = "all"
slo = {{ queue_p{percentile} = "{limit}s" }}
[[workload]]
name = "load"
class = "all"
arrivals = {{ process = "poisson", rate = "{rate}/s" }}
prompt_tokens = {{ distribution = "fixed", tokens = 1 }}
output_tokens = {{ distribution = "quantiles", points = [{}] }}
output_cap = 8000
[[pool]]
name = "server"
replicas = 1
engine = {{ seats = 1, step_tokens_max = 64, kv_tokens = 16384 }}
step_time = {{ kind = "affine", base = "1ms" }}
provenance = "a queue of the books"
[policy]
share = "fcfs"
order = "fcfs"
place = "least-tokens"
window = "seats"
"#,
            points.join(", ")
        )
    }

    fn scenario(&self) -> Scenario {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("mmc.toml");
        std::fs::write(&path, self.toml()).expect("it can be written");
        plimsoll_scenario::load(&path, &[])
            .unwrap_or_else(|found| panic!("{}", found.render(false)))
    }
}

fn question(most: u32, seed: u64) -> Question {
    let option = HardwareOption { devices: 1, ..HardwareOption::default() };
    Question {
        policies: vec!["own".to_owned()],
        pools: vec![PoolRange { pool: "server".to_owned(), least: 1, most, options: vec![option] }],
        goal: Goal::Fewest,
        confidence: 0.95,
        load: 1.0,
        spare: 0,
        growth: None,
        replications_most: 96,
        searches: 1,
        curves: Curves::Left,
        seed,
        threads: 2,
        prices: None,
    }
}

fn planned(scenario: &Scenario, question: &Question) -> CapacityPlan {
    let build = |_: &str, hardware: &Hardware| {
        let mut scenario = scenario.clone();
        scenario.model.pools[0].replicas = hardware[0].1;
        Ok(scenario)
    };
    capacity(question, &build, &()).expect("nothing can go wrong")
}

fn replicas(plan: &CapacityPlan) -> u32 {
    plan.answer.as_ref().map_or(0, |answer| answer.hardware[0].replicas)
}

/// No answer is so close to its limit that no reasonable number of runs could tell: the part that
/// waits too long is at most 0.8 times what is allowed with the answer, and at least 1.25 times with
/// one server less.
const CASES: [(f64, f64, f64); 12] = [
    (0.5, 90.0, 2.0),
    (0.8, 90.0, 1.0),
    (1.4, 90.0, 0.8),
    (2.0, 95.0, 1.0),
    (3.0, 90.0, 0.2),
    (4.0, 95.0, 0.5),
    (5.5, 90.0, 0.6),
    (7.0, 95.0, 0.3),
    (9.0, 90.0, 0.2),
    (12.0, 90.0, 0.1),
    (16.0, 95.0, 0.9),
    (22.0, 90.0, 0.65),
];

#[test]
fn the_least_number_of_servers_is_found() {
    let (mut runs, mut exact, mut below) = (0u32, 0, 0);
    for (rate, percentile, limit) in CASES {
        let queue = Queue { rate, percentile, limit, requests: 2_500.0 };
        let (least, allowed) = (queue.least(), 1.0 - percentile / 100.0);
        assert!(queue.tail(least) <= 0.8 * allowed, "{queue:?} {least} {}", queue.tail(least));
        if least > 1 {
            let one_less = queue.tail(least - 1);
            assert!(one_less >= 1.25 * allowed, "{queue:?} {least} {one_less}");
        }
        let scenario = queue.scenario();
        let answers: Vec<u32> = (1..=6 * soak())
            .map(|seed| replicas(&planned(&scenario, &question(64, seed))))
            .collect();
        println!("λ {rate} p{percentile} {limit} s: least {least}, answers {answers:?}");
        runs += answers.len() as u32;
        exact += answers.iter().filter(|&&answer| answer == least).count() as u32;
        below += answers.iter().filter(|&&answer| answer < least).count() as u32;
    }
    println!("{exact} of {runs} exact, {below} below");
    assert!(exact * 100 >= runs * 95, "{exact} of {runs} exact");
    assert!(below * 100 <= runs * 5, "{below} of {runs} below");
}

#[test]
fn a_plan_says_why_less_fails_and_what_it_bears() {
    let queue = Queue { rate: 4.0, percentile: 95.0, limit: 0.5, requests: 2_500.0 };
    let scenario = queue.scenario();
    let plan = planned(&scenario, &Question { curves: Curves::Drawn, ..question(16, 3) });
    assert_eq!((plan.verdict, replicas(&plan)), (PlanVerdict::Found, queue.least()));
    let text = plan.sentences.join(" ");
    assert!(text.contains("The next cheaper") && text.contains("fails"), "{text}");
    // The safe load by the formula: the largest multiple whose tail is allowed.
    let bears = |times: f64| Queue { rate: 4.0 * times, ..queue }.tail(queue.least()) <= 0.05;
    let exact = (100..400).map(|part| f64::from(part) / 100.0).take_while(|&at| bears(at)).last();
    let safe = plan.safe_load.expect("it was looked for");
    let exact = exact.expect("the answer bears its load");
    assert!(safe.kept <= exact * 1.04 && safe.kept >= exact * 0.85, "{safe:?}, exactly {exact}");
    assert!(plan.curves[0].points.len() > 5);
    let again = planned(&scenario, &Question { searches: 3, ..question(16, 3) });
    let label = format!("{} × server", queue.least());
    assert_eq!(again.searches, vec![label; 3]);
    // n − 1: one more than without.
    let spared = planned(&scenario, &Question { spare: 1, ..question(16, 3) });
    assert_eq!(replicas(&spared), queue.least() + 1);
}

#[test]
fn where_nothing_fits_the_best_reachable_is_said() {
    let queue = Queue { rate: 4.0, percentile: 95.0, limit: 0.5, requests: 2_500.0 };
    let plan = planned(&queue.scenario(), &question(5, 1));
    assert_eq!((plan.verdict, replicas(&plan)), (PlanVerdict::NothingFits, 0));
    let text = plan.sentences.join(" ");
    for part in ["Nothing up to 5 × server", "Best reachable: all queue_p95", "to relax"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn any_number_of_threads_plans_and_compares_the_same() {
    let queue = Queue { rate: 2.0, percentile: 95.0, limit: 1.0, requests: 800.0 };
    let scenario = queue.scenario();
    let plan = |threads| planned(&scenario, &Question { threads, ..question(16, 5) }).to_json();
    assert_eq!(plan(1), plan(2));
    let with = |threads| {
        let settings = CompareSettings { threads, ..settings(5, 6) };
        compared(&[("two", variant(&scenario, 3)), ("three", variant(&scenario, 4))], &settings)
    };
    assert_eq!(with(1).to_json(), with(2).to_json());
}

fn variant(scenario: &Scenario, replicas: u32) -> Scenario {
    let mut scenario = scenario.clone();
    scenario.model.pools[0].replicas = replicas;
    scenario
}

fn settings(replications: u32, seed: u64) -> CompareSettings {
    CompareSettings {
        replications,
        precision: None,
        seed,
        threads: 2,
        confidence: 0.95,
        indifference: 0.01,
        selection_most: 60,
    }
}

fn compared(candidates: &[(&str, Scenario)], settings: &CompareSettings) -> Comparison {
    let candidate = |(name, scenario): &(&str, Scenario)| Candidate {
        name: (*name).to_owned(),
        scenario: scenario.clone(),
    };
    let candidates = candidates.iter().map(candidate).collect();
    compare(candidates, settings, &()).expect("nothing can go wrong")
}

const COMPARED: Queue = Queue { rate: 1.2, percentile: 90.0, limit: 2.0, requests: 400.0 };

#[test]
fn two_of_the_same_show_no_evidence() {
    let scenario = variant(&COMPARED.scenario(), 2);
    let same = compared(&[("one", scenario.clone()), ("other", scenario.clone())], &settings(5, 1));
    assert!(same.differences.iter().all(|one| one.evidence == Evidence::None));
    assert_eq!(same.sentences, ["no evidence of a difference between other and one."]);
    // The same law with random numbers of its own: evidence of anything is an error, which at most
    // one study in twenty may make, over all of its intervals.
    let mut other = scenario.clone();
    other.model.names.sources[0] = "load-of-its-own".to_owned();
    let studies = 120 * soak();
    let wrong = (0..studies)
        .filter(|&seed| {
            let found = compared(
                &[("one", scenario.clone()), ("other", other.clone())],
                &settings(6, seed),
            );
            found.differences.iter().any(|one| one.evidence != Evidence::None)
        })
        .count() as f64;
    let (all, allowed) = (studies as f64, 0.05);
    println!("{wrong} of {all} studies find what is not there");
    assert!(wrong <= all * allowed + 3.0 * (all * allowed * (1.0 - allowed)).sqrt(), "{wrong}");
}

#[test]
fn three_per_cent_are_found() {
    let scenario = variant(&COMPARED.scenario(), 2);
    let mut slower = scenario.clone();
    let engine = &mut slower.model.pools[0].engine;
    engine.step_cost = StepCostSpec::affine(Affine { base: 1.03e6, ..Affine::default() });
    for seed in 0..10 * soak() {
        let found =
            compared(&[("fast", scenario.clone()), ("slow", slower.clone())], &settings(10, seed));
        let wait = &found.differences[0];
        assert_eq!(wait.evidence, Evidence::Worse, "seed {seed}: {wait:?}");
        assert!(found.sentences[0].starts_with("fast beats slow"), "{:?}", found.sentences);
    }
}

#[test]
fn the_best_of_several_is_selected() {
    let scenario = COMPARED.scenario();
    let names = ["two", "three", "four", "six"];
    let candidates: Vec<(&str, Scenario)> = names
        .into_iter()
        .zip([2, 3, 4, 6])
        .map(|(name, n)| (name, variant(&scenario, n)))
        .collect();
    let settings = CompareSettings { indifference: 0.03, ..settings(10, 1) };
    let found = compared(&candidates, &settings);
    let best = found.best.expect("there are more than two");
    // Four and six keep the limit alike: either is right, two is not.
    let name = best.candidate.expect("it is decided");
    assert!(name == "four" || name == "six" || name == "three", "{name}");
    assert!(best.out.iter().any(|out| out.candidate == "two"), "{:?}", best.out);
}
