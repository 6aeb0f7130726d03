//! Numbers in words.

use plimsoll_base::{Metric, Span};

use crate::summary::{Counts, Estimate, ObjectiveResult};

/// `9.80 s`, `812 ms`.
pub(crate) fn secs(seconds: f64) -> String {
    Span::from_secs_f64(seconds).to_string()
}

/// A limit reads as it is written: `500 ms`, `2 s`.
pub(crate) fn limit(objective: &ObjectiveResult) -> String {
    match objective.metric {
        Metric::Attainment => {
            let text = percent(objective.limit);
            let number = text.trim_end_matches(" %");
            match number.split_once('.') {
                Some((whole, part)) if part.bytes().all(|digit| digit == b'0') => {
                    format!("{whole} %")
                }
                Some(_) | None => text,
            }
        }
        Metric::Ttft | Metric::Tpot | Metric::E2e | Metric::Queue => round_secs(objective.limit),
    }
}

/// Without digits that say nothing: `2 s`, not `2.00 s`.
pub(crate) fn round_secs(seconds: f64) -> String {
    let text = secs(seconds);
    let (number, unit) = text.split_once(' ').expect("a span is a number and a unit");
    let number = if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    };
    format!("{number} {unit}")
}

/// `93 %`, `99.5 %`, `0.3 %`.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    // A share short of the whole must not read as the whole.
    let floor = |digits: f64| (percent * digits).floor() / digits;
    if percent > 0.0 && percent < 0.05 {
        "< 0.1 %".to_owned()
    } else if (99.0..100.0).contains(&percent) {
        format!("{:.2} %", floor(100.0))
    } else if (10.0..99.0).contains(&percent) || percent == 0.0 || percent >= 100.0 {
        format!("{percent:.0} %")
    } else {
        format!("{percent:.1} %")
    }
}

/// A difference as a part of something, `+7.6 %`, `−0.3 %`; what rounds to nothing has no sign.
pub(crate) fn signed(part: f64) -> String {
    match format!("{:.1}", (part * 100.0).abs()).as_str() {
        "0.0" => "0.0 %".to_owned(),
        percent if part < 0.0 => format!("−{percent} %"),
        percent => format!("+{percent} %"),
    }
}

/// `−0.3 to +7.6 %`.
pub(crate) fn signed_between([low, high]: [f64; 2]) -> String {
    format!("{} to {}", signed(low).trim_end_matches(" %"), signed(high))
}

/// `12.3`, `1,234`: three significant digits, thousands apart.
pub(crate) fn number(x: f64) -> String {
    match x {
        x if x >= 100.0 => count(x.round() as u64),
        x if x >= 10.0 => format!("{x:.1}"),
        x => format!("{x:.2}"),
    }
}

/// `19,366`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An estimate with what is known of its certainty: `≥ 9.80 s*`; `–` if there is none.
pub(crate) fn latency(estimate: &Estimate) -> String {
    let Some(value) = estimate.value else {
        return "–".to_owned();
    };
    let at_least = if estimate.at_least { "≥ " } else { "" };
    let few = if estimate.few_samples { "*" } else { "" };
    format!("{at_least}{}{few}", secs(value))
}

/// `offered 10 = finished 7 + refused 2 (queue_full 2) + in flight 1`.
pub(crate) fn conservation(counts: &Counts) -> String {
    let mut parts = vec![format!("finished {}", count(counts.finished))];
    for (word, number) in
        [("failed", counts.failed), ("cancelled", counts.cancelled), ("expired", counts.expired)]
    {
        parts.push(format!("{word} {}", count(number)));
    }
    if counts.evicted > 0 {
        parts.push(format!("evicted {}", count(counts.evicted)));
    }
    let refused: u64 = counts.refused.values().sum();
    let reasons: Vec<String> = counts
        .refused
        .iter()
        .map(|(reason, number)| format!("{reason} {}", count(*number)))
        .collect();
    parts.push(match reasons.is_empty() {
        true => "refused 0".to_owned(),
        false => format!("refused {} ({})", count(refused), reasons.join(", ")),
    });
    parts.push(format!("in flight {}", count(counts.in_flight)));
    format!("offered {} = {}", count(counts.offered), parts.join(" + "))
}

/// Without what would steer a terminal or turn the direction of the text around: names may hold
/// anything.
pub(crate) fn harmless(text: &str) -> String {
    let steers = |c: char| {
        c.is_control() && c != '\n'
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.replace(steers, "\u{fffd}")
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// `chat's`, `agents'`.
pub(crate) fn possessive(name: &str) -> String {
    if name.ends_with('s') { format!("{name}'") } else { format!("{name}'s") }
}

/// The unit in which an axis up to `seconds` has round numbers: its name and its seconds.
pub(crate) fn axis_unit(seconds: f64) -> (&'static str, f64) {
    match seconds {
        s if s >= 3.0 * 3600.0 => ("h", 3600.0),
        s if s >= 180.0 => ("min", 60.0),
        s if s >= 1.0 => ("s", 1.0),
        _ => ("ms", 1e-3),
    }
}

/// A tick of an axis: `2.5 min`.
pub(crate) fn tick(value: f64, unit: &str) -> String {
    let rounded = (value * 1e3).round() / 1e3;
    format!("{rounded} {unit}")
}

/// `p99`, `p99.9`.
pub(crate) fn percentile(p: f64) -> String {
    format!("p{p}")
}

/// `p99 TTFT`, `attainment`.
pub(crate) fn metric(objective: &ObjectiveResult) -> String {
    match objective.percentile {
        Some(p) => format!("{} {}", percentile(p), objective.metric.name()),
        None => objective.metric.name().to_owned(),
    }
}

/// `p99 TTFT 812 ms > 500 ms`; `sign` stands between what was measured and the limit.
pub(crate) fn against(objective: &ObjectiveResult, sign: &str) -> String {
    let value = match (objective.metric, objective.value.value) {
        (_, None) => "not measured".to_owned(),
        (Metric::Attainment, Some(share)) => percent(share),
        (Metric::Ttft | Metric::Tpot | Metric::E2e | Metric::Queue, Some(_)) => {
            latency(&Estimate { few_samples: false, ..objective.value })
        }
    };
    format!("{} {value} {sign} {}", metric(objective), limit(objective))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (got, expected) in [
            (percent(0.995), "99.50 %"),
            (percent(0.99999), "99.99 %"),
            (percent(1.0), "100 %"),
            (percent(0.934), "93 %"),
            (percent(0.0312), "3.1 %"),
            (percent(0.0), "0 %"),
            (percent(0.0003), "< 0.1 %"),
            (signed(0.0764), "+7.6 %"),
            (signed(-0.0026), "−0.3 %"),
            (signed(-0.0004), "0.0 %"),
            (signed_between([-0.0301, 0.0]), "−3.0 to 0.0 %"),
            (count(19_366), "19,366"),
            (count(12), "12"),
            (count(1_000_000), "1,000,000"),
            (number(4.321), "4.32"),
            (number(1234.4), "1,234"),
            (round_secs(0.5), "500 ms"),
            (round_secs(2.0), "2 s"),
            (round_secs(0.0405), "40.5 ms"),
            (list(&["a".into(), "b".into(), "c".into()]), "a, b and c"),
        ] {
            assert_eq!(got, expected);
        }
    }
}
