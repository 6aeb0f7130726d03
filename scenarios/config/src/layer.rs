//! Layers: what a file extends, the file, the overrides.

use std::path::{Path, PathBuf};

use crate::tree::{self, Entry, Node, Value};
use crate::{Code, Diagnostic, Diagnostics, Place, Source, Sources, nearest};

/// Files that come with the program: name and text.
pub type Shipped = &'static [(&'static str, &'static str)];

/// What names a shipped file in paths and in `extends`.
pub const SHIPPED_PREFIX: &str = "shipped:";

const EXTENDS_DEPTH_MAX: usize = 8;

/// Keys that choose among kinds of table. A table of another kind replaces, it does not merge.
const TAGS: [&str; 4] = ["rule", "process", "distribution", "kind"];

/// All layers, merged.
#[derive(Clone, Debug)]
pub struct Layered {
    /// The values.
    pub root: Node,
    /// The texts they came from.
    pub sources: Sources,
}

impl Layered {
    /// Applies overrides (`a.b=value`) on top of all layers.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn set(&mut self, overrides: &[String]) -> Result<(), Vec<Diagnostic>> {
        let mut found = Vec::new();
        for text in overrides {
            let done = set(&mut self.sources, &mut self.root, text);
            found.extend(done.err().into_iter().flatten());
        }
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    /// The tables of a text that does not come from a file, such as one of ours; `name` is what
    /// messages call it.
    ///
    /// # Errors
    /// If it is not TOML.
    pub fn text(&mut self, name: &str, text: &str) -> Result<Node, Vec<Diagnostic>> {
        let (path, text) = (name.to_owned(), text.to_owned());
        let index = self.sources.add(Source { path, text, first_line: 1, directory: None });
        tree::parse(&self.sources.get(index).text, index)
    }

    /// Lays a table over the value of a key of the root.
    pub fn lay(&mut self, key: &str, over: Node) {
        let Value::Table(entries) = &mut self.root.value else { return };
        match entries.iter_mut().find(|entry| entry.key == key) {
            Some(entry) => entry.node = merge(entry.node.clone(), over),
            None => {
                let (key, key_place) = (key.to_owned(), over.place);
                entries.push(Entry { key, key_place, node: over });
            }
        }
    }

    /// Takes over the sources of another reading; returns its root, whose places are now ours.
    pub fn adopt(&mut self, other: Layered) -> Node {
        let shift = self.sources.append(other.sources);
        let mut root = other.root;
        move_places(&mut root, shift);
        root
    }
}

/// Moves all places of a tree by so many sources.
fn move_places(node: &mut Node, shift: u32) {
    node.place.source += shift;
    match &mut node.value {
        Value::Array(nodes) => nodes.iter_mut().for_each(|node| move_places(node, shift)),
        Value::Table(entries) => {
            for entry in entries {
                entry.key_place.source += shift;
                move_places(&mut entry.node, shift);
            }
        }
        Value::Text(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {}
    }
}

/// Reads a file with all that it extends and applies the overrides (`a.b=value`) on top.
pub fn read(path: &Path, overrides: &[String], shipped: Shipped) -> Result<Layered, Diagnostics> {
    let mut layers = Layers { sources: Sources::default(), shipped, seen: Vec::new() };
    let read = layers.file(&path.to_string_lossy(), None, None).and_then(|mut root| {
        let mut found = Vec::new();
        for text in overrides {
            found.extend(set(&mut layers.sources, &mut root, text).err().into_iter().flatten());
        }
        if found.is_empty() { Ok(root) } else { Err(found) }
    });
    match read {
        Ok(root) => Ok(Layered { root, sources: layers.sources }),
        Err(list) => Err(Diagnostics { sources: layers.sources, list }),
    }
}

struct Layers {
    sources: Sources,
    shipped: Shipped,
    seen: Vec<String>,
}

impl Layers {
    fn file(
        &mut self,
        name: &str,
        directory: Option<&Path>,
        place: Option<Place>,
    ) -> Result<Node, Vec<Diagnostic>> {
        let source = self.open(name, directory, place).map_err(|diagnostic| vec![diagnostic])?;
        if self.seen.contains(&source.path) || self.seen.len() >= EXTENDS_DEPTH_MAX {
            let chain = self.seen.join(" -> ");
            let message = format!("`{name}` extends in a circle or too deep ({chain})");
            return Err(vec![
                Diagnostic::new(Code::Extends, place, message)
                    .help(format!("extend at most {EXTENDS_DEPTH_MAX} files deep, none twice")),
            ]);
        }
        self.seen.push(source.path.clone());
        let directory = source.directory.clone();
        let index = self.sources.add(source);
        let mut node = tree::parse(&self.sources.get(index).text, index)?;
        version(&node)?;
        let Some(base) = take(&mut node, "extends") else { return Ok(node) };
        let Value::Text(base_name) = &base.node.value else {
            return Err(vec![
                Diagnostic::new(Code::Type, Some(base.node.place), "`extends` takes a string")
                    .help("write a path or \"shipped:NAME\""),
            ]);
        };
        let below = self.file(base_name, directory.as_deref(), Some(base.node.place))?;
        Ok(merge(below, node))
    }

    fn open(
        &self,
        name: &str,
        directory: Option<&Path>,
        place: Option<Place>,
    ) -> Result<Source, Diagnostic> {
        let plain = name.strip_prefix(SHIPPED_PREFIX);
        if let Some(wanted) = plain {
            let found = self.shipped.iter().find(|(name, _)| *name == wanted);
            return match found {
                Some((_, text)) => Ok(Source {
                    path: name.into(),
                    text: (*text).into(),
                    first_line: 1,
                    directory: None,
                }),
                None => {
                    let message = format!("no shipped scenario is named `{wanted}`");
                    let names = self.shipped.iter().map(|(name, _)| *name);
                    Err(Diagnostic::new(Code::Unreadable, place, message)
                        .help_maybe(nearest::suggest(wanted, names)))
                }
            };
        }
        let path = match directory {
            Some(directory) => directory.join(name),
            None => PathBuf::from(name),
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Source {
                path: path.to_string_lossy().into_owned(),
                text,
                first_line: 1,
                directory: path.parent().map(Path::to_path_buf),
            }),
            Err(error) => {
                let near = self.shipped.iter().any(|(shipped, _)| *shipped == name);
                let help = if near {
                    format!("did you mean `{SHIPPED_PREFIX}{name}`?")
                } else {
                    "check the path; `plimsoll init` writes a scenario to start from".into()
                };
                let message = format!("cannot read `{}`: {}", path.display(), reason(&error));
                Err(Diagnostic::new(Code::Unreadable, place, message).help(help))
            }
        }
    }
}

/// Applies one override.
fn set(sources: &mut Sources, root: &mut Node, text: &str) -> Result<(), Vec<Diagnostic>> {
    let index = sources.add(Source {
        path: "--set".into(),
        text: text.into(),
        first_line: 1,
        directory: None,
    });
    let whole = Place { source: index, start: 0, end: bytes(text.len()) };
    let Some((path, value)) = text.split_once('=') else {
        return Err(vec![
            Diagnostic::new(Code::Override, Some(whole), "an override needs `=`")
                .help("write `--set workload.chat.arrivals.rate=5/s`"),
        ]);
    };
    let offset = bytes(path.len() + 1);
    let node = override_value(value, index, offset)?;
    let mut at = 0;
    let steps: Vec<(&str, Place)> = path
        .split('.')
        .map(|step| {
            let place = Place { source: index, start: bytes(at), end: bytes(at + step.len()) };
            at += step.len() + 1;
            (step.trim(), place)
        })
        .collect();
    put(root, &steps, node).map_err(|diagnostic| vec![diagnostic])
}

/// Refuses a file whose schema version is missing or not ours.
fn version(node: &Node) -> Result<(), Vec<Diagnostic>> {
    let wrong = |place, message: String, help: &str| {
        Err(vec![Diagnostic::new(Code::Version, Some(place), message).help(help)])
    };
    match node.get("schema_version") {
        None => {
            let place = Place { end: node.place.start, ..node.place };
            let message = "`schema_version` is missing".into();
            wrong(place, message, "add `schema_version = 1` at the top")
        }
        Some(Node { value: Value::Integer(1), .. }) => Ok(()),
        Some(Node { value: Value::Integer(newer @ 2..), place }) => wrong(
            *place,
            format!("this file has schema version {newer}, this program reads version 1"),
            "use a newer program for this file",
        ),
        Some(other) => wrong(
            other.place,
            "there is no such schema version".into(),
            "write `schema_version = 1`",
        ),
    }
}

/// The value of an override: TOML, or a bare word as a string.
pub fn override_value(value: &str, source: u32, offset: u32) -> Result<Node, Vec<Diagnostic>> {
    let structured = value.trim_start().starts_with(['[', '{', '"', '\'']);
    match tree::parse_value(value, source, offset) {
        Ok(node) => Ok(node),
        Err(_) if !structured => Ok(Node {
            value: Value::Text(value.trim().into()),
            place: Place { source, start: offset, end: offset + bytes(value.len()) },
        }),
        Err(found) => Err(found),
    }
}

pub(crate) fn put(node: &mut Node, steps: &[(&str, Place)], value: Node) -> Result<(), Diagnostic> {
    let Some(((step, place), rest)) = steps.split_first() else {
        *node = value;
        return Ok(());
    };
    let unknown = |message: String, help| {
        Err(Diagnostic::new(Code::Override, Some(*place), message).help_maybe(help))
    };
    if step.is_empty() {
        return unknown("a step of the path is empty".into(), Some("write `a.b=c`".into()));
    }
    match &mut node.value {
        Value::Table(entries) => {
            let index = match entries.iter().position(|entry| entry.key == *step) {
                Some(index) => index,
                None => {
                    let empty = Node { value: Value::Table(Vec::new()), place: *place };
                    let key = (*step).to_owned();
                    entries.push(Entry { key, key_place: *place, node: empty });
                    entries.len() - 1
                }
            };
            put(&mut entries[index].node, rest, value)
        }
        Value::Array(nodes) => {
            let index = match step.parse::<usize>() {
                Ok(index) => Some(index),
                Err(_) => nodes.iter().position(|node| node.name() == Some(step)),
            };
            let count = nodes.len();
            if let Some(node) = index.and_then(|index| nodes.get_mut(index)) {
                return put(node, rest, value);
            }
            let names: Vec<&str> = nodes.iter().filter_map(Node::name).collect();
            let help = nearest::suggest(step, names);
            unknown(format!("this list of {count} has no element `{step}`"), help)
        }
        Value::Text(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
            let kind = node.value.kind();
            unknown(format!("there is {kind} here, it has no `{step}`"), None)
        }
    }
}

/// `over` on top of `below`.
fn merge(below: Node, over: Node) -> Node {
    let place = over.place;
    match (below.value, over.value) {
        (Value::Table(below), Value::Table(over)) if !other_kind(&below, &over) => {
            Node { value: Value::Table(merge_tables(below, over)), place }
        }
        (Value::Array(below), Value::Array(over)) if all_named(&below) && all_named(&over) => {
            Node { value: Value::Array(merge_named(below, over)), place }
        }
        (_, value) => Node { value, place },
    }
}

fn merge_tables(mut below: Vec<Entry>, over: Vec<Entry>) -> Vec<Entry> {
    for entry in over {
        match below.iter().position(|old| old.key == entry.key) {
            Some(index) => {
                let old = below[index].clone();
                below[index] = Entry { node: merge(old.node, entry.node), ..entry };
            }
            None => below.push(entry),
        }
    }
    below
}

/// A name that stands twice in `over` stays twice, so that it is found to be a duplicate.
fn merge_named(mut below: Vec<Node>, over: Vec<Node>) -> Vec<Node> {
    let mut open: Vec<bool> = vec![true; below.len()];
    for node in over {
        let same =
            below.iter().zip(&open).position(|(old, open)| *open && old.name() == node.name());
        match same {
            Some(index) => {
                open[index] = false;
                below[index] = merge(below[index].clone(), node);
            }
            None => {
                below.push(node);
                open.push(false);
            }
        }
    }
    below
}

fn all_named(nodes: &[Node]) -> bool {
    !nodes.is_empty() && nodes.iter().all(|node| node.name().is_some())
}

fn other_kind(below: &[Entry], over: &[Entry]) -> bool {
    let tag = |entries: &[Entry], tag: &str| {
        let entry = entries.iter().find(|entry| entry.key == tag)?;
        entry.node.text().map(str::to_owned)
    };
    TAGS.iter().any(|name| match (tag(below, name), tag(over, name)) {
        (Some(below), Some(over)) => below != over,
        (Some(_), None) | (None, _) => false,
    })
}

/// Takes a key out of a table.
pub fn take(node: &mut Node, key: &str) -> Option<Entry> {
    let Value::Table(entries) = &mut node.value else { return None };
    let index = entries.iter().position(|entry| entry.key == key)?;
    Some(entries.remove(index))
}

/// The operating system's words without its number.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn bytes(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
