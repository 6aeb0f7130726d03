//! `plimsoll replay LOG --policy OTHER`.

use std::process::ExitCode;

use plimsoll_base::{Names, Span};
use plimsoll_planner::{
    Counterfactual, CounterfactualError, OtherPolicy, Outcomes, counterfactual,
};
use plimsoll_policy::config::Window;
use plimsoll_policy::log::Reader;
use serde_json::{Value, json};

use crate::arguments::{ReplayFormat, ReplayOptions};
use crate::replay::located;
use crate::{Failure, show};

/// Replays the requests of a log under another policy and compares what came of them.
pub fn compare(
    options: &ReplayOptions,
    bytes: &[u8],
    other: &OtherPolicy,
) -> Result<ExitCode, Failure> {
    let found = counterfactual(|| Reader::new(bytes), other).map_err(|error| match error {
        CounterfactualError::Log(error) => located(&options.log, &error),
        CounterfactualError::Policy(_) | CounterfactualError::Classes(_) => {
            Failure::Usage(error.to_string())
        }
    })?;
    let reader = Reader::new(bytes).map_err(|error| located(&options.log, &error))?;
    let header = reader.header();
    let queues_inside = [&header.policy, &other.policy].map(|one| one.window == Window::None);
    let caveats = caveats(&found, queues_inside.contains(&true));
    match options.format {
        ReplayFormat::Human => print(&found, &header.names, &caveats),
        ReplayFormat::Json => println!("{}", as_json(&found, &header.names, &caveats)),
    }
    Ok(ExitCode::SUCCESS)
}

/// What must be said beside the numbers.
fn caveats(found: &Counterfactual, queues_inside: bool) -> Vec<String> {
    let mut said = vec![
        "This is a counterfactual (L4), not parity: the requests of the log arrived again under \
         the other policy, and each ran as long as it had run in the log, whatever ran beside it."
            .to_owned(),
    ];
    if found.guessed > 0 {
        said.push(format!(
            "{} requests ran that had not run to their end in the log: they ran as long as the \
             median of their class.",
            found.guessed
        ));
    }
    if queues_inside {
        said.push(
            "One of the policies has window = \"none\": what waits inside a backend counts as \
             running, with the wait that it had in the log."
                .to_owned(),
        );
    }
    if found.reports > 0 {
        said.push(format!(
            "{} reports of load were handed in as recorded, although the load would be another.",
            found.reports
        ));
    }
    said
}

fn print(found: &Counterfactual, names: &Names, caveats: &[String]) {
    println!(
        "class             policy     dispatched   refused    closed    wait mean     wait p99"
    );
    for (name, class) in names.classes.iter().zip(&found.classes) {
        for (policy, outcomes) in [("recorded", &class.recorded), ("other", &class.other)] {
            let Outcomes { dispatched, refused, closed, .. } = outcomes;
            let (mean, p99) = (wait(outcomes.wait_mean()), wait(outcomes.wait_p99()));
            println!(
                "{name:<17} {policy:<9} {dispatched:>11} {refused:>9} {closed:>9} {mean:>12} \
                 {p99:>12}"
            );
        }
    }
    let agreement = found.agreement;
    match agreement.rate() {
        Some(rate) => println!(
            "same backend, refusal or end: {} of {} decisions ({:.1} %)",
            agreement.same,
            agreement.decided,
            100.0 * rate
        ),
        None => println!("the log has no decision"),
    }
    caveats.iter().for_each(|caveat| println!("{caveat}"));
}

fn wait(span: Option<Span>) -> String {
    span.map_or_else(|| "-".to_owned(), |span| format!("{:.3} s", span.secs_f64()))
}

fn as_json(found: &Counterfactual, names: &Names, caveats: &[String]) -> Value {
    let outcomes = |one: &Outcomes| {
        let seconds = |span: Option<Span>| span.map(show::span_seconds);
        json!({
            "dispatched": one.dispatched, "refused": one.refused, "closed": one.closed,
            "wait_mean_s": seconds(one.wait_mean()), "wait_p99_s": seconds(one.wait_p99()),
        })
    };
    let classes: serde_json::Map<String, Value> = names
        .classes
        .iter()
        .zip(&found.classes)
        .map(|(name, class)| {
            let both = json!({
                "recorded": outcomes(&class.recorded), "other": outcomes(&class.other),
            });
            (name.clone(), both)
        })
        .collect();
    json!({
        "level": "L4", "parity": false, "arrived": found.arrived, "classes": classes,
        "agreement": {
            "same": found.agreement.same, "decided": found.agreement.decided,
            "rate": found.agreement.rate(),
        },
        "guessed_services": found.guessed, "caveats": caveats,
    })
}
