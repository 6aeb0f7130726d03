//! Types of values in a file: each knows how it is written.

use std::borrow::Cow;
use std::fmt;

use plimsoll_base::Span;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use crate::Place;
use crate::units::{BYTES_KIND, COEFFICIENT, FRACTION, RATE, SPAN};

/// The name under which [`crate::decode`] is asked for a value with its place.
pub(crate) const AT: &str = "$plimsoll::at";

/// A value and where it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it is written.
    pub place: Place,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<At<T>, D::Error> {
        struct Placed<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Placed<T> {
            type Value = At<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its place")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<At<T>, A::Error> {
                let short = || de::Error::custom("a placed value has four parts");
                let source = seq.next_element()?.ok_or_else(short)?;
                let start = seq.next_element()?.ok_or_else(short)?;
                let end = seq.next_element()?.ok_or_else(short)?;
                let value = seq.next_element()?.ok_or_else(short)?;
                Ok(At { value, place: Place { source, start, end } })
            }
        }
        deserializer.deserialize_tuple_struct(AT, 4, Placed(std::marker::PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

/// A list whose bad elements do not keep the others from being read.
#[derive(Clone, Debug, PartialEq)]
pub struct Items<T>(pub Vec<T>);

impl<T> Default for Items<T> {
    fn default() -> Items<T> {
        Items(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Items<T>, D::Error> {
        struct Each<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Each<T> {
            type Value = Items<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Items<T>, A::Error> {
                let mut items = Vec::new();
                loop {
                    match seq.next_element() {
                        Ok(Some(item)) => items.push(item),
                        Ok(None) => return Ok(Items(items)),
                        // The reader has reported it; the reading as a whole fails.
                        Err(_) => {}
                    }
                }
            }
        }
        deserializer.deserialize_seq(Each(std::marker::PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Items<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        <Vec<T>>::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        <Vec<T>>::json_schema(generator)
    }
}

/// The name under which [`crate::decode`] is asked for one value or a list of them.
pub(crate) const ONE_OR_MANY: &str = "$plimsoll::one-or-many";

/// A list, or its only element by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OneOrMany<T>, D::Error> {
        struct Either<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OneOrMany<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                one: D,
            ) -> Result<OneOrMany<T>, D::Error> {
                Ok(OneOrMany(vec![T::deserialize(one)?]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<OneOrMany<T>, A::Error> {
                let many = Items::deserialize(de::value::SeqAccessDeserializer::new(seq))?;
                Ok(OneOrMany(many.0))
            }
        }
        deserializer.deserialize_newtype_struct(ONE_OR_MANY, Either(std::marker::PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        let many = <Vec<T>>::json_schema(generator);
        json_schema!({ "anyOf": [one, many] })
    }
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($inner:ty) = $key:ident, $visit:ident($raw:ty) $make:expr, $schema:tt) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                struct Read;
                impl Visitor<'_> for Read {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a quantity with its unit")
                    }
                    fn $visit<E: de::Error>(self, raw: $raw) -> Result<$name, E> {
                        Ok($name($make(raw)))
                    }
                }
                deserializer.deserialize_newtype_struct($key, Read)
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

quantity! {
    /// A length of time: `"500ms"`.
    SpanValue(Span) = SPAN, visit_u64(u64) Span::from_nanos,
    { "type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(ns|us|µs|ms|s|m|min|h|d)\s*$",
      "description": "A length of time with its unit: \"500ms\", \"2s\", \"15m\", \"1.5h\"." }
}
quantity! {
    /// A rate in events a second: `"12/s"`.
    RateValue(f64) = RATE, visit_f64(f64) std::convert::identity,
    { "type": "string", "pattern": r"^\s*[0-9.eE+-]+\s*/\s*(s|m|min|h|d)\s*$",
      "description": "A rate with its unit: \"12/s\", \"90/min\"." }
}
quantity! {
    /// An amount of memory in bytes: `"80GiB"`.
    BytesValue(u64) = BYTES_KIND, visit_u64(u64) std::convert::identity,
    { "type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(B|[kKMGT]B|[KMGT]iB)\s*$",
      "description": "An amount of memory with its unit: \"80GiB\"." }
}
quantity! {
    /// A fraction from 0 to 1: `0.99` or `"99%"`.
    FractionValue(f64) = FRACTION, visit_f64(f64) std::convert::identity,
    { "anyOf": [{ "type": "number", "minimum": 0, "maximum": 1 },
                { "type": "string", "pattern": r"^\s*[0-9.]+\s*%\s*$" }],
      "description": "A fraction from 0 to 1, or a percentage: 0.99 or \"99%\"." }
}
quantity! {
    /// A step-time coefficient in nanoseconds: `"8.2ms"`, `"21ps"`.
    CoefficientValue(f64) = COEFFICIENT, visit_f64(f64) std::convert::identity,
    { "type": "string", "pattern": r"^\s*[0-9.]+\s*(ps|ns|us|µs|ms|s)\s*$",
      "description": "A time with its unit, fractions allowed: \"8.2ms\", \"21ps\"." }
}
