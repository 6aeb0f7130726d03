//! From a file to a [`Scenario`].

use std::path::{Path, PathBuf};

use plimsoll_base::{Names, Time};
use plimsoll_config::gateway::GatewayFile;
use plimsoll_config::spec::ClassSpec;
use plimsoll_config::tree::Node;
use plimsoll_config::{
    At, ClassObjectives, Code, Diagnostic, Diagnostics, Effective, Layered, PolicyFile, Sources,
};
use plimsoll_policy::Machine;
use plimsoll_sim::Model;
use plimsoll_sim::workload::{Source, SourceError, source};

use crate::build::plan::PlanSection;
use crate::calibration::{CalibrationSpec, beyond};
use crate::spec::{PoolSpec, Spec, WorkloadSpec};
use crate::trace::{Trace, TraceSource};
use crate::under::take_alternatives;
use crate::{build, check, machine, shipped, sweep};

/// A scenario, valid by construction.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// A short name for reports.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// The seed that the file states.
    pub seed: u64,
    /// What the simulator runs.
    pub model: Model,
    /// What each class is promised, indexed by `ClassId`.
    pub objectives: Vec<ClassObjectives>,
    /// The trace that a workload replays, indexed by `SourceId`.
    pub traces: Vec<Option<Trace>>,
    /// What each pool's profile says of its measuring, in the order of `model.pools`; `None` where
    /// its numbers were written by hand.
    pub calibrations: Vec<Option<CalibrationSpec>>,
    /// A hash of the effective scenario: equal scenarios have equal hashes, wherever their
    /// values were written. 16 hexadecimal digits.
    pub hash: String,
    /// Every value in force and where it came from.
    pub effective: Effective,
    /// Sentences that every report must show.
    pub assumptions: Vec<String>,
    /// What hardware may be chosen.
    pub plan: PlanSection,
}

impl Scenario {
    /// What its hardware does at its worst, with the longest requests that its workloads offer.
    pub fn machine(&self) -> Machine {
        let longest = self.traces.iter().flatten().map(|trace| trace.limit.tokens());
        let longest = longest.max().map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX));
        machine::machine(&self.model, longest)
    }

    /// One source a workload, in the order of `model.workloads`. Opens trace files.
    pub fn sources(
        &self,
        seed: u64,
        replication: u32,
    ) -> Result<Vec<Box<dyn Source>>, SourceError> {
        let workloads = self.model.workloads.iter().zip(&self.traces);
        let named = workloads.zip(&self.model.names.sources);
        named
            .map(|((workload, trace), name)| match trace {
                Some(trace) => {
                    let source = TraceSource::open(trace, name, seed, replication)?;
                    Ok(Box::new(source) as Box<dyn Source>)
                }
                None => Ok(source(workload, name, seed, replication)),
            })
            .collect()
    }
}

/// Reads a scenario with the overrides (`a.b=value`) laid on top. The path may be
/// `shipped:NAME`.
pub fn load(path: &Path, overrides: &[String]) -> Result<Scenario, Diagnostics> {
    scenario(plimsoll_config::read(path, overrides, shipped())?)
}

/// What a file holds.
#[derive(Clone, Debug)]
pub enum Loaded {
    /// Something to run.
    Scenario(Box<Scenario>),
    /// A policy alone.
    Policy(Box<PolicyFile>),
    /// A policy, and what stands before and behind it.
    Gateway(Box<GatewayFile>),
}

/// Reads a scenario, a gateway file (one with a `[gateway]`), or a policy file: one without
/// workloads and pools.
pub fn load_either(path: &Path, overrides: &[String]) -> Result<Loaded, Diagnostics> {
    let layered = plimsoll_config::read(path, overrides, shipped())?;
    if layered.is_gateway_file() {
        return Ok(Loaded::Gateway(Box::new(layered.gateway_file()?)));
    }
    match layered.is_policy_file() {
        true => Ok(Loaded::Policy(Box::new(layered.policy_file()?))),
        false => Ok(Loaded::Scenario(Box::new(scenario(layered)?))),
    }
}

/// Reads a gateway file with the overrides (`a.b=value`) laid on top. The path may be
/// `shipped:NAME`.
pub fn load_gateway(path: &Path, overrides: &[String]) -> Result<GatewayFile, Diagnostics> {
    plimsoll_config::read(path, overrides, shipped())?.gateway_file()
}

pub(crate) fn scenario(mut layered: Layered) -> Result<Scenario, Diagnostics> {
    let alternatives = take_alternatives(&mut layered.root);
    let made = scenario_alone(layered.clone())?;
    // A name that was meant to be a key of the policy shows here.
    for entry in alternatives {
        let mut other = layered.clone();
        other.lay("policy", entry.node);
        scenario_alone(other)?;
    }
    Ok(made)
}

fn scenario_alone(mut layered: Layered) -> Result<Scenario, Diagnostics> {
    refuse_gateway(&layered)?;
    let sweep = plimsoll_config::take(&mut layered.root, "sweep");
    let effective = Effective::of(&layered);
    let sound = sweep.map_or(Ok(()), |entry| sweep::check(&entry.node, &layered.sources));
    let built = build(&layered.root, &layered.sources, effective.hash());
    match (built, sound) {
        (Ok(scenario), Ok(())) => Ok(Scenario { effective, ..scenario }),
        (built, sound) => {
            let mut list = built.err().unwrap_or_default();
            list.extend(sound.err().unwrap_or_default());
            Err(Diagnostics { sources: layered.sources, list })
        }
    }
}

/// Nothing in a gateway file can be simulated.
pub(crate) fn refuse_gateway(layered: &Layered) -> Result<(), Diagnostics> {
    let gateway = layered.root.entries().iter().find(|entry| entry.key == "gateway");
    let Some(place) = gateway.map(|entry| entry.key_place) else { return Ok(()) };
    let message = "this is a gateway file: nothing in it can be simulated";
    let diagnostic = Diagnostic::new(Code::Empty, Some(place), message)
        .label("it has backends in place of pools, and no workload")
        .help("read it with `plimsoll check`, run it with `plimsoll serve`");
    Err(Diagnostics { sources: layered.sources.clone(), list: vec![diagnostic] })
}

/// The scenario that a tree of values says, without the origins of its values.
pub(crate) fn build(
    root: &Node,
    sources: &Sources,
    hash: String,
) -> Result<Scenario, Vec<Diagnostic>> {
    let spec: Spec = plimsoll_config::decode(root)?;
    Ok(Parts::new(spec, sources)?.scenario(hash))
}

struct Parts {
    section: PlanSection,
    spec: Spec,
    model: Model,
    objectives: Vec<ClassObjectives>,
    traces: Vec<Option<Trace>>,
}

impl Parts {
    fn new(spec: Spec, sources: &Sources) -> Result<Parts, Vec<Diagnostic>> {
        let mut found = Vec::new();
        not_empty(&spec, &mut found);
        let names = names(&spec, &mut found);
        let known = plimsoll_config::policy::Known {
            classes: &names.classes,
            tenants: &names.tenants,
            sources: &names.sources,
            pools: &names.pools,
        };
        let (policy, objectives) =
            plimsoll_config::policy::build(&spec.class.0, &spec.policy, known, &mut found);
        let pools: Vec<_> = spec
            .pool
            .0
            .iter()
            .map(|pool| build::pool::pool(&pool.value, &policy, &mut found))
            .collect();
        let around = build::workload::Around {
            names: &names,
            policy: &spec.policy.value,
            labels: &policy.labels,
        };
        let workloads = &spec.workload.0;
        let workloads: Vec<_> = workloads
            .iter()
            .map(|workload| build::workload::workload(workload, around, &mut found))
            .collect();
        let limit = check::limit(pools.iter());
        let around = build::trace::Around { names: &names, limit, sources };
        let traces = spec.workload.0.iter().zip(&workloads);
        let traces = traces
            .map(|(written, workload)| {
                build::trace::trace(&written.value, workload, around, &mut found)
            })
            .collect();
        let plan = build::run::plan(&spec.run, &mut found);
        let model = Model { names, pools, workloads, policy, plan };
        let pools = spec.pool.0.iter().filter(|pool| pool.value.disaggregated.is_some());
        let disaggregated: Vec<&str> = pools.map(|pool| &*pool.value.name.value).collect();
        let pools = (&*model.names.pools, &*disaggregated);
        let section = build::plan::section(spec.plan.as_ref(), pools, &mut found);
        let parts = Parts { section, spec, model, objectives, traces };
        if found.is_empty() {
            check::check(&parts.spec, &parts.model, &parts.traces, &mut found);
        }
        if found.is_empty() { Ok(parts) } else { Err(found) }
    }

    fn scenario(self, hash: String) -> Scenario {
        Scenario {
            assumptions: assumptions(&self.spec, &self.model, &self.traces),
            calibrations: self.spec.pool.0.into_iter().map(|at| at.value.calibration).collect(),
            name: self.spec.name.value,
            description: self.spec.description,
            seed: self.spec.seed.unwrap_or(1),
            model: self.model,
            objectives: self.objectives,
            traces: self.traces,
            plan: self.section,
            hash,
            effective: Effective::default(),
        }
    }
}

fn not_empty(spec: &Spec, found: &mut Vec<Diagnostic>) {
    let lists = [
        ("class", spec.class.0.is_empty(), "name = \"realtime\""),
        ("workload", spec.workload.0.is_empty(), "name = \"chat\", class, arrivals and lengths"),
        ("pool", spec.pool.0.is_empty(), "name = \"gpu\", replicas, engine and step_time"),
    ];
    for (what, empty, write) in lists {
        if empty {
            let message = format!("the scenario has no {what}");
            found.push(
                Diagnostic::new(Code::Empty, Some(spec.name.place), message)
                    .label(format!("this scenario needs a {what}"))
                    .help(format!("add a table `[[{what}]]` with {write}")),
            );
        }
    }
}

/// The names behind the ids: classes, pools and workloads in the order of the file, tenants in
/// the order in which they are first mentioned.
fn names(spec: &Spec, found: &mut Vec<Diagnostic>) -> Names {
    let classes: Vec<&At<String>> =
        spec.class.0.iter().map(|class: &ClassSpec| &class.name).collect();
    let pools: Vec<&At<String>> =
        spec.pool.0.iter().map(|pool: &At<PoolSpec>| &pool.value.name).collect();
    let sources: Vec<&At<String>> =
        spec.workload.0.iter().map(|workload: &At<WorkloadSpec>| &workload.value.name).collect();
    let declared: Vec<&At<String>> = spec.tenant.0.iter().map(|tenant| &tenant.name).collect();
    for (names, what) in
        [(&classes, "class"), (&pools, "pool"), (&sources, "workload"), (&declared, "tenant")]
    {
        plimsoll_config::policy::check_names(names, what, found);
        if let Some(extra) = names.get(usize::from(u16::MAX)) {
            let message = format!("there are more than {} of {what}", u16::MAX);
            found.push(Diagnostic::new(Code::TooMany, Some(extra.place), message));
        }
    }
    let mut tenants: Vec<At<String>> = declared.into_iter().cloned().collect();
    for workload in &spec.workload.0 {
        tenants.extend(build::workload::tenants(&workload.value));
    }
    let mut unique: Vec<At<String>> = Vec::new();
    for tenant in tenants {
        if unique.iter().all(|earlier| earlier.value != tenant.value) {
            unique.push(tenant);
        }
    }
    plimsoll_config::policy::check_names(&unique.iter().collect::<Vec<_>>(), "tenant", found);
    let owned =
        |names: Vec<&At<String>>| names.into_iter().map(|name| name.value.clone()).collect();
    Names {
        tenants: unique.into_iter().map(|tenant| tenant.value).collect(),
        classes: owned(classes),
        pools: owned(pools),
        sources: owned(sources),
    }
}

fn assumptions(spec: &Spec, model: &Model, traces: &[Option<Trace>]) -> Vec<String> {
    let policy = &model.policy;
    let mut assumptions = Vec::new();
    for (pool, built) in spec.pool.0.iter().zip(&model.pools) {
        let PoolSpec { name, calibration, .. } = &pool.value;
        let left = calibration.as_ref().and_then(|it| beyond(&name.value, it, &built.engine));
        assumptions.extend(left);
    }
    if policy.uses_oracle() {
        assumptions.push(
            "AN ORACLE tells the policy how long each output will be, up to the stated error: no \
             gateway knows that, and what this policy achieves none can be promised."
                .to_owned(),
        );
    }
    if policy.looks_at_caches() {
        assumptions.push(
            "Nothing is cached: rules that count tokens that are cached nowhere see whole prompts."
                .to_owned(),
        );
    }
    for trace in traces.iter().flatten() {
        let file = trace.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        assumptions.push(format!(
            "Prefix hashes that {file} may carry are not used: prefix caching is not modelled, \
             every prompt token is computed."
        ));
        if trace.output_cap.is_none() {
            assumptions.push(format!(
                "{file} does not say what output length its clients allowed; the cap is taken as \
                 the row's output length rounded up to a power of two."
            ));
        }
        if trace.rate_scale != 1.0 {
            assumptions
                .push(format!("{file} is replayed at {} times its speed.", trace.rate_scale));
        }
    }
    for class in &spec.class.0 {
        if class.intensity.as_ref().is_some_and(|intensity| intensity.prompt_tokens.is_some()) {
            let name = &class.name.value;
            assumptions
                .push(format!("The prompt length that class {name} states is not enforced."));
        }
    }
    assumptions
}

/// Where the relative path in `written` starts.
pub(crate) fn resolve(written: &At<String>, sources: &Sources) -> PathBuf {
    sources.path(written)
}

/// An instant so long after the run began.
pub(crate) fn instant(span: plimsoll_base::Span) -> Time {
    Time::ZERO.saturating_add(span)
}
