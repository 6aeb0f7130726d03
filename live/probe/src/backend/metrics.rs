//! How full the engine is, under the names that real servers give it.
//!
//! Names as of vLLM 0.19, SGLang 0.5 and llama.cpp of 2025. vLLM has called the part of KV memory
//! in use `gpu_cache_usage_perc` before; newer llama.cpp no longer tells it.

use std::fmt::Write as _;

use plimsoll_base::BackendSample;

use super::settings::Kind;

/// The content type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text of `/metrics`.
pub(super) fn text(kind: Kind, model: &str, sample: &BackendSample) -> String {
    let used = f64::from(sample.kv_blocks_used) / f64::from(sample.kv_blocks.max(1));
    let (running, waiting) = (f64::from(sample.running), f64::from(sample.waiting));
    let (prompt, output) = (sample.prefill_tokens as f64, sample.output_tokens as f64);
    let rows: &[(&str, &str, f64)] = match kind {
        Kind::Vllm => &[
            ("vllm:num_requests_running", "gauge", running),
            ("vllm:num_requests_waiting", "gauge", waiting),
            ("vllm:kv_cache_usage_perc", "gauge", used),
            ("vllm:gpu_cache_usage_perc", "gauge", used),
            ("vllm:num_preemptions_total", "counter", sample.preemptions as f64),
            ("vllm:prompt_tokens_total", "counter", prompt),
            ("vllm:generation_tokens_total", "counter", output),
        ],
        Kind::Sglang => &[
            ("sglang:num_running_reqs", "gauge", running),
            ("sglang:num_queue_reqs", "gauge", waiting),
            ("sglang:token_usage", "gauge", used),
            ("sglang:prompt_tokens_total", "counter", prompt),
            ("sglang:generation_tokens_total", "counter", output),
        ],
        Kind::LlamaCpp => &[
            ("llamacpp:requests_processing", "gauge", running),
            ("llamacpp:requests_deferred", "gauge", waiting),
            ("llamacpp:kv_cache_usage_ratio", "gauge", used),
            ("llamacpp:prompt_tokens_total", "counter", prompt),
            ("llamacpp:tokens_predicted_total", "counter", output),
        ],
    };
    let labels = match kind {
        Kind::Vllm => format!("{{engine=\"0\",model_name=\"{}\"}}", escaped(model)),
        Kind::Sglang => format!("{{model_name=\"{}\"}}", escaped(model)),
        Kind::LlamaCpp => String::new(),
    };
    let mut text = String::new();
    for (name, what, value) in rows {
        // A string takes everything.
        let _ = writeln!(text, "# TYPE {name} {what}\n{name}{labels} {value}");
    }
    text
}

fn escaped(label: &str) -> String {
    label.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_names() {
        let sample = BackendSample {
            running: 3,
            waiting: 2,
            kv_blocks_used: 1,
            kv_blocks: 4,
            prefill_tokens: 70,
            output_tokens: 9,
            ..BackendSample::default()
        };
        let lines = |kind| text(kind, "a\"b", &sample);
        let vllm = lines(Kind::Vllm);
        let labels = r#"{engine="0",model_name="a\"b"}"#;
        for (name, value) in [
            ("vllm:num_requests_running", "3"),
            ("vllm:num_requests_waiting", "2"),
            ("vllm:kv_cache_usage_perc", "0.25"),
            ("vllm:prompt_tokens_total", "70"),
            ("vllm:generation_tokens_total", "9"),
        ] {
            assert!(vllm.contains(&format!("\n{name}{labels} {value}\n")), "{name}: {vllm}");
        }
        assert!(lines(Kind::Sglang).contains("\nsglang:num_queue_reqs{model_name=\"a\\\"b\"} 2\n"));
        let llama = lines(Kind::LlamaCpp);
        assert!(llama.contains("\nllamacpp:requests_deferred 2\n"), "{llama}");
        assert!(llama.contains("\n# TYPE llamacpp:tokens_predicted_total counter\n"), "{llama}");
    }
}
