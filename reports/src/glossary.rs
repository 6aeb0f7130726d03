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
const MORE: [(&str, &str); 95] = [
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
    (
        "agrees",
        "validate: the interval of each judged error is within the limit (--within), or within the live noise where that is more: exit code 0",
    ),
    (
        "disagrees",
        "validate: the interval of an error is outside, policies rank the other way round, or a decision log does not replay: exit code 3",
    ),
    (
        "device_saturated",
        "validate: what was in the device grew to the end of the arrivals beyond its seats; its latencies then only say how long that went on: exit code 4",
    ),
    (
        "client_too_slow",
        "validate: the p99 of send_lag is more than 1 ms, and its p90 more than a quarter of the error that is allowed of the least median TTFT: exit code 4",
    ),
    (
        "too_noisy",
        "validate: two live runs with the same arrivals differ by more than twice the limit, so that nothing can be told: exit code 4",
    ),
    (
        "profile_out_of_range",
        "validate: an error is outside, and more than 5 % of the time was in steps larger than the profile was fitted to: exit code 4",
    ),
    (
        "unclear",
        "validate: the interval of an error reaches over its limit, which is INCONCLUSIVE: exit code 4",
    ),
    (
        "too_few",
        "validate: fewer than ten values beyond every percentile, so that none is judged: exit code 4",
    ),
    (
        "live_noise",
        "validate: the noise floor, how much two live runs with the same arrivals differ, as a part of the number",
    ),
    (
        "noise_floor",
        "calibrate: the spread of equal measurements as a part of their median (normalised median deviation); of validate it is live_noise",
    ),
    (
        "scheduler",
        "validate, a part of an error: what is left when steps are as long as they were measured: which requests share a step, and when they enter",
    ),
    (
        "step_times",
        "validate, a part of an error: what changes when steps are as long as the profile says and not as they were measured",
    ),
    (
        "pace",
        "validate, a part of an error: what changes since the device was faster or slower in the runs than was expected from beside them",
    ),
    (
        "client",
        "validate, a part of an error: what the engine's own steps do not show, beside what the profile allows for it: the way there and back",
    ),
    (
        "scheduler_alone",
        "validate: the scheduler's error as a part of what the engine did, without the client",
    ),
    (
        "ks",
        "validate: Kolmogorov and Smirnov's distance, the largest gap between the shares of live and of simulated values up to any value; 0 is the same, 1 is apart",
    ),
    ("ks_floor", "validate: ks of two live runs with the same arrivals"),
    ("send_lag", "validate: sent - arrival - what the policy held the request back for"),
    (
        "held_out",
        "calibrate: the held-out error, of the model on cells it was not fitted to, each as a part of what was measured",
    ),
    (
        "by_the_profile",
        "validate: by which part all steps together would be longer by the profile than they were",
    ),
    (
        "throttled",
        "validate, calibrate: the part of the time in which a GPU said that power, heat or another GPU held its clocks down; clocks that somebody set are named and not counted",
    ),
    (
        "gpu_utilization",
        "validate: the part of its driver's sampling period in which any kernel ran on a GPU, however little of it; not the simulator's utilization",
    ),
];

/// What reports call a word in other places.
const ALIASES: [(&str, &str); 11] = [
    ("too_noisy_to_tell", "too_noisy"),
    ("noisy", "too_noisy"),
    ("too_few_requests", "too_few"),
    ("scheduler_part", "scheduler"),
    ("step_time_part", "step_times"),
    ("step_times_part", "step_times"),
    ("client_part", "client"),
    ("pace_part", "pace"),
    ("ks_distance", "ks"),
    ("held_out_error", "held_out"),
    ("live_noise_floor", "live_noise"),
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
    // `DEVICE SATURATED`, `held-out error`.
    let joined = |name: &str| name.to_ascii_lowercase().replace([' ', '-'], "_");
    let meant = |name: &str| {
        let name = joined(name);
        let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
        alias.map_or(name, |(_, word)| (*word).to_owned())
    };
    let find = |name: &str| glossary().find(|word| word.name == meant(name));
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
    fn every_word_of_a_validation_is_explained() {
        use crate::validation::{Agreement, Fault, ValidationVerdict};
        let json = |value: serde_json::Value| value.as_str().expect("a word").to_owned();
        let verdicts = [
            ValidationVerdict::Agrees,
            ValidationVerdict::Disagrees,
            ValidationVerdict::DeviceSaturated,
            ValidationVerdict::ClientTooSlow,
            ValidationVerdict::TooNoisy,
            ValidationVerdict::ProfileOutOfRange,
            ValidationVerdict::Unclear,
            ValidationVerdict::TooFew,
        ];
        let faults = [Fault::Scheduler, Fault::StepTimes, Fault::Client, Fault::Pace];
        let results =
            [Agreement::Agrees, Agreement::Disagrees, Agreement::Unclear, Agreement::Noisy];
        let mut names = Vec::new();
        for verdict in verdicts {
            names.push(verdict.word().to_owned());
            names.push(json(serde_json::to_value(verdict).expect("it is JSON")));
        }
        names.extend(faults.map(|fault| json(serde_json::to_value(fault).expect("it is JSON"))));
        names.extend(results.map(|result| result.word().to_owned()));
        let parts = serde_json::to_value(crate::validation::Parts {
            client: 0.0,
            scheduler: 0.0,
            step_times: 0.0,
            pace: 0.0,
            scheduler_alone: 0.0,
        });
        names.extend(parts.expect("it is JSON").as_object().expect("an object").keys().cloned());
        let others = ["noise floor", "live noise", "KS distance", "send lag", "held-out error"];
        names.extend(others.map(str::to_owned));
        names.extend(["scheduler part", "step-time part", "client part"].map(str::to_owned));
        for name in names {
            let word = explained(&name).unwrap_or_else(|| panic!("{name} is not explained"));
            let of_all = word.name == "inconclusive" || word.formula.starts_with("calibrate");
            assert!(of_all || word.formula.contains("validate"), "{name}: {}", word.formula);
        }
        assert!(ALIASES.iter().all(|(_, name)| glossary().any(|word| word.name == *name)));
        assert!(ALIASES.iter().all(|(alias, _)| glossary().all(|word| word.name != *alias)));
        assert_eq!(explained("TTFT p99").map(|word| word.name), Some("ttft"));
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
