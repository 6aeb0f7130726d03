//! Objectives as files state them.

use plimsoll_base::{Metric, Objective};

use crate::spec::{Scalar, SloSpec};
use crate::{Code, Diagnostic, nearest, units};

const METRICS: [(&str, Metric); 4] = [
    ("ttft", Metric::Ttft),
    ("tpot", Metric::Tpot),
    ("e2e", Metric::E2e),
    ("queue", Metric::Queue),
];
const PERCENTILES: [(&str, f64); 6] =
    [("p50", 50.0), ("p75", 75.0), ("p90", 90.0), ("p95", 95.0), ("p99", 99.0), ("p999", 99.9)];

/// Reads the objectives of one class.
pub(crate) fn objectives(slo: &SloSpec, found: &mut Vec<Diagnostic>) -> Vec<Objective> {
    let mut objectives = Vec::new();
    for (key, value) in &slo.0 {
        let place = Some(value.place);
        let Some((metric, percentile)) = metric(key) else {
            let names: Vec<String> = METRICS
                .iter()
                .flat_map(|(name, _)| PERCENTILES.iter().map(move |(p, _)| format!("{name}_{p}")))
                .chain(["attainment".into()])
                .collect();
            let near = nearest::nearest(key, names.iter().map(String::as_str));
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => "write ttft, tpot, e2e or queue, `_`, and p50, p75, p90, p95, p99 or \
                         p999; or `attainment`"
                    .into(),
            };
            found.push(
                Diagnostic::new(Code::UnknownKey, place, format!("unknown objective `{key}`"))
                    .label(format!("the limit of `{key}`"))
                    .help(help),
            );
            continue;
        };
        let limit = match (metric, &value.value) {
            (Metric::Attainment, Scalar::Number(number)) => units::fraction(*number),
            (Metric::Attainment, Scalar::Text(text)) => units::percentage(text),
            (_, Scalar::Text(text)) => units::span(text).map(|span| span.secs_f64()),
            (_, Scalar::Number(number)) => Err(units::bare(units::SPAN, &number.to_string())),
            (_, Scalar::Other) => Err(units::bare(units::SPAN, "500")),
        };
        let written = match &value.value {
            Scalar::Text(text) => text.clone(),
            Scalar::Number(number) => number.to_string(),
            Scalar::Other => String::new(),
        };
        let relation = if metric == Metric::Attainment { ">=" } else { "<=" };
        match limit {
            Ok(limit) => objectives.push(Objective {
                metric,
                percentile,
                limit,
                text: format!("{key} {relation} {written}"),
            }),
            Err(wrong) => {
                found.push(Diagnostic::new(Code::Unit, place, wrong.message).help(wrong.help));
            }
        }
    }
    objectives
}

fn metric(key: &str) -> Option<(Metric, f64)> {
    if key == "attainment" {
        return Some((Metric::Attainment, 0.0));
    }
    let (name, percentile) = key.split_once('_')?;
    let metric = METRICS.iter().find(|(known, _)| *known == name)?.1;
    let percentile = PERCENTILES.iter().find(|(known, _)| *known == percentile)?.1;
    Some((metric, percentile))
}
