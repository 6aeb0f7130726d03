//! Dotted paths to values, as `--set` and sweeps write them.

use std::fmt;

use crate::layer::put;
use crate::tree::Node;
use crate::{Diagnostic, Place, Sources};

/// `workload.chat.arrivals.rate`; every step knows its place.
#[derive(Clone, Debug, Default)]
pub struct DottedPath {
    steps: Vec<(String, Place)>,
}

impl DottedPath {
    /// This path and the steps of `key`, which is written at `place`, with or without quotes.
    pub fn join(&self, key: &str, place: Place, sources: &Sources) -> DottedPath {
        let written = sources.of(place).text.get(place.start as usize..place.end as usize);
        let first = written.and_then(|written| written.find(key));
        let mut at = place.start + first.and_then(|at| u32::try_from(at).ok()).unwrap_or(0);
        let mut steps = self.steps.clone();
        for step in key.split('.') {
            let length = u32::try_from(step.len()).unwrap_or(u32::MAX);
            let own = Place { start: at, end: at.saturating_add(length), ..place };
            // Where the key is not written letter by letter (escapes), all of it is marked.
            steps.push((step.trim().to_owned(), if first.is_some() { own } else { place }));
            at = at.saturating_add(length).saturating_add(1);
        }
        DottedPath { steps }
    }

    /// The first step; empty for an empty path.
    pub fn first(&self) -> &str {
        self.steps.first().map_or("", |(step, _)| step)
    }

    /// Where it is written: its last step.
    pub fn place(&self) -> Place {
        self.steps.last().map_or_else(Place::default, |(_, place)| *place)
    }

    /// Puts a value there, in place of what stands there. A key that is not there is added.
    ///
    /// # Errors
    /// The step that leads nowhere.
    pub fn set(&self, root: &mut Node, value: Node) -> Result<(), Diagnostic> {
        let steps: Vec<(&str, Place)> =
            self.steps.iter().map(|(step, place)| (step.as_str(), *place)).collect();
        put(root, &steps, value)
    }
}

impl fmt::Display for DottedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (step, _)) in self.steps.iter().enumerate() {
            f.write_str(if index > 0 { "." } else { "" })?;
            f.write_str(step)?;
        }
        Ok(())
    }
}
