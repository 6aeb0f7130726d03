//! How many tokens a byte of a prompt is, learnt by model from what backends report.

use std::collections::BTreeMap;
use std::sync::RwLock;

/// How much of the old a new observation leaves: the ratio follows some fifty requests.
const KEEP: f64 = 0.98;
/// Models that are remembered; more than a file can name, if it names any.
const MODELS_MAX: usize = 1024;

/// Tokens a byte, by model. What is learnt is within a factor of twenty of what it began with, so
/// that a backend that reports nonsense cannot make requests weigh nothing.
#[derive(Debug)]
pub(crate) struct Ratios {
    begin: f64,
    learnt: RwLock<BTreeMap<String, f64>>,
}

impl Ratios {
    pub fn new(begin: f64) -> Ratios {
        Ratios { begin, learnt: RwLock::default() }
    }

    /// The tokens of a prompt of so many bytes; at least 1.
    pub fn tokens(&self, model: &str, bytes: usize) -> u32 {
        let ratio = self.ratio(model);
        (bytes as f64 * ratio).ceil().clamp(1.0, f64::from(u32::MAX)) as u32
    }

    fn ratio(&self, model: &str) -> f64 {
        let learnt = self.learnt.read().expect("nobody panics while it is held");
        learnt.get(model).copied().unwrap_or(self.begin)
    }

    /// A prompt of so many bytes was so many tokens.
    pub fn learn(&self, model: &str, bytes: usize, tokens: u32) {
        // Short prompts are mostly the template around them.
        if bytes < 64 || tokens == 0 {
            return;
        }
        let seen = f64::from(tokens) / bytes as f64;
        let ratio = KEEP * self.ratio(model) + (1.0 - KEEP) * seen;
        let ratio = ratio.clamp(self.begin / 20.0, self.begin * 20.0);
        let mut learnt = self.learnt.write().expect("nobody panics while it is held");
        if let Some(known) = learnt.get_mut(model) {
            *known = ratio;
        } else if learnt.len() < MODELS_MAX {
            learnt.insert(model.to_owned(), ratio);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_and_keeps_within_bounds() {
        let ratios = Ratios::new(0.25);
        assert_eq!(ratios.tokens("a", 1000), 250);
        for _ in 0..400 {
            ratios.learn("a", 1000, 500);
            ratios.learn("b", 1000, 1_000_000);
            ratios.learn("c", 10, 10);
        }
        assert_eq!(ratios.tokens("a", 1000), 500);
        assert_eq!(ratios.tokens("b", 1000), 5000);
        assert_eq!(ratios.tokens("c", 1000), 250);
        assert_eq!(ratios.tokens("c", 0), 1);
    }
}
