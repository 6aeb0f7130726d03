//! The charts of a run, as static SVG.
//!
//! Colours are Okabe and Ito's; classes differ by dash pattern too and are labelled where they
//! stand. Black and white become the page's foreground and background, so that one drawing serves
//! dark and light.

mod beside;
mod blame;
mod canvas;
mod capacity;
mod differences;
mod frontier;
mod gpus;
mod heat;
mod lanes;
mod load;
mod memory;
mod percentiles;
mod phases;
mod queue;
mod response;
mod scale;
mod scoreboard;
mod shares;
mod sparkline;
mod traced;
mod utilization;
mod validation;

pub(crate) use beside::draw as beside;
pub(crate) use capacity::draw as capacity;
pub(crate) use differences::draw as differences;
pub(crate) use frontier::draw as frontier;
pub(crate) use gpus::draw as gpus;
pub(crate) use response::draw as response;
pub(crate) use sparkline::{spark, sparkline};
pub(crate) use traced::draw as traced;
pub(crate) use validation::draw as validation;

use serde::Serialize;

use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::recorded;
use crate::summarise::merged;
use crate::summary::Summary;
use crate::tally::Tally;
use crate::words;

/// One chart with all that stands around it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chart {
    /// What its file is called, without the ending.
    pub name: &'static str,
    /// The finding.
    pub title: String,
    /// How to read it.
    pub how: String,
    /// What is drawn, as a formula.
    pub formula: &'static str,
    /// The drawing, for a page that defines `--fg` and `--bg`.
    pub svg: String,
    /// What is drawn, as a table: the head, then the rows.
    pub data: Vec<Vec<String>>,
}

/// What charts are drawn from.
pub(crate) struct Subject<'a> {
    pub plan: &'a Plan,
    pub summary: &'a Summary,
    pub ledgers: &'a [Ledger],
    /// One a class, of each replication and over all.
    pub tallies: Vec<Vec<Tally>>,
    pub pooled: Vec<Tally>,
}

impl Subject<'_> {
    /// The series that charts over time show: those of the first replication.
    fn ledger(&self) -> &Ledger {
        &self.ledgers[0]
    }
    /// The axis of charts over time: its unit, the seconds that make one, and where it ends.
    fn time_axis(&self) -> (&'static str, f64, f64) {
        let now = self.ledger().now().secs_f64();
        let (unit, scale) = words::axis_unit(now);
        (unit, scale, (now / scale).max(1e-3))
    }
    /// The classes that are drawn: all of the plan.
    fn classes(&self) -> impl Iterator<Item = (usize, &str)> {
        self.plan.names.classes.iter().map(String::as_str).enumerate().take(self.plan.classes.len())
    }
    /// What to say of a chart of the attribution where engines are opaque.
    fn estimated(&self) -> &'static str {
        if self.plan.sees_engines() { "" } else { recorded::ESTIMATED }
    }
    /// "of replication 1 of 5" where a chart shows one of several.
    fn which_replication(&self) -> String {
        match self.ledgers.len() {
            1 => String::new(),
            n => format!(" Replication 1 of {n}."),
        }
    }
}

fn subject<'a>(plan: &'a Plan, ledgers: &'a [Ledger], summary: &'a Summary) -> Subject<'a> {
    let tallies: Vec<Vec<Tally>> = ledgers.iter().map(Ledger::tallies).collect();
    let pool = |row: usize| merged(tallies.iter().map(|rows| &rows[row])).into_owned();
    let pooled = (0..plan.classes.len()).map(pool).collect();
    Subject { plan, summary, ledgers, tallies, pooled }
}

/// The charts of a run, in the order of the page.
pub(crate) fn draw(plan: &Plan, ledgers: &[Ledger], summary: &Summary) -> Vec<Chart> {
    let subject = subject(plan, ledgers, summary);
    let mut charts = vec![scoreboard::draw(&subject)];
    if plan.sees_first_tokens() {
        charts.push(percentiles::draw(&subject));
    }
    charts.extend(heat::draw(&subject));
    if plan.sees_first_tokens() {
        charts.push(phases::draw(&subject));
    }
    charts.push(queue::draw(&subject));
    if plan.sees_engines() {
        charts.push(utilization::draw(&subject));
    }
    if plan.attribution.is_on() {
        charts.extend([lanes::draw(&subject), blame::draw(&subject)]);
    }
    if plan.sees_engines() {
        charts.push(shares::draw(&subject));
    }
    charts.extend(memory::draw(&subject));
    charts.push(load::draw(&subject));
    charts
}

/// The charts as files: (file name, SVG that stands alone, dark or light as the viewer prefers).
pub fn charts(plan: &Plan, ledgers: &[Ledger], summary: &Summary) -> Vec<(String, String)> {
    draw(plan, ledgers, summary).iter().map(standalone).collect()
}

/// A chart as a file.
pub(crate) fn standalone(chart: &Chart) -> (String, String) {
    const STYLE: &str = "<style>:root{--fg:#1b1f24;--bg:#fff;--blue:#0072b2}\
        @media(prefers-color-scheme:dark){:root{--fg:#e6e8eb;--bg:#16191d;--blue:#3d97d3}}\
        svg{background:var(--bg)}</style>";
    let begin = chart.svg.find('>').expect("a drawing begins with a tag") + 1;
    let (tag, rest) = chart.svg.split_at(begin);
    (format!("{}.svg", chart.name), format!("{tag}{STYLE}{rest}"))
}
