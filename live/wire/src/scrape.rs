//! What a backend says of its load: Prometheus text to [`Load`].

use plimsoll_base::Span;
use plimsoll_config::gateway::BackendKind;
use plimsoll_policy::Load;

/// Names of gauges: requests that run, that wait, and the part of KV memory that is held.
struct Gauges {
    running: &'static [&'static str],
    waiting: &'static [&'static str],
    kv_used: &'static [&'static str],
}

/// Newer names first; the first that is there counts.
const fn gauges(kind: BackendKind) -> Option<Gauges> {
    match kind {
        BackendKind::Vllm => Some(Gauges {
            running: &["vllm:num_requests_running"],
            waiting: &["vllm:num_requests_waiting"],
            kv_used: &["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"],
        }),
        BackendKind::Sglang => Some(Gauges {
            running: &["sglang:num_running_reqs"],
            waiting: &["sglang:num_queue_reqs"],
            kv_used: &["sglang:token_usage"],
        }),
        BackendKind::LlamaCpp => Some(Gauges {
            running: &["llamacpp:requests_processing"],
            waiting: &["llamacpp:requests_deferred"],
            kv_used: &["llamacpp:kv_cache_usage_ratio"],
        }),
        BackendKind::OpenAi => None,
    }
}

/// The load that a page of metrics tells of; `None` if it does not say how many requests run.
/// What it does not say beside that is 0.
pub fn load(kind: BackendKind, page: &str) -> Option<Load> {
    let Gauges { running, waiting, kv_used } = gauges(kind)?;
    let count = |value: f64| value.clamp(0.0, f64::from(u32::MAX)) as u32;
    let sum = |names: &[&str]| read(page, names, |a, b| a + b);
    Some(Load {
        running: sum(running).map(count)?,
        waiting: sum(waiting).map_or(0, count),
        // Of several engines the fullest.
        kv_used_ppm: count(read(page, kv_used, f64::max).unwrap_or(0.0).clamp(0.0, 1.0) * 1e6),
        queue_wait: Span::ZERO,
    })
}

/// The samples of the first of these names that has any, put together.
fn read(page: &str, names: &[&str], join: impl Fn(f64, f64) -> f64) -> Option<f64> {
    names.iter().find_map(|name| page.lines().filter_map(|line| sample(line, name)).reduce(&join))
}

/// The sum of a gauge's or counter's samples; `None` if the page has none.
pub fn gauge(page: &str, name: &str) -> Option<f64> {
    read(page, &[name], |a, b| a + b)
}

/// What the first sample of a name says under a label, such as the `block_size` of
/// `vllm:cache_config_info`.
pub fn label<'a>(page: &'a str, name: &str, label: &str) -> Option<&'a str> {
    let labels = page.lines().find_map(|line| {
        let labelled = line.trim().strip_prefix(name)?.strip_prefix('{')?;
        Some(&labelled[..labelled.rfind('}')?])
    })?;
    let (_, value) =
        format!(",{labels}").find(&format!(",{label}=\"")).map(|at| labels.split_at(at))?;
    value[label.len() + 2..].split('"').next()
}

/// The value of a line `name{labels} value [time]`.
fn sample(line: &str, name: &str) -> Option<f64> {
    let rest = line.trim().strip_prefix(name)?;
    let rest = match rest.strip_prefix('{') {
        Some(labelled) => &labelled[labelled.rfind('}')? + 1..],
        None => rest.starts_with([' ', '\t']).then_some(rest)?,
    };
    rest.split_whitespace().next()?.parse().ok().filter(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: BackendKind, page: &str, wanted: Option<(u32, u32, u32)>) {
        let found = load(kind, page).map(|load| (load.running, load.waiting, load.kv_used_ppm));
        assert_eq!(found, wanted, "{page}");
    }

    #[test]
    fn labels_and_gauges_are_read() {
        let page = "# HELP vllm:cache_config_info x\n\
            vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"2588\"} 1.0\n\
            a_total{engine=\"0\"} 2\na_total{engine=\"1\"} 3\n";
        assert_eq!(label(page, "vllm:cache_config_info", "block_size"), Some("16"));
        assert_eq!(label(page, "vllm:cache_config_info", "num_gpu_blocks"), Some("2588"));
        assert_eq!(label(page, "vllm:cache_config_info", "size"), None);
        assert_eq!(gauge(page, "a_total"), Some(5.0));
        assert_eq!(gauge(page, "a"), None);
    }

    #[test]
    fn pages_of_each_kind() {
        let vllm = "# TYPE vllm:num_requests_running gauge\n\
            vllm:num_requests_running{engine=\"0\",model_name=\"a}b\"} 3.0\n\
            vllm:num_requests_running{engine=\"1\"} 2.0\n\
            vllm:num_requests_waiting{engine=\"0\"} 7\n\
            vllm:num_requests_waiting_by_reason{engine=\"0\"} 70\n\
            vllm:gpu_cache_usage_perc 0.25\n";
        check(BackendKind::Vllm, vllm, Some((5, 7, 250_000)));
        let newer = format!("{vllm}vllm:kv_cache_usage_perc{{engine=\"0\"}} 0.5 1700000000\n");
        check(BackendKind::Vllm, &newer, Some((5, 7, 500_000)));
        let sglang = "sglang:num_running_reqs 4\nsglang:num_queue_reqs 1\nsglang:token_usage 2\n";
        check(BackendKind::Sglang, sglang, Some((4, 1, 1_000_000)));
        check(BackendKind::LlamaCpp, "llamacpp:requests_processing 1\n", Some((1, 0, 0)));
        check(BackendKind::LlamaCpp, "llamacpp:requests_processing NaN\n", None);
        check(BackendKind::Vllm, "", None);
        check(BackendKind::OpenAi, vllm, None);
    }
}
