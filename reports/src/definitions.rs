//! The formula of every number, as printed in `summary.json` and on the page.

use std::collections::BTreeMap;

/// Names and formulas. a = arrival, s = first scheduled, f = first token, l = last token,
/// c = close, n = output tokens.
pub const DEFINITIONS: [(&str, &str); 38] = [
    ("queue_time", "sum of all waiting intervals of a request"),
    ("queue_time_first", "s - a"),
    ("prefill_time", "from s to f, or to the first preemption"),
    ("decode_time", "from f to l without what preemptions cost"),
    ("preempted_time", "computing again what preemptions threw away"),
    ("ttft", "f - a, the queue included"),
    ("ttft_service", "f - s"),
    ("tpot", "(l - f)/(n - 1); undefined for n < 2: left out and counted in tpot_undefined"),
    ("itl", "gaps between consecutive tokens of a request, pooled over requests"),
    ("itl_max", "the largest gap of each request with at least two tokens"),
    ("ntpot", "e2e/n"),
    ("e2e", "c - a of finished requests"),
    (
        "percentile",
        "nearest rank over the pooled requests of all replications, within 0.1 %; requests that \
         were not refused and had not got so far (unfinished, expired, cancelled, failed) count \
         with the time they had spent, and at_least says where that matters",
    ),
    ("max", "the largest value, exactly"),
    ("good", "finished within every per-request limit of its class's objectives"),
    (
        "slo_attainment",
        "good / offered; refused, expired, cancelled, failed and unfinished requests count as \
         missed",
    ),
    ("attainment_of_completed", "good / finished, for comparison with other tools"),
    (
        "measured_s",
        "from the end of the warm-up to the end of the run; every rate is a count of requests \
         that arrived after the warm-up divided by it",
    ),
    ("goodput", "good requests / measured_s"),
    ("goodput_tokens", "output tokens of good requests / measured_s"),
    ("input_tps", "prompt tokens of requests that got a first token / measured_s"),
    ("output_tps", "output tokens / measured_s"),
    ("tps_per_gpu", "output_tps / replicas"),
    ("tps_per_user", "output tokens of finished requests / the sum of their e2e"),
    (
        "utilization",
        "busy: replica time spent computing / replica time; useful: busy without the share of \
         recomputed tokens among computed tokens; kv_occupancy: token-seconds held / \
         token-seconds there are",
    ),
    (
        "overload",
        "in the second half of the measured arrivals fewer than 95 % of the arrived closed, the \
         backlog grew by more than 3 sqrt(arrived), and at least half of the growth waits",
    ),
    (
        "starved",
        "some of the class waited, others were served, and the class was not, for longer than \
         its wait_max (without one: 10 times the run's median queue_time, at least 1 s); or a \
         request of it waited longer than that and its lag is more than twice the largest request",
    ),
    (
        "blame",
        "at every instant a wait falls on the classes that hold what is waited for, each by its \
         part of what is held; a class's share is its weight among the classes that hold some or \
         wait for it; what its part is more than its share is above_share, the rest within_share; \
         its own class's part is own_class; a wait for a limit without a holder falls on the \
         limit; the parts sum to queue_time exactly",
    ),
    (
        "overtakes",
        "of a request: later arrivals of no higher priority that were let in before it; of those \
         that left the queue otherwise, so far",
    ),
    (
        "slowdown",
        "max(1, e2e / max(alone, 100 ms)), alone: from arrival to l of the request alone on an idle \
         backend of the kind that it was dispatched to, by the step-time model (bounded slowdown, \
         Feitelson and Rudolph 1998, with the floor 100 ms); others leave out the floor",
    ),
    (
        "unfair_idle",
        "time for which some backend had a free seat and KV memory was not all taken while some of \
         the class waited for a line of the policy: a cap, a quota, a lane, a limit lowered by \
         feedback, a breaker, a stale signal; mean over replications",
    ),
    (
        "preemption_waste",
        "tokens computed again because of preemptions / useful tokens: prompt tokens of requests \
         that got a first token and output tokens, without those of evicted requests",
    ),
    ("preemptions_max", "the most preemptions of one request"),
    (
        "eviction_waste",
        "wasted_tokens, computed for requests that the policy then cut off / useful tokens (see \
         preemption_waste)",
    ),
    (
        "booked_gap",
        "the most, over stretches in which two classes wait without a break for what others hold, \
         by which their charges a unit of weight came apart; a request is charged when it is let \
         in, as predicted, and settled when it ends; seconds: at the engine time of a cost unit, \
         mean of the run; its bound counts each wrong prediction as the largest of its class, for \
         as many as were ever in flight",
    ),
    (
        "lag",
        "weighted max-min fluid share of the engine time used, over the demand of backlogged \
         classes, minus what the class used; the most over stretches of its backlog, by samples",
    ),
    (
        "service_gap",
        "the most, over stretches in which two classes are both backlogged, by which their engine \
         time a unit of weight came apart",
    ),
    ("jain", "(sum x)^2 / (n sum x^2) over x = used / fluid share of classes while backlogged"),
];

/// [`DEFINITIONS`] by name.
pub fn definitions() -> BTreeMap<String, String> {
    DEFINITIONS.iter().map(|&(name, formula)| (name.to_owned(), formula.to_owned())).collect()
}
