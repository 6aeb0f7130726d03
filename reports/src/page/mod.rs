//! The pages: one file each, no network, readable without their script.

mod island;
mod run;
mod template;
mod workload;
mod worst;

pub(crate) use run::code;
pub use run::page;
pub(crate) use template::render;
pub use template::{Template, TemplateError};

use minijinja::{Value, context};

use crate::charts::Chart;
use crate::glossary::Word;

/// A chart as templates know it. Its drawing is markup of our own.
pub(crate) fn figure(chart: &Chart) -> Value {
    context! {
        name => chart.name,
        title => &chart.title,
        how => &chart.how,
        formula => chart.formula,
        data => &chart.data,
        svg => Value::from_safe_string(chart.svg.clone()),
    }
}

/// The glossary as templates know it.
pub(crate) fn glossary() -> Vec<Value> {
    let word = |Word { name, formula, differs }| context! { name, formula, differs };
    crate::glossary::glossary().map(word).collect()
}
