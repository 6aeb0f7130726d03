//! Studies as text, tables and pages: comparisons, capacity plans and what else is a sheet.

use comfy_table::{ContentArrangement, Table, presets};
use minijinja::context;

use crate::capacity::{CapacityPlan, PlanVerdict, Tried, price, share};
use crate::charts::{self, Chart, standalone};
use crate::comparison::{Comparison, Difference, Evidence, MeasuredValue, Unit, points, span};
use crate::markdown::cell;
use crate::page::{Template, TemplateError, figure, render};
use crate::table::{Format, wrap};
use crate::words;
use crate::{rows, summary::Estimate};

pub(crate) const DIFFERENCES_HEAD: [&str; 7] =
    ["candidate", "class", "measure", "first", "difference", "relative", "evidence"];
pub(crate) const TRIED_HEAD: [&str; 9] = [
    "policy",
    "hardware",
    "devices",
    "price",
    "power",
    "result",
    "good of offered",
    "nearest limit",
    "runs",
];

/// A table with a head.
pub(crate) struct Grid {
    pub title: String,
    pub rows: Vec<Vec<String>>,
}

/// What every study has.
pub(crate) struct Sheet {
    pub title: String,
    /// Why it is not whole; empty if it is.
    pub partial: String,
    /// Of the page's colours, and in words.
    pub verdict: Option<(&'static str, &'static str)>,
    pub sentences: Vec<String>,
    /// What, how much, and a note to it.
    pub cards: Vec<(&'static str, String, String)>,
    pub grids: Vec<Grid>,
    pub charts: Vec<Chart>,
    pub notes: Vec<String>,
    pub method: Vec<String>,
    pub version: String,
}

/// A study as people read it. Its charts are drawn once.
pub struct Study {
    pub(crate) json: String,
    pub(crate) csv: String,
    pub(crate) sheet: Sheet,
}

impl Study {
    /// As its JSON file holds it.
    pub fn json(&self) -> &str {
        &self.json
    }
    /// As text: sentences and table, or the table alone as CSV.
    pub fn text(&self, format: Format, width: usize) -> String {
        match format {
            Format::Csv => self.csv.clone(),
            Format::Human | Format::Md => text(&self.sheet, format, width),
        }
    }
    /// As a page. `template` replaces our own.
    ///
    /// # Errors
    /// If a template of the user's does not parse or render: what is wrong, and where.
    pub fn page(&self, template: Option<&Template>) -> Result<String, TemplateError> {
        page(&self.sheet, template)
    }
    /// Its charts as files: name and drawing.
    pub fn charts(&self) -> Vec<(String, String)> {
        self.sheet.charts.iter().map(standalone).collect()
    }
}

impl Comparison {
    /// As `comparison.json` holds it.
    pub fn to_json(&self) -> String {
        json(self)
    }
    /// As people read it.
    pub fn study(&self) -> Study {
        Study { json: self.to_json(), csv: self.csv(), sheet: self.sheet() }
    }

    fn sheet(&self) -> Sheet {
        let mut differences = vec![DIFFERENCES_HEAD.map(str::to_owned).to_vec()];
        differences.extend(self.differences.iter().map(difference_row));
        let mut sentences = self.sentences.clone();
        sentences.extend(self.best.iter().map(|best| best.sentence.clone()));
        Sheet {
            title: match self.separate {
                false => format!("{}: comparison", self.scenario),
                true => format!("{}: difference", self.scenario),
            },
            partial: String::new(),
            verdict: None,
            sentences,
            cards: self.cards(),
            grids: vec![
                Grid { title: "Each candidate".to_owned(), rows: self.values() },
                Grid { title: "Differences".to_owned(), rows: differences },
            ],
            charts: std::iter::once(charts::differences(self)).chain(self.beside.clone()).collect(),
            notes: self.notes.clone(),
            method: vec![self.method.clone(), format!("seed {}", self.seed)],
            version: self.plimsoll.clone(),
        }
    }

    /// Who was compared on what, and how much came of it.
    fn cards(&self) -> Vec<(&'static str, String, String)> {
        let names: Vec<String> = self.candidates.iter().map(|one| one.name.clone()).collect();
        let count = |evidence: Evidence| {
            self.differences.iter().filter(|one| one.evidence == evidence).count()
        };
        let overloaded: Vec<String> = (self.candidates.iter())
            .filter(|candidate| !candidate.overloaded.is_empty())
            .map(|one| format!("{} ({})", one.name, words::list(&one.overloaded)))
            .collect();
        // Two are told apart number by number: no score says which is best.
        let best = self.best.as_ref().map(|best| {
            let name = best.candidate.clone().unwrap_or("undecided".to_owned());
            ("best", name, format!("by {}, at {}", best.score, words::percent(best.confidence)))
        });
        let all = self.differences.len();
        let compared = [
            ("compared", names.len().to_string(), words::list(&names)),
            (
                "evidence",
                format!("{} of {all}", count(Evidence::Better) + count(Evidence::Worse)),
                format!(
                    "numbers differ: {} better, {} worse",
                    count(Evidence::Better),
                    count(Evidence::Worse)
                ),
            ),
        ];
        let overload = (
            "overloaded",
            overloaded.len().to_string(),
            if overloaded.is_empty() { "none".to_owned() } else { words::list(&overloaded) },
        );
        compared.into_iter().chain(best).chain([overload]).collect()
    }

    /// A row a number, a column a candidate.
    fn values(&self) -> Vec<Vec<String>> {
        let mut head = vec!["class".to_owned(), "measure".to_owned()];
        head.extend(self.candidates.iter().map(|candidate| candidate.name.clone()));
        let mut named: Vec<&MeasuredValue> = Vec::new();
        let is = |one: &MeasuredValue, other: &MeasuredValue| {
            one.class == other.class && one.measure == other.measure
        };
        // Results of two scenarios need not have the same classes.
        for value in self.candidates.iter().flat_map(|candidate| &candidate.values) {
            if !named.iter().any(|earlier| is(earlier, value)) {
                named.push(value);
            }
        }
        let row = |wanted: &MeasuredValue| {
            let class = wanted.class.clone().unwrap_or("all".to_owned());
            let mut row = vec![class, wanted.measure.clone()];
            row.extend(self.candidates.iter().map(|candidate| {
                match candidate.values.iter().find(|value| is(value, wanted)) {
                    None => "–".to_owned(),
                    Some(value) => match value.unit {
                        Unit::Seconds => seconds(&value.estimate),
                        Unit::Share => percent(&value.estimate),
                    },
                }
            }));
            row
        };
        std::iter::once(head).chain(named.into_iter().map(row)).collect()
    }

    fn csv(&self) -> String {
        let mut text = String::from(
            "candidate,class,measure,unit,reference,difference,low,high,relative,evidence\n",
        );
        let plain = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        for one in &self.differences {
            let fields = [
                rows::field(&one.candidate),
                rows::field(&one.class),
                one.measure.clone(),
                match one.unit {
                    Unit::Seconds => "s".to_owned(),
                    Unit::Share => "share".to_owned(),
                },
                plain(one.reference),
                plain(one.difference),
                plain(one.interval.map(|[low, _]| low)),
                plain(one.interval.map(|[_, high]| high)),
                plain(one.relative),
                one.evidence.words().to_owned(),
            ];
            text.push_str(&fields.join(","));
            text.push('\n');
        }
        text
    }
}

pub(crate) fn difference_row(one: &Difference) -> Vec<String> {
    let value = |value: f64| match one.unit {
        Unit::Seconds => words::secs(value),
        Unit::Share => words::percent(value),
    };
    let sign = if one.difference.is_some_and(|difference| difference < 0.0) { "−" } else { "+" };
    vec![
        one.candidate.clone(),
        one.class.clone(),
        one.measure.clone(),
        one.reference.map_or("–".to_owned(), value),
        one.difference.map_or("–".to_owned(), |_| format!("{sign}{}", one.amount())),
        one.relative.map_or("–".to_owned(), words::signed),
        one.evidence.words().to_owned(),
    ]
}

impl CapacityPlan {
    /// As `plan.json` holds it.
    pub fn to_json(&self) -> String {
        json(self)
    }
    /// As people read it.
    pub fn study(&self) -> Study {
        Study { json: self.to_json(), csv: self.csv(), sheet: self.sheet() }
    }

    fn sheet(&self) -> Sheet {
        let mut tried = vec![TRIED_HEAD.map(str::to_owned).to_vec()];
        tried.extend(self.tried.iter().map(|one| tried_row(one, self)));
        let mut grids = vec![Grid { title: "What was judged".to_owned(), rows: tried }];
        if !self.policies.is_empty() {
            grids.insert(
                0,
                Grid { title: "The least of each policy".to_owned(), rows: self.least() },
            );
        }
        if !self.growth.is_empty() {
            grids.push(Grid { title: "As the load grows".to_owned(), rows: self.grown() });
        }
        let class = match self.verdict {
            PlanVerdict::Found => "pass",
            PlanVerdict::NothingFits => "fail",
            PlanVerdict::Undecided => "inconclusive",
        };
        let mut method = self.method.clone();
        method.extend(self.prices.iter().map(|prices| {
            format!("prices: {}, as of {}, {}", prices.table, prices.date, prices.currency)
        }));
        method.push(format!("seed {}", self.seed));
        Sheet {
            title: format!("{}: plan", self.scenario),
            partial: String::new(),
            verdict: Some((class, self.verdict.word())),
            sentences: self.sentences.clone(),
            cards: self.cards(),
            grids,
            charts: charts::capacity(self).into_iter().chain(charts::frontier(self)).collect(),
            notes: self.notes.clone(),
            method,
            version: self.plimsoll.clone(),
        }
    }

    /// What it takes, what it costs, how well it serves, how much more it bears.
    fn cards(&self) -> Vec<(&'static str, String, String)> {
        let none = || "–".to_owned();
        let answer = self.answer.as_ref();
        let judged = |one: &Tried| {
            let margin = one.binding.as_ref().map_or(String::new(), |binding| {
                format!("nearest to its limit: {} {}", binding.class, binding.objective)
            });
            (percent(&one.attainment), margin)
        };
        let (good, margin) = answer.map_or((none(), "nothing fits".to_owned()), judged);
        let safe = self.safe_load.as_ref().map_or(none(), |safe| format!("{:.2} ×", safe.kept));
        vec![
            (
                "devices",
                answer.map_or(none(), |one| one.devices.to_string()),
                answer.map_or("nothing fits".to_owned(), |one| {
                    format!("{} under {}", one.label, one.policy)
                }),
            ),
            (
                "price",
                self.amount(answer.and_then(|one| one.price_an_hour)),
                match self.prices {
                    Some(_) => "an hour".to_owned(),
                    None => "no prices are known: --device, --prices".to_owned(),
                },
            ),
            ("good of offered", good, margin),
            ("safe load", safe, "of the load planned for".to_owned()),
        ]
    }

    fn amount(&self, amount: Option<f64>) -> String {
        amount.map_or("–".to_owned(), |amount| price(amount, self.prices.as_ref()))
    }

    fn least(&self) -> Vec<Vec<String>> {
        let head = ["policy", "hardware", "devices", "price"].map(str::to_owned).to_vec();
        let row = |one: &crate::capacity::PolicyAnswer| {
            vec![
                one.policy.clone(),
                one.label.clone().unwrap_or("nothing fits".to_owned()),
                one.devices.map_or("–".to_owned(), |devices| devices.to_string()),
                self.amount(one.price_an_hour),
            ]
        };
        std::iter::once(head).chain(self.policies.iter().map(row)).collect()
    }

    fn grown(&self) -> Vec<Vec<String>> {
        let head =
            ["in months", "load", "hardware", "devices", "price"].map(str::to_owned).to_vec();
        let row = |one: &crate::capacity::Grown| {
            vec![
                one.months.to_string(),
                format!("{:.2}×", one.load),
                one.label.clone().unwrap_or("nothing fits".to_owned()),
                one.devices.map_or("–".to_owned(), |devices| devices.to_string()),
                self.amount(one.price_an_hour),
            ]
        };
        std::iter::once(head).chain(self.growth.iter().map(row)).collect()
    }

    fn csv(&self) -> String {
        let mut text = String::from(
            "policy,hardware,devices,price_an_hour,power_w,result,attainment,attainment_low,\
             attainment_high,binding_class,binding_objective,share,half_width,wanted,replications\n",
        );
        let plain = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        for one in &self.tried {
            let binding = one.binding.as_ref();
            let interval = one.attainment.interval;
            let fields = [
                rows::field(&one.policy),
                rows::field(&one.label),
                one.devices.to_string(),
                plain(one.price_an_hour),
                plain(one.power_w),
                one.result.word().to_owned(),
                plain(one.attainment.value),
                plain(interval.map(|[low, _]| low)),
                plain(interval.map(|[_, high]| high)),
                binding.map_or(String::new(), |binding| rows::field(&binding.class).to_string()),
                binding
                    .map_or(String::new(), |binding| rows::field(&binding.objective).to_string()),
                plain(binding.map(|binding| binding.share)),
                plain(binding.map(|binding| binding.half_width)),
                plain(binding.map(|binding| binding.wanted)),
                one.replications.to_string(),
            ];
            text.push_str(&fields.join(","));
            text.push('\n');
        }
        text
    }
}

pub(crate) fn tried_row(one: &Tried, plan: &CapacityPlan) -> Vec<String> {
    vec![
        one.policy.clone(),
        one.label.clone(),
        one.devices.to_string(),
        plan.amount(one.price_an_hour),
        one.power_w.map_or("–".to_owned(), |watts| format!("{:.1} kW", watts / 1e3)),
        one.result.word().to_owned(),
        percent(&one.attainment),
        one.binding.as_ref().map_or("–".to_owned(), |binding| {
            format!(
                "{} {}: {}",
                binding.class,
                binding.objective,
                share(binding.share, binding.half_width)
            )
        }),
        one.replications.to_string(),
    ]
}

fn half(estimate: &Estimate) -> f64 {
    estimate.interval.map_or(0.0, |[low, high]| (high - low) / 2.0)
}

fn seconds(estimate: &Estimate) -> String {
    estimate.value.map_or("–".to_owned(), |value| span(value, half(estimate)))
}

fn percent(estimate: &Estimate) -> String {
    let text = estimate.value.map(|value| points(value, half(estimate)));
    text.map_or("–".to_owned(), |text| text.replace("points", "%"))
}

pub(crate) fn json(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("plain data is JSON");
    text.push('\n');
    text
}

fn text(sheet: &Sheet, format: Format, width: usize) -> String {
    let mut text = String::new();
    let word = sheet.verdict.map_or(String::new(), |(_, word)| format!("{word}: "));
    for (index, sentence) in sheet.sentences.iter().enumerate() {
        let lead = if index == 0 { word.as_str() } else { "" };
        text.push_str(&wrap(&format!("{lead}{}", plain(sentence, format)), format, width));
        if format == Format::Md {
            text.push('\n');
        }
    }
    for grid in &sheet.grids {
        text.push_str(&format!("\n{}\n", table(grid, format)));
    }
    text.push('\n');
    for line in sheet.notes.iter().map(|note| format!("! {}", plain(note, format))) {
        text.push_str(&wrap(&line, format, width));
    }
    for line in &sheet.method {
        text.push_str(&wrap(&format!("± {}", plain(line, format)), format, width));
    }
    words::harmless(&text)
}

/// Text, whatever it holds.
fn plain(text: &str, format: Format) -> String {
    match format {
        Format::Md => cell(text),
        Format::Human | Format::Csv => text.to_owned(),
    }
}

fn table(grid: &Grid, format: Format) -> String {
    let mut table = Table::new();
    table.load_style(match format {
        Format::Md => presets::ASCII_MARKDOWN,
        Format::Human | Format::Csv => presets::UTF8_HORIZONTAL_ONLY,
    });
    table.set_content_arrangement(ContentArrangement::Disabled);
    let mut rows = grid.rows.iter();
    let text = |row: &Vec<String>| row.iter().map(|one| plain(one, format)).collect::<Vec<_>>();
    table.set_header(rows.next().map(text).unwrap_or_default());
    for row in rows {
        table.add_row(text(row));
    }
    let text = table.to_string();
    let lines = text.lines().map(str::trim_end).filter(|line| !line.starts_with('─'));
    lines.collect::<Vec<_>>().join("\n")
}

/// What stands between backticks, as code.
fn coded(lines: &[String]) -> Vec<minijinja::Value> {
    lines.iter().map(|line| crate::page::code(line)).collect()
}

pub(crate) fn page(sheet: &Sheet, template: Option<&Template>) -> Result<String, TemplateError> {
    let grid = |grid: &Grid| {
        let rows: Vec<_> = grid.rows.iter().map(|row| coded(row)).collect();
        context! { title => &grid.title, rows }
    };
    let card = |one: &(&str, String, String)| {
        let (head, value, note) = one.clone();
        context! { head, value, note }
    };
    let (class, word) = sheet.verdict.unwrap_or(("", ""));
    let symbol = match class {
        "pass" => "✓",
        "fail" => "✗",
        "inconclusive" => "?",
        _ => "",
    };
    let context = context! {
        title => &sheet.title,
        version => &sheet.version,
        partial => &sheet.partial,
        verdict => context! { class, word, symbol, rest => sheet.sentences.first().cloned() },
        cards => sheet.cards.iter().map(card).collect::<Vec<_>>(),
        sentences => sheet.sentences.iter().skip(1).cloned().collect::<Vec<_>>(),
        grids => sheet.grids.iter().map(grid).collect::<Vec<_>>(),
        charts => sheet.charts.iter().map(figure).collect::<Vec<_>>(),
        notes => coded(&sheet.notes),
        method => coded(&sheet.method),
        glossary => crate::page::glossary(),
        island => "",
    };
    render("study.html", template, &context)
}
