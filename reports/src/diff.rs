//! Two results side by side: what differs, and whether that is evidence.

use crate::comparison::{
    COMPARISON_VERSION, CandidateSummary, Comparison, Difference, Evidence, MeasuredValue, Unit,
    sentence,
};
use crate::summary::{ClassSummary, Estimate, SCHEMA_VERSION, Summary};

/// What is compared: its name, its unit, its value.
type Measure = (&'static str, Unit, fn(&ClassSummary) -> Estimate);

const MEASURES: [Measure; 7] = [
    ("attainment", Unit::Share, |class| {
        let share = &class.numbers.slo_attainment;
        let interval = share.interval.or(share.wilson);
        Estimate { value: share.value, interval, ..Estimate::default() }
    }),
    ("p50 TTFT", Unit::Seconds, |class| class.numbers.latency.ttft.p50),
    ("p99 TTFT", Unit::Seconds, |class| class.numbers.latency.ttft.p99),
    ("p99 TPOT", Unit::Seconds, |class| class.numbers.latency.tpot.p99),
    ("p50 E2E", Unit::Seconds, |class| class.numbers.latency.e2e.p50),
    ("p99 E2E", Unit::Seconds, |class| class.numbers.latency.e2e.p99),
    ("p99 queue wait", Unit::Seconds, |class| class.numbers.latency.queue_time.p99),
];

impl Summary {
    /// Reads `summary.json`.
    ///
    /// # Errors
    /// If it is no JSON, of another version of the layout, or not such a result: what is wrong.
    pub fn read(json: &[u8]) -> Result<Summary, String> {
        let value: serde_json::Value =
            serde_json::from_slice(json).map_err(|error| format!("it is no JSON: {error}"))?;
        let version = value.get("schema_version").and_then(serde_json::Value::as_u64);
        match version {
            None => return Err("it states no schema_version: it is no result of `run`".to_owned()),
            Some(version) if version != u64::from(SCHEMA_VERSION) => {
                let by = value.get("plimsoll").and_then(serde_json::Value::as_str);
                return Err(format!(
                    "it is of version {version} of the layout, written by plimsoll {}; this \
                     program reads version {SCHEMA_VERSION}: run the scenario again",
                    by.unwrap_or("of an unknown version")
                ));
            }
            Some(_) => {}
        }
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }
}

/// What differs between two results, class by class; what only one of them has is noted.
pub fn diff(
    (before_name, before): (&str, &Summary),
    (name, after): (&str, &Summary),
) -> Comparison {
    let mut differences = Vec::new();
    let mut notes = Vec::new();
    for class in &after.classes {
        match before.classes.iter().find(|other| other.name == class.name) {
            None => notes.push(format!("class {} is in {name} alone", class.name)),
            Some(other) => differences
                .extend(MEASURES.iter().filter_map(|measure| one(name, measure, (other, class)))),
        }
    }
    let is_gone = |class: &&ClassSummary| after.classes.iter().all(|c| c.name != class.name);
    let gone = before.classes.iter().filter(is_gone);
    notes.extend(gone.map(|class| format!("class {} is in {before_name} alone", class.name)));
    for (name, summary) in [(before_name, before), (name, after)] {
        if summary.partial {
            notes.push(format!(
                "PARTIAL: {name} was cut short; its numbers cover what had happened"
            ));
        }
    }
    if before.scenario.hash == after.scenario.hash && before.scenario.seed == after.scenario.seed {
        notes.push("both are of the same scenario and seed".to_owned());
    }
    let relative = |one: &Difference| one.relative.map_or(0.0, f64::abs);
    let rank = |one: &Difference| !matches!(one.evidence, Evidence::Better | Evidence::Worse);
    differences.sort_by(|a, b| rank(a).cmp(&rank(b)).then(relative(b).total_cmp(&relative(a))));
    let verdicts = format!(
        "{before_name}: {} {}; {name}: {} {}.",
        before.verdict.symbol(),
        before.verdict.word(),
        after.verdict.symbol(),
        after.verdict.word()
    );
    Comparison {
        comparison_version: COMPARISON_VERSION,
        plimsoll: after.plimsoll.clone(),
        scenario: after.scenario.name.clone(),
        seed: after.scenario.seed,
        replications: after.scenario.replications.min(before.scenario.replications),
        method: "each interval of a difference holds by itself with 95 %, from those of the two \
                 numbers as if they were independent (Zou and Donner 2008), so with the same seed it \
                 is wider than need be; without intervals there is no evidence"
            .to_owned(),
        sentences: vec![verdicts, sentence(name, before_name, &differences)],
        candidates: vec![candidate(before_name, before), candidate(name, after)],
        differences,
        best: None,
        notes,
        separate: true,
        beside: Vec::new(),
    }
}

fn candidate(name: &str, summary: &Summary) -> CandidateSummary {
    let values = summary.classes.iter().flat_map(|class| {
        MEASURES.iter().map(|(measure, unit, of)| MeasuredValue {
            class: Some(class.name.clone()),
            measure: (*measure).to_owned(),
            unit: *unit,
            estimate: of(class),
        })
    });
    let overloaded = summary.classes.iter().filter(|class| class.overload.is_some());
    CandidateSummary {
        name: name.to_owned(),
        policy: summary.scenario.policy.clone(),
        hash: summary.scenario.hash.clone(),
        overloaded: overloaded.map(|class| class.name.clone()).collect(),
        values: values.collect(),
    }
}

/// One number of a class; `None` where neither measured it.
fn one(
    candidate: &str,
    (measure, unit, of): &Measure,
    (before, after): (&ClassSummary, &ClassSummary),
) -> Option<Difference> {
    let (was, is) = (of(before), of(after));
    if was.value.is_none() && is.value.is_none() {
        return None;
    }
    let difference = was.value.zip(is.value).map(|(was, is)| is - was);
    let interval = interval(&was, &is);
    let better = |difference: f64| match unit {
        Unit::Seconds => difference < 0.0,
        Unit::Share => difference > 0.0,
    };
    let evidence = match (difference, interval) {
        (None, _) => Evidence::Unmeasured,
        (Some(d), Some([low, high])) if low > 0.0 || high < 0.0 => {
            if better(d) {
                Evidence::Better
            } else {
                Evidence::Worse
            }
        }
        (Some(_), _) => Evidence::None,
    };
    Some(Difference {
        candidate: candidate.to_owned(),
        class: after.name.clone(),
        measure: (*measure).to_owned(),
        unit: *unit,
        reference: was.value,
        difference,
        interval,
        relative: difference.zip(was.value).filter(|(_, was)| *was != 0.0).map(|(d, was)| d / was),
        evidence,
    })
}

/// The interval of the difference of two independent numbers from theirs, by the method of variance
/// estimates recovery; for proportions with Wilson intervals it is Newcombe's.
///
/// Source: G. Y. Zou, A. Donner, "Construction of confidence limits about effect measures", Statistics
/// in Medicine 27 (2008); R. G. Newcombe, Statistics in Medicine 17 (1998), method 10.
fn interval(was: &Estimate, is: &Estimate) -> Option<[f64; 2]> {
    let ([was_low, was_high], [is_low, is_high]) = (was.interval?, is.interval?);
    let (was, is) = (was.value?, is.value?);
    let low = (is - is_low).hypot(was_high - was);
    let high = (is_high - is).hypot(was - was_low);
    Some([is - was - low, is - was + high])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::wilson;

    #[test]
    fn the_interval_of_two_shares_is_newcombes() {
        // Newcombe 1998, table II, method 10, comparisons (a) and (c).
        for ((x, m), (y, n), expected) in
            [((56u64, 70u64), (48u64, 80u64), [0.0524, 0.3339]), ((6, 7), (2, 7), [0.0582, 0.8062])]
        {
            let share = |count: u64, of: u64| Estimate {
                value: Some(count as f64 / of as f64),
                interval: wilson(count, of),
                ..Estimate::default()
            };
            let [low, high] = interval(&share(y, n), &share(x, m)).expect("both have intervals");
            assert!((low - expected[0]).abs() < 1e-4 && (high - expected[1]).abs() < 1e-4, "{low}");
        }
    }

    #[test]
    fn results_of_another_version_are_told() {
        for (json, expected) in [
            ("{", "it is no JSON"),
            ("{}", "it states no schema_version"),
            (
                r#"{"schema_version": 9, "plimsoll": "3.1.0"}"#,
                "version 9 of the layout, written by",
            ),
            (r#"{"schema_version": 1}"#, "missing field"),
        ] {
            let error = Summary::read(json.as_bytes()).expect_err("it is no summary");
            assert!(error.contains(expected), "{error}");
        }
    }
}
