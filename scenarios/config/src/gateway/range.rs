//! Numbers that must lie within bounds.

use std::ops::RangeInclusive;

use plimsoll_base::Span;

use crate::{At, BytesValue, Code, Diagnostic, Place, SpanValue, units};

/// A key that takes a quantity with a unit: its default and its bounds, as a file writes them.
#[derive(Clone, Copy)]
pub(super) struct Quantity {
    pub key: &'static str,
    pub default: &'static str,
    pub least: &'static str,
    pub most: &'static str,
}

impl Quantity {
    /// A length of time.
    pub fn span(self, written: Option<At<SpanValue>>, found: &mut Vec<Diagnostic>) -> Span {
        let written = written.map(|at| At { value: at.value.0, place: at.place });
        let read = |text: &str| units::span(text).expect("a constant span is well formed");
        self.within(written, read, found)
    }

    /// An amount of memory.
    pub fn bytes(self, written: Option<At<BytesValue>>, found: &mut Vec<Diagnostic>) -> u64 {
        let written = written.map(|at| At { value: at.value.0, place: at.place });
        let read = |text: &str| units::bytes(text).expect("a constant amount is well formed");
        self.within(written, read, found)
    }

    fn within<T: PartialOrd + Copy>(
        self,
        written: Option<At<T>>,
        read: fn(&str) -> T,
        found: &mut Vec<Diagnostic>,
    ) -> T {
        let Some(at) = written else { return read(self.default) };
        if !(read(self.least)..=read(self.most)).contains(&at.value) {
            let example = format!("{} = \"{}\"", self.key, self.default);
            found.push(outside(self.key, at.place, (self.least, self.most), &example));
        }
        at.value
    }
}

/// A whole number.
pub(super) fn count<T: PartialOrd + Copy + ToString>(
    key: &str,
    written: Option<At<T>>,
    (default, bounds): (T, RangeInclusive<T>),
    found: &mut Vec<Diagnostic>,
) -> T {
    let Some(at) = written else { return default };
    if !bounds.contains(&at.value) {
        let (least, most) = (bounds.start().to_string(), bounds.end().to_string());
        let example = format!("{key} = {}", default.to_string());
        found.push(outside(key, at.place, (&least, &most), &example));
    }
    at.value
}

/// A number lies outside its bounds.
pub(super) fn outside(
    key: &str,
    place: Place,
    (least, most): (&str, &str),
    example: &str,
) -> Diagnostic {
    let message = format!("`{key}` is not from {least} to {most}");
    Diagnostic::new(Code::Range, Some(place), message)
        .label("out of range")
        .help(format!("write for example `{example}`"))
}
