//! The effective configuration: each value and where it came from.

use crate::tree::{Node, Value};
use crate::{Layered, Sources};

/// Every value that is in force, in the order of the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effective {
    /// One row a value.
    pub rows: Vec<EffectiveRow>,
}

/// One value that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveRow {
    /// Its dotted path, as `--set` takes it.
    pub path: String,
    /// Its value as TOML.
    pub value: String,
    /// Where it came from: `file.toml:12` or `--set`.
    pub origin: String,
}

impl Effective {
    /// All values of merged layers.
    pub fn of(layered: &Layered) -> Effective {
        let mut effective = Effective::default();
        walk(&layered.root, String::new(), &mut |path, node| {
            effective.row(path, node, &layered.sources);
        });
        effective
    }

    /// A hash of paths and values, independent of origins: two files that say the same have the
    /// same hash. 16 hexadecimal digits (FNV-1a, 64 bits).
    pub fn hash(&self) -> String {
        hash(self.rows.iter().map(|row| (row.path.as_str(), row.value.as_str())).collect())
    }

    fn row(&mut self, path: String, node: &Node, sources: &Sources) {
        let position = sources.position(node.place);
        let origin = match position.path.as_str() {
            "--set" => "--set".to_owned(),
            file => format!("{file}:{}", position.line),
        };
        self.rows.push(EffectiveRow { path, value: text(&node.value), origin });
    }
}

/// The hash that [`Effective::hash`] gives for these values, without asking where they stand.
pub fn hash_of(root: &Node) -> String {
    let mut rows: Vec<(String, String)> = Vec::new();
    walk(root, String::new(), &mut |path, node| rows.push((path, text(&node.value))));
    hash(rows.iter().map(|(path, value)| (path.as_str(), value.as_str())).collect())
}

fn hash(mut rows: Vec<(&str, &str)>) -> String {
    rows.sort_by_key(|(path, _)| *path);
    let mut state: u64 = 0xcbf2_9ce4_8422_2325;
    for (path, value) in rows {
        for byte in path.bytes().chain([b'=']).chain(value.bytes()).chain([b'\n']) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    format!("{state:016x}")
}

/// Tells the path of each value that is no table and no list of tables.
fn walk(node: &Node, path: String, tell: &mut impl FnMut(String, &Node)) {
    let below = |step: &str| match path.as_str() {
        "" => step.to_owned(),
        path => format!("{path}.{step}"),
    };
    match &node.value {
        Value::Table(entries) if !entries.is_empty() => {
            for entry in entries {
                walk(&entry.node, below(&entry.key), tell);
            }
        }
        Value::Array(nodes) if nodes.iter().any(|node| !node.entries().is_empty()) => {
            for (index, node) in nodes.iter().enumerate() {
                let step = node.name().map_or_else(|| index.to_string(), str::to_owned);
                walk(node, below(&step), tell);
            }
        }
        Value::Table(_)
        | Value::Array(_)
        | Value::Text(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_) => tell(path, node),
    }
}

/// A value as TOML writes it.
pub fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => toml::Value::String(text.clone()).to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Float(value) => toml::Value::Float(*value).to_string(),
        Value::Boolean(value) => value.to_string(),
        Value::Array(nodes) => {
            let items: Vec<String> = nodes.iter().map(|node| text(&node.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(entries) => {
            let items: Vec<String> = entries
                .iter()
                .map(|entry| format!("{} = {}", entry.key, text(&entry.node.value)))
                .collect();
            format!("{{ {} }}", items.join(", "))
        }
    }
}
