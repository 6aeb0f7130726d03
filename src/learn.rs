//! `plimsoll init`, `explain`, `schema`, `completions`.

use std::process::ExitCode;

use clap::CommandFactory as _;
use plimsoll_report::{Word, explained, glossary};

use crate::Failure;
use crate::arguments::{Arguments, InitOptions, SchemaOf};

/// Prints a file to start from, or the list of them.
pub fn init(options: &InitOptions) -> Result<ExitCode, Failure> {
    if options.list {
        plimsoll_scenario::templates().for_each(|name| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    let Some(text) = plimsoll_scenario::template(&options.template) else {
        let names: Vec<&str> = plimsoll_scenario::templates().collect();
        let message = format!(
            "no scenario is called `{}`; there are: {}",
            options.template,
            names.join(", ")
        );
        return Err(Failure::Usage(message));
    };
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// Prints what a name means and who means something else by it, or the paragraph of an error code;
/// without a name, all names.
pub fn explain(name: Option<&str>) -> Result<ExitCode, Failure> {
    let Some(name) = name else {
        glossary().for_each(|word| println!("{}: {}", word.name, word.formula));
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(Word { name: known, formula, differs }) = explained(name) {
        let of = if known.eq_ignore_ascii_case(name) { "" } else { &format!(", of {known}") };
        println!("{name}{of}: {formula}");
        if !differs.is_empty() {
            println!("Who differs: {differs}");
        }
    } else if let Some(text) = plimsoll_scenario::explain(name) {
        println!("{name}: {text}");
    } else {
        let message = format!("nothing is called `{name}`; `plimsoll explain` lists the names");
        return Err(Failure::Usage(message));
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a JSON Schema.
pub fn schema(of: SchemaOf) -> Result<ExitCode, Failure> {
    let schema = match of {
        SchemaOf::Scenario => plimsoll_scenario::schema(),
        SchemaOf::Gateway => plimsoll_scenario::gateway_schema(),
        SchemaOf::Summary => plimsoll_report::summary_schema(),
        SchemaOf::Sweep => plimsoll_report::sweep::sweep_schema(),
    };
    println!("{}", serde_json::to_string_pretty(&schema).map_err(anyhow::Error::from)?);
    Ok(ExitCode::SUCCESS)
}

/// Prints a completion script.
pub fn completions(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    let mut command = Arguments::command();
    clap_complete::generate(shell, &mut command, "plimsoll", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
