//! The scenarios that come with the program, and one gateway file.

macro_rules! shipped {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../", $name, ".toml")))),*]
    };
}

const SHIPPED: &[(&str, &str)] = shipped! {
    "quickstart"
    "disaggregated"
    "noisy-neighbour"
    "noisy-neighbour-priority"
    "noisy-neighbour-priority-guard"
    "noisy-neighbour-vtc"
    "noisy-neighbour-aging"
    "noisy-neighbour-caps"
    "rule-start-time-fair"
    "rule-dominant-resource"
    "rule-workflows"
    "rule-edf"
    "rule-least-attained"
    "rule-cost-bucket"
    "rule-token-bucket"
    "rule-admission"
    "rule-early-refusal"
    "rule-adaptive"
    "rule-evict"
    "local-first"
    "quota"
    "live"
    "gateway"
};

/// Name and text of every shipped file; `shipped:NAME` names it in paths and in `extends`.
pub fn shipped() -> &'static [(&'static str, &'static str)] {
    SHIPPED
}

/// The names of the files to start from: all shipped ones, the simplest scenario first, the gateway
/// last.
pub fn templates() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// The text of a file to start from. It stands on its own or extends a shipped one.
pub fn template(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
