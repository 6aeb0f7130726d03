//! API keys: who may come in, and whose word counts.

use std::path::PathBuf;

use plimsoll_base::TenantId;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::{check_names, find};
use crate::{At, Code, Diagnostic, Items, Place, Sources};

/// `[[key]]`: an API key. Exactly one of `env`, `file` and `sha256` says what it is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeySpec {
    /// What rules call it: letters, digits, `-`, `_`. Never the key itself.
    pub name: At<String>,
    /// Who pays: a `[[tenant]]`.
    pub tenant: At<String>,
    /// The environment variable that holds the key.
    pub env: Option<At<String>>,
    /// The file that holds the key, relative to this one.
    pub file: Option<At<String>>,
    /// The SHA-256 hash of the key, 64 hexadecimal digits.
    pub sha256: Option<At<String>>,
    /// Whether the headers for tenant, class and attempt are believed. Default false.
    #[serde(default)]
    pub trusted: bool,
}

/// An API key, not yet looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What rules call it.
    pub name: String,
    /// Who pays.
    pub tenant: TenantId,
    /// Where the key itself is.
    pub secret: Secret,
    /// Whether the headers for tenant, class and attempt are believed.
    pub trusted: bool,
}

/// Where a key is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// In the environment variable of this name.
    Env(String),
    /// In this file.
    File(PathBuf),
    /// Nowhere: this is the SHA-256 hash of it.
    Sha256([u8; 32]),
}

/// The keys of a file.
pub(super) fn keys(
    specs: &Items<At<KeySpec>>,
    tenants: &[String],
    sources: &Sources,
    found: &mut Vec<Diagnostic>,
) -> Vec<Key> {
    let names: Vec<_> = specs.0.iter().map(|spec| &spec.value.name).collect();
    check_names(&names, "key", found);
    let mut keys: Vec<Key> = Vec::new();
    for spec in &specs.0 {
        let KeySpec { name, tenant, trusted, .. } = &spec.value;
        let tenant = find(tenant, tenants, "tenant", found);
        let Some((secret, place)) = secret(spec, sources, found) else { continue };
        if let Some(earlier) = keys.iter().find(|key| key.secret == secret) {
            let message = format!("`{}` is the key `{}` again", name.value, earlier.name);
            found.push(
                Diagnostic::new(Code::Duplicate, Some(place), message)
                    .label("whose request would it be?")
                    .help("give it a key of its own"),
            );
        }
        let tenant = TenantId(u32::try_from(tenant.unwrap_or(0)).unwrap_or(u32::MAX));
        keys.push(Key { name: name.value.clone(), tenant, secret, trusted: *trusted });
    }
    keys
}

/// The only way to the key that is stated.
fn secret(
    spec: &At<KeySpec>,
    sources: &Sources,
    found: &mut Vec<Diagnostic>,
) -> Option<(Secret, Place)> {
    let KeySpec { name, env, file, sha256, .. } = &spec.value;
    match (env, file, sha256) {
        (Some(env), None, None) => {
            variable(env, found);
            Some((Secret::Env(env.value.clone()), env.place))
        }
        (None, Some(file), None) => Some((Secret::File(sources.path(file)), file.place)),
        (None, None, Some(hash)) => match digest(&hash.value) {
            Some(bytes) => Some((Secret::Sha256(bytes), hash.place)),
            None => {
                let message = format!("the `sha256` of `{}` is not 64 hex digits", name.value);
                found.push(
                    Diagnostic::new(Code::Range, Some(hash.place), message)
                        .help("write what `printf %s \"$KEY\" | sha256sum` prints"),
                );
                None
            }
        },
        (None, None, None) => {
            let message = format!("nothing says what the key `{}` is", name.value);
            found.push(
                Diagnostic::new(Code::Conflict, Some(name.place), message)
                    .help("add one of `env`, `file` and `sha256`: `env = \"SEARCH_KEY\"`"),
            );
            None
        }
        _ => {
            let message = format!("the key `{}` is stated more than once", name.value);
            found.push(
                Diagnostic::new(Code::Conflict, Some(name.place), message)
                    .help("keep one of `env`, `file` and `sha256`"),
            );
            None
        }
    }
}

/// Refuses what is not the name of an environment variable.
pub(super) fn variable(name: &At<String>, found: &mut Vec<Diagnostic>) {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let text = &name.value;
    let starts = text.starts_with(|c: char| !c.is_ascii_digit());
    if !starts || text.len() > 128 || !text.chars().all(fits) {
        let message = "this is not the name of an environment variable";
        found.push(
            Diagnostic::new(Code::BadName, Some(name.place), message)
                .label("the name, not the key itself")
                .help("write letters, digits and `_`, for example \"SEARCH_KEY\""),
        );
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> =
        text.chars().map(|c| Some(c.to_digit(16)? as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    (digits.len() == 64).then(|| bytes.try_into().ok()).flatten()
}
