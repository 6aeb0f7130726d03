//! What several of these tests need: the command and the scenarios beside them.

#![allow(dead_code, reason = "no test uses all of it")]

use std::path::{Path, PathBuf};

use assert_cmd::Command;

/// The command, as a shell would start it, without a terminal.
pub fn plimsoll() -> Command {
    Command::new(env!("CARGO_BIN_EXE_plimsoll"))
}

/// A scenario of `tests/scenarios`.
pub fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(name).with_extension("toml")
}
