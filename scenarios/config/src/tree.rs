//! A configuration as a tree in which every value knows its place.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::{Code, Diagnostic, Place};

/// A value and where it is written.
#[derive(Clone, Debug)]
pub struct Node {
    /// What.
    pub value: Value,
    /// Where.
    pub place: Place,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// True or false.
    Boolean(bool),
    /// A list.
    Array(Vec<Node>),
    /// A table; entries in the order of the file.
    Table(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key is written.
    pub key_place: Place,
    /// Its value.
    pub node: Node,
}

impl Value {
    /// What it is, in words: "a string".
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Boolean(_) => "true or false",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

impl Node {
    /// The entries of a table; empty for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Table(entries) => entries,
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Array(_) => &[],
        }
    }
    /// The value of a key, if this is a table that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }
    /// The text, if this is one.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Array(_)
            | Value::Table(_) => None,
        }
    }
    /// The `name` of a table.
    pub fn name(&self) -> Option<&str> {
        self.get("name")?.text()
    }
}

/// Reads a whole TOML text; every syntax error becomes a diagnostic.
pub(crate) fn parse(text: &str, source: u32) -> Result<Node, Vec<Diagnostic>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut found: Vec<Diagnostic> =
        errors.iter().map(|error| syntax_error(error, source)).collect();
    let span = table.span();
    let node = Node {
        value: convert_table(table.into_inner(), source, &mut found),
        place: place(source, span),
    };
    if found.is_empty() { Ok(node) } else { Err(found) }
}

/// Reads one TOML value that begins at byte `offset` of its source.
pub(crate) fn parse_value(text: &str, source: u32, offset: u32) -> Result<Node, Vec<Diagnostic>> {
    let (value, errors) = DeValue::parse_recoverable(text);
    let mut found: Vec<Diagnostic> =
        errors.iter().map(|error| syntax_error(error, source)).collect();
    let mut node = convert(value, source, &mut found);
    shift(&mut node, offset);
    for diagnostic in &mut found {
        if let Some(place) = &mut diagnostic.place {
            place.start += offset;
            place.end += offset;
        }
    }
    if found.is_empty() { Ok(node) } else { Err(found) }
}

fn shift(node: &mut Node, offset: u32) {
    node.place.start += offset;
    node.place.end += offset;
    match &mut node.value {
        Value::Array(nodes) => nodes.iter_mut().for_each(|node| shift(node, offset)),
        Value::Table(entries) => {
            for entry in entries {
                entry.key_place.start += offset;
                entry.key_place.end += offset;
                shift(&mut entry.node, offset);
            }
        }
        Value::Text(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {}
    }
}

fn syntax_error(error: &toml::de::Error, source: u32) -> Diagnostic {
    let place = error.span().map(|span| place(source, span));
    let message = error.message();
    let first = message.lines().next().unwrap_or("the text is not TOML");
    let rest: Vec<&str> = message.lines().skip(1).collect();
    let help = match rest.is_empty() {
        true => {
            "strings stand in quotes, tables are written [name], lists of tables [[name]]".into()
        }
        false => rest.join("; "),
    };
    Diagnostic::new(Code::Syntax, place, format!("this is not TOML: {first}")).help(help)
}

fn place(source: u32, span: std::ops::Range<usize>) -> Place {
    let bytes = |at| u32::try_from(at).unwrap_or(u32::MAX);
    Place { source, start: bytes(span.start), end: bytes(span.end) }
}

fn convert(value: Spanned<DeValue<'_>>, source: u32, found: &mut Vec<Diagnostic>) -> Node {
    let place = place(source, value.span());
    let mut refuse = |code, message: String| {
        found.push(Diagnostic::new(code, Some(place), message));
        Value::Integer(0)
    };
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
            Ok(integer) => Value::Integer(integer),
            Err(_) => refuse(Code::Range, format!("{digits} does not fit 64 bits")),
        },
        DeValue::Float(digits) => match digits.as_str().parse::<f64>() {
            Ok(float) if float.is_finite() => Value::Float(float),
            Ok(_) | Err(_) => refuse(Code::Range, format!("{digits} is not a finite number")),
        },
        DeValue::Boolean(boolean) => Value::Boolean(boolean),
        DeValue::Datetime(_) => refuse(Code::Type, "a date stands where none belongs".into()),
        DeValue::Array(nodes) => {
            Value::Array(nodes.into_iter().map(|node| convert(node, source, found)).collect())
        }
        DeValue::Table(table) => convert_table(table, source, found),
    };
    Node { value, place }
}

fn convert_table(table: DeTable<'_>, source: u32, found: &mut Vec<Diagnostic>) -> Value {
    let mut entries: Vec<Entry> = table
        .into_iter()
        .map(|(key, value)| Entry {
            key_place: place(source, key.span()),
            key: key.into_inner().into_owned(),
            node: convert(value, source, found),
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_place.start);
    Value::Table(entries)
}
