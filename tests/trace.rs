//! `plimsoll trace describe`: what a trace holds, in each format that is read, and what is wrong with
//! one, by its place.

mod support;

use std::path::Path;

use serde_json::Value;
use support::plimsoll;

struct Said {
    code: Option<i32>,
    out: String,
    error: String,
}

fn describe(folder: &Path, file: &str, more: &[&str]) -> Said {
    let arguments = [&["trace", "describe", file][..], more].concat();
    let output = plimsoll().current_dir(folder).args(arguments).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("what it prints is UTF-8");
    Said { code: output.status.code(), out: text(output.stdout), error: text(output.stderr) }
}

fn json(folder: &Path, file: &str) -> Value {
    let said = describe(folder, file, &["--format", "json"]);
    assert_eq!(said.code, Some(0), "{}", said.error);
    serde_json::from_str(&said.out).expect("it is JSON")
}

/// Twenty minutes: one request a second, and in each second that ends in 0 nine more.
fn azure() -> String {
    let mut text = "TIMESTAMP,ContextTokens,GeneratedTokens\n".to_owned();
    for second in 0..1200 {
        let stamp = format!("2023-11-16 18:{:02}:{:02}.5000000", second / 60, second % 60);
        for _ in 0..if second % 10 == 0 { 10 } else { 1 } {
            text += &format!("{stamp},{},{}\n", 100 + second, 7);
        }
    }
    text
}

#[test]
fn every_format_is_described() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = scratch.path();
    std::fs::write(folder.join("a.csv"), azure()).expect("room");
    let told = json(folder, "a.csv");
    assert_eq!(told["format"], "Azure CSV");
    assert_eq!((told["rows"].as_u64(), told["seconds"].as_f64()), (Some(2280), Some(1199.0)));
    let scale = |seconds: f64| {
        let all = told["scales"].as_array().expect("a list").iter();
        all.clone().find(|one| one["seconds"] == seconds).expect("long enough").clone()
    };
    // Counts of a second: 10 once in ten, else 1. Mean 1.9, variance 7.29.
    let second = scale(1.0)["dispersion"].as_f64().expect("a number");
    assert!((second - 7.29 / 1.9).abs() < 0.05, "{second}");
    assert_eq!(scale(1.0)["busiest"], 10.0);
    // Each ten seconds hold 19: no variance.
    assert_eq!(scale(10.0)["dispersion"].as_f64().map(|x| x < 1e-9), Some(true));
    assert_eq!(told["output"]["p99"], 7);
    assert_eq!(told["sharing"], Value::Null);
    assert!(told["missing"].as_array().expect("a list").len() >= 5);
    let rows = [
        r#"{"timestamp": 0, "input_length": 1024, "output_length": 5, "hash_ids": [1, 2]}"#,
        r#"{"timestamp": 500, "input_length": 1500, "output_length": 0, "hash_ids": [1, 2, 3]}"#,
        r#"{"timestamp": 900, "input_length": 512, "output_length": 9, "hash_ids": [4]}"#,
    ];
    std::fs::write(folder.join("m.jsonl"), rows.join("\n") + "\n").expect("room");
    let told = json(folder, "m.jsonl");
    assert_eq!(told["format"], "Mooncake JSON lines");
    assert_eq!((told["without_output"].as_u64(), told["rows"].as_u64()), (Some(1), Some(3)));
    let known = told["sharing"]["known_share"].as_f64().expect("a share");
    assert!((known - 1024.0 / 3036.0).abs() < 1e-9, "{known}");
    assert_eq!(told["sharing"]["distinct"], 4);
}

#[test]
fn it_is_told_as_text_markdown_and_a_page() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = scratch.path();
    std::fs::write(folder.join("a.csv"), azure()).expect("room");
    let text = describe(folder, "a.csv", &[]);
    for part in ["2,280 requests", "It comes in bursts", "p99", "variance ÷ mean", "tenants"] {
        assert!(text.out.contains(part), "{part}: {}", text.out);
    }
    assert_eq!(std::fs::read_dir(folder).expect("a folder").count(), 1, "nothing is written");
    let markdown = describe(folder, "a.csv", &["--format", "md"]);
    assert!(markdown.out.contains("| prompt | 2,280 |") || markdown.out.contains("| prompt"));
    let page = describe(folder, "a.csv", &["--out", "out"]);
    assert!(page.error.contains("report: out/trace.html"), "{}", page.error);
    let html = std::fs::read_to_string(folder.join("out/trace.html")).expect("a page");
    for id in ["arrivals", "dispersion", "lengths"] {
        assert!(html.contains(&format!("<figure id=\"{id}\"")), "{id}");
        assert!(folder.join(format!("out/charts/{id}.svg")).exists(), "{id}");
    }
    assert!(folder.join("out/trace.json").exists());
}

#[test]
fn what_is_wrong_is_told_by_its_place() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = scratch.path();
    let head = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
    let good = "2023-11-16 18:00:00.0,5,5\n";
    let cases = [
        ("number.csv", format!("{head}{good}2023-11-16 18:00:01.0,many,5\n"), "number.csv:3:23"),
        ("order.csv", format!("{head}{good}2023-11-16 17:00:01.0,5,5\n"), "order.csv:3:1"),
        ("column.csv", "TIMESTAMP,Tokens\n".to_owned(), "column.csv:1:1"),
        ("kind.csv", "hello\n".to_owned(), "kind.csv:1:1"),
        ("row.jsonl", "{\"timestamp\": 0,\n".to_owned(), "row.jsonl:1:"),
        (
            "hash.jsonl",
            "{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": \"x\"}\n"
                .to_owned(),
            "hash.jsonl:1:69",
        ),
        ("none.csv", String::new(), "`none.csv` is empty"),
        ("bare.csv", head.to_owned(), "`bare.csv` has a head and no rows"),
    ];
    for (name, text, expected) in cases {
        std::fs::write(folder.join(name), text).expect("room");
        let said = describe(folder, name, &["--out", "out"]);
        assert_eq!(said.code, Some(2), "{name}: {}", said.error);
        assert!(said.error.contains(expected), "{name}: {}", said.error);
        assert!(said.out.is_empty() && !folder.join("out").exists(), "{name}: nothing is written");
    }
    let said = describe(folder, "nowhere.csv", &[]);
    assert_eq!(said.code, Some(2));
    assert!(said.error.contains("cannot read `nowhere.csv`"), "{}", said.error);
}

/// Facts of real traces that are known from elsewhere.
#[test]
fn real_traces_are_described_as_they_are_known() {
    let Some(data) = std::env::var_os("PLIMSOLL_DATA").map(std::path::PathBuf::from) else {
        eprintln!("skipped: PLIMSOLL_DATA is not set");
        return;
    };
    let traces = data.join("traces");
    let told = json(&traces, "azure2023/AzureLLMInferenceTrace_conv.csv.zst");
    assert_eq!(told["rows"], 19_366);
    let scales = told["scales"].as_array().expect("a list");
    let minute = scales.iter().find(|one| one["seconds"] == 60.0).expect("an hour has minutes");
    let dispersion = minute["dispersion"].as_f64().expect("a number");
    assert!((10.0..25.0).contains(&dispersion), "far more than any renewal process: {dispersion}");
    let told = json(&traces, "mooncake/conversation_trace.jsonl.zst");
    assert_eq!(told["rows"], 12_031);
    let known = told["sharing"]["known_share"].as_f64().expect("a share");
    assert!((0.3..0.45).contains(&known), "{known}");
}
