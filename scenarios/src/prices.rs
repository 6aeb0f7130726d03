//! Tables of what devices cost and draw.

use std::path::Path;

use plimsoll_config::{At, Code, Diagnostic, Diagnostics, Items, nearest};
use serde::Deserialize;

/// The table that is used where the user gives none.
const SHIPPED: &[(&str, &str)] = &[("prices", include_str!("../prices.toml"))];

/// What devices cost and draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Prices {
    /// Where it was read from.
    pub table: String,
    /// When the prices held.
    pub date: String,
    /// Of the prices.
    pub currency: String,
    /// The devices.
    pub devices: Vec<Device>,
}

/// A kind of device.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// One, an hour; `None` where nobody knows.
    pub price: Option<f64>,
    /// At most, in watts.
    pub power: Option<f64>,
}

impl Prices {
    /// The device of a name; the error is a help sentence.
    pub fn device(&self, name: &str) -> Result<&Device, String> {
        let found = self.devices.iter().find(|device| device.name == name);
        found.ok_or_else(|| {
            let names = self.devices.iter().map(|device| device.name.as_str());
            let help = nearest::suggest(name, names).unwrap_or_default();
            format!("{} has no device `{name}`; {help}", self.table)
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PricesSpec {
    #[serde(rename = "schema_version")]
    _schema_version: u32,
    currency: String,
    date: String,
    #[serde(default)]
    device: Items<DeviceSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceSpec {
    name: At<String>,
    price: Option<At<f64>>,
    power: Option<At<f64>>,
}

/// Reads a table of prices, or the shipped one.
///
/// # Errors
/// All that is wrong with it.
pub fn prices(path: Option<&Path>) -> Result<Prices, Diagnostics> {
    let table = path.map_or("the shipped table".to_owned(), |path| path.display().to_string());
    let path = path.unwrap_or(Path::new("shipped:prices"));
    let layered = plimsoll_config::read(path, &[], SHIPPED)?;
    let read = plimsoll_config::decode(&layered.root).and_then(|spec: PricesSpec| {
        let mut found = Vec::new();
        let devices = devices(&spec, &mut found);
        let PricesSpec { currency, date, .. } = spec;
        match found.is_empty() {
            true => Ok(Prices { table, date, currency, devices }),
            false => Err(found),
        }
    });
    read.map_err(|list| Diagnostics { sources: layered.sources, list })
}

fn devices(spec: &PricesSpec, found: &mut Vec<Diagnostic>) -> Vec<Device> {
    let names: Vec<&At<String>> = spec.device.0.iter().map(|device| &device.name).collect();
    plimsoll_config::policy::check_names(&names, "device", found);
    for device in &spec.device.0 {
        for (key, value) in [("price", &device.price), ("power", &device.power)] {
            if let Some(value) = value.as_ref().filter(|at| !at.value.is_finite() || at.value < 0.0)
            {
                let message = format!("`{key}` is a number of at least 0");
                found.push(Diagnostic::new(Code::Range, Some(value.place), message));
            }
        }
    }
    let device = |device: &DeviceSpec| Device {
        name: device.name.value.clone(),
        price: device.price.as_ref().map(|price| price.value),
        power: device.power.as_ref().map(|power| power.value),
    };
    spec.device.0.iter().map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_table_is_read_and_knows_its_names() {
        let table = prices(None).expect("the shipped table is whole");
        assert!(table.device("h100-sxm").is_ok_and(|device| device.price == Some(3.0)));
        let help = table.device("h100sxm").expect_err("there is none");
        assert!(help.contains("did you mean `h100-sxm`?"), "{help}");
    }

    #[test]
    fn a_bad_table_says_where() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("prices.toml");
        let text = "schema_version = 1\ncurrency = \"EUR\"\ndate = \"2026-01-01\"\n[[device]]\n\
                    name = \"a\"\nprice = -1\n";
        std::fs::write(&path, text).expect("it can be written");
        let found = prices(Some(&path)).expect_err("a price is negative").render(false);
        assert!(found.contains("prices.toml:6:9") && found.contains("at least 0"), "{found}");
    }
}
