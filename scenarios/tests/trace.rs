//! Traces in every format and compression, and the real ones where they are at hand.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use plimsoll_base::{SourceId, Span, TenantId, Time};
use plimsoll_scenario::trace::{Assign, Format, Limit, Trace, TraceCounts, TraceSource};
use plimsoll_sim::workload::{Request, Source};

const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n\
                     2023-11-16 18:15:46.6805900,374,44\r\n\
                     2023-11-16 18:15:50.9951690,396,109\r\n\
                     2023-11-16 18:15:50.9951690,12,1\r\n";
const AZURE_2024: &str = "GeneratedTokens,TIMESTAMP,ContextTokens\n\
                          44,2024-05-10 00:00:00.680590+00:00,374\n\
                          109,2024-05-10T00:00:04.995169Z,396\n\
                          1,2024-05-10T01:00:04.995169+01:00,12";
const MOONCAKE: &str = r#"{"timestamp": 27000, "input_length": 374, "output_length": 44, "hash_ids": [0, 1]}
{"timestamp": 31314, "output_length": 109, "input_length": 396, "hash_ids": []}

{"timestamp": 31314, "input_length": 12, "output_length": 1}
"#;

/// A file that is removed when the test is over.
struct Scratch(PathBuf);
impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Scratch {
        let path = std::env::temp_dir().join(format!("plimsoll-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("the temporary folder can be written");
        Scratch(path)
    }
}
impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn trace(path: &Path) -> Trace {
    Trace {
        path: path.to_path_buf(),
        source: SourceId(0),
        format: None,
        rate_scale: 1.0,
        from: Span::ZERO,
        until: None,
        rows_max: None,
        drop_zero: false,
        drop_too_large: false,
        assign: Vec::new(),
        tenants: vec![(TenantId(0), 1)],
        claims: None,
        output_cap: None,
        start: Time::ZERO,
        stop: None,
        limit: Limit { context_max: 131_072, kv_tokens: 1 << 20 },
    }
}

fn replay(trace: &Trace) -> (Vec<(Time, Request)>, TraceCounts) {
    let mut source = TraceSource::open(trace, "chat", 1, 0).expect("the trace opens");
    let mut requests = Vec::new();
    while let Some(at) = source.next_at().unwrap_or_else(|wrong| panic!("{wrong}")) {
        requests.push((at, source.take()));
    }
    (requests, source.counts())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

#[test]
fn every_format_and_compression_gives_the_same_requests() {
    let skippable = [&0x184d_2a50_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"abc"].concat();
    let (head, tail) = AZURE.as_bytes().split_at(60);
    let files: [(&str, Vec<u8>, u64); 8] = [
        ("plain.csv", AZURE.into(), 4_314_579),
        ("bom.csv", [b"\xef\xbb\xbf", AZURE.as_bytes()].concat(), 4_314_579),
        ("other.csv", AZURE_2024.into(), 4_314_579),
        ("plain.jsonl", MOONCAKE.into(), 4_314_000),
        ("azure.csv.gz", gzip(AZURE.as_bytes()), 4_314_579),
        ("members.csv.gz", [gzip(head), gzip(tail)].concat(), 4_314_579),
        ("mooncake.jsonl.zst", zstd(MOONCAKE.as_bytes()), 4_314_000),
        ("frames.csv.zst", [zstd(head), skippable, zstd(tail)].concat(), 4_314_579),
    ];
    for (name, bytes, micros) in files {
        let file = Scratch::new(name, &bytes);
        let (requests, counts) = replay(&trace(&file.0));
        let seen: Vec<_> = requests
            .iter()
            .map(|(at, r)| (at.nanos() / 1_000, r.prompt_tokens, r.output_tokens, r.output_cap))
            .collect();
        let expected = [(0, 374, 44, 64), (micros, 396, 109, 128), (micros, 12, 1, 1)];
        assert_eq!(seen, expected, "{name}");
        assert_eq!(counts, TraceCounts { read: 3, emitted: 3, ..TraceCounts::default() }, "{name}");
    }
}

#[test]
fn slices_scales_and_drops_are_counted() {
    let rows: String = (0..10)
        .map(|second| format!("2023-11-16T00:00:0{second}Z,{},{}\n", 100 + second, second))
        .collect();
    let text = format!("TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}");
    let file = Scratch::new("slice.csv", text.as_bytes());
    let base = Trace {
        format: Some(Format::AzureCsv),
        drop_zero: true,
        drop_too_large: true,
        limit: Limit { context_max: 115, kv_tokens: 4096 },
        ..trace(&file.0)
    };
    let seconds = |trace: &Trace| -> Vec<f64> {
        replay(trace).0.iter().map(|(at, _)| at.secs_f64()).collect()
    };
    // Row 0 has no output; rows 8 and 9 take 116 and 118 tokens.
    assert_eq!(seconds(&base), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let counts =
        TraceCounts { read: 10, emitted: 7, zero_tokens: 1, too_large: 2, ..Default::default() };
    assert_eq!(replay(&base).1, counts);
    let sliced = Trace {
        from: Span::from_secs(2),
        until: Some(Span::from_secs(5)),
        rate_scale: 2.0,
        start: Time::from_nanos(1_000_000_000),
        ..base.clone()
    };
    assert_eq!(seconds(&sliced), [1.0, 1.5, 2.0]);
    let counts = TraceCounts { read: 6, emitted: 3, before: 2, after: 1, ..Default::default() };
    assert_eq!(replay(&sliced).1, counts);
    let stopped = Trace { stop: Some(Time::from_nanos(3_000_000_000)), ..base.clone() };
    assert_eq!(seconds(&stopped), [0.0, 1.0, 2.0]);
    let few = Trace { rows_max: Some(2), ..base };
    assert_eq!(seconds(&few), [0.0, 1.0]);
}

#[test]
fn rows_are_assigned_in_order_and_by_share() {
    let row = "2023-11-16T00:00:00Z,";
    let rows: String = (0..20_000).map(|n| format!("{row}{},9\n", 1 + n % 2 * 999)).collect();
    let file = Scratch::new(
        "assign.csv",
        format!("TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}").as_bytes(),
    );
    let long =
        Assign { prompt_tokens_min: Some(1_000), tenant: Some(TenantId(1)), ..Default::default() };
    let some = Assign { share: Some(0.3), tenant: Some(TenantId(2)), ..Default::default() };
    let assigned = Trace {
        assign: vec![long, some],
        tenants: vec![(TenantId(3), 3), (TenantId(4), 1)],
        output_cap: Some(4),
        ..trace(&file.0)
    };
    let (requests, _) = replay(&assigned);
    let count = |tenant| requests.iter().filter(|(_, r)| r.tenant == TenantId(tenant)).count();
    assert_eq!(count(1), 10_000, "all long prompts");
    for (tenant, expected) in [(2, 3_000), (3, 5_250), (4, 1_750)] {
        let found = count(tenant);
        assert!(found.abs_diff(expected) < 200, "tenant {tenant}: {found}, not near {expected}");
    }
    assert!(requests.iter().all(|(_, r)| r.output_cap == 9), "a cap never cuts the row's output");
    assert_eq!(requests, replay(&assigned).0, "the same seed assigns the same");
}

#[test]
fn the_real_traces_are_read_whole() {
    let Some(data) = std::env::var_os("PLIMSOLL_DATA").map(PathBuf::from) else {
        println!("skipped: PLIMSOLL_DATA is not set");
        return;
    };
    let azure = data.join("traces/azure2023/AzureLLMInferenceTrace_conv.csv.zst");
    let csv = |line: &str| {
        let mut fields = line.trim().rsplit(',').map(|field| field.parse().expect("a number"));
        let output: u64 = fields.next().expect("three fields");
        let prompt = line.trim().rsplit(',').nth(1).expect("three fields");
        (prompt.parse::<u64>().expect("a number"), output)
    };
    check(&azure, 19_366, 1, &csv);
    let mooncake = data.join("traces/mooncake/conversation_trace.jsonl.zst");
    let json = |line: &str| {
        let after = |key: &str| {
            let rest = line.split(key).nth(1).expect("the key is there");
            rest.split(',').next().expect("a value").trim().parse::<u64>().expect("a number")
        };
        (after("\"input_length\":"), after("\"output_length\":"))
    };
    check(&mooncake, 12_031, 0, &json);
}

/// Compares a trace's totals with a plain split of the decompressed text.
fn check(path: &Path, rows: u64, header: usize, split: &dyn Fn(&str) -> (u64, u64)) {
    let file = std::fs::File::open(path).expect("the trace is there");
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(file).expect("the trace is zstd");
    let mut text = String::new();
    decoder.read_to_string(&mut text).expect("the trace is text");
    let lines = text.lines().skip(header).filter(|line| !line.trim().is_empty()).map(split);
    let (prompt, output) = lines.fold((0, 0), |sum, (p, o)| (sum.0 + p, sum.1 + o));

    let began = std::time::Instant::now();
    let source = TraceSource::open(&trace(path), "chat", 1, 0).expect("the trace opens");
    let totals = source.totals().unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("{}: {rows} rows in {:?}", path.display(), began.elapsed());
    assert_eq!((totals.counts.read, totals.counts.emitted), (rows, rows));
    assert_eq!((totals.prompt_tokens, totals.output_tokens), (prompt, output));
}
