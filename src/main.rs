//! The command line: parse, run, show, exit code. What it does stands in the crates behind it.

mod arguments;
#[cfg(feature = "serve")]
mod backend;
#[cfg(feature = "serve")]
mod calibrate;
mod check;
mod compare;
mod counterfactual;
mod decisions;
mod diff;
mod emit;
mod files;
mod interrupt;
mod learn;
mod numbers;
mod other;
mod plan;
mod progress;
mod replay;
mod report;
mod run;
#[cfg(feature = "serve")]
mod serve;
mod show;
#[cfg(feature = "serve")]
mod signals;
mod sweep;
mod trace;
#[cfg(feature = "serve")]
mod validate;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Verb};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.verb {
        Verb::Run(options) => run::run(options),
        Verb::Compare(options) => compare::compare(options),
        Verb::Plan(options) => plan::plan(options),
        Verb::Sweep(options) => sweep::sweep(options),
        Verb::Merge(options) => sweep::merge(options),
        Verb::Replay(options) => replay::replay(options),
        Verb::Report(options) => report::report(options),
        Verb::Diff(options) => diff::diff(options),
        Verb::Trace(options) => trace::trace(&options.verb),
        Verb::Check(options) => check::check(options),
        #[cfg(feature = "serve")]
        Verb::Backend(options) => backend::backend(options),
        #[cfg(feature = "serve")]
        Verb::Calibrate(options) => calibrate::calibrate(options),
        #[cfg(feature = "serve")]
        Verb::Validate(options) => validate::validate(options),
        #[cfg(feature = "serve")]
        Verb::Serve(options) => serve::serve(options),
        Verb::Init(options) => learn::init(options),
        Verb::Explain { name } => learn::explain(name.as_deref()),
        Verb::Schema { of } => learn::schema(*of),
        Verb::Completions { shell } => learn::completions(*shell),
    };
    match done {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

/// Why a command ends without a result.
pub enum Failure {
    /// What the user wrote is wrong: exit code 2, nothing written.
    Input(plimsoll_config::Diagnostics),
    /// What the user wrote is wrong, said in one sentence: exit code 2.
    Usage(String),
    /// What the user wrote is wrong, said with its place: exit code 2.
    Located(String),
    /// Something broke while running: exit code 1.
    Broken(anyhow::Error),
}

impl Failure {
    fn report(self) -> ExitCode {
        eprintln!("{}", self.text(colour()));
        match self {
            Failure::Input(_) | Failure::Usage(_) | Failure::Located(_) => ExitCode::from(2),
            Failure::Broken(_) => ExitCode::from(1),
        }
    }

    /// What is wrong, as it is told.
    fn text(&self, colour: bool) -> String {
        match self {
            Failure::Input(diagnostics) => diagnostics.render(colour),
            Failure::Usage(message) => format!("error: {message}"),
            Failure::Located(message) => message.trim_end().to_owned(),
            Failure::Broken(error) => format!("error: {error:#}"),
        }
    }
}

impl From<plimsoll_config::Diagnostics> for Failure {
    fn from(diagnostics: plimsoll_config::Diagnostics) -> Failure {
        Failure::Input(diagnostics)
    }
}
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Broken(error)
    }
}
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Broken(error.into())
    }
}

/// Whether messages may have colours: a terminal, and `NO_COLOR` unset.
fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}
