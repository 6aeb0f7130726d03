//! How long backends may take, in all and class by class.
//!
//! All four count from the dispatch to a backend, each from 1ms to 1d; how long a request may wait
//! before that is its class's `time_to_live`.

use plimsoll_base::Span;
use schemars::JsonSchema;
use serde::Deserialize;

use super::range::Quantity;
use crate::policy::find;
use crate::{At, Code, Diagnostic, Items, Place, SpanValue};

/// `[gateway.deadlines]`: how long backends may take, whatever the class.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadlinesSpec {
    /// To a connection. Default "2s".
    pub connect: Option<At<SpanValue>>,
    /// To the first token. Default "60s".
    pub first_token: Option<At<SpanValue>>,
    /// Between two tokens. Default "30s".
    pub idle: Option<At<SpanValue>>,
    /// To the last token. Default "10m".
    pub total: Option<At<SpanValue>>,
}

/// `[[deadlines]]`: those of one class.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassDeadlinesSpec {
    /// Whose they are.
    pub class: At<String>,
    /// To a connection. Default: as for all.
    pub connect: Option<At<SpanValue>>,
    /// To the first token. Default: as for all.
    pub first_token: Option<At<SpanValue>>,
    /// Between two tokens. Default: as for all.
    pub idle: Option<At<SpanValue>>,
    /// To the last token. Default: as for all.
    pub total: Option<At<SpanValue>>,
}

/// How long a backend may take for a request of a class, from the dispatch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// To a connection.
    pub connect: Span,
    /// To the first token.
    pub first_token: Span,
    /// Between two tokens.
    pub idle: Span,
    /// To the last token; at least `connect` and `first_token`.
    pub total: Span,
}

/// The deadlines of all classes, indexed by class.
pub(super) fn deadlines(
    all: &At<DeadlinesSpec>,
    own: &Items<ClassDeadlinesSpec>,
    classes: &[String],
    found: &mut Vec<Diagnostic>,
) -> Vec<Deadlines> {
    let general = read(&all.value, found);
    agree(general, all.place, found);
    let mut deadlines = vec![general; classes.len()];
    let mut named = vec![false; classes.len()];
    for spec in &own.0 {
        let Some(class) = find(&spec.class, classes, "class", found) else { continue };
        if std::mem::replace(&mut named[class], true) {
            let message = format!("there are two [[deadlines]] of class `{}`", spec.class.value);
            found.push(
                Diagnostic::new(Code::Duplicate, Some(spec.class.place), message)
                    .label("the second of this class")
                    .help("put all deadlines of a class into one table"),
            );
        }
        let ClassDeadlinesSpec { connect, first_token, idle, total, .. } = *spec;
        let stated = read(&DeadlinesSpec { connect, first_token, idle, total }, found);
        let of = |is_stated: bool, stated, general| if is_stated { stated } else { general };
        deadlines[class] = Deadlines {
            connect: of(connect.is_some(), stated.connect, general.connect),
            first_token: of(first_token.is_some(), stated.first_token, general.first_token),
            idle: of(idle.is_some(), stated.idle, general.idle),
            total: of(total.is_some(), stated.total, general.total),
        };
        agree(deadlines[class], spec.class.place, found);
    }
    deadlines
}

fn read(spec: &DeadlinesSpec, found: &mut Vec<Diagnostic>) -> Deadlines {
    let deadline = |key, default| Quantity { key, default, least: "1ms", most: "1d" };
    Deadlines {
        connect: deadline("connect", "2s").span(spec.connect, found),
        first_token: deadline("first_token", "60s").span(spec.first_token, found),
        idle: deadline("idle", "30s").span(spec.idle, found),
        total: deadline("total", "10m").span(spec.total, found),
    }
}

/// What must come first must be due first.
fn agree(deadlines: Deadlines, place: Place, found: &mut Vec<Diagnostic>) {
    let Deadlines { connect, first_token, total, .. } = deadlines;
    for (key, span) in [("connect", connect), ("first_token", first_token)] {
        if span > total {
            let message = format!("`{key}` ({span}) is longer than `total` ({total})");
            found.push(
                Diagnostic::new(Code::Conflict, Some(place), message)
                    .help(format!("shorten `{key}` or lengthen `total`")),
            );
        }
    }
}
