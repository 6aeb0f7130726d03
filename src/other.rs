//! Another policy than the one that acted: from a policy file or a scenario.

use std::path::Path;

use plimsoll_base::Names;
use plimsoll_planner::OtherPolicy;

use crate::Failure;
use crate::run::open;

/// Reads the policy of a policy file or of a scenario (a file, or a shipped one by its name),
/// which must have the classes of `names`. A policy file may name their tenants and sources.
pub fn other_policy(file: &Path, names: &Names) -> Result<OtherPolicy, Failure> {
    let other = read(file, names)?;
    let fits = other.fits(names);
    fits.map_err(|why| Failure::Usage(format!("{}: {why}", file.display())))?;
    Ok(other)
}

fn read(file: &Path, names: &Names) -> Result<OtherPolicy, Failure> {
    if file.exists() {
        let layered = plimsoll_config::read(file, &[], plimsoll_scenario::shipped())?;
        if !plimsoll_config::is_scenario(&layered) {
            let named = plimsoll_config::named_policy(layered, &names.tenants, &names.sources)?;
            let names = Names { classes: named.classes, ..names.clone() };
            return Ok(OtherPolicy { policy: named.policy, names });
        }
    }
    let model = open(file, &[])?.model;
    Ok(OtherPolicy { policy: model.policy, names: model.names })
}
