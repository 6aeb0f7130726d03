//! What every name means that a report, a table or a file shows, and who in the field means
//! something else by it.

use crate::definitions::DEFINITIONS;

/// A name, what it means, and who means something else by it (empty where nobody is known to).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// The name.
    pub name: &'static str,
    /// Its formula or meaning.
    pub formula: &'static str,
    /// Who differs.
    pub differs: &'static str,
}

/// Who in the field calls something else by the name of a definition.
const DIFFERS: [(&str, &str); 11] = [
    (
        "ttft",
        "vLLM's metric per request counts from the arrival at the engine, so that waiting in front of \
         it is not in; many load generators count from when they sent, which under load is later than \
         they meant to.",
    ),
    (
        "tpot",
        "GuideLLM divides the whole latency, the first token included, by the tokens; LLMPerf and \
         vLLM's benchmark agree with the formula here.",
    ),
    (
        "itl",
        "AIPerf's and GenAI-Perf's inter-token latency is a mean a request, what is called TPOT here; \
         pooled gaps are what a reader of the stream sees.",
    ),
    ("ntpot", "vLLM's papers call it normalized latency."),
    (
        "e2e",
        "Others call it request latency or response time; from sending it leaves out what a closed \
         loop waited before (coordinated omission).",
    ),
    (
        "queue_time",
        "vLLM's request_queue_time_seconds is the wait inside the engine alone, and only the first; a \
         gateway's is the wait in the gateway alone. Here it is both, and every wait.",
    ),
    (
        "slo_attainment",
        "Benchmarks divide by the completed requests, which makes refusing look good: that number is \
         attainment_of_completed.",
    ),
    (
        "goodput",
        "DistServe's goodput is the highest rate at which a given attainment holds; here it is the \
         rate of good requests at the load that was offered.",
    ),
    (
        "output_tps",
        "Called throughput by most, with or without the prompt tokens: input_tps and total_tps are \
         told apart here.",
    ),
    (
        "utilization",
        "nvidia-smi's GPU utilization is the share of time in which any kernel ran; busy is the share \
         of time in which a step was computed, useful leaves out what was computed twice.",
    ),
    (
        "percentile",
        "Prometheus interpolates within buckets, and dashboards average percentiles of replicas, which \
         has no meaning; here requests are pooled.",
    ),
];

/// Words that reports and files use beside the definitions.
const MORE: [(&str, &str); 73] = [
    ("total_tps", "input_tps + output_tps"),
    (
        "dispersion",
        "variance / mean of the arrivals counted in windows of one length: 1 of a Poisson process, more \
         of bursts; look at the window in which a policy or an autoscaler acts",
    ),
    ("gap_cv", "standard deviation / mean of the gaps between arrivals; 1 of a Poisson process"),
    (
        "known_share",
        "of all prompt tokens of a trace, those in blocks that an earlier prompt began with as well: \
         what a prefix cache without limit would save",
    ),
    (
        "blocked_by_memory",
        "seats that stand free while requests wait for KV memory / seats, at sampling instants",
    ),
    ("tpot_undefined", "requests that finished with fewer than two tokens: they have no tpot"),
    ("wasted_tokens", "tokens computed for requests that the policy then cut off"),
    ("class", "a group of requests that are owed the same latency"),
    ("tenant", "who pays for a request"),
    ("source", "the workload or route that a request came from"),
    ("backend", "what takes requests: in the simulator a replica of an engine"),
    ("pool", "equal backends"),
    ("replication", "one of several independent runs, from 0"),
    (
        "interval",
        "95 % Student-t across replications around the pooled value; without several there is none",
    ),
    ("wilson", "95 % interval of a share of requests, as if they were independent (Wilson 1927)"),
    ("at_least", "marked ≥: requests were cut off; the true value is this or more"),
    ("few_samples", "marked *: fewer than 10 samples lie beyond the percentile"),
    ("censored", "known only to be at least so long, because the request was cut off"),
    (
        "outcome",
        "how a request closed: finished, failed, cancelled, expired, evicted, refused or unfinished",
    ),
    (
        "offered",
        "all requests that arrived: finished + failed + cancelled + expired + evicted + refused + in flight",
    ),
    ("finished", "requests whose last token was delivered"),
    ("failed", "requests broken by a backend or the network"),
    ("cancelled", "requests whose client left"),
    ("expired", "requests that outlived their deadline"),
    ("evicted", "requests that the policy cut off to make room"),
    ("refused", "requests that the allocator declined, by reason"),
    ("in_flight", "requests cut off by the end of the run"),
    ("id", "the number of a request"),
    ("arrived_s", "intended arrival, seconds since the run began"),
    ("dispatched_s", "when the allocator let the request go to a backend"),
    ("started_s", "when an engine first computed for it"),
    ("first_token_s", "when its first token was delivered"),
    ("last_token_s", "when its last token was delivered"),
    ("closed_s", "when it was closed"),
    ("prompt_tokens", "the length of the prompt"),
    ("output_tokens", "output tokens delivered"),
    ("output_cap", "output tokens that the client allows (max_tokens)"),
    ("queue_s", "queue_time of the request"),
    ("prefill_s", "prefill_time of the request"),
    ("decode_s", "decode_time of the request"),
    ("preempted_s", "preempted_time of the request"),
    ("ttft_s", "ttft of the request"),
    ("tpot_s", "tpot of the request"),
    ("itl_max_s", "itl_max of the request"),
    ("preemptions", "times a request was thrown out of a batch, to be computed again"),
    ("recomputed_tokens", "tokens computed again because of preemptions"),
    ("reason", "the rule that let the request in"),
    ("bound", "the resource that the request waited for"),
    ("from_s", "when a bin of the time series begins"),
    ("to_s", "when it ends"),
    ("kind", "class or pool"),
    ("name", "of the class or the pool"),
    ("arrived", "requests that arrived in the bin"),
    ("dispatched", "requests let in in the bin"),
    ("queued", "requests that waited in the allocator: the mean of the samples in the bin"),
    ("engine_waiting", "requests that waited inside engines"),
    ("running", "requests in batches"),
    ("oldest_wait_s", "the age of the oldest that waited, the largest of the samples"),
    ("busy_share", "engine time of the class, or of the pool, of all that there was"),
    ("kv_share", "KV memory held, of all that there is"),
    ("worst_wait", "the longest wait of one request"),
    ("engine_share", "the class's part of the engine time used"),
    ("entitlement", "the class's part by weight"),
    ("fate", "starved, overload, unlucky or fine"),
    ("unlucky", "single requests waited longer than wait_max although the class was served"),
    (
        "above_share",
        "waiting because another class held more than its share by weight: it starved this one",
    ),
    ("within_share", "waiting because another class held what is within its share: shortage"),
    (
        "inversion",
        "seat-seconds that less important classes held while a more important one waited for seats",
    ),
    (
        "survival",
        "quantiles of the wait by the product-limit estimator, which takes waits that were cut off for what they are (Kaplan and Meier 1958)",
    ),
    ("pass", "every objective is met: exit code 0"),
    ("fail", "an objective is missed: exit code 3"),
    (
        "overloaded",
        "a queue grows for as long as requests arrive, and no objective says whether that is fine: exit code 4",
    ),
    (
        "inconclusive",
        "the interval holds the limit, too few samples, or a metric was never measured: exit code 4",
    ),
];

/// All words: the definitions, then the others.
pub fn glossary() -> impl Iterator<Item = Word> {
    let differs = |name: &str| {
        DIFFERS.iter().find(|(known, _)| *known == name).map_or("", |(_, differs)| *differs)
    };
    let defined = DEFINITIONS.into_iter().chain(MORE);
    defined.map(move |(name, formula)| Word { name, formula, differs: differs(name) })
}

/// The word of a name, whatever its case; percentiles (`p99`, `ttft_p99_s`) are told by what they
/// are percentiles of.
pub fn explained(name: &str) -> Option<Word> {
    let find = |name: &str| glossary().find(|word| word.name.eq_ignore_ascii_case(name));
    let bare = name.trim_end_matches("_low").trim_end_matches("_high").trim_end_matches("_s");
    // P0102 is the code of an error.
    let is_percentile = |text: &str| {
        let rest = text.strip_prefix(['p', 'P']).filter(|rest| !rest.starts_with('0'));
        rest.is_some_and(|rest| rest.parse::<f64>().is_ok_and(|p| p <= 100.0))
    };
    let split = || {
        let (measure, percentile) = bare.rsplit_once(['_', ' '])?;
        (is_percentile(percentile) || matches!(percentile, "mean" | "max")).then_some(measure)
    };
    find(name)
        .or_else(|| find(bare))
        .or_else(|| is_percentile(name).then(|| find("percentile")).flatten())
        .or_else(|| find(split()?))
        .or_else(|| find(&format!("{}_time", split()?)))
        .or_else(|| find(&format!("{}_time", bare)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_and_number_is_explained() {
        let columns = [crate::REQUEST_COLUMNS, crate::TIMESERIES_COLUMNS];
        for name in columns.iter().flat_map(|columns| columns.split(',')) {
            assert!(explained(name).is_some(), "{name}");
        }
        let summary = serde_json::to_value(crate::summary::Latency::default()).expect("JSON");
        let counts = serde_json::to_value(crate::summary::Numbers::default()).expect("JSON");
        let keys = |value: &serde_json::Value| -> Vec<String> {
            value.as_object().expect("an object").keys().cloned().collect()
        };
        for name in keys(&summary).iter().chain(&keys(&counts)) {
            let is_group = matches!(name.as_str(), "latency" | "counts");
            assert!(is_group || explained(name).is_some(), "{name}");
        }
        for name in ["p99", "TTFT p99", "ttft_p95_s", "queue_p99_s", "e2e_p50_s_low", "GOODPUT"] {
            assert!(explained(name).is_some(), "{name}");
        }
        assert_eq!((explained("pretty"), explained("P0001")), (None, None));
        assert_eq!(explained("ttft_p99_s").map(|word| word.name), Some("ttft"));
    }

    #[test]
    fn a_word_stands_once_and_who_differs_differs_about_something() {
        let mut names: Vec<&str> = glossary().map(|word| word.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(DIFFERS.iter().all(|(name, _)| names.contains(name)));
        assert_eq!(glossary().filter(|word| !word.differs.is_empty()).count(), DIFFERS.len());
    }
}
