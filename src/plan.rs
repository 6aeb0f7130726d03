//! `plimsoll plan`.

use std::path::Path;
use std::process::ExitCode;

use plimsoll_planner::{
    CapacityError, Curves, Goal, Growth, Hardware, HardwareOption, PoolRange, Question, StudyError,
};
use plimsoll_report::capacity::{CapacityPlan, PricesUsed};
use plimsoll_scenario::{OWN, PlanOption, Prices, Scenario};

use crate::arguments::{Format, PlanOptions};
use crate::compare::{folder, interrupted, tell};
use crate::progress::Counter;
use crate::run::{locate, read_template, study_failure};
use crate::{Failure, interrupt};

/// Searches the least hardware, writes the plan, prints the answer.
pub fn plan(options: &PlanOptions) -> Result<ExitCode, Failure> {
    let path = locate(&options.file)?;
    let template = options.page_template.as_deref().map(read_template).transpose()?;
    let policies = match options.policy.is_empty() {
        true => vec![OWN.to_owned()],
        false => options.policy.clone(),
    };
    let scenario = plimsoll_scenario::load_under(&path, &policies[0], &options.overrides)?;
    for policy in &policies[1..] {
        plimsoll_scenario::load_under(&path, policy, &options.overrides)?;
    }
    let prices = plimsoll_scenario::prices(options.prices.as_deref())?;
    let question = question(options, (&scenario, &prices), policies)?;
    let build = |policy: &str, hardware: &Hardware| {
        let chosen = settings(&question, &scenario.plan.options, hardware);
        let overrides = [&options.overrides[..], &chosen[..]].concat();
        plimsoll_scenario::load_under(&path, policy, &overrides)
    };
    interrupt::listen();
    let watch = Counter::new(options.quiet);
    let made = plimsoll_planner::capacity(&question, &build, &watch);
    watch.clear();
    let plan = match made {
        Ok(plan) => plan,
        Err(CapacityError::Input(diagnostics)) => return Err(diagnostics.into()),
        Err(CapacityError::Study(StudyError::Interrupted)) => return Ok(interrupted()),
        Err(CapacityError::Study(error)) => return Err(study_failure(error)),
        Err(CapacityError::NothingPromised) => {
            return Err(Failure::Usage(format!(
                "{}: give a class one, such as `slo = {{ ttft_p99 = \"1s\" }}`",
                CapacityError::NothingPromised
            )));
        }
    };
    let folder = folder(options.out.as_deref(), &scenario.name, "plan");
    let folder = (!options.no_files).then_some(&*folder);
    tell(&plan.study(), "plan", (folder, template.as_ref()), options.format)?;
    if options.format == Format::Human {
        tell_command(&plan, &path);
    }
    Ok(ExitCode::from(if options.no_gate { 0 } else { plan.verdict.exit_code() }))
}

/// How to look at the answer.
fn tell_command(plan: &CapacityPlan, path: &Path) {
    let Some(answer) = &plan.answer else { return };
    let groups = answer.hardware.iter().filter(|group| group.option.is_none());
    let set: Vec<String> = groups
        .map(|group| format!("--set pool.{}.replicas={}", group.pool, group.replicas))
        .collect();
    if set.len() == answer.hardware.len() {
        let file = path.to_string_lossy();
        let file = file.trim_start_matches("shipped:");
        eprintln!("to look at it: plimsoll run {file} {} --replications 10", set.join(" "));
    }
}

fn usage(message: String) -> Failure {
    Failure::Usage(message)
}

fn question(
    options: &PlanOptions,
    (scenario, prices): (&Scenario, &Prices),
    policies: Vec<String>,
) -> Result<Question, Failure> {
    let pools = pools(options, scenario, prices)?;
    let known = |pool: &PoolRange| pool.options.iter().all(|option| option.price.is_some());
    let priced = pools.iter().all(known);
    let confidence = options.confidence.0;
    if !(0.5..1.0).contains(&confidence) {
        return Err(usage("`--confidence` is from 50% to less than 100%".to_owned()));
    }
    let used = PricesUsed {
        table: prices.table.clone(),
        date: prices.date.clone(),
        currency: prices.currency.clone(),
    };
    let growth =
        options.growth.map(|monthly| Growth { monthly: monthly.0, months: options.months });
    let most = pools.iter().map(|pool| pool.most).min().unwrap_or(1);
    if options.spare >= most {
        return Err(usage(format!(
            "with {} replicas lost nothing is left of the {most} that the range allows",
            options.spare
        )));
    }
    Ok(Question {
        policies,
        pools,
        goal: options.goal.map_or(Goal::Cheapest, Into::into),
        confidence,
        load: 1.0 + options.headroom.0,
        spare: options.spare,
        growth,
        replications_most: options.replications_max,
        searches: options.searches,
        curves: if options.no_curves { Curves::Left } else { Curves::Drawn },
        seed: options.seed.unwrap_or(scenario.seed),
        threads: options.threads,
        prices: priced.then_some(used),
    })
}

/// Which pools, how many of each, and what they can be.
fn pools(
    options: &PlanOptions,
    scenario: &Scenario,
    prices: &Prices,
) -> Result<Vec<PoolRange>, Failure> {
    let known = &scenario.model.names.pools;
    let named = match (options.pool.is_empty(), scenario.plan.pools.is_empty()) {
        (false, _) => &options.pool,
        (true, false) => &scenario.plan.pools,
        (true, true) => known,
    };
    for name in named {
        if !known.contains(name) {
            let help = plimsoll_config::nearest::suggest(name, known.iter().map(String::as_str));
            let help = help.unwrap_or_default();
            return Err(usage(format!("no pool is called `{name}`; {help}")));
        }
    }
    if named.len() > 2 {
        return Err(usage(format!(
            "{} pools are too many to search at once: name one or two (`--pool {}`)",
            named.len(),
            named[0]
        )));
    }
    let (least, most) = match options.replicas {
        Some(range) => (range.least, range.most),
        None => (scenario.plan.replicas_min.unwrap_or(1), scenario.plan.replicas_max.unwrap_or(64)),
    };
    if least > most {
        return Err(usage(format!("no number of replicas is from {least} to {most}")));
    }
    let range = |name: &String| {
        let options = hardware(options, (name, &scenario.plan.options), prices)?;
        Ok(PoolRange { pool: name.clone(), least, most, options })
    };
    named.iter().map(range).collect()
}

/// What the replicas of a pool can be: the options of the scenario that are for it, or what it is.
fn hardware(
    options: &PlanOptions,
    (pool, choices): (&str, &[PlanOption]),
    prices: &Prices,
) -> Result<Vec<HardwareOption>, Failure> {
    let own: Vec<&PlanOption> = fitting(choices, pool);
    if own.is_empty() {
        let device = options.device.as_deref().map(|name| prices.device(name)).transpose();
        let device = device.map_err(usage)?;
        return Ok(vec![HardwareOption {
            name: None,
            devices: options.devices,
            price: device.and_then(|device| device.price),
            power: device.and_then(|device| device.power),
        }]);
    }
    if options.device.is_some() {
        let message = "the scenario's [plan] says what replicas can be: leave out `--device`";
        return Err(usage(message.to_owned()));
    }
    let option = |choice: &&PlanOption| {
        let device = match &choice.device {
            Some(name) => Some(prices.device(name).map_err(usage)?),
            None => prices.device(&choice.name).ok(),
        };
        Ok(HardwareOption {
            name: Some(choice.name.clone()),
            devices: choice.devices,
            price: choice.price.or(device.and_then(|device| device.price)),
            power: device.and_then(|device| device.power),
        })
    };
    own.iter().map(option).collect()
}

fn fitting<'a>(choices: &'a [PlanOption], pool: &str) -> Vec<&'a PlanOption> {
    choices.iter().filter(|choice| choice.pool.as_deref().is_none_or(|own| own == pool)).collect()
}

/// Hardware as overrides.
fn settings(question: &Question, choices: &[PlanOption], hardware: &Hardware) -> Vec<String> {
    let pools = question.pools.iter().zip(hardware);
    let of = |(pool, &(option, replicas)): (&PoolRange, &(usize, u32))| {
        let name = &pool.pool;
        let mut settings = vec![format!("pool.{name}.replicas={replicas}")];
        if let Some(choice) = fitting(choices, name).get(option) {
            settings.extend(choice.set.iter().map(|set| format!("pool.{name}.{set}")));
        }
        settings
    };
    pools.flat_map(of).collect()
}
