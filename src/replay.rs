//! `plimsoll replay`.

use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::ExitCode;

use plimsoll_policy::log::{Difference, Ending, Header, LogError, Reader, Replay};
use serde_json::{Value, json};

use crate::arguments::{ReplayFormat, ReplayOptions};
use crate::counterfactual::compare;
use crate::other::other_policy;
use crate::{Failure, show};

/// Feeds a log to a fresh allocator and compares, or shows the log.
pub fn replay(options: &ReplayOptions) -> Result<ExitCode, Failure> {
    let path = &options.log;
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::Usage(format!("cannot read `{}`: {error}", path.display())))?;
    let reader = Reader::new(&bytes).map_err(|error| located(path, &error))?;
    if options.show {
        return show(path, reader);
    }
    if let Some(file) = &options.policy {
        let other = other_policy(file, &reader.header().names)?;
        return compare(options, &bytes, &other);
    }
    same(options, reader)
}

/// The file in front of what is wrong with it.
pub fn located(path: &Path, error: &LogError) -> Failure {
    Failure::Located(format!("error: {}: {error}", path.display()))
}

/// Prints each record on a line.
fn show(path: &Path, mut reader: Reader<'_>) -> Result<ExitCode, Failure> {
    let names = reader.header().names.clone();
    let mut out = BufWriter::new(std::io::stdout().lock());
    for record in &mut reader {
        let record = record.map_err(|error| located(path, &error))?;
        match writeln!(out, "{}", show::record(&record, &names)) {
            // Whoever read us has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                return Ok(ExitCode::SUCCESS);
            }
            other => other?,
        }
    }
    out.flush()?;
    if let Some(cut) = cut(&reader) {
        eprintln!("{}: {cut}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What to say of a log that was cut off.
fn cut(reader: &Reader<'_>) -> Option<String> {
    match reader.ending()? {
        Ending::Whole => None,
        Ending::Cut(at) => Some(format!(
            "the log was cut off: its last whole block ends at byte {at}, with {} inputs up to \
             there",
            reader.totals().inputs
        )),
    }
}

/// Replays under the policy of the log.
fn same(options: &ReplayOptions, mut reader: Reader<'_>) -> Result<ExitCode, Failure> {
    let path = &options.log;
    let mut replay = Replay::new(reader.header().policy.clone()).map_err(|error| {
        Failure::Located(format!("error: {}: the policy of the log: {error}", path.display()))
    })?;
    for record in &mut reader {
        let record = record.map_err(|error| located(path, &error))?;
        if let Err(difference) = replay.step(&record) {
            return Ok(differs(options, &reader, &difference));
        }
    }
    let totals = reader.totals();
    let (hash, cut) = (reader.hash().to_string(), cut(&reader));
    match options.format {
        ReplayFormat::Human => {
            println!("{} inputs, {} decisions, identical", totals.inputs, totals.decisions);
            println!("hash of the decisions: {hash}");
            cut.iter().for_each(|cut| println!("{cut}"));
        }
        ReplayFormat::Json => println!(
            "{}",
            json!({
                "identical": true, "inputs": totals.inputs, "decisions": totals.decisions,
                "signals": totals.signals, "hash": hash, "cut_off": cut.is_some(),
                "log": origin(&reader),
            })
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// What the log says of itself, but for the policy and the names.
fn origin(reader: &Reader<'_>) -> Value {
    let header = reader.header();
    json!({
        "build": header.build, "scenario": header.scenario,
        "scenario_hash": header.scenario_hash, "seed": header.seed,
        "replication": header.replication,
    })
}

/// The first difference, for people.
pub fn difference_text(header: &Header, difference: &Difference) -> String {
    let names = &header.names;
    let Shown { input, wanted, got } = Shown::of(header, difference);
    let expected = &difference.expected;
    let mut text = format!(
        "differs at input {} at {} s\ninput: {input}\nexpected: {wanted}\ngot: {got}\n",
        expected.number,
        show::seconds(expected.now)
    );
    text.push_str(&format!("the allocator after it:\n{}", difference.state));
    for (index, name) in names.classes.iter().enumerate() {
        text.push_str(&format!("(class {index} is {name})\n"));
    }
    let here = env!("CARGO_PKG_VERSION");
    if header.build != here {
        let build = &header.build;
        text.push_str(&format!("the log was written by plimsoll {build}, this is {here}\n"));
    }
    text
}

/// A difference as JSON.
struct Shown {
    input: Value,
    wanted: Value,
    got: Value,
}

impl Shown {
    fn of(header: &Header, difference: &Difference) -> Shown {
        let (names, expected) = (&header.names, &difference.expected);
        let said = |decisions, signals: &[_]| {
            let decisions = show::decisions(decisions, names);
            match signals {
                [] => decisions,
                some => json!({ "decisions": decisions, "signals": show::signals(some, names) }),
            }
        };
        Shown {
            input: show::input(&expected.input, names),
            wanted: said(&expected.decisions[..], &expected.signals),
            got: said(&difference.decisions[..], &difference.signals),
        }
    }
}

/// Tells the first difference.
fn differs(options: &ReplayOptions, reader: &Reader<'_>, difference: &Difference) -> ExitCode {
    let header = reader.header();
    match options.format {
        ReplayFormat::Human => print!("{}", difference_text(header, difference)),
        ReplayFormat::Json => {
            let Shown { input, wanted, got } = Shown::of(header, difference);
            let expected = &difference.expected;
            println!(
                "{}",
                json!({
                    "identical": false, "number": expected.number,
                    "time_s": show::seconds(expected.now), "input": input, "expected": wanted,
                    "got": got, "state": difference.state.to_string(), "log": origin(reader),
                })
            );
        }
    }
    ExitCode::from(1)
}
