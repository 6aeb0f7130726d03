//! The results of a sweep: `sweep.json`, `cells.csv`, a table and a page.
//!
//! All of them are written cell by cell, so that memory does not grow with their number.

pub(crate) mod axis;
pub(crate) mod page;

use std::collections::BTreeMap;
use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::summary::{
    ClassSummary, Counts, Distribution, Estimate, Fate, ObjectiveResult, Proportion, Summary,
    Verdict,
};
use crate::{Format, markdown, rows, words};

pub use page::SweepPage;

/// The version of the layout of `sweep.json` and `cells.csv`.
pub const SCHEMA_VERSION: u32 = 1;

/// What was swept: the same for all shards of a sweep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Study {
    /// The version of the program.
    pub plimsoll: String,
    /// The name of the scenario.
    pub scenario: String,
    /// What it is about.
    pub description: String,
    /// The hash of the scenario with nothing varied.
    pub hash: String,
    /// A hash of all cells, the seed, the replications and the traces that are replayed.
    pub study: String,
    /// The seed, where it was not the scenario's.
    pub seed: Option<u64>,
    /// Independent replications of each cell.
    pub replications: u32,
    /// The dotted paths that cells set.
    pub parameters: Vec<String>,
    /// How many cells.
    #[serde(rename = "cell_count")]
    pub cells: u64,
    /// Combinations that were left out because an earlier cell is the same scenario.
    pub equal_left_out: u64,
}

/// How many cells came to which verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdicts {
    /// No objective was stated.
    pub done: u64,
    /// Every objective was met.
    pub pass: u64,
    /// At least one objective was missed.
    pub fail: u64,
    /// A queue grows for as long as requests arrive.
    pub overloaded: u64,
    /// What was measured cannot decide.
    pub inconclusive: u64,
}

impl Verdicts {
    /// One more.
    pub fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Done => self.done += 1,
            Verdict::Pass => self.pass += 1,
            Verdict::Fail => self.fail += 1,
            Verdict::Overloaded => self.overloaded += 1,
            Verdict::Inconclusive => self.inconclusive += 1,
        }
    }

    /// In one line.
    pub fn sentence(&self) -> String {
        let told = [
            (Verdict::Pass, self.pass, "met every objective"),
            (Verdict::Fail, self.fail, "missed one"),
            (Verdict::Overloaded, self.overloaded, "overloaded"),
            (Verdict::Inconclusive, self.inconclusive, "undecided"),
            (Verdict::Done, self.done, "without an objective"),
        ];
        let told = told.iter().filter(|(_, count, _)| *count > 0);
        let told = told.map(|(verdict, count, what)| {
            format!("{} {} {what}", verdict.symbol(), words::count(*count))
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

/// What stands in `sweep.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SweepSummary {
    /// The version of this layout.
    pub schema_version: u32,
    /// What was swept.
    #[serde(flatten)]
    pub study: Study,
    /// How many cells came to which verdict.
    pub verdicts: Verdicts,
    /// Each cell, in the order of the sweep.
    pub cells: Vec<CellSummary>,
}

/// A cell. Times are seconds, shares are fractions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CellSummary {
    /// Its number, from 0.
    pub cell: u64,
    /// The hash of its effective scenario, which `plimsoll run` gives for the same values.
    pub id: String,
    /// What it sets, by dotted path.
    pub parameters: BTreeMap<String, Value>,
    /// The seed it ran with.
    pub seed: u64,
    /// The verdict in a word.
    pub verdict: Verdict,
    /// The verdict in a sentence.
    pub verdict_line: String,
    /// Why there are no intervals, or how they were made.
    pub interval_note: String,
    /// Each objective, met or not.
    pub objectives: Vec<ObjectiveResult>,
    /// How all measured requests closed.
    pub counts: Counts,
    /// Good ÷ offered, over all classes.
    pub slo_attainment: Proportion,
    /// Good requests a second, of all classes.
    pub goodput: Estimate,
    /// Output tokens a second, of all classes.
    pub output_tps: Estimate,
    /// Replicas in all pools.
    pub replicas: u32,
    /// Share of time that replicas computed.
    pub busy: Estimate,
    /// Share of the KV memory held, over time.
    pub kv_occupancy: Estimate,
    /// Each class.
    pub classes: Vec<CellClass>,
}

/// A class in a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CellClass {
    /// Its name.
    pub name: String,
    /// Whether its queue grew for as long as requests arrived.
    pub overloaded: bool,
    /// What became of it, in one word.
    pub fate: Fate,
    /// Why its means and percentiles describe no steady state; null where they do.
    pub interval_note: Option<String>,
    /// How its requests closed.
    pub counts: Counts,
    /// Good ÷ offered.
    pub slo_attainment: Proportion,
    /// Good requests a second.
    pub goodput: Estimate,
    /// Output tokens a second.
    pub output_tps: Estimate,
    /// Time to first token.
    pub ttft: Spread,
    /// Time per output token after the first.
    pub tpot: Spread,
    /// End-to-end latency.
    pub e2e: Spread,
    /// All waiting.
    pub queue_time: Spread,
}

/// The part of a distribution that a cell keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Spread {
    /// The mean.
    pub mean: Estimate,
    /// The median.
    pub p50: Estimate,
    /// The 95th percentile.
    pub p95: Estimate,
    /// The 99th percentile.
    pub p99: Estimate,
}

impl From<Distribution> for Spread {
    fn from(all: Distribution) -> Spread {
        Spread { mean: all.mean, p50: all.p50, p95: all.p95, p99: all.p99 }
    }
}

impl CellSummary {
    /// What a cell keeps of the summary of its replications.
    pub fn new(cell: u64, parameters: BTreeMap<String, Value>, summary: Summary) -> CellSummary {
        let numbers = summary.run;
        CellSummary {
            cell,
            id: summary.scenario.hash,
            parameters,
            seed: summary.scenario.seed,
            verdict: summary.verdict,
            verdict_line: summary.verdict_line,
            interval_note: summary.interval_note,
            objectives: summary.objectives,
            counts: numbers.counts,
            slo_attainment: numbers.slo_attainment,
            goodput: numbers.goodput,
            output_tps: numbers.output_tps,
            replicas: summary.pools.iter().map(|pool| pool.replicas).sum(),
            busy: summary.utilization.busy,
            kv_occupancy: summary.utilization.kv_occupancy,
            classes: summary.classes.into_iter().map(class).collect(),
        }
    }
}

fn class(class: ClassSummary) -> CellClass {
    let numbers = class.numbers;
    CellClass {
        name: class.name,
        overloaded: class.overload.is_some(),
        fate: class.waiting.fate,
        interval_note: class.interval_note,
        counts: numbers.counts,
        slo_attainment: numbers.slo_attainment,
        goodput: numbers.goodput,
        output_tps: numbers.output_tps,
        ttft: numbers.latency.ttft.into(),
        tpot: numbers.latency.tpot.into(),
        e2e: numbers.latency.e2e.into(),
        queue_time: numbers.latency.queue_time.into(),
    }
}

/// The JSON Schema of `sweep.json`.
pub fn sweep_schema() -> Value {
    schemars::schema_for!(SweepSummary).to_value()
}

/// Writes `sweep.json`; the cells come as JSON, in their order.
///
/// # Errors
/// Those of the cells and of `out`.
pub fn write_json<C: AsRef<[u8]>>(
    (study, verdicts): (&Study, Verdicts),
    cells: impl Iterator<Item = io::Result<C>>,
    out: &mut impl Write,
) -> io::Result<()> {
    let summary = SweepSummary {
        schema_version: SCHEMA_VERSION,
        study: study.clone(),
        verdicts,
        cells: Vec::new(),
    };
    let head = serde_json::to_string_pretty(&summary)?;
    let head = head.strip_suffix("]\n}").expect("the list of cells stands last");
    out.write_all(head.as_bytes())?;
    for (index, cell) in cells.enumerate() {
        out.write_all(if index == 0 { b"\n    " } else { b",\n    " })?;
        out.write_all(cell?.as_ref())?;
    }
    out.write_all(b"\n  ]\n}\n")
}

/// A measure of a class that `cells.csv` holds: its name, its value, its interval.
type Measure = (&'static str, fn(&CellClass) -> (Option<f64>, Option<[f64; 2]>));

const MEASURES: [Measure; 12] = [
    ("slo_attainment", |class| {
        let share = &class.slo_attainment;
        (share.value, share.interval.or(share.wilson))
    }),
    ("goodput_rps", |class| known(&class.goodput)),
    ("output_tps", |class| known(&class.output_tps)),
    ("ttft_mean_s", |class| known(&class.ttft.mean)),
    ("ttft_p50_s", |class| known(&class.ttft.p50)),
    ("ttft_p95_s", |class| known(&class.ttft.p95)),
    ("ttft_p99_s", |class| known(&class.ttft.p99)),
    ("tpot_p50_s", |class| known(&class.tpot.p50)),
    ("tpot_p99_s", |class| known(&class.tpot.p99)),
    ("e2e_p50_s", |class| known(&class.e2e.p50)),
    ("e2e_p99_s", |class| known(&class.e2e.p99)),
    ("queue_p99_s", |class| known(&class.queue_time.p99)),
];

fn known(estimate: &Estimate) -> (Option<f64>, Option<[f64; 2]>) {
    (estimate.value, estimate.interval)
}

/// The head of `cells.csv`: the parameters stand under their paths, each measure with the ends of
/// its 95 % interval (`_low`, `_high`), which are empty where there is none.
pub fn csv_head(study: &Study) -> String {
    let mut fields = vec!["cell".to_owned(), "id".to_owned()];
    fields.extend(study.parameters.iter().map(|path| rows::field(path)));
    let rest = ["verdict", "replicas", "class", "fate", "overloaded", "offered", "finished"];
    fields.extend(rest.map(str::to_owned));
    for (name, _) in MEASURES {
        fields.extend([name.to_owned(), format!("{name}_low"), format!("{name}_high")]);
    }
    fields.push("interval_note".to_owned());
    fields.join(",") + "\n"
}

/// The rows of a cell in `cells.csv`, one a class.
pub fn csv_rows(study: &Study, cell: &CellSummary) -> String {
    let mut text = String::new();
    for class in &cell.classes {
        let mut fields = vec![cell.cell.to_string(), cell.id.clone()];
        let set = |path| cell.parameters.get(path).map_or(String::new(), plain);
        fields.extend(study.parameters.iter().map(|path| rows::field(&set(path))));
        fields.extend([
            cell.verdict.word().to_lowercase(),
            cell.replicas.to_string(),
            rows::field(&class.name),
            class.fate.word().to_owned(),
            class.overloaded.to_string(),
            class.counts.offered.to_string(),
            class.counts.finished.to_string(),
        ]);
        for (_, measure) in MEASURES {
            let number = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
            let (value, interval) = measure(class);
            fields.extend([
                number(value),
                number(interval.map(|ends| ends[0])),
                number(interval.map(|ends| ends[1])),
            ]);
        }
        fields.push(rows::field(class.interval_note.as_ref().unwrap_or(&cell.interval_note)));
        text += &fields.join(",");
        text.push('\n');
    }
    text
}

/// A value without quotes around a text.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Cells that the table of a terminal shows.
pub const SHOWN_MAX: usize = 40;

/// The results as a table, a row a cell; only the first [`SHOWN_MAX`] need be given. `width` is
/// that of the terminal; columns of classes that do not fit are left out, from the last.
pub fn table(
    (study, verdicts): (&Study, Verdicts),
    cells: &[CellSummary],
    (format, width): (Format, usize),
) -> String {
    let shown = &cells[..cells.len().min(SHOWN_MAX)];
    let classes = shown.first().map_or(0, |cell| cell.classes.len());
    let mut columns = 2 * classes;
    let grid = loop {
        let grid = grid(study, shown, (format, columns));
        let widest = grid.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        if format == Format::Md || widest <= width || columns == 0 {
            break grid;
        }
        columns -= 1;
    };
    let mut text = format!("{}\n\n{grid}\n\n", verdicts.sentence());
    if study.cells > shown.len() as u64 {
        let more = words::count(study.cells - shown.len() as u64);
        text += &format!("and {more} more cells, in cells.csv\n");
    }
    if study.equal_left_out > 0 {
        let equal = words::count(study.equal_left_out);
        text += &format!("{equal} combinations equal an earlier cell and were left out\n");
    }
    if let Some(cell) = shown.first() {
        text += &format!("{}\n", cell.interval_note);
    }
    words::harmless(&text)
}

fn grid(study: &Study, cells: &[CellSummary], (format, columns): (Format, usize)) -> String {
    let mut table = Table::new();
    table.load_style(match format {
        Format::Md => presets::ASCII_MARKDOWN,
        Format::Human | Format::Csv => presets::UTF8_HORIZONTAL_ONLY,
    });
    table.set_content_arrangement(ContentArrangement::Disabled);
    let names = cells.first().map_or(&[][..], |cell| &cell.classes);
    let heads =
        names.iter().flat_map(|class| [format!("{} good", class.name), "TTFT p99".to_owned()]);
    let mut head = vec!["cell".to_owned()];
    head.extend(short(&study.parameters));
    head.push(String::new());
    head.extend(heads.take(columns));
    let text = |one: String| if format == Format::Md { markdown::cell(&one) } else { one };
    table.set_header(head.into_iter().map(text));
    for cell in cells {
        let mut row = vec![cell.cell.to_string()];
        let set = |path| cell.parameters.get(path).map_or("–".to_owned(), plain);
        row.extend(study.parameters.iter().map(set));
        row.push(format!("{} {}", cell.verdict.symbol(), cell.verdict.word()));
        let numbers = cell.classes.iter().flat_map(|class| {
            let good = class.slo_attainment.value.map_or("–".to_owned(), words::percent);
            [good, words::latency(&class.ttft.p99)]
        });
        row.extend(numbers.take(columns));
        table.add_row(row.into_iter().map(text));
    }
    for index in study.parameters.len() + 2..study.parameters.len() + 2 + columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text = table.to_string();
    let lines = text.lines().map(str::trim_end).filter(|line| !line.starts_with('─'));
    lines.collect::<Vec<_>>().join("\n")
}

/// Paths by their last steps, as many as it takes to tell them apart.
fn short(paths: &[String]) -> Vec<String> {
    let last = |path: &str, steps: usize| {
        let all: Vec<&str> = path.split('.').collect();
        all[all.len().saturating_sub(steps)..].join(".")
    };
    let steps = |path: &String| {
        (1..).find(|steps| {
            let own = last(path, *steps);
            own == *path || paths.iter().filter(|other| last(other, *steps) == own).count() == 1
        })
    };
    paths.iter().map(|path| last(path, steps(path).unwrap_or(1))).collect()
}
