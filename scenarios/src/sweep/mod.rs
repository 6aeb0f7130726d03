//! Sweeps: one scenario file, many cells.
//!
//! The file is read once. A cell is the tree of its values with a few of them replaced; its id is
//! the hash of that effective scenario, which is also what `plimsoll run` gives for the file with
//! the same values set.

mod arguments;
mod draw;
mod read;
pub mod spec;

use std::path::Path;

use plimsoll_config::tree::{Node, Value};
use plimsoll_config::{Code, Diagnostic, Diagnostics, DottedPath, Place, Sources};

pub use arguments::SweepArguments;
use draw::Drawn;
use read::Plan;

use crate::scenario::{Scenario, build, refuse_gateway};
use crate::shipped;
use crate::under::take_alternatives;

/// More cells than this are refused.
pub const CELLS_MAX: u64 = 1_000_000;

/// A path and the values that it takes in turn.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    path: DottedPath,
    values: Vec<Node>,
}

/// A value, and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    path: DottedPath,
    value: Node,
}

/// A scenario file and what is varied in it. The cells of an empty plan are one: the file itself.
#[derive(Clone, Debug)]
pub struct Sweep {
    root: Node,
    sources: Sources,
    plan: Plan,
}

/// What a cell sets.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its dotted path, as `--set` takes it.
    pub path: String,
    /// Its value as TOML.
    pub text: String,
    /// Its value.
    pub value: serde_json::Value,
}

/// One combination.
#[derive(Clone, Debug)]
pub struct Cell {
    /// What it sets, in the order of the sweep.
    pub parameters: Vec<Parameter>,
    /// What runs. Its `effective` is empty; its hash is the cell's id.
    pub scenario: Scenario,
}

/// Reads a scenario file with the overrides (`a.b=value`) laid on top, and what it or the command
/// line varies. The path may be `shipped:NAME`. No cell is built yet.
///
/// # Errors
/// Whatever is wrong with the file's layers or with what is varied; no cells at all.
pub fn load_sweep(
    path: &Path,
    overrides: &[String],
    arguments: &SweepArguments,
) -> Result<Sweep, Diagnostics> {
    let sweep = load_maybe(path, overrides, arguments)?;
    if sweep.plan.is_empty() {
        let diagnostic = Diagnostic::new(Code::NoCells, None, "the sweep has no cells").help(
            "vary something: `--vary pool.gpu.replicas=1,2,4`, or `[sweep.grid]` in the file",
        );
        return Err(Diagnostics { sources: sweep.sources, list: vec![diagnostic] });
    }
    Ok(sweep)
}

/// The sweep that a file holds, if it holds one; errors as [`load_sweep`].
///
/// # Errors
/// Whatever is wrong with the file's layers or with what is varied.
pub fn sweep_of(path: &Path, overrides: &[String]) -> Result<Option<Sweep>, Diagnostics> {
    let sweep = load_maybe(path, overrides, &SweepArguments::default())?;
    Ok((!sweep.plan.is_empty()).then_some(sweep))
}

fn load_maybe(
    path: &Path,
    overrides: &[String],
    arguments: &SweepArguments,
) -> Result<Sweep, Diagnostics> {
    let mut layered = plimsoll_config::read(path, overrides, shipped())?;
    refuse_gateway(&layered)?;
    // A cell runs under the file's own policy; what `compare` finds in the file is not for it.
    take_alternatives(&mut layered.root);
    let written = plimsoll_config::take(&mut layered.root, "sweep");
    let plan = read::plan(written.as_ref().map(|entry| &entry.node), &layered.sources)
        .and_then(|plan| arguments.lay_over(plan, &mut layered.sources))
        .and_then(|plan| read::sound(plan).map_err(|wrong| vec![wrong]));
    match plan {
        Ok(plan) => Ok(Sweep { root: layered.root, sources: layered.sources, plan }),
        Err(list) => Err(Diagnostics { sources: layered.sources, list }),
    }
}

/// What is wrong with the `[sweep]` of a file, beside its cells.
pub(crate) fn check(written: &Node, sources: &Sources) -> Result<(), Vec<Diagnostic>> {
    let plan = read::plan(Some(written), sources)?;
    read::sound(plan).map(drop).map_err(|wrong| vec![wrong])
}

impl Sweep {
    /// How many combinations there are, at most [`CELLS_MAX`]. Some may be equal.
    pub fn combinations(&self) -> u64 {
        self.plan.combinations()
    }

    /// How often the file says that each cell is to run.
    pub fn replications(&self) -> Option<u32> {
        self.plan.replications
    }

    /// Every path that some cell sets, in the order of the sweep.
    pub fn paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = Vec::new();
        for path in self.plan.paths().map(DottedPath::to_string) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths
    }

    /// What the file is called.
    pub fn name(&self) -> &str {
        self.root.name().unwrap_or("scenario")
    }

    /// What the file is about.
    pub fn description(&self) -> &str {
        self.root.get("description").and_then(Node::text).unwrap_or("")
    }

    /// The hash of the file's own values, with nothing varied.
    pub fn hash(&self) -> String {
        plimsoll_config::hash_of(&self.root)
    }

    /// What a combination sets.
    pub fn parameters(&self, combination: u64) -> Vec<Parameter> {
        self.plan.changes(combination).iter().map(parameter).collect()
    }

    /// A combination by its number, from 0.
    ///
    /// # Errors
    /// Whatever is wrong with the scenario that results: a path that leads nowhere, a value out of
    /// range, values that contradict each other. Marked is the value in the sweep, or what it
    /// contradicts.
    pub fn cell(&self, combination: u64) -> Result<Cell, Diagnostics> {
        let changes = self.plan.changes(combination);
        let mut root = self.root.clone();
        let parameters: Vec<Parameter> = changes.iter().map(parameter).collect();
        let laid =
            changes.into_iter().try_for_each(|change| change.path.set(&mut root, change.value));
        let built = laid
            .map_err(|wrong| vec![wrong])
            .and_then(|()| build(&root, &self.sources, plimsoll_config::hash_of(&root)));
        match built {
            Ok(scenario) => Ok(Cell { parameters, scenario }),
            Err(mut list) => {
                let set = parameters.iter().map(|set| format!("{} = {}", set.path, set.text));
                let set = set.collect::<Vec<_>>().join(", ");
                for wrong in &mut list {
                    wrong.message = format!("{} (in the cell with {set})", wrong.message);
                }
                Err(Diagnostics { sources: self.sources.clone(), list })
            }
        }
    }
}

fn parameter(change: &Change) -> Parameter {
    Parameter {
        path: change.path.to_string(),
        text: plimsoll_config::text(&change.value.value),
        value: json(&change.value.value),
    }
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Text(text) => text.as_str().into(),
        Value::Integer(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Boolean(value) => (*value).into(),
        Value::Array(nodes) => nodes.iter().map(|node| json(&node.value)).collect(),
        Value::Table(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), json(&entry.node.value))).collect()
        }
    }
}

/// A diagnostic of a sweep that contradicts itself.
fn contradiction(place: Place, message: impl Into<String>, help: &str) -> Diagnostic {
    Diagnostic::new(Code::Sweep, Some(place), message).help(help)
}
