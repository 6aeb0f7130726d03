//! Another policy than the one that acted: from a policy file, a gateway file or a scenario.

use std::path::Path;

use plimsoll_base::Names;
use plimsoll_planner::OtherPolicy;
use plimsoll_scenario::Loaded;

use crate::Failure;
use crate::run::open_either;

/// Reads the policy of a policy file or of a scenario (a file, or a shipped one by its name),
/// which must have the classes of `names`.
pub fn other_policy(file: &Path, names: &Names) -> Result<OtherPolicy, Failure> {
    let other = match open_either(file, &[])? {
        Loaded::Scenario(scenario) => {
            let model = scenario.model;
            OtherPolicy { policy: model.policy, names: model.names }
        }
        Loaded::Gateway(file) => OtherPolicy { policy: file.config, names: file.names },
        Loaded::Policy(file) => OtherPolicy { policy: file.config, names: file.names },
    };
    let fits = other.fits(names);
    fits.map_err(|why| Failure::Usage(format!("{}: {why}", file.display())))?;
    Ok(other)
}
