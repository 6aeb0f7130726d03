//! Public traces, replayed whole: what is offered is what the file holds, recounted here from its
//! text. The traces stand in `$PLIMSOLL_DATA/traces`; without it these tests are skipped.

mod support;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{plimsoll, scenario};

/// A row of a trace, or of requests.csv: when after the first row, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    nanos: u64,
    prompt_tokens: u64,
    output_tokens: u64,
}

/// A trace and what its publisher counts in it.
struct Published {
    path: &'static str,
    rows: usize,
    parse: fn(&str) -> Vec<Row>,
}

const AZURE: Published =
    Published { path: "azure2023/AzureLLMInferenceTrace_conv.csv.zst", rows: 19_366, parse: azure };
const MOONCAKE: Published =
    Published { path: "mooncake/conversation_trace.jsonl.zst", rows: 12_031, parse: mooncake };

fn azure(text: &str) -> Vec<Row> {
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let (date, clock) = fields[0].split_once(' ').expect("a date and a time");
        assert_eq!(date, "2023-11-16", "the trace lies within one day");
        let (whole, fraction) = clock.split_once('.').expect("a fraction of a second");
        let parts: Vec<u64> = whole.split(':').map(number).collect();
        let seconds = (parts[0] * 60 + parts[1]) * 60 + parts[2];
        let nanos = seconds * 1_000_000_000 + number(&format!("{fraction:0<9}"));
        Row { nanos, prompt_tokens: number(fields[1]), output_tokens: number(fields[2]) }
    };
    since_first(text.lines().skip(1).map(row).collect())
}

fn mooncake(text: &str) -> Vec<Row> {
    let row = |line: &str| {
        let json: Value = serde_json::from_str(line).expect("a line is JSON");
        let field = |key: &str| json[key].as_u64().expect("a whole number");
        let (prompt_tokens, output_tokens) = (field("input_length"), field("output_length"));
        Row { nanos: field("timestamp") * 1_000_000, prompt_tokens, output_tokens }
    };
    since_first(text.lines().map(row).collect())
}

fn since_first(mut rows: Vec<Row>) -> Vec<Row> {
    let first = rows[0].nanos;
    rows.iter_mut().for_each(|row| row.nanos -= first);
    rows
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_else(|_| panic!("{text:?} is a number"))
}

/// Where the trace lies; `None`, and said so, where the machine has none.
fn path(trace: &Published) -> Option<PathBuf> {
    match std::env::var_os("PLIMSOLL_DATA") {
        Some(data) => Some(Path::new(&data).join("traces").join(trace.path)),
        None => {
            println!("skipped: PLIMSOLL_DATA is not set");
            None
        }
    }
}

fn recount(trace: &Published, path: &Path) -> Vec<Row> {
    let file = std::fs::File::open(path).expect("the trace is there");
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(file).expect("it is a zstd file");
    let mut text = String::new();
    decoder.read_to_string(&mut text).expect("it decompresses to text");
    (trace.parse)(&text)
}

/// Replays a trace and returns what requests.csv says arrived, in order of arrival.
fn replay(path: &Path, settings: &[&str]) -> Vec<Row> {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mut command = plimsoll();
    command.arg("run").arg(scenario("replay")).arg("--no-gate").arg("--out").arg(scratch.path());
    command.arg("--set").arg(format!("workload.trace.trace.path={:?}", path.display().to_string()));
    for setting in settings {
        command.arg("--set").arg(format!("workload.trace.trace.{setting}"));
    }
    command.assert().success();
    let summary = std::fs::read(scratch.path().join("summary.json")).expect("a summary");
    let summary: Value = serde_json::from_slice(&summary).expect("JSON");
    let rows = std::fs::read_to_string(scratch.path().join("requests.csv")).expect("rows");
    let mut rows = rows.lines();
    let columns: Vec<&str> = rows.next().expect("a header").split(',').collect();
    let column = |name| columns.iter().position(|column| *column == name).expect("the column");
    let (arrived, prompt, output) =
        (column("arrived_s"), column("prompt_tokens"), column("output_tokens"));
    let (id, outcome) = (column("id"), column("outcome"));
    let mut found: Vec<(u64, Row)> = rows
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            assert_eq!(fields[outcome], "finished", "{line}");
            let nanos = number(&fields[arrived].replace('.', ""));
            let (prompt_tokens, output_tokens) = (number(fields[prompt]), number(fields[output]));
            (number(fields[id]), Row { nanos, prompt_tokens, output_tokens })
        })
        .collect();
    found.sort();
    conserved(&summary, found.len() as u64);
    found.into_iter().map(|(_, row)| row).collect()
}

/// offered = finished + … + in flight, and offered is as many rows.
fn conserved(summary: &Value, rows: u64) {
    let counts = &summary["conservation"];
    let count = |key: &str| counts[key].as_u64().expect("a count");
    let refused: u64 =
        counts["refused"].as_object().expect("by reason").values().filter_map(Value::as_u64).sum();
    let ended = ["finished", "failed", "cancelled", "expired"].map(count).iter().sum::<u64>();
    assert_eq!(count("offered"), ended + refused + count("in_flight"), "{counts}");
    assert_eq!(count("offered"), rows, "{counts}");
    assert_eq!(count("finished"), rows, "all can be served: {counts}");
}

fn sums(rows: &[Row]) -> (u64, u64) {
    (rows.iter().map(|row| row.prompt_tokens).sum(), rows.iter().map(|row| row.output_tokens).sum())
}

fn whole(trace: &Published) {
    let Some(path) = path(trace) else { return };
    let expected = recount(trace, &path);
    let found = replay(&path, &[]);
    assert_eq!(expected.len(), trace.rows, "the recount agrees with the publisher");
    assert_eq!(found.len(), trace.rows, "requests offered");
    assert_eq!(sums(&found), sums(&expected), "prompt and output tokens");
    assert!(found == expected, "every row, in order, at its instant");
    let (prompt, output) = sums(&found);
    println!("{}: {} requests, {prompt} + {output} tokens", trace.path, found.len());
}

#[test]
fn the_azure_conversation_trace_whole() {
    whole(&AZURE);
}

#[test]
fn the_mooncake_conversation_trace_whole() {
    whole(&MOONCAKE);
}

#[test]
fn slices_hold_the_rows_between() {
    for trace in [AZURE, MOONCAKE] {
        let Some(path) = path(&trace) else { return };
        let all = recount(&trace, &path);
        let (from, until) = (600_000_000_000, 1_200_000_000_000);
        let between = all.iter().filter(|row| (from..until).contains(&row.nanos));
        let expected = since_first(between.copied().collect());
        assert!(expected.len() > 1000, "{}", expected.len());
        let settings = ["from=\"10m\"", "until=\"20m\""];
        assert_eq!(replay(&path, &settings), expected, "{}", trace.path);
        let first = replay(&path, &[&settings[..], &["rows_max=500"]].concat());
        assert_eq!(first, expected[..500], "{}", trace.path);
    }
}

#[test]
fn a_rate_scale_divides_the_gaps_and_keeps_the_lengths() {
    let Some(path) = path(&AZURE) else { return };
    let expected: Vec<Row> = recount(&AZURE, &path);
    let scaled = |scale: u64, setting: &str| {
        let found = replay(&path, &[setting, "rows_max=4000"]);
        for (found, row) in found.iter().zip(&expected) {
            // Instants are rounded to whole nanoseconds.
            assert!((found.nanos * scale / 2).abs_diff(row.nanos) <= scale, "{found:?}, {row:?}");
            assert_eq!(found.prompt_tokens, row.prompt_tokens);
            assert_eq!(found.output_tokens, row.output_tokens);
        }
        assert_eq!(found.len(), 4000);
    };
    scaled(4, "rate_scale=2.0");
    scaled(1, "rate_scale=0.5");
}
