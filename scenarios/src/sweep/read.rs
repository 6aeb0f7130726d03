//! From `[sweep]` to axes.

use plimsoll_config::tree::{Entry, Node, Value};
use plimsoll_config::{Code, Diagnostic, DottedPath, Place, Sources, decode};

use super::draw::{Draw, Random};
use super::spec::SweepSpec;
use super::{Axis, CELLS_MAX, Change, Drawn, contradiction};

/// What is varied, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub replications: Option<u32>,
    pub grid: Vec<Axis>,
    pub zip: Vec<Axis>,
    pub list: Vec<Vec<Change>>,
    pub random: Option<Random>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.grid.is_empty() && self.zip.is_empty() && self.list.is_empty() && self.random.is_none()
    }

    /// Saturates: whatever is beyond the limit is refused.
    pub fn combinations(&self) -> u64 {
        let length = |count: usize| (count as u64).max(1);
        let grid = self.grid.iter().map(|axis| length(axis.values.len()));
        let zip = self.zip.first().map_or(1, |axis| length(axis.values.len()));
        let draws = self.random.as_ref().map_or(1, |random| u64::from(random.draws));
        let others = [zip, length(self.list.len()), draws];
        grid.chain(others).fold(1, u64::saturating_mul)
    }

    /// What a combination sets. The later a part stands, the faster it changes.
    pub fn changes(&self, combination: u64) -> Vec<Change> {
        let mut rest = combination;
        let mut digit = |count: u64| {
            let digit = rest % count.max(1);
            rest /= count.max(1);
            digit
        };
        let drawn = self.random.as_ref().map(|random| digit(u64::from(random.draws)));
        let listed = digit(self.list.len() as u64) as usize;
        let zipped = digit(self.zip.first().map_or(1, |axis| axis.values.len() as u64)) as usize;
        let mut chosen: Vec<usize> =
            self.grid.iter().rev().map(|axis| digit(axis.values.len() as u64) as usize).collect();
        chosen.reverse();
        let pick = |axis: &Axis, index: usize| Change {
            path: axis.path.clone(),
            value: axis.values[index].clone(),
        };
        let grid = self.grid.iter().zip(chosen).map(|(axis, index)| pick(axis, index));
        let mut changes: Vec<Change> = grid.collect();
        changes.extend(self.zip.iter().map(|axis| pick(axis, zipped)));
        changes.extend(self.list.get(listed).cloned().unwrap_or_default());
        if let (Some(random), Some(draw)) = (&self.random, drawn) {
            changes.extend(random.draw(draw));
        }
        changes
    }

    /// Every path, those of `list` once a cell.
    pub fn paths(&self) -> impl Iterator<Item = &DottedPath> {
        let axes = self.grid.iter().chain(&self.zip).map(|axis| &axis.path);
        let listed = self.list.iter().flatten().map(|change| &change.path);
        let drawn = self.random.iter().flat_map(|random| &random.vary).map(|draw| &draw.path);
        axes.chain(listed).chain(drawn)
    }
}

/// Reads the section; an absent one varies nothing.
pub(crate) fn plan(section: Option<&Node>, sources: &Sources) -> Result<Plan, Vec<Diagnostic>> {
    let Some(section) = section else { return Ok(Plan::default()) };
    let spec: SweepSpec = decode(section)?;
    let mut reading = Reading { sources, found: Vec::new() };
    if let Some(none) = spec.replications.filter(|count| count.value == 0) {
        reading.found.push(
            Diagnostic::new(Code::Range, Some(none.place), "a cell runs at least once")
                .help("write `replications = 1` or more"),
        );
    }
    let table = |key: &str| section.get(key);
    let list = table("list").map(|node| reading.list(node)).unwrap_or_default();
    let plan = Plan {
        replications: spec.replications.map(|count| count.value),
        grid: table("grid").map(|node| reading.axes(node)).unwrap_or_default(),
        zip: table("zip").map(|node| reading.axes(node)).unwrap_or_default(),
        list,
        random: match (table("random"), spec.random) {
            (Some(node), Some(spec)) => {
                let vary = node.get("vary").map(|node| reading.draws(node)).unwrap_or_default();
                if reading.found.is_empty() && (spec.draws.value == 0 || vary.is_empty()) {
                    reading.found.push(no_cells(spec.draws.place));
                }
                Some(Random { draws: spec.draws.value, seed: spec.seed.unwrap_or(1), vary })
            }
            (Some(_) | None, _) => None,
        },
    };
    if reading.found.is_empty() && plan.is_empty() {
        reading.found.push(no_cells(section.place));
    }
    if reading.found.is_empty() { Ok(plan) } else { Err(reading.found) }
}

pub(crate) fn no_cells(place: Place) -> Diagnostic {
    Diagnostic::new(Code::NoCells, Some(place), "the sweep has no cells")
        .help("give at least one value, for example `\"pool.gpu.replicas\" = [1, 2, 4]`")
}

/// Refuses what contradicts itself.
pub(crate) fn sound(plan: Plan) -> Result<Plan, Diagnostic> {
    for path in plan.paths() {
        if ["schema_version", "extends", "sweep"].contains(&path.first()) {
            let message = format!("`{path}` cannot be varied: a run does not read it");
            return Err(contradiction(path.place(), message, "vary what a run reads"));
        }
    }
    let axes = plan.grid.iter().chain(&plan.zip).map(|axis| vec![&axis.path]);
    let listed = plan.list.iter().flatten().map(|change| &change.path);
    let drawn = plan.random.iter().flat_map(|random| &random.vary).map(|draw| vec![&draw.path]);
    let mut seen: Vec<String> = Vec::new();
    for paths in axes.chain([listed.collect()]).chain(drawn) {
        let twice = paths.iter().find(|path| seen.contains(&path.to_string()));
        if let Some(path) = twice {
            let message = format!("`{path}` is varied in two places");
            return Err(contradiction(path.place(), message, "vary it in one place only"));
        }
        seen.extend(paths.iter().map(|path| path.to_string()));
    }
    for cell in &plan.list {
        let repeats = |index: usize, path: &DottedPath| {
            cell[..index].iter().any(|change| change.path.to_string() == path.to_string())
        };
        let twice = cell.iter().enumerate().find(|(index, change)| repeats(*index, &change.path));
        if let Some((_, change)) = twice {
            let message = format!("the cell sets `{}` twice", change.path);
            return Err(contradiction(change.path.place(), message, "set it once"));
        }
    }
    if let Some((first, rest)) = plan.zip.split_first() {
        let length = first.values.len();
        if let Some(other) = rest.iter().find(|axis| axis.values.len() != length) {
            let message = format!(
                "`{}` has {} values, `{}` has {length}",
                other.path,
                other.values.len(),
                first.path
            );
            let help = "under `zip` all lists are equally long; `grid` makes every combination";
            return Err(contradiction(other.path.place(), message, help));
        }
    }
    let cells = plan.combinations();
    match plan.paths().last() {
        Some(path) if cells > CELLS_MAX => {
            let message = format!("{cells} cells are more than {CELLS_MAX}");
            Err(Diagnostic::new(Code::TooMany, Some(path.place()), message)
                .help("vary less, or draw cells with `[sweep.random]`"))
        }
        Some(_) | None => Ok(plan),
    }
}

struct Reading<'a> {
    sources: &'a Sources,
    found: Vec<Diagnostic>,
}

impl Reading<'_> {
    /// Paths with a list of values each.
    fn axes(&mut self, node: &Node) -> Vec<Axis> {
        let mut axes = Vec::new();
        let leaf = |entry: &Entry| !matches!(entry.node.value, Value::Table(_));
        for (path, node) in self.leaves(node, leaf) {
            match &node.value {
                Value::Array(values) if values.is_empty() => self.found.push(no_cells(node.place)),
                Value::Array(values) => axes.push(Axis { path, values: values.clone() }),
                Value::Text(_)
                | Value::Integer(_)
                | Value::Float(_)
                | Value::Boolean(_)
                | Value::Table(_) => {
                    let kind = node.value.kind();
                    let message = format!("expected a list of values, found {kind}");
                    self.found.push(
                        Diagnostic::new(Code::Type, Some(node.place), message)
                            .label(format!("this is {kind}"))
                            .help("write the values in brackets: `[1, 2, 4]`"),
                    );
                }
            }
        }
        axes
    }

    /// Cells one by one. A key with a dot is a whole path, whatever its value is.
    fn list(&mut self, node: &Node) -> Vec<Vec<Change>> {
        let Value::Array(cells) = &node.value else { return Vec::new() };
        if cells.is_empty() {
            self.found.push(no_cells(node.place));
        }
        let leaf =
            |entry: &Entry| entry.key.contains('.') || !matches!(entry.node.value, Value::Table(_));
        let change = |(path, node): (DottedPath, &Node)| Change { path, value: node.clone() };
        cells.iter().map(|cell| self.leaves(cell, leaf).into_iter().map(change).collect()).collect()
    }

    /// Paths with something to draw from.
    fn draws(&mut self, node: &Node) -> Vec<Draw> {
        let is_range = |node: &Node| node.get("min").is_some() && node.get("max").is_some();
        let leaf = |entry: &Entry| {
            let table = matches!(entry.node.value, Value::Table(_));
            !table || is_range(&entry.node) || entry.key.contains('.')
        };
        let mut draws = Vec::new();
        for (path, node) in self.leaves(node, leaf) {
            match Drawn::read(node) {
                Ok(from) => draws.push(Draw { path, place: node.place, from }),
                Err(wrong) => self.found.extend(wrong),
            }
        }
        draws
    }

    /// The entries below a table at which `leaf` says that a path ends.
    fn leaves<'n>(
        &self,
        node: &'n Node,
        leaf: impl Fn(&Entry) -> bool,
    ) -> Vec<(DottedPath, &'n Node)> {
        let mut leaves = Vec::new();
        let mut open = vec![(DottedPath::default(), node)];
        while let Some((path, node)) = open.pop() {
            let mut below = Vec::new();
            for entry in node.entries() {
                let path = path.join(&entry.key, entry.key_place, self.sources);
                match leaf(entry) {
                    true => leaves.push((path, &entry.node)),
                    false => below.push((path, &entry.node)),
                }
            }
            open.extend(below.into_iter().rev());
        }
        leaves.sort_by_key(|(path, _)| (path.place().source, path.place().start));
        leaves
    }
}
