//! API keys. Only their hashes are kept.

use std::collections::BTreeMap;

use plimsoll_base::TenantId;
use plimsoll_config::gateway::{Backend, Key, Secret};
use sha2::{Digest as _, Sha256};

/// Who holds a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// What rules call the key.
    pub name: String,
    pub tenant: TenantId,
    /// Whether its headers for tenant, class and attempt are believed.
    pub trusted: bool,
}

/// The keys that clients may come in with, and those that backends want.
#[derive(Clone, Default)]
pub struct Keys {
    holders: BTreeMap<[u8; 32], Holder>,
    /// Indexed by backend.
    upstream: Vec<Option<String>>,
}

/// A key that is not where the file says.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The environment lacks the variable, or it is empty.
    #[error("{whose}: the environment variable `{variable}` is not set; set it to the key")]
    Variable {
        /// Which key or backend.
        whose: String,
        /// Its name.
        variable: String,
    },
    /// The file cannot be read.
    #[error("{whose}: cannot read the key from `{path}`: {error}")]
    File {
        /// Which key.
        whose: String,
        /// Where.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// Two keys are the same.
    #[error("the keys `{0}` and `{1}` are the same: nobody could tell who comes in")]
    Same(String, String),
}

impl Keys {
    /// Looks all keys up.
    ///
    /// # Errors
    /// If one is not where the file says, or two are the same.
    pub fn look_up(keys: &[Key], backends: &[Backend]) -> Result<Keys, KeyError> {
        let mut holders: BTreeMap<[u8; 32], Holder> = BTreeMap::new();
        for key in keys {
            let whose = format!("key `{}`", key.name);
            let hash =
                match &key.secret {
                    Secret::Sha256(hash) => *hash,
                    Secret::Env(name) => hash(variable(&whose, name)?.as_bytes()),
                    Secret::File(path) => {
                        let text = std::fs::read_to_string(path).map_err(|error| {
                            KeyError::File { whose, path: path.display().to_string(), error }
                        })?;
                        hash(text.trim().as_bytes())
                    }
                };
            let Key { name, tenant, trusted, .. } = key.clone();
            if let Some(other) = holders.get(&hash) {
                return Err(KeyError::Same(other.name.clone(), name));
            }
            holders.insert(hash, Holder { name, tenant, trusted });
        }
        let upstream = backends.iter().map(|backend| {
            let whose = format!("backend `{}`", backend.name);
            backend.key_env.as_ref().map(|name| variable(&whose, name)).transpose()
        });
        Ok(Keys { holders, upstream: upstream.collect::<Result<_, _>>()? })
    }

    /// Whether clients need one.
    pub(crate) fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// Who comes in with this key.
    pub(crate) fn holder(&self, key: &str) -> Option<&Holder> {
        // Looked up by its hash: how long that takes tells nothing of any key.
        self.holders.get(&hash(key.as_bytes()))
    }

    /// The bearer token for a backend.
    pub(crate) fn upstream(&self, backend: usize) -> Option<&str> {
        self.upstream.get(backend)?.as_deref()
    }
}

fn hash(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

fn variable(whose: &str, name: &str) -> Result<String, KeyError> {
    match std::env::var(name) {
        Ok(key) if !key.is_empty() => Ok(key),
        Ok(_) | Err(_) => {
            Err(KeyError::Variable { whose: whose.to_owned(), variable: name.to_owned() })
        }
    }
}

/// Keys are never shown.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.holders.len())
    }
}
