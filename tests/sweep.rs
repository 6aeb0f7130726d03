//! A sweep gives the same bytes in one go, in shards, on any number of threads, and after any kill;
//! what cannot be right is refused and named.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{plimsoll, scenario};

const RESULTS: [&str; 3] = ["sweep.json", "cells.csv", "sweep.html"];
/// 60 cells; those at 90/s miss their objective.
const GRID: [&str; 6] = [
    "--vary",
    "pool.gpu.replicas=1,2,3",
    "--vary",
    "workload.chat.arrivals.rate=1/s,2/s,4/s,8/s,90/s",
    "--vary",
    "pool.gpu.engine.seats=4,8,16,32",
];
const CELLS: usize = 60;

fn arguments(options: &[&str], out: &Path) -> Vec<String> {
    let file = scenario("small");
    let mut all = vec!["sweep".to_owned(), file.to_str().expect("paths are UTF-8").to_owned()];
    all.extend(["--set", "run.duration=1m", "--quiet", "--out"].map(str::to_owned));
    all.push(out.to_str().expect("paths are UTF-8").to_owned());
    all.extend(options.iter().map(|option| (*option).to_owned()));
    all
}

fn sweep(options: &[&str], out: &Path) -> Output {
    plimsoll().args(arguments(options, out)).output().expect("the command starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("messages are UTF-8")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("results are UTF-8")
}

/// Runs to the end and returns the bytes of the results.
fn swept(options: &[&str], out: &Path) -> [Vec<u8>; 3] {
    let output = sweep(options, out);
    assert!(output.status.success(), "{}", stderr(&output));
    results(out)
}

fn results(out: &Path) -> [Vec<u8>; 3] {
    RESULTS.map(|file| std::fs::read(out.join(file)).expect("a sweep leaves its results"))
}

fn with<'a>(base: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [base, more].concat()
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a scratch folder")
}

fn lines(journal: &Path) -> usize {
    let text = std::fs::read(journal).unwrap_or_default();
    text.iter().filter(|byte| **byte == b'\n').count()
}

fn merge(folders: &[PathBuf], out: &Path) -> Output {
    let mut command = plimsoll();
    command.arg("merge").args(folders).arg("--out").arg(out);
    command.output().expect("the command starts")
}

/// Runs the shards of a grid, each in a folder of its own.
fn shards(options: &[&str], of: u32, folder: &Path) -> Vec<PathBuf> {
    let run = |number: u32| {
        let part = format!("{number}/{of}");
        let out = folder.join(format!("part-{number}"));
        let output = sweep(&with(options, &["--shard", &part]), &out);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(!out.join("sweep.json").exists(), "a part is no result");
        let page = std::fs::read_to_string(out.join("sweep.html")).expect("but has a page");
        assert!(of == 1 || page.contains("PARTIAL: "), "a part says that it is one");
        out
    };
    (1..=of).map(run).collect()
}

#[test]
fn in_one_go_in_shards_and_on_any_number_of_threads() {
    let folder = scratch();
    let options = with(&GRID, &["--replications", "3"]);
    let one = swept(&with(&options, &["--threads", "1"]), &folder.path().join("one"));
    for threads in ["2", "5"] {
        let other = swept(&with(&options, &["--threads", threads]), &folder.path().join(threads));
        assert!(one == other, "{threads} threads give other bytes");
    }
    let mut parts = shards(&options, 3, folder.path());
    parts.rotate_left(1);
    let merged = folder.path().join("merged");
    let output = merge(&parts, &merged);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(one == results(&merged), "shards give other bytes");
    let json: Value = serde_json::from_slice(&one[0]).expect("sweep.json is JSON");
    assert_eq!(json["schema_version"], 1);
    let cells = json["cells"].as_array().expect("cells");
    assert_eq!(cells.len(), CELLS);
    let ids: BTreeSet<&str> = cells.iter().filter_map(|cell| cell["id"].as_str()).collect();
    assert_eq!(ids.len(), CELLS, "each has an id of its own");
    let verdicts: BTreeSet<&str> =
        cells.iter().filter_map(|cell| cell["verdict"].as_str()).collect();
    assert!(verdicts.contains("pass") && verdicts.contains("fail"), "{verdicts:?}");
    assert!(cells[0]["classes"][0]["ttft"]["p99"]["interval"].is_array(), "3 runs: an interval");
    let table = String::from_utf8(one[1].clone()).expect("cells.csv is UTF-8");
    assert_eq!(table.lines().count(), 1 + CELLS, "a head, and a row a cell and class");
}

/// A cell is what `run` makes of the same values: its id, its numbers.
#[test]
fn a_cell_is_the_run_of_its_values() {
    let folder = scratch();
    let [json, ..] = swept(&with(&GRID, &["--seed", "5"]), folder.path());
    let json: Value = serde_json::from_slice(&json).expect("sweep.json is JSON");
    for number in [0, 17, 59] {
        let cell = &json["cells"][number];
        let mut command = plimsoll();
        command.arg("run").arg(scenario("small")).args(["--set", "run.duration=1m"]);
        for (path, value) in cell["parameters"].as_object().expect("parameters") {
            command.args(["--set", &format!("{path}={}", value.to_string().trim_matches('"'))]);
        }
        command.args(["--seed", "5", "--no-files", "--no-gate", "--format", "json"]);
        let output = command.output().expect("the command starts");
        let run: Value = serde_json::from_slice(&output.stdout).expect("summary.json is JSON");
        assert_eq!(cell["cell"], number);
        assert_eq!(cell["id"], run["scenario"]["hash"]);
        assert_eq!(cell["verdict_line"], run["verdict_line"]);
        assert_eq!(cell["objectives"], run["objectives"]);
        let (of_cell, of_run) = (&cell["classes"][0], &run["classes"][0]["numbers"]);
        assert_eq!(of_cell["counts"], of_run["counts"]);
        assert_eq!(of_cell["slo_attainment"], of_run["slo_attainment"]);
        assert_eq!(of_cell["e2e"]["p99"], of_run["latency"]["e2e"]["p99"]);
    }
}

fn listed(options: &[&str]) -> Vec<String> {
    let output = sweep(&with(options, &["--dry-run"]), Path::new("/nowhere/at/all"));
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let cells = text.lines().filter(|line| line.starts_with("  "));
    cells.map(|line| line.split_once(": ").expect("an id, and what it sets").1.to_owned()).collect()
}

#[test]
fn grid_zip_list_and_random_make_the_cells_they_say() {
    let grid = listed(&["--vary", "pool.gpu.replicas=1,2", "--vary", "pool.gpu.engine.seats=4,8"]);
    assert_eq!(
        grid,
        [
            "pool.gpu.replicas = 1, pool.gpu.engine.seats = 4",
            "pool.gpu.replicas = 1, pool.gpu.engine.seats = 8",
            "pool.gpu.replicas = 2, pool.gpu.engine.seats = 4",
            "pool.gpu.replicas = 2, pool.gpu.engine.seats = 8",
        ]
    );
    let zip = listed(&["--zip", "pool.gpu.replicas=1,2", "--zip", "pool.gpu.engine.seats=4,8"]);
    assert_eq!(
        zip,
        [
            "pool.gpu.replicas = 1, pool.gpu.engine.seats = 4",
            "pool.gpu.replicas = 2, pool.gpu.engine.seats = 8",
        ]
    );
    let list = listed(&["--cell", "pool.gpu.replicas=2,policy.share=priority", "--cell", "seed=9"]);
    assert_eq!(list, ["pool.gpu.replicas = 2, policy.share = \"priority\"", "seed = 9"]);
    let draw = ["--draw", "workload.chat.arrivals.rate=1/s..8/s:log", "--draw", "seed=1..1000000"];
    let drawn = listed(&with(&draw, &["--draws", "30"]));
    assert_eq!(drawn.len(), 30);
    let rates: BTreeSet<&String> = drawn.iter().collect();
    assert_eq!(rates.len(), 30);
    assert_eq!(drawn, listed(&with(&draw, &["--draws", "30"])), "the draw has a seed");
    assert_ne!(drawn, listed(&with(&draw, &["--draws", "30", "--draw-seed", "2"])));
    assert_eq!(drawn[..10], listed(&with(&draw, &["--draws", "10"])), "more draws change none");
    let alone: Vec<String> = listed(&with(&draw[..2], &["--draws", "30"]));
    for (both, alone) in drawn.iter().zip(&alone) {
        assert!(both.starts_with(alone.as_str()), "a path has its own stream: {both}, {alone}");
        let rate = alone.split(['"', '/']).nth(1).expect("a rate").parse::<f64>();
        assert!((1.0..=8.0).contains(&rate.expect("a number")), "{alone}");
    }
    let equal = listed(&["--vary", "pool.gpu.replicas=1,2,1"]);
    assert_eq!(equal.len(), 2, "an equal cell runs once: {equal:?}");
}

/// The same from a file, with tables or quoted paths, and with the command line laid over it.
#[test]
fn a_file_says_what_the_command_line_says() {
    let folder = scratch();
    let file = folder.path().join("swept.toml");
    let base = std::fs::read_to_string(scenario("small")).expect("the scenario can be read");
    let section = "
[sweep]
replications = 2
grid.pool.gpu.replicas = [1, 2]
grid.\"policy.share\" = [\"fcfs\", \"priority\"]
[sweep.zip]
\"pool.gpu.engine.seats\" = [4, 8]
workload.chat.arrivals.rate = [\"1/s\", \"2/s\"]
[[sweep.list]]
[[sweep.list]]
\"run\" = { drain_max = \"30m\" }
[sweep.random]
draws = 3
vary.seed = { min = 1, max = 1_000_000 }
vary.\"workload.chat.output_tokens\" = [{ distribution = \"fixed\", tokens = 9 }]
";
    std::fs::write(&file, format!("{base}\n{section}")).expect("the file can be written");
    let path = file.to_str().expect("paths are UTF-8");
    let list = |verb: &str, more: &[&str]| {
        let output = plimsoll().args([verb, path]).args(more).output().expect("it starts");
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let text = list("sweep", &["--dry-run"]);
    assert!(text.contains("sweep: 48 cells, each of 2 replications"), "{text}");
    let first = text.lines().nth(1).expect("a first cell");
    for set in [
        "pool.gpu.replicas = 1",
        "policy.share = \"fcfs\"",
        "pool.gpu.engine.seats = 4",
        "workload.chat.arrivals.rate = \"1/s\"",
        "workload.chat.output_tokens = { distribution = \"fixed\", tokens = 9 }",
    ] {
        assert!(first.contains(set), "no {set} in {first}");
    }
    assert_eq!(text.matches("run.drain_max = \"30m\"").count(), 24);
    assert!(list("check", &[]).contains("and 8 more"), "check lists the first 40");
    let narrowed =
        list("sweep", &["--dry-run", "--vary", "pool.gpu.replicas=4", "--cell", "run.warm_up=1s"]);
    assert!(narrowed.contains("pool.gpu.replicas = 4"), "{narrowed}");
    // The file's own scenario is what it was without the section.
    let hash = |text: String| text.lines().next().expect("a line").to_owned();
    let small = scenario("small");
    let plain = plimsoll().arg("check").arg(small).output().expect("it starts");
    assert_eq!(hash(list("check", &[])), hash(stdout(&plain)));
}

/// A process that is killed before it ends, at a moment of its own.
struct Killed {
    child: Child,
}

impl Killed {
    fn start(options: &[&str], out: &Path) -> Killed {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        command.args(arguments(options, out)).stdout(Stdio::null()).stderr(Stdio::null());
        Killed { child: command.spawn().expect("the command starts") }
    }
    /// Kills it when its journal has so many lines; false if it had ended by itself.
    fn at_line(mut self, journal: &Path, count: usize) -> bool {
        let began = Instant::now();
        while lines(journal) < count && began.elapsed() < Duration::from_secs(120) {
            if self.child.try_wait().expect("it can be waited for").is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
        true
    }
}

#[test]
fn killed_at_any_moment_and_resumed() {
    let folder = scratch();
    let options = with(&GRID, &["--replications", "2", "--threads", "2"]);
    let whole = swept(&options, &folder.path().join("whole"));
    let resumed = with(&options, &["--resume"]);
    let out = folder.path().join("killed");
    let journal = out.join("sweep.journal");
    // Again and again, each time a few cells further: moments spread over the whole sweep.
    let mut kills = 0;
    for further in [1, 0, 2, 5, 1, 9, 3, 0, 7] {
        kills +=
            usize::from(Killed::start(&resumed, &out).at_line(&journal, lines(&journal) + further));
    }
    assert!(kills >= 4, "it was killed {kills} times");
    let output = sweep(&resumed, &out);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(results(&out) == whole, "after {kills} kills the bytes differ");
    let again = sweep(&resumed, &out);
    assert!(stderr(&again).contains("0 of 60 cells run"), "{}", stderr(&again));
}

#[cfg(unix)]
#[test]
fn interrupted_and_resumed() {
    let folder = scratch();
    let options = with(&GRID, &["--replications", "4", "--threads", "1"]);
    let whole = swept(&options, &folder.path().join("whole"));
    let out = folder.path().join("stopped");
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.args(arguments(&options, &out)).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().expect("the command starts");
    while lines(&out.join("sweep.journal")) < 5 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = child.id().to_string();
    let status = Command::new("kill").args(["-INT", &pid]).status();
    assert!(status.expect("kill is there").success());
    let output = child.wait_with_output().expect("it can be waited for");
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("go on with --resume"), "{}", stderr(&output));
    assert!(!out.join("cells.csv").exists(), "nothing that looks whole is left");
    let kept = lines(&out.join("sweep.journal")) - 1;
    let page = std::fs::read_to_string(out.join("sweep.html")).expect("a page of what is done");
    assert!(page.contains(&format!("PARTIAL: {kept} of 60 cells")), "it says that it is not all");
    let output = sweep(&with(&options, &["--resume"]), &out);
    let resumed = format!("resumed: {kept} of 60 cells were done");
    assert!(stderr(&output).contains(&resumed), "{resumed}: {}", stderr(&output));
    assert!(results(&out) == whole, "the bytes differ");
}

/// What becomes of a journal, and what is said of it.
fn damaged(journal: &[u8], damage: &dyn Fn(&mut Vec<u8>), said: &str, redone: usize) {
    let folder = scratch();
    let mut bytes = journal.to_vec();
    damage(&mut bytes);
    std::fs::write(folder.path().join("sweep.journal"), &bytes).expect("it can be written");
    let output = sweep(&with(&GRID, &["--resume"]), folder.path());
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains(said), "no {said:?} in {text}");
    assert!(text.contains(&format!("{redone} of {CELLS} cells run")), "{redone}: {text}");
    // Afterwards it is sound, so that it can be merged.
    let merged = merge(&[folder.path().to_owned()], &folder.path().join("merged"));
    assert!(merged.status.success(), "{}", stderr(&merged));
    assert_eq!(lines(&folder.path().join("sweep.journal")), 1 + CELLS);
}

#[test]
fn a_cut_or_damaged_journal_costs_what_it_lost() {
    let folder = scratch();
    let whole = swept(&GRID, folder.path());
    let journal = std::fs::read(folder.path().join("sweep.journal")).expect("a journal");
    let starts: Vec<usize> = std::iter::once(0)
        .chain(journal.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1))
        .collect();
    let cut = |at: usize| move |bytes: &mut Vec<u8>| bytes.truncate(at);
    damaged(&journal, &cut(journal.len() - 1), "was cut off", 1);
    damaged(&journal, &cut(starts[60] + 1), "was cut off", 1);
    damaged(&journal, &cut(starts[41] + 500), "was cut off", 20);
    damaged(&journal, &cut(starts[41]), "resumed: 40 of 60", 20);
    damaged(&journal, &cut(starts[1]), "60 of 60 cells run", 60);
    // What the disk made of it: named by its line.
    let flip = |at: usize| move |bytes: &mut Vec<u8>| bytes[at] ^= 1;
    damaged(&journal, &flip(starts[7] + 400), "line 8 (byte", 1);
    damaged(&journal, &flip(starts[7] + 3), "does not pass its checksum", 1);
    let join = starts[20] - 1;
    damaged(&journal, &flip(join), "line 20 (byte", 2);
    damaged(&journal, &|bytes| bytes[starts[50]..].fill(0), "was cut off", 11);
    let first_line = journal[starts[5]..starts[6]].to_vec();
    let doubled = |bytes: &mut Vec<u8>| bytes.extend_from_slice(&first_line);
    damaged(&journal, &doubled, "line 62 (byte", 0);
    damaged(&journal, &doubled, "repeats a cell", 0);
    // A record of another sweep does not pass, though its own checksum is right.
    let other = folder.path().join("other");
    swept(&with(&GRID, &["--seed", "77"]), &other);
    let foreign = std::fs::read(other.join("sweep.journal")).expect("a journal");
    let line = foreign.split_inclusive(|b| *b == b'\n').nth(3).expect("a record").to_vec();
    let planted = |bytes: &mut Vec<u8>| {
        bytes.truncate(starts[30]);
        bytes.extend_from_slice(&line);
    };
    damaged(&journal, &planted, "does not pass its checksum", 31);
    // The results themselves are the same again.
    let again = scratch();
    let mut bytes = journal.clone();
    bytes[starts[7] + 400] ^= 1;
    bytes.truncate(starts[50] + 10);
    std::fs::write(again.path().join("sweep.journal"), bytes).expect("it can be written");
    assert!(swept(&with(&GRID, &["--resume"]), again.path()) == whole, "the bytes differ");
}

/// Refused with exit code 2, and these words.
fn refused(output: &Output, said: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(output.stdout.is_empty(), "nothing on stdout");
    for part in said {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn what_cannot_be_swept_is_refused() {
    let cases: [(&[&str], &[&str]); 19] = [
        (&[], &["P0213", "the sweep has no cells", "--vary"]),
        (&["--vary", "pool.gpu.replicas="], &["P0213", "--vary:1:19", "a value is missing"]),
        (&["--vary", "pool.gpu.replicas"], &["P0005", "needs `=`"]),
        (&["--vary", "pool.gpu.replica=1"], &["P0101", "--vary:1:10", "did you mean `replicas`"]),
        (&["--vary", "pool.gp.replicas=1"], &["P0005", "--vary:1:6", "did you mean `gpu`"]),
        (
            &["--vary", "pool.gpu.replicas=1,0"],
            &["--vary:1:21", "in the cell with pool.gpu.replicas = 0"],
        ),
        (&["--vary", "workload.chat.arrivals.rate=1/s,2"], &["P0105", "--vary:1:33"]),
        (&["--vary", "sweep.replications=1,2"], &["P0214", "cannot be varied"]),
        (
            &["--vary", "seed=1,2", "--zip", "seed=3,4"],
            &["P0214", "`seed` is varied in two places"],
        ),
        (&["--zip", "seed=1,2", "--zip", "pool.gpu.replicas=1"], &["P0214", "has 1 values"]),
        (&["--cell", "seed=1,seed=2"], &["P0214", "sets `seed` twice"]),
        (&["--draw", "seed=8..1"], &["P0214", "`max` is below `min`"]),
        (&["--draw", "seed=0..9:log"], &["P0214", "begins above 0"]),
        (&["--draw", "run.duration=1s..2m"], &["P0214", "different units"]),
        (&["--vary", "seed=1,2", "--draws", "5"], &["P0214", "need something to draw"]),
        (&["--vary", "seed=1,2", "--shard", "4/3"], &["shard 4 is out of range"]),
        (&["--vary", "seed=1,2", "--shard", "0/3"], &["shard 0 is out of range"]),
        (&["--vary", "seed=1,2", "--replications", "0"], &["0 is not in 1..=100000"]),
        (&["--draw", "seed=1..5", "--draws", "2000000"], &["P0210", "more than 1000000"]),
    ];
    for (options, said) in cases {
        let folder = scratch();
        let out = folder.path().join("out");
        refused(&sweep(options, &out), said);
        assert!(!out.exists(), "{options:?} leaves nothing behind");
    }
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let folder = scratch();
    let options = ["--vary", "pool.gpu.replicas=1,2,3,4"];
    let parts = shards(&options, 3, folder.path());
    let out = folder.path().join("merged");
    let at = |name: &str| folder.path().join(name);
    refused(&merge(&parts[..2], &out), &["of 3 shards one is missing: 3/3"]);
    refused(&merge(&parts[2..], &out), &["some are missing: 1/3, 2/3"]);
    let twice = [&parts[..], &parts[..1]].concat();
    refused(&merge(&twice, &out), &["shard 1 of 3 is there twice", "part-1"]);
    refused(&merge(&[at("nothing")], &out), &["nothing"]);
    std::fs::create_dir(at("empty")).expect("a folder");
    refused(&merge(&[at("empty")], &out), &["no results of a sweep here"]);
    let other = |name: &str, options: &[&str]| {
        let output = sweep(&with(options, &["--shard", "3/3"]), &at(name));
        assert!(output.status.success(), "{}", stderr(&output));
        vec![parts[0].clone(), parts[1].clone(), at(name)]
    };
    let seeded = other("seeded", &with(&options, &["--seed", "9"]));
    refused(&merge(&seeded, &out), &["seed the scenario's and 9", "seeded"]);
    let often = other("often", &with(&options, &["--replications", "2"]));
    refused(&merge(&often, &out), &["1 and 2 replications"]);
    let file = other("file", &with(&options, &["--set", "pool.gpu.engine.seats=9"]));
    refused(&merge(&file, &out), &["scenario small (hash"]);
    let varied = other("varied", &["--vary", "pool.gpu.replicas=1,2,3,5"]);
    refused(&merge(&varied, &out), &["other values are varied"]);
    let output = sweep(&with(&options, &["--shard", "3/4"]), &at("quarter"));
    assert!(output.status.success());
    refused(&merge(&[parts[0].clone(), at("quarter")], &out), &["3 and 4 shards"]);
    // A part that was cut, and one that is damaged.
    let journal = parts[0].join("sweep.journal");
    let sound = std::fs::read(&journal).expect("a journal");
    std::fs::write(&journal, &sound[..sound.len() - 40]).expect("it can be written");
    refused(&merge(&parts, &out), &["1 of 2 cells are not done, the first is cell", "--resume"]);
    let mut flipped = sound.clone();
    let end = flipped.len() - 40;
    flipped[end] ^= 1;
    std::fs::write(&journal, &flipped).expect("it can be written");
    refused(&merge(&parts, &out), &["part-1", "the journal is damaged: line 3 (byte"]);
    let mut head = sound.clone();
    head[50] ^= 1;
    std::fs::write(&journal, &head).expect("it can be written");
    refused(&merge(&parts, &out), &["line 1 (byte 0) is damaged"]);
    let again = sweep(&with(&options, &["--shard", "1/3", "--resume"]), &parts[0]);
    refused(&again, &["line 1 (byte 0) is damaged", "remove sweep.journal"]);
    assert!(!out.exists(), "nothing was written");
    std::fs::write(&journal, &sound).expect("it can be written");
    // A second run into the same folder, a resume of another sweep.
    refused(
        &sweep(&with(&options, &["--shard", "1/3"]), &parts[0]),
        &["go on with it by --resume"],
    );
    let other = with(&options, &["--shard", "2/3", "--resume"]);
    refused(&sweep(&other, &parts[0]), &["shard 1 of 3 and shard 2 of 3"]);
    // The folder that holds all of them stands for them.
    let all = folder.path().join("all");
    for (number, part) in parts.iter().enumerate() {
        let to = all.join(number.to_string());
        std::fs::create_dir_all(&to).expect("a folder");
        std::fs::copy(part.join("sweep.journal"), to.join("sweep.journal")).expect("a copy");
    }
    let output = plimsoll().arg("merge").arg(&all).output().expect("the command starts");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(all.join("cells.csv").exists(), "results go to the one folder that was named");
}

/// More shards than cells: some have nothing to do, and that is a result too.
#[test]
fn empty_shards_are_whole() {
    let folder = scratch();
    let options = ["--vary", "pool.gpu.replicas=1,2"];
    let whole = swept(&options, &folder.path().join("whole"));
    let parts = shards(&options, 5, folder.path());
    let merged = folder.path().join("merged");
    assert!(merge(&parts, &merged).status.success());
    assert!(results(&merged) == whole);
}

/// What the charts draw, and what the page says, of each kind of study.
#[test]
fn the_page_draws_what_was_varied() {
    let folder = scratch();
    let check = |name: &str, options: &[&str], said: &[&str], unsaid: &[&str]| {
        let out = folder.path().join(name);
        let [.., page] = swept(options, &out);
        let page = String::from_utf8(page).expect("a page is UTF-8");
        said.iter().for_each(|part| assert!(page.contains(part), "{name}: no {part:?}"));
        unsaid.iter().for_each(|part| assert!(!page.contains(part), "{name}: {part:?}"));
        assert_eq!(out.join("charts/response.svg").exists(), page.contains("id=\"response\""));
    };
    let rates = ["--vary", "workload.chat.arrivals.rate=1/s,4/s,90/s"];
    let replicas = ["--vary", "pool.gpu.replicas=1,2"];
    let shares = ["--vary", "policy.share=fcfs,priority"];
    let line = ["A line is a class", "at rate = 90/s", "missed one", "The best cells", "All cells"];
    check("line", &rates, &line, &["PARTIAL"]);
    check("lines", &with(&rates, &shares), &["A line is a share", "p99 TTFT of chat"], &[]);
    check("map", &with(&rates, &replicas), &["The lighter a field"], &["A line is a"]);
    let drawn = ["--draw", "pool.gpu.replicas=1..9", "--draw", "pool.gpu.engine.seats=4..40"];
    check("dots", &with(&drawn, &["--draws", "12"]), &["a dot a cell"], &["The lighter a field"]);
    check("names", &shares, &["priority", "All cells"], &["id=\"response\""]);
}

#[test]
fn formats_on_stdout_are_the_files() {
    let folder = scratch();
    for (format, file) in [("json", "sweep.json"), ("csv", "cells.csv")] {
        let out = folder.path().join(format);
        let output = sweep(&["--vary", "pool.gpu.replicas=1,2", "--format", format], &out);
        let written = std::fs::read_to_string(out.join(file)).expect("a result");
        assert_eq!(stdout(&output), written);
    }
    let out = folder.path().join("human");
    let output = sweep(&["--vary", "workload.chat.arrivals.rate=2/s,90/s"], &out);
    let text = stdout(&output);
    for part in ["1 undecided", "1 missed one", "rate", "chat good", "TTFT p99", "90/s"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

/// The most memory that a sweep of so many tiny cells took, in KiB.
#[cfg(target_os = "linux")]
fn peak(cells: u32, out: &Path) -> u64 {
    let cells = cells.to_string();
    let options = ["--draw", "seed=1..1000000000", "--draws", &cells, "--set", "run.duration=10s"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.args(arguments(&options, out)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the command starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().expect("it can be waited for").is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        peak = now.unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(2));
    }
    peak
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "soak: 11,000 cells"]
fn memory_does_not_grow_with_the_cells_that_are_done() {
    let folder = scratch();
    let few = peak(1_000, &folder.path().join("few"));
    let many = peak(10_000, &folder.path().join("many"));
    assert!(few > 0 && many < few + few / 10, "{few} KiB for 1,000 cells, {many} KiB for 10,000");
}
