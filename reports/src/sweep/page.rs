//! `sweep.html`: what the cells of a sweep say together.

use std::cmp::Ordering;
use std::io;

use super::axis::{Varied, setting, varied};
use super::{CellSummary, SHOWN_MAX, Study, Verdicts};
use crate::charts::{self, standalone};
use crate::page::{Template, TemplateError};
use crate::study::{Grid, Sheet, page};
use crate::summary::{Estimate, Verdict};
use crate::words;

/// Cells that are drawn and listed; `cells.csv` holds all of them.
const DRAWN_MAX: usize = 1000;

/// A sweep as a page. Its charts are drawn once.
pub struct SweepPage(Sheet);

/// What the charts of a sweep are drawn from.
pub(crate) struct Response<'a> {
    pub cells: &'a [CellSummary],
    pub varied: &'a [Varied],
    pub study: &'a Study,
}

impl Response<'_> {
    /// `rate = 2/s, replicas = 3`.
    pub fn setting(&self, cell: &CellSummary) -> String {
        setting(self.study, cell)
    }
}

impl SweepPage {
    /// The page of the cells that are done, which come in their order; `PARTIAL` if they are not all
    /// of the study's. The best cells are those of all of them; the first 1,000 are drawn.
    ///
    /// # Errors
    /// Those of the cells.
    pub fn new(
        (study, verdicts): (&Study, Verdicts),
        cells: impl Iterator<Item = io::Result<CellSummary>>,
    ) -> io::Result<SweepPage> {
        let (mut drawn, mut best, mut done) = (Vec::new(), Champions::default(), 0);
        for cell in cells {
            let cell = cell?;
            best.meet(&cell);
            done += 1;
            if drawn.len() < DRAWN_MAX {
                drawn.push(cell);
            }
        }
        Ok(SweepPage(sheet((study, verdicts), &drawn, (&best, done))))
    }

    /// As HTML. `template` replaces our own.
    ///
    /// # Errors
    /// If a template of the user's does not parse or render: what is wrong, and where.
    pub fn page(&self, template: Option<&Template>) -> Result<String, TemplateError> {
        page(&self.0, template)
    }

    /// Its charts as files: name and drawing.
    pub fn charts(&self) -> Vec<(String, String)> {
        self.0.charts.iter().map(standalone).collect()
    }
}

/// Good ÷ offered with its interval.
pub(crate) fn good(cell: &CellSummary) -> Estimate {
    share(&cell.slo_attainment)
}

pub(crate) fn share(share: &crate::summary::Proportion) -> Estimate {
    Estimate {
        value: share.value,
        interval: share.interval.or(share.wilson),
        ..Estimate::default()
    }
}

/// The cells that lead in something, each with what it is compared by.
#[derive(Default)]
struct Champions {
    good: Option<CellSummary>,
    /// Cells as good as that one.
    equal: u64,
    goodput: Option<CellSummary>,
    fewest: Option<CellSummary>,
}

impl Champions {
    fn meet(&mut self, cell: &CellSummary) {
        let before = self.good.as_ref().map(|leader| value(good(leader)));
        lead(&mut self.good, cell, &|a, b| value(good(a)).total_cmp(&value(good(b))));
        match before {
            Some(before) if before == value(good(cell)) => self.equal += 1,
            Some(before) if before > value(good(cell)) => {}
            Some(_) | None => self.equal = 0,
        }
        if keeps(cell) {
            let more =
                |a: &CellSummary, b: &CellSummary| value(a.goodput).total_cmp(&value(b.goodput));
            lead(&mut self.goodput, cell, &more);
            lead(&mut self.fewest, cell, &|a, b| {
                b.replicas.cmp(&a.replicas).then(value(good(a)).total_cmp(&value(good(b))))
            });
        }
    }
}

/// Replaces the leader if `cell` is strictly greater: of equals, the first leads.
fn lead(
    leader: &mut Option<CellSummary>,
    cell: &CellSummary,
    order: &dyn Fn(&CellSummary, &CellSummary) -> Ordering,
) {
    if leader.as_ref().is_none_or(|leader| order(cell, leader) == Ordering::Greater) {
        *leader = Some(cell.clone());
    }
}

fn value(estimate: Estimate) -> f64 {
    estimate.value.unwrap_or(-1.0)
}

fn keeps(cell: &CellSummary) -> bool {
    match cell.verdict {
        Verdict::Pass | Verdict::Done => true,
        Verdict::Fail | Verdict::Overloaded | Verdict::Inconclusive => false,
    }
}

fn sheet(
    (study, verdicts): (&Study, Verdicts),
    drawn: &[CellSummary],
    (best, done): (&Champions, u64),
) -> Sheet {
    let varied = varied(study, drawn);
    let response = Response { cells: drawn, varied: &varied, study };
    let mut grids =
        vec![Grid { title: "The best cells".to_owned(), rows: leaders(best, &response) }];
    let failed = failed(&response);
    if failed.len() > 1 {
        grids.push(Grid {
            title: "Cells that do not keep every objective".to_owned(),
            rows: failed,
        });
    }
    grids.push(Grid { title: "All cells".to_owned(), rows: all(&response) });
    grids.retain(|grid| grid.rows.len() > 1);
    Sheet {
        title: format!("{}: sweep", study.scenario),
        partial: match done < study.cells {
            true => {
                format!("PARTIAL: {} of {} cells", words::count(done), words::count(study.cells))
            }
            false => String::new(),
        },
        verdict: None,
        sentences: sentences((study, verdicts), best, done),
        cards: cards((study, verdicts), best, done),
        grids,
        charts: charts::response(&response),
        notes: notes(study, drawn, done),
        method: method(study, drawn),
        version: study.plimsoll.clone(),
    }
}

fn sentences((study, verdicts): (&Study, Verdicts), best: &Champions, done: u64) -> Vec<String> {
    let Some(most) = &best.good else { return vec!["No cell is done yet.".to_owned()] };
    let mut first = match verdicts.done == done {
        true => String::new(),
        false => format!(
            "{} of {} cells keep every objective. ",
            words::count(verdicts.pass),
            words::count(done)
        ),
    };
    first += &format!("Most of the offered is good at {}", setting(study, most));
    first +=
        &good(most).value.map_or(String::new(), |share| format!(": {}", words::percent(share)));
    let mut sentences = vec![first + "."];
    let is_other = |one: &&CellSummary| one.cell != most.cell;
    if let Some(one) =
        best.fewest.as_ref().filter(is_other).filter(|one| one.replicas < most.replicas)
    {
        sentences.push(format!(
            "The fewest replicas that keep every objective: {}, at {}.",
            one.replicas,
            setting(study, one)
        ));
    }
    if let Some(one) = best.goodput.as_ref().filter(is_other) {
        sentences.push(format!(
            "The most good requests a second with every objective kept: {}, at {}.",
            words::number(value(one.goodput)),
            setting(study, one)
        ));
    }
    sentences
}

fn cards(
    (study, verdicts): (&Study, Verdicts),
    best: &Champions,
    done: u64,
) -> Vec<(&'static str, String, String)> {
    let none = || ("–".to_owned(), "no cell".to_owned());
    let told = |cell: &Option<CellSummary>, text: &dyn Fn(&CellSummary) -> String| {
        cell.as_ref().map_or_else(none, |cell| (text(cell), setting(study, cell)))
    };
    let percent = |cell: &CellSummary| good(cell).value.map_or("–".to_owned(), words::percent);
    let rate = |cell: &CellSummary| format!("{}/s", words::number(value(cell.goodput)));
    let (most, at) = told(&best.good, &percent);
    let (goodput, under) = told(&best.goodput, &rate);
    let kept = if verdicts.done == done { "–".to_owned() } else { words::count(verdicts.pass) };
    vec![
        (
            "cells",
            words::count(done),
            match study.replications {
                1 => "one run each: no intervals across runs".to_owned(),
                more => format!("each of {} replications", words::count(more.into())),
            },
        ),
        ("keep every objective", kept, verdicts.sentence()),
        ("most good of offered", most, at),
        ("most good requests, objectives kept", goodput, under),
    ]
}

/// The cells that lead, and how many of those drawn cannot be told from them.
fn leaders(best: &Champions, response: &Response<'_>) -> Vec<Vec<String>> {
    let head = ["the", "cell", "at", "value", "replicas", "cannot be told from it"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    type Of = fn(&CellSummary) -> Estimate;
    let leaders: [(&str, &Option<CellSummary>, Of); 3] = [
        ("most good of offered", &best.good, good),
        ("most good requests/s, objectives kept", &best.goodput, |cell| cell.goodput),
        ("fewest replicas, objectives kept", &best.fewest, good),
    ];
    for (what, leader, of) in leaders {
        let Some(leader) = leader else { continue };
        let own = of(leader);
        let text = if what.contains("requests/s") { rate(&own) } else { percent(&own) };
        let others = response.cells.iter().filter(|cell| cell.cell != leader.cell);
        let alike = others.filter(|cell| overlap(&of(cell), &own)).count();
        rows.push(vec![
            what.to_owned(),
            leader.cell.to_string(),
            response.setting(leader),
            text,
            leader.replicas.to_string(),
            match own.interval {
                _ if what.starts_with("fewest") => "–".to_owned(),
                None => "–".to_owned(),
                Some(_) => format!("{alike} cells"),
            },
        ]);
    }
    rows
}

fn overlap(one: &Estimate, other: &Estimate) -> bool {
    match (one.interval, other.interval) {
        (Some([low, high]), Some([least, most])) => low <= most && least <= high,
        (Some(_) | None, Some(_) | None) => false,
    }
}

/// The cells that miss an objective or were overloaded, with why.
fn failed(response: &Response<'_>) -> Vec<Vec<String>> {
    let head = ["cell", "at", "why"].map(str::to_owned).to_vec();
    let row = |cell: &CellSummary| {
        vec![cell.cell.to_string(), response.setting(cell), cell.verdict_line.clone()]
    };
    let failed = response.cells.iter().filter(|cell| !keeps(cell)).take(SHOWN_MAX);
    std::iter::once(head).chain(failed.map(row)).collect()
}

fn all(response: &Response<'_>) -> Vec<Vec<String>> {
    let Some(first) = response.cells.first() else { return Vec::new() };
    let mut head = vec!["cell".to_owned()];
    head.extend(super::short(&response.study.parameters));
    head.extend(["verdict", "good of offered", "good requests/s", "busy"].map(str::to_owned));
    for class in &first.classes {
        head.extend([format!("{}: good", class.name), format!("{}: p99 TTFT", class.name)]);
    }
    let row = |cell: &CellSummary| {
        let set = |path| cell.parameters.get(path).map_or("–".to_owned(), super::plain);
        let mut row = vec![cell.cell.to_string()];
        row.extend(response.study.parameters.iter().map(set));
        row.push(format!("{} {}", cell.verdict.symbol(), cell.verdict.word()));
        row.extend([percent(&good(cell)), rate(&cell.goodput), percent(&cell.busy)]);
        for class in &cell.classes {
            row.extend([percent(&share(&class.slo_attainment)), seconds(&class.ttft.p99)]);
        }
        row
    };
    std::iter::once(head).chain(response.cells.iter().map(row)).collect()
}

/// A value with its interval, unless that reads the same at both ends.
fn told(estimate: &Estimate, text: String, of: fn(f64) -> String) -> String {
    let ends = estimate.interval.map(|ends| ends.map(of)).filter(|[low, high]| low != high);
    text + &ends.map_or(String::new(), |[low, high]| format!(" ({low} – {high})"))
}

pub(crate) fn percent(estimate: &Estimate) -> String {
    let text = estimate.value.map_or("–".to_owned(), words::percent);
    // Student's t knows nothing of 0 and 1.
    told(estimate, text, |share| words::percent(share.clamp(0.0, 1.0)))
}

pub(crate) fn seconds(estimate: &Estimate) -> String {
    told(estimate, words::latency(estimate), words::secs)
}

pub(crate) fn rate(estimate: &Estimate) -> String {
    told(estimate, estimate.value.map_or("–".to_owned(), words::number), words::number)
}

fn notes(study: &Study, drawn: &[CellSummary], done: u64) -> Vec<String> {
    let mut notes = Vec::new();
    if done < study.cells {
        let missing = words::count(study.cells - done);
        notes.push(format!("{missing} cells are not there: what is said is said of the others."));
    }
    if done > drawn.len() as u64 {
        notes.push(format!(
            "Charts and tables show the first {} cells; the best are the best of all {}, which \
             cells.csv holds.",
            words::count(drawn.len() as u64),
            words::count(done)
        ));
    }
    let failed = drawn.iter().filter(|cell| !keeps(cell)).count();
    if failed > SHOWN_MAX {
        notes.push(format!(
            "Of {failed} cells that do not keep every objective {SHOWN_MAX} are listed with why; \
             sweep.json says it of all."
        ));
    }
    if study.equal_left_out > 0 {
        let equal = words::count(study.equal_left_out);
        notes.push(format!("{equal} combinations equal an earlier cell and were left out."));
    }
    if study.cells > 1 {
        notes.push(
            "The best of many cells looks better than it is: it was lucky as well. Run it again \
             with another seed before you rely on it."
                .to_owned(),
        );
    }
    notes
}

fn method(study: &Study, drawn: &[CellSummary]) -> Vec<String> {
    let alike = drawn.windows(2).all(|pair| pair[0].seed == pair[1].seed);
    let mut method: Vec<String> =
        drawn.first().map(|cell| cell.interval_note.clone()).into_iter().collect();
    method.push(format!(
        "{}{}",
        match study.seed {
            Some(seed) => format!("seed {seed}"),
            None => "the scenario's seed".to_owned(),
        },
        if alike {
            "; all cells draw the same random numbers"
        } else {
            "; cells have seeds of their own"
        }
    ));
    method.push("a cell cannot be told from another where their intervals overlap".to_owned());
    method.push(format!("scenario {}, study {}", study.hash, study.study));
    method
}
