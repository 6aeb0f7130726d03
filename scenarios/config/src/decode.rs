//! From a [`Node`] to a serde type, with every mistake told at its place.
//!
//! A leaf of the wrong type, a bad quantity or an unknown key is reported and reading goes on, so
//! that one reading finds many mistakes. A table that lacks a key is given up, its neighbours in
//! a list are still read. Whatever was put in place of a bad leaf is never used: a reading with
//! mistakes yields no value.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use crate::tree::{Entry, Node, Value};
use crate::units::{self, BYTES_KIND, COEFFICIENT, FRACTION, RATE, SPAN};
use crate::values::{AT, ONE_OR_MANY};
use crate::{Code, Diagnostic, Place, examples, nearest};

/// Reads a value; all mistakes that could be found if there are any.
pub fn decode<T: DeserializeOwned>(node: &Node) -> Result<T, Vec<Diagnostic>> {
    let found = RefCell::new(Vec::new());
    let result = T::deserialize(Reader { node, found: &found });
    let mut found = found.into_inner();
    match result {
        Ok(value) if found.is_empty() => Ok(value),
        Ok(_) => Err(found),
        Err(fault) => {
            found.extend(fault.into_diagnostic(node.place));
            Err(found)
        }
    }
}

/// Why a table was given up.
#[derive(Debug)]
enum Fault {
    Missing(&'static str),
    Custom(String),
    Placed(Box<Diagnostic>),
    Reported,
}

impl Fault {
    fn into_diagnostic(self, place: Place) -> Option<Diagnostic> {
        match self {
            Fault::Missing(key) => Some(
                Diagnostic::new(Code::Missing, Some(place), format!("`{key}` is missing"))
                    .label(format!("this table needs `{key}`"))
                    .help_maybe(examples::of(key).map(|example| format!("add `{example}`"))),
            ),
            Fault::Custom(message) => Some(Diagnostic::new(Code::Type, Some(place), message)),
            Fault::Placed(diagnostic) => Some(*diagnostic),
            Fault::Reported => None,
        }
    }
    fn at(self, place: Place) -> Fault {
        match self.into_diagnostic(place) {
            Some(diagnostic) => Fault::Placed(Box::new(diagnostic)),
            None => Fault::Reported,
        }
    }
}
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing(key) => write!(f, "`{key}` is missing"),
            Fault::Custom(message) => f.write_str(message),
            Fault::Placed(diagnostic) => f.write_str(&diagnostic.message),
            Fault::Reported => f.write_str("already reported"),
        }
    }
}
impl std::error::Error for Fault {}
impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Fault {
        Fault::Custom(message.to_string())
    }
    fn missing_field(key: &'static str) -> Fault {
        Fault::Missing(key)
    }
}

/// Reads one node.
#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    found: &'a RefCell<Vec<Diagnostic>>,
}

impl<'a> Reader<'a> {
    fn report(&self, diagnostic: Diagnostic) {
        self.found.borrow_mut().push(diagnostic);
    }
    fn wrong_type(&self, expected: &str) -> Diagnostic {
        let kind = self.node.value.kind();
        Diagnostic::new(
            Code::Type,
            Some(self.node.place),
            format!("expected {expected}, found {kind}"),
        )
        .label(format!("this is {kind}"))
        .help(format!("write {expected}"))
    }
    fn integer(&self, least: i64, greatest: u64) -> i64 {
        let Value::Integer(value) = self.node.value else {
            self.report(self.wrong_type("a whole number"));
            return least.max(1);
        };
        if value < least || value > i64::try_from(greatest).unwrap_or(i64::MAX) {
            let message = format!("{value} is not from {least} to {greatest}");
            self.report(
                Diagnostic::new(Code::Range, Some(self.node.place), message)
                    .label("out of range")
                    .help(format!("write a whole number from {least} to {greatest}")),
            );
            return least.max(1);
        }
        value
    }
    fn quantity<T: Default>(
        &self,
        kind: &'static str,
        parse: impl Fn(&str) -> Result<T, units::Wrong>,
    ) -> T {
        let parsed = match &self.node.value {
            Value::Text(text) => parse(text),
            Value::Integer(number) => Err(units::bare(kind, &number.to_string())),
            Value::Float(number) => Err(units::bare(kind, &number.to_string())),
            Value::Boolean(_) | Value::Array(_) | Value::Table(_) => {
                self.report(self.wrong_type("a quantity with its unit"));
                return T::default();
            }
        };
        parsed.unwrap_or_else(|wrong| {
            self.report(
                Diagnostic::new(Code::Unit, Some(self.node.place), wrong.message).help(wrong.help),
            );
            T::default()
        })
    }
    fn fraction(&self) -> f64 {
        let parsed = match &self.node.value {
            Value::Text(text) => units::percentage(text),
            Value::Integer(number) => units::fraction(*number as f64),
            Value::Float(number) => units::fraction(*number),
            Value::Boolean(_) | Value::Array(_) | Value::Table(_) => {
                self.report(self.wrong_type("a fraction"));
                return 0.0;
            }
        };
        parsed.unwrap_or_else(|wrong| {
            self.report(
                Diagnostic::new(Code::Range, Some(self.node.place), wrong.message).help(wrong.help),
            );
            0.0
        })
    }
    /// The entries that a struct with these fields has; reports the others.
    fn known(&self, fields: &'static [&'static str], without: Option<&str>) -> Vec<&'a Entry> {
        let (known, unknown): (Vec<&Entry>, Vec<&Entry>) = self
            .node
            .entries()
            .iter()
            .filter(|entry| Some(entry.key.as_str()) != without)
            .partition(|entry| fields.contains(&entry.key.as_str()));
        for entry in unknown {
            let help = nearest::suggest(&entry.key, fields.iter().copied())
                .unwrap_or_else(|| format!("remove `{}`", entry.key));
            self.report(
                Diagnostic::new(
                    Code::UnknownKey,
                    Some(entry.key_place),
                    format!("unknown key `{}`", entry.key),
                )
                .label("no such key here")
                .help(help),
            );
        }
        known
    }
    fn structure<'de, V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        without: Option<&str>,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let entries = self.known(fields, without);
        visitor
            .visit_map(Entries { entries: entries.into_iter(), value: None, found: self.found })
            .map_err(|fault| fault.at(self.node.place))
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let value = self.integer(<$type>::MIN as i64, <$type>::MAX as u64);
            visitor.$visit(<$type>::try_from(value).expect("the range was checked"))
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    integers! {
        deserialize_i8 visit_i8 i8; deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32; deserialize_i64 visit_i64 i64;
        deserialize_u8 visit_u8 u8; deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32; deserialize_u64 visit_u64 u64;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Array(nodes) => {
                visitor.visit_seq(Elements { nodes: nodes.iter(), found: self.found })
            }
            Value::Table(entries) => visitor.visit_map(Entries {
                entries: entries.iter().collect::<Vec<_>>().into_iter(),
                value: None,
                found: self.found,
            }),
        }
    }
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_f64(match self.node.value {
            Value::Integer(value) => value as f64,
            Value::Float(value) => value,
            Value::Text(_) | Value::Boolean(_) | Value::Array(_) | Value::Table(_) => {
                self.report(self.wrong_type("a number"));
                1.0
            }
        })
    }
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_f64(visitor)
    }
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.value {
            Value::Boolean(value) => visitor.visit_bool(value),
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Array(_)
            | Value::Table(_) => {
                self.report(self.wrong_type("true or false"));
                visitor.visit_bool(false)
            }
        }
    }
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.text() {
            Some(text) => visitor.visit_str(text),
            None => {
                self.report(self.wrong_type("a string"));
                visitor.visit_str("")
            }
        }
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match name {
            SPAN => {
                visitor.visit_u64(self.quantity(name, |text| units::span(text).map(|s| s.nanos())))
            }
            RATE => visitor.visit_f64(self.quantity(name, units::rate)),
            BYTES_KIND => visitor.visit_u64(self.quantity(name, units::bytes)),
            COEFFICIENT => visitor.visit_f64(self.quantity(name, units::coefficient)),
            FRACTION => visitor.visit_f64(self.fraction()),
            ONE_OR_MANY if matches!(self.node.value, Value::Array(_)) => {
                self.deserialize_seq(visitor)
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == AT {
            return visitor.visit_seq(Placed { reader: self, next: 0 });
        }
        self.deserialize_tuple(length, visitor)
    }
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Array(nodes) if nodes.len() == length => {
                visitor.visit_seq(Elements { nodes: nodes.iter(), found: self.found })
            }
            Value::Array(_)
            | Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Table(_) => {
                Err(Fault::Placed(Box::new(self.wrong_type(&format!("a list of {length} values")))))
            }
        }
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let nodes: &[Node] = match &self.node.value {
            Value::Array(nodes) => nodes,
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Table(_) => {
                self.report(self.wrong_type("a list"));
                &[]
            }
        };
        visitor.visit_seq(Elements { nodes: nodes.iter(), found: self.found })
    }
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if !matches!(self.node.value, Value::Table(_)) {
            self.report(self.wrong_type("a table"));
        }
        visitor.visit_map(Entries {
            entries: self.node.entries().iter().collect::<Vec<_>>().into_iter(),
            value: None,
            found: self.found,
        })
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if !matches!(self.node.value, Value::Table(_)) {
            return Err(Fault::Placed(Box::new(self.wrong_type("a table"))));
        }
        self.structure(fields, None, visitor)
    }
    /// The enum's name is the key that names the variant: `process = "poisson"`. A bare string
    /// is a variant without other keys.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        tag: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let (chosen, place) = match &self.node.value {
            Value::Text(text) => (text.as_str(), self.node.place),
            Value::Table(_) => match self.node.get(tag) {
                Some(node) => match node.text() {
                    Some(text) => (text, node.place),
                    None => {
                        let reader = Reader { node, found: self.found };
                        return Err(Fault::Placed(Box::new(reader.wrong_type("a string"))));
                    }
                },
                None => return Err(Fault::Missing(tag).at(self.node.place)),
            },
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Array(_) => {
                let expected = format!("a table with `{tag}`");
                return Err(Fault::Placed(Box::new(self.wrong_type(&expected))));
            }
        };
        match variants.iter().find(|variant| **variant == chosen) {
            Some(variant) => visitor.visit_enum(Variant { tag, variant, reader: self }),
            None => Err(Fault::Placed(Box::new(
                Diagnostic::new(
                    Code::UnknownKind,
                    Some(place),
                    format!("`{chosen}` is not a known {tag}"),
                )
                .help_maybe(nearest::suggest(chosen, variants.iter().copied())),
            ))),
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct identifier ignored_any
    }
}

/// The four parts of an [`At`](crate::At).
struct Placed<'a> {
    reader: Reader<'a>,
    next: u8,
}
impl<'de> SeqAccess<'de> for Placed<'_> {
    type Error = Fault;
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let place = self.reader.node.place;
        self.next += 1;
        let number = match self.next {
            1 => place.source,
            2 => place.start,
            3 => place.end,
            _ => return seed.deserialize(self.reader).map(Some),
        };
        seed.deserialize(number.into_deserializer()).map(Some)
    }
}

/// The elements of a list. A bad one is reported; [`Items`](crate::Items) then asks for the next.
struct Elements<'a> {
    nodes: std::slice::Iter<'a, Node>,
    found: &'a RefCell<Vec<Diagnostic>>,
}
impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Fault;
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.nodes.next() else { return Ok(None) };
        match seed.deserialize(Reader { node, found: self.found }) {
            Ok(value) => Ok(Some(value)),
            Err(fault) => {
                self.found.borrow_mut().extend(fault.into_diagnostic(node.place));
                Err(Fault::Reported)
            }
        }
    }
}

/// The entries of a table.
struct Entries<'a> {
    entries: std::vec::IntoIter<&'a Entry>,
    value: Option<&'a Node>,
    found: &'a RefCell<Vec<Diagnostic>>,
}
impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;
    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.value = Some(&entry.node);
        let key: StrDeserializer<'_, Fault> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let node = self.value.take().expect("a value follows its key");
        seed.deserialize(Reader { node, found: self.found }).map_err(|fault| fault.at(node.place))
    }
}

/// A chosen variant.
struct Variant<'a> {
    tag: &'static str,
    variant: &'static str,
    reader: Reader<'a>,
}
impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Fault;
    type Variant = Self;
    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name: StrDeserializer<'_, Fault> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}
impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Fault;
    fn unit_variant(self) -> Result<(), Fault> {
        self.reader.known(&[], Some(self.tag));
        Ok(())
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.reader.structure(fields, Some(self.tag), visitor)
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Fault> {
        Err(Fault::Custom("a variant is written with its own keys".into()))
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        Err(Fault::Custom("a variant is written with its own keys".into()))
    }
}
