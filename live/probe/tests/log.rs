//! Fitting to logs of requests: made here with known coefficients, and real ones of vLLM.

use std::path::PathBuf;

use plimsoll_probe::calibrate::{CellResult, LoggedRequest, from_log, parse_log, replayed};
use plimsoll_probe::device::Limits;

fn limits(seats: u32, kv_tokens: u64) -> Limits {
    Limits {
        seats: Some(seats),
        step_tokens_max: Some(2_048),
        kv_tokens: Some(kv_tokens),
        block_tokens: Some(16),
        context_max: Some(32_768),
        priorities: None,
    }
}

fn real(gpu: &str) -> Option<Vec<LoggedRequest>> {
    let data = PathBuf::from(std::env::var_os("PLIMSOLL_DATA")?);
    let log = data.join("groundtruth/vllm019").join(gpu).join("Llama-3.1-8B/requests.jsonl");
    let text = std::fs::read_to_string(log).ok()?;
    Some(parse_log(&text).expect("it is a log"))
}

/// Real runs of vLLM 0.19 on two GPUs: fitted to their own logs and replayed.
#[test]
fn real_logs_are_fitted_and_replayed() {
    for (gpu, limits, within) in
        [("RTX4090", limits(256, 41_408), 0.2), ("RTXPRO6000", limits(128, 400_000), 0.2)]
    {
        let Some(requests) = real(gpu) else {
            eprintln!("skipped: no logs of real runs, PLIMSOLL_DATA is not set");
            return;
        };
        assert_eq!(requests.len(), 300);
        let profile = from_log(&requests, limits, "requests.jsonl").expect("there is enough");
        eprintln!("{gpu}: {}", profile.provenance());
        for CellResult { name, measured, error, .. } in replayed(&requests, &profile.engine()) {
            eprintln!("  {name}: {:.1} ms, {:+.1} %", measured / 1e6, error * 100.0);
            assert!(error.abs() < within || name.contains("first"), "{gpu}: {name} {error}");
        }
        eprintln!("  {:?}", profile.fit.step_cost());
    }
}

#[test]
fn lines_that_are_no_requests_are_named() {
    let good = r#"{"input_toks": 5, "output_toks": 2, "queued_ts": 1.0, "scheduled_ts": 1.1,
        "first_token_ts": 1.2, "last_token_ts": 1.3, "request_id": "a"}"#
        .replace('\n', " ");
    assert_eq!(parse_log(&good).map(|all| all.len()), Ok(1));
    for (bad, expected) in [
        (good.replace("1.2", "0.9"), "line 2: queued, scheduled, first and last"),
        (
            good.replace("\"output_toks\": 2", "\"output_toks\": 0"),
            "line 2: a request has at least",
        ),
        ("{}".to_owned(), "line 2: missing field `input_toks`"),
        ("a,b,c".to_owned(), "line 2: expected value"),
    ] {
        let error = parse_log(&format!("{good}\n{bad}\n")).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    }
}
